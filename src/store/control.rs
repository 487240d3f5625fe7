//! What people decide, each in a session of their own login: the database says what is allowed.
//!
//! Rows of views come as JSON objects, for the program to print; which columns a view has is for `sql/schema.sql` to say.

mod requests;
mod shapes;

use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

pub use self::requests::{Asked, Replay};
pub use self::shapes::{EnvelopeProposal, Source};
use super::connect::{connect_once, explain, is_about_data};
use super::people::published;
use crate::config::Config;
use crate::jwks::Published;
use crate::secret::{Sealed, SecretKind, SigningSecret};
use crate::{Error, Result};

/// The control plane as one login sees it. A session of its own rather than the workers' pool, whose planner settings do not
/// suit views that read much.
pub struct Control {
    session: Client,
}

/// A subscription that is to be.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// What it is called.
    pub name: String,
    /// Where its deliveries go.
    pub url: String,
    /// Names from the catalogue, prefixes, or `*` alone.
    pub event_types: Vec<String>,
    /// Whose events it gets; `None` for everybody's.
    pub tenant: Option<String>,
    /// An SQL/JSON path that a payload must match.
    pub filter: Option<String>,
    /// Whether it also gets events whose type the catalogue does not have.
    pub unknown_types: bool,
    /// The waits between attempts, as Postgres reads intervals.
    pub retry_intervals: Vec<String>,
    /// The name of a schedule instead of them.
    pub retry_schedule: Option<String>,
    /// Or waits that grow: the first, by what factor, the longest, how many.
    pub retry_exponential: Option<Vec<String>>,
    /// How they vary: a fraction, `none`, `equal` or `full`.
    pub retry_jitter: String,
    /// What 4xx statuses mean: `retry` or `reject`.
    pub client_errors: String,
    /// How long an event is sent at all, as Postgres reads intervals.
    pub max_age: Option<String>,
    /// When its circuit breaker opens, a JSON object or null; `None` for the default.
    pub breaker: Option<Value>,
    /// After how long with nothing but failures it is paused; `None` for never.
    pub pause_after: Option<String>,
    /// Whether everything is recorded, and nothing leaves.
    pub sandbox: bool,
    /// The longest that one request may take, as Postgres reads intervals.
    pub timeout: Option<String>,
    /// Requests at once from one worker.
    pub concurrency: Option<i32>,
    /// How many requests in any period, all workers together.
    pub rates: Value,
    /// Extra headers, a JSON object.
    pub headers: Value,
    /// Where the endpoint's address must lie.
    pub networks: Vec<String>,
    /// What becomes of the events behind a dead letter: `continue` or `hold`.
    pub after_dead_letter: String,
    /// Terms about what requests look like, how we show who we are, and what partners must not see: a JSON object under the names
    /// of `posthaste.terms`, of which any may be left out.
    pub shape: Value,
    /// What it is for.
    pub description: Option<String>,
    /// Whom to ask.
    pub contact: Option<String>,
    /// Why it is proposed.
    pub reason: Option<String>,
}

/// A change that was proposed.
#[derive(Clone, Copy, Debug)]
pub struct Proposed {
    /// Its id, for [`Control::approve`].
    pub change_id: i64,
    /// Whether somebody else must approve it.
    pub needs_another: bool,
}

/// A live signing secret that is to be shown.
#[derive(Debug)]
pub struct Revealed {
    /// Whose it is.
    pub subscription_id: i32,
    /// Its row.
    pub secret_id: Uuid,
    /// Its place among the subscription's secrets, from 1.
    pub number: i16,
    /// What kind of secret.
    pub kind: SecretKind,
    /// What is stored.
    pub sealed: Sealed,
}

/// A stored secret that is not under the key that it should be under.
#[derive(Debug)]
pub struct Outdated {
    /// `shared`, `text`, `ed25519`, `header`, `authentication`, `client_key` or `partner`: what it is bound to.
    pub kind: String,
    /// Whose it is.
    pub subscription_id: i32,
    /// Its row.
    pub secret_id: Uuid,
    /// What is stored.
    pub sealed: Sealed,
}

