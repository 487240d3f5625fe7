//! Many endpoints in one process: the path of a request decides how it is answered.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use posthaste::trial::partner::{Partner, PartnerConfig, Received, Replies, Reply};
use posthaste::{Error, Result};
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::sync::watch;

use super::part::{Orders, answer, micros, number, text};
use super::payload::place_in;
use super::player::Player;
use super::receiver::Receiver;

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// 200.
    Healthy,
    /// Takes the connection and the request, and never answers.
    Hangs,
    /// 429 and a Retry-After, at once.
    TooBusy,
    /// Nobody listens.
    Refuses,
    /// 200, and what comes is not counted.
    Flooded,
}

/// The receiver's process, and a port where nobody listens.
pub(super) struct Endpoints {
    /// Counts and stamps only what came to healthy endpoints.
    pub(super) receiver: Receiver,
    closed: (TcpSocket, SocketAddr),
}

impl Endpoints {
    /// Starts it. Healthy endpoints answer after `delay`.
    pub(super) async fn start(delay: Duration) -> Result<Self> {
        let part = json!({ "part": "endpoints", "delay_us": delay.as_micros() });
        let mut player = Player::start("the receiver", &part).await?;
        let ready = player.hear(Duration::from_secs(10)).await?;
        let receiver = Receiver {
            player,
            url: text(&ready, "url")?.to_owned(),
            ca: None,
        };
        let closed = closed_port().map_err(|error| Error::Io("a closed port".to_owned(), error))?;
        Ok(Self { receiver, closed })
    }

    /// The URL of the endpoint in this place.
    pub(super) fn url(&self, manner: Manner, place: usize) -> String {
        let base = &self.receiver.url;
        match manner {
            Manner::Healthy => format!("{base}/healthy/{place}"),
            Manner::Hangs => format!("{base}{HANGS}{place}"),
            Manner::TooBusy => format!("{base}{TOO_BUSY}{place}"),
            Manner::Refuses => format!("http://{}/{place}", self.closed.1),
            Manner::Flooded => format!("{base}{FLOODED}{place}"),
        }
    }
}

/// Bound, so that nobody else gets it, and not listening.
fn closed_port() -> std::io::Result<(TcpSocket, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// Plays it. Understands the same orders as the plain receiver.
pub(super) async fn play(part: &Value, mut orders: Orders) -> Result<()> {
    let notes = Notes::default();
    let delay = Duration::from_micros(number(part, "delay_us")?);
    let partner = Partner::start(PartnerConfig {
        replies: replies(&notes, delay),
        keep: 0,
        ..PartnerConfig::default()
    })
    .await?;
    answer(&json!({ "url": partner.url("") }))?;
    loop {
        let order = orders.next().await;
        match order.split_once(' ').unwrap_or((&order, "")) {
            ("wait", count) => {
                notes.reach(count.parse().unwrap_or(0)).await;
                answer(&json!({ "count": notes.count() }))?;
            }
            ("count", _) => answer(&json!({ "count": notes.count() }))?,
            ("stamps", _) => answer(&json!({ "stamps": notes.stamps() }))?,
            _ => {}
        }
    }
}

fn replies(notes: &Notes, delay: Duration) -> Replies {
    let notes = notes.clone();
    Replies::by(move |received| {
        if received.path.starts_with(HANGS) {
            return Reply::Hang;
        }
        if received.path.starts_with(TOO_BUSY) {
            return Reply::StatusWith {
                status: 429,
                headers: vec![("retry-after".to_owned(), RETRY_AFTER.to_owned())],
                body: Bytes::new(),
            };
        }
        if !received.path.starts_with(FLOODED) {
            notes.add(received);
        }
        let well = Reply::Status(200);
        if delay.is_zero() {
            well
        } else {
            Reply::Delay(delay, Box::new(well))
        }
    })
}

/// What came to healthy endpoints, and when.
#[derive(Clone, Default)]
struct Notes {
    stamps: Arc<Mutex<Vec<(u64, i64)>>>,
    count: Arc<watch::Sender<u64>>,
}

impl Notes {
    fn add(&self, received: &Received) {
        if let Some(place) = place_in(&received.body) {
            let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
            stamps.push((place, micros(received.at)));
        }
        self.count.send_modify(|count| *count += 1);
    }

    fn count(&self) -> u64 {
        *self.count.borrow()
    }

    async fn reach(&self, wanted: u64) {
        // We hold the sender, so the channel is never closed.
        let _ = self
            .count
            .subscribe()
            .wait_for(|count| *count >= wanted)
            .await;
    }

    fn stamps(&self) -> Vec<(u64, i64)> {
        self.stamps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

const HANGS: &str = "/hangs/";
const TOO_BUSY: &str = "/too-busy/";
const FLOODED: &str = "/flooded/";
/// Seconds.
const RETRY_AFTER: &str = "10";
