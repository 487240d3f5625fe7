//! From what an attempt met to what happens next: the policy of a subscription, read aloud.

use std::time::Duration;

use crate::delivery::{Outcome, Report, Rule, Ruling, Verdict, Wish};

/// When to try again, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// How long to wait after the first, second, ... failed attempt. When the list ends, the delivery is over.
    pub intervals: Vec<Duration>,
    /// How chance varies them.
    pub jitter: Jitter,
    /// What a 4xx status means that is not spoken of elsewhere.
    pub client_errors: ClientErrors,
}

/// How chance varies an interval, so that what failed together is not tried again together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Jitter {
    /// Not at all.
    None,
    /// It is stretched or shrunk by up to this fraction, 0 to 1.
    Fraction(f64),
    /// Anything from half of it to all of it.
    Equal,
    /// Anything from nothing to all of it.
    Full,
}

/// What 4xx statuses mean, but for 408, 425 and 429, which pass, and 410, which does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientErrors {
    /// Somebody may mend it: try again.
    Retry,
    /// It will never be taken.
    Reject,
}

impl RetryPolicy {
    /// What attempt `number` (from 1) means, of a delivery that may still be sent for `left`, if there is an end. `chance` is a
    /// random number in 0..1.
    pub fn judge(
        &self,
        report: &Report,
        number: i16,
        left: Option<Duration>,
        chance: f64,
    ) -> Ruling {
        match self.ending(report) {
            Some((verdict, rule)) => Ruling {
                verdict,
                rule,
                // That one message is over does not end what was asked for the endpoint.
                hold: hold(report)
                    .filter(|_| verdict != Verdict::Done && !rule.is_some_and(Rule::pauses)),
            },
            None => self.try_again(report, number, left, chance),
        }
    }

    /// How the delivery ends here, where it does, and by which rule; one that is accepted needs none.
    fn ending(&self, report: &Report) -> Option<(Verdict, Option<Rule>)> {
        let (status, wish) = (report.http_status, report.advice.wish);
        let is_done = matches!(report.outcome, Outcome::Accepted | Outcome::Sandboxed);
        let rule = match report.outcome {
            _ if wish == Some(Wish::Disable) => Some(Rule::Disable),
            Outcome::Accepted => None,
            Outcome::Sandboxed => Some(Rule::Sandbox),
            _ if wish == Some(Wish::AbortMessage) => Some(Rule::AbortMessage),
            Outcome::Rejected if status == Some(GONE) => Some(Rule::Gone),
            Outcome::Rejected if self.is_final(status) => Some(Rule::ClientError),
            _ => return None,
        };
        let verdict = if is_done {
            Verdict::Done
        } else {
            Verdict::Rejected
        };
        Some((verdict, rule))
    }

    fn is_final(&self, status: Option<u16>) -> bool {
        self.client_errors == ClientErrors::Reject
            && status
                .is_some_and(|status| (400..500).contains(&status) && !PASSING.contains(&status))
    }

    fn try_again(
        &self,
        report: &Report,
        number: i16,
        left: Option<Duration>,
        chance: f64,
    ) -> Ruling {
        let asked = hold(report);
        let (wait, rule) = match (report.outcome, self.interval_after(number)) {
            // Nobody failed but a worker: it is sent again at once, even where the list has ended. But not for ever: what kills
            // every worker that touches it must end some day.
            (Outcome::Abandoned, _) if number <= self.allowed() + GRACE => {
                (Duration::ZERO, Rule::WorkerLost)
            }
            (_, None) => {
                return Ruling {
                    verdict: Verdict::Exhausted,
                    rule: Some(Rule::NoRetriesLeft),
                    hold: asked,
                };
            }
            (_, Some(interval)) => {
                let interval = self.jitter.vary(interval, chance);
                match asked {
                    Some(asked) if asked > interval => (asked, Rule::RetryAfter),
                    _ => (interval, Rule::Interval),
                }
            }
        };
        let is_too_late = left.is_some_and(|left| wait >= left);
        Ruling {
            verdict: if is_too_late {
                Verdict::Expired
            } else {
                Verdict::Retry(wait)
            },
            rule: Some(if is_too_late {
                Rule::ExpiresBefore
            } else {
                rule
            }),
            hold: asked,
        }
    }

    /// How many attempts there are, if each fails.
    fn allowed(&self) -> i16 {
        i16::try_from(self.intervals.len()).map_or(i16::MAX - GRACE, |retries| retries + 1)
    }

    /// How many attempts may follow attempt `number`.
    pub fn left_after(&self, number: i16) -> i16 {
        self.allowed().saturating_sub(number).max(0)
    }

