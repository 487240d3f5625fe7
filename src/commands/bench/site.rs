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
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::Plan;
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
        let preload = (
            "shared_preload_libraries".to_owned(),
            "pg_stat_statements".to_owned(),
        );
        let options = Options {
            database_url: given,
            durability: Durability::Durable,
            settings: plan.statements.then_some(preload).into_iter().collect(),
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
        client
            .execute(
                "select posthaste.create_event_type($1, 'measured')",
                &[&EVENT_TYPE],
            )
            .await?;
        // Before the first event, or it would lie in the default partition.
        let days = i32::try_from(plan.config.partitions_ahead).unwrap_or(1);
        client
            .execute("select posthaste.create_partitions($1)", &[&days])
            .await?;
        client.batch_execute(PLAIN_OUTBOX).await?;
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

    /// Seconds of processor time that the private server has used.
    pub(super) fn server_cpu(&self) -> Option<f64> {
        self.cluster.postmaster_pid().and_then(usage::of_server)
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
            rate,
            duration,
            ..
        } = plan;
        let amount = format!("{events} events, {rounds} rounds; {rate} events/s for {duration:?}");
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
    name: String,
    client: Client,
}

impl Database {
    /// Makes the one subscription, with a secret of its own.
    pub(super) async fn subscribe(&self, url: &str, config: &Config) -> Result<()> {
        let sql = "select posthaste.create_subscription('bench', $1, array[$2])";
        let id: i32 = self
            .client
            .query_one(sql, &[&url, &EVENT_TYPE])
            .await?
            .try_get(0)?;
        let (secret_id, secret) = (Uuid::now_v7(), SigningSecret::generate()?);
        let sealed = config.keyring()?.seal(id, secret_id, &secret)?;
        Store::open(config)?
            .add_secret(id, secret_id, &sealed, false)
            .await
            .map(drop)
    }

    /// Commits so many events, and returns how many bytes of WAL each took. Then a checkpoint, so that none falls due by itself while
    /// the clock runs; from it on, each page's first change is logged whole, for everybody alike.
    pub(super) async fn fill(&self, fill: Fill, events: usize) -> Result<f64> {
        let statement = self.client.prepare(fill.sql()).await?;
        let before = self.wal().await?;
        let mut place = 0;
        while place < events {
            let batch = place..(place + BATCH).min(events);
            place = batch.end;
            let payloads: Vec<String> = batch.map(|place| payload(place as u64)).collect();
            self.client.execute(&statement, &[&payloads]).await?;
        }
        let wal = self.wal().await? - before;
        // Not everybody may, on a server that is given.
        let _ = self.client.batch_execute("checkpoint").await;
        Ok(wal / super::figures::float(events as u64))
    }

    /// Lets the server count its statements from here on.
    pub(super) async fn count_statements(&self) -> Result<()> {
        self.client
            .execute("select pg_stat_statements_reset()", &[])
            .await
            .map(drop)?;
        Ok(())
    }

    /// How much WAL was ever written, in bytes.
    pub(super) async fn wal(&self) -> Result<f64> {
        let bytes: i64 = self.client.query_one(WAL_POSITION, &[]).await?.try_get(0)?;
        Ok(super::figures::float(bytes.unsigned_abs()))
    }

    /// Returns when no event and no delivery is owed any more.
    pub(super) async fn nothing_owed(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let owed: i64 = self.client.query_one(OWED, &[]).await?.try_get(0)?;
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

    /// Fails unless there was one attempt for each event, and it finished the delivery.
    pub(super) async fn each_delivered_once(&self, events: u64, received: u64) -> Result<()> {
        let row = self.client.query_one(FINISHED, &[]).await?;
        let (attempts, done): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let as_it_should = i64::try_from(events).unwrap_or(i64::MAX);
        if (attempts, done, received) == (as_it_should, as_it_should, events) {
            return Ok(());
        }
        let what =
            format!("{events} events: {received} received, {attempts} attempts, {done} done");
        Err(Error::Data(format!(
            "not every event was delivered exactly once: {what}"
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
            let others: i64 = self.client.query_one(OTHERS, &[]).await?.try_get(0)?;
            if others == 0 || Instant::now() > deadline {
                return Ok(self.client.query(sql, parameters).await?);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// What to fill a database with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Outbox,
    Plain,
}

impl Fill {
    fn sql(self) -> &'static str {
        match self {
            Self::Outbox => include_str!("../../../sql/bench/fill_outbox.sql"),
            Self::Plain => include_str!("../../../sql/bench/fill_plain.sql"),
        }
    }

    /// The statement that inserts a single one.
    pub(super) fn one(self) -> &'static str {
        match self {
            Self::Outbox => include_str!("../../../sql/bench/produce.sql"),
            Self::Plain => include_str!("../../../sql/bench/produce_plain.sql"),
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

/// Rows that one transaction inserts when a table is filled.
const BATCH: usize = 1000;
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const PLAIN_OUTBOX: &str = include_str!("../../../sql/bench/plain_outbox.sql");
const OWED: &str = include_str!("../../../sql/bench/owed.sql");
const FINISHED: &str = include_str!("../../../sql/bench/finished.sql");
const WAL_POSITION: &str = include_str!("../../../sql/bench/wal_position.sql");
const SERVER_SETTINGS: &str = include_str!("../../../sql/bench/server_settings.sql");
const OTHERS: &str = include_str!("../../../sql/bench/others.sql");
