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
//! percent-encoded as the HTTP binding of `CloudEvents` says: space, `"`, `%` and all that is not visible ASCII become `%XX`, UTF-8 byte by
//! byte. That holds for every envelope, whether of `CloudEvents` or not: one rule, which any text survives and any percent-decoder
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
                text(r#"{"type":""#),
                Piece::Inside(Fact::Type),
                text(r#"","timestamp":""#),
                Piece::Inside(Fact::OccurredAt),
                Piece::Markable(br#"","data":"#.into(), r#"","#.len()),
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

    #[test]
    fn a_whole_string_gives_way_to_json() {
        let cases = [
            ("event_id", r#""0199e8a4-7c00-7000-8000-0123456789ab""#),
            ("delivery_id", r#""d\u00221""#),
            ("type", r#""a.b""#),
            ("occurred_at", r#""2025-10-09T08:53:20.123456Z""#),
            ("occurred_at_unix", "1760000000"),
            ("occurred_at_unix_ms", "1760000000123"),
            ("data", "[1.0 ]"),
            ("metadata", r#"{"m": 1e400}"#),
            ("tenant", r#""t\u005c1""#),
            ("subscription", r#""s/1""#),
            ("values.v", r#""\u0022{{type}}\u0022""#),
        ];
        for (name, expected) in cases {
            let template = format!(r#"[ "{{{{{name}}}}}"]"#);
            assert_eq!(rendered(&template, &facts()), format!("[ {expected}]"));
        }
    }

    #[test]
    fn within_a_longer_string_it_gives_way_to_text() {
        let template = r#"{"a":"{{event_id}}","b":" {{type}}-{{occurred_at_unix}}{{tenant}} ","c":["/{{values.v}}","{{delivery_id}}/"]}"#;
        let expected = r#"{"a":"0199e8a4-7c00-7000-8000-0123456789ab","b":" a.b-1760000000t\u005c1 ","c":["/\u0022{{type}}\u0022","d\u00221/"]}"#;
        assert_eq!(rendered(template, &facts()), expected);
    }

    #[test]
    fn an_escaped_quote_does_not_end_a_string() {
        let template = r#"["\"{{type}}\\", "{{type}}","\\{{type}}" ,"\\\"", "{{data}}"]"#;
        let expected = r#"["\"a.b\\", "a.b","\\a.b" ,"\\\"", [1.0 ]]"#;
        assert_eq!(rendered(template, &facts()), expected);
    }

    #[test]
    fn each_character_that_a_json_string_cannot_hold_is_escaped() {
        let all: String = (0..=0x80).map(char::from).collect();
        let body = standard(&all, SystemTime::UNIX_EPOCH, "null");
        let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(read["type"], all);
        let escaped = body.windows(4).filter(|window| window == br"\u00").count();
        assert_eq!(escaped, 0x20 + 2);
    }

    #[test]
    fn all_other_bytes_of_a_template_stay() {
        let template = "\t{\"b\" : 1.0e5 ,\r\n\"\\u0061\":[\"\\\"\\\\{}{ } \\u007b{\", \"é\", -0,true, null ]}\n";
        assert_eq!(rendered(template, &facts()), template);
    }

    #[test]
    fn what_is_missing_is_null_or_no_text_or_no_member() {
        let template = r#"{"a":"{{tenant}}","b":"<{{tenant}}>" , "c" : "{{tenant?}}","d":["{{metadata}}"],"e":"{{metadata?}}" }"#;
        assert_eq!(
            rendered(template, &facts()),
            r#"{"a":"t\u005c1","b":"<t\u005c1>" , "c" : "t\u005c1","d":[{"m": 1e400}],"e":{"m": 1e400} }"#
        );
        assert_eq!(
            rendered(template, &bare()),
            r#"{"a":null,"b":"<>" ,"d":[null] }"#
        );
    }

    #[test]
    fn the_payload_alone_is_a_template() {
        assert_eq!(rendered(r#""{{data}}""#, &facts()), "[1.0 ]");
        assert_eq!(rendered(" \"{{data}}\"\n", &facts()), " [1.0 ]\n");
    }

    #[test]
    fn a_test_is_marked_before_the_first_top_level_member_that_is_the_data() {
        let cases = [
            (r#"{"data":"{{data}}"}"#, r#"{"test":true,"data":[1.0 ]}"#),
            (
                r#"{"x":{"data":"{{data}}"}, "y":"{{data}}","z":"{{data}}"}"#,
                r#"{"x":{"data":[1.0 ]}, "test":true,"y":[1.0 ],"z":[1.0 ]}"#,
            ),
            (
                r#"{"x":"{{tenant}}","t":"{{tenant?}}","y" : "{{data}}"}"#,
                r#"{"x":null,"test":true,"y" : [1.0 ]}"#,
            ),
            (r#"{"x":{"data":"{{data}}"}}"#, r#"{"x":{"data":[1.0 ]}}"#),
            (r#"["{{data}}"]"#, "[[1.0 ]]"),
            (r#"[{"data":"{{data}}"}]"#, r#"[{"data":[1.0 ]}]"#),
            (r#""{{data}}""#, "[1.0 ]"),
            (r#"{"data":"{{type}}"}"#, r#"{"data":"a.b"}"#),
            // Two members of one name would be one too many.
            (
                r#"{"data":"{{data}}","te\u0073t":0}"#,
                r#"{"data":[1.0 ],"te\u0073t":0}"#,
            ),
            (
                r#"{"x":{"test":0},"data":"{{data}}"}"#,
                r#"{"x":{"test":0},"test":true,"data":[1.0 ]}"#,
            ),
        ];
        for (template, expected) in cases {
            let is_test = Facts {
                is_test: true,
                ..bare()
            };
            assert_eq!(rendered(template, &is_test), expected);
        }
    }

    #[test]
    fn what_the_language_does_not_allow_is_refused_with_its_place() {
        let long = format!("[{}]", " ".repeat(16 * 1024));
        let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
        let many = format!("[{}0]", r#""{{type}}","#.repeat(65));
        let cases = [
            ("", "template: EOF while parsing a value at line 1 column 0"),
            ("{\n \"a\":}", "template: expected value at line 2 column 6"),
            ("[1,]", "template: trailing comma at line 1 column 4"),
            (
                r#"["\ud800"]"#,
                "template: unexpected end of hex escape at line 1 column 9",
            ),
            ("[] []", "template: trailing characters at line 1 column 4"),
            (&long, "template: it has 16386 bytes, allowed are 16384"),
            (&deep, "template: nested deeper than 32 at line 1 column 33"),
            (
                &many,
                "template: more than 64 placeholders at line 1 column 706",
            ),
            (
                "{\n\"é\": \"{{foo}}\"}",
                "\"{{foo}}\": no such name (without spaces); there are event_id, delivery_id, type, occurred_at, occurred_at_unix, occurred_at_unix_ms, data, metadata, tenant, subscription and values.NAME at line 2 column 6",
            ),
            (r#"["{{ type }}"]"#, r#""{{ type }}": no such name"#),
            (r#"["{{}}"]"#, r#""{{}}": no such name"#),
            (r#"["{{{type}}}"]"#, r#""{{{type}}": no such name"#),
            (r#"["a{{type"]"#, r#""{{" without "}}""#),
            (r#"["a{{type"]"#, "at line 1 column 4"),
            (r#"["{{type}}}}"]"#, r#""}}" without "{{""#),
            (r#"["a}}"]"#, "at line 1 column 4"),
            (
                r#"["{{data}} "]"#,
                r#""{{data}}" must be the whole of its string at line 1 column 3"#,
            ),
            (
                r#"[" {{metadata}}"]"#,
                r#""{{metadata}}" must be the whole of its string at line 1 column 4"#,
            ),
            (
                r#"[0,{"x":0,"a":" {{tenant?}}"}]"#,
                r#""{{tenant?}}" must be the whole of its string at line 1 column 17"#,
            ),
            (
                r#"{"a":"{{tenant?}}"}"#,
                "a member that may be left out cannot be the first of its object at line 1 column 6",
            ),
            (
                r#"{"x":{"y":0},"z":{"a":"{{tenant?}}"}}"#,
                "cannot be the first of its object at line 1 column 23",
            ),
            (
                r#"[0,"{{tenant?}}"]"#,
                "only a member of an object can be left out at line 1 column 4",
            ),
            (
                r#""{{metadata?}}""#,
                "only a member of an object can be left out at line 1 column 1",
            ),
            (
                r#"{"x":0,"a":"{{type?}}"}"#,
                r#""{{type?}}" is never missing"#,
            ),
            (
                r#"{"x":0,"a":"{{values.v?}}"}"#,
                r#""{{values.v?}}" is never missing"#,
            ),
            (
                r#"{"{{type}}":0}"#,
                r#"the member's name "{{type}}" has braces, placeholders are for values at line 1 column 2"#,
            ),
            (
                r#"["{{values.w}}"]"#,
                r#""{{values.w}}": the subscription gives no such value at line 1 column 2"#,
            ),
            (
                r#"["{{values.}}"]"#,
                r#""values.": a value's name is 1 to 64 characters"#,
            ),
            (
                r#"["{{values.a b}}"]"#,
                r#""values.a b": a value's name is 1 to 64 characters"#,
            ),
            (
                r#"["{{values.empty}}"]"#,
                "values.empty has 0 bytes, allowed are 1 to 1024 at line 1 column 2",
            ),
            (
                r#"["{{values.long}}"]"#,
                "values.long has 1025 bytes, allowed are 1 to 1024",
            ),
            ("[]", r#"values: "empty" is not in the envelope"#),
        ];
        let mut values = values();
        values.insert("empty".to_owned(), String::new());
        values.insert("long".to_owned(), "SECRET".repeat(171)[..1025].to_owned());
        for (template, expected) in cases {
            let error = Envelope::parse(template, JSON, &[], &values).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(expected), "{template}: {text}");
            assert!(text.starts_with("envelope refused: ") && !text.contains("SECRET"));
        }
    }

    #[test]
    fn bounds_are_inclusive() {
        let long = format!("[{}]", " ".repeat(16 * 1024 - 2));
        let deep = format!("{}{}", "[".repeat(32), "]".repeat(32));
        let many = format!("[{}0]", r#""{{type}}","#.repeat(64));
        for template in [long, deep, many] {
            Envelope::parse(&template, JSON, &[], &BTreeMap::new()).unwrap();
        }
    }

    #[test]
    fn headers_are_text_with_encoded_facts() {
        let headers = [
            ("X-Event", "{{type}}; at={{occurred_at_unix_ms}}"),
            ("X-Vector", "{{values.v}} ok"),
            ("X-Fixed", "a%20b \"c\""),
            ("X-Tenant", "t={{tenant}}"),
            ("X-Only", "t={{tenant?}}"),
        ];
        let values = BTreeMap::from([("v".to_owned(), "Euro € 😀".to_owned())]);
        let envelope =
            Envelope::parse("[]", "text/plain; charset=utf-8", &headers, &values).unwrap();
        let of = |facts: &Facts<'_>| -> Vec<String> {
            let headers = envelope.headers(facts).map(Result::unwrap);
            headers
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect()
        };
        let always = [
            "content-type: text/plain; charset=utf-8",
            "x-event: a.b; at=1760000000123",
            "x-vector: Euro%20%E2%82%AC%20%F0%9F%98%80 ok",
            "x-fixed: a%20b \"c\"",
        ];
        assert_eq!(of(&facts())[..4], always);
        assert_eq!(of(&facts())[4..], ["x-tenant: t=t\\1", "x-only: t=t\\1"]);
        assert_eq!(of(&bare())[4..], ["x-tenant: t="]);
        let names: Vec<_> = envelope.header_names().map(HeaderName::as_str).collect();
        assert_eq!(
            names,
            [
                "content-type",
                "x-event",
                "x-vector",
                "x-fixed",
                "x-tenant",
                "x-only"
            ]
        );
    }

    #[test]
    fn what_no_header_may_be_is_refused() {
        let long = "x".repeat(1025);
        let cases = [
            ("", "a", r#"header name: "" is not"#),
            ("a b", "a", r#"header name: "a b" is not"#),
            ("x:", "a", r#"header name: "x:" is not"#),
            ("x\r\ny", "a", r#"header name: "x\r\ny" is not"#),
            ("é", "a", "is not 1 to 100 characters of a token"),
            ("Host", "a", r#"header name: "Host" is one that we set"#),
            ("Content-Length", "1", "is one that we set"),
            ("content-type", "a/b", "is one that we set"),
            ("Transfer-Encoding", "chunked", "is one that we set"),
            ("Connection", "close", "is one that we set"),
            ("Webhook-Id", "{{type}}", "is one that we set"),
            ("webhook-anything", "a", "is one that we set"),
            ("Svix-Signature", "a", "is one that we set"),
            ("User-Agent", "a", "is one that we set"),
            ("Authorization", "Bearer x", "is one that we set"),
            ("x-a", "", r#"header x-a: "" is not 1 to 1024 visible"#),
            ("x-a", " a", "is not 1 to 1024 visible"),
            ("x-a", "a\r\nb: c", "is not 1 to 1024 visible"),
            ("x-a", "é", "is not 1 to 1024 visible"),
            ("x-a", &long, "is not 1 to 1024 visible"),
            (
                "x-a",
                "{{data}}",
                r#"header x-a: "{{data}}" is JSON, which no header holds"#,
            ),
            ("x-a", "a {{metadata?}}", "is JSON, which no header holds"),
            ("x-a", "{{foo}}", r#"header x-a: "{{foo}}": no such name"#),
            ("x-a", "a}}", r#"header x-a: "}}" without "{{""#),
            ("X-TWICE", "a", r#"header name: "x-twice" is there twice"#),
        ];
        for (name, value, expected) in cases {
            let headers = [("x-twice", "a"), (name, value)];
            let error = Envelope::parse("[]", JSON, &headers, &BTreeMap::new()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(expected), "{name}: {value}: {text}");
        }
    }

    #[test]
    fn constants_do_not_make_a_header_that_servers_refuse() {
        let parse = |text: String| {
            let values = BTreeMap::from([("v".to_owned(), text)]);
            Envelope::parse("[]", JSON, &[("x-a", "{{values.v}}{{values.v}}")], &values)
        };
        parse("a".repeat(1024)).unwrap();
        let error = parse(format!("{} ", "a".repeat(1022))).unwrap_err();
        let expected = "header x-a: 2050 bytes with its values in it, allowed are 2048";
        assert_eq!(error.to_string(), format!("envelope refused: {expected}"));
    }

    #[test]
    fn a_content_type_is_a_media_type() {
        for text in [
            "",
            "json",
            "application/",
            "a/b/c",
            "a/b\r\n",
            "{{type}}/json",
            "a/b; c={{type}}",
            " a/b",
        ] {
            let error = Envelope::parse("[]", text, &[], &BTreeMap::new()).unwrap_err();
            assert!(error.to_string().contains("content type: "), "{error}");
        }
    }

    #[test]
    fn twenty_headers_are_enough() {
        let names: Vec<_> = (0..21).map(|place| format!("x-{place}")).collect();
        let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "a")).collect();
        Envelope::parse("[]", JSON, &headers[..20], &BTreeMap::new()).unwrap();
        let error = Envelope::parse("[]", JSON, &headers, &BTreeMap::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "envelope refused: headers: there are more than 20"
        );
    }

    #[test]
    fn body_and_headers_name_the_values_that_they_need() {
        let headers = [("x-a", "{{values.c}}"), ("x-b", "{{values.a}}")];
        let names = values_of(r#"["{{values.b}}", "- {{values.a}}"]"#, &headers).unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(values_of(r#"["{{foo}}"]"#, &[]).is_err());
    }

    proptest! {
        #[test]
        fn any_event_type_reads_back_as_json(event_type in any::<String>()) {
            let body = standard(&event_type, SystemTime::UNIX_EPOCH, "null");
            let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&read["type"], &event_type);
        }
    }

    proptest! {
        #[test]
        fn no_template_makes_the_compiler_panic_or_the_body_invalid(template in template(), data in "[1-9][0-9]{0,2}") {
            if let Ok(envelope) = Envelope::parse(&template, JSON, &[], &BTreeMap::new()) {
                for facts in [facts(), bare(), Facts { is_test: true, ..bare() }] {
                    let facts = Facts { data: &data, metadata: facts.metadata.map(|_| "[]"), ..facts };
                    let body = envelope.body(&facts);
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok(), "{:?}", body);
                    let length = body.len();
                    prop_assert_eq!(body.try_into_mut().unwrap().capacity(), length);
                }
            }
        }

        #[test]
        fn no_text_makes_the_compiler_panic(template: String, value: String) {
            let _ = Envelope::parse(&template, &value, &[(&template, &value)], &BTreeMap::new());
        }
    }

    /// Tokens of JSON and of placeholders, in an order that now and then makes sense.
    fn template() -> impl Strategy<Value = String> {
        let string = proptest::collection::vec(
            prop_oneof![
                Just("{{data}}"),
                Just("{{tenant}}"),
                Just("{{tenant?}}"),
                Just("{{type}}"),
                Just("{{metadata?}}"),
                Just("{{"),
                Just("}}"),
                Just("{"),
                Just("\\\""),
                Just("\\\\"),
                Just("\\u007b"),
                Just("é"),
                Just("test"),
            ],
            0..3,
        );
        let string = string.prop_map(|parts| format!("\"{}\"", parts.concat()));
        let whole = prop_oneof![
            Just("{{data}}"),
            Just("{{tenant?}}"),
            Just("{{metadata?}}"),
            Just("{{type}}")
        ];
        let leaf = prop_oneof![
            string,
            whole.prop_map(|name| format!("\"{name}\"")),
            Just("1.0".to_owned()),
            Just(" null ".to_owned()),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let member = ("(test|[a-c:,{}\\[\\]]{0,2})", inner.clone());
            let member = member.prop_map(|(name, value)| format!(" \"{name}\" :{value}"));
            prop_oneof![
                proptest::collection::vec(inner, 0..4)
                    .prop_map(|all| format!("[{}]", all.join(","))),
                proptest::collection::vec(member, 0..4)
                    .prop_map(|all| format!("{{{}}}", all.join(" ,"))),
            ]
        })
    }

    fn rendered(template: &str, facts: &Facts<'_>) -> String {
        let values = values().into_iter();
        let needed = values_of(template, &[]).unwrap();
        let values = values.filter(|(name, _)| needed.contains(name)).collect();
        let envelope = Envelope::parse(template, JSON, &[], &values).unwrap();
        String::from_utf8(envelope.body(facts).to_vec()).unwrap()
    }

    fn values() -> BTreeMap<String, String> {
        BTreeMap::from([("v".to_owned(), r#""{{type}}""#.to_owned())])
    }

    fn facts() -> Facts<'static> {
        Facts {
            event_id: Uuid::from_u128(0x0199_e8a4_7c00_7000_8000_0123_4567_89ab),
            delivery_id: "d\"1",
            event_type: "a.b",
            occurred_at: SystemTime::UNIX_EPOCH + Duration::from_micros(1_760_000_000_123_456),
            data: "[1.0 ]",
            metadata: Some(r#"{"m": 1e400}"#),
            tenant: Some("t\\1"),
            subscription: "s/1",
            is_test: false,
        }
    }

    fn bare() -> Facts<'static> {
        Facts {
            metadata: None,
            tenant: None,
            ..facts()
        }
    }

    const JSON: &str = "application/json";

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
