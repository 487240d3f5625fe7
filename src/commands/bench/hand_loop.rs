//! The competitor that one would write by hand: one row a transaction, the request inside it.

use std::time::Duration;

use posthaste::delivery::Outcome;
use posthaste::secret::SigningSecret;
use posthaste::sender::Endpoint;
use posthaste::store::connect_once;
use posthaste::{Error, Result};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_postgres::{Client, Statement};

use super::part::{self, Orders, TIMEOUT, answer, number, text};
use super::payload::request;

/// Plays it: so many loops side by side. With `idle_ms` each sleeps so long where it finds nothing, and never ends; without, it
/// ends there, or at its deadline.
pub(super) async fn play(part: &Value, mut orders: Orders) -> Result<()> {
    let endpoint = part::endpoint(part)?;
    let secret = SigningSecret::generate()?;
    let mut loops = Vec::new();
    for _ in 0..number(part, "tasks")? {
        loops.push(HandLoop::open(text(part, "database")?, endpoint.clone(), &secret).await?);
    }
    answer(&json!({ "ready": true }))?;
    orders.next().await;
    let idle = part["idle_ms"].as_u64().map(Duration::from_millis);
    let deadline = Instant::now() + Duration::from_millis(number(part, "deadline_ms")?);
    let running: Vec<_> = loops
        .into_iter()
        .map(|it| tokio::spawn(it.run(idle, deadline)))
        .collect();
    let mut sent = 0;
    for running in running {
        let ended = running
            .await
            .map_err(|_| Error::Database("a loop panicked".to_owned()))?;
        sent += ended?;
    }
    answer(&json!({ "sent": sent }))?;
    orders.until_the_end().await
}

struct HandLoop {
    client: Client,
    take: Statement,
    finish: Statement,
    endpoint: Endpoint,
    secrets: [SigningSecret; 1],
}

impl HandLoop {
    async fn open(database: &str, endpoint: Endpoint, secret: &SigningSecret) -> Result<Self> {
        let client = connect_once(database).await?;
        let take = client.prepare(TAKE).await?;
        let finish = client.prepare(FINISH).await?;
        Ok(Self {
            client,
            take,
            finish,
            endpoint,
            secrets: [secret.clone()],
        })
    }

    async fn run(mut self, idle: Option<Duration>, deadline: Instant) -> Result<u64> {
        let mut sent = 0;
        loop {
            if self.turn().await? {
                sent += 1;
            } else if let Some(idle) = idle {
                tokio::time::sleep(idle).await;
            } else {
                return Ok(sent);
            }
            if idle.is_none() && Instant::now() > deadline {
                return Ok(sent);
            }
        }
    }

    /// Whether there was a row to send.
    async fn turn(&mut self) -> Result<bool> {
        let transaction = self.client.transaction().await?;
        let Some(row) = transaction.query_opt(&self.take, &[]).await? else {
            transaction.commit().await?;
            return Ok(false);
        };
        let (id, payload): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let (headers, body) = request(&format!("msg_{id}"), &payload, &self.secrets)?;
        let report = self.endpoint.post(headers, body, TIMEOUT).await;
        if report.outcome != Outcome::Accepted {
            let why = report.error.unwrap_or_default();
            return Err(Error::Database(format!("the loop's request failed: {why}")));
        }
        transaction.execute(&self.finish, &[&id]).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

const TAKE: &str = include_str!("../../../sql/bench/loop_take.sql");
const FINISH: &str = include_str!("../../../sql/bench/loop_finish.sql");
