//! Where it is measured: a server, a fresh database for each turn, and a folder for files.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use posthaste::config::{Config, Hidden};
use posthaste::secret::{Keyring, SigningSecret};
use posthaste::store::{self, Store, connect_once};
use posthaste::trial::postgres::{Cluster, Durability, Options};
use posthaste::{Error, Result};
use tokio::time::Instant;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::Plan;
use super::figures::float;
use super::payload::{EVENT_TYPE, payload};
use super::receiver::Receiver;
use super::usage;

/// The server and all that was made on it.
pub(super) struct Site {
    cluster: Cluster,
    folder: Folder,
    keys: Hidden,
    /// Databases to remove; the first one is the template of the others.
    databases: Mutex<Vec<String>>,
}

impl Site {
    /// Obtains a server and prepares the database that every turn gets a copy of.
    pub(super) async fn open(plan: &Plan) -> Result<Self> {
        let given = plan
            .config
            .database_url
            .as_ref()
            .map(|url| url.reveal().to_owned());
        if plan.statements && given.is_some() {
            let why = "--statements needs a private server, whose libraries it may choose";
            return Err(Error::Config(why.to_owned()));
        }
        let preload = ("shared_preload_libraries", "pg_stat_statements");
        let settings = NO_CHECKPOINT
            .into_iter()
            .chain(plan.statements.then_some(preload));
        let options = Options {
            database_url: given,
            durability: Durability::Durable,
            settings: settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            fetch: true,
            ..Options::default()
        };
        let site = Self {
            cluster: Cluster::obtain(options).await?,
            folder: Folder::create()?,
            keys: Hidden::new(Keyring::generate_line("bench")?.as_str()),
            databases: Mutex::default(),
        };
        match site.prepare(plan).await {
            Ok(()) => Ok(site),
            Err(error) => site.close().await.and(Err(error)),
        }
    }

    async fn prepare(&self, plan: &Plan) -> Result<()> {
        let template = self.create(None).await?;
        let url = self.cluster.url_of(&template);
        store::migrate(&url).await?;
        let client = connect_once(&url).await?;
        // Before the first event, or it would lie in the default partition.
        let days = i32::try_from(plan.config.partitions_ahead).unwrap_or(1);
        client
            .execute("select posthaste.create_partitions($1)", &[&days])
            .await?;
        client.batch_execute(ONE_ADMINISTRATOR).await?;
        client
            .execute(CREATE_EVENT_TYPES, &[&[EVENT_TYPE].as_slice()])
            .await?;
        client.batch_execute(PLAIN_OUTBOX).await?;
        client.batch_execute(SAME_SHAPE).await?;
        if plan.statements {
            client
                .batch_execute("create extension pg_stat_statements")
                .await?;
        }
        Ok(())
    }

    /// A fresh database, as it is before the first event.
    pub(super) async fn database(&self) -> Result<Database> {
        let template = self.names().first().cloned();
        let name = self.create(template.as_deref()).await?;
        let url = self.cluster.url_of(&name);
        Ok(Database {
            client: connect_once(&url).await?,
            name,
            url,
            postmaster: self.cluster.postmaster_pid(),
        })
    }

    /// Removes a database that has served.
    pub(super) async fn remove(&self, database: Database) -> Result<()> {
        self.cluster.drop_database(&database.name).await?;
        self.names().retain(|name| *name != database.name);
        Ok(())
    }

    /// The worker's configuration for this database and this receiver.
    pub(super) fn config(
        &self,
        plan: &Plan,
        database: &Database,
        receiver: &Receiver,
    ) -> Result<Config> {
        let mut config = plan.config.clone();
        config.database_url = Some(Hidden::new(database.url.as_str()));
        config.keys = Some(self.keys.clone());
        config.key_file = None;
        config.ca_file = receiver
            .ca
            .as_ref()
            .map(|pem| self.folder.write("ca.pem", pem))
            .transpose()?;
        for (key, value) in [
            ("allow_http_loopback", "true"),
            ("allow_networks", "127.0.0.0/8"),
            ("listen", "127.0.0.1:0"),
            ("log_format", "json"),
            ("log_level", "info"),
        ] {
            config.set(key, value)?;
        }
        Ok(config)
    }

