//! The only part of the worker that opens connections to partners.
//!
//! One call of [`Endpoint::post`] is one request, and its [`Report`] tells what it met. There are no hidden requests:
//! nothing is sent again once a byte of it may have left, and no redirect is followed. A partner can waste the time that
//! the attempt's deadline gives it, and nothing else: heads, bodies, idle connections and look-ups are all bounded.
//! Responses are asked for without a content encoding, and none is ever decoded.
//!
//! A proxy is used where the operator names one, for addresses that were vetted before. Proxies named in the environment
//! are not: nobody would know.

mod advice;
mod connect;
mod dial;
mod exchange;
mod fault;
mod identity;
mod link;
mod options;
mod pool;
mod progress;
mod resolve;
mod snippet;
mod stream;
#[cfg(test)]
mod tests;
mod tunnel;

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};

use self::connect::{Connector, Target};
use self::fault::{Fault, Phase};
use self::link::{Body, Limits, Link, Unanswered};
use self::pool::{Opening, Pool, Turn};
use self::progress::{Answered, Clock, Progress};
use self::resolve::{Lookup, system_lookup};
use crate::delivery::Report;
use crate::egress::EgressPolicy;
use crate::endpoint::{EndpointUrl, PlainHttp, Scheme};
use crate::proxy::ProxyUrl;
use crate::{Error, Result};

pub use self::exchange::Answer;
pub use self::identity::{ALPN, ClientIdentity, PartnerAuthority, TLS_VERSIONS};
pub use self::options::{EndpointOptions, Via};

/// What holds for every request.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// Which addresses may be connected to.
    pub egress: EgressPolicy,
    /// Whether `http` URLs are taken, to loopback addresses.
    pub plain_http: PlainHttp,
    /// Authorities that are trusted besides the machine's own.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// What requests go through; none where they go straight to the partner.
    pub proxy: Option<ProxyUrl>,
    /// The addresses of this machine that connections leave from, at most one of each family. With one alone, connections
    /// of the other family are not made. None: whatever the machine chooses.
    pub source_addresses: Vec<IpAddr>,
    /// For TCP, proxy and TLS together, inside the attempt's deadline. Default 5 s.
    pub connect_timeout: Duration,
    /// An unused connection is not used again after this. Default 15 s.
    pub idle_timeout: Duration,
    /// A connection is not used for new requests after this, because its address was vetted when it was opened.
    /// Default 5 min.
    pub max_connection_age: Duration,
    /// Bytes of a response head, at least 8 KiB. Default 64 KiB.
    pub max_response_head: usize,
    /// Bytes of a response body that are read before the connection is given up. Default 16 KiB.
    pub max_response_body: usize,
    /// Bytes of a report's snippet. Default 1 KiB.
    pub max_snippet: usize,
    /// The `user-agent` header, where a request brings none of its own. Default `Posthaste/` and the version.
    pub user_agent: String,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            egress: EgressPolicy::default(),
            plain_http: PlainHttp::Never,
            extra_roots: Vec::new(),
            proxy: None,
            source_addresses: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(15),
            max_connection_age: Duration::from_mins(5),
            max_response_head: 64 * KIB,
            max_response_body: 16 * KIB,
            max_snippet: KIB,
            user_agent: concat!("Posthaste/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Makes [`Endpoint`]s. Cloning it is cheap.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

struct Shared {
    connector: Connector,
    plain_http: PlainHttp,
    limits: Limits,
    max_snippet: usize,
    idle_timeout: Duration,
    max_connection_age: Duration,
    user_agent: HeaderValue,
}

impl Sender {
    /// Reads the trusted authorities and checks the configuration.
    ///
    /// # Errors
    /// [`Error::Config`] names the value that is out of bounds or the source address that is not this machine's,
    /// [`Error::Tls`] the certificate that cannot be used.
    pub fn new(config: SenderConfig) -> Result<Self> {
        Self::with_lookup(config, system_lookup())
    }

    fn with_lookup(config: SenderConfig, lookup: Lookup) -> Result<Self> {
        let head = bounded("max_response_head", config.max_response_head, HEAD_BOUNDS)?;
        let body = bounded("max_response_body", config.max_response_body, BODY_BOUNDS)?;
        let max_snippet = bounded("max_snippet", config.max_snippet, SNIPPET_BOUNDS)?;
        let user_agent = HeaderValue::try_from(&config.user_agent).map_err(|_| {
            Error::Config(format!(
                "user_agent {:?} is no header value",
                config.user_agent
            ))
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                plain_http: config.plain_http,
                limits: Limits { head, body },
                max_snippet,
                idle_timeout: config.idle_timeout,
                max_connection_age: config.max_connection_age,
                user_agent,
                connector: Connector::new(config, lookup)?,
            }),
        })
    }

    /// An endpoint with connections of its own. They end when its last clone is dropped.
    pub fn endpoint(&self, url: EndpointUrl) -> Endpoint {
        let tls = self.shared.connector.tls();
        self.reaching(Target::new(url, EndpointOptions::default(), tls))
    }

    /// The same, reached in a way of its own.
    ///
    /// # Errors
    /// [`Error::Tls`] where its identity or authority cannot be used.
    pub fn endpoint_with(&self, url: EndpointUrl, options: EndpointOptions) -> Result<Endpoint> {
        let tls = self.shared.connector.tls_for(&options)?;
        Ok(self.reaching(Target::new(url, options, tls)))
    }

    fn reaching(&self, to: Target) -> Endpoint {
        let is_h1 = to.url.scheme() == Scheme::Http; // HTTP/2 is found by TLS
        let target = to.url.uri().path_and_query().cloned();
        let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
        Endpoint {
            inner: Arc::new(Inner {
                pool: Pool::new(
                    self.shared.idle_timeout,
                    self.shared.max_connection_age,
                    is_h1,
                ),
                target: Uri::from(target),
                shared: Arc::clone(&self.shared),
                to,
            }),
        }
    }

    /// Reads a URL by the rules of this sender's configuration.
    ///
    /// # Errors
    /// As [`EndpointUrl::parse`].
    pub fn parse(
        &self,
        url: &str,
    ) -> std::result::Result<EndpointUrl, crate::endpoint::UrlRefusal> {
        EndpointUrl::parse(url, self.shared.plain_http)
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// One partner's URL and the connections to it. Cloning it is cheap, and clones share the connections.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    to: Target,
    /// Path and query alone, as HTTP/1.1 wants them.
    target: Uri,
    pool: Pool,
    shared: Arc<Shared>,
}

