//! Scenario `producers`: what the outbox costs those who insert, whatever the worker is doing.
//!
//! A closed loop: each client is a session that commits one row after the other. What a commit waits for is then all there is.

use std::time::Duration;

use comfy_table::Table;
use posthaste::config::Config;
use posthaste::{Error, Result};
use serde_json::{Value, json};

use super::figures::{Figure, float, grouped, text};
use super::fill::Fill;
use super::meter::{Cost, Meter, checkpoint_note, micros_each};
use super::part;
use super::player::Player;
use super::receiver::Receiver;
use super::report::{Report, known, progress, table};
use super::site::Database;
use super::usage::Usage;
use super::worker::Worker;
use super::{Bench, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "producers",
    about: "Commits/s of 1, 8 and 16 clients, into a plain table and into the outbox",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let mut turns = Vec::new();
    for round in 1..=bench.plan.rounds {
        for clients in CLIENTS {
            for target in TARGETS {
                let turn = target.turn(bench, round, clients).await?;
                progress(&turn.line());
                turns.push(turn);
            }
        }
    }
    Ok(report(bench, &turns))
}

/// Where the rows go, and what the worker does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Plain,
    /// Tells what a busy machine costs, whatever one inserts into.
    PlainBesideBusy,
    Absent,
    /// What the outbox costs beside a worker, without what deliveries cost on the same cores.
    Unsubscribed,
    Idle,
    Busy,
}

const TARGETS: [Target; 6] = [
    Target::Plain,
    Target::Absent,
    Target::Unsubscribed,
    Target::Idle,
    Target::Busy,
    Target::PlainBesideBusy,
];

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "a plain table of the same shape",
            Self::PlainBesideBusy => "the plain table, worker busy with a backlog",
            Self::Absent => "the outbox, no worker",
            Self::Unsubscribed => "the outbox, idle worker, nobody subscribed",
            Self::Idle => "the outbox, idle worker that delivers what comes",
            Self::Busy => "the outbox, worker busy with a backlog",
        }
    }

    fn is_busy(self) -> bool {
        matches!(self, Self::Busy | Self::PlainBesideBusy)
    }

    fn fill(self) -> Fill {
        match self {
            Self::Plain | Self::PlainBesideBusy => Fill::SameShape,
            Self::Absent | Self::Unsubscribed | Self::Idle | Self::Busy => Fill::Outbox,
        }
    }

    async fn turn(self, bench: &Bench, round: usize, clients: usize) -> Result<Turn> {
        let database = bench.site.database().await?;
        let mut receiver = Receiver::start(false, false).await?;
        let config = bench.site.config(&bench.plan, &database, &receiver)?;
        if self != Self::Unsubscribed {
            database.subscribe(&receiver.url, &config).await?;
        }
        database.checkpoint().await;
        let worker = self
            .worker(bench, &config, &database, &mut receiver)
            .await?;
        let mut turn = insert(bench, self, clients, &database, worker.as_ref()).await?;
        turn.round = round;
        if let Some(worker) = worker {
            worker.player.end().await;
        }
        receiver.player.end().await;
        bench.site.remove(database).await?;
        Ok(turn)
    }

    /// The worker, in the state in which the clock finds it.
    async fn worker(
        self,
        bench: &Bench,
        config: &Config,
        database: &Database,
        receiver: &mut Receiver,
    ) -> Result<Option<Worker>> {
        match self {
            Self::Plain | Self::Absent => Ok(None),
            Self::Unsubscribed | Self::Idle => {
                let worker = Worker::start(config).await?;
                // One that polls never sleeps.
                if config.text("wake")? != "poll" {
                    database.asleep(PATIENCE).await?;
                }
                Ok(Some(worker))
            }
            Self::Busy | Self::PlainBesideBusy => {
                database.fill(Fill::Outbox, backlog(bench)).await?;
                let worker = Worker::start(config).await?;
                receiver.wait(1, PATIENCE).await?;
                Ok(Some(worker))
            }
        }
    }
}

/// Events that outlast the clock, unless it runs for minutes: then the report says that they did not.
fn backlog(bench: &Bench) -> usize {
    let seconds = usize::try_from(bench.plan.duration.as_secs()).unwrap_or(usize::MAX);
    seconds
        .saturating_add(1)
        .saturating_mul(BACKLOG_A_SECOND)
        .min(BACKLOG_AT_MOST)
}

