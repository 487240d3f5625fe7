//! A worker at work: looks for work, keeps its lanes busy, has every result recorded, stops in order.
//!
//! One task holds all the state. It never waits for a partner, and for Postgres only where nothing
//! else could be done meanwhile: looks, attempts and records run beside it and report back.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Worker;
use super::health::{Health, Hold};
use super::housekeeping::Housekeeping;
use super::lanes::{Free, Lanes, Limits, Ready};
use super::look::{Claim, Claimed, Frontier, Take, Taken};
use super::observer::{Board, Observer};
use super::ordering::{self, Keys};
use super::plan::{Plan, Sleep};
use super::recorder::{Books, Left, Recorder};
use crate::Result;
use crate::attempt::{self, Circumstances, Made};
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::delivery::{Attempt, Lease, OrderingKey, Outcome};
use crate::directory::{Directory, Terms};
use crate::jwks::KeySets;
use crate::masks::{Masks, Seen, Unseen};
use crate::request::Shape;
use crate::spans::Spans;
use crate::store::{Presence, Room, Store};
use crate::telemetry::{self, Dials, Load};

pub(super) struct Shift {
    config: Arc<Config>,
    name: String,
    store: Store,
    directory: Arc<Directory>,
    catalogue: Arc<Catalogue>,
    masks: Arc<Masks>,
    spans: Spans,
    ready: watch::Sender<bool>,
    published: watch::Sender<Option<Arc<KeySets>>>,
    lanes: Lanes,
    plan: Plan,
    frontier: Frontier,
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
    /// Where attempts report. They go on to the recorder, and leave.
    finished: (mpsc::Sender<Over>, mpsc::Receiver<Over>),
    /// Deliveries that were held before, and that are not held again: somebody released them.
    released: (mpsc::UnboundedSender<Ready>, mpsc::UnboundedReceiver<Ready>),
    results: mpsc::Sender<Attempt>,
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
    /// Cancelled when requests under way may not be waited for any longer.
    cut: CancellationToken,
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
        let now = Instant::now();
        let mut shift = Self {
            name: config.name_of_worker(),
            store,
            directory: Arc::clone(&worker.directory),
            catalogue: Arc::clone(&worker.catalogue),
            masks: Arc::clone(&worker.masks),
            spans: worker.spans.clone(),
            ready: worker.ready.clone(),
            published: worker.published.clone(),
            lanes: Lanes::new(limits),
            plan: Plan::new(config.poll_interval, now),
            frontier: Frontier::new(),
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
            finished: mpsc::channel(config.max_in_flight),
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
            let now = Instant::now();
            self.claim_if_due(now);
            self.take_if_due(now);
            let look_at = self.next_look_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = self.finished.1.recv_many(&mut over, AT_ONCE) => {
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
        self.plan.look_for_what_was_dropped(Instant::now());
    }

    fn say_ready(&self, is: bool) {
        telemetry::registered(is);
        self.ready.send_replace(is);
    }

    /// When the next look is due, of those that may be made.
    fn next_look_at(&self) -> Option<Instant> {
        let rest = self.rest_between_looks()?;
        let take_at = self.plan.events_at().max(self.took_at + rest);
        let claim_at = self.plan.waiting_at().max(self.claimed_at + rest);
        let take = self.taking.is_none().then_some(take_at);
        let claim = self.claiming.is_none().then_some(claim_at);
        take.into_iter().chain(claim).min()
    }

    /// How far apart two looks of a kind must be; `None` where none may be made, without an identity, or
    /// without room besides what looks under way were promised.
    fn rest_between_looks(&self) -> Option<Duration> {
        let promises = [&self.promised_to_taking, &self.promised_to_claiming];
        let promises = promises.into_iter().flatten();
        let (deliveries, bytes) = promises.fold(
            (self.lanes.deliveries(), self.lanes.bytes()),
            |(deliveries, bytes), promise| (deliveries + promise.deliveries, bytes + promise.bytes),
        );
        let free = self.config.max_in_flight.saturating_sub(deliveries);
        let has_room = free > 0 && bytes < self.config.max_in_flight_bytes;
        let roomy = free >= self.config.max_in_flight / 8;
        let rest = if roomy { Duration::ZERO } else { LITTLE_ROOM };
        (self.presence.is_some() && has_room).then_some(rest)
    }

    /// Whether a look that is due at this time, the last of whose kind was at that, is to be made now.
    fn is_due(&self, at: Instant, last: Instant, now: Instant) -> bool {
        let rested = |rest| last + rest <= now;
        at <= now && self.rest_between_looks().is_some_and(rested)
    }

    /// Looks for waiting deliveries. Where events come, it leaves most of the room to those that may come meanwhile; else a quarter.
    fn claim_if_due(&mut self, now: Instant) {
        if self.claiming.is_some() || !self.is_due(self.plan.waiting_at(), self.claimed_at, now) {
            return;
        }
        self.give_back_stuck(now);
        let mut free = self.lanes.free(self.promised_to_taking.as_ref(), now);
        if self.taking.is_none() {
            let max_body = self.config.max_body;
            free = if self.plan.events_are_rare(now) {
                free.three_quarters(max_body)
            } else {
                free.quarter(max_body)
            };
        }
        let Some(room) = self.room(&free) else {
            return;
        };
        telemetry::woke(self.plan.look_at_waiting());
        self.claimed_at = now;
        self.lanes.looking_for_waiting(now);
        let look = Claim {
            store: self.store.clone(),
            directory: Arc::clone(&self.directory),
            catalogue: Arc::clone(&self.catalogue),
            room,
        };
        self.promised_to_claiming = Some(free);
        self.claiming = Some(tokio::spawn(look.run()));
    }

    /// Looks for new events: no more than there is room for, if they fan out as they did lately, and some
    /// room is left to what waits.
    fn take_if_due(&mut self, now: Instant) {
        if self.taking.is_some() || !self.is_due(self.plan.events_at(), self.took_at, now) {
            return;
        }
        self.give_back_stuck(now);
        let mut free = self.lanes.free(self.promised_to_claiming.as_ref(), now);
        if self.claiming.is_none() {
            free = free.three_quarters(self.config.max_body);
        }
        let batch = match free.events {
            Some(0) if self.plan.hold_events(now) => return,
            Some(0) | None => self.config.batch,
            Some(events) => events.min(self.config.batch),
        };
        let Some(room) = self.room(&free) else {
            return;
        };
        telemetry::woke(self.plan.look_at_events());
        self.took_at = now;
        let look = Take {
            store: self.store.clone(),
            directory: Arc::clone(&self.directory),
            catalogue: Arc::clone(&self.catalogue),
            keys: self.keys.clone(),
            batch: batch.min(free.deliveries / self.fan_out).max(1),
            room,
            scan: self.frontier.next(now),
        };
        self.promised_to_taking = Some(free);
        self.taking = Some(tokio::spawn(look.run()));
    }

    fn give_back_stuck(&mut self, now: Instant) {
        let stuck = self.lanes.take_stuck(now);
        self.give_back(stuck);
    }

    fn room(&self, free: &Free) -> Option<Room> {
        Some(Room {
            worker_id: self.presence.as_ref()?.worker_id(),
            lease: self.config.lease,
            deliveries: free.deliveries,
            bytes: free.bytes,
            max_body: self.config.max_body,
            slots: free.slots.clone(),
            slots_of_others: free.slots_of_others,
        })
    }

    /// A look for new events is over: takes in what it brought, and decides when to look next.
    async fn took(&mut self, taken: Option<Result<Taken>>) {
        let now = Instant::now();
        self.promised_to_taking = None;
        let Some(taken) = succeeded(taken) else {
            return self.plan.failed_at_events(now);
        };
        self.frontier.advance(&taken, now);
        if taken.left_waiting {
            self.plan.left_waiting(now);
        }
        if taken.events > 0 {
            let fan_out = taken.deliveries.div_ceil(taken.events).max(1);
            self.fan_out = usize::try_from(fan_out).unwrap_or(usize::MAX);
        }
        let (events, wanted, more) = (taken.events, taken.deliveries > 0, taken.more);
        self.lanes.took(events, &taken.ready, now);
        self.admit(taken.ready, now);
        self.mind_sleep((events, wanted), more, now).await;
    }

    /// A look for waiting deliveries is over.
    fn claimed(&mut self, claimed: Option<Result<Claimed>>) {
        let now = Instant::now();
        self.promised_to_claiming = None;
        let Some(claimed) = succeeded(claimed) else {
            return self.plan.failed_at_waiting(now);
        };
        let (found, took) = (claimed.ready.len(), now.duration_since(self.claimed_at));
        self.plan
            .saw_waiting(claimed.any, found, claimed.due_in, took, now);
        self.admit(claimed.ready, now);
    }

    fn admit(&mut self, ready: Vec<Ready>, now: Instant) {
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
    }

    async fn mind_sleep(&mut self, events: (u64, bool), more: bool, now: Instant) {
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
            self.plan.failed_at_events(now);
        }
    }

