//! The closed list of log records: each with its levels, its fields and its meaning.

use std::fmt::Write as _;

use tracing::Level;

/// One kind of log record, known by its message.
#[derive(Clone, Copy, Debug)]
pub struct LogEvent {
    /// What it says. Stable: others search for it.
    pub message: &'static str,
    /// The levels that it is logged at.
    pub levels: &'static [Level],
    /// The fields that it always has.
    pub fields: &'static [&'static str],
    /// Those that it has where there is something to say.
    pub optional: &'static [&'static str],
    /// What it means, in a sentence or two.
    pub meaning: &'static str,
}

/// Every record that a worker and its listener can write, but for warnings and errors of libraries, which have targets of their own.
pub const LOG_EVENTS: &[LogEvent] = &[
    // What becomes of deliveries.
    LogEvent {
        message: "attempt",
        levels: &[Level::DEBUG, Level::INFO, Level::WARN],
        fields: &[
            "event_id",
            "subscription_id",
            "replay",
            "number",
            "outcome",
            "verdict",
            "duration_ms",
        ],
        optional: &["status", "rule", "error"],
        meaning: "An attempt was recorded: at debug where it was accepted, at info where another follows, else at warn. The target is `posthaste::attempt`. See `log_attempts`.",
    },
    LogEvent {
        message: "delivery given up",
        levels: ANY_SEVERITY,
        fields: &[
            "error.code",
            "error.message",
            "event_id",
            "subscription_id",
            "subscription",
            "replay",
            "attempts",
            "outcome",
            "duration_ms",
        ],
        optional: &["status", "why"],
        meaning: "A delivery is a dead letter, with what its last attempt met. It is in posthaste.dead_letter.",
    },
    LogEvent {
        message: "operational event",
        levels: ANY_SEVERITY,
        fields: &[
            "error.code",
            "error.message",
            "subscription_id",
            "subscription",
            "why",
        ],
        optional: &[],
        meaning: "Something that operators should know of a subscription; the code says what. It is in posthaste.operations.",
    },
    warn(
        "delivery quarantined",
        &["event_id", "subscription_id", "why"],
        "A payload breaks its schema, or a mask has no id for it: held until a person decides. It is in posthaste.unrouted.",
    ),
    info(
        "a probe failed",
        &["subscription_id", "subscription", "held_for_s"],
        "A circuit breaker stays open: the one request that it let through failed.",
    ),
    // Recording.
    warn(
        "cannot record; trying again",
        &["error", "attempts"],
        "Results are held in memory until Postgres takes them.",
    ),
    error(
        "stopped before these were recorded",
        &["attempts"],
        "The worker had to end; other workers will record these attempts as abandoned and repeat them.",
    ),
    error(
        "a batch was refused; recording one by one",
        &["why"],
        "Postgres refused something in a batch of results; the others are recorded. A defect: please report it.",
    ),
    error(
        "an attempt cannot be recorded",
        &["event_id", "subscription_id", "replay", "number", "why"],
        "Postgres refused this result; it will be abandoned and repeated. A defect: please report it.",
    ),
    error(
        "the recorder is gone",
        &[],
        "A part of the worker has ended before its time. A defect: restart the worker, and please report it.",
    ),
    warn(
        "requests for permissions and tokens cannot be recorded",
        &["error", "requests"],
        "The next lines have them, one by one.",
    ),
    LogEvent {
        message: "not recorded",
        levels: &[Level::WARN],
        fields: &["subscription_id", "kind", "url", "outcome"],
        optional: &["status"],
        meaning: "A request for a permission or a token that was made and is in no table.",
    },
    warn(
        "what a receiver allowed cannot be kept; it will be asked again",
        &["error", "subscription_id"],
        "A handshake's answer is lost; another is made.",
    ),
    // Looking for work.
    warn(
        "cannot look for work; trying again",
        &["error"],
        "A claim failed.",
    ),
    error(
        "a look for work panicked; trying again",
        &[],
        "A defect: please report it with what standard error says.",
    ),
    warn(
        "ordered deliveries cannot go on; trying again",
        &["error"],
        "What waits behind others of its ordering key waits longer.",
    ),
    warn(
        "replays do not go on",
        &["error"],
        "They are tried again soon.",
    ),
    warn(
        "what was to be cancelled is not yet",
        &["error"],
        "Cancels are tried again soon.",
    ),
    warn(
        "deliveries cannot be quarantined; their leases will end by themselves",
        &["error"],
        "They are claimed and looked at again after that.",
    ),
    warn(
        "deliveries cannot be ended; their leases will end by themselves",
        &["error"],
        "Deliveries whose time is over are ended after that.",
    ),
    warn(
        "leases cannot be given back; they will end by themselves",
        &["error"],
        "Deliveries that were claimed and not begun wait that long.",
    ),
    warn(
        "external ids cannot be read or kept",
        &["error"],
        "Attempts that need them are tried again.",
    ),
    warn(
        "cannot weigh how endpoints fare; trying again",
        &["error"],
        "Breakers and holds follow later.",
    ),
    // The worker's session.
    info(
        "worker registered",
        &["worker_id", "name"],
        "It claims from now on.",
    ),
    warn(
        "cannot register; trying again",
        &["error"],
        "The worker claims nothing until it can.",
    ),
    warn(
        "the worker's session does not answer",
        &["error"],
        "It is given up, and another one registered.",
    ),
    warn(
        "the worker's session was lost; registering anew",
        &[],
        "The worker claims nothing meanwhile.",
    ),
    warn(
        "workers are gone; their leases are taken over",
        &["workers"],
        "By this worker. Their requests under way are repeated.",
    ),
    warn(
        "this machine's clock differs from the database's",
        &["difference_seconds"],
        "By more than half a minute: above five minutes, receivers refuse signatures.",
    ),
    // Housekeeping.
    warn(
        "cannot see what has changed in the control plane",
        &["error"],
        "The worker goes on with the terms that it knows.",
    ),
    warn(
        "cannot settle the lanes yet",
        &["error"],
        "New rates and limits hold for claims a little later.",
    ),
    warn(
        "cannot pause what fails; trying again",
        &["error"],
        "Subscriptions that have failed for too long go on meanwhile.",
    ),
    warn(
        "cannot look after the other workers' leases",
        &["error"],
        "What workers that are gone held waits longer.",
    ),
    warn(
        "cannot delete dedup keys that have expired",
        &["error"],
        "They go later.",
    ),
    info(
        "partitions made",
        &["made"],
        "For the days to come, in both tables of the history.",
    ),
    warn(
        "cannot make partitions yet",
        &["error"],
        "Tried again every minute; without them rows go to the default partitions.",
    ),
    warn(
        "cannot compare clocks",
        &["error"],
        "Tried again within a minute.",
    ),
    warn(
        "cannot note how this worker's clock stands",
        &["error"],
        "The others see its last note. Tried again within a minute.",
    ),
    warn(
        "cannot observe the database; trying again",
        &["error", "part"],
        "Its figures are shown a little longer, and then no more. Said once, until it works again.",
    ),
    info(
        "the database can be observed again",
        &["part"],
        "Its figures are shown again.",
    ),
    warn(
        "a figure of the database is not known here, and not shown",
        &["figure"],
        "The schema is newer than the program. Said once for each.",
    ),
    warn(
        "cannot tell of overdue rotations",
        &["error"],
        "Tried again later.",
    ),
    warn(
        "a secret that was asked for cannot be stored yet",
        &["error", "subscription_id", "kind"],
        "Whoever waits for it waits longer.",
    ),
    warn(
        "cannot read the public keys",
        &["error"],
        "`/jwks.json` shows what was read last.",
    ),
    warn(
        "there are more public keys than are published; `posthaste secret jwks SUBSCRIPTION` has those of one",
        &["most"],
        "`/jwks.json` shows the first of them.",
    ),
    warn(
        "spans cannot be sent; they are dropped",
        &["error", "spans"],
        "The collector is away, slow or refuses them. Said once, until it takes spans again; `posthaste_spans_dropped_total` counts.",
    ),
    // The program.
    info(
        "serving",
        &["address", "paths"],
        "Where metrics, health and public keys are.",
    ),
    info(
        "stopping",
        &["held", "sending"],
        "The worker was told to stop: it waits for so many requests, and gives back the rest of what it holds.",
    ),
    warn(
        "leases are still being given back; others will take them over",
        &[],
        "The time to stop is over.",
    ),
    warn(
        "leases are not given back in time; others will take them over",
        &[],
        "The time to stop is over.",
    ),
    warn(
        "leases cannot be given back; others will take them over",
        &["error"],
        "When the worker is seen to be gone.",
    ),
    warn(
        "could not say goodbye; another worker will notice",
        &[],
        "The worker's row goes a second or two later.",
    ),
    info("stopped", &[], "In order: nothing is under way."),
    // The log itself.
    warn(
        "log lines were left out: there were too many of a kind",
        &["of", "left_out"],
        "So many lines that say `of` in the last second: see `log_attempts_per_second`; of each other kind 20 a second are written.",
    ),
    warn(
        "log lines were dropped: standard output was not read in time",
        &["dropped"],
        "Deliveries do not wait for whoever reads the log. Also where a line was longer than 8 KiB.",
    ),
];

