//! One look at how things stand: findings, figures, workers, as the database told them (pure).

use std::collections::BTreeMap;
use std::time::SystemTime;

/// What one look brought. Texts are as they stand in the database: whoever shows them escapes them.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// Worst first.
    pub(super) findings: Vec<Finding>,
    pub(super) figures: Figures,
    pub(super) workers: Vec<Worker>,
    /// Why there are no newer figures of subscriptions: where very much waits, Postgres may take too long over them.
    pub(super) unread: Option<String>,
}

/// Something that somebody should know, and what helps.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// Its code, such as `no_worker`.
    pub(super) code: String,
    pub(super) subscription: Option<String>,
    pub(super) since: Option<SystemTime>,
    pub(super) detail: String,
    /// A command or a call to paste.
    pub(super) command: String,
    /// Where to read on, such as `docs/runbook.md#no_worker`.
    pub(super) runbook: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Info,
    Warning,
    Critical,
}

/// A worker that is alive.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) id: i32,
    pub(super) name: String,
    pub(super) version: String,
    /// Seconds.
    pub(super) up_for: f64,
    /// What stands for all of its settings: workers that are set alike have the same.
    pub(super) settings: Option<String>,
    /// Seconds that its clock is ahead of the database's.
    pub(super) clock: Option<f64>,
}

/// Figures by name, and by the value of their one label where they have one.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures(BTreeMap<String, Vec<(Option<String>, f64)>>);

/// A subscription that is late or failing. Seconds, but for `owed`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lagging {
    pub(super) name: String,
    pub(super) oldest: f64,
    pub(super) owed: f64,
    pub(super) failing: f64,
    pub(super) breaker: f64,
}

impl Reading {
    /// The worst that was found.
    pub(super) fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// How many findings are as bad as this.
    pub(super) fn count(&self, severity: Severity) -> usize {
        let alike = |finding: &&Finding| finding.severity == severity;
        self.findings.iter().filter(alike).count()
    }

    /// Whether workers alive differ in settings or version.
    pub(super) fn workers_differ(&self) -> bool {
        self.figures
            .one("worker_settings")
            .is_some_and(|different| different > 1.0)
    }
}

impl Severity {
    pub(super) const WORST_FIRST: [Self; 3] = [Self::Critical, Self::Warning, Self::Info];

