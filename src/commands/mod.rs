//! The commands, one small file each, in the order in which one meets them.

mod audit;
mod bench;
mod cancel;
mod certificate;
mod check;
mod demo;
mod egress;
mod envelope;
mod event_type;
pub(crate) mod failure;
mod fixtures;
mod input;
mod key;
mod migrate;
mod output;
mod preview;
mod receive;
mod replay;
mod run;
mod secret;
mod settings;
mod status;
mod subscription;
mod table;
mod verify;

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use posthaste::{Error, Result};

/// Everything that can be typed.
pub(crate) fn cli() -> Command {
    Command::new("posthaste")
        .version(env!("CARGO_PKG_VERSION"))
        .about(PROMISE)
        .after_help(EXIT_CODES)
        .help_template("{about}\n\n{usage-heading} {usage}\n\n{all-args}{after-help}\n")
        .max_term_width(WIDTH)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            demo::command(),
            migrate::command(),
            key::command(),
            check::command(),
            egress::command(),
            run::command(),
            subscription::command(),
            secret::command(),
            event_type::command(),
            envelope::command(),
            preview::command(),
            replay::command(),
            cancel::command(),
            audit::command(),
            status::command(),
            receive::command(),
            verify::command(),
            fixtures::command(),
            bench::command(),
        ])
}

/// Runs the command that was asked for.
pub(crate) async fn dispatch(matches: &ArgMatches) -> Result<ExitCode> {
    match matches.subcommand() {
        Some(("demo", args)) => Box::pin(demo::run(args)).await,
        Some(("migrate", args)) => migrate::run(settings::load(args)?.config).await,
        Some(("key", args)) => key::run(args),
        Some(("check", args)) => check::run(settings::load(args)?).await,
        Some(("egress", args)) => egress::run(args),
        Some(("run", args)) => run::run(settings::load(args)?.config).await,
        Some(("subscription", args)) => subscription::run(args).await,
        Some(("secret", args)) => secret::run(args).await,
        Some(("event-type", args)) => event_type::run(args).await,
        Some(("envelope", args)) => envelope::run(args).await,
        Some(("preview", args)) => preview::run(args).await,
        Some(("replay", args)) => replay::run(args).await,
        Some(("cancel", args)) => cancel::run(args).await,
        Some(("audit", args)) => audit::run(args).await,
        Some(("status", args)) => status::run(settings::load(args)?.config, args).await,
        Some(("receive", args)) => receive::run(args).await,
        Some(("verify", args)) => verify::run(args),
        Some(("fixtures", args)) => fixtures::run(args),
        Some(("bench", args)) => bench::run(args).await,
        _ => Err(Error::Config("no command was given".to_owned())),
    }
}

/// A command that is a heading for others.
fn group(name: &'static str) -> Command {
    Command::new(name)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
}

/// Which of a group's commands was asked for, and its own arguments.
fn chosen(args: &ArgMatches) -> Result<(&str, &ArgMatches)> {
    args.subcommand().ok_or_else(|| unknown(""))
}

fn unknown(command: &str) -> Error {
    Error::Config(format!("there is no command {command:?}"))
}

const PROMISE: &str =
    "Delivers events from a Postgres outbox as signed webhooks: at least once, and on the record.";
const EXIT_CODES: &str = "\
Exit codes:
  0  it worked
  1  it failed, or the answer is no
  2  bad usage or configuration
  3, 4  of `posthaste status` alone: it works, and what it tells is a warning, or critical

`posthaste <command> --help` has examples. To begin: posthaste demo";
const WIDTH: usize = 100;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        cli().debug_assert();
    }

    #[test]
    fn commands_are_listed_in_the_order_in_which_one_meets_them() {
        let cli = cli();
        let names: Vec<&str> = cli.get_subcommands().map(Command::get_name).collect();
        let expected = [
            "demo",
            "migrate",
            "key",
            "check",
            "egress",
            "run",
            "subscription",
            "secret",
            "event-type",
            "envelope",
            "preview",
            "replay",
            "cancel",
            "audit",
            "status",
            "receive",
            "verify",
            "fixtures",
            "bench",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        for command in everything(cli().get_subcommands()) {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let examples = help.split_once("Examples:\n").map_or("", |(_, rest)| rest);
            let lines: Vec<&str> = examples.lines().filter_map(example).collect();
            assert!(!lines.is_empty(), "{} has no examples", command.get_name());
            for line in lines {
                let parsed = cli().try_get_matches_from(words(line));
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        }
    }

    /// The commands, and those below them.
    fn everything<'a>(commands: impl Iterator<Item = &'a Command>) -> Vec<&'a Command> {
        commands
            .flat_map(|command| [vec![command], everything(command.get_subcommands())].concat())
            .collect()
    }

    /// The part of a line that is our command.
    fn example(line: &str) -> Option<&str> {
        line.find("posthaste ").map(|start| &line[start..])
    }

    /// The words as a shell reads them, up to the first that is its own.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut quote, mut is_word) = (vec![String::new()], None, false);
        for letter in line.chars() {
            match (letter, quote) {
                ('\'' | '"', None) => (quote, is_word) = (Some(letter), true),
                (_, Some(open)) if letter == open => quote = None,
                (';' | '|' | '<' | '>' | '\\' | '#' | '&', None) => break,
                (' ', None) if is_word => {
                    words.push(String::new());
                    is_word = false;
                }
                (' ', None) => {}
                _ => {
                    words.last_mut().unwrap().push(letter);
                    is_word = true;
                }
            }
        }
        words.truncate(words.len() - usize::from(!is_word));
        words
    }
}
