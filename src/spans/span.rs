//! What a span tells of an attempt, by the semantic conventions for messaging and for HTTP.
//!
//! Its kind is CLIENT by both: it is an HTTP request, and it sends a message that exists already, whose context the producer made. Never a
//! payload, a secret, a header, or more of the URL than the host and the port: partners put tokens into the rest.

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Begun, Told};
use crate::delivery::{Outcome, Rule};

/// The span of an attempt that ends now.
pub(super) fn of(begun: &Begun, told: Told<'_>) -> SpanData {
    let (start, ran_from) = begun.since;
    let context = begun.context;
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(context.trace_id.to_be_bytes()),
            SpanId::from_bytes(context.span_id.to_be_bytes()),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: begun.parent.map_or(SpanId::INVALID, |parent| {
            SpanId::from_bytes(parent.to_be_bytes())
        }),
        parent_span_is_remote: begun.parent.is_some(),
        span_kind: SpanKind::Client,
        name: format!("send {}", told.terms.name).into(),
        start_time: start,
        end_time: start + ran_from.elapsed(),
        attributes: attributes(told),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: status(told),
        instrumentation_scope: InstrumentationScope::builder("posthaste")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn attributes(told: Told<'_>) -> Vec<KeyValue> {
    let Told {
        lease,
        terms,
        report,
        ruling,
    } = told;
    let mut attributes = Vec::with_capacity(20);
    let mut add = |name: &'static str, value: Value| attributes.push(KeyValue::new(name, value));
    add("messaging.system", "posthaste".into());
    add("messaging.operation.name", "send".into());
    add("messaging.operation.type", "send".into());
    add("messaging.destination.name", terms.name.clone().into());
    add(
        "messaging.message.id",
        lease.key.event_id.to_string().into(),
    );
    add("http.request.method", "POST".into());
    if lease.number > 1 {
        add(
            "http.request.resend_count",
            i64::from(lease.number - 1).into(),
        );
    }
    if let Ok(endpoint) = &terms.endpoint {
        add("server.address", endpoint.url().host().to_string().into());
        add("server.port", i64::from(endpoint.url().port()).into());
    }
    if let Some(status) = report.http_status {
        add("http.response.status_code", i64::from(status).into());
    }
    if let Some(remote) = report.remote {
        add("network.peer.address", remote.to_string().into());
    }
    if let Some(error_type) = error_type(told) {
        add("error.type", error_type.into());
    }
    add("posthaste.event.type", lease.event_type.clone().into());
    add(
        "posthaste.subscription.id",
        i64::from(lease.key.subscription_id).into(),
    );
    add("posthaste.attempt.number", i64::from(lease.number).into());
    add(
        "posthaste.attempt.replay",
        i64::from(lease.key.replay).into(),
    );
    add("posthaste.attempt.outcome", report.outcome.as_str().into());
    add("posthaste.attempt.verdict", ruling.verdict.as_str().into());
    if let Some(rule) = ruling.rule.map(Rule::as_str) {
        add("posthaste.attempt.rule", rule.into());
    }
    attributes
}

/// The status where the partner refused, else what was met instead.
fn error_type(told: Told<'_>) -> Option<String> {
    let report = told.report;
    match (report.outcome, report.http_status) {
        (Outcome::Accepted | Outcome::Sandboxed, _) => None,
        (Outcome::Rejected, Some(status)) => Some(status.to_string()),
        (outcome, _) => Some(outcome.as_str().to_owned()),
    }
}

fn status(told: Told<'_>) -> Status {
    if error_type(told).is_none() {
        return Status::Unset;
    }
    let error = told.report.error.as_deref().unwrap_or_default();
    Status::error(error.chars().take(MAX_DESCRIPTION).collect::<String>())
}

const MAX_DESCRIPTION: usize = 500;
