//! Everything the worker says: one closed list of metrics, and the log lines beside them.
//!
//! Labels come from closed sets. No label, and no log line, holds a secret or a payload.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use metrics::{counter, gauge, histogram};

use crate::delivery::{Attempt, Lease, Outcome, Rule};
use crate::operational::{OperationalEvent, Severity};
use crate::store::Weighed;

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric: its name, what it is, its labels, and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name in `/metrics`.
    pub name: &'static str,
    /// What kind of number.
    pub kind: Kind,
    /// The labels, each from a closed set.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence.
    pub meaning: &'static str,
}

/// Every metric there is. The README's table is checked against it.
pub const METRICS: &[Metric] = &[
    metric(EVENTS_TAKEN, Kind::Counter, &[], "Events fanned out."),
    metric(
        EVENTS_UNROUTED,
        Kind::Counter,
        &[],
        "Events fanned out to nobody: no subscription matched.",
    ),
    metric(
        EVENTS_UNKNOWN,
        Kind::Counter,
        &[],
        "Events of a type that the catalogue does not have, or not as an active one; see posthaste.unrouted.",
    ),
    metric(
        DELIVERIES_MADE,
        Kind::Counter,
        &[],
        "Deliveries made of them.",
    ),
    metric(
        QUARANTINED,
        Kind::Counter,
        &[],
        "Deliveries held because the payload breaks its event type's schema; see posthaste.unrouted.",
    ),
    metric(
        ATTEMPTS,
        Kind::Counter,
        &["outcome", "verdict"],
        "Attempts recorded, by what they met and what that meant.",
    ),
    metric(
        ATTEMPT_DURATION,
        Kind::Histogram,
        &["outcome"],
        "Time of one attempt, from name resolution to the last byte read.",
    ),
    metric(
        IN_FLIGHT,
        Kind::Gauge,
        &[],
        "Deliveries leased to this worker now.",
    ),
    metric(SENDING, Kind::Gauge, &[], "Requests under way now."),
    metric(
        LEASES_ADOPTED,
        Kind::Counter,
        &[],
        "Leases taken over from workers that were gone or let them end.",
    ),
    metric(
        UNRECORDABLE,
        Kind::Counter,
        &[],
        "Attempts that Postgres refused to record. Anything but 0 is a defect.",
    ),
    metric(
        OPERATIONAL_EVENTS,
        Kind::Counter,
        &["type"],
        "Operational events that this worker told of; see posthaste.operations.",
    ),
    metric(
        WAKEUPS,
        Kind::Counter,
        &["source"],
        "Looks for work, by what caused them: a notification, the poll interval, or work found just before.",
    ),
    metric(
        STATEMENT_DURATION,
        Kind::Histogram,
        &["query"],
        "Time of one statement, by its file in sql/queries.",
    ),
    metric(
        REGISTERED,
        Kind::Gauge,
        &[],
        "1 while the worker is registered and may claim, else 0.",
    ),
    metric(
        FOUR_EYES,
        Kind::Gauge,
        &[],
        "1 while a proposal needs another administrator's approval, 0 where one may approve alone.",
    ),
    metric(
        SECRETS_OVERDUE,
        Kind::Gauge,
        &[],
        "Subscriptions whose newest signing secret is older than agreed, counted up to 1000; see posthaste.secret_overview.",
    ),
    metric(
        SECRETS_MISSING,
        Kind::Gauge,
        &[],
        "Subscriptions that nothing can be sent to for want of a secret, counted up to 1000; see posthaste.secret_overview.",
    ),
    metric(
        CERTIFICATE_EXPIRY,
        Kind::Gauge,
        &[],
        "When the first client certificate ends of those that this worker shows, in Unix seconds; NaN while it knows of none.",
    ),
    metric(
        IN_QUARANTINE,
        Kind::Gauge,
        &[],
        "Deliveries in quarantine that nobody has decided on, counted up to 1000; see posthaste.unrouted.",
    ),
    metric(
        CLOCK_DIFFERENCE,
        Kind::Gauge,
        &[],
        "This machine's clock minus the database's.",
    ),
];

