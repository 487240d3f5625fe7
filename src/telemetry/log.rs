//! The log lines about attempts, and about what operators should know.

use metrics::counter;

use super::list::OPERATIONAL_EVENTS;
use crate::delivery::{Attempt, Rule};
use crate::operational::{OperationalEvent, Severity};

/// The target of the lines about attempts, by which they are switched on, off and sampled.
pub const ATTEMPT_LINES: &str = "posthaste::attempt";

/// Logs at a level that is known only here: the macros want it as a constant.
macro_rules! log_attempt {
    ($log:ident, $attempt:expr, $verdict:expr) => {
        tracing::$log!(
            target: ATTEMPT_LINES,
            event_id = %$attempt.key.event_id,
            subscription_id = $attempt.key.subscription_id,
            replay = $attempt.key.replay,
            number = $attempt.number,
            outcome = $attempt.report.outcome.as_str(),
            status = $attempt.report.http_status,
            verdict = $verdict,
            rule = $attempt.ruling.rule.map(Rule::as_str),
            duration_ms = $attempt.report.duration.as_millis(),
            error = $attempt.report.error.as_deref(),
            "attempt"
        )
    };
}

pub(super) fn attempt(attempt: &Attempt, verdict: &str) {
    match verdict {
        "done" => log_attempt!(debug, attempt, verdict),
        "retry" => log_attempt!(info, attempt, verdict),
        _ => log_attempt!(warn, attempt, verdict),
    }
}

/// The same at the level of an event.
macro_rules! log_as {
    ($event:expr, $($field:tt)+) => {
        match $event.severity() {
            Severity::Info => tracing::info!(error.code = $event.code(), error.message = $event.message(), $($field)+),
            Severity::Warning => tracing::warn!(error.code = $event.code(), error.message = $event.message(), $($field)+),
            Severity::Error => tracing::error!(error.code = $event.code(), error.message = $event.message(), $($field)+),
        }
    };
}

/// Counts and logs an operational event about a subscription. The row is written by whoever calls.
pub(crate) fn told(event: OperationalEvent, subscription_id: i32, subscription: &str, why: &str) {
    counter!(OPERATIONAL_EVENTS, "type" => event.event_type()).increment(1);
    log_as!(
        event,
        subscription_id,
        subscription,
        why,
        "operational event"
    );
}

/// The same about a delivery that was given up.
pub(super) fn told_of_delivery(event: OperationalEvent, attempt: &Attempt, subscription: &str) {
    let Attempt { key, report, .. } = attempt;
    counter!(OPERATIONAL_EVENTS, "type" => event.event_type()).increment(1);
    log_as!(
        event,
        event_id = %key.event_id,
        subscription_id = key.subscription_id,
        subscription,
        replay = key.replay,
        attempts = attempt.number,
        outcome = report.outcome.as_str(),
        status = report.http_status,
        duration_ms = report.duration.as_millis(),
        why = report.error.as_deref(),
        "delivery given up"
    );
}
