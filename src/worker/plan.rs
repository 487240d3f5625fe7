//! When to look for work next. Pure: time comes in as an argument.

use std::time::{Duration, Instant};

use crate::store::Doze;
use crate::telemetry::Source;

/// When the next look is due, for new events and for waiting deliveries, and whether to sleep.
#[derive(Debug)]
pub(super) struct Plan {
    poll: Duration,
    events_at: Instant,
    waiting_at: Instant,
    /// Until when looks at waiting deliveries rest, for the sake of new events.
    resting_until: Instant,
    source: Source,
    /// Why the next look at waiting deliveries is due.
    waiting_source: Source,
    /// The wait after the last look that found nothing, growing while nothing is found.
    idle: Duration,
    /// The wait after the last look at waiting deliveries that failed, growing while they fail.
    waiting_idle: Duration,
    found_at: Instant,
    rang_at: Instant,
    /// Something came up since the last look at waiting deliveries began: that look may not have seen it.
    stirred: bool,
    /// That look was made because something had come up.
    sought: bool,
    /// By when one more was asked for since it began: it did not see why.
    wanted_by: Option<Instant>,
    /// A producer rang since the last look at new events began: that look may not have seen why.
    rung: bool,
    /// Since when new events have waited for a brisk lane.
    held_since: Option<Instant>,
    hectic: u32,
}

/// What to do about sleep after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    /// Leave it as it is.
    AsItIs,
    /// Try to fall asleep, and tell [`Plan::dozed`] how it went.
    Try,
    /// Wake up: so much comes in that producers should not have to ring.
    Rouse,
}

impl Plan {
    /// Everything is due at once.
    pub(super) fn new(poll: Duration, now: Instant) -> Self {
        Self {
            poll,
            events_at: now,
            waiting_at: now,
            resting_until: now,
            source: Source::Poll,
            waiting_source: Source::Poll,
            idle: SHORTEST,
            waiting_idle: SHORTEST,
            found_at: now,
            rang_at: now,
            stirred: false,
            sought: false,
            wanted_by: None,
            rung: false,
            held_since: None,
            hectic: 0,
        }
    }

    /// When the next look at new events is due.
    pub(super) fn events_at(&self) -> Instant {
        self.events_at
    }

    /// When the next look at waiting deliveries is due.
    pub(super) fn waiting_at(&self) -> Instant {
        self.waiting_at.max(self.resting_until)
    }

    /// A look at new events begins; tells why it was due. A ring from now on calls for another one.
    pub(super) fn look_at_events(&mut self) -> Source {
        self.rung = false;
        self.held_since = None;
        self.source
    }

    /// A look at waiting deliveries begins; tells why it was due.
    pub(super) fn look_at_waiting(&mut self) -> Source {
        self.sought = std::mem::take(&mut self.stirred);
        self.wanted_by = None;
        std::mem::replace(&mut self.waiting_source, Source::Work)
    }

    /// A producer rang. Many rings in a row are hectic.
    pub(super) fn rang(&mut self, now: Instant) {
        self.hectic = if now.duration_since(self.rang_at) < HECTIC {
            self.hectic + 1
        } else {
            0
        };
        (self.rang_at, self.events_at, self.source) = (now, now, Source::Notification);
        self.rung = true;
    }

    /// A look at new events found `events`, `wanted` by somebody or by nobody, and perhaps not all there were.
    pub(super) fn saw_events(
        &mut self,
        (events, wanted): (u64, bool),
        more: bool,
        dozing: bool,
        now: Instant,
    ) -> Sleep {
        let sleep = match events {
            0 => self.saw_nothing(more, dozing, now),
            _ => self.saw_some((events, wanted), more, dozing, now),
        };
        if self.rung {
            (self.events_at, self.source) = (now, Source::Notification);
        }
        sleep
    }

    fn saw_some(
        &mut self,
        (events, wanted): (u64, bool),
        more: bool,
        dozing: bool,
        now: Instant,
    ) -> Sleep {
        (self.found_at, self.idle, self.source) = (now, SHORTEST, Source::Work);
        let rouse = dozing && (more || events >= MANY || self.hectic >= HECTIC_RINGS);
        // Asleep, every later insert rings. Awake, let a few gather.
        let gather = match (events >= MANY, wanted) {
            (false, _) => SHORTEST,
            (true, true) => GATHER,
            (true, false) => GATHER_UNWANTED,
        };
        self.events_at = match (more, dozing && !rouse) {
            (true, _) => now,
            (false, true) => now + self.poll,
            (false, false) => now + gather,
        };
        if rouse { Sleep::Rouse } else { Sleep::AsItIs }
    }

