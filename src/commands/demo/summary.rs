//! What came of it, as one table and a list of what held.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, TableComponent, presets};

use super::verdict::{Claim, Findings, Verdict, percentile};

/// The numbers, a column for each partner.
pub(super) fn table(verdict: &Verdict) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .remove_style(TableComponent::HorizontalLines)
        .remove_style(TableComponent::MiddleIntersections);
    let names = verdict
        .partners
        .iter()
        .map(|found| found.character.name().to_owned());
    table.set_header(
        [String::new()]
            .into_iter()
            .chain(names)
            .chain(["in all".to_owned()]),
    );
    table.add_row(only_in_all(
        "transactions committed",
        verdict.committed,
        verdict,
    ));
    table.add_row(only_in_all(
        "transactions rolled back",
        verdict.rolled_back,
        verdict,
    ));
    for status in STATUSES {
        table.add_row_if(
            |_, row| any(row),
            row(&format!("deliveries {status}"), verdict, |found| {
                count(&found.deliveries, status)
            }),
        );
    }
    for outcome in OUTCOMES {
        table.add_row_if(
            |_, row| any(row),
            row(&format!("attempts {outcome}"), verdict, |found| {
                count(&found.attempts, outcome)
            }),
        );
    }
    table.add_row(row("requests received", verdict, |found| found.requests));
    table.add_row(row("signatures verified", verdict, |found| found.verified));
    table.add_row(row("duplicates", verdict, |found| found.duplicates));
    table.add_row(row("rolled-back events received", verdict, |found| {
        found.rolled_back
    }));
    table.add_row(row("missing", verdict, |found| found.missing));
    table
        .column_iter_mut()
        .skip(1)
        .for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.to_string()
}

/// How long events took from COMMIT to the healthy partner.
pub(super) fn latency(sorted: &[Duration]) -> String {
    let at = |percent| percentile(sorted, percent).map_or("-".to_owned(), milliseconds);
    format!(
        "From COMMIT to receipt by the healthy partner: p50 {}, p95 {}, p99 {}",
        at(50),
        at(95),
        at(99)
    )
}

/// One claim, and what speaks against it.
pub(super) fn line(claim: &Claim) -> String {
    if claim.holds() {
        return format!("  yes  {}", claim.says);
    }
    let against: Vec<String> = claim
        .against
        .iter()
        .map(|(who, count)| format!("{who} {count}"))
        .collect();
    format!("  NO   {}: not so for {}", claim.says, against.join(", "))
}

fn row(what: &str, verdict: &Verdict, count: impl Fn(&Findings) -> usize) -> Vec<String> {
    let counts: Vec<usize> = verdict.partners.iter().map(count).collect();
    let all = counts.iter().sum();
    let cells = counts
        .into_iter()
        .chain([all])
        .map(|count| count.to_string());
    [what.to_owned()].into_iter().chain(cells).collect()
}

fn only_in_all(what: &str, count: usize, verdict: &Verdict) -> Vec<String> {
    let mut cells = vec![String::new(); verdict.partners.len() + 2];
    what.clone_into(&mut cells[0]);
    cells[verdict.partners.len() + 1] = count.to_string();
    cells
}

/// Whether any partner has one.
fn any(row: &[String]) -> bool {
    row.last().is_some_and(|all| all != "0")
}

fn count(counts: &BTreeMap<String, usize>, word: &str) -> usize {
    counts.get(word).copied().unwrap_or_default()
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

const STATUSES: [&str; 7] = [
    "SUCCESS",
    "RETRY_EXHAUSTED",
    "REJECTED",
    "EXPIRED",
    "CANCELLED",
    "FAILED",
    "PENDING",
];
const OUTCOMES: [&str; 6] = [
    "accepted",
    "rejected",
    "timed_out",
    "unreachable",
    "blocked",
    "abandoned",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_does_not_hold_says_for_whom_and_how_often() {
        let mut claim = Claim {
            says: "all is well",
            against: Vec::new(),
        };
        assert_eq!(line(&claim), "  yes  all is well");
        claim.against = vec![("flaky", 2), ("down", 1)];
        assert_eq!(
            line(&claim),
            "  NO   all is well: not so for flaky 2, down 1"
        );
    }

    #[test]
    fn latencies_are_in_milliseconds() {
        let sorted = [1, 2, 3].map(Duration::from_millis);
        assert!(latency(&sorted).ends_with("p50 2.0 ms, p95 3.0 ms, p99 3.0 ms"));
        assert!(latency(&[]).ends_with("p50 -, p95 -, p99 -"));
    }
}
