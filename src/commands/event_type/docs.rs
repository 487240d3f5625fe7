//! `posthaste event-type docs`: the catalogue as a page for receivers.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, ArgMatches, Command};
use posthaste::logging::escaped;
use posthaste::store::Control;
use posthaste::{Error, Result};
use serde_json::{Value, json};

use super::super::input::all_given;
use super::super::output::say;
use super::super::{settings, table};
use super::fields::{Field, fields};

pub(super) fn command() -> Command {
    let command = Command::new("docs")
        .about("Write the catalogue as a page for receivers, in Markdown")
        .long_about(
            "Prints a page for whoever receives events: what each event type means, its fields as a table, \
             its JSON Schema and its example. Always the same for the same catalogue. Owners and logins \
             are left out.",
        )
        .arg(
            Arg::new(PATTERN)
                .value_name("PATTERN")
                .num_args(0..)
                .default_value("*")
                .help("Which ones, as in a subscription: certificate.issued, certificate.*, or * for all but posthaste.*"),
        )
        .arg(
            Arg::new(INACTIVE)
                .long(INACTIVE)
                .action(ArgAction::SetTrue)
                .help("Those, too, that are not active"),
        )
        .arg(table::json())
        .after_help(EXAMPLES);
    settings::arguments(command, |_| false)
}

pub(super) async fn run(control: &Control, args: &ArgMatches) -> Result<()> {
    let patterns = all_given(args, PATTERN);
    let rows = control
        .catalogue(&patterns, args.get_flag(INACTIVE))
        .await?;
    let types: Vec<EventType<'_>> = rows.iter().map(EventType::from).collect();
    if types.is_empty() {
        let patterns = patterns.join(", ");
        let none = format!("no event type in the catalogue matches {patterns}");
        return Err(Error::Refused(none));
    }
    if args.get_flag("json") {
        return say(&types
            .iter()
            .map(EventType::json)
            .collect::<Value>()
            .to_string());
    }
    let page = page(&types);
    // What the catalogue says may have come from anybody: nothing in it steers the terminal.
    let lines: Vec<String> = page.trim_end().lines().map(escaped).collect();
    say(&lines.join("\n"))
}

/// An event type as its row tells.
struct EventType<'r> {
    name: &'r str,
    description: &'r str,
    active: bool,
    revision: i64,
    /// JSON texts, as they were given.
    schema: Option<&'r str>,
    example: Option<&'r str>,
    /// What the schema says; null where there is none.
    parsed: Value,
}

impl<'r> From<&'r Value> for EventType<'r> {
    fn from(row: &'r Value) -> Self {
        let schema = row["schema"].as_str();
        let parsed = schema.and_then(|text| serde_json::from_str(text).ok());
        Self {
            name: row["event_type"].as_str().unwrap_or_default(),
            description: row["description"].as_str().unwrap_or_default(),
            active: row["active"].as_bool().unwrap_or_default(),
            revision: row["revision"].as_i64().unwrap_or_default(),
            schema,
            example: row["example"].as_str(),
            parsed: parsed.unwrap_or_default(),
        }
    }
}

impl EventType<'_> {
    fn json(&self) -> Value {
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        json!({
            "event_type": self.name,
            "description": self.description,
            "active": self.active,
            "deprecated": self.is_deprecated(),
            "revision": self.revision,
            "fields": fields(&self.parsed).iter().map(Field::json).collect::<Vec<_>>(),
            "schema": self.parsed,
            "example": self.example.map(parsed),
        })
    }

    fn is_deprecated(&self) -> bool {
        self.parsed["deprecated"] == true
    }

    /// In a few words, where it is not simply there.
    fn standing(&self) -> &'static str {
        match (self.active, self.is_deprecated()) {
            (false, _) => "not active",
            (true, true) => "deprecated",
            (true, false) => "",
        }
    }
}

