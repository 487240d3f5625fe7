//! `posthaste secret`: what a partner needs to verify us.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use posthaste::config::Config;
use posthaste::secret::{Keyring, SigningSecret};
use posthaste::store::Store;
use posthaste::{Error, Result};
use uuid::Uuid;

use super::input::{secret_file, secrets};
use super::output::say;
use super::settings;

pub(crate) fn command() -> Command {
    let command = Command::new("secret")
        .about("Show a subscription's signing secrets, or add one")
        .long_about(
            "Shows the live signing secrets of a subscription, oldest first, one `whsec_...` a line, for \
             its partner to verify with; makes the first one if there is none. With --add, stores one \
             more, from then on every request bears a signature of each. Needs the key that the workers \
             use.",
        )
        .arg(
            Arg::new("subscription")
                .value_name("SUBSCRIPTION")
                .required(true)
                .help("The subscription's name"),
        )
        .arg(
            Arg::new("add")
                .long("add")
                .action(ArgAction::SetTrue)
                .help("Add a secret: the one in --secret-file or POSTHASTE_SECRET, else a new one"),
        )
        .arg(secret_file())
        .after_help(EXAMPLES);
    settings::arguments(command, |setting| setting.key == "key_file")
}

pub(crate) async fn run(config: Config, args: &ArgMatches) -> Result<ExitCode> {
    let name = args
        .get_one::<String>("subscription")
        .map_or("", String::as_str);
    let keyring = config.keyring()?;
    let store = Store::open(&config)?;
    let unknown = || Error::Config(format!("there is no subscription called {name:?}"));
    let subscription_id = store.subscription_named(name).await?.ok_or_else(unknown)?;
    let added = if args.get_flag("add") {
        given(args)?
    } else {
        Vec::new()
    };
    for secret in &added {
        add(&store, &keyring, subscription_id, secret, false).await?;
    }
    if added.is_empty() {
        add(
            &store,
            &keyring,
            subscription_id,
            &SigningSecret::generate()?,
            true,
        )
        .await?;
    }
    for terms in store.terms(&[subscription_id]).await? {
        for stored in terms.secrets {
            let sealed = &stored.sealed;
            let secret = keyring.open(
                subscription_id,
                stored.secret_id,
                &sealed.key_id,
                &sealed.ciphertext,
            )?;
            say(&secret.reveal())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The secrets to add: those given, else a new one.
fn given(args: &ArgMatches) -> Result<Vec<SigningSecret>> {
    match secrets(args)? {
        none if none.is_empty() => Ok(vec![SigningSecret::generate()?]),
        some => Ok(some),
    }
}

async fn add(
    store: &Store,
    keyring: &Keyring,
    subscription_id: i32,
    secret: &SigningSecret,
    only_if_none: bool,
) -> Result<()> {
    let secret_id = Uuid::now_v7();
    let sealed = keyring.seal(subscription_id, secret_id, secret)?;
    store
        .add_secret(
            subscription_id,
            secret_id,
            &sealed,
            if only_if_none { "first" } else { "one more" },
        )
        .await
        .map(drop)
}

const EXAMPLES: &str = "\
The database is DATABASE_URL, the keys are POSTHASTE_KEYS or key_file, or both are in the --config file.

Examples:
  posthaste secret university
  posthaste secret university --key-file posthaste.keys
  posthaste secret university --add
  posthaste secret university --add --secret-file whsec.txt";
