//! What the benchmark sends: bodies of about 300 bytes, each with its place in the run.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use posthaste::secret::SigningSecret;
use posthaste::{Error, Result, envelope, signature};

/// The payload in this place of the run.
pub(super) fn payload(place: u64) -> String {
    format!(
        r#"{{"place":{place},"certificate_id":"c0ffee00-0000-7000-8000-{place:012}","student":{{"id":{place},"name":"Mar\u00eda Jos\u00e9 Fern\u00e1ndez"}},"internship":{{"company":"Example Ltd.","from":"2025-02-01","to":"2025-07-31","hours":480}},"grade":9.25,"issued_by":"registrar","url":"https://platform.example/certificates/{place:012}"}}"#
    )
}

/// The place that a body tells, whether or not its JSON was written anew by Postgres.
pub(super) fn place_in(body: &[u8]) -> Option<u64> {
    let start = body.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let digits = body[start..].trim_ascii_start();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// Body and headers, rendered and signed as the worker does it.
pub(super) fn request(
    id: &str,
    payload: &str,
    secrets: &[SigningSecret],
) -> Result<(HeaderMap, Bytes)> {
    let now = SystemTime::now();
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
        .cast_signed();
    let body = envelope::standard(EVENT_TYPE, now, payload);
    let signature = signature::sign(secrets, id, seconds, &body);
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| Error::Config("a header cannot be sent".to_owned()))
    };
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(signature::WEBHOOK_ID, value(id)?);
    headers.insert(signature::WEBHOOK_TIMESTAMP, HeaderValue::from(seconds));
    headers.insert(signature::WEBHOOK_SIGNATURE, value(&signature)?);
    Ok((headers, body))
}

pub(super) const EVENT_TYPE: &str = "bench.event";
const MARK: &[u8] = br#""place":"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_tells_its_place_before_and_after_postgres_wrote_it_anew() {
        assert_eq!(place_in(payload(4711).as_bytes()), Some(4711));
        assert_eq!(
            place_in(br#"{"grade": 9.25, "place": 12, "x": 1}"#),
            Some(12)
        );
        assert_eq!(place_in(br#"{"grade": 9.25}"#), None);
    }

    #[test]
    fn a_payload_has_about_300_bytes() {
        assert!(
            (280..=340).contains(&payload(50_000).len()),
            "{}",
            payload(50_000).len()
        );
    }
}
