//! What this worker holds of each subscription, and how much more it can take on.
//!
//! A lane is a bulkhead: its own queue, its own cap on requests at once, its own share of the room.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::delivery::{Attempt, Lease, Outcome};
use crate::directory::Terms;

/// A delivery that is ours to attempt, and on what terms.
pub(super) type Ready = (Lease, Arc<Terms>);

/// All lanes, and the room that they share.
#[derive(Debug)]
pub(super) struct Lanes {
    by_subscription: HashMap<i32, Lane>,
    limits: Limits,
    deliveries: usize,
    bytes: usize,
    sending: usize,
    /// Which look for new events was the last that brought any, and how many there were.
    look: u64,
    events: u64,
}

/// The bounds that hold over all lanes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Deliveries leased at once.
    pub(super) deliveries: usize,
    /// Payload bytes held at once.
    pub(super) bytes: usize,
    /// Requests to one endpoint at once.
    pub(super) concurrency: usize,
    /// Deliveries that there is room for. For [`Lanes`] to say.
    pub(super) free: usize,
}

/// How much more fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Free {
    pub(super) deliveries: usize,
    pub(super) bytes: usize,
    pub(super) slots: Vec<(i32, usize)>,
    pub(super) slots_of_others: usize,
    /// How many new events may be taken, or `None` for as many as there are. An event whose lane is
    /// full must be written down as waiting and claimed again; a brisk lane will have room in a
    /// moment, so it is worth that moment to the others too. Where no lane is known yet, the first
    /// events may all be for one.
    pub(super) events: Option<usize>,
}

#[derive(Debug)]
struct Lane {
    ready: VecDeque<Ready>,
    sending: usize,
    /// Requests at once, by the subscription's own terms.
    concurrency: Option<usize>,
    /// Failures in a row, and how many of them open its circuit breaker.
    run: u32,
    breaks_at: Option<u32>,
    /// It has rates: what is claimed must be on its way at once.
    is_paced: bool,
    pace: Pace,
    /// Nothing is sent before: it asked for that, or its breaker is open; or what came of the last attempts is being weighed.
    held_until: Option<Instant>,
    weighing_until: Option<Instant>,
    throttle: Throttle,
    /// It was full when we last looked for waiting deliveries, so it was left out.
    left_out: bool,
    /// Which look for new events was the last that brought it some, and how many.
    look: u64,
    events: u64,
}