impl Control {
    /// Connects as the login that the configuration names.
    pub async fn open(config: &Config) -> Result<Self> {
        let session = connect_once(config.required_database_url()?).await?;
        session.batch_execute(SETTINGS).await?;
        Ok(Self { session })
    }

    /// How each subscription fares, those that were removed where they are asked for.
    pub async fn subscriptions(&self, removed_too: bool) -> Result<Vec<Value>> {
        self.rows(SUBSCRIPTIONS, &[&removed_too]).await
    }

    /// One subscription: `overview`, `terms`, `secrets` and `open_changes`.
    pub async fn subscription(&self, name: &str) -> Result<Value> {
        let found = self.rows(SUBSCRIPTION_NAMED, &[&name]).await?;
        found.into_iter().next().ok_or_else(|| unknown(name))
    }

    /// What was proposed and is open, and what was decided where that is asked for.
    pub async fn changes(&self, decided_too: bool) -> Result<Vec<Value>> {
        self.rows(CHANGES, &[&decided_too]).await
    }

    /// One proposal, if it is there and this login may see it.
    pub async fn change(&self, change_id: i64) -> Result<Option<Value>> {
        Ok(self.rows(CHANGE, &[&change_id]).await?.into_iter().next())
    }

    /// Proposes a new subscription.
    pub async fn propose(&self, proposal: &Proposal) -> Result<Proposed> {
        let headers = proposal.headers.to_string();
        let rates = proposal.rates.to_string();
        let breaker = proposal.breaker.as_ref().map(Value::to_string);
        let shape = proposal.shape.to_string();
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &proposal.name,
            &proposal.url,
            &proposal.event_types,
            &proposal.tenant,
            &proposal.filter,
            &proposal.unknown_types,
            &proposal.retry_intervals,
            &proposal.retry_jitter,
            &proposal.timeout,
            &proposal.concurrency,
            &headers,
            &proposal.networks,
            &proposal.description,
            &proposal.contact,
            &proposal.reason,
            &rates,
            &proposal.retry_schedule,
            &proposal.client_errors,
            &proposal.max_age,
            &breaker,
            &proposal.pause_after,
            &proposal.sandbox,
            &proposal.after_dead_letter,
            &shape,
            &proposal.retry_exponential,
        ];
        proposed(&self.row(PROPOSE_SUBSCRIPTION, parameters).await?)
    }

    /// Proposes to change terms of a subscription.
    pub async fn propose_change(
        &self,
        subscription: &str,
        changes: &Value,
        reason: Option<&str>,
    ) -> Result<Proposed> {
        let changes = changes.to_string();
        let parameters: &[&(dyn ToSql + Sync)] = &[&subscription, &changes, &reason];
        proposed(&self.row(PROPOSE_CHANGE, parameters).await?)
    }

    /// Proposes to end a subscription.
    pub async fn propose_removal(&self, subscription: &str, reason: &str) -> Result<Proposed> {
        proposed(&self.row(PROPOSE_REMOVAL, &[&subscription, &reason]).await?)
    }

    /// Makes a proposal so.
    pub async fn approve(&self, change_id: i64, reason: Option<&str>) -> Result<()> {
        self.row(APPROVE, &[&change_id, &reason]).await.map(drop)
    }

    /// Ends a proposal.
    pub async fn reject(&self, change_id: i64, reason: &str) -> Result<()> {
        self.row(REJECT, &[&change_id, &reason]).await.map(drop)
    }

    /// Pauses a subscription at once.
    pub async fn deactivate(&self, subscription: &str, reason: &str) -> Result<()> {
        self.row(DEACTIVATE, &[&subscription, &reason])
            .await
            .map(drop)
    }

    /// How many secrets each subscription has, and how old they are.
    pub async fn secrets(&self) -> Result<Vec<Value>> {
        self.rows(SECRETS, &[&None::<&str>]).await
    }

    /// The same of one subscription.
    pub async fn secrets_of(&self, subscription: &str) -> Result<Value> {
        let found = self.rows(SECRETS, &[&Some(subscription)]).await?;
        found
            .into_iter()
            .next()
            .ok_or_else(|| unknown(subscription))
    }

    /// Stores a new signing secret and returns its number; the others end after `overlap`.
    pub async fn rotate_secret(
        &self,
        subscription: &str,
        overlap: &str,
        reason: Option<&str>,
        secret_id: Uuid,
        secret: &SigningSecret,
        sealed: &Sealed,
    ) -> Result<i16> {
        let Sealed { key_id, ciphertext } = sealed;
        let public_key = secret.public_key().map(|key| key.bytes().to_vec());
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &subscription,
            &overlap,
            &reason,
            &secret_id,
            key_id,
            ciphertext,
            &secret.kind().as_str(),
            &public_key,
        ];
        Ok(self.row(ROTATE_SECRET, parameters).await?.try_get(0)?)
    }

    /// Stores a signing secret that was made elsewhere and returns its number.
    pub async fn add_secret(
        &self,
        subscription: &str,
        secret_id: Uuid,
        secret: &SigningSecret,
        sealed: &Sealed,
        reason: &str,
    ) -> Result<i16> {
        let Sealed { key_id, ciphertext } = sealed;
        let public_key = secret.public_key().map(|key| key.bytes().to_vec());
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &subscription,
            &secret_id,
            key_id,
            ciphertext,
            &reason,
            &secret.kind().as_str(),
            &public_key,
        ];
        Ok(self.row(ADD_SECRET, parameters).await?.try_get(0)?)
    }

    /// Stores what a subscription shows to its endpoint: the value of a header, or what `:authentication` or `:client_key` names.
    pub async fn set_credential(
        &self,
        subscription: &str,
        name: &str,
        secret_id: Uuid,
        sealed: &Sealed,
        reason: &str,
    ) -> Result<()> {
        let Sealed { key_id, ciphertext } = sealed;
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &subscription,
            &name,
            &secret_id,
            key_id,
            ciphertext,
            &reason,
        ];
        self.row(SET_CREDENTIAL, parameters).await.map(drop)
    }

    /// Ends a signing secret now.
    pub async fn end_secret(&self, subscription: &str, number: i16, reason: &str) -> Result<()> {
        self.row(END_SECRET, &[&subscription, &number, &reason])
            .await
            .map(drop)
    }

    /// The live signing secrets of a subscription. That they were shown is committed to the audit log before they are read.
    pub async fn reveal(&self, subscription: &str, reason: &str) -> Result<Vec<Revealed>> {
        let asked = self.row(ASK_TO_REVEAL, &[&subscription, &reason]).await?;
        let entry: i64 = asked.try_get(0)?;
        let rows = self.query(REVEAL, &[&entry]).await?;
        rows.iter().map(revealed).collect()
    }

    /// The public keys that verify our signatures, of one subscription or of all, at most `limit`.
    pub async fn public_keys(
        &self,
        subscription: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Published>> {
        let rows = self.query(PUBLIC_KEYS, &[&subscription, &limit]).await?;
        rows.iter().map(published).collect()
    }

    /// Writes into the audit log that the stored secrets are taken, and returns the entry for [`outdated`](Self::outdated).
    pub async fn ask_to_reencrypt(&self, reason: &str) -> Result<i64> {
        Ok(self.row(ASK_TO_REENCRYPT, &[&reason]).await?.try_get(0)?)
    }

    /// Some of the stored secrets that are not under the key `key_id`.
    pub async fn outdated(&self, entry: i64, key_id: &str) -> Result<Vec<Outdated>> {
        let rows = self.query(SECRETS_TO_REENCRYPT, &[&entry, &key_id]).await?;
        rows.iter().map(outdated).collect()
    }

    /// Replaces a stored secret by the same one under another key; false where it has changed meanwhile.
    pub async fn reencrypt(&self, old: &Outdated, sealed: &Sealed) -> Result<bool> {
        let Sealed { key_id, ciphertext } = sealed;
        let parameters: &[&(dyn ToSql + Sync)] =
            &[&old.secret_id, &old.sealed.ciphertext, key_id, ciphertext];
        Ok(self.row(REENCRYPT_SECRET, parameters).await?.try_get(0)?)
    }

    /// The catalogue of event types.
    pub async fn event_types(&self) -> Result<Vec<Value>> {
        self.rows(EVENT_TYPES, &[&None::<&str>]).await
    }

    /// One event type.
    pub async fn event_type(&self, event_type: &str) -> Result<Value> {
        let found = self.rows(EVENT_TYPES, &[&Some(event_type)]).await?;
        let text = || format!("there is no event type {event_type:?} in the catalogue");
        found
            .into_iter()
            .next()
            .ok_or_else(|| Error::Refused(text()))
    }

    /// The event types that match one of these patterns, as receivers are shown them: `schema` and `example` are the texts they were given
    /// as. Those that are not active only where `inactive` is set.
    pub async fn catalogue(&self, patterns: &[String], inactive: bool) -> Result<Vec<Value>> {
        self.rows(CATALOGUE, &[&patterns, &inactive]).await
    }

    /// Adds an event type to the catalogue. `schema` and `example` are JSON texts, kept as they are.
    pub async fn create_event_type(
        &self,
        event_type: &str,
        description: &str,
        schema: Option<&str>,
        example: Option<&str>,
        owner: Option<&str>,
    ) -> Result<()> {
        let parameters: &[&(dyn ToSql + Sync)] =
            &[&event_type, &description, &schema, &example, &owner];
        self.row(CREATE_EVENT_TYPE, parameters).await.map(drop)
    }

    /// Changes fields of an event type.
    pub async fn change_event_type(
        &self,
        event_type: &str,
        changes: &Value,
        reason: Option<&str>,
    ) -> Result<()> {
        let changes = changes.to_string();
        self.row(CHANGE_EVENT_TYPE, &[&event_type, &changes, &reason])
            .await
            .map(drop)
    }

    /// The last entries of the audit log, the oldest of them first.
    pub async fn audit_log(&self, limit: i64, object: Option<&str>) -> Result<Vec<Value>> {
        self.rows(AUDIT_LOG, &[&limit, &object]).await
    }

    /// Whether the audit log is as it was written, and bears the digest that is `known` of one of its entries.
    pub async fn verify_audit(&self, known: Option<(i64, &str)>) -> Result<Value> {
        let (entry, digest) = known.unzip();
        let row = self.row(VERIFY_AUDIT, &[&entry, &digest]).await?;
        value(&row)
    }

    /// Writes the digests of closed partitions that have none into the audit log, or of one anew, and returns them.
    pub async fn seal_partitions(&self, partition: Option<&str>) -> Result<Vec<Value>> {
        self.rows(SEAL_PARTITIONS, &[&partition]).await
    }

    /// Compares sealed partitions, or one of them, with their seals.
    pub async fn verify_seals(&self, partition: Option<&str>) -> Result<Vec<Value>> {
        self.rows(VERIFY_SEALS, &[&partition]).await
    }

    async fn rows(&self, statement: &str, with: &[&(dyn ToSql + Sync)]) -> Result<Vec<Value>> {
        self.query(statement, with)
            .await?
            .iter()
            .map(value)
            .collect()
    }

    async fn row(&self, statement: &str, with: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        self.session
            .query_one(statement, with)
            .await
            .map_err(refused)
    }

    async fn query(&self, statement: &str, with: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        self.session.query(statement, with).await.map_err(refused)
    }
}

