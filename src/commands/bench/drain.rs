//! Scenario `drain`: how fast committed events reach one endpoint.

mod work;

use std::time::Duration;

use comfy_table::Table;
use posthaste::Result;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::work::Work;
use super::figures::{Figure, float, grouped, text};
use super::player::Player;
use super::receiver::Receiver;
use super::report::{Report, progress, table};
use super::site::{Database, Fill};
use super::usage::Usage;
use super::worker::Worker;
use super::{Bench, Scenario, part};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "drain",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let mut turns = Vec::new();
    for round in 1..=bench.plan.rounds {
        for tls in [false, true] {
            for competitor in COMPETITORS {
                let turn = competitor.drain(bench, round, tls).await?;
                progress(&turn.line());
                turns.push(turn);
            }
        }
    }
    Ok(report(bench, &turns))
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Competitor {
    Posthaste,
    /// So many hand-written loops side by side.
    Loop(usize),
    /// The same HTTP client without a database.
    Limit,
}

const COMPETITORS: [Competitor; 4] = [
    Competitor::Posthaste,
    Competitor::Loop(1),
    Competitor::Loop(8),
    Competitor::Limit,
];

impl Competitor {
    fn name(self) -> String {
        match self {
            Self::Posthaste => "posthaste, 1 worker".to_owned(),
            Self::Loop(1) => "hand-written loop".to_owned(),
            Self::Loop(tasks) => format!("hand-written loop, {tasks} at once"),
            Self::Limit => "HTTP alone (limit)".to_owned(),
        }
    }

    async fn drain(self, bench: &Bench, round: usize, tls: bool) -> Result<Turn> {
        let receiver = Receiver::start(tls, false).await?;
        let database = bench.site.database().await?;
        let mut turn = match self {
            Self::Posthaste => posthaste(bench, &database, receiver).await?,
            Self::Loop(tasks) => hand_loop(bench, &database, receiver, tasks).await?,
            Self::Limit => limit(bench, &database, receiver).await?,
        };
        bench.site.remove(database).await?;
        (turn.competitor, turn.round, turn.tls) = (self, round, tls);
        Ok(turn)
    }
}

/// The clock runs from the start of the worker's process until everything is received and nothing is owed.
async fn posthaste(bench: &Bench, database: &Database, mut receiver: Receiver) -> Result<Turn> {
    let events = bench.plan.events;
    let config = bench.site.config(&bench.plan, database, &receiver)?;
    database.subscribe(&receiver.url, &config).await?;
    let insert_wal = database.fill(Fill::Outbox, events).await?;
    if bench.plan.statements {
        database.count_statements().await?;
    }
    let meter = Meter::start(bench, database).await?;
    let worker = Worker::start(&config).await?;
    let patience = patience(events);
    receiver.wait(events as u64, patience).await?;
    database.nothing_owed(patience).await?;
    let mut turn = meter
        .stop(bench, database, &worker.player, &receiver)
        .await?;
    let metrics = worker.metrics().await?;
    worker.player.end().await;
    turn.deliveries = receiver.count().await?;
    database
        .each_delivered_once(events as u64, turn.deliveries)
        .await?;
    turn.insert_wal = Some(insert_wal);
    turn.work = Some(Work::of(metrics, database, bench.plan.statements).await?);
    receiver.player.end().await;
    Ok(turn)
}

/// A slow competitor gets fewer events, and only so much time: what counts is how many it sends in a second.
async fn hand_loop(
    bench: &Bench,
    database: &Database,
    receiver: Receiver,
    tasks: usize,
) -> Result<Turn> {
    let rows = (bench.plan.events / 5).clamp(1, bench.plan.events);
    database.fill(Fill::Plain, rows).await?;
    let part = json!({
        "part": "loop", "url": receiver.url, "ca": receiver.ca, "database": database.url,
        "tasks": tasks, "deadline_ms": LOOP_TIME.as_millis(),
    });
    go("the hand-written loop", &part, bench, database, receiver).await
}

async fn limit(bench: &Bench, database: &Database, receiver: Receiver) -> Result<Turn> {
    let part = json!({
        "part": "poster", "url": receiver.url, "ca": receiver.ca, "count": bench.plan.events,
        "concurrency": bench.plan.config.endpoint_concurrency,
    });
    go("the HTTP client", &part, bench, database, receiver).await
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
    let meter = Meter::start(bench, database).await?;
    player.tell("go").await?;
    let sent = part::number(&player.hear(patience(bench.plan.events)).await?, "sent")?;
    let mut turn = meter.stop(bench, database, &player, &receiver).await?;
    turn.deliveries = receiver.count().await?.min(sent);
    player.end().await;
    receiver.player.end().await;
    Ok(turn)
}

/// Reads the clock, the WAL and the server's processor time before and after.
struct Meter {
    begun: Instant,
    wal: f64,
    server_cpu: Option<f64>,
}

impl Meter {
    async fn start(bench: &Bench, database: &Database) -> Result<Self> {
        let (wal, server_cpu) = (database.wal().await?, bench.site.server_cpu());
        Ok(Self {
            begun: Instant::now(),
            wal,
            server_cpu,
        })
    }