impl Lanes {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            by_subscription: HashMap::new(),
            limits: Limits {
                free: usize::MAX,
                ..limits
            },
            deliveries: 0,
            bytes: 0,
            sending: 0,
            look: 0,
            events: 0,
        }
    }

    /// A look found so many new events, of which these deliveries found room here, and are to be admitted.
    pub(super) fn took(&mut self, events: u64, ready: &[Ready], now: Instant) {
        if ready.is_empty() {
            return;
        }
        (self.look, self.events) = (self.look + 1, events);
        for (lease, _) in ready {
            let lanes = &mut self.by_subscription;
            let lane = lanes.entry(lease.key.subscription_id);
            let lane = lane.or_insert_with(|| Lane::new(now));
            if lane.look != self.look {
                (lane.look, lane.events) = (self.look, 0);
            }
            lane.events += 1;
        }
    }

    /// Takes a delivery in. It counts against the room until [`release`](Self::release).
    pub(super) fn admit(&mut self, ready: Ready, now: Instant) {
        self.deliveries += 1;
        self.bytes += ready.0.bytes;
        let id = ready.0.key.subscription_id;
        let lane = self
            .by_subscription
            .entry(id)
            .or_insert_with(|| Lane::new(now));
        lane.concurrency = ready.1.concurrency;
        lane.is_paced = ready.1.send_within.is_some();
        lane.breaks_at = ready.1.breaker_failures;
        lane.ready.push_back(ready);
    }

    /// The next delivery of a lane that may be sent now. Where room is scarce, one that has finished nothing lately may send no more
    /// than it may hold: what hangs cannot be given back.
    pub(super) fn next(&mut self, subscription_id: i32, now: Instant) -> Option<Ready> {
        let limits = self.limits_now();
        let lane = self.by_subscription.get_mut(&subscription_id)?;
        let concurrency = lane.at_once(limits);
        let most = if lane.pace.recent(now) > 0 {
            concurrency
        } else {
            concurrency.min(limits.fair_share(lane.held()))
        };
        if lane.sending >= most || lane.is_held(now) {
            return None;
        }
        let ready = lane.ready.pop_front()?;
        lane.sending += 1;
        self.sending += 1;
        Some(ready)
    }

    /// A request of this lane is over: the lane may send another. True where it was left out of the
    /// last look for waiting deliveries, and now has room that is worth a look.
    pub(super) fn finished(&mut self, subscription_id: i32, now: Instant) -> bool {
        let limits = self.limits_now();
        let Some(lane) = self.by_subscription.get_mut(&subscription_id) else {
            return false;
        };
        lane.sending = lane.sending.saturating_sub(1);
        self.sending = self.sending.saturating_sub(1);
        lane.pace.count(now);
        lane.left_out && lane.worth_taking(0, limits, now) > 0
    }

    /// What an attempt means for the next: how many requests the endpoint gets at once, and whether it gets any until what came
    /// of them is weighed.
    pub(super) fn heed(&mut self, attempt: &Attempt, now: Instant) {
        let limits = self.limits;
        if let Some(lane) = self.by_subscription.get_mut(&attempt.key.subscription_id) {
            let most = lane.concurrency(limits);
            match attempt.report.http_status {
                Some(status) if BUSY.contains(&status) => {
                    lane.throttle
                        .slow_down(lane.sending + 1, attempt.began, now);
                }
                _ if attempt.report.outcome == Outcome::Accepted => lane.throttle.speed_up(most),
                _ => {}
            }
            if attempt.report.outcome.is_failure() {
                lane.run += 1;
                if lane.breaks_at.is_some_and(|failures| lane.run >= failures) {
                    lane.weighing_until = Some(now + TO_WEIGH);
                    lane.run = 0;
                }
            } else if attempt.report.outcome == Outcome::Accepted {
                lane.run = 0;
            }
        }
    }

    /// Nothing is to be sent to this endpoint for a while: returns what is in hand and not begun, which still counts against the
    /// room. With no wait, it may go on.
    pub(super) fn hold(
        &mut self,
        subscription_id: i32,
        wait: Duration,
        now: Instant,
    ) -> Vec<Ready> {
        let Some(lane) = self.by_subscription.get_mut(&subscription_id) else {
            return Vec::new();
        };
        lane.weighing_until = None;
        if wait.is_zero() {
            lane.held_until = None;
            return Vec::new();
        }
        // What waits is held where all workers see it; this is for what is in hand, or on its way here.
        lane.held_until = Some(now + wait.min(LONGEST_HOLD));
        lane.ready.drain(..).collect()
    }

    /// As [`hold`](Self::hold), but of this worker's own accord, and never for a shorter time than it is held already; `None` where it
    /// is held for as long as that anyway.
    pub(super) fn rest(
        &mut self,
        subscription_id: i32,
        wait: Duration,
        now: Instant,
    ) -> Option<Vec<Ready>> {
        let lane = self.by_subscription.get_mut(&subscription_id)?;
        let until = now + wait;
        if lane.held_until.is_some_and(|held| held >= until) {
            return None;
        }
        lane.held_until = Some(until);
        Some(lane.ready.drain(..).collect())
    }

    /// Notes which lanes a look for waiting deliveries leaves out because they are full.
    pub(super) fn looking_for_waiting(&mut self, now: Instant) {
        let limits = self.limits_now();
        for lane in self.by_subscription.values_mut() {
            lane.left_out = lane.share(limits, now) <= lane.held();
        }
    }

    /// Deliveries have left: recorded, or given back.
    pub(super) fn release(&mut self, deliveries: usize, bytes: usize) {
        self.deliveries = self.deliveries.saturating_sub(deliveries);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// What lanes that have stopped moving, or that may send nothing, hold beyond what they are sending: better given back than
    /// kept from others. It still counts against the room.
    pub(super) fn take_stuck(&mut self, now: Instant) -> Vec<Ready> {
        let lanes = self.by_subscription.values_mut();
        let stuck = lanes.filter(|lane| lane.pace.is_slow(now));
        stuck.flat_map(|lane| lane.ready.drain(..)).collect()
    }

    /// Everything whose attempt has not begun. It still counts against the room.
    pub(super) fn take_unbegun(&mut self) -> Vec<Ready> {
        self.by_subscription
            .values_mut()
            .flat_map(|lane| lane.ready.drain(..))
            .collect()
    }

    /// How much more fits, in all and lane by lane, besides what was `promised` to a look under way.
    /// Forgets lanes that have been idle.
    pub(super) fn free(&mut self, promised: Option<&Free>, now: Instant) -> Free {
        let limits = self.limits_now();
        self.by_subscription.retain(|_, lane| {
            lane.held() > 0 || !lane.pace.is_stale(now) || lane.is_remembered(now)
        });
        let nothing = Free::nothing();
        let promised = promised.unwrap_or(&nothing);
        let promised_slots: HashMap<i32, usize> = promised.slots.iter().copied().collect();
        let promised_to = |id| promised_slots.get(id).unwrap_or(&promised.slots_of_others);
        let slots_of_others = limits
            .fresh_share()
            .min(limits.fair_share(0))
            .saturating_sub(promised.slots_of_others);
        let slots = self.by_subscription.iter().map(|(id, lane)| {
            let taken = lane.held() + promised_to(id);
            (*id, lane.share(limits, now).saturating_sub(taken))
        });
        let lanes = self.by_subscription.iter();
        // What fills one lane, its backlog or a burst, is no reason to let others' events wait.
        let brisk = lanes.filter(|(_, lane)| self.is_common(lane) && lane.is_brisk(limits, now));
        let unknown = self
            .by_subscription
            .is_empty()
            .then(|| limits.fresh_share());
        Free {
            events: brisk
                .map(|(id, lane)| lane.worth_taking(*promised_to(id), limits, now))
                .min()
                .or(unknown),
            slots: slots
                .filter(|(_, slots)| *slots != slots_of_others)
                .collect(),
            deliveries: limits
                .deliveries
                .saturating_sub(self.deliveries + promised.deliveries),
            bytes: limits.bytes.saturating_sub(self.bytes + promised.bytes),
            slots_of_others,
        }
    }

    /// Whether a good part of the new events go to this lane.
    fn is_common(&self, lane: &Lane) -> bool {
        lane.look == self.look && 4 * lane.events >= self.events
    }

    /// The limits, and what is free by now, of deliveries or of bytes, whichever is the lesser part.
    fn limits_now(&self) -> Limits {
        let limits = self.limits;
        let free_bytes = limits.bytes.saturating_sub(self.bytes);
        // 16ths are exact enough, and do not overflow.
        let by_bytes = limits.deliveries * (free_bytes / (limits.bytes / 16).max(1)).min(16) / 16;
        let free = limits.deliveries.saturating_sub(self.deliveries);
        Limits {
            free: free.min(by_bytes),
            ..limits
        }
    }

    /// How many deliveries are held in all.
    pub(super) fn deliveries(&self) -> usize {
        self.deliveries
    }

    /// How many payload bytes are held in all.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many requests are under way.
    pub(super) fn sending(&self) -> usize {
        self.sending
    }

    /// How many lanes send as much as they may at once.
    pub(super) fn full(&self) -> usize {
        let is_full = |lane: &&Lane| lane.sending >= lane.at_once(self.limits);
        self.by_subscription.values().filter(is_full).count()
    }
}

