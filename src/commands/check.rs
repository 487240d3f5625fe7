//! `posthaste check`: says whether `run` would work, without sending anything.

mod subscriptions;

use std::process::ExitCode;
use std::time::Duration;

use clap::Command;
use posthaste::config::{Config, SETTINGS, Wake};
use posthaste::logging::escaped;
use posthaste::store::{
    Deviation, Login, SchemaState, Server, Store, connect_once, listen, schema_state,
};
use posthaste::worker::Worker;
use posthaste::{Error, Result};

use super::output::say;
use super::settings::{self, Loaded, SOURCES};

pub(crate) fn command() -> Command {
    let command = Command::new("check")
        .about("Check configuration, database, schema, clock, keys and access; send nothing")
        .long_about(
            "Checks what `run` needs with the same settings, and sends nothing: the configuration and \
             where each value comes from, the database, the version of the schema, the clock against \
             the database's, that the keys open the stored secrets, that every grant is as the schema \
             says, and for each subscription that its credentials are there, that its client certificate \
             does not end soon, that its signatures bind a time, and that its envelope and its mask can be \
             used. Exits with 1 if anything fails.",
        )
        .after_help(format!("{EXAMPLES}\n\n{SOURCES}"));
    settings::arguments(command, |_| true)
}

pub(crate) async fn run(loaded: Loaded) -> Result<ExitCode> {
    print_settings(&loaded)?;
    let mut findings = of_configuration(&loaded.config);
    findings.extend(of_database(&loaded.config).await);
    say("")?;
    for Finding { level, about, text } in &findings {
        say(&format!("{:7} {about:13} {text}", level.word()))?;
    }
    let failed = findings.iter().any(|finding| finding.level == Level::Fails);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn print_settings(loaded: &Loaded) -> Result<()> {
    for (setting, source) in SETTINGS.iter().zip(&loaded.sources) {
        let value = loaded.config.text(setting.key)?;
        say(&format!("{:22} {value:22} {source}", setting.key))?;
    }
    Ok(())
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    level: Level,
    about: &'static str,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Fine,
    Warns,
    Fails,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Warns => "WARNING",
            Self::Fails => "FAILED",
        }
    }

    fn says(self, about: &'static str, text: impl Into<String>) -> Finding {
        Finding {
            level: self,
            about,
            text: text.into(),
        }
    }
}

/// What needs no database: trusted certificates, keys, and what is allowed beyond the ordinary.
fn of_configuration(config: &Config) -> Vec<Finding> {
    let mut findings = vec![match Worker::new(config.clone()) {
        Ok(_) => Level::Fine.says(
            "configuration",
            "complete; the keys and certificates can be read",
        ),
        Err(error) => Level::Fails.says("configuration", error.to_string()),
    }];
    if config.allow_http_loopback {
        let text =
            "plain http to loopback addresses is ALLOWED: for development and benchmarks only";
        findings.push(Level::Warns.says("egress", text));
    }
    if !config.allow_networks.is_empty() {
        let networks: Vec<_> = config
            .allow_networks
            .iter()
            .map(ToString::to_string)
            .collect();
        let text = format!("deliveries may also go to {}", networks.join(", "));
        findings.push(Level::Warns.says("egress", text));
    }
    findings
}

/// What only the database can tell. Stops where nothing further can be known.
async fn of_database(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    match look_at_database(config, &mut findings).await {
        Ok(()) => findings,
        Err(error) => {
            findings.push(Level::Fails.says("database", error.to_string()));
            findings
        }
    }
}

async fn look_at_database(config: &Config, findings: &mut Vec<Finding>) -> Result<()> {
    let url = config.required_database_url()?;
    let state = schema_state(&connect_once(url).await?).await;
    let store = Store::open(config)?;
    let server = store.server().await?;
    findings.push(of_version(&server));
    findings.push(of_clock(&server));
    findings.push(of_queue(&server));
    if config.wake == Wake::Listen {
        findings.push(hears_itself(url).await);
    }
    let schema = of_schema(state);
    let is_current = schema.level == Level::Fine;
    findings.push(schema);
    if is_current {
        findings.push(of_partitions(&server));
        findings.extend(of_access(&store.access_deviations().await?));
        findings.extend(of_login(&store.login().await?));
        findings.push(of_secrets(config, &store).await?);
        findings.extend(subscriptions::of_subscriptions(config, &store).await?);
    }
    Ok(())
}

fn of_version(server: &Server) -> Finding {
    let text = format!("Postgres {}", server.version_text);
    match server.version {
        ..140_000 => Level::Fails.says("database", format!("{text}: 14 or later is needed")),
        _ => Level::Fine.says("database", text),
    }
}

fn of_clock(server: &Server) -> Finding {
    let ahead = server.clock_ahead;
    let text = format!("the database's is {ahead:+.3} s from ours");
    match ahead.abs() {
        apart if apart > 240.0 => {
            let why = "partners would refuse our signatures as too old or too new";
            Level::Fails.says("clock", format!("{text}: {why}"))
        }
        apart if apart > 30.0 => Level::Warns.says("clock", text),
        _ => Level::Fine.says("clock", text),
    }
}

