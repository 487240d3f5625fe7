//! The headers that an envelope defines.

use http::header::InvalidHeaderValue;
use http::{HeaderName, HeaderValue};

use super::EnvelopeError;
use super::names::{Meaning, Names, Segment, segments};
use super::render::{Fact, Form, Rendering};

/// A header whose value is known, or made of the facts of each event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    name: HeaderName,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Fixed(HeaderValue),
    Made(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Fact {
        fact: Fact,
        /// Whether the header is left out where the fact is missing.
        needed: bool,
    },
}

impl Header {
    /// `content-type`, whose value is a media type and knows no placeholders.
    pub(super) fn content_type(text: &str) -> Result<Self, EnvelopeError> {
        let refuse = || {
            EnvelopeError::at(
                "content type",
                text,
                "is not a media type such as application/json",
            )
        };
        check_text("content type", text)?;
        let essence = text.split(';').next().unwrap_or_default().trim_end();
        let is_media_type = essence
            .split_once('/')
            .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
        if !is_media_type || text.contains("{{") {
            return Err(refuse());
        }
        Ok(Self {
            name: http::header::CONTENT_TYPE,
            value: Value::Fixed(HeaderValue::from_str(text).map_err(|_| refuse())?),
        })
    }

    /// `application/json`.
    pub(super) fn json() -> Self {
        Self {
            name: http::header::CONTENT_TYPE,
            value: Value::Fixed(HeaderValue::from_static("application/json")),
        }
    }

    pub(super) fn parse(
        name: &str,
        value: &str,
        names: &mut Names<'_>,
    ) -> Result<Self, EnvelopeError> {
        let name = parse_name(name)?;
        let place = format!("header {name}");
        check_text(&place, value)?;
        let parts = parse_parts(value, names).map_err(|rule| EnvelopeError::new(&place, &rule))?;
        check_constants(&place, &parts)?;
        let value = match parts.as_slice() {
            [Part::Text(text)] => Value::Fixed(
                HeaderValue::from_str(text)
                    .map_err(|_| EnvelopeError::new(&place, "cannot be sent"))?,
            ),
            _ => Value::Made(parts),
        };
        Ok(Self { name, value })
    }

    pub(super) fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The value for this event; `None` where the header is left out.
    pub(super) fn value(
        &self,
        rendering: &Rendering<'_>,
    ) -> Option<Result<HeaderValue, InvalidHeaderValue>> {
        match &self.value {
            Value::Fixed(value) => Some(Ok(value.clone())),
            Value::Made(parts) => make(parts, rendering).map(HeaderValue::try_from),
        }
    }
}

fn make(parts: &[Part], rendering: &Rendering<'_>) -> Option<String> {
    let mut value = String::new();
    for part in parts {
        match part {
            Part::Text(text) => value.push_str(text),
            Part::Fact { fact, needed } => match rendering.form(*fact) {
                Form::Missing if *needed => return None,
                Form::Missing => {}
                Form::Json(bytes)
                | Form::Number(bytes)
                | Form::Plain(bytes)
                | Form::Text(bytes) => {
                    push_encoded(&mut value, bytes);
                }
            },
        }
    }
    Some(value)
}

fn parse_name(text: &str) -> Result<HeaderName, EnvelopeError> {
    let refuse = |rule| EnvelopeError::at("header name", text, rule);
    if text.len() > MAX_NAME || !is_token(text) {
        return Err(refuse("is not 1 to 100 characters of a token"));
    }
    let name = HeaderName::try_from(text).map_err(|_| refuse("is not a header's name"))?;
    let is_reserved = RESERVED.contains(&name.as_str())
        || RESERVED_PREFIXES
            .iter()
            .any(|prefix| name.as_str().starts_with(prefix));
    if is_reserved {
        return Err(refuse(
            "is one that we set ourselves, that frames or routes the request, or that carries credentials",
        ));
    }
    Ok(name)
}

fn parse_parts(value: &str, names: &mut Names<'_>) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    for segment in segments(value).map_err(|(_, rule)| rule)? {
        match segment {
            Segment::Text(text) => push_text(&mut parts, |end| end.push_str(text)),
            Segment::Placeholder { name, optional, .. } => match names.meaning(name, optional)? {
                Meaning::Fact(fact) if fact.is_json() => {
                    return Err(format!("\"{{{{{name}}}}}\" is JSON, which no header holds"));
                }
                Meaning::Fact(fact) => parts.push(Part::Fact {
                    fact,
                    needed: optional,
                }),
                Meaning::Constant(text) => {
                    push_text(&mut parts, |end| push_encoded(end, text.as_bytes()));
                }
            },
        }
    }
    Ok(parts)
}

/// Lets `push` add to the text that the parts end with.
fn push_text(parts: &mut Vec<Part>, push: impl FnOnce(&mut String)) {
    if let Some(Part::Text(end)) = parts.last_mut() {
        return push(end);
    }
    let mut text = String::new();
    push(&mut text);
    parts.push(Part::Text(text));
}

/// As the HTTP binding of `CloudEvents` says: space, `"`, `%` and all but visible ASCII become `%XX`, byte by byte of the UTF-8.
fn push_encoded(value: &mut String, bytes: &[u8]) {
    let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value & 15)]);
    for byte in bytes {
        if byte.is_ascii_graphic() && !b"\"%".contains(byte) {
            value.push(char::from(*byte));
        } else {
            value.extend(['%', digit(byte >> 4), digit(*byte)]);
        }
    }
}

/// What a template may say of a value: visible ASCII, with spaces only between.
fn check_text(place: &str, text: &str) -> Result<(), EnvelopeError> {
    let is_text = text
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if is_text
        && (1..=MAX_VALUE).contains(&text.len())
        && text.trim_matches(' ').len() == text.len()
    {
        return Ok(());
    }
    Err(EnvelopeError::at(
        place,
        text,
        "is not 1 to 1024 visible ASCII characters with spaces only between them",
    ))
}

/// What a value is made of before any event is known, constants encoded.
fn check_constants(place: &str, parts: &[Part]) -> Result<(), EnvelopeError> {
    let lengths = parts.iter().map(|part| match part {
        Part::Text(text) => text.len(),
        Part::Fact { .. } => 0,
    });
    match lengths.sum::<usize>() {
        0..=MAX_CONSTANT => Ok(()),
        length => Err(EnvelopeError::new(
            place,
            &format!("{length} bytes with its values in it, allowed are {MAX_CONSTANT}"),
        )),
    }
}

fn is_token(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token)
}

const MAX_NAME: usize = 100;
const MAX_VALUE: usize = 1024;
/// Many servers take no more than 8 KiB of headers in all.
const MAX_CONSTANT: usize = 2048;
/// `traceparent` and its like may be defined; what is set by the sender, frames or routes a request, or is a credential may not.
const RESERVED: [&str; 16] = [
    "accept-encoding",
    "authorization",
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];
/// `content-type` is an envelope's own part; signatures of the Standard Webhooks kind are never a template's.
const RESERVED_PREFIXES: [&str; 5] = ["content-", "proxy-", "sec-", "svix-", "webhook-"];