    async fn stop(
        self,
        bench: &Bench,
        database: &Database,
        sender: &Player,
        receiver: &Receiver,
    ) -> Result<Turn> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let server_cpu = bench.site.server_cpu().zip(self.server_cpu);
        Ok(Turn {
            competitor: Competitor::Limit,
            round: 0,
            tls: false,
            deliveries: 0,
            seconds,
            wal: database.wal().await? - self.wal,
            server_cpu: server_cpu.map(|(after, before)| after - before),
            sender: sender.usage(),
            receiver: receiver.player.usage(),
            insert_wal: None,
            work: None,
        })
    }
}

/// One competitor's turn in one round.
struct Turn {
    competitor: Competitor,
    round: usize,
    tls: bool,
    deliveries: u64,
    seconds: f64,
    wal: f64,
    server_cpu: Option<f64>,
    sender: Usage,
    receiver: Usage,
    insert_wal: Option<f64>,
    work: Option<Work>,
}

impl Turn {
    fn transport(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    fn rate(&self) -> f64 {
        float(self.deliveries) / self.seconds
    }

    /// Of seconds: microseconds for each delivery.
    fn each(&self, seconds: Option<f64>) -> Option<f64> {
        seconds.map(|seconds| seconds * 1e6 / float(self.deliveries.max(1)))
    }

    fn touches_postgres(&self) -> bool {
        self.competitor != Competitor::Limit
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
        json!({
            "round": self.round,
            "transport": self.transport(),
            "competitor": self.competitor.name(),
            "deliveries": self.deliveries,
            "seconds": self.seconds,
            "deliveries_per_second": self.rate(),
            "cpu_seconds": {
                "sender": self.sender.cpu, "receiver": self.receiver.cpu, "postgres": self.server_cpu,
            },
            "peak_memory_bytes": { "sender": self.sender.peak, "receiver": self.receiver.peak },
            "wal_bytes_per_delivery": self.wal / float(self.deliveries.max(1)),
            "wal_bytes_per_insert": self.insert_wal,
            "work": self.work.as_ref().map(Work::json),
        })
    }
}

fn report(bench: &Bench, turns: &[Turn]) -> Report {
    let header = [
        "over",
        "who",
        "deliveries/s",
        "x the loop",
        "of the limit",
        "CPU µs each: sender",
        "receiver",
        "Postgres",
        "sender's peak MiB",
        "WAL bytes each",
    ];
    let mut rates = table(&header, 2);
    for tls in [false, true] {
        for competitor in COMPETITORS {
            add_row(&mut rates, turns, tls, competitor);
        }
    }
    let mut tables = vec![rates];
    let mut notes = vec![NOTE.to_owned()];
    let last = turns
        .iter()
        .rev()
        .find(|turn| turn.work.is_some() && !turn.tls);
    if let Some((turn, work)) = last.and_then(|turn| Some((turn, turn.work.as_ref()?))) {
        tables.extend(work.tables(turn.deliveries));
        notes.push(work.note());
        let insert = turn
            .insert_wal
            .map_or_else(String::new, |bytes| grouped(bytes, 0));
        notes.push(format!(
            "Inserting an event in batches, before the clock: {insert} bytes of WAL."
        ));
    }
    let events = grouped(float(bench.plan.events as u64), 0);
    Report {
        title: format!(
            "Drain: {events} committed events to one endpoint; median (range) of the rounds"
        ),
        tables,
        notes,
        json: json!({ "turns": turns.iter().map(Turn::json).collect::<Vec<_>>() }),
    }
}

fn add_row(rates: &mut Table, turns: &[Turn], tls: bool, competitor: Competitor) {
    let of = |who: Competitor| {
        turns
            .iter()
            .filter(move |turn| turn.tls == tls && turn.competitor == who)
    };
    let ours = || of(competitor);
    let against = |who: Competitor| {
        let pairs = ours().zip(of(who));
        Figure::of(pairs.map(|(turn, other)| turn.rate() / other.rate()))
    };
    let each = |seconds: fn(&Turn) -> Option<f64>| {
        Figure::of(ours().filter_map(|turn| turn.each(seconds(turn))))
            .map_or_else(|| "-".to_owned(), |figure| grouped(figure.median, 0))
    };
    let peak = ours().filter_map(|turn| turn.sender.peak).max();
    let wal = ours().filter(|turn| turn.touches_postgres());
    let wal = Figure::of(wal.map(|turn| turn.wal / float(turn.deliveries.max(1))));
    let Some(first) = ours().next() else { return };
    rates.add_row([
        first.transport().to_owned(),
        competitor.name(),
        text(Figure::of(ours().map(Turn::rate)), 0),
        text(against(Competitor::Loop(1)), 2),
        text(against(Competitor::Limit), 2),
        each(|turn| turn.sender.cpu),
        each(|turn| turn.receiver.cpu),
        each(|turn| turn.server_cpu.filter(|_| turn.touches_postgres())),
        peak.map_or_else(
            || "-".to_owned(),
            |bytes| grouped(float(bytes) / 1_048_576.0, 0),
        ),
        text(wal, 0),
    ]);
}

fn patience(events: usize) -> Duration {
    Duration::from_mins(1) + Duration::from_millis(5) * u32::try_from(events).unwrap_or(u32::MAX)
}

/// After so long a loop is stopped.
const LOOP_TIME: Duration = Duration::from_secs(5);
const NOTE: &str = "The loop drains a fifth of the events, or as many as it can in 5 s. Posthaste's clock includes the start of its \
    process. Each turn has a database of its own, and begins with a checkpoint.";
