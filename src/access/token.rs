//! Access tokens: OAuth 2 client credentials (RFC 6749, section 4.4).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Asked, BELIEVED_FOR, Refused, ask, turn, without_query};
use crate::delivery::{Preparation, Purpose};
use crate::sender::{Answer, Endpoint};

/// Where tokens come from, and the one that is good now.
pub struct TokenSource {
    endpoint: Arc<Endpoint>,
    url: String,
    headers: HeaderMap,
    form: Zeroizing<String>,
    known: Mutex<Known>,
    /// One request at a time; whoever waits finds what it brought.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    token: Option<Token>,
    refused: Option<Refused>,
    /// When an endpoint last had us throw a token away.
    forgot_at: Option<Instant>,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    /// To be replaced from then on, while it is still good.
    renew: Instant,
    ends: Instant,
}

impl TokenSource {
    /// From the term `authentication`: `client_id`, and maybe `scope`, `audience` and `client_auth` (`basic`, or `body`).
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        url: &str,
        term: &Value,
        secret: &Zeroizing<String>,
    ) -> Result<Self, String> {
        let client_id = term["client_id"]
            .as_str()
            .ok_or("authentication has no client_id")?;
        let mut form = Zeroizing::new("grant_type=client_credentials".to_owned());
        for name in ["scope", "audience"] {
            if let Some(value) = term[name].as_str() {
                add(&mut form, name, value);
            }
        }
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if term["client_auth"].as_str() == Some("body") {
            add(&mut form, "client_id", client_id);
            add(&mut form, "client_secret", secret);
        } else {
            // Encoded before they are joined, as the specification wants it: either may hold a colon.
            let pair = Zeroizing::new(format!("{}:{}", *encoded(client_id), *encoded(secret)));
            let basic = Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes())));
            let mut value = HeaderValue::try_from(basic.as_str())
                .map_err(|_| "the client's secret cannot stand in a header".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Self {
            endpoint,
            url: without_query(url),
            headers,
            form,
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        })
    }

    /// The value of `Authorization`: of the token that is good, or of a new one. While the old one is good, nobody waits for what
    /// another is asking for.
    pub(super) async fn obtain(
        &self,
        timeout: Duration,
        made: &mut Vec<Preparation>,
    ) -> Result<HeaderValue, Refused> {
        if let Some(header) = self.fresh() {
            return Ok(header);
        }
        let deadline = Instant::now() + timeout;
        let _turn = match (self.asking.try_lock(), self.still_good()) {
            (Ok(turn), _) => turn,
            (Err(_), Some(header)) => return Ok(header),
            (Err(_), None) => turn(&self.asking, deadline, NO_TOKEN).await?,
        };
        // Somebody may have asked while we waited for our turn.
        if let Some(header) = self.fresh() {
            return Ok(header);
        }
        let asked = if let Some(refused) = self.refusal() {
            Err(refused)
        } else {
            let left = deadline.saturating_duration_since(Instant::now());
            self.ask(left, made).await
        };
        // The old one may be good for a while yet.
        asked.or_else(|refused| self.still_good().ok_or(refused))
    }

    /// A token that an endpoint refused is not shown again, unless that happens again and again: then it is no matter of tokens,
    /// and their server is not asked for one after another.
    pub(super) fn forget(&self, header: &HeaderValue) {
        let now = Instant::now();
        let mut known = self.lock();
        let known = &mut *known;
        let Some(token) = known.token.as_mut().filter(|token| token.header == *header) else {
            return;
        };
        match known.forgot_at.map(|at| at + BELIEVED_FOR) {
            Some(not_before) if now < not_before => {
                token.renew = token.renew.min(not_before);
                token.ends = token.ends.min(not_before);
            }
            _ => {
                known.token = None;
                known.forgot_at = Some(now);
            }
        }
    }

    async fn ask(
        &self,
        timeout: Duration,
        made: &mut Vec<Preparation>,
    ) -> Result<HeaderValue, Refused> {
        let asked_at = Instant::now();
        let asked = Asked {
            kind: Purpose::Token,
            url: self.url.clone(),
            method: Method::POST,
            headers: self.headers.clone(),
            body: Bytes::copy_from_slice(self.form.as_bytes()),
        };
        let token = ask(&self.endpoint, asked, timeout, made)
            .await
            .and_then(|answer| understand(&answer, asked_at));
        let mut known = self.lock();
        match token {
            Ok(token) => {
                let header = token.header.clone();
                known.token = Some(token);
                known.refused = None;
                Ok(header)
            }
            Err(why) => {
                let refused = Refused::now(&format!("{NO_TOKEN}: {why}"), BELIEVED_FOR);
                known.refused = Some(refused.clone());
                Err(refused)
            }
        }
    }

    fn fresh(&self) -> Option<HeaderValue> {
        let now = Instant::now();
        let known = self.lock();
        let token = known.token.as_ref().filter(|token| now < token.renew);
        token.map(|token| token.header.clone())
    }

    fn still_good(&self) -> Option<HeaderValue> {
        let now = Instant::now();
        let known = self.lock();
        let token = known.token.as_ref().filter(|token| now < token.ends);
        token.map(|token| token.header.clone())
    }

    fn refusal(&self) -> Option<Refused> {
        let known = self.lock();
        known.refused.clone().filter(Refused::is_believed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Reads the answer of a token endpoint. What the error says of it is its status and its error code, never a text that it chose.
fn understand(answer: &Answer, asked_at: Instant) -> Result<Token, String> {
    let body = answer.body.as_deref().unwrap_or_default();
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    if !answer.status.is_success() {
        let code = body["error"]
            .as_str()
            .filter(|code| KNOWN_ERRORS.contains(code));
        let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
        return Err(format!(
            "its server answered {}{code}",
            answer.status.as_u16()
        ));
    }
    let token = body["access_token"]
        .as_str()
        .ok_or("its server's answer holds no access_token")?;
    if !body["token_type"]
        .as_str()
        .is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"))
    {
        return Err("its server's token_type is not Bearer".to_owned());
    }
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut header = HeaderValue::try_from(text.as_str())
        .map_err(|_| "its server's access_token cannot stand in a header".to_owned())?;
    header.set_sensitive(true);
    let lasts = Duration::from_secs(seconds(&body["expires_in"]).clamp(1, LONGEST));
    Ok(Token {
        header,
        // Shortly before its end, so that no request bears one that ends on its way.
        renew: asked_at + (lasts * 4 / 5).max(lasts.saturating_sub(Duration::from_mins(1))),
        ends: asked_at + lasts,
    })
}

/// Some servers write the number as a text.
fn seconds(value: &Value) -> u64 {
    let number = value.as_u64();
    let number = number.or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    number.unwrap_or(UNLESS_TOLD)
}

fn add(form: &mut Zeroizing<String>, name: &str, value: &str) {
    form.push('&');
    form.push_str(name);
    form.push('=');
    form.push_str(&encoded(value));
}

/// As a form is encoded.
fn encoded(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(text.len()));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            for half in [byte >> 4, byte & 15] {
                encoded.push(char::from(b"0123456789ABCDEF"[usize::from(half)]));
            }
            let at = encoded.len() - 2;
            encoded.insert(at, '%');
        }
    }
    encoded
}

