//! `posthaste status`: how much is owed, since when, and who works on it.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use posthaste::Result;
use posthaste::config::Config;

use super::settings;

pub(crate) fn command() -> Command {
    let command = Command::new("status")
        .about("Show the backlog, the oldest delivery owed, the workers alive and the lanes asleep")
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("One JSON object in place of a table"),
        )
        .after_help(EXAMPLES);
    settings::arguments(command, |_| false)
}

#[expect(clippy::unused_async, reason = "its parts are still to come")]
pub(crate) async fn run(config: Config, _args: &ArgMatches) -> Result<ExitCode> {
    config.required_database_url()?;
    super::unfinished("status")
}

const EXAMPLES: &str = "\
The database is DATABASE_URL, or database_url in the --config file.

Examples:
  DATABASE_URL=postgres://auditor@db/platform posthaste status
  posthaste status --config /etc/posthaste.toml --json";
