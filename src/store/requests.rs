//! What people asked for, as a worker carries it out: replays, tests, cancels.

use tokio_postgres::Row;

use super::{CARRY_OUT_CANCELS, QUEUE_REPLAYS, Store, int};
use crate::Result;
use crate::delivery::OrderingKey;

/// Which requests of people's are open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests {
    /// A replay or a test is under way.
    pub replays: bool,
    /// An event is to be cancelled.
    pub cancels: bool,
    /// Ordering keys are to go on past their heads.
    pub skips: bool,
}

impl Store {
    /// Puts the next deliveries of one replay that is due into the queue, at most `limit`: the ordering keys that something was put
    /// behind; `None` where no replay is due.
    pub async fn queue_replays(&self, limit: usize) -> Result<Option<Vec<OrderingKey>>> {
        let rows = self.query(QUEUE_REPLAYS, &[&int(limit)]).await?;
        match rows.first() {
            Some(row) if row.try_get("is_any")? => keys(row).map(Some),
            _ => Ok(None),
        }
    }

    /// Cancels what waits of events that are to be cancelled, of at most `limit` requests; how many deliveries that were, and the
    /// ordering keys that may go on.
    pub async fn carry_out_cancels(&self, limit: usize) -> Result<(u64, Vec<OrderingKey>)> {
        let rows = self.query(CARRY_OUT_CANCELS, &[&int(limit)]).await?;
        let Some(row) = rows.first() else {
            return Ok((0, Vec::new()));
        };
        let ended: i32 = row.try_get("deliveries")?;
        Ok((u64::try_from(ended).unwrap_or(0), keys(row)?))
    }
}

/// An array for each column; null for none.
fn keys(row: &Row) -> Result<Vec<OrderingKey>> {
    let subscriptions: Option<Vec<i32>> = row.try_get("ordered_subscriptions")?;
    let names: Option<Vec<String>> = row.try_get("ordering_keys")?;
    let keys = subscriptions.into_iter().flatten();
    Ok(keys
        .zip(names.into_iter().flatten())
        .map(|(subscription_id, ordering_key)| OrderingKey {
            subscription_id,
            ordering_key: ordering_key.into(),
        })
        .collect())
}
