//! The only part that speaks SQL. Every statement lies in a file of its own under `sql/queries`.

mod address;
mod columns;
mod connect;
mod control;
mod figures;
mod health;
mod migrate;
mod operations;
mod ordering;
mod people;
mod presence;
mod requests;
mod shapes;
mod terms;

use std::time::{Duration, Instant, SystemTime};

use deadpool_postgres::{Object, Pool};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use self::columns::Columns;
pub use self::connect::{Listener, connect_once, listen};
pub use self::control::{
    Asked, Control, EnvelopeProposal, Outdated, Proposal, Proposed, Replay, Revealed, Source,
};
pub use self::figures::{Figure, Finding};
pub use self::health::{Tally, Weighed};
pub use self::migrate::{Applied, SchemaState, migrate, schema_state};
pub use self::operations::OverdueRotation;
pub use self::ordering::Advanced;
pub use self::people::{COUNT_LIMIT, Deviation, Login, NamedSecret, Server, WorkerAlive};
pub use self::presence::{Doze, Lookout, Presence};
pub use self::requests::Requests;
pub use self::terms::{
    AskedFor, Changes, StoredSchema, StoredSecret, StoredShape, StoredTerms, StoredValue,
};
use crate::config::Config;
use crate::delivery::{Address, Attempt, Context, DeliveryKey, Lease, OrderingKey};
use crate::telemetry::Connections;
use crate::{Error, Result};

/// The database as the worker sees it: a pool of sessions with the planner settings that the hot
/// statements rely on.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool,
}

/// How much a worker can take on right now.
#[derive(Clone, Debug)]
pub struct Room {
    /// The worker that asks.
    pub worker_id: i32,
    /// How long the leases are to last.
    pub lease: Duration,
    /// Deliveries it can lease.
    pub deliveries: usize,
    /// Bytes of payload it can hold.
    pub bytes: usize,
    /// The longest payload that it sends, in bytes.
    pub max_body: usize,
    /// Subscriptions that have other room than `slots_of_others`, and how much.
    pub slots: Vec<(i32, usize)>,
    /// How many deliveries of any other subscription it can lease.
    pub slots_of_others: usize,
}

/// What [`Store::take`] brought.
#[derive(Debug)]
pub struct Taken {
    /// Deliveries that are ours to attempt now.
    pub leases: Vec<Lease>,
    /// Events that were found; more than `events` where some had ids beyond what was asked for, and while a
    /// plan does not know the newest partition.
    pub seen: u64,
    /// Events fanned out.
    pub events: u64,
    /// Deliveries made of them, leased or waiting.
    pub deliveries: u64,
    /// Of these, those that wait behind others of their ordering key.
    pub followers: u64,
    /// Their keys, some more than once: the next delivery of each is to come up.
    pub keys: Vec<OrderingKey>,
    /// Events that no subscription matched.
    pub unrouted: u64,
    /// Events of a type that the catalogue does not have, or not as an active one.
    pub unknown: u64,
    /// Where the next scan may start.
    pub watermark: Watermark,
}

/// Where a scan of the intake starts: no event of a transaction below `xid` is left, but for those of
/// transactions that were `open` then, and those that another worker had locked and gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// A transaction's id, in decimal.
    pub xid: String,
    /// Ids of transactions below it.
    pub open: Vec<String>,
}

impl Watermark {
    /// The beginning: everything is left.
    pub fn beginning() -> Self {
        Self {
            xid: "0".to_owned(),
            open: Vec::new(),
        }
    }
}

/// A lease taken over from a worker that is gone, or that let it end.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// Of which delivery.
    pub key: DeliveryKey,
    /// Where the database keeps it now.
    pub address: Address,
    /// The attempt that it was for.
    pub number: i16,
    /// The event's ordering key, if it has one.
    pub ordering_key: Option<Box<str>>,
    /// Who held it.
    pub worker_id: i32,
    /// The subscription's revision today.
    pub revision: i32,
    /// When it began, by our clock.
    pub began: Instant,
    /// When the event is not to be sent any more, by our clock; `None` for never.
    pub expires: Option<Instant>,
}

