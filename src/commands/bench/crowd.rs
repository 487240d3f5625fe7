//! Many subscriptions at once, each with an endpoint, an event type and a secret of its own.

use posthaste::config::Config;
use posthaste::secret::SigningSecret;
use posthaste::{Error, Result};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

/// A subscription to be.
pub(super) struct Wish {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) event_type: String,
    pub(super) tenant: Option<String>,
}

/// Makes them all, in three statements; returns their ids. `retries` are the waits between attempts, as Postgres reads them.
pub(super) async fn subscribe(
    client: &Client,
    config: &Config,
    wishes: &[Wish],
    retries: &[&str],
) -> Result<Vec<i32>> {
    let column = |field: fn(&Wish) -> &str| wishes.iter().map(field).collect::<Vec<_>>();
    let names = column(|wish| &wish.name);
    let urls = column(|wish| &wish.url);
    let event_types = column(|wish| &wish.event_type);
    let tenants: Vec<Option<&str>> = wishes.iter().map(|wish| wish.tenant.as_deref()).collect();
    client.execute(CREATE_EVENT_TYPES, &[&event_types]).await?;
    let rows = client
        .query(
            CREATE_SUBSCRIPTIONS,
            &[&names, &urls, &event_types, &retries, &tenants],
        )
        .await?;
    let ids = first_column(&rows)?;
    add_secrets(client, config, &ids).await?;
    Ok(ids)
}

async fn add_secrets(client: &Client, config: &Config, ids: &[i32]) -> Result<()> {
    let keyring = config.keyring()?;
    let (mut secret_ids, mut ciphertexts, mut key) = (Vec::new(), Vec::new(), String::new());
    for id in ids {
        let secret_id = Uuid::now_v7();
        let sealed = keyring.seal(*id, secret_id, &SigningSecret::generate()?)?;
        secret_ids.push(secret_id);
        ciphertexts.push(sealed.ciphertext);
        key = sealed.key_id;
    }
    client
        .query(ADD_SECRETS, &[&ids, &secret_ids, &key, &ciphertexts])
        .await?;
    Ok(())
}

/// The first column of each row.
pub(super) fn first_column<'r, T>(rows: &'r [Row]) -> Result<Vec<T>>
where
    T: tokio_postgres::types::FromSql<'r>,
{
    rows.iter()
        .map(|row| row.try_get(0).map_err(Error::from))
        .collect()
}

const CREATE_EVENT_TYPES: &str = include_str!("../../../sql/bench/create_event_types.sql");
const CREATE_SUBSCRIPTIONS: &str = include_str!("../../../sql/bench/create_subscriptions.sql");
const ADD_SECRETS: &str = include_str!("../../../sql/bench/add_secrets.sql");
