//! `posthaste secret jwks`: the public keys that partners verify our requests with.

use clap::{Arg, ArgMatches, Command};
use posthaste::jwks;
use posthaste::store::Control;
use posthaste::{Error, Result};

use super::SUBSCRIPTION;
use crate::commands::input::if_given;
use crate::commands::output::{remark, say};
use crate::commands::settings;

pub(super) fn command() -> Command {
    let command = Command::new("jwks")
        .about("Print the public keys of a subscription as a JSON Web Key Set, for publishing")
        .long_about(
            "Prints the public keys whose private halves sign now, as a JSON Web Key Set (RFC 7517): of one \
             subscription, or of all. A key's `kid` is the id of its secret. A running worker serves the \
             same on `listen`, at /jwks/<subscription>.json and /jwks.json. Give each partner the set of its \
             own subscription: whoever trusts all keys also believes what another partner sends on.",
        )
        .arg(
            Arg::new(SUBSCRIPTION)
                .value_name("SUBSCRIPTION")
                .help("The subscription's name; without it, the keys of all"),
        )
        .after_help(EXAMPLES);
    settings::arguments(command, |_| false)
}

pub(super) async fn print(control: &Control, args: &ArgMatches) -> Result<()> {
    let name = if_given(args, SUBSCRIPTION);
    if let Some(name) = name {
        // That there is none of that name is no empty set.
        control.secrets_of(name).await?;
    }
    let keys = control.public_keys(name, MOST_KEYS + 1).await?;
    if keys.len() as u64 > MOST_KEYS.unsigned_abs() {
        let rule = format!("there are more than {MOST_KEYS} keys: name a subscription");
        return Err(Error::Refused(rule));
    }
    if keys.is_empty() {
        remark(NONE);
    }
    say(&jwks::published(keys.iter()))
}

const MOST_KEYS: i64 = 100_000;
const NONE: &str = "no live secret is a private key; `posthaste secret rotate SUBSCRIPTION --kind ed25519` makes one";
const EXAMPLES: &str = "\
Examples:
  posthaste secret jwks university
  posthaste secret jwks > jwks.json";
