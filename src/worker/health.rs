//! How endpoints fare: what came of attempts is weighed where all workers see it, and what that means for an endpoint is told to
//! whoever sends to it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::delivery::{Attempt, Outcome, Rule};
use crate::directory::Directory;
use crate::store::{Store, Tally, Weighed};
use crate::telemetry;

/// For how long nothing is to be sent to a subscription's endpoint; zero where that is over.
pub(super) type Hold = (i32, Duration);

/// Weighs what comes of attempts. Where all is well, nothing is written, and nothing asked.
#[derive(Clone, Debug)]
pub(super) struct Health {
    /// Subscriptions whose failures are remembered: what is accepted from them counts, too.
    ailing: Arc<Mutex<HashSet<i32>>>,
    /// What is yet to be weighed: one tally for each subscription, however much came of it.
    noted: Arc<Mutex<BTreeMap<i32, Tally>>>,
    is_noted: Arc<Notify>,
    holds: mpsc::UnboundedSender<Hold>,
}

impl Health {
    pub(super) fn new(holds: mpsc::UnboundedSender<Hold>) -> Self {
        Self {
            ailing: Arc::default(),
            noted: Arc::default(),
            is_noted: Arc::default(),
            holds,
        }
    }

    /// Takes note of a batch that was recorded.
    pub(super) fn note(&self, attempts: &[Attempt]) {
        let tallies = self.tallies(attempts);
        if tallies.is_empty() {
            return;
        }
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        for tally in tallies {
            add(&mut noted, tally);
        }
        self.is_noted.notify_one();
    }

    /// Weighs what was noted until `end`, beside the recording: a lane that somebody holds keeps no result from being written down.
    /// What cannot be weighed is weighed later, together with what came meanwhile.
    pub(super) async fn run(self, store: Store, directory: Arc<Directory>, end: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = self.is_noted.notified() => {}
                () = end.cancelled() => {}
            }
            let is_last = end.is_cancelled();
            if !self.weigh(&store, &directory).await && !is_last {
                tokio::time::sleep(AFTER_FAILURE).await;
                self.is_noted.notify_one();
            }
            if is_last {
                return;
            }
        }
    }

    /// Weighs what was noted; false where it must be tried again.
    async fn weigh(&self, store: &Store, directory: &Directory) -> bool {
        let noted = {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *noted)
        };
        if noted.is_empty() {
            return true;
        }
        let tallies: Vec<Tally> = noted.into_values().collect();
        match store.weigh(&tallies).await {
            Ok(weighed) => {
                for weighed in &weighed {
                    let name = directory.name(weighed.subscription_id);
                    telemetry::weighed(weighed, &name.unwrap_or_default());
                    self.heed(weighed);
                }
                true
            }
            Err(error) => {
                tracing::warn!(%error, "cannot weigh how endpoints fare; trying again");
                let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
                let since = std::mem::replace(
                    &mut *noted,
                    tallies
                        .into_iter()
                        .map(|tally| (tally.subscription_id, tally))
                        .collect(),
                );
                for tally in since.into_values() {
                    add(&mut noted, tally);
                }
                false
            }
        }
    }

    /// What some worker's attempts have made of a subscription.
    pub(super) fn heed(&self, weighed: &Weighed) {
        let mut ailing = self.ailing.lock().unwrap_or_else(PoisonError::into_inner);
        let was_ailing = if weighed.is_well {
            ailing.remove(&weighed.subscription_id)
        } else {
            !ailing.insert(weighed.subscription_id)
        };
        // What was weighed may not be all that has failed: that nothing is held yet says little while more fails.
        let is_over = was_ailing && (weighed.is_well || weighed.has_closed());
        if is_over || !weighed.held_for.is_zero() {
            // Nobody listens any more only when the worker is past its end.
            let _ = self.holds.send((weighed.subscription_id, weighed.held_for));
        }
    }

    /// What a subscription was held for is over without an attempt: the next one may be made.
    pub(super) fn free(&self, subscription_id: i32) {
        let _ = self.holds.send((subscription_id, Duration::ZERO));
    }

    /// What a batch tells of the subscriptions that failed in it, or before.
    fn tallies(&self, attempts: &[Attempt]) -> Vec<Tally> {
        let mut told: BTreeMap<i32, Tally> = BTreeMap::new();
        let worth = self.worth(attempts);
        for attempt in attempts {
            let id = attempt.key.subscription_id;
            if worth.contains(&id) {
                let tally = told.entry(id).or_insert_with(|| Tally::of(id));
                tally.count(attempt);
            }
        }
        let told = told.into_values();
        told.filter(Tally::says_something).collect()
    }

    /// The subscriptions of a batch of which anything is to be weighed.
    fn worth(&self, attempts: &[Attempt]) -> HashSet<i32> {
        let ailing = self.ailing.lock().unwrap_or_else(PoisonError::into_inner);
        let failed_or_ailing = attempts
            .iter()
            .filter(|attempt| !is_plain(attempt) || ailing.contains(&attempt.key.subscription_id));
        let ids = failed_or_ailing.map(|attempt| attempt.key.subscription_id);
        ids.collect()
    }
}

