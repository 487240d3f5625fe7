//! With traces: where an attempt's span begins and ends.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use uuid::Uuid;

use super::exporting::{Queue, Shipper};
use super::{Told, TraceContext, span};
use crate::Result;
use crate::config::Config;

/// Where spans go; nowhere unless there is an endpoint.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<Arc<Queue>>);

/// The span of an attempt under way.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// The span that it is under: the producer's.
    pub(super) parent: Option<u64>,
    /// Its own trace and id.
    pub(super) context: TraceContext,
    /// When it began, by both clocks.
    pub(super) since: (SystemTime, Instant),
}

/// Sends spans.
#[derive(Debug)]
#[must_use = "it ends where it is told to finish"]
pub struct Shipping(Option<Shipper>);

impl Begun {
    /// As the header `traceparent` that a request of the attempt bears, where its subscription allows that.
    pub fn traceparent(&self) -> String {
        self.context.to_string()
    }
}

impl Spans {
    /// Reads the settings. Sends nothing before [`ship`](Self::ship).
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) where the headers cannot be read, [`Error::Tls`](crate::Error::Tls) where there is no
    /// trust anchor.
    pub fn open(config: &Config) -> Result<Self> {
        let queue = |endpoint: &String| Queue::new(config, endpoint).map(Arc::new);
        let queue = config.otlp_endpoint.as_ref().map(queue).transpose()?;
        Ok(Self(queue))
    }

    /// Sends spans from now on, until what this returns is told to finish.
    pub fn ship(&self) -> Shipping {
        Shipping(self.0.as_ref().and_then(|queue| queue.ship()))
    }

    /// Begins the span of an attempt, if there is to be one: where the producer's trace is sampled; where there is none, for the
    /// agreed share of events.
    pub fn begin(&self, event_id: Uuid, traceparent: Option<&str>) -> Option<Begun> {
        let queue = self.0.as_ref()?;
        let span_id = fastrand::u64(1..);
        let (parent, context) = match traceparent.and_then(TraceContext::parse) {
            Some(producers) => (Some(producers.span_id), producers.child(span_id)),
            None => (None, TraceContext::of_event(event_id, span_id, queue.ratio)),
        };
        context.sampled.then(|| Begun {
            parent,
            context,
            since: (SystemTime::now(), Instant::now()),
        })
    }

    /// The attempt is over: its span is queued.
    pub(crate) fn end(&self, begun: Option<Begun>, told: Told<'_>) {
        if let (Some(queue), Some(begun)) = (&self.0, begun) {
            queue.put(span::of(&begun, told));
        }
    }
}

impl Shipping {
    /// Sends what is still queued, for two seconds at most; the rest is dropped and counted.
    pub async fn finish(self) {
        if let Some(shipper) = self.0 {
            shipper.finish().await;
        }
    }
}
