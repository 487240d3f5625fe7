//! A reading as plain text: a line per finding, then the figures (pure). Nothing is cut, so that what it says can be pasted.

use std::fmt::Write as _;
use std::time::SystemTime;

use posthaste::logging::escaped;
use posthaste::store::COUNT_LIMIT;

use super::reading::{Figures, Finding, Lagging, Reading, Worker};
use super::units::{age, count, rate};

/// The whole of it, without a line's end after the last.
pub(super) fn text(reading: &Reading, now: SystemTime) -> String {
    let mut lines: Vec<String> = reading
        .findings
        .iter()
        .map(|found| finding(found, now))
        .collect();
    if lines.is_empty() {
        lines.push("well: nothing was found".to_owned());
    }
    lines.push(String::new());
    lines.extend(figures(&reading.figures).map(|(title, value)| format!("{title:13} {value}")));
    lines.push(format!("{:13} {}", "workers", workers(reading)));
    lines.extend(reading.workers.iter().map(worker));
    let lagging = reading.figures.lagging();
    lines.extend(lagging.iter().take(SUBSCRIPTIONS).map(subscription));
    let unread = reading.unread.iter();
    lines.extend(unread.map(|why| escaped(&format!("subscription  not read: {why}"))));
    lines.join("\n")
}

/// As `CRITICAL no_worker for 12 min 3 s: no worker is alive | posthaste run | docs/runbook.md#no_worker`.
fn finding(finding: &Finding, now: SystemTime) -> String {
    let mut line = format!(
        "{:8} {}",
        finding.severity.word().to_uppercase(),
        finding.code
    );
    if let Some(subscription) = &finding.subscription {
        let _ = write!(line, " of {subscription}");
    }
    if let Some(seconds) = lasted(finding, now) {
        let _ = write!(line, " for {}", age(seconds));
    }
    let _ = write!(
        line,
        ": {} | {} | {}",
        finding.detail, finding.command, finding.runbook
    );
    escaped(&line)
}

/// For how many seconds a finding has been true.
pub(super) fn lasted(finding: &Finding, now: SystemTime) -> Option<f64> {
    let since = finding.since?;
    Some(now.duration_since(since).unwrap_or_default().as_secs_f64())
}

fn figures(figures: &Figures) -> impl Iterator<Item = (&'static str, String)> {
    let one = |figure| figures.one(figure).unwrap_or_default();
    let owed = parts(figures, "deliveries_owed", &OWED);
    let oldest = match one("oldest_owed_seconds") {
        seconds if seconds > 0.0 => format!("; the oldest for {}", age(seconds)),
        _ => String::new(),
    };
    let waits = format!(
        "{} dead letters in a day, {} in quarantine, {} unknown event types, {} changes to decide",
        counted(one("dead_letters_last_day")),
        counted(
            figures
                .labelled("deliveries_owed", "quarantined")
                .unwrap_or_default()
        ),
        count(one("unknown_event_types")),
        count(one("changes_open")),
    );
    let secrets = format!(
        "{} overdue for rotation, {} missing; four eyes {}",
        count(one("secrets_overdue")),
        count(one("secrets_missing")),
        if figures.one("four_eyes") == Some(0.0) {
            "OFF"
        } else {
            "on"
        },
    );
    [
        Some(("owed", format!("{owed}{oldest}"))),
        Some(("lanes", parts(figures, "lanes", &LANES))),
        rates(figures).map(|rates| ("a second", rates)),
        Some(("for people", waits)),
        Some(("secrets", secrets)),
    ]
    .into_iter()
    .flatten()
}

/// As `3 due, 2 asleep`: what there is none of is left out. Labels that we do not know come last.
fn parts(figures: &Figures, figure: &str, known: &[&str]) -> String {
    let place = |label: &str| {
        known
            .iter()
            .position(|is| *is == label)
            .unwrap_or(known.len())
    };
    let mut found: Vec<(&str, f64)> = figures
        .labels(figure)
        .filter(|(_, value)| *value > 0.0)
        .collect();
    found.sort_by_key(|(label, _)| place(label));
    let parts: Vec<String> = found
        .iter()
        .map(|(label, value)| format!("{} {}", counted(*value), escaped(&label.replace('_', " "))))
        .collect();
    if parts.is_empty() {
        "nothing".to_owned()
    } else {
        parts.join(", ")
    }
}

fn rates(figures: &Figures) -> Option<String> {
    let events = figures.one("events_per_second")?;
    let attempts = figures.sum("attempts_per_second").unwrap_or_default();
    let accepted = figures
        .labelled("attempts_per_second", "accepted")
        .unwrap_or_default();
    Some(format!(
        "{} events in, {} attempts: {} accepted, {} failed",
        rate(events),
        rate(attempts),
        rate(accepted),
        rate(attempts - accepted)
    ))
}

fn workers(reading: &Reading) -> String {
    let alive = reading.figures.one("workers_alive");
    let alive = count(alive.unwrap_or(0.0));
    match reading.workers.len() {
        0 => "none alive".to_owned(),
        _ if reading.workers_differ() => {
            format!("{alive} alive, which DIFFER in settings or version")
        }
        _ => format!("{alive} alive"),
    }
}

fn worker(worker: &Worker) -> String {
    let mut line = format!(
        "  {:<11} {}, version {}, for {}",
        worker.id,
        worker.name,
        worker.version,
        age(worker.up_for)
    );
    if let Some(settings) = &worker.settings {
        let _ = write!(line, ", settings {settings}");
    }
    if let Some(seconds) = worker.clock {
        let _ = write!(line, ", clock {seconds:+.3} s");
    }
    escaped(&line)
}

fn subscription(lagging: &Lagging) -> String {
    let mut line = format!(
        "subscription  {}: {} owed",
        lagging.name,
        counted(lagging.owed)
    );
    for (what, seconds) in [
        ("the oldest for", lagging.oldest),
        ("failing for", lagging.failing),
        ("breaker open for", lagging.breaker),
    ] {
        if seconds > 0.0 {
            let _ = write!(line, ", {what} {}", age(seconds));
        }
    }
    escaped(&line)
}

/// A count; counting stops early where there is much.
#[allow(clippy::cast_precision_loss, reason = "a limit for people")]
fn counted(value: f64) -> String {
    let limit = COUNT_LIMIT as f64;
    if value >= limit {
        format!("{} or more", count(limit))
    } else {
        count(value)
    }
}

/// In the order of a delivery's life.
const OWED: [&str; 6] = [
    "intake",
    "due",
    "waiting",
    "ordered",
    "leased",
    "quarantined",
];
pub(super) const LANES: [&str; 8] = [
    "due",
    "asleep",
    "rate_limited",
    "held",
    "breaker_open",
    "breaker_half_open",
    "paused",
    "idle",
];
/// As many subscriptions are told of.
const SUBSCRIPTIONS: usize = 10;

#[cfg(test)]
mod tests {
    use super::super::reading::examples::{bad, now, quiet};
    use super::super::snapshots::matches;
    use super::*;

    #[test]
    fn a_quiet_day_is_told_in_a_few_lines() {
        matches("report-quiet", &text(&quiet(), now()));
    }

    #[test]
    fn a_bad_day_is_told_worst_first_with_what_helps() {
        matches("report-bad", &text(&bad(), now()));
    }

    #[test]
    fn nothing_from_the_database_steers_the_terminal() {
        let text = text(&bad(), now());
        let unsafe_one = text
            .chars()
            .find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(unsafe_one, None, "{text}");
    }
}
