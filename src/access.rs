//! What it takes to be let in by an endpoint: who we are, an access token, a permission to send at all.
//!
//! Where that takes requests of its own, each is a [`Preparation`], which is recorded as attempts are. Nothing here is asked for
//! more often than it has to be: one request at a time, a token until shortly before it expires, a permission for good, and what was
//! refused is believed for a while.

mod permission;
mod token;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use zeroize::Zeroizing;

pub use self::permission::Permission;
pub use self::token::TokenSource;
use crate::delivery::{Advice, Outcome, Phases, Preparation, Purpose, Report};
use crate::sender::{Answer, Endpoint};

/// What one subscription's endpoint wants of us.
#[derive(Debug, Default)]
pub struct Access {
    /// Who we are.
    pub authentication: Authentication,
    /// Whether we may send at all, where that is asked.
    pub permission: Option<Permission>,
}

/// How we show who we are.
#[derive(Debug, Default)]
pub enum Authentication {
    /// Not at all: the signature does.
    #[default]
    None,
    /// In a header that is always the same.
    Fixed(HeaderName, HeaderValue),
    /// With an access token of an OAuth 2 server.
    Token(Box<TokenSource>),
}

impl Access {
    /// Puts what lets a request in among its headers, and makes the requests that this takes within `timeout`. What was made is
    /// added to `made` in any case, also where nobody waits for the end of this.
    ///
    /// # Errors
    /// Why nothing may be sent now.
    pub async fn obtain(
        &self,
        endpoint: &Endpoint,
        headers: &mut HeaderMap,
        timeout: Duration,
        made: &mut Vec<Preparation>,
    ) -> Result<(), Denied> {
        let deadline = Instant::now() + timeout;
        if let Some(permission) = &self.permission {
            permission.obtain(endpoint, timeout, made).await?;
            headers.insert(permission::REQUEST_ORIGIN, permission.origin().clone());
        }
        match &self.authentication {
            Authentication::None => {}
            Authentication::Fixed(name, value) => {
                headers.insert(name, value.clone());
            }
            Authentication::Token(source) => {
                let left = deadline.saturating_duration_since(Instant::now());
                headers.insert(AUTHORIZATION, source.obtain(left, made).await?);
            }
        }
        Ok(())
    }

    /// Whether there is anything to obtain.
    pub fn is_needed(&self) -> bool {
        !matches!(self.authentication, Authentication::None) || self.permission.is_some()
    }

    /// The endpoint did not take who we say we are: a token that was good until now is not any more.
    pub fn was_refused(&self, shown: Option<&HeaderValue>) {
        if let (Authentication::Token(source), Some(shown)) = (&self.authentication, shown) {
            source.forget(shown);
        }
    }
}

impl Authentication {
    /// Reads the term `authentication`, a JSON object, with its secret part. `endpoint` makes an endpoint of an OAuth 2 server's
    /// URL.
    ///
    /// # Errors
    /// One line that names the field, and never a value.
    pub fn read(
        term: &str,
        secret: &Zeroizing<String>,
        endpoint: impl FnOnce(&str) -> Result<Arc<Endpoint>, String>,
    ) -> Result<Self, String> {
        let term: Value =
            serde_json::from_str(term).map_err(|_| "authentication is no JSON".to_owned())?;
        let text = |field: &str| {
            term[field]
                .as_str()
                .ok_or_else(|| format!("authentication has no {field}"))
        };
        match text("kind")? {
            "bearer" => fixed(
                AUTHORIZATION,
                &Zeroizing::new(format!("Bearer {}", **secret)),
            ),
            "basic" => {
                let pair = Zeroizing::new(format!("{}:{}", text("user")?, **secret));
                let encoded = Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes())));
                fixed(AUTHORIZATION, &encoded)
            }
            "header" => {
                let name = HeaderName::try_from(text("header")?)
                    .map_err(|_| "authentication.header is no header's name".to_owned())?;
                fixed(name, secret)
            }
            "oauth2" => {
                let endpoint = endpoint(text("token_url")?)?;
                let url = text("token_url")?;
                TokenSource::new(endpoint, url, &term, secret)
                    .map(|source| Self::Token(Box::new(source)))
            }
            _ => Err("authentication.kind is unknown to this version".to_owned()),
        }
    }
}

fn fixed(name: HeaderName, value: &str) -> Result<Authentication, String> {
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| "the secret part of the authentication cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(Authentication::Fixed(name, value))
}

/// Makes a request that is written down in any case: where nobody waits for its answer any more, as abandoned.
async fn ask(
    endpoint: &Endpoint,
    asked: Asked,
    timeout: Duration,
    made: &mut Vec<Preparation>,
) -> Result<Answer, String> {
    made.push(Preparation {
        kind: asked.kind,
        url: asked.url,
        report: unanswered(),
        grant: None,
    });
    let (report, answer) = endpoint
        .exchange(asked.method, asked.headers, asked.body, timeout)
        .await;
    let met = report.error.clone();
    if let Some(begun) = made.last_mut() {
        begun.report = report;
    }
    answer.ok_or_else(|| met.unwrap_or_else(|| "no answer".to_owned()))
}

fn unanswered() -> Report {
    Report {
        outcome: Outcome::Abandoned,
        http_status: None,
        error: Some("the worker stopped before the answer came".to_owned()),
        snippet: None,
        advice: Advice::default(),
        remote: None,
        duration: Duration::ZERO,
        phases: Phases::default(),
    }
}

/// A request, what it is for, and where to, without a query.
struct Asked {
    kind: Purpose,
    url: String,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

/// The turn of whoever may ask, if it comes before `deadline` and leaves some time.
async fn turn<'a>(
    asking: &'a Mutex<()>,
    deadline: Instant,
    what_for: &str,
) -> Result<MutexGuard<'a, ()>, Refused> {
    let waited = tokio::time::timeout_at(deadline.into(), asking.lock()).await;
    match waited {
        Ok(turn) if Instant::now() < deadline => Ok(turn),
        _ => Err(Refused::now(
            &format!("{what_for}: another request for it took all the time"),
            Duration::ZERO,
        )),
    }
}

/// A URL as it may be written down: what follows the path could be a secret.
fn without_query(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

/// Why nothing may be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// What it takes is not to be had.
    Refused {
        /// In one line, with no secret in it.
        why: String,
        /// For how long nobody will ask again.
        wait: Duration,
    },
    /// It was granted a moment ago at a rate that is not kept everywhere yet: nothing is wrong, and nothing need be said of it.
    NotYet,
}

/// What was not to be had, until when that is believed, and why.
#[derive(Clone, Debug)]
struct Refused {
    until: Instant,
    why: String,
}

impl Refused {
    fn now(why: &str, for_how_long: Duration) -> Self {
        Self {
            until: Instant::now() + for_how_long,
            why: why.to_owned(),
        }
    }

    fn is_believed(&self) -> bool {
        Instant::now() < self.until
    }
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Self {
        Self::Refused {
            wait: refused.until.saturating_duration_since(Instant::now()),
            why: refused.why,
        }
    }
}

/// For how long it is believed that something is not to be had.
const BELIEVED_FOR: Duration = Duration::from_secs(5);