const EVENTS_TAKEN: &str = "posthaste_events_taken_total";
const EVENTS_UNROUTED: &str = "posthaste_events_unrouted_total";
const EVENTS_UNKNOWN: &str = "posthaste_events_unknown_total";
const QUARANTINED: &str = "posthaste_deliveries_quarantined_total";
const DELIVERIES_MADE: &str = "posthaste_deliveries_made_total";
const ATTEMPTS: &str = "posthaste_attempts_total";
const ATTEMPT_DURATION: &str = "posthaste_attempt_duration_seconds";
const IN_FLIGHT: &str = "posthaste_deliveries_in_flight";
const SENDING: &str = "posthaste_requests_in_flight";
const LEASES_ADOPTED: &str = "posthaste_leases_adopted_total";
const UNRECORDABLE: &str = "posthaste_attempts_unrecordable_total";
const OPERATIONAL_EVENTS: &str = "posthaste_operational_events_total";
const WAKEUPS: &str = "posthaste_wakeups_total";
const STATEMENT_DURATION: &str = "posthaste_statement_duration_seconds";
const REGISTERED: &str = "posthaste_worker_registered";
const FOUR_EYES: &str = "posthaste_four_eyes";
const SECRETS_OVERDUE: &str = "posthaste_secrets_overdue";
const SECRETS_MISSING: &str = "posthaste_secrets_missing";
const CERTIFICATE_EXPIRY: &str = "posthaste_client_certificate_expiry_timestamp_seconds";
const IN_QUARANTINE: &str = "posthaste_deliveries_in_quarantine";
const CLOCK_DIFFERENCE: &str = "posthaste_clock_difference_seconds";

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    meaning: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        meaning,
    }
}

/// The table in the README: every metric with its kind, its labels and its meaning.
pub fn markdown_table() -> String {
    let mut table =
        String::from("| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n");
    for Metric {
        name,
        kind,
        labels,
        meaning,
    } in METRICS
    {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, labels) = (kind.word(), labels.join(", "));
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {meaning} |");
    }
    table
}

/// The bounds of each histogram, in seconds.
pub const BUCKETS: &[(&str, &[f64])] = &[
    (
        ATTEMPT_DURATION,
        &[
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
            30.0, 60.0, 120.0,
        ],
    ),
    (
        STATEMENT_DURATION,
        &[
            0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
            30.0,
        ],
    ),
];

/// Tells the recorder, if one is installed, what each metric means, and shows each counter at 0.
pub fn describe() {
    for Metric {
        name,
        kind,
        labels,
        meaning,
    } in METRICS
    {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *meaning),
            Kind::Gauge => metrics::describe_gauge!(*name, *meaning),
            Kind::Histogram => metrics::describe_histogram!(*name, *meaning),
        }
        if *kind == Kind::Counter && labels.is_empty() {
            counter!(*name).absolute(0);
        }
    }
    for event in OperationalEvent::ALL {
        counter!(OPERATIONAL_EVENTS, "type" => event.event_type()).absolute(0);
    }
}

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
    pub(crate) quarantined: u64,
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn waiting_for_people(waiting: Waiting) {
    gauge!(FOUR_EYES).set(if waiting.four_eyes { 1.0 } else { 0.0 });
    gauge!(SECRETS_OVERDUE).set(waiting.secrets_overdue as f64);
    gauge!(SECRETS_MISSING).set(waiting.secrets_missing as f64);
    gauge!(IN_QUARANTINE).set(waiting.quarantined as f64);
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
            told(OperationalEvent::BreakerOpened, id, subscription, &why);
        }
        ("open" | "half_open", "closed") => {
            told(
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
                log(attempt, verdict);
                continue;
            }
        };
        let name = name_of(attempt.key.subscription_id).unwrap_or_default();
        told_of_delivery(given_up, attempt, &name);
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

fn log(attempt: &Attempt, verdict: &str) {
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
fn told_of_delivery(event: OperationalEvent, attempt: &Attempt, subscription: &str) {
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
