//! The one endpoint that everybody sends to, in a process of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use posthaste::Result;
use posthaste::trial::authority::Authority;
use posthaste::trial::partner::{Partner, PartnerConfig, Received, Replies, Reply};
use serde_json::{Value, json};

use super::part::{Orders, answer, micros, number, text};
use super::payload::place_in;
use super::player::Player;

/// The receiver's process, as the benchmark holds it.
pub(super) struct Receiver {
    pub(super) player: Player,
    pub(super) url: String,
    /// The certificate of its authority, in PEM; none over plain HTTP.
    pub(super) ca: Option<String>,
}

impl Receiver {
    /// Starts one. With `stamps` it notes when each body came; without, it only counts.
    pub(super) async fn start(tls: bool, stamps: bool) -> Result<Self> {
        let part = json!({ "part": "receiver", "tls": tls, "stamps": stamps });
        let mut player = Player::start("the receiver", &part).await?;
        let ready = player.hear(Duration::from_secs(10)).await?;
        let ca = ready["ca"].as_str().map(str::to_owned);
        Ok(Self {
            player,
            url: text(&ready, "url")?.to_owned(),
            ca,
        })
    }

    /// So many URLs of it, each with a path of its own.
    pub(super) fn urls(&self, count: usize) -> Vec<String> {
        (0..count)
            .map(|place| format!("{}/{place}", self.url))
            .collect()
    }

    /// Returns when it has counted so many requests.
    pub(super) async fn wait(&mut self, count: u64, within: Duration) -> Result<()> {
        self.player.tell(&format!("wait {count}")).await?;
        self.player.hear(within).await.map(drop)
    }

    /// How many requests came.
    pub(super) async fn count(&mut self) -> Result<u64> {
        self.player.tell("count").await?;
        number(&self.player.hear(Duration::from_secs(10)).await?, "count")
    }

    /// Place and time of each body that came, in their order.
    pub(super) async fn stamps(&mut self) -> Result<Vec<(u64, i64)>> {
        self.player.tell("stamps").await?;
        let told = self.player.hear(Duration::from_secs(10)).await?;
        let pairs = told["stamps"].as_array().into_iter().flatten();
        Ok(pairs
            .filter_map(|pair| Some((pair[0].as_u64()?, pair[1].as_i64()?)))
            .collect())
    }
}

/// Plays it.
pub(super) async fn play(part: &Value, mut orders: Orders) -> Result<()> {
    let stamps = Stamps::default();
    let (tls, ca) = if part["tls"] == true {
        let authority = Authority::new()?;
        // HTTP/1.1, so that it differs from plain HTTP by TLS alone.
        let config = authority.server_config(&["127.0.0.1"], false)?;
        (Some(config), Some(authority.pem().to_owned()))
    } else {
        (None, None)
    };
    let replies = if part["stamps"] == true {
        stamps.noting()
    } else {
        Reply::Status(200).into()
    };
    let config = PartnerConfig {
        tls,
        replies,
        keep: 0,
        ..PartnerConfig::default()
    };
    let partner = Partner::start(config).await?;
    answer(&json!({ "url": partner.url("/hook"), "ca": ca }))?;
    loop {
        let order = orders.next().await;
        match order.split_once(' ').unwrap_or((&order, "")) {
            ("wait", count) => {
                let count = count.parse().unwrap_or(0);
                partner.wait_for(count, Duration::from_hours(1)).await?;
                answer(&json!({ "count": partner.count() }))?;
            }
            ("count", _) => answer(&json!({ "count": partner.count() }))?,
            ("stamps", _) => answer(&json!({ "stamps": stamps.all() }))?,
            _ => {}
        }
    }
}

/// When each body came.
#[derive(Clone, Default)]
struct Stamps(Arc<Mutex<Vec<(u64, i64)>>>);

impl Stamps {
    fn noting(&self) -> Replies {
        let stamps = self.clone();
        Replies::by(move |received: &Received| {
            if let Some(place) = place_in(&received.body) {
                let mut all = stamps.0.lock().unwrap_or_else(PoisonError::into_inner);
                all.push((place, micros(received.at)));
            }
            Reply::Status(200)
        })
    }

    fn all(&self) -> Vec<(u64, i64)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
