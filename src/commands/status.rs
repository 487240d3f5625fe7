//! `posthaste status`: what is wrong, since when, for whom and what helps; then how much is owed, who works on it, and what waits
//! for people.

mod columns;
mod json;
mod look;
mod reading;
mod report;
mod screen;
#[cfg(test)]
mod snapshots;
mod units;
mod watch;

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Arg, ArgAction, ArgMatches, Command};
use posthaste::Result;
use posthaste::config::Config;

use self::look::Looker;
use self::reading::Severity;
use super::input;
use super::output::say;
use super::settings;

pub(crate) fn command() -> Command {
    let command = Command::new("status")
        .about("Show what is wrong and what helps, the backlog, rates and workers, once or live")
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("One JSON object in place of text"),
        )
        .arg(
            Arg::new("watch")
                .long("watch")
                .action(ArgAction::SetTrue)
                .conflicts_with("json")
                .help("Show it live until q, Esc or Ctrl-C; block after block where the output is no terminal"),
        )
        .arg(
            Arg::new("every")
                .long("every")
                .value_name("DURATION")
                .value_parser(every)
                .default_value("2s")
                .help("How often --watch looks, from 1s to 1h"),
        )
        .after_help(format!("{DETAILS}\n\n{EXAMPLES}"));
    settings::arguments(command, |_| false)
}

pub(crate) async fn run(config: Config, args: &ArgMatches) -> Result<ExitCode> {
    if args.get_flag("watch") {
        let every = args.get_one("every").copied().unwrap_or(*EVERY.start());
        return watch::run(config, every).await;
    }
    let reading = Looker::new(config).look().await?;
    let text = if args.get_flag("json") {
        json::text(&reading)
    } else {
        report::text(&reading, SystemTime::now())
    };
    say(&text)?;
    Ok(exit_code(reading.worst()))
}

fn exit_code(worst: Option<Severity>) -> ExitCode {
    match worst {
        None | Some(Severity::Info) => ExitCode::SUCCESS,
        Some(Severity::Warning) => ExitCode::from(WARNING),
        Some(Severity::Critical) => ExitCode::from(CRITICAL),
    }
}

fn every(text: &str) -> std::result::Result<Duration, &'static str> {
    let every = input::duration(text)?;
    let allowed = "must be a duration from 1s to 1h";
    EVERY.contains(&every).then_some(every).ok_or(allowed)
}

const EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
/// Apart from the codes of failures, which are 1 and 2.
const WARNING: u8 = 3;
const CRITICAL: u8 = 4;

const DETAILS: &str = "\
The database is DATABASE_URL, or database_url in the --config file. Any login in posthaste_auditor,
posthaste_admin or posthaste_worker that sees all partners may ask.

Exit codes:
  0  nothing worse than info     1  it could not be read
  3  a warning at worst          2  bad usage or configuration
  4  something is critical
  With --watch it is 0, however things stand.

JSON:
  worst     \"critical\", \"warning\", \"info\" or null
  findings  worst first: severity, finding, subscription, since, detail, command, runbook, as in
            the view posthaste.health
  figures   a number for each figure, or an object of numbers by label: those of posthaste.figures,
            posthaste.subscription_figures and posthaste.recent_rates
  workers   those alive: worker_id, name, version, up_for_seconds, settings_digest,
            clock_difference_seconds
  unread    null, or why there are no figures of subscriptions";
const EXAMPLES: &str = "\
Examples:
  DATABASE_URL=postgres://auditor@db/platform posthaste status
  posthaste status --config /etc/posthaste.toml --json
  posthaste status --config /etc/posthaste.toml --watch --every 5s
  posthaste status --watch | tee incident.log   # no terminal: a block of text every two seconds";
