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
    /// Whether anything tells of the event's metadata or its tenant.
    pub wants_context: bool,
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
        let mut letters = Uuid::encode_buffer();
        let id: &str = event.key.event_id.hyphenated().encode_lower(&mut letters);
        let message = Message {
            id,
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
        headers.insert(HeaderName::from_static(WEBHOOK_ID), value(id)?);
        headers.insert(
            HeaderName::from_static(WEBHOOK_TIMESTAMP),
            HeaderValue::from(occasion.timestamp),
        );
        // By `insert`: `extend` would leave another one beside ours.
        for (name, value) in signatures {
            headers.insert(name, value);
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;
    use crate::signature::Profile;

    #[test]
    fn the_plain_shape_is_standard_webhooks_and_which_attempt_it_is() {
        let (headers, body) = compose(&plain(), &event()).unwrap();
        let names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(
            sorted(names),
            [
                "content-type",
                "webhook-attempt",
                "webhook-attempts-left",
                "webhook-id",
                "webhook-signature",
                "webhook-timestamp"
            ]
        );
        assert_eq!(headers["webhook-id"], EVENT);
        assert_eq!(headers["webhook-timestamp"], "1760000000");
        assert_eq!(headers["webhook-attempt"], "2");
        assert_eq!(headers["webhook-attempts-left"], "7");
        assert_eq!(
            body,
            r#"{"type":"order.paid","timestamp":"1970-01-01T00:00:00.000000Z","data":{"n": 1.0}}"#
        );
    }

    #[test]
    fn a_platform_has_names_of_its_own() {
        let shape = Shape {
            platform: PlatformNames::new("X-Platform"),
            signer: Signer::new([Profile::StandardV1, Profile::Prefixed], Some("X-Platform"))
                .unwrap(),
            user_agent: Some(HeaderValue::from_static("Platform-Webhooks/1.0")),
            ..plain()
        };
        let (headers, _) = compose(&shape, &event()).unwrap();
        assert_eq!(headers["x-platform-event"], "order.paid");
        assert_eq!(headers["x-platform-delivery"], DELIVERY);
        assert_eq!(headers["x-platform-timestamp"], "1760000000");
        assert_eq!(headers["user-agent"], "Platform-Webhooks/1.0");
        assert!(
            headers["x-platform-signature"]
                .to_str()
                .unwrap()
                .starts_with("sha256=")
        );
        assert!(headers.contains_key("webhook-signature"));
    }

    #[test]
    fn nothing_takes_the_place_of_what_we_sign() {
        let mut shape = plain();
        for name in ["webhook-id", "webhook-signature", "webhook-attempt"] {
            let forged = HeaderValue::from_static("forged");
            shape.extra.push((HeaderName::from_static(name), forged));
        }
        let (headers, _) = compose(&shape, &event()).unwrap();
        assert!(headers.values().all(|value| value != "forged"));
    }

    #[test]
    fn the_trace_goes_along_where_that_was_agreed() {
        let traced = Event {
            traceparent: Some("00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01"),
            ..event()
        };
        let (headers, _) = compose(&plain(), &traced).unwrap();
        assert!(!headers.contains_key("traceparent"));
        let shape = Shape {
            pass_trace: true,
            ..plain()
        };
        let (headers, _) = compose(&shape, &traced).unwrap();
        assert_eq!(headers["traceparent"], traced.traceparent.unwrap());
        let (headers, _) = compose(&shape, &event()).unwrap();
        assert!(!headers.contains_key("traceparent"));
    }

    #[test]
    fn the_body_is_the_same_on_every_occasion_and_a_test_says_so_in_a_header() {
        let (_, first) = compose(&plain(), &event()).unwrap();
        let later = Occasion {
            timestamp: 1_760_009_999,
            number: 9,
            left: 0,
        };
        let (headers, second) = plain().compose(&event(), &secrets(), &later).unwrap();
        assert_eq!(first, second);
        assert!(!headers.contains_key("webhook-test"));
        let mut test = event();
        test.key.replay = -1;
        let (headers, _) = compose(&plain(), &test).unwrap();
        assert_eq!(headers.get("webhook-test").is_some(), test.key.is_test());
    }

    #[test]
    fn what_no_header_can_hold_is_an_error_and_what_was_promised_is_never_missing() {
        let shape = Shape {
            platform: PlatformNames::new("X-Platform"),
            ..plain()
        };
        let odd = Event {
            event_type: "line\nbreak",
            ..event()
        };
        assert!(matches!(compose(&shape, &odd), Err(Misfit::Header(_))));
        let unsigned = plain().compose(&event(), &[], &OCCASION);
        assert!(matches!(unsigned, Err(Misfit::Unsigned(_))));
    }

    #[test]
    fn a_delivery_id_is_the_databases_and_tells_replays_apart() {
        // select posthaste.delivery_id('01900000-0000-7000-8000-000000000001', 7, 0::smallint)
        assert_eq!(delivery_id_of(event().key).to_string(), DELIVERY);
        let mut replay = event().key;
        replay.replay = 1;
        assert_ne!(delivery_id_of(replay), delivery_id_of(event().key));
        assert!(PlatformNames::new("no name").is_none());
    }

    fn compose(shape: &Shape, event: &Event<'_>) -> Result<(HeaderMap, Bytes), Misfit> {
        shape.compose(event, &secrets(), &OCCASION)
    }

    fn plain() -> Shape {
        let shipped = crate::envelope::SHIPPED[0];
        Shape {
            envelope: shipped.compile(&BTreeMap::new()).unwrap(),
            signer: Signer::default(),
            platform: None,
            tells_delivery: false,
            wants_context: false,
            user_agent: None,
            pass_trace: false,
            extra: Vec::new(),
        }
    }

    fn event() -> Event<'static> {
        Event {
            key: DeliveryKey {
                event_id: EVENT.parse().unwrap(),
                subscription_id: 7,
                replay: 0,
            },
            subscription: "shop",
            event_type: "order.paid",
            occurred_at: SystemTime::UNIX_EPOCH,
            data: r#"{"n": 1.0}"#,
            metadata: None,
            tenant: None,
            traceparent: None,
        }
    }

    fn secrets() -> Vec<SigningSecret> {
        vec![SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()]
    }

    fn sorted(mut names: Vec<&str>) -> Vec<&str> {
        names.sort_unstable();
        names
    }

    const EVENT: &str = "01900000-0000-7000-8000-000000000001";
    const DELIVERY: &str = "7bd46c94-49cd-8aa1-86dd-1836f8266695";
    const OCCASION: Occasion = Occasion {
        timestamp: 1_760_000_000,
        number: 2,
        left: 7,
    };
}