impl Free {
    fn nothing() -> Self {
        Self {
            deliveries: 0,
            bytes: 0,
            slots: Vec::new(),
            slots_of_others: 0,
            events: None,
        }
    }

    /// A quarter of it, of each lane's slots a half, and of a single slot all; of the bytes no less than one payload may have. For no
    /// lane more than for one of which nothing is known: many small claims delay new events less than a large one.
    pub(super) fn quarter(self, max_body: usize) -> Self {
        let slots = self.slots.into_iter();
        Self {
            deliveries: self.deliveries.div_ceil(4),
            bytes: self.bytes.div_ceil(4).max(max_body).min(self.bytes),
            slots: slots
                .map(|(id, slots)| (id, slots.min(self.slots_of_others).div_ceil(2)))
                .collect(),
            slots_of_others: self.slots_of_others.div_ceil(2),
            events: self.events,
        }
    }

    /// What a quarter leaves, but for a single slot, which nobody else waits for yet.
    pub(super) fn three_quarters(self, max_body: usize) -> Self {
        let most = |all: usize| all - all / 4;
        let slots = self.slots.into_iter();
        Self {
            deliveries: most(self.deliveries),
            bytes: most(self.bytes).max(max_body).min(self.bytes),
            slots: slots.map(|(id, slots)| (id, most(slots))).collect(),
            slots_of_others: most(self.slots_of_others),
            events: self.events.map(most),
        }
    }
}

