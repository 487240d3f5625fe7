//! `posthaste secret`: what partners verify us with, and what we identify ourselves to them with.

mod import;
mod public;
mod reencrypt;
mod signing;

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use posthaste::config::Config;
use posthaste::secret::{Keyring, SecretKind};
use posthaste::signature::Profile;
use posthaste::store::Control;
use posthaste::{Error, Result};
use serde_json::Value;

use super::input::{given, reason, subject};
use super::output::{remark, say};
use super::settings;
use super::table::{self, Column, json, time};

pub(crate) fn command() -> Command {
    super::group("secret")
        .about("List, rotate, reveal, import and publish secrets and keys")
        .long_about(
            "The signing secrets that partners verify our requests with, and what we show to endpoints: the \
             values of secret headers, tokens, passwords, the keys of client certificates. Postgres holds them encrypted under keys that it never sees; whatever shows or \
             changes one stands in the audit log.",
        )
        .subcommands([
            list_command(),
            signing::rotate_command(),
            signing::reveal_command(),
            import::command(),
            end_command(),
            public::command(),
            reencrypt::command(),
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
        "jwks" => public::print(&control, args).await,
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

    /// What of a subscription counts for its secrets.
    async fn subscription(&self, name: &str) -> Result<Subscription> {
        let mut found = self.control.subscription(name).await?;
        let id = found["overview"]["subscription_id"].as_i64();
        let id = id.and_then(|id| i32::try_from(id).ok());
        Ok(Subscription {
            id: id.ok_or_else(|| Error::Database("a subscription has no id".to_owned()))?,
            terms: found["terms"]["terms"].take(),
        })
    }
}

/// The subscription whose secrets these are.
struct Subscription {
    /// What is sealed is bound to it.
    id: i32,
    terms: Value,
}

impl Subscription {
    /// The kind that its signatures need first of all, as `posthaste.rotate_secret` has it.
    fn usual_kind(&self) -> SecretKind {
        let profiles = self.profiles();
        if !profiles.is_empty() && profiles.iter().all(|it| *it == Profile::StandardV1a) {
            SecretKind::Ed25519
        } else {
            SecretKind::Shared
        }
    }

    /// Says so where a secret of this kind signs nothing.
    fn remark_on(&self, kind: SecretKind) {
        let profiles = self.profiles();
        if profiles.is_empty() || profiles.iter().any(|profile| profile.takes(kind)) {
            return;
        }
        let names: Vec<&str> = profiles.iter().map(|profile| profile.as_str()).collect();
        let names = names.join(", ");
        remark(&format!(
            "no signature of the subscription ({names}) takes a secret of the kind {kind}: it signs nothing"
        ));
    }

    /// Its client certificate, as PEM.
    fn certificate(&self) -> Option<&str> {
        self.terms["tls"]["certificate"].as_str()
    }

    fn profiles(&self) -> Vec<Profile> {
        let names = self.terms["signatures"].as_array().into_iter().flatten();
        let names = names.filter_map(Value::as_str);
        names.filter_map(|name| Profile::parse(name).ok()).collect()
    }
}

fn list_command() -> Command {
    let command = Command::new("list")
        .about("List how many secrets each subscription has, how old they are, and what is missing")
        .arg(json())
        .after_help(LIST_EXAMPLES);
    settings::arguments(command, |_| false)
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

fn with_keys(command: Command) -> Command {
    settings::arguments(command, |setting| setting.key == "key_file")
}

fn name() -> Arg {
    subject(SUBSCRIPTION, "The subscription's name")
}

const SUBSCRIPTION: &str = "subscription";

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
  posthaste secret rotate university
  posthaste secret jwks university";
const LIST_EXAMPLES: &str = "\
A secret that is only asked for is made by a worker within a second.

Examples:
  posthaste secret list
  posthaste secret list --json";
const END_EXAMPLES: &str = "\
Without a live secret nothing is sent.

Examples:
  posthaste secret end university 1 --reason 'it was in their log'";
