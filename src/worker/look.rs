//! Looks for work, beside the loop: one for new events, one for deliveries that wait. They go on at the
//! same time, each in the room it was promised, so that neither waits for the other.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::lanes::Ready;
use super::ordering::Keys;
use crate::Result;
use crate::catalogue::Catalogue;
use crate::delivery::Lease;
use crate::directory::Directory;
use crate::store::{Due, Room, Store, Watermark};
use crate::telemetry;

/// A look for new events.
pub(super) struct Take {
    pub(super) store: Store,
    pub(super) directory: Arc<Directory>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) room: Room,
    pub(super) keys: Keys,
    /// Events at most.
    pub(super) batch: usize,
    pub(super) scan: Scan,
}

/// What a look for new events brought.
pub(super) struct Taken {
    pub(super) ready: Vec<Ready>,
    /// Events fanned out, and the deliveries made of them.
    pub(super) events: u64,
    pub(super) deliveries: u64,
    /// There may be more than were taken.
    pub(super) more: bool,
    /// Some of their deliveries had no room here.
    pub(super) left_waiting: bool,
    met: Met,
    scan: Scan,
    next: Watermark,
    took: Duration,
}

/// How far from now the events of a scan lay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    /// All of them near: a scan that leaves the long history alone would have done.
    Near,
    /// Some of them perhaps far.
    Far,
    /// Some of them further than the scan reached: they were left.
    TooFar,
}

impl Take {
    pub(super) async fn run(self) -> Result<Taken> {
        let begun = Instant::now();
        let near = ids_near(SystemTime::now());
        let ids = if self.scan.far {
            (Uuid::nil(), Uuid::max())
        } else {
            near
        };
        let taken = self
            .store
            .take(&self.room, self.batch, &self.scan.watermark, ids)
            .await?;
        self.keys.go_on(taken.keys);
        telemetry::taken(
            taken.events,
            taken.deliveries,
            taken.unrouted,
            taken.unknown,
        );
        let is_near = |lease: &Lease| (near.0..=near.1).contains(&lease.key.event_id);
        let met = if !self.scan.far && taken.seen > taken.events {
            Met::TooFar
        } else if !taken.leases.is_empty() && taken.leases.iter().all(is_near) {
            Met::Near
        } else {
            Met::Far
        };
        Ok(Taken {
            events: taken.events,
            deliveries: taken.deliveries,
            more: met == Met::TooFar || (taken.seen >= self.batch as u64 && taken.events > 0),
            left_waiting: taken.deliveries > taken.leases.len() as u64 + taken.followers,
            met,
            scan: self.scan,
            next: taken.watermark,
            took: begun.elapsed(),
            ready: with_terms(
                &self.store,
                (&self.directory, &self.catalogue),
                taken.leases,
            )
            .await?,
        })
    }
}

/// A look for deliveries that wait and are due.
pub(super) struct Claim {
    pub(super) store: Store,
    pub(super) directory: Arc<Directory>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) room: Room,
    /// Where among the lanes that are due; see [`LaneFrontier`].
    pub(super) start: Option<String>,
}

/// What a look for waiting deliveries brought.
pub(super) struct Claimed {
    pub(super) ready: Vec<Ready>,
    start: Option<String>,
    next: Option<String>,
    locking: Duration,
    /// Whether any lane had something due.
    pub(super) any: bool,
    /// If not, when the next one has.
    pub(super) due_in: Option<Duration>,
}

impl Claim {
    pub(super) async fn run(self) -> Result<Claimed> {
        let claims = self
            .store
            .claim_waiting(&self.room, LANES_AT_ONCE, self.start.as_deref())
            .await?;
        telemetry::batch("claim_waiting", claims.leases.len() as u64);
        Ok(Claimed {
            any: claims.due == Due::Now,
            due_in: match claims.due {
                Due::In(wait) => Some(wait),
                Due::Now | Due::Never => None,
            },
            start: self.start,
            next: claims.next,
            locking: claims.locking,
            ready: with_terms(
                &self.store,
                (&self.directory, &self.catalogue),
                claims.leases,
            )
            .await?,
        })
    }
}

/// Pairs leases with their terms. Without these, and the schemas that they are held to, they cannot be sent; nor may they be kept.
async fn with_terms(
    store: &Store,
    (directory, catalogue): (&Directory, &Catalogue),
    leases: Vec<Lease>,
) -> Result<Vec<Ready>> {
    let learned = match directory.learn(&leases).await {
        Ok(()) => catalogue.learn(&leases).await,
        failed => failed,
    };
    if let Err(error) = learned {
        let leases: Vec<_> = leases.iter().collect();
        store.give_back(&leases).await?;
        return Err(error);
    }
    Ok(directory.with_terms(leases))
}

