//! From a delivery in hand to a result: what may be sent is, and where its attempt ends, the next one of its lane begins.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shift;
use crate::attempt::{self, Circumstances, Made};
use crate::catalogue::Catalogue;
use crate::delivery::{Attempt, Lease, Outcome};
use crate::directory::Terms;
use crate::masks::{Masks, Seen, Unseen};
use crate::request::Shape;
use crate::spans::Spans;
use crate::worker::lanes::Ready;

impl Shift {
    /// Starts as many attempts of a lane as it may make at once, on the terms of today.
    pub(super) fn send_from(&mut self, subscription_id: i32) {
        let today = self.directory.terms(subscription_id);
        let (mut unfit, mut late) = (Vec::new(), Vec::new());
        while let Some((lease, terms)) = self.lanes.next(subscription_id, Instant::now()) {
            let terms = today.clone().unwrap_or(terms);
            if lease.expires.is_some_and(|at| at <= Instant::now()) {
                self.lanes.finished(subscription_id, Instant::now());
                late.push((lease, terms));
                continue;
            }
            let timeout = self.timeout(&terms);
            if !self.may_begin(&lease, &terms, timeout) || lacks_context(&lease, &terms) {
                self.lanes.finished(subscription_id, Instant::now());
                unfit.push((lease, terms));
                continue;
            }
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                let circumstances = Circumstances {
                    timestamp: unix_now(),
                    chance: fastrand::f64(),
                    timeout,
                    cut: &shared.cut,
                    spans: &shared.spans,
                };
                let over = match look_at(&shared, &lease, &terms).await {
                    // Looking took so long that another worker could begin before this one is over.
                    Ok(_) if !lasts(&lease, timeout, Instant::now()) => {
                        Over::Unbegun(Box::new((lease, terms)))
                    }
                    Ok(seen) => match attempt::make(lease, seen, &terms, circumstances).await {
                        Made::Attempt(attempt) => Over::Attempted(attempt),
                        Made::NotYet(lease) => Over::Unbegun(Box::new((*lease, terms))),
                    },
                    // Nobody would look for the answer to a test in quarantine.
                    Err(why) if lease.key.is_test() => {
                        Over::Attempted(Box::new(attempt::refused(&lease, &terms, why)))
                    }
                    Err(why) => Over::Broken(Box::new((lease, terms)), why),
                };
                // The receiver lives until every attempt has reported.
                let _ = shared.finished.send(over).await;
            });
        }
        self.give_back(unfit);
        self.expire(late);
    }

    /// A request must be over, and recorded, while the lease stands; what was paused meanwhile waits; and what was claimed in
    /// keeping with a rate counts against it for a moment only.
    fn may_begin(&self, lease: &Lease, terms: &Terms, timeout: Duration) -> bool {
        let now = Instant::now();
        let claimed = lease.ends.checked_sub(self.config.lease);
        let is_prompt = terms
            .send_within
            .is_none_or(|grace| claimed.is_some_and(|at| now <= at + grace));
        terms.active && is_prompt && lasts(lease, timeout, now)
    }

    /// How long one request of a subscription may take: its own timeout, as far as a lease allows.
    fn timeout(&self, terms: &Terms) -> Duration {
        let longest = self.config.lease.saturating_sub(2 * MARGIN);
        terms
            .timeout
            .unwrap_or(self.config.request_timeout)
            .min(longest)
    }

    /// Lets go first whatever can, and takes along the attempts that ended by then: a round of the loop costs the same for one as for
    /// many.
    pub(super) async fn gather(&mut self, over: &mut Vec<Over>) {
        tokio::task::yield_now().await;
        while over.len() < AT_ONCE
            && let Ok(another) = self.finished.try_recv()
        {
            over.push(another);
        }
    }

    /// Attempts are over: their results go to the recorder, and their lanes send the next.
    pub(super) fn pass_on(&mut self, over: &mut Vec<Over>) {
        let now = Instant::now();
        let (mut lanes, mut broken, mut unbegun) = (Vec::new(), Vec::new(), Vec::new());
        for over in over.drain(..) {
            let id = over.subscription_id();
            if self.lanes.finished(id, now) {
                self.plan.has_room(now);
            }
            if !lanes.contains(&id) {
                lanes.push(id);
            }
            match over {
                // Its channel holds as many as can ever be in flight.
                Over::Attempted(attempt) => {
                    self.lanes.heed(&attempt, now);
                    let is_kept_out = attempt.report.outcome == Outcome::Blocked;
                    if let Some(wait) = attempt.ruling.hold.filter(|_| is_kept_out) {
                        unbegun.extend(self.rest(id, wait, now));
                    }
                    if self.results.try_send(attempt).is_err() {
                        tracing::error!("the recorder is gone");
                    }
                }
                Over::Broken(ready, why) => broken.push((*ready, why)),
                Over::Unbegun(ready) => {
                    unbegun.push(*ready);
                    unbegun.extend(self.rest(id, NOT_YET, now));
                }
            }
        }
        self.quarantine(broken);
        self.give_back(unbegun);
        for id in lanes {
            self.send_from(id);
        }
    }
}

