//! `posthaste migrate`: brings the schema up to date.

use std::process::ExitCode;

use clap::Command;
use posthaste::Result;
use posthaste::config::Config;
use posthaste::store::{self, Applied, Store};

use super::output::say;
use super::settings;

pub(crate) fn command() -> Command {
    let command = Command::new("migrate")
        .about("Create the schema `posthaste` in the database, or bring it up to date")
        .long_about(
            "Creates the schema `posthaste` in the database, or brings it up to date. Running it twice, \
             or on two machines at once, does no harm. The login needs the right to create a schema.",
        )
        .after_help(EXAMPLES);
    settings::arguments(command, |setting| setting.key == "partitions_ahead")
}

pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let applied = store::migrate(config.required_database_url()?).await?;
    for Applied { version, name } in &applied {
        say(&format!("applied {version:04}_{name}"))?;
    }
    let made = Store::open(&config)?
        .create_partitions(config.partitions_ahead)
        .await?;
    say(&match applied.len() {
        0 => format!("the schema is up to date; {made} partition(s) made"),
        some => format!("{some} migration(s) applied; {made} partition(s) made"),
    })?;
    Ok(ExitCode::SUCCESS)
}

const EXAMPLES: &str = "\
The database is DATABASE_URL, or database_url in the --config file.

Examples:
  DATABASE_URL=postgres://owner@db/platform posthaste migrate
  posthaste migrate --config /etc/posthaste.toml";
