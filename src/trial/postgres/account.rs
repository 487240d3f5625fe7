//! Whom the server runs as: Postgres refuses to run as root.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::{Error, Result};

/// An unprivileged user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// Whom root runs the server as.
    pub(super) fn unprivileged() -> Result<Self> {
        let passwd = fs::read_to_string("/etc/passwd")
            .map_err(|error| Error::Io("reading /etc/passwd".into(), error))?;
        unprivileged(&passwd).ok_or_else(|| {
            let text =
                "Postgres does not run as root, and /etc/passwd has no user `postgres` or `nobody`";
            Error::Config(text.into())
        })
    }

    /// Makes the command run as this user (and without our supplementary groups, which std clears).
    pub(super) fn take_on(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives a file or a folder to this user.
    pub(super) fn own(self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }
}

/// Whether every user can enter this folder.
pub(super) fn everyone_enters(folder: &Path) -> bool {
    folder
        .ancestors()
        .all(|part| fs::metadata(part).is_ok_and(|part| part.mode() & 0o001 != 0))
}

fn unprivileged(passwd: &str) -> Option<Account> {
    NAMES
        .iter()
        .find_map(|name| passwd.lines().find_map(|line| entry(line, name)))
}

fn entry(line: &str, name: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let found = fields.next()? == name;
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    (found && uid != 0).then_some(Account { uid, gid })
}

/// By preference; macOS names its service users with an underscore.
const NAMES: [&str; 3] = ["postgres", "_postgres", "nobody"];

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "root:x:0:0:root:/root:/bin/sh\n";
    const NOBODY: &str = "nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin\n";
    const POSTGRES: &str =
        "postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn the_server_runs_as_postgres_and_else_as_nobody() {
        let both = unprivileged(&[ROOT, NOBODY, POSTGRES].concat());
        assert_eq!(both, Some(Account { uid: 101, gid: 104 }));
        let nobody = unprivileged(&[ROOT, NOBODY].concat());
        assert_eq!(
            nobody,
            Some(Account {
                uid: 65534,
                gid: 65533
            })
        );
    }

    #[test]
    fn a_user_with_roots_id_is_not_unprivileged() {
        assert_eq!(unprivileged("postgres:x:0:0::/:/bin/sh\nbroken\n"), None);
    }

    #[test]
    fn a_folder_below_one_that_is_closed_is_closed() {
        assert!(everyone_enters(Path::new("/")));
        assert!(!everyone_enters(Path::new("/no/such/folder")));
    }
}