/// Where the next scan of the intake starts, when it must start from the beginning, and how far from
/// now it reaches.
///
/// Below the watermark lies nothing but what another worker had locked and gave back by a rollback,
/// so now and then a sweep starts from the beginning. A sweep may be slow where something keeps
/// vacuum back, so the slower it is the rarer. Only a sweep, or a scan after one that met older events,
/// opens the partitions of days long past.
#[derive(Debug)]
pub(super) struct Frontier {
    watermark: Watermark,
    far: bool,
    next_sweep: Option<Instant>,
    /// Which session's: another server may count its transactions anew.
    session: u32,
}

/// One scan of the intake.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    watermark: Watermark,
    /// Reaches events of any age.
    far: bool,
    sweep: bool,
    session: u32,
}

impl Frontier {
    /// Nothing has been looked at yet.
    pub(super) fn new() -> Self {
        Self {
            watermark: Watermark::beginning(),
            far: true,
            next_sweep: None,
            session: 0,
        }
    }

    /// A new session begins, perhaps on another server: what was known holds no longer.
    pub(super) fn begin_anew(&mut self) {
        *self = Self {
            session: self.session.wrapping_add(1),
            ..Self::new()
        };
    }

    /// The next scan starts from the beginning: somebody died, perhaps with events in hand.
    pub(super) fn sweep_soon(&mut self) {
        self.next_sweep = None;
    }

    pub(super) fn next(&self, now: Instant) -> Scan {
        if self.next_sweep.is_some_and(|at| now < at) {
            Scan {
                watermark: self.watermark.clone(),
                far: self.far,
                sweep: false,
                session: self.session,
            }
        } else {
            Scan {
                watermark: Watermark::beginning(),
                far: true,
                sweep: true,
                session: self.session,
            }
        }
    }

    pub(super) fn advance(&mut self, taken: &Taken, now: Instant) {
        if taken.scan.session != self.session {
            return;
        }
        if taken.scan.sweep {
            let rest = (taken.took * 100).clamp(SWEEP_EVERY, SWEEP_AT_LEAST_EVERY);
            self.next_sweep = Some(now + rest);
        }
        if taken.met == Met::TooFar {
            self.far = true;
            return;
        }
        self.watermark = taken.next.clone();
        self.far = taken.scan.far && taken.more && taken.met == Met::Far;
    }
}

/// Where the next look for lanes that are due starts.
///
/// Before that lies nothing but what is dead, and what was made due earlier since the last look. So now and then a look starts at the
/// beginning: the rarer, the longer that takes, and as good as always where nothing keeps vacuum back.
#[derive(Debug, Default)]
pub(super) struct LaneFrontier {
    start: Option<String>,
    next_sweep: Option<Instant>,
}

impl LaneFrontier {
    /// The next look starts at the beginning: something came up, or somebody died.
    pub(super) fn sweep_soon(&mut self) {
        self.next_sweep = None;
    }

    /// `None` is the beginning.
    pub(super) fn next(&self, now: Instant) -> Option<String> {
        let swept = self.next_sweep.is_some_and(|at| now < at);
        self.start.clone().filter(|_| swept)
    }

    pub(super) fn advance(&mut self, claimed: &Claimed, now: Instant) {
        if claimed.start.is_none() {
            let rest = (claimed.locking * LANE_SWEEP_REST).min(LONGEST_LANE_REST);
            self.next_sweep = Some(now + rest);
        }
        self.start.clone_from(&claimed.next);
    }
}

/// The ids of events made about `now`: a UUID of version 7 begins with its milliseconds.
fn ids_near(now: SystemTime) -> (Uuid, Uuid) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = |time: Duration| Uuid::from_u128(time.as_millis() << 80);
    (at(since.saturating_sub(NEAR)), at(since + NEAR))
}

