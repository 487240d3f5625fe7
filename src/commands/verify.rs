//! `posthaste verify`: is this request really from us, and as it was sent?

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Arg, ArgMatches, Command, value_parser};
use http::{HeaderMap, HeaderName, HeaderValue};
use posthaste::secret::SecretKind;
use posthaste::signature::{
    Profile, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, header_names, verify_as,
};
use posthaste::verifier::Verifier;
use posthaste::{Error, Result};

use super::input::{self, path, read_text, secret_file, secret_text, secret_words, span, texts_in};
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
        .arg(
            Arg::new("profile")
                .long("profile")
                .value_name("NAME")
                .value_parser(|name: &str| Profile::parse(name))
                .help("Check another sender's way, such as stripe or github; then the secret is that text, one a line"),
        )
        .arg(
            Arg::new("prefix")
                .long("prefix")
                .value_name("TEXT")
                .help("For --profile prefixed: what stands before -Signature, such as X-Platform"),
        )
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
    let given = secret_text(args)?;
    if given.trim().is_empty() {
        return Err(Error::Keys(
            "no signing secret: set POSTHASTE_SECRET or give --secret-file".to_owned(),
        ));
    }
    let mut headers = headers(args)?;
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
    let verdict = match args.get_one::<Profile>("profile") {
        Some(profile) if profile.takes(SecretKind::Text) => {
            let prefix = args.get_one::<String>("prefix").map(String::as_str);
            let secrets = texts_in(&given)?;
            verify_as(*profile, prefix, &secrets, &headers, &body, now, tolerance)?
        }
        asked_for => {
            if let Some(profile) = asked_for {
                leave_to(*profile, &mut headers)?;
            }
            let words = secret_words(&given).filter(|word| match asked_for {
                Some(Profile::StandardV1) => !word.starts_with("whpk_"),
                Some(Profile::StandardV1a) => !word.starts_with("whsec_"),
                _ => true,
            });
            Verifier::new(words)?
                .tolerance(tolerance)
                .verify_at(&headers, &body, now)
                .map(|_| ())
        }
    };
    match verdict {
        Ok(()) => say("valid").map(|()| ExitCode::SUCCESS),
        Err(reason) => say(&format!("invalid: {reason}")).map(|()| ExitCode::FAILURE),
    }
}

/// Takes away what another of the usual signatures is under: whoever asks for one wants to know what its receivers see.
fn leave_to(profile: Profile, headers: &mut HeaderMap) -> Result<()> {
    let own = header_names(profile, None)?;
    for usual in [Profile::StandardV1, Profile::SvixLegacy] {
        for name in header_names(usual, None)? {
            if !own.contains(&name) {
                headers.remove(name);
            }
        }
    }
    Ok(())
}

/// From the file, and over it from the flags.
fn headers(args: &ArgMatches) -> Result<HeaderMap> {
    let mut headers = match args.get_one::<PathBuf>("headers") {
        Some(path) => parsed(&read_text(path)?),
        None => HeaderMap::new(),
    };
    let flags = [
        ("id", WEBHOOK_ID),
        ("timestamp", WEBHOOK_TIMESTAMP),
        ("signature", WEBHOOK_SIGNATURE),
    ];
    for (flag, name) in flags {
        if let Some(value) = args.get_one::<String>(flag) {
            let unfit = |_| Error::Config(format!("--{flag}: no header holds such a value"));
            headers.insert(name, HeaderValue::try_from(value).map_err(unfit)?);
        }
    }
    Ok(headers)
}

/// Reads `name: value` lines, with or without the `>` and `<` that `curl -v` puts before them. Of a name that comes again, the
/// last value counts.
fn parsed(text: &str) -> HeaderMap {
    let line = |line: &str| {
        let (name, value) = line.trim_start_matches(['>', '<', ' ']).split_once(':')?;
        let name = HeaderName::try_from(name).ok()?;
        Some((name, HeaderValue::try_from(value.trim()).ok()?))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in text.lines().filter_map(line) {
        headers.insert(name, value);
    }
    headers
}

fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs().cast_signed()
}

const BODY_LIMIT: u64 = 64 << 20;
const EXAMPLES: &str = "\
The secret is POSTHASTE_SECRET (whsec_..., or a public key whpk_...; several are separated by spaces) or is in --secret-file.

Examples:
  posthaste verify --headers headers.txt --body body.json --secret-file secret.txt
  posthaste verify --headers headers.txt --now 1614265330 < body.json
  posthaste verify --headers headers.txt --body body.json --profile stripe --secret-file secret.txt
  posthaste verify --id msg_1 --timestamp 1614265330 --signature v1,g0hM9SsE+OTP... --body body.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lines_are_read_as_curl_writes_them() {
        let text = "HTTP/1.1 200 OK\r\n> Webhook-ID: msg_1\r\n< webhook-timestamp:17\nwebhook-signature:  v1,a= v1,b= \n\nx: y";
        let headers = parsed(text);
        assert_eq!(headers["webhook-id"], "msg_1");
        assert_eq!(headers["webhook-timestamp"], "17");
        assert_eq!(headers["webhook-signature"], "v1,a= v1,b=");
        assert_eq!(headers["x"], "y");
    }

    #[test]
    fn a_text_may_hold_spaces_and_commas() {
        let secrets = texts_in("It's a secret, to everybody\r\nanother\n\n").ok();
        let revealed = secrets.map(|secrets| {
            let texts = secrets.iter().map(|secret| secret.reveal().to_string());
            texts.collect::<Vec<_>>().join("|")
        });
        assert_eq!(
            revealed.as_deref(),
            Some("It's a secret, to everybody|another")
        );
    }

    #[test]
    fn a_flag_goes_before_the_file() {
        let args = command().try_get_matches_from(["verify", "--id", "msg_2"]);
        let headers = args.ok().and_then(|args| headers(&args).ok());
        let id = headers.and_then(|headers| headers.get(WEBHOOK_ID).cloned());
        assert_eq!(id, Some(HeaderValue::from_static("msg_2")));
    }
}
