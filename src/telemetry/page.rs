//! What `/metrics` says besides what goes by way of the recorder, as Prometheus reads it: what the database says, and what is told of
//! single subscriptions. Bounded, whatever they are called.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use super::figures::{Figures, Sample};
use super::list::{
    METRICS, Metric, Origin, SECONDS_FOR_A_SUBSCRIPTION, SUBSCRIPTION_ATTEMPT_DURATION,
    SUBSCRIPTION_ATTEMPTS,
};
use super::tallies::Tally;
use super::{Ledger, Values};
use crate::delivery::Outcome;

/// What a worker has to tell, and how much of it.
#[derive(Clone, Debug)]
pub struct Page {
    /// What came of attempts.
    pub ledger: Arc<Ledger>,
    /// How many subscriptions are named.
    pub most: usize,
    /// Those that are always among them.
    pub named: Vec<String>,
}

impl Page {
    /// The text of it, of these figures and at this time. Subscriptions without a name are left out.
    pub fn text(
        &self,
        figures: &Figures,
        name_of: impl Fn(i32) -> Option<String>,
        now: Instant,
    ) -> String {
        let mut text = String::new();
        let top = self
            .ledger
            .tallies
            .top(self.most, &self.named, name_of, now);
        write_tallies(&mut text, &top);
        for metric in METRICS.iter().filter(|m| m.origin == Origin::Database) {
            write_figures(&mut text, metric, figures.of(metric.name, now));
        }
        text
    }
}

/// As many as there is room for, of each subscription all or nothing.
fn write_tallies(text: &mut String, top: &[(String, Tally)]) {
    let (mut attempts, mut durations) = (String::new(), String::new());
    for (name, tally) in top {
        let name = escaped(name);
        let (one, other) = (attempts_of(&name, tally), durations_of(&name, tally));
        if attempts.len() + durations.len() + one.len() + other.len() > ROOM_FOR_TALLIES {
            break;
        }
        attempts += &one;
        durations += &other;
    }
    for (name, lines) in [
        (SUBSCRIPTION_ATTEMPTS, attempts),
        (SUBSCRIPTION_ATTEMPT_DURATION, durations),
    ] {
        if !lines.is_empty() {
            write_head(text, name);
            *text += &lines;
        }
    }
}

fn attempts_of(name: &str, tally: &Tally) -> String {
    let mut lines = String::new();
    for (outcome, count) in Outcome::ALL.iter().zip(tally.outcomes) {
        // Shown from 0 where it may well grow: what appears only then cannot be seen to.
        if count > 0 || outcome.is_failure() || *outcome == Outcome::Accepted {
            let outcome = outcome.as_str();
            // Writing to a String cannot fail.
            let _ = writeln!(
                lines,
                "{SUBSCRIPTION_ATTEMPTS}{{subscription=\"{name}\",outcome=\"{outcome}\"}} {count}"
            );
        }
    }
    lines
}

fn durations_of(name: &str, tally: &Tally) -> String {
    let (mut lines, mut so_far) = (String::new(), 0);
    let bounds = SECONDS_FOR_A_SUBSCRIPTION.iter().map(ToString::to_string);
    let bounds = bounds.chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(tally.buckets) {
        so_far += count;
        let _ = writeln!(
            lines,
            "{SUBSCRIPTION_ATTEMPT_DURATION}_bucket{{subscription=\"{name}\",le=\"{bound}\"}} {so_far}"
        );
    }
    for (end, value) in [
        ("sum", tally.seconds.to_string()),
        ("count", so_far.to_string()),
    ] {
        let _ = writeln!(
            lines,
            "{SUBSCRIPTION_ATTEMPT_DURATION}_{end}{{subscription=\"{name}\"}} {value}"
        );
    }
    lines
}

fn write_figures<'f>(
    text: &mut String,
    metric: &Metric,
    samples: impl Iterator<Item = &'f Sample>,
) {
    let mut lines = String::new();
    for Sample { label, value, .. } in samples {
        let label = match (metric.labels, label) {
            ([known], Some(value)) => format!("{{{}=\"{}\"}}", known.name, escaped(value)),
            _ => String::new(),
        };
        let room = match metric.labels {
            [known] if known.values == Values::TopList => ROOM_FOR_A_FIGURE,
            _ => usize::MAX,
        };
        let line = format!("{}{label} {value}\n", metric.name);
        if lines.len() + line.len() > room {
            break;
        }
        lines += &line;
    }
    if !lines.is_empty() {
        write_head(text, metric.name);
        *text += &lines;
    }
}

