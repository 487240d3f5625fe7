//! Scenario `drain`: how fast committed events reach one endpoint.

use std::time::Duration;

use comfy_table::Table;
use posthaste::Result;
use serde_json::{Value, json};

use super::drained::{Backlog, Drained, patience};
use super::figures::{Figure, float, grouped, text};
use super::fill::{BATCH, Fill, Filled};
use super::meter::{Cost, Meter, checkpoint_note, micros_each};
use super::player::Player;
use super::receiver::Receiver;
use super::report::{Report, known, progress, table};
use super::site::Database;
use super::usage::Usage;
use super::work::Work;
use super::{Bench, Scenario, part};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "drain",
    about: "How fast a backlog reaches one endpoint, over HTTP and HTTPS, by one and two workers",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let mut seen = Seen::default();
    for round in 1..=bench.plan.rounds {
        let inserted = alone(bench).await?;
        progress(&format!(
            "drain, round {round}, Postgres alone: {} inserts/s",
            grouped(inserted.rate(), 0)
        ));
        seen.alone.push(inserted);
        for tls in [false, true] {
            for competitor in COMPETITORS {
                let turn = competitor.drain(bench, round, tls).await?;
                progress(&turn.line());
                seen.turns.push(turn);
            }
        }
    }
    Ok(seen.report(bench))
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Competitor {
    /// So many workers.
    Posthaste(usize),
    /// So many hand-written loops side by side.
    Loop(usize),
    /// The same HTTP client without a database.
    Limit,
}

const COMPETITORS: [Competitor; 5] = [
    Competitor::Posthaste(1),
    Competitor::Posthaste(2),
    Competitor::Loop(1),
    Competitor::Loop(8),
    Competitor::Limit,
];

impl Competitor {
    fn name(self) -> String {
        match self {
            Self::Posthaste(1) => "posthaste, 1 worker".to_owned(),
            Self::Posthaste(workers) => format!("posthaste, {workers} workers"),
            Self::Loop(1) => "hand-written loop".to_owned(),
            Self::Loop(tasks) => format!("hand-written loop, {tasks} at once"),
            Self::Limit => "HTTP alone (limit)".to_owned(),
        }
    }

    async fn drain(self, bench: &Bench, round: usize, tls: bool) -> Result<Turn> {
        let mut turn = match self {
            Self::Posthaste(workers) => {
                let backlog = Backlog {
                    workers,
                    tls,
                    ..Backlog::of(bench.plan.events)
                };
                Turn::of(backlog.drain(bench).await?)
            }
            Self::Loop(tasks) => hand_loop(bench, tls, tasks).await?,
            Self::Limit => limit(bench, tls).await?,
        };
        (turn.competitor, turn.round, turn.tls) = (self, round, tls);
        Ok(turn)
    }
}

/// Postgres alone doing the same inserts, into a table of the outbox's shape.
async fn alone(bench: &Bench) -> Result<Filled> {
    let database = bench.site.database().await?;
    let inserted = database.fill(Fill::SameShape, bench.plan.events).await?;
    bench.site.remove(database).await?;
    Ok(inserted)
}

/// A slow competitor gets fewer events, and only so much time: what counts is how many it sends in a second.
async fn hand_loop(bench: &Bench, tls: bool, tasks: usize) -> Result<Turn> {
    let receiver = Receiver::start(tls, false).await?;
    let database = bench.site.database().await?;
    let rows = (bench.plan.events / 5).clamp(1, bench.plan.events);
    let filled = database.fill(Fill::Plain, rows).await?;
    let part = json!({
        "part": "loop", "url": receiver.url, "ca": receiver.ca, "database": database.url,
        "tasks": tasks, "deadline_ms": LOOP_TIME.as_millis(),
    });
    let mut turn = go("the hand-written loop", &part, bench, &database, receiver).await?;
    turn.filled = Some(filled);
    bench.site.remove(database).await?;
    Ok(turn)
}

async fn limit(bench: &Bench, tls: bool) -> Result<Turn> {
    let receiver = Receiver::start(tls, false).await?;
    let database = bench.site.database().await?;
    let part = json!({
        "part": "poster", "url": receiver.url, "ca": receiver.ca, "count": bench.plan.events,
        "concurrency": bench.plan.config.endpoint_concurrency,
    });
    let turn = go("the HTTP client", &part, bench, &database, receiver).await?;
    bench.site.remove(database).await?;
    Ok(turn)
}

/// Lets a part get ready, and run to its end by the clock.
async fn go(
    name: &'static str,
    part: &Value,
    bench: &Bench,
    database: &Database,
    mut receiver: Receiver,
) -> Result<Turn> {
    let mut player = Player::start(name, part).await?;
    player.hear(Duration::from_secs(30)).await?;
    let meter = Meter::start(database).await?;
    player.tell("go").await?;
    let told = player.hear(patience(bench.plan.events as u64)).await?;
    let cost = meter.stop().await?;
    let used = [player.usage(), receiver.player.usage()];
    let deliveries = receiver.count().await?.min(part::number(&told, "sent")?);
    player.end().await;
    receiver.player.end().await;
    Ok(Turn {
        competitor: Competitor::Limit,
        round: 0,
        tls: false,
        deliveries,
        cost,
        used,
        filled: None,
        work: None,
    })
}