/// Lanes that one look claims from.
const LANES_AT_ONCE: usize = 64;
/// How far from now an event's id may lie for a scan that leaves the long history alone.
const NEAR: Duration = Duration::from_hours(24);
/// How often the intake is scanned from the beginning.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How many times as long as it took lanes rest before they are looked through from the beginning again.
const LANE_SWEEP_REST: u32 = 20;
/// However long that took: an answer may be slow for other reasons than dead entries.
const LONGEST_LANE_REST: Duration = Duration::from_secs(10);
/// However slow that is.
const SWEEP_AT_LEAST_EVERY: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(scan: &Scan, more: bool, met: Met) -> Taken {
        Taken {
            ready: Vec::new(),
            events: 1,
            deliveries: 1,
            more,
            left_waiting: false,
            met,
            scan: scan.clone(),
            next: Watermark {
                xid: "7".to_owned(),
                open: vec!["5".to_owned()],
            },
            took: Duration::ZERO,
        }
    }

    #[test]
    fn the_first_scan_is_a_sweep_and_the_next_starts_where_it_ended() {
        let (mut frontier, now) = (Frontier::new(), Instant::now());
        let first = frontier.next(now);
        assert!(first.sweep && first.far && first.watermark == Watermark::beginning());
        frontier.advance(&taken(&first, false, Met::Far), now);
        let second = frontier.next(now);
        assert!(!second.sweep && !second.far);
        assert_eq!(
            (second.watermark.xid.as_str(), second.watermark.open),
            ("7", vec!["5".to_owned()])
        );
        assert!(frontier.next(now + SWEEP_EVERY).sweep);
    }

    #[test]
    fn a_scan_that_met_older_events_is_made_again_and_reaches_them_until_none_is_left() {
        let (mut frontier, now) = (Frontier::new(), Instant::now());
        frontier.advance(&taken(&frontier.next(now), false, Met::Far), now);
        let near = frontier.next(now);
        frontier.advance(&taken(&near, true, Met::TooFar), now);
        let far = frontier.next(now);
        assert!(far.far && !far.sweep && far.watermark == near.watermark);
        frontier.advance(&taken(&far, true, Met::Far), now);
        assert!(frontier.next(now).far, "there may be more");
        frontier.advance(&taken(&frontier.next(now), false, Met::Far), now);
        assert!(!frontier.next(now).far);
    }

    #[test]
    fn a_sweep_that_met_fresh_events_alone_is_not_followed_by_a_far_scan() {
        let (mut frontier, now) = (Frontier::new(), Instant::now());
        frontier.advance(&taken(&frontier.next(now), true, Met::Near), now);
        assert!(!frontier.next(now).far);
    }

    #[test]
    fn a_new_session_begins_anew_and_heeds_no_scan_of_the_old_one() {
        let (mut frontier, now) = (Frontier::new(), Instant::now());
        let old = frontier.next(now);
        frontier.begin_anew();
        frontier.advance(&taken(&old, false, Met::Far), now);
        assert!(frontier.next(now).sweep);
        frontier.advance(&taken(&frontier.next(now), false, Met::Far), now);
        assert!(!frontier.next(now).sweep);
        frontier.sweep_soon();
        assert!(frontier.next(now).sweep);
    }

    #[test]
    fn lanes_are_looked_through_from_the_beginning_the_rarer_the_longer_that_takes() {
        let claimed = |start: Option<&str>, next: &str, locking| Claimed {
            ready: Vec::new(),
            any: false,
            due_in: None,
            start: start.map(str::to_owned),
            next: Some(next.to_owned()),
            locking,
        };
        let (mut frontier, now) = (LaneFrontier::default(), Instant::now());
        let (slow, quick) = (Duration::from_millis(50), Duration::from_micros(200));
        assert_eq!(frontier.next(now), None);
        frontier.advance(&claimed(None, "a", slow), now);
        let soon = now + Duration::from_millis(999);
        assert_eq!(frontier.next(soon).as_deref(), Some("a"));
        frontier.advance(&claimed(Some("a"), "b", quick), soon);
        assert_eq!(frontier.next(soon).as_deref(), Some("b"));
        let later = now + slow * LANE_SWEEP_REST;
        assert_eq!(frontier.next(later), None);
        frontier.advance(&claimed(None, "c", quick), later);
        assert_eq!(frontier.next(later + quick * LANE_SWEEP_REST), None);
        // However long it took, a lane is found within seconds; and at once where something came up.
        frontier.advance(&claimed(None, "d", Duration::from_hours(1)), later);
        assert_eq!(frontier.next(later).as_deref(), Some("d"));
        assert_eq!(frontier.next(later + LONGEST_LANE_REST), None);
        frontier.sweep_soon();
        assert_eq!(frontier.next(later), None);
    }

    #[test]
    fn ids_near_now_hold_what_is_made_now_and_not_what_was_made_last_week() {
        let now = SystemTime::now();
        let (oldest, newest) = ids_near(now);
        let made = Uuid::now_v7();
        assert!(oldest < made && made < newest);
        let (_, last_week) = ids_near(now - Duration::from_hours(7 * 24));
        assert!(last_week < oldest);
    }
}
