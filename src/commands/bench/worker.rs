//! The worker in a process of its own: `posthaste run`, and what its `/metrics` tell.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::try_join_all;
use posthaste::config::{Config, SETTINGS};
use posthaste::{Error, Result};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::player::Player;
use crate::commands::run;

/// The worker's process, as the benchmark holds it.
pub(super) struct Worker {
    pub(super) player: Player,
    metrics: SocketAddr,
}

impl Worker {
    /// Starts one with this configuration; returns when it is registered.
    pub(super) async fn start(config: &Config) -> Result<Self> {
        let part = json!({ "part": "worker", "settings": settings(config)? });
        let mut player = Player::start("the worker", &part).await?;
        let mut metrics = None;
        loop {
            let line = player.hear(Duration::from_secs(30)).await?;
            let fields = &line["fields"];
            if let Some(address) = fields["address"].as_str() {
                metrics = address.parse().ok();
            }
            if let (Some(metrics), true) = (metrics, fields["message"] == "worker registered") {
                player.stop_listening();
                return Ok(Self { player, metrics });
            }
        }
    }

    /// Starts so many at once; returns when all are registered.
    pub(super) async fn start_many(config: &Config, count: usize) -> Result<Vec<Self>> {
        try_join_all((0..count).map(|_| Self::start(config))).await
    }

    /// Every sample of `/metrics` but the buckets, by name and labels.
    pub(super) async fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let mut samples = self.samples().await?;
        samples.retain(|name, _| !name.contains("_bucket"));
        Ok(samples)
    }

    /// Every sample of `/metrics`, by name and labels.
    pub(super) async fn samples(&self) -> Result<BTreeMap<String, f64>> {
        let page = page(self.metrics).await;
        let page = page.map_err(|error| Error::Io("the worker's metrics".to_owned(), error))?;
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(samples.collect())
    }
}

/// Plays it.
pub(super) async fn play(part: &Value) -> Result<ExitCode> {
    let mut config = Config::default();
    for (key, value) in part["settings"].as_object().into_iter().flatten() {
        config.set(key, value.as_str().unwrap_or_default())?;
    }
    run::run(config).await
}

/// All that is set, as text.
fn settings(config: &Config) -> Result<Map<String, Value>> {
    let mut settings = Map::new();
    for setting in SETTINGS.iter().filter(|setting| !setting.is_secret()) {
        let text = config.text(setting.key)?;
        if !text.is_empty() {
            settings.insert(setting.key.to_owned(), text.into());
        }
    }
    let secrets = [
        ("database_url", &config.database_url),
        ("keys", &config.keys),
    ];
    for (key, secret) in secrets {
        if let Some(secret) = secret {
            settings.insert(key.to_owned(), secret.reveal().into());
        }
    }
    Ok(settings)
}

async fn page(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut page = String::new();
    stream.take(PAGE_LIMIT).read_to_string(&mut page).await?;
    Ok(page)
}

const PAGE_LIMIT: u64 = 1 << 20;
