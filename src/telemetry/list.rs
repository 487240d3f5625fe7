//! The closed list of metrics: each with its kind, its labels and its meaning.

use std::fmt::Write as _;

use metrics::counter;

use crate::operational::OperationalEvent;

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

pub(super) const EVENTS_TAKEN: &str = "posthaste_events_taken_total";
pub(super) const EVENTS_UNROUTED: &str = "posthaste_events_unrouted_total";
pub(super) const EVENTS_UNKNOWN: &str = "posthaste_events_unknown_total";
pub(super) const QUARANTINED: &str = "posthaste_deliveries_quarantined_total";
pub(super) const DELIVERIES_MADE: &str = "posthaste_deliveries_made_total";
pub(super) const ATTEMPTS: &str = "posthaste_attempts_total";
pub(super) const ATTEMPT_DURATION: &str = "posthaste_attempt_duration_seconds";
pub(super) const IN_FLIGHT: &str = "posthaste_deliveries_in_flight";
pub(super) const SENDING: &str = "posthaste_requests_in_flight";
pub(super) const LEASES_ADOPTED: &str = "posthaste_leases_adopted_total";
pub(super) const UNRECORDABLE: &str = "posthaste_attempts_unrecordable_total";
pub(super) const OPERATIONAL_EVENTS: &str = "posthaste_operational_events_total";
pub(super) const WAKEUPS: &str = "posthaste_wakeups_total";
pub(super) const STATEMENT_DURATION: &str = "posthaste_statement_duration_seconds";
pub(super) const REGISTERED: &str = "posthaste_worker_registered";
pub(super) const FOUR_EYES: &str = "posthaste_four_eyes";
pub(super) const SECRETS_OVERDUE: &str = "posthaste_secrets_overdue";
pub(super) const SECRETS_MISSING: &str = "posthaste_secrets_missing";
pub(super) const CERTIFICATE_EXPIRY: &str = "posthaste_client_certificate_expiry_timestamp_seconds";
pub(super) const IN_QUARANTINE: &str = "posthaste_deliveries_in_quarantine";
pub(super) const CLOCK_DIFFERENCE: &str = "posthaste_clock_difference_seconds";

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
