//! Clients that insert, in a process of their own: each a session that commits one row after the other, as fast as it can.

use std::time::Duration;

use posthaste::store::connect_once;
use posthaste::{Error, Result};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::{Client, Statement};

use super::figures::{float, percentile};
use super::part::{Orders, answer, number, text};
use super::payload::payload;

/// Plays it: `clients` sessions execute `sql` until the time is over.
pub(super) async fn play(part: &Value, mut orders: Orders) -> Result<()> {
    let mut sessions = Vec::new();
    for _ in 0..number(part, "clients")? {
        let client = connect_once(text(part, "database")?).await?;
        let insert = client.prepare(text(part, "sql")?).await?;
        sessions.push(Session { client, insert });
    }
    answer(&json!({ "ready": true }))?;
    orders.next().await;
    let begun = Instant::now();
    let until = begun + Duration::from_millis(number(part, "duration_ms")?);
    let mut inserting: JoinSet<_> = sessions
        .into_iter()
        .enumerate()
        .map(|(place, session)| session.insert_until(until, place as u64))
        .collect();
    let mut millis = Vec::new();
    while let Some(ended) = inserting.join_next().await {
        millis.extend(ended.map_err(|_| Error::Database("a client panicked".to_owned()))??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    millis.sort_by(f64::total_cmp);
    let at = |share| percentile(&millis, share);
    answer(&json!({
        "commits": millis.len(), "seconds": seconds,
        "milliseconds": { "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) },
    }))?;
    orders.until_the_end().await
}

struct Session {
    client: Client,
    insert: Statement,
}

impl Session {
    /// How long each commit took, in milliseconds. Outside a transaction, a statement is one, and its answer comes with its commit.
    async fn insert_until(self, until: Instant, client: u64) -> Result<Vec<f64>> {
        let mut millis = Vec::new();
        let mut begun = Instant::now();
        while begun < until {
            let payload = payload(client * OWN_PLACES + millis.len() as u64);
            self.client.execute(&self.insert, &[&payload]).await?;
            let over = Instant::now();
            millis.push(float(micros(over - begun)) / 1e3);
            begun = over;
        }
        Ok(millis)
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// More than a client ever inserts: no two payloads are the same.
const OWN_PLACES: u64 = 1_000_000_000;