impl Limits {
    /// The most that one lane may hold, however fast it is.
    fn most(self) -> usize {
        (self.deliveries / 2).max(1)
    }

    /// What a lane may hold, that holds so much, where it does not finish it at once: a quarter of what the others leave. The more
    /// endpoints hang, the less each gets, and some room stays. One that finishes what it holds keeps nobody from it.
    fn fair_share(self, held: usize) -> usize {
        (self.free.saturating_add(held) / 4).max(1)
    }

    /// What a lane may hold of which nothing is known yet.
    fn fresh_share(self) -> usize {
        (4 * self.concurrency).min(self.most())
    }
}

impl Lane {
    fn new(now: Instant) -> Self {
        Self {
            ready: VecDeque::new(),
            sending: 0,
            concurrency: None,
            run: 0,
            breaks_at: None,
            is_paced: false,
            pace: Pace::new(now),
            held_until: None,
            weighing_until: None,
            throttle: Throttle::none(now),
            left_out: false,
            look: 0,
            events: 0,
        }
    }

    fn concurrency(&self, limits: Limits) -> usize {
        self.concurrency.unwrap_or(limits.concurrency)
    }

    /// How many requests it may get at once, as it fares.
    fn at_once(&self, limits: Limits) -> usize {
        self.throttle.limit(self.concurrency(limits))
    }

    fn is_held(&self, now: Instant) -> bool {
        let is_ahead = |until: Option<Instant>| until.is_some_and(|until| now < until);
        is_ahead(self.held_until) || is_ahead(self.weighing_until)
    }

    /// What is known of it is worth keeping, though nothing is in hand.
    fn is_remembered(&self, now: Instant) -> bool {
        self.is_held(now) || self.throttle.is_remembered(now)
    }

    fn held(&self) -> usize {
        self.ready.len() + self.sending
    }

    fn fresh_share(&self, limits: Limits) -> usize {
        let concurrency = self.concurrency(limits);
        Limits {
            concurrency,
            ..limits
        }
        .fresh_share()
    }

    /// What this lane may hold: as much as it finishes in the time that a refill may take, so that a
    /// fast endpoint never runs dry and a slow one keeps no more than it can send at once.
    fn share(&self, limits: Limits, now: Instant) -> usize {
        if self.is_held(now) {
            return 0;
        }
        let fair_share = limits.fair_share(self.held());
        let is_slow = self.sending > 0 && self.pace.is_slow(now);
        if self.throttle.is_on() || self.is_paced || is_slow {
            return self.at_once(limits).min(limits.most()).min(fair_share);
        }
        let brisk_share = self.pace.recent(now) / 4;
        let fresh_share = self.fresh_share(limits).min(fair_share);
        brisk_share.max(fresh_share).min(limits.most())
    }

