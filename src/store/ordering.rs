//! Keys whose deliveries go one after the other, as a worker lets them go on.

use std::time::Instant;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::columns::Columns;
use super::{
    ADVANCE, FREE_HEADS, FREE_KEYS, IDLE_KEYS, LOCK_LANES_OF, PATIENCE, RECORD, Store, Watermark,
    failed, int, places, unanswered,
};
use crate::Result;
use crate::delivery::{Attempt, OrderingKey, Verdict};

/// What [`Store::advance`] came to.
#[derive(Debug)]
pub struct Advanced {
    /// Deliveries that came up: they wait in their lanes now.
    pub risen: u64,
    /// Keys whose next delivery must not go before an event that nobody has taken yet.
    pub held_up: Vec<OrderingKey>,
    /// Where the next call may start.
    pub watermark: Watermark,
}

impl Store {
    /// Lets the next delivery of each of these keys come up, where the key is free; each is named once.
    pub async fn advance(
        &self,
        keys: &[OrderingKey],
        watermark: &Watermark,
    ) -> Result<Option<Advanced>> {
        let answer = tokio::time::timeout(PATIENCE, self.lock_and_advance(keys, watermark)).await;
        answer.unwrap_or_else(|_| Err(unanswered(ADVANCE.0, PATIENCE)))
    }

    async fn lock_and_advance(
        &self,
        keys: &[OrderingKey],
        watermark: &Watermark,
    ) -> Result<Option<Advanced>> {
        let (subscriptions, names) = arrays(keys);
        let mut session = self.session().await?;
        let [lock, advance] = [
            session.prepare_cached(LOCK_LANES_OF.1).await?,
            session.prepare_cached(ADVANCE.1).await?,
        ];
        let begun = Instant::now();
        let transaction = session.transaction().await.map_err(failed("begin"))?;
        let locked = transaction
            .query(&lock, &[&subscriptions, &names])
            .await
            .map_err(failed(LOCK_LANES_OF.0))?;
        if locked.is_empty() {
            transaction.rollback().await.map_err(failed("rollback"))?;
            crate::telemetry::statement(LOCK_LANES_OF.0, begun.elapsed());
            return Ok(None);
        }
        let locked = locked
            .iter()
            .map(|row| row.try_get(0))
            .collect::<Result<Vec<i32>, _>>()?;
        // What has begun to wait since, in a lane that is not ours, is for whoever put it there.
        let (subscriptions, names) = arrays(
            keys.iter()
                .filter(|key| locked.binary_search(&key.subscription_id).is_ok()),
        );
        let rows = transaction
            .query(
                &advance,
                &[&subscriptions, &names, &watermark.xid, &watermark.open],
            )
            .await
            .map_err(failed(ADVANCE.0))?;
        transaction.commit().await.map_err(failed("commit"))?;
        crate::telemetry::statement(ADVANCE.0, begun.elapsed());
        advanced(&rows).map(Some)
    }

    /// As [`record`](Self::record), where some of the attempts have ordering keys: those of what is over are freed, or held, with it.
    pub(super) async fn record_ordered(
        &self,
        attempts: &[Attempt],
        columns: &Columns<'_>,
    ) -> Result<Vec<usize>> {
        let answer = tokio::time::timeout(PATIENCE, self.record_and_free(attempts, columns)).await;
        answer.unwrap_or_else(|_| Err(unanswered(RECORD.0, PATIENCE)))
    }

