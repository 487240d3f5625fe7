//! A worker at work: looks for work, keeps its lanes busy, has every result recorded, stops in order.
//!
//! One task holds all the state. It never waits for a partner, and for Postgres only where nothing
//! else could be done meanwhile: looks, attempts and records run beside it and report back.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Worker;
use super::housekeeping::Housekeeping;
use super::lanes::{Lanes, Limits, Ready};
use super::plan::{Plan, Sleep};
use super::recorder::{self, Left};
use crate::Result;
use crate::attempt::{self, Circumstances};
use crate::config::Config;
use crate::delivery::{Attempt, DeliveryKey};
use crate::directory::Directory;
use crate::store::{Presence, Room, Store, Watermark};
use crate::telemetry;

pub(super) struct Shift {
    config: Arc<Config>,
    name: String,
    store: Store,
    directory: Arc<Directory>,
    ready: watch::Sender<bool>,
    lanes: Lanes,
    plan: Plan,
    frontier: Frontier,
    presence: Option<Presence>,
    /// The way back after the presence was lost.
    registering: Option<JoinHandle<Presence>>,
    /// Ends the housekeeping that goes with the presence.
    rounds: CancellationToken,
    look: Option<JoinHandle<Result<Seen>>>,
    looked_at: Instant,
    /// Where attempts report. They go on to the recorder, and leave.
    finished: (mpsc::Sender<Attempt>, mpsc::Receiver<Attempt>),
    results: mpsc::Sender<Attempt>,
    left: (mpsc::UnboundedSender<Left>, mpsc::UnboundedReceiver<Left>),
    recorder: JoinHandle<()>,
    /// Cancelled when requests under way may not be waited for any longer.
    cut: CancellationToken,
    /// Cancelled when results in hand may not be held any longer.
    give_up: CancellationToken,
}

/// What a look brought.
struct Seen {
    ready: Vec<Ready>,
    /// Of the look at new events, if it was one.
    events: Option<SeenEvents>,
    /// Of the look at waiting deliveries, if it was one: whether any lane had something due, and how
    /// many were leased.
    waiting: Option<(bool, usize)>,
}

struct SeenEvents {
    taken: u64,
    /// There may be more than were taken.
    more: bool,
    /// Some of their deliveries had no room here.
    left_waiting: bool,
    /// Some lay further from now than the scan reached, and were left.
    too_far: bool,
    scan: Scan,
    next: Watermark,
    took: Duration,
}

impl Shift {
    pub(super) fn begin(worker: &Worker, presence: Presence) -> Self {
        let config = Arc::clone(&worker.config);
        let (results, attempts) = mpsc::channel(config.max_in_flight);
        let left = mpsc::unbounded_channel();
        let give_up = CancellationToken::new();
        let (store, batch) = (worker.store.clone(), config.batch);
        let recorder = tokio::spawn(recorder::run(
            store.clone(),
            attempts,
            left.0.clone(),
            batch,
            give_up.clone(),
        ));
        let limits = Limits {
            deliveries: config.max_in_flight,
            bytes: config.max_in_flight_bytes,
            concurrency: config.endpoint_concurrency,
        };
        let now = Instant::now();
        let mut shift = Self {
            name: config.name_of_worker(),
            store,
            directory: Arc::clone(&worker.directory),
            ready: worker.ready.clone(),
            lanes: Lanes::new(limits),
            plan: Plan::new(config.poll_interval, now),
            frontier: Frontier::default(),
            presence: None,
            registering: None,
            rounds: CancellationToken::new(),
            look: None,
            looked_at: now,
            finished: mpsc::channel(config.max_in_flight),
            results,
            left,
            recorder,
            cut: CancellationToken::new(),
            give_up,
            config,
        };
        shift.clock_in(presence);
        shift
    }