const ANY_SEVERITY: &[Level] = &[Level::INFO, Level::WARN, Level::ERROR];

const fn info(
    message: &'static str,
    fields: &'static [&'static str],
    meaning: &'static str,
) -> LogEvent {
    at(&[Level::INFO], message, fields, meaning)
}

const fn warn(
    message: &'static str,
    fields: &'static [&'static str],
    meaning: &'static str,
) -> LogEvent {
    at(&[Level::WARN], message, fields, meaning)
}

const fn error(
    message: &'static str,
    fields: &'static [&'static str],
    meaning: &'static str,
) -> LogEvent {
    at(&[Level::ERROR], message, fields, meaning)
}

const fn at(
    levels: &'static [Level],
    message: &'static str,
    fields: &'static [&'static str],
    meaning: &'static str,
) -> LogEvent {
    LogEvent {
        message,
        levels,
        fields,
        optional: &[],
        meaning,
    }
}

impl LogEvent {
    /// The record with this message.
    pub fn saying(message: &str) -> Option<&'static Self> {
        LOG_EVENTS.iter().find(|event| event.message == message)
    }

    /// What is wrong with these fields, if anything is: one is missing, or one is not in the list.
    pub fn misfit(&self, fields: &[&str]) -> Option<String> {
        let mut missing = self.fields.iter().filter(|field| !fields.contains(field));
        let is_listed =
            |field: &&&str| !self.fields.contains(*field) && !self.optional.contains(*field);
        let mut unlisted = fields.iter().filter(is_listed);
        match (missing.next(), unlisted.next()) {
            (Some(field), _) => Some(format!("{:?} lacks {field}", self.message)),
            (_, Some(field)) => Some(format!(
                "{:?} has {field}, which is not in the list",
                self.message
            )),
            _ => None,
        }
    }
}

