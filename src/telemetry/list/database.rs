//! What the database says, read by one worker at a time. Each name is that of a figure in `posthaste.figures`,
//! `posthaste.table_figures` or `posthaste.subscription_figures`, but for the last two.

use super::labels::{HISTORY, HOLDER, LANE, OWED, PART, SUBSCRIPTION, TABLE};
use super::{Kind, Metric, Origin, metrics};

metrics! {
    DATABASE: Database;

    /// Age of the oldest delivery that is owed, or event that is not fanned out, with no exclusions; 0 where nothing is owed.
    OLDEST_OWED: Gauge "oldest_owed_seconds", "seconds", [];
    /// Age of the oldest committed event that no worker has taken in; 0 where there is none.
    OLDEST_INTAKE: Gauge "oldest_intake_seconds", "seconds", [];
    /// What is owed, counted up to a limit: due may be claimed now, waiting later or with its lane held or paused, ordered is behind another of its key, intake are events.
    OWED_DELIVERIES: Gauge "deliveries_owed", "deliveries", [OWED];
    /// Subscriptions, by what their lane does.
    LANES: Gauge "lanes", "subscriptions", [LANE];
    /// Workers that are registered and alive.
    WORKERS_ALIVE: Gauge "workers_alive", "workers", [];
    /// Different settings or versions among the workers alive; more than 1 is drift.
    WORKER_SETTINGS: Gauge "worker_settings", "settings", [];
    /// Deliveries that were given up in the last 24 hours, counted up to a limit; see posthaste.dead_letter.
    DEAD_LETTERS: Gauge "dead_letters_last_day", "deliveries", [];
    /// Subscriptions whose newest signing secret is older than agreed; see posthaste.secret_overview.
    SECRETS_OVERDUE: Gauge "secrets_overdue", "subscriptions", [];
    /// Subscriptions that nothing can be sent to for want of a secret; see posthaste.secret_overview.
    SECRETS_MISSING: Gauge "secrets_missing", "subscriptions", [];
    /// Changes that wait for another administrator; see posthaste.change.
    CHANGES_OPEN: Gauge "changes_open", "changes", [];
    /// Event types that are not in the catalogue and of which events came; see posthaste.unrouted.
    UNKNOWN_EVENT_TYPES: Gauge "unknown_event_types", "event types", [];
    /// Age of the oldest signing secret that is the newest live one of an active subscription.
    OLDEST_SECRET: Gauge "oldest_signing_secret_seconds", "seconds", [];
    /// 1 while a proposal needs another administrator's approval, 0 where one may approve alone.
    FOUR_EYES: Gauge "four_eyes", "0 or 1", [];
    /// How full Postgres' queue of notifications is; where it is full, INSERTs that notify fail.
    NOTIFICATION_QUEUE: Gauge "notification_queue_usage_ratio", "ratio", [];
    /// How long the oldest of each kind has held back vacuum; 0 where none does.
    VACUUM_HELD_BACK: Gauge "vacuum_held_back_seconds", "seconds", [HOLDER];
    /// The process id of the oldest session that holds back vacuum; 0 where none does.
    VACUUM_HOLDER: Gauge "vacuum_holder_pid", "process id", [];
    /// Rows of each small table, as Postgres estimates them.
    TABLE_ROWS: Gauge "table_rows", "rows", [TABLE];
    /// Dead rows of each small table, as Postgres estimates them.
    TABLE_DEAD_ROWS: Gauge "table_dead_rows", "rows", [TABLE];
    /// Size of each small table with its indexes.
    TABLE_BYTES: Gauge "table_bytes", "bytes", [TABLE];
    /// Time since the last vacuum of each small table, while it has more dead rows than autovacuum waits for; else 0.
    TABLE_VACUUM_AGE: Gauge "table_vacuum_age_seconds", "seconds", [TABLE];
    /// Size of the history with its indexes, all partitions.
    HISTORY_BYTES: Gauge "history_bytes", "bytes", [HISTORY];
    /// For how many whole days after today there are partitions without a gap, in seconds.
    PARTITIONS_AHEAD: Gauge "partitions_ahead_seconds", "seconds", [HISTORY];
    /// 1 where the default partition has rows, else 0.
    DEFAULT_PARTITION: Gauge "default_partition_used", "0 or 1", [HISTORY];
    /// Age of the oldest delivery that is owed to a subscription of the top list, with no exclusions; 0 where nothing is owed.
    SUBSCRIPTION_OLDEST: Gauge "subscription_oldest_owed_seconds", "seconds", [SUBSCRIPTION];
    /// Deliveries that are owed to a subscription of the top list.
    SUBSCRIPTION_OWED: Gauge "subscription_deliveries_owed", "deliveries", [SUBSCRIPTION];
    /// Time since the first failed attempt after the last accepted one, of a subscription of the top list; 0 where none failed.
    SUBSCRIPTION_FAILING: Gauge "subscription_failing_seconds", "seconds", [SUBSCRIPTION];
    /// Time since the circuit breaker of a subscription of the top list left closed; 0 where it is closed.
    SUBSCRIPTION_BREAKER: Gauge "subscription_breaker_open_seconds", "seconds", [SUBSCRIPTION];
    /// When each part of what the database says was read.
    OBSERVATION_TIME: Gauge "observation_timestamp_seconds", "seconds since 1970", [PART];
    /// How long it took to read each part of what the database says.
    OBSERVATION_DURATION: Gauge "observation_duration_seconds", "seconds", [PART];
}
