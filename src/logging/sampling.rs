//! Which log lines are written when there are too many: so many of each kind in a second. The rest are counted, and told of together.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::time::{Duration, Instant};

/// Lets so many lines of each kind pass in a second. There are as many kinds as places in the code that log, so that the lines of
/// one never crowd out those of another.
#[derive(Debug)]
pub(super) struct Sampler<K> {
    kinds: HashMap<K, Second>,
}

/// The running second of one kind.
#[derive(Debug)]
struct Second {
    began: Instant,
    passed: u32,
    /// Lines left out since they were last told of.
    left_out: u64,
    /// What the first of them said.
    message: String,
}

/// Lines of one kind that were left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// What these lines say.
    pub(super) of: String,
    pub(super) lines: u64,
}

impl<K: Eq + Hash> Sampler<K> {
    pub(super) fn new() -> Self {
        Self {
            kinds: HashMap::new(),
        }
    }

    /// Whether a line of this kind may be written now, of which `most` may be in a second. Asks for its message only where it is the
    /// first that is left out.
    pub(super) fn passes(
        &mut self,
        kind: K,
        most: u32,
        now: Instant,
        message: impl FnOnce() -> String,
    ) -> bool {
        let second = self.kinds.entry(kind).or_insert_with(|| Second {
            began: now,
            passed: 0,
            left_out: 0,
            message: String::new(),
        });
        if now.saturating_duration_since(second.began) >= SECOND {
            (second.began, second.passed) = (now, 0);
        }
        if second.passed < most {
            second.passed += 1;
            return true;
        }
        if second.left_out == 0 {
            second.message = message();
        }
        second.left_out += 1;
        false
    }

    /// What was left out since this was last asked, in the order of what the lines say.
    pub(super) fn left_out(&mut self) -> Vec<LeftOut> {
        let kinds = self.kinds.values_mut();
        let mut left_out: Vec<LeftOut> = kinds
            .filter(|second| second.left_out > 0)
            .map(|second| LeftOut {
                of: mem::take(&mut second.message),
                lines: mem::take(&mut second.left_out),
            })
            .collect();
        left_out.sort_by(|one, other| one.of.cmp(&other.of));
        left_out
    }
}

pub(super) const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_pass_in_a_second_and_the_rest_are_told_of_once() {
        let (mut sampler, start) = (Sampler::new(), Instant::now());
        let mut passed = |at_ms: u64, lines: u32| {
            let now = start + Duration::from_millis(at_ms);
            let line = |_: &u32| sampler.passes("attempt", 3, now, || format!("at {at_ms}"));
            let passed = (0..lines).filter(line).count();
            (passed, sampler.left_out())
        };
        let left_out = |of: &str, lines| {
            vec![LeftOut {
                of: of.to_owned(),
                lines,
            }]
        };
        assert_eq!(passed(0, 2), (2, vec![]));
        assert_eq!(passed(900, 5), (1, left_out("at 900", 4)));
        assert_eq!(passed(999, 1), (0, left_out("at 999", 1)));
        assert_eq!(passed(1000, 3), (3, vec![]));
        assert_eq!(passed(5000, 4), (3, left_out("at 5000", 1)));
        assert_eq!(passed(5001, 0), (0, vec![]));
    }

    #[test]
    fn no_kind_of_line_crowds_out_another() {
        let (mut sampler, now) = (Sampler::new(), Instant::now());
        let mut passes = |kind, message: &str| sampler.passes(kind, 1, now, || message.to_owned());
        assert!(passes(1, "storm"));
        assert!((0..1000).all(|_| !passes(1, "storm")));
        assert!(passes(2, "breaker"));
        assert!(!passes(2, "breaker"));
        let told = sampler.left_out();
        let told: Vec<_> = told
            .iter()
            .map(|left_out| (left_out.of.as_str(), left_out.lines))
            .collect();
        assert_eq!(told, [("breaker", 1), ("storm", 1000)]);
    }
}
