//! A compiled template's pieces, and how they become bytes.

use std::borrow::Cow;
use std::cell::OnceCell;

use bytes::Bytes;

use super::Facts;
use super::time::Timestamp;

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// These bytes.
    Text(Cow<'static, [u8]>),
    /// These bytes, and before that one of them the mark of a test, where it is one.
    Markable(Cow<'static, [u8]>, usize),
    /// The fact as a JSON value, `null` where it is missing.
    Whole(Fact),
    /// The fact's text within a JSON string, nothing where it is missing.
    Inside(Fact),
    /// The bytes, which are a comma and a member's name, and the fact as that member's value; nothing of both where it is missing.
    Member(Vec<u8>, Fact),
}

/// What a placeholder can stand for, constants apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    EventId,
    DeliveryId,
    Type,
    OccurredAt,
    OccurredAtUnix,
    OccurredAtUnixMs,
    Data,
    Metadata,
    Tenant,
    Subscription,
}

impl Fact {
    pub(super) const ALL: [(&'static str, Self); 10] = [
        ("event_id", Self::EventId),
        ("delivery_id", Self::DeliveryId),
        ("type", Self::Type),
        ("occurred_at", Self::OccurredAt),
        ("occurred_at_unix", Self::OccurredAtUnix),
        ("occurred_at_unix_ms", Self::OccurredAtUnixMs),
        ("data", Self::Data),
        ("metadata", Self::Metadata),
        ("tenant", Self::Tenant),
        ("subscription", Self::Subscription),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, fact)| *fact)
    }

    /// Whether there are events without it.
    pub(super) fn can_be_missing(self) -> bool {
        matches!(self, Self::Metadata | Self::Tenant)
    }

    /// Whether it is a JSON string wherever it is a whole value, so that the template's quotes can stay.
    pub(super) fn is_always_text(self) -> bool {
        matches!(
            self,
            Self::EventId | Self::DeliveryId | Self::Type | Self::OccurredAt | Self::Subscription
        )
    }

    /// Whether it is JSON of any kind rather than a text or a number.
    pub(super) fn is_json(self) -> bool {
        matches!(self, Self::Data | Self::Metadata)
    }
}

/// The body of so many bytes, in one allocation of just that size.
pub(super) fn body(pieces: &[Piece], facts: &Facts<'_>) -> Bytes {
    let rendering = Rendering::of(facts);
    let mut length = Length(0);
    rendering.write(pieces, &mut length);
    let mut body = Vec::with_capacity(length.0);
    rendering.write(pieces, &mut body);
    Bytes::from(body)
}

/// The facts of one event, each brought into its form when it is first asked for.
pub(super) struct Rendering<'a> {
    facts: &'a Facts<'a>,
    event_id: OnceCell<[u8; 36]>,
    occurred_at: OnceCell<Timestamp>,
    unix: OnceCell<Timestamp>,
    unix_millis: OnceCell<Timestamp>,
}

