//! `posthaste envelope`: the shapes that requests can have.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Arg, ArgMatches, Command};
use posthaste::envelope::{Envelope, EnvelopeError, Facts, values_of};
use posthaste::logging::escaped;
use posthaste::store::{Control, EnvelopeProposal};
use posthaste::{Error, Result};
use serde_json::Value;
use uuid::Uuid;

use super::input::{all_given, given, if_given, path, read_text, reason, subject, text, texts};
use super::output::say;
use super::settings;
use super::table::{self, Column, time};

pub(crate) fn command() -> Command {
    super::group("envelope")
        .about("List, show and propose the shapes that requests can have")
        .long_about(
            "Envelopes: what stands around an event's data in a body, and which headers tell of it. Some \
             come with the program; a platform's own are proposed by one administrator and approved by \
             another. A version never changes; a subscription keeps its own until its terms change. \
             docs/envelopes.md explains the templates.",
        )
        .subcommands([list_command(), show_command(), propose_command()])
        .after_help(EXAMPLES)
}

pub(crate) async fn run(args: &ArgMatches) -> Result<ExitCode> {
    let (name, args) = super::chosen(args)?;
    let control = Control::open(&settings::load(args)?.config).await?;
    match name {
        "list" => list(&control, args).await,
        "show" => show(&control, args).await,
        "propose" => propose(&control, args).await,
        other => Err(super::unknown(other)),
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn list(control: &Control, args: &ArgMatches) -> Result<()> {
    let rows = control.envelopes().await?;
    table::print(args, &rows, ENVELOPES, "there is no envelope")
}

async fn show(control: &Control, args: &ArgMatches) -> Result<()> {
    let found = control.envelope(given(args, NAME)).await?;
    if args.get_flag("json") {
        return say(&found.to_string());
    }
    let detail = |(title, field, show): &Column| ((*title).to_owned(), show(&found[*field]));
    let mut details: Vec<_> = DETAILS.iter().map(detail).collect();
    details.retain(|(_, value)| !value.is_empty());
    say(&table::pairs(&details))?;
    say(&format!("\n{}", shown(&example(&found)?)))
}

async fn propose(control: &Control, args: &ArgMatches) -> Result<()> {
    let template = match args.get_one::<PathBuf>("template") {
        Some(path) => read_text(path)?,
        None => String::new(),
    };
    // Editors end a file with a line end, which nobody means to send.
    let template = template.strip_suffix('\n').unwrap_or(&template);
    let template = template.strip_suffix('\r').unwrap_or(template);
    let headers = all_given(args, "header")
        .iter()
        .map(|text| header(text))
        .collect::<Result<_>>()?;
    let proposal = EnvelopeProposal {
        name: given(args, NAME).to_owned(),
        template: template.to_owned(),
        content_type: given(args, "content-type").to_owned(),
        headers,
        description: if_given(args, "description").map(str::to_owned),
        reason: if_given(args, "reason").map(str::to_owned),
    };
    let made = made_of(
        &proposal.template,
        &proposal.content_type,
        &proposal.headers,
    );
    let made = made.map_err(|error| refused(&error))?;
    let proposed = control.propose_envelope(&proposal).await?;
    say(&format!("what it makes of an event:\n\n{}\n", shown(&made)))?;
    super::subscription::tell(proposed)
}

/// Whether what is proposed can be used, for whoever is about to approve it.
pub(crate) fn check(what: &Value) -> Result<()> {
    example(what).map(drop)
}

/// What an envelope makes of an event.
fn example(envelope: &Value) -> Result<String> {
    let text = |field: &str| envelope[field].as_str().unwrap_or_default();
    let headers = envelope["headers"].as_object().into_iter().flatten();
    let headers =
        headers.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    made_of(text("template"), text("content_type"), &headers.collect())
        .map_err(|error| refused(&error))
}

fn made_of(
    template: &str,
    content_type: &str,
    headers: &BTreeMap<String, String>,
) -> std::result::Result<String, EnvelopeError> {
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let wanted = values_of(template, &headers)?;
    let values = wanted
        .into_iter()
        .map(|name| (name.clone(), name))
        .collect();
    let envelope = Envelope::parse(template, content_type, &headers, &values)?;
    let facts = Facts {
        event_id: EVENT,
        delivery_id: DELIVERY,
        event_type: "certificate.issued",
        occurred_at: SystemTime::UNIX_EPOCH + Duration::from_hours(490_896),
        data: r#"{"certificate": 42}"#,
        metadata: Some(r#"{"request_id": "r-1"}"#),
        tenant: Some("university"),
        subscription: "university",
        is_test: false,
    };
    let mut made = String::new();
    for (name, value) in envelope.headers(&facts).flatten() {
        let _ = writeln!(
            made,
            "{name}: {}",
            String::from_utf8_lossy(value.as_bytes())
        );
    }
    let _ = write!(
        made,
        "\n{}",
        String::from_utf8_lossy(&envelope.body(&facts))
    );
    Ok(made)
}

/// For a terminal, which nothing in it steers.
fn shown(made: &str) -> String {
    made.lines().map(escaped).collect::<Vec<_>>().join("\n")
}

fn header(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').ok_or_else(|| {
        Error::Config(format!(
            "--header {text:?}: must be NAME=VALUE, such as ce-id={{{{event_id}}}}"
        ))
    })?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn refused(error: &EnvelopeError) -> Error {
    Error::Refused(error.to_string())
}

fn list_command() -> Command {
    let command = Command::new("list")
        .about("List the envelopes")
        .arg(table::json())
        .after_help(LIST_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn show_command() -> Command {
    let command = Command::new("show")
        .about("Show an envelope, and what it makes of an event")
        .arg(name())
        .arg(table::json())
        .after_help(SHOW_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn propose_command() -> Command {
    let command = Command::new("propose")
        .about("Propose an envelope, or a new version of one, and show what it makes of an event")
        .arg(name())
        .arg(
            path(
                "template",
                "The template of the body; - is standard input. A line end at its end is left out",
            )
            .required(true),
        )
        .arg(texts("header", "A header and its template, NAME=VALUE").value_name("NAME=VALUE"))
        .arg(text("content-type", "The media type of the body").default_value("application/json"))
        .arg(text(
            "description",
            "What it is for, for whoever chooses one",
        ))
        .arg(reason())
        .after_help(PROPOSE_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn name() -> Arg {
    subject(
        NAME,
        "Its name; where it is to be shown, a version too, such as standard@1",
    )
}

const NAME: &str = "name";
const EVENT: Uuid = Uuid::from_u128(0x0199_e8a4_7c00_7000_8000_0123_4567_89ab);
const DELIVERY: &str = "7c2a54f0-1c54-8b2e-9a43-0f6a3d1c9b52";

const ENVELOPES: &[Column] = &[
    ("envelope", "envelope", table::text),
    ("content type", "content_type", table::text),
    ("description", "description", table::text),
];
const DETAILS: &[Column] = &[
    ("envelope", "envelope", table::text),
    ("description", "description", table::text),
    ("content type", "content_type", table::text),
    ("headers", "headers", table::text),
    ("template", "template", table::text),
    ("created at", "created_at", time),
    ("created by", "created_by", table::text),
];

const EXAMPLES: &str = "\
The database is DATABASE_URL, or database_url in the --config file; the login in it is who acts.

Examples:
  posthaste envelope list
  posthaste envelope show standard@1
  posthaste envelope propose platform --template platform.json
  posthaste subscription approve 7 --reason 'as agreed with the university'
  posthaste subscription change university --set '{\"envelope\": \"platform@1\"}'";
const LIST_EXAMPLES: &str = "\
Examples:
  posthaste envelope list
  posthaste envelope list --json";
const SHOW_EXAMPLES: &str = "\
Examples:
  posthaste envelope show standard
  posthaste envelope show cloudevents_binary@1";
const PROPOSE_EXAMPLES: &str = "\
Examples:
  posthaste envelope propose platform --template platform.json --description 'what our own gateway takes'
  posthaste envelope propose platform --template - --header 'X-Event={{type}}' --content-type application/vnd.platform+json < body.json";
