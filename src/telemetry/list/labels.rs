//! What labels can say. Each word is the same in the database, in the log and in the code.

use super::{Label, Values};
use crate::store;

const fn closed(name: &'static str, values: &'static [&'static str]) -> Label {
    Label {
        name,
        values: Values::Closed(values),
    }
}

pub(super) const SUBSCRIPTION: Label = Label {
    name: "subscription",
    values: Values::TopList,
};
pub(super) const OUTCOME: Label = closed(
    "outcome",
    &[
        "accepted",
        "rejected",
        "timed_out",
        "unreachable",
        "blocked",
        "sandboxed",
        "abandoned",
    ],
);
pub(super) const VERDICT: Label = closed(
    "verdict",
    &["done", "retry", "exhausted", "rejected", "expired", "late"],
);
pub(super) const STATUS_CLASS: Label = closed("status_class", STATUS_CLASSES);
/// Of the HTTP status; the first where there was none, or one beyond all classes.
pub(in crate::telemetry) const STATUS_CLASSES: &[&str] =
    &["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
pub(super) const STATUS: Label = closed(
    "status",
    &[
        "SUCCESS",
        "RETRY_EXHAUSTED",
        "REJECTED",
        "EXPIRED",
        "CANCELLED",
    ],
);
pub(super) const PHASE: Label = closed("phase", &["dns", "connect", "tls", "first_byte", "body"]);
pub(super) const TYPE: Label = closed(
    "type",
    &[
        "posthaste.delivery.exhausted",
        "posthaste.delivery.rejected",
        "posthaste.subscription.paused",
        "posthaste.breaker.opened",
        "posthaste.breaker.closed",
        "posthaste.rotation.overdue",
    ],
);
pub(super) const SOURCE: Label = closed("source", &["notification", "poll", "work"]);
pub(super) const QUERY: Label = closed("query", store::STATEMENTS);
pub(super) const BATCH_QUERY: Label = closed("query", &["take", "claim_waiting", "record"]);
pub(super) const VERSION: Label = closed("version", &[env!("CARGO_PKG_VERSION")]);
pub(super) const CONNECTION: Label = closed("state", &["idle", "used"]);
pub(super) const OWED: Label = closed(
    "state",
    &[
        "intake",
        "due",
        "waiting",
        "ordered",
        "leased",
        "quarantined",
    ],
);
pub(super) const LANE: Label = closed(
    "state",
    &[
        "due",
        "asleep",
        "idle",
        "rate_limited",
        "held",
        "breaker_open",
        "breaker_half_open",
        "paused",
    ],
);
pub(super) const HOLDER: Label = closed(
    "holder",
    &[
        "session",
        "replication_slot",
        "prepared_transaction",
        "standby",
    ],
);
pub(super) const TABLE: Label = closed(
    "table",
    &[
        "intake",
        "queue",
        "lease",
        "lane",
        "follower",
        "ordering",
        "dedup",
        "quarantine",
        "replay_item",
    ],
);
pub(super) const HISTORY: Label = closed("history", &["outbox", "attempt"]);
pub(super) const PART: Label = closed("part", &["figures", "tables", "subscriptions"]);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::delivery::{Outcome, Verdict};
    use crate::operational::OperationalEvent;

    #[test]
    fn the_words_are_those_of_the_code() {
        let outcomes = Outcome::ALL.map(Outcome::as_str);
        assert!(matches!(OUTCOME.values, Values::Closed(words) if words == outcomes));
        let verdicts = [
            Verdict::Done,
            Verdict::Retry(Duration::ZERO),
            Verdict::Exhausted,
            Verdict::Rejected,
            Verdict::Expired,
        ];
        let mut verdicts: Vec<_> = verdicts.iter().map(|verdict| verdict.as_str()).collect();
        verdicts.push("late");
        assert!(matches!(VERDICT.values, Values::Closed(words) if words == verdicts));
        let types = OperationalEvent::ALL.map(OperationalEvent::event_type);
        assert!(matches!(TYPE.values, Values::Closed(words) if words == types));
    }
}