/// One competitor's turn in one round.
struct Turn {
    competitor: Competitor,
    round: usize,
    tls: bool,
    deliveries: u64,
    cost: Cost,
    /// By who sends, and by the receiver.
    used: [Usage; 2],
    /// The inserts before the clock.
    filled: Option<Filled>,
    work: Option<Work>,
}

impl Turn {
    fn of(drained: Drained) -> Self {
        Self {
            competitor: Competitor::Limit,
            round: 0,
            tls: false,
            deliveries: drained.deliveries,
            cost: drained.cost,
            used: drained.used,
            filled: Some(drained.filled),
            work: Some(drained.work),
        }
    }

    fn transport(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    fn rate(&self) -> f64 {
        float(self.deliveries) / self.cost.seconds
    }

    /// Of seconds: microseconds for each delivery.
    fn each(&self, seconds: Option<f64>) -> Option<f64> {
        micros_each(seconds, self.deliveries)
    }

    /// Of the server, where the competitor uses it.
    fn server_cpu(&self) -> Option<f64> {
        self.cost.server_cpu.filter(|_| self.filled.is_some())
    }

    fn wal(&self) -> Option<Wal> {
        let filled = self.filled.as_ref()?;
        Some(Wal {
            insert: filled.wal_each(),
            deliver: self.cost.wal_each(self.deliveries),
            payload: filled.payload_each(),
        })
    }

    fn line(&self) -> String {
        format!(
            "drain, {}, round {}, {}: {} deliveries, {}/s",
            self.transport(),
            self.round,
            self.competitor.name(),
            self.deliveries,
            grouped(self.rate(), 0)
        )
    }

    fn json(&self) -> Value {
        let [sender, receiver] = self.used;
        json!({
            "round": self.round,
            "transport": self.transport(),
            "competitor": self.competitor.name(),
            "deliveries": self.deliveries,
            "seconds": self.cost.seconds,
            "deliveries_per_second": self.rate(),
            "cpu_seconds": {
                "sender": sender.cpu, "receiver": receiver.cpu, "postgres": self.server_cpu(),
            },
            "peak_memory_bytes": { "sender": sender.peak, "receiver": receiver.peak },
            "wal_bytes": self.wal().map(Wal::json),
            "checkpointed_meanwhile": self.cost.checkpointed,
            "inserts": self.filled.as_ref().map(|filled| filled.cost.json(float(filled.rows))),
            "work": self.work.as_ref().map(Work::json),
        })
    }
}

/// Bytes of WAL for each event, from its insert to its last trace.
#[derive(Clone, Copy)]
struct Wal {
    insert: f64,
    deliver: f64,
    payload: f64,
}

impl Wal {
    fn above_payload(self) -> f64 {
        self.insert + self.deliver - self.payload
    }

    fn json(self) -> Value {
        json!({
            "insert_per_event": self.insert,
            "deliver_per_delivery": self.deliver,
            "payload_per_event": self.payload,
            "above_the_payload": self.above_payload(),
        })
    }
}

/// Everything that the rounds gave.
#[derive(Default)]
struct Seen {
    turns: Vec<Turn>,
    /// Of Postgres alone, one each round.
    alone: Vec<Filled>,
}

impl Seen {
    fn of(&self, tls: bool, competitor: Competitor) -> impl Iterator<Item = &Turn> {
        let is_it = move |turn: &&Turn| turn.tls == tls && turn.competitor == competitor;
        self.turns.iter().filter(is_it)
    }

    fn report(&self, bench: &Bench) -> Report {
        let events = grouped(float(bench.plan.events as u64), 0);
        let mut tables = vec![self.rates(), self.costs(), self.inserts()];
        let mut notes = vec![NOTE.to_owned(), WAL_NOTE.to_owned()];
        let costs = self.turns.iter().map(|turn| &turn.cost);
        notes.extend(checkpoint_note(costs));
        let last = self.of(false, Competitor::Posthaste(1)).last();
        if let Some((turn, work)) = last.and_then(|turn| Some((turn, turn.work.as_ref()?))) {
            tables.extend(work.tables(turn.deliveries));
            notes.push(work.note());
        }
        let alone = self
            .alone
            .iter()
            .map(|alone| alone.cost.json(float(alone.rows)));
        Report {
            title: format!(
                "Drain: {events} committed events to one endpoint; median (range) of the rounds"
            ),
            tables,
            notes,
            json: json!({
                "turns": self.turns.iter().map(Turn::json).collect::<Vec<_>>(),
                "postgres_alone": alone.collect::<Vec<_>>(),
            }),
        }
    }

