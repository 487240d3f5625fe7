//! Writes down what came of attempts, many in one statement, until it is written.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::ordering::Keys;
use crate::delivery::{Attempt, Grant, Preparation};
use crate::directory::Directory;
use crate::store::Store;
use crate::telemetry::Ledger;
use crate::{Error, telemetry};

/// How many deliveries, and how many payload bytes, have left the worker.
pub(super) type Left = (usize, usize);

/// What it takes to record.
#[derive(Clone, Debug)]
pub(super) struct Books {
    pub(super) store: Store,
    pub(super) directory: Arc<Directory>,
    pub(super) keys: Keys,
    pub(super) ledger: Arc<Ledger>,
}

/// Who records, and lets others know.
pub(super) struct Recorder {
    pub(super) books: Books,
    pub(super) health: Health,
    /// Attempts in one statement, at most.
    pub(super) batch: usize,
    /// Cancelled when results in hand may not be held any longer.
    pub(super) give_up: CancellationToken,
}

impl Recorder {
    /// Records what arrives until the channel closes. What has arrived by the time a statement is sent
    /// goes with it, so batches grow with the load by themselves; and a small batch right after another
    /// gathers for a moment.
    pub(super) async fn run(
        self,
        mut attempts: mpsc::Receiver<Box<Attempt>>,
        left: mpsc::UnboundedSender<Left>,
    ) {
        let Self {
            books,
            health,
            batch,
            give_up,
        } = self;
        let mut arrived = Vec::with_capacity(batch);
        let mut results = Vec::with_capacity(batch);
        let mut not_before = Instant::now();
        // At most one for each subscription in half a minute.
        let mut keeping = JoinSet::new();
        while attempts.recv_many(&mut arrived, batch).await > 0 {
            if arrived.len() < ENOUGH {
                gather(&mut attempts, &mut arrived, batch, not_before).await;
            }
            results.extend(arrived.drain(..).map(|attempt| *attempt));
            record(&books, &results, &give_up).await;
            prepared(&books.store, &results).await;
            keep_grants(&books.store, &results, &mut keeping);
            health.note(&results);
            not_before = Instant::now() + GATHER;
            let bytes = results.iter().map(|attempt| attempt.bytes).sum();
            // Nobody listens any more only when the worker is past its end.
            let _ = left.send((results.len(), bytes));
            results.clear();
        }
        // What is not kept by then is asked for again.
        let _ = tokio::time::timeout(LAST_GRANTS, keeping.join_all()).await;
    }
}

/// Writes down the requests that it took to be let in. Said once: where that fails, the log has them.
async fn prepared(store: &Store, results: &[Attempt]) {
    let made: Vec<_> = preparations(results).collect();
    let Some(first) = results.first().filter(|_| !made.is_empty()) else {
        return;
    };
    if let Err(error) = store.prepared(first.worker_id, &made).await {
        tracing::warn!(%error, requests = made.len(), "requests for permissions and tokens cannot be recorded");
        for (
            subscription_id,
            Preparation {
                kind, url, report, ..
            },
        ) in made
        {
            let (kind, outcome) = (kind.as_str(), report.outcome.as_str());
            tracing::warn!(
                subscription_id,
                kind,
                url,
                outcome,
                status = report.http_status,
                "not recorded"
            );
        }
    }
}

/// Keeps what receivers granted, beside the recording: a lane that a frozen worker holds must hold up nobody's results.
fn keep_grants(store: &Store, results: &[Attempt], keeping: &mut JoinSet<()>) {
    while keeping.try_join_next().is_some() {}
    for (subscription_id, made) in preparations(results) {
        let Some(grant) = made.grant.clone() else {
            continue;
        };
        let store = store.clone();
        keeping.spawn(async move {
            let Grant { url, origin, rate } = grant;
            let kept = store.keep_handshake(subscription_id, &url, &origin, rate);
            if let Err(error) = kept.await {
                tracing::warn!(%error, subscription_id, "what a receiver allowed cannot be kept; it will be asked again");
            }
        });
    }
}

fn preparations(results: &[Attempt]) -> impl Iterator<Item = (i32, &Preparation)> {
    results.iter().flat_map(|attempt| {
        let id = attempt.key.subscription_id;
        attempt.preparations.iter().map(move |made| (id, made))
    })
}

/// Takes in what else arrives until then.
async fn gather<T>(
    arriving: &mut mpsc::Receiver<T>,
    arrived: &mut Vec<T>,
    batch: usize,
    until: Instant,
) {
    let more = async {
        while arrived.len() < batch {
            if arriving.recv_many(arrived, batch - arrived.len()).await == 0 {
                break;
            }
        }
    };
    // Out of time is as good as closed: what has come is in hand.
    let _ = tokio::time::timeout_at(until, more).await;
}

/// Records a batch, however often it takes: results are held in hand while Postgres is away. Gives up
/// only when told to; then the leases end by themselves and the attempts are recorded as abandoned.
pub(super) async fn record(books: &Books, attempts: &[Attempt], give_up: &CancellationToken) {
    let Books {
        store,
        directory,
        keys,
        ledger,
    } = books;
    let name_of = |id| directory.name(id);
    let mut wait = Duration::from_millis(100);
    let mut left = Cow::Borrowed(attempts);
    loop {
        let error = match store.record(&left).await {
            Ok(late) => {
                keys.finished(&left);
                return telemetry::recorded(&left, &late, ledger, name_of);
            }
            Err(Error::Data(why)) if left.len() > 1 => {
                tracing::error!(why, "a batch was refused; recording one by one");
                return one_by_one(books, &left, give_up).await;
            }
            Err(Error::Data(why)) => return telemetry::unrecordable(&left, &why),
            Err(error) => error,
        };
        tracing::warn!(%error, attempts = left.len(), "cannot record; trying again");
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
                () = give_up.cancelled() => {
                    return tracing::error!(attempts = left.len(), "stopped before these were recorded");
                }
            }
            // It may have committed, and only its answer been lost.
            if let Ok(done) = store.recorded_already(&left).await {
                let (done, not) = split(&left, &done);
                keys.finished(&done);
                telemetry::recorded(&done, &[], ledger, name_of);
                left = Cow::Owned(not);
                break;
            }
        }
        if left.is_empty() {
            return;
        }
    }
}

/// The attempts at these places, and the others.
fn split(attempts: &[Attempt], places: &[usize]) -> (Vec<Attempt>, Vec<Attempt>) {
    let (mut at, mut others) = (Vec::new(), Vec::new());
    for (place, attempt) in attempts.iter().enumerate() {
        let part = if places.contains(&place) {
            &mut at
        } else {
            &mut others
        };
        part.push(attempt.clone());
    }
    (at, others)
}

/// One result that Postgres refuses must not keep the others from being recorded.
async fn one_by_one(books: &Books, attempts: &[Attempt], give_up: &CancellationToken) {
    for attempt in attempts {
        let alone = std::slice::from_ref(attempt);
        Box::pin(record(books, alone, give_up)).await;
    }
}

/// A batch that is worth a statement however soon it comes.
const ENOUGH: usize = 128;
/// How far apart the statements for smaller ones are.
const GATHER: Duration = Duration::from_millis(4);
/// How long a worker that stops waits for grants to be kept.
const LAST_GRANTS: Duration = Duration::from_secs(3);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