/// A fact's bytes, and what they are.
pub(super) enum Form<'r> {
    Missing,
    /// A JSON value.
    Json(&'r [u8]),
    /// A whole number.
    Number(&'r [u8]),
    /// Text in which a JSON string has nothing to escape.
    Plain(&'r [u8]),
    /// Any text.
    Text(&'r [u8]),
}

impl<'a> Rendering<'a> {
    pub(super) fn of(facts: &'a Facts<'a>) -> Self {
        Self {
            facts,
            event_id: OnceCell::new(),
            occurred_at: OnceCell::new(),
            unix: OnceCell::new(),
            unix_millis: OnceCell::new(),
        }
    }

    pub(super) fn form(&self, fact: Fact) -> Form<'_> {
        let facts = self.facts;
        let time = facts.occurred_at;
        match fact {
            Fact::EventId => Form::Plain(self.event_id()),
            Fact::DeliveryId => Form::Text(facts.delivery_id.as_bytes()),
            Fact::Type => Form::Text(facts.event_type.as_bytes()),
            Fact::OccurredAt => {
                let text = self.occurred_at.get_or_init(|| Timestamp::of(time));
                Form::Plain(text.as_bytes())
            }
            Fact::OccurredAtUnix => {
                let text = self.unix.get_or_init(|| Timestamp::unix(time));
                Form::Number(text.as_bytes())
            }
            Fact::OccurredAtUnixMs => {
                let text = self
                    .unix_millis
                    .get_or_init(|| Timestamp::unix_millis(time));
                Form::Number(text.as_bytes())
            }
            Fact::Data => Form::Json(facts.data.as_bytes()),
            Fact::Metadata => facts
                .metadata
                .map_or(Form::Missing, |json| Form::Json(json.as_bytes())),
            Fact::Tenant => facts
                .tenant
                .map_or(Form::Missing, |text| Form::Text(text.as_bytes())),
            Fact::Subscription => Form::Text(facts.subscription.as_bytes()),
        }
    }

    fn event_id(&self) -> &[u8] {
        self.event_id.get_or_init(|| {
            let mut text = [0; 36];
            self.facts.event_id.hyphenated().encode_lower(&mut text);
            text
        })
    }

    fn write(&self, pieces: &[Piece], sink: &mut impl Sink) {
        for piece in pieces {
            match piece {
                Piece::Markable(text, at) if self.facts.is_test => {
                    let (before, after) = text.split_at((*at).min(text.len()));
                    sink.put(before);
                    sink.put(TEST_MARK);
                    sink.put(after);
                }
                Piece::Text(text) | Piece::Markable(text, _) => sink.put(text),
                Piece::Whole(fact) => write_whole(&self.form(*fact), sink),
                Piece::Inside(fact) => write_inside(&self.form(*fact), sink),
                Piece::Member(before, fact) => match self.form(*fact) {
                    Form::Missing => {}
                    form => {
                        sink.put(before);
                        write_whole(&form, sink);
                    }
                },
            }
        }
    }
}

/// Text as the inside of a JSON string.
pub(super) fn escaped(text: &str) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(text.len());
    escaped.put_escaped(text.as_bytes());
    escaped
}

fn write_whole(form: &Form<'_>, sink: &mut impl Sink) {
    match form {
        Form::Missing => sink.put(b"null"),
        Form::Json(bytes) | Form::Number(bytes) => sink.put(bytes),
        Form::Plain(_) | Form::Text(_) => {
            sink.put(b"\"");
            write_inside(form, sink);
            sink.put(b"\"");
        }
    }
}

/// No template has JSON within a text; if one had, its text would stand there, escaped like any other.
fn write_inside(form: &Form<'_>, sink: &mut impl Sink) {
    match form {
        Form::Missing => {}
        Form::Number(bytes) | Form::Plain(bytes) => sink.put(bytes),
        Form::Json(bytes) | Form::Text(bytes) => sink.put_escaped(bytes),
    }
}

/// Where bytes go: first they are counted, then written, by the same walk.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
    /// UTF-8, as the inside of a JSON string.
    fn put_escaped(&mut self, text: &[u8]);
}

struct Length(usize);

impl Sink for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn put_escaped(&mut self, text: &[u8]) {
        let lengths = text.iter().map(|byte| if is_plain(*byte) { 1 } else { 6 });
        self.0 += lengths.sum::<usize>();
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_escaped(&mut self, text: &[u8]) {
        let mut rest = text;
        while let Some(at) = rest.iter().position(|byte| !is_plain(*byte)) {
            let (plain, from) = rest.split_at(at);
            self.extend_from_slice(plain);
            if let Some((byte, after)) = from.split_first() {
                self.extend_from_slice(&escape(*byte));
                rest = after;
            }
        }
        self.extend_from_slice(rest);
    }
}

fn escape(byte: u8) -> [u8; 6] {
    let nibble = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
    [b'\\', b'u', b'0', b'0', nibble(byte >> 4), nibble(byte)]
}

/// Whether a JSON string may hold this byte of UTF-8 as it is.
fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

const TEST_MARK: &[u8] = br#""test":true,"#;