/// What a look for waiting deliveries brought.
#[derive(Debug)]
pub struct Claims {
    /// Whether any lane had something due, or when the next one has.
    pub due: Due,
    /// The deliveries, now this worker's.
    pub leases: Vec<Lease>,
    /// Where the next look may start: no lane had anything before.
    pub next: Option<String>,
    /// How long it took to find and lock the lanes.
    pub locking: Duration,
}

/// When waiting deliveries are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Some are now.
    Now,
    /// None is now; the next lane has something due in this time.
    In(Duration),
    /// No lane will have.
    Never,
}

impl Store {
    /// Opens the pool. Connects lazily: a database that is down shows at the first statement.
    pub fn open(config: &Config) -> Result<Self> {
        Ok(Self {
            pool: connect::pool(config)?,
        })
    }

    /// Fans out new events and leases their deliveries as far as there is room; at most `batch`
    /// events not below `watermark`, with ids within `ids`, both ends included.
    pub async fn take(
        &self,
        room: &Room,
        batch: usize,
        watermark: &Watermark,
        ids: (Uuid, Uuid),
    ) -> Result<Taken> {
        let (oldest, newest) = ids;
        let asked = Instant::now();
        let (lanes, slots) = room.slot_arrays();
        let rows = self
            .query(
                TAKE,
                &[
                    &watermark.xid,
                    &watermark.open,
                    &long(batch),
                    &room.worker_id,
                    &room.lease.as_secs_f64(),
                    &int(room.deliveries),
                    &long(room.bytes),
                    &int(room.max_body),
                    &lanes,
                    &slots,
                    &int(room.slots_of_others),
                    &oldest,
                    &newest,
                ],
            )
            .await?;
        let mut taken = Taken {
            leases: Vec::with_capacity(rows.len()),
            seen: 0,
            events: 0,
            deliveries: 0,
            followers: 0,
            keys: Vec::new(),
            unrouted: 0,
            unknown: 0,
            watermark: Watermark::beginning(),
        };
        for row in &rows {
            if row.try_get::<_, Option<Uuid>>("event_id")?.is_none() {
                taken.seen = count(row, "events_seen")?;
                taken.events = count(row, "events_taken")?;
                taken.deliveries = count(row, "deliveries_made")?;
                taken.followers = count(row, "followers")?;
                taken.keys = ordering_keys(row)?;
                taken.unrouted = count(row, "unrouted")?;
                taken.unknown = count(row, "unknown")?;
                taken.watermark = Watermark {
                    xid: row.try_get("watermark")?,
                    open: row.try_get("still_open")?,
                };
            } else {
                taken.leases.push(lease(row, room, asked, 0, 1)?);
            }
        }
        Ok(taken)
    }

    /// Leases waiting deliveries that are due, from at most `lanes` subscriptions, leaving out those
    /// that have no room here, and whatever was due before `start`: as an earlier call told, or `None` for all.
    pub async fn claim_waiting(
        &self,
        room: &Room,
        lanes: usize,
        start: Option<&str>,
    ) -> Result<Claims> {
        let answer = tokio::time::timeout(PATIENCE, self.lock_and_claim(room, lanes, start)).await;
        answer.unwrap_or_else(|_| Err(unanswered(CLAIM_WAITING.0, PATIENCE)))
    }

