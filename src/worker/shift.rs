//! A worker at work: looks for work, keeps its lanes busy, has every result recorded, stops in order.
//!
//! One task holds all the state. It never waits for a partner, and for Postgres only where nothing
//! else could be done meanwhile: looks, attempts and records run beside it and report back.

mod errands;
mod looking;
mod sending;
mod winding_up;

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::sending::{AT_ONCE, Over, Shared};
use super::Worker;
use super::health::{Health, Hold};
use super::housekeeping::Housekeeping;
use super::lanes::{Free, Lanes, Limits, Ready};
use super::look::{Claimed, Frontier, LaneFrontier, Taken};
use super::observer::{Board, Observer};
use super::ordering::{self, Keys};
use super::plan::Plan;
use super::recorder::{Books, Left, Recorder};
use crate::Result;
use crate::config::Config;
use crate::delivery::Attempt;
use crate::directory::Directory;
use crate::jwks::KeySets;
use crate::store::{Presence, Store};
use crate::telemetry::{self, Dials, Load};

pub(super) struct Shift {
    config: Arc<Config>,
    name: String,
    store: Store,
    directory: Arc<Directory>,
    shared: Arc<Shared>,
    ready: watch::Sender<bool>,
    published: watch::Sender<Option<Arc<KeySets>>>,
    lanes: Lanes,
    plan: Plan,
    frontier: Frontier,
    lane_frontier: LaneFrontier,
    presence: Option<Presence>,
    /// The way back after the presence was lost.
    registering: Option<JoinHandle<Presence>>,
    /// Ends the housekeeping that goes with the presence.
    rounds: CancellationToken,
    /// Where figures of the database are shown, while this worker is the one that reads them.
    board: Board,
    /// Where it is shown what is held, how many lanes were full, and when that was counted.
    dials: Dials,
    lanes_full: usize,
    counted_at: Instant,
    /// The looks under way, for new events and for waiting deliveries, and the room each was promised.
    taking: Option<JoinHandle<Result<Taken>>>,
    claiming: Option<JoinHandle<Result<Claimed>>>,
    promised_to_taking: Option<Free>,
    promised_to_claiming: Option<Free>,
    took_at: Instant,
    claimed_at: Instant,
    /// Rings when a worker is gone, whose unfinished look may have had events in hand.
    dropped: Arc<Notify>,
    /// Deliveries to an event, lately; before any was seen, a guess.
    fan_out: usize,
    /// What attempts report. They go on to the recorder, and leave.
    finished: mpsc::Receiver<Over>,
    /// Deliveries that were held before, and that are not held again: somebody released them.
    released: (mpsc::UnboundedSender<Ready>, mpsc::UnboundedReceiver<Ready>),
    results: mpsc::Sender<Box<Attempt>>,
    health: Health,
    weighing: JoinHandle<()>,
    /// Cancelled when nothing more is noted that is to be weighed.
    all_noted: CancellationToken,
    /// Endpoints that nothing is to be sent to for a while.
    holds: mpsc::UnboundedReceiver<Hold>,
    left: (mpsc::UnboundedSender<Left>, mpsc::UnboundedReceiver<Left>),
    recorder: JoinHandle<()>,
    books: Books,
    /// Where ordering keys are told that may go on, who sees to it, and what rings when something came up.
    keys: Keys,
    ordering: JoinHandle<()>,
    risen: Arc<Notify>,
    /// What gives leases back or has them held, beside the loop.
    errands: TaskTracker,
    /// Cancelled when results in hand may not be held any longer.
    give_up: CancellationToken,
}

