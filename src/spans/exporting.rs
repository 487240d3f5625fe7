//! From the queue of spans to the collector: OTLP, protobuf over HTTP, in batches.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use metrics::counter;
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::telemetry::list::SPANS_DROPPED;
use crate::{Error, Result, tls};

/// The near end: spans that are over.
#[derive(Debug)]
pub(super) struct Queue {
    /// The share of events without a trace that get one.
    pub(super) ratio: f64,
    spans: mpsc::Sender<SpanData>,
    /// Spans that are neither sent nor dropped yet.
    held: Arc<AtomicU64>,
    /// Until they are shipped.
    far_end: Mutex<Option<FarEnd>>,
}

#[derive(Debug)]
struct FarEnd {
    spans: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    problem: Problem,
    held: Arc<AtomicU64>,
}

/// Why the last request failed, where no answer came: the exporter does not tell.
type Problem = Arc<Mutex<Option<String>>>;

/// Sends spans until it is told to finish.
#[derive(Debug)]
pub(super) struct Shipper {
    task: JoinHandle<()>,
    stop: CancellationToken,
    held: Arc<AtomicU64>,
}

impl Queue {
    pub(super) fn new(config: &Config, endpoint: &str) -> Result<Self> {
        let (spans, received) = mpsc::channel(QUEUED);
        let (held, problem) = (Arc::new(AtomicU64::new(0)), Problem::default());
        let far_end = FarEnd {
            spans: received,
            exporter: exporter(config, endpoint, Arc::clone(&problem))?,
            problem,
            held: Arc::clone(&held),
        };
        Ok(Self {
            ratio: config.trace_ratio,
            spans,
            held,
            far_end: Mutex::new(Some(far_end)),
        })
    }

    /// Where there is no room, the span is dropped and counted.
    pub(super) fn put(&self, span: SpanData) {
        self.held.fetch_add(1, Ordering::AcqRel);
        if self.spans.try_send(span).is_err() {
            self.held.fetch_sub(1, Ordering::AcqRel);
            counter!(SPANS_DROPPED).increment(1);
        }
    }

    /// `None` where somebody has done so before.
    pub(super) fn ship(&self) -> Option<Shipper> {
        let mut far_end = self.far_end.lock().unwrap_or_else(PoisonError::into_inner);
        let (far_end, stop) = (far_end.take()?, CancellationToken::new());
        Some(Shipper {
            task: tokio::spawn(far_end.ship(stop.clone())),
            stop,
            held: Arc::clone(&self.held),
        })
    }
}

impl Shipper {
    pub(super) async fn finish(mut self) {
        self.stop.cancel();
        if timeout(LAST_CALL, &mut self.task).await.is_err() {
            self.task.abort();
            // Once it has stopped, nobody else counts.
            let _ = self.task.await;
        }
        counter!(SPANS_DROPPED).increment(self.held.swap(0, Ordering::AcqRel));
    }
}

