//! The words for what happens to one delivery. Each is the same in the database, in a metric's label and in the code.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use crate::mask::Id;

/// Which delivery: one event, one subscription, and how many times a person has asked for it again (0: never).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryKey {
    /// The event, as partners see it in `webhook-id`.
    pub event_id: Uuid,
    /// The subscription that it goes to.
    pub subscription_id: i32,
    /// 0 for the delivery that the event itself caused, 1 and up for replays, -1 for a test.
    pub replay: i16,
}

impl DeliveryKey {
    /// Whether somebody only wants to see what the endpoint answers.
    pub fn is_test(self) -> bool {
        self.replay < 0
    }
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
    /// Not sent: the subscription is in its sandbox.
    Sandboxed,
    /// A worker died, or lost its lease, between claiming and recording; whether the request was sent is not known.
    Abandoned,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Rejected,
        Self::TimedOut,
        Self::Unreachable,
        Self::Blocked,
        Self::Sandboxed,
        Self::Abandoned,
    ];

    /// Whether the endpoint is to blame: it refused, was too slow, or not there.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Rejected | Self::TimedOut | Self::Unreachable)
    }

    /// The word for it in the database and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Blocked => "blocked",
            Self::Sandboxed => "sandboxed",
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
    /// The next attempt would come too late.
    Expired,
}

impl Verdict {
    /// The word for it in the database and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry(_) => "retry",
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }
}

/// Which rule leads from what an attempt met to its verdict; `posthaste.rule` in the schema says more of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The next interval of the retry policy.
    Interval,
    /// The receiver's `Retry-After`, which lies beyond that interval.
    RetryAfter,
    /// The retry policy has no interval left.
    NoRetriesLeft,
    /// A 4xx status, which is final by the subscription's terms.
    ClientError,
    /// 410.
    Gone,
    /// `webhook-delivery: disable`.
    Disable,
    /// `webhook-delivery: abort-message`.
    AbortMessage,
    /// The event is not to be sent any more when the next attempt would be due.
    ExpiresBefore,
    /// No attempt could ever send it.
    Unsendable,
    /// Nothing leaves the sandbox.
    Sandbox,
    /// Through no fault of the receiver: at once.
    WorkerLost,
}

impl Rule {
    /// The word for it in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::RetryAfter => "retry_after",
            Self::NoRetriesLeft => "no_retries_left",
            Self::ClientError => "client_error",
            Self::Gone => "gone",
            Self::Disable => "disable",
            Self::AbortMessage => "abort_message",
            Self::ExpiresBefore => "expires_before",
            Self::Unsendable => "unsendable",
            Self::Sandbox => "sandbox",
            Self::WorkerLost => "worker_lost",
        }
    }

    /// Whether the receiver wants nothing more at all, so that its subscription is to be paused.
    pub fn pauses(self) -> bool {
        matches!(self, Self::Gone | Self::Disable)
    }
}

/// What an attempt meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// For its delivery.
    pub verdict: Verdict,
    /// Which rule says so; none where it was accepted and nothing else applied.
    pub rule: Option<Rule>,
    /// For the endpoint: for how long it asked that nothing be sent to it.
    pub hold: Option<Duration>,
}

impl Ruling {
    /// What it means for this delivery: a test is sent once, and its answer is what was asked for.
    #[must_use]
    pub fn of(self, key: DeliveryKey) -> Self {
        match self.verdict {
            Verdict::Retry(_) if key.is_test() => Self {
                verdict: Verdict::Exhausted,
                rule: Some(Rule::NoRetriesLeft),
                hold: self.hold,
            },
            _ => self,
        }
    }
}

/// What a response's headers ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// `Retry-After`: how long to stay away, counted from the response.
    pub retry_after: Option<Duration>,
    /// `webhook-delivery`.
    pub wish: Option<Wish>,
}

/// What a receiver can answer in `webhook-delivery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `disable`: send nothing more.
    Disable,
    /// `abort-message`: do not send this one again.
    AbortMessage,
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
    /// What the response's headers ask for.
    pub advice: Advice,
    /// The address that was connected to, or refused.
    pub remote: Option<IpAddr>,
    /// From the start of name resolution (or of sending, on a pooled connection) to the end.
    pub duration: Duration,
    /// Its parts.
    pub phases: Phases,
}

