//! `posthaste bench`: how fast it is on this machine, beside the loop that one would write by hand.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use posthaste::Result;

use super::input::span;

pub(crate) fn command() -> Command {
    Command::new("bench")
        .about("Measure drain rate and latency on this machine, beside a hand-written loop")
        .long_about(
            "Measures, with a private Postgres (or DATABASE_URL) and one local endpoint: how fast a \
             backlog is drained, how long an event takes from its commit to its receipt at a steady \
             rate, and both for a hand-written loop (one row a transaction, the request inside it).",
        )
        .arg(number("events", "50000", 1..=10_000_000, "Committed events to drain"))
        .arg(number("rate", "200", 1..=10_000, "Events a second while latency is measured"))
        .arg(span("duration", "How long latency is measured").default_value("10s"))
        .after_help(EXAMPLES)
}

fn number(
    name: &'static str,
    default: &'static str,
    bounds: std::ops::RangeInclusive<i64>,
    help: &'static str,
) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("COUNT")
        .value_parser(value_parser!(u32).range(bounds))
        .default_value(default)
        .help(help)
}

#[expect(clippy::unused_async, reason = "its parts are still to come")]
pub(crate) async fn run(_args: &ArgMatches) -> Result<ExitCode> {
    super::unfinished("bench")
}

const EXAMPLES: &str = "\
Build with --release first: a debug build measures the compiler.

Examples:
  posthaste bench
  posthaste bench --events 5000 --rate 500 --duration 30s
  DATABASE_URL=postgres://localhost/scratch posthaste bench";
