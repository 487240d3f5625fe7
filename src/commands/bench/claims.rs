//! What the worker's statements took, as its `/metrics` counts it.

use std::collections::BTreeMap;

use posthaste::Result;
use serde_json::{Value, json};

use super::worker::Worker;

/// All that was counted up to a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading(BTreeMap<String, f64>);

/// How long one statement took between two readings, from its sending to its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Timing {
    pub(super) calls: f64,
    pub(super) seconds: f64,
    /// Between the bounds of a bucket it is taken for even, as Prometheus does it. None where nothing was called.
    pub(super) p99: Option<f64>,
}

impl Reading {
    pub(super) async fn of(worker: &Worker) -> Result<Self> {
        Ok(Self(worker.samples().await?))
    }

    /// What came since an earlier reading of the same worker.
    pub(super) fn since(&self, before: &Self) -> Self {
        let grown = self.0.iter().map(|(name, value)| {
            let grown = value - before.0.get(name).copied().unwrap_or_default();
            (name.clone(), grown)
        });
        Self(grown.collect())
    }

    /// Of one statement, by its file in sql/queries.
    pub(super) fn timing(&self, query: &str) -> Timing {
        let sample = |kind: &str| {
            let name = format!("{STATEMENT}_{kind}{{query=\"{query}\"}}");
            self.0.get(&name).copied().unwrap_or_default()
        };
        Timing {
            calls: sample("count"),
            seconds: sample("sum"),
            p99: quantile(&self.buckets(query), 0.99),
        }
    }

    /// How many statements there were of any kind.
    pub(super) fn statements(&self) -> f64 {
        let counts = self
            .0
            .iter()
            .filter(|(name, _)| name.starts_with(&format!("{STATEMENT}_count")));
        counts.map(|(_, count)| count).sum()
    }

    /// Seconds of everything that finding and leasing deliveries takes.
    pub(super) fn claiming(&self) -> f64 {
        CLAIMS.iter().map(|query| self.timing(query).seconds).sum()
    }

    /// Of the statements that every delivery meets.
    pub(super) fn json(&self) -> Value {
        let timings = HOT.map(|query| (query.to_owned(), self.timing(query).json()));
        Value::Object(timings.into_iter().collect())
    }

    /// Upper bounds with how many took no longer, the shortest first.
    fn buckets(&self, query: &str) -> Vec<(f64, f64)> {
        let start = format!("{STATEMENT}_bucket{{query=\"{query}\",le=\"");
        let mut buckets: Vec<(f64, f64)> = self
            .0
            .iter()
            .filter_map(|(name, count)| {
                let bound = name.strip_prefix(&start)?.strip_suffix("\"}")?;
                Some((bound.parse().ok()?, *count))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        buckets
    }
}

impl Timing {
    /// Milliseconds a call.
    pub(super) fn mean(self) -> Option<f64> {
        (self.calls > 0.0).then(|| self.seconds * 1e3 / self.calls)
    }

    /// Milliseconds.
    pub(super) fn p99_millis(self) -> Option<f64> {
        self.p99.map(|seconds| seconds * 1e3)
    }

    pub(super) fn json(self) -> Value {
        json!({
            "calls": self.calls, "seconds": self.seconds, "mean_ms": self.mean(), "p99_ms": self.p99_millis(),
        })
    }
}

fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let all = buckets.last()?.1;
    let wanted = all * share;
    let place = buckets
        .iter()
        .position(|(_, count)| *count >= wanted && *count > 0.0)?;
    let (bound, count) = buckets[place];
    let (lower, below) = place.checked_sub(1).map_or((0.0, 0.0), |at| buckets[at]);
    if bound.is_infinite() {
        return Some(lower);
    }
    Some(lower + (bound - lower) * (wanted - below) / (count - below))
}

/// The statements that find and lease deliveries.
const CLAIMS: [&str; 3] = ["take", "lock_lanes", "claim_waiting"];
const HOT: [&str; 4] = ["take", "lock_lanes", "claim_waiting", "record"];
const STATEMENT: &str = "posthaste_statement_duration_seconds";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let buckets = [
            (1.0, 50.0),
            (2.0, 90.0),
            (4.0, 100.0),
            (f64::INFINITY, 100.0),
        ];
        assert_eq!(quantile(&buckets, 0.5), Some(1.0));
        assert_eq!(quantile(&buckets, 0.95), Some(3.0));
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 0.0)], 0.5), None);
        assert_eq!(
            quantile(&[(1.0, 0.0), (f64::INFINITY, 2.0)], 0.5),
            Some(1.0)
        );
    }

    #[test]
    fn what_came_between_two_readings_is_told_by_statement() {
        let reading = |calls: f64, seconds: f64| {
            let name = |kind: &str| format!("{STATEMENT}_{kind}{{query=\"take\"}}");
            Reading(BTreeMap::from([
                (name("count"), calls),
                (name("sum"), seconds),
            ]))
        };
        let timing = reading(5.0, 0.5).since(&reading(3.0, 0.3)).timing("take");
        assert!((timing.calls - 2.0).abs() < 1e-9);
        assert!(
            timing
                .mean()
                .is_some_and(|mean| (mean - 100.0).abs() < 1e-6)
        );
    }
}