/// What every attempt needs. It holds one handle on all of it: each further one would be another count, or lock, that all attempts
/// contend for.
pub(super) struct Shared {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) masks: Arc<Masks>,
    pub(super) spans: Spans,
    /// Where attempts report.
    pub(super) finished: mpsc::Sender<Over>,
    /// Cancelled when requests under way may not be waited for any longer.
    pub(super) cut: CancellationToken,
}

/// What became of a delivery in hand. On the heap, since it is handed on from channel to channel.
pub(super) enum Over {
    /// An attempt was made.
    Attempted(Box<Attempt>),
    /// None may be: the payload breaks its schema, or its mask misses an id, in this way.
    Broken(Box<Ready>, String),
    /// None may be yet.
    Unbegun(Box<Ready>),
}

impl Over {
    fn subscription_id(&self) -> i32 {
        match self {
            Self::Attempted(attempt) => attempt.key.subscription_id,
            Self::Broken(ready, _) | Self::Unbegun(ready) => ready.0.key.subscription_id,
        }
    }
}

/// Whether a lease lasts for one request that begins now, and for what follows.
fn lasts(lease: &Lease, timeout: Duration, now: Instant) -> bool {
    now + timeout + MARGIN <= lease.ends
}

/// Whether it was leased on terms that told of less than those of today, so that what they tell was not read.
fn lacks_context(lease: &Lease, terms: &Terms) -> bool {
    let wants_context = |shape: &Shape| shape.wants_context;
    lease.context.is_none()
        && lease.revision < terms.revision
        && terms.shape.as_ref().is_ok_and(wants_context)
}

/// What a partner may see of a delivery's event; an error where a person must see to it before anything is sent.
async fn look_at(
    shared: &Shared,
    lease: &Lease,
    terms: &Terms,
) -> Result<Result<Seen, Unseen>, String> {
    if let Some(why) = shared.catalogue.violation(lease).await {
        return Err(why);
    }
    match shared.masks.seen(lease, terms).await {
        // Whoever released it wants it sent, not held again: the attempt says what is missing, and another follows.
        Err(Unseen::Held(why)) if !lease.is_released => Err(why),
        seen => Ok(seen),
    }
}

fn unix_now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Attempts passed on in one go.
pub(super) const AT_ONCE: usize = 256;
/// How long a lane rests whose deliveries may not begin yet.
const NOT_YET: Duration = Duration::from_secs(1);
/// How much longer than a request its lease must last.
const MARGIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;
    use crate::delivery::Context;
    use crate::directory;
    use crate::store::StoredShape;

    #[test]
    fn a_lease_lasts_for_a_request_and_for_its_recording() {
        let (lease, timeout) = (leased(1), Duration::from_secs(20));
        let latest = lease.ends.checked_sub(MARGIN + timeout).unwrap();
        assert!(lasts(&lease, timeout, latest));
        assert!(!lasts(&lease, timeout, latest + Duration::from_millis(1)));
    }

    #[test]
    fn what_was_leased_before_the_terms_told_of_more_is_not_sent_without_it() {
        let telling = telling(2, r#"{"data":"{{data}}","metadata":"{{metadata}}"}"#, false);
        assert!(lacks_context(&leased(1), &telling));
        // Leased since: there is none.
        assert!(!lacks_context(&leased(2), &telling));
        let with = Lease {
            context: Some(Box::new(Context::default())),
            ..leased(1)
        };
        assert!(!lacks_context(&with, &telling));
    }

    #[test]
    fn what_tells_of_no_more_than_the_event_is_sent_as_it_is() {
        let plain = r#"{"type":"{{type}}","data":"{{data}}"}"#;
        assert!(!lacks_context(&leased(1), &telling(2, plain, false)));
        // The trace context is always read.
        assert!(!lacks_context(&leased(1), &telling(2, plain, true)));
        assert!(!lacks_context(&leased(1), &Terms::nowhere(7)));
    }

    fn telling(revision: i32, template: &str, pass_trace: bool) -> Terms {
        let stored = StoredShape {
            template: template.to_owned(),
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            values: BTreeMap::new(),
            signatures: vec!["standard_v1".to_owned()],
            header_prefix: None,
            user_agent: None,
            pass_trace,
        };
        let mut terms = Terms::nowhere(7);
        terms.revision = revision;
        terms.shape = directory::shape(&stored, Vec::new());
        terms
    }

    fn leased(revision: i32) -> Lease {
        Lease::fresh(7, revision)
    }
}