impl FarEnd {
    async fn ship(mut self, stop: CancellationToken) {
        let mut failing = false;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let first = stop.run_until_cancelled(self.spans.recv_many(&mut batch, BATCH));
            match first.await {
                Some(0) => return,
                Some(_) => {
                    let gathering = stop.run_until_cancelled(self.gather(&mut batch));
                    gathering.await;
                }
                None => {
                    // What is queued by now, and nothing more.
                    self.spans.close();
                    if self.spans.recv_many(&mut batch, BATCH).await == 0 && batch.is_empty() {
                        return;
                    }
                }
            }
            failing = self.send(std::mem::take(&mut batch), failing).await;
        }
    }

    /// Takes in what else comes within a moment.
    async fn gather(&mut self, batch: &mut Vec<SpanData>) {
        let until = Instant::now() + GATHER;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            match timeout_at(until, self.spans.recv_many(batch, room)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Whether it failed. That is said once, until it works again.
    async fn send(&self, batch: Vec<SpanData>, failed_before: bool) -> bool {
        let spans = batch.len() as u64;
        let sent = timeout(EXPORT_LIMIT, self.exporter.export(batch)).await;
        self.held.fetch_sub(spans, Ordering::AcqRel);
        let failure = match sent {
            Ok(Ok(())) => return false,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {EXPORT_LIMIT:?}"),
        };
        counter!(SPANS_DROPPED).increment(spans);
        if !failed_before {
            let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
            let error: String = problem
                .take()
                .unwrap_or(failure)
                .chars()
                .take(300)
                .collect();
            tracing::warn!(error, spans, "spans cannot be sent; they are dropped");
        }
        true
    }
}

fn exporter(config: &Config, endpoint: &str, problem: Problem) -> Result<SpanExporter> {
    let own = config
        .ca_file
        .as_deref()
        .map(tls::certificates_in)
        .transpose()?;
    let tls = tls::client_config(&own.unwrap_or_default())?;
    let client = Client {
        tls: TlsConnector::from(Arc::new(tls)),
        problem,
    };
    let headers = match &config.otlp_headers {
        Some(headers) => headers_of(headers.reveal())?,
        None => HashMap::new(),
    };
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_headers(headers)
        .with_timeout(EXPORT_LIMIT)
        .build()
        .map_err(|error| Error::Config(format!("otlp_endpoint: {error}")))?;
    let instance = config.name_of_worker();
    let resource = Resource::builder()
        .with_service_name(
            config
                .service_name
                .clone()
                .unwrap_or("posthaste".to_owned()),
        )
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .build();
    exporter.set_resource(&resource);
    Ok(exporter)
}

/// Reads `name=value,name=value`; values may be percent-encoded. An error never shows a value.
fn headers_of(text: &str) -> Result<HashMap<String, String>> {
    let header = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let (name, value) = (name.trim(), decoded(value.trim())?);
        HeaderName::try_from(name).ok()?;
        HeaderValue::try_from(&value).ok()?;
        Some((name.to_owned(), value))
    };
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let headers: Option<_> = parts.map(header).collect();
    headers.ok_or_else(|| {
        Error::Config("otlp_headers: must be name=value, separated by commas".to_owned())
    })
}

fn decoded(value: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(value.len()), value.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = after;
            }
            (b'%', _) => return None,
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// One request, one connection: there is at most one a second.
struct Client {
    tls: TlsConnector,
    problem: Problem,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = match timeout(REQUEST_LIMIT, self.send(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {REQUEST_LIMIT:?}").into()),
        };
        let problem = answer.as_ref().err().map(ToString::to_string);
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        answer
    }
}

impl Client {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let uri = request.uri().clone();
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await?;
        if is_tls {
            let name = ServerName::try_from(host.to_owned())?;
            let stream = self.tls.connect(name, stream).await?;
            exchange(TokioIo::new(stream), &uri, request).await
        } else {
            exchange(TokioIo::new(stream), &uri, request).await
        }
    }
}

async fn exchange<S>(
    stream: S,
    uri: &Uri,
    mut request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = Uri::try_from(path)?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::try_from(authority)?);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) = http1::handshake(stream).await?;
    // Ends with this exchange, however that ends.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = sender.send_request(request.map(Full::new)).await;
    let (head, body) = answer?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// Spans that wait, at most.
const QUEUED: usize = 2048;
/// Spans in one request.
const BATCH: usize = 512;
/// How long a batch waits for more.
const GATHER: Duration = Duration::from_secs(1);
/// One request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// One batch, however often it is tried.
const EXPORT_LIMIT: Duration = Duration::from_secs(10);
/// How long a worker that stops waits for its spans to be sent.
const LAST_CALL: Duration = Duration::from_secs(2);
const MAX_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn headers_are_read_as_the_standard_variable_has_them_and_never_shown() {
        let headers = headers_of("api-key=a%20b, x-team = blue=1 ,").unwrap();
        assert_eq!(headers["api-key"], "a b");
        assert_eq!(headers["x-team"], "blue=1");
        for wrong in [
            "hidden",
            "a b=hidden",
            "a=hidden%2",
            "a=hidden%zz",
            "a=hidden%0a",
        ] {
            let error = headers_of(wrong).unwrap_err().to_string();
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