    /// Starts as many attempts of a lane as it may make at once, on the terms of today.
    fn send_from(&mut self, subscription_id: i32) {
        let today = self.directory.terms(subscription_id);
        let (mut unfit, mut late) = (Vec::new(), Vec::new());
        while let Some((lease, terms)) = self.lanes.next(subscription_id, Instant::now()) {
            let terms = today.clone().unwrap_or(terms);
            if lease.expires.is_some_and(|at| at <= Instant::now()) {
                self.lanes.finished(subscription_id, Instant::now());
                late.push((lease, terms));
                continue;
            }
            let timeout = self.timeout(&terms);
            if !self.may_begin(&lease, &terms, timeout) || lacks_context(&lease, &terms) {
                self.lanes.finished(subscription_id, Instant::now());
                unfit.push((lease, terms));
                continue;
            }
            let circumstances = Circumstances {
                timestamp: unix_now(),
                chance: fastrand::f64(),
                timeout,
                cut: self.cut.clone(),
                spans: self.spans.clone(),
            };
            let (catalogue, masks) = (Arc::clone(&self.catalogue), Arc::clone(&self.masks));
            let finished = self.finished.0.clone();
            tokio::spawn(async move {
                let over = match look_at(&catalogue, &masks, &lease, &terms).await {
                    // Looking took so long that another worker could begin before this one is over.
                    Ok(_) if !lasts(&lease, timeout, Instant::now()) => {
                        Over::Unbegun((lease, terms))
                    }
                    Ok(seen) => match attempt::make(lease, seen, &terms, circumstances).await {
                        Made::Attempt(attempt) => Over::Attempted(*attempt),
                        Made::NotYet(lease) => Over::Unbegun((*lease, terms)),
                    },
                    // Nobody would look for the answer to a test in quarantine.
                    Err(why) if lease.key.is_test() => {
                        Over::Attempted(attempt::refused(&lease, &terms, why))
                    }
                    Err(why) => Over::Broken((lease, terms), why),
                };
                // The receiver lives until every attempt has reported.
                let _ = finished.send(over).await;
            });
        }
        self.give_back(unfit);
        self.expire(late);
    }

