//! What is known of an attempt while it lasts, and how it becomes a report.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::fault::Fault;
use crate::delivery::{Advice, Outcome, Phases, Report};

/// What a peer answered to a delivery.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) advice: Advice,
    pub(super) snippet: Option<String>,
}

/// The attempt's deadline, and for error texts, how long that was.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) deadline: Instant,
    pub(super) timeout: Duration,
}

impl Clock {
    pub(super) fn start(now: Instant, timeout: Duration) -> Self {
        let timeout = timeout.min(MAX_TIMEOUT);
        Self {
            deadline: now + timeout,
            timeout,
        }
    }

    /// The same, or an earlier deadline.
    pub(super) fn within(self, timeout: Duration) -> Self {
        let earlier = Self::start(Instant::now(), timeout);
        if earlier.deadline < self.deadline {
            earlier
        } else {
            self
        }
    }

    /// The same, with this deadline.
    pub(super) fn until(self, deadline: Instant) -> Self {
        Self { deadline, ..self }
    }

    /// The end of the first of `parts` equal parts of what is left.
    pub(super) fn share(self, parts: usize) -> Instant {
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        now + left / u32::try_from(parts.max(1)).unwrap_or(u32::MAX)
    }
}

/// What is known of an attempt while it lasts.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) phases: Phases,
    pub(super) remote: Option<IpAddr>,
}

impl Progress {
    pub(super) fn failed(self, fault: Fault, duration: Duration) -> Report {
        Report {
            outcome: fault.outcome,
            http_status: None,
            error: Some(fault.error),
            snippet: None,
            advice: Advice::default(),
            remote: fault.refused.or(self.remote),
            duration,
            phases: self.phases,
        }
    }

    pub(super) fn answered(self, answer: Answered, duration: Duration) -> Report {
        let status = answer.status;
        let error = match status {
            _ if status.is_success() => None,
            _ if status.is_redirection() => Some(format!(
                "http: status {}, and redirects are never followed",
                status.as_u16()
            )),
            _ => Some(format!("http: status {}", status.as_u16())),
        };
        Report {
            outcome: if error.is_none() {
                Outcome::Accepted
            } else {
                Outcome::Rejected
            },
            http_status: Some(status.as_u16()),
            error,
            snippet: answer.snippet,
            advice: answer.advice,
            remote: self.remote,
            duration,
            phases: self.phases,
        }
    }
}

const MAX_TIMEOUT: Duration = Duration::from_hours(24);
