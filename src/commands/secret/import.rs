//! `posthaste secret import`: what was made elsewhere, signing secrets and what we show to endpoints.

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use posthaste::secret::{CredentialKind, SigningSecret};
use posthaste::sender::ClientIdentity;
use posthaste::{Error, Result};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Desk, SUBSCRIPTION, Subscription};
use crate::commands::input::{given, if_given, path, reason, secret_text, secrets, text, texts_in};
use crate::commands::output::say;

pub(super) fn command() -> Command {
    let header = text(
        "header",
        "Store the value of this header, which the subscription marks as secret",
    );
    let flag = |name, help| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    let command = Command::new("import")
        .about("Store what was made elsewhere: a signing secret, or what we show to the endpoint")
        .long_about(
            "Stores signing secrets that were made elsewhere, `whsec_...` and private keys, `whsk_...`; or, \
             with a flag, what we show to the endpoint: the value of a secret header, the secret part of \
             the authentication, or the private key of the client certificate. It is encrypted before it \
             leaves this machine.",
        )
        .arg(super::name())
        .arg(header.value_name("NAME"))
        .arg(flag(
            "authentication",
            "Store the secret part of the authentication: a token, a password, a key or a client's secret",
        ))
        .arg(flag(
            "client-key",
            "Store the private key of the client certificate, as PEM in the clear",
        ))
        .arg(flag(
            "text",
            "Signing secrets that the partner knows from another sender: used letter by letter, one a line",
        ))
        .group(ArgGroup::new("what").args(["header", "authentication", "client-key", "text"]))
        .arg(path("secret-file", SECRET_FILE))
        .arg(reason().required(true))
        .after_help(EXAMPLES);
    super::with_keys(command)
}

impl Desk<'_> {
    /// Stores what was made elsewhere.
    pub(super) async fn import(&self, args: &ArgMatches) -> Result<()> {
        let subscription = self.subscription(given(args, SUBSCRIPTION)).await?;
        let kind = if args.get_flag("client-key") {
            CredentialKind::ClientKey
        } else if args.get_flag("authentication") {
            CredentialKind::Authentication
        } else if if_given(args, "header").is_some() {
            CredentialKind::Header
        } else {
            return self.import_signing(args, &subscription).await;
        };
        self.import_credential(args, &subscription, kind).await
    }

    async fn import_credential(
        &self,
        args: &ArgMatches,
        subscription: &Subscription,
        kind: CredentialKind,
    ) -> Result<()> {
        let value = secret_text(args)?;
        let value = value.trim_end_matches(['\r', '\n']);
        if value.is_empty() {
            return Err(Error::Keys(NOTHING_GIVEN.to_owned()));
        }
        if let (CredentialKind::ClientKey, Some(chain)) = (kind, subscription.certificate()) {
            // A key that does not belong to the certificate is better refused now than at the first delivery.
            ClientIdentity::from_pem(chain.as_bytes(), value.as_bytes())?;
        }
        let (name, stored) = match kind {
            CredentialKind::Header => (given(args, "header"), "the header's value is stored"),
            CredentialKind::Authentication => (
                ":authentication",
                "the secret part of the authentication is stored",
            ),
            CredentialKind::ClientKey => {
                (":client_key", "the key of the client certificate is stored")
            }
        };
        let secret_id = Uuid::now_v7();
        let sealed = self
            .keyring
            .seal_credential(kind, subscription.id, secret_id, value)?;
        let (of, reason) = (given(args, SUBSCRIPTION), given(args, "reason"));
        self.control
            .set_credential(of, name, secret_id, &sealed, reason)
            .await?;
        say(stored)
    }

    async fn import_signing(&self, args: &ArgMatches, subscription: &Subscription) -> Result<()> {
        let secrets = signing_secrets(args)?;
        if secrets.is_empty() {
            return Err(Error::Keys(NOTHING_GIVEN.to_owned()));
        }
        let (name, reason) = (given(args, SUBSCRIPTION), given(args, "reason"));
        for secret in &secrets {
            let secret_id = Uuid::now_v7();
            let sealed = self.keyring.seal(subscription.id, secret_id, secret)?;
            let number = self
                .control
                .add_secret(name, secret_id, secret, &sealed, reason)
                .await?;
            say(&match secret.public_key() {
                Some(public) => format!("secret {number} is stored; its public key is {public}"),
                None => format!("secret {number} is stored"),
            })?;
            subscription.remark_on(secret.kind());
        }
        Ok(())
    }
}

fn signing_secrets(args: &ArgMatches) -> Result<Vec<SigningSecret>> {
    if !args.get_flag("text") {
        return secrets(args);
    }
    let given: Zeroizing<String> = secret_text(args)?;
    texts_in(&given)
}

const SECRET_FILE: &str = "The file with it: signing secrets, one a line, the value, or the key; without it, the variable POSTHASTE_SECRET";
const NOTHING_GIVEN: &str = "nothing to store: set POSTHASTE_SECRET or give --secret-file";
const EXAMPLES: &str = "\
Examples:
  posthaste secret import university --secret-file whsec.txt --reason 'from the old system'
  posthaste secret import shop --text --secret-file stripe.txt --reason 'what their receiver knows'
  posthaste secret import erp --header X-Api-Key --secret-file token.txt --reason 'their token of 2027'
  posthaste secret import erp --authentication --secret-file password.txt --reason 'their password of 2027'
  posthaste secret import bank --client-key --secret-file client.key --reason 'our certificate of 2027'";
