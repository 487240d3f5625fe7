//! What each subscription's attempts came to, exactly; and which of them a page has room for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::list::SECONDS_FOR_A_SUBSCRIPTION;
use crate::delivery::{Attempt, Outcome};

/// The attempts that this worker recorded, subscription by subscription.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    all: Mutex<HashMap<i32, Tally>>,
}

/// Those of one subscription.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// How many met what, in the order of [`Outcome::ALL`].
    pub(super) outcomes: [u64; Outcome::ALL.len()],
    /// How many took so long, bucket by bucket; the last has no bound.
    pub(super) buckets: [u64; SECONDS_FOR_A_SUBSCRIPTION.len() + 1],
    /// How long all of them took, in seconds.
    pub(super) seconds: f64,
    /// Failures since the last that was accepted.
    run: u32,
    /// Attempts of late, as of that time: each minute half of them are forgotten.
    lately: f64,
    as_of: Instant,
}

impl Tallies {
    /// Counts a batch.
    pub(super) fn count(&self, attempts: &[Attempt], now: Instant) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for attempt in attempts {
            let id = attempt.key.subscription_id;
            if let Some(tally) = all.get_mut(&id) {
                tally.count(attempt, now);
            } else if all.len() < MOST {
                let mut tally = Tally::new(now);
                tally.count(attempt, now);
                all.insert(id, tally);
            }
        }
    }

    /// The tallies of at most `most` subscriptions that have a name, with it: first those that are `named`, however many; then those
    /// with the most failures since anything was accepted, up to half of the room that is left; then those with the most attempts of late.
    pub(super) fn top(
        &self,
        most: usize,
        named: &[String],
        name_of: impl Fn(i32) -> Option<String>,
        now: Instant,
    ) -> Vec<(String, Tally)> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut top = Top::default();
        if !named.is_empty() {
            let is_named = |id: &i32| name_of(*id).is_some_and(|name| named.contains(&name));
            top.add(all.keys().filter(|id| is_named(id)).copied(), usize::MAX);
        }
        let room = most.saturating_sub(top.ids.len());
        let failing = all.iter().filter(|(_, tally)| tally.run > 0);
        let failing = failing.map(|(id, tally)| (f64::from(tally.run), *id));
        top.add(worst(failing.collect()), room.div_ceil(2));
        let room = most.saturating_sub(top.ids.len());
        let busy = all.iter().map(|(id, tally)| (tally.lately(now), *id));
        top.add(worst(busy.collect()), room);
        let told = top.ids.into_iter();
        told.filter_map(|id| Some((name_of(id)?, all.get(&id)?.clone())))
            .collect()
    }
}

#[derive(Default)]
struct Top {
    ids: Vec<i32>,
}

impl Top {
    fn add(&mut self, ids: impl Iterator<Item = i32>, room: usize) {
        let new: Vec<i32> = ids.filter(|id| !self.ids.contains(id)).take(room).collect();
        self.ids.extend(new);
    }
}

/// The ids, the largest number first.
fn worst(mut ranked: Vec<(f64, i32)>) -> impl Iterator<Item = i32> {
    ranked
        .sort_unstable_by(|(one, id), (other, another)| other.total_cmp(one).then(id.cmp(another)));
    ranked.into_iter().map(|(_, id)| id)
}

impl Tally {
    fn new(now: Instant) -> Self {
        Self {
            outcomes: [0; _],
            buckets: [0; _],
            seconds: 0.0,
            run: 0,
            lately: 0.0,
            as_of: now,
        }
    }

    fn count(&mut self, attempt: &Attempt, now: Instant) {
        let outcome = attempt.report.outcome;
        self.outcomes[outcome as usize] += 1;
        self.lately = self.lately(now) + 1.0;
        self.as_of = now;
        match outcome {
            Outcome::Accepted => self.run = 0,
            outcome if outcome.is_failure() => self.run = self.run.saturating_add(1),
            _ => {}
        }
        if outcome != Outcome::Abandoned {
            let seconds = attempt.report.duration.as_secs_f64();
            self.seconds += seconds;
            self.buckets[SECONDS_FOR_A_SUBSCRIPTION.partition_point(|bound| *bound < seconds)] += 1;
        }
    }

