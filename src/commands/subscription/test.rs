//! Whether a partner's endpoint takes what we send: one test, and its answer.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use posthaste::store::Control;
use posthaste::{Error, Result};
use serde_json::Value;
use uuid::Uuid;

use crate::commands::input::{duration, given, reason, subject};
use crate::commands::output::say;
use crate::commands::settings;
use crate::commands::table::{pairs, text, time};

pub(super) fn command() -> Command {
    let command = Command::new("test")
        .about("Send a subscription the example of an event type, and show what it answers")
        .long_about(
            "Sends a subscription, and nobody else, the catalogue's example of an event type, by the same \
             way as any event, with the header `webhook-test: true` and `\"test\":true` in the body. It is sent \
             once. The exit code is 0 where it was accepted.",
        )
        .arg(super::name())
        .arg(subject(EVENT_TYPE, "The event type, which the catalogue must have an example of"))
        .arg(reason().required(true))
        .arg(
            Arg::new("wait")
                .long("wait")
                .value_name("DURATION")
                .value_parser(duration)
                .default_value("1m")
                .help("How long to wait for the answer"),
        )
        .after_help(EXAMPLES);
    settings::arguments(command, |_| false)
}

pub(super) async fn run(control: &Control, args: &ArgMatches) -> Result<ExitCode> {
    let (name, event_type) = (given(args, super::SUBSCRIPTION), given(args, EVENT_TYPE));
    let wait = args.get_one::<Duration>("wait").copied();
    let event_id = control
        .send_test(name, event_type, given(args, "reason"))
        .await?;
    let answer = tokio::time::timeout(wait.unwrap_or_default(), answer(control, event_id));
    let Ok(answer) = answer.await else {
        return Err(Error::Refused(format!(
            "no answer yet: is a worker alive, and the endpoint not busy? See `posthaste status`, and \
             posthaste.event_history('{event_id}')"
        )));
    };
    let answer = answer?;
    say(&pairs(&told(&answer)))?;
    Ok(if answer["outcome"] == "accepted" {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn answer(control: &Control, event_id: Uuid) -> Result<Value> {
    loop {
        if let Some(answer) = control.test_answer(event_id).await? {
            return Ok(answer);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn told(answer: &Value) -> Vec<(String, String)> {
    let milliseconds = |value: &Value| {
        value
            .as_f64()
            .map_or(String::new(), |us| format!("{:.1} ms", us / 1000.0))
    };
    [
        ("event", text(&answer["event_id"])),
        ("outcome", text(&answer["outcome"])),
        ("status", text(&answer["http_status"])),
        ("error", text(&answer["error"])),
        ("response", text(&answer["response"])),
        ("address", text(&answer["remote_address"])),
        ("sent", time(&answer["started_at"])),
        ("took", milliseconds(&answer["duration_us"])),
        ("signed with", text(&answer["signed_with"])),
        ("worker", text(&answer["worker"])),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(title, value)| (title.to_owned(), value))
    .collect()
}

const EVENT_TYPE: &str = "type";
/// How often it looks for the answer.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  posthaste subscription test university certificate.issued --reason 'their first set-up'
  posthaste subscription test university certificate.issued --wait 10s --reason 'after their change of certificate'";
