//! The public keys that partners verify with, kept ready for whoever publishes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::Result;
use crate::jwks::KeySets;
use crate::store::Store;

/// Reads the keys when terms have changed, and now and then, since keys end in time; never once per request.
#[derive(Debug)]
pub(super) struct Publishing {
    read_at: Option<Instant>,
    is_stale: bool,
}

impl Publishing {
    pub(super) fn new() -> Self {
        Self {
            read_at: None,
            is_stale: true,
        }
    }

    /// Reads them if that is due and anybody wants to know. What was read before stands until it was read anew.
    pub(super) async fn round(
        &mut self,
        store: &Store,
        published: &watch::Sender<Option<Arc<KeySets>>>,
        has_news: bool,
        now: Instant,
    ) -> Result<()> {
        self.is_stale |= has_news;
        if published.receiver_count() == 0 || !self.is_due(now) {
            return Ok(());
        }
        self.read_at = Some(now);
        let keys = store.public_keys(MOST_KEYS).await?;
        let sets = if keys.len() < MOST_KEYS {
            KeySets::new(&keys)
        } else {
            tracing::warn!(
                most = MOST_KEYS,
                "there are more public keys than are published; `posthaste secret jwks SUBSCRIPTION` has those of one"
            );
            KeySets::of_first(&keys)
        };
        published.send_replace(Some(Arc::new(sets)));
        self.is_stale = false;
        Ok(())
    }

    fn is_due(&self, now: Instant) -> bool {
        let pause = if self.is_stale { PAUSE } else { EVERY };
        self.read_at
            .is_none_or(|at| now.saturating_duration_since(at) >= pause)
    }
}

/// However much changes.
const PAUSE: Duration = Duration::from_secs(2);
/// Though nothing has changed.
const EVERY: Duration = Duration::from_mins(1);
/// Some megabytes of text.
const MOST_KEYS: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_at_once_soon_after_a_change_and_now_and_then() {
        let (mut publishing, begun) = (Publishing::new(), Instant::now());
        assert!(publishing.is_due(begun));
        (publishing.read_at, publishing.is_stale) = (Some(begun), false);
        assert!(!publishing.is_due(begun + PAUSE) && publishing.is_due(begun + EVERY));
        publishing.is_stale = true;
        assert!(!publishing.is_due(begun + PAUSE / 2) && publishing.is_due(begun + PAUSE));
    }
}