    /// Where and with what it is measured, by name.
    pub(super) async fn settings(&self, plan: &Plan) -> Result<Vec<(String, String)>> {
        let client = connect_once(self.cluster.url()).await?;
        let mut settings = machine();
        let server = if self.cluster.is_private() {
            "private"
        } else {
            "given"
        };
        settings.push(said(
            "postgres",
            format!("{} ({server})", self.cluster.version()),
        ));
        for row in client.query(SERVER_SETTINGS, &[]).await? {
            settings.push((row.try_get(0)?, row.try_get(1)?));
        }
        let may = client.batch_execute("checkpoint").await.is_ok();
        let checkpoints = if may {
            "one before each turn"
        } else {
            "as they come: this role may not ask for one"
        };
        settings.push(said("checkpoints", checkpoints));
        for key in super::OF_THE_WORKER {
            settings.push(said(key, plan.config.text(key)?));
        }
        settings.push(said(
            "payload",
            format!("{} bytes of JSON", payload(10_000).len()),
        ));
        let Plan {
            events,
            rounds,
            duration,
            ..
        } = plan;
        let amount = format!("{events} events, {rounds} rounds, {duration:?} a turn by the clock");
        settings.push(said("measured", amount));
        Ok(settings)
    }

    /// Removes everything.
    pub(super) async fn close(self) -> Result<()> {
        if self.cluster.is_private() {
            self.cluster.stop().await;
            return Ok(());
        }
        let names = std::mem::take(&mut *self.names());
        for name in names.iter().rev() {
            self.cluster.drop_database(name).await?;
        }
        Ok(())
    }

    async fn create(&self, template: Option<&str>) -> Result<String> {
        let name = {
            let mut names = self.names();
            let name = format!(
                "posthaste_bench_{}_{:08x}",
                std::process::id(),
                fastrand::u32(..)
            );
            names.push(name.clone());
            name
        };
        self.cluster.create_database(&name, template).await?;
        Ok(name)
    }

