//! Scenario `idle`: what does a worker with nothing to do cost, here and in Postgres?

use std::collections::BTreeSet;
use std::time::Duration;

use posthaste::Result;
use posthaste::store::connect_once;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_postgres::Client;

use super::claims::Reading;
use super::crowd::{self, Wish, first_column};
use super::endpoints::{Endpoints, Manner};
use super::figures::{Figure, float, mebibytes, text};
use super::payload::EVENT_TYPE;
use super::report::{Report, progress, table};
use super::worker::Worker;
use super::{Bench, Scenario, bulk, usage};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "idle",
    about: "What a worker with nothing to do costs",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let mut turns = Vec::new();
    for round in 1..=bench.plan.rounds {
        let mut turn = Turn::run(bench).await?;
        turn.round = round;
        progress(&turn.line());
        turns.push(turn);
    }
    Ok(report(&turns))
}

/// One stretch of idleness.
struct Turn {
    round: usize,
    /// Percent of a core.
    cpu: Option<f64>,
    sessions_cpu: Option<f64>,
    resident: Option<u64>,
    peak: Option<u64>,
    statements_per_second: f64,
    seen: Seen,
}

/// What looking at the worker's sessions showed.
#[derive(Default)]
struct Seen {
    looks: u64,
    fewest: usize,
    most: usize,
    /// Every session that was ever there.
    sessions: BTreeSet<i32>,
    /// Looks at which one idled in a transaction.
    idle_in_transaction: u64,
    /// Seconds; a statement under way has one too.
    oldest_transaction: f64,
}

impl Turn {
    async fn run(bench: &Bench) -> Result<Self> {
        let mut endpoints = Endpoints::start(Duration::ZERO).await?;
        let database = bench.site.database().await?;
        let client = connect_once(&database.url).await?;
        let config = bench
            .site
            .config(&bench.plan, &database, &endpoints.receiver)?;
        let wish = Wish {
            name: "bench".to_owned(),
            url: endpoints.url(Manner::Healthy, 0),
            event_type: EVENT_TYPE.to_owned(),
            tenant: None,
        };
        crowd::subscribe(&client, &config, &[wish], RETRIES).await?;
        let others: Vec<i32> = first_column(&client.query(SESSIONS, &[]).await?)?;
        let worker = Worker::start(&config).await?;
        // One that has worked has its sessions open, its statements prepared and its memory touched.
        bulk::commit(&client, EVENT_TYPE, 0, WORK).await?;
        endpoints.receiver.wait(WORK as u64, PATIENCE).await?;
        database.nothing_owed(PATIENCE).await?;
        database.asleep(PATIENCE).await?;

        let is_here = database.server_cpu().is_some();
        let reading = Reading::of(&worker).await?;
        let (begun, usage_before) = (Instant::now(), worker.player.usage());
        let sessions = worker_sessions(&client, &others).await?;
        let sessions_before = cpu_of(&sessions);
        let seen = Seen::over(IDLE, &client, &others).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let (usage, sessions_after) = (worker.player.usage(), cpu_of(&sessions));
        let percent =
            |before: Option<f64>, after: Option<f64>| Some((after? - before?) * 100.0 / seconds);
        let turn = Self {
            round: 0,
            cpu: percent(usage_before.cpu, usage.cpu),
            sessions_cpu: percent(sessions_before, sessions_after).filter(|_| is_here),
            resident: usage::resident(worker.player.pid()),
            peak: usage.peak,
            statements_per_second: Reading::of(&worker).await?.since(&reading).statements()
                / seconds,
            seen,
        };
        worker.player.end().await;
        endpoints.receiver.player.end().await;
        bench.site.remove(database).await?;
        Ok(turn)
    }

    fn line(&self) -> String {
        format!(
            "idle, round {}: {} % of a core, {} MiB, {} sessions",
            self.round,
            text(Figure::of(self.cpu), 2),
            mebibytes(self.resident),
            self.seen.most
        )
    }

