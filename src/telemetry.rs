//! Everything the worker says: one closed list of metrics, and the log lines beside them.
//!
//! Labels come from closed sets. No label, and no log line, holds a secret or a payload.

mod attempts;
mod events;
mod figures;
pub(crate) mod list;
mod log;
mod page;
mod tallies;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use metrics::{Gauge, counter, gauge, histogram};

use crate::config::Config;
use crate::delivery::{Attempt, Lease};
use crate::operational::OperationalEvent;
use crate::store::{STATEMENTS, Weighed};
pub(crate) use attempts::finished;
pub use attempts::recorded;
pub use events::{LOG_EVENTS, LogEvent, log_table};
pub use figures::{Figures, Part};
use list::{
    BATCH_ROWS, BUILD_INFO, BYTE_CAPACITY, BYTES_IN_FLIGHT, CAPACITY, CERTIFICATE_EXPIRY,
    CLOCK_DIFFERENCE, DATABASE_CONNECTIONS, DATABASE_UP, DELIVERIES_MADE, EVENTS_TAKEN,
    EVENTS_UNKNOWN, EVENTS_UNROUTED, IN_FLIGHT, LANES_FULL, LEASES_ADOPTED, OBSERVER, QUARANTINED,
    REGISTERED, SENDING, START_TIME, STATEMENT_DURATION, STATEMENT_FAILURES, UNRECORDABLE, WAKEUPS,
};
pub use list::{BUCKETS, Kind, Label, METRICS, Metric, Origin, Values, describe, markdown_table};
pub use log::ATTEMPT_LINES;
pub(crate) use log::told;
pub use page::Page;
use tallies::Tallies;

/// What a worker keeps in memory from one batch of attempts to the next.
#[derive(Debug, Default)]
pub struct Ledger {
    tallies: Tallies,
    /// Our clock minus the database's, in seconds: the bits of an `f64`.
    clock_difference: AtomicU64,
}

impl Ledger {
    /// Our clock minus the database's, as it was found to be last; 0 before that.
    pub fn clock_difference(&self) -> f64 {
        f64::from_bits(self.clock_difference.load(Ordering::Relaxed))
    }

    /// Notes our clock minus the database's, in seconds.
    pub fn note_clock(&self, difference: f64) {
        let bits = difference.to_bits();
        self.clock_difference.store(bits, Ordering::Relaxed);
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
    batch("take", events);
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

/// What a worker holds, and has room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) deliveries: usize,
    pub(crate) bytes: usize,
    pub(crate) requests: usize,
    pub(crate) lanes_full: usize,
    pub(crate) connections: Connections,
}

/// To Postgres, of the pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connections {
    pub(crate) idle: usize,
    pub(crate) used: usize,
}

/// The gauges of what changes with each turn of the worker's loop, asked of the registry once.
#[derive(Debug)]
pub(crate) struct Dials {
    deliveries: Gauge,
    bytes: Gauge,
    requests: Gauge,
    lanes_full: Gauge,
    connections_idle: Gauge,
    connections_used: Gauge,
}

impl Dials {
    pub(crate) fn new() -> Self {
        Self {
            deliveries: gauge!(IN_FLIGHT),
            bytes: gauge!(BYTES_IN_FLIGHT),
            requests: gauge!(SENDING),
            lanes_full: gauge!(LANES_FULL),
            connections_idle: gauge!(DATABASE_CONNECTIONS, "state" => "idle"),
            connections_used: gauge!(DATABASE_CONNECTIONS, "state" => "used"),
        }
    }

    pub(crate) fn show(&self, load: Load) {
        self.deliveries.set(number(load.deliveries));
        self.bytes.set(number(load.bytes));
        self.requests.set(number(load.requests));
        self.lanes_full.set(number(load.lanes_full));
        self.connections_idle.set(number(load.connections.idle));
        self.connections_used.set(number(load.connections.used));
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}

/// What does not change while a worker runs, and what holds until it says otherwise.
pub(crate) fn began(config: &Config) {
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(START_TIME).set(since_1970(SystemTime::now()));
    gauge!(CAPACITY).set(number(config.max_in_flight));
    gauge!(BYTE_CAPACITY).set(number(config.max_in_flight_bytes));
    gauge!(DATABASE_UP).set(0.0);
    registered(false);
    observing(false);
    certificates_end(None);
}

fn since_1970(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// Whether this worker is the one that reads and shows what the database says.
pub(crate) fn observing(is: bool) {
    gauge!(OBSERVER).set(if is { 1.0 } else { 0.0 });
}

/// Whether Postgres answered when it was asked something.
pub(crate) fn database_answers(is: bool) {
    gauge!(DATABASE_UP).set(if is { 1.0 } else { 0.0 });
}

pub(crate) fn registered(is: bool) {
    gauge!(REGISTERED).set(if is { 1.0 } else { 0.0 });
}

/// When the first client certificate ends. A number that compares as false with every other where there is none: no alert fires.
pub(crate) fn certificates_end(first: Option<SystemTime>) {
    gauge!(CERTIFICATE_EXPIRY).set(first.map_or(f64::NAN, since_1970));
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

/// A statement was answered, however it went.
pub(crate) fn statement(query: &'static str, took: Duration) {
    histogram!(STATEMENT_DURATION, "query" => query).record(took.as_secs_f64());
}

/// A statement failed, or was not answered.
pub(crate) fn statement_failed(query: &'static str) {
    // Neither `begin` nor `commit` is in a file.
    if STATEMENTS.contains(&query) {
        counter!(STATEMENT_FAILURES, "query" => query).increment(1);
    }
}

/// A look that found anything brought so many rows.
pub(crate) fn batch(query: &'static str, rows: u64) {
    if rows > 0 {
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        histogram!(BATCH_ROWS, "query" => query).record(number(rows));
    }
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
