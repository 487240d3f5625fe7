//! One Postgres server as a child of ours: made, started, and gone when we are gone.

use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::account::Account;
use super::binaries::Binaries;
use crate::trial::child::{self, Log};
use crate::trial::scratch::Scratch;
use crate::{Error, Result};

/// What a server is made from: its programs, the folder for its files and its socket, and whom it runs as.
pub(super) struct Site {
    pub(super) binaries: Binaries,
    pub(super) account: Option<Account>,
    pub(super) home: Scratch,
}

impl Site {
    /// Fills the data directory. Whoever reaches the socket enters; over TCP a password is asked for, or nobody enters.
    pub(super) async fn init(&self, password: Option<&str>) -> Result<()> {
        let mut command = self.command("initdb");
        command.args(["--no-sync", "--no-locale", "-E", "UTF8", "-U", "postgres"]);
        command
            .args(["--auth-local=trust", "-D"])
            .arg(self.data_dir());
        match password {
            Some(password) => command
                .arg("--auth-host=scram-sha-256")
                .arg(self.pwfile(password)?),
            None => command.arg("--auth-host=reject"),
        };
        let log = Log::create(&self.home.path().join("initdb.log"))?;
        let made = child::run(command, INITDB_DEADLINE, &log).await;
        let _ = fs::remove_file(self.home.path().join(PASSWORD_FILE));
        made.map(drop).map_err(Error::Database)
    }

    /// Starts the server and returns once it takes connections.
    pub(super) async fn start(&self, settings: &[(String, String)]) -> Result<Server> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data_dir());
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let log_path = self.home.path().join("log");
        // A second try, on another port, starts a fresh log.
        let _ = fs::remove_file(&log_path);
        let log = Log::create(&log_path)?;
        log.take_output_of(&mut command)
            .map_err(|error| Error::Io("postgres".into(), error))?;
        Server::spawn(command, self.data_dir(), log).await
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = child::command(self.binaries.program(program), super::INHERITED);
        // The user that we step down to could not read our own current directory, nor our home.
        command
            .current_dir(self.home.path())
            .env("HOME", self.home.path());
        // The same cluster on every machine; macOS refuses to start without LC_ALL.
        command.env("TZ", "UTC").env("LC_ALL", "C");
        if let Some(account) = self.account {
            account.take_on(&mut command);
        }
        command
    }

    /// The flag that hands over the password: an argument could be read by every user of the machine.
    fn pwfile(&self, password: &str) -> Result<String> {
        let path = self.home.path().join(PASSWORD_FILE);
        let written = || {
            let mut file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(password.as_bytes())?;
            self.account.map_or(Ok(()), |account| account.own(&path))
        };
        written().map_err(|error| Error::Io("writing initdb's password file".into(), error))?;
        Ok(format!("--pwfile={}", path.display()))
    }
}

/// A running server. Dropping it stops it, which takes a few milliseconds and is waited for.
pub(super) struct Server {
    pid: u32,
    stop: Option<mpsc::Sender<Infallible>>, // nothing is ever sent: dropping it is the signal
    parent: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the server from a thread of its own, because the kernel's "your parent died" means the thread, not the process:
    /// a runtime's worker thread may end long before the runtime.
    async fn spawn(command: Command, data_dir: PathBuf, log: Log) -> Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (started, start) = oneshot::channel();
        let parent = thread::Builder::new()
            .name("postgres-parent".into())
            .spawn(move || be_parent(command, &data_dir, &log, started, &stopped))
            .map_err(|error| Error::Io("starting a thread".into(), error))?;
        let mut server = Self {
            pid: 0,
            stop: Some(stop),
            parent: Some(parent),
        };
        let lost = |_| Err("its thread ended".to_owned());
        server.pid = start.await.unwrap_or_else(lost).map_err(Error::Database)?;
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(parent) = self.parent.take() {
            let _ = parent.join();
        }
    }
}

type Started = std::result::Result<u32, String>;

