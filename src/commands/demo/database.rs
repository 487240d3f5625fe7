//! A Postgres and a database of our own in it: whatever the demo does, it does there, and takes it away again.

use posthaste::store::{self, Store, connect_once};
use posthaste::trial::postgres::{Cluster, Listen, Options};
use posthaste::{Error, Result};
use tokio_postgres::Client;

/// A database made for this run, on a server of our own or on the one that was given.
pub(super) struct Database {
    server: Cluster,
    name: String,
    url: String,
}

/// The server in `DATABASE_URL`, else a private one; reachable over TCP where people are to look inside.
pub(super) async fn server(keep: bool) -> Result<Cluster> {
    let options = Options {
        database_url: std::env::var("DATABASE_URL")
            .ok()
            .filter(|url| !url.is_empty()),
        listen: if keep { Listen::Tcp } else { Listen::Socket },
        fetch: true,
        ..Options::default()
    };
    Cluster::obtain(options).await
}

impl Database {
    /// Makes the database. Its name is random on a server that is not ours alone.
    pub(super) async fn create(server: Cluster) -> Result<Self> {
        let name = if server.is_private() {
            PREFIX.to_owned()
        } else {
            may_create_databases(&server).await?;
            format!("{PREFIX}_{:08x}", fastrand::u32(..))
        };
        server.create_database(&name, None).await?;
        let url = server.url_of(&name);
        Ok(Self { server, name, url })
    }

    /// Its connection string. May hold a password.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The command that opens it in `psql`.
    pub(super) fn psql(&self) -> String {
        self.server.psql(&self.name)
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> String {
        let Self { server, name, .. } = self;
        let version = server.version();
        match server.data_dir() {
            Some(dir) => format!("Postgres {version} of our own, in {}", dir.display()),
            None => format!("Postgres {version} from DATABASE_URL, database {name}"),
        }
    }

    pub(super) async fn connect(&self) -> Result<Client> {
        connect_once(&self.url).await
    }

    /// Makes Posthaste's schema, the event types, and the platform's own tables. Says how many migrations and
    /// partitions it took.
    pub(super) async fn prepare(&self, store: &Store, days_ahead: usize) -> Result<(usize, i32)> {
        let migrations = store::migrate(&self.url).await?.len();
        let partitions = store.create_partitions(days_ahead).await?;
        let client = self.connect().await?;
        client
            .batch_execute(include_str!("../../../sql/demo/catalogue.sql"))
            .await?;
        client
            .batch_execute(include_str!("../../../sql/demo/platform.sql"))
            .await?;
        Ok((migrations, partitions))
    }

    /// Takes it away: a private server with all its files, or the one database that we made on another's.
    pub(super) async fn remove(self) -> Result<()> {
        if !self.server.is_private() {
            return self.server.drop_database(&self.name).await;
        }
        self.server.stop().await;
        Ok(())
    }
}

async fn may_create_databases(server: &Cluster) -> Result<()> {
    let client = connect_once(server.url()).await?;
    let row = client
        .query_one(
            include_str!("../../../sql/demo/may_create_databases.sql"),
            &[],
        )
        .await?;
    let (role, may): (String, bool) = (row.try_get("role")?, row.try_get("may")?);
    if may {
        return Ok(());
    }
    let refused = std::io::Error::new(
        std::io::ErrorKind::PermissionDenied,
        format!(
            "role {role:?} may not create databases; let an administrator run `ALTER ROLE {role:?} CREATEDB`, or unset \
             DATABASE_URL to use a private server"
        ),
    );
    Err(Error::Io(
        "the demo makes a database of its own in DATABASE_URL".to_owned(),
        refused,
    ))
}

const PREFIX: &str = "posthaste_demo";
