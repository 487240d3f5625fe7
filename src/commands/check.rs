//! `posthaste check`: says whether `run` would work, without sending anything.

use std::process::ExitCode;

use clap::Command;
use posthaste::Result;
use posthaste::config::SETTINGS;

use super::output::say;
use super::settings::{self, Loaded, SOURCES};

pub(crate) fn command() -> Command {
    let command = Command::new("check")
        .about("Check configuration, database, schema, clock and keys; send nothing")
        .long_about(
            "Checks what `run` needs with the same settings, and sends nothing: the configuration and \
             where each value comes from, the database, the version of the schema, the clock against \
             the database's, and that the keys open the stored secrets.",
        )
        .after_help(format!("{EXAMPLES}\n\n{SOURCES}"));
    settings::arguments(command, |_| true)
}

#[expect(clippy::unused_async, reason = "its parts are still to come")]
pub(crate) async fn run(loaded: Loaded) -> Result<ExitCode> {
    print_settings(&loaded)?;
    loaded.config.required_database_url()?;
    super::unfinished("check")
}

fn print_settings(loaded: &Loaded) -> Result<()> {
    for (setting, source) in SETTINGS.iter().zip(&loaded.sources) {
        let value = loaded.config.text(setting.key)?;
        say(&format!("{:22} {value:22} {source}", setting.key))?;
    }
    Ok(())
}

const EXAMPLES: &str = "\
Examples:
  posthaste check --config /etc/posthaste.toml
  DATABASE_URL=postgres://worker@db/platform posthaste check --wake poll";
