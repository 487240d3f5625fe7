//! Everything the worker says: one closed list of metrics, and the log lines beside them.
//!
//! Labels come from closed sets. No label, and no log line, holds a secret or a payload.

mod events;
mod list;
mod log;

use std::time::{Duration, SystemTime};

use metrics::{counter, gauge, histogram};

use crate::delivery::{Attempt, Lease, Outcome};
use crate::operational::OperationalEvent;
use crate::store::Weighed;
pub use events::{LOG_EVENTS, LogEvent, log_table};
use list::{
    ATTEMPT_DURATION, ATTEMPTS, CERTIFICATE_EXPIRY, CLOCK_DIFFERENCE, DELIVERIES_MADE,
    EVENTS_TAKEN, EVENTS_UNKNOWN, EVENTS_UNROUTED, FOUR_EYES, IN_FLIGHT, LEASES_ADOPTED,
    QUARANTINED, REGISTERED, SECRETS_MISSING, SECRETS_OVERDUE, SENDING, STATEMENT_DURATION,
    UNRECORDABLE, WAKEUPS,
};
pub use list::{BUCKETS, Kind, Label, METRICS, Metric, Origin, Values, describe, markdown_table};
pub use log::ATTEMPT_LINES;
pub(crate) use log::told;

/// What made the worker look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Notification,
    Poll,
    Work,
}

pub(crate) fn woke(source: Source) {
    let source = match source {
        Source::Notification => "notification",
        Source::Poll => "poll",
        Source::Work => "work",
    };
    counter!(WAKEUPS, "source" => source).increment(1);
}

pub(crate) fn taken(events: u64, deliveries: u64, unrouted: u64, unknown: u64) {
    counter!(EVENTS_TAKEN).increment(events);
    counter!(DELIVERIES_MADE).increment(deliveries);
    counter!(EVENTS_UNROUTED).increment(unrouted);
    counter!(EVENTS_UNKNOWN).increment(unknown);
}

/// Counts and logs deliveries that are held, each for its reason; at these places are those that were released before.
pub(crate) fn quarantined(broken: &[(&Lease, &str)], released: &[usize]) {
    for (place, (lease, why)) in broken.iter().enumerate() {
        if !released.contains(&place) {
            counter!(QUARANTINED).increment(1);
            tracing::warn!(
                event_id = %lease.key.event_id,
                subscription_id = lease.key.subscription_id,
                why,
                "delivery quarantined"
            );
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn holding(deliveries: usize, requests: usize) {
    gauge!(IN_FLIGHT).set(deliveries as f64);
    gauge!(SENDING).set(requests as f64);
}

pub(crate) fn registered(is: bool) {
    gauge!(REGISTERED).set(if is { 1.0 } else { 0.0 });
}

/// What waits for a person.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) four_eyes: bool,
    pub(crate) secrets_overdue: u64,
    pub(crate) secrets_missing: u64,
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn waiting_for_people(waiting: Waiting) {
    gauge!(FOUR_EYES).set(if waiting.four_eyes { 1.0 } else { 0.0 });
    gauge!(SECRETS_OVERDUE).set(waiting.secrets_overdue as f64);
    gauge!(SECRETS_MISSING).set(waiting.secrets_missing as f64);
}

/// When the first client certificate ends. A number that compares as false with every other where there is none: no alert fires.
pub(crate) fn certificates_end(first: Option<SystemTime>) {
    let seconds = first.map_or(f64::NAN, |end| {
        let since = end.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs_f64()
    });
    gauge!(CERTIFICATE_EXPIRY).set(seconds);
}

/// Our clock minus the database's.
pub(crate) fn clock(difference_seconds: f64) {
    gauge!(CLOCK_DIFFERENCE).set(difference_seconds);
    if difference_seconds.abs() > 30.0 {
        tracing::warn!(
            difference_seconds,
            "this machine's clock differs from the database's"
        );
    }
}

pub(crate) fn statement(query: &'static str, took: Duration) {
    histogram!(STATEMENT_DURATION, "query" => query).record(took.as_secs_f64());
}

/// Counts and logs what became of a circuit breaker.
pub(crate) fn weighed(weighed: &Weighed, subscription: &str) {
    let id = weighed.subscription_id;
    match (weighed.before.as_str(), weighed.breaker.as_str()) {
        ("closed", "open") => {
            let why = format!("open for {:.0?}", weighed.held_for);
            log::told(OperationalEvent::BreakerOpened, id, subscription, &why);
        }
        ("open" | "half_open", "closed") => {
            log::told(
                OperationalEvent::BreakerClosed,
                id,
                subscription,
                "an attempt was accepted",
            );
        }
        ("half_open", "open") => {
            let held_for_s = weighed.held_for.as_secs();
            tracing::info!(
                subscription_id = id,
                subscription,
                held_for_s,
                "a probe failed"
            );
        }
        _ => {}
    }
}

pub(crate) fn adopted(leases: usize) {
    counter!(LEASES_ADOPTED).increment(leases as u64);
}

/// Counts and logs a batch that was recorded; `late` are the places of those that changed nothing. Asks for a subscription's name
/// only where a delivery was given up.
pub(crate) fn recorded(
    attempts: &[Attempt],
    late: &[usize],
    name_of: impl Fn(i32) -> Option<String>,
) {
    for (place, attempt) in attempts.iter().enumerate() {
        let verdict = if late.contains(&place) {
            "late"
        } else {
            attempt.ruling.verdict.as_str()
        };
        let outcome = attempt.report.outcome;
        counter!(ATTEMPTS, "outcome" => outcome.as_str(), "verdict" => verdict).increment(1);
        if outcome != Outcome::Abandoned {
            let took = attempt.report.duration.as_secs_f64();
            histogram!(ATTEMPT_DURATION, "outcome" => outcome.as_str()).record(took);
        }
        let given_up = match verdict {
            "exhausted" if !attempt.key.is_test() => OperationalEvent::DeliveryExhausted,
            "rejected" if !attempt.key.is_test() => OperationalEvent::DeliveryRejected,
            _ => {
                log::attempt(attempt, verdict);
                continue;
            }
        };
        let name = name_of(attempt.key.subscription_id).unwrap_or_default();
        log::told_of_delivery(given_up, attempt, &name);
    }
}

/// Logs and counts attempts that Postgres refused. Their leases will end, and they will be recorded
/// as abandoned.
pub(crate) fn unrecordable(attempts: &[Attempt], why: &str) {
    counter!(UNRECORDABLE).increment(attempts.len() as u64);
    for Attempt { key, number, .. } in attempts {
        tracing::error!(
            event_id = %key.event_id, subscription_id = key.subscription_id, replay = key.replay, number, why,
            "an attempt cannot be recorded"
        );
    }
}