    async fn lock_and_claim(
        &self,
        room: &Room,
        lanes: usize,
        start: Option<&str>,
    ) -> Result<Claims> {
        let asked = Instant::now();
        let full = room.full();
        let mut session = self.session().await?;
        let [lock, claim] = [
            session.prepare_cached(LOCK_LANES.1).await?,
            session.prepare_cached(CLAIM_WAITING.1).await?,
        ];
        let begun = Instant::now();
        let transaction = session.transaction().await.map_err(failed("begin"))?;
        let rows = transaction
            .query(&lock, &[&long(lanes), &full, &start])
            .await
            .map_err(failed(LOCK_LANES.0))?;
        let (locking, mut ids, mut next) = (begun.elapsed(), Vec::with_capacity(rows.len()), None);
        for row in &rows {
            match row.try_get("subscription_id")? {
                Some(id) => ids.push(id),
                None => next = row.try_get("start")?,
            }
        }
        let mut claims = Claims {
            due: Due::Now,
            leases: Vec::new(),
            next,
            locking,
        };
        if ids.is_empty() {
            transaction.rollback().await.map_err(failed("rollback"))?;
            crate::telemetry::statement(LOCK_LANES.0, begun.elapsed());
            drop(session);
            claims.due = self.next_lane(&full).await?;
            return Ok(claims);
        }
        let slots: Vec<i32> = ids.iter().map(|id| int(room.slots_of(*id))).collect();
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &ids,
            &slots,
            &room.worker_id,
            &room.lease.as_secs_f64(),
            &int(room.deliveries),
            &long(room.bytes),
            &int(room.max_body),
        ];
        let rows = transaction
            .query(&claim, parameters)
            .await
            .map_err(failed(CLAIM_WAITING.0))?;
        transaction.commit().await.map_err(failed("commit"))?;
        crate::telemetry::statement(CLAIM_WAITING.0, begun.elapsed());
        claims.leases = rows
            .iter()
            .map(|row| {
                let (replay, number) = (row.try_get("replay")?, row.try_get("number")?);
                Ok(Lease {
                    ordering_key: row.try_get("ordering_key")?,
                    ..lease(row, room, asked, replay, number)?
                })
            })
            .collect::<Result<_>>()?;
        Ok(claims)
    }

    async fn next_lane(&self, full: &[i32]) -> Result<Due> {
        let rows = self.query(NEXT_LANE, &[&full]).await?;
        let wait: Option<f64> = rows.first().map(|row| row.try_get(0)).transpose()?;
        Ok(wait.map_or(Due::Never, |seconds| {
            Due::In(Duration::try_from_secs_f64(seconds).unwrap_or_default())
        }))
    }

    /// Records attempts: history in, leases out or back into the queue, in one statement. Returns the places
    /// of those that were late. Before a second try, ask [`recorded_already`](Self::recorded_already).
    pub async fn record(&self, attempts: &[Attempt]) -> Result<Vec<usize>> {
        let columns = Columns::of(attempts, Instant::now());
        if columns.have_keys() {
            return self.record_ordered(attempts, &columns).await;
        }
        places(&self.query(RECORD, &columns.parameters()).await?)
    }

    /// The places of attempts that are in history, because a try to record them committed although
    /// its answer was lost.
    pub async fn recorded_already(&self, attempts: &[Attempt]) -> Result<Vec<usize>> {
        let columns = Columns::of(attempts, Instant::now());
        places(&self.query(RECORDED_ALREADY, &columns.identity()).await?)
    }

    /// Gives up leases whose attempts were never begun.
    pub async fn give_back(&self, leases: &[&Lease]) -> Result<()> {
        let leases = Leases::of(leases);
        self.query(GIVE_BACK, &leases.identity()).await.map(drop)
    }

    /// Ends deliveries that were claimed and are not to be sent any more: their attempts are never made.
    pub async fn expire(&self, leases: &[&Lease]) -> Result<()> {
        let leases = Leases::of(leases);
        self.query(EXPIRE, &leases.identity()).await.map(drop)
    }

    /// Workers whose session lock is gone and who did not say goodbye.
    pub async fn gone_workers(&self, worker_id: i32) -> Result<Vec<i32>> {
        let rows = self.query(GONE_WORKERS, &[&worker_id]).await?;
        Ok(rows
            .iter()
            .map(|row| row.try_get(0))
            .collect::<Result<_, _>>()?)
    }

    /// Takes over leases of workers that are `gone`, and leases that have ended; at most `limit`.
    pub async fn adopt(
        &self,
        worker_id: i32,
        lease: Duration,
        gone: &[i32],
        limit: usize,
    ) -> Result<Vec<Adopted>> {
        let now = Instant::now();
        let rows = self
            .query(
                ADOPT,
                &[&worker_id, &lease.as_secs_f64(), &gone, &long(limit)],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let age = Duration::try_from_secs_f64(row.try_get("age")?).unwrap_or_default();
                Ok(Adopted {
                    key: DeliveryKey {
                        event_id: row.try_get("event_id")?,
                        subscription_id: row.try_get("subscription_id")?,
                        replay: row.try_get("replay")?,
                    },
                    address: row.try_get("address")?,
                    number: row.try_get("number")?,
                    ordering_key: row.try_get("ordering_key")?,
                    worker_id: row.try_get("worker_id")?,
                    revision: row.try_get("revision")?,
                    began: now.checked_sub(age).unwrap_or(now),
                    expires: row
                        .try_get::<_, Option<f64>>("expires_in")?
                        .map(|seconds| at(now, seconds)),
                })
            })
            .collect()
    }

    /// Notes that these workers have ended, unless they left leases or came back. `ourselves` is the
    /// one that says so of itself while it is still alive.
    pub async fn end_workers(&self, worker_ids: &[i32], ourselves: Option<i32>) -> Result<()> {
        self.query(END_WORKERS, &[&worker_ids, &ourselves])
            .await
            .map(drop)
    }

    /// Makes the partitions of the coming days and returns how many were missing.
    pub async fn create_partitions(&self, days_ahead: usize) -> Result<i32> {
        let rows = self.query(CREATE_PARTITIONS, &[&int(days_ahead)]).await?;
        Ok(rows.first().map_or(Ok(0), |row| row.try_get(0))?)
    }

    /// Runs one named statement, prepared once per session.
    async fn query(
        &self,
        (name, sql): Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let session = self.session().await?;
        let begun = Instant::now();
        let answer = async {
            let statement = session.prepare_cached(sql).await?;
            session.query(&statement, parameters).await
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        crate::telemetry::statement(name, begun.elapsed());
        let Ok(rows) = answer else {
            abandon(session);
            return Err(unanswered(name, PATIENCE));
        };
        let rows = rows.map_err(failed(name))?;
        crate::telemetry::database_answers(true);
        Ok(rows)
    }

    async fn session(&self) -> Result<Object> {
        self.pool.get().await.map_err(|error| {
            if !connect::is_about_room(&error) {
                crate::telemetry::database_answers(false);
            }
            Error::Database(connect::explain_pool(&error))
        })
    }

    /// The sessions of the pool.
    pub(crate) fn connections(&self) -> Connections {
        let status = self.pool.status();
        Connections {
            idle: status.available,
            used: status.size.saturating_sub(status.available),
        }
    }
}