    /// Works until `stop`, then winds up.
    pub(super) async fn work(mut self, stop: CancellationToken) {
        let mut over = Vec::new();
        loop {
            self.start_look_if_due();
            let look_at = self.look_is_due_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = self.finished.1.recv_many(&mut over, AT_ONCE) => self.pass_on(&mut over),
                Some(left) = self.left.1.recv() => self.make_room(left),
                seen = done(&mut self.look) => self.take_in(seen).await,
                () = rings(self.presence.as_ref()) => self.plan.rang(Instant::now()),
                () = lost(self.presence.as_ref()) => self.clock_out(),
                presence = done(&mut self.registering) => if let Some(presence) = presence { self.clock_in(presence) },
                () = due(look_at) => {}
            }
            telemetry::holding(self.lanes.deliveries(), self.lanes.sending());
        }
        self.wind_up().await;
    }

    /// Registered: may claim again.
    fn clock_in(&mut self, presence: Presence) {
        tracing::info!(
            worker_id = presence.worker_id(),
            name = self.name,
            "worker registered"
        );
        self.rounds = CancellationToken::new();
        let housekeeping = Housekeeping {
            store: self.store.clone(),
            directory: Arc::clone(&self.directory),
            config: Arc::clone(&self.config),
            worker_id: presence.worker_id(),
            stop: self.rounds.clone(),
        };
        tokio::spawn(housekeeping.run());
        self.registering = None;
        self.presence = Some(presence);
        self.plan = Plan::new(self.config.poll_interval, Instant::now());
        self.say_ready(true);
    }

    /// The session is gone and the identity with it: others may take over our leases, so nothing more
    /// is claimed until we are registered anew. What is under way goes on, and counts if it is
    /// recorded before somebody has taken it over.
    fn clock_out(&mut self) {
        tracing::warn!("the worker's session was lost; registering anew");
        let before = self.presence.take().map(|presence| presence.worker_id());
        self.rounds.cancel();
        self.say_ready(false);
        let (config, name) = (Arc::clone(&self.config), self.name.clone());
        self.registering = Some(tokio::spawn(register(config, name, before)));
    }

    fn say_ready(&self, is: bool) {
        telemetry::registered(is);
        self.ready.send_replace(is);
    }

    /// When the next look is due; never while one is under way, without an identity, or without room
    /// that is worth a statement.
    fn look_is_due_at(&self) -> Option<Instant> {
        let free =
            self.config.max_in_flight - self.lanes.deliveries().min(self.config.max_in_flight);
        let has_room = free > 0 && self.lanes.bytes() < self.config.max_in_flight_bytes;
        let may = self.look.is_none() && self.presence.is_some() && has_room;
        let roomy = free >= self.config.max_in_flight / 8;
        let soonest = if roomy {
            self.looked_at
        } else {
            self.looked_at + LITTLE_ROOM
        };
        may.then(|| self.plan.due_at().max(soonest))
    }

    fn start_look_if_due(&mut self) {
        let now = Instant::now();
        let Some(worker_id) = self.presence.as_ref().map(Presence::worker_id) else {
            return;
        };
        if self.look_is_due_at().is_none_or(|at| at > now) {
            return;
        }
        let stuck = self.lanes.take_stuck(now);
        self.give_back(stuck);
        let free = self.lanes.free(now);
        let batch = match free.events {
            Some(0) if self.plan.hold_events(now) => 0,
            Some(0) | None => self.config.batch,
            Some(events) => events.min(self.config.batch),
        };
        let (events, waiting, source) = self.plan.due(now);
        if !events && !waiting {
            return;
        }
        if waiting {
            self.lanes.looking_for_waiting(now);
        }
        telemetry::woke(source);
        self.looked_at = now;
        let room = Room {
            worker_id,
            lease: self.config.lease,
            deliveries: free.deliveries,
            bytes: free.bytes,
            max_body: self.config.max_body,
            slots: free.slots,
            slots_of_others: free.slots_of_others,
        };
        let look = Look {
            store: self.store.clone(),
            directory: Arc::clone(&self.directory),
            room,
            batch,
            events: events.then(|| self.frontier.next(now)),
            waiting,
        };
        self.look = Some(tokio::spawn(look.run()));
    }

    /// A look is over: takes in what it brought, and decides when to look next.
    async fn take_in(&mut self, seen: Option<Result<Seen>>) {
        let now = Instant::now();
        let Seen {
            ready,
            events,
            waiting,
        } = match seen {
            Some(Ok(seen)) => seen,
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot look for work; trying again");
                return self.plan.failed(now);
            }
            None => return self.plan.failed(now),
        };
        let mut lanes: Vec<i32> = ready
            .iter()
            .map(|(lease, _)| lease.key.subscription_id)
            .collect();
        lanes.sort_unstable();
        lanes.dedup();
        for ready in ready {
            self.lanes.admit(ready, now);
        }
        for id in lanes {
            self.send_from(id);
        }
        if let Some((any, leased)) = waiting {
            self.plan.saw_waiting(any, leased, now);
        }
        if let Some(events) = events {
            self.frontier.advance(&events, now);
            if events.left_waiting {
                self.plan.left_waiting(now);
            }
            self.mind_sleep(events.taken, events.more, now).await;
        }
    }

    async fn mind_sleep(&mut self, events: u64, more: bool, now: Instant) {
        let Some(presence) = &mut self.presence else {
            return;
        };
        let result = match self
            .plan
            .saw_events(events, more, presence.is_dozing(), now)
        {
            Sleep::AsItIs => Ok(()),
            Sleep::Rouse => presence.rouse().await,
            Sleep::Try => presence
                .doze()
                .await
                .map(|asleep| self.plan.dozed(asleep, Instant::now())),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "the worker's session does not answer");
            self.plan.failed(now);
        }
    }

    /// Starts as many attempts of a lane as it may make at once.
    fn send_from(&mut self, subscription_id: i32) {
        let mut too_short = Vec::new();
        while let Some((lease, terms)) = self.lanes.next(subscription_id) {
            // A request must be over, and recorded, while the lease stands.
            if lease.ends < Instant::now() + self.config.request_timeout + MARGIN {
                self.lanes.finished(subscription_id, Instant::now());
                too_short.push((lease, terms));
                continue;
            }
            let circumstances = Circumstances {
                timestamp: unix_now(),
                chance: fastrand::f64(),
                timeout: self.config.request_timeout,
                cut: self.cut.clone(),
            };
            let finished = self.finished.0.clone();
            tokio::spawn(async move {
                let attempt = attempt::make(lease, &terms, circumstances).await;
                // The receiver lives until every attempt has reported.
                let _ = finished.send(attempt).await;
            });
        }
        self.give_back(too_short);
    }

    /// Attempts are over: their results go to the recorder, and their lanes send the next.
    fn pass_on(&mut self, over: &mut Vec<Attempt>) {
        let now = Instant::now();
        let mut lanes: Vec<i32> = Vec::new();
        for attempt in over.drain(..) {
            let id = attempt.key.subscription_id;
            if self.lanes.finished(id, now) {
                self.plan.has_room(now);
            }
            if !lanes.contains(&id) {
                lanes.push(id);
            }
            // Its channel holds as many as can ever be in flight.
            if self.results.try_send(attempt).is_err() {
                tracing::error!("the recorder is gone");
            }
        }
        for id in lanes {
            self.send_from(id);
        }
    }

    fn make_room(&mut self, (deliveries, bytes): Left) {
        self.lanes.release(deliveries, bytes);
        while let Ok((deliveries, bytes)) = self.left.1.try_recv() {
            self.lanes.release(deliveries, bytes);
        }
    }

    /// Gives up leases whose attempts were never begun. If that fails they end by themselves.
    fn give_back(&self, unbegun: Vec<Ready>) {
        if unbegun.is_empty() {
            return;
        }
        let (store, left) = (self.store.clone(), self.left.0.clone());
        tokio::spawn(async move {
            let bytes = unbegun.iter().map(|(lease, _)| lease.bytes).sum();
            if let Err(error) = give_back(&store, &unbegun).await {
                tracing::warn!(%error, "leases cannot be given back; they will end by themselves");
            }
            let _ = left.send((unbegun.len(), bytes));
        });
    }

    /// Stops in order: claims nothing more, gives back what was not begun, waits for what was, up to
    /// the drain time, has everything recorded, and says goodbye.
    async fn wind_up(mut self) {
        let deadline = tokio::time::Instant::now() + self.config.drain;
        tracing::info!(
            held = self.lanes.deliveries(),
            sending = self.lanes.sending(),
            "stopping"
        );
        self.say_ready(false);
        self.rounds.cancel();
        if let Some(registering) = self.registering.take() {
            registering.abort();
        }
        if let Some(Ok(Ok(seen))) = match self.look.take() {
            Some(look) => tokio::time::timeout_at(deadline, look).await.ok(),
            None => None,
        } {
            self.give_back_by(deadline, seen.ready).await;
        }
        let unbegun = self.lanes.take_unbegun();
        self.give_back_by(deadline, unbegun).await;

        let last_call = deadline + LAST_GRACE;
        while self.lanes.sending() > 0 {
            tokio::select! {
                Some(attempt) = self.finished.1.recv() => self.pass_on(&mut vec![attempt]),
                // Every request now ends at once, as abandoned.
                () = tokio::time::sleep_until(deadline), if !self.cut.is_cancelled() => self.cut.cancel(),
                () = tokio::time::sleep_until(last_call) => break,
            }
        }
        drop(self.results);
        if tokio::time::timeout_at(last_call, &mut self.recorder)
            .await
            .is_err()
        {
            // A statement that is never answered would hold us for ever.
            self.give_up.cancel();
            if tokio::time::timeout(LAST_GRACE, &mut self.recorder)
                .await
                .is_err()
            {
                self.recorder.abort();
            }
        }
        if let Some(presence) = &self.presence {
            let ourselves = [presence.worker_id()];
            let goodbye = self
                .store
                .end_workers(&ourselves, Some(presence.worker_id()));
            if !matches!(tokio::time::timeout(LAST_GRACE, goodbye).await, Ok(Ok(()))) {
                tracing::warn!("could not say goodbye; another worker will notice");
            }
        }
        tracing::info!("stopped");
    }

    async fn give_back_by(&mut self, deadline: tokio::time::Instant, unbegun: Vec<Ready>) {
        let deadline = deadline.max(tokio::time::Instant::now() + LAST_GRACE);
        match tokio::time::timeout_at(deadline, give_back(&self.store, &unbegun)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "leases cannot be given back; others will take them over");
            }
            Err(_) => {
                tracing::warn!("leases are not given back in time; others will take them over");
            }
        }
    }
}

