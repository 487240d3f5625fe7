//! `posthaste run`: the worker.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Command;
use posthaste::config::Config;
use posthaste::listener::{self, Listener, PATHS, Readiness};
use posthaste::worker::Worker;
use posthaste::{Error, Result, logging, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::settings::{self, SOURCES};

pub(crate) fn command() -> Command {
    let command = Command::new("run")
        .about("Deliver: claim, sign, send, record, until told to stop")
        .long_about(
            "Runs a worker: claims deliveries, signs and sends them, records every attempt. Any number \
             of workers share the work. SIGTERM or Ctrl-C: claims nothing more, waits for what is in \
             flight (--drain), gives back the rest, exits with 0. A second signal ends it at once; the \
             other workers then take over.",
        )
        .after_help(format!("{EXAMPLES}\n\n{SOURCES}"));
    settings::arguments(command, |_| true)
}

pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let _flush = logging::init(&config)?;
    let listen = config.listen;
    let worker = Worker::new(config)?;
    let _telemetry = match listen {
        Some(address) => Some(serve_telemetry(address, &worker).await?),
        None => None,
    };
    let stop = told_to_stop()?;
    // On a thread of the pool, where what it waits for ends: the main thread would have to be woken each time.
    let working = tokio::spawn(async move { worker.run(stop).await });
    let ended = |error: tokio::task::JoinError| Error::Io("the worker".to_owned(), error.into());
    working.await.map_err(ended)??;
    Ok(ExitCode::SUCCESS)
}

/// Everything that the listener has, until the guard is dropped.
async fn serve_telemetry(address: SocketAddr, worker: &Worker) -> Result<DropGuard> {
    let metrics = listener::install_recorder(telemetry::BUCKETS)?;
    telemetry::describe();
    let listener = Listener::bind(address).await?;
    tracing::info!(address = %listener.address(), paths = PATHS, "serving");
    let stop = CancellationToken::new();
    let (more, ready) = (worker.page(), readiness(worker.ready()));
    let serving = listener.serve(metrics, more, ready, worker.public_keys());
    tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
    Ok(stop.drop_guard())
}

fn readiness(mut ready: watch::Receiver<bool>) -> watch::Receiver<Readiness> {
    let say = |ready: bool| {
        if ready {
            Readiness::Ready
        } else {
            Readiness::NotReady("not registered with the database".to_owned())
        }
    };
    let (sender, receiver) = watch::channel(say(*ready.borrow()));
    tokio::spawn(async move {
        while ready.changed().await.is_ok() {
            let now = *ready.borrow_and_update();
            sender.send_replace(say(now));
        }
    });
    receiver
}

/// Cancelled by the first SIGTERM or Ctrl-C. The second ends the process at once.
fn told_to_stop() -> Result<CancellationToken> {
    let cannot = |error| Error::Io("listening for signals".to_owned(), error);
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if told.is_cancelled() {
                std::process::exit(1);
            }
            told.cancel();
        }
    });
    Ok(stop)
}

const EXAMPLES: &str = "\
Examples:
  DATABASE_URL=postgres://worker@db/platform POSTHASTE_KEYS=k1:... posthaste run
  posthaste run --config /etc/posthaste.toml --log-format json
  posthaste run --config /etc/posthaste.toml --wake poll     # inserts never NOTIFY
  posthaste run --config dev.toml --allow-http-loopback --allow-networks 127.0.0.0/8";
