//! What people ask of the database, rather than the worker.

use std::time::{Duration, SystemTime};

use super::{OVERVIEW, SUBSCRIPTION_NAMED, Store, WORKERS_ALIVE, count, long};
use crate::Result;

/// How things stand. Counts stop at [`COUNT_LIMIT`].
#[derive(Clone, Debug)]
pub struct Overview {
    /// Events not fanned out yet.
    pub intake: u64,
    /// Deliveries that wait.
    pub waiting: u64,
    /// Deliveries leased to a worker.
    pub leased: u64,
    /// Since when the oldest delivery that is still owed, or event not fanned out, has waited.
    pub oldest_owed: Option<Duration>,
    /// Subscriptions with something due.
    pub lanes_awake: u64,
    /// Subscriptions whose next delivery is due later.
    pub lanes_asleep: u64,
    /// Subscriptions that nothing waits for.
    pub lanes_idle: u64,
    /// Deliveries given up in the last 24 hours.
    pub dead_letters: u64,
    /// Whether rows lie in a default partition: partitions were not made in time.
    pub in_default_partition: bool,
    /// The database's clock.
    pub clock: SystemTime,
}

/// A worker that is alive.
#[derive(Clone, Debug)]
pub struct WorkerAlive {
    /// Its id in attempt rows.
    pub worker_id: i32,
    /// What it calls itself.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Since when.
    pub up_for: Duration,
}

/// Where counting stops.
pub const COUNT_LIMIT: usize = 100_000;

impl Store {
    /// How things stand.
    pub async fn overview(&self) -> Result<Overview> {
        let rows = self.query(OVERVIEW, &[&long(COUNT_LIMIT)]).await?;
        let row = rows.first().ok_or_else(|| crate::Error::Database("overview: no row".to_owned()))?;
        let ages: [Option<f64>; 2] = [row.try_get("oldest_delivery")?, row.try_get("oldest_intake")?];
        let oldest = ages.into_iter().flatten().reduce(f64::max);
        Ok(Overview {
            intake: count(row, "intake")?,
            waiting: count(row, "waiting")?,
            leased: count(row, "leased")?,
            oldest_owed: oldest.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()),
            lanes_awake: count(row, "lanes_awake")?,
            lanes_asleep: count(row, "lanes_asleep")?,
            lanes_idle: count(row, "lanes_idle")?,
            dead_letters: count(row, "dead_letters")?,
            in_default_partition: row.try_get("in_default_partition")?,
            clock: SystemTime::UNIX_EPOCH + Duration::try_from_secs_f64(row.try_get("clock")?).unwrap_or_default(),
        })
    }

    /// The workers that are alive.
    pub async fn workers_alive(&self) -> Result<Vec<WorkerAlive>> {
        let rows = self.query(WORKERS_ALIVE, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(WorkerAlive {
                    worker_id: row.try_get("worker_id")?,
                    name: row.try_get("name")?,
                    version: row.try_get("version")?,
                    up_for: Duration::try_from_secs_f64(row.try_get("up_for")?).unwrap_or_default(),
                })
            })
            .collect()
    }

    /// The id of the subscription with this name.
    pub async fn subscription_named(&self, name: &str) -> Result<Option<i32>> {
        let rows = self.query(SUBSCRIPTION_NAMED, &[&name]).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
    }
}
