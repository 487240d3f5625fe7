//! What there is: subscriptions, one of them, and what was proposed.

use clap::{Arg, ArgAction, ArgMatches, Command};
use posthaste::Result;
use posthaste::logging::escaped;
use posthaste::store::Control;
use serde_json::Value;

use crate::commands::certificate;
use crate::commands::input::given;
use crate::commands::output::say;
use crate::commands::settings;
use crate::commands::table::{self, Column, json, pairs, share, text, time};

pub(super) fn list_command() -> Command {
    let command = Command::new("list")
        .about("List the subscriptions and how each fares")
        .arg(all("Those that were removed, too"))
        .arg(json())
        .after_help(LIST_EXAMPLES);
    settings::arguments(command, |_| false)
}

pub(super) fn show_command() -> Command {
    let command = Command::new("show")
        .about("Show a subscription's terms, secrets, open changes and last failure")
        .arg(super::name())
        .arg(json())
        .after_help(SHOW_EXAMPLES);
    settings::arguments(command, |_| false)
}

pub(super) fn changes_command() -> Command {
    let command = Command::new("changes")
        .about("List what was proposed and waits for a decision")
        .arg(all("What was decided or has expired, too"))
        .arg(json())
        .after_help(CHANGES_EXAMPLES);
    settings::arguments(command, |_| false)
}

pub(super) async fn list(control: &Control, args: &ArgMatches) -> Result<()> {
    let rows = control.subscriptions(args.get_flag("all")).await?;
    table::print(args, &rows, SUBSCRIPTIONS, "there is no subscription")
}

pub(super) async fn changes(control: &Control, args: &ArgMatches) -> Result<()> {
    let rows = control.changes(args.get_flag("all")).await?;
    if args.get_flag("json") || rows.is_empty() {
        return table::print(args, &rows, &[], "nothing waits for a decision");
    }
    // What a change comes to is a list of its own: below each other, not in a column.
    for change in &rows {
        say(&told(change))?;
    }
    Ok(())
}

pub(super) async fn show(control: &Control, args: &ArgMatches) -> Result<()> {
    let found = control
        .subscription(given(args, super::SUBSCRIPTION))
        .await?;
    if args.get_flag("json") {
        return say(&found.to_string());
    }
    say(&pairs(&details(&found)))?;
    for change in found["open_changes"].as_array().into_iter().flatten() {
        say(&told(change))?;
    }
    Ok(())
}

/// Everything about a subscription, its terms first.
fn details(found: &Value) -> Vec<(String, String)> {
    let (overview, terms, secrets) = (&found["overview"], &found["terms"], &found["secrets"]);
    let said = |title: &str, value: String| (title.to_owned(), value);
    let mut details = vec![
        said("name", text(&overview["subscription"])),
        said("state", text(&overview["state"])),
    ];
    let in_order = TERMS.iter().map(|field| (*field, &terms["terms"][*field]));
    details
        .extend(in_order.map(|(field, value)| said(&field.replace('_', " "), term(field, value))));
    let since = format!(
        "{}, since {} by {}",
        text(&terms["revision"]),
        time(&terms["since"]),
        text(&terms["changed_by"])
    );
    details.push(said("revision", since));
    details.push(said(
        "signing secrets",
        of_secrets(secrets, &terms["signing_secrets"]),
    ));
    details.push(said(
        "credentials without value",
        without_value(&secrets["credentials_without_value"]),
    ));
    let fares = FARES.iter();
    details.extend(fares.map(|(title, field, show)| said(title, show(&overview[*field]))));
    details.retain(|(_, value)| !value.is_empty());
    details
}

/// A term as one reads it. Nothing is said of what is empty.
fn term(field: &str, value: &Value) -> String {
    match (field, value) {
        ("tls", Value::Object(_)) => named(&without_pem(value)),
        ("authentication" | "handshake" | "envelope_values", Value::Object(_)) => named(value),
        _ => text(value),
    }
}

/// The fields of an object, one behind the other.
fn named(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten();
    let fields = fields.map(|(name, value)| format!("{}: {}", escaped(name), text(value)));
    fields.collect::<Vec<_>>().join("; ")
}

