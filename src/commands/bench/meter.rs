//! What a stretch of time cost: by the clock, in WAL, and in processor time of the server.

use posthaste::Result;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::figures::float;
use super::site::{Database, WalPosition};
use super::usage::Usage;

/// Reads everything when it starts and again when it stops.
pub(super) struct Meter<'d> {
    database: &'d Database,
    begun: Instant,
    wal: WalPosition,
    server_cpu: Option<f64>,
}

/// What it read in between.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    pub(super) seconds: f64,
    /// Bytes that the whole server wrote.
    pub(super) wal: f64,
    /// Whether a checkpoint ended meanwhile: then some of the WAL is whole pages, and its figures mean little.
    pub(super) checkpointed: bool,
    /// Seconds of processor time of the whole server; unknown where it is not ours.
    pub(super) server_cpu: Option<f64>,
}

impl<'d> Meter<'d> {
    pub(super) async fn start(database: &'d Database) -> Result<Self> {
        let (wal, server_cpu) = (database.wal_position().await?, database.server_cpu());
        Ok(Self {
            database,
            begun: Instant::now(),
            wal,
            server_cpu,
        })
    }

    pub(super) async fn stop(self) -> Result<Cost> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let server_cpu = self.database.server_cpu().zip(self.server_cpu);
        let wal = self.database.wal_position().await?;
        Ok(Cost {
            seconds,
            wal: wal.bytes - self.wal.bytes,
            checkpointed: wal.checkpoint != self.wal.checkpoint,
            server_cpu: server_cpu.map(|(after, before)| after - before),
        })
    }
}

impl Cost {
    /// Bytes of WAL for each of so many.
    pub(super) fn wal_each(&self, count: u64) -> f64 {
        self.wal / float(count.max(1))
    }

    /// Microseconds of the server's processor time for each of so many.
    pub(super) fn server_cpu_each(&self, count: u64) -> Option<f64> {
        micros_each(self.server_cpu, count)
    }

    /// Of this stretch divided by so many: seconds, bytes of WAL, and seconds of the server's processor time for each.
    pub(super) fn json(&self, count: f64) -> Value {
        json!({
            "seconds": self.seconds,
            "per_second": count / self.seconds,
            "wal_bytes_each": self.wal / count,
            "checkpointed_meanwhile": self.checkpointed,
            "postgres_cpu_seconds": self.server_cpu,
        })
    }
}

/// What so many deliveries cost the worker and the server.
pub(super) struct Spent {
    pub(super) deliveries: u64,
    pub(super) worker: Usage,
    pub(super) cost: Cost,
}

impl Spent {
    /// Microseconds of processor time for each delivery: in the worker, and in Postgres.
    pub(super) fn cpu_each(&self) -> [Option<f64>; 2] {
        [self.worker.cpu, self.cost.server_cpu].map(|seconds| micros_each(seconds, self.deliveries))
    }

    pub(super) fn wal_each(&self) -> f64 {
        self.cost.wal_each(self.deliveries)
    }

    pub(super) fn json(&self) -> Value {
        let [worker_each, server_each] = self.cpu_each();
        json!({
            "deliveries": self.deliveries,
            "seconds": self.cost.seconds,
            "cpu_seconds": { "worker": self.worker.cpu, "postgres": self.cost.server_cpu },
            "cpu_microseconds_per_delivery": { "worker": worker_each, "postgres": server_each },
            "wal_bytes_per_delivery": self.wal_each(),
            "checkpointed_meanwhile": self.cost.checkpointed,
        })
    }
}

/// Of seconds: microseconds for each of so many.
pub(super) fn micros_each(seconds: Option<f64>, count: u64) -> Option<f64> {
    Some(seconds? * 1e6 / float(count.max(1)))
}

/// What to say where a checkpoint fell into a stretch of time that was measured.
pub(super) fn checkpoint_note<'c>(costs: impl IntoIterator<Item = &'c Cost>) -> Option<String> {
    let spoilt = costs.into_iter().filter(|cost| cost.checkpointed).count();
    (spoilt > 0).then(|| {
        format!("In {spoilt} turns a checkpoint fell due while the clock ran: their WAL holds whole pages, and is too high.")
    })
}
