//! What commands read: names, reasons, bounded files, signing secrets, durations.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use jiff::SignedDuration;
use posthaste::secret::{SecretKind, SigningSecret};
use posthaste::{Error, Result};
use serde_json::Value;
use zeroize::Zeroizing;

/// What the command is about, such as the name of a subscription.
pub(crate) fn subject(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .value_name(name.to_uppercase())
        .required(true)
        .help(help)
}

/// A flag that takes a text.
pub(crate) fn text(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("TEXT").help(help)
}

/// A flag that takes a text, each time that it is given.
pub(crate) fn texts(name: &'static str, help: &'static str) -> Arg {
    text(name, help).action(ArgAction::Append)
}

/// Why something is done, for the audit log.
pub(crate) fn reason() -> Arg {
    text("reason", "Why, for whoever reads the audit log")
}

/// What changes, as a JSON object.
pub(crate) fn set(help: &'static str) -> Arg {
    Arg::new("set")
        .long("set")
        .value_name("JSON")
        .value_parser(object)
        .help(help)
}

fn object(text: &str) -> std::result::Result<Value, &'static str> {
    let value: Option<Value> = serde_json::from_str(text).ok();
    value
        .filter(Value::is_object)
        .ok_or("must be a JSON object such as {\"active\": false}")
}

/// The text that was given under this name, which is required.
pub(crate) fn given<'a>(args: &'a ArgMatches, name: &str) -> &'a str {
    if_given(args, name).unwrap_or_default()
}

/// The text that was given under this name, if any.
pub(crate) fn if_given<'a>(args: &'a ArgMatches, name: &str) -> Option<&'a str> {
    args.get_one::<String>(name).map(String::as_str)
}

/// Every text that was given under this name.
pub(crate) fn all_given(args: &ArgMatches, name: &str) -> Vec<String> {
    args.get_many::<String>(name)
        .unwrap_or_default()
        .cloned()
        .collect()
}

/// A flag that takes a path.
pub(crate) fn path(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help(help)
}

/// A flag that takes a duration.
pub(crate) fn span(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("DURATION")
        .value_parser(duration)
        .help(help)
}

/// A duration such as 5m or 500ms.
pub(crate) fn duration(text: &str) -> std::result::Result<Duration, &'static str> {
    let parsed = text.parse::<SignedDuration>().ok();
    parsed
        .and_then(|span| Duration::try_from(span).ok())
        .ok_or("must be a duration such as 5m or 500ms")
}

/// Where [`secrets`] come from. A secret given as a flag would show in the process list.
pub(crate) fn secret_file() -> Arg {
    path(
        "secret-file",
        "The signing secrets, `whsec_...`, or public keys, `whpk_...`, one a line; without it, the variable POSTHASTE_SECRET",
    )
}

/// The signing secrets from `--secret-file`, else from the environment; none where neither is given.
pub(crate) fn secrets(args: &ArgMatches) -> Result<Vec<SigningSecret>> {
    let text = secret_text(args)?;
    secret_words(&text).map(SigningSecret::parse).collect()
}

/// Secrets that are separated by spaces, commas or line ends.
pub(crate) fn secret_words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split([',', '\n', ' ']).map(str::trim);
    words.filter(|word| !word.is_empty())
}

/// Secrets that are used letter by letter: each stands alone on its line, since it may hold spaces and commas.
pub(crate) fn texts_in(text: &str) -> Result<Vec<SigningSecret>> {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| SigningSecret::parse_as(SecretKind::Text, line))
        .collect()
}

/// What `--secret-file` holds, else the variable; empty where neither is given.
pub(crate) fn secret_text(args: &ArgMatches) -> Result<Zeroizing<String>> {
    let text = match args.get_one::<PathBuf>("secret-file") {
        Some(path) => read_text(path)?,
        None => std::env::var("POSTHASTE_SECRET").unwrap_or_default(),
    };
    Ok(Zeroizing::new(text))
}

/// A file as JSON: the text as it stands there, and what it says.
pub(crate) fn read_json(path: &Path) -> Result<(String, Value)> {
    let text = read_text(path)?;
    let value = serde_json::from_str(&text).map_err(|error| failed(path, error.into()))?;
    Ok((text, value))
}

/// A small file as text.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = read(path, TEXT_LIMIT)?;
    String::from_utf8(bytes).map_err(|_| failed(path, io::Error::other("it is not UTF-8 text")))
}

/// A file's bytes; `-` is standard input. More than `limit` of them are an error.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let read = if path == Path::new("-") {
        read_bounded(io::stdin().lock(), limit)
    } else {
        File::open(path).and_then(|file| read_bounded(file, limit))
    };
    read.map_err(|error| failed(path, error))
}

fn read_bounded(source: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let count = source.take(limit + 1).read_to_end(&mut bytes)?;
    if count as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::Io(format!("cannot read {}", path.display()), error)
}

const TEXT_LIMIT: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reading_stops_at_its_limit() {
        assert_eq!(read_bounded(&b"1234"[..], 4).unwrap(), b"1234");
        assert!(read_bounded(&b"12345"[..], 4).is_err());
        assert!(read_bounded(io::repeat(0), 1000).is_err());
    }

    #[test]
    fn a_duration_has_a_unit_and_no_sign() {
        assert_eq!(duration("1h 30m").unwrap(), Duration::from_mins(90));
        assert!(duration("5").is_err() && duration("-5m").is_err());
    }
}
