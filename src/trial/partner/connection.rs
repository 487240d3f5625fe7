//! One connection: TLS, HTTP by hyper, and the taking over of the socket for what hyper is too well-behaved to send.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ledger::Ledger;
use super::reply::{Answer, DRIP, Reply, ReplyBody, Seizure};
use super::{Received, Settings};
use crate::signature::{self, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP};

/// What all connections of a partner share.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) body_limit: usize,
    pub(super) ledger: Arc<Ledger>,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    pub(super) stopping: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Host {
    /// Accepts connections until the partner stops.
    pub(super) async fn listen(self, listener: TcpListener) {
        let stopping = self.stopping.clone();
        stopping
            .run_until_cancelled(self.accept_all(listener))
            .await;
    }

    async fn accept_all(self, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely: do not spin until some are free again.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let host = self.clone();
            let number = self.ledger.connect();
            self.tasks.spawn(async move {
                let stopping = host.stopping.clone();
                stopping
                    .run_until_cancelled(host.welcome(stream, number))
                    .await;
                drop(permit);
            });
        }
    }

    async fn welcome(self, stream: TcpStream, number: u64) {
        // Without it the answer to a pipelined request can wait 40 ms for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = self.acceptor.clone() else {
            return self.serve_http1(stream, number).await;
        };
        let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream));
        let Ok(Ok(stream)) = handshake.await else {
            return;
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.serve_http2(stream, number).await;
        } else {
            self.serve_http1(stream, number).await;
        }
    }

    async fn serve_http1(self, stream: impl Socket, number: u64) {
        let (seize, mut seized) = mpsc::channel(1);
        let mut connection = http1::Builder::new()
            .max_buf_size(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), self.service(number, seize));
        tokio::select! {
            _ = &mut connection => {}
            Some(seizure) = seized.recv() => {
                let stream = connection.into_parts().io.into_inner();
                // The peer hanging up is what ends most of these.
                let _ = seizure.act_on(stream).await;
            }
        }
    }

    async fn serve_http2(self, stream: impl Socket, number: u64) {
        let (seize, mut seized) = mpsc::channel(1);
        let connection = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), self.service(number, seize));
        tokio::select! {
            _ = connection => {}
            // Framed as it is, there is nothing raw to say; going out of scope closes the connection.
            Some(_) = seized.recv() => {}
        }
    }

    fn service(
        &self,
        connection: u64,
        seize: mpsc::Sender<Seizure>,
    ) -> impl HttpService<Incoming, ResBody = ReplyBody, Error = io::Error, Future: Send> + use<>
    {
        let desk = Desk {
            connection,
            body_limit: self.body_limit,
            ledger: Arc::clone(&self.ledger),
            seize,
        };
        let desk = Arc::new(desk);
        let current = RefCell::new(Current::of(&self.settings));
        service_fn(move |request| Arc::clone(&desk).serve(current.borrow_mut().settings(), request))
    }
}

/// The settings as this connection last saw them: looking whether they changed takes no lock.
struct Current {
    follow: watch::Receiver<Arc<Settings>>,
    seen: Arc<Settings>,
}

impl Current {
    fn of(settings: &watch::Receiver<Arc<Settings>>) -> Self {
        let mut follow = settings.clone();
        let seen = Arc::clone(&follow.borrow_and_update());
        Self { follow, seen }
    }

    fn settings(&mut self) -> Arc<Settings> {
        if self.follow.has_changed().unwrap_or(false) {
            self.seen = Arc::clone(&self.follow.borrow_and_update());
        }
        Arc::clone(&self.seen)
    }
}

/// Where the requests of one connection are taken in.
struct Desk {
    connection: u64,
    body_limit: usize,
    ledger: Arc<Ledger>,
    seize: mpsc::Sender<Seizure>,
}

impl Desk {
    async fn serve(
        self: Arc<Self>,
        settings: Arc<Settings>,
        request: Request<Incoming>,
    ) -> io::Result<Response<ReplyBody>> {
        let (head, body) = request.into_parts();
        let http2 = head.version == http::Version::HTTP_2;
        let reply = match Limited::new(body, self.body_limit).collect().await {
            Ok(body) => self.take_in(&settings, head, body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                self.ledger.refuse();
                Reply::Status(413)
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        match reply.prepare().await {
            Answer::Respond(response) => Ok(response),
            Answer::Hang => pending().await,
            Answer::Seize(Seizure::Reset) if http2 => Err(io::ErrorKind::ConnectionReset.into()),
            Answer::Seize(seizure) => {
                // It fails only where an earlier request took the connection, which is then about to end.
                let _ = self.seize.try_send(seizure);
                pending().await
            }
        }
    }

    fn take_in(&self, settings: &Settings, head: request::Parts, body: Bytes) -> Reply {
        if let Some(reply) = settings.replies.fixed()
            && !self.ledger.keeps()
            && settings.verifier.is_none()
            && settings.secrets.is_empty()
        {
            self.ledger.count();
            return reply.clone();
        }
        let received = self.ledger.enter(self.describe(settings, head, body));
        settings.replies.choose(&received)
    }

    fn describe(&self, settings: &Settings, head: request::Parts, body: Bytes) -> Received {
        let at = SystemTime::now();
        Received {
            sequence: 0, // the ledger gives it
            attempt: 1,  // and counts it
            connection: self.connection,
            at,
            version: head.version,
            method: head.method,
            path: head
                .uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_string(),
            id: text(&head.headers, WEBHOOK_ID).to_string(),
            timestamp: text(&head.headers, WEBHOOK_TIMESTAMP).to_string(),
            verified: verify(settings, &head.headers, &body, at),
            headers: head.headers,
            body,
        }
    }
}

fn verify(
    settings: &Settings,
    headers: &HeaderMap,
    body: &[u8],
    at: SystemTime,
) -> Option<Result<(), signature::Invalid>> {
    let now = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    if let Some(verifier) = &settings.verifier {
        return Some(
            verifier
                .verify_at(headers, body, now.cast_signed())
                .map(drop),
        );
    }
    if settings.secrets.is_empty() {
        return None;
    }
    Some(signature::verify(
        &settings.secrets,
        text(headers, WEBHOOK_ID),
        text(headers, WEBHOOK_TIMESTAMP),
        text(headers, WEBHOOK_SIGNATURE),
        body,
        now.cast_signed(),
        settings.tolerance,
    ))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

impl Seizure {
    async fn act_on(self, mut stream: impl Socket) -> io::Result<()> {
        match self {
            Self::Reset => stream.tcp().set_zero_linger()?,
            Self::Close => stream.shutdown().await?,
            Self::Raw(bytes) => {
                stream.write_all(&bytes).await?;
                stream.shutdown().await?;
            }
            Self::EndlessHead => {
                stream.write_all(STATUS_LINE).await?;
                let lines = "x-filler: all work and no play makes jack a dull boy\r\n".repeat(64);
                loop {
                    stream.write_all(lines.as_bytes()).await?;
                }
            }
            Self::DripHead => {
                let mut drip = tokio::time::interval(DRIP);
                for byte in STATUS_LINE
                    .iter()
                    .chain(b"x-drip: ")
                    .chain(std::iter::repeat(&b'x'))
                {
                    drip.tick().await;
                    stream.write_all(std::slice::from_ref(byte)).await?;
                    stream.flush().await?;
                }
            }
        }
        Ok(())
    }
}

/// A connection, with or without TLS.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

const STATUS_LINE: &[u8] = b"HTTP/1.1 200 OK\r\n";
const MOST_CONNECTIONS: usize = 4096;
const HEAD_LIMIT: usize = 64 << 10;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