impl Tally {
    fn of(subscription_id: i32) -> Self {
        Self {
            subscription_id,
            ..Self::default()
        }
    }

    fn count(&mut self, attempt: &Attempt) {
        match attempt.report.outcome {
            Outcome::Accepted => (self.requests, self.run) = (self.requests + 1, 0),
            outcome if outcome.is_failure() => {
                self.requests += 1;
                self.failures += 1;
                self.run += 1;
            }
            // Nothing was sent, or nobody knows what came of it: that is no fault of the endpoint.
            _ => {}
        }
        // What a worker waits for of its own accord, since it was not let in, no receiver asked for.
        let asked = attempt.ruling.hold;
        let asked = asked.filter(|_| attempt.report.outcome != Outcome::Blocked);
        self.asked_for = self.asked_for.max(asked.unwrap_or_default());
        if let Some(rule) = attempt.ruling.rule.filter(|rule| rule.pauses()) {
            self.to_pause = Some(match rule {
                Rule::Gone => "its receiver answered 410 Gone",
                _ => "its receiver answered `webhook-delivery: disable`",
            });
        }
    }

    /// What came of it later, too.
    fn add(&mut self, later: &Self) {
        self.run = if later.run < later.requests {
            later.run
        } else {
            self.run.saturating_add(later.run)
        };
        self.requests = self.requests.saturating_add(later.requests);
        self.failures = self.failures.saturating_add(later.failures);
        self.asked_for = self.asked_for.max(later.asked_for);
        self.to_pause = self.to_pause.or(later.to_pause);
    }

    fn says_something(&self) -> bool {
        self.requests > 0 || self.to_pause.is_some()
    }
}

fn add(noted: &mut BTreeMap<i32, Tally>, tally: Tally) {
    noted
        .entry(tally.subscription_id)
        .and_modify(|before| before.add(&tally))
        .or_insert(tally);
}

/// How long it waits after it could not weigh.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Accepted, or not sent at all, and nothing asked for: nothing that could make anything worse.
fn is_plain(attempt: &Attempt) -> bool {
    !attempt.report.outcome.is_failure() && !attempt.ruling.rule.is_some_and(Rule::pauses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt;
    use crate::delivery::Lease;
    use crate::directory::Terms;

    #[test]
    fn who_is_not_let_in_has_no_other_worker_wait() {
        let mut attempt = attempt::refused(
            &Lease::fresh(7, 1),
            &Terms::nowhere(7),
            "no access token".to_owned(),
        );
        attempt.ruling.hold = Some(Duration::from_secs(5));
        let mut tally = Tally::of(7);
        tally.count(&attempt);
        assert_eq!((tally.requests, tally.asked_for), (0, Duration::ZERO));
        attempt.report.outcome = Outcome::Rejected;
        tally.count(&attempt);
        assert_eq!(
            (tally.requests, tally.asked_for),
            (1, Duration::from_secs(5))
        );
    }
}
