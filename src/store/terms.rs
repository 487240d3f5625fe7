//! What people have agreed and decided, as a worker reads it and carries it out.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::requests::Requests;
use super::{
    ADD_SECRET, CANCEL_REMOVED, CHANGED_TERMS, EVENT_TYPES, EXPIRE_WAITING, FILL_SECRET, HOLD,
    Leases, REQUEUE_RELEASED, SECRETS_ASKED_FOR, SETTLE_LANES, Statement, Store, TERMS, Weighed,
    health, int, long, places,
};
use crate::delivery::Lease;
use crate::retry::{ClientErrors, Jitter, RetryPolicy};
use crate::secret::{PARTNER, Sealed, SecretKind, SigningSecret};
use crate::{Error, Result};

/// One subscription's terms as they are stored.
#[derive(Debug)]
pub struct StoredTerms {
    /// Which subscription.
    pub subscription_id: i32,
    /// Counts up with every change.
    pub revision: i32,
    /// Its name.
    pub name: String,
    /// Where its deliveries go.
    pub url: String,
    /// Where the endpoint's address must lie; anywhere public, if empty.
    pub networks: Vec<String>,
    /// If not, nothing is to be sent.
    pub active: bool,
    /// One whole request; the worker's default where there is none.
    pub timeout: Option<Duration>,
    /// Requests at once; the worker's default where there is none.
    pub concurrency: Option<usize>,
    /// Where there are rates: within what time a claimed delivery must be on its way, for them to hold.
    pub send_within: Option<Duration>,
    /// Extra headers and their values.
    pub headers: Vec<(String, StoredValue)>,
    /// What requests look like.
    pub shape: StoredShape,
    /// Whom pseudonyms and external ids are for.
    pub partner: String,
    /// What becomes of fields before they leave, as JSON text.
    pub mask: Option<String>,
    /// The key of the partner's pseudonyms; none where there is no mask, or nobody has made it yet.
    pub partner_key: Option<(Uuid, Sealed)>,
    /// How we show who we are, as JSON text, without the secret part.
    pub authentication: Option<String>,
    /// The secret part.
    pub credential: Option<(Uuid, Sealed)>,
    /// A certificate to show, as PEM.
    pub client_certificate: Option<String>,
    /// Its private key.
    pub client_key: Option<(Uuid, Sealed)>,
    /// The one authority to trust, as PEM.
    pub authority: Option<String>,
    /// What to ask the receiver before anything is sent to it, as JSON text.
    pub handshake: Option<String>,
    /// Whether it has allowed that.
    pub is_granted: bool,
    /// Everything is recorded, and nothing leaves.
    pub sandbox: bool,
    /// When to try again.
    pub retry: RetryPolicy,
    /// After how many failures in a row its circuit breaker opens.
    pub breaker_failures: Option<u32>,
    /// Its live secrets, oldest first.
    pub secrets: Vec<StoredSecret>,
    /// Live secrets that were asked for, and that nobody has made yet.
    pub asked_for: Vec<AskedFor>,
}

/// A secret that is there in name only.
#[derive(Clone, Debug)]
pub struct AskedFor {
    /// Of which subscription; 0 for a partner's key, which is of none.
    pub subscription_id: i32,
    /// Its id.
    pub secret_id: Uuid,
    /// What kind of secret: `shared`, `ed25519` or `partner`.
    pub kind: String,
}

/// What a subscription's requests look like, as it is stored.
#[derive(Debug)]
pub struct StoredShape {
    /// The envelope's template of the body.
    pub template: String,
    /// The envelope's content type.
    pub content_type: String,
    /// The envelope's templates of headers.
    pub headers: Vec<(String, String)>,
    /// The subscription's constants for the envelope.
    pub values: BTreeMap<String, String>,
    /// Names of signature profiles.
    pub signatures: Vec<String>,
    /// What the names of the platform's headers begin with.
    pub header_prefix: Option<String>,
    /// In place of the worker's own.
    pub user_agent: Option<String>,
    /// Whether the event's trace context is sent along.
    pub pass_trace: bool,
}

