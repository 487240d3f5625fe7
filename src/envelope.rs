//! The shape of a request around an event's data: its body, and the headers that tell of the event.
//!
//! An envelope is data. Its template is compiled once per subscription ([`Envelope::parse`]) and rendered for each attempt; it can
//! say only what is the same on every attempt, so that a retry's body is the first one's byte for byte. [`SHIPPED`] has those that
//! come with the program.
//!
//! # The language
//!
//! The template of a body is itself JSON, at most 16 KiB of it, nested at most 32 deep. Every byte of it is sent as it stands,
//! but for placeholders, which are in strings that are values; a member's name holds none.
//!
//! | name | stands for | as a whole value |
//! | --- | --- | --- |
//! | `event_id` | the event's id, a UUID | string |
//! | `delivery_id` | the delivery's id | string |
//! | `type` | the event's type | string |
//! | `occurred_at` | when it happened: RFC 3339 in UTC, six digits of a second | string |
//! | `occurred_at_unix` | the same in whole seconds since 1970, rounded down | number |
//! | `occurred_at_unix_ms` | the same in milliseconds | number |
//! | `data` | the event's payload, byte for byte | any JSON |
//! | `metadata` | the event's metadata, byte for byte; can be missing | any JSON |
//! | `tenant` | whose event it is; can be missing | string |
//! | `subscription` | which subscription it goes to | string |
//! | `values.NAME` | a constant that the subscription gives, 1 to 1,024 bytes of text | string |
//!
//! - A string that is a placeholder and nothing else, such as `"{{occurred_at_unix}}"`, gives way to the value, quotes and all.
//!   What is missing is `null`.
//! - In a longer string, such as `"/tenants/{{tenant}}"`, a placeholder gives way to the text, escaped as JSON wants it; what is
//!   missing is no text. `data` and `metadata` cannot stand there.
//! - `"{{tenant?}}"`, or `"{{metadata?}}"`, as the whole value of an object's member leaves out the member and the comma before it
//!   where the event has none. Such a member cannot be the first of its object.
//! - The template `"{{data}}"` is the payload alone.
//! - Braces that are meant as they are: in a string, two of a kind in a row always belong to a placeholder, so one of them is written
//!   as JSON's `\u007b` or `\u007d`, which reaches the partner as it stands and reads as a brace. Anywhere, a constant may hold
//!   them: what placeholders stand for is not looked at again.
//!
//! A test event has `"test":true,` in front of the first member, at the top of the template, whose whole value is `{{data}}`.
//! A template without one, or with a member `test` of its own there, does not tell tests apart; the header `webhook-test` does.
//!
//! A header's value is visible ASCII, with the same placeholders but `data` and `metadata`. The text that one stands for is
//! percent-encoded as CloudEvents' HTTP binding says: space, `"`, `%` and all that is not visible ASCII become `%XX`, UTF-8 byte by
//! byte. That holds for every envelope, whether of CloudEvents or not: one rule, which any text survives and any URL decoder
//! undoes, and event types and UUIDs look the same either way. What the template itself says is not encoded. A header with
//! a `{{tenant?}}` is left out where there is none.
//!
//! Body and headers hold at most 64 placeholders together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::InvalidHeaderValue;
use http::{HeaderName, HeaderValue};
use uuid::Uuid;

pub use self::shipped::{SHIPPED, Shipped};

use self::header::Header;
use self::names::{Names, shown};
use self::render::{Fact, Piece, Rendering};

mod header;
mod names;
mod render;
mod shipped;
mod template;
mod time;

/// A compiled envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    body: Vec<Piece>,
    /// `content-type` first.
    headers: Vec<Header>,
}

