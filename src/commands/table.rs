//! Listings: a table for people, and with `--json` what the database said, for scripts.

use clap::{Arg, ArgAction, ArgMatches};
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use posthaste::Result;
use posthaste::logging::escaped;
use serde_json::Value;

use super::output::say;

/// A column: its title, the field that it shows, and how.
pub(crate) type Column = (&'static str, &'static str, fn(&Value) -> String);

/// The flag that every listing has.
pub(crate) fn json() -> Arg {
    Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("JSON in place of a table")
}

/// Prints rows: as a table, as an array with `--json`, or as `nothing` where there is none.
pub(crate) fn print(
    args: &ArgMatches,
    rows: &[Value],
    columns: &[Column],
    nothing: &str,
) -> Result<()> {
    if args.get_flag("json") {
        say(&Value::from(rows).to_string())
    } else if rows.is_empty() {
        say(nothing)
    } else {
        say(&lines(rows, columns))
    }
}

fn lines(rows: &[Value], columns: &[Column]) -> String {
    let mut table = plain();
    table.set_header(columns.iter().map(|(title, ..)| title.to_uppercase()));
    for row in rows {
        table.add_row(columns.iter().map(|(_, field, show)| show(&row[field])));
    }
    // What pads the last column is of no use to anybody.
    trimmed(&table)
}

/// Titles and what they stand for, one below the other.
pub(crate) fn pairs(pairs: &[(String, String)]) -> String {
    let mut table = plain();
    for (title, value) in pairs {
        table.add_row([title, value]);
    }
    trimmed(&table)
}

fn plain() -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn trimmed(table: &Table) -> String {
    let lines: Vec<_> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// A value as it is. What comes from the database may have come from anybody: nothing in it steers the terminal.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => escaped(text),
        Value::Array(parts) => parts.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Number(_) | Value::Object(_) => escaped(&value.to_string()),
    }
}

/// A time to the second, in UTC.
pub(crate) fn time(value: &Value) -> String {
    match value
        .as_str()
        .and_then(|text| text.parse::<Timestamp>().ok())
    {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        None => text(value),
    }
}

/// A fraction as a percentage. All but all is never written as all.
pub(crate) fn share(value: &Value) -> String {
    value.as_f64().map_or(String::new(), |share| {
        format!("{:.1} %", (share * 1000.0).floor() / 10.0)
    })
}

/// Whether there is anything at all.
pub(crate) fn presence(value: &Value) -> String {
    if value.is_null() { "no" } else { "yes" }.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_came_from_outside_cannot_steer_a_terminal() {
        let rows = [json!({"name": "a\u{1b}[2J\nb", "list": ["\u{7}"], "at": "\u{1b}"})];
        let said = lines(
            &rows,
            &[("n", "name", text), ("l", "list", text), ("a", "at", time)],
        );
        assert!(!said.contains(['\u{1b}', '\u{7}']), "{said:?}");
        assert_eq!(said.lines().count(), 2, "{said}");
    }

    #[test]
    fn times_and_shares_are_short() {
        assert_eq!(
            time(&json!("2026-11-26T15:49:59.624675+00:00")),
            "2026-11-26 15:49:59Z"
        );
        assert_eq!(time(&json!("infinity")), "infinity");
        assert_eq!(share(&json!(0.9999)), "99.9 %");
        assert_eq!(
            (share(&json!(1.0)), share(&json!(null))),
            ("100.0 %".to_owned(), String::new())
        );
    }

    #[test]
    fn a_field_that_is_not_there_is_empty() {
        assert_eq!(
            lines(&[json!({"a": 1})], &[("a", "a", text), ("b", "b", text)]),
            " A  B\n 1"
        );
    }
}
