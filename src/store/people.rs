//! What people ask of the database, rather than the worker.

use std::time::{Duration, SystemTime};

use super::terms::stored_secret;
use super::{
    ACCESS, LIVE_SECRETS, LOGIN, PUBLIC_KEYS, SERVER, SUBSCRIPTIONS_TO_CHECK, Store, StoredSecret,
    WORKERS_ALIVE, long,
};
use crate::jwks::Published;
use crate::{Error, Result};

/// A worker that is alive.
#[derive(Clone, Debug)]
pub struct WorkerAlive {
    /// Its id in attempt rows.
    pub worker_id: i32,
    /// What it calls itself.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Since when.
    pub up_for: Duration,
    /// What its settings come to: workers that are set alike have the same.
    pub settings_digest: Option<String>,
    /// Its clock minus the database's in seconds, once it has noted that.
    pub clock_difference: Option<f64>,
}

/// What there is to know of a server before working on it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its version as a number, such as 150018.
    pub version: i32,
    /// Its version as it calls it.
    pub version_text: String,
    /// Its clock minus ours, in seconds; half the round trip uncertain.
    pub clock_ahead: f64,
    /// How full the notification queue is, 0 to 1. A full one makes commits fail.
    pub notification_queue: f64,
    /// Whether tomorrow's partitions are there.
    pub has_partitions: bool,
}

/// A live secret, and whose it is.
#[derive(Debug)]
pub struct NamedSecret {
    /// The subscription that it signs for.
    pub subscription_id: i32,
    /// Its name.
    pub subscription: String,
    /// The secret as it is stored.
    pub secret: StoredSecret,
}

/// The login that a session runs as.
#[derive(Clone, Debug)]
pub struct Login {
    /// Its name.
    pub name: String,
    /// Whether nothing is refused to it.
    pub is_superuser: bool,
    /// Which of the roles `posthaste_owner` and `posthaste_admin` it is a member of.
    pub member_of: Vec<String>,
}

/// A grant, or what guards them, that is not as the schema says.
#[derive(Clone, Debug)]
pub struct Deviation {
    /// What the grant is on, such as `table outbox`.
    pub object: String,
    /// Who holds it, or should.
    pub grantee: String,
    /// Which it is.
    pub privilege: String,
    /// Whether it is there and should not be, or the other way round.
    pub problem: String,
}

/// Where counting stops for people.
pub const COUNT_LIMIT: usize = 100_000;

impl Store {
    /// The workers that are alive.
    pub async fn workers_alive(&self) -> Result<Vec<WorkerAlive>> {
        let rows = self.query(WORKERS_ALIVE, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(WorkerAlive {
                    worker_id: row.try_get("worker_id")?,
                    name: row.try_get("name")?,
                    version: row.try_get("version")?,
                    up_for: Duration::try_from_secs_f64(row.try_get("up_for")?).unwrap_or_default(),
                    settings_digest: row.try_get("settings_digest")?,
                    clock_difference: row.try_get("clock_difference")?,
                })
            })
            .collect()
    }

    /// What there is to know of the server.
    pub async fn server(&self) -> Result<Server> {
        let asked = SystemTime::now();
        let rows = self.query(SERVER, &[]).await?;
        let row = only(&rows)?;
        // The server read its clock somewhere between our two readings.
        let trip = asked.elapsed().unwrap_or_default().as_secs_f64();
        let ours = asked
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        Ok(Server {
            version: row.try_get("version")?,
            version_text: row.try_get("version_text")?,
            clock_ahead: row.try_get::<_, f64>("clock")? - (ours + trip / 2.0),
            notification_queue: row.try_get("notification_queue")?,
            has_partitions: row.try_get("tomorrow")?,
        })
    }

    /// Every live secret, up to [`COUNT_LIMIT`].
    pub async fn live_secrets(&self) -> Result<Vec<NamedSecret>> {
        let mut secrets = Vec::new();
        for row in &self.query(LIVE_SECRETS, &[&long(COUNT_LIMIT)]).await? {
            if let Some(secret) = stored_secret(row)? {
                secrets.push(NamedSecret {
                    subscription_id: row.try_get("subscription_id")?,
                    subscription: row.try_get("name")?,
                    secret,
                });
            }
        }
        Ok(secrets)
    }

    /// The public keys that verify our signatures, at most `limit`.
    pub async fn public_keys(&self, limit: usize) -> Result<Vec<Published>> {
        let rows = self.query(PUBLIC_KEYS, &[&long(limit)]).await?;
        rows.iter().map(published).collect()
    }

    /// Subscriptions that were not removed, at most `limit` with ids beyond `after`.
    pub async fn subscriptions_to_check(&self, after: i32, limit: usize) -> Result<Vec<i32>> {
        let rows = self
            .query(SUBSCRIPTIONS_TO_CHECK, &[&after, &long(limit)])
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The login that our sessions run as.
    pub async fn login(&self) -> Result<Login> {
        let rows = self.query(LOGIN, &[]).await?;
        let row = only(&rows)?;
        Ok(Login {
            name: row.try_get("login")?,
            is_superuser: row.try_get("is_superuser")?,
            member_of: row.try_get("member_of")?,
        })
    }

    /// Where grants differ from what the schema says.
    pub async fn access_deviations(&self) -> Result<Vec<Deviation>> {
        let rows = self.query(ACCESS, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(Deviation {
                    object: row.try_get("object")?,
                    grantee: row.try_get("grantee")?,
                    privilege: row.try_get("privilege")?,
                    problem: row.try_get("problem")?,
                })
            })
            .collect()
    }
}

/// A public key as its view tells it.
pub(super) fn published(row: &tokio_postgres::Row) -> Result<Published> {
    let key: &[u8] = row.try_get("public_key")?;
    let wrong = |_| Error::Database("a public key has not 32 bytes".to_owned());
    Ok(Published {
        subscription: row.try_get("subscription")?,
        key_id: row.try_get("key_id")?,
        public_key: key.try_into().map_err(wrong)?,
    })
}

fn only(rows: &[tokio_postgres::Row]) -> Result<&tokio_postgres::Row> {
    rows.first()
        .ok_or_else(|| Error::Database("a statement returned no row".to_owned()))
}
