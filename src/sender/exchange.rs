//! Requests that are no deliveries: a token that is fetched, a partner who is asked whether it wants anything.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;

use super::fault::Fault;
use super::link::Link;
use super::progress::{Answered, Clock, Progress};
use super::snippet::snippet;
use super::{Endpoint, Inner, Reading, advice, read};
use crate::delivery::Report;

/// What came back. `Debug` shows neither headers nor body: a token may be among them.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers, within the sender's bounds.
    pub headers: HeaderMap,
    /// The whole body; none where it broke off, came too late or is longer than 64 KiB: half of it may mean something else.
    pub body: Option<Bytes>,
}

impl Answer {
    /// The start of the body as a report would show it, at most `max` bytes, for those answers that may be recorded.
    pub fn snippet(&self, max: usize) -> Option<String> {
        snippet(self.body.as_deref()?, max)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("body_bytes", &self.body.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Sends one request of any method but CONNECT, under the rules of [`post`](Self::post), and gives what came back, if a
    /// whole response head did. No piece of the body is ever in the report.
    pub async fn exchange(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> (Report, Option<Answer>) {
        let started = Instant::now();
        let clock = Clock::start(started, timeout);
        let mut progress = Progress::default();
        let met = self
            .inner
            .ask(&method, headers, body, clock, &mut progress)
            .await;
        let duration = started.elapsed();
        match met {
            Err(fault) => (progress.failed(fault, duration), None),
            Ok((answered, answer, reusable)) => {
                self.inner.keep(reusable).await;
                (progress.answered(answered, duration), Some(answer))
            }
        }
    }
}

impl Inner {
    async fn ask(
        &self,
        method: &Method,
        headers: HeaderMap,
        body: Bytes,
        clock: Clock,
        progress: &mut Progress,
    ) -> Result<(Answered, Answer, Option<Link>), Fault> {
        if method == Method::CONNECT {
            return Err(Fault::no_request("the method CONNECT is never sent"));
        }
        let (link, response) = self
            .head(method, headers, body, WHOLE.limit, clock, progress)
            .await?;
        let (head, body) = response.into_parts();
        let (bytes, whole) = read(body, WHOLE, clock, progress).await;
        let answered = Answered {
            status: head.status,
            advice: advice::advice(&head.headers, std::time::SystemTime::now()),
            snippet: None,
        };
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body: whole.then(|| Bytes::from(bytes)),
        };
        Ok((answered, answer, whole.then_some(link)))
    }
}

const MAX_BODY: usize = 64 * 1024;
const WHOLE: Reading = Reading {
    limit: MAX_BODY,
    keep: MAX_BODY,
};
