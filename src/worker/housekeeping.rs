//! What a worker does for the others: takes over what the gone and the frozen left behind, and makes
//! partitions ahead of time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::forgetting::Forgetting;
use super::health::Health;
use super::publishing::Publishing;
use super::recorder::Books;
use super::{recorder, requests};
use crate::attempt;
use crate::config::Config;
use crate::delivery::Attempt;
use crate::jwks::KeySets;
use crate::operational::OperationalEvent;
use crate::store::{Adopted, Changes};
use crate::{Result, telemetry};

/// Everything the rounds need.
#[derive(Clone, Debug)]
pub(super) struct Housekeeping {
    pub(super) books: Books,
    pub(super) config: Arc<Config>,
    pub(super) worker_id: i32,
    /// Rings when a worker is gone.
    pub(super) dropped: Arc<Notify>,
    pub(super) health: Health,
    pub(super) published: watch::Sender<Option<Arc<KeySets>>>,
    pub(super) stop: CancellationToken,
}

impl Housekeeping {
    /// Makes its rounds until it is stopped. What others left does not wait for the rest: it is to be sent again within two seconds.
    pub(super) async fn run(self) {
        tokio::join!(self.look_after_others(), self.keep_house());
    }

    async fn look_after_others(&self) {
        let mut rounds = rounds();
        let mut leases_due = Instant::now();
        let mut missing = Vec::new();
        while self.goes_on(&mut rounds).await {
            if let Err(error) = self.take_over(&mut leases_due, &mut missing).await {
                tracing::warn!(%error, "cannot look after the other workers' leases");
            }
        }
    }

    async fn keep_house(&self) {
        let mut rounds = rounds();
        let mut partitions_due = Instant::now();
        let mut clock_due = Instant::now();
        let mut terms = TermsWatch::new();
        let mut forgetting = Forgetting::new();
        let mut publishing = Publishing::new();
        while self.goes_on(&mut rounds).await {
            let now = Instant::now();
            if let Err(error) = terms.round(self, now).await {
                tracing::warn!(%error, "cannot see what has changed in the control plane");
            }
            let has_news = std::mem::take(&mut terms.has_news);
            if let Err(error) = publishing
                .round(&self.books.store, &self.published, has_news, now)
                .await
            {
                tracing::warn!(%error, "cannot read the public keys");
            }
            if now >= clock_due {
                clock_due = now + CLOCK_EVERY;
                self.mind_the_clock().await;
                self.tell_overdue_rotations().await;
            }
            if now >= partitions_due {
                partitions_due = now + self.make_partitions().await;
            }
            if let Err(error) = forgetting.round(&self.books.store, now).await {
                tracing::warn!(%error, "cannot delete dedup keys that have expired");
            }
        }
    }

    /// Waits for the next round; false where there is none any more.
    async fn goes_on(&self, rounds: &mut Interval) -> bool {
        let tick = self.stop.run_until_cancelled(rounds.tick()).await;
        tick.is_some()
    }

    /// Adopts leases that ended, and those of workers that are gone, and records each as abandoned.
    ///
    /// A worker is gone when it was `missing` at two rounds in a row: one whose connection broke has
    /// that long to come back before its requests under way are repeated. While nobody is gone, the
    /// table of leases is read when it is `due`: the more dead rows it holds, and the longer that
    /// takes, the more rarely.
    async fn take_over(&self, due: &mut Instant, missing: &mut Vec<i32>) -> Result<()> {
        let now_missing = self.books.store.gone_workers(self.worker_id).await?;
        let before = std::mem::replace(missing, now_missing);
        let gone: Vec<i32> = missing
            .iter()
            .filter(|id| before.contains(id))
            .copied()
            .collect();
        if gone.is_empty() && Instant::now() < *due {
            return Ok(());
        }
        let lease = self.config.lease;
        loop {
            let asked = Instant::now();
            let adopted = self
                .books
                .store
                .adopt(self.worker_id, lease, &gone, ADOPT_AT_ONCE)
                .await?;
            *due = Instant::now() + (asked.elapsed() * REST).min(LONGEST_REST);
            self.abandon(&adopted).await?;
            if adopted.len() < ADOPT_AT_ONCE {
                break;
            }
        }
        if !gone.is_empty() {
            tracing::warn!(workers = ?gone, "workers are gone; their leases are taken over");
            self.dropped.notify_one();
            self.books.keys.sweep();
            self.books.store.end_workers(&gone, None).await?;
        }
        Ok(())
    }

