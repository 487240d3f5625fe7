//! `posthaste receive`: a partner for trials, which shows what it gets and answers as it is told.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use jiff::Timestamp;
use posthaste::logging::escaped;
use posthaste::trial::authority::Authority;
use posthaste::trial::partner::{Partner, PartnerConfig, Received, Replies, Reply};
use posthaste::verifier::Verifier;
use posthaste::{Error, Result};
use tokio::sync::oneshot;

use super::input::{path, secret_file, secret_text, secret_words, span};
use super::output::say;

pub(crate) fn command() -> Command {
    Command::new("receive")
        .about("Be a partner for trials: show and verify each request, answer as told")
        .long_about(
            "Listens as a partner would, prints each request and whether its signature is valid, and \
             answers as it is told. Ctrl-C stops it. Over HTTPS it makes a certificate authority for \
             itself and writes its certificate to --ca-out: give that to the worker as ca_file, and \
             allow it the network (allow_networks), since a worker does not go to private addresses.",
        )
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDRESS")
                .value_parser(value_parser!(SocketAddr))
                .default_value("127.0.0.1:0")
                .help("Where to listen; port 0 takes a free one"),
        )
        .arg(switch("tls", "HTTPS, the default").conflicts_with("plain-http"))
        .arg(switch("plain-http", "Plain HTTP; a worker needs allow_http_loopback for it"))
        .arg(path("ca-out", "Where the authority's certificate goes (PEM)").default_value("trial-ca.pem"))
        .arg(secret_file())
        .args(answers())
        .arg(switch("json", "One JSON object a line in place of text"))
        .after_help(EXAMPLES)
}