/// What an envelope can tell of an event on its way to a subscription.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The event's id, which partners see in `webhook-id` too.
    pub event_id: Uuid,
    /// The delivery's id.
    pub delivery_id: &'a str,
    /// The event's type.
    pub event_type: &'a str,
    /// When the event happened.
    pub occurred_at: SystemTime,
    /// The event's payload, which is JSON.
    pub data: &'a str,
    /// The event's metadata, which is JSON, if it has any.
    pub metadata: Option<&'a str>,
    /// Whose event it is, if it is anybody's.
    pub tenant: Option<&'a str>,
    /// Which subscription it goes to.
    pub subscription: &'a str,
    /// Whether somebody only wants to see what the endpoint answers.
    pub is_test: bool,
}

impl Envelope {
    /// Compiles an envelope: the template of its body, its media type, the names and templates of its headers (at most 20), and
    /// the constants that the subscription gives.
    ///
    /// # Errors
    /// The first thing that the language does not allow, and where; a constant that is missing, empty, too long, or not asked for.
    pub fn parse(
        template: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        values: &BTreeMap<String, String>,
    ) -> Result<Self, EnvelopeError> {
        let mut names = Names::with(values);
        let content_type = Header::content_type(content_type)?;
        let envelope = Self::compile(template, content_type, headers, &mut names)?;
        names.used()?;
        Ok(envelope)
    }

    /// [`SHIPPED`]'s `standard`: `{"type":...,"timestamp":...,"data":...}`, the shape that Standard Webhooks describes.
    pub fn standard() -> Self {
        let text = |text: &'static str| Piece::Text(text.as_bytes().into());
        Self {
            body: vec![
                text(r#"{"type":"#),
                Piece::Whole(Fact::Type),
                text(r#","timestamp":"#),
                Piece::Whole(Fact::OccurredAt),
                text(","),
                Piece::TestMark,
                text(r#""data":"#),
                Piece::Whole(Fact::Data),
                text("}"),
            ],
            headers: vec![Header::json()],
        }
    }

    /// The body for this event: always the same bytes for the same facts.
    pub fn body(&self, facts: &Facts<'_>) -> Bytes {
        render::body(&self.body, facts)
    }

    /// `content-type`, and the headers that the envelope defines.
    ///
    /// # Errors
    /// None is known: what a header cannot hold is encoded or was refused when the envelope was compiled.
    pub fn headers<'a>(
        &'a self,
        facts: &'a Facts<'a>,
    ) -> impl Iterator<Item = Result<(HeaderName, HeaderValue), InvalidHeaderValue>> + 'a {
        let rendering = Rendering::of(facts);
        self.headers.iter().filter_map(move |header| {
            let value = header.value(&rendering)?;
            Some(value.map(|value| (header.name().clone(), value)))
        })
    }

    /// The names of all headers that it may set, for whoever must keep others out of their way.
    pub fn header_names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(Header::name)
    }

    fn compile(
        template: &str,
        content_type: Header,
        headers: &[(&str, &str)],
        names: &mut Names<'_>,
    ) -> Result<Self, EnvelopeError> {
        let body = template::parse(template, names)?;
        let mut envelope = Self {
            body,
            headers: vec![content_type],
        };
        for (name, value) in headers {
            envelope.add(Header::parse(name, value, names)?)?;
        }
        Ok(envelope)
    }

    fn add(&mut self, header: Header) -> Result<(), EnvelopeError> {
        if self.headers.len() > MAX_HEADERS {
            let rule = format!("there are more than {MAX_HEADERS}");
            return Err(EnvelopeError::new("headers", &rule));
        }
        if self.header_names().any(|name| name == header.name()) {
            let name = header.name().as_str();
            return Err(EnvelopeError::at("header name", name, "is there twice"));
        }
        self.headers.push(header);
        Ok(())
    }
}

/// The names of the constants, `NAME` of each `{{values.NAME}}`, that a subscription to this envelope must give.
///
/// # Errors
/// Those of [`Envelope::parse`], but for what is wrong with constants.
pub fn values_of(
    template: &str,
    headers: &[(&str, &str)],
) -> Result<BTreeSet<String>, EnvelopeError> {
    let mut names = Names::open();
    Envelope::compile(template, Header::json(), headers, &mut names)?;
    names.used()
}