    async fn abandon(&self, adopted: &[Adopted]) -> Result<()> {
        let mut attempts = Vec::with_capacity(adopted.len());
        for lease in adopted {
            let id = lease.key.subscription_id;
            let retry = self
                .books
                .directory
                .retry_policy(id, lease.revision)
                .await?;
            let report = attempt::abandoned(
                "the worker was gone, or its lease ended, before a result was recorded",
            );
            let left = lease
                .expires
                .map(|at| at.saturating_duration_since(Instant::now()));
            let ruling = retry
                .judge(&report, lease.number, left, fastrand::f64())
                .of(lease.key);
            attempts.push(Attempt {
                key: lease.key,
                number: lease.number,
                ordering_key: lease.ordering_key.clone(),
                holder: self.worker_id,
                address: lease.address,
                worker_id: lease.worker_id,
                revision: lease.revision,
                began: lease.began,
                report,
                ruling,
                owed_from: None,
                expires: lease.expires,
                signed_with: Vec::new(),
                bytes: 0,
                preparations: Vec::new(),
            });
        }
        if !attempts.is_empty() {
            telemetry::adopted(attempts.len());
            recorder::record(&self.books, &attempts, &self.stop).await;
        }
        Ok(())
    }

    /// Partners refuse signatures that are too old or too new, so a clock that is off is said aloud, and noted for all to see.
    async fn mind_the_clock(&self) {
        let (store, certificate) = (
            &self.books.store,
            self.books.directory.first_certificate_end(),
        );
        telemetry::certificates_end(certificate);
        let asked = Instant::now();
        let ahead = match store.server().await {
            Ok(server) => server.clock_ahead,
            Err(error) => return tracing::warn!(%error, "cannot compare clocks"),
        };
        if asked.elapsed() > SLOW {
            return;
        }
        self.books.ledger.note_clock(-ahead);
        telemetry::clock(-ahead);
        let noted = store.note_worker(self.worker_id, -ahead, certificate);
        if let Err(error) = noted.await {
            tracing::warn!(%error, "cannot note how this worker's clock stands");
        }
    }

