//! One attempt, from the lease to what is to be recorded. No transaction is open meanwhile.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, Denied};
use crate::delivery::{
    Advice, Attempt, Lease, Outcome, Phases, Preparation, Report, Rule, Ruling, Verdict,
};
use crate::directory::Terms;
use crate::masks::{Seen, Unseen};
use crate::request::{Event, Misfit, Occasion};
use crate::sender::Endpoint;
use crate::signature::Unsigned;
use crate::spans::{Begun, Spans, Told};

/// What an attempt takes from the world outside: the clock, chance, and how much patience is left.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'w> {
    /// Unix seconds, for `webhook-timestamp`.
    pub timestamp: i64,
    /// A random number in 0..1, for jitter.
    pub chance: f64,
    /// From name resolution to the last byte.
    pub timeout: Duration,
    /// Cancelled when the worker can wait no longer.
    pub cut: &'w CancellationToken,
    /// Where the attempt's span goes.
    pub spans: &'w Spans,
}

/// What came of a lease.
#[derive(Debug)]
pub enum Made {
    /// The attempt that it allowed.
    Attempt(Box<Attempt>),
    /// None: it may not begin yet, through nobody's fault. The lease can be given back.
    NotYet(Box<Lease>),
}

/// Makes the attempt that `lease` allows, of what was said to be `seen` of its event under these terms.
pub async fn make(
    lease: Lease,
    seen: Result<Seen, Unseen>,
    terms: &Terms,
    circumstances: Circumstances<'_>,
) -> Made {
    let began = Instant::now();
    let left = lease.expires.map(|at| at.saturating_duration_since(began));
    let chance = circumstances.chance;
    let mut preparations = Vec::new();
    let span = circumstances
        .spans
        .begin(lease.key.event_id, lease.traceparent.as_deref());
    let occasion = (circumstances.timestamp, span.as_ref());
    let (report, signed_with) = match prepare(&lease, seen.as_ref(), terms, occasion, began) {
        Err(refusal) => (Err(refusal), Vec::new()),
        Ok(request) if terms.sandbox => (Ok(sandboxed(began.elapsed())), request.signed_with),
        Ok(mut request) => {
            let signed_with = std::mem::take(&mut request.signed_with);
            match send(request, &circumstances, &mut preparations).await {
                Ok(report) => (Ok(report), signed_with),
                Err(Denied::NotYet) => return Made::NotYet(Box::new(lease)),
                Err(Denied::Refused { why, wait }) => (Err(Refusal::Kept(why, wait)), Vec::new()),
            }
        }
    };
    let (report, ruling) = match report {
        Err(Refusal::ForGood(why)) => (blocked(why), UNSENDABLE),
        Err(Refusal::ForNow(why)) => {
            let report = blocked(why);
            let ruling = terms.retry.judge(&report, lease.number, left, chance);
            (report, ruling)
        }
        Err(Refusal::Kept(why, wait)) => {
            let report = blocked(why);
            let ruling = terms.retry.judge(&report, lease.number, left, chance);
            let hold = Some(wait).filter(|wait| !wait.is_zero());
            (report, Ruling { hold, ..ruling })
        }
        Ok(report) => {
            let ruling = terms.retry.judge(&report, lease.number, left, chance);
            (report, ruling)
        }
    };
    let signed_with = if report.outcome == Outcome::Blocked {
        Vec::new()
    } else {
        signed_with
    };
    let ruling = ruling.of(lease.key);
    let told = Told {
        lease: &lease,
        terms,
        report: &report,
        ruling: &ruling,
    };
    circumstances.spans.end(span, told);
    Made::Attempt(Box::new(Attempt {
        key: lease.key,
        number: lease.number,
        ordering_key: lease.ordering_key,
        holder: lease.holder,
        address: lease.address,
        worker_id: lease.holder,
        revision: terms.revision,
        began,
        report,
        ruling,
        owed_from: Some(lease.owed_from),
        expires: lease.expires,
        signed_with,
        bytes: lease.bytes,
        preparations,
    }))
}

