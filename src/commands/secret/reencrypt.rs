//! `posthaste secret reencrypt`: every stored secret under the first key.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use posthaste::secret::{CredentialKind, PARTNER, Sealed, SecretKind};
use posthaste::store::Outdated;
use posthaste::{Error, Result};

use super::Desk;
use crate::commands::input::{given, reason};
use crate::commands::output::{remark, say};

pub(super) fn command() -> Command {
    let command = Command::new("reencrypt")
        .about("Encrypt every stored secret anew under the first key")
        .long_about(
            "Encrypts every stored secret that is under another key anew under the first one, after \
             which the other keys can go. What is signed stays the same. One that no key at hand opens \
             stays as it is, is named, and makes the exit code 1.",
        )
        .arg(reason().required(true))
        .after_help(EXAMPLES);
    super::with_keys(command)
}

impl Desk<'_> {
    /// Puts every stored secret under the first key.
    pub(super) async fn reencrypt(&self, args: &ArgMatches) -> Result<ExitCode> {
        let key_id = self.keyring.ids().next().unwrap_or_default();
        let entry = self.control.ask_to_reencrypt(given(args, "reason")).await?;
        let (done, closed) = self.reencrypt_all(entry, key_id).await?;
        say(&format!("{done} encrypted anew under the key {key_id}"))?;
        for error in &closed {
            remark(&error.to_string());
        }
        Ok(if closed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// How many were encrypted anew, and why others could not be. One that does not open stays as it is, so that a key that is
    /// lost does not hold up the rest.
    async fn reencrypt_all(&self, entry: i64, key_id: &str) -> Result<(u64, Vec<Error>)> {
        let mut done = 0;
        loop {
            let (before, mut closed) = (done, Vec::new());
            let some = self.control.outdated(entry, key_id).await?;
            for stored in &some {
                match self.sealed_anew(stored) {
                    Ok(sealed) => done += u64::from(self.control.reencrypt(stored, &sealed).await?),
                    Err(error) => closed.push(error),
                }
            }
            let is_stuck = done == before && !closed.is_empty();
            if some.is_empty() || is_stuck {
                return Ok((done, closed));
            }
        }
    }

    fn sealed_anew(&self, stored: &Outdated) -> Result<Sealed> {
        let (subscription_id, secret_id) = (stored.subscription_id, stored.secret_id);
        let Sealed { key_id, ciphertext } = &stored.sealed;
        let keys = &self.keyring;
        if stored.kind == PARTNER {
            let key = keys.open_partner_key(secret_id, &stored.sealed)?;
            keys.seal_partner_key(secret_id, &key)
        } else if let Some(kind) = CredentialKind::parse(&stored.kind) {
            let value = keys.open_credential(kind, subscription_id, secret_id, &stored.sealed)?;
            keys.seal_credential(kind, subscription_id, secret_id, &value)
        } else {
            let secret = keys.open(
                subscription_id,
                secret_id,
                SecretKind::parse(&stored.kind)?,
                key_id,
                ciphertext,
            )?;
            keys.seal(subscription_id, secret_id, &secret)
        }
    }
}

const EXAMPLES: &str = "\
Put the new key in front of the old ones first; see `posthaste key`.

Examples:
  posthaste secret reencrypt --reason 'yearly change of keys' --key-file posthaste.keys";
