//! `posthaste replay`: what was given up, or lost by a partner, is delivered once more.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use posthaste::Result;
use posthaste::store::{Asked, Control, Replay};

use super::input::{given, if_given, reason, subject};
use super::output::say;
use super::settings;
use super::table::{self, Column, json, text, time};

pub(crate) fn command() -> Command {
    super::group("replay")
        .about("Deliver once more what was given up, or what a partner lost")
        .long_about(
            "Delivers finished deliveries once more: each is a new delivery of the same event, which names \
             the one that it follows. Workers put them into the queue at a rate, and give way to what is fresh. \
             Who asked, and why, stands in the audit log.",
        )
        .subcommands([
            delivery_command(),
            event_command(),
            since_command(),
            where_command(),
            list_command(),
            cancel_command(),
        ])
        .after_help(EXAMPLES)
}

pub(crate) async fn run(args: &ArgMatches) -> Result<ExitCode> {
    let (name, args) = super::chosen(args)?;
    let control = Control::open(&settings::load(args)?.config).await?;
    let (event, subscription) = (|| given(args, EVENT), || given(args, SUBSCRIPTION));
    match name {
        "delivery" => {
            let asked = asked(args);
            let replay = control.replay_delivery(event(), subscription(), asked);
            tell(replay.await?, asked)
        }
        "event" => {
            let asked = asked(args);
            tell(control.replay_event(event(), asked).await?, asked)
        }
        "since" => {
            let asked = asked(args);
            let replay = control.replay_since(subscription(), given(args, TIME), asked);
            tell(replay.await?, asked)
        }
        "where" => {
            let asked = asked(args);
            let replay = control.replay_where(given(args, PREDICATE), asked);
            tell(replay.await?, asked)
        }
        "list" => list(&control, args).await,
        "cancel" => cancel(&control, args).await,
        other => Err(super::unknown(other)),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn asked(args: &ArgMatches) -> Asked<'_> {
    let rate = args.get_one::<i32>("rate").copied().unwrap_or_default();
    Asked {
        reason: if_given(args, "reason"),
        dry_run: args.get_flag("dry-run"),
        rate: (rate > 0).then_some(rate),
    }
}

/// Says what was asked for and how to follow it.
fn tell(replay: Replay, asked: Asked<'_>) -> Result<()> {
    let count = match replay.deliveries {
        1 => "1 delivery".to_owned(),
        count => format!("{count} deliveries"),
    };
    match replay.replay_id {
        Some(id) => {
            say(&format!("replay {id} is asked for: {count}"))?;
            say("its progress: posthaste replay list")
        }
        None if asked.dry_run => say(&format!("{count} would be replayed; nothing has changed")),
        None => say("there is nothing to replay"),
    }
}

async fn list(control: &Control, args: &ArgMatches) -> Result<()> {
    let rows = control.replays(args.get_flag("all"), LISTED).await?;
    table::print(args, &rows, REPLAYS, "no replay is under way")
}

async fn cancel(control: &Control, args: &ArgMatches) -> Result<()> {
    let id = args.get_one::<i64>(REPLAY).copied().unwrap_or_default();
    let left = control.cancel_replay(id, given(args, "reason")).await?;
    say(&format!(
        "replay {id} is cancelled: {left} left as they were"
    ))
}

fn delivery_command() -> Command {
    how(Command::new("delivery")
        .about("Deliver an event to one subscription once more")
        .arg(subject(
            EVENT,
            "The event's id, which partners see as webhook-id",
        ))
        .arg(subject(SUBSCRIPTION, "The subscription's name"))
        .after_help(DELIVERY_EXAMPLES))
}

fn event_command() -> Command {
    how(Command::new("event")
        .about("Deliver an event once more to everybody that it was delivered to")
        .arg(subject(
            EVENT,
            "The event's id, which partners see as webhook-id",
        ))
        .after_help(EVENT_EXAMPLES))
}

fn since_command() -> Command {
    how(Command::new("since")
        .about("Recover a subscription: deliver what was given up since a time")
        .arg(subject(SUBSCRIPTION, "The subscription's name"))
        .arg(subject(
            TIME,
            "A time as Postgres reads it, in UTC where it does not say",
        ))
        .after_help(SINCE_EXAMPLES))
}

fn where_command() -> Command {
    how(Command::new("where")
        .about("Deliver once more the dead letters that a predicate finds")
        .arg(subject(
            PREDICATE,
            "An SQL condition over the columns of posthaste.dead_letter",
        ))
        .after_help(WHERE_EXAMPLES))
}

/// The flags that every replay has.
fn how(command: Command) -> Command {
    let command = command
        .arg(reason().required_unless_present("dry-run"))
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Count, and change nothing"),
        )
        .arg(
            Arg::new("rate")
                .long("rate")
                .value_name("NUMBER")
                .value_parser(value_parser!(i32).range(0..=100_000))
                .default_value("100")
                .help("Deliveries put into the queue in a second, all workers together; 0: as many as go"),
        );
    settings::arguments(command, |_| false)
}