/// Is let in, and sends. An error where we are not let in: then nothing was sent.
async fn send(
    request: Request<'_>,
    circumstances: &Circumstances<'_>,
    preparations: &mut Vec<Preparation>,
) -> Result<Report, Denied> {
    let Request {
        endpoint,
        access,
        mut headers,
        body,
        ..
    } = request;
    let mut left = circumstances.timeout;
    let cut = || abandoned("the worker stopped before the answer came");
    if access.is_needed() {
        let begun = Instant::now();
        // Whoever lets us in does not use up the time of whom we send to: that would count as its fault.
        let patience = circumstances.timeout / 2;
        // Rare and large: on the heap, so that every other attempt's task is small.
        let obtained = Box::pin(access.obtain(endpoint, &mut headers, patience, preparations));
        tokio::select! {
            obtained = obtained => obtained?,
            () = circumstances.cut.cancelled() => return Ok(cut()),
        }
        left = left.saturating_sub(begun.elapsed());
    }
    let shown = headers.get(AUTHORIZATION).cloned();
    let report = tokio::select! {
        // All attempts contend for the token: it is not asked where the answer is there.
        biased;
        report = endpoint.post(headers, body, left) => report,
        () = circumstances.cut.cancelled() => cut(),
    };
    if report.http_status == Some(401) {
        access.was_refused(shown.as_ref());
    }
    Ok(report)
}

/// The attempt that was not made because it must not be, now or ever.
pub fn refused(lease: &Lease, terms: &Terms, why: String) -> Attempt {
    Attempt {
        key: lease.key,
        number: lease.number,
        holder: lease.holder,
        address: lease.address,
        worker_id: lease.holder,
        revision: terms.revision,
        began: Instant::now(),
        report: blocked(why),
        ruling: UNSENDABLE,
        owed_from: Some(lease.owed_from),
        expires: lease.expires,
        ordering_key: lease.ordering_key.clone(),
        signed_with: Vec::new(),
        bytes: lease.bytes,
        preparations: Vec::new(),
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
    access: &'t Access,
    headers: HeaderMap,
    body: Bytes,
    signed_with: Vec<i16>,
}

/// Why nothing was sent.
enum Refusal {
    /// Another attempt may fare better.
    ForNow(String),
    /// It would not, for so long.
    Kept(String, Duration),
    /// It never will.
    ForGood(String),
}

/// Renders the body, signs it, and names the headers.
fn prepare<'t>(
    lease: &Lease,
    seen: Result<&Seen, &Unseen>,
    terms: &'t Terms,
    (timestamp, span): (i64, Option<&Begun>),
    now: Instant,
) -> Result<Request<'t>, Refusal> {
    let payload = lease
        .payload
        .as_deref()
        .ok_or_else(|| without_payload(lease))?;
    let endpoint = at_hand(&terms.endpoint)?;
    let access = at_hand(&terms.access)?;
    let shape = at_hand(&terms.shape)?;
    let context = lease.context.as_deref();
    let (data, metadata) = match seen.map_err(unseen)? {
        Seen::Everything => {
            let metadata = context.and_then(|context| context.metadata.as_deref());
            (payload, metadata)
        }
        Seen::Left { data, metadata } => (data.as_str(), metadata.as_deref()),
    };
    // The partner's spans belong under that of the request which caused them.
    let own = span.map(Begun::traceparent);
    let event = Event {
        key: lease.key,
        subscription: &terms.name,
        event_type: &lease.event_type,
        occurred_at: lease.occurred_at,
        data,
        metadata,
        tenant: context.and_then(|context| context.tenant.as_deref()),
        traceparent: own.as_deref().or(lease.traceparent.as_deref()),
    };
    let left = if lease.key.is_test() {
        0
    } else {
        terms.retry.left_after(lease.number)
    };
    let occasion = Occasion {
        timestamp,
        number: lease.number,
        left,
    };
    let (signed_with, secrets) = terms.live_secrets(now).map_err(Refusal::ForNow)?;
    let (headers, body) = shape
        .compose(&event, &secrets, &occasion)
        .map_err(|refused| misfit(&refused))?;
    Ok(Request {
        endpoint,
        access,
        headers,
        body,
        signed_with,
    })
}

/// What is not there now may be there at the next attempt.
fn at_hand<T>(part: &Result<T, String>) -> Result<&T, Refusal> {
    part.as_ref().map_err(|why| Refusal::ForNow(why.clone()))
}

fn unseen(unseen: &Unseen) -> Refusal {
    match unseen {
        Unseen::Held(why) | Unseen::NotNow(why) => Refusal::ForNow(why.clone()),
        Unseen::Never(why) => Refusal::ForGood(why.clone()),
    }
}

fn misfit(misfit: &Misfit) -> Refusal {
    match misfit {
        // A secret can be imported.
        Misfit::Unsigned(Unsigned::NoSecret(_)) => Refusal::ForNow(misfit.to_string()),
        Misfit::Unsigned(Unsigned::Unfit(_)) | Misfit::Header(_) => {
            Refusal::ForGood(misfit.to_string())
        }
    }
}

fn without_payload(lease: &Lease) -> Refusal {
    match lease.bytes {
        0 => Refusal::ForNow("the event is not in the outbox".to_owned()),
        bytes => Refusal::ForGood(format!("the payload of {bytes} bytes is over max_body")),
    }
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