fn page(types: &[EventType<'_>]) -> String {
    let mut page = PREFACE.to_owned();
    for kind in types {
        let (name, standing) = (kind.name, kind.standing());
        let _ = writeln!(
            page,
            "| [{name}](#{}) | {} | {standing} |",
            anchor(name),
            cell(kind.description)
        );
    }
    for kind in types {
        section(&mut page, kind);
    }
    page
}

fn section(page: &mut String, kind: &EventType<'_>) {
    let (name, revision) = (kind.name, kind.revision);
    let _ = write!(page, "\n## {name}\n\n{}\n", paragraph(kind.description));
    if !kind.active {
        page.push_str("\n**Not active:** it cannot be subscribed to, and nothing of it is sent.\n");
    }
    if kind.is_deprecated() {
        page.push_str("\n**Deprecated:** it is still sent; build nothing new on it.\n");
    }
    match kind.schema {
        Some(schema) => {
            let fields = fields(&kind.parsed);
            if !fields.is_empty() {
                page.push_str(TABLE);
                for field in &fields {
                    row(page, field);
                }
            }
            let schema = laid_out(schema);
            let _ = write!(
                page,
                "\nIts JSON Schema, revision {revision}:\n\n```json\n{schema}\n```\n"
            );
        }
        None => page.push_str("\nThere is no schema: `data` may be any JSON.\n"),
    }
    if let Some(example) = kind.example {
        let example = laid_out(example);
        let _ = write!(page, "\nAn example of `data`:\n\n```json\n{example}\n```\n");
    }
}

fn row(page: &mut String, field: &Field) {
    let pointer = if field.pointer.is_empty() {
        "`data` itself".to_owned()
    } else {
        code(&field.pointer)
    };
    let description = if field.deprecated {
        format!("Deprecated. {}", field.description)
    } else {
        field.description.clone()
    };
    let (what, required, description) = (
        cell(&field.what),
        field.required.word(),
        cell(description.trim()),
    );
    let _ = writeln!(page, "| {pointer} | {what} | {required} | {description} |");
}

/// As GitHub makes anchors of headings.
fn anchor(name: &str) -> String {
    let letters = name.chars().filter(|letter| *letter != '.');
    letters.collect::<String>().to_lowercase()
}

/// One line, and no HTML.
fn paragraph(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('<', "&lt;")
}

fn cell(text: &str) -> String {
    paragraph(text).replace('|', "\\|")
}

fn code(text: &str) -> String {
    let fence = if text.contains('`') { "`` " } else { "`" };
    let end: String = fence.chars().rev().collect();
    let text = escaped(text).replace('|', "\\|");
    format!("{fence}{text}{end}")
}

/// A JSON text with a line for each value: nothing but the space between its tokens changes.
fn laid_out(text: &str) -> String {
    let (mut page, mut depth, mut in_string, mut is_escaped) = (String::new(), 0, false, false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if in_string {
            page.push(letter);
            in_string = is_escaped || letter != '"';
            is_escaped = !is_escaped && letter == '\\';
            continue;
        }
        match letter {
            '{' | '[' => {
                page.push(letter);
                while letters.next_if(|next| next.is_whitespace()).is_some() {}
                if let Some(end) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    page.push(end);
                } else {
                    depth += 1;
                    new_line(&mut page, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                new_line(&mut page, depth);
                page.push(letter);
            }
            ',' => {
                page.push(',');
                new_line(&mut page, depth);
            }
            ':' => page.push_str(": "),
            _ if letter.is_whitespace() => {}
            _ => {
                in_string = letter == '"';
                page.push(letter);
            }
        }
    }
    page
}

fn new_line(page: &mut String, depth: usize) {
    page.push('\n');
    // Whoever nests deeper does not get a page that grows with the square of it.
    page.push_str(&"  ".repeat(depth.min(DEEPEST)));
}

const PATTERN: &str = "pattern";
const INACTIVE: &str = "inactive";
const DEEPEST: usize = 24;
const PREFACE: &str = "\
# Events

What can be sent to you. Each event comes as `{\"type\":…,\"timestamp\":…,\"data\":…}`, unless another envelope was agreed with you: `type` is a name from this
page, and what the page says of fields is about `data`, before a mask that may have been agreed. A field is named by its JSON Pointer, in which `*` stands for each element of an array, or for each key of an object.

| event type | what it means | |
| --- | --- | --- |
";
const TABLE: &str = "\n| field | type | required | what it is |\n| --- | --- | --- | --- |\n";
const EXAMPLES: &str = "\
Examples:
  posthaste event-type docs > events.md
  posthaste event-type docs 'certificate.*' order.paid
  posthaste event-type docs --inactive --json";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_json_text_keeps_its_tokens_and_gets_lines() {
        let text = r#"{ "b":[1.10, {} , [ ]],"a" : "x, {\"y\\" }"#;
        let expected =
            "{\n  \"b\": [\n    1.10,\n    {},\n    []\n  ],\n  \"a\": \"x, {\\\"y\\\\\"\n}";
        assert_eq!(laid_out(text), expected);
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        assert!(laid_out(&deep).len() < 4_000_000);
    }

    #[test]
    fn what_the_catalogue_says_breaks_no_table() {
        assert_eq!(cell("a | b\n\n<script> `c`"), "a \\| b &lt;script> `c`");
        assert_eq!(
            (code("/a|b").as_str(), code("/`").as_str()),
            ("`/a\\|b`", "`` /` ``")
        );
        let row = json!({"event_type": "a.b", "description": "x\n| y", "active": true, "revision": 1,
            "schema": r#"{"properties": {"p|\nq": {"description": "d\n| e"}}}"#, "example": null});
        let page = page(&[EventType::from(&row)]);
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        for line in page.lines().filter(|line| line.starts_with('|')) {
            assert!([4, 5].contains(&cells(line)), "{line}");
        }
    }

    proptest! {
        #[test]
        fn laying_out_changes_no_value(text in r#"[\[\]{}",:0-9 \\a-z]{0,40}"#) {
            let value: Option<Value> = serde_json::from_str(&text).ok();
            if let Some(value) = value {
                prop_assert_eq!(serde_json::from_str::<Value>(&laid_out(&text)).ok(), Some(value));
            }
        }
    }
}
