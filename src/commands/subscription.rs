//! `posthaste subscription`: what partners receive, who proposed it, and who agreed.

mod listing;
mod proposal;
mod shape;
mod test;

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use posthaste::Result;
use posthaste::store::{Control, Proposed};
use serde_json::{Value, json};

use super::input::{given, if_given, reason, set, subject};
use super::output::{say, typed};
use super::settings;
use super::table;

pub(crate) fn command() -> Command {
    super::group("subscription")
        .about("Propose, approve, watch, pause and test what partners receive")
        .long_about(
            "What partners receive, and on what terms. One administrator proposes, another approves: \
             nothing leaves but to what two have agreed to. To pause takes one. Each acts through a \
             database login of their own, and the database decides what a login may do.",
        )
        .subcommands([
            listing::list_command(),
            listing::show_command(),
            proposal::command(),
            change_command(),
            remove_command(),
            resume_command(),
            listing::changes_command(),
            approve_command(),
            reject_command(),
            pause_command(),
            test::command(),
        ])
        .after_help(EXAMPLES)
}

pub(crate) async fn run(args: &ArgMatches) -> Result<ExitCode> {
    let (name, args) = super::chosen(args)?;
    let control = Control::open(&settings::load(args)?.config).await?;
    match name {
        "list" => listing::list(&control, args).await,
        "show" => listing::show(&control, args).await,
        "propose" => tell(control.propose(&proposal::read(args)?).await?),
        "change" => change(&control, args).await,
        "remove" => remove(&control, args).await,
        "resume" => resume(&control, args).await,
        "changes" => listing::changes(&control, args).await,
        "approve" => approve(&control, args).await,
        "reject" => reject(&control, args).await,
        "pause" => pause(&control, args).await,
        "test" => return test::run(&control, args).await,
        other => Err(super::unknown(other)),
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn change(control: &Control, args: &ArgMatches) -> Result<()> {
    let changes = args.get_one::<Value>("set").unwrap_or(&Value::Null);
    let name = given(args, SUBSCRIPTION);
    let reason = if_given(args, "reason");
    tell(control.propose_change(name, changes, reason).await?)
}

async fn remove(control: &Control, args: &ArgMatches) -> Result<()> {
    let (name, reason) = (given(args, SUBSCRIPTION), given(args, "reason"));
    tell(control.propose_removal(name, reason).await?)
}

async fn resume(control: &Control, args: &ArgMatches) -> Result<()> {
    let (name, reason) = (given(args, SUBSCRIPTION), if_given(args, "reason"));
    let active = json!({"active": true});
    tell(control.propose_change(name, &active, reason).await?)
}

/// Says what was proposed and what is to come.
pub(super) fn tell(proposed: Proposed) -> Result<()> {
    let id = proposed.change_id;
    let who = if proposed.needs_another {
        "another administrator"
    } else {
        "next"
    };
    say(&format!("change {id} is proposed"))?;
    say(&format!("{who}: posthaste subscription approve {id}"))
}

async fn approve(control: &Control, args: &ArgMatches) -> Result<()> {
    let id = change_id(args);
    let what = control.change(id).await?.unwrap_or_default();
    if what["kind"] == "envelope" {
        // The database knows less of the language than whoever renders it.
        super::envelope::check(&what["what"])?;
    }
    control.approve(id, if_given(args, "reason")).await?;
    let change = control.change(id).await?.unwrap_or_default();
    say(&decided(id, "approved", &change))?;
    if change["kind"] == "create" {
        let name = typed(change["subscription"].as_str().unwrap_or_default());
        say(&format!(
            "its partner's secret: posthaste secret reveal {name} --reason WHY"
        ))?;
    }
    if change["kind"] == "envelope" {
        let what = &change["what"];
        let (name, version) = (table::text(&what["name"]), table::text(&what["version"]));
        say(&format!(
            "to use it: posthaste subscription change NAME --set '{{\"envelope\": \"{name}@{version}\"}}'"
        ))?;
    }
    Ok(())
}

async fn reject(control: &Control, args: &ArgMatches) -> Result<()> {
    let id = change_id(args);
    control.reject(id, given(args, "reason")).await?;
    let change = control.change(id).await?.unwrap_or_default();
    say(&decided(id, "rejected", &change))
}

fn decided(id: i64, decision: &str, change: &Value) -> String {
    let (kind, name) = (
        table::text(&change["kind"]),
        table::text(&change["subscription"]),
    );
    format!("change {id} is {decision}: {kind} {name}")
}

async fn pause(control: &Control, args: &ArgMatches) -> Result<()> {
    let name = given(args, SUBSCRIPTION);
    control.deactivate(name, given(args, "reason")).await?;
    say("paused: what comes up waits")?;
    say(&format!(
        "to go on: posthaste subscription resume {}",
        typed(name)
    ))
}

fn change_id(args: &ArgMatches) -> i64 {
    args.get_one::<i64>(CHANGE).copied().unwrap_or_default()
}

fn change_command() -> Command {
    let command = Command::new("change")
        .about("Propose other terms for a subscription")
        .arg(name())
        .arg(
            set("The terms that change, under the names that `show --json` gives them")
                .required(true),
        )
        .arg(reason())
        .after_help(CHANGE_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn remove_command() -> Command {
    let command = Command::new("remove")
        .about("Propose to end a subscription: what it is owed is cancelled, its history stays")
        .arg(name())
        .arg(reason().required(true))
        .after_help(REMOVE_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn resume_command() -> Command {
    let command = Command::new("resume")
        .about("Propose to go on with a subscription that is paused")
        .arg(name())
        .arg(reason())
        .after_help(RESUME_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn approve_command() -> Command {
    let command = Command::new("approve")
        .about("Make a proposal so, exactly as it was proposed")
        .long_about(
            "Makes a proposal so, exactly as it was proposed. Refused to the login that proposed it \
             while four eyes are required, and where the terms have changed since.",
        )
        .arg(change_argument())
        .arg(reason())
        .after_help(APPROVE_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn reject_command() -> Command {
    let command = Command::new("reject")
        .about("End a proposal without making it so; also to withdraw one's own")
        .arg(change_argument())
        .arg(reason().required(true))
        .after_help(REJECT_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn pause_command() -> Command {
    let command = Command::new("pause")
        .about("Stop sending to a subscription at once; what comes up waits")
        .arg(name())
        .arg(reason().required(true))
        .after_help(PAUSE_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn name() -> Arg {
    subject(SUBSCRIPTION, "The subscription's name")
}

fn change_argument() -> Arg {
    subject(CHANGE, "The change's id").value_parser(value_parser!(i64))
}

const SUBSCRIPTION: &str = "subscription";
const CHANGE: &str = "change";

const EXAMPLES: &str = "\
The database is DATABASE_URL, or database_url in the --config file; the login in it is who acts.

Examples:
  posthaste subscription propose university --url https://hooks.university.example/events --event-type certificate.issued
  posthaste subscription changes
  posthaste subscription approve 7 --reason 'contract 2027-14'
  posthaste subscription list
  posthaste subscription pause university --reason 'their incident 4711'";
const CHANGE_EXAMPLES: &str = "\
Examples:
  posthaste subscription change university --set '{\"url\": \"https://new.university.example/events\"}'
  posthaste subscription change university --set '{\"timeout\": \"10s\", \"concurrency\": 4}' --reason 'they are slow'";
const REMOVE_EXAMPLES: &str = "\
Examples:
  posthaste subscription remove university --reason 'the contract has ended'";
const RESUME_EXAMPLES: &str = "\
Examples:
  posthaste subscription resume university --reason 'their incident 4711 is over'";
const APPROVE_EXAMPLES: &str = "\
Examples:
  posthaste subscription changes
  posthaste subscription approve 7 --reason 'contract 2027-14'";
const REJECT_EXAMPLES: &str = "\
Examples:
  posthaste subscription reject 7 --reason 'the URL is not theirs'";
const PAUSE_EXAMPLES: &str = "\
Examples:
  posthaste subscription pause university --reason 'their incident 4711'";