/// Why something is no envelope: the part, the piece of it and the rule, in one line that holds no constant's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("envelope refused: {0}")]
pub struct EnvelopeError(String);

impl EnvelopeError {
    fn new(place: &str, rule: &str) -> Self {
        Self(format!("{place}: {rule}"))
    }

    fn at(place: &str, piece: &str, rule: &str) -> Self {
        Self(format!("{place}: \"{}\" {rule}", shown(piece)))
    }
}

/// The body of the standard envelope: `{"type":...,"timestamp":...,"data":...}`, always the same bytes for the same event.
pub fn standard(event_type: &str, occurred_at: SystemTime, payload: &str) -> Bytes {
    render_standard(event_type, occurred_at, payload, false)
}

/// The same of a test, marked as one: `{"type":...,"timestamp":...,"test":true,"data":...}`.
pub fn test(event_type: &str, occurred_at: SystemTime, payload: &str) -> Bytes {
    render_standard(event_type, occurred_at, payload, true)
}

fn render_standard(event_type: &str, occurred_at: SystemTime, data: &str, is_test: bool) -> Bytes {
    Envelope::standard().body(&Facts {
        event_id: Uuid::nil(),
        delivery_id: "",
        event_type,
        occurred_at,
        data,
        metadata: None,
        tenant: None,
        subscription: "",
        is_test,
    })
}

const MAX_HEADERS: usize = 20;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use std::time::Duration;

    use super::*;

    #[test]
    fn the_body_is_type_timestamp_and_data() {
        let occurred_at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_042);
        assert_eq!(
            standard("certificate.issued", occurred_at, r#"{"student": 7}"#),
            r#"{"type":"certificate.issued","timestamp":"2023-11-14T22:13:20.000042Z","data":{"student": 7}}"#
        );
    }

    #[test]
    fn a_test_is_marked_and_otherwise_the_same() {
        let occurred_at = SystemTime::UNIX_EPOCH;
        let marked = test("a.b", occurred_at, "[1 ]");
        assert_eq!(
            marked,
            r#"{"type":"a.b","timestamp":"1970-01-01T00:00:00.000000Z","test":true,"data":[1 ]}"#
        );
        let plain = standard("a.b", occurred_at, "[1 ]");
        let unmarked = std::str::from_utf8(&marked).unwrap();
        assert_eq!(unmarked.replace(r#""test":true,"#, ""), plain);
    }

    #[test]
    fn the_payload_is_copied_byte_for_byte() {
        let payload = "{\"b\" : 1.0, \"a\":\t[1e400, \"\\u0000\\/é\u{2028}\"],\n \"b\":2}";
        let body = standard("a", SystemTime::UNIX_EPOCH, payload);
        assert!(body.ends_with(format!("\"data\":{payload}}}").as_bytes()));
    }

    #[test]
    fn the_body_is_one_allocation_of_its_own_size() {
        for (event_type, seconds) in [
            ("certificate.issued", 0),
            ("quo\"te", 0),
            ("", i64::MAX / 2),
        ] {
            let body = standard(event_type, at(seconds), "[]");
            let length = body.len();
            assert_eq!(body.try_into_mut().unwrap().capacity(), length);
        }
    }

    proptest! {
        #[test]
        fn any_event_type_reads_back_as_json(event_type in any::<String>()) {
            let body = standard(&event_type, SystemTime::UNIX_EPOCH, "null");
            let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&read["type"], &event_type);
        }
    }

    fn at(seconds: i64) -> SystemTime {
        shifted(seconds).unwrap()
    }

    fn shifted(seconds: i64) -> Option<SystemTime> {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH;
        if seconds < 0 {
            epoch.checked_sub(distance)
        } else {
            epoch.checked_add(distance)
        }
    }
}
