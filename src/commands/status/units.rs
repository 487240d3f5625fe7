//! Ages, counts and rates, as people read them: in a sentence, and in a column of seven cells (pure).

use std::time::SystemTime;

use jiff::Timestamp;

/// An age in a sentence, such as `1 h 2 min`. Seconds; what is no number is none.
pub(super) fn age(seconds: f64) -> String {
    match whole(seconds) {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds @ 3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        seconds => format!(
            "{} d {} h",
            grouped(seconds / 86_400),
            seconds % 86_400 / 3600
        ),
    }
}

/// An age in a column, such as `1h02m`: seven cells at most.
pub(super) fn short_age(seconds: f64) -> String {
    match whole(seconds) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds @ 3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        seconds @ 86_400..31_536_000 => {
            format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600)
        }
        seconds => format!("{}y", (seconds / 31_536_000).min(99_999)),
    }
}

/// A count in a sentence, such as `1,204`.
pub(super) fn count(value: f64) -> String {
    grouped(whole(value))
}

/// A count in a column, such as `1,204`, `12.3k` or `1.0G`: six cells at most.
pub(super) fn short_count(value: f64) -> String {
    if value < 9_999.5 {
        return count(value);
    }
    let mut scaled = value;
    for unit in ["k", "M", "G", "T"] {
        scaled /= 1_000.0;
        if scaled < 99.95 {
            return format!("{scaled:.1}{unit}");
        }
        if scaled < 999.5 {
            return format!("{scaled:.0}{unit}");
        }
    }
    "many".to_owned()
}

/// So many a second, such as `0.25`, `12.4` or `1,204`: six cells at most.
pub(super) fn rate(value: f64) -> String {
    match value {
        value if value >= 99.95 => short_count(value),
        value if value >= 9.995 => format!("{value:.1}"),
        value if value >= 0.005 => format!("{value:.2}"),
        _ => "0".to_owned(),
    }
}

/// As `2026-11-27 02:51:10Z`.
pub(super) fn moment(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or(String::new(), |time| {
        time.strftime("%F %H:%M:%SZ").to_string()
    })
}

/// As `02:51:10Z`.
pub(super) fn clock(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or(String::new(), |time| time.strftime("%H:%M:%SZ").to_string())
}

/// Nothing below zero, nothing that is no number, and nothing beyond what fits.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` does exactly what is said above"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_two_units() {
        let told = [0.4, 59.0, 61.0, 3700.0, 90_000.0, -5.0, f64::NAN].map(age);
        let expected = [
            "0 s",
            "59 s",
            "1 min 1 s",
            "1 h 1 min",
            "1 d 1 h",
            "0 s",
            "0 s",
        ];
        assert_eq!(told, expected);
        let told = [5.0, 61.0, 3700.0, 90_000.0, 1e9].map(short_age);
        assert_eq!(told, ["5s", "1m01s", "1h01m", "1d01h", "31y"]);
    }

    #[test]
    fn counts_are_grouped_or_scaled() {
        let told = [0.0, 999.0, 1_204.0, 1e9, f64::INFINITY].map(count);
        let huge = "18,446,744,073,709,551,615";
        assert_eq!(told, ["0", "999", "1,204", "1,000,000,000", huge]);
        let told = [9_999.0, 12_345.0, 99_990.0, 123_456.0, 999_600.0, 1e9, 1e18].map(short_count);
        assert_eq!(
            told,
            ["9,999", "12.3k", "100k", "123k", "1.0M", "1.0G", "many"]
        );
        let told = [0.0, 0.001, 0.25, 12.44, 1_204.0, f64::NAN].map(rate);
        assert_eq!(told, ["0", "0", "0.25", "12.4", "1,204", "0"]);
    }

    #[test]
    fn no_column_is_wider_than_it_may_be() {
        let mut value = 1e-3;
        while value < 1e30 {
            for near in [value * 0.999_999, value, value * 1.000_001] {
                let (age, count, rate) = (short_age(near), short_count(near), rate(near));
                assert!(age.len() <= 7, "{age}");
                assert!(count.len() <= 6 && rate.len() <= 6, "{count} {rate}");
            }
            value *= 1.07;
        }
    }
}
