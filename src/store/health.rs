//! How endpoints fare, as it is kept for all workers.

use std::time::Duration;

use tokio_postgres::Row;

use super::{PAUSE_FAILING, Store, WEIGH, int};
use crate::Result;

/// What lately came of the attempts of one subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Which subscription.
    pub subscription_id: i32,
    /// Requests that came to an end.
    pub requests: i32,
    /// How many of them failed.
    pub failures: i32,
    /// How many of the last did so in a row.
    pub run: i32,
    /// For how long the receiver asked to be left alone.
    pub asked_for: Duration,
    /// Why it is to be paused, if its receiver wants nothing more.
    pub to_pause: Option<&'static str>,
}

/// What that made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighed {
    /// Which subscription.
    pub subscription_id: i32,
    /// Its circuit breaker: `closed`, `open` or `half_open`; and what it was before, where that is known.
    pub breaker: String,
    /// What the breaker was before; the same where that is not known.
    pub before: String,
    /// For how long nothing is to be sent from now on.
    pub held_for: Duration,
    /// Nothing has failed that is still remembered.
    pub is_well: bool,
}

impl Weighed {
    /// Whether this is what closed its breaker.
    pub fn has_closed(&self) -> bool {
        self.breaker == "closed" && self.before != "closed"
    }
}

impl Store {
    /// Weighs what came of attempts, and tells what that makes of each subscription.
    pub async fn weigh(&self, tallies: &[Tally]) -> Result<Vec<Weighed>> {
        let ids: Vec<i32> = tallies.iter().map(|tally| tally.subscription_id).collect();
        let requests: Vec<i32> = tallies.iter().map(|tally| tally.requests).collect();
        let failures: Vec<i32> = tallies.iter().map(|tally| tally.failures).collect();
        let runs: Vec<i32> = tallies.iter().map(|tally| tally.run).collect();
        let asked: Vec<f64> = tallies
            .iter()
            .map(|tally| tally.asked_for.as_secs_f64())
            .collect();
        let to_pause: Vec<Option<&str>> = tallies.iter().map(|tally| tally.to_pause).collect();
        let rows = self
            .query(
                WEIGH,
                &[&ids, &requests, &failures, &runs, &asked, &to_pause],
            )
            .await?;
        rows.iter().map(weighed).collect()
    }

    /// Pauses subscriptions that fail for too long, or whose receivers want nothing more, at most `limit`; says which, and why.
    pub async fn pause_failing(&self, limit: usize) -> Result<Vec<(i32, String)>> {
        let rows = self.query(PAUSE_FAILING, &[&int(limit)]).await?;
        let paused = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(paused).collect()
    }
}

pub(super) fn weighed(row: &Row) -> Result<Weighed> {
    let held_for: f64 = row.try_get("held_for")?;
    Ok(Weighed {
        subscription_id: row.try_get("subscription_id")?,
        breaker: row.try_get("breaker")?,
        before: row.try_get("before")?,
        held_for: Duration::try_from_secs_f64(held_for).unwrap_or_default(),
        is_well: row.try_get("is_well")?,
    })
}
