//! `posthaste demo`: the whole way of an event, on this machine, in half a minute.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use posthaste::Result;

pub(crate) fn command() -> Command {
    Command::new("demo")
        .about("See it work: a private Postgres, a small platform, three partners, one worker")
        .long_about(
            "See it work, on this machine and without configuration.\n\n\
             Starts a private Postgres (or uses DATABASE_URL), a worker and three HTTPS partners: one \
             healthy, one that fails a few times and recovers, one that is down. A small platform runs \
             business transactions that INSERT their events with plain SQL; some roll back. Then it \
             counts: what was committed, what arrived, what was signed, and that nothing is missing.",
        )
        .arg(
            Arg::new("transactions")
                .long("transactions")
                .value_name("COUNT")
                .value_parser(value_parser!(u32).range(1..=100_000))
                .default_value("300")
                .help("Business transactions to run"),
        )
        .arg(
            Arg::new("keep")
                .long("keep")
                .action(ArgAction::SetTrue)
                .help("Keep everything up afterwards, and print how to look inside; Ctrl-C ends it"),
        )
        .after_help(EXAMPLES)
}

#[expect(clippy::unused_async, reason = "its parts are still to come")]
pub(crate) async fn run(_args: &ArgMatches) -> Result<ExitCode> {
    super::unfinished("demo")
}

const EXAMPLES: &str = "\
Examples:
  posthaste demo
  posthaste demo --keep                  # and then look inside with psql
  DATABASE_URL=postgres://localhost/scratch posthaste demo --transactions 5000

Exits with 0 only if every committed event arrived, verified, and nothing else did.";