    /// A request must be over, and recorded, while the lease stands; what was paused meanwhile waits; and what was claimed in
    /// keeping with a rate counts against it for a moment only.
    fn may_begin(&self, lease: &Lease, terms: &Terms, timeout: Duration) -> bool {
        let now = Instant::now();
        let claimed = lease.ends.checked_sub(self.config.lease);
        let is_prompt = terms
            .send_within
            .is_none_or(|grace| claimed.is_some_and(|at| now <= at + grace));
        terms.active && is_prompt && lasts(lease, timeout, now)
    }

    /// How long one request of a subscription may take: its own timeout, as far as a lease allows.
    fn timeout(&self, terms: &Terms) -> Duration {
        let longest = self.config.lease.saturating_sub(2 * MARGIN);
        terms
            .timeout
            .unwrap_or(self.config.request_timeout)
            .min(longest)
    }

    /// Lets go first whatever can, and takes along the attempts that ended by then: a round of the loop costs the same for one as for
    /// many.
    async fn gather(&mut self, over: &mut Vec<Over>) {
        tokio::task::yield_now().await;
        while over.len() < AT_ONCE
            && let Ok(another) = self.finished.1.try_recv()
        {
            over.push(another);
        }
    }

    /// Attempts are over: their results go to the recorder, and their lanes send the next.
    fn pass_on(&mut self, over: &mut Vec<Over>) {
        let now = Instant::now();
        let (mut lanes, mut broken, mut unbegun) = (Vec::new(), Vec::new(), Vec::new());
        for over in over.drain(..) {
            let id = over.subscription_id();
            if self.lanes.finished(id, now) {
                self.plan.has_room(now);
            }
            if !lanes.contains(&id) {
                lanes.push(id);
            }
            match over {
                // Its channel holds as many as can ever be in flight.
                Over::Attempted(attempt) => {
                    self.lanes.heed(&attempt, now);
                    let is_kept_out = attempt.report.outcome == Outcome::Blocked;
                    if let Some(wait) = attempt.ruling.hold.filter(|_| is_kept_out) {
                        unbegun.extend(self.rest(id, wait, now));
                    }
                    if self.results.try_send(attempt).is_err() {
                        tracing::error!("the recorder is gone");
                    }
                }
                Over::Broken(ready, why) => broken.push((ready, why)),
                Over::Unbegun(ready) => {
                    unbegun.push(ready);
                    unbegun.extend(self.rest(id, NOT_YET, now));
                }
            }
        }
        self.quarantine(broken);
        self.give_back(unbegun);
        for id in lanes {
            self.send_from(id);
        }
    }