/// One look for work, beside the loop.
struct Look {
    store: Store,
    directory: Arc<Directory>,
    room: Room,
    batch: usize,
    /// How to look for new events, if at all.
    events: Option<Scan>,
    waiting: bool,
}

impl Look {
    async fn run(mut self) -> Result<Seen> {
        let mut leases = Vec::new();
        let mut events = None;
        if let Some(scan) = self.events.take() {
            let begun = Instant::now();
            let ids = if scan.far {
                ANY_ID
            } else {
                ids_near(SystemTime::now())
            };
            let taken = self
                .store
                .take(&self.room, self.batch, &scan.watermark, ids)
                .await?;
            telemetry::taken(taken.events, taken.deliveries, taken.unrouted);
            let too_far = !scan.far && taken.seen > taken.events;
            events = Some(SeenEvents {
                taken: taken.events,
                more: too_far || (taken.seen >= self.batch as u64 && taken.events > 0),
                left_waiting: taken.deliveries > taken.leases.len() as u64,
                too_far,
                scan,
                next: taken.watermark,
                took: begun.elapsed(),
            });
            leases = taken.leases;
            self.room.less(&leases);
        }
        let mut waiting = None;
        if self.waiting && self.room.deliveries > 0 {
            let (any, more) = self.store.claim_waiting(&self.room, LANES_AT_ONCE).await?;
            waiting = Some((any, more.len()));
            leases.extend(more);
        }
        if let Err(error) = self.directory.learn(&leases).await {
            // Without their terms they cannot be sent; nor may they be kept.
            let leases: Vec<_> = leases
                .iter()
                .map(|lease| (lease.key, lease.number))
                .collect();
            self.store.give_back(self.room.worker_id, &leases).await?;
            return Err(error);
        }
        Ok(Seen {
            ready: self.directory.with_terms(leases),
            events,
            waiting,
        })
    }
}

