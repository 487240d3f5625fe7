//! One HTTP connection: hyper's side of it, the task that drives it, and its end.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::fault::Fault;
use super::stream::{Allowance, Stream};

/// What we send: a body that is at hand.
pub(super) type Body = Full<Bytes>;

/// A connection that speaks HTTP. With its last clone the connection ends.
pub(super) struct Link {
    pub(super) remote: IpAddr,
    pub(super) opened: Instant,
    pub(super) last_used: Instant,
    protocol: Protocol,
    allowance: Arc<Allowance>,
    limits: Limits,
    tether: Arc<DropGuard>,
}

enum Protocol {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
    /// An HTTP/1.1 connection that ended with a request on its way to it.
    Over,
}

/// How much of a response is taken in, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) head: usize,
    pub(super) body: usize,
}

/// Why there is no response head.
pub(super) enum Unanswered {
    /// Nothing of the request was written: here it is again. No error where the connection had ended before.
    Unsent(Box<Request<Body>>, Option<hyper::Error>),
    /// The request, or a part of it, may have arrived.
    Lost(hyper::Error),
}

impl Link {
    /// Speaks the protocol that the TLS handshake settled on.
    pub(super) async fn open(
        stream: Stream,
        remote: IpAddr,
        limits: Limits,
    ) -> Result<Self, Fault> {
        let end = CancellationToken::new();
        let tether = Arc::new(end.clone().drop_guard());
        let allowance = stream.allowance();
        let protocol = if stream.speaks_h2() {
            allowance.set(H2_OWN_FRAMES);
            open_h2(stream, limits, end).await
        } else {
            allowance.lift();
            open_h1(stream, limits, end).await
        };
        let protocol = protocol.map_err(|error| Fault::http(&error, None))?;
        let now = Instant::now();
        Ok(Self {
            remote,
            opened: now,
            last_used: now,
            protocol,
            allowance,
            limits,
            tether,
        })
    }

    /// Sends one request and waits for the response head, without a deadline. Dropping the future ends the connection
    /// (HTTP/1.1) or the stream
    /// (HTTP/2). `body` is how much of the response's body may be read.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
        body: usize,
    ) -> Result<Response<Incoming>, Unanswered> {
        let answered = match &mut self.protocol {
            Protocol::H1(sender) => {
                self.allowance.set(2 * self.limits.head);
                let mut answer = pin!(sender.try_send_request(request));
                let answered = tokio::select! {
                    biased;
                    answered = &mut answer => answered,
                    // What reaches hyper's channel to a connection just as that ends is found by nobody, and comes back only when
                    // nobody can send on it any more (hyperium/hyper#4122).
                    Err(_) = sender.ready() => {
                        self.protocol = Protocol::Over;
                        answer.await
                    }
                };
                if answered.is_ok() {
                    self.allowance.lift(); // from here on, only what is asked for is read
                }
                answered
            }
            Protocol::H2(sender) => {
                self.allowance.add(self.limits.h2_response(body));
                sender.try_send_request(request).await
            }
            Protocol::Over => return Err(Unanswered::Unsent(Box::new(request), None)),
        };
        answered.map_err(|mut error| match error.take_message() {
            Some(request) => Unanswered::Unsent(Box::new(request), Some(error.into_error())),
            None => Unanswered::Lost(error.into_error()),
        })
    }

    /// What `error` means on this connection.
    pub(super) fn fault(&self, error: &hyper::Error) -> Fault {
        let sent_a_head_full = self.is_h1() && self.allowance.is_below(self.limits.head + 1);
        let over = self.allowance.is_below(0) || (error.is_parse() && sent_a_head_full);
        Fault::http(error, over.then_some(self.limits.head))
    }

    /// Another handle on an HTTP/2 connection. HTTP/1.1 cannot be shared.
    pub(super) fn share(&self) -> Option<Self> {
        let Protocol::H2(sender) = &self.protocol else {
            return None;
        };
        Some(Self {
            protocol: Protocol::H2(sender.clone()),
            allowance: Arc::clone(&self.allowance),
            tether: Arc::clone(&self.tether),
            ..*self
        })
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tether, &other.tether)
    }

    pub(super) fn is_h1(&self) -> bool {
        !matches!(self.protocol, Protocol::H2(_))
    }

    pub(super) fn is_closed(&self) -> bool {
        match &self.protocol {
            Protocol::H1(sender) => sender.is_closed(),
            Protocol::H2(sender) => sender.is_closed(),
            Protocol::Over => true,
        }
    }

    /// Whether the connection will take another request, once its driver has seen the end of the last response. A peer
    /// that answered without reading the whole request never lets it get there.
    pub(super) async fn is_ready(&mut self) -> bool {
        match &mut self.protocol {
            Protocol::H1(sender) => matches!(timeout(SETTLE, sender.ready()).await, Ok(Ok(()))),
            Protocol::H2(sender) => sender.is_ready(),
            Protocol::Over => false,
        }
    }
}

impl Limits {
    /// What one response may cost on an HTTP/2 connection, frames and all.
    fn h2_response(self, body: usize) -> usize {
        2 * self.head + body + H2_STREAM_WINDOW as usize + H2_OWN_FRAMES
    }
}

async fn open_h1(
    stream: Stream,
    limits: Limits,
    end: CancellationToken,
) -> hyper::Result<Protocol> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(limits.head);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    tokio::spawn(until_over(connection, end));
    Ok(Protocol::H1(sender))
}

async fn open_h2(
    stream: Stream,
    limits: Limits,
    end: CancellationToken,
) -> hyper::Result<Protocol> {
    let mut builder = http2::Builder::new(Tethered(end.clone()));
    builder
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_frame_size(H2_FRAME);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    tokio::spawn(until_over(connection, end));
    Ok(Protocol::H2(sender))
}

/// Runs a connection's task to its own end, or to a little after the last user of the connection is gone: time for a
/// proper goodbye, which a peer that reads no more would otherwise put off for ever.
async fn until_over(task: impl Future, end: CancellationToken) {
    tokio::pin!(task);
    tokio::select! {
        biased;
        _ = &mut task => return,
        () = end.cancelled() => {}
    }
    let _ = timeout(GOODBYE, task).await;
}

/// Runs the tasks that hyper wants for an HTTP/2 connection no longer than that connection.
#[derive(Clone)]
struct Tethered(CancellationToken);

impl<F> Executor<F> for Tethered
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        tokio::spawn(until_over(task, self.0.clone()));
    }
}

const SETTLE: Duration = Duration::from_millis(50);
const GOODBYE: Duration = Duration::from_secs(1);

const H2_FRAME: u32 = 16 * 1024;
const H2_STREAM_WINDOW: u32 = 32 * 1024;
const H2_CONNECTION_WINDOW: u32 = 256 * 1024;
/// For settings, pings and window updates.
const H2_OWN_FRAMES: usize = 32 * 1024;
