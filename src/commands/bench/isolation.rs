//! Scenario `isolation`: do partners wait longer because of other partners?
//!
//! 2,000 subscriptions to one event type, each of a tenant of its own, and steady events of all tenants in turns. In every
//! second turn some endpoints hang, some refuse the connection, some say that they are too busy, each already owed more than may be sent
//! to it at once, and one works but is far behind. What the others notice of it is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use posthaste::store::connect_once;
use posthaste::{Error, Result};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::claims::Reading;
use super::crowd::{self, Wish};
use super::endpoints::{Endpoints, Manner};
use super::figures::{Figure, float, grouped, mebibytes, percentile, text};
use super::meter::{Cost, Meter};
use super::neighbours::outcomes;
use super::payload::EVENT_TYPE;
use super::report::{Report, progress, table};
use super::steady::{Arrivals, Load};
use super::worker::Worker;
use super::{Bench, Scenario, bulk};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "isolation",
    about: "What 60 bad endpoints of 2,000, and one that is a million deliveries behind, cost the others' latency",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let mut turns = Vec::new();
    for round in 1..=bench.plan.rounds {
        for bad in [false, true] {
            let mut turn = Turn::run(bench, bad).await?;
            turn.round = round;
            progress(&turn.line());
            turns.push(turn);
        }
    }
    Ok(report(bench, &turns))
}

/// How the endpoint in each place behaves in the turns with bad ones, which stand at equal distances among the others.
fn manners() -> Vec<Manner> {
    let mut manners = vec![Manner::Healthy; SUBSCRIPTIONS];
    let all = || {
        BAD.iter()
            .flat_map(|(manner, count)| std::iter::repeat_n(*manner, *count))
    };
    let distance = SUBSCRIPTIONS / all().count().max(1);
    for (place, manner) in all().enumerate() {
        manners[place * distance] = manner;
    }
    manners
}

/// One run, with or without the bad endpoints.
struct Turn {
    bad: bool,
    round: usize,
    /// Commit to receipt at those endpoints that are healthy in both runs; milliseconds, sorted.
    receipt: Vec<f64>,
    /// Deliveries of the one that is behind, done while the clock ran.
    caught_up: i64,
    reading: Reading,
    outcomes: BTreeMap<String, i64>,
    cost: Cost,
    cpu: Option<f64>,
    peak: Option<u64>,
}

impl Turn {
    async fn run(bench: &Bench, bad: bool) -> Result<Self> {
        let mut endpoints = Endpoints::start(Duration::ZERO).await?;
        let database = bench.site.database().await?;
        let client = connect_once(&database.url).await?;
        let mut config = bench
            .site
            .config(&bench.plan, &database, &endpoints.receiver)?;
        config.set("endpoint_concurrency", CONCURRENCY)?;
        let measured = manners();
        let behave = |place: usize| {
            if bad {
                measured[place]
            } else {
                Manner::Healthy
            }
        };
        let wishes: Vec<Wish> = (0..SUBSCRIPTIONS)
            .map(|place| wish(&endpoints, behave(place), place))
            .collect();
        let ids = crowd::subscribe(&client, &config, &wishes, RETRIES).await?;
        let behind = measured
            .iter()
            .zip(&ids)
            .find(|(manner, _)| **manner == Manner::Flooded)
            .map_or(0, |(_, id)| *id);
        if bad {
            owe(&client, behind, bench.plan.backlog).await?;
            for (manner, id) in measured.iter().zip(&ids) {
                if !matches!(manner, Manner::Healthy | Manner::Flooded) {
                    queue(&client, *id, OWED_TO_EACH).await?;
                }
            }
        }
        // No upkeep of what was made falls into the time of the clock.
        client.batch_execute("vacuum analyze").await?;
        database.checkpoint().await;
        let load = Load {
            rate: bench.plan.steady_rate(RATE),
            duration: WARM_UP + bench.plan.duration,
            event_types: vec![EVENT_TYPE.to_owned()],
            tenants: wishes.into_iter().filter_map(|wish| wish.tenant).collect(),
        };
        let worker = Worker::start(&config).await?;
        let meter = Meter::start(&database).await?;
        let committed = load.produce(&database.url).await?;
        let owed = committed
            .iter()
            .filter(|event| behave(load.tenant_of(event.place)) == Manner::Healthy)
            .count() as u64;
        endpoints.receiver.wait(owed, PATIENCE).await?;
        let (usage, reading) = (worker.player.usage(), Reading::of(&worker).await?);
        let cost = meter.stop().await?;
        let caught_up = client
            .query_one(DELIVERIES_OF, &[&behind])
            .await?
            .try_get(0)?;
        let arrivals = Arrivals::of(&endpoints.receiver.stamps().await?);
        worker.player.end().await;
        endpoints.receiver.player.end().await;
        if arrivals.first.len() as u64 != owed {
            let missing = owed.abs_diff(arrivals.first.len() as u64);
            return Err(Error::Data(format!("{missing} events are missing")));
        }
        let first = u64::from(load.rate) * WARM_UP.as_secs();
        let good = committed.iter().filter(|event| {
            event.place >= first && measured[load.tenant_of(event.place)] == Manner::Healthy
        });
        let mut receipt = good
            .map(|event| arrivals.latency(event))
            .collect::<Result<Vec<f64>>>()?;
        receipt.sort_by(f64::total_cmp);
        let turn = Self {
            bad,
            round: 0,
            receipt,
            caught_up,
            reading,
            outcomes: outcomes(&client).await?,
            cost,
            cpu: usage.cpu,
            peak: usage.peak,
        };
        bench.site.remove(database).await?;
        Ok(turn)
    }

