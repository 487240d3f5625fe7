//! A partner: a real receiver of webhooks over HTTPS or plain HTTP on the loopback interface, which remembers what it got,
//! verifies it, and answers as well or as badly as it is told.

mod connection;
mod ledger;
mod reply;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::ledger::Counts;
pub use self::reply::{Replies, Reply};

use self::connection::Host;
use self::ledger::Ledger;
use crate::secret::SigningSecret;
use crate::signature::Invalid;
use crate::verifier::Verifier;
use crate::{Error, Result};

/// A running receiver. Dropping it stops it as [`stop`](Self::stop) does, without waiting.
pub struct Partner {
    base_url: String,
    addr: SocketAddr,
    ledger: Arc<Ledger>,
    settings: watch::Sender<Arc<Settings>>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// How a partner starts. The default: plain HTTP, any port of 127.0.0.1, no secrets, 200 to everything, the last 10,000 requests kept.
pub struct PartnerConfig {
    /// Where to listen; port 0 picks a free one.
    pub addr: SocketAddr,
    /// The host in [`Partner::url`]; over TLS it must be a name of the certificate.
    pub host: String,
    /// A certificate and its key make it HTTPS. HTTP/2 is spoken where the configuration offers it by ALPN.
    pub tls: Option<Arc<ServerConfig>>,
    /// Requests are verified where this is not empty.
    pub secrets: Vec<SigningSecret>,
    /// In place of `secrets`: verifies as a receiver in Rust would, by public keys, too. It goes by its own tolerance.
    pub verifier: Option<Verifier>,
    /// How far `webhook-timestamp` may be from now.
    pub tolerance: Duration,
    /// What to answer.
    pub replies: Replies,
    /// How many requests to remember, and of how many ids to count the attempts; the oldest are forgotten first. With 0 nothing
    /// is remembered, every attempt counts as the first, and a request costs little: for benchmarks.
    pub keep: usize,
    /// Larger bodies, in bytes, are answered with 413 and not remembered.
    pub body_limit: usize,
}

impl Default for PartnerConfig {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            host: Ipv4Addr::LOCALHOST.to_string(),
            tls: None,
            secrets: Vec::new(),
            verifier: None,
            tolerance: Duration::from_mins(5),
            replies: Reply::Status(200).into(),
            keep: 10_000,
            body_limit: 2 << 20,
        }
    }
}

/// One request whose body arrived whole.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its place among all requests of this partner, from 1.
    pub sequence: u64,
    /// The connection that it came by, from 1 in the order of accepting.
    pub connection: u64,
    /// When the body was complete.
    pub at: SystemTime,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// All headers, names in lower case.
    pub headers: HeaderMap,
    /// `webhook-id`; empty where it is missing or not ASCII.
    pub id: String,
    /// `webhook-timestamp`; empty where it is missing or not ASCII.
    pub timestamp: String,
    /// How often this id has come, this time included.
    pub attempt: u32,
    /// The bytes that were sent.
    pub body: Bytes,
    /// What the signature is worth; `None` where the partner holds no secret.
    pub verified: Option<std::result::Result<(), Invalid>>,
}

impl Partner {
    /// Listens, and serves in the background until it is stopped.
    #[expect(
        clippy::unused_async,
        reason = "it may only be called where tokio runs"
    )]
    pub async fn start(config: PartnerConfig) -> Result<Self> {
        let refused = |error| {
            Error::Io(
                format!("the partner cannot listen on {}", config.addr),
                error,
            )
        };
        let listener = listen(config.addr).map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        let scheme = if config.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let settings = Settings {
            secrets: config.secrets,
            verifier: config.verifier,
            tolerance: config.tolerance,
            replies: config.replies,
        };
        let (settings, follow) = watch::channel(Arc::new(settings));
        let partner = Self {
            base_url: format!("{scheme}://{}:{}", config.host, addr.port()),
            addr,
            ledger: Arc::new(Ledger::new(config.keep)),
            settings,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let host = Host {
            acceptor: config.tls.map(TlsAcceptor::from),
            body_limit: config.body_limit,
            ledger: Arc::clone(&partner.ledger),
            settings: follow,
            stopping: partner.stopping.clone(),
            tasks: partner.tasks.clone(),
        };
        partner.tasks.spawn(host.listen(listener));
        Ok(partner)
    }

    /// The URL of a path, which begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The requests that are remembered, in the order of their arrival.
    pub fn received(&self) -> Vec<Arc<Received>> {
        self.ledger.received()
    }

    /// How many requests arrived whole, also those that are not remembered.
    pub fn count(&self) -> u64 {
        self.counts().requests
    }

    /// All that is counted.
    pub fn counts(&self) -> Counts {
        self.ledger.counts()
    }

    /// Returns as soon as [`count`](Self::count) is at least `count`. Fails when that takes longer than `within`, and tells how
    /// many came.
    pub async fn wait_for(&self, count: u64, within: Duration) -> Result<()> {
        let waited = tokio::time::timeout(within, self.ledger.reach(count)).await;
        waited.map_err(|elapsed| {
            let came = self.count();
            let what = format!("the partner got {came} of {count} requests within {within:?}");
            Error::Io(what, elapsed.into())
        })
    }

    /// Changes what later requests are answered. Those that are being answered, or hang, are left alone.
    pub fn set_reply(&self, replies: impl Into<Replies>) {
        let replies = replies.into();
        self.settings
            .send_modify(|settings| Arc::make_mut(settings).replies = replies);
    }

    /// Changes the secrets that later requests are verified with.
    pub fn set_secrets(&self, secrets: Vec<SigningSecret>) {
        self.settings
            .send_modify(|settings| Arc::make_mut(settings).secrets = secrets);
    }

    /// Stops listening and cuts every connection; returns once the port is free. What was received can still be read.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// What can be changed while it runs.
#[derive(Clone)]
struct Settings {
    secrets: Vec<SigningSecret>,
    verifier: Option<Verifier>,
    tolerance: Duration,
    replies: Replies,
}

/// Listens with room for many who knock at once: a worker with many subscriptions to one host opens thousands of connections in a
/// moment, and what finds no room waits for a second or longer before it knocks again.
fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(KNOCKING)
}

/// Connections that may wait to be taken; the system may allow fewer.
const KNOCKING: u32 = 8192;

#[cfg(test)]
mod tests;
