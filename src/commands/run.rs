//! `posthaste run`: the worker.

use std::process::ExitCode;

use clap::Command;
use posthaste::config::Config;
use posthaste::{Result, logging};

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

#[expect(clippy::unused_async, reason = "its parts are still to come")]
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let _flush = logging::init(config.log_format, config.log_level)?;
    config.required_database_url()?;
    super::unfinished("run")
}

const EXAMPLES: &str = "\
Examples:
  DATABASE_URL=postgres://worker@db/platform POSTHASTE_KEYS=k1:... posthaste run
  posthaste run --config /etc/posthaste.toml --log-format json
  posthaste run --config /etc/posthaste.toml --wake poll     # behind a pooler in transaction mode
  posthaste run --config dev.toml --allow-http-loopback --allow-networks 127.0.0.0/8";
