//! One backlog drained by Posthaste, from a fresh database to the proof that nothing is missing. Scenarios differ in what they vary.

use std::time::Duration;

use posthaste::Result;
use posthaste::config::Config;
use serde_json::{Value, json};
use tokio_postgres::types::ToSql;

use super::Bench;
use super::figures::float;
use super::fill::{Fill, Filled};
use super::meter::{Cost, Meter, micros_each};
use super::payload::EVENT_TYPE;
use super::receiver::Receiver;
use super::site::Database;
use super::usage::Usage;
use super::work::Work;
use super::worker::Worker;

/// A backlog, and who is to drain it to whom.
pub(super) struct Backlog {
    pub(super) events: usize,
    /// The types of the events, which take turns.
    pub(super) types: Vec<String>,
    /// Subscriptions to all those types, each with a path of its own on the one receiver.
    pub(super) subscriptions: usize,
    pub(super) workers: usize,
    pub(super) tls: bool,
    /// Statements that make what else the database holds, and how much of that: the one parameter of those that have one.
    pub(super) surroundings: Option<(&'static [&'static str], i32)>,
}

impl Backlog {
    /// Of one type, for one subscription and one worker over plain HTTP, with nothing else in the database.
    pub(super) fn of(events: usize) -> Self {
        Self {
            events,
            types: vec![EVENT_TYPE.to_owned()],
            subscriptions: 1,
            workers: 1,
            tls: false,
            surroundings: None,
        }
    }

    /// The clock runs from the start of the workers' processes until everything is received and nothing is owed.
    pub(super) async fn drain(&self, bench: &Bench) -> Result<Drained> {
        let mut receiver = Receiver::start(self.tls, false).await?;
        let database = bench.site.database().await?;
        let config = bench.site.config(&bench.plan, &database, &receiver)?;
        let urls = receiver.urls(self.subscriptions);
        database.subscribe_many(&urls, &self.types, &config).await?;
        if let Some((statements, extent)) = self.surroundings {
            database.surround(statements, extent, &config).await?;
        }
        let filled = database
            .fill_types(Fill::Outbox, self.events, &self.types)
            .await?;
        if bench.plan.statements {
            database.count_statements().await?;
        }
        let meter = Meter::start(&database).await?;
        let workers = Worker::start_many(&config, self.workers).await?;
        let deliveries = (self.events * self.subscriptions) as u64;
        receiver.wait(deliveries, patience(deliveries)).await?;
        database.nothing_owed(patience(deliveries)).await?;
        let cost = meter.stop().await?;
        let used = [
            Usage::of_all(workers.iter().map(|worker| worker.player.usage())),
            receiver.player.usage(),
        ];
        let metrics = end(workers).await?;
        let came = receiver.count().await?;
        database.each_delivered_once(deliveries, came).await?;
        let work = Work::of(metrics, &database, bench.plan.statements).await?;
        receiver.player.end().await;
        bench.site.remove(database).await?;
        Ok(Drained {
            deliveries,
            filled,
            cost,
            used,
            work,
        })
    }
}

type Metrics = std::collections::BTreeMap<String, f64>;

/// Ends the workers, after a last word of each.
async fn end(workers: Vec<Worker>) -> Result<Vec<Metrics>> {
    let mut metrics = Vec::new();
    for worker in workers {
        metrics.push(worker.metrics().await?);
        worker.player.end().await;
    }
    Ok(metrics)
}

impl Database {
    /// Makes what else a database holds, has a worker do for it what is done once, and tidies up, so that neither that nor a vacuum falls
    /// into the time of a clock.
    async fn surround(&self, statements: &[&str], extent: i32, config: &Config) -> Result<()> {
        let parameters: [&(dyn ToSql + Sync); 1] = [&extent];
        for statement in statements {
            let statement = self.client.prepare(statement).await?;
            let wanted = &parameters[..statement.params().len()];
            self.client.query(&statement, wanted).await?;
        }
        let worker = Worker::start(config).await?;
        self.settled(SETTLED_WITHIN).await?;
        worker.player.end().await;
        self.client.batch_execute("vacuum (analyze)").await?;
        Ok(())
    }
}

/// What it took.
pub(super) struct Drained {
    pub(super) deliveries: u64,
    /// The inserts before the clock.
    pub(super) filled: Filled,
    pub(super) cost: Cost,
    /// By the workers, and by the receiver.
    pub(super) used: [Usage; 2],
    pub(super) work: Work,
}

impl Drained {
    /// Deliveries a second.
    pub(super) fn rate(&self) -> f64 {
        float(self.deliveries) / self.cost.seconds
    }

    /// Bytes of WAL for each delivery, the insert of its event not counted.
    pub(super) fn wal_each(&self) -> f64 {
        self.cost.wal_each(self.deliveries)
    }

    /// Microseconds of processor time for each delivery: in the workers, the receiver, and Postgres.
    pub(super) fn cpu_each(&self) -> [Option<f64>; 3] {
        let [workers, receiver] = self.used;
        [workers.cpu, receiver.cpu, self.cost.server_cpu]
            .map(|seconds| micros_each(seconds, self.deliveries))
    }

    /// Microseconds of processor time for each delivery that are ours: in the workers and in Postgres.
    pub(super) fn own_cpu_each(&self) -> Option<f64> {
        let [workers, _, server] = self.cpu_each();
        workers
            .zip(server)
            .map(|(workers, server)| workers + server)
    }

    pub(super) fn json(&self) -> Value {
        let [workers, receiver] = self.used;
        let [workers_each, receiver_each, server_each] = self.cpu_each();
        json!({
            "events": self.filled.rows,
            "deliveries": self.deliveries,
            "seconds": self.cost.seconds,
            "deliveries_per_second": self.rate(),
            "cpu_seconds": {
                "workers": workers.cpu, "receiver": receiver.cpu, "postgres": self.cost.server_cpu,
            },
            "cpu_microseconds_per_delivery": {
                "workers": workers_each, "receiver": receiver_each, "postgres": server_each,
            },
            "peak_memory_bytes": { "workers": workers.peak, "receiver": receiver.peak },
            "wal_bytes_per_delivery": self.wal_each(),
            "checkpointed_meanwhile": self.cost.checkpointed,
            "inserts": self.filled.cost.json(float(self.filled.rows)),
            "payload_bytes_per_event": self.filled.payload_each(),
            "work": self.work.json(),
        })
    }
}

/// How long so many deliveries may take at worst.
pub(super) fn patience(deliveries: u64) -> Duration {
    Duration::from_mins(1)
        + Duration::from_millis(5) * u32::try_from(deliveries).unwrap_or(u32::MAX)
}

/// How long it may take to make the secrets and lanes of all subscriptions.
const SETTLED_WITHIN: Duration = Duration::from_mins(1);
