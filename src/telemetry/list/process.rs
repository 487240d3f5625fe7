//! What every worker says of itself.

use super::labels::{
    BATCH_QUERY, CONNECTION, OUTCOME, PHASE, QUERY, SOURCE, STATUS, STATUS_CLASS, SUBSCRIPTION,
    TYPE, VERDICT, VERSION,
};
use super::{Kind, Metric, Origin, metrics};

metrics! {
    PROCESS: Process;

    /// Events fanned out.
    EVENTS_TAKEN: Counter "events_taken_total", "events", [];
    /// Events fanned out to nobody: no subscription matched.
    EVENTS_UNROUTED: Counter "events_unrouted_total", "events", [];
    /// Events of a type that the catalogue does not have, or not as an active one; see posthaste.unrouted.
    EVENTS_UNKNOWN: Counter "events_unknown_total", "events", [];
    /// Deliveries made of the events that were fanned out.
    DELIVERIES_MADE: Counter "deliveries_made_total", "deliveries", [];
    /// Deliveries held because the payload breaks its event type's schema, or its mask misses an id; see posthaste.unrouted.
    QUARANTINED: Counter "deliveries_quarantined_total", "deliveries", [];
    /// Deliveries that ended, by their status; each is counted by the worker that ended it, tests left out.
    FINISHED: Counter "deliveries_finished_total", "deliveries", [STATUS];
    /// Attempts recorded, by what they met, what that meant, and the class of the HTTP status.
    ATTEMPTS: Counter "attempts_total", "attempts", [OUTCOME, VERDICT, STATUS_CLASS];
    /// Time of one attempt, from name resolution to the last byte read.
    ATTEMPT_DURATION: Histogram "attempt_duration_seconds", "seconds", [OUTCOME];
    /// Time of the parts of a request; one on a pooled connection has no dns, connect and tls.
    ATTEMPT_PHASE: Histogram "attempt_phase_seconds", "seconds", [PHASE];
    /// Time from an event's INSERT, or from its deliver_after, to the start of its first attempt; replays and tests left out.
    FIRST_ATTEMPT_DELAY: Histogram "first_attempt_delay_seconds", "seconds", [];
    /// Time from an event's INSERT, or from its deliver_after, to the end of the attempt that was accepted; replays and tests left out.
    SUCCESS_DELAY: Histogram "success_delay_seconds", "seconds", [];
    /// Attempts recorded by this worker, of the subscriptions in the top list.
    SUBSCRIPTION_ATTEMPTS: Counter "subscription_attempts_total", "attempts", [SUBSCRIPTION, OUTCOME];
    /// Time of one attempt, of the subscriptions in the top list.
    SUBSCRIPTION_ATTEMPT_DURATION: Histogram "subscription_attempt_duration_seconds", "seconds", [SUBSCRIPTION];
    /// Leases taken over from workers that were gone or let them end.
    LEASES_ADOPTED: Counter "leases_adopted_total", "leases", [];
    /// Attempts that Postgres refused to record. Anything but 0 is a defect.
    UNRECORDABLE: Counter "attempts_unrecordable_total", "attempts", [];
    /// Operational events that this worker told of; see posthaste.operations.
    OPERATIONAL_EVENTS: Counter "operational_events_total", "events", [TYPE];
    /// Looks for work, by what caused them: a notification, the poll interval, or work found just before.
    WAKEUPS: Counter "wakeups_total", "looks", [SOURCE];
    /// Time of one statement, by its file in sql/queries.
    STATEMENT_DURATION: Histogram "statement_duration_seconds", "seconds", [QUERY];
    /// Statements that failed or were not answered, by their file in sql/queries.
    STATEMENT_FAILURES: Counter "statement_failures_total", "statements", [QUERY];
    /// Rows that one look brought, or one recording wrote: how large the batches are.
    BATCH_ROWS: Histogram "batch_rows", "rows", [BATCH_QUERY];
    /// Log lines that nobody read in time, and that were dropped.
    LOG_LINES_DROPPED: Counter "log_lines_dropped_total", "lines", [];
    /// Log lines that were left out because there were too many of their kind in a second.
    LOG_LINES_SAMPLED: Counter "log_lines_sampled_total", "lines", [];
    /// Spans that could not be exported in time, and that were dropped.
    SPANS_DROPPED: Counter "spans_dropped_total", "spans", [];
    /// 1, with the program's version.
    BUILD_INFO: Gauge "build_info", "0 or 1", [VERSION];
    /// When the worker began, in Unix time.
    START_TIME: Gauge "start_time_seconds", "seconds since 1970", [];
    /// 1 while the worker is registered and may claim, else 0.
    REGISTERED: Gauge "worker_registered", "0 or 1", [];
    /// 1 on the worker that reads and shows what the database says, else 0.
    OBSERVER: Gauge "observer", "0 or 1", [];
    /// 1 if Postgres answered when it was last asked something, else 0.
    DATABASE_UP: Gauge "database_up", "0 or 1", [];
    /// Connections to Postgres in the worker's pool.
    DATABASE_CONNECTIONS: Gauge "database_connections", "connections", [CONNECTION];
    /// Deliveries leased to this worker now.
    IN_FLIGHT: Gauge "deliveries_in_flight", "deliveries", [];
    /// Deliveries that can be leased to this worker at once: max_in_flight.
    CAPACITY: Gauge "delivery_capacity", "deliveries", [];
    /// Requests under way now.
    SENDING: Gauge "requests_in_flight", "requests", [];
    /// Payloads held in memory now.
    BYTES_IN_FLIGHT: Gauge "bytes_in_flight", "bytes", [];
    /// Payloads that can be held in memory at once: max_in_flight_bytes.
    BYTE_CAPACITY: Gauge "byte_capacity", "bytes", [];
    /// Subscriptions that have as many requests under way as this worker may make to them at once.
    LANES_FULL: Gauge "lanes_full", "subscriptions", [];
    /// This machine's clock minus the database's.
    CLOCK_DIFFERENCE: Gauge "clock_difference_seconds", "seconds", [];
    /// When the first client certificate ends of those that this worker shows; NaN while it knows of none.
    CERTIFICATE_EXPIRY: Gauge "client_certificate_expiry_timestamp_seconds", "seconds since 1970", [];
}
