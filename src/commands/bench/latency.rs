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
use super::part::micros_now;
use super::payload::payload;
use super::player::Player;
use super::poster::pace;
use super::receiver::Receiver;
use super::report::{Report, progress, table};
use super::site::Database;
use super::usage::Usage;
use super::worker::Worker;
use super::{Bench, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "latency",
    about: "",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let mut turns = Vec::new();
    for round in 1..=bench.plan.rounds {
        for competitor in COMPETITORS {
            let mut turn = competitor.turn(bench).await?;
            turn.round = round;
            progress(&turn.line());
            turns.push(turn);
        }
    }
    Ok(report(bench, &turns))
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

    async fn turn(self, bench: &Bench) -> Result<Turn> {
        let receiver = Receiver::start(false, true).await?;
        if self == Self::Bare {
            return bare(bench, receiver).await;
        }
        let database = bench.site.database().await?;
        let turn = match self {
            Self::Posthaste => posthaste(bench, &database, receiver).await?,
            _ => hand_loop(bench, &database, receiver).await?,
        };
        bench.site.remove(database).await?;
        Ok(turn)
    }
}

async fn posthaste(bench: &Bench, database: &Database, receiver: Receiver) -> Result<Turn> {
    let config = bench.site.config(&bench.plan, database, &receiver)?;
    database.subscribe(&receiver.url, &config).await?;
    let worker = Worker::start(&config).await?;
    let mut turn = observe(bench, database, receiver, &worker.player, Fill::Outbox).await?;
    turn.competitor = Competitor::Posthaste;
    turn.metrics = json!(worker.metrics().await?);
    worker.player.end().await;
    Ok(turn)
}

async fn hand_loop(bench: &Bench, database: &Database, receiver: Receiver) -> Result<Turn> {
    let part = json!({
        "part": "loop", "url": receiver.url, "ca": receiver.ca, "database": database.url,
        "tasks": 1, "idle_ms": 100, "deadline_ms": 0,
    });
    let mut player = Player::start("the hand-written loop", &part).await?;
    player.hear(Duration::from_secs(30)).await?;
    player.tell("go").await?;
    let mut turn = observe(bench, database, receiver, &player, Fill::Plain).await?;
    turn.competitor = Competitor::Loop;
    player.end().await;
    Ok(turn)
}

/// Produces at the rate, waits until all is received, and joins both ends by place.
async fn observe(
    bench: &Bench,
    database: &Database,
    mut receiver: Receiver,
    player: &Player,
    fill: Fill,
) -> Result<Turn> {
    let (cpu, server_cpu) = (player.usage().cpu, bench.site.server_cpu());
    let sent = produce(bench, &database.url, fill).await?;
    receiver.wait(sent.len() as u64, PATIENCE).await?;
    let usage = player.usage();
    let server_cpu = bench
        .site
        .server_cpu()
        .zip(server_cpu)
        .map(|(after, before)| after - before);
    let cpu = usage.cpu.zip(cpu).map(|(after, before)| after - before);
    let stamps = receiver.stamps().await?;
    receiver.player.end().await;
    let usage = Usage { cpu, ..usage };
    Turn::join(bench, &sent, &stamps, usage, server_cpu)
}

