//! Child processes that end: each has a deadline, a log of its own, and no more of our environment than it needs.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{Error, Result};

/// A command that inherits only the named variables, reads nothing, and writes nothing to our terminal.
pub(super) fn command(program: impl AsRef<OsStr>, inherited: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    for name in inherited {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs it to its end and returns the end of what it wrote. An error is one line for people, and quotes that output.
pub(super) async fn run(
    mut command: Command,
    deadline: Duration,
    log: &Log,
) -> std::result::Result<String, String> {
    let program = Path::new(command.get_program()).display().to_string();
    log.take_output_of(&mut command)
        .map_err(|error| format!("{program}: {error}"))?;
    let mut command = tokio::process::Command::from(command);
    let status = tokio::time::timeout(deadline, command.kill_on_drop(true).status()).await;
    match status {
        Ok(Ok(status)) if status.success() => Ok(log.tail()),
        Ok(Ok(status)) => Err(format!("{program} ended with {status}: {}", log.tail())),
        Ok(Err(error)) => Err(format!("{program} does not start: {error}")),
        Err(_) => Err(format!(
            "{program} was not done in {} s: {}",
            deadline.as_secs(),
            log.tail()
        )),
    }
}

/// Where children write to, and where an error message finds what they said last.
pub(super) struct Log(File);

impl Log {
    /// A new, empty log; `path` must not exist.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .create_new(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(path);
        file.map(Self)
            .map_err(|error| Error::Io(format!("making {}", path.display()), error))
    }

    /// Sends both outputs of this command here.
    pub(super) fn take_output_of(&self, command: &mut Command) -> io::Result<()> {
        command
            .stdout(self.0.try_clone()?)
            .stderr(self.0.try_clone()?);
        Ok(())
    }

    /// The last lines, at most [`TAIL_BYTES`].
    pub(super) fn tail(&self) -> String {
        let end = self.0.metadata().map_or(0, |metadata| metadata.len());
        let start = end.saturating_sub(TAIL_BYTES as u64);
        let mut bytes = vec![0; TAIL_BYTES];
        // Read through our own handle, not the path: the folder may belong to a user that we do not trust with our rights.
        let length = self.0.read_at(&mut bytes, start).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..length]);
        match text.split_once('\n') {
            Some((_, whole_lines)) if start > 0 => whole_lines.trim().to_owned(),
            _ => text.trim().to_owned(),
        }
    }
}

/// The program of this name in the folders of `PATH`.
pub(super) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

const TAIL_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::trial::scratch::Scratch;

    fn shell(script: &str) -> Command {
        let mut command = command("sh", &["PATH"]);
        command.args(["-c", script]);
        command
    }

    fn scratch_and_log() -> (Scratch, Log) {
        let scratch = Scratch::create(&std::env::temp_dir(), "posthaste-test-d-").unwrap();
        let log = Log::create(&scratch.path().join("log")).unwrap();
        (scratch, log)
    }

    #[tokio::test]
    async fn an_error_quotes_what_the_child_said_last() {
        let (_scratch, log) = scratch_and_log();
        let script = "i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done; echo the reason >&2; exit 3";
        let error = run(shell(script), Duration::from_secs(20), &log)
            .await
            .unwrap_err();
        assert!(error.contains("exit status: 3") && error.ends_with("line 999\nthe reason"));
        assert!(error.len() < TAIL_BYTES + 100);
    }

    #[tokio::test]
    async fn a_child_that_hangs_is_killed_at_its_deadline() {
        let (_scratch, log) = scratch_and_log();
        let error = run(shell("exec sleep 600"), Duration::from_millis(20), &log).await;
        assert!(error.unwrap_err().contains("was not done"));
    }

    #[tokio::test]
    async fn a_child_inherits_only_what_is_named() {
        let (_scratch, log) = scratch_and_log();
        let variables = run(shell("export -p"), Duration::from_secs(20), &log)
            .await
            .unwrap();
        assert!(variables.contains("PATH"));
        assert!(!variables.contains("CARGO_MANIFEST_DIR"), "{variables}");
    }
}
