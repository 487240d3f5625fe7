//! A child process that plays a part.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use posthaste::{Error, Result};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::usage::{self, Usage};

/// One child. Dropping it kills it.
pub(super) struct Player {
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    answers: mpsc::Receiver<String>,
    said: Said,
    pid: u32,
}

impl Player {
    /// Starts this program again, and gives it its part.
    pub(super) async fn start(name: &'static str, part: &Value) -> Result<Self> {
        let failed = |error| Error::Io(name.to_owned(), error);
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        // In a group of its own: a Ctrl-C in the terminal is for us, and we end it.
        command
            .args(["bench", "--part"])
            .process_group(0)
            .kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let none = || failed(std::io::ErrorKind::BrokenPipe.into());
        let orders = child.stdin.take().ok_or_else(none)?;
        let (lines, answers) = mpsc::channel(ANSWERS);
        let said = Said::default();
        tokio::spawn(
            said.clone()
                .note(child.stdout.take().ok_or_else(none)?, Some(lines)),
        );
        tokio::spawn(
            said.clone()
                .note(child.stderr.take().ok_or_else(none)?, None),
        );
        let pid = child.id().ok_or_else(none)?;
        let mut player = Self {
            name,
            child,
            orders,
            answers,
            said,
            pid,
        };
        player.tell(&part.to_string()).await?;
        Ok(player)
    }

    /// Gives an order.
    pub(super) async fn tell(&mut self, order: &str) -> Result<()> {
        let told = self.orders.write_all(format!("{order}\n").as_bytes()).await;
        told.map_err(|_| self.failure("it is gone"))
    }

    /// Its next answer.
    pub(super) async fn hear(&mut self, within: Duration) -> Result<Value> {
        let Ok(answer) = tokio::time::timeout(within, self.answers.recv()).await else {
            return Err(self.failure(&format!("no answer within {within:?}")));
        };
        let answer = answer.and_then(|line| serde_json::from_str(&line).ok());
        answer.ok_or_else(|| self.failure("it ended, or said what is no answer"))
    }

    /// Lets it say what it likes from now on.
    pub(super) fn stop_listening(&mut self) {
        let (_, nothing) = mpsc::channel(1);
        self.answers = nothing;
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> Usage {
        usage::of(self.pid)
    }

    /// Kills it where it stands, and returns when it is gone.
    pub(super) async fn kill(mut self) -> Result<()> {
        let killed = self.child.kill().await;
        killed.map_err(|error| Error::Io(self.name.to_owned(), error))
    }

    /// Ends it, and returns when it is gone.
    pub(super) async fn end(mut self) {
        drop(self.orders);
        if tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .is_err()
        {
            let _ = self.child.kill().await;
        }
    }

    fn failure(&self, what: &str) -> Error {
        let tail = self.said.tail();
        Error::Io(
            self.name.to_owned(),
            std::io::Error::other(format!("{what}: {tail}")),
        )
    }
}

/// The last lines that a child wrote, for error messages.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<VecDeque<String>>>);

impl Said {
    async fn note(self, source: impl AsyncRead + Unpin, answers: Option<mpsc::Sender<String>>) {
        let mut lines = BufReader::new(source).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            {
                let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                said.push_back(line.chars().take(LINE).collect());
                if said.len() > TAIL {
                    said.pop_front();
                }
            }
            if let Some(answers) = &answers {
                // Where nobody listens any more, it goes on all the same.
                let _ = answers.send(line).await;
            }
        }
    }

    fn tail(&self) -> String {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().cloned().collect::<Vec<_>>().join(" | ")
    }
}

const ANSWERS: usize = 64;
const TAIL: usize = 5;
const LINE: usize = 300;
const PATIENCE: Duration = Duration::from_secs(5);
