//! A worker's presence in the database: its identity, its ear for new events, its sleep.
//!
//! All of it lives on one session. While the session stands, the worker's identity is locked and
//! everybody can see that it is alive; when the process, the host or the connection dies, the lock
//! falls, and others take over its leases at once.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};
use tokio_util::sync::CancellationToken;

use super::connect::{Listener, listen};
use super::{
    DOZE, HOLD_IDENTITY, NEXT_WORKER_ID, OBSERVE, REGISTER_WORKER, RESUME_WORKER, ROUSE, Statement,
    failed, unanswered,
};
use crate::config::{Config, Wake};
use crate::{Error, Result};

/// One session of a worker. When it is lost, the next one goes on under the same id if nobody has
/// declared the worker gone meanwhile; its leases then still stand.
#[derive(Debug)]
pub struct Presence {
    listener: Listener,
    worker_id: i32,
    may_doze: bool,
    dozing: bool,
}

/// How falling asleep went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doze {
    /// Asleep: look once more, then sleep; the next insert rings the bell.
    Asleep,
    /// An insert is under way, so look again soon.
    Restless,
    /// Another worker sleeps already, or none may: look at the poll interval. A ring is heard by all.
    Another,
}

impl Presence {
    /// Connects, locks an identity, registers under it, and listens. `digest` is what the settings come to, `before` the id that it had.
    pub async fn register(
        config: &Config,
        name: &str,
        digest: Option<&str>,
        before: Option<i32>,
    ) -> Result<Self> {
        let listener = listen(config.required_database_url()?).await?;
        let mut presence = Self {
            listener,
            worker_id: 0,
            may_doze: config.wake == Wake::Listen,
            dozing: false,
        };
        presence.worker_id = match before {
            Some(id) if presence.resume(id).await? => id,
            _ => presence.begin(config, name, digest).await?,
        };
        if presence.may_doze {
            presence
                .listener
                .client
                .batch_execute("listen posthaste")
                .await?;
        }
        Ok(presence)
    }

    /// Registers under a new id.
    async fn begin(&self, config: &Config, name: &str, digest: Option<&str>) -> Result<i32> {
        let worker_id = first(&self.ask(NEXT_WORKER_ID, &[]).await?)?;
        // Locked first: nobody ever sees a row whose lock is not held.
        if !first::<bool>(&self.ask(HOLD_IDENTITY, &[&worker_id]).await?)? {
            let held = format!("worker id {worker_id} is locked by someone else");
            return Err(Error::Database(held));
        }
        let lease = config.lease.as_secs_f64();
        let version = env!("CARGO_PKG_VERSION");
        let parameters: &[&(dyn ToSql + Sync)] = &[&worker_id, &name, &version, &lease, &digest];
        self.ask(REGISTER_WORKER, parameters).await?;
        Ok(worker_id)
    }

    /// Whether we may go on under an id that was ours.
    async fn resume(&self, worker_id: i32) -> Result<bool> {
        Ok(first(&self.ask(HOLD_IDENTITY, &[&worker_id]).await?)?
            && first(&self.ask(RESUME_WORKER, &[&worker_id]).await?)?)
    }

    /// The id that stands in leases and attempt rows.
    pub fn worker_id(&self) -> i32 {
        self.worker_id
    }

    /// Rings when a producer noticed that somebody sleeps.
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.listener.bell)
    }

    /// Cancelled when the session is lost, and the identity with it.
    pub fn lost(&self) -> CancellationToken {
        self.listener.lost.clone()
    }

    /// Whether producers know that somebody sleeps, thanks to us.
    pub fn is_dozing(&self) -> bool {
        self.dozing
    }

    /// Tries to fall asleep.
    pub async fn doze(&mut self) -> Result<Doze> {
        if !self.may_doze {
            return Ok(Doze::Another);
        }
        if !self.dozing {
            let rows = self.ask(DOZE, &[]).await?;
            match first(&rows)? {
                "asleep" => self.dozing = true,
                "another" => return Ok(Doze::Another),
                _ => return Ok(Doze::Restless),
            }
        }
        Ok(Doze::Asleep)
    }

    /// Wakes up: from now on inserts need not ring.
    pub async fn rouse(&mut self) -> Result<()> {
        if std::mem::take(&mut self.dozing) {
            self.ask(ROUSE, &[]).await?;
        }
        Ok(())
    }

    /// What finds out whether this worker is the one that observes how things stand. One at a time is, until its session ends.
    pub fn lookout(&self) -> Lookout {
        Lookout {
            client: Arc::downgrade(&self.listener.client),
            is_ours: false,
        }
    }

    async fn ask(
        &self,
        (name, sql): Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let asked = self.listener.client.query(sql, parameters);
        if let Ok(rows) = tokio::time::timeout(PATIENCE, asked).await {
            rows.map_err(failed(name))
        } else {
            self.listener.lost.cancel();
            Err(unanswered(name, PATIENCE))
        }
    }
}

/// Asks on a worker's session, beside the worker and without holding the session open.
#[derive(Debug)]
pub struct Lookout {
    client: Weak<Client>,
    is_ours: bool,
}

impl Lookout {
    /// Whether this worker is the one that observes.
    pub async fn is_ours(&mut self) -> Result<bool> {
        let (name, sql) = OBSERVE;
        if let (false, Some(client)) = (self.is_ours, self.client.upgrade()) {
            let asked = client.query(sql, &[]);
            let Ok(rows) = tokio::time::timeout(PATIENCE, asked).await else {
                return Err(unanswered(name, PATIENCE));
            };
            self.is_ours = first(&rows.map_err(failed(name))?)?;
        }
        Ok(self.is_ours)
    }
}

fn first<'r, T: tokio_postgres::types::FromSql<'r>>(rows: &'r [Row]) -> Result<T> {
    let row = rows
        .first()
        .ok_or_else(|| Error::Database("presence: no row".to_owned()))?;
    Ok(row.try_get(0)?)
}

const PATIENCE: Duration = Duration::from_secs(3);
