//! Filling a table before a clock runs, which is itself a measurement: what Postgres alone takes for the same inserts.

use posthaste::Result;

use super::figures::float;
use super::meter::{Cost, Meter};
use super::payload::{EVENT_TYPE, payload};
use super::site::Database;

/// What to fill a database with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Outbox,
    /// A table of the outbox's shape that nothing is behind; see `same_shape.sql`.
    SameShape,
    /// The table of the hand-written loop.
    Plain,
}

impl Fill {
    /// The statement that inserts a single one.
    pub(super) fn one(self) -> &'static str {
        match self {
            Self::Outbox => include_str!("../../../sql/bench/produce.sql"),
            Self::SameShape => include_str!("../../../sql/bench/produce_same_shape.sql"),
            Self::Plain => include_str!("../../../sql/bench/produce_plain.sql"),
        }
    }

    fn many(self) -> &'static str {
        match self {
            Self::Outbox => include_str!("../../../sql/bench/fill_outbox.sql"),
            Self::SameShape => include_str!("../../../sql/bench/fill_same_shape.sql"),
            Self::Plain => include_str!("../../../sql/bench/fill_plain.sql"),
        }
    }
}

/// What was inserted, and what that cost.
pub(super) struct Filled {
    pub(super) rows: u64,
    pub(super) payload_bytes: u64,
    pub(super) cost: Cost,
}

impl Filled {
    /// Rows a second.
    pub(super) fn rate(&self) -> f64 {
        float(self.rows) / self.cost.seconds
    }

    /// Bytes of WAL for each row.
    pub(super) fn wal_each(&self) -> f64 {
        self.cost.wal_each(self.rows)
    }

    /// Bytes of payload in each row.
    pub(super) fn payload_each(&self) -> f64 {
        float(self.payload_bytes) / float(self.rows.max(1))
    }
}

impl Database {
    /// Commits so many events of one type. See [`fill_types`](Self::fill_types).
    pub(super) async fn fill(&self, fill: Fill, events: usize) -> Result<Filled> {
        self.fill_types(fill, events, &[EVENT_TYPE.to_owned()])
            .await
    }

    /// Commits so many events, of these types in turns. First a checkpoint, so that none falls due by itself while a clock runs.
    /// Not afterwards: from a checkpoint on, the first change of each page is logged whole, and in life an event is delivered
    /// long before the next checkpoint.
    pub(super) async fn fill_types(
        &self,
        fill: Fill,
        events: usize,
        types: &[String],
    ) -> Result<Filled> {
        let statement = self.client.prepare(fill.many()).await?;
        self.checkpoint().await;
        let meter = Meter::start(self).await?;
        let (mut place, mut payload_bytes) = (0, 0);
        while place < events {
            let batch = place..(place + BATCH).min(events);
            place = batch.end;
            let payloads: Vec<String> = batch.map(|place| payload(place as u64)).collect();
            payload_bytes += payloads
                .iter()
                .map(|payload| payload.len() as u64)
                .sum::<u64>();
            self.client
                .execute(&statement, &[&payloads, &types])
                .await?;
        }
        Ok(Filled {
            rows: events as u64,
            payload_bytes,
            cost: meter.stop().await?,
        })
    }
}

/// Rows that one transaction inserts when a table is filled.
pub(super) const BATCH: usize = 1000;
