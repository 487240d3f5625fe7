//! A batch of attempts as record.sql takes it: an array for each column.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use crate::delivery::{Address, Attempt, Outcome, Rule, Verdict};

/// A batch of attempts, a column each, in the order of record.sql's parameters.
#[derive(Default)]
pub(super) struct Columns<'a> {
    event_id: Vec<Uuid>,
    subscription_id: Vec<i32>,
    replay: Vec<i16>,
    number: Vec<i16>,
    holder: Vec<i32>,
    worker_id: Vec<i32>,
    revision: Vec<i32>,
    age: Vec<f64>,
    retry_in: Vec<Option<f64>>,
    duration: Vec<Option<i32>>,
    dns: Vec<Option<i32>>,
    connect: Vec<Option<i32>>,
    tls: Vec<Option<i32>>,
    body: Vec<Option<i32>>,
    outcome: Vec<&'static str>,
    verdict: Vec<&'static str>,
    rule: Vec<Option<&'static str>>,
    expires: Vec<bool>,
    address: Vec<Address>,
    http_status: Vec<Option<i16>>,
    remote: Vec<Option<Text<IpAddr>>>,
    signed_with: Vec<Option<Text<Joined<'a>>>>,
    error: Vec<Option<Cow<'a, str>>>,
    response: Vec<Option<Cow<'a, str>>>,
    ordering_key: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(attempts: &'a [Attempt], now: Instant) -> Self {
        let mut columns = Self::default();
        for attempt in attempts {
            columns.push(attempt, now);
        }
        // Without a single one, the statement does without the column.
        if columns.ordering_key.iter().all(Option::is_none) {
            columns.ordering_key.clear();
        }
        columns
    }

    fn push(&mut self, attempt: &'a Attempt, now: Instant) {
        let Attempt { key, report, .. } = attempt;
        self.event_id.push(key.event_id);
        self.subscription_id.push(key.subscription_id);
        self.replay.push(key.replay);
        self.number.push(attempt.number);
        self.holder.push(attempt.holder);
        self.worker_id.push(attempt.worker_id);
        self.revision.push(attempt.revision);
        self.age
            .push(now.duration_since(attempt.began).as_secs_f64());
        self.retry_in.push(match attempt.ruling.verdict {
            Verdict::Retry(wait) => Some(wait.as_secs_f64()),
            _ => None,
        });
        self.duration
            .push((report.outcome != Outcome::Abandoned).then(|| micros(report.duration)));
        self.dns.push(report.phases.dns.map(micros));
        self.connect.push(report.phases.connect.map(micros));
        self.tls.push(report.phases.tls.map(micros));
        self.body.push(report.phases.body.map(micros));
        self.outcome.push(report.outcome.as_str());
        self.verdict.push(attempt.ruling.verdict.as_str());
        self.rule.push(attempt.ruling.rule.map(Rule::as_str));
        self.expires.push(attempt.expires.is_some());
        self.address.push(attempt.address);
        self.http_status.push(
            report
                .http_status
                .and_then(|status| i16::try_from(status).ok()),
        );
        self.remote.push(report.remote.map(Text));
        self.signed_with.push(joined(&attempt.signed_with));
        self.error
            .push(report.error.as_deref().map(|text| bounded(text, 2048)));
        self.response
            .push(report.snippet.as_deref().map(|text| bounded(text, 65_536)));
        self.ordering_key.push(attempt.ordering_key.as_deref());
    }

    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 25] {
        [
            &self.event_id,
            &self.subscription_id,
            &self.replay,
            &self.number,
            &self.holder,
            &self.worker_id,
            &self.revision,
            &self.age,
            &self.retry_in,
            &self.duration,
            &self.dns,
            &self.connect,
            &self.tls,
            &self.body,
            &self.outcome,
            &self.verdict,
            &self.http_status,
            &self.remote,
            &self.signed_with,
            &self.error,
            &self.response,
            &self.rule,
            &self.expires,
            &self.address,
            &self.ordering_key,
        ]
    }

    /// Whether any of them has an ordering key.
    pub(super) fn have_keys(&self) -> bool {
        !self.ordering_key.is_empty()
    }

    /// What tells an attempt from every other, in the order of the parameters of `recorded_already.sql`.
    pub(super) fn identity(&self) -> [&(dyn ToSql + Sync); 6] {
        [
            &self.event_id,
            &self.subscription_id,
            &self.replay,
            &self.number,
            &self.worker_id,
            &self.outcome,
        ]
    }
}

/// What a partner sent must never make an attempt unrecordable: Postgres refuses NUL, and the schema
/// refuses what is too long.
fn bounded(text: &str, limit: usize) -> Cow<'_, str> {
    let cut = text
        .char_indices()
        .nth(limit)
        .map_or(text, |(end, _)| &text[..end]);
    if cut.contains('\0') {
        Cow::Owned(cut.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(cut)
    }
}

fn micros(duration: Duration) -> i32 {
    i32::try_from(duration.as_micros()).unwrap_or(i32::MAX)
}

fn joined(numbers: &[i16]) -> Option<Text<Joined<'_>>> {
    (!numbers.is_empty()).then_some(Text(Joined(numbers)))
}

/// Numbers with commas between them.
#[derive(Debug)]
struct Joined<'a>(&'a [i16]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, number) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{number}")?;
        }
        Ok(())
    }
}

/// The text of something, written straight into the statement.
#[derive(Debug)]
struct Text<T>(T);

impl<T: fmt::Display + fmt::Debug> ToSql for Text<T> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        write!(out, "{}", self.0)?;
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        <&str as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_and_numbers_are_sent_as_the_text_that_a_string_of_them_would_be() {
        let address: IpAddr = "2001:db8::7".parse().unwrap();
        assert_eq!(sent(&Text(address)), sent(&"2001:db8::7"));
        assert_eq!(sent(&joined(&[1, -2, 30])), sent(&"1,-2,30"));
        assert_eq!(sent(&joined(&[7])), sent(&"7"));
        assert!(joined(&[]).is_none());
    }

    fn sent(value: &dyn ToSql) -> BytesMut {
        let mut out = BytesMut::new();
        value.to_sql_checked(&Type::TEXT, &mut out).unwrap();
        out
    }
}
