//! How the program says that it could not: one line that tells what, one that tells what to do.

use std::error::Error as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use posthaste::Error;
use posthaste::logging::escaped;

/// Says why a command failed. A bad configuration is the caller's to mend, like bad usage.
pub(crate) fn of_command(error: &Error) -> ExitCode {
    say(&sentence(error), hint(error));
    match error {
        Error::Config(_) | Error::Keys(_) => ExitCode::from(BAD_USAGE),
        _ => ExitCode::FAILURE,
    }
}

/// Says why the arguments are no good; or prints the help that they ask for, which is no failure.
pub(crate) fn of_arguments(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Whoever asked has closed the terminal: there is nobody left to tell.
            let _ = error.print();
        }
        _ => {
            let (what, tip) = usage(&error.render().to_string());
            say(&what, Some(&tip));
        }
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(BAD_USAGE))
}

fn say(what: &str, hint: Option<&str>) {
    eprintln!("posthaste: {}", escaped(what));
    if let Some(hint) = hint {
        eprintln!("hint: {}", escaped(hint));
    }
}

/// The error and its causes, each said once.
fn sentence(error: &Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !sentence.contains(&text) {
            sentence = format!("{sentence}: {text}");
        }
        cause = error.source();
    }
    sentence
}

fn hint(error: &Error) -> Option<&'static str> {
    match error {
        Error::Config(_) => {
            Some("`posthaste run --help` lists every setting and where it may be set")
        }
        Error::Database(_) => {
            Some("is Postgres up, and is DATABASE_URL right? `posthaste check` tries it")
        }
        Error::Schema(_) => Some("`posthaste migrate` brings the schema up to date"),
        Error::Data(_) | Error::Refused(_) | Error::Keys(_) | Error::Tls(_) | Error::Io(..) => None,
    }
}

/// From clap's several paragraphs: the first as one line, and its tip or where to read on.
fn usage(rendered: &str) -> (String, String) {
    let mut paragraphs = rendered.split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let what = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let tip = rendered
        .lines()
        .find_map(|line| line.trim().strip_prefix("tip: "));
    let usage = rendered
        .lines()
        .find_map(|line| line.strip_prefix("Usage: "));
    let hint = match (tip, usage) {
        (Some(tip), _) => tip.to_owned(),
        (None, Some(usage)) => format!("usage: {usage}"),
        (None, None) => "try --help".to_owned(),
    };
    (what, hint)
}

const BAD_USAGE: u8 = 2;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io;

    use super::*;
    use crate::commands::cli;

    fn said(arguments: &[&str]) -> (String, String) {
        let error = cli().try_get_matches_from(arguments).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        usage(&error.render().to_string())
    }

    #[test]
    fn a_wrong_flag_is_one_line_and_a_hint() {
        let (what, hint) = said(&["posthaste", "run", "--batchs", "1"]);
        assert_eq!(what, "unexpected argument '--batchs' found");
        assert!(hint.contains("'--batch'"), "{hint}");
    }

    #[test]
    fn a_wrong_command_is_told_the_right_one() {
        let (what, hint) = said(&["posthaste", "migrat"]);
        assert_eq!(what, "unrecognized subcommand 'migrat'");
        assert!(hint.contains("'migrate'"), "{hint}");
    }

    #[test]
    fn a_refused_value_says_what_it_was() {
        let (what, _) = said(&["posthaste", "verify", "--tolerance", "soon"]);
        assert!(
            what.contains("'soon'") && what.contains("such as 5m") && !what.contains('\n'),
            "{what}"
        );
    }

    #[test]
    fn causes_are_said_once_and_in_order() {
        let error = Error::Io(
            "cannot read x".to_owned(),
            io::Error::other("no such thing"),
        );
        assert_eq!(sentence(&error), "cannot read x: no such thing");
    }
}