/// What tells leases from all others, a column each.
struct Leases {
    events: Vec<Uuid>,
    subscriptions: Vec<i32>,
    replays: Vec<i16>,
    numbers: Vec<i16>,
    holders: Vec<i32>,
    addresses: Vec<Address>,
}

impl Leases {
    fn of(leases: &[&Lease]) -> Self {
        fn each<T>(leases: &[&Lease], column: impl Fn(&Lease) -> T) -> Vec<T> {
            leases.iter().map(|lease| column(lease)).collect()
        }
        Self {
            events: each(leases, |lease| lease.key.event_id),
            subscriptions: each(leases, |lease| lease.key.subscription_id),
            replays: each(leases, |lease| lease.key.replay),
            numbers: each(leases, |lease| lease.number),
            holders: each(leases, |lease| lease.holder),
            addresses: each(leases, |lease| lease.address),
        }
    }

    /// As the statements that give leases back, end them or have them held take them.
    fn identity(&self) -> [&(dyn ToSql + Sync); 6] {
        [
            &self.events,
            &self.subscriptions,
            &self.replays,
            &self.numbers,
            &self.holders,
            &self.addresses,
        ]
    }
}

/// Closes a session that does not answer, rather than let the next statement find it in the pool.
fn abandon(session: Object) {
    drop(Object::take(session));
}

/// How long an answer is waited for: longer than the server works on a statement.
const PATIENCE: Duration = Duration::from_secs(35);

impl Room {
    fn slots_of(&self, subscription_id: i32) -> usize {
        let own = self.slots.iter().find(|(id, _)| *id == subscription_id);
        own.map_or(self.slots_of_others, |(_, slots)| *slots)
    }

    /// The subscriptions that have none, in ascending order.
    fn full(&self) -> Vec<i32> {
        let full = self.slots.iter().filter(|(_, slots)| *slots == 0);
        let mut full: Vec<i32> = full.map(|(id, _)| *id).collect();
        full.sort_unstable();
        full
    }

