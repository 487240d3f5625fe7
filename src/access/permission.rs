//! Permission to send, asked for as the webhook specification of the cloud events project describes it: OPTIONS with our origin, to
//! which the receiver answers whether it wants webhooks from there, and how many.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::{Asked, Denied, Refused, ask, turn, without_query};
use crate::delivery::{Grant, Preparation, Purpose};
use crate::sender::{Answer, Endpoint};

/// What is asked of a receiver, and whether it has been granted.
#[derive(Debug)]
pub struct Permission {
    url: String,
    origin: HeaderValue,
    origin_text: String,
    headers: HeaderMap,
    asks_for_rate: bool,
    standing: Mutex<Standing>,
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
enum Standing {
    Unasked,
    Granted,
    /// At a rate. Whoever asked sends; everybody else waits for terms that know of it, but not for ever.
    GrantedAtRate(Instant),
    Refused(Refused),
}

impl Permission {
    /// Reads the term `handshake`: `origin`, and maybe `callback` and `rate`. `url` is the subscription's own.
    ///
    /// # Errors
    /// One line that names the field.
    pub fn read(term: &str, url: &str, is_granted: bool) -> Result<Self, String> {
        let term: Value =
            serde_json::from_str(term).map_err(|_| "handshake is no JSON".to_owned())?;
        let origin_text = term["origin"].as_str().ok_or("handshake has no origin")?;
        let value = |text: &str, field: &str| {
            HeaderValue::try_from(text)
                .map_err(|_| format!("handshake.{field} cannot stand in a header"))
        };
        let origin = value(origin_text, "origin")?;
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ORIGIN, origin.clone());
        if let Some(callback) = term["callback"].as_str() {
            headers.insert(REQUEST_CALLBACK, value(callback, "callback")?);
        }
        let rate = term["rate"].as_u64();
        if let Some(rate) = rate {
            headers.insert(REQUEST_RATE, HeaderValue::from(rate));
        }
        Ok(Self {
            url: url.to_owned(),
            origin,
            origin_text: origin_text.to_owned(),
            headers,
            asks_for_rate: rate.is_some(),
            standing: Mutex::new(if is_granted {
                Standing::Granted
            } else {
                Standing::Unasked
            }),
            asking: tokio::sync::Mutex::default(),
        })
    }

    /// Our name, which each delivery bears.
    pub(super) fn origin(&self) -> &HeaderValue {
        &self.origin
    }