/// Lets the clients insert, and reads what that cost everybody.
async fn insert(
    bench: &Bench,
    target: Target,
    clients: usize,
    database: &Database,
    worker: Option<&Worker>,
) -> Result<Turn> {
    let there: i64 = database.ask_one(rows(target)).await?;
    let part = json!({
        "part": "producer", "database": database.url, "sql": target.fill().one(), "clients": clients,
        "duration_ms": bench.plan.duration.as_millis(),
    });
    let mut producer = Player::start("the producer", &part).await?;
    producer.hear(PATIENCE).await?;
    let before = Effort::of(&producer, worker).await?;
    let meter = Meter::start(database).await?;
    producer.tell("go").await?;
    let told = producer.hear(bench.plan.duration + PATIENCE).await?;
    let cost = meter.stop().await?;
    let effort = Effort::of(&producer, worker).await?.since(&before);
    let left: i64 = database.ask_one(INTAKE_LEFT).await?;
    producer.end().await;
    let commits = part::number(&told, "commits")?;
    let inserted: i64 = database.ask_one::<i64>(rows(target)).await? - there;
    if inserted.unsigned_abs() != commits {
        return Err(Error::Data(format!(
            "{commits} commits were told, {inserted} rows are there"
        )));
    }
    Ok(Turn {
        target,
        clients,
        round: 0,
        commits,
        seconds: told["seconds"].as_f64().unwrap_or(f64::NAN),
        millis: told["milliseconds"].clone(),
        cost,
        effort,
        was_busy: left > 0,
    })
}

/// What the clients and the worker did.
struct Effort {
    clients: Usage,
    worker: Option<Usage>,
    /// How often the worker looked for work.
    looks: f64,
    /// How often because a notification came.
    rings: f64,
}

impl Effort {
    /// Since each process began.
    async fn of(producer: &Player, worker: Option<&Worker>) -> Result<Self> {
        let mut effort = Self {
            clients: producer.usage(),
            worker: worker.map(|worker| worker.player.usage()),
            looks: 0.0,
            rings: 0.0,
        };
        let metrics = match worker {
            Some(worker) => worker.metrics().await?,
            None => return Ok(effort),
        };
        for (name, count) in metrics {
            if name.starts_with("posthaste_wakeups_total") {
                effort.looks += count;
                if name.contains("notification") {
                    effort.rings += count;
                }
            }
        }
        Ok(effort)
    }

    fn since(self, before: &Self) -> Self {
        let worker = self.worker.zip(before.worker);
        Self {
            clients: self.clients.since(before.clients),
            worker: worker.map(|(after, before)| after.since(before)),
            looks: self.looks - before.looks,
            rings: self.rings - before.rings,
        }
    }

    fn worker_cpu(&self) -> Option<f64> {
        self.worker.and_then(|worker| worker.cpu)
    }
}

/// One target's turn with so many clients in one round.
struct Turn {
    target: Target,
    clients: usize,
    round: usize,
    commits: u64,
    seconds: f64,
    /// Of a commit, as the client sees it: percentiles.
    millis: Value,
    cost: Cost,
    effort: Effort,
    /// Whether the intake was not empty when the clients ended.
    was_busy: bool,
}

impl Turn {
    fn rate(&self) -> f64 {
        float(self.commits) / self.seconds
    }

    /// Of seconds: microseconds for each commit.
    fn each(&self, seconds: Option<f64>) -> Option<f64> {
        micros_each(seconds, self.commits)
    }

    fn line(&self) -> String {
        format!(
            "producers, {} clients, round {}, {}: {} commits/s",
            self.clients,
            self.round,
            self.target.name(),
            grouped(self.rate(), 0)
        )
    }

    fn json(&self) -> Value {
        json!({
            "round": self.round,
            "clients": self.clients,
            "into": self.target.name(),
            "commits": self.commits,
            "seconds": self.seconds,
            "commits_per_second": self.rate(),
            "commit_milliseconds": self.millis,
            "cpu_seconds": {
                "clients": self.effort.clients.cpu, "worker": self.effort.worker_cpu(), "postgres": self.cost.server_cpu,
            },
            "wal_bytes_per_commit": self.cost.wal_each(self.commits),
            "checkpointed_meanwhile": self.cost.checkpointed,
            "worker_looks": self.effort.looks,
            "worker_looks_by_notification": self.effort.rings,
            "intake_left_at_the_end": self.was_busy,
        })
    }
}

