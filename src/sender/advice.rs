//! What a response's headers ask of us.

use std::time::{Duration, SystemTime};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::delivery::{Advice, Wish};

/// Reads the headers of a response that arrived at `now`. What does not follow the rules asks for nothing.
pub(super) fn advice(headers: &HeaderMap, now: SystemTime) -> Advice {
    Advice {
        retry_after: headers
            .get(RETRY_AFTER)
            .and_then(|value| retry_after(value, headers.get(DATE), now)),
        wish: headers.get(WEBHOOK_DELIVERY).and_then(wish),
    }
}

/// Seconds, or a date of RFC 9110: that is measured from the response's own date where it has one, so that the peer's clock need not
/// agree with ours.
fn retry_after(
    value: &HeaderValue,
    date: Option<&HeaderValue>,
    now: SystemTime,
) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(
            text.parse().unwrap_or(u64::from(u32::MAX)),
        ));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let sent = date
        .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?.trim()).ok())
        .unwrap_or(now);
    Some(until.duration_since(sent).unwrap_or_default())
}

fn wish(value: &HeaderValue) -> Option<Wish> {
    match value.to_str().ok()?.trim() {
        "disable" => Some(Wish::Disable),
        "abort-message" => Some(Wish::AbortMessage),
        _ => None,
    }
}

const WEBHOOK_DELIVERY: HeaderName = HeaderName::from_static("webhook-delivery");

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn asked(pairs: &[(&'static str, &'static str)]) -> Advice {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        advice(&pairs.collect(), now)
    }

    #[test]
    fn seconds_and_dates_are_read() {
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::from(u32::MAX))),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
            ("Sun Nov  6 08:49:47 1994", Some(10)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("1 minute", None),
            ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ] {
            let expected = seconds.map(|seconds| seconds * SECOND.as_secs());
            let read = asked(&[("retry-after", value)]).retry_after;
            assert_eq!(read.map(|wait| wait.as_secs()), expected, "{value:?}");
        }
    }

    #[test]
    fn a_date_counts_from_the_date_of_the_response() {
        let clock_ahead = [
            ("date", "Sun, 06 Nov 1994 10:00:00 GMT"),
            ("retry-after", "Sun, 06 Nov 1994 10:00:05 GMT"),
        ];
        assert_eq!(asked(&clock_ahead).retry_after, Some(5 * SECOND));
    }

    #[test]
    fn wishes_are_read_and_nothing_else_is_one() {
        for (value, wish) in [
            ("disable", Some(Wish::Disable)),
            (" abort-message ", Some(Wish::AbortMessage)),
            ("Disable", None),
            ("disable, abort-message", None),
            ("", None),
        ] {
            assert_eq!(
                asked(&[("webhook-delivery", value)]).wish,
                wish,
                "{value:?}"
            );
        }
    }
}
