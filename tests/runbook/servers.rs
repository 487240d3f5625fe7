//! Servers of their own, for what concerns a whole server: backups, restores, a standby.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use posthaste::trial::postgres::{Cluster, Options};
use tokio::process::Child;
use tokio_postgres::Client;

use super::desk::{Desk, libpq};
use super::page::Block;
use crate::harness::{PATIENCE, Partner, WorkerProcess, authority};

/// Makes a connection string of a user and a database.
type Urls = Box<dyn Fn(&str, &str) -> String + Send + Sync>;

/// A Postgres server that somebody works with.
pub(super) struct House {
    url: Urls,
}

/// A database that delivers to a partner, on a server of its own.
pub(super) async fn delivering(desk: &Desk, partner: &Partner) -> (Cluster, House) {
    let cluster = server().await;
    cluster.create_database("platform", None).await.unwrap();
    let house = House::of(&cluster);
    let migrate = "posthaste migrate";
    desk.run(migrate, &house.environment("postgres", "platform"))
        .await;
    let db = house.session("platform").await;
    db.batch_execute(&format!(
        "create role webhooks login in role posthaste_worker; create role ada login in role posthaste_admin;
         create role audrey login in role posthaste_auditor; create role olga login in role posthaste_owner;
         grant create on database platform to olga;
         select posthaste.set_four_eyes(false, 'alone');
         select posthaste.create_event_type('ship.arrived', 'A ship');
         select posthaste.approve(posthaste.propose_subscription('harbour', '{}', '{{ship.arrived}}', retry_intervals => '{{1h}}', breaker => null))",
        partner.url("/harbour")
    ))
    .await
    .unwrap();
    authority().write_pem(&desk.folder.join("ca.pem")).unwrap();
    (cluster, house)
}

/// An empty server.
pub(super) async fn server() -> Cluster {
    let options = Options {
        settings: vec![("max_connections".to_owned(), "60".to_owned())],
        ..Options::default()
    };
    Cluster::obtain(options).await.unwrap()
}

impl House {
    /// That of a server with nothing in it.
    pub(super) fn of(cluster: &Cluster) -> Self {
        let url = cluster.url().to_owned();
        Self {
            url: Box::new(move |user, database| {
                let server = url.strip_suffix("/postgres").unwrap();
                let server = server.replace("//postgres@", &format!("//{user}@"));
                format!("{server}/{database}")
            }),
        }
    }

    /// That of servers whose sockets lie in these folders; the one that takes writes is meant.
    pub(super) fn at(sockets: &[&Path]) -> Self {
        let hosts: Vec<_> = sockets.iter().map(|path| path.to_str().unwrap()).collect();
        let ports = vec!["5432"; hosts.len()].join(",");
        let hosts = hosts.join(",");
        Self {
            url: Box::new(move |user, database| {
                format!("host={hosts} port={ports} user={user} dbname={database}")
            }),
        }
    }

    pub(super) fn environment(&self, user: &str, database: &str) -> Vec<(String, String)> {
        let url = (self.url)(user, database);
        vec![("DATABASE_URL".to_owned(), url)]
    }

    pub(super) async fn session(&self, database: &str) -> Client {
        let url = (self.url)("postgres", database);
        posthaste::store::connect_once(&url).await.unwrap()
    }

    /// Runs a block of a shell or of SQL here, as whoever it is for.
    pub(super) async fn paste(&self, desk: &Desk, block: &Block, database: &str) {
        let user = match block.whose.as_str() {
            "auditor" => "audrey",
            "admin" => "ada",
            "owner" => "olga",
            _ => "postgres",
        };
        let text = block.text.replace("<subscription>", "harbour");
        if block.language == "sql" {
            let url = (self.url)(user, database);
            let db = posthaste::store::connect_once(&url).await.unwrap();
            db.batch_execute(&text).await.unwrap();
        } else if block.whose == "dba" {
            desk.run(&text, &libpq(&(self.url)("postgres", database)))
                .await;
        } else {
            desk.run(&text, &self.environment(user, database)).await;
        }
    }

    /// A worker of this database.
    pub(super) fn worker(&self, desk: &Desk, keys: &str, database: &str) -> WorkerProcess {
        let ca_file = desk.folder.join("ca.pem");
        let settings = [
            ("DATABASE_URL", (self.url)("webhooks", database)),
            ("KEYS", keys.to_owned()),
            ("CA_FILE", ca_file.to_str().unwrap().to_owned()),
            ("ALLOW_NETWORKS", "127.0.0.0/8".to_owned()),
            ("LISTEN", "off".to_owned()),
        ];
        WorkerProcess::start(settings.map(|(name, value)| (format!("POSTHASTE_{name}"), value)))
    }
}

/// A server made of a copy of another one's files.
pub(super) struct Copied {
    child: Child,
    pub(super) socket: PathBuf,
}

impl Copied {
    /// Starts it from that folder on the desk, as the user that the other server runs as.
    pub(super) async fn start(desk: &Desk, folder: &str, like: &Cluster) -> Self {
        let (data, socket) = (
            desk.folder.join(folder),
            desk.folder.join(format!("{folder}.d")),
        );
        std::fs::create_dir(&socket).unwrap();
        let owner = std::fs::metadata(like.data_dir().unwrap()).unwrap();
        let own = std::fs::metadata(&desk.folder).unwrap();
        let postgres = like.bin_dir().unwrap().join("postgres");
        let mut words = Vec::new();
        if owner.uid() != own.uid() {
            let whom = format!("{}:{}", owner.uid(), owner.gid());
            let chown = Command::new("chown")
                .args(["-R", &whom])
                .args([&data, &socket])
                .status();
            assert!(chown.unwrap().success());
            words = vec![
                "setpriv".to_owned(),
                format!("--reuid={}", owner.uid()),
                format!("--regid={}", owner.gid()),
                "--clear-groups".to_owned(),
            ];
        }
        words.extend([postgres.to_str().unwrap(), "-D", data.to_str().unwrap()].map(str::to_owned));
        let at = format!("unix_socket_directories={}", socket.display());
        for setting in [
            at.as_str(),
            "listen_addresses=",
            "port=5432",
            "max_connections=60",
            "fsync=off",
        ] {
            words.extend(["-c".to_owned(), setting.to_owned()]);
        }
        let log = std::fs::File::create(desk.folder.join(format!("{folder}.log"))).unwrap();
        let child = tokio::process::Command::new(&words[0])
            .args(&words[1..])
            .current_dir("/")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let copied = Self { child, socket };
        let ready = "until pg_isready -q; do sleep 0.1; done";
        desk.run(ready, &libpq(&copied.url())).await;
        copied
    }

    pub(super) fn url(&self) -> String {
        format!(
            "host={} port=5432 user=postgres dbname=platform",
            self.socket.display()
        )
    }

    pub(super) async fn stop(mut self) {
        let pid = self.child.id().unwrap().to_string();
        let told = Command::new("kill").args(["-INT", &pid]).status();
        assert!(told.unwrap().success());
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("it does not end").unwrap();
    }
}

/// Waits for a condition in a database without triggers that tell of changes.
pub(super) async fn until(db: &Client, condition: &str) {
    let asked = async {
        let query = format!("select coalesce(({condition}), false), pg_sleep(0.05)::text");
        while !db.query_one(&query, &[]).await.unwrap().get::<_, bool>(0) {}
    };
    let asked = tokio::time::timeout(PATIENCE, asked).await;
    asked.unwrap_or_else(|_| panic!("never true: {condition}"));
}