fn report(bench: &Bench, turns: &[Turn]) -> Report {
    let mut page = table(&HEADER, 2);
    for clients in CLIENTS {
        for target in TARGETS {
            add_row(&mut page, turns, clients, target);
        }
    }
    let mut notes = vec![NOTE.to_owned(), WORKER_NOTE.to_owned()];
    let idled = |turn: &&Turn| turn.target.is_busy() && !turn.was_busy;
    let idled = turns.iter().filter(idled).count();
    if idled > 0 {
        notes.push(format!(
            "In {idled} turns the busy worker ran out of its backlog: take a shorter --duration."
        ));
    }
    notes.extend(checkpoint_note(turns.iter().map(|turn| &turn.cost)));
    Report {
        title: format!(
            "Producers: single-row transactions, as many as fit in {:?}; median (range) of the rounds",
            bench.plan.duration
        ),
        tables: vec![page],
        notes,
        json: json!({ "turns": turns.iter().map(Turn::json).collect::<Vec<_>>() }),
    }
}

fn add_row(page: &mut Table, turns: &[Turn], clients: usize, target: Target) {
    let of = |who: Target| {
        let is_it = move |turn: &&Turn| turn.clients == clients && turn.target == who;
        turns.iter().filter(is_it)
    };
    let ours = || of(target);
    let median = |of: &dyn Fn(&Turn) -> Option<f64>, decimals| {
        let figure = Figure::of(ours().filter_map(of));
        known(figure.map(|figure| figure.median), decimals)
    };
    let millis = |share: &'static str| {
        text(
            Figure::of(ours().filter_map(|turn| turn.millis[share].as_f64())),
            2,
        )
    };
    let against = |who: Target| {
        let pairs = ours().zip(of(who));
        Figure::of(pairs.map(|(turn, other)| turn.rate() / other.rate()))
    };
    let as_busy = against(Target::PlainBesideBusy).filter(|_| target.is_busy());
    page.add_row([
        clients.to_string(),
        target.name().to_owned(),
        text(Figure::of(ours().map(Turn::rate)), 0),
        text(against(Target::Plain), 2),
        text(as_busy, 2),
        millis("p50"),
        millis("p99"),
        median(&|turn| turn.each(turn.cost.server_cpu), 0),
        median(&|turn| turn.each(turn.effort.clients.cpu), 0),
        median(&|turn| turn.each(turn.effort.worker_cpu()), 0),
        median(&|turn| Some(turn.cost.wal_each(turn.commits)), 0),
        median(&|turn| turn.effort.worker.map(|_| turn.effort.rings), 0),
    ]);
}

fn rows(target: Target) -> &'static str {
    match target.fill() {
        Fill::SameShape => include_str!("../../../sql/bench/rows_of_same_shape.sql"),
        _ => include_str!("../../../sql/bench/rows_of_outbox.sql"),
    }
}

const HEADER: [&str; 12] = [
    "clients",
    "into",
    "commits/s",
    "of the plain table",
    "with that worker",
    "commit, ms: p50",
    "p99",
    "CPU µs a commit: Postgres",
    "clients",
    "worker",
    "WAL bytes a commit",
    "rings heard",
];
const CLIENTS: [usize; 3] = [1, 8, 16];
/// More events than a worker delivers in a second.
const BACKLOG_A_SECOND: usize = 20_000;
const BACKLOG_AT_MOST: usize = 2_000_000;
const PATIENCE: Duration = Duration::from_mins(1);
const INTAKE_LEFT: &str = include_str!("../../../sql/bench/intake_left.sql");
const NOTE: &str = "The plain table has the outbox's columns, defaults, primary key and partitions and its checks, and no trigger: nothing \
    behind an insert. Each client has a session of its own and a prepared statement.";
const WORKER_NOTE: &str = "A worker, its statements and its receiver share the machine with the clients: with them, Postgres' processor \
    time and the WAL are those of deliveries too. The worker that sleeps is rung up by the first insert and then delivers what comes; \
    the busy one has a backlog that outlasts the clock. \
    `With that worker`: beside the plain table while the same worker is as busy, so what is left is the outbox's own. Rings heard: looks for work that a notification caused.";
