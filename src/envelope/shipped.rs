//! The envelopes that come with the program.

use std::collections::BTreeMap;

use super::{Envelope, EnvelopeError};

/// An envelope under its name. A version never changes: what should be different is a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Lower-case words joined by `_`.
    pub name: &'static str,
    /// Counted from 1.
    pub version: i16,
    /// Of the body.
    pub template: &'static str,
    /// The media type of the body.
    pub content_type: &'static str,
    /// Names and templates.
    pub headers: &'static [(&'static str, &'static str)],
    /// For whoever chooses one.
    pub description: &'static str,
}

impl Shipped {
    /// The envelope with these constants.
    ///
    /// # Errors
    /// A constant is missing, empty, too long, or not asked for.
    pub fn compile(&self, values: &BTreeMap<String, String>) -> Result<Envelope, EnvelopeError> {
        Envelope::parse(self.template, self.content_type, self.headers, values)
    }
}

/// All of them, the default first.
pub const SHIPPED: &[Shipped] = &[
    Shipped {
        name: "standard",
        version: 1,
        template: r#"{"type":"{{type}}","timestamp":"{{occurred_at}}","data":"{{data}}"}"#,
        content_type: JSON,
        headers: &[],
        description: "type, timestamp, data: the shape that Standard Webhooks describes",
    },
    Shipped {
        name: "event_occurred_at",
        version: 1,
        template: r#"{"event":"{{type}}","occurredAt":"{{occurred_at}}","data":"{{data}}"}"#,
        content_type: JSON,
        headers: &[],
        description: "event, occurredAt, data: for partners whose code is in camel case",
    },
    Shipped {
        name: "identified",
        version: 1,
        template: r#"{"id":"{{event_id}}","type":"{{type}}","timestamp":"{{occurred_at}}","data":"{{data}}","metadata":"{{metadata}}"}"#,
        content_type: JSON,
        headers: &[],
        description: "id, type, timestamp, data, metadata (null where the event has none): for partners that store bodies without headers",
    },
    Shipped {
        name: "api_versioned",
        version: 1,
        template: r#"{"id":"{{event_id}}","event":"{{type}}","timestamp":"{{occurred_at}}","data":"{{data}}","api_version":"{{values.api_version}}"}"#,
        content_type: JSON,
        headers: &[],
        description: "id, event, timestamp, data, api_version: for a platform that pins each partner to a version of its API, values.api_version",
    },
    Shipped {
        name: "unix_sourced",
        version: 1,
        template: r#"{"event":"{{type}}","timestamp":"{{occurred_at_unix}}","data":"{{data}}","source":"{{values.source}}"}"#,
        content_type: JSON,
        headers: &[],
        description: "event, timestamp in Unix seconds, data, source: which of a partner's suppliers it comes from, values.source",
    },
    Shipped {
        name: "raw",
        version: 1,
        template: r#""{{data}}""#,
        content_type: JSON,
        headers: &[],
        description: "the payload alone, byte for byte; its type and time are told by nothing",
    },
    Shipped {
        name: "cloudevents_structured",
        version: 1,
        template: r#"{"specversion":"1.0","id":"{{event_id}}","source":"{{values.source}}","type":"{{type}}","time":"{{occurred_at}}","subject":"{{tenant?}}","datacontenttype":"application/json","data":"{{data}}"}"#,
        content_type: "application/cloudevents+json; charset=utf-8",
        headers: &[],
        description: "a CloudEvent 1.0 in structured mode; its source, a URI reference, is values.source, its subject the tenant where there is one",
    },
    Shipped {
        name: "cloudevents_binary",
        version: 1,
        template: r#""{{data}}""#,
        content_type: JSON,
        headers: &[
            ("ce-specversion", "1.0"),
            ("ce-id", "{{event_id}}"),
            ("ce-source", "{{values.source}}"),
            ("ce-type", "{{type}}"),
            ("ce-time", "{{occurred_at}}"),
            ("ce-subject", "{{tenant?}}"),
        ],
        description: "a CloudEvent 1.0 in binary mode: the payload alone, with ce-* headers; its source, a URI reference, is values.source, its subject the tenant where there is one",
    },
];

const JSON: &str = "application/json";