    /// Has deliveries held that cannot be sent as they are; those that were released before come back. If that fails, their
    /// leases end by themselves.
    fn quarantine(&self, broken: Vec<(Ready, String)>) {
        if broken.is_empty() {
            return;
        }
        let (store, left) = (self.store.clone(), self.left.0.clone());
        let (come_back, risen) = (self.released.0.clone(), Arc::clone(&self.risen));
        self.errands.spawn(async move {
            let told: Vec<_> = broken
                .iter()
                .map(|((lease, _), why)| (lease, why.as_str()))
                .collect();
            let released = store.hold(&told).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "deliveries cannot be quarantined; their leases will end by themselves");
                Vec::new()
            });
            telemetry::quarantined(&told, &released);
            // Where one of them was to be a breaker's probe, another is due.
            risen.notify_one();
            let bytes = broken.iter().map(|((lease, _), _)| lease.bytes).sum();
            // They are counted anew when they come back.
            let _ = left.send((broken.len(), bytes));
            for (place, ((mut lease, terms), _)) in broken.into_iter().enumerate() {
                if released.contains(&place) {
                    lease.schema_revision = None;
                    lease.is_released = true;
                    let _ = come_back.send((lease, terms));
                }
            }
        });
    }

    /// Leaves an endpoint alone for a while: what is in hand for it goes back; or goes on with it.
    fn hold(&mut self, subscription_id: i32, wait: Duration) {
        let now = Instant::now();
        let unbegun = self.lanes.hold(subscription_id, wait, now);
        self.give_back(unbegun);
        if wait.is_zero() {
            self.plan.has_room(now);
        }
        self.send_from(subscription_id);
    }

    /// Claims nothing for a lane for a while, and returns what is in hand for it: no other worker need know.
    fn rest(&mut self, subscription_id: i32, wait: Duration, now: Instant) -> Vec<Ready> {
        let wait = wait.min(LONGEST_REST);
        let Some(unbegun) = self.lanes.rest(subscription_id, wait, now) else {
            return Vec::new();
        };
        let risen = Arc::clone(&self.risen);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            risen.notify_one();
        });
        unbegun
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
        self.errands.spawn(async move {
            let bytes = unbegun.iter().map(|(lease, _)| lease.bytes).sum();
            if let Err(error) = give_back(&store, &unbegun).await {
                tracing::warn!(%error, "leases cannot be given back; they will end by themselves");
            }
            let _ = left.send((unbegun.len(), bytes));
        });
    }

    /// Ends deliveries that are not to be sent any more. If that fails, their leases end by themselves.
    fn expire(&self, late: Vec<Ready>) {
        if late.is_empty() {
            return;
        }
        let (store, left, keys) = (self.store.clone(), self.left.0.clone(), self.keys.clone());
        let (health, risen) = (self.health.clone(), Arc::clone(&self.risen));
        self.errands.spawn(async move {
            let leases: Vec<&Lease> = late.iter().map(|(lease, _)| lease).collect();
            match store.expire(&leases).await {
                Ok(()) => telemetry::finished("EXPIRED", leases.len() as u64),
                Err(error) => {
                    tracing::warn!(%error, "deliveries cannot be ended; their leases will end by themselves");
                }
            }
            let over = late.iter().filter_map(|(lease, _)| {
                Some(OrderingKey {
                    subscription_id: lease.key.subscription_id,
                    ordering_key: lease.ordering_key.clone()?,
                })
            });
            keys.go_on(over.collect());
            // Where one of them was to be a breaker's probe, another is due.
            if let Some((lease, _)) = late.first() {
                health.free(lease.key.subscription_id);
            }
            risen.notify_one();
            let bytes = late.iter().map(|(lease, _)| lease.bytes).sum();
            let _ = left.send((late.len(), bytes));
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
        self.end_rounds();
        if let Some(registering) = self.registering.take() {
            registering.abort();
        }
        // What a look under way brings must be given back, however short the drain.
        let patience = deadline.max(tokio::time::Instant::now() + LAST_GRACE);
        if let Some(taking) = self.taking.take()
            && let Ok(Ok(Ok(taken))) = tokio::time::timeout_at(patience, taking).await
        {
            self.give_back_by(deadline, taken.ready).await;
        }
        if let Some(claiming) = self.claiming.take()
            && let Ok(Ok(Ok(claimed))) = tokio::time::timeout_at(patience, claiming).await
        {
            self.give_back_by(deadline, claimed.ready).await;
        }
        let unbegun = self.lanes.take_unbegun();
        self.give_back_by(deadline, unbegun).await;

        let last_call = deadline + LAST_GRACE;
        while self.lanes.sending() > 0 {
            tokio::select! {
                Some(over) = self.finished.1.recv() => self.pass_on(&mut vec![over]),
                // Every request now ends at once, as abandoned.
                () = tokio::time::sleep_until(deadline), if !self.cut.is_cancelled() => self.cut.cancel(),
                () = tokio::time::sleep_until(last_call) => break,
            }
        }
        self.finish_errands(last_call).await;
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
        self.all_noted.cancel();
        if tokio::time::timeout_at(last_call, &mut self.weighing)
            .await
            .is_err()
        {
            self.weighing.abort();
        }
        // Whoever goes on here has no other way to learn of it soon.
        self.keys.end();
        if tokio::time::timeout_at(last_call, &mut self.ordering)
            .await
            .is_err()
        {
            self.ordering.abort();
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

    /// Waits for what is being given back or quarantined, and gives back what came back from quarantine.
    async fn finish_errands(&mut self, deadline: tokio::time::Instant) {
        self.errands.close();
        if tokio::time::timeout_at(deadline, self.errands.wait())
            .await
            .is_err()
        {
            tracing::warn!("leases are still being given back; others will take them over");
        }
        let mut released = Vec::new();
        while let Ok(ready) = self.released.1.try_recv() {
            released.push(ready);
        }
        self.give_back_by(deadline, released).await;
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

/// What became of a delivery in hand.
enum Over {
    /// An attempt was made.
    Attempted(Attempt),
    /// None may be: the payload breaks its schema, or its mask misses an id, in this way.
    Broken(Ready, String),
    /// None may be yet.
    Unbegun(Ready),
}

impl Over {
    fn subscription_id(&self) -> i32 {
        match self {
            Self::Attempted(attempt) => attempt.key.subscription_id,
            Self::Broken((lease, _), _) | Self::Unbegun((lease, _)) => lease.key.subscription_id,
        }
    }
}

/// Whether a lease lasts for one request that begins now, and for what follows.
fn lasts(lease: &Lease, timeout: Duration, now: Instant) -> bool {
    now + timeout + MARGIN <= lease.ends
}

/// Whether it was leased on terms that told of less than those of today, so that what they tell was not read.
fn lacks_context(lease: &Lease, terms: &Terms) -> bool {
    let wants_context = |shape: &Shape| shape.wants_context;
    lease.context.is_none()
        && lease.revision < terms.revision
        && terms.shape.as_ref().is_ok_and(wants_context)
}

/// What a partner may see of a delivery's event; an error where a person must see to it before anything is sent.
async fn look_at(
    catalogue: &Catalogue,
    masks: &Masks,
    lease: &Lease,
    terms: &Terms,
) -> Result<Result<Seen, Unseen>, String> {
    if let Some(why) = catalogue.violation(lease).await {
        return Err(why);
    }
    match masks.seen(lease, terms).await {
        // Whoever released it wants it sent, not held again: the attempt says what is missing, and another follows.
        Err(Unseen::Held(why)) if !lease.is_released => Err(why),
        seen => Ok(seen),
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

async fn give_back(store: &Store, unbegun: &[Ready]) -> Result<()> {
    if unbegun.is_empty() {
        return Ok(());
    }
    let leases: Vec<&Lease> = unbegun.iter().map(|(lease, _)| lease).collect();
    store.give_back(&leases).await
}

fn succeeded<T>(look: Option<Result<T>>) -> Option<T> {
    match look {
        Some(Ok(seen)) => return Some(seen),
        Some(Err(error)) => tracing::warn!(%error, "cannot look for work; trying again"),
        None => tracing::error!("a look for work panicked; trying again"),
    }
    None
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

fn unix_now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// How often it is counted how many lanes are full.
const COUNT_EVERY: Duration = Duration::from_millis(200);
/// Deliveries to an event, of which nothing is known yet. Whatever finds no room waits in the queue first: better to take a few events,
/// and soon as many as there is room for, than thousands of deliveries too many.
const UNKNOWN_FAN_OUT: usize = 64;
/// Attempts passed on in one go.
const AT_ONCE: usize = 256;
/// With little room left, looks are at least this far apart.
const LITTLE_ROOM: Duration = Duration::from_millis(5);
/// How long a lane rests at most: what stood in its way may be gone by then.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// How long a lane rests whose deliveries may not begin yet.
const NOT_YET: Duration = Duration::from_secs(1);
/// How much longer than a request its lease must last.
const MARGIN: Duration = Duration::from_secs(5);
/// How long after the drain time results may still be recorded, and goodbye be said.
const LAST_GRACE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;
    use crate::delivery::Context;
    use crate::directory;
    use crate::store::StoredShape;

    #[test]
    fn a_lease_lasts_for_a_request_and_for_its_recording() {
        let (lease, timeout) = (leased(1), Duration::from_secs(20));
        let latest = lease.ends.checked_sub(MARGIN + timeout).unwrap();
        assert!(lasts(&lease, timeout, latest));
        assert!(!lasts(&lease, timeout, latest + Duration::from_millis(1)));
    }

    #[test]
    fn what_was_leased_before_the_terms_told_of_more_is_not_sent_without_it() {
        let telling = telling(2, r#"{"data":"{{data}}","metadata":"{{metadata}}"}"#, false);
        assert!(lacks_context(&leased(1), &telling));
        // Leased since: there is none.
        assert!(!lacks_context(&leased(2), &telling));
        let with = Lease {
            context: Some(Box::new(Context::default())),
            ..leased(1)
        };
        assert!(!lacks_context(&with, &telling));
    }

    #[test]
    fn what_tells_of_no_more_than_the_event_is_sent_as_it_is() {
        let plain = r#"{"type":"{{type}}","data":"{{data}}"}"#;
        assert!(!lacks_context(&leased(1), &telling(2, plain, false)));
        // The trace context is always read.
        assert!(!lacks_context(&leased(1), &telling(2, plain, true)));
        assert!(!lacks_context(&leased(1), &Terms::nowhere(7)));
    }

    fn telling(revision: i32, template: &str, pass_trace: bool) -> Terms {
        let stored = StoredShape {
            template: template.to_owned(),
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            values: BTreeMap::new(),
            signatures: vec!["standard_v1".to_owned()],
            header_prefix: None,
            user_agent: None,
            pass_trace,
        };
        let mut terms = Terms::nowhere(7);
        terms.revision = revision;
        terms.shape = directory::shape(&stored, Vec::new());
        terms
    }

    fn leased(revision: i32) -> Lease {
        Lease::fresh(7, revision)
    }
}
