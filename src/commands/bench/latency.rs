//! Scenario `latency`: how long an event takes from its commit to its receipt, at a steady rate.
//!
//! An open loop: when each event is due is fixed in advance, so one that is late does not hold back the next, and hides nothing.

use std::collections::HashMap;
use std::time::Duration;

use posthaste::store::connect_once;
use posthaste::{Error, Result};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::figures::{Figure, float, grouped, percentile, text};
use super::fill::Fill;
use super::meter::{Cost, Meter};
use super::part::micros_now;
use super::payload::payload;
use super::player::Player;
use super::poster::pace;
use super::receiver::Receiver;
use super::report::{Report, known, progress, table};
use super::site::Database;
use super::usage::Usage;
use super::worker::Worker;
use super::{Bench, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "latency",
    about: "How long from commit to receipt at 50, 200 and 1,000 events/s, beside a bare POST",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let rates = if bench.plan.rates.is_empty() {
        RATES
    } else {
        &bench.plan.rates
    };
    let mut turns = Vec::new();
    for round in 1..=bench.plan.rounds {
        for &rate in rates {
            let load = Load {
                rate: u64::from(rate),
                duration: bench.plan.duration,
            };
            for competitor in COMPETITORS.into_iter().filter(|it| it.can_hold(load)) {
                let mut turn = competitor.turn(bench, load).await?;
                turn.round = round;
                progress(&turn.line());
                turns.push(turn);
            }
        }
    }
    Ok(report(bench, rates, &turns))
}

/// Events a second, and for how long.
#[derive(Clone, Copy)]
struct Load {
    rate: u64,
    duration: Duration,
}

impl Load {
    /// One more second than is counted: connections are opened in it.
    fn count(self) -> u64 {
        let duration = u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX);
        self.rate + self.rate * duration / 1000
    }

    /// Seconds that it lasts.
    fn seconds(self) -> f64 {
        float(self.count()) / float(self.rate)
    }
}

/// Who brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Competitor {
    Posthaste,
    Loop,
    /// The same HTTP client without a database.
    Bare,
}

const COMPETITORS: [Competitor; 3] = [Competitor::Posthaste, Competitor::Loop, Competitor::Bare];

impl Competitor {
    fn name(self) -> &'static str {
        match self {
            Self::Posthaste => "posthaste, 1 worker",
            Self::Loop => "hand-written loop, polls every 100 ms",
            Self::Bare => "bare POST, no database",
        }
    }

    /// A loop that falls behind tells how long the turn was, not how fast it is.
    fn can_hold(self, load: Load) -> bool {
        self != Self::Loop || load.rate <= LOOP_RATE
    }

    async fn turn(self, bench: &Bench, load: Load) -> Result<Turn> {
        let receiver = Receiver::start(false, true).await?;
        if self == Self::Bare {
            return bare(load, receiver).await;
        }
        let database = bench.site.database().await?;
        database.checkpoint().await;
        let turn = match self {
            Self::Posthaste => posthaste(bench, load, &database, receiver).await?,
            _ => hand_loop(load, &database, receiver).await?,
        };
        bench.site.remove(database).await?;
        Ok(turn)
    }
}

async fn posthaste(
    bench: &Bench,
    load: Load,
    database: &Database,
    receiver: Receiver,
) -> Result<Turn> {
    let config = bench.site.config(&bench.plan, database, &receiver)?;
    database.subscribe(&receiver.url, &config).await?;
    let worker = Worker::start(&config).await?;
    let mut turn = observe(load, database, receiver, &worker.player, Fill::Outbox).await?;
    turn.competitor = Competitor::Posthaste;
    turn.metrics = json!(worker.metrics().await?);
    worker.player.end().await;
    Ok(turn)
}

async fn hand_loop(load: Load, database: &Database, receiver: Receiver) -> Result<Turn> {
    let part = json!({
        "part": "loop", "url": receiver.url, "ca": receiver.ca, "database": database.url,
        "tasks": 1, "idle_ms": 100, "deadline_ms": 0,
    });
    let mut player = Player::start("the hand-written loop", &part).await?;
    player.hear(Duration::from_secs(30)).await?;
    player.tell("go").await?;
    let mut turn = observe(load, database, receiver, &player, Fill::Plain).await?;
    turn.competitor = Competitor::Loop;
    player.end().await;
    Ok(turn)
}

/// Produces at the rate, waits until all is received, and joins both ends by place.
async fn observe(
    load: Load,
    database: &Database,
    mut receiver: Receiver,
    player: &Player,
    fill: Fill,
) -> Result<Turn> {
    let before = player.usage();
    let meter = Meter::start(database).await?;
    let sent = produce(load, &database.url, fill).await?;
    receiver.wait(sent.len() as u64, PATIENCE).await?;
    let cost = meter.stop().await?;
    let usage = player.usage().since(before);
    let stamps = receiver.stamps().await?;
    receiver.player.end().await;
    Turn::join(load, &sent, &stamps, usage, Some(cost))
}

