//! `posthaste key`: makes a key for the signing secrets.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use posthaste::Result;
use posthaste::secret::Keyring;

use super::output::say;

pub(crate) fn command() -> Command {
    Command::new("key")
        .about("Make a key that encrypts the signing secrets in the database")
        .long_about(
            "Prints a new random key as a line for key_file or POSTHASTE_KEYS. The signing secrets in \
             the database are encrypted under it: without it no worker can sign, and a copy of the \
             database alone reveals none of them. Keep it where the workers can read it and the \
             database cannot. To change keys, put a new line first and keep the old ones below it.",
        )
        .arg(
            Arg::new("id")
                .long("id")
                .value_name("ID")
                .default_value("k1")
                .help("What to call it: 1 to 32 of a-z 0-9 _ -"),
        )
        .after_help(EXAMPLES)
}

pub(crate) fn run(args: &ArgMatches) -> Result<ExitCode> {
    let id = args.get_one::<String>("id").map_or("k1", String::as_str);
    say(&Keyring::generate_line(id)?)?;
    Ok(ExitCode::SUCCESS)
}

const EXAMPLES: &str = "\
Examples:
  posthaste key > posthaste.keys
  posthaste key --id 2027";
