//! Workers: one inside the test, and the real program.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use posthaste::Result;
use posthaste::config::Config;
use posthaste::worker::Worker;
use tokio::process::Child;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::PATIENCE;

/// A worker on a thread of its own. Dropping it ends it at once, as a crash would, and waits until it has.
pub(crate) struct WorkerThread {
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
    crash: CancellationToken,
    ended: Option<oneshot::Receiver<Result<()>>>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerThread {
    pub(crate) fn start(config: Config) -> Self {
        let worker = Worker::new(config).unwrap();
        let (stop, crash) = (CancellationToken::new(), CancellationToken::new());
        let (end, ended) = oneshot::channel();
        let ready = worker.ready();
        let (told, crashes) = (stop.clone(), crash.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    result = worker.run(told) => drop(end.send(result)),
                    () = crashes.cancelled() => {}
                }
            });
            runtime.shutdown_background();
        });
        Self {
            ready,
            stop,
            crash,
            ended: Some(ended),
            thread: Some(thread),
        }
    }

    /// Returns once it is registered and looks for work.
    pub(crate) async fn ready(mut self) -> Self {
        let ready = tokio::time::timeout(PATIENCE, self.ready.wait_for(|is| *is)).await;
        if !matches!(ready, Ok(Ok(_))) {
            let result = self.ended.as_mut().and_then(|ended| ended.try_recv().ok());
            panic!("the worker is not ready: {result:?}");
        }
        drop(ready);
        self
    }

    /// Returns once it is without a session, and knows.
    pub(crate) async fn not_ready(&mut self) {
        let lost = tokio::time::timeout(PATIENCE, self.ready.wait_for(|is| !*is)).await;
        lost.expect("the worker does not notice").unwrap();
    }

    pub(crate) fn is_ready(&mut self) -> bool {
        *self.ready.borrow_and_update()
    }

    /// Tells it to stop in order, without waiting.
    pub(crate) fn tell_to_stop(&self) {
        self.stop.cancel();
    }

    /// Waits for its end, and tells how it ended.
    pub(crate) async fn ended(mut self) -> Result<()> {
        let ended = tokio::time::timeout(PATIENCE, self.ended.take().unwrap()).await;
        ended
            .expect("the worker does not end")
            .expect("the worker panicked")
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.tell_to_stop();
        self.ended().await
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.crash.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The real program, `posthaste run`. Dropping it kills it.
pub(crate) struct WorkerProcess {
    child: Child,
    log: PathBuf,
}

impl WorkerProcess {
    /// Starts `posthaste run` with nothing in its environment but `variables`.
    pub(crate) fn start(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::start_read(true, variables)
    }

    /// The same, with a standard output that nobody ever reads.
    pub(crate) fn start_unread(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::start_read(false, variables)
    }

    fn start_read(is_read: bool, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!(
            "posthaste-test-{}-{number}.log",
            std::process::id()
        ));
        let file = File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
        command.arg("run").env_clear().envs(variables);
        let stdout = if is_read {
            file.try_clone().unwrap().into()
        } else {
            Stdio::piped()
        };
        command.stdin(Stdio::null()).stdout(stdout).stderr(file);
        let child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGSTOP.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// SIGTERM, without waiting.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// How it ended, once it has.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("the worker does not end").unwrap()
    }

    /// How it ended and all that it said, once it has.
    pub(crate) async fn ended_saying(mut self) -> (ExitStatus, String) {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        (ended.expect("the worker does not end").unwrap(), self.log())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the worker has ended")
    }

    /// Where `/metrics` and the rest are served, once its log tells.
    pub(crate) async fn telemetry_address(&self) -> SocketAddr {
        let told = async {
            loop {
                let log = self.log();
                if let Some(address) = log.lines().find_map(served_address) {
                    return address;
                }
                tokio::time::sleep(LOG_PAUSE).await;
            }
        };
        let told = tokio::time::timeout(PATIENCE, told).await;
        told.unwrap_or_else(|_| panic!("it serves nothing; it said:\n{}", self.log()))
    }

    /// Returns once its log says so.
    pub(crate) async fn saying(&self, text: &str) {
        let said = async {
            while !self.log().contains(text) {
                tokio::time::sleep(LOG_PAUSE).await;
            }
        };
        let said = tokio::time::timeout(PATIENCE, said).await;
        said.unwrap_or_else(|_| panic!("it never says {text:?}; it said:\n{}", self.log()));
    }

    /// The most memory that it has had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        kib.unwrap().parse::<u64>().unwrap() * 1024
    }

    /// All that it said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().expect("the worker has ended");
        let script = format!("kill -{name} {pid}");
        assert!(
            Command::new("sh")
                .args(["-c", &script])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the worker process said:\n{}", self.log());
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// The address in the log line about serving, as text or as JSON.
fn served_address(line: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once("address")?;
    let words = address
        .split(['=', '"', ':', ' '])
        .filter(|word| !word.is_empty());
    let [host, port] = words.take(2).collect::<Vec<_>>().try_into().ok()?;
    (line.contains("serving") && line.contains("/metrics"))
        .then(|| format!("{host}:{port}").parse().ok())?
}

const LOG_PAUSE: Duration = Duration::from_millis(10);
