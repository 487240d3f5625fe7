//! The body of a request: the event's payload in the shape that Standard Webhooks describes.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

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

/// Text of a time, built without an allocation.
struct Timestamp {
    text: [u8; 48],
    length: usize,
}

impl Timestamp {
    fn of(time: SystemTime) -> Self {
        let (seconds, micros) = unix_time(time);
        let (year, month, day) = civil_date(seconds.div_euclid(DAY));
        let second = seconds.rem_euclid(DAY).unsigned_abs();
        let mut timestamp = Self {
            text: [0; 48],
            length: 0,
        };
        timestamp.push_year(year);
        let fields = [
            (b'-', month, 2),
            (b'-', day, 2),
            (b'T', second / 3600, 2),
            (b':', second / 60 % 60, 2),
            (b':', second % 60, 2),
            (b'.', micros, 6),
        ];
        for (separator, number, width) in fields {
            timestamp.push(separator);
            timestamp.push_number(number, width);
        }
        timestamp.push(b'Z');
        timestamp
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }

    fn push_year(&mut self, year: i64) {
        if (0..=9999).contains(&year) {
            return self.push_number(year.unsigned_abs(), 4);
        }
        self.push(if year < 0 { b'-' } else { b'+' });
        self.push_number(year.unsigned_abs(), 6);
    }

    fn push(&mut self, byte: u8) {
        self.text[self.length] = byte;
        self.length += 1;
    }

    /// In decimal, with zeros in front up to `width`.
    fn push_number(&mut self, mut number: u64, width: usize) {
        let start = self.length;
        while number > 0 || self.length < start + width {
            self.push(b'0' + (number % 10).to_le_bytes()[0]);
            number /= 10;
        }
        self.text[start..self.length].reverse();
    }
}

/// Seconds since 1970, and microseconds from there on; rounded down, also before 1970.
fn unix_time(time: SystemTime) -> (i64, u64) {
    let micros_up = |before: Duration| u64::from(before.subsec_nanos().div_ceil(1000));
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (
            0_i64.saturating_add_unsigned(after.as_secs()),
            after.subsec_micros().into(),
        ),
        Err(error) => {
            let before = error.duration();
            let seconds = 0_i64.saturating_sub_unsigned(before.as_secs());
            match micros_up(before) {
                0 => (seconds, 0),
                micros => (seconds - 1, 1_000_000 - micros),
            }
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar carried on in both directions.
///
/// Years are counted from March, so that the leap day is the last of its year, in cycles of 400 years, which all have the same
/// number of days.
fn civil_date(days: i64) -> (i64, u64, u64) {
    let from_march_0000 = days + 719_468;
    let cycle = from_march_0000.div_euclid(CYCLE);
    let in_cycle = from_march_0000.rem_euclid(CYCLE);
    let leap_days = in_cycle / 1460 - in_cycle / 36_524 + in_cycle / 146_096;
    let year = (in_cycle - leap_days) / 365;
    let in_year = in_cycle - (365 * year + year / 4 - year / 100);
    // From March on, month lengths repeat every 153 days: 31, 30, 31, 30, 31.
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (
        cycle * 400 + year + next_year,
        month.unsigned_abs(),
        day.unsigned_abs(),
    )
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
const DAY: i64 = 86_400;
const CYCLE: i64 = 146_097;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

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
    fn years_that_rfc_3339_knows_have_four_digits() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (-2_203_891_200, "1900-03-01T00:00:00.000000Z"),
            (-62_135_596_800, "0001-01-01T00:00:00.000000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000000Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(text_of(at(seconds)), expected);
        }
    }

    #[test]
    fn other_years_have_a_sign_and_at_least_six_digits() {
        let cases = [
            (253_402_300_800, "+010000-01-01T00:00:00.000000Z"),
            (-62_167_219_201, "-000001-12-31T23:59:59.000000Z"),
            // The ends of what Postgres holds: 4714 BC to 294276.
            (-210_866_803_200, "-004713-11-24T00:00:00.000000Z"),
            (9_224_318_015_999, "+294276-12-31T23:59:59.000000Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(text_of(at(seconds)), expected);
        }
    }

    #[test]
    fn the_ends_of_the_systems_clock_do_not_panic() {
        for seconds in [i64::MIN, i64::MIN + 1, i64::MAX] {
            if let Some(time) = shifted(seconds) {
                assert!(text_of(time).ends_with('Z'));
            }
        }
    }

    #[test]
    fn a_fraction_is_rounded_down_on_both_sides_of_1970() {
        let nanos = |n| SystemTime::UNIX_EPOCH - Duration::from_nanos(n);
        assert_eq!(text_of(nanos(1)), "1969-12-31T23:59:59.999999Z");
        assert_eq!(text_of(nanos(999_999_999)), "1969-12-31T23:59:59.000000Z");
        assert_eq!(text_of(nanos(1_000_000_001)), "1969-12-31T23:59:58.999999Z");
        let late = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_999);
        assert_eq!(text_of(late), "1970-01-01T00:00:00.000001Z");
    }

    proptest! {
        #[test]
        fn any_event_type_reads_back_as_json(event_type in any::<String>()) {
            let body = standard(&event_type, SystemTime::UNIX_EPOCH, "null");
            let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&read["type"], &event_type);
        }

        #[test]
        fn any_time_reads_back_to_the_microsecond(
            micros in -62_135_596_800_000_000_i64..253_402_207_200_000_000,
        ) {
            let time = jiff::Timestamp::from_microsecond(micros).unwrap();
            let text = text_of(SystemTime::from(time));
            prop_assert_eq!(text.len(), 27);
            prop_assert_eq!(text.parse::<jiff::Timestamp>().unwrap(), time);
        }
    }

    fn text_of(time: SystemTime) -> String {
        String::from_utf8(Timestamp::of(time).as_bytes().to_vec()).unwrap()
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
