//! The log lines about attempts, and about what operators should know.

use metrics::counter;

use super::list::OPERATIONAL_EVENTS;
use crate::delivery::{Attempt, Rule};
use crate::operational::{OperationalEvent, Severity};

pub(super) fn attempt(attempt: &Attempt, verdict: &str) {
    let Attempt {
        key,
        number,
        report,
        ..
    } = attempt;
    let (outcome, status) = (report.outcome.as_str(), report.http_status);
    let duration_ms = report.duration.as_millis();
    let error = report.error.as_deref().unwrap_or_default();
    let rule = attempt.ruling.rule.map(Rule::as_str);
    match verdict {
        "done" => tracing::debug!(
            event_id = %key.event_id, subscription_id = key.subscription_id, replay = key.replay, number,
            outcome, status, verdict, duration_ms, "attempt"
        ),
        "retry" => tracing::info!(
            event_id = %key.event_id, subscription_id = key.subscription_id, replay = key.replay, number,
            outcome, status, verdict, rule, duration_ms, error, "attempt"
        ),
        _ => tracing::warn!(
            event_id = %key.event_id, subscription_id = key.subscription_id, replay = key.replay, number,
            outcome, status, verdict, rule, duration_ms, error, "attempt"
        ),
    }
}

/// Logs at a level that is known only here: the macros want it as a constant.
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
        why = report.error.as_deref().unwrap_or_default(),
        "delivery given up"
    );
}
