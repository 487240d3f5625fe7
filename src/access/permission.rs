//! Permission to send, asked for as CloudEvents' webhook specification describes it: OPTIONS with our origin, to which the receiver
//! answers whether it wants webhooks from there, and how many.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::{Refused, without_query};
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
    is_granted: AtomicBool,
    refused: Mutex<Option<Refused>>,
    asking: tokio::sync::Mutex<()>,
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
            is_granted: AtomicBool::new(is_granted),
            refused: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        })
    }

    /// Our name, which each delivery bears.
    pub(super) fn origin(&self) -> &HeaderValue {
        &self.origin
    }

    /// Whether it has been granted.
    pub(super) fn is_granted(&self) -> bool {
        self.is_granted.load(Ordering::Relaxed)
    }

    /// Asks, unless it was granted; an error where it is not.
    pub(super) async fn obtain(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
        made: &mut Vec<Preparation>,
    ) -> Result<(), String> {
        if self.is_granted() {
            return Ok(());
        }
        let ask = async {
            let _turn = self.asking.lock().await;
            if self.is_granted() {
                return Ok(());
            }
            if let Some(refused) = &*self.lock()
                && Instant::now() < refused.until
            {
                return Err(refused.why.clone());
            }
            self.ask(endpoint, timeout, made).await
        };
        match tokio::time::timeout(timeout, ask).await {
            Ok(asked) => asked,
            Err(_) => Err(format!("{NOT_ALLOWED}: no answer within {timeout:?}")),
        }
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
        made: &mut Vec<Preparation>,
    ) -> Result<(), String> {
        let (report, answer) = endpoint
            .exchange(Method::OPTIONS, self.headers.clone(), Bytes::new(), timeout)
            .await;
        let met = report.error.clone();
        let granted = match answer {
            Some(answer) => granted(&answer, &self.origin_text, self.asks_for_rate),
            None => Err(met.unwrap_or_else(|| "no answer".to_owned())),
        };
        made.push(Preparation {
            kind: Purpose::Handshake,
            url: without_query(&self.url),
            report,
            grant: granted.as_ref().ok().map(|rate| Grant {
                url: self.url.clone(),
                origin: self.origin_text.clone(),
                rate: *rate,
            }),
        });
        match granted {
            Ok(_) => {
                self.is_granted.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(why) => {
                let why = format!("{NOT_ALLOWED}: {why}");
                *self.lock() = Some(Refused::now(&why, ASKED_AGAIN_AFTER));
                Err(why)
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
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
/// Whoever refused is not asked again sooner.
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
        assert!(!permission.is_granted());
        assert!(Permission::read("{}", "https://a.example/", true).is_err());
    }
}
