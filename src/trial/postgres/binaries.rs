//! Where Postgres is installed on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::account::Account;
use crate::trial::child::{self, Log};
use crate::trial::scratch::Scratch;
use crate::{Error, Result};

/// A folder with an `initdb` and a `postgres` that run here.
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
}

impl Binaries {
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// The first usable installation. `None` where there is none; an error where `POSTHASTE_PG_BIN` names one that cannot be used.
pub(super) async fn find(home: &Scratch, account: Option<Account>) -> Result<Option<Binaries>> {
    if let Some(dir) = std::env::var_os("POSTHASTE_PG_BIN") {
        let found = probe(Path::new(&dir), home, account).await;
        return found
            .map(Some)
            .map_err(|why| Error::Config(format!("POSTHASTE_PG_BIN: {why}")));
    }
    for dir in candidates(home).await {
        match probe(&dir, home, account).await {
            Ok(binaries) => return Ok(Some(binaries)),
            Err(why) => tracing::debug!("no Postgres here: {why}"),
        }
    }
    Ok(None)
}

/// Whether the binaries in this folder are there, run for the user that the server will run as, and are recent enough.
pub(super) async fn probe(
    dir: &Path,
    home: &Scratch,
    account: Option<Account>,
) -> std::result::Result<Binaries, String> {
    if let Some(missing) = NEEDED.iter().find(|name| !dir.join(name).is_file()) {
        return Err(format!("{} holds no {missing}", dir.display()));
    }
    let mut command = child::command(dir.join("postgres"), super::INHERITED);
    command.arg("--version");
    if let Some(account) = account {
        account.take_on(&mut command);
    }
    let version = said(command, home).await?;
    match major(&version) {
        Some(major) if major >= OLDEST_MAJOR => Ok(Binaries {
            dir: behind_links(dir),
        }),
        _ => Err(format!(
            "{}: {version} is older than {OLDEST_MAJOR}",
            dir.display()
        )),
    }
}

async fn candidates(home: &Scratch) -> Vec<PathBuf> {
    let in_path = child::in_path("postgres").and_then(|program| Some(program.parent()?.to_owned()));
    let mut found = Vec::from_iter(in_path);
    if let Some(program) = child::in_path("pg_config") {
        let mut command = child::command(program, super::INHERITED);
        command.arg("--bindir");
        found.extend(said(command, home).await.ok().map(PathBuf::from));
    }
    found.extend(
        PLACES
            .iter()
            .flat_map(|place| place.installed(Path::new("/"))),
    );
    found
}

async fn said(command: Command, home: &Scratch) -> std::result::Result<String, String> {
    let path = home.path().join("said");
    let log = Log::create(&path).map_err(|error| error.to_string())?;
    let said = child::run(command, PROBE_DEADLINE, &log).await;
    let _ = fs::remove_file(path);
    said
}

/// The folder that links such as `/usr/local/bin/postgres` lead to: `psql` and the rest are there.
fn behind_links(dir: &Path) -> PathBuf {
    let real = fs::canonicalize(dir.join("postgres")).ok();
    let real = real.and_then(|program| Some(program.parent()?.to_owned()));
    real.filter(|real| NEEDED.iter().all(|name| real.join(name).is_file()))
        .unwrap_or(dir.to_owned())
}

/// The major version in what `postgres --version` says, such as `postgres (PostgreSQL) 18.4`.
fn major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let end = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    number[..end].parse().ok()
}

/// A folder that holds one folder a version: `parent/<prefix>18/<inner>`.
struct Place {
    parent: &'static str,
    prefix: &'static str,
    inner: &'static str,
}

impl Place {
    /// The versions that are installed there, newest first.
    fn installed(&self, root: &Path) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(root.join(self.parent)) else {
            return Vec::new();
        };
        let mut versions: Vec<(Vec<u32>, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| Some((self.version(entry.file_name().to_str()?)?, entry.path())))
            .collect();
        versions.sort();
        versions
            .into_iter()
            .rev()
            .map(|(_, folder)| folder.join(self.inner))
            .collect()
    }

    fn version(&self, name: &str) -> Option<Vec<u32>> {
        let number = name.strip_prefix(self.prefix)?;
        number.split('.').map(|part| part.parse().ok()).collect()
    }
}

const PLACES: [Place; 6] = [
    Place {
        parent: "usr/lib/postgresql",
        prefix: "",
        inner: "bin",
    }, // Debian, Ubuntu
    Place {
        parent: "usr",
        prefix: "pgsql-",
        inner: "bin",
    }, // the Postgres project's RPMs
    Place {
        parent: "usr/libexec",
        prefix: "postgresql",
        inner: "",
    }, // Alpine
    Place {
        parent: "opt/homebrew/opt",
        prefix: "postgresql@",
        inner: "bin",
    }, // Homebrew
    Place {
        parent: "usr/local/opt",
        prefix: "postgresql@",
        inner: "bin",
    }, // Homebrew on Intel
    Place {
        parent: "Applications/Postgres.app/Contents/Versions",
        prefix: "",
        inner: "bin",
    },
];

const NEEDED: [&str; 2] = ["initdb", "postgres"];

/// The oldest major version that the Postgres project still maintained when this was written.
const OLDEST_MAJOR: u32 = 14;

const PROBE_DEADLINE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_newest_version_comes_first() {
        let root = Scratch::create(&std::env::temp_dir(), "posthaste-test-e-").unwrap();
        for name in ["9.6", "18", "15", "latest"] {
            fs::create_dir_all(root.path().join("usr/lib/postgresql").join(name)).unwrap();
        }
        let found = PLACES[0].installed(root.path());
        let parent = root.path().join("usr/lib/postgresql");
        assert_eq!(
            found,
            ["18/bin", "15/bin", "9.6/bin"].map(|inner| parent.join(inner))
        );
    }

    #[test]
    fn only_versioned_names_count() {
        assert_eq!(PLACES[1].version("pgsql-17"), Some(vec![17]));
        assert_eq!(PLACES[1].version("pgsql-"), None);
        assert_eq!(PLACES[1].version("lib"), None);
    }

    #[test]
    fn the_major_version_is_read_from_any_build() {
        assert_eq!(
            major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(major("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major("no such thing"), None);
    }

    #[tokio::test]
    async fn a_folder_without_binaries_is_refused_with_what_is_missing() {
        let home = Scratch::create(&std::env::temp_dir(), "posthaste-test-f-").unwrap();
        let why = probe(home.path(), &home, None).await.err().unwrap();
        assert!(why.ends_with("holds no initdb"), "{why}");
    }
}