async fn bare(load: Load, mut receiver: Receiver) -> Result<Turn> {
    let part = json!({
        "part": "poster", "url": receiver.url, "ca": receiver.ca,
        "count": load.count(), "rate": load.rate,
    });
    let mut player = Player::start("the HTTP client", &part).await?;
    player.hear(Duration::from_secs(30)).await?;
    let before = player.usage();
    player.tell("go").await?;
    let told = player.hear(load.duration + PATIENCE).await?;
    let sent: Vec<Sent> = told["sent"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Sent::read)
        .collect();
    let stamps = receiver.stamps().await?;
    let usage = player.usage().since(before);
    player.end().await;
    receiver.player.end().await;
    Turn::join(load, &sent, &stamps, usage, None)
}

/// When an event, or a bare request, was due, begun and over: inserted and committed, or answered. Microseconds since 1970.
struct Sent {
    place: u64,
    due: i64,
    begun: i64,
    over: i64,
}

impl Sent {
    fn read(told: &Value) -> Option<Self> {
        let time = |place: usize| told[place].as_i64();
        Some(Self {
            place: told[0].as_u64()?,
            due: time(1)?,
            begun: time(2)?,
            over: time(3)?,
        })
    }
}

/// Inserts one event a transaction at the rate, over a few sessions in turns.
async fn produce(load: Load, database: &str, fill: Fill) -> Result<Vec<Sent>> {
    let mut sessions = Vec::new();
    for _ in 0..PRODUCERS {
        let client = connect_once(database).await?;
        let statement = client.prepare(fill.one()).await?;
        sessions.push(std::sync::Arc::new((client, statement)));
    }
    let mut due = pace(load.count(), load.rate)?;
    let mut inserting = JoinSet::new();
    let mut turns = sessions.iter().cycle();
    while let (Some((place, due)), Some(session)) = (due.recv().await, turns.next()) {
        let session = std::sync::Arc::clone(session);
        inserting.spawn(async move {
            let begun = micros_now();
            session.0.execute(&session.1, &[&payload(place)]).await?;
            Ok::<_, Error>(Sent {
                place,
                due,
                begun,
                over: micros_now(),
            })
        });
    }
    let mut sent = Vec::new();
    while let Some(ended) = inserting.join_next().await {
        sent.push(ended.map_err(|_| Error::Database("a producer panicked".to_owned()))??);
    }
    Ok(sent)
}

/// One competitor's turn in one round. Times in milliseconds, sorted.
struct Turn {
    competitor: Competitor,
    load: Load,
    round: usize,
    /// From the commit (for a bare request: from its begin) to the receipt.
    receipt: Vec<f64>,
    /// From when it was due to the receipt.
    since_due: Vec<f64>,
    /// The insert with its commit, as the producer sees it (for a bare request: until its answer).
    own: Vec<f64>,
    usage: Usage,
    /// Of the server; none for a bare request.
    cost: Option<Cost>,
    metrics: Value,
}

impl Turn {
    fn join(
        load: Load,
        sent: &[Sent],
        stamps: &[(u64, i64)],
        usage: Usage,
        cost: Option<Cost>,
    ) -> Result<Self> {
        let received: HashMap<u64, i64> = stamps.iter().copied().collect();
        let mut turn = Self {
            competitor: Competitor::Bare,
            load,
            round: 0,
            receipt: Vec::new(),
            since_due: Vec::new(),
            own: Vec::new(),
            usage,
            cost,
            metrics: Value::Null,
        };
        let is_bare = turn.cost.is_none();
        for sent in sent {
            let place = sent.place;
            let at = received.get(&place);
            let at = *at.ok_or_else(|| Error::Data(format!("event {place} never came")))?;
            if place >= load.rate {
                let from = if is_bare { sent.begun } else { sent.over };
                turn.receipt.push(millis(at - from));
                turn.since_due.push(millis(at - sent.due));
                turn.own.push(millis(sent.over - sent.begun));
            }
        }
        for times in [&mut turn.receipt, &mut turn.since_due, &mut turn.own] {
            times.sort_by(f64::total_cmp);
        }
        Ok(turn)
    }

    fn receipt(&self, share: f64) -> Option<f64> {
        percentile(&self.receipt, share)
    }

    fn line(&self) -> String {
        let at = |share| known(self.receipt(share), 2);
        format!(
            "latency, {}/s, round {}, {}: p50 {} ms, p99 {} ms",
            grouped(float(self.load.rate), 0),
            self.round,
            self.competitor.name(),
            at(0.5),
            at(0.99)
        )
    }

    /// With how much the receipt takes longer than that of the bare request in the same round.
    fn json(&self, bare: &Self) -> Value {
        let shares = |times: &[f64]| {
            let at = |share| percentile(times, share);
            json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) })
        };
        json!({
            "round": self.round,
            "events_per_second": self.load.rate,
            "competitor": self.competitor.name(),
            "events": self.receipt.len(),
            "milliseconds": {
                "to_receipt": shares(&self.receipt),
                "to_receipt_above_a_bare_post": {
                    "p50": above(self, bare, 0.5), "p99": above(self, bare, 0.99),
                },
                "due_to_receipt": shares(&self.since_due),
                "insert_or_answer": shares(&self.own),
            },
            "cpu_seconds": {
                "sender": self.usage.cpu, "postgres": self.cost.as_ref().and_then(|cost| cost.server_cpu),
            },
            "wal_bytes": self.cost.as_ref().map(|cost| cost.wal),
            "peak_memory_bytes": self.usage.peak,
            "metrics": self.metrics,
        })
    }
}