async fn bare(bench: &Bench, mut receiver: Receiver) -> Result<Turn> {
    let part = json!({
        "part": "poster", "url": receiver.url, "ca": receiver.ca,
        "count": count(bench), "rate": bench.plan.rates[0],
    });
    let mut player = Player::start("the HTTP client", &part).await?;
    player.hear(Duration::from_secs(30)).await?;
    player.tell("go").await?;
    let told = player.hear(bench.plan.duration + PATIENCE).await?;
    let sent: Vec<Sent> = told["sent"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Sent::read)
        .collect();
    let stamps = receiver.stamps().await?;
    let usage = player.usage();
    player.end().await;
    receiver.player.end().await;
    let mut turn = Turn::join(bench, &sent, &stamps, usage, None)?;
    turn.competitor = Competitor::Bare;
    Ok(turn)
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
async fn produce(bench: &Bench, database: &str, fill: Fill) -> Result<Vec<Sent>> {
    let mut sessions = Vec::new();
    for _ in 0..PRODUCERS {
        let client = connect_once(database).await?;
        let statement = client.prepare(fill.one()).await?;
        sessions.push(std::sync::Arc::new((client, statement)));
    }
    let mut due = pace(count(bench), u64::from(bench.plan.rates[0]))?;
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

/// One more second than is counted: connections are opened in it.
fn count(bench: &Bench) -> u64 {
    let rate = u64::from(bench.plan.rates[0]);
    rate + rate * u64::try_from(bench.plan.duration.as_millis()).unwrap_or(u64::MAX) / 1000
}

/// One competitor's turn in one round. Times in milliseconds, sorted.
struct Turn {
    competitor: Competitor,
    round: usize,
    /// From the commit (for a bare request: from its begin) to the receipt.
    receipt: Vec<f64>,
    /// From when it was due to the receipt.
    since_due: Vec<f64>,
    /// The insert with its commit, as the producer sees it (for a bare request: until its answer).
    own: Vec<f64>,
    usage: Usage,
    server_cpu: Option<f64>,
    metrics: Value,
}

impl Turn {
    fn join(
        bench: &Bench,
        sent: &[Sent],
        stamps: &[(u64, i64)],
        usage: Usage,
        server_cpu: Option<f64>,
    ) -> Result<Self> {
        let received: HashMap<u64, i64> = stamps.iter().copied().collect();
        let is_bare = server_cpu.is_none();
        let mut turn = Self {
            competitor: Competitor::Bare,
            round: 0,
            receipt: Vec::new(),
            since_due: Vec::new(),
            own: Vec::new(),
            usage,
            server_cpu,
            metrics: Value::Null,
        };
        for Sent {
            place,
            due,
            begun,
            over,
        } in sent
        {
            let at = received.get(place);
            let at = *at.ok_or_else(|| Error::Data(format!("event {place} never came")))?;
            if *place >= u64::from(bench.plan.rates[0]) {
                turn.receipt
                    .push(millis(at - if is_bare { *begun } else { *over }));
                turn.since_due.push(millis(at - due));
                turn.own.push(millis(over - begun));
            }
        }
        for times in [&mut turn.receipt, &mut turn.since_due, &mut turn.own] {
            times.sort_by(f64::total_cmp);
        }
        Ok(turn)
    }

    fn line(&self) -> String {
        let at =
            |share| percentile(&self.receipt, share).map_or_else(String::new, |ms| grouped(ms, 2));
        format!(
            "latency, round {}, {}: p50 {} ms, p99 {} ms",
            self.round,
            self.competitor.name(),
            at(0.5),
            at(0.99)
        )
    }

    fn json(&self) -> Value {
        let shares = |times: &[f64]| {
            let at = |share| percentile(times, share);
            json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) })
        };
        json!({
            "round": self.round,
            "competitor": self.competitor.name(),
            "events": self.receipt.len(),
            "milliseconds": {
                "to_receipt": shares(&self.receipt),
                "due_to_receipt": shares(&self.since_due),
                "insert_or_answer": shares(&self.own),
            },
            "cpu_seconds": { "sender": self.usage.cpu, "postgres": self.server_cpu },
            "peak_memory_bytes": self.usage.peak,
            "metrics": self.metrics,
        })
    }
}

type Times = fn(&Turn) -> &[f64];

fn report(bench: &Bench, turns: &[Turn]) -> Report {
    let header = [
        "who",
        "from, in ms",
        "p50",
        "p95",
        "p99",
        "max",
        "CPU % of a core",
        "Postgres CPU %",
    ];
    let mut page = table(&header, 2);
    for competitor in COMPETITORS {
        let ours: Vec<&Turn> = turns
            .iter()
            .filter(|turn| turn.competitor == competitor)
            .collect();
        let [to_receipt, own] = match competitor {
            Competitor::Bare => ["begin to receipt", "begin to answer"],
            _ => ["commit to receipt", "insert and commit"],
        };
        let cpu = |cpu: fn(&Turn) -> Option<f64>| {
            let seconds = ours.iter().filter_map(|turn| cpu(turn));
            text(Figure::of(seconds.map(|s| s * 100.0 / wall(bench))), 1)
        };
        let [cpu, server_cpu] = [cpu(|turn| turn.usage.cpu), cpu(|turn| turn.server_cpu)];
        let rows: [(&str, Times); 3] = [
            (to_receipt, |turn| &turn.receipt),
            ("due to receipt", |turn| &turn.since_due),
            (own, |turn| &turn.own),
        ];
        for (place, (from, times)) in rows.into_iter().enumerate() {
            let at = |share| {
                text(
                    Figure::of(
                        ours.iter()
                            .filter_map(|turn| percentile(times(turn), share)),
                    ),
                    2,
                )
            };
            let first = |text: &str| {
                if place == 0 {
                    text.to_owned()
                } else {
                    String::new()
                }
            };
            page.add_row([
                first(competitor.name()),
                from.to_owned(),
                at(0.5),
                at(0.95),
                at(0.99),
                at(1.0),
                first(&cpu),
                first(&server_cpu),
            ]);
        }
    }
    let rate = grouped(f64::from(bench.plan.rates[0]), 0);
    Report {
        title: format!(
            "Latency: {rate} single-row transactions a second; median (range) of the rounds"
        ),
        tables: vec![page],
        notes: vec![NOTE.to_owned()],
        json: json!({ "turns": turns.iter().map(Turn::json).collect::<Vec<_>>() }),
    }
}

/// Seconds that a turn takes.
fn wall(bench: &Bench) -> f64 {
    float(count(bench)) / f64::from(bench.plan.rates[0])
}

#[expect(clippy::cast_precision_loss, reason = "differences of a few seconds")]
fn millis(micros: i64) -> f64 {
    micros as f64 / 1000.0
}

/// Sessions that insert: a slow commit must not hold back the next event.
const PRODUCERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);
const NOTE: &str = "Plain HTTP. Due times are fixed in advance; the first second is left out. A commit is over when the producer has its \
    answer, so a receipt can come before it.";