impl Endpoint {
    /// Sends one POST and tells what it met. `timeout` covers everything, from the look-up of the name to the last byte of
    /// the body, and no byte that arrives extends it.
    ///
    /// `Host`, `content-length`, `accept-encoding` and, unless it is given, `user-agent` are set here, and headers that govern the connection
    /// are left out; the rest of `headers` goes as it is, as does `body`.
    ///
    /// A complete 2xx head is [`Accepted`](crate::delivery::Outcome::Accepted), whatever becomes of the body after it.
    pub async fn post(&self, headers: HeaderMap, body: Bytes, timeout: Duration) -> Report {
        let started = Instant::now();
        let clock = Clock::start(started, timeout);
        let mut progress = Progress::default();
        let met = self
            .inner
            .deliver(headers, body, clock, &mut progress)
            .await;
        let duration = started.elapsed();
        match met {
            Err(fault) => progress.failed(fault, duration),
            Ok((answer, reusable)) => {
                self.inner.keep(reusable).await;
                progress.answered(answer, duration)
            }
        }
    }

    /// Where it sends to.
    pub fn url(&self) -> &EndpointUrl {
        &self.inner.to.url
    }

    /// How it is reached.
    pub fn options(&self) -> &EndpointOptions {
        &self.inner.to.options
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.inner.to.url).finish()
    }
}

impl Inner {
    async fn deliver(
        &self,
        headers: HeaderMap,
        body: Bytes,
        clock: Clock,
        progress: &mut Progress,
    ) -> std::result::Result<(Answered, Option<Link>), Fault> {
        let reading = Reading {
            limit: self.shared.limits.body,
            keep: self.shared.max_snippet,
        };
        let (link, response) = self
            .head(&Method::POST, headers, body, reading.limit, clock, progress)
            .await?;
        let status = response.status();
        let advice = advice::advice(response.headers(), SystemTime::now());
        let (kept, whole) = read(response.into_body(), reading, clock, progress).await;
        let answer = Answered {
            status,
            advice,
            snippet: snippet::snippet(&kept, self.shared.max_snippet),
        };
        Ok((answer, whole.then_some(link)))
    }

    fn dress(&self, method: &Method, headers: &mut HeaderMap, length: usize) {
        for name in CONNECTION_HEADERS {
            headers.remove(name);
        }
        headers.remove(header::CONTENT_LENGTH);
        if length > 0 || METHODS_WITH_BODY.contains(method) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        headers
            .entry(header::USER_AGENT)
            .or_insert_with(|| self.shared.user_agent.clone());
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
    }

    /// Sends the request and waits for the response head. Only a request of which hyper vouches that nothing was written,
    /// because a pooled connection ended just then, goes on to another connection.
    async fn head(
        &self,
        method: &Method,
        mut headers: HeaderMap,
        mut body: Bytes,
        most: usize,
        clock: Clock,
        progress: &mut Progress,
    ) -> std::result::Result<(Link, Response<Incoming>), Fault> {
        self.dress(method, &mut headers, body.len());
        loop {
            let (mut link, pooled) = self.link(clock, progress).await?;
            progress.remote = Some(link.remote);
            let request = self.request(method, headers, body, &link);
            match timeout_at(clock.deadline, link.send(request, most)).await {
                Ok(Ok(response)) => return Ok((link, response)),
                Ok(Err(Unanswered::Unsent(request, _))) if pooled => {
                    self.pool.retire(&link);
                    let (head, unread) = request.into_parts();
                    headers = head.headers;
                    // Nothing of it was read: there is none only where it is empty.
                    body = unread.into_inner().unwrap_or_default();
                }
                Ok(Err(Unanswered::Unsent(_, Some(error)) | Unanswered::Lost(error))) => {
                    return Err(link.fault(&error));
                }
                Ok(Err(Unanswered::Unsent(_, None))) => {
                    return Err(Fault::unreachable(Phase::Http, "the connection had ended"));
                }
                Err(_) => {
                    // Where it is the connection that hangs, the next request must not hang with it.
                    self.pool.retire(&link);
                    return Err(Fault::timed_out(
                        Phase::Http,
                        "no whole response head",
                        clock.timeout,
                    ));
                }
            }
        }
    }