fn be_parent(
    mut command: Command,
    data_dir: &Path,
    log: &Log,
    started: oneshot::Sender<Started>,
    stopped: &mpsc::Receiver<Infallible>,
) {
    // A Ctrl-C in the terminal goes to our whole process group. We still have results to record then, so the server must not
    // be in it.
    command.process_group(0);
    system::die_with_parent(&mut command);
    let mut server = match command.spawn() {
        Ok(server) => server,
        Err(error) => return drop(started.send(Err(format!("postgres does not start: {error}")))),
    };
    let ready = wait_until_ready(&mut server, data_dir, log, stopped);
    let is_ready = ready.is_ok();
    if started.send(ready.map(|()| server.id())).is_ok() && is_ready {
        let _ = stopped.recv();
    }
    end(&mut server);
}

fn wait_until_ready(
    server: &mut Child,
    data_dir: &Path,
    log: &Log,
    stopped: &mpsc::Receiver<Infallible>,
) -> std::result::Result<(), String> {
    let begin = Instant::now();
    while !says_ready(data_dir) {
        if let Ok(Some(status)) = server.try_wait() {
            return Err(format!("postgres ended with {status}: {}", log.tail()));
        }
        if begin.elapsed() > READY_DEADLINE {
            let seconds = READY_DEADLINE.as_secs();
            return Err(format!(
                "postgres was not ready in {seconds} s: {}",
                log.tail()
            ));
        }
        if stopped.recv_timeout(POLL) == Err(RecvTimeoutError::Disconnected) {
            return Err("nobody waits for postgres any more".into());
        }
    }
    Ok(())
}

/// What `pg_ctl --wait` looks at: the eighth line of the server's pid file.
fn says_ready(data_dir: &Path) -> bool {
    let file = fs::read_to_string(data_dir.join("postmaster.pid")).unwrap_or_default();
    file.lines()
        .nth(7)
        .is_some_and(|status| status.trim() == "ready")
}

/// Nothing in it is worth a checkpoint: the server is told to end at once, and to end its children.
fn end(server: &mut Child) {
    let begin = Instant::now();
    let mut is_told = false;
    while let Ok(None) = server.try_wait() {
        if !is_told {
            is_told = true;
            system::quit(server);
        } else if begin.elapsed() > STOP_DEADLINE {
            let _ = server.kill();
        }
        thread::sleep(POLL);
    }
}

/// The two calls to the system that std does not offer.
#[allow(
    unsafe_code,
    reason = "std has neither a parent-death signal nor a way to send SIGQUIT"
)]
mod system {
    use std::process::{Child, Command};

    /// Asks the kernel to send SIGQUIT to the child when the thread that spawns it ends, however that happens.
    /// Elsewhere than on Linux, an orphaned server ends within a minute of the sweep that removes its files.
    pub(super) fn die_with_parent(command: &mut Command) {
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::process::CommandExt;
            let parent = std::process::id();
            // SAFETY: between fork and exec only prctl and getppid are called: both are async-signal-safe and touch no memory
            // of ours. An io::Error from an errno or a kind does not allocate.
            unsafe {
                command.pre_exec(move || {
                    if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGQUIT) != 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                    // Had we died before the call above, the signal would never come.
                    if u32::try_from(libc::getppid()) != Ok(parent) {
                        return Err(std::io::ErrorKind::NotFound.into());
                    }
                    Ok(())
                });
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = command;
    }

    /// Sends SIGQUIT to a child that has not been waited for.
    pub(super) fn quit(child: &mut Child) {
        if let (Ok(None), Ok(pid)) = (child.try_wait(), libc::pid_t::try_from(child.id())) {
            // SAFETY: kill touches no memory. The child is not reaped (checked above, and we hold it), so the id is still its own.
            unsafe { libc::kill(pid, libc::SIGQUIT) };
        }
    }
}

const PASSWORD_FILE: &str = "password";
const INITDB_DEADLINE: Duration = Duration::from_mins(2);
const READY_DEADLINE: Duration = Duration::from_mins(1);
const STOP_DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);
