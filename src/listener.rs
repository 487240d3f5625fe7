//! The operator's HTTP face: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever restarts and routes, and the public
//! keys that partners verify with, for whoever publishes them.
//!
//! Nothing here can be used to change anything, and nothing here can hold a worker up: connections
//! are few and short-lived, and when all are taken the oldest one makes room, so a thousand scrapers
//! that hang do not keep a liveness probe out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{interval, sleep, timeout};

use crate::jwks::KeySets;
use crate::{Error, Result};

/// Whether the worker does its work, as `/readyz` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It claims and delivers.
    Ready,
    /// It does not, for this reason, in one line without secrets.
    NotReady(String),
}

/// Sends every metric of this process to the handle that is returned. Each histogram has its upper
/// bounds in `buckets`; the bounds of one that is not listed are those for durations in seconds.
pub fn install_recorder(buckets: &[(&str, &[f64])]) -> Result<PrometheusHandle> {
    recorder(buckets)?
        .install_recorder()
        .map_err(|error| metrics_error(&error))
}

/// A bound address that does not answer yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Takes the address; port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let failed = |error| Error::Io(format!("cannot listen on {address}"), error);
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped. `more` says what `/metrics` has behind what went to the recorder.
    pub async fn serve(
        self,
        metrics: PrometheusHandle,
        more: impl Fn() -> String + Send + Sync + 'static,
        readiness: watch::Receiver<Readiness>,
        keys: watch::Receiver<Option<Arc<KeySets>>>,
    ) {
        let pages = Arc::new(Pages {
            metrics,
            more: Box::new(more),
            readiness,
            keys,
        });
        let mut connections = Connections::default();
        let mut upkeep = interval(UPKEEP);
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => connections.add(answer(stream, Arc::clone(&pages))),
                    // Out of file descriptors, most likely: asking again at once would spin.
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
                _ = upkeep.tick() => pages.metrics.run_upkeep(),
            }
        }
    }
}

/// The connections that are open, the oldest first. Dropping it closes them.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    handles: VecDeque<AbortHandle>,
}

impl Connections {
    fn add(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.handles.retain(|handle| !handle.is_finished());
        if self.handles.len() >= CONNECTION_LIMIT
            && let Some(oldest) = self.handles.pop_front()
        {
            oldest.abort();
        }
        self.handles.push_back(self.tasks.spawn(connection));
    }
}

/// One connection, from its first byte to its end or its time limit.
async fn answer(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(move |request| {
        let response = pages.response(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADER_LIMIT)
        .max_buf_size(BUFFER_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    // How a scraper's connection ended is of no use to anybody.
    let _ = timeout(CONNECTION_TIMEOUT, connection).await;
}

struct Pages {
    metrics: PrometheusHandle,
    more: Box<dyn Fn() -> String + Send + Sync>,
    readiness: watch::Receiver<Readiness>,
    /// None before the database was asked.
    keys: watch::Receiver<Option<Arc<KeySets>>>,
}

impl Pages {
    fn response(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD\n".to_owned(),
            );
            refusal
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/metrics" => self.metrics(),
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => self.readiness(),
            "/jwks.json" => self.keys(KeySets::all),
            path => match subscription_in(path) {
                Some(name) => self.keys(|sets| sets.of(&name)),
                None => text(StatusCode::NOT_FOUND, format!("only {PATHS}\n")),
            },
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut page = text(StatusCode::OK, self.metrics.render() + &(self.more)());
        page.headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(METRICS_TYPE));
        page
    }

    /// What `chosen` takes of what the worker read last. A set that may be too small is never given out: receivers would keep it.
    fn keys(&self, chosen: impl FnOnce(&KeySets) -> Option<Bytes>) -> Response<Full<Bytes>> {
        let sets = self.keys.borrow().clone();
        let Some(sets) = sets else {
            let why = "the keys have not been read yet\n".to_owned();
            return text(StatusCode::SERVICE_UNAVAILABLE, why);
        };
        let Some(set) = chosen(&sets) else {
            if !sets.are_all() {
                let why = "there are more keys than are published here: `posthaste secret jwks SUBSCRIPTION` has those of one\n";
                return text(StatusCode::SERVICE_UNAVAILABLE, why.to_owned());
            }
            let why = "no public key of a subscription of that name\n".to_owned();
            return text(StatusCode::NOT_FOUND, why);
        };
        let mut page = Response::new(Full::new(set));
        let headers = page.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(KEYS_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(KEYS_KEPT));
        page
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        match &*self.readiness.borrow() {
            Readiness::Ready => text(StatusCode::OK, "ready\n".to_owned()),
            Readiness::NotReady(reason) => {
                let reason = reason.escape_debug();
                text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("not ready: {reason}\n"),
                )
            }
        }
    }
}

