//! Looks at the database: once, or again and again.

use std::time::{Duration, Instant, SystemTime};

use posthaste::config::Config;
use posthaste::store::{COUNT_LIMIT, Figure, Store, WorkerAlive, connect_once, schema_state};
use posthaste::{Error, Result};
use tokio::sync::watch;

use super::reading::{Figures, Finding, Reading, Severity, Worker};
use super::screen::Lost;

/// What is known at the moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The newest that could be read.
    pub(super) reading: Reading,
    /// Why it is not newer.
    pub(super) lost: Option<Lost>,
}

/// Whoever looks.
pub(super) struct Looker {
    config: Config,
    store: Option<Store>,
    /// The last figures of subscriptions, and when they may be read again.
    subscriptions: Vec<Figure>,
    unread: Option<String>,
    rests_until: Option<Instant>,
}

impl Looker {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            store: None,
            subscriptions: Vec::new(),
            unread: None,
            rests_until: None,
        }
    }

    /// One look. What went wrong before does not matter: each failure is followed by a fresh start.
    pub(super) async fn look(&mut self) -> Result<Reading> {
        let store = match self.store.take() {
            Some(store) => store,
            None => opened(&self.config).await?,
        };
        let mut figures = Figures::default();
        add(&mut figures, store.figures(COUNT_LIMIT).await?);
        add(&mut figures, store.recent_rates(RATES_OVER).await?);
        if self.rests_until.is_none_or(|end| end <= Instant::now()) {
            self.read_subscriptions(&store).await;
        }
        add(&mut figures, self.subscriptions.clone());
        let reading = Reading {
            findings: store.findings().await?.into_iter().map(finding).collect(),
            figures,
            unread: self.unread.clone(),
            workers: store
                .workers_alive()
                .await?
                .into_iter()
                .map(worker)
                .collect(),
        };
        self.store = Some(store);
        Ok(reading)
    }

    /// Those that cannot be read keep nobody from seeing the rest. They may take a reading of all that waits: a database is not to be
    /// worn out by being watched.
    async fn read_subscriptions(&mut self, store: &Store) {
        let begun = Instant::now();
        match store.subscription_figures(SUBSCRIPTIONS, &[]).await {
            Ok(figures) => (self.subscriptions, self.unread) = (figures, None),
            Err(error) => self.unread = Some(error.to_string()),
        }
        let rest = (begun.elapsed() * REST).min(LONGEST_REST);
        self.rests_until = Some(Instant::now() + rest);
    }

    /// Looks on and on, beginning with what was seen at first, until nobody wants to know any more.
    pub(super) fn watch(mut self, first: Reading, every: Duration) -> watch::Receiver<Seen> {
        let seen = Seen {
            reading: first,
            lost: None,
        };
        let (sender, receiver) = watch::channel(seen);
        tokio::spawn(async move {
            let mut pause = every;
            loop {
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                let (begun, asked) = (Instant::now(), SystemTime::now());
                let looked = tokio::time::timeout(PATIENCE, self.look()).await;
                let looked = looked.unwrap_or_else(|_| {
                    Err(Error::Database(format!("no answer within {PATIENCE:?}")))
                });
                sender.send_modify(|seen| seen.update(looked, asked));
                pause = every.max(begun.elapsed() * SHARE);
            }
        });
        receiver
    }
}

impl Seen {
    fn update(&mut self, looked: Result<Reading>, asked: SystemTime) {
        match looked {
            Ok(reading) => {
                *self = Self {
                    reading,
                    lost: None,
                }
            }
            Err(error) => {
                let since = self.lost.as_ref().map_or(asked, |lost| lost.since);
                self.lost = Some(Lost {
                    since,
                    why: error.to_string(),
                });
            }
        }
    }
}

/// A database that has the schema that we know.
async fn opened(config: &Config) -> Result<Store> {
    let client = connect_once(config.required_database_url()?).await?;
    schema_state(&client).await?.as_ours()?;
    Store::open(config)
}

fn add(figures: &mut Figures, read: Vec<Figure>) {
    for Figure {
        figure,
        label,
        value,
    } in read
    {
        figures.add(figure, label, value);
    }
}

/// Seconds over which rates are taken.
const RATES_OVER: f64 = 10.0;
/// How many of the latest subscriptions are read, and of those that fail for longest.
const SUBSCRIPTIONS: usize = 20;
/// Their figures rest so many times as long as it took to read them.
const REST: u32 = 100;
const LONGEST_REST: Duration = Duration::from_mins(5);
/// Of the time, looking takes no more than one part in so many.
const SHARE: u32 = 5;
/// An answer that takes longer is told as none.
const PATIENCE: Duration = Duration::from_secs(20);

fn finding(found: posthaste::store::Finding) -> Finding {
    Finding {
        severity: Severity::named(&found.severity),
        code: found.finding,
        subscription: found.subscription,
        since: found.since,
        detail: found.detail,
        command: found.command,
        runbook: found.runbook,
    }
}

fn worker(alive: WorkerAlive) -> Worker {
    Worker {
        id: alive.worker_id,
        name: alive.name,
        version: alive.version,
        up_for: alive.up_for.as_secs_f64(),
        settings: alive.settings_digest,
        clock: alive.clock_difference,
    }
}
