//! `posthaste verify`: is this request really from us, and as it was sent?

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Arg, ArgMatches, Command, value_parser};
use posthaste::signature::{self, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP};
use posthaste::{Error, Result};

use super::input::{self, path, read_text, secret_file, secrets, span};
use super::output::say;

pub(crate) fn command() -> Command {
    Command::new("verify")
        .about("Check a received request: body, headers and secret; valid, or why not")
        .long_about(
            "Checks a received request against a signing secret, as Standard Webhooks 1.0 says. Prints \
             `valid` and exits with 0, or prints why not and exits with 1. The body must be the exact \
             bytes that came: a JSON document that was read and written again is another body.",
        )
        .arg(path("body", "The body, byte for byte; - is standard input").default_value("-"))
        .arg(path("headers", "A file with header lines, as `curl -D` writes them; others are ignored"))
        .arg(header("id", "The value of webhook-id"))
        .arg(header("timestamp", "The value of webhook-timestamp"))
        .arg(header("signature", "The value of webhook-signature"))
        .arg(secret_file())
        .arg(span("tolerance", "How far the timestamp may be from now, either way").default_value("5m"))
        .arg(
            Arg::new("now")
                .long("now")
                .value_name("SECONDS")
                .value_parser(value_parser!(i64))
                .help("Check as if it were this time, in Unix seconds"),
        )
        .after_help(EXAMPLES)
}

fn header(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("TEXT").help(help)
}

pub(crate) fn run(args: &ArgMatches) -> Result<ExitCode> {
    let secrets = secrets(args)?;
    if secrets.is_empty() {
        return Err(Error::Keys(
            "no signing secret: set POSTHASTE_SECRET or give --secret-file".to_owned(),
        ));
    }
    let headers = Headers::read(args)?;
    let body = args
        .get_one::<PathBuf>("body")
        .map_or(Path::new("-"), PathBuf::as_path);
    let body = input::read(body, BODY_LIMIT)?;
    let now = args
        .get_one::<i64>("now")
        .copied()
        .unwrap_or_else(seconds_now);
    let tolerance = args
        .get_one::<Duration>("tolerance")
        .copied()
        .unwrap_or_default();
    let Headers {
        id,
        timestamp,
        signature,
    } = &headers;
    match signature::verify(&secrets, id, timestamp, signature, &body, now, tolerance) {
        Ok(()) => say("valid").map(|()| ExitCode::SUCCESS),
        Err(reason) => say(&format!("invalid: {reason}")).map(|()| ExitCode::FAILURE),
    }
}

/// The three headers that count; empty where one is missing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Headers {
    id: String,
    timestamp: String,
    signature: String,
}

impl Headers {
    /// From the file, and over it from the flags.
    fn read(args: &ArgMatches) -> Result<Self> {
        let mut headers = match args.get_one::<PathBuf>("headers") {
            Some(path) => Self::parse(&read_text(path)?),
            None => Self::default(),
        };
        let flags = [
            ("id", &mut headers.id),
            ("timestamp", &mut headers.timestamp),
            ("signature", &mut headers.signature),
        ];
        for (flag, header) in flags {
            if let Some(value) = args.get_one::<String>(flag) {
                header.clone_from(value);
            }
        }
        Ok(headers)
    }

    /// Reads `name: value` lines, with or without the `>` and `<` that `curl -v` puts before them.
    fn parse(text: &str) -> Self {
        let mut headers = Self::default();
        for line in text.lines() {
            let line = line.trim_start_matches(['>', '<', ' ']);
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim().to_owned();
            match name.to_ascii_lowercase().as_str() {
                WEBHOOK_ID => headers.id = value,
                WEBHOOK_TIMESTAMP => headers.timestamp = value,
                WEBHOOK_SIGNATURE => headers.signature = value,
                _ => {}
            }
        }
        headers
    }
}

fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs().cast_signed()
}

const BODY_LIMIT: u64 = 64 << 20;
const EXAMPLES: &str = "\
The secret is POSTHASTE_SECRET (whsec_...; several are separated by spaces) or is in --secret-file.

Examples:
  posthaste verify --headers headers.txt --body body.json --secret-file secret.txt
  posthaste verify --headers headers.txt --now 1614265330 < body.json
  posthaste verify --id msg_1 --timestamp 1614265330 --signature v1,g0hM9SsE+OTP... --body body.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lines_are_read_as_curl_writes_them() {
        let text = "HTTP/1.1 200 OK\r\n> Webhook-ID: msg_1\r\n< webhook-timestamp:17\nwebhook-signature:  v1,a= v1,b= \n\nx: y";
        let expected = Headers {
            id: "msg_1".to_owned(),
            timestamp: "17".to_owned(),
            signature: "v1,a= v1,b=".to_owned(),
        };
        assert_eq!(Headers::parse(text), expected);
    }

    #[test]
    fn a_flag_goes_before_the_file() {
        let args = command().try_get_matches_from(["verify", "--id", "msg_2"]);
        let headers = args.ok().and_then(|args| Headers::read(&args).ok());
        assert_eq!(headers.map(|headers| headers.id), Some("msg_2".to_owned()));
    }
}