    /// Asks, unless it was granted; an error where it is not.
    pub(super) async fn obtain(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
        made: &mut Vec<Preparation>,
    ) -> Result<(), Denied> {
        if let Some(known) = self.known() {
            return known;
        }
        let deadline = Instant::now() + timeout;
        let _turn = turn(&self.asking, deadline, NOT_ALLOWED).await?;
        // Somebody may have asked while we waited for our turn.
        if let Some(known) = self.known() {
            return known;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        self.ask(endpoint, left, made).await.map_err(Denied::from)
    }

    /// What need not be asked.
    fn known(&self) -> Option<Result<(), Denied>> {
        match &*self.lock() {
            Standing::Granted => Some(Ok(())),
            Standing::GrantedAtRate(until) if Instant::now() < *until => Some(Err(Denied::NotYet)),
            Standing::Refused(refused) if refused.is_believed() => {
                Some(Err(refused.clone().into()))
            }
            _ => None,
        }
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
        made: &mut Vec<Preparation>,
    ) -> Result<(), Refused> {
        let asked = Asked {
            kind: Purpose::Handshake,
            url: without_query(&self.url),
            method: Method::OPTIONS,
            headers: self.headers.clone(),
            body: Bytes::new(),
        };
        let answer = ask(endpoint, asked, timeout, made).await;
        let granted = answer
            .and_then(|answer| granted(&answer, &self.origin_text, self.asks_for_rate))
            .map_err(|why| Refused::now(&format!("{NOT_ALLOWED}: {why}"), ASKED_AGAIN_AFTER));
        *self.lock() = match &granted {
            Ok(None) => Standing::Granted,
            Ok(Some(_)) => Standing::GrantedAtRate(Instant::now() + ASKED_AGAIN_AFTER),
            Err(refused) => Standing::Refused(refused.clone()),
        };
        let rate = granted?;
        if let Some(made) = made.last_mut() {
            made.grant = Some(Grant {
                url: self.url.clone(),
                origin: self.origin_text.clone(),
                rate,
            });
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the answer allows it, and at what rate. Its status says nothing: servers answer OPTIONS in many ways.
fn granted(answer: &Answer, origin: &str, asks_for_rate: bool) -> Result<Option<i32>, String> {
    let text = |name: &HeaderName| {
        answer
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let status = answer.status.as_u16();
    let allowed = text(&ALLOWED_ORIGIN)
        .ok_or_else(|| format!("it answered {status} without webhook-allowed-origin"))?;
    let names_us = allowed
        .split(',')
        .any(|name| name.trim() == "*" || name.trim().eq_ignore_ascii_case(origin));
    if !names_us {
        return Err("its webhook-allowed-origin names somebody else".to_owned());
    }
    match text(&ALLOWED_RATE).map(str::trim) {
        None if asks_for_rate => Err("it answered without webhook-allowed-rate".to_owned()),
        None | Some("*") => Ok(None),
        Some(rate) => match rate.parse() {
            Ok(rate @ 1..=MOST_A_MINUTE) => Ok(Some(rate)),
            _ => Err("its webhook-allowed-rate is neither * nor a positive number".to_owned()),
        },
    }
}

pub(super) const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const REQUEST_CALLBACK: HeaderName = HeaderName::from_static("webhook-request-callback");
const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");
const NOT_ALLOWED: &str = "the receiver has not allowed us to send";
/// Whoever refused is not asked again sooner; nor is whoever allowed so many a minute, while that spreads.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(30);
const MOST_A_MINUTE: i32 = 9_999_999;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::StatusCode;

    use super::*;

    fn asked(headers: &[(&'static str, &'static str)], rate: bool) -> Result<Option<i32>, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let answer = Answer {
            status: StatusCode::METHOD_NOT_ALLOWED,
            headers: map,
            body: None,
        };
        granted(&answer, "port.example", rate)
    }

    #[test]
    fn the_origin_decides_and_the_status_does_not() {
        let (origin, allowed) = ("webhook-allowed-origin", "webhook-allowed-rate");
        assert_eq!(asked(&[(origin, "port.example")], false), Ok(None));
        assert_eq!(asked(&[(origin, "*")], false), Ok(None));
        assert_eq!(
            asked(&[(origin, "*"), (allowed, "120")], false),
            Ok(Some(120))
        );
        assert_eq!(asked(&[(origin, "*"), (allowed, "*")], true), Ok(None));
        assert!(asked(&[(origin, "*")], true).is_err());
        assert!(asked(&[(origin, "*"), (allowed, "0")], true).is_err());
        assert!(asked(&[(origin, "other.example")], false).is_err());
        assert!(asked(&[], false).is_err());
    }

    #[test]
    fn what_is_asked_is_what_the_terms_say() {
        let term =
            r#"{"origin": "port.example", "callback": "https://port.example/yes", "rate": 60}"#;
        let permission = Permission::read(term, "https://a.example/", false).unwrap();
        assert_eq!(permission.headers["webhook-request-origin"], "port.example");
        assert_eq!(
            permission.headers["webhook-request-callback"],
            "https://port.example/yes"
        );
        assert_eq!(permission.headers["webhook-request-rate"], "60");
        assert_eq!(permission.known(), None);
        permission
            .lock()
            .clone_from(&Standing::Refused(Refused::now("no", Duration::ZERO)));
        assert_eq!(permission.known(), None, "it is asked again later");
        let granted = Permission::read(term, "https://a.example/", true).unwrap();
        assert_eq!(granted.known(), Some(Ok(())));
        assert!(Permission::read("{}", "https://a.example/", true).is_err());
    }
}
