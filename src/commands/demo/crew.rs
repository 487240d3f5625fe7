//! The worker of the demo, in this very process.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;

use ipnet::IpNet;
use posthaste::config::{Config, Hidden};
use posthaste::secret::Keyring;
use posthaste::trial::authority::Authority;
use posthaste::worker::Worker;
use posthaste::{Error, Result};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A worker that runs. Dropping it tells it to stop.
pub(super) struct Crew {
    stop: DropGuard,
    work: JoinHandle<Result<()>>,
}

impl Crew {
    /// Starts a worker and returns once it looks for work.
    pub(super) async fn start(config: &Config, authority: &Authority) -> Result<Self> {
        let worker = trusting(config, authority)?;
        let mut ready = worker.ready();
        let stop = CancellationToken::new();
        let told = stop.clone();
        let work = tokio::spawn(async move { worker.run(told).await });
        let crew = Self {
            stop: stop.drop_guard(),
            work,
        };
        match ready.wait_for(|is_ready| *is_ready).await {
            Ok(_) => Ok(crew),
            // It ended without ever being ready, and says why.
            Err(_) => Err(crew
                .end()
                .await
                .err()
                .unwrap_or_else(|| gone("it ended at once"))),
        }
    }

    /// Tells it to stop and waits until it has.
    pub(super) async fn end(self) -> Result<()> {
        drop(self.stop);
        self.work.await.map_err(gone)?
    }
}

/// The settings in which the demo differs from a worker in earnest: partners may be on this machine, and nobody asks for metrics.
pub(super) fn config(database_url: &str) -> Result<Config> {
    let key = Keyring::generate_line("demo")?;
    Ok(Config {
        database_url: Some(Hidden::new(database_url)),
        keys: Some(Hidden::new(key.as_str())),
        worker_name: Some("demo".to_owned()),
        allow_networks: "127.0.0.0/8".parse::<IpNet>().into_iter().collect(),
        drain: std::time::Duration::from_secs(2),
        listen: None,
        ..Config::default()
    })
}

/// A worker that trusts this authority besides the machine's own. It reads the certificate once, so the file goes at once.
fn trusting(config: &Config, authority: &Authority) -> Result<Worker> {
    let name = format!(
        "posthaste-demo-{}-{:08x}",
        std::process::id(),
        fastrand::u32(..)
    );
    let folder = std::env::temp_dir().join(name);
    let refused = |error| Error::Io(format!("making {}", folder.display()), error);
    DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(refused)?;
    let file = folder.join("ca.pem");
    let worker = authority.write_pem(&file).and_then(|()| {
        Worker::new(Config {
            ca_file: Some(file),
            ..config.clone()
        })
    });
    let _ = fs::remove_dir_all(&folder);
    worker
}

fn gone(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Io("the worker".to_owned(), std::io::Error::other(error))
}
