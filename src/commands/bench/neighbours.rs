//! Scenario `neighbours`: how much longer do healthy endpoints wait when others hang, refuse, or say that they are too busy?
//!
//! Each endpoint has a subscription and an event type of its own, and steady events go to all of them in turns. The same
//! load once more with everybody healthy is what it is compared with.

use std::collections::BTreeMap;
use std::time::Duration;

use posthaste::Result;
use posthaste::store::connect_once;
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::claims::Reading;
use super::crowd::{self, Wish};
use super::endpoints::{Endpoints, Manner};
use super::figures::{Figure, grouped, mebibytes, percentile, text};
use super::payload::payload;
use super::report::{Report, progress, table};
use super::steady::{Arrivals, Committed, Load};
use super::worker::Worker;
use super::{Bench, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "neighbours",
    about: "What endpoints that hang, refuse or limit cost the latency of the healthy ones",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let mut turns = Vec::new();
    for round in 1..=bench.plan.rounds {
        for town in &TOWNS {
            for bad in [false, true] {
                let mut turn = Turn::run(bench, town, bad).await?;
                turn.round = round;
                progress(&turn.line());
                turns.push(turn);
            }
        }
    }
    Ok(report(bench, &turns))
}

/// How many endpoints there are, and how many of them misbehave in which way.
#[derive(Debug, PartialEq, Eq)]
struct Town {
    endpoints: usize,
    bad: &'static [(Manner, usize)],
    /// Events a second, over all of them.
    rate: u32,
}

const TOWNS: [Town; 2] = [
    Town {
        endpoints: 50,
        bad: &[(Manner::Hangs, 1)],
        rate: 200,
    },
    Town {
        endpoints: 2000,
        bad: &[
            (Manner::Hangs, 20),
            (Manner::Refuses, 20),
            (Manner::TooBusy, 20),
        ],
        rate: 500,
    },
];

impl Town {
    /// How the endpoint in each place behaves. The bad ones stand at equal distances among the others.
    fn manners(&self, bad: bool) -> Vec<Manner> {
        let mut manners = vec![Manner::Healthy; self.endpoints];
        if bad {
            let all = || {
                self.bad
                    .iter()
                    .flat_map(|(manner, count)| std::iter::repeat_n(*manner, *count))
            };
            let distance = self.endpoints / all().count().max(1);
            for (place, manner) in all().enumerate() {
                manners[place * distance] = manner;
            }
        }
        manners
    }