    fn saw_nothing(&mut self, more: bool, dozing: bool, now: Instant) -> Sleep {
        (self.source, self.hectic) = (Source::Poll, 0);
        if more {
            self.events_at = now;
            return Sleep::AsItIs;
        }
        if dozing {
            self.events_at = now + self.poll;
            return Sleep::AsItIs;
        }
        if now.duration_since(self.found_at) < LINGER {
            self.wait_idle(LINGER, now);
            return Sleep::AsItIs;
        }
        Sleep::Try
    }

    /// How falling asleep went.
    pub(super) fn dozed(&mut self, how: Doze, now: Instant) {
        match how {
            Doze::Asleep => self.events_at = now,
            Doze::Restless => self.wait_idle(RESTLESS, now),
            Doze::Another => self.events_at = now + self.poll,
        }
    }

    fn wait_idle(&mut self, longest: Duration, now: Instant) {
        self.events_at = now + self.idle.min(self.poll);
        self.idle = (self.idle * 2).min(longest);
    }

    /// A look at waiting deliveries found some due (`any`), and brought `leased` of them; or the next is due in that time. It `took`
    /// so long, and where new events come, the next one rests twice as long: a backlog takes no more than a third of a session.
    pub(super) fn saw_waiting(
        &mut self,
        any: bool,
        leased: usize,
        due_in: Option<Duration>,
        took: Duration,
        now: Instant,
    ) {
        self.waiting_idle = SHORTEST;
        if !self.events_are_rare(now) {
            self.resting_until = now + (2 * took).min(LONGEST_REST);
        }
        let (wait, source) = match (any, leased) {
            (false, _) => match due_in {
                Some(wait) if wait < self.poll => (wait.max(SHORTEST), Source::Work),
                _ => (self.poll, Source::Poll),
            },
            (true, 0) => (PACE, Source::Work),
            (true, _) => (Duration::ZERO, Source::Work),
        };
        (self.waiting_at, self.waiting_source) = (now + wait, source);
        // A lane that somebody else had locked was left out.
        if std::mem::take(&mut self.sought) && !any {
            self.waiting_by(now + PACE);
        }
        if let Some(at) = self.wanted_by {
            self.waiting_by(at.max(now));
        }
    }

    /// The next delivery of an ordering key has come up.
    pub(super) fn stirred(&mut self, now: Instant) {
        self.stirred = true;
        self.waiting_by(now);
    }

    /// Whether something has come up since the last look at waiting deliveries began.
    pub(super) fn is_stirred(&self) -> bool {
        self.stirred
    }

    /// A lane that was full has room again: what waits in it is due a look.
    pub(super) fn has_room(&mut self, now: Instant) {
        self.waiting_by(now);
    }

    /// Some deliveries had no room and were left waiting.
    pub(super) fn left_waiting(&mut self, now: Instant) {
        self.waiting_by(now + PACE);
    }

    /// Whether no new event has come for a while: then what waits may have most of the room.
    pub(super) fn events_are_rare(&self, now: Instant) -> bool {
        now.duration_since(self.found_at) >= RARE
    }

    fn waiting_by(&mut self, at: Instant) {
        self.wanted_by = Some(self.wanted_by.map_or(at, |before| before.min(at)));
        if at < self.waiting_at {
            (self.waiting_at, self.waiting_source) = (at, Source::Work);
        }
    }

    /// A brisk lane is full: its room is worth waiting a moment for.
    /// False once it has been waited for long enough: other lanes' events must not wait for ever.
    pub(super) fn hold_events(&mut self, now: Instant) -> bool {
        if self.events_at > now {
            return true;
        }
        let since = *self.held_since.get_or_insert(now);
        let holds = now.duration_since(since) < LONGEST_HOLD;
        if holds {
            self.events_at = now + SHORTEST;
        }
        holds
    }

    /// Somebody's look was cut off: what it had in hand is to be found again.
    pub(super) fn look_for_what_was_dropped(&mut self, now: Instant) {
        self.events_at = now;
    }

    /// A look at new events failed: again after a while.
    pub(super) fn failed_at_events(&mut self, now: Instant) {
        self.idle = later(self.idle);
        self.events_at = now + self.idle;
    }

    /// A look at waiting deliveries failed: again after a while.
    pub(super) fn failed_at_waiting(&mut self, now: Instant) {
        self.waiting_idle = later(self.waiting_idle);
        self.waiting_at = now + self.waiting_idle;
    }
}