    /// Whether it finishes so much that room in it is worth waiting a moment for. One that filled up
    /// before its pace was measured, or would have if it had not been so fast, gets the benefit of the doubt.
    fn is_brisk(&self, limits: Limits, now: Instant) -> bool {
        let limits = Limits {
            free: usize::MAX,
            ..limits
        };
        let finished = self.pace.recent(now);
        let got = self.held() + finished;
        let fresh_and_filling = self.pace.is_fresh(now) && got >= self.share(limits, now) / 2;
        fresh_and_filling || finished >= self.fresh_share(limits)
    }

    /// Its free slots besides those promised, if they are enough to be worth a statement.
    fn worth_taking(&self, promised: usize, limits: Limits, now: Instant) -> usize {
        let share = self.share(limits, now);
        let free = share.saturating_sub(self.held() + promised);
        if free >= share / 4 { free } else { 0 }
    }
}

/// How many requests at once a busy endpoint gets: half as many each time that it says it is busy, and one more each time that so many
/// were accepted.
#[derive(Debug)]
struct Throttle {
    /// None where it has not been busy.
    limit: Option<f64>,
    slowed_at: Instant,
}

impl Throttle {
    fn none(now: Instant) -> Self {
        Self {
            limit: None,
            slowed_at: now,
        }
    }

    /// An answer said that it is busy, to a request that `began` then, one of so many at once. Requests that were under way when it
    /// was last slowed down tell nothing new.
    fn slow_down(&mut self, at_once: usize, began: Instant, now: Instant) {
        if self.limit.is_some() && began < self.slowed_at {
            return;
        }
        let at_once = f64::from(u32::try_from(at_once).unwrap_or(u32::MAX));
        let limit = self.limit.unwrap_or(at_once).min(at_once);
        self.limit = Some((limit / 2.0).max(1.0));
        self.slowed_at = now;
    }

    fn speed_up(&mut self, most: usize) {
        if let Some(limit) = self.limit {
            let next = limit + 1.0 / limit;
            let most = f64::from(u32::try_from(most).unwrap_or(u32::MAX));
            self.limit = (next < most).then_some(next);
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn limit(&self, most: usize) -> usize {
        self.limit
            .map_or(most, |limit| (limit as usize).clamp(1, most))
    }

    fn is_on(&self) -> bool {
        self.limit.is_some()
    }

    fn is_remembered(&self, now: Instant) -> bool {
        self.is_on() && now.duration_since(self.slowed_at) < FORGET
    }
}

/// How many requests of a lane were finished lately.
#[derive(Debug)]
struct Pace {
    born: Instant,
    since: Instant,
    current: usize,
    before: usize,
    last: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            born: now,
            since: now,
            current: 0,
            before: 0,
            last: now,
        }
    }

    fn count(&mut self, now: Instant) {
        let age = now.duration_since(self.since);
        if age >= SPAN {
            self.before = if age < 2 * SPAN { self.current } else { 0 };
            (self.since, self.current) = (now, 0);
        }
        self.current += 1;
        self.last = now;
    }

    fn recent(&self, now: Instant) -> usize {
        if now.duration_since(self.last) < 2 * SPAN {
            self.before.max(self.current)
        } else {
            0
        }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.born) < SPAN
    }

    fn is_slow(&self, now: Instant) -> bool {
        now.duration_since(self.last) > Duration::from_secs(1)
    }

    fn is_stale(&self, now: Instant) -> bool {
        now.duration_since(self.last) > Duration::from_secs(10)
    }
}

