//! One span for each attempt, for an OpenTelemetry collector: under the producer's trace context where the event has one.
//!
//! Spans are made and sent only with the feature `otlp` and the setting `otlp_endpoint`; else all of this does nothing. A collector that
//! is slow or away holds up nobody: what does not fit into the queue is dropped and counted.

mod context;
#[cfg(feature = "otlp")]
mod exporting;
#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod on;
#[cfg(feature = "otlp")]
mod span;

use std::fmt::Write as _;

pub use context::TraceContext;
#[cfg(not(feature = "otlp"))]
pub use off::{Begun, Shipping, Spans};
#[cfg(feature = "otlp")]
pub use on::{Begun, Shipping, Spans};

use crate::delivery::{Lease, Report, Ruling};
use crate::directory::Terms;

/// Every attribute that a span can have, with its meaning. Names that do not begin with `posthaste.` are those of the semantic
/// conventions for messaging and for HTTP.
pub const ATTRIBUTES: &[(&str, &str)] = &[
    ("messaging.system", "`posthaste`."),
    ("messaging.operation.name", "`send`."),
    ("messaging.operation.type", "`send`."),
    ("messaging.destination.name", "The subscription's name."),
    ("messaging.message.id", "The event's id."),
    ("http.request.method", "`POST`."),
    (
        "http.request.resend_count",
        "How many attempts came before; not on the first.",
    ),
    (
        "http.response.status_code",
        "Where a response head arrived.",
    ),
    ("server.address", "The endpoint's host."),
    ("server.port", "Its port."),
    (
        "network.peer.address",
        "The address that was connected to, or refused.",
    ),
    (
        "error.type",
        "The status where the endpoint refused, else the outcome; not on an attempt that was accepted.",
    ),
    ("posthaste.event.type", "The event's type."),
    ("posthaste.subscription.id", "The subscription's id."),
    ("posthaste.attempt.number", "Which attempt it is, from 1."),
    (
        "posthaste.attempt.replay",
        "0 for the first delivery, 1 and up for replays, -1 for a test.",
    ),
    (
        "posthaste.attempt.outcome",
        "What it met, as in `posthaste.attempt`.",
    ),
    (
        "posthaste.attempt.verdict",
        "What happens to the delivery next.",
    ),
    (
        "posthaste.attempt.rule",
        "The rule that says so, where one applied.",
    ),
];

/// The table in `docs/observability.md`: every attribute with its meaning.
pub fn attribute_table() -> String {
    let mut table = String::from("| attribute | meaning |\n| --- | --- |\n");
    for (name, meaning) in ATTRIBUTES {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{name}` | {meaning} |");
    }
    table
}

/// All that a span tells of an attempt.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "otlp"),
    expect(dead_code, reason = "nobody is told without traces")
)]
pub(crate) struct Told<'a> {
    pub(crate) lease: &'a Lease,
    pub(crate) terms: &'a Terms,
    pub(crate) report: &'a Report,
    pub(crate) ruling: &'a Ruling,
}
