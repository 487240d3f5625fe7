//! The worker: what it needs to begin, and how it begins. Its work is told in `shift`.

mod forgetting;
mod health;
mod housekeeping;
mod lanes;
mod look;
mod observer;
mod ordering;
mod plan;
mod publishing;
mod recorder;
mod requests;
mod shift;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::shift::Shift;
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::directory::Directory;
use crate::egress::EgressPolicy;
use crate::endpoint::PlainHttp;
use crate::jwks::KeySets;
use crate::masks::Masks;
use crate::sender::{Sender, SenderConfig};
use crate::spans::Spans;
use crate::store::{Presence, Store, connect_once, schema_state};
use crate::telemetry::{self, Figures, Ledger, Page};
use crate::{Result, tls};

/// A worker, ready to run.
#[derive(Debug)]
pub struct Worker {
    config: Arc<Config>,
    store: Store,
    directory: Arc<Directory>,
    catalogue: Arc<Catalogue>,
    masks: Arc<Masks>,
    ledger: Arc<Ledger>,
    figures: watch::Sender<Arc<Figures>>,
    spans: Spans,
    ready: watch::Sender<bool>,
    published: watch::Sender<Option<Arc<KeySets>>>,
}

impl Worker {
    /// Checks the configuration and reads the keys and the trusted certificates. Does not connect yet.
    pub fn new(config: Config) -> Result<Self> {
        config.validate()?;
        config.keyring()?;
        let sender = Sender::new(sender_config(&config)?)?;
        let store = Store::open(&config)?;
        let spans = Spans::open(&config)?;
        let config = Arc::new(config);
        let directory = Arc::new(Directory::new(store.clone(), sender, Arc::clone(&config)));
        let catalogue = Arc::new(Catalogue::new(store.clone()));
        let masks = Arc::new(Masks::new(store.clone()));
        Ok(Self {
            config,
            store,
            directory,
            catalogue,
            masks,
            ledger: Arc::default(),
            figures: watch::Sender::default(),
            spans,
            ready: watch::Sender::new(false),
            published: watch::Sender::new(None),
        })
    }

    /// Whether the worker is registered and looks for work. Changes with the connection to Postgres.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// The public keys that partners verify with, as they were read last: soon after a change, and once a minute, while anybody
    /// holds what this returns. None before that.
    pub fn public_keys(&self) -> watch::Receiver<Option<Arc<KeySets>>> {
        self.published.subscribe()
    }

    /// What a page of metrics says besides what goes to the recorder of the `metrics` facade: the text for Prometheus, made anew by
    /// each call, of what the database says, while this worker is the one that reads it, and of single subscriptions.
    pub fn page(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let page = Page {
            ledger: Arc::clone(&self.ledger),
            most: self.config.metrics_top,
            named: self.config.metrics_subscriptions.clone(),
        };
        let (figures, directory) = (self.figures.subscribe(), Arc::clone(&self.directory));
        move || {
            let figures = figures.borrow().clone();
            page.text(&figures, |id| directory.name(id), Instant::now())
        }
    }

    /// Works until `stop` is cancelled, then finishes what is under way, up to the configured drain
    /// time, gives back the rest and returns. Fails only where it could not begin: no database, or
    /// another schema than this program's. What it counts goes to the recorder that was installed by then.
    pub async fn run(&self, stop: CancellationToken) -> Result<()> {
        telemetry::began(&self.config);
        // A database that takes the connection and says nothing must not make us deaf.
        if let Some(presence) = stop.run_until_cancelled(self.register()).await {
            let presence = presence?;
            let shipping = self.spans.ship();
            Shift::begin(self, presence).work(stop).await;
            shipping.finish().await;
        }
        Ok(())
    }

    async fn register(&self) -> Result<Presence> {
        self.check_schema().await?;
        let name = self.config.name_of_worker();
        come_in(&self.store, &self.config, &name, None).await
    }

    async fn check_schema(&self) -> Result<()> {
        let client = connect_once(self.config.required_database_url()?).await?;
        schema_state(&client).await?.as_ours()
    }
}

/// Registers. Before that, and so before anything is claimed, the lanes follow what was agreed while no worker ran: rates could be
/// exceeded once.
async fn come_in(
    store: &Store,
    config: &Config,
    name: &str,
    before: Option<i32>,
) -> Result<Presence> {
    // Somebody may hold a lane just now; housekeeping settles it later.
    if let Err(error) = store.settle_lanes().await {
        tracing::warn!(%error, "cannot settle the lanes yet");
    }
    Presence::register(config, name, Some(&config.digest()), before).await
}

fn plain_http(config: &Config) -> PlainHttp {
    if config.allow_http_loopback {
        PlainHttp::LoopbackOnly
    } else {
        PlainHttp::Never
    }
}

fn sender_config(config: &Config) -> Result<SenderConfig> {
    let extra_roots = config
        .ca_file
        .as_deref()
        .map(tls::certificates_in)
        .transpose()?;
    Ok(SenderConfig {
        egress: EgressPolicy::allowing(config.allow_networks.clone())?,
        plain_http: plain_http(config),
        extra_roots: extra_roots.unwrap_or_default(),
        proxy: config.proxy_url()?,
        source_addresses: config.source_addresses.clone(),
        connect_timeout: config.connect_timeout,
        idle_timeout: config.idle_timeout,
        max_response_head: config.max_response_head,
        max_response_body: config.max_response_body,
        max_snippet: config.max_snippet,
        ..SenderConfig::default()
    })
}
