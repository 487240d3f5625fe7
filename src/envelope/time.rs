//! Times as text: of RFC 3339, and counted from 1970.

use std::time::{Duration, SystemTime};

/// Text of a time, ASCII, built without an allocation.
pub(super) struct Timestamp {
    text: [u8; 48],
    length: usize,
}

impl Timestamp {
    /// As RFC 3339 has it, in UTC with six digits of a second.
    ///
    /// RFC 3339 knows the years 0000 to 9999 only; for others, which Postgres holds too, the year gets a sign and six digits or
    /// more as in ISO 8601 (`+012345-06-07T...`): an odd date must not keep a committed event from being delivered.
    pub(super) fn of(time: SystemTime) -> Self {
        let (seconds, micros) = unix_time(time);
        let (year, month, day) = civil_date(seconds.div_euclid(DAY));
        let second = seconds.rem_euclid(DAY).unsigned_abs();
        let mut rest = *b"-00-00T00:00:00.000000Z";
        let pairs = [
            (1, month),
            (4, day),
            (7, second / 3600),
            (10, second / 60 % 60),
            (13, second % 60),
            (16, micros / 10_000),
            (18, micros / 100 % 100),
            (20, micros % 100),
        ];
        for (at, number) in pairs {
            [rest[at], rest[at + 1]] = two_digits(number);
        }
        let mut timestamp = Self::empty();
        timestamp.push_year(year);
        timestamp.push_all(&rest);
        timestamp
    }

    /// Whole seconds since 1970, rounded down.
    pub(super) fn unix(time: SystemTime) -> Self {
        Self::integer(unix_time(time).0)
    }

    /// Whole milliseconds since 1970, rounded down.
    pub(super) fn unix_millis(time: SystemTime) -> Self {
        let (seconds, micros) = unix_time(time);
        let millis = seconds.saturating_mul(1000);
        Self::integer(millis.saturating_add_unsigned(micros / 1000))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }

    fn empty() -> Self {
        Self {
            text: [0; 48],
            length: 0,
        }
    }

    fn integer(number: i64) -> Self {
        let mut text = Self::empty();
        if number < 0 {
            text.push(b'-');
        }
        text.push_number(number.unsigned_abs(), 1);
        text
    }

    fn push_year(&mut self, year: i64) {
        let number = year.unsigned_abs();
        if (0..=9999).contains(&year) {
            self.push_all(&two_digits(number / 100));
            return self.push_all(&two_digits(number % 100));
        }
        self.push(if year < 0 { b'-' } else { b'+' });
        self.push_number(number, 6);
    }

    fn push_all<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.text[self.length..][..N].copy_from_slice(bytes);
        self.length += N;
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

/// Of a number below 100.
fn two_digits(number: u64) -> [u8; 2] {
    let digit = |number: u64| b'0' + (number % 10).to_le_bytes()[0];
    [digit(number / 10), digit(number)]
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

const DAY: i64 = 86_400;
const CYCLE: i64 = 146_097;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

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
                assert!(!Timestamp::unix_millis(time).as_bytes().is_empty());
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

    #[test]
    fn seconds_and_milliseconds_are_whole_numbers_rounded_down() {
        let micros = |n: i64| match u64::try_from(n) {
            Ok(after) => SystemTime::UNIX_EPOCH + Duration::from_micros(after),
            Err(_) => SystemTime::UNIX_EPOCH - Duration::from_micros(n.unsigned_abs()),
        };
        let cases = [
            (0, "0", "0"),
            (999, "0", "0"),
            (1_700_000_000_123_999, "1700000000", "1700000000123"),
            (-1, "-1", "-1"),
            (-1_000, "-1", "-1"),
            (-1_001, "-1", "-2"),
            (-1_000_000, "-1", "-1000"),
        ];
        for (time, seconds, millis) in cases {
            let time = micros(time);
            assert_eq!(Timestamp::unix(time).as_bytes(), seconds.as_bytes());
            assert_eq!(Timestamp::unix_millis(time).as_bytes(), millis.as_bytes());
        }
    }

    proptest! {
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
