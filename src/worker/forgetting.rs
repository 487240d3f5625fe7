//! Deletes dedup keys that have expired.

use std::time::{Duration, Instant, SystemTime};

use crate::Result;
use crate::store::Store;

/// When to look next, and from where on.
#[derive(Debug)]
pub(super) struct Forgetting {
    due: Instant,
    /// What expired before was deleted: its dead rows are not walked again.
    since: Option<SystemTime>,
    /// A key may be committed long after it was given its time, and expire before `since`.
    sweep_due: Instant,
}

impl Forgetting {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            due: now,
            since: None,
            sweep_due: now + SWEEP_EVERY,
        }
    }

    /// Forgets as much as fits into a moment, if it is time to; the rest is for the next round.
    pub(super) async fn round(&mut self, store: &Store, now: Instant) -> Result<()> {
        if now < self.due {
            return Ok(());
        }
        // A failure is not tried again at every round.
        self.due = now + EVERY;
        if now >= self.sweep_due {
            self.sweep_due = now + SWEEP_EVERY;
            self.since = None;
        }
        while now.elapsed() < MOMENT {
            let (forgotten, up_to) = store.forget_keys(self.since, AT_ONCE).await?;
            self.since = up_to.or(self.since);
            if forgotten < AT_ONCE {
                return Ok(());
            }
        }
        self.due = now;
        Ok(())
    }
}

const EVERY: Duration = Duration::from_secs(30);
const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// How long a round may go on with the next batch.
const MOMENT: Duration = Duration::from_millis(300);
/// Keys deleted in one statement: few enough that whoever takes one of them over does not wait for long.
const AT_ONCE: usize = 1000;
