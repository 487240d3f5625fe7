//! From what an attempt met to what happens next.

use std::time::Duration;

use crate::delivery::{Outcome, Verdict};

/// When to try again, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// How long to wait after the first, second, ... failed attempt. When the list ends, the delivery is over.
    pub intervals: Vec<Duration>,
    /// Each interval is stretched or shrunk at random by up to this fraction, 0 to 1.
    pub jitter: f64,
}

impl RetryPolicy {
    /// What attempt `number` (from 1) means for its delivery. `chance` is a random number in 0..1.
    pub fn verdict(
        &self,
        outcome: Outcome,
        http_status: Option<u16>,
        number: i16,
        chance: f64,
    ) -> Verdict {
        match (outcome, http_status) {
            (Outcome::Accepted, _) => Verdict::Done,
            (Outcome::Rejected, Some(GONE)) => Verdict::Rejected,
            // Nobody failed but a worker: it is sent again at once, even where the list has ended. But
            // not for ever: what kills every worker that touches it must end some day.
            (Outcome::Abandoned, _) if number <= self.allowed() + GRACE => {
                Verdict::Retry(Duration::ZERO)
            }
            _ => self
                .interval_after(number)
                .map_or(Verdict::Exhausted, |interval| {
                    Verdict::Retry(self.jittered(interval, chance))
                }),
        }
    }

    /// How many attempts there are, if each fails.
    fn allowed(&self) -> i16 {
        i16::try_from(self.intervals.len()).map_or(i16::MAX - GRACE, |retries| retries + 1)
    }

    fn interval_after(&self, number: i16) -> Option<Duration> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.intervals.get(index).copied()
    }

    fn jittered(&self, interval: Duration, chance: f64) -> Duration {
        interval.mul_f64(1.0 + self.jitter * (2.0 * chance - 1.0))
    }
}

/// How many abandoned attempts may follow the last one that the list allows.
const GRACE: i16 = 3;

/// The one status by which a receiver says that it will never want this.
const GONE: u16 = 410;

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            intervals: vec![Duration::from_secs(5), Duration::from_mins(5)],
            jitter: 0.1,
        }
    }

    #[test]
    fn each_failure_waits_for_its_interval_and_the_last_one_ends_it() {
        let verdict = |number| policy().verdict(Outcome::Rejected, Some(500), number, 0.5);
        assert_eq!(verdict(1), Verdict::Retry(Duration::from_secs(5)));
        assert_eq!(verdict(2), Verdict::Retry(Duration::from_mins(5)));
        assert_eq!(verdict(3), Verdict::Exhausted);
    }

    #[test]
    fn every_failure_but_gone_is_retried() {
        for (outcome, status) in [
            (Outcome::Rejected, Some(301)),
            (Outcome::Rejected, Some(404)),
            (Outcome::Rejected, Some(503)),
            (Outcome::TimedOut, None),
            (Outcome::Unreachable, None),
            (Outcome::Blocked, None),
        ] {
            let verdict = policy().verdict(outcome, status, 1, 0.5);
            assert_eq!(
                verdict,
                Verdict::Retry(Duration::from_secs(5)),
                "{outcome:?}"
            );
        }
        assert_eq!(
            policy().verdict(Outcome::Rejected, Some(410), 1, 0.5),
            Verdict::Rejected
        );
        assert_eq!(
            policy().verdict(Outcome::Accepted, Some(204), 1, 0.5),
            Verdict::Done
        );
    }

    #[test]
    fn an_abandoned_attempt_is_repeated_at_once_even_after_the_last_but_not_for_ever() {
        let verdict = |number| policy().verdict(Outcome::Abandoned, None, number, 0.5);
        assert_eq!(verdict(1), Verdict::Retry(Duration::ZERO));
        assert_eq!(verdict(3), Verdict::Retry(Duration::ZERO));
        assert_eq!(verdict(3 + GRACE), Verdict::Retry(Duration::ZERO));
        assert_eq!(verdict(4 + GRACE), Verdict::Exhausted);
    }

    #[test]
    fn jitter_stays_within_its_fraction() {
        for (chance, seconds) in [(0.0, 4.5), (0.5, 5.0), (1.0, 5.5)] {
            let verdict = policy().verdict(Outcome::TimedOut, None, 1, chance);
            assert_eq!(verdict, Verdict::Retry(Duration::from_secs_f64(seconds)));
        }
    }
}