/// TLS terms with whose certificates they are in the place of PEM.
fn without_pem(tls: &Value) -> Value {
    let told = |(name, value): (&String, &Value)| {
        let told = value.as_str().map(certificate::told).map(Value::from);
        (name.clone(), told.unwrap_or_else(|| value.clone()))
    };
    match tls.as_object() {
        Some(fields) => Value::Object(fields.iter().map(told).collect()),
        None => tls.clone(),
    }
}

/// What has to be imported before anything is sent.
fn without_value(names: &Value) -> String {
    let names = names.as_array().into_iter().flatten();
    let flags = names.map(|name| match name.as_str() {
        Some(":authentication") => "--authentication".to_owned(),
        Some(":client_key") => "--client-key".to_owned(),
        _ => format!("--header {}", text(name)),
    });
    let flags: Vec<String> = flags.collect();
    if flags.is_empty() {
        return String::new();
    }
    format!("secret import {}", flags.join(", "))
}

fn of_secrets(secrets: &Value, numbers: &Value) -> String {
    let count = |field: &str| secrets[field].as_i64().unwrap_or_default();
    let mut said = vec![format!("{} live", count("live"))];
    if count("asked_for") > 0 {
        said.push(format!("{} asked for", count("asked_for")));
    }
    if !text(numbers).is_empty() {
        said.push(format!("numbers {}", text(numbers)));
    }
    if secrets["is_overdue"] == true {
        said.push("a new one is OVERDUE".to_owned());
    }
    said.join("; ")
}

/// A proposal: what it would make so, who wants it and why, and what became of it.
fn told(change: &Value) -> String {
    let mut lines = vec![format!(
        "change {}, {}: {} {}",
        text(&change["change_id"]),
        text(&change["state"]),
        text(&change["kind"]),
        text(&change["subscription"])
    )];
    lines.push(line(
        "proposed",
        change,
        ["proposed_by", "proposed_for", "proposed_at", "reason"],
    ));
    if !change["decided_at"].is_null() {
        lines.push(line(
            "decided",
            change,
            ["decided_by", "decided_for", "decided_at", "decision_reason"],
        ));
    }
    let fields = change["what"].as_object().into_iter().flatten();
    let fields = fields.filter_map(|(field, value)| differs(&change["kind"], field, value));
    lines.extend(fields.map(|field| format!("  {field}")));
    lines.join("\n")
}

fn line(what: &str, change: &Value, [by, acting_for, at, why]: [&str; 4]) -> String {
    let said = |before: &str, field: &str| match &change[field] {
        Value::Null => String::new(),
        value => format!("{before}{}", text(value)),
    };
    let (by, acting_for, why) = (
        text(&change[by]),
        said(" for ", acting_for),
        said(": ", why),
    );
    format!("  {what} by {by}{acting_for} at {}{why}", time(&change[at]))
}

/// One field of what a proposal comes to; none where there is nothing to say of it.
fn differs(kind: &Value, field: &str, value: &Value) -> Option<String> {
    match kind.as_str() {
        Some("change") => {
            let [from, to] = ["from", "to"].map(|side| whole(field, &value[side]));
            Some(format!("{field}: {from} -> {to}"))
        }
        Some("create" | "envelope") => {
            (!value.is_null()).then(|| format!("{field}: {}", whole(field, value)))
        }
        _ => None,
    }
}

/// A value with its quotes and brackets: what is to be approved must not be mistaken. A certificate is known by its fingerprint.
fn whole(field: &str, value: &Value) -> String {
    match field {
        "tls" => escaped(&without_pem(value).to_string()),
        _ => escaped(&value.to_string()),
    }
}

fn all(help: &'static str) -> Arg {
    Arg::new("all")
        .long("all")
        .action(ArgAction::SetTrue)
        .help(help)
}

const SUBSCRIPTIONS: &[Column] = &[
    ("name", "subscription", text),
    ("tenant", "tenant", text),
    ("state", "state", text),
    ("url", "url", text),
    ("event types", "event_types", text),
    ("1 h", "success_last_hour", share),
    ("24 h", "success_last_day", share),
    ("waiting", "backlog", text),
    ("oldest since", "oldest_waiting_since", time),
    ("last failure", "last_failure_at", time),
];