fn write_head(text: &mut String, name: &str) {
    if let Some(metric) = METRICS.iter().find(|metric| metric.name == name) {
        let (kind, meaning) = (metric.kind.word(), metric.meaning);
        let _ = writeln!(text, "# HELP {name} {meaning}\n# TYPE {name} {kind}");
    }
}

/// As the value of a label is written.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// In bytes: with them, a page stays below 1 MiB.
const ROOM_FOR_TALLIES: usize = 384 * 1024;
const ROOM_FOR_A_FIGURE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::delivery::Attempt;
    use crate::telemetry::Part;
    use crate::telemetry::attempts::tests::attempt;

    fn page(attempts: &[Attempt], most: usize) -> Page {
        let page = Page {
            ledger: Arc::default(),
            most,
            named: Vec::new(),
        };
        page.ledger.tallies.count(attempts, Instant::now());
        page
    }

    fn figures(rows: Vec<(String, Option<String>, f64)>) -> Figures {
        let mut figures = Figures::default();
        let until = Instant::now() + Duration::from_mins(1);
        let read = (SystemTime::now(), Duration::from_millis(3));
        let strangers = figures.put(Part::Subscriptions, rows, read, until);
        assert!(strangers.is_empty(), "{strangers:?}");
        figures
    }

    #[test]
    fn names_are_escaped_and_each_metric_has_its_head_once() {
        let name = "a\"b\\c\nd ü 鸟".to_owned();
        let figures = figures(vec![
            (
                "subscription_oldest_owed_seconds".to_owned(),
                Some(name.clone()),
                1.5,
            ),
            (
                "subscription_oldest_owed_seconds".to_owned(),
                Some("other".to_owned()),
                0.0,
            ),
        ]);
        let page = page(&[attempt(1, Outcome::TimedOut)], 20);
        let text = page.text(&figures, |_| Some(name.clone()), Instant::now());
        for line in [
            r#"posthaste_subscription_oldest_owed_seconds{subscription="a\"b\\c\nd ü 鸟"} 1.5"#,
            r#"posthaste_subscription_oldest_owed_seconds{subscription="other"} 0"#,
            r#"posthaste_subscription_attempts_total{subscription="a\"b\\c\nd ü 鸟",outcome="timed_out"} 1"#,
            r#"posthaste_subscription_attempt_duration_seconds_bucket{subscription="a\"b\\c\nd ü 鸟",le="0.05"} 1"#,
            r#"posthaste_subscription_attempt_duration_seconds_bucket{subscription="a\"b\\c\nd ü 鸟",le="+Inf"} 1"#,
            "# TYPE posthaste_subscription_oldest_owed_seconds gauge",
            "# TYPE posthaste_subscription_attempts_total counter",
        ] {
            assert_eq!(
                text.matches(&format!("{line}\n")).count(),
                1,
                "{line}\n{text}"
            );
        }
    }

    #[test]
    fn nothing_is_said_of_what_is_not_known() {
        let page = page(&[], 20);
        assert_eq!(page.text(&Figures::default(), |_| None, Instant::now()), "");
    }

    #[test]
    fn two_thousand_subscriptions_with_the_longest_names_stay_within_bounds() {
        let long = |id: i32| Some("鸟".repeat(96) + &id.to_string());
        let attempts: Vec<Attempt> = (0..2000).map(|id| attempt(id, Outcome::Accepted)).collect();
        let rows = (0..2000).flat_map(|id| {
            [
                "subscription_oldest_owed_seconds",
                "subscription_deliveries_owed",
                "subscription_failing_seconds",
                "subscription_breaker_open_seconds",
            ]
            .map(|figure| (figure.to_owned(), long(id), 1.0))
        });
        let page = page(&attempts, 200);
        let text = page.text(&figures(rows.collect()), long, Instant::now());
        assert!(
            text.len() > 512 * 1024 && text.len() < 700 * 1024,
            "{}",
            text.len()
        );
        let short = |id: i32| Some(format!("partner-{id}"));
        let text = page.text(&Figures::default(), short, Instant::now());
        assert_eq!(text.matches("_count{").count(), 200);
    }
}