    fn names(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.databases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A database of one turn, and a session on it.
pub(super) struct Database {
    pub(super) url: String,
    pub(super) client: Client,
    name: String,
    /// Of a server that is ours.
    postmaster: Option<u32>,
}

/// How far the server's WAL is.
pub(super) struct WalPosition {
    pub(super) bytes: f64,
    pub(super) checkpoint: String,
}

impl Database {
    /// Makes one subscription to the one event type, with a secret of its own.
    pub(super) async fn subscribe(&self, url: &str, config: &Config) -> Result<()> {
        let types = [EVENT_TYPE.to_owned()];
        self.subscribe_many(&[url.to_owned()], &types, config).await
    }

    /// Makes a subscription for each URL, to all these event types, with a secret of its own.
    pub(super) async fn subscribe_many(
        &self,
        urls: &[String],
        types: &[String],
        config: &Config,
    ) -> Result<()> {
        self.client.execute(CREATE_EVENT_TYPES, &[&types]).await?;
        let (store, keyring) = (Store::open(config)?, config.keyring()?);
        for (place, url) in urls.iter().enumerate() {
            let name = format!("bench {place}");
            let made = self
                .client
                .query_one(SUBSCRIBE, &[&name, url, &types])
                .await?;
            let id: i32 = made.try_get(0)?;
            let (secret_id, secret) = (Uuid::now_v7(), SigningSecret::generate()?);
            let sealed = keyring.seal(id, secret_id, &secret)?;
            store
                .add_secret(id, secret_id, &secret, &sealed, "measured")
                .await?;
        }
        Ok(())
    }

    /// Not everybody may, on a server that is given; the settings that are printed say so.
    pub(super) async fn checkpoint(&self) {
        let _ = self.client.batch_execute("checkpoint").await;
    }

    /// Lets the server count its statements from here on.
    pub(super) async fn count_statements(&self) -> Result<()> {
        self.client
            .execute("select pg_stat_statements_reset()", &[])
            .await
            .map(drop)?;
        Ok(())
    }

    /// How much WAL was ever written, and which checkpoint was the last.
    pub(super) async fn wal_position(&self) -> Result<WalPosition> {
        let row = self.client.query_one(WAL_POSITION, &[]).await?;
        Ok(WalPosition {
            bytes: float(row.try_get::<_, i64>(0)?.unsigned_abs()),
            checkpoint: row.try_get(1)?,
        })
    }

    /// Seconds of processor time that the private server has used.
    pub(super) fn server_cpu(&self) -> Option<f64> {
        self.postmaster.and_then(usage::of_server)
    }

    /// Returns when a worker sleeps, so that the next insert must ring.
    pub(super) async fn asleep(&self, within: Duration) -> Result<()> {
        self.holds(ASLEEP, within, "no worker fell asleep").await
    }

    /// Returns when a worker has done what it does once for new subscriptions.
    pub(super) async fn settled(&self, within: Duration) -> Result<()> {
        let what = "no worker made the secrets and lanes of new subscriptions";
        self.holds(SETTLED, within, what).await
    }

    /// Returns when a question is answered with yes.
    async fn holds(&self, sql: &str, within: Duration, otherwise: &str) -> Result<()> {
        let deadline = Instant::now() + within;
        while !self.ask_one::<bool>(sql).await? {
            if Instant::now() > deadline {
                return Err(Error::Data(format!("{otherwise} within {within:?}")));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// The one value of a statement's one row.
    pub(super) async fn ask_one<T: FromSqlOwned>(&self, sql: &str) -> Result<T> {
        Ok(self.client.query_one(sql, &[]).await?.try_get(0)?)
    }

    /// Returns when no event and no delivery is owed any more.
    pub(super) async fn nothing_owed(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let owed: i64 = self.ask_one(OWED).await?;
            if owed == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Data(format!(
                    "{owed} deliveries are owed after {within:?}"
                )));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Fails unless there was one attempt for each delivery, and it finished it.
    pub(super) async fn each_delivered_once(&self, deliveries: u64, received: u64) -> Result<()> {
        let row = self.client.query_one(FINISHED, &[]).await?;
        let (attempts, done): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let as_it_should = i64::try_from(deliveries).unwrap_or(i64::MAX);
        if (attempts, done, received) == (as_it_should, as_it_should, deliveries) {
            return Ok(());
        }
        let what = format!(
            "{deliveries} deliveries owed: {received} received, {attempts} attempts, {done} done"
        );
        Err(Error::Data(format!(
            "not everything was delivered exactly once: {what}"
        )))
    }

    /// Rows of a question about the past, when no other session is left to add to it.
    pub(super) async fn ask_alone(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let others: i64 = self.ask_one(OTHERS).await?;
            if others == 0 || Instant::now() > deadline {
                return Ok(self.client.query(sql, parameters).await?);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// A folder that only we can enter, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self> {
        let name = format!(
            "posthaste-bench-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        );
        let path = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| Error::Io(format!("making {}", path.display()), error))?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, text)
            .map_err(|error| Error::Io(format!("cannot write {}", path.display()), error))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn machine() -> Vec<(String, String)> {
    let build = if cfg!(debug_assertions) {
        "debug build: these figures say little"
    } else {
        "release build"
    };
    let cores = thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let line =
        |read: io::Result<String>| read.map(|text| text.trim().to_owned()).unwrap_or_default();
    let kernel = line(fs::read_to_string("/proc/sys/kernel/osrelease"));
    let cpu = line(fs::read_to_string("/proc/cpuinfo"));
    let cpu = cpu
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1));
    vec![
        said(
            "posthaste",
            format!("{} ({build})", env!("CARGO_PKG_VERSION")),
        ),
        said("kernel", format!("{} {kernel}", std::env::consts::OS)),
        said(
            "cores",
            format!(
                "{cores}, shared by everybody ({})",
                cpu.unwrap_or("unknown")
            ),
        ),
    ]
}

fn said(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// No checkpoint falls due by itself while a clock runs: each turn has one before it begins.
const NO_CHECKPOINT: [(&str, &str); 2] = [("max_wal_size", "32GB"), ("checkpoint_timeout", "1d")];
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const PLAIN_OUTBOX: &str = include_str!("../../../sql/bench/plain_outbox.sql");
const SAME_SHAPE: &str = include_str!("../../../sql/bench/same_shape.sql");
const ONE_ADMINISTRATOR: &str = include_str!("../../../sql/bench/one_administrator.sql");
const CREATE_EVENT_TYPES: &str = include_str!("../../../sql/bench/create_event_types.sql");
const SUBSCRIBE: &str = include_str!("../../../sql/bench/subscribe.sql");
const SETTLED: &str = include_str!("../../../sql/bench/settled.sql");
const ASLEEP: &str = include_str!("../../../sql/bench/asleep.sql");
const OWED: &str = include_str!("../../../sql/bench/owed.sql");
const FINISHED: &str = include_str!("../../../sql/bench/finished.sql");
const WAL_POSITION: &str = include_str!("../../../sql/bench/wal_position.sql");
const SERVER_SETTINGS: &str = include_str!("../../../sql/bench/server_settings.sql");
const OTHERS: &str = include_str!("../../../sql/bench/others.sql");
