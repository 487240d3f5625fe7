//! Carries out what people asked for: cancels, replays and tests.

use std::time::{Duration, Instant};

use super::ordering::Keys;
use crate::store::{Requests, Store};
use crate::{Result, telemetry};

/// Does as much of it as fits into a moment; the rest is for the next round, or another worker's.
pub(super) async fn carry_out(store: &Store, requests: Requests, keys: &Keys, now: Instant) {
    if !requests.cancels && !requests.replays {
        return;
    }
    if requests.cancels {
        match store.carry_out_cancels(CANCELS).await {
            Ok((ended, freed)) => {
                telemetry::finished("CANCELLED", ended);
                keys.go_on(freed);
            }
            Err(error) => tracing::warn!(%error, "what was to be cancelled is not yet"),
        }
    }
    if requests.replays
        && let Err(error) = replay(store, keys, now).await
    {
        tracing::warn!(%error, "replays do not go on");
    }
}

async fn replay(store: &Store, keys: &Keys, now: Instant) -> Result<()> {
    while let Some(behind) = store.queue_replays(AT_ONCE).await? {
        keys.go_on(behind);
        if now.elapsed() >= MOMENT {
            break;
        }
    }
    Ok(())
}

/// Events cancelled in one round.
const CANCELS: usize = 100;
/// Deliveries put into the queue in one statement.
const AT_ONCE: usize = 500;
/// How long a round may go on with the next batch.
const MOMENT: Duration = Duration::from_millis(300);
