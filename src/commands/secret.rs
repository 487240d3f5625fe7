//! `posthaste secret`: what partners verify us with, and what we identify ourselves to them with.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use posthaste::config::Config;
use posthaste::secret::{CredentialKind, Keyring, PARTNER, Sealed, SecretKind, SigningSecret};
use posthaste::store::{Control, Outdated};
use posthaste::{Error, Result};
use serde_json::Value;
use uuid::Uuid;

use super::input::{given, if_given, path, reason, secret_text, secrets, subject, text};
use super::output::{remark, say};
use super::settings;
use super::table::{self, Column, json, time};

pub(crate) fn command() -> Command {
    super::group("secret")
        .about("List, rotate, reveal and import the secrets of subscriptions")
        .long_about(
            "The signing secrets that partners verify our requests with, and the values of secret \
             headers. Postgres holds them encrypted under keys that it never sees; whatever shows or \
             changes one stands in the audit log.",
        )
        .subcommands([
            list_command(),
            rotate_command(),
            reveal_command(),
            import_command(),
            end_command(),
            reencrypt_command(),
        ])
        .after_help(EXAMPLES)
}

pub(crate) async fn run(args: &ArgMatches) -> Result<ExitCode> {
    let (name, args) = super::chosen(args)?;
    let config = settings::load(args)?.config;
    let control = Control::open(&config).await?;
    match name {
        "list" => list(&control, args).await,
        "rotate" => Desk::new(&config, &control)?.rotate(args).await,
        "reveal" => Desk::new(&config, &control)?.reveal(args).await,
        "import" => Desk::new(&config, &control)?.import(args).await,
        "end" => end(&control, args).await,
        "reencrypt" => return Desk::new(&config, &control)?.reencrypt(args).await,
        other => Err(super::unknown(other)),
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn list(control: &Control, args: &ArgMatches) -> Result<()> {
    table::print(
        args,
        &control.secrets().await?,
        SECRETS,
        "there is no subscription",
    )
}

async fn end(control: &Control, args: &ArgMatches) -> Result<()> {
    let number = args.get_one::<i16>("number").copied().unwrap_or_default();
    let (name, reason) = (given(args, SUBSCRIPTION), given(args, "reason"));
    control.end_secret(name, number, reason).await?;
    say(&format!("secret {number} has ended"))
}

/// Where secrets are sealed and opened: whoever stands here holds the keys.
struct Desk<'a> {
    keyring: Keyring,
    control: &'a Control,
}

impl<'a> Desk<'a> {
    fn new(config: &Config, control: &'a Control) -> Result<Self> {
        let keyring = config.keyring()?;
        Ok(Self { keyring, control })
    }

    /// Makes a new signing secret and shows it, once.
    async fn rotate(&self, args: &ArgMatches) -> Result<()> {
        let (name, overlap) = (given(args, SUBSCRIPTION), given(args, "overlap"));
        let reason = if_given(args, "reason");
        let subscription_id = id(&self.control.secrets_of(name).await?)?;
        let (secret, secret_id) = (SigningSecret::generate()?, Uuid::now_v7());
        let sealed = self.keyring.seal(subscription_id, secret_id, &secret)?;
        let number = self
            .control
            .rotate_secret(name, overlap, reason, secret_id, &secret, &sealed)
            .await?;
        self.show(name, reason.unwrap_or(ROTATED), Some(number))
            .await
    }

    /// Shows the live signing secrets.
    async fn reveal(&self, args: &ArgMatches) -> Result<()> {
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
            let number = stored.number;
            say(&zeroize::Zeroizing::new(format!(
                "{number} {}",
                *secret.reveal()
            )))?;
        }
        Ok(())
    }

    /// Stores what was made elsewhere: signing secrets, or the value of a header.
    async fn import(&self, args: &ArgMatches) -> Result<()> {
        let (name, reason) = (given(args, SUBSCRIPTION), given(args, "reason"));
        let subscription_id = id(&self.control.secrets_of(name).await?)?;
        if let Some(header) = if_given(args, "header") {
            let value = secret_text(args)?;
            let (value, secret_id) = (value.trim_end_matches(['\r', '\n']), Uuid::now_v7());
            if value.is_empty() {
                return Err(Error::Keys(NOTHING_GIVEN.to_owned()));
            }
            let sealed = self.keyring.seal_credential(
                CredentialKind::Header,
                subscription_id,
                secret_id,
                value,
            )?;
            self.control
                .set_credential(name, header, secret_id, &sealed, reason)
                .await?;
            return say("the header's value is stored");
        }
        let secrets = secrets(args)?;
        if secrets.is_empty() {
            return Err(Error::Keys(NOTHING_GIVEN.to_owned()));
        }
        for secret in &secrets {
            let secret_id = Uuid::now_v7();
            let sealed = self.keyring.seal(subscription_id, secret_id, secret)?;
            let number = self
                .control
                .add_secret(name, secret_id, secret, &sealed, reason)
                .await?;
            say(&format!("secret {number} is stored"))?;
        }
        Ok(())
    }

    /// Puts every stored secret under the first key.
    async fn reencrypt(&self, args: &ArgMatches) -> Result<ExitCode> {
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

/// The subscription's id, to which what is sealed is bound.
fn id(found: &Value) -> Result<i32> {
    let id = found["subscription_id"].as_i64();
    id.and_then(|id| i32::try_from(id).ok())
        .ok_or_else(|| Error::Database("a subscription has no id".to_owned()))
}

fn list_command() -> Command {
    let command = Command::new("list")
        .about("List how many secrets each subscription has, how old they are, and what is missing")
        .arg(json())
        .after_help(LIST_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn rotate_command() -> Command {
    let overlap = text("overlap", "How long the others sign along")
        .value_name("INTERVAL")
        .default_value("24h");
    let command = Command::new("rotate")
        .about("Make a new signing secret and print it, once; the others sign along for a while")
        .long_about(
            "Makes a new signing secret and prints it with its number, for the partner. Until the \
             overlap is over each request bears a signature of each secret, so that the partner has \
             that long to change over.",
        )
        .arg(name())
        .arg(overlap)
        .arg(reason())
        .after_help(ROTATE_EXAMPLES);
    with_keys(command)
}

fn reveal_command() -> Command {
    let command = Command::new("reveal")
        .about("Print the live signing secrets, a number and `whsec_...` a line; the audit log says so")
        .arg(name())
        .arg(reason().required(true))
        .after_help(REVEAL_EXAMPLES);
    with_keys(command)
}

fn import_command() -> Command {
    let header = text(
        "header",
        "Store the value of this header, which the subscription marks as secret",
    );
    let command = Command::new("import")
        .about("Store a signing secret that was made elsewhere, or the value of a secret header")
        .arg(name())
        .arg(header.value_name("NAME"))
        .arg(path("secret-file", SECRET_FILE))
        .arg(reason().required(true))
        .after_help(IMPORT_EXAMPLES);
    with_keys(command)
}

fn end_command() -> Command {
    let number = subject(
        "number",
        "Its number, as `reveal` and `subscription show` tell it",
    )
    .value_parser(value_parser!(i16));
    let command = Command::new("end")
        .about("End a signing secret now, ahead of what was agreed")
        .arg(name())
        .arg(number)
        .arg(reason().required(true))
        .after_help(END_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn reencrypt_command() -> Command {
    let command = Command::new("reencrypt")
        .about("Encrypt every stored secret anew under the first key")
        .long_about(
            "Encrypts every stored secret that is under another key anew under the first one, after \
             which the other keys can go. What is signed stays the same. One that no key at hand opens \
             stays as it is, is named, and makes the exit code 1.",
        )
        .arg(reason().required(true))
        .after_help(REENCRYPT_EXAMPLES);
    with_keys(command)
}

fn with_keys(command: Command) -> Command {
    settings::arguments(command, |setting| setting.key == "key_file")
}

fn name() -> Arg {
    subject(SUBSCRIPTION, "The subscription's name")
}

const SUBSCRIPTION: &str = "subscription";
const SECRET_FILE: &str = "Signing secrets, one `whsec_...` a line, or the header's value; without it, the variable POSTHASTE_SECRET";
const ROTATED: &str = "shown once after its rotation";
const NO_SECRET: &str = "it has no live signing secret; `posthaste secret rotate` makes one";
const NOT_MADE_YET: &str =
    "asked for, and no key holder has made it yet; a running worker makes it within a second";
const NOTHING_GIVEN: &str = "nothing to store: set POSTHASTE_SECRET or give --secret-file";

const SECRETS: &[Column] = &[
    ("subscription", "subscription", table::text),
    ("tenant", "tenant", table::text),
    ("live", "live", table::text),
    ("asked for", "asked_for", table::text),
    ("newest made at", "newest_made_at", time),
    ("next end at", "next_end_at", time),
    ("overdue", "is_overdue", table::text),
    (
        "credentials without value",
        "credentials_without_value",
        table::text,
    ),
];

const EXAMPLES: &str = "\
The database is DATABASE_URL, the keys are POSTHASTE_KEYS or key_file, or both are in the --config file.

Examples:
  posthaste secret list
  posthaste secret reveal university --reason 'their first set-up'
  posthaste secret rotate university";
const LIST_EXAMPLES: &str = "\
A secret that is only asked for is made by a worker within a second.

Examples:
  posthaste secret list
  posthaste secret list --json";
const ROTATE_EXAMPLES: &str = "\
Examples:
  posthaste secret rotate university
  posthaste secret rotate university --overlap 0s --reason 'it was in their log'";
const REVEAL_EXAMPLES: &str = "\
Examples:
  posthaste secret reveal university --reason 'their first set-up'
  posthaste secret reveal university --reason 'new receiver' --key-file posthaste.keys";
const IMPORT_EXAMPLES: &str = "\
Examples:
  posthaste secret import university --secret-file whsec.txt --reason 'from the old system'
  posthaste secret import erp --header Authorization --secret-file token.txt --reason 'their token of 2027'";
const END_EXAMPLES: &str = "\
Without a live secret nothing is sent.

Examples:
  posthaste secret end university 1 --reason 'it was in their log'";
const REENCRYPT_EXAMPLES: &str = "\
Put the new key in front of the old ones first; see `posthaste key`.

Examples:
  posthaste secret reencrypt --reason 'yearly change of keys' --key-file posthaste.keys";