    /// A connection, and whether it had been open before.
    async fn link(
        &self,
        clock: Clock,
        progress: &mut Progress,
    ) -> std::result::Result<(Link, bool), Fault> {
        let opening = match self.pool.turn(Instant::now()) {
            Turn::Use(link) => return Ok((link, true)),
            Turn::Open(opening) => opening,
            Turn::Wait(mut opened) => {
                if timeout_at(clock.deadline, opened.changed()).await.is_err() {
                    return Err(Fault::timed_out(
                        Phase::Connect,
                        "no connection",
                        clock.timeout,
                    ));
                }
                match self.pool.take(Instant::now()) {
                    Some(link) => return Ok((link, true)),
                    None => Opening::unawaited(),
                }
            }
        };
        // Rare and large: on the heap, so that every other attempt's task is small.
        let link = Box::pin(self.open(clock, progress)).await?;
        self.pool.opened(&link);
        drop(opening);
        Ok((link, false))
    }

    async fn open(
        &self,
        clock: Clock,
        progress: &mut Progress,
    ) -> std::result::Result<Link, Fault> {
        let connector = &self.shared.connector;
        let stream = connector.connect(&self.to, clock, progress).await?;
        let Some(remote) = progress.remote else {
            return Err(Fault::unreachable(
                Phase::Connect,
                "no address to connect to",
            ));
        };
        timeout_at(
            clock.deadline,
            Link::open(stream, remote, self.shared.limits),
        )
        .await
        .unwrap_or_else(|_| {
            Err(Fault::timed_out(
                Phase::Http,
                "no HTTP/2 connection",
                clock.timeout,
            ))
        })
    }

    fn request(
        &self,
        method: &Method,
        mut headers: HeaderMap,
        body: Bytes,
        link: &Link,
    ) -> Request<Body> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        if link.is_h1() {
            headers.insert(header::HOST, self.to.url.host_header().clone());
            *request.uri_mut() = self.target.clone();
        } else {
            headers.remove(header::HOST); // from an unsent HTTP/1.1 request
            *request.uri_mut() = self.to.url.uri().clone();
        }
        *request.headers_mut() = headers;
        request
    }

    async fn keep(&self, reusable: Option<Link>) {
        if let Some(mut link) = reusable
            && link.is_ready().await
        {
            self.pool.give_back(link);
        }
    }
}

/// Reads a body as far as we care: what is kept of it, and whether it ended within the bounds, so that the connection can
/// be used again.
async fn read(
    mut body: Incoming,
    Reading { limit, keep }: Reading,
    clock: Clock,
    progress: &mut Progress,
) -> (Vec<u8>, bool) {
    if body.is_end_stream() {
        return (Vec::new(), true);
    }
    let started = Instant::now();
    let mut kept = Vec::new();
    let mut left = limit;
    let whole = loop {
        if body.is_end_stream() {
            break true;
        }
        let Ok(frame) = timeout_at(clock.deadline, body.frame()).await else {
            break false;
        };
        match frame {
            None => break true,
            Some(Err(_)) => break false,
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                let room = keep.saturating_sub(kept.len());
                kept.extend_from_slice(&data[..data.len().min(room)]);
                match left.checked_sub(data.len()) {
                    Some(rest) => left = rest,
                    None => break false,
                }
            }
        }
    };
    progress.phases.body = Some(started.elapsed());
    (kept, whole)
}

fn bounded(name: &str, value: usize, bounds: RangeInclusive<usize>) -> Result<usize> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let (from, to) = (bounds.start(), bounds.end());
    Err(Error::Config(format!(
        "{name} is {value} bytes; allowed are {from} to {to}"
    )))
}

/// How much of a body is read, and how much of that is kept, in bytes.
#[derive(Clone, Copy)]
struct Reading {
    limit: usize,
    keep: usize,
}

const KIB: usize = 1024;
/// hyper's own buffer cannot be smaller.
const HEAD_BOUNDS: RangeInclusive<usize> = 8 * KIB..=1024 * KIB;
const BODY_BOUNDS: RangeInclusive<usize> = 0..=1024 * KIB;
const SNIPPET_BOUNDS: RangeInclusive<usize> = 0..=64 * KIB;

/// Those of which a receiver expects to be told how long their body is, also where there is none.
const METHODS_WITH_BODY: [Method; 3] = [Method::POST, Method::PUT, Method::PATCH];

/// Ours to say, or hyper's: a caller who could set them could split a request in two.
const CONNECTION_HEADERS: [HeaderName; 9] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::HOST,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