    async fn tell_overdue_rotations(&self) {
        match self.books.store.tell_overdue_rotations(COUNTED).await {
            Ok(overdue) => {
                for rotation in overdue {
                    let why = format!("secret {} is the newest", rotation.number);
                    let event = OperationalEvent::RotationOverdue;
                    telemetry::told(
                        event,
                        rotation.subscription_id,
                        &rotation.subscription,
                        &why,
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "cannot tell of overdue rotations"),
        }
    }

    /// Makes the partitions of the coming days; says when to try again.
    async fn make_partitions(&self) -> Duration {
        match self
            .books
            .store
            .create_partitions(self.config.partitions_ahead)
            .await
        {
            Ok(made) => {
                if made > 0 {
                    tracing::info!(made, "partitions made");
                }
                Duration::from_hours(1)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot make partitions yet");
                Duration::from_mins(1)
            }
        }
    }
}

/// Follows what people decide: terms, pauses, removals, releases from quarantine, and what they ask for.
struct TermsWatch {
    /// Where the next look starts; nothing has been looked at yet without it.
    watermark: Option<String>,
    looked_at: Instant,
    /// What the last look showed.
    seen: HashMap<i32, i32>,
    /// Something has changed since somebody took this.
    has_news: bool,
    settle_due: Instant,
}

impl TermsWatch {
    fn new() -> Self {
        Self {
            watermark: None,
            looked_at: Instant::now(),
            seen: HashMap::new(),
            has_news: false,
            settle_due: Instant::now(),
        }
    }

    /// What was agreed is read anew whether or not the lanes can follow just now, and the other way round.
    async fn round(&mut self, house: &Housekeeping, now: Instant) -> Result<()> {
        let Housekeeping { books, health, .. } = house;
        let Books {
            store, directory, ..
        } = books;
        // Whatever was weighed since the last look began, however long ago that is: who never learns that an endpoint failed would
        // tell nobody that it is well again.
        let back = now.duration_since(self.looked_at) + SLACK;
        let changes = store
            .changes(self.watermark.as_deref().unwrap_or(NEVER), back)
            .await?;
        self.looked_at = now;
        for weighed in &changes.weighed {
            health.heed(weighed);
        }
        let news = self.news_in(&changes);
        if !news.is_empty() {
            self.has_news = true;
            self.settle_due = now;
        }
        let settled = self.settle(house, &changes, now).await;
        requests::carry_out(store, changes.requests, &house.books.keys, now).await;
        match self.watermark {
            None => directory.refresh_all().await?,
            Some(_) => directory.refresh(&news).await?,
        }
        self.seen = changes.revisions.into_iter().collect();
        self.watermark = Some(changes.watermark);
        if changes.asked_for {
            directory.make_secrets().await?;
        }
        settled
    }

    /// Carries out what people decided, as much as fits into a moment: whoever looks after gone workers must not wait long. The
    /// rest is for the next round.
    async fn settle(
        &mut self,
        house: &Housekeeping,
        changes: &Changes,
        now: Instant,
    ) -> Result<()> {
        let Books { store, keys, .. } = &house.books;
        if changes.to_pause || now >= self.settle_due {
            // Whatever stands in its way, what people decided is carried out.
            let paused = store.pause_failing(AT_ONCE).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot pause what fails; trying again");
                Vec::new()
            });
            for (id, why) in paused {
                let name = house.books.directory.name(id).unwrap_or_default();
                telemetry::told(OperationalEvent::SubscriptionPaused, id, &name, &why);
                self.settle_due = now;
            }
        }
        let is_due = now >= self.settle_due;
        if is_due {
            store.settle_lanes().await?;
            let mut is_all = false;
            while !is_all && now.elapsed() < MOMENT {
                let cancelled = store.cancel_removed(AT_ONCE).await?;
                telemetry::finished("CANCELLED", cancelled as u64);
                let expired = store.expire_waiting(AT_ONCE).await?;
                telemetry::finished("EXPIRED", expired as u64);
                is_all = cancelled.max(expired) < AT_ONCE;
                if expired > 0 {
                    keys.sweep();
                }
            }
            if is_all {
                self.settle_due = now + SETTLE_EVERY;
            }
        }
        if changes.released {
            while store.requeue_released(AT_ONCE).await? >= AT_ONCE && now.elapsed() < MOMENT {}
        }
        if is_due || changes.requests.skips {
            let mut freed = AT_ONCE;
            while freed >= AT_ONCE && now.elapsed() < MOMENT {
                let free = store.free_keys(AT_ONCE).await?;
                freed = free.len();
                keys.go_on(free);
            }
        }
        Ok(())
    }

    /// Revisions that the last look did not show. While somebody's transaction stays open, each look shows again what has changed
    /// since it began.
    fn news_in(&self, changes: &Changes) -> Vec<(i32, i32)> {
        let is_news = |(id, revision): &&(i32, i32)| self.seen.get(id) != Some(revision);
        changes.revisions.iter().filter(is_news).copied().collect()
    }
}

/// Overdue rotations told of at once.
const COUNTED: usize = 1000;
/// Beyond every transaction's id.
const NEVER: &str = "18446744073709551615";
/// How much further back: what was weighed is seen when that has committed.
const SLACK: Duration = Duration::from_secs(10);
/// How often lanes are made to follow their subscriptions, and what was removed is cancelled, though nothing has changed.
const SETTLE_EVERY: Duration = Duration::from_secs(30);
/// How long a round may go on with the next batch.
const MOMENT: Duration = Duration::from_millis(300);
/// Deliveries cancelled or put back in one statement.
const AT_ONCE: usize = 1000;

fn rounds() -> Interval {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds
}

/// How often it looks after the house, and after the others.
const ROUND: Duration = Duration::from_millis(500);
/// How often clocks are compared.
const CLOCK_EVERY: Duration = Duration::from_mins(1);
/// A clock that was asked for so long is not known to a second.
const SLOW: Duration = Duration::from_secs(2);
/// How many times as long as it took to read the leases it rests before it reads them again.
const REST: u32 = 50;
/// However long that took: an answer may be slow for other reasons than dead rows.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Leases taken over in one statement.
const ADOPT_AT_ONCE: usize = 500;