fn of_queue(server: &Server) -> Finding {
    let text = format!(
        "{:.0} % of the notification queue is used",
        server.notification_queue * 100.0
    );
    let level = if server.notification_queue > 0.25 {
        Level::Warns
    } else {
        Level::Fine
    };
    level.says("notifications", text)
}

/// Sends itself a notification. A pooler between us and the server swallows it without an error.
async fn hears_itself(url: &str) -> Finding {
    let trial = async {
        let listener = listen(url).await?;
        listener
            .client
            .batch_execute("listen posthaste_check; notify posthaste_check")
            .await?;
        Ok::<_, Error>(
            tokio::time::timeout(PATIENCE, listener.bell.notified())
                .await
                .is_ok(),
        )
    };
    match trial.await {
        Ok(true) => Level::Fine.says("notifications", "heard our own"),
        Ok(false) => {
            let text = "did not hear our own: is a pooler in between? Connect workers directly";
            Level::Fails.says("notifications", text)
        }
        Err(error) => Level::Fails.says("notifications", error.to_string()),
    }
}

fn of_schema(state: Result<SchemaState>) -> Finding {
    match state {
        Ok(SchemaState::Current(version)) => Level::Fine.says(
            "schema",
            format!("at version {version}, as this program knows it"),
        ),
        Ok(SchemaState::Behind(missing)) => Level::Fails.says(
            "schema",
            format!("{missing} migration(s) missing; run `posthaste migrate`"),
        ),
        Ok(SchemaState::Ahead(version)) => Level::Fails.says(
            "schema",
            format!("at version {version}, made by a newer program"),
        ),
        Err(error) => Level::Fails.says("schema", error.to_string()),
    }
}

fn of_partitions(server: &Server) -> Finding {
    if server.has_partitions {
        Level::Fine.says("partitions", "tomorrow's are there")
    } else {
        Level::Warns.says(
            "partitions",
            "tomorrow's are missing; a worker or `posthaste migrate` makes them",
        )
    }
}

async fn of_secrets(config: &Config, store: &Store) -> Result<Finding> {
    let keyring = match config.keyring() {
        Ok(keyring) => keyring,
        Err(error) => return Ok(Level::Fails.says("secrets", error.to_string())),
    };
    let secrets = store.live_secrets().await?;
    for named in &secrets {
        let (id, secret) = (named.subscription_id, &named.secret);
        let sealed = &secret.sealed;
        if let Err(error) = keyring.open(
            id,
            secret.secret_id,
            secret.kind,
            &sealed.key_id,
            &sealed.ciphertext,
        ) {
            let whose = format!("number {} of {:?}", secret.number, named.subscription);
            return Ok(Level::Fails.says("secrets", format!("{whose}: {error}")));
        }
    }
    Ok(Level::Fine.says(
        "secrets",
        format!("the keys open all {} live ones", secrets.len()),
    ))
}

/// Each grant that is not as the schema says; or that there is none.
fn of_access(deviations: &[Deviation]) -> Vec<Finding> {
    if deviations.is_empty() {
        return vec![Level::Fine.says("access", "every grant is as posthaste.access says")];
    }
    let told = |deviation: &Deviation| {
        let Deviation {
            object,
            grantee,
            privilege,
            problem,
        } = deviation;
        let text = format!("{privilege} on {object} for {grantee}: {problem}");
        Level::Fails.says("access", escaped(&text))
    };
    deviations.iter().map(told).collect()
}

/// A login that may do more than a worker does.
fn of_login(login: &Login) -> Option<Finding> {
    let more = if login.is_superuser {
        "a superuser".to_owned()
    } else if login.member_of.is_empty() {
        return None;
    } else {
        format!("a member of {}", login.member_of.join(" and "))
    };
    let name = escaped(&login.name);
    let text = format!("{name} is {more}: a worker needs posthaste_worker alone");
    Some(Level::Warns.says("access", text))
}

const PATIENCE: Duration = Duration::from_secs(3);

const EXAMPLES: &str = "\
Examples:
  posthaste check --config /etc/posthaste.toml
  DATABASE_URL=postgres://worker@db/platform posthaste check --wake poll";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_that_is_not_as_the_schema_says_fails_the_check() {
        let deviation = Deviation {
            object: "table outbox".to_owned(),
            grantee: "public".to_owned(),
            privilege: "select".to_owned(),
            problem: "wider than posthaste.access says".to_owned(),
        };
        let findings = of_access(&[deviation]);
        assert!(findings.iter().all(|finding| finding.level == Level::Fails));
        assert_eq!(
            findings[0].text,
            "select on table outbox for public: wider than posthaste.access says"
        );
        assert!(of_access(&[])[0].level == Level::Fine);
    }

    #[test]
    fn a_login_that_may_do_more_than_a_worker_is_a_warning() {
        let login = |is_superuser, member_of: &[&str]| Login {
            name: "w".to_owned(),
            is_superuser,
            member_of: member_of.iter().map(|role| (*role).to_owned()).collect(),
        };
        assert!(of_login(&login(false, &[])).is_none());
        for (login, says) in [
            (login(true, &[]), "w is a superuser"),
            (
                login(false, &["posthaste_owner", "posthaste_admin"]),
                "posthaste_owner and posthaste_admin",
            ),
        ] {
            let finding = of_login(&login);
            assert!(
                finding.is_some_and(|finding| finding.text.contains(says)),
                "{says}"
            );
        }
    }
}