/// How many milliseconds later than the bare request's the receipt comes, at this share of both.
fn above(turn: &Turn, bare: &Turn, share: f64) -> Option<f64> {
    Some(turn.receipt(share)? - bare.receipt(share)?)
}

fn report(bench: &Bench, rates: &[u32], turns: &[Turn]) -> Report {
    let mut receipts = table(&RECEIPTS, 2);
    let mut others = table(&OTHERS, 3);
    for &rate in rates {
        for competitor in COMPETITORS {
            let of = |who: Competitor| {
                let is_it =
                    move |turn: &&Turn| turn.competitor == who && turn.load.rate == u64::from(rate);
                turns.iter().filter(is_it).collect::<Vec<_>>()
            };
            let (ours, bare) = (of(competitor), of(Competitor::Bare));
            if !ours.is_empty() {
                receipts.add_row(receipt_row(&ours, &bare));
                others.add_row(other_row(&ours, "due to receipt", |turn| &turn.since_due));
                let own = if competitor == Competitor::Bare {
                    "begin to answer"
                } else {
                    "insert and commit"
                };
                others.add_row(other_row(&ours, own, |turn| &turn.own));
            }
        }
    }
    let told = turns.iter().filter_map(|turn| {
        let is_its = |it: &&Turn| {
            (it.competitor, it.round, it.load.rate)
                == (Competitor::Bare, turn.round, turn.load.rate)
        };
        Some(turn.json(turns.iter().find(is_its)?))
    });
    Report {
        title: format!(
            "Latency: single-row transactions at a steady rate, {:?} a turn; median (range) of the rounds",
            bench.plan.duration
        ),
        tables: vec![receipts, others],
        notes: vec![NOTE.to_owned()],
        json: json!({ "turns": told.collect::<Vec<_>>() }),
    }
}

/// From commit to receipt, for one rate and competitor; `bare` are the bare requests of the same rounds.
fn receipt_row(ours: &[&Turn], bare: &[&Turn]) -> Vec<String> {
    let Some(first) = ours.first() else {
        return Vec::new();
    };
    let at = |share| Figure::of(ours.iter().filter_map(|turn| turn.receipt(share)));
    let above = |share| {
        let pairs = ours.iter().zip(bare);
        let pairs = pairs.filter(|_| first.competitor != Competitor::Bare);
        Figure::of(pairs.filter_map(|(turn, bare)| above(turn, bare, share)))
    };
    let percent = |cpu: &dyn Fn(&Turn) -> Option<f64>| {
        let seconds = ours.iter().filter_map(|turn| cpu(turn));
        text(
            Figure::of(seconds.map(|seconds| seconds * 100.0 / first.load.seconds())),
            1,
        )
    };
    vec![
        grouped(float(first.load.rate), 0),
        first.competitor.name().to_owned(),
        text(at(0.5), 2),
        text(at(0.95), 2),
        text(at(0.99), 2),
        text(at(1.0), 2),
        text(above(0.5), 2),
        text(above(0.99), 2),
        percent(&|turn| turn.usage.cpu),
        percent(&|turn| turn.cost.as_ref()?.server_cpu),
    ]
}

fn other_row(ours: &[&Turn], from: &str, times: fn(&Turn) -> &[f64]) -> Vec<String> {
    let Some(first) = ours.first() else {
        return Vec::new();
    };
    let at = |share| {
        let values = ours
            .iter()
            .filter_map(|turn| percentile(times(turn), share));
        text(Figure::of(values), 2)
    };
    vec![
        grouped(float(first.load.rate), 0),
        first.competitor.name().to_owned(),
        from.to_owned(),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "differences of a few seconds")]
fn millis(micros: i64) -> f64 {
    micros as f64 / 1000.0
}

const RECEIPTS: [&str; 10] = [
    "events/s",
    "who",
    "commit to receipt, ms: p50",
    "p95",
    "p99",
    "max",
    "above a bare POST: p50",
    "p99",
    "CPU % of a core: sender",
    "Postgres",
];
const OTHERS: [&str; 7] = ["events/s", "who", "from, in ms", "p50", "p95", "p99", "max"];
/// Events a second, where none are given.
const RATES: &[u32] = &[50, 200, 1000];
/// As many events a second as the loop can be expected to hold.
const LOOP_RATE: u64 = 500;
/// Sessions that insert: a slow commit must not hold back the next event.
const PRODUCERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);
const NOTE: &str = "Plain HTTP. Due times are fixed in advance; the first second is left out. A commit is over when the producer has its \
    answer, so a receipt can come before it. For a bare POST: from its begin to the receipt. The loop has no turn above 500 events/s, \
    where one request after the other would fall behind.";
