//! The closed list of metrics: each with its kind, its unit, its labels with every value that they can have, and its meaning.

mod database;
mod labels;
mod process;

use std::fmt::Write as _;

use metrics::counter;

pub(crate) use self::database::*;
pub(super) use self::labels::STATUS_CLASSES;
pub(crate) use self::process::*;

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

impl Kind {
    /// The word for it in `/metrics`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Whose metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Of the worker's process: every worker shows its own.
    Process,
    /// Of the database: one worker at a time reads and shows it, so that queries say `max(...)`.
    Database,
}

impl Origin {
    /// The word for it in the README.
    pub fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Database => "database",
        }
    }
}

/// What a label can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// One of these.
    Closed(&'static [&'static str]),
    /// The name of a subscription, of a list that `metrics_top` and `metrics_subscriptions` bound.
    TopList,
}

/// One label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it can say.
    pub values: Values,
}

/// One metric: its name, what it is, its labels, and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name in `/metrics`. A histogram has series with `_bucket`, `_sum` and `_count` behind it.
    pub name: &'static str,
    /// What kind of number.
    pub kind: Kind,
    /// What it counts or measures, such as `deliveries` or `seconds`.
    pub unit: &'static str,
    /// The labels, but for a bucket's `le`.
    pub labels: &'static [Label],
    /// Who shows it.
    pub origin: Origin,
    /// What it means, in a sentence.
    pub meaning: &'static str,
}

/// Every metric there is. The README's table, the dashboards and the alerts are checked against it.
pub const METRICS: &[Metric] = &ALL;

const ALL: [Metric; PROCESS.len() + DATABASE.len()] = {
    let mut all = [PROCESS[0]; PROCESS.len() + DATABASE.len()];
    let mut place = 0;
    while place < all.len() {
        all[place] = if place < PROCESS.len() {
            PROCESS[place]
        } else {
            DATABASE[place - PROCESS.len()]
        };
        place += 1;
    }
    all
};

/// Writes a constant with its name for each metric, and the list of them, from rows of the form
/// `/// meaning`, `NAME: Kind "name", "unit", [labels];`.
macro_rules! metrics {
    ($list:ident: $origin:ident; $( #[doc = $meaning:literal] $constant:ident: $kind:ident $name:literal, $unit:literal, [$($label:expr),*]; )+) => {
        $( pub(crate) const $constant: &str = concat!("posthaste_", $name); )+

        pub(super) const $list: &[Metric] = &[ $( Metric {
            name: $constant,
            kind: Kind::$kind,
            unit: $unit,
            labels: &[$($label),*],
            origin: Origin::$origin,
            meaning: $meaning.trim_ascii(),
        }, )+ ];
    };
}
use metrics;

/// The table in the README: every metric with its kind, its unit, its labels, who shows it and what it means.
pub fn markdown_table() -> String {
    let mut table = String::from(
        "| metric | kind | unit | labels | of | meaning |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(cell).collect();
        let cells = [
            metric.kind.word(),
            metric.unit,
            &labels.join("; "),
            metric.origin.word(),
            metric.meaning,
        ];
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{}` | {} |", metric.name, cells.join(" | "));
    }
    table
}

/// A label, and what it can say where that is little.
fn cell(label: &Label) -> String {
    let name = label.name;
    match label.values {
        Values::Closed(values) if values.len() <= FEW => format!("`{name}`: {}", values.join(", ")),
        Values::Closed(_) => format!("`{name}`"),
        Values::TopList => format!("`{name}` (top list)"),
    }
}

/// The bounds of each histogram.
pub const BUCKETS: &[(&str, &[f64])] = &[
    (ATTEMPT_DURATION, SECONDS_OF_A_REQUEST),
    (ATTEMPT_PHASE, SECONDS_OF_A_PHASE),
    (FIRST_ATTEMPT_DELAY, SECONDS_TO_AN_ATTEMPT),
    (SUCCESS_DELAY, SECONDS_TO_SUCCESS),
    (STATEMENT_DURATION, SECONDS_OF_A_STATEMENT),
    (BATCH_ROWS, ROWS_OF_A_BATCH),
    (SUBSCRIPTION_ATTEMPT_DURATION, SECONDS_FOR_A_SUBSCRIPTION),
];

const SECONDS_OF_A_REQUEST: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0,
    120.0,
];
const SECONDS_OF_A_PHASE: &[f64] = &[
    0.000_25, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    120.0,
];
/// From a few milliseconds to a day.
const SECONDS_TO_AN_ATTEMPT: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
    3600.0, 21_600.0, 86_400.0,
];
/// Retries take days.
const SECONDS_TO_SUCCESS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21_600.0,
    86_400.0, 259_200.0, 604_800.0,
];
const SECONDS_OF_A_STATEMENT: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];
const ROWS_OF_A_BATCH: &[f64] = &[
    0.0, 1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 10_000.0,
];
/// Few: each subscription of the top list has them all.
pub(super) const SECONDS_FOR_A_SUBSCRIPTION: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// So many words are shown in the README.
const FEW: usize = 12;

/// Tells the recorder, if one is installed, what each metric of the process means, and shows at 0 each counter whose labels are
/// few: what appears only when it first counts cannot be seen to grow.
pub fn describe() {
    for metric in METRICS.iter().filter(|metric| is_recorded(metric)) {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.meaning),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.meaning),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.meaning),
        }
        match (metric.kind, metric.labels) {
            (Kind::Counter, []) => counter!(metric.name).absolute(0),
            (Kind::Counter, [only]) => show_at_zero(metric.name, only),
            _ => {}
        }
    }
}

fn show_at_zero(name: &'static str, label: &Label) {
    if let Values::Closed(values) = label.values {
        for value in values.iter().filter(|_| values.len() <= FEW) {
            counter!(name, label.name => *value).absolute(0);
        }
    }
}

/// Whether it goes by way of the recorder. What the database says and what is told of single subscriptions is written into the page
/// beside it, so that nothing of them stays behind.
fn is_recorded(metric: &Metric) -> bool {
    let of_subscriptions = |label: &Label| label.values == Values::TopList;
    metric.origin == Origin::Process && !metric.labels.iter().any(of_subscriptions)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_end_as_prometheus_wants() {
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            let name = metric.name;
            assert_eq!(
                name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{name}"
            );
            assert_eq!(
                name.ends_with("_seconds"),
                metric.unit.starts_with("seconds"),
                "{name}"
            );
            assert_eq!(name.contains("byte"), metric.unit == "bytes", "{name}");
        }
    }

    #[test]
    fn each_histogram_has_buckets_of_its_own_and_they_ascend() {
        for metric in METRICS.iter().filter(|m| m.kind == Kind::Histogram) {
            let own = BUCKETS.iter().find(|(name, _)| *name == metric.name);
            assert!(
                own.is_some_and(|(_, bounds)| bounds.is_sorted_by(|a, b| a < b)),
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn each_meaning_is_one_sentence_that_fits_a_table() {
        for metric in METRICS {
            assert!(
                metric.meaning.ends_with('.') && !metric.meaning.contains(['|', '\\', '"', '\n']),
                "{}",
                metric.name
            );
        }
    }
}