    fn interval_after(&self, number: i16) -> Option<Duration> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.intervals.get(index).copied()
    }
}

/// For how long the receiver asked to be left alone, as far as we do that.
fn hold(report: &Report) -> Option<Duration> {
    report.advice.retry_after.map(|wait| wait.min(LONGEST_HOLD))
}

impl Jitter {
    /// The interval, varied by `chance`, a random number in 0..1.
    fn vary(self, interval: Duration, chance: f64) -> Duration {
        interval.mul_f64(match self {
            Self::None => 1.0,
            Self::Fraction(fraction) => 1.0 + fraction * (2.0 * chance - 1.0),
            Self::Equal => 0.5 + chance / 2.0,
            Self::Full => chance,
        })
    }
}

/// How many abandoned attempts may follow the last one that the list allows.
const GRACE: i16 = 3;
/// The one status by which a receiver says that it will never want anything more.
const GONE: u16 = 410;
/// Too slow, too early, too much: statuses that pass by themselves, though they are 4xx.
const PASSING: [u16; 3] = [408, 425, 429];
/// However long a receiver asks us to stay away.
pub const LONGEST_HOLD: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::delivery::{Advice, Phases};

    const S: Duration = Duration::from_secs(1);
    const M: Duration = Duration::from_mins(1);

    /// What an attempt met, in few words.
    #[derive(Clone, Copy)]
    struct Met {
        outcome: Outcome,
        status: Option<u16>,
        advice: Advice,
    }

    fn met(outcome: Outcome) -> Met {
        Met {
            outcome,
            status: None,
            advice: Advice::default(),
        }
    }

    fn status(status: u16) -> Met {
        let accepted = (200..300).contains(&status);
        Met {
            status: Some(status),
            ..met(if accepted {
                Outcome::Accepted
            } else {
                Outcome::Rejected
            })
        }
    }

    impl Met {
        fn after(mut self, wait: Duration) -> Self {
            self.advice.retry_after = Some(wait);
            self
        }

        fn wishing(mut self, wish: Wish) -> Self {
            self.advice.wish = Some(wish);
            self
        }

        fn report(self) -> Report {
            Report {
                outcome: self.outcome,
                http_status: self.status,
                error: None,
                snippet: None,
                advice: self.advice,
                remote: None,
                duration: Duration::ZERO,
                phases: Phases::default(),
            }
        }
    }

    impl fmt::Display for Met {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(
                f,
                "{} {:?} {:?}",
                self.outcome.as_str(),
                self.status,
                self.advice
            )
        }
    }

    fn policy(seconds: &[u64]) -> RetryPolicy {
        RetryPolicy {
            intervals: seconds.iter().map(|s| Duration::from_secs(*s)).collect(),
            jitter: Jitter::None,
            client_errors: ClientErrors::Retry,
        }
    }

    fn rejecting() -> RetryPolicy {
        RetryPolicy {
            client_errors: ClientErrors::Reject,
            ..policy(&[5, 300])
        }
    }

    fn varied(jitter: Jitter) -> RetryPolicy {
        RetryPolicy {
            jitter,
            ..policy(&[10])
        }
    }

    fn retry(wait: Duration) -> Verdict {
        Verdict::Retry(wait)
    }

    /// Under a policy of 5 s and 5 min: of attempt so and so, with so much time left.
    #[test]
    #[rustfmt::skip]
    fn responses_and_history_lead_to_verdict_rule_and_hold() {
        use Outcome::*;
        use Rule::*;
        use Wish::{AbortMessage as ABORT, Disable as DISABLE};
        const NO: Option<Duration> = None;
        let (plain, strict) = (policy(&[5, 300]), rejecting());
        let rows = [
            // What is accepted is done, whatever the history.
            (&plain, status(200), 1, NO, Verdict::Done, None, NO),
            (&plain, status(201), 2, NO, Verdict::Done, None, NO),
            (&plain, status(202), 3, NO, Verdict::Done, None, NO),
            (&plain, status(204), 9, NO, Verdict::Done, None, NO),
            (&plain, status(299), 1, Some(S), Verdict::Done, None, NO),
            (&plain, status(200).after(M), 1, NO, Verdict::Done, None, NO),
            (&plain, status(200).wishing(ABORT), 1, NO, Verdict::Done, None, NO),
            (&plain, status(200).wishing(DISABLE), 1, NO, Verdict::Done, Some(Disable), NO),
            (&plain, met(Sandboxed), 1, NO, Verdict::Done, Some(Sandbox), NO),
            (&strict, met(Sandboxed), 3, Some(S), Verdict::Done, Some(Sandbox), NO),
            // Redirects, server errors and faults are tried again, interval by interval.
            (&plain, status(301), 1, NO, retry(5 * S), Some(Interval), NO),
            (&plain, status(302), 2, NO, retry(300 * S), Some(Interval), NO),
            (&plain, status(307), 3, NO, Verdict::Exhausted, Some(NoRetriesLeft), NO),
            (&strict, status(308), 1, NO, retry(5 * S), Some(Interval), NO),
            (&plain, status(500), 1, NO, retry(5 * S), Some(Interval), NO),
            (&plain, status(500), 2, NO, retry(300 * S), Some(Interval), NO),
            (&plain, status(500), 3, NO, Verdict::Exhausted, Some(NoRetriesLeft), NO),
            (&plain, status(500), 4, NO, Verdict::Exhausted, Some(NoRetriesLeft), NO),
            (&strict, status(502), 1, NO, retry(5 * S), Some(Interval), NO),
            (&strict, status(503), 1, NO, retry(5 * S), Some(Interval), NO),
            (&strict, status(504), 2, NO, retry(300 * S), Some(Interval), NO),
            (&strict, status(599), 3, NO, Verdict::Exhausted, Some(NoRetriesLeft), NO),
            (&plain, met(TimedOut), 1, NO, retry(5 * S), Some(Interval), NO),
            (&strict, met(TimedOut), 3, NO, Verdict::Exhausted, Some(NoRetriesLeft), NO),
            (&plain, met(Unreachable), 2, NO, retry(300 * S), Some(Interval), NO),
            (&strict, met(Unreachable), 1, NO, retry(5 * S), Some(Interval), NO),
            (&plain, met(Blocked), 1, NO, retry(5 * S), Some(Interval), NO),
            (&strict, met(Blocked), 3, NO, Verdict::Exhausted, Some(NoRetriesLeft), NO),
            // 4xx by the terms; some pass by themselves.
            (&plain, status(400), 1, NO, retry(5 * S), Some(Interval), NO),
            (&plain, status(401), 2, NO, retry(300 * S), Some(Interval), NO),
            (&plain, status(404), 3, NO, Verdict::Exhausted, Some(NoRetriesLeft), NO),
            (&strict, status(400), 1, NO, Verdict::Rejected, Some(ClientError), NO),
            (&strict, status(403), 2, NO, Verdict::Rejected, Some(ClientError), NO),
            (&strict, status(404), 3, NO, Verdict::Rejected, Some(ClientError), NO),
            (&strict, status(422), 1, NO, Verdict::Rejected, Some(ClientError), NO),
            (&strict, status(499), 1, NO, Verdict::Rejected, Some(ClientError), NO),
            (&strict, status(400).after(M), 1, NO, Verdict::Rejected, Some(ClientError), Some(M)),
            (&strict, status(408), 1, NO, retry(5 * S), Some(Interval), NO),
            (&strict, status(425), 1, NO, retry(5 * S), Some(Interval), NO),
            (&strict, status(429), 2, NO, retry(300 * S), Some(Interval), NO),
            (&strict, status(429), 3, NO, Verdict::Exhausted, Some(NoRetriesLeft), NO),
            // Gone is gone, and wishes are heeded.
            (&plain, status(410), 1, NO, Verdict::Rejected, Some(Gone), NO),
            (&strict, status(410), 2, Some(S), Verdict::Rejected, Some(Gone), NO),
            (&plain, status(410).after(M), 1, NO, Verdict::Rejected, Some(Gone), NO),
            (&plain, status(500).wishing(DISABLE), 1, NO, Verdict::Rejected, Some(Disable), NO),
            (&plain, status(410).wishing(DISABLE), 1, NO, Verdict::Rejected, Some(Disable), NO),
            (&plain, status(500).wishing(ABORT), 1, NO, Verdict::Rejected, Some(AbortMessage), NO),
            (&strict, status(404).wishing(ABORT), 1, NO, Verdict::Rejected, Some(AbortMessage), NO),
            (&plain, status(503).wishing(ABORT).after(M), 1, NO, Verdict::Rejected, Some(AbortMessage), Some(M)),
            // Retry-After: the later of the two, and the endpoint is left alone meanwhile.
            (&plain, status(503).after(M), 1, NO, retry(M), Some(RetryAfter), Some(M)),
            (&plain, status(429).after(M), 1, NO, retry(M), Some(RetryAfter), Some(M)),
            (&plain, status(429).after(M), 2, NO, retry(300 * S), Some(Interval), Some(M)),
            (&plain, status(429).after(5 * S), 1, NO, retry(5 * S), Some(Interval), Some(5 * S)),
            (&plain, status(503).after(Duration::ZERO), 1, NO, retry(5 * S), Some(Interval), Some(Duration::ZERO)),
            (&plain, status(301).after(M), 1, NO, retry(M), Some(RetryAfter), Some(M)),
            (&plain, status(503).after(10_000 * M), 1, NO, retry(LONGEST_HOLD), Some(RetryAfter), Some(LONGEST_HOLD)),
            (&plain, status(429).after(M), 3, NO, Verdict::Exhausted, Some(NoRetriesLeft), Some(M)),
            // What would come too late is not tried again.
            (&plain, status(500), 1, Some(6 * S), retry(5 * S), Some(Interval), NO),
            (&plain, status(500), 1, Some(5 * S), Verdict::Expired, Some(ExpiresBefore), NO),
            (&plain, status(500), 2, Some(10 * S), Verdict::Expired, Some(ExpiresBefore), NO),
            (&plain, status(503).after(M), 1, Some(30 * S), Verdict::Expired, Some(ExpiresBefore), Some(M)),
            (&plain, met(TimedOut), 1, Some(Duration::ZERO), Verdict::Expired, Some(ExpiresBefore), NO),
            (&plain, status(500), 3, Some(S), Verdict::Exhausted, Some(NoRetriesLeft), NO),
            // A lost worker is nobody's failure: at once, past the end of the list, but not for ever, nor too late.
            (&plain, met(Abandoned), 1, NO, retry(Duration::ZERO), Some(WorkerLost), NO),
            (&plain, met(Abandoned), 3, NO, retry(Duration::ZERO), Some(WorkerLost), NO),
            (&plain, met(Abandoned), 3 + GRACE, NO, retry(Duration::ZERO), Some(WorkerLost), NO),
            (&plain, met(Abandoned), 4 + GRACE, NO, Verdict::Exhausted, Some(NoRetriesLeft), NO),
            (&plain, met(Abandoned), 1, Some(S), retry(Duration::ZERO), Some(WorkerLost), NO),
            (&plain, met(Abandoned), 1, Some(Duration::ZERO), Verdict::Expired, Some(ExpiresBefore), NO),
        ];
        for (policy, met, number, left, verdict, rule, hold) in rows {
            let ruling = policy.judge(&met.report(), number, left, 0.3);
            let expected = Ruling { verdict, rule, hold };
            assert_eq!(ruling, expected, "{met}, attempt {number}, {left:?} left, 4xx {:?}", policy.client_errors);
        }
        assert!(rows.len() >= 60, "{}", rows.len());
    }

    #[test]
    fn the_schedules_that_people_know_come_out_as_they_know_them() {
        let ladders: [&[u64]; 4] = [
            &[5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400],
            &[15, 60, 300, 900, 3_600],
            &[60, 300, 900, 3_600],
            &[60, 120, 240],
        ];
        for seconds in ladders {
            let policy = policy(seconds);
            for (index, wait) in (1_i16..).zip(seconds) {
                let ruling = policy.judge(&status(500).report(), index, None, 0.9);
                assert_eq!(ruling.verdict, retry(Duration::from_secs(*wait)));
                assert_eq!(
                    usize::try_from(policy.left_after(index)).unwrap_or(0),
                    seconds.len() + 1 - usize::try_from(index).unwrap_or(0)
                );
            }
            let last = i16::try_from(seconds.len()).unwrap_or(0) + 1;
            let ruling = policy.judge(&status(500).report(), last, None, 0.9);
            assert_eq!(
                (ruling.verdict, policy.left_after(last)),
                (Verdict::Exhausted, 0)
            );
        }
    }

    #[test]
    fn jitter_keeps_its_bounds() {
        for (jitter, [least, middle, most]) in [
            (Jitter::None, [10.0, 10.0, 10.0]),
            (Jitter::Fraction(0.1), [9.0, 10.0, 11.0]),
            (Jitter::Fraction(1.0), [0.0, 10.0, 20.0]),
            (Jitter::Equal, [5.0, 7.5, 10.0]),
            (Jitter::Full, [0.0, 5.0, 10.0]),
        ] {
            for (chance, seconds) in [(0.0, least), (0.5, middle), (1.0, most)] {
                let verdict = varied(jitter)
                    .judge(&status(500).report(), 1, None, chance)
                    .verdict;
                assert_eq!(
                    verdict,
                    retry(Duration::from_secs_f64(seconds)),
                    "{jitter:?} {chance}"
                );
            }
        }
    }

    #[test]
    fn retry_after_is_not_shortened_by_jitter() {
        let ruling = varied(Jitter::Full).judge(&status(429).after(M).report(), 1, None, 0.0);
        assert_eq!(ruling.verdict, retry(M));
    }
}
