//! `posthaste fixtures`: recorded deliveries, genuine and forged, for the tests of whoever writes a receiver.

mod deliveries;
mod shaped;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Arg, ArgMatches, Command, value_parser};
use posthaste::{Error, Result};
use serde_json::{Value, json};

use self::deliveries::{Recorded, TOLERANCE, recorded};
use super::output::say;

pub(crate) fn command() -> Command {
    Command::new("fixtures")
        .about("Write recorded deliveries, genuine and forged, for the tests of a receiver")
        .long_about(
            "Writes deliveries with their headers, body, secrets, the time and what a receiver should \
             make of them: a folder of plain files for each, and all of them in index.json. Always the \
             same bytes. What is in the folder under the same names is overwritten.",
        )
        .arg(
            Arg::new(FOLDER)
                .value_name("FOLDER")
                .value_parser(value_parser!(PathBuf))
                .required(true)
                .help("Where to write them; it is made if it is not there"),
        )
        .after_help(EXAMPLES)
}

pub(crate) fn run(args: &ArgMatches) -> Result<ExitCode> {
    let folder = args
        .get_one::<PathBuf>(FOLDER)
        .map_or(Path::new("."), PathBuf::as_path);
    let deliveries = recorded()?;
    for delivery in &deliveries {
        write_folder(&folder.join(delivery.folder()), delivery)?;
    }
    write(folder, "index.json", index(&deliveries)?.as_bytes())?;
    write(folder, "README.md", readme(&deliveries).as_bytes())?;
    // A checkout must not change the ends of lines in a body.
    write(folder, ".gitattributes", b"* -text\n")?;
    let (count, place) = (deliveries.len(), folder.display());
    say(&format!("{count} recorded deliveries are in {place}"))?;
    Ok(ExitCode::SUCCESS)
}

/// One delivery in files that a shell can read.
fn write_folder(folder: &Path, delivery: &Recorded) -> Result<()> {
    let mut headers = String::new();
    for (name, value) in &delivery.headers {
        let _ = writeln!(headers, "{name}: {value}");
    }
    write(folder, "headers", headers.as_bytes())?;
    write(folder, "body", &delivery.body)?;
    let secrets = delivery.secrets.join("\n");
    write(folder, "secrets", format!("{secrets}\n").as_bytes())?;
    write(folder, "now", format!("{}\n", delivery.now).as_bytes())?;
    let expected = format!("{}\n", delivery.expected());
    write(folder, "expected", expected.as_bytes())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let failed = |error: io::Error| Error::Io(format!("cannot write {}", path.display()), error);
    fs::create_dir_all(folder).map_err(failed)?;
    fs::write(&path, bytes).map_err(failed)
}

/// All of them in one document.
fn index(deliveries: &[Recorded]) -> Result<String> {
    let document = json!({
        "about": ABOUT,
        "tolerance_seconds": TOLERANCE,
        "deliveries": deliveries.iter().map(entry).collect::<Vec<_>>(),
    });
    let failed = |error: serde_json::Error| Error::Io("cannot write JSON".to_owned(), error.into());
    serde_json::to_string_pretty(&document)
        .map(|text| text + "\n")
        .map_err(failed)
}

fn entry(delivery: &Recorded) -> Value {
    let headers: serde_json::Map<_, _> = delivery
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect();
    // For people; the bytes are what counts.
    let readable = (delivery.body.len() <= READABLE)
        .then(|| String::from_utf8_lossy(&delivery.body).into_owned());
    json!({
        "name": delivery.name,
        "profile": delivery.profile,
        "envelope": delivery.envelope,
        "folder": delivery.folder(),
        "tells": delivery.tells,
        "headers": headers,
        "body": readable,
        "body_base64": BASE64.encode(&delivery.body),
        "secrets": delivery.secrets,
        "now": delivery.now,
        "valid": delivery.problem.is_none(),
        "problem": delivery.problem,
    })
}

fn readme(deliveries: &[Recorded]) -> String {
    let mut page = PREFACE.to_owned();
    for delivery in deliveries {
        let (folder, expected, tells) = (delivery.folder(), delivery.expected(), delivery.tells);
        let _ = writeln!(page, "| [{folder}]({folder}) | `{expected}` | {tells} |");
    }
    page
}

const FOLDER: &str = "folder";
const ABOUT: &str = "Recorded deliveries, written by `posthaste fixtures`. The secrets are known to everybody: for tests only. \
                     `body_base64` are the bytes that came, `body` the same to be read, null where it is long.";
const PREFACE: &str = "\
# Recorded deliveries

Written by `posthaste fixtures`, always the same bytes. Feed them to your receiver's verification: it should come to the same verdict on
each. The secrets are known to everybody: for tests only. Each delivery is a folder with these files, and all are in `index.json` besides:

- `headers`: one `name: value` a line, without those that every request has
- `body`: the bytes as they came; no line end was added
- `secrets`: what the receiver knows, one a line: `whsec_...`, `whpk_...` (a public key), or a text with neither beginning
- `now`: the receiver's clock, in Unix seconds. The timestamp may be 300 s from it, either way and inclusive
- `expected`: `valid`, or `invalid:` and why. Where you tell no reasons apart, compare the first word

The folder that they lie in is the way of signing: take that of yours, `standard_v1` where nothing else was agreed. Those in `envelopes` are signed as `standard_v1` and have other bodies. `prefixed` goes by the prefix `X-Platform`.

| delivery | expected | what it is |
| --- | --- | --- |
";
/// Bytes of a body that the index shows as text, too.
const READABLE: usize = 4096;
const EXAMPLES: &str = "\
Examples:
  posthaste fixtures fixtures
  posthaste fixtures spec/fixtures/webhooks && python3 verify.py spec/fixtures/webhooks/standard_v1/*";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn no_text_breaks_the_table_of_the_readme() {
        for line in readme(&recorded().unwrap()).lines() {
            assert!(
                !line.starts_with('|') || line.matches('|').count() == 4,
                "{line}"
            );
        }
    }

    #[test]
    fn the_index_holds_the_bytes_of_the_folder() {
        let deliveries = recorded().unwrap();
        let index: Value = serde_json::from_str(&index(&deliveries).unwrap()).unwrap();
        for (delivery, entry) in deliveries
            .iter()
            .zip(index["deliveries"].as_array().unwrap())
        {
            let body = BASE64
                .decode(entry["body_base64"].as_str().unwrap())
                .unwrap();
            assert_eq!(body, delivery.body, "{}", delivery.name);
            assert_eq!(entry["valid"], delivery.expected() == "valid");
        }
    }
}
