//! When to look for work, how much room a look is promised, and what becomes of what it brings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shift;
use crate::Result;
use crate::store::Room;
use crate::telemetry;
use crate::worker::lanes::{Free, Ready};
use crate::worker::look::{Claim, Claimed, Take, Taken};
use crate::worker::plan::Sleep;

impl Shift {
    /// When the next look is due, of those that may be made.
    pub(super) fn next_look_at(&self) -> Option<Instant> {
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
    pub(super) fn claim_if_due(&mut self, now: Instant) {
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
        if self.plan.is_stirred() {
            // What came up may have been due long before.
            self.lane_frontier.sweep_soon();
        }
        telemetry::woke(self.plan.look_at_waiting());
        self.claimed_at = now;
        self.lanes.looking_for_waiting(now);
        let look = Claim {
            store: self.store.clone(),
            directory: Arc::clone(&self.directory),
            catalogue: Arc::clone(&self.shared.catalogue),
            room,
            start: self.lane_frontier.next(now),
        };
        self.promised_to_claiming = Some(free);
        self.claiming = Some(tokio::spawn(look.run()));
    }

    /// Looks for new events: no more than there is room for, if they fan out as they did lately, and some
    /// room is left to what waits.
    pub(super) fn take_if_due(&mut self, now: Instant) {
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
            catalogue: Arc::clone(&self.shared.catalogue),
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
    pub(super) async fn took(&mut self, taken: Option<Result<Taken>>) {
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
    pub(super) fn claimed(&mut self, claimed: Option<Result<Claimed>>) {
        let now = Instant::now();
        self.promised_to_claiming = None;
        let Some(claimed) = succeeded(claimed) else {
            return self.plan.failed_at_waiting(now);
        };
        let (found, took) = (claimed.ready.len(), now.duration_since(self.claimed_at));
        self.lane_frontier.advance(&claimed, now);
        self.plan
            .saw_waiting(claimed.any, found, claimed.due_in, took, now);
        self.admit(claimed.ready, now);
    }

    pub(super) fn admit(&mut self, ready: Vec<Ready>, now: Instant) {
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
}

fn succeeded<T>(look: Option<Result<T>>) -> Option<T> {
    match look {
        Some(Ok(seen)) => return Some(seen),
        Some(Err(error)) => tracing::warn!(%error, "cannot look for work; trying again"),
        None => tracing::error!("a look for work panicked; trying again"),
    }
    None
}

/// With little room left, looks are at least this far apart.
const LITTLE_ROOM: Duration = Duration::from_millis(5);