fn value(row: &Row) -> Result<Value> {
    let text: String = row.try_get(0)?;
    serde_json::from_str(&text)
        .map_err(|error| Error::Database(format!("a row is no JSON text: {error}")))
}

fn proposed(row: &Row) -> Result<Proposed> {
    let said = value(row)?;
    let missing = || Error::Database("a proposal has no id".to_owned());
    Ok(Proposed {
        change_id: said["change_id"].as_i64().ok_or_else(missing)?,
        needs_another: said["four_eyes"].as_bool().unwrap_or(true),
    })
}

fn revealed(row: &Row) -> Result<Revealed> {
    Ok(Revealed {
        subscription_id: row.try_get("subscription_id")?,
        secret_id: row.try_get("secret_id")?,
        number: row.try_get("number")?,
        kind: SecretKind::parse(row.try_get("kind")?)?,
        sealed: sealed(row)?,
    })
}

fn outdated(row: &Row) -> Result<Outdated> {
    Ok(Outdated {
        kind: row.try_get("kind")?,
        subscription_id: row.try_get("subscription_id")?,
        secret_id: row.try_get("secret_id")?,
        sealed: sealed(row)?,
    })
}

fn sealed(row: &Row) -> Result<Sealed> {
    Ok(Sealed {
        key_id: row.try_get("key_id")?,
        ciphertext: row.try_get("ciphertext")?,
    })
}

