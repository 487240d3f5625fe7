//! Steady load: single-row transactions at a fixed rate, each event due at a time fixed in advance.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use posthaste::store::connect_once;
use posthaste::{Error, Result};
use tokio::task::JoinSet;

use super::part::micros_now;
use super::payload::payload;
use super::poster::pace;

/// How much, how fast, and of which types and tenants, in turns.
pub(super) struct Load {
    pub(super) rate: u32,
    pub(super) duration: Duration,
    pub(super) event_types: Vec<String>,
    /// Whose the events are, in turns; nobody's where there are none.
    pub(super) tenants: Vec<String>,
}

/// An event that was committed: its place in the run, and when its producer had the answer, in microseconds since 1970.
pub(super) struct Committed {
    pub(super) place: u64,
    pub(super) at: i64,
}

impl Load {
    pub(super) fn events(&self) -> u64 {
        let millis = u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX);
        u64::from(self.rate) * millis / 1000
    }

    /// The type of the event in this place.
    pub(super) fn type_of(&self, place: u64) -> usize {
        let types = self.event_types.len().max(1) as u64;
        usize::try_from(place % types).unwrap_or(0)
    }

    /// Whose the event in this place is.
    pub(super) fn tenant_of(&self, place: u64) -> usize {
        let tenants = self.tenants.len().max(1) as u64;
        usize::try_from(place % tenants).unwrap_or(0)
    }

    /// Commits them all, over a few sessions in turns: a slow commit holds back nothing.
    pub(super) async fn produce(&self, database_url: &str) -> Result<Vec<Committed>> {
        let mut sessions = Vec::new();
        for _ in 0..PRODUCERS {
            let client = connect_once(database_url).await?;
            let statement = client.prepare(PRODUCE).await?;
            sessions.push(Arc::new((client, statement)));
        }
        let mut due = pace(self.events(), u64::from(self.rate))?;
        let mut inserting = JoinSet::new();
        let mut turns = sessions.iter().cycle();
        while let (Some((place, _)), Some(session)) = (due.recv().await, turns.next()) {
            let session = Arc::clone(session);
            let event_type = self.event_types[self.type_of(place)].clone();
            let tenant = self.tenants.get(self.tenant_of(place)).cloned();
            inserting.spawn(async move {
                let (client, statement) = &*session;
                client
                    .execute(statement, &[&event_type, &payload(place), &tenant])
                    .await?;
                Ok::<_, Error>(Committed {
                    place,
                    at: micros_now(),
                })
            });
        }
        let mut committed = Vec::new();
        while let Some(ended) = inserting.join_next().await {
            committed.push(ended.map_err(|_| Error::Database("a producer panicked".to_owned()))??);
        }
        Ok(committed)
    }
}

/// When each place came first, and in all how often each came.
pub(super) struct Arrivals {
    pub(super) first: HashMap<u64, i64>,
    pub(super) last: HashMap<u64, i64>,
    pub(super) times: HashMap<u64, u64>,
}

impl Arrivals {
    pub(super) fn of(stamps: &[(u64, i64)]) -> Self {
        let (mut first, mut last, mut times) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (place, at) in stamps {
            first.entry(*place).or_insert(*at);
            last.insert(*place, *at);
            *times.entry(*place).or_insert(0) += 1;
        }
        Self { first, last, times }
    }

    /// From the commit to the first receipt, in milliseconds.
    pub(super) fn latency(&self, event: &Committed) -> Result<f64> {
        let at = self.first.get(&event.place);
        let at = at.ok_or_else(|| Error::Data(format!("event {} never came", event.place)))?;
        Ok(millis(at - event.at))
    }
}

/// Of microseconds.
#[expect(clippy::cast_precision_loss, reason = "differences of a few minutes")]
pub(super) fn millis(micros: i64) -> f64 {
    micros as f64 / 1000.0
}

const PRODUCERS: usize = 8;
const PRODUCE: &str = include_str!("../../../sql/bench/produce_typed.sql");