    /// How fast, and beside whom.
    fn rates(&self) -> Table {
        let header = [
            "over",
            "who",
            "deliveries/s",
            "x the loop",
            "of HTTP alone",
            "of Postgres alone",
        ];
        self.page(&header, |tls, competitor| {
            let ours = || self.of(tls, competitor);
            let against = |who: Competitor| {
                let pairs = ours().zip(self.of(tls, who));
                Figure::of(pairs.map(|(turn, other)| turn.rate() / other.rate()))
            };
            let pairs = ours().zip(&self.alone);
            let alone = pairs.filter(|(turn, _)| turn.filled.is_some());
            let alone = Figure::of(alone.map(|(turn, alone)| turn.rate() / alone.rate()));
            vec![
                text(Figure::of(ours().map(Turn::rate)), 0),
                text(against(Competitor::Loop(1)), 2),
                text(against(Competitor::Limit), 2),
                text(alone, 2),
            ]
        })
    }

    /// At what price for each delivery.
    fn costs(&self) -> Table {
        let header = [
            "over",
            "who",
            "CPU µs each: sender",
            "receiver",
            "Postgres",
            "sender's peak MiB",
            "WAL bytes: insert",
            "deliver",
            "above the payload",
        ];
        self.page(&header, |tls, competitor| {
            let ours = || self.of(tls, competitor);
            let median = |of: &dyn Fn(&Turn) -> Option<f64>| {
                known(
                    Figure::of(ours().filter_map(of)).map(|figure| figure.median),
                    0,
                )
            };
            let wal = |of: fn(Wal) -> f64| {
                text(Figure::of(ours().filter_map(|turn| turn.wal().map(of))), 0)
            };
            let peak = ours().filter_map(|turn| turn.used[0].peak).max();
            vec![
                median(&|turn| turn.each(turn.used[0].cpu)),
                median(&|turn| turn.each(turn.used[1].cpu)),
                median(&|turn| turn.each(turn.server_cpu())),
                known(peak.map(|bytes| float(bytes) / MIB), 0),
                wal(|wal| wal.insert),
                wal(|wal| wal.deliver),
                wal(Wal::above_payload),
            ]
        })
    }

    /// A row for each transport and competitor.
    fn page(&self, header: &[&str], row: impl Fn(bool, Competitor) -> Vec<String>) -> Table {
        let mut page = table(header, 2);
        for tls in [false, true] {
            for competitor in COMPETITORS {
                let Some(first) = self.of(tls, competitor).next() else {
                    continue;
                };
                let words = [first.transport().to_owned(), competitor.name()];
                page.add_row(words.into_iter().chain(row(tls, competitor)));
            }
        }
        page
    }

    /// What Postgres took for the inserts, before any clock of a delivery.
    fn inserts(&self) -> Table {
        let header = format!("inserts, {BATCH} a transaction, into");
        let header = [
            header.as_str(),
            "rows/s",
            "of the plain table",
            "CPU µs each: Postgres",
            "WAL bytes each",
        ];
        let mut page = table(&header, 1);
        let filled = |competitor| {
            let turns = self.of(false, competitor);
            turns.filter_map(|turn| turn.filled.as_ref()).collect()
        };
        let rows: [(&str, Vec<&Filled>); 3] = [
            (
                "a plain table of the outbox's shape",
                self.alone.iter().collect(),
            ),
            (
                "the outbox, no worker running",
                filled(Competitor::Posthaste(1)),
            ),
            ("the hand-written loop's table", filled(Competitor::Loop(1))),
        ];
        for (name, filled) in rows {
            let figure = |of: &dyn Fn(&Filled) -> Option<f64>, decimals| {
                text(Figure::of(filled.iter().filter_map(|it| of(it))), decimals)
            };
            let pairs = filled.iter().zip(&self.alone);
            let ratio = Figure::of(pairs.map(|(filled, alone)| filled.rate() / alone.rate()));
            let cpu = |it: &Filled| it.cost.server_cpu_each(it.rows);
            page.add_row([
                name.to_owned(),
                figure(&|it| Some(it.rate()), 0),
                text(ratio, 2),
                figure(&cpu, 1),
                figure(&|it| Some(it.wal_each()), 0),
            ]);
        }
        page
    }
}

const MIB: f64 = 1_048_576.0;
/// After so long a loop is stopped.
const LOOP_TIME: Duration = Duration::from_secs(5);
const NOTE: &str = "The loop drains a fifth of the events, or as many as it can in 5 s. Posthaste's clock includes the start of its \
    process; of two workers, processor time is the sum and the peak that of the larger one. `Of Postgres alone` is deliveries/s beside \
    the inserts/s of the same payloads into a plain table.";
const WAL_NOTE: &str = "Each turn has a database of its own. Its checkpoint, where the role may ask for one, lies before the inserts, so whole-page images are where they \
    are in life: an event is delivered in the checkpoint cycle in which it was inserted. `Above the payload` is insert + deliver - the \
    payload's own bytes; the inserts are batches, one row a transaction takes more (see producers).";