    fn describe(&self, bad: bool) -> String {
        if !bad {
            return "all healthy".to_owned();
        }
        let parts = self.bad.iter().map(|(manner, count)| match manner {
            Manner::Hangs => format!("{count} hang"),
            Manner::Refuses => format!("{count} refuse the connection"),
            Manner::TooBusy => format!("{count} answer 429"),
            Manner::Healthy | Manner::Flooded => format!("{count} healthy"),
        });
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// One run of a town, with or without its bad endpoints.
struct Turn {
    town: &'static Town,
    bad: bool,
    round: usize,
    /// Commit to receipt at those endpoints that are healthy in both runs; milliseconds, sorted.
    receipt: Vec<f64>,
    /// What the worker's statements took over the whole run.
    reading: Reading,
    /// What attempts met.
    outcomes: BTreeMap<String, i64>,
    cpu: Option<f64>,
    peak: Option<u64>,
}

impl Turn {
    async fn run(bench: &Bench, town: &'static Town, bad: bool) -> Result<Self> {
        let mut endpoints = Endpoints::start(Duration::ZERO).await?;
        let database = bench.site.database().await?;
        let client = connect_once(&database.url).await?;
        let mut config = bench
            .site
            .config(&bench.plan, &database, &endpoints.receiver)?;
        config.set("endpoint_concurrency", CONCURRENCY)?;
        let manners = town.manners(bad);
        let wishes = wishes(&endpoints, &manners);
        crowd::subscribe(&client, &config, &wishes, RETRIES).await?;
        let load = Load {
            rate: bench.plan.steady_rate(town.rate),
            duration: WARM_UP + bench.plan.duration,
            event_types: wishes.into_iter().map(|wish| wish.event_type).collect(),
            tenants: Vec::new(),
        };
        let worker = Worker::start(&config).await?;
        owe_the_bad(&client, &manners, &load.event_types).await?;
        let committed = load.produce(&database.url).await?;
        let healthy = |place| manners[load.type_of(place)] == Manner::Healthy;
        let owed = committed.iter().filter(|event| healthy(event.place));
        let owed = owed.count() as u64;
        endpoints.receiver.wait(owed, PATIENCE).await?;
        let (usage, reading) = (worker.player.usage(), Reading::of(&worker).await?);
        let arrivals = Arrivals::of(&endpoints.receiver.stamps().await?);
        worker.player.end().await;
        endpoints.receiver.player.end().await;
        let turn = Self {
            town,
            bad,
            round: 0,
            receipt: receipt_times(town, &load, &committed, &arrivals)?,
            reading,
            outcomes: outcomes(&client).await?,
            cpu: usage.cpu,
            peak: usage.peak,
        };
        bench.site.remove(database).await?;
        Ok(turn)
    }

    fn line(&self) -> String {
        let at =
            |share| percentile(&self.receipt, share).map_or_else(String::new, |ms| grouped(ms, 1));
        format!(
            "neighbours, round {}, {} endpoints, {}: p50 {} ms, p99 {} ms",
            self.round,
            self.town.endpoints,
            self.town.describe(self.bad),
            at(0.5),
            at(0.99)
        )
    }

    fn json(&self) -> Value {
        let at = |share| percentile(&self.receipt, share);
        json!({
            "round": self.round,
            "endpoints": self.town.endpoints,
            "behaviour": self.town.describe(self.bad),
            "events_to_healthy_endpoints": self.receipt.len(),
            "to_receipt_ms": { "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) },
            "statements": self.reading.json(),
            "attempts_by_outcome": self.outcomes,
            "cpu_seconds": self.cpu,
            "peak_memory_bytes": self.peak,
        })
    }
}

fn wishes(endpoints: &Endpoints, manners: &[Manner]) -> Vec<Wish> {
    let wish = |(place, manner): (usize, &Manner)| Wish {
        name: format!("endpoint {place}"),
        url: endpoints.url(*manner, place),
        event_type: format!("bench.endpoint_{place}"),
        tenant: None,
    };
    manners.iter().enumerate().map(wish).collect()
}

/// Endpoints that misbehave have done so for a while: more is owed to each than may be sent to it at once.
async fn owe_the_bad(client: &Client, manners: &[Manner], types: &[String]) -> Result<()> {
    let bad = manners.iter().zip(types);
    let bad: Vec<&String> = bad
        .filter(|(manner, _)| **manner != Manner::Healthy)
        .map(|(_, event_type)| event_type)
        .collect();
    client
        .execute(FILL_TYPED, &[&bad, &payload(0), &OWED_TO_EACH])
        .await?;
    Ok(())
}

/// Of the endpoints that are healthy whether or not the others are, without the first seconds.
fn receipt_times(
    town: &Town,
    load: &Load,
    committed: &[Committed],
    arrivals: &Arrivals,
) -> Result<Vec<f64>> {
    let manners = town.manners(true);
    let first = u64::from(load.rate) * WARM_UP.as_secs();
    let measured = committed.iter().filter(|event| {
        event.place >= first && manners[load.type_of(event.place)] == Manner::Healthy
    });
    let mut times = measured
        .map(|event| arrivals.latency(event))
        .collect::<Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

pub(super) async fn outcomes(client: &Client) -> Result<BTreeMap<String, i64>> {
    let rows = client.query(OUTCOMES, &[]).await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

fn report(bench: &Bench, turns: &[Turn]) -> Report {
    let header = [
        "endpoints",
        "of them",
        "commit to receipt at the healthy: p50 ms",
        "p99 ms",
        "p50: x all healthy",
        "p99: x all healthy",
        "peak MiB",
    ];
    let mut page = table(&header, 2);
    for town in &TOWNS {
        for bad in [false, true] {
            let of = |bad| {
                turns
                    .iter()
                    .filter(move |turn| turn.town == town && turn.bad == bad)
            };
            let at = |share| {
                let times = of(bad).filter_map(|turn| percentile(&turn.receipt, share));
                text(Figure::of(times), 2)
            };
            let against = |share| {
                let pairs = of(bad).zip(of(false)).filter_map(|(turn, healthy)| {
                    Some(percentile(&turn.receipt, share)? / percentile(&healthy.receipt, share)?)
                });
                text(Figure::of(pairs), 2)
            };
            page.add_row([
                town.endpoints.to_string(),
                town.describe(bad),
                at(0.5),
                at(0.99),
                against(0.5),
                against(0.99),
                mebibytes(of(bad).filter_map(|turn| turn.peak).max()),
            ]);
        }
    }
    let rates = TOWNS.map(|town| bench.plan.steady_rate(town.rate).to_string());
    Report {
        title: "Neighbours: healthy endpoints beside bad ones; median (range) of the rounds"
            .to_owned(),
        tables: vec![page],
        notes: vec![
            format!(
                "{} events/s over all endpoints in turns; {OWED_TO_EACH} events are owed to each bad one before the clock. \
                 The first {} s are left out.",
                rates.join(" and "),
                WARM_UP.as_secs()
            ),
            format!(
                "Requests to one endpoint at once: {CONCURRENCY}, the worker's own default. Waits between attempts: {}.",
                RETRIES.join(", ")
            ),
        ],
        json: json!({ "turns": turns.iter().map(Turn::json).collect::<Vec<_>>() }),
    }
}

/// What the worker allows if nobody says otherwise; the benchmark's own default would be kinder to one fast endpoint.
const CONCURRENCY: &str = "16";
/// More than may be sent to one at once.
const OWED_TO_EACH: i32 = 20;
const RETRIES: &[&str] = &[
    "1 second",
    "2 seconds",
    "5 seconds",
    "10 seconds",
    "20 seconds",
];
/// Connections are opened in it, and the bad ones fill what they may hold.
const WARM_UP: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_mins(1);
const FILL_TYPED: &str = include_str!("../../../sql/bench/fill_typed.sql");
const OUTCOMES: &str = include_str!("../../../sql/bench/outcomes.sql");
