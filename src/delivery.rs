//! The words for what happens to one delivery. Each is the same in the database, in a metric's label and in the code.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

/// Which delivery: one event, one subscription, and how many times a person has asked for it again (0: never).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryKey {
    /// The event, as partners see it in `webhook-id`.
    pub event_id: Uuid,
    /// The subscription that it goes to.
    pub subscription_id: i32,
    /// 0 for the delivery that the event itself caused, 1 and up for replays.
    pub replay: i16,
}

/// Whose deliveries go one after the other: those of one subscription whose events have one `ordering_key`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderingKey {
    /// The subscription that they go to.
    pub subscription_id: i32,
    /// As the events have it.
    pub ordering_key: Box<str>,
}

impl OrderingKey {
    /// Smaller than any that there can be.
    pub fn before_all() -> Self {
        Self {
            subscription_id: i32::MIN,
            ordering_key: Box::default(),
        }
    }
}

/// What one attempt met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A complete response head with a 2xx status.
    Accepted,
    /// A complete response head with any other status.
    Rejected,
    /// The deadline passed before a response head was complete.
    TimedOut,
    /// No response: the name did not resolve, the connection or the TLS handshake failed, the peer hung up or spoke no HTTP.
    Unreachable,
    /// Not sent: the address, the URL or the size is one we refuse.
    Blocked,
    /// A worker died, or lost its lease, between claiming and recording; whether the request was sent is not known.
    Abandoned,
}

impl Outcome {
    /// The word for it in the database and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Blocked => "blocked",
            Self::Abandoned => "abandoned",
        }
    }
}

/// What happens to the delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Delivered; nothing more is owed.
    Done,
    /// Another attempt is owed, this long from now.
    Retry(Duration),
    /// The last attempt of the retry policy failed.
    Exhausted,
    /// Refused for good.
    Rejected,
}

impl Verdict {
    /// The word for it in the database and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry(_) => "retry",
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
        }
    }
}

/// How long phases of a request took; `None` where one did not happen (a pooled connection has no DNS, connect and TLS). What
/// they leave of the whole is the wait for the response head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Name resolution.
    pub dns: Option<Duration>,
    /// The TCP handshake.
    pub connect: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// From the response head to the end of what we read of the body; none where there was no body.
    pub body: Option<Duration>,
}

/// All that is known of one request once it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it met.
    pub outcome: Outcome,
    /// The HTTP status, where a response head arrived.
    pub http_status: Option<u16>,
    /// Why it is not `accepted`, in one line, bounded, without secrets or payload.
    pub error: Option<String>,
    /// The start of the response body: bounded, control characters escaped, no NUL.
    pub snippet: Option<String>,
    /// The address that was connected to, or refused.
    pub remote: Option<IpAddr>,
    /// From the start of name resolution (or of sending, on a pooled connection) to the end.
    pub duration: Duration,
    /// Its parts.
    pub phases: Phases,
}

/// The right to make one attempt, until it ends. `(key, number)` is its identity; `holder` must still
/// be the holder in the database when the attempt is recorded, or the attempt changes nothing.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Of which delivery.
    pub key: DeliveryKey,
    /// The attempt that it allows, from 1.
    pub number: i16,
    /// The event's ordering key, if it has one.
    pub ordering_key: Option<Box<str>>,
    /// The worker that holds it.
    pub holder: i32,
    /// The revision of the subscription that stood when it was claimed.
    pub revision: i32,
    /// The revision of the event type whose schema the payload must keep; `None` where there is no schema, or where it was
    /// released from quarantine.
    pub schema_revision: Option<i32>,
    /// The event's type.
    pub event_type: String,
    /// When the event happened.
    pub occurred_at: SystemTime,
    /// The event's data as inserted; `None` where it is longer than this worker sends.
    pub payload: Option<String>,
    /// How long the data is, in bytes.
    pub bytes: usize,
    /// When the lease ends by our clock, counted from before it was asked for: never later than by
    /// the database's.
    pub ends: Instant,
}

/// One attempt that is over and wants to be recorded.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Of which delivery.
    pub key: DeliveryKey,
    /// Which attempt of it, from 1.
    pub number: i16,
    /// The event's ordering key, if it has one.
    pub ordering_key: Option<Box<str>>,
    /// Who must hold the lease for this to count.
    pub holder: i32,
    /// Who made the request.
    pub worker_id: i32,
    /// The revision of the subscription that it was made under.
    pub revision: i32,
    /// When it began, by our clock.
    pub began: Instant,
    /// What came of it.
    pub report: Report,
    /// What that means.
    pub verdict: Verdict,
    /// The numbers of the secrets that signed it; empty where nothing was signed.
    pub signed_with: Vec<i16>,
    /// How much of the worker's room its lease took, in bytes.
    pub bytes: usize,
}
