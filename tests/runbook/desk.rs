//! A folder in which somebody works through the runbook with a shell.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio_postgres::config::Host;
use uuid::Uuid;

use crate::harness::PATIENCE;

/// How lines of a shell ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

pub(super) struct Desk {
    pub(super) folder: PathBuf,
    programs: Vec<PathBuf>,
}

impl Desk {
    /// With our program at hand, and those of Postgres.
    pub(super) fn new(postgres: Option<&Path>) -> Self {
        let folder = std::env::temp_dir().join(format!("posthaste-runbook-{}", Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        let ours = Path::new(env!("CARGO_BIN_EXE_posthaste")).parent().unwrap();
        let programs = std::iter::once(ours.to_owned()).chain(postgres.map(Path::to_owned));
        Self {
            folder,
            programs: programs.collect(),
        }
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).unwrap();
    }

    /// Runs lines to their end; what they printed.
    pub(super) async fn run(&self, lines: &str, environment: &[(String, String)]) -> String {
        let ended = self.ends(lines, environment).await;
        let Ended {
            code,
            stdout,
            stderr,
        } = ended;
        assert_eq!(code, 0, "{lines}\n{stdout}\n{stderr}");
        stdout
    }

    /// Runs lines to their end, however they end.
    pub(super) async fn ends(&self, lines: &str, environment: &[(String, String)]) -> Ended {
        let mut path: Vec<PathBuf> = self.programs.clone();
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", lines])
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::join_paths(path).unwrap())
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ended = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = ended
            .unwrap_or_else(|_| panic!("does not end: {lines}"))
            .unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What the programs of Postgres are told by, in place of this connection string.
pub(super) fn libpq(url: &str) -> Vec<(String, String)> {
    let config: tokio_postgres::Config = url.parse().unwrap();
    let host = match config.get_hosts() {
        [Host::Tcp(name)] => name.clone(),
        [Host::Unix(path)] => path.to_str().unwrap().to_owned(),
        others => panic!("one host, not {others:?}"),
    };
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default());
    [
        ("PGHOST", host),
        (
            "PGPORT",
            config.get_ports().first().unwrap_or(&5432).to_string(),
        ),
        ("PGUSER", config.get_user().unwrap_or("postgres").to_owned()),
        (
            "PGDATABASE",
            config.get_dbname().unwrap_or("postgres").to_owned(),
        ),
        ("PGPASSWORD", password.into_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
