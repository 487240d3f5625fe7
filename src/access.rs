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
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use zeroize::Zeroizing;

pub use self::permission::Permission;
pub use self::token::TokenSource;
use crate::delivery::Preparation;
use crate::sender::Endpoint;

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
    Token(TokenSource),
}

impl Access {
    /// Puts what lets a request in among its headers, and makes the requests that this takes within `timeout`. What was made is
    /// added to `made` in any case; the error says in one line why nothing may be sent now.
    pub async fn obtain(
        &self,
        endpoint: &Endpoint,
        headers: &mut HeaderMap,
        timeout: Duration,
        made: &mut Vec<Preparation>,
    ) -> Result<(), String> {
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
                TokenSource::new(endpoint, url, &term, secret).map(Self::Token)
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

/// A URL as it may be written down: what follows the path could be a secret.
fn without_query(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

/// For how long it is believed that something is not to be had.
const BELIEVED_FOR: Duration = Duration::from_secs(5);

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
}