    fn at(&self, share: f64) -> Option<f64> {
        percentile(&self.receipt, share)
    }

    fn line(&self) -> String {
        let at = |share| self.at(share).map_or_else(String::new, |ms| grouped(ms, 2));
        format!(
            "isolation, round {}, {}: p50 {} ms, p95 {} ms, p99 {} ms",
            self.round,
            name(self.bad),
            at(0.5),
            at(0.95),
            at(0.99),
        )
    }

    fn json(&self) -> Value {
        json!({
            "round": self.round,
            "behaviour": name(self.bad),
            "events_to_good_endpoints": self.receipt.len(),
            "missing": 0,
            "to_receipt_ms": { "p50": self.at(0.5), "p95": self.at(0.95), "p99": self.at(0.99), "max": self.at(1.0) },
            "deliveries_of_the_one_behind": self.caught_up,
            "statements": self.reading.json(),
            "attempts_by_outcome": self.outcomes,
            "cpu_seconds": { "worker": self.cpu, "postgres": self.cost.server_cpu },
            "peak_memory_bytes": self.peak,
        })
    }
}

fn name(bad: bool) -> &'static str {
    if bad { "with the bad ones" } else { "all good" }
}

fn wish(endpoints: &Endpoints, manner: Manner, place: usize) -> Wish {
    Wish {
        name: format!("endpoint {place}"),
        url: endpoints.url(manner, place),
        event_type: EVENT_TYPE.to_owned(),
        tenant: Some(format!("tenant {place}")),
    }
}

/// Events of long ago, all of them waiting in the lane of one subscription, and due.
async fn owe(client: &Client, subscription: i32, deliveries: usize) -> Result<()> {
    bulk::commit(client, EVENT_TYPE, 0, deliveries.max(OWED_TO_EACH)).await?;
    client.batch_execute(OWE_NOTHING).await?;
    queue(client, subscription, deliveries).await
}

async fn queue(client: &Client, subscription: i32, deliveries: usize) -> Result<()> {
    let count = i64::try_from(deliveries).unwrap_or(i64::MAX);
    client
        .execute(FILL_QUEUE, &[&subscription, &count, &-TWO_HOURS, &false])
        .await?;
    client
        .execute(WAKE_LANE, &[&subscription, &-TWO_HOURS])
        .await?;
    Ok(())
}

fn report(bench: &Bench, turns: &[Turn]) -> Report {
    let header = [
        "beside",
        "commit to receipt at the good: p50 ms",
        "p95 ms",
        "p99 ms",
        "p50: x all good",
        "p95",
        "p99",
        "missing",
        "of the backlog done",
        "peak MiB",
    ];
    let mut page = table(&header, 1);
    for bad in [false, true] {
        let of = |bad| turns.iter().filter(move |turn: &&Turn| turn.bad == bad);
        let at = |share| text(Figure::of(of(bad).filter_map(|turn| turn.at(share))), 2);
        let against = |share| {
            let pairs = of(bad).zip(of(false));
            text(
                Figure::of(
                    pairs.filter_map(|(turn, good)| Some(turn.at(share)? / good.at(share)?)),
                ),
                2,
            )
        };
        let done = of(bad)
            .filter(|turn| turn.bad)
            .map(|turn| float(turn.caught_up.unsigned_abs()));
        page.add_row([
            name(bad).to_owned(),
            at(0.5),
            at(0.95),
            at(0.99),
            against(0.5),
            against(0.95),
            against(0.99),
            "0".to_owned(),
            text(Figure::of(done), 0),
            mebibytes(of(bad).filter_map(|turn| turn.peak).max()),
        ]);
    }
    Report {
        title: "Isolation: the good ones among 2,000 subscriptions; median (range) of the rounds"
            .to_owned(),
        tables: vec![page],
        notes: vec![
            format!(
                "{} events/s over all tenants in turns. The bad ones: 20 hang, 20 refuse the connection, 20 answer 429, each owed {OWED_TO_EACH} \
                 deliveries at the start; one works and is {} behind. The first {} s are left out.",
                bench.plan.steady_rate(RATE),
                grouped(float(bench.plan.backlog as u64), 0),
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

const SUBSCRIPTIONS: usize = 2000;
const BAD: [(Manner, usize); 4] = [
    (Manner::Hangs, 20),
    (Manner::Refuses, 20),
    (Manner::TooBusy, 20),
    (Manner::Flooded, 1),
];
/// Events a second, over all of them.
const RATE: u32 = 500;
/// What the worker allows if nobody says otherwise; the benchmark's own default would be kinder to one fast endpoint.
const CONCURRENCY: &str = "16";
/// More than may be sent to one at once.
const OWED_TO_EACH: usize = 100;
const RETRIES: &[&str] = &[
    "1 second",
    "2 seconds",
    "5 seconds",
    "10 seconds",
    "20 seconds",
];
/// In seconds; the due times are spread over the hour that follows.
const TWO_HOURS: f64 = 7200.0;
/// Connections are opened in it, and the bad ones fill what they may hold.
const WARM_UP: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_mins(1);
const FILL_QUEUE: &str = include_str!("../../../sql/bench/fill_queue.sql");
const WAKE_LANE: &str = include_str!("../../../sql/bench/wake_lane.sql");
const OWE_NOTHING: &str = include_str!("../../../sql/bench/owe_nothing.sql");
const DELIVERIES_OF: &str = include_str!("../../../sql/bench/deliveries_of.sql");