fn answers() -> [Arg; 4] {
    [
        Arg::new("status")
            .long("status")
            .value_name("STATUS")
            .value_parser(value_parser!(u16).range(200..=599))
            .default_value("200")
            .help("The HTTP status to answer with"),
        Arg::new("fail-first")
            .long("fail-first")
            .value_name("COUNT")
            .value_parser(value_parser!(u32))
            .default_value("0")
            .help("Answer 503 to so many attempts of each event before"),
        span("delay", "Answer so much later").default_value("0s"),
        switch("hang", "Never answer").conflicts_with_all(["status", "fail-first", "delay"]),
    ]
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

pub(crate) async fn run(args: &ArgMatches) -> Result<ExitCode> {
    let (page, ended) = Page::open(args.get_flag("json"))?;
    let answer = Answer::from(args);
    let partner = start(args, page, answer).await?;
    greet(args, &partner)?;
    let result = tokio::select! {
        stopped = tokio::signal::ctrl_c() => stopped.map_err(|error| Error::Io("Ctrl-C".to_owned(), error)),
        // The sender is dropped without a word only where printing went well to the end.
        failed = ended => failed.map_or(Ok(()), Err),
    };
    partner.stop().await;
    result.map(|()| ExitCode::SUCCESS)
}

async fn start(args: &ArgMatches, page: Page, answer: Answer) -> Result<Partner> {
    let addr = args
        .get_one::<SocketAddr>("listen")
        .copied()
        .unwrap_or(PartnerConfig::default().addr);
    let tls = if args.get_flag("plain-http") {
        None
    } else {
        let authority = Authority::new()?;
        authority.write_pem(ca_out(args))?;
        Some(authority.server_config(&["localhost", &addr.ip().to_string()], true)?)
    };
    let replies = Replies::by(move |received| {
        let reply = answer.to(received);
        page.note(received, &reply);
        reply
    });
    let config = PartnerConfig {
        addr,
        host: host(addr),
        tls,
        verifier: verifier(args)?,
        replies,
        keep: REMEMBERED,
        ..PartnerConfig::default()
    };
    Partner::start(config).await
}

/// By the secrets and public keys that were given; none where there are none.
fn verifier(args: &ArgMatches) -> Result<Option<Verifier>> {
    let given = secret_text(args)?;
    let mut words = secret_words(&given).peekable();
    words
        .peek()
        .is_some()
        .then(|| Verifier::new(words))
        .transpose()
}

/// An address as a URL writes it.
fn host(addr: SocketAddr) -> String {
    match addr {
        SocketAddr::V4(addr) => addr.ip().to_string(),
        SocketAddr::V6(addr) => format!("[{}]", addr.ip()),
    }
}

fn ca_out(args: &ArgMatches) -> &Path {
    args.get_one::<PathBuf>("ca-out")
        .map_or(Path::new("trial-ca.pem"), PathBuf::as_path)
}

fn greet(args: &ArgMatches, partner: &Partner) -> Result<()> {
    let url = partner.url("/");
    let ca_file = (!args.get_flag("plain-http")).then(|| ca_out(args).display().to_string());
    if args.get_flag("json") {
        return say(&escaped(
            &serde_json::json!({ "listening": url, "ca_file": ca_file }).to_string(),
        ));
    }
    say(&format!("listening on {url}"))?;
    if let Some(file) = ca_file {
        say(&format!("its authority's certificate is in {file}"))?;
    }
    if verifier(args)?.is_none() {
        say("signatures are not checked: no POSTHASTE_SECRET, no --secret-file")?;
    }
    Ok(())
}

/// What to answer.
struct Answer {
    status: u16,
    fail_first: u32,
    delay: Duration,
    hang: bool,
}

impl Answer {
    fn from(args: &ArgMatches) -> Self {
        Self {
            status: args.get_one("status").copied().unwrap_or(200),
            fail_first: args.get_one("fail-first").copied().unwrap_or_default(),
            delay: args.get_one("delay").copied().unwrap_or_default(),
            hang: args.get_flag("hang"),
        }
    }

    fn to(&self, received: &Received) -> Reply {
        let status = if received.attempt <= self.fail_first {
            503
        } else {
            self.status
        };
        match self.delay {
            _ if self.hang => Reply::Hang,
            Duration::ZERO => Reply::Status(status),
            delay => Reply::Delay(delay, Box::new(Reply::Status(status))),
        }
    }
}

/// Prints requests on a thread of its own: an answer never waits for whoever reads.
struct Page {
    lines: SyncSender<String>,
    json: bool,
}

impl Page {
    /// Starts the thread. The receiver learns of it when standard output fails.
    fn open(json: bool) -> Result<(Self, oneshot::Receiver<Error>)> {
        let (lines, queue) = sync_channel(QUEUED);
        let (failed, ended) = oneshot::channel();
        let printing = thread::Builder::new()
            .name("print".to_owned())
            .spawn(move || {
                if let Err(error) = print(&queue) {
                    // Nobody waits for it any more when the program is ending.
                    let _ = failed.send(error);
                }
            });
        printing.map_err(|error| Error::Io("the printing thread".to_owned(), error))?;
        Ok((Self { lines, json }, ended))
    }

    /// What does not fit in the queue is answered and not shown.
    fn note(&self, received: &Received, reply: &Reply) {
        let line = if self.json {
            json(received, reply)
        } else {
            text(received, reply)
        };
        let _ = self.lines.try_send(line);
    }
}

fn print(queue: &Receiver<String>) -> Result<()> {
    queue.iter().try_for_each(|line| say(&line))
}

fn text(received: &Received, reply: &Reply) -> String {
    let Received {
        sequence,
        method,
        path,
        id,
        attempt,
        ..
    } = received;
    format!(
        "#{sequence} {} {method} {} id {} attempt {attempt}, signature {}, answer {}\n    {}",
        at(received),
        shortened(path),
        shortened(id),
        signature(received),
        spoken(reply),
        shortened(&String::from_utf8_lossy(&received.body)),
    )
}

fn json(received: &Received, reply: &Reply) -> String {
    let record = serde_json::json!({
        "sequence": received.sequence,
        "at": at(received),
        "method": received.method.as_str(),
        "path": cut(&received.path),
        "id": cut(&received.id),
        "timestamp": cut(&received.timestamp),
        "attempt": received.attempt,
        "signature": signature(received),
        "answer": spoken(reply),
        "body": cut(&String::from_utf8_lossy(&received.body)),
        "body_bytes": received.body.len(),
    });
    escaped(&record.to_string())
}

fn at(received: &Received) -> String {
    Timestamp::try_from(received.at).map_or(String::new(), |at| format!("{at:.3}"))
}

fn signature(received: &Received) -> String {
    match received.verified {
        Some(Ok(())) => "valid".to_owned(),
        Some(Err(reason)) => format!("INVALID ({reason})"),
        None => "not checked".to_owned(),
    }
}

fn spoken(reply: &Reply) -> String {
    match reply {
        Reply::Status(status) => status.to_string(),
        Reply::Delay(delay, then) => format!("{} after {delay:?}", spoken(then)),
        _ => "none".to_owned(),
    }
}

/// Safe to print, and not too much of it.
fn shortened(text: &str) -> String {
    escaped(&cut(text))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes in all)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// Requests kept to count attempts by: bodies of up to 2 MiB each.
const REMEMBERED: usize = 256;
const QUEUED: usize = 1024;
/// Characters.
const SHOWN: usize = 2000;
const EXAMPLES: &str = "\
The secret is POSTHASTE_SECRET (whsec_...; several are separated by spaces) or is in --secret-file.

Examples:
  posthaste receive --secret-file secret.txt
  posthaste receive --listen 127.0.0.1:8443 --ca-out /tmp/ca.pem --fail-first 2
  posthaste receive --plain-http --status 410
  posthaste receive --hang
  posthaste receive --json --delay 3s | jq .signature";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::SystemTime;

    use bytes::Bytes;
    use http::{HeaderMap, Method, Version};
    use posthaste::signature::Invalid;

    use super::*;

    fn received(body: &str, attempt: u32) -> Received {
        Received {
            sequence: 7,
            connection: 1,
            at: SystemTime::UNIX_EPOCH,
            version: Version::HTTP_11,
            method: Method::POST,
            path: "/hooks".to_owned(),
            headers: HeaderMap::new(),
            id: "msg_1".to_owned(),
            timestamp: "0".to_owned(),
            attempt,
            body: Bytes::from(body.to_owned()),
            verified: Some(Err(Invalid::NoSignature)),
        }
    }

    fn answer(arguments: &[&str], attempt: u32) -> Reply {
        let words = ["receive"].iter().chain(arguments);
        Answer::from(&command().try_get_matches_from(words).unwrap()).to(&received("", attempt))
    }

    #[test]
    fn it_answers_as_it_is_told() {
        assert_eq!(answer(&[], 1), Reply::Status(200));
        assert_eq!(answer(&["--status", "410"], 1), Reply::Status(410));
        assert_eq!(answer(&["--fail-first", "2"], 2), Reply::Status(503));
        assert_eq!(answer(&["--fail-first", "2"], 3), Reply::Status(200));
        let late = Reply::Delay(Duration::from_secs(3), Box::new(Reply::Status(200)));
        assert_eq!(answer(&["--delay", "3s"], 1), late);
        assert_eq!(answer(&["--hang"], 1), Reply::Hang);
    }

    #[test]
    fn a_request_is_shown_with_its_verification_and_its_answer() {
        let shown = text(&received("{}", 2), &Reply::Status(503));
        let expected = "#7 1970-01-01T00:00:00.000Z POST /hooks id msg_1 attempt 2, signature INVALID \
                        (there is no signature of a kind that a known secret checks), answer 503\n    {}";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_body_cannot_steer_the_terminal_forge_a_line_or_fill_the_screen() {
        let body = format!("\u{1b}[2J\n#8 forged {}", "x".repeat(100_000));
        let shown = text(&received(&body, 1), &Reply::Hang);
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(
            !shown.contains('\u{1b}') && shown.len() < SHOWN + 500,
            "{shown}"
        );
    }

    #[test]
    fn a_request_in_json_is_one_line_that_parses() {
        let line = json(&received("\u{85}\n\u{2028}", 1), &Reply::Status(200));
        let record: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(record["body"], "\u{85}\n\u{2028}");
        assert_eq!(record["body_bytes"], 6);
        assert!(!line.contains(['\u{85}', '\u{2028}']));
    }
}