/// The table in `docs/observability.md`: every log record with its levels, its fields and its meaning.
pub fn log_table() -> String {
    let mut table =
        String::from("| message | level | fields | meaning |\n| --- | --- | --- | --- |\n");
    for event in LOG_EVENTS {
        let levels: Vec<String> = event.levels.iter().map(Level::to_string).collect();
        let fields = event.fields.iter().map(|field| format!("`{field}`"));
        let optional = event.optional.iter().map(|field| format!("`{field}`?"));
        let fields: Vec<String> = fields.chain(optional).collect();
        let (levels, fields) = (levels.join(", ").to_lowercase(), fields.join(", "));
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {levels} | {fields} | {} |",
            event.message, event.meaning
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_there_once_with_a_level_and_a_meaning() {
        for (place, event) in LOG_EVENTS.iter().enumerate() {
            let same = |other: &LogEvent| other.message == event.message;
            assert_eq!(LOG_EVENTS.iter().position(same), Some(place), "{event:?}");
            assert!(
                !event.levels.is_empty() && event.meaning.ends_with('.'),
                "{event:?}"
            );
        }
    }

    #[test]
    fn no_field_is_named_after_what_must_not_be_logged() {
        let fields = |event: &'static LogEvent| event.fields.iter().chain(event.optional);
        for field in LOG_EVENTS.iter().flat_map(fields) {
            for never in [
                "secret", "payload", "data", "body", "header", "token", "password", "snippet",
            ] {
                assert!(!field.contains(never), "{field}");
            }
        }
    }

    #[test]
    fn a_field_too_few_or_too_many_is_noticed() {
        let attempts = LogEvent::saying("cannot record; trying again");
        let misfit = |fields: &[&str]| attempts.and_then(|event| event.misfit(fields));
        assert_eq!(misfit(&["error", "attempts"]), None);
        assert!(misfit(&["error"]).is_some());
        assert!(misfit(&["error", "attempts", "payload"]).is_some());
    }
}