/// Where a row was when it was written, so that it is found without an index: Postgres' `ctid`. A hint, never an identity: the row may
/// have moved, and another may stand there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Which page of its table, from 0.
    pub page: u32,
    /// Which row on that page, from 1; 0 is nowhere.
    pub row: u16,
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
    /// Where the database keeps it.
    pub address: Address,
    /// The revision of the subscription that stood when it was claimed.
    pub revision: i32,
    /// The revision of the event type whose schema the payload must keep; `None` where there is no schema, or where it was
    /// released from quarantine.
    pub schema_revision: Option<i32>,
    /// Whether a person released it from quarantine: it is not held again.
    pub is_released: bool,
    /// The event's type.
    pub event_type: String,
    /// When the event happened.
    pub occurred_at: SystemTime,
    /// The event's data as inserted; `None` where it is longer than this worker sends.
    pub payload: Option<String>,
    /// The producer's W3C trace context, if the event has one.
    pub traceparent: Option<Box<str>>,
    /// The event's metadata and its tenant; not read where the subscription's requests have no place for them.
    pub context: Option<Box<Context>>,
    /// How long data and metadata are, in bytes.
    pub bytes: usize,
    /// Since when it is owed: when the event was inserted, or its `deliver_after` where that is later; in seconds since 1970, by the
    /// database's clock.
    pub owed_from: f64,
    /// When the lease ends by our clock, counted from before it was asked for: never later than by
    /// the database's.
    pub ends: Instant,
    /// When the event is not to be sent any more, by our clock; `None` for never.
    pub expires: Option<Instant>,
}

#[cfg(test)]
impl Lease {
    /// One that was just got, for tests.
    pub(crate) fn fresh(subscription_id: i32, revision: i32) -> Self {
        Self {
            key: DeliveryKey {
                event_id: Uuid::nil(),
                subscription_id,
                replay: 0,
            },
            number: 1,
            ordering_key: None,
            holder: 1,
            address: Address::default(),
            revision,
            schema_revision: None,
            is_released: false,
            event_type: String::new(),
            occurred_at: SystemTime::UNIX_EPOCH,
            payload: Some("1".to_owned()),
            traceparent: None,
            context: None,
            bytes: 1,
            owed_from: 0.0,
            ends: Instant::now() + Duration::from_mins(1),
            expires: None,
        }
    }
}

/// What an event says besides its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// A JSON object, as it was inserted.
    pub metadata: Option<String>,
    /// Whose event it is.
    pub tenant: Option<String>,
}

/// A request that was made to be able to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparation {
    /// What for.
    pub kind: Purpose,
    /// Where to, without its query.
    pub url: String,
    /// What it met. Never with a snippet of the answer, which may be a token.
    pub report: Report,
    /// What the receiver granted, if it did.
    pub grant: Option<Grant>,
}

/// What a preparation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be allowed to send.
    Handshake,
    /// To get an access token.
    Token,
}

impl Purpose {
    /// The word for it in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Token => "token",
        }
    }
}

/// What a receiver allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// To which URL, as its subscription has it.
    pub url: String,
    /// Under which name of ours.
    pub origin: String,
    /// Requests a minute; `None` for any number.
    pub rate: Option<i32>,
}

/// What a partner calls our things.
pub type ExternalIds = HashMap<Id, String>;

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
    /// Where the database keeps the lease.
    pub address: Address,
    /// Who made the request.
    pub worker_id: i32,
    /// The revision of the subscription that it was made under.
    pub revision: i32,
    /// When it began, by our clock.
    pub began: Instant,
    /// What came of it.
    pub report: Report,
    /// What that means.
    pub ruling: Ruling,
    /// Since when the delivery is owed, as its lease has it; not known of a lease that was taken over.
    pub owed_from: Option<f64>,
    /// When the event is not to be sent any more, by our clock; `None` for never.
    pub expires: Option<Instant>,
    /// The numbers of the secrets that signed it; empty where nothing was signed.
    pub signed_with: Vec<i16>,
    /// How much of the worker's room its lease took, in bytes.
    pub bytes: usize,
    /// What it took to be let in, as far as that took requests.
    pub preparations: Vec<Preparation>,
}