/// Where the next scan of the intake starts, when it must start from the beginning, and how far from
/// now it reaches.
///
/// Below the watermark lies nothing but what another worker had locked and gave back by a rollback,
/// so now and then a sweep starts from the beginning. A sweep may be slow where something keeps
/// vacuum back, so the slower it is the rarer. Only a sweep, or a scan after one that met older events,
/// opens the partitions of days long past.
#[derive(Debug)]
struct Frontier {
    watermark: Watermark,
    far: bool,
    next_sweep: Option<Instant>,
}

/// One scan of the intake.
#[derive(Clone, Debug)]
struct Scan {
    watermark: Watermark,
    /// Reaches events of any age.
    far: bool,
    sweep: bool,
}

impl Default for Frontier {
    fn default() -> Self {
        Self {
            watermark: Watermark::beginning(),
            far: true,
            next_sweep: None,
        }
    }
}

impl Frontier {
    fn next(&self, now: Instant) -> Scan {
        if self.next_sweep.is_some_and(|at| now < at) {
            Scan {
                watermark: self.watermark.clone(),
                far: self.far,
                sweep: false,
            }
        } else {
            Scan {
                watermark: Watermark::beginning(),
                far: true,
                sweep: true,
            }
        }
    }

    fn advance(&mut self, seen: &SeenEvents, now: Instant) {
        if seen.scan.sweep {
            self.next_sweep = Some(now + SWEEP_EVERY.max(seen.took * 100));
        }
        if seen.too_far {
            self.far = true;
            return;
        }
        self.watermark = seen.next.clone();
        self.far = seen.scan.far && seen.more;
    }
}

