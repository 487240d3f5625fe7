//! One attempt, from the lease to what is to be recorded. No transaction is open meanwhile.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio_util::sync::CancellationToken;

use crate::delivery::{Advice, Attempt, Lease, Outcome, Phases, Report, Rule, Ruling, Verdict};
use crate::directory::Terms;
use crate::envelope;
use crate::sender::Endpoint;
use crate::signature::{Message, Unsigned, WEBHOOK_ID, WEBHOOK_TIMESTAMP};

/// What an attempt takes from the world outside: the clock, chance, and how much patience is left.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// Unix seconds, for `webhook-timestamp`.
    pub timestamp: i64,
    /// A random number in 0..1, for jitter.
    pub chance: f64,
    /// From name resolution to the last byte.
    pub timeout: Duration,
    /// Cancelled when the worker can wait no longer.
    pub cut: CancellationToken,
}

/// Makes the attempt that `lease` allows.
pub async fn make(lease: Lease, terms: &Terms, circumstances: Circumstances) -> Attempt {
    let began = Instant::now();
    let Circumstances {
        timestamp,
        chance,
        timeout,
        cut,
    } = circumstances;
    let left = lease.expires.map(|at| at.saturating_duration_since(began));
    let (report, ruling, signed_with) = match prepare(&lease, terms, timestamp, began) {
        Err(Refusal::ForGood(why)) => (blocked(why), UNSENDABLE, Vec::new()),
        Err(Refusal::ForNow(why)) => {
            let report = blocked(why);
            let ruling = terms.retry.judge(&report, lease.number, left, chance);
            (report, ruling, Vec::new())
        }
        Ok(Request {
            endpoint,
            headers,
            body,
            signed_with,
        }) => {
            let report = if terms.sandbox {
                sandboxed(began.elapsed())
            } else {
                tokio::select! {
                    report = endpoint.post(headers, body, timeout) => report,
                    () = cut.cancelled() => abandoned("the worker stopped before the answer came"),
                }
            };
            let ruling = terms.retry.judge(&report, lease.number, left, chance);
            (report, ruling, signed_with)
        }
    };
    Attempt {
        key: lease.key,
        number: lease.number,
        ordering_key: lease.ordering_key,
        holder: lease.holder,
        worker_id: lease.holder,
        revision: terms.revision,
        began,
        report,
        ruling: ruling.of(lease.key),
        expires: lease.expires,
        signed_with,
        bytes: lease.bytes,
    }
}

/// The attempt that was not made because it must not be, now or ever.
pub fn refused(lease: &Lease, terms: &Terms, why: String) -> Attempt {
    Attempt {
        key: lease.key,
        number: lease.number,
        holder: lease.holder,
        worker_id: lease.holder,
        revision: terms.revision,
        began: Instant::now(),
        report: blocked(why),
        ruling: UNSENDABLE,
        expires: lease.expires,
        ordering_key: lease.ordering_key.clone(),
        signed_with: Vec::new(),
        bytes: lease.bytes,
    }
}

/// The report of an attempt whose result nobody will ever know.
pub fn abandoned(why: &str) -> Report {
    Report {
        error: Some(why.to_owned()),
        ..nothing(Outcome::Abandoned)
    }
}

struct Request<'t> {
    endpoint: &'t Endpoint,
    headers: HeaderMap,
    body: Bytes,
    signed_with: Vec<i16>,
}

/// Why nothing was sent.
enum Refusal {
    /// Another attempt may fare better.
    ForNow(String),
    /// It never will.
    ForGood(String),
}

/// Renders the body, signs it, and names the headers.
fn prepare<'t>(
    lease: &Lease,
    terms: &'t Terms,
    timestamp: i64,
    now: Instant,
) -> Result<Request<'t>, Refusal> {
    let payload = lease
        .payload
        .as_deref()
        .ok_or_else(|| without_payload(lease))?;
    let endpoint = terms
        .endpoint
        .as_ref()
        .map_err(|why| Refusal::ForNow(why.clone()))?;
    let (signed_with, secrets) = terms.live_secrets(now).map_err(Refusal::ForNow)?;
    let is_test = lease.key.is_test();
    let render = if is_test {
        envelope::test
    } else {
        envelope::standard
    };
    let body = render(&lease.event_type, lease.occurred_at, payload);
    let id = lease.key.event_id.to_string();
    let message = Message {
        id: &id,
        timestamp,
        body: &body,
        event_type: &lease.event_type,
    };
    let signatures = terms.signer.sign(&secrets, &message).map_err(unsigned)?;
    let extra = terms
        .headers
        .as_ref()
        .map_err(|why| Refusal::ForNow(why.clone()))?;
    let left = if is_test {
        0
    } else {
        terms.retry.left_after(lease.number)
    };
    let numbers = (lease.number, left);
    let mut headers = headers(extra, &id, timestamp, signatures, numbers)
        .map_err(|error| Refusal::ForGood(format!("a header cannot be sent: {error}")))?;
    if is_test {
        headers.insert(WEBHOOK_TEST, HeaderValue::from_static("true"));
    }
    Ok(Request {
        endpoint,
        headers,
        body,
        signed_with,
    })
}

/// Marks a test.
const WEBHOOK_TEST: HeaderName = HeaderName::from_static("webhook-test");

fn without_payload(lease: &Lease) -> Refusal {
    match lease.bytes {
        0 => Refusal::ForNow("the event is not in the outbox".to_owned()),
        bytes => Refusal::ForGood(format!("the payload of {bytes} bytes is over max_body")),
    }
}

fn unsigned(why: Unsigned) -> Refusal {
    match why {
        Unsigned::NoSecret(_) => Refusal::ForNow(why.to_string()),
        Unsigned::Unfit(_) => Refusal::ForGood(why.to_string()),
    }
}

/// Ours come last: none of the subscription's own can take their place.
fn headers(
    extra: &[(HeaderName, HeaderValue)],
    id: &str,
    timestamp: i64,
    signatures: Vec<(HeaderName, HeaderValue)>,
    (number, left): (i16, i16),
) -> Result<HeaderMap, http::Error> {
    let mut headers = HeaderMap::with_capacity(10 + extra.len());
    headers.extend(extra.iter().cloned());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        HeaderName::from_static(WEBHOOK_ID),
        HeaderValue::from_str(id)?,
    );
    headers.insert(
        HeaderName::from_static(WEBHOOK_TIMESTAMP),
        HeaderValue::from(timestamp),
    );
    for (name, value) in signatures {
        headers.insert(name, value);
    }
    headers.insert(WEBHOOK_ATTEMPT, HeaderValue::from(number));
    headers.insert(WEBHOOK_ATTEMPTS_LEFT, HeaderValue::from(left));
    Ok(headers)
}

fn blocked(why: String) -> Report {
    Report {
        error: Some(why),
        ..nothing(Outcome::Blocked)
    }
}

fn sandboxed(duration: Duration) -> Report {
    Report {
        duration,
        ..nothing(Outcome::Sandboxed)
    }
}

fn nothing(outcome: Outcome) -> Report {
    Report {
        outcome,
        http_status: None,
        error: None,
        snippet: None,
        advice: Advice::default(),
        remote: None,
        duration: Duration::ZERO,
        phases: Phases::default(),
    }
}

const UNSENDABLE: Ruling = Ruling {
    verdict: Verdict::Rejected,
    rule: Some(Rule::Unsendable),
    hold: None,
};

/// Which attempt this is, from 1.
const WEBHOOK_ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");
/// How many may follow if this one fails.
const WEBHOOK_ATTEMPTS_LEFT: HeaderName = HeaderName::from_static("webhook-attempts-left");