const NO_TOKEN: &str = "no access token";
/// Those of RFC 6749.
const KNOWN_ERRORS: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];
/// How long a token lasts where its server does not say, in seconds.
const UNLESS_TOLD: u64 = 300;
/// No token is used for longer, in seconds.
const LONGEST: u64 = 86_400;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::StatusCode;

    use super::*;
    use crate::delivery::Outcome;
    use crate::egress::EgressPolicy;
    use crate::endpoint::PlainHttp;
    use crate::sender::{Sender, SenderConfig};

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Some(Bytes::copy_from_slice(body.as_bytes())),
        }
    }

    #[test]
    fn a_token_is_renewed_before_it_ends() {
        let now = Instant::now();
        for (given, renew, ends) in [
            ("3600", 3540, 3600),
            ("100", 80, 100),
            (r#""600""#, 540, 600),
            ("null", 240, 300),
            ("0", 0, 1),
            ("99999999999", 86_340, 86_400),
        ] {
            let body =
                format!(r#"{{"access_token":"t","token_type":"bearer","expires_in":{given}}}"#);
            let token = understand(&answer(200, &body), now).unwrap();
            assert_eq!(token.header, "Bearer t");
            assert!(token.header.is_sensitive());
            assert_eq!((token.renew - now).as_secs(), renew, "{given}");
            assert_eq!((token.ends - now).as_secs(), ends, "{given}");
        }
    }

    #[test]
    fn what_is_no_token_says_why_and_quotes_nothing() {
        for (status, body, why) in [
            (
                401,
                r#"{"error":"invalid_client","error_description":"s3cret"}"#,
                "its server answered 401 (invalid_client)",
            ),
            (500, r#"{"error":"s3cret"}"#, "its server answered 500"),
            (200, "s3cret", "its server's answer holds no access_token"),
            (
                200,
                r#"{"access_token":"a\nb"}"#,
                "its server's access_token cannot stand in a header",
            ),
            (
                200,
                r#"{"access_token":"s3cret","token_type":"mac"}"#,
                "its server's token_type is not Bearer",
            ),
        ] {
            let refusal = understand(&answer(status, body), Instant::now()).err();
            assert_eq!(refusal.as_deref(), Some(why));
        }
    }

    /// One whose server takes connections and never answers, with a token that is to be renewed and good for a minute yet.
    async fn unanswered() -> (tokio::net::TcpListener, TokenSource) {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token?key=s3cret", silent.local_addr().unwrap());
        let sender = Sender::new(SenderConfig {
            egress: EgressPolicy::allowing(vec!["127.0.0.0/8".parse().unwrap()]).unwrap(),
            plain_http: PlainHttp::LoopbackOnly,
            ..SenderConfig::default()
        })
        .unwrap();
        let endpoint = Arc::new(sender.endpoint(sender.parse(&url).unwrap()));
        let secret = Zeroizing::new("s3cret".to_owned());
        let term = serde_json::json!({"client_id": "us"});
        let source = TokenSource::new(endpoint, &url, &term, &secret).unwrap();
        let now = Instant::now();
        source.lock().token = Some(Token {
            header: HeaderValue::from_static("Bearer t"),
            renew: now,
            ends: now + Duration::from_mins(1),
        });
        (silent, source)
    }

    #[tokio::test]
    async fn while_a_token_is_good_only_one_waits_for_the_next_and_it_goes_on_with_the_old() {
        let (_silent, source) = unanswered().await;
        let (mut asked, mut not_asked) = (Vec::new(), Vec::new());
        let brief = Duration::from_millis(100);
        let waiting = source.obtain(brief, &mut asked);
        let other = source.obtain(Duration::from_hours(1), &mut not_asked);
        // In this order.
        let (first, second) = tokio::join!(biased; waiting, other);
        assert_eq!(
            (first.unwrap(), second.unwrap()),
            (
                HeaderValue::from_static("Bearer t"),
                HeaderValue::from_static("Bearer t")
            )
        );
        assert_eq!((asked.len(), not_asked.len()), (1, 0));
        assert_eq!(asked[0].report.outcome, Outcome::TimedOut);
        assert!(!format!("{asked:?}").contains("s3cret"), "{asked:?}");
        // Nobody asks again for a while.
        assert_eq!(
            source.obtain(brief, &mut not_asked).await.unwrap(),
            "Bearer t"
        );
        assert!(not_asked.is_empty());
    }

    #[tokio::test]
    async fn a_request_that_nobody_waits_for_any_more_was_made_all_the_same() {
        let (_silent, source) = unanswered().await;
        source.lock().token = None;
        let mut asked = Vec::new();
        let waiting = source.obtain(Duration::from_hours(1), &mut asked);
        tokio::select! {
            biased;
            _ = waiting => unreachable!(),
            () = std::future::ready(()) => {}
        }
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].report.outcome, Outcome::Abandoned);
    }

    #[tokio::test]
    async fn a_token_that_was_refused_is_gone_but_not_one_after_another() {
        let (_silent, source) = unanswered().await;
        let shown = HeaderValue::from_static("Bearer t");
        let again = source.lock().token.clone();
        source.forget(&HeaderValue::from_static("Bearer older"));
        assert!(source.still_good().is_some());
        source.forget(&shown);
        assert!(source.still_good().is_none());
        source.lock().token = again;
        source.forget(&shown);
        let ends = source.lock().token.as_ref().unwrap().ends;
        assert!(ends <= Instant::now() + BELIEVED_FOR);
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(*encoded("a b+ü:&="), "a%20b%2B%C3%BC%3A%26%3D");
    }
}