    async fn record_and_free(
        &self,
        attempts: &[Attempt],
        columns: &Columns<'_>,
    ) -> Result<Vec<usize>> {
        let mut session = self.session().await?;
        let [record, free] = [
            session.prepare_cached(RECORD.1).await?,
            session.prepare_cached(FREE_HEADS.1).await?,
        ];
        let begun = Instant::now();
        let transaction = session.transaction().await.map_err(failed("begin"))?;
        let rows = transaction
            .query(&record, &columns.parameters())
            .await
            .map_err(failed(RECORD.0))?;
        let late = places(&rows)?;
        let heads = Heads::of(attempts, &late);
        if !heads.ordering_keys.is_empty() {
            transaction
                .execute(&free, &heads.parameters())
                .await
                .map_err(failed(FREE_HEADS.0))?;
        }
        transaction.commit().await.map_err(failed("commit"))?;
        crate::telemetry::statement(RECORD.0, begun.elapsed());
        Ok(late)
    }

    /// Of the first `limit` keys after this one that something waits for: those of which nothing is under way, and the last key
    /// that was looked at, `None` at the end.
    pub async fn idle_keys(
        &self,
        after: &OrderingKey,
        limit: usize,
    ) -> Result<(Vec<OrderingKey>, Option<OrderingKey>)> {
        let rows = self
            .query(
                IDLE_KEYS,
                &[&after.subscription_id, &after.ordering_key, &int(limit)],
            )
            .await?;
        let mut idle = Vec::new();
        for row in &rows {
            if row.try_get("is_idle")? {
                idle.push(key(row)?);
            }
        }
        let is_all = rows.len() < limit;
        let last = rows.last().filter(|_| !is_all).map(key).transpose()?;
        Ok((idle, last))
    }

    /// Lets keys go on whose head people skipped or discarded, and those that are held no longer, at most `limit` of each; which.
    pub async fn free_keys(&self, limit: usize) -> Result<Vec<OrderingKey>> {
        let rows = self.query(FREE_KEYS, &[&int(limit)]).await?;
        rows.iter().map(key).collect()
    }
}

/// Deliveries with ordering keys that are over, a column each.
#[derive(Default)]
struct Heads<'a> {
    events: Vec<Uuid>,
    subscriptions: Vec<i32>,
    replays: Vec<i16>,
    ordering_keys: Vec<&'a str>,
    dead: Vec<bool>,
}

impl<'a> Heads<'a> {
    fn of(attempts: &'a [Attempt], late: &[usize]) -> Self {
        let mut heads = Self::default();
        for (place, attempt) in attempts.iter().enumerate() {
            let Some(key) = &attempt.ordering_key else {
                continue;
            };
            if matches!(attempt.ruling.verdict, Verdict::Retry(_)) || late.contains(&place) {
                continue;
            }
            heads.events.push(attempt.key.event_id);
            heads.subscriptions.push(attempt.key.subscription_id);
            heads.replays.push(attempt.key.replay);
            heads.ordering_keys.push(key);
            heads.dead.push(matches!(
                attempt.ruling.verdict,
                Verdict::Exhausted | Verdict::Rejected
            ));
        }
        heads
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 5] {
        [
            &self.events,
            &self.subscriptions,
            &self.replays,
            &self.ordering_keys,
            &self.dead,
        ]
    }
}

fn arrays<'k>(keys: impl IntoIterator<Item = &'k OrderingKey>) -> (Vec<i32>, Vec<&'k str>) {
    keys.into_iter()
        .map(|key| (key.subscription_id, &*key.ordering_key))
        .unzip()
}

fn advanced(rows: &[Row]) -> Result<Advanced> {
    let mut advanced = Advanced {
        risen: 0,
        held_up: Vec::new(),
        watermark: Watermark::beginning(),
    };
    for row in rows {
        if row.try_get::<_, Option<i32>>("subscription_id")?.is_some() {
            advanced.held_up.push(key(row)?);
        } else {
            advanced.risen = super::count(row, "risen")?;
            advanced.watermark = Watermark {
                xid: row.try_get("watermark")?,
                open: row.try_get("still_open")?,
            };
        }
    }
    Ok(advanced)
}

fn key(row: &Row) -> Result<OrderingKey> {
    Ok(OrderingKey {
        subscription_id: row.try_get("subscription_id")?,
        ordering_key: row.try_get("ordering_key")?,
    })
}
