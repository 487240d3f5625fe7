//! What people asked for, as a worker carries it out: replays, tests, cancels.

use super::{CARRY_OUT_CANCELS, QUEUE_REPLAYS, Store, int};
use crate::Result;

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
    /// Puts the next deliveries of one replay into the queue, at most `limit`; false where none is due.
    pub async fn queue_replays(&self, limit: usize) -> Result<bool> {
        let rows = self.query(QUEUE_REPLAYS, &[&int(limit)]).await?;
        Ok(rows.first().map_or(Ok(false), |row| row.try_get(0))?)
    }

    /// Cancels what waits of events that are to be cancelled, of at most `limit` requests.
    pub async fn carry_out_cancels(&self, limit: usize) -> Result<()> {
        self.query(CARRY_OUT_CANCELS, &[&int(limit)])
            .await
            .map(drop)
    }
}
