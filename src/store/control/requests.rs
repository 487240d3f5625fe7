//! What administrators ask for, and workers carry out: replays, tests, cancels.

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Control;
use crate::Result;

/// How a replay is to go on.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Why, for whoever reads the audit log.
    pub reason: Option<&'a str>,
    /// Whether it is only to be counted.
    pub dry_run: bool,
    /// How many deliveries are to be put into the queue in a second; `None` for as many as go.
    pub rate: Option<i32>,
}

/// A replay that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// Its id; `None` where it was only counted, or nothing was found.
    pub replay_id: Option<i64>,
    /// How many deliveries it is to make.
    pub deliveries: i64,
}

impl Control {
    /// Delivers an event to a subscription once more.
    pub async fn replay_delivery(
        &self,
        event_id: &str,
        subscription: &str,
        asked: Asked<'_>,
    ) -> Result<Replay> {
        self.replay(REPLAY_DELIVERY, &[&event_id, &subscription], asked)
            .await
    }

    /// Delivers an event once more to whomever it was delivered to.
    pub async fn replay_event(&self, event_id: &str, asked: Asked<'_>) -> Result<Replay> {
        self.replay(REPLAY_EVENT, &[&event_id], asked).await
    }

    /// Delivers the dead letters of a subscription since a time once more.
    pub async fn replay_since(
        &self,
        subscription: &str,
        since: &str,
        asked: Asked<'_>,
    ) -> Result<Replay> {
        self.replay(REPLAY_SINCE, &[&subscription, &since], asked)
            .await
    }

    /// Delivers the dead letters that an SQL predicate finds once more.
    pub async fn replay_where(&self, predicate: &str, asked: Asked<'_>) -> Result<Replay> {
        self.replay(REPLAY_WHERE, &[&predicate], asked).await
    }

    async fn replay(
        &self,
        statement: &str,
        what: &[&(dyn ToSql + Sync)],
        asked: Asked<'_>,
    ) -> Result<Replay> {
        let how: [&(dyn ToSql + Sync); 3] = [&asked.reason, &asked.dry_run, &asked.rate];
        let row: Row = self.row(statement, &[what, &how].concat()).await?;
        Ok(Replay {
            replay_id: row.try_get("replay_id")?,
            deliveries: row.try_get("deliveries")?,
        })
    }

    /// Replays and tests that are under way, and finished ones where they are asked for, the newest first.
    pub async fn replays(&self, finished_too: bool, limit: i64) -> Result<Vec<Value>> {
        self.rows(REPLAYS, &[&finished_too, &limit]).await
    }

    /// Ends a replay, and says how many deliveries it leaves out.
    pub async fn cancel_replay(&self, replay_id: i64, reason: &str) -> Result<i64> {
        let row = self.row(CANCEL_REPLAY, &[&replay_id, &reason]).await?;
        Ok(row.try_get(0)?)
    }

    /// Sends a subscription the example of an event type, marked as a test; the id of the event that it is.
    pub async fn send_test(
        &self,
        subscription: &str,
        event_type: &str,
        reason: &str,
    ) -> Result<Uuid> {
        let row = self
            .row(SEND_TEST, &[&subscription, &event_type, &reason])
            .await?;
        Ok(row.try_get(0)?)
    }

    /// The attempt that a test led to, once it is recorded.
    pub async fn test_answer(&self, event_id: Uuid) -> Result<Option<Value>> {
        let found = self.rows(TEST_ANSWER, &[&event_id]).await?;
        Ok(found.into_iter().next())
    }

    /// Cancels what waits of an event, or of its delivery to one subscription; how many deliveries that is now.
    pub async fn cancel(
        &self,
        event_id: &str,
        reason: &str,
        subscription: Option<&str>,
    ) -> Result<i32> {
        let row = self
            .row(CANCEL, &[&event_id, &reason, &subscription])
            .await?;
        Ok(row.try_get(0)?)
    }
}

macro_rules! statements {
    ($($constant:ident = $file:literal;)+) => {
        $(const $constant: &str = include_str!(concat!("../../../sql/queries/control/", $file, ".sql"));)+
    };
}

statements! {
    REPLAY_DELIVERY = "replay_delivery";
    REPLAY_EVENT = "replay_event";
    REPLAY_SINCE = "replay_since";
    REPLAY_WHERE = "replay_where";
    REPLAYS = "replays";
    CANCEL_REPLAY = "cancel_replay";
    SEND_TEST = "send_test";
    TEST_ANSWER = "test_answer";
    CANCEL = "cancel";
}
