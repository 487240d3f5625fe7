//! A reading as one JSON object, for scripts (pure). Its members stay as they are; more may come.

use serde_json::{Map, Value, json};

use super::reading::{Figures, Finding, Reading, Worker};

/// On one line.
pub(super) fn text(reading: &Reading) -> String {
    json!({
        "worst": reading.worst().map(super::reading::Severity::word),
        "findings": reading.findings.iter().map(finding).collect::<Vec<_>>(),
        "figures": figures(&reading.figures),
        "workers": reading.workers.iter().map(worker).collect::<Vec<_>>(),
        "unread": reading.unread,
    })
    .to_string()
}

fn finding(finding: &Finding) -> Value {
    let since = finding
        .since
        .and_then(|since| jiff::Timestamp::try_from(since).ok());
    json!({
        "severity": finding.severity.word(),
        "finding": finding.code,
        "subscription": finding.subscription,
        "since": since.map(|since| since.to_string()),
        "detail": finding.detail,
        "command": finding.command,
        "runbook": finding.runbook,
    })
}

/// A number for each figure, or an object of numbers by label.
fn figures(figures: &Figures) -> Value {
    let told = figures.all().map(|(figure, values)| {
        let value = match values {
            [(None, value)] => json!(value),
            _ => values
                .iter()
                .map(|(label, value)| (label.clone().unwrap_or_default(), json!(value)))
                .collect::<Map<_, _>>()
                .into(),
        };
        (figure.to_owned(), value)
    });
    told.collect::<Map<_, _>>().into()
}

fn worker(worker: &Worker) -> Value {
    json!({
        "worker_id": worker.id,
        "name": worker.name,
        "version": worker.version,
        "up_for_seconds": worker.up_for,
        "settings_digest": worker.settings,
        "clock_difference_seconds": worker.clock,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::reading::examples::{bad, quiet};
    use super::*;

    fn told(reading: &Reading) -> Value {
        let text = text(reading);
        assert!(!text.contains('\n'));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn figures_are_numbers_and_those_with_a_label_objects() {
        let told = told(&bad());
        let figures = &told["figures"];
        assert_eq!(figures["oldest_owed_seconds"], json!(93_720.0));
        assert_eq!(figures["deliveries_owed"]["waiting"], json!(1e9));
        assert_eq!(
            figures["subscription_failing_seconds"]["bank"],
            json!(900.0)
        );
    }

    #[test]
    fn findings_say_since_when_and_what_helps() {
        let told = told(&bad());
        let expected = json!({
            "severity": "critical",
            "finding": "events_not_fanned_out",
            "subscription": null,
            "since": "2026-11-27T02:49:55Z",
            "detail": "what there is to know of events_not_fanned_out, in one sentence with figures",
            "command": "select posthaste.help_with('events_not_fanned_out')",
            "runbook": "docs/runbook.md#events_not_fanned_out",
        });
        assert_eq!(
            (&told["worst"], &told["findings"][0]),
            (&json!("critical"), &expected)
        );
    }

    #[test]
    fn where_nothing_was_found_the_worst_is_null() {
        let told = told(&quiet());
        assert_eq!(
            (&told["worst"], &told["findings"]),
            (&Value::Null, &json!([]))
        );
    }
}