/// The value of an extra header.
#[derive(Debug)]
pub enum StoredValue {
    /// Anybody may see it.
    Plain(String),
    /// A secret, by its id; `None` where it has not been imported yet.
    Secret(Option<(Uuid, Sealed)>),
}

/// What has changed in the control plane since the last look.
#[derive(Debug)]
pub struct Changes {
    /// Subscriptions, and the newest revision of each.
    pub revisions: Vec<(i32, i32)>,
    /// Something was released from quarantine.
    pub released: bool,
    /// Signing secrets were asked for that nobody has made yet.
    pub asked_for: bool,
    /// Receivers want nothing more: their subscriptions are to be paused.
    pub to_pause: bool,
    /// Subscriptions whose attempts were weighed a moment ago, and what that made of them.
    pub weighed: Vec<Weighed>,
    /// What people asked for and workers have not carried out yet.
    pub requests: Requests,
    /// Where the next look starts: a transaction's id, in decimal.
    pub watermark: String,
}

/// The JSON Schema of an event type.
#[derive(Debug)]
pub struct StoredSchema {
    /// Of which event type.
    pub event_type: String,
    /// Counts up with every change of the event type.
    pub revision: i32,
    /// The schema, as JSON text.
    pub schema: String,
}

/// A signing secret as it is stored.
#[derive(Debug)]
pub struct StoredSecret {
    /// Its place among the subscription's secrets, from 1.
    pub number: i16,
    /// Its id, to which the ciphertext is bound.
    pub secret_id: Uuid,
    /// What kind of secret.
    pub kind: SecretKind,
    /// The key that it is encrypted under, and the ciphertext.
    pub sealed: Sealed,
    /// How long it goes on to sign; `None` without end.
    pub ends_in: Option<Duration>,
}

impl Store {
    /// The terms of these subscriptions.
    pub async fn terms(&self, subscription_ids: &[i32]) -> Result<Vec<StoredTerms>> {
        let mut terms: Vec<StoredTerms> = Vec::with_capacity(subscription_ids.len());
        for row in &self.query(TERMS, &[&subscription_ids]).await? {
            let subscription_id: i32 = row.try_get("subscription_id")?;
            if terms
                .last()
                .is_none_or(|last| last.subscription_id != subscription_id)
            {
                terms.push(stored_terms(row, subscription_id)?);
            }
            if let Some(last) = terms.last_mut() {
                last.secrets.extend(stored_secret(row)?);
                last.asked_for.extend(asked_for(row)?);
            }
        }
        Ok(terms)
    }

    /// Gives a secret that was asked for its content, and where it is a private key, its public one; false where somebody else has.
    pub async fn fill_secret(
        &self,
        secret_id: Uuid,
        sealed: &Sealed,
        public_key: Option<&[u8]>,
    ) -> Result<bool> {
        let parameters: &[&(dyn ToSql + Sync)] =
            &[&secret_id, &sealed.key_id, &sealed.ciphertext, &public_key];
        let rows = self.query(FILL_SECRET, parameters).await?;
        Ok(rows.first().map_or(Ok(false), |row| row.try_get(0))?)
    }

    /// Stores a signing secret that was made elsewhere and returns its number. For administrators.
    pub async fn add_secret(
        &self,
        subscription_id: i32,
        secret_id: Uuid,
        secret: &SigningSecret,
        sealed: &Sealed,
        reason: &str,
    ) -> Result<Option<i16>> {
        let public_key = secret.public_key().map(|key| key.bytes().to_vec());
        let rows = self
            .query(
                ADD_SECRET,
                &[
                    &subscription_id,
                    &secret_id,
                    &sealed.key_id,
                    &sealed.ciphertext,
                    &reason,
                    &secret.kind().as_str(),
                    &public_key,
                ],
            )
            .await?;
        Ok(rows.first().map_or(Ok(None), |row| row.try_get(0))?)
    }

