//! What all tests of this binary share: one Postgres, one certificate authority, one runtime that outlives each test's own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{LazyLock, Mutex};
use std::thread;

use posthaste::store::{connect_once, migrate};
use posthaste::trial::authority::Authority;
use posthaste::trial::postgres::{Cluster, Options};
use tokio::runtime::Runtime;
use tokio_postgres::Client;

use super::PATIENCE;

pub(crate) static BACKSTAGE: LazyLock<Backstage> = LazyLock::new(|| {
    // On a thread of its own: whoever comes first is inside a runtime already.
    thread::spawn(Backstage::prepare)
        .join()
        .expect("no backstage, no tests")
});

pub(crate) struct Backstage {
    /// Serves the partners, which must go on answering while a test's own thread waits for a worker to end.
    pub(crate) runtime: Runtime,
    pub(crate) authority: Authority,
    cluster: Cluster,
    databases: AtomicU32,
    _undertaker: Option<Child>,
}

impl Backstage {
    fn prepare() -> Self {
        let runtime = Runtime::new().unwrap();
        let cluster = runtime.block_on(Self::cluster());
        Self {
            runtime,
            authority: Authority::new().unwrap(),
            databases: AtomicU32::new(0),
            _undertaker: cluster.is_private().then(|| undertaker(&cluster)),
            cluster,
        }
    }

    async fn cluster() -> Cluster {
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let options = Options {
            database_url: std::env::var("DATABASE_URL")
                .ok()
                .filter(|url| !url.is_empty()),
            settings: vec![
                setting("max_prepared_transactions", "8"),
                setting("max_connections", "300"),
            ],
            ..Options::default()
        };
        let cluster = Cluster::obtain(options).await.unwrap();
        if cluster.is_private() {
            cluster.create_database(TEMPLATE, None).await.unwrap();
            prepare(&cluster.url_of(TEMPLATE)).await;
        }
        cluster
    }
}

/// A session in the server's own database, for what cannot be done from within a test's.
pub(crate) async fn admin() -> Client {
    connect_once(BACKSTAGE.cluster.url()).await.unwrap()
}

/// A database of one test, dropped with it.
pub(crate) struct Database {
    name: String,
    pub(crate) url: String,
    /// Roles that go with it, once nothing in it is theirs.
    roles: Mutex<Vec<String>>,
}

impl Database {
    /// Migrated, and with triggers that tell [`super::World::until`] of every change.
    pub(crate) async fn migrated() -> Self {
        // On somebody else's server we leave nothing behind, so there is no template on it.
        if !BACKSTAGE.cluster.is_private() {
            let database = Self::empty().await;
            prepare(&database.url).await;
            return database;
        }
        let database = Self::named();
        let mut tries = 0;
        while let Err(error) = BACKSTAGE
            .cluster
            .create_database(&database.name, Some(TEMPLATE))
            .await
        {
            // Somebody else is copying the template, or vacuuming it.
            tries += 1;
            assert!(tries < 20, "{error}");
        }
        database
    }

    /// With nothing in it.
    pub(crate) async fn empty() -> Self {
        let database = Self::named();
        BACKSTAGE
            .cluster
            .create_database(&database.name, None)
            .await
            .unwrap();
        database
    }

    fn named() -> Self {
        let number = BACKSTAGE.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("posthaste_test_{}_{number}", std::process::id());
        let url = BACKSTAGE.cluster.url_of(&name);
        Self {
            name,
            url,
            roles: Mutex::default(),
        }
    }

    /// Drops this role with the database.
    pub(super) fn own(&self, role: &str) {
        self.roles.lock().unwrap().push(role.to_owned());
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        let roles = std::mem::take(&mut *self.roles.lock().unwrap());
        let (done, wait) = mpsc::channel::<()>();
        BACKSTAGE.runtime.spawn(async move {
            if let Err(error) = BACKSTAGE.cluster.drop_database(&name).await {
                eprintln!("{error}");
            }
            if !roles.is_empty() {
                drop_roles(&roles).await;
            }
            drop(done);
        });
        let _ = wait.recv_timeout(PATIENCE);
    }
}

async fn drop_roles(roles: &[String]) {
    let admin = admin().await;
    for role in roles {
        if let Err(error) = admin
            .batch_execute(&format!("drop role if exists {role}"))
            .await
        {
            eprintln!("role {role} was not dropped: {error:?}");
        }
    }
}

async fn prepare(url: &str) {
    migrate(url).await.unwrap();
    let client = connect_once(url).await.unwrap();
    client
        .batch_execute(include_str!("changes.sql"))
        .await
        .unwrap();
}

/// A static is never dropped, so a child of ours does what dropping the cluster would: it reads a pipe
/// that ends when we do, waits for the server to end too, and removes its files.
fn undertaker(cluster: &Cluster) -> Child {
    let data_dir = cluster.data_dir().unwrap();
    let home = data_dir.parent().map(Path::as_os_str).unwrap();
    let server = cluster.postmaster_pid().unwrap().to_string();
    let script = "read -r _; while kill -0 \"$1\"; do sleep 0.05; done; rm -rf \"$2\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "undertaker", &server])
        .arg(home);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().unwrap()
}

const TEMPLATE: &str = "posthaste_test_template";
