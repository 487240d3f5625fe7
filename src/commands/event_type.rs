//! `posthaste event-type`: the catalogue of what can be subscribed to.

mod docs;
mod fields;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use posthaste::catalogue::{breach, compile};
use posthaste::store::Control;
use posthaste::{Error, Result};
use serde_json::{Value, json};

use super::input::{given, if_given, path, read_json, reason, set, subject, text};
use super::output::say;
use super::settings;
use super::table::{self, Column, presence, time};

pub(crate) fn command() -> Command {
    super::group("event-type")
        .about("List, add and change what can be subscribed to")
        .long_about(
            "The catalogue: what each event type means, and the JSON Schema that its payloads keep. A \
             producer is never held to it: a payload that breaks its schema is kept, and its \
             deliveries are quarantined.",
        )
        .subcommands([list_command(), show_command(), create_command(), change_command(), docs::command()])
        .after_help(EXAMPLES)
}

pub(crate) async fn run(args: &ArgMatches) -> Result<ExitCode> {
    let (name, args) = super::chosen(args)?;
    let control = Control::open(&settings::load(args)?.config).await?;
    match name {
        "list" => list(&control, args).await,
        "show" => show(&control, args).await,
        "create" => create(&control, args).await,
        "change" => change(&control, args).await,
        "docs" => docs::run(&control, args).await,
        other => Err(super::unknown(other)),
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn list(control: &Control, args: &ArgMatches) -> Result<()> {
    let rows = control.event_types().await?;
    table::print(args, &rows, EVENT_TYPES, "the catalogue is empty")
}

async fn show(control: &Control, args: &ArgMatches) -> Result<()> {
    let found = control.event_type(given(args, NAME)).await?;
    if args.get_flag("json") {
        return say(&found.to_string());
    }
    let shown = |(title, field, show): &Column| ((*title).to_owned(), show(&found[*field]));
    let mut details: Vec<_> = DETAILS.iter().map(shown).collect();
    details.retain(|(_, value)| !value.is_empty());
    say(&table::pairs(&details))
}

async fn create(control: &Control, args: &ArgMatches) -> Result<()> {
    let name = given(args, NAME);
    let [schema, example] = [file(args, "schema")?, file(args, "example")?];
    let texts = [&schema, &example].map(|file| file.as_ref().map(|(text, _)| text.as_str()));
    check(texts[0], texts[1])?;
    let (description, owner) = (given(args, "description"), if_given(args, "owner"));
    control
        .create_event_type(name, description, texts[0], texts[1], owner)
        .await?;
    say("it is in the catalogue")
}

async fn change(control: &Control, args: &ArgMatches) -> Result<()> {
    let name = given(args, NAME);
    let mut changes = args.get_one("set").cloned().unwrap_or_else(|| json!({}));
    for field in ["schema", "example"] {
        if let Some((_, value)) = file(args, field)? {
            changes[field] = value;
        }
    }
    let before = control.event_type(name).await?;
    let after = |field: &str| {
        let value = changes.get(field).unwrap_or(&before[field]);
        (!value.is_null()).then(|| value.to_string())
    };
    check(after("schema").as_deref(), after("example").as_deref())?;
    let reason = if_given(args, "reason");
    control.change_event_type(name, &changes, reason).await?;
    say("it is changed, from the next event on")
}

fn file(args: &ArgMatches, name: &str) -> Result<Option<(String, Value)>> {
    args.get_one::<PathBuf>(name)
        .map(|path| read_json(path))
        .transpose()
}

/// Refuses a schema that is none, and an example that does not fit it.
fn check(schema: Option<&str>, example: Option<&str>) -> Result<()> {
    let Some(schema) = schema else {
        return Ok(());
    };
    let none = |why| Error::Refused(format!("that is no JSON Schema: {why}"));
    let validator = compile(schema).map_err(none)?;
    let misfit = |why| Error::Refused(format!("the example {why}"));
    let breach = example.and_then(|example| breach(&validator, example));
    breach.map_or(Ok(()), |why| Err(misfit(why)))
}

fn list_command() -> Command {
    let command = Command::new("list")
        .about("List the catalogue")
        .arg(table::json())
        .after_help(LIST_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn show_command() -> Command {
    let command = Command::new("show")
        .about("Show an event type with its schema and its example")
        .arg(name())
        .arg(table::json())
        .after_help(SHOW_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn create_command() -> Command {
    let command = Command::new("create")
        .about("Add an event type to the catalogue")
        .arg(name())
        .arg(text("description", "What it means, for whoever subscribes to it").required(true))
        .arg(path(
            "schema",
            "A JSON Schema that its payloads keep; - is standard input",
        ))
        .arg(path("example", "A payload for people to see"))
        .arg(text("owner", "Who answers for it: a team, a person"))
        .after_help(CREATE_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn change_command() -> Command {
    let changes = set(
        "The fields that change: description, schema, example, owner, active; not needed with --schema or --example",
    );
    let command = Command::new("change")
        .about("Change an event type, from the next event on")
        .arg(name())
        .arg(changes.required_unless_present_any(["schema", "example"]))
        .arg(path(
            "schema",
            "A JSON Schema in place of the one that there is",
        ))
        .arg(path(
            "example",
            "An example in place of the one that there is",
        ))
        .arg(reason())
        .after_help(CHANGE_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn name() -> Arg {
    subject(NAME, "Its name, such as certificate.issued")
}

const NAME: &str = "event-type";

const EVENT_TYPES: &[Column] = &[
    ("event type", "event_type", table::text),
    ("active", "active", table::text),
    ("schema", "schema", presence),
    ("owner", "owner", table::text),
    ("description", "description", table::text),
];
const DETAILS: &[Column] = &[
    ("event type", "event_type", table::text),
    ("description", "description", table::text),
    ("active", "active", table::text),
    ("owner", "owner", table::text),
    ("revision", "revision", table::text),
    ("created at", "created_at", time),
    ("created by", "created_by", table::text),
    ("schema", "schema", table::text),
    ("example", "example", table::text),
];

const EXAMPLES: &str = "\
The database is DATABASE_URL, or database_url in the --config file; the login in it is who acts.

Examples:
  posthaste event-type create certificate.issued --description 'A certificate was issued' --schema certificate.json
  posthaste event-type list
  posthaste event-type docs > events.md";
const LIST_EXAMPLES: &str = "\
Examples:
  posthaste event-type list
  posthaste event-type list --json";
const SHOW_EXAMPLES: &str = "\
Examples:
  posthaste event-type show certificate.issued";
const CREATE_EXAMPLES: &str = "\
Examples:
  posthaste event-type create certificate.issued --description 'A certificate was issued'
  posthaste event-type create order.paid --description 'An order was paid' --schema paid.json --example paid-example.json --owner billing";
const CHANGE_EXAMPLES: &str = "\
Examples:
  posthaste event-type change certificate.issued --set '{\"active\": false}' --reason 'replaced by certificate.signed'
  posthaste event-type change order.paid --schema paid-2.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_that_does_not_fit_is_refused_and_none_fits_any() {
        let schema = Some(r#"{"type": "object"}"#);
        assert!(check(schema, Some("{}")).is_ok() && check(schema, None).is_ok());
        assert!(check(None, Some("1")).is_ok());
        let refused = check(schema, Some("1"))
            .err()
            .map(|error| error.to_string());
        assert!(refused.is_some_and(|text| text.contains("the example breaks its schema")));
        assert!(check(Some(r#"{"type": "objekt"}"#), None).is_err());
    }
}