/// How a subscription fares.
const FARES: &[Column] = &[
    ("success in the last hour", "success_last_hour", share),
    ("success in the last day", "success_last_day", share),
    ("deliveries waiting", "backlog", text),
    ("oldest waits since", "oldest_waiting_since", time),
    ("last failure at", "last_failure_at", time),
    ("last failure", "last_failure", text),
];

/// The terms in the order in which one reads them.
const TERMS: &[&str] = &[
    "tenant",
    "url",
    "event_types",
    "unknown_types",
    "filter",
    "retry_intervals",
    "retry_jitter",
    "client_errors",
    "max_age",
    "breaker",
    "pause_after",
    "sandbox",
    "timeout",
    "concurrency",
    "rates",
    "headers",
    "envelope",
    "envelope_values",
    "signatures",
    "header_prefix",
    "user_agent",
    "pass_trace",
    "partner",
    "mask",
    "authentication",
    "tls",
    "handshake",
    "networks",
    "after_dead_letter",
    "description",
    "contact",
];

const LIST_EXAMPLES: &str = "\
Success is accepted attempts of all attempts, in the last hour and in the last 24.

Examples:
  posthaste subscription list
  posthaste subscription list --all --json";
const SHOW_EXAMPLES: &str = "\
Examples:
  posthaste subscription show university
  posthaste subscription show university --json";
const CHANGES_EXAMPLES: &str = "\
Examples:
  posthaste subscription changes
  posthaste subscription changes --all --json";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_proposal_shows_what_it_changes_from_and_to_and_steers_no_terminal() {
        let change = json!({
            "change_id": 7, "state": "open", "kind": "change", "subscription": "bank",
            "what": {"url": {"from": "https://a.example/", "to": "https://b.example/"},
                     "contact": {"from": null, "to": "\u{1b}[2J"}},
            "proposed_by": "ada", "proposed_at": "2026-11-26T15:49:59+00:00", "reason": "moved",
        });
        let told = told(&change);
        for line in [
            "change 7, open: change bank",
            "  proposed by ada at 2026-11-26 15:49:59Z: moved",
            "  url: \"https://a.example/\" -> \"https://b.example/\"",
            "  contact: null -> \"\\u001b[2J\"",
        ] {
            assert!(told.lines().any(|said| said == line), "{told}");
        }
    }

    #[test]
    fn a_new_subscription_shows_the_terms_that_it_has() {
        let change =
            json!({"kind": "create", "what": {"url": "https://a.example/", "filter": null}});
        let told = told(&change);
        assert!(
            told.contains("url: \"https://a.example/\"") && !told.contains("filter"),
            "{told}"
        );
    }

    #[test]
    fn terms_are_told_without_pem_and_with_what_has_to_be_imported() {
        let terms = json!({
            "signatures": ["standard_v1", "stripe"], "envelope_values": {}, "mask": {"allow": ["/a"]},
            "authentication": {"kind": "basic", "user": "us\u{1b}"}, "tls": {"certificate": "-----BEGIN CERTIFICATE-----"},
        });
        let found = json!({
            "terms": {"terms": terms},
            "secrets": {"credentials_without_value": [":authentication", ":client_key", "X_Key"]},
        });
        let details = details(&found);
        for (title, expected) in [
            ("signatures", "standard_v1, stripe"),
            ("mask", r#"{"allow":["/a"]}"#),
            ("authentication", r"kind: basic; user: us\u001b"),
            ("tls", "certificate: one that cannot be read"),
            (
                "credentials without value",
                "secret import --authentication, --client-key, --header X_Key",
            ),
        ] {
            let said = details.iter().find(|(said, _)| said == title);
            assert_eq!(said.map(|(_, value)| value.as_str()), Some(expected));
        }
        assert!(details.iter().all(|(said, _)| said != "envelope values"));
    }

    #[test]
    fn what_is_not_set_is_left_out() {
        let found = json!({"overview": {"subscription": "bank", "backlog": 0}, "terms": {"terms": {"filter": null}}, "secrets": {"live": 1}});
        let titles: Vec<String> = details(&found)
            .into_iter()
            .map(|(title, _)| title)
            .collect();
        assert_eq!(
            titles,
            ["name", "revision", "signing secrets", "deliveries waiting"]
        );
    }
}
