//! The body of a request: the event's payload in the shape that Standard Webhooks describes.

use std::time::SystemTime;

use bytes::Bytes;

use self::time::Timestamp;

mod time;

/// `{"type":...,"timestamp":...,"data":...}`, always the same bytes for the same event.
///
/// The payload, which is JSON, is copied byte for byte. The timestamp is RFC 3339 in UTC with six digits of a second, as exact as
/// Postgres stores it. RFC 3339 knows the years 0000 to 9999 only; for others, which Postgres holds too, the year gets a sign and six
/// digits or more as in ISO 8601 (`+012345-06-07T...`): an odd date must not keep a committed event from being delivered.
pub fn standard(event_type: &str, occurred_at: SystemTime, payload: &str) -> Bytes {
    render(PARTS, event_type, occurred_at, payload)
}

/// The same of a test, marked as one: `{"type":...,"timestamp":...,"test":true,"data":...}`.
pub fn test(event_type: &str, occurred_at: SystemTime, payload: &str) -> Bytes {
    render(PARTS_OF_A_TEST, event_type, occurred_at, payload)
}

fn render(parts: [&[u8]; 4], event_type: &str, occurred_at: SystemTime, payload: &str) -> Bytes {
    let timestamp = Timestamp::of(occurred_at);
    let timestamp = timestamp.as_bytes();
    let fixed = parts.iter().map(|part| part.len()).sum::<usize>();
    let length = fixed + escaped_len(event_type) + timestamp.len() + payload.len();
    let mut body = Vec::with_capacity(length);
    body.extend_from_slice(parts[0]);
    escape_into(&mut body, event_type);
    body.extend_from_slice(parts[1]);
    body.extend_from_slice(timestamp);
    body.extend_from_slice(parts[2]);
    body.extend_from_slice(payload.as_bytes());
    body.extend_from_slice(parts[3]);
    Bytes::from(body)
}

fn escaped_len(text: &str) -> usize {
    text.bytes()
        .map(|byte| if is_plain(byte) { 1 } else { 6 })
        .sum()
}

fn escape_into(body: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        if is_plain(byte) {
            body.push(byte);
        } else {
            let nibble = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
            body.extend_from_slice(&[b'\\', b'u', b'0', b'0', nibble(byte >> 4), nibble(byte)]);
        }
    }
}

/// Whether a JSON string may hold this byte of UTF-8 as it is.
fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

const PARTS: [&[u8]; 4] = [
    br#"{"type":""#,
    br#"","timestamp":""#,
    br#"","data":"#,
    b"}",
];
const PARTS_OF_A_TEST: [&[u8]; 4] = [PARTS[0], PARTS[1], br#"","test":true,"data":"#, PARTS[3]];

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