fn unknown(subscription: &str) -> Error {
    Error::Refused(format!(
        "there is no subscription {subscription:?}, or this login does not see it"
    ))
}

/// Tells what the database refused from what went wrong.
fn refused(error: tokio_postgres::Error) -> Error {
    let Some(said) = error.as_db_error() else {
        return error.into();
    };
    let code = said.code();
    let is_refusal = is_about_data(&error)
        || [
            &SqlState::INSUFFICIENT_PRIVILEGE,
            &SqlState::T_R_SERIALIZATION_FAILURE,
        ]
        .contains(&code);
    let is_schema = [
        &SqlState::UNDEFINED_FUNCTION,
        &SqlState::UNDEFINED_TABLE,
        &SqlState::INVALID_SCHEMA_NAME,
    ];
    if is_refusal {
        let rights = (*code == SqlState::INSUFFICIENT_PRIVILEGE).then_some(RIGHTS);
        let hint = said.hint().or(rights);
        let hint = hint.map_or(String::new(), |hint| format!(" ({hint})"));
        Error::Refused(format!("{}{hint}", said.message()))
    } else if is_schema.contains(&code) {
        Error::Schema(explain(&error))
    } else {
        error.into()
    }
}

macro_rules! statements {
    ($($constant:ident = $file:literal;)+) => {
        $(const $constant: &str = include_str!(concat!("../../sql/queries/control/", $file, ".sql"));)+
    };
}