    fn json(&self) -> Value {
        json!({
            "round": self.round,
            "seconds": IDLE.as_secs(),
            "cpu_percent_of_a_core": self.cpu,
            "cpu_percent_of_its_postgres_sessions": self.sessions_cpu,
            "resident_bytes": self.resident,
            "peak_memory_bytes": self.peak,
            "statements_per_second": self.statements_per_second,
            "sessions": { "fewest": self.seen.fewest, "most": self.seen.most, "different": self.seen.sessions.len() },
            "looks": self.seen.looks,
            "looks_with_a_session_idle_in_transaction": self.seen.idle_in_transaction,
            "oldest_transaction_ms": self.seen.oldest_transaction * 1e3,
        })
    }
}

impl Seen {
    /// Looks several times a second.
    async fn over(time: Duration, client: &Client, others: &[i32]) -> Result<Self> {
        let mut seen = Self {
            fewest: usize::MAX,
            ..Self::default()
        };
        let end = Instant::now() + time;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        while Instant::now() < end {
            looks.tick().await;
            let rows = client.query(WORKER_SESSIONS, &[&others]).await?;
            seen.looks += 1;
            seen.fewest = seen.fewest.min(rows.len());
            seen.most = seen.most.max(rows.len());
            let mut idles = false;
            for row in &rows {
                seen.sessions.insert(row.try_get(0)?);
                idles |= row.try_get::<_, bool>(1)?;
                let age: Option<f64> = row.try_get(2)?;
                seen.oldest_transaction = seen.oldest_transaction.max(age.unwrap_or_default());
            }
            seen.idle_in_transaction += u64::from(idles);
        }
        Ok(seen)
    }
}

async fn worker_sessions(client: &Client, others: &[i32]) -> Result<Vec<i32>> {
    first_column(&client.query(WORKER_SESSIONS, &[&others]).await?)
}

/// Seconds of processor time of these processes on this machine.
fn cpu_of(processes: &[i32]) -> Option<f64> {
    let seconds = |pid: &i32| usage::of(pid.unsigned_abs()).cpu;
    processes.iter().map(seconds).sum()
}

fn report(turns: &[Turn]) -> Report {
    let header = [
        "",
        "CPU % of a core",
        "its Postgres sessions' CPU %",
        "resident MiB",
        "peak MiB",
        "statements/s",
        "sessions",
        "new sessions",
        "idle in transaction",
        "oldest transaction ms",
    ];
    let mut page = table(&header, 1);
    let figure = |of: &dyn Fn(&Turn) -> Option<f64>, decimals| {
        text(Figure::of(turns.iter().filter_map(of)), decimals)
    };
    page.add_row([
        "posthaste, 1 worker".to_owned(),
        figure(&|turn| turn.cpu, 2),
        figure(&|turn| turn.sessions_cpu, 2),
        mebibytes(turns.iter().filter_map(|turn| turn.resident).max()),
        mebibytes(turns.iter().filter_map(|turn| turn.peak).max()),
        figure(&|turn| Some(turn.statements_per_second), 1),
        figure(&|turn| Some(float(turn.seen.most as u64)), 0),
        figure(
            &|turn| Some(float((turn.seen.sessions.len() - turn.seen.fewest) as u64)),
            0,
        ),
        figure(&|turn| Some(float(turn.seen.idle_in_transaction)), 0),
        figure(&|turn| Some(turn.seen.oldest_transaction * 1e3), 1),
    ]);
    Report {
        title: format!(
            "Idle: a worker that fell asleep, for {IDLE:?}; median (range) of the rounds"
        ),
        tables: vec![page],
        notes: vec![format!(
            "Before, it delivered {WORK} events. Its sessions were looked at every {LOOK_EVERY:?}; idle in transaction: looks at which \
             one idled in a transaction. A statement that was under way has a transaction too. Processor time is counted in 10 ms."
        )],
        json: json!({ "turns": turns.iter().map(Turn::json).collect::<Vec<_>>() }),
    }
}

const IDLE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Events delivered before.
const WORK: usize = 1000;
const RETRIES: &[&str] = &["5 seconds", "5 minutes"];
const PATIENCE: Duration = Duration::from_secs(30);
const SESSIONS: &str = include_str!("../../../sql/bench/sessions.sql");
const WORKER_SESSIONS: &str = include_str!("../../../sql/bench/worker_sessions.sql");