fn list_command() -> Command {
    let command = Command::new("list")
        .about("Show how far the replays are that are under way")
        .arg(
            Arg::new("all")
                .long("all")
                .action(ArgAction::SetTrue)
                .help("The last ones that ended, and tests, too"),
        )
        .arg(json())
        .after_help(LIST_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn cancel_command() -> Command {
    let command = Command::new("cancel")
        .about("End a replay; what it has not put into the queue stays as it was")
        .arg(subject(REPLAY, "The replay's id").value_parser(value_parser!(i64)))
        .arg(reason().required(true))
        .after_help(CANCEL_EXAMPLES);
    settings::arguments(command, |_| false)
}

const REPLAYS: &[Column] = &[
    ("replay", "replay_id", text),
    ("kind", "kind", text),
    ("state", "state", text),
    ("of", "total", text),
    ("queued", "queued", text),
    ("skipped", "skipped", text),
    ("remaining", "remaining", text),
    ("a second", "rate", text),
    ("expected end", "expected_end", time),
    ("asked", "asked_at", time),
    ("by", "asked_by", text),
    ("reason", "reason", text),
];
/// Nobody reads more than so many lines.
const LISTED: i64 = 200;

const EVENT: &str = "event";
const SUBSCRIPTION: &str = "subscription";
const TIME: &str = "time";
const PREDICATE: &str = "predicate";
const REPLAY: &str = "replay";

const EXAMPLES: &str = "\
The database is DATABASE_URL, or database_url in the --config file; the login in it is who acts.

Examples:
  posthaste replay since university '2026-05-01 14:00Z' --dry-run
  posthaste replay since university '2026-05-01 14:00Z' --reason 'their incident 4711 is over'
  posthaste replay list";
const DELIVERY_EXAMPLES: &str = "\
It may be replayed whatever became of it, once it is finished.

Examples:
  posthaste replay delivery 01a20492-6698-78f6-8c62-89b09a1d19af university --reason 'they lost it'";
const EVENT_EXAMPLES: &str = "\
Examples:
  posthaste replay event 01a20492-6698-78f6-8c62-89b09a1d19af --reason 'all have lost it'";
const SINCE_EXAMPLES: &str = "\
What was replayed already is left out.

Examples:
  posthaste replay since university yesterday --dry-run
  posthaste replay since university '2026-05-01 14:00Z' --rate 10 --reason 'their incident 4711 is over'";
const WHERE_EXAMPLES: &str = "\
The predicate runs with the rights of your login. What was replayed already is left out.

Examples:
  posthaste replay where \"http_status = 500 and event_type = 'certificate.issued'\" --dry-run
  posthaste replay where \"error ~ 'certificate' and last_attempt_at > now() - interval '1 day'\" --reason 'renewed'";
const LIST_EXAMPLES: &str = "\
What became of the deliveries of one: select status, count(*) from posthaste.delivery where replay_id = 7 group by status

Examples:
  posthaste replay list
  posthaste replay list --all --json";
const CANCEL_EXAMPLES: &str = "\
Examples:
  posthaste replay cancel 7 --reason 'they are down again'";