statements! {
    SUBSCRIPTIONS = "subscriptions";
    SUBSCRIPTION_NAMED = "subscription_named";
    CHANGES = "changes";
    CHANGE = "change";
    PROPOSE_SUBSCRIPTION = "propose_subscription";
    PROPOSE_CHANGE = "propose_change";
    PROPOSE_REMOVAL = "propose_removal";
    APPROVE = "approve";
    REJECT = "reject";
    DEACTIVATE = "deactivate";
    SECRETS = "secrets";
    PUBLIC_KEYS = "public_keys";
    ROTATE_SECRET = "rotate_secret";
    ADD_SECRET = "add_secret";
    SET_CREDENTIAL = "set_credential";
    END_SECRET = "end_secret";
    ASK_TO_REVEAL = "ask_to_reveal";
    REVEAL = "reveal";
    ASK_TO_REENCRYPT = "ask_to_reencrypt";
    SECRETS_TO_REENCRYPT = "secrets_to_reencrypt";
    REENCRYPT_SECRET = "reencrypt_secret";
    EVENT_TYPES = "event_types";
    CATALOGUE = "catalogue";
    CREATE_EVENT_TYPE = "create_event_type";
    CHANGE_EVENT_TYPE = "change_event_type";
    AUDIT_LOG = "audit_log";
    VERIFY_AUDIT = "verify_audit";
    SEAL_PARTITIONS = "seal_partitions";
    VERIFY_SEALS = "verify_seals";
}

/// Times are shown as what they are everywhere, and nobody waits for ever behind somebody's open transaction.
const SETTINGS: &str = "set timezone = 'UTC'; set lock_timeout = '10s'";
const RIGHTS: &str = "posthaste.access and posthaste.partner_scope say what a login may do";
