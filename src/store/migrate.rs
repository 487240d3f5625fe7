//! From an empty database, or an older one, to the schema that this program knows.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect::connect_once;
use crate::{Error, Result};

/// A migration that was applied.
#[derive(Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its number, from 1.
    pub version: i32,
    /// What it is called.
    pub name: &'static str,
}

/// How a database's schema compares with ours.
#[derive(Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// Every migration is applied, unchanged.
    Current(i32),
    /// These many are missing.
    Behind(usize),
    /// A newer program migrated it, to this version.
    Ahead(i32),
}

impl SchemaState {
    /// An error that says what to do, unless the schema is the one that we know.
    pub fn as_ours(&self) -> Result<()> {
        match self {
            Self::Current(_) => Ok(()),
            Self::Behind(missing) => Err(Error::Schema(format!(
                "{missing} migration(s) are missing; run `posthaste migrate`"
            ))),
            Self::Ahead(version) => Err(Error::Schema(format!(
                "it is at version {version}, made by a newer program; update this one"
            ))),
        }
    }
}

/// Brings the database up to date and says what was done. Several may try at once: one works, the
/// others wait and find nothing left. Each migration is a transaction: all of it, or nothing.
pub async fn migrate(database_url: &str) -> Result<Vec<Applied>> {
    let mut client = connect_once(database_url).await?;
    // A migration that waits for a lock makes everyone else wait behind it: rather fail, and be run again.
    client
        .batch_execute("set lock_timeout = '5s'; set client_min_messages = warning")
        .await?;
    client
        .execute("select pg_advisory_lock(1347375958, 1)", &[])
        .await?;
    prepare(&client).await?;
    let known = ledger(&client).await?;
    let mut applied = Vec::new();
    for migration in missing(&known)? {
        let transaction = client.transaction().await?;
        transaction
            .batch_execute(migration.sql)
            .await
            .map_err(|error| {
                Error::Schema(format!(
                    "migration {} ({}): {}",
                    migration.version,
                    migration.name,
                    Error::from(error)
                ))
            })?;
        transaction
            .execute(
                "insert into posthaste.migration (version, name, checksum) values ($1, $2, $3)",
                &[
                    &migration.version,
                    &migration.name,
                    &checksum(migration.sql),
                ],
            )
            .await?;
        transaction.commit().await?;
        applied.push(Applied {
            version: migration.version,
            name: migration.name,
        });
    }
    Ok(applied)
}

/// Makes the roles, the schema and the ledger where they are not there yet, and acts as the schema's owner from then on.
async fn prepare(client: &Client) -> Result<()> {
    for (what, text) in [("the roles", ROLES), ("the schema", LEDGER)] {
        client.batch_execute(text).await.map_err(|error| {
            let lacks_right = error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
            let hint = if lacks_right { WHAT_IT_TAKES } else { "" };
            Error::Schema(format!("{what}: {}{hint}", Error::from(error)))
        })?;
    }
    Ok(())
}

/// Compares the schema with ours, changing nothing.
pub async fn schema_state(client: &Client) -> Result<SchemaState> {
    let exists = client
        .query_one("select to_regclass('posthaste.migration') is not null", &[])
        .await?;
    if !exists.try_get::<_, bool>(0)? {
        return Ok(SchemaState::Behind(MIGRATIONS.len()));
    }
    let known = ledger(client).await?;
    let newest = known.iter().map(|(version, _)| *version).max().unwrap_or(0);
    let ours = MIGRATIONS.last().map_or(0, |last| last.version);
    if newest > ours {
        return Ok(SchemaState::Ahead(newest));
    }
    Ok(match missing(&known)?.len() {
        0 => SchemaState::Current(ours),
        some => SchemaState::Behind(some),
    })
}

async fn ledger(client: &Client) -> Result<Vec<(i32, String)>> {
    let rows = client
        .query(
            "select version, checksum from posthaste.migration order by version",
            &[],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, tokio_postgres::Error>>()?)
}

/// Ours that are not in the ledger. One that is there with another text is an error: the database was
/// made by another program than this.
fn missing(known: &[(i32, String)]) -> Result<Vec<&'static Migration>> {
    let mut missing = Vec::new();
    for migration in MIGRATIONS {
        match known
            .iter()
            .find(|(version, _)| *version == migration.version)
        {
            None => missing.push(migration),
            Some((_, text)) if *text == checksum(migration.sql) => {}
            Some(_) => {
                return Err(Error::Schema(format!(
                    "migration {} ({}) was applied with another text than this program's; use the program that applied it",
                    migration.version, migration.name
                )));
            }
        }
    }
    Ok(missing)
}

fn checksum(sql: &str) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(sql.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

const ROLES: &str = include_str!("../../sql/migrations/roles.sql");
const LEDGER: &str = include_str!("../../sql/migrations/ledger.sql");

const WHAT_IT_TAKES: &str = "; to migrate takes CREATE on the database, and CREATEROLE or that somebody who has it \
    makes the five roles of sql/migrations/roles.sql and grants posthaste_owner to this login";

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "from_outbox_to_audit",
    sql: include_str!("../../sql/migrations/0001_from_outbox_to_audit.sql"),
}];