    /// Secrets that were asked for and that nobody has made yet, at most `limit` of signing secrets and of partners' keys.
    pub async fn secrets_asked_for(&self, limit: usize) -> Result<Vec<AskedFor>> {
        let rows = self.query(SECRETS_ASKED_FOR, &[&long(limit)]).await?;
        let asked_for = |row: &Row| {
            Ok(AskedFor {
                subscription_id: row.try_get(0)?,
                secret_id: row.try_get(1)?,
                kind: row.try_get(2)?,
            })
        };
        rows.iter().map(asked_for).collect()
    }

    /// What has changed in the control plane since `watermark`, and how endpoints fare that were weighed no longer than `back` ago.
    pub async fn changes(&self, watermark: &str, back: Duration) -> Result<Changes> {
        let mut changes = Changes {
            revisions: Vec::new(),
            released: false,
            asked_for: false,
            to_pause: false,
            weighed: Vec::new(),
            requests: Requests::default(),
            watermark: watermark.to_owned(),
        };
        for row in &self
            .query(CHANGED_TERMS, &[&watermark, &back.as_secs_f64()])
            .await?
        {
            if row.try_get::<_, Option<bool>>("is_well")?.is_some() {
                changes.weighed.push(health::weighed(row)?);
            } else if let Some(id) = row.try_get("subscription_id")? {
                changes.revisions.push((id, row.try_get("revision")?));
            } else {
                changes.watermark = row.try_get("watermark")?;
                changes.released = row.try_get("released")?;
                changes.asked_for = row.try_get("asked_for")?;
                changes.to_pause = row.try_get("to_pause")?;
                changes.requests = Requests {
                    replays: row.try_get("replays")?,
                    cancels: row.try_get("cancels")?,
                    skips: row.try_get("skips")?,
                };
            }
        }
        Ok(changes)
    }

    /// Lets the lanes follow their subscriptions: paused, or active.
    pub async fn settle_lanes(&self) -> Result<()> {
        self.query(SETTLE_LANES, &[]).await.map(drop)
    }

    /// Puts deliveries back into the queue that were released from quarantine, at most `limit`; says how many.
    pub async fn requeue_released(&self, limit: usize) -> Result<usize> {
        self.how_many(REQUEUE_RELEASED, limit).await
    }

    /// Cancels deliveries that are owed to removed subscriptions, at most `limit` that wait; says how many.
    pub async fn cancel_removed(&self, limit: usize) -> Result<usize> {
        self.how_many(CANCEL_REMOVED, limit).await
    }

    /// Ends deliveries that wait and are not to be sent any more, at most `limit`; says how many.
    pub async fn expire_waiting(&self, limit: usize) -> Result<usize> {
        self.how_many(EXPIRE_WAITING, limit).await
    }

