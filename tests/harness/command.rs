//! The program's commands, run to their end.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::PATIENCE;

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// As bad usage, with these words in the first line.
    #[track_caller]
    pub(crate) fn refused_with(&self, what: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (2, ""), "{self:?}");
        self.says_first(what);
    }

    /// As something that the database would not do, with these words in the first line.
    #[track_caller]
    pub(crate) fn denied_with(&self, what: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (1, ""), "{self:?}");
        self.says_first(what);
    }

    /// As it should; what it printed.
    #[track_caller]
    pub(crate) fn done(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.stdout
    }

    #[track_caller]
    fn says_first(&self, what: &str) {
        let first = self.stderr.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("posthaste: ") && first.contains(what),
            "{self:?} does not say {what:?}"
        );
    }
}

/// Runs a command to its end, with nothing else in its environment.
pub(crate) async fn posthaste(
    arguments: &[&str],
    environment: &[(&str, &str)],
    stdin: &str,
) -> Said {
    let mut child = program(arguments, environment)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // A command that refuses its arguments does not wait for input.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = ended
        .unwrap_or_else(|_| panic!("posthaste {arguments:?} does not end"))
        .unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A command, not started yet.
pub(crate) fn program(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}