/// Statuses by which a receiver, or what stands before it, says that it is busy.
const BUSY: [u16; 4] = [429, 502, 503, 504];
/// How long an endpoint gets nothing while it is decided whether its circuit breaker opens; then it goes on, whatever keeps the
/// decision.
const TO_WEIGH: Duration = Duration::from_secs(5);
/// How long an endpoint is left alone because of what was once heard of it: it may have been paused and taken up again meanwhile.
const LONGEST_HOLD: Duration = Duration::from_secs(5);
/// How long after it was last busy an endpoint that gets nothing is treated like any other.
const FORGET: Duration = Duration::from_mins(5);
/// Over how long the pace is measured.
const SPAN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {

    use super::*;
    use crate::delivery::{Advice, Phases, Report, Ruling, Verdict};

    const LIMITS: Limits = Limits {
        deliveries: 1000,
        bytes: 1_000_000,
        concurrency: 16,
        free: usize::MAX,
    };
    const FRESH: usize = 64;

    fn ready(subscription_id: i32) -> Ready {
        let lease = Lease {
            bytes: 100,
            ..Lease::fresh(subscription_id, 1)
        };
        (lease, Arc::new(Terms::nowhere(subscription_id)))
    }

    fn lanes_with(deliveries: usize, subscription_id: i32, now: Instant) -> Lanes {
        let mut lanes = Lanes::new(LIMITS);
        for _ in 0..deliveries {
            lanes.admit(ready(subscription_id), now);
        }
        lanes
    }

    #[test]
    fn the_first_look_takes_no_more_than_one_unknown_endpoint_may_hold() {
        let now = Instant::now();
        assert_eq!(Lanes::new(LIMITS).free(None, now).events, Some(FRESH));
        let mut half_full = lanes_with(FRESH / 2, 7, now);
        assert_eq!(half_full.free(None, now).events, Some(FRESH / 2));
        assert_eq!(
            half_full.free(None, now + SPAN).events,
            None,
            "its pace is known: none"
        );
    }

    #[test]
    fn what_is_promised_to_one_look_is_not_free_for_the_other() {
        let now = Instant::now();
        let mut lanes = lanes_with(10, 7, now);
        let all = lanes.free(None, now);
        assert_eq!((all.deliveries, all.bytes), (990, 999_000));
        assert_eq!(
            (all.slots.as_slice(), all.slots_of_others),
            (&[(7, FRESH - 10)][..], FRESH)
        );
        let quarter = all.clone().quarter(1000);
        let rest = lanes.free(Some(&quarter), now);
        assert_eq!(quarter.deliveries + rest.deliveries, all.deliveries);
        assert_eq!(quarter.bytes + rest.bytes, all.bytes);
        assert_eq!(
            (quarter.slots_of_others, rest.slots_of_others),
            (FRESH / 2, FRESH / 2)
        );
        assert_eq!((quarter.slots, rest.slots), (vec![(7, 27)], vec![(7, 27)]));
        assert_eq!(lanes.free(Some(&all), now).deliveries, 0);
        let most = all.clone().three_quarters(1000);
        let left = lanes.free(Some(&most), now);
        assert!(left.deliveries > 0 && left.bytes > 0 && left.slots_of_others > 0);
        assert_eq!(
            all.clone().quarter(900_000).bytes,
            900_000,
            "one payload fits"
        );
        assert_eq!(
            all.quarter(2_000_000).bytes,
            999_000,
            "and no more than all"
        );
    }

    #[test]
    fn endpoints_that_hang_leave_some_of_the_room_though_they_could_fill_it() {
        let (begun, hanging) = (Instant::now(), 70);
        assert!(hanging * LIMITS.concurrency > LIMITS.deliveries);
        let mut lanes = Lanes::new(LIMITS);
        for id in 0..70 {
            let now = begun + Duration::from_millis(1500);
            for _ in 0..lanes.free(None, now).slots_of_others {
                lanes.admit(ready(id), begun);
            }
            // They are sent, and never finish.
            while lanes.next(id, begun).is_some() {}
            let stuck = lanes.take_stuck(now);
            lanes.release(stuck.len(), 0);
        }
        assert!(lanes.free(None, begun).deliveries > 0);
    }

    #[test]
    fn a_full_lane_holds_events_back_only_where_many_of_them_are_for_it() {
        let now = Instant::now();
        let mut lanes = lanes_with(FRESH, 7, now);
        assert_eq!(lanes.free(None, now).events, Some(0));
        let others: Vec<Ready> = (100..110).map(ready).collect();
        lanes.took(10, &others, now);
        assert_eq!(
            lanes.free(None, now).events,
            None,
            "it is full of its backlog"
        );
        let own: Vec<Ready> = (0..5).map(|_| ready(7)).collect();
        lanes.took(10, &own, now);
        assert_eq!(lanes.free(None, now).events, Some(0));
    }

    #[test]
    fn no_more_is_taken_than_an_endpoint_may_hold_that_empties_as_fast_as_it_fills() {
        let now = Instant::now();
        let mut lanes = lanes_with(FRESH, 7, now);
        while lanes.next(7, now).is_some() {
            lanes.finished(7, now);
        }
        assert_eq!(lanes.free(None, now).events, Some(FRESH));
        // One that got little shows nothing of the kind.
        let lanes = &mut lanes_with(3, 7, now);
        while lanes.next(7, now).is_some() {
            lanes.finished(7, now);
        }
        assert_eq!(lanes.free(None, now).events, None);
    }

    #[test]
    fn a_lane_gets_less_where_bytes_are_scarce() {
        let now = Instant::now();
        let mut lanes = Lanes::new(LIMITS);
        assert_eq!(lanes.free(None, now).slots_of_others, FRESH);
        let mut large = ready(7);
        large.0.bytes = LIMITS.bytes / 8 * 7;
        lanes.admit(large, now);
        assert_eq!(lanes.free(None, now).slots_of_others, FRESH / 2 - 1);
    }

    fn answered(status: u16, began: Instant) -> Attempt {
        let outcome = if status == 200 {
            Outcome::Accepted
        } else {
            Outcome::Rejected
        };
        let lease = ready(7).0;
        Attempt {
            key: lease.key,
            number: 1,
            holder: 1,
            address: lease.address,
            worker_id: 1,
            revision: 1,
            began,
            report: Report {
                outcome,
                http_status: Some(status),
                error: None,
                snippet: None,
                advice: Advice::default(),
                remote: None,
                duration: Duration::ZERO,
                phases: Phases::default(),
            },
            ruling: Ruling {
                verdict: Verdict::Done,
                rule: None,
                hold: None,
            },
            owed_from: None,
            expires: None,
            ordering_key: None,
            signed_with: Vec::new(),
            bytes: 100,
            preparations: Vec::new(),
        }
    }

    /// Sends as many as may be sent, and says how many that were.
    fn send_all(lanes: &mut Lanes, now: Instant) -> usize {
        std::iter::from_fn(|| lanes.next(7, now)).count()
    }

    #[test]
    fn a_busy_endpoint_gets_half_as_many_at_once_and_recovers_one_by_one() {
        let now = Instant::now();
        let mut lanes = lanes_with(200, 7, now);
        assert_eq!(send_all(&mut lanes, now), 16);
        for busy in 1..=16 {
            lanes.finished(7, now);
            lanes.heed(&answered(503, now), now + SPAN);
            assert_eq!(send_all(&mut lanes, now), 0, "after {busy} of one round");
            if busy == 8 {
                // Half of what was under way has come back: as many more as there may be now are still under way.
                break;
            }
        }
        lanes.finished(7, now);
        assert_eq!(send_all(&mut lanes, now), 1);
        let next = now + 2 * SPAN;
        lanes.finished(7, next);
        lanes.heed(&answered(429, next), next);
        for _ in 0..4 {
            lanes.finished(7, next);
        }
        assert_eq!(send_all(&mut lanes, next), 1, "4 of 8 under way");
        // As many as are sent at once, and one: after that there is room for one more.
        for _ in 0..5 {
            lanes.finished(7, next);
            lanes.heed(&answered(200, next), next);
        }
        assert_eq!(send_all(&mut lanes, next), 5);
    }

    #[test]
    fn after_a_run_of_failures_nothing_is_sent_until_they_are_weighed() {
        let now = Instant::now();
        let mut lanes = Lanes::new(LIMITS);
        for _ in 0..100 {
            let (lease, _) = ready(7);
            let mut terms = Terms::nowhere(7);
            terms.breaker_failures = Some(3);
            lanes.admit((lease, Arc::new(terms)), now);
        }
        for status in [500, 404, 200, 500, 500] {
            assert!(lanes.next(7, now).is_some());
            lanes.finished(7, now);
            lanes.heed(&answered(status, now), now);
        }
        assert!(lanes.next(7, now).is_some());
        lanes.finished(7, now);
        lanes.heed(&answered(500, now), now);
        assert!(lanes.next(7, now).is_none());
        assert_eq!(lanes.hold(7, 10 * SPAN, now).len(), 94);
        assert_eq!(lanes.free(None, now).slots, [(7, 0)]);
        lanes.hold(7, Duration::ZERO, now);
        lanes.admit(ready(7), now);
        assert!(lanes.next(7, now + TO_WEIGH).is_some());
    }

    #[test]
    fn a_busy_endpoint_gets_no_more_of_a_scarce_room_than_others() {
        let now = Instant::now();
        let mut lanes = Lanes::new(LIMITS);
        let mut terms = Terms::nowhere(7);
        terms.concurrency = Some(1024);
        let terms = Arc::new(terms);
        for _ in 0..400 {
            lanes.admit((ready(7).0, Arc::clone(&terms)), now);
        }
        let sent = send_all(&mut lanes, now);
        lanes.finished(7, now);
        lanes.heed(&answered(503, now), now);
        for _ in 1..sent {
            lanes.finished(7, now);
        }
        let left = lanes.take_unbegun().len() + sent;
        lanes.release(left, 0);
        for _ in 0..960 {
            lanes.admit(ready(8), now);
        }
        let free = lanes.free(None, now);
        assert_eq!((free.slots_of_others, free.deliveries), (10, 40));
        assert!(
            !free.slots.iter().any(|(id, slots)| *id == 7 && *slots > 10),
            "{:?}",
            free.slots
        );
    }

    #[test]
    fn what_was_weighed_and_found_well_goes_on_at_once() {
        let now = Instant::now();
        let mut lanes = Lanes::new(LIMITS);
        for _ in 0..2 {
            let mut terms = Terms::nowhere(7);
            terms.breaker_failures = Some(1);
            lanes.admit((ready(7).0, Arc::new(terms)), now);
        }
        assert!(lanes.next(7, now).is_some());
        lanes.finished(7, now);
        lanes.heed(&answered(500, now), now);
        assert!(lanes.next(7, now).is_none());
        lanes.hold(7, Duration::ZERO, now);
        assert!(lanes.next(7, now).is_some());
    }

    #[test]
    fn what_nothing_will_start_any_more_is_given_back() {
        let now = Instant::now();
        let mut lanes = lanes_with(1, 7, now);
        lanes.hold(7, Duration::from_hours(1), now);
        lanes.admit(ready(7), now);
        assert!(lanes.next(7, now).is_none());
        assert_eq!(lanes.take_stuck(now + 8 * SPAN).len(), 1);
    }

    #[test]
    fn a_rest_is_never_shorter_than_a_hold_and_gives_up_what_is_in_hand() {
        let now = Instant::now();
        let mut lanes = lanes_with(2, 7, now);
        assert_eq!(lanes.rest(7, SPAN, now).map(|some| some.len()), Some(2));
        assert!(lanes.rest(7, SPAN, now).is_none());
        lanes.hold(7, 2 * SPAN, now);
        assert!(lanes.rest(7, SPAN, now).is_none());
        lanes.admit(ready(7), now);
        assert!(lanes.next(7, now + SPAN).is_none());
        assert!(lanes.next(7, now + 2 * SPAN).is_some());
    }

    #[test]
    fn no_hold_is_believed_in_for_long_without_being_heard_of_again() {
        let now = Instant::now();
        let mut lanes = lanes_with(1, 7, now);
        lanes.hold(7, Duration::from_hours(24), now);
        let later = now + Duration::from_secs(5);
        lanes.admit(ready(7), later);
        assert!(lanes.next(7, later).is_some());
    }
}
