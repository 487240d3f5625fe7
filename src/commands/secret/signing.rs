//! `posthaste secret rotate` and `reveal`: what a partner is given to verify our requests with.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use posthaste::secret::{Sealed, SecretKind, SigningSecret};
use posthaste::{Error, Result};
use uuid::Uuid;

use super::{Desk, SUBSCRIPTION};
use crate::commands::input::{given, if_given, reason, text};
use crate::commands::output::{remark, say};

pub(super) fn rotate_command() -> Command {
    let overlap = text("overlap", "How long the others of its kind sign along")
        .value_name("INTERVAL")
        .default_value("24h");
    let kinds = [SecretKind::Shared, SecretKind::Ed25519].map(SecretKind::as_str);
    let kind = Arg::new("kind")
        .long("kind")
        .value_name("KIND")
        .value_parser(PossibleValuesParser::new(kinds))
        .help("A secret that both sides know, or a private key of which the partner is given the public half; else what its signatures need");
    let command = Command::new("rotate")
        .about("Make a new signing secret and print it, once; the others sign along for a while")
        .long_about(
            "Makes a new signing secret and prints what the partner is given, with its number: the secret, \
             `whsec_...`, or of a private key its public half, `whpk_...`. The private half is shown to \
             nobody. Until the overlap is over each request bears a signature of each secret of that kind, \
             so that the partner has that long to change over.",
        )
        .arg(super::name())
        .arg(kind)
        .arg(overlap)
        .arg(reason())
        .after_help(ROTATE_EXAMPLES);
    super::with_keys(command)
}

pub(super) fn reveal_command() -> Command {
    let command = Command::new("reveal")
        .about("Print the live signing secrets, a number and a secret a line; the audit log says so")
        .long_about(
            "Prints what the partner verifies with, a number and a secret a line: `whsec_...`, a text that \
             it brought along, or of a private key its public half, `whpk_...`. The audit log says so.",
        )
        .arg(super::name())
        .arg(reason().required(true))
        .after_help(REVEAL_EXAMPLES);
    super::with_keys(command)
}

impl Desk<'_> {
    /// Makes a new signing secret and shows what the partner is given, once.
    pub(super) async fn rotate(&self, args: &ArgMatches) -> Result<()> {
        let (name, overlap) = (given(args, SUBSCRIPTION), given(args, "overlap"));
        let reason = if_given(args, "reason");
        let subscription = self.subscription(name).await?;
        let kind = match if_given(args, "kind") {
            Some(kind) => SecretKind::parse(kind)?,
            None => subscription.usual_kind(),
        };
        let (secret, secret_id) = (SigningSecret::generate_as(kind)?, Uuid::now_v7());
        let sealed = self.keyring.seal(subscription.id, secret_id, &secret)?;
        let number = self
            .control
            .rotate_secret(name, overlap, reason, secret_id, &secret, &sealed)
            .await?;
        if secret.public_key().is_some() {
            // Nothing secret is shown, so the audit log need not say so.
            show(number, &secret)?;
        } else {
            self.show(name, reason.unwrap_or(ROTATED), Some(number))
                .await?;
        }
        subscription.remark_on(kind);
        Ok(())
    }

    /// Shows the live signing secrets.
    pub(super) async fn reveal(&self, args: &ArgMatches) -> Result<()> {
        let name = given(args, SUBSCRIPTION);
        let found = self.control.secrets_of(name).await?;
        let count = |field: &str| found[field].as_i64().unwrap_or_default();
        match (count("live"), count("asked_for")) {
            (0, 0) => Err(Error::Refused(NO_SECRET.to_owned())),
            (0, _) => Err(Error::Refused(NOT_MADE_YET.to_owned())),
            (_, asked_for) => {
                self.show(name, given(args, "reason"), None).await?;
                if asked_for > 0 {
                    remark(&format!("{asked_for} more: {NOT_MADE_YET}"));
                }
                Ok(())
            }
        }
    }

    /// Prints one live signing secret, or all, once the audit log says so.
    async fn show(&self, name: &str, reason: &str, only: Option<i16>) -> Result<()> {
        for stored in self.control.reveal(name, reason).await? {
            if only.is_some_and(|only| only != stored.number) {
                continue;
            }
            let Sealed { key_id, ciphertext } = &stored.sealed;
            let (subscription_id, secret_id) = (stored.subscription_id, stored.secret_id);
            let secret =
                self.keyring
                    .open(subscription_id, secret_id, stored.kind, key_id, ciphertext)?;
            show(stored.number, &secret)?;
        }
        Ok(())
    }
}

/// A line with what the partner is given: never a private key.
fn show(number: i16, secret: &SigningSecret) -> Result<()> {
    match secret.public_key() {
        Some(public) => {
            say(&format!("{number} {public}"))?;
            remark(&format!(
                "{number} is the public key; the private one is shown to nobody"
            ));
            Ok(())
        }
        None => say(&zeroize::Zeroizing::new(format!(
            "{number} {}",
            *secret.reveal()
        ))),
    }
}

const ROTATED: &str = "shown once after its rotation";
const NO_SECRET: &str = "it has no live signing secret; `posthaste secret rotate` makes one";
const NOT_MADE_YET: &str =
    "asked for, and no key holder has made it yet; a running worker makes it within a second";
const ROTATE_EXAMPLES: &str = "\
Examples:
  posthaste secret rotate university
  posthaste secret rotate university --kind ed25519
  posthaste secret rotate university --overlap 0s --reason 'it was in their log'";
const REVEAL_EXAMPLES: &str = "\
Examples:
  posthaste secret reveal university --reason 'their first set-up'
  posthaste secret reveal university --reason 'new receiver' --key-file posthaste.keys";
