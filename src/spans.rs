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

pub use context::TraceContext;
#[cfg(not(feature = "otlp"))]
pub use off::{Begun, Shipping, Spans};
#[cfg(feature = "otlp")]
pub use on::{Begun, Shipping, Spans};

use crate::delivery::{Lease, Report, Ruling};
use crate::directory::Terms;

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