/// How long to wait after one failure more.
fn later(wait: Duration) -> Duration {
    (wait * 2).clamp(Duration::from_millis(100), Duration::from_secs(5))
}

/// The shortest wait between two looks when little comes in.
const SHORTEST: Duration = Duration::from_millis(1);
/// Where many events come in, how long they are left to gather: a statement costs as much as many of
/// its rows, and the producers need the processor too.
const GATHER: Duration = Duration::from_millis(4);
/// The same where nobody wanted any of them: as a rule, nobody waits for the next ones either.
const GATHER_UNWANTED: Duration = Duration::from_millis(12);
/// How long lanes that are full are given to empty.
const PACE: Duration = Duration::from_millis(5);
/// The longest that a look at waiting deliveries rests after another.
const LONGEST_REST: Duration = Duration::from_millis(50);
/// The longest that new events wait for a brisk lane.
const LONGEST_HOLD: Duration = Duration::from_millis(25);
/// How long to go on looking after the last find before falling asleep.
const LINGER: Duration = Duration::from_millis(20);
/// How long after the last new event they are called rare.
const RARE: Duration = Duration::from_millis(100);
/// The longest wait between two looks while inserts under way keep us from falling asleep.
const RESTLESS: Duration = Duration::from_millis(50);
/// Events in one look that are many.
const MANY: u64 = 16;
/// Rings closer together than this are hectic ...
const HECTIC: Duration = Duration::from_millis(2);
/// ... and as many of them in a row wake us up for good.
const HECTIC_RINGS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_millis(500);
    const TOOK: Duration = Duration::ZERO;

    fn plan() -> (Plan, Instant) {
        let now = Instant::now();
        (Plan::new(POLL, now), now)
    }

    #[test]
    fn a_worker_that_finds_nothing_tries_to_sleep_and_looks_once_more() {
        let (mut plan, begun) = plan();
        let now = begun + LINGER;
        assert_eq!(plan.saw_events((0, true), false, false, now), Sleep::Try);
        plan.dozed(Doze::Asleep, now);
        assert_eq!(plan.events_at, now);
        assert_eq!(plan.saw_events((0, true), false, true, now), Sleep::AsItIs);
        assert_eq!(plan.events_at, now + POLL);
    }

    #[test]
    fn a_worker_that_cannot_sleep_looks_again_ever_later_but_soon() {
        let (mut plan, begun) = plan();
        let mut now = begun + LINGER;
        for _ in 0..20 {
            plan.dozed(Doze::Restless, now);
            assert!(plan.events_at <= now + RESTLESS);
            now = plan.events_at;
        }
        assert!(now > begun + 10 * RESTLESS);
    }

    #[test]
    fn a_ring_is_answered_at_once_and_a_sleeper_stays_asleep() {
        let (mut plan, begun) = plan();
        let now = begun + POLL;
        plan.rang(now);
        assert!(plan.events_at() <= now);
        assert_eq!(plan.look_at_events(), Source::Notification);
        assert_eq!(plan.saw_events((1, true), false, true, now), Sleep::AsItIs);
        assert_eq!(plan.events_at, now + POLL);
    }

    #[test]
    fn a_ring_during_a_look_is_answered_right_after_it() {
        for events in [0, 1] {
            let (mut plan, begun) = plan();
            plan.look_at_events();
            plan.rang(begun);
            let now = begun + SHORTEST;
            assert_eq!(
                plan.saw_events((events, true), false, true, now),
                Sleep::AsItIs
            );
            assert!(plan.events_at() <= now);
            plan.look_at_events();
            plan.saw_events((events, true), false, true, now);
            assert!(plan.events_at() > now, "once is enough");
        }
    }

    #[test]
    fn many_events_are_left_to_gather_and_for_longer_where_nobody_wants_any() {
        let (mut plan, now) = plan();
        plan.saw_events((MANY - 1, false), false, false, now);
        assert_eq!(plan.events_at, now + SHORTEST);
        plan.saw_events((MANY, true), false, false, now);
        assert_eq!(plan.events_at, now + GATHER);
        plan.saw_events((MANY, false), false, false, now);
        assert_eq!(plan.events_at, now + GATHER_UNWANTED);
        plan.saw_events((MANY, false), true, false, now);
        assert_eq!(plan.events_at, now, "there are more");
    }

    #[test]
    fn many_events_or_many_rings_wake_it_up() {
        let (mut plan, now) = plan();
        assert_eq!(
            plan.saw_events((MANY, true), false, true, now),
            Sleep::Rouse
        );
        for _ in 0..=HECTIC_RINGS {
            plan.rang(now);
        }
        assert_eq!(plan.saw_events((1, true), false, true, now), Sleep::Rouse);
    }

    #[test]
    fn a_brisk_lane_holds_the_others_back_for_a_moment_only() {
        let (mut plan, begun) = plan();
        let mut now = begun;
        while plan.hold_events(now) {
            now = plan.events_at;
        }
        assert_eq!(now.duration_since(begun), LONGEST_HOLD);
        assert!(plan.events_at() <= now);
        plan.look_at_events();
        assert!(plan.hold_events(now), "the next wait is a new one");
    }

    #[test]
    fn one_look_that_fails_does_not_put_the_other_off() {
        let (mut plan, now) = plan();
        plan.failed_at_waiting(now);
        plan.failed_at_waiting(now);
        assert_eq!(plan.events_at(), now);
        assert_eq!(plan.waiting_at(), now + Duration::from_millis(200));
        plan.saw_waiting(false, 0, None, TOOK, now);
        plan.failed_at_events(now);
        assert_eq!(plan.waiting_at(), now + POLL);
        assert_eq!(plan.events_at(), now + Duration::from_millis(100));
    }

    #[test]
    fn a_look_that_left_all_it_saw_is_made_again_at_once() {
        let (mut plan, now) = plan();
        assert_eq!(plan.saw_events((0, true), true, true, now), Sleep::AsItIs);
        assert_eq!(plan.events_at(), now);
    }

    #[test]
    fn events_are_rare_a_while_after_the_last_one() {
        let (mut plan, now) = plan();
        plan.saw_events((1, true), false, false, now);
        assert!(!plan.events_are_rare(now + LINGER));
        plan.saw_events((0, true), false, false, now + RARE);
        assert!(plan.events_are_rare(now + RARE));
        plan.saw_events((1, true), false, false, now + RARE);
        assert!(!plan.events_are_rare(now + RARE + LINGER));
    }

    #[test]
    fn a_backlog_rests_between_looks_while_new_events_come_and_at_no_other_time() {
        let (mut plan, begun) = plan();
        let took = Duration::from_millis(8);
        plan.saw_events((1, true), false, false, begun);
        plan.saw_waiting(true, 3, None, took, begun);
        plan.has_room(begun);
        assert_eq!(plan.waiting_at(), begun + 2 * took);
        plan.saw_waiting(true, 3, None, 100 * took, begun);
        assert_eq!(plan.waiting_at(), begun + LONGEST_REST);
        let later = begun + RARE;
        plan.saw_waiting(true, 3, None, took, later);
        assert_eq!(plan.waiting_at(), later);
    }

    #[test]
    fn full_lanes_are_looked_at_again_soon_and_empty_ones_at_the_poll() {
        let (mut plan, now) = plan();
        plan.saw_waiting(true, 0, None, TOOK, now);
        assert_eq!(plan.waiting_at, now + PACE);
        plan.saw_waiting(true, 3, None, TOOK, now);
        assert_eq!(plan.waiting_at, now);
        plan.saw_waiting(false, 0, None, TOOK, now);
        assert_eq!(plan.waiting_at, now + POLL);
        assert_eq!(plan.look_at_waiting(), Source::Poll);
        let soon = Duration::from_millis(30);
        plan.saw_waiting(false, 0, Some(soon), TOOK, now);
        assert_eq!(plan.waiting_at, now + soon);
        plan.saw_waiting(false, 0, Some(POLL * 2), TOOK, now);
        assert_eq!(plan.waiting_at, now + POLL);
        plan.left_waiting(now);
        assert_eq!(plan.waiting_at, now + PACE);
        assert_eq!(plan.look_at_waiting(), Source::Work);
    }

    #[test]
    fn room_that_comes_up_during_a_look_is_looked_for_after_it() {
        let (mut plan, now) = plan();
        plan.look_at_waiting();
        plan.has_room(now);
        plan.saw_waiting(false, 0, None, TOOK, now);
        assert_eq!(plan.waiting_at, now);
        plan.look_at_waiting();
        plan.left_waiting(now);
        plan.saw_waiting(false, 0, None, TOOK, now);
        assert_eq!(plan.waiting_at, now + PACE);
        plan.look_at_waiting();
        plan.saw_waiting(false, 0, None, TOOK, now);
        assert_eq!(plan.waiting_at, now + POLL);
    }
}