    /// As the database says it. A word that we do not know is from a newer schema: better heeded than overlooked.
    pub(super) fn named(word: &str) -> Self {
        match word {
            "critical" => Self::Critical,
            "info" => Self::Info,
            _ => Self::Warning,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl Figures {
    pub(super) fn add(&mut self, figure: impl Into<String>, label: Option<String>, value: f64) {
        self.0
            .entry(figure.into())
            .or_default()
            .push((label, value));
    }

    /// The figure without a label.
    pub(super) fn one(&self, figure: &str) -> Option<f64> {
        let values = self.0.get(figure)?;
        let found = values.iter().find(|(label, _)| label.is_none())?;
        Some(found.1)
    }

    /// The figure with this label.
    pub(super) fn labelled(&self, figure: &str, label: &str) -> Option<f64> {
        let values = self.0.get(figure)?;
        let found = values.iter().find(|(is, _)| is.as_deref() == Some(label))?;
        Some(found.1)
    }

    /// All labels of a figure, with their values.
    pub(super) fn labels(&self, figure: &str) -> impl Iterator<Item = (&str, f64)> {
        let values = self.0.get(figure).into_iter().flatten();
        values.filter_map(|(label, value)| Some((label.as_deref()?, *value)))
    }

    /// Over all labels; `None` where the figure was not read.
    pub(super) fn sum(&self, figure: &str) -> Option<f64> {
        let values = self.0.get(figure)?;
        Some(values.iter().map(|(_, value)| value).sum())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &[(Option<String>, f64)])> {
        let all = self.0.iter();
        all.map(|(figure, values)| (figure.as_str(), values.as_slice()))
    }

    /// Subscriptions that owe, fail or are shut off: those that are latest first, then those that fail for longest.
    pub(super) fn lagging(&self) -> Vec<Lagging> {
        let mut found: BTreeMap<&str, Lagging> = BTreeMap::new();
        let figures: [(&str, Field); 4] = [
            ("subscription_oldest_owed_seconds", |s| &mut s.oldest),
            ("subscription_deliveries_owed", |s| &mut s.owed),
            ("subscription_failing_seconds", |s| &mut s.failing),
            ("subscription_breaker_open_seconds", |s| &mut s.breaker),
        ];
        for (figure, field) in figures {
            for (name, value) in self.labels(figure) {
                let subscription = found.entry(name).or_insert_with(|| Lagging {
                    name: name.to_owned(),
                    ..Lagging::default()
                });
                *field(subscription) = value;
            }
        }
        let mut lagging: Vec<Lagging> = found.into_values().filter(Lagging::is_any).collect();
        lagging.sort_by(|a, b| {
            let (a, b) = ([a.oldest, a.failing, a.owed], [b.oldest, b.failing, b.owed]);
            b.partial_cmp(&a).unwrap_or(std::cmp::Ordering::Equal)
        });
        lagging
    }
}

/// Where a figure of a subscription goes.
type Field = fn(&mut Lagging) -> &mut f64;

impl Lagging {
    fn is_any(&self) -> bool {
        [self.oldest, self.owed, self.failing, self.breaker]
            .iter()
            .any(|value| *value > 0.0)
    }
}

/// A look that found much, for the tests of what shows it.
#[cfg(test)]
pub(super) mod examples {
    use std::time::Duration;

    use super::Severity::{Critical, Info, Warning};
    use super::*;

    /// 2026-11-27 02:51:10 UTC.
    pub(in super::super) fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_747_870)
    }

    pub(in super::super) fn finding(
        severity: Severity,
        code: &str,
        subscription: Option<&str>,
        ago: u64,
    ) -> Finding {
        Finding {
            severity,
            code: code.to_owned(),
            subscription: subscription.map(str::to_owned),
            since: Some(now() - Duration::from_secs(ago)),
            detail: format!("what there is to know of {code}, in one sentence with figures"),
            command: format!("select posthaste.help_with('{code}')"),
            runbook: format!("docs/runbook.md#{code}"),
        }
    }

    pub(in super::super) fn worker(id: i32, name: &str, settings: &str) -> Worker {
        Worker {
            id,
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            up_for: 11_000.0,
            settings: Some(settings.to_owned()),
            clock: Some(0.012),
        }
    }

    /// As on a quiet day.
    pub(in super::super) fn quiet() -> Reading {
        let mut figures = Figures::default();
        for (figure, label, value) in [
            ("oldest_owed_seconds", "", 0.0),
            ("oldest_intake_seconds", "", 0.0),
            ("deliveries_owed", "intake", 0.0),
            ("deliveries_owed", "due", 0.0),
            ("deliveries_owed", "waiting", 0.0),
            ("deliveries_owed", "ordered", 0.0),
            ("deliveries_owed", "leased", 0.0),
            ("deliveries_owed", "quarantined", 0.0),
            ("lanes", "idle", 3.0),
            ("lanes", "due", 0.0),
            ("workers_alive", "", 1.0),
            ("worker_settings", "", 1.0),
            ("dead_letters_last_day", "", 0.0),
            ("secrets_overdue", "", 0.0),
            ("secrets_missing", "", 0.0),
            ("changes_open", "", 0.0),
            ("unknown_event_types", "", 0.0),
            ("four_eyes", "", 1.0),
            ("events_per_second", "", 0.25),
            ("attempts_per_second", "accepted", 0.25),
        ] {
            figures.add(figure, label_of(label), value);
        }
        Reading {
            findings: Vec::new(),
            figures,
            workers: vec![worker(7, "north-1", "5f3a9c")],
            unread: None,
        }
    }

    /// As on a bad one, with names and figures as they should not be.
    pub(in super::super) fn bad() -> Reading {
        let mut figures = Figures::default();
        for (figure, label, value) in [
            ("oldest_owed_seconds", "", 93_720.0),
            ("oldest_intake_seconds", "", 75.0),
            ("deliveries_owed", "intake", 1_204.0),
            ("deliveries_owed", "due", 100_000.0),
            ("deliveries_owed", "waiting", 1e9),
            ("deliveries_owed", "ordered", 31.0),
            ("deliveries_owed", "leased", 512.0),
            ("deliveries_owed", "quarantined", 3.0),
            ("lanes", "due", 4.0),
            ("lanes", "asleep", 2.0),
            ("lanes", "breaker_open", 1.0),
            ("lanes", "idle", 40.0),
            ("lanes", "paused", 1.0),
            ("workers_alive", "", 2.0),
            ("worker_settings", "", 2.0),
            ("dead_letters_last_day", "", 17.0),
            ("secrets_overdue", "", 1.0),
            ("secrets_missing", "", 0.0),
            ("changes_open", "", 2.0),
            ("unknown_event_types", "", 5.0),
            ("four_eyes", "", 0.0),
            ("events_per_second", "", 1_204.0),
            ("attempts_per_second", "accepted", 28_700.0),
            ("attempts_per_second", "rejected", 12.5),
            ("attempts_per_second", "timed_out", 0.25),
            ("subscription_oldest_owed_seconds", "bank", 3_723.0),
            ("subscription_deliveries_owed", "bank", 1e9),
            ("subscription_failing_seconds", "bank", 900.0),
            ("subscription_breaker_open_seconds", "bank", 120.0),
            ("subscription_oldest_owed_seconds", LONG, 93_720.0),
            ("subscription_deliveries_owed", LONG, 12_345.0),
            ("subscription_failing_seconds", LONG, 0.0),
            ("subscription_oldest_owed_seconds", "大学の購読🏫", 61.0),
            ("subscription_deliveries_owed", "大学の購読🏫", 2.0),
            ("subscription_oldest_owed_seconds", "well", 0.0),
            (
                "subscription_failing_seconds",
                "e\u{301}cole\u{1b}[2J\u{202e}",
                45.0,
            ),
        ] {
            figures.add(figure, label_of(label), value);
        }
        Reading {
            findings: vec![
                finding(Critical, "events_not_fanned_out", None, 75),
                finding(Warning, "deliveries_late", Some(LONG), 93_720),
                finding(Warning, "deliveries_late", Some("bank"), 3_723),
                finding(Warning, "subscription_failing", Some("大学の購読🏫"), 900),
                finding(Info, "four_eyes_off", None, 864_000),
            ],
            figures,
            workers: vec![
                worker(7, "north-1", "5f3a9c"),
                worker(12, "ワーカー\u{1b}]0;owned\u{7}", "77aa10"),
            ],
            unread: None,
        }
    }

    fn label_of(label: &str) -> Option<String> {
        (!label.is_empty()).then(|| label.to_owned())
    }

    pub(in super::super) const LONG: &str =
        "the-federation-of-all-universities-and-colleges-of-the-northern-provinces";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_subscription_is_first_and_who_owes_nothing_is_left_out() {
        let lagging = examples::bad().figures.lagging();
        let names: Vec<&str> = lagging.iter().map(|one| one.name.as_str()).collect();
        let expected = [
            examples::LONG,
            "bank",
            "大学の購読🏫",
            "e\u{301}cole\u{1b}[2J\u{202e}",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_severity_that_we_do_not_know_is_heeded() {
        assert_eq!(Severity::named("catastrophic"), Severity::Warning);
        for severity in Severity::WORST_FIRST {
            assert_eq!(Severity::named(severity.word()), severity);
        }
        assert!(Severity::WORST_FIRST.is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn the_worst_finding_is_how_things_stand() {
        assert_eq!(examples::quiet().worst(), None);
        assert_eq!(examples::bad().worst(), Some(Severity::Critical));
        assert_eq!(examples::bad().count(Severity::Warning), 3);
    }
}