    fn lately(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.as_of);
        if since < A_MOMENT {
            return self.lately;
        }
        self.lately * (-since.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }
}

/// Beyond this many, further subscriptions have no tally.
const MOST: usize = 100_000;
const HALF_LIFE: Duration = Duration::from_mins(1);
/// Within it, nothing is forgotten: a batch is counted at one time.
const A_MOMENT: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::attempts::tests::attempt;

    fn name(id: i32) -> Option<String> {
        (id != 99).then(|| format!("s{id}"))
    }

    fn names(top: Vec<(String, Tally)>) -> Vec<String> {
        top.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn those_named_come_first_then_the_worst_then_the_busiest() {
        let (tallies, now) = (Tallies::default(), Instant::now());
        for id in 1..=50 {
            let busy = usize::try_from(id).unwrap_or(0);
            tallies.count(&vec![attempt(id, Outcome::Accepted); busy], now);
        }
        tallies.count(&[attempt(3, Outcome::TimedOut)], now);
        tallies.count(&vec![attempt(4, Outcome::Rejected); 2], now);
        tallies.count(&vec![attempt(5, Outcome::Rejected); 3], now);
        let top = tallies.top(5, &["s7".to_owned()], name, now);
        assert_eq!(names(top), ["s7", "s5", "s4", "s50", "s49"]);
        assert!(tallies.top(0, &[], name, now).is_empty());
        let named = tallies.top(0, &["s7".to_owned()], name, now);
        assert_eq!(names(named), ["s7"]);
    }

    #[test]
    fn one_that_comes_back_into_the_list_goes_on_from_its_true_count() {
        let (tallies, now) = (Tallies::default(), Instant::now());
        tallies.count(&vec![attempt(1, Outcome::Accepted); 10], now);
        let later = now + Duration::from_mins(30);
        tallies.count(&vec![attempt(2, Outcome::Accepted); 5], later);
        assert_eq!(names(tallies.top(1, &[], name, later)), ["s2"]);
        let latest = later + Duration::from_mins(30);
        tallies.count(&vec![attempt(1, Outcome::Accepted); 7], latest);
        let top = tallies.top(1, &[], name, latest);
        assert_eq!(top[0].0, "s1");
        assert_eq!(top[0].1.outcomes[Outcome::Accepted as usize], 17);
    }

    #[test]
    fn one_whose_name_nobody_knows_is_left_out_and_an_accepted_attempt_ends_a_run() {
        let (tallies, now) = (Tallies::default(), Instant::now());
        tallies.count(&[attempt(99, Outcome::Accepted)], now);
        tallies.count(
            &[attempt(1, Outcome::Rejected), attempt(1, Outcome::Accepted)],
            now,
        );
        let top = tallies.top(20, &[], name, now);
        assert_eq!(top.len(), 1);
        assert_eq!(top[0].1.run, 0);
    }

    #[test]
    fn a_bucket_holds_what_took_as_long_as_its_bound() {
        let (tallies, now) = (Tallies::default(), Instant::now());
        let mut slow = attempt(1, Outcome::Accepted);
        slow.report.duration = Duration::from_millis(50);
        let mut slowest = slow.clone();
        slowest.report.duration = Duration::from_mins(2);
        tallies.count(&[slow, slowest], now);
        let top = tallies.top(1, &[], name, now);
        let buckets = top[0].1.buckets;
        assert_eq!(
            (buckets[0], buckets[SECONDS_FOR_A_SUBSCRIPTION.len()]),
            (1, 1)
        );
        assert!((top[0].1.seconds - 120.05).abs() < 1e-9);
    }
}