impl Shift {
    pub(super) fn begin(worker: &Worker, presence: Presence) -> Self {
        let config = Arc::clone(&worker.config);
        let (results, attempts) = mpsc::channel(config.max_in_flight);
        let left = mpsc::unbounded_channel();
        let give_up = CancellationToken::new();
        let (store, batch) = (worker.store.clone(), config.batch);
        let ((keys, calls), risen) = (Keys::new(), Arc::new(Notify::new()));
        let ordering = tokio::spawn(ordering::run(store.clone(), calls, Arc::clone(&risen)));
        let (hold, holds) = mpsc::unbounded_channel();
        let (health, all_noted) = (Health::new(hold), CancellationToken::new());
        let weighing = tokio::spawn(health.clone().run(
            store.clone(),
            Arc::clone(&worker.directory),
            all_noted.clone(),
        ));
        let books = Books {
            store: store.clone(),
            directory: Arc::clone(&worker.directory),
            keys: keys.clone(),
            ledger: Arc::clone(&worker.ledger),
        };
        let recorder = Recorder {
            books: books.clone(),
            health: health.clone(),
            batch,
            give_up: give_up.clone(),
        };
        let recorder = tokio::spawn(recorder.run(attempts, left.0.clone()));
        let limits = Limits {
            deliveries: config.max_in_flight,
            bytes: config.max_in_flight_bytes,
            concurrency: config.endpoint_concurrency,
            free: config.max_in_flight,
        };
        let (report, finished) = mpsc::channel(config.max_in_flight);
        let shared = Arc::new(Shared {
            catalogue: Arc::clone(&worker.catalogue),
            masks: Arc::clone(&worker.masks),
            spans: worker.spans.clone(),
            finished: report,
            cut: CancellationToken::new(),
        });
        let now = Instant::now();
        let mut shift = Self {
            name: config.name_of_worker(),
            store,
            directory: Arc::clone(&worker.directory),
            shared,
            ready: worker.ready.clone(),
            published: worker.published.clone(),
            lanes: Lanes::new(limits),
            plan: Plan::new(config.poll_interval, now),
            frontier: Frontier::new(),
            lane_frontier: LaneFrontier::default(),
            presence: None,
            registering: None,
            rounds: CancellationToken::new(),
            board: Board(worker.figures.clone()),
            dials: Dials::new(),
            lanes_full: 0,
            counted_at: now,
            taking: None,
            claiming: None,
            promised_to_taking: None,
            promised_to_claiming: None,
            took_at: now,
            claimed_at: now,
            dropped: Arc::new(Notify::new()),
            fan_out: UNKNOWN_FAN_OUT,
            finished,
            released: mpsc::unbounded_channel(),
            results,
            health,
            weighing,
            all_noted,
            holds,
            left,
            recorder,
            books,
            keys,
            ordering,
            risen,
            errands: TaskTracker::new(),
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
            let now = Instant::now();
            self.claim_if_due(now);
            self.take_if_due(now);
            let look_at = self.next_look_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = self.finished.recv_many(&mut over, AT_ONCE) => {
                    self.gather(&mut over).await;
                    self.pass_on(&mut over);
                }
                Some(left) = self.left.1.recv() => self.make_room(left),
                Some((id, wait)) = self.holds.recv() => self.hold(id, wait),
                Some(ready) = self.released.1.recv() => self.admit(vec![ready], now),
                taken = done(&mut self.taking) => self.took(taken).await,
                claimed = done(&mut self.claiming) => self.claimed(claimed),
                () = rings(self.presence.as_ref()) => self.plan.rang(Instant::now()),
                () = self.risen.notified() => self.plan.stirred(Instant::now()),
                () = self.dropped.notified() => self.look_for_what_was_dropped(),
                () = lost(self.presence.as_ref()) => self.clock_out(),
                presence = done(&mut self.registering) => if let Some(presence) = presence { self.clock_in(presence) },
                () = due(look_at) => {}
            }
            self.show_load();
        }
        self.wind_up().await;
    }

    /// Shows what is held. Lanes are counted a few times a second, since there may be thousands.
    fn show_load(&mut self) {
        let now = Instant::now();
        if now >= self.counted_at + COUNT_EVERY {
            (self.counted_at, self.lanes_full) = (now, self.lanes.full());
        }
        self.dials.show(Load {
            deliveries: self.lanes.deliveries(),
            bytes: self.lanes.bytes(),
            requests: self.lanes.sending(),
            lanes_full: self.lanes_full,
            connections: self.store.connections(),
        });
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
            books: self.books.clone(),
            config: Arc::clone(&self.config),
            worker_id: presence.worker_id(),
            dropped: Arc::clone(&self.dropped),
            health: self.health.clone(),
            published: self.published.clone(),
            stop: self.rounds.clone(),
        };
        tokio::spawn(housekeeping.run());
        let observer = Observer {
            store: self.store.clone(),
            config: Arc::clone(&self.config),
            lookout: presence.lookout(),
            board: self.board.clone(),
            stop: self.rounds.clone(),
        };
        tokio::spawn(observer.run());
        self.registering = None;
        self.presence = Some(presence);
        self.plan = Plan::new(self.config.poll_interval, Instant::now());
        self.frontier.begin_anew();
        self.lane_frontier = LaneFrontier::default();
        self.keys.sweep();
        self.say_ready(true);
    }

    /// The session is gone and the identity with it: others may take over our leases, so nothing more
    /// is claimed until we are registered anew. What is under way goes on, and counts if it is
    /// recorded before somebody has taken it over.
    fn clock_out(&mut self) {
        tracing::warn!("the worker's session was lost; registering anew");
        let before = self.presence.take().map(|presence| presence.worker_id());
        self.end_rounds();
        self.say_ready(false);
        let (config, name) = (Arc::clone(&self.config), self.name.clone());
        let store = self.store.clone();
        self.registering = Some(tokio::spawn(register(store, config, name, before)));
    }

    fn end_rounds(&self) {
        self.rounds.cancel();
        self.board.wipe();
    }

    /// A worker is gone. If it died in the middle of a look, the rollback gave back what it had locked,
    /// which lies below everybody's watermark.
    fn look_for_what_was_dropped(&mut self) {
        self.frontier.sweep_soon();
        self.lane_frontier.sweep_soon();
        self.plan.look_for_what_was_dropped(Instant::now());
    }

    fn say_ready(&self, is: bool) {
        telemetry::registered(is);
        self.ready.send_replace(is);
    }
}

/// Registers, however often it takes.
async fn register(
    store: Store,
    config: Arc<Config>,
    name: String,
    before: Option<i32>,
) -> Presence {
    let mut wait = Duration::from_millis(100);
    loop {
        match super::come_in(&store, &config, &name, before).await {
            Ok(presence) => return presence,
            Err(error) => tracing::warn!(%error, "cannot register; trying again"),
        }
        tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
        wait = (wait * 2).min(Duration::from_secs(10));
    }
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

/// How often it is counted how many lanes are full.
const COUNT_EVERY: Duration = Duration::from_millis(200);
/// Deliveries to an event, of which nothing is known yet. Whatever finds no room waits in the queue first: better to take a few events,
/// and soon as many as there is room for, than thousands of deliveries too many.
const UNKNOWN_FAN_OUT: usize = 64;
