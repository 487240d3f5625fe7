//! What one request looks like: from an event and its subscription's terms to headers and a body.

use std::fmt::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

use crate::delivery::DeliveryKey;
use crate::envelope::{Envelope, Facts};
use crate::secret::SigningSecret;
use crate::signature::{Message, Signer, Unsigned, WEBHOOK_ID, WEBHOOK_TIMESTAMP};

/// The shape of a subscription's requests, ready to use.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The body around the data, and headers that tell of the event.
    pub envelope: Envelope,
    /// How it is signed.
    pub signer: Signer,
    /// The platform's own names for what it is, and for which delivery.
    pub platform: Option<PlatformNames>,
    /// Whether the envelope has a place for the delivery's id.
    pub tells_delivery: bool,
    /// In place of the sender's own.
    pub user_agent: Option<HeaderValue>,
    /// Whether the event's trace context goes along.
    pub pass_trace: bool,
    /// Further headers.
    pub extra: Vec<(HeaderName, HeaderValue)>,
}

/// Names of headers that begin with a platform's prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformNames {
    event: HeaderName,
    delivery: HeaderName,
    timestamp: HeaderName,
}

impl PlatformNames {
    /// `<prefix>-Event`, `-Delivery` and `-Timestamp`; `None` where that makes no header's name.
    pub fn new(prefix: &str) -> Option<Self> {
        let name = |what: &str| HeaderName::try_from(format!("{prefix}-{what}")).ok();
        Some(Self {
            event: name("Event")?,
            delivery: name("Delivery")?,
            timestamp: name("Timestamp")?,
        })
    }

    /// All of them.
    pub fn names(&self) -> [&HeaderName; 3] {
        [&self.event, &self.delivery, &self.timestamp]
    }
}

/// An event on its way to a subscription, with what may be seen of it.
#[derive(Clone, Copy)]
pub struct Event<'e> {
    /// Of which event, to which subscription.
    pub key: DeliveryKey,
    /// The subscription's name.
    pub subscription: &'e str,
    /// The event's type.
    pub event_type: &'e str,
    /// When it happened.
    pub occurred_at: SystemTime,
    /// Its data, JSON text.
    pub data: &'e str,
    /// Its metadata, JSON text.
    pub metadata: Option<&'e str>,
    /// Whose it is.
    pub tenant: Option<&'e str>,
    /// Its trace context.
    pub traceparent: Option<&'e str>,
}

/// What is different in each attempt.
#[derive(Clone, Copy, Debug)]
pub struct Occasion {
    /// When it is signed, in Unix seconds.
    pub timestamp: i64,
    /// Which attempt it is, from 1.
    pub number: i16,
    /// How many may follow.
    pub left: i16,
}

/// Why a request cannot be composed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It could not be signed.
    #[error("{0}")]
    Unsigned(#[from] Unsigned),
    /// A header could not be written.
    #[error("a header cannot be sent: {0}")]
    Header(String),
}

impl Shape {
    /// Headers and body. `secrets` are the live ones, oldest first. The body is the same on every occasion.
    pub fn compose(
        &self,
        event: &Event<'_>,
        secrets: &[SigningSecret],
        occasion: &Occasion,
    ) -> Result<(HeaderMap, Bytes), Misfit> {
        let mut delivery_id = String::new();
        if self.platform.is_some() || self.tells_delivery {
            let _ = write!(delivery_id, "{}", delivery_id_of(event.key));
        }
        let is_test = event.key.is_test();
        let facts = Facts {
            event_id: event.key.event_id,
            delivery_id: &delivery_id,
            event_type: event.event_type,
            occurred_at: event.occurred_at,
            data: event.data,
            metadata: event.metadata,
            tenant: event.tenant,
            subscription: event.subscription,
            is_test,
        };
        let body = self.envelope.body(&facts);
        let id = event.key.event_id.to_string();
        let message = Message {
            id: &id,
            timestamp: occasion.timestamp,
            body: &body,
            event_type: event.event_type,
        };
        let signatures = self.signer.sign(secrets, &message)?;
        let value = |text: &str| HeaderValue::from_str(text).map_err(unfit);
        let mut headers = HeaderMap::with_capacity(12 + self.extra.len());
        headers.extend(self.extra.iter().cloned());
        if let Some(user_agent) = &self.user_agent {
            headers.insert(USER_AGENT, user_agent.clone());
        }
        for header in self.envelope.headers(&facts) {
            let (name, text) = header.map_err(unfit)?;
            headers.insert(name, text);
        }
        if let Some(names) = &self.platform {
            headers.insert(&names.event, value(event.event_type)?);
            headers.insert(&names.delivery, value(&delivery_id)?);
            headers.insert(&names.timestamp, HeaderValue::from(occasion.timestamp));
        }
        if let Some(trace) = event.traceparent.filter(|_| self.pass_trace) {
            headers.insert(TRACEPARENT, value(trace)?);
        }
        // Ours come last: none of the others can take their place.
        headers.insert(HeaderName::from_static(WEBHOOK_ID), value(&id)?);
        headers.insert(
            HeaderName::from_static(WEBHOOK_TIMESTAMP),
            HeaderValue::from(occasion.timestamp),
        );
        headers.extend(signatures);
        headers.insert(WEBHOOK_ATTEMPT, HeaderValue::from(occasion.number));
        headers.insert(WEBHOOK_ATTEMPTS_LEFT, HeaderValue::from(occasion.left));
        if is_test {
            headers.insert(WEBHOOK_TEST, HeaderValue::from_static("true"));
        }
        Ok((headers, body))
    }
}

/// What partners may know of a delivery: the same on every attempt, another one for each replay, and nothing of how many
/// subscriptions there are. `posthaste.delivery_id` makes the same.
pub fn delivery_id_of(key: DeliveryKey) -> Uuid {
    let digest = Sha256::new()
        .chain_update(key.event_id.as_bytes())
        .chain_update(key.subscription_id.to_be_bytes())
        .chain_update(key.replay.to_be_bytes())
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

fn unfit(error: impl std::fmt::Display) -> Misfit {
    Misfit::Header(error.to_string())
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Which attempt this is, from 1.
const WEBHOOK_ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");
/// How many may follow if this one fails.
const WEBHOOK_ATTEMPTS_LEFT: HeaderName = HeaderName::from_static("webhook-attempts-left");
/// Marks a test.
const WEBHOOK_TEST: HeaderName = HeaderName::from_static("webhook-test");