    /// Subscription ids in ascending order, and the slots of each.
    fn slot_arrays(&self) -> (Vec<i32>, Vec<i32>) {
        let mut slots: Vec<_> = self
            .slots
            .iter()
            .map(|(id, slots)| (*id, int(*slots)))
            .collect();
        slots.sort_unstable();
        slots.into_iter().unzip()
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(connect::explain(&error))
    }
}

/// A statement's name, for errors and metrics, and its text.
type Statement = (&'static str, &'static str);

macro_rules! statements {
    ($($constant:ident = $file:literal;)+) => {
        $(const $constant: Statement = ($file, include_str!(concat!("../sql/queries/", $file, ".sql")));)+

        /// The names of all that a worker's statements are timed and counted by.
        pub(crate) const STATEMENTS: &[&str] = &[$($file),+];
    };
}

statements! {
    TAKE = "take";
    LOCK_LANES = "lock_lanes";
    CLAIM_WAITING = "claim_waiting";
    NEXT_LANE = "next_lane";
    LOCK_LANES_OF = "lock_lanes_of";
    FREE_HEADS = "free_heads";
    ADVANCE = "advance";
    IDLE_KEYS = "idle_keys";
    FREE_KEYS = "free_keys";
    RECORD = "record";
    RECORDED_ALREADY = "recorded_already";
    GIVE_BACK = "give_back";
    GONE_WORKERS = "gone_workers";
    ADOPT = "adopt";
    END_WORKERS = "end_workers";
    CREATE_PARTITIONS = "create_partitions";
    TERMS = "terms";
    FILL_SECRET = "fill_secret";
    SECRETS_ASKED_FOR = "secrets_asked_for";
    EXTERNAL_IDS = "external_ids";
    KEEP_PSEUDONYMS = "keep_pseudonyms";
    PREPARED = "prepared";
    KEEP_HANDSHAKE = "keep_handshake";
    ADD_SECRET = "add_secret";
    CHANGED_TERMS = "changed_terms";
    SETTLE_LANES = "settle_lanes";
    REQUEUE_RELEASED = "requeue_released";
    CANCEL_REMOVED = "cancel_removed";
    EXPIRE_WAITING = "expire_waiting";
    EXPIRE = "expire";
    WEIGH = "weigh";
    PAUSE_FAILING = "pause_failing";
    FORGET_KEYS = "forget_keys";
    TELL_OVERDUE_ROTATIONS = "tell_overdue_rotations";
    QUEUE_REPLAYS = "queue_replays";
    CARRY_OUT_CANCELS = "carry_out_cancels";
    HOLD = "hold";
    EVENT_TYPES = "event_types";
    FIGURES = "figures";
    TABLE_FIGURES = "table_figures";
    SUBSCRIPTION_FIGURES = "subscription_figures";
    RECENT_RATES = "recent_rates";
    FINDINGS = "findings";
    NOTE_WORKER = "note_worker";
    OBSERVE = "observe";
    WORKERS_ALIVE = "workers_alive";
    ACCESS = "access";
    LOGIN = "login";
    LIVE_SECRETS = "live_secrets";
    PUBLIC_KEYS = "public_keys";
    SUBSCRIPTIONS_TO_CHECK = "subscriptions_to_check";
    SERVER = "server";
    NEXT_WORKER_ID = "next_worker_id";
    REGISTER_WORKER = "register_worker";
    HOLD_IDENTITY = "hold_identity";
    RESUME_WORKER = "resume_worker";
    DOZE = "doze";
    ROUSE = "rouse";
}