/// Registers, however often it takes.
async fn register(config: Arc<Config>, name: String, before: Option<i32>) -> Presence {
    let mut wait = Duration::from_millis(100);
    loop {
        match Presence::register(&config, &name, before).await {
            Ok(presence) => return presence,
            Err(error) => tracing::warn!(%error, "cannot register; trying again"),
        }
        tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
        wait = (wait * 2).min(Duration::from_secs(10));
    }
}

async fn give_back(store: &Store, unbegun: &[Ready]) -> Result<()> {
    let mut by_holder: Vec<(i32, Vec<(DeliveryKey, i16)>)> = Vec::new();
    for (lease, _) in unbegun {
        match by_holder
            .iter_mut()
            .find(|(holder, _)| *holder == lease.holder)
        {
            Some((_, leases)) => leases.push((lease.key, lease.number)),
            None => by_holder.push((lease.holder, vec![(lease.key, lease.number)])),
        }
    }
    for (holder, leases) in by_holder {
        store.give_back(holder, &leases).await?;
    }
    Ok(())
}

/// Waits for a task that may not be there; clears its place. `None` if it panicked.
async fn done<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let result = match task {
        Some(handle) => handle.await,
        None => pending().await,
    };
    *task = None;
    result.ok()
}

async fn rings(presence: Option<&Presence>) {
    match presence {
        Some(presence) => presence.bell().notified().await,
        None => pending().await,
    }
}

async fn lost(presence: Option<&Presence>) {
    match presence {
        Some(presence) => presence.lost().cancelled().await,
        None => pending().await,
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// The ids of events made about `now`: a UUID of version 7 begins with its milliseconds.
fn ids_near(now: SystemTime) -> (Uuid, Uuid) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = |time: Duration| Uuid::from_u128(time.as_millis() << 80);
    (at(since.saturating_sub(NEAR)), at(since + NEAR))
}

fn unix_now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Attempts passed on in one go.
const AT_ONCE: usize = 256;
/// Lanes that one look claims from.
const LANES_AT_ONCE: usize = 64;
/// With little room left, looks are at least this far apart.
const LITTLE_ROOM: Duration = Duration::from_millis(5);
/// How much longer than a request its lease must last.
const MARGIN: Duration = Duration::from_secs(5);
const ANY_ID: (Uuid, Uuid) = (Uuid::nil(), Uuid::max());
/// How far from now an event's id may lie for a scan that leaves the long history alone.
const NEAR: Duration = Duration::from_hours(24);
/// How often the intake is scanned from the beginning.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long after the drain time results may still be recorded, and goodbye be said.
const LAST_GRACE: Duration = Duration::from_secs(3);