/// The name in `/jwks/<name>.json`, whose letters may be written as `%` and two hexadecimal digits.
fn subscription_in(path: &str) -> Option<String> {
    let encoded = path.strip_prefix("/jwks/")?.strip_suffix(".json")?;
    let mut name = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        name.push(if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(name).ok()
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn recorder(buckets: &[(&str, &[f64])]) -> Result<PrometheusBuilder> {
    let mut builder = PrometheusBuilder::new()
        .set_buckets(SECONDS)
        .map_err(|error| metrics_error(&error))?;
    for (name, bounds) in buckets {
        let metric = Matcher::Full((*name).to_owned());
        builder = builder
            .set_buckets_for_metric(metric, bounds)
            .map_err(|error| metrics_error(&error))?;
    }
    Ok(builder)
}

fn metrics_error(error: &metrics_exporter_prometheus::BuildError) -> Error {
    Error::Io(
        "metrics".to_owned(),
        std::io::Error::other(error.to_string()),
    )
}

/// What there is to ask for.
pub const PATHS: &str = "/metrics, /healthz, /readyz, /jwks.json and /jwks/<subscription>.json";
const KEYS_TYPE: &str = "application/jwk-set+json";
/// A key that was ended because it leaked must be gone soon everywhere.
const KEYS_KEPT: &str = "max-age=60";
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0,
];
const UPKEEP: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const CONNECTION_LIMIT: usize = 32;
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(1);
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_LIMIT: usize = 64;
const BUFFER_LIMIT: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use metrics::with_local_recorder;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use uuid::Uuid;

    use super::*;
    use crate::jwks::Published;

    struct Running {
        address: SocketAddr,
        readiness: watch::Sender<Readiness>,
        keys: watch::Sender<Option<Arc<KeySets>>>,
        _serving: JoinSet<()>,
    }

    async fn running() -> Running {
        let recorder = recorder(&[("posthaste_batch_rows", &[1.0, 10.0])])
            .unwrap()
            .build_recorder();
        with_local_recorder(&recorder, || {
            metrics::counter!("posthaste_attempts_total", "outcome" => "accepted").increment(7);
            metrics::histogram!("posthaste_batch_rows").record(5.0);
        });
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let address = listener.address();
        let (readiness, watching) = watch::channel(Readiness::Ready);
        let (keys, published) = watch::channel(None);
        let mut serving = JoinSet::new();
        let more = || "posthaste_more 1\n".to_owned();
        serving.spawn(listener.serve(recorder.handle(), more, watching, published));
        Running {
            address,
            readiness,
            keys,
            _serving: serving,
        }
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        ask(
            address,
            &format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"),
        )
        .await
    }

    #[tokio::test]
    async fn metrics_are_rendered_with_the_buckets_of_the_table() {
        let worker = running().await;
        let page = get(worker.address, "/metrics").await;
        assert!(
            page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("version=0.0.4"),
            "{page}"
        );
        assert!(
            page.contains("posthaste_attempts_total{outcome=\"accepted\"} 7"),
            "{page}"
        );
        assert!(
            page.contains("posthaste_batch_rows_bucket{le=\"10\"} 1"),
            "{page}"
        );
        assert!(page.ends_with("\nposthaste_more 1\n"), "{page}");
    }

    #[tokio::test]
    async fn a_worker_that_is_not_ready_is_alive_and_says_why() {
        let worker = running().await;
        assert!(
            get(worker.address, "/readyz")
                .await
                .ends_with("\r\n\r\nready\n")
        );
        worker.readiness.send_replace(Readiness::NotReady(
            "the database is away\nreally".to_owned(),
        ));
        let page = get(worker.address, "/readyz").await;
        assert!(
            page.starts_with("HTTP/1.1 503 ")
                && page.ends_with("\r\n\r\nnot ready: the database is away\\nreally\n"),
            "{page}"
        );
        assert!(
            get(worker.address, "/healthz")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
    }

    #[tokio::test]
    async fn public_keys_are_given_out_once_they_are_known_all_or_one_subscriptions() {
        let worker = running().await;
        let address = worker.address;
        assert!(
            get(address, "/jwks.json")
                .await
                .starts_with("HTTP/1.1 503 ")
        );
        let key = |subscription: &str, id| Published {
            subscription: subscription.to_owned(),
            key_id: Uuid::from_u128(id),
            public_key: [7; 32],
        };
        let keys = [key("bank", 0xaa), key("St. Anna/ü", 0xbb)];
        worker
            .keys
            .send_replace(Some(Arc::new(KeySets::new(&keys))));
        for (path, has_first, has_second) in [
            ("/jwks.json", true, true),
            ("/jwks/bank.json", true, false),
            ("/jwks/%62ank.json", true, false),
            ("/jwks/St.%20Anna%2F%C3%BC.json", false, true),
        ] {
            let page = get(address, path).await;
            assert!(
                page.starts_with("HTTP/1.1 200 ")
                    && page.contains("content-type: application/jwk-set+json\r\n")
                    && page.contains("cache-control: max-age=60\r\n"),
                "{page}"
            );
            assert_eq!(
                (page.contains("0000aa\""), page.contains("0000bb\"")),
                (has_first, has_second),
                "{page}"
            );
        }
        for path in [
            "/jwks/nobody.json",
            "/jwks/bank",
            "/jwks/bank.json/",
            "/jwks/%.json",
            "/jwks/%ff.json",
            "/jwks/ba%+6ek.json",
        ] {
            let page = get(address, path).await;
            assert!(page.starts_with("HTTP/1.1 404 "), "{path}: {page}");
        }
    }

    #[tokio::test]
    async fn there_is_nothing_else_to_ask_for_and_nothing_to_change() {
        let worker = running().await;
        let address = worker.address;
        assert!(get(address, "/metrics/").await.starts_with("HTTP/1.1 404 "));
        let post =
            "POST /healthz HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let page = ask(address, post).await;
        assert!(
            page.starts_with("HTTP/1.1 405 ") && page.contains("allow: GET, HEAD\r\n"),
            "{page}"
        );
        let head = ask(
            address,
            "HEAD /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
    }

    #[tokio::test]
    async fn an_endless_request_head_is_cut_off() {
        let worker = running().await;
        let address = worker.address;
        let long = format!(
            "GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n",
            "y".repeat(2 * BUFFER_LIMIT)
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The other side may hang up before it has read everything.
        let _ = stream.write_all(long.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    }

    #[tokio::test]
    async fn scrapers_that_hang_do_not_keep_a_probe_out() {
        let worker = running().await;
        let address = worker.address;
        let mut hanging = Vec::new();
        for _ in 0..CONNECTION_LIMIT * 3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\n")
                .await
                .unwrap();
            hanging.push(stream);
        }
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
        // The first of them was closed to make room, long before its own time was up.
        let mut rest = Vec::new();
        let closed = timeout(HEAD_TIMEOUT / 2, hanging[0].read_to_end(&mut rest)).await;
        assert!(closed.is_ok());
        assert_eq!(rest, b"");
    }
}
