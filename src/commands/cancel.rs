//! `posthaste cancel`: nothing more of an event is delivered.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use posthaste::Result;
use posthaste::store::Control;

use super::input::{given, if_given, reason, subject, text};
use super::output::say;
use super::settings;

pub(crate) fn command() -> Command {
    let command = Command::new("cancel")
        .about("Cancel what still waits of an event")
        .long_about(
            "Cancels what still waits of an event, or of its delivery to one subscription. Workers do so \
             within a second; an attempt that is under way is made to its end, and is the last.",
        )
        .arg(subject(EVENT, "The event's id, which partners see as webhook-id"))
        .arg(text("subscription", "Its delivery to this subscription alone"))
        .arg(reason().required(true))
        .after_help(EXAMPLES);
    settings::arguments(command, |_| false)
}

pub(crate) async fn run(args: &ArgMatches) -> Result<ExitCode> {
    let control = Control::open(&settings::load(args)?.config).await?;
    let (event, reason) = (given(args, EVENT), given(args, "reason"));
    let cancelled = control.cancel(event, reason, if_given(args, "subscription"));
    match cancelled.await? {
        0 => say("to be cancelled once it is fanned out"),
        1 => say("to be cancelled: 1 delivery"),
        count => say(&format!("to be cancelled: {count} deliveries")),
    }?;
    Ok(ExitCode::SUCCESS)
}

const EVENT: &str = "event";

const EXAMPLES: &str = "\
The database is DATABASE_URL, or database_url in the --config file; the login in it is who acts.

Examples:
  posthaste cancel 01a20492-6698-78f6-8c62-89b09a1d19af --reason 'sent by mistake'
  posthaste cancel 01a20492-6698-78f6-8c62-89b09a1d19af --subscription university --reason 'not for them'";