/// Counts that a statement failed, and says why.
fn failed(statement: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Error {
    move |error| {
        crate::telemetry::statement_failed(statement);
        crate::telemetry::database_answers(connect::is_an_answer(&error));
        let text = format!("{statement}: {}", connect::explain(&error));
        if connect::is_about_data(&error) {
            Error::Data(text)
        } else {
            Error::Database(text)
        }
    }
}

/// The same of one that was not answered within this time.
fn unanswered(statement: &'static str, patience: Duration) -> Error {
    crate::telemetry::statement_failed(statement);
    crate::telemetry::database_answers(false);
    Error::Database(format!("{statement}: no answer within {patience:?}"))
}

fn lease(row: &Row, room: &Room, asked: Instant, replay: i16, number: i16) -> Result<Lease> {
    let bytes: Option<i32> = row.try_get("bytes")?;
    let expires_in: Option<f64> = row.try_get("expires_in")?;
    let event_id = row.try_get("event_id")?;
    Ok(Lease {
        key: DeliveryKey {
            event_id,
            subscription_id: row.try_get("subscription_id")?,
            replay,
        },
        number,
        ordering_key: None,
        holder: room.worker_id,
        address: row.try_get("address")?,
        revision: row.try_get("revision")?,
        schema_revision: row.try_get("schema_revision")?,
        is_released: false,
        event_type: row
            .try_get::<_, Option<String>>("event_type")?
            .unwrap_or_default(),
        occurred_at: row
            .try_get::<_, Option<SystemTime>>("occurred_at")?
            .unwrap_or(SystemTime::UNIX_EPOCH),
        payload: row.try_get("payload")?,
        traceparent: row.try_get("traceparent")?,
        context: context(row)?,
        bytes: usize::try_from(bytes.unwrap_or(0)).unwrap_or(0),
        owed_from: owed_from(event_id, row.try_get("deliver_after")?),
        ends: asked + room.lease,
        expires: expires_in.map(|seconds| at(asked, seconds)),
    })
}

/// When the event was inserted, which its id begins with in milliseconds, or when it was to be delivered at the earliest.
#[expect(clippy::cast_precision_loss, reason = "48 bits fit")]
fn owed_from(event_id: Uuid, deliver_after: Option<f64>) -> f64 {
    let inserted = (event_id.as_u128() >> 80) as f64 / 1000.0;
    deliver_after
        .filter(|at| at.is_finite())
        .map_or(inserted, |at| at.max(inserted))
}

/// Most events have nothing of the kind that is wanted: no allocation for those.
fn context(row: &Row) -> Result<Option<Box<Context>>> {
    let context = Context {
        metadata: row.try_get("metadata")?,
        tenant: row.try_get("tenant")?,
    };
    Ok((context != Context::default()).then(|| Box::new(context)))
}

/// So many seconds from then, or before; so far ahead that nobody waits for it where there is no such time.
fn at(then: Instant, seconds: f64) -> Instant {
    let ahead = Duration::try_from_secs_f64(seconds.clamp(0.0, MANY_YEARS)).unwrap_or_default();
    then + ahead
}

/// As far as a clock is ever looked ahead, in seconds.
const MANY_YEARS: f64 = 3e9;

/// Two arrays of take.sql, or null.
fn ordering_keys(row: &Row) -> Result<Vec<OrderingKey>> {
    let subscriptions: Option<Vec<i32>> = row.try_get("ordered_subscriptions")?;
    let keys: Option<Vec<Box<str>>> = row.try_get("ordered_keys")?;
    let both = subscriptions
        .unwrap_or_default()
        .into_iter()
        .zip(keys.unwrap_or_default());
    let key = |(subscription_id, ordering_key)| OrderingKey {
        subscription_id,
        ordering_key,
    };
    Ok(both.map(key).collect())
}

/// Places in a batch, counted from 1 in SQL and from 0 here.
fn places(rows: &[Row]) -> Result<Vec<usize>> {
    let place = |row: &Row| {
        let place: i64 = row.try_get(0)?;
        Ok(usize::try_from(place - 1).unwrap_or(0))
    };
    rows.iter().map(place).collect()
}

fn count(row: &Row, column: &str) -> Result<u64> {
    Ok(row
        .try_get::<_, Option<i64>>(column)?
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or(0))
}

fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn long(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slots_go_to_postgres_in_the_order_in_which_it_looks_for_them() {
        let room = Room {
            worker_id: 1,
            lease: Duration::from_mins(1),
            deliveries: 10,
            bytes: 1000,
            max_body: 100,
            slots: vec![(7, 1), (3, 2), (5, 0)],
            slots_of_others: 4,
        };
        assert_eq!(room.slot_arrays(), (vec![3, 5, 7], vec![2, 0, 1]));
    }
}