    pub(super) async fn how_many(&self, statement: Statement, limit: usize) -> Result<usize> {
        let rows = self.query(statement, &[&int(limit)]).await?;
        let count: i32 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Quarantines deliveries, each for its reason. Returns the places of those that were released from it before: they keep
    /// their leases.
    pub async fn hold(&self, broken: &[(&Lease, &str)]) -> Result<Vec<usize>> {
        let (leases, reasons): (Vec<&Lease>, Vec<&str>) = broken.iter().copied().unzip();
        let leases = Leases::of(&leases);
        let [events, subscriptions, replays, numbers, holders, addresses] = leases.identity();
        let parameters: [&(dyn ToSql + Sync); 7] = [
            events,
            subscriptions,
            replays,
            numbers,
            holders,
            addresses,
            &reasons,
        ];
        places(&self.query(HOLD, &parameters).await?)
    }

    /// The schemas of these event types, of those that have one.
    pub async fn schemas(&self, event_types: &[&str]) -> Result<Vec<StoredSchema>> {
        let rows = self.query(EVENT_TYPES, &[&event_types]).await?;
        let schema = |row: &Row| {
            Ok(StoredSchema {
                event_type: row.try_get("event_type")?,
                revision: row.try_get("revision")?,
                schema: row.try_get("schema")?,
            })
        };
        rows.iter().map(schema).collect()
    }
}

fn stored_terms(row: &Row, subscription_id: i32) -> Result<StoredTerms> {
    let mut credentials = credentials(row)?;
    Ok(StoredTerms {
        subscription_id,
        revision: row.try_get("revision")?,
        name: row.try_get("name")?,
        url: row.try_get("url")?,
        sandbox: row.try_get("sandbox")?,
        retry: stored_policy(row)?,
        breaker_failures: row
            .try_get::<_, Option<i32>>("breaker_failures")?
            .and_then(|n| u32::try_from(n).ok()),
        networks: row.try_get("networks")?,
        active: row.try_get("active")?,
        timeout: seconds_in(row, "timeout_seconds")?,
        send_within: seconds_in(row, "send_within")?,
        concurrency: row
            .try_get::<_, Option<i32>>("concurrency")?
            .and_then(|n| usize::try_from(n).ok()),
        headers: stored_headers(row, &mut credentials)?,
        shape: stored_shape(row)?,
        partner: row.try_get("partner")?,
        mask: row.try_get("mask")?,
        partner_key: partner_key(row)?,
        authentication: row.try_get("authentication")?,
        credential: credentials.remove(":authentication"),
        client_certificate: row.try_get("client_certificate")?,
        client_key: credentials.remove(":client_key"),
        authority: row.try_get("authority")?,
        handshake: row.try_get("handshake")?,
        is_granted: row.try_get("is_granted")?,
        secrets: Vec::new(),
        asked_for: partner_key_asked_for(row)?.into_iter().collect(),
    })
}

fn stored_policy(row: &Row) -> Result<RetryPolicy> {
    let seconds: Vec<f64> = row.try_get("retry_seconds")?;
    let jitter: String = row.try_get("retry_jitter")?;
    let client_errors: String = row.try_get("client_errors")?;
    let bad = |what: &str, value: &str| {
        Error::Data(format!("{what} {value:?} is unknown to this version"))
    };
    Ok(RetryPolicy {
        intervals: seconds
            .into_iter()
            .map(|s| Duration::try_from_secs_f64(s).unwrap_or_default())
            .collect(),
        jitter: match jitter.as_str() {
            "none" => Jitter::None,
            "equal" => Jitter::Equal,
            "full" => Jitter::Full,
            fraction => Jitter::Fraction(
                fraction
                    .parse()
                    .map_err(|_| bad("retry_jitter", fraction))?,
            ),
        },
        client_errors: match client_errors.as_str() {
            "retry" => ClientErrors::Retry,
            "reject" => ClientErrors::Reject,
            other => return Err(bad("client_errors", other)),
        },
    })
}

fn seconds_in(row: &Row, column: &str) -> Result<Option<Duration>> {
    let seconds: Option<f64> = row.try_get(column)?;
    Ok(seconds.map(|s| Duration::try_from_secs_f64(s).unwrap_or_default()))
}

fn stored_shape(row: &Row) -> Result<StoredShape> {
    let texts = |names: &str, values: &str| -> Result<Vec<(String, String)>> {
        let names: Vec<String> = row.try_get(names)?;
        let values: Vec<String> = row.try_get(values)?;
        Ok(names.into_iter().zip(values).collect())
    };
    Ok(StoredShape {
        template: row.try_get("template")?,
        content_type: row.try_get("content_type")?,
        headers: texts("template_header_names", "template_header_values")?,
        values: texts("value_names", "value_texts")?.into_iter().collect(),
        signatures: row.try_get("signatures")?,
        header_prefix: row.try_get("header_prefix")?,
        user_agent: row.try_get("user_agent")?,
        pass_trace: row.try_get("pass_trace")?,
    })
}

fn partner_key(row: &Row) -> Result<Option<(Uuid, Sealed)>> {
    let key_id: Option<String> = row.try_get("partner_key_id")?;
    let ciphertext: Option<Vec<u8>> = row.try_get("partner_ciphertext")?;
    let (Some(key_id), Some(ciphertext)) = (key_id, ciphertext) else {
        return Ok(None);
    };
    let sealed = Sealed { key_id, ciphertext };
    Ok(Some((row.try_get("partner_secret_id")?, sealed)))
}

/// Before the first event of a partner with a mask, nobody may have made its key.
fn partner_key_asked_for(row: &Row) -> Result<Option<AskedFor>> {
    let is_made = row
        .try_get::<_, Option<String>>("partner_key_id")?
        .is_some();
    let secret_id: Option<Uuid> = row.try_get("partner_secret_id")?;
    let asked_for = |secret_id| AskedFor {
        subscription_id: 0,
        secret_id,
        kind: PARTNER.to_owned(),
    };
    Ok(secret_id.filter(|_| !is_made).map(asked_for))
}

fn stored_headers(
    row: &Row,
    secrets: &mut HashMap<String, (Uuid, Sealed)>,
) -> Result<Vec<(String, StoredValue)>> {
    let names: Vec<String> = row.try_get("header_names")?;
    let values: Vec<Option<String>> = row.try_get("header_values")?;
    let stored = names.into_iter().zip(values).map(|(name, value)| {
        let value = match value {
            Some(text) => StoredValue::Plain(text),
            None => StoredValue::Secret(secrets.remove(&name)),
        };
        (name, value)
    });
    Ok(stored.collect())
}

fn credentials(row: &Row) -> Result<HashMap<String, (Uuid, Sealed)>> {
    let Some(names) = row.try_get::<_, Option<Vec<String>>>("credentials")? else {
        return Ok(HashMap::new());
    };
    let ids: Vec<Uuid> = row.try_get("secret_ids")?;
    let key_ids: Vec<String> = row.try_get("key_ids")?;
    let ciphertexts: Vec<Vec<u8>> = row.try_get("ciphertexts")?;
    let sealed = key_ids
        .into_iter()
        .zip(ciphertexts)
        .map(|(key_id, ciphertext)| Sealed { key_id, ciphertext });
    Ok(names.into_iter().zip(ids.into_iter().zip(sealed)).collect())
}

fn asked_for(row: &Row) -> Result<Option<AskedFor>> {
    let is_made = row.try_get::<_, Option<Vec<u8>>>("ciphertext")?.is_some();
    let secret_id: Option<Uuid> = row.try_get("secret_id")?;
    let Some(secret_id) = secret_id.filter(|_| !is_made) else {
        return Ok(None);
    };
    Ok(Some(AskedFor {
        subscription_id: row.try_get("subscription_id")?,
        secret_id,
        kind: row.try_get("kind")?,
    }))
}

pub(super) fn stored_secret(row: &Row) -> Result<Option<StoredSecret>> {
    let number: Option<i16> = row.try_get("number")?;
    let ciphertext: Option<Vec<u8>> = row.try_get("ciphertext")?;
    let (Some(number), Some(ciphertext)) = (number, ciphertext) else {
        return Ok(None);
    };
    let ends_in: Option<f64> = row.try_get("ends_in")?;
    Ok(Some(StoredSecret {
        number,
        secret_id: row.try_get("secret_id")?,
        kind: SecretKind::parse(row.try_get("kind")?)?,
        sealed: Sealed {
            key_id: row.try_get("key_id")?,
            ciphertext,
        },
        ends_in: ends_in.map(|s| Duration::try_from_secs_f64(s).unwrap_or_default()),
    }))
}
