//! A real Prometheus scrapes real workers under load: what dashboards and alerts ask for is there, and the alerts that should fire do.
//!
//! The rules are those of `grafana/alerts.yaml` in a hurry: `for` is two seconds, and vacuum counts as held back after one second, since
//! no SQL can make a transaction older than it is. Everything else is made old enough in SQL, so thresholds and windows are the
//! real ones.

mod prometheus;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use self::prometheus::{Prometheus, promtool, tools};
use self::stage::Stage;
use crate::grafana::dashboards::{Language, filled_promql, filled_sql, queries};
use crate::grafana::rules::{RULES, rules};
use crate::grafana::{VALUES, promql};
use crate::harness::{PATIENCE, http};

#[tokio::test]
async fn promtool_accepts_the_rules_and_their_unit_tests_pass() {
    if !tools().await {
        return;
    }
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/grafana");
    for arguments in [
        &["check", "config", "prometheus.yaml"][..],
        &["check", "rules", "--lint-fatal", "alerts.yaml"],
        &["test", "rules", "alerts_test.yaml"],
    ] {
        promtool(here, arguments, "").await;
    }
}

#[tokio::test]
async fn what_dashboards_and_alerts_ask_for_is_there_and_the_right_alerts_fire() {
    if !tools().await {
        return;
    }
    let stage = Stage::set().await;
    let prometheus = Prometheus::start(&in_a_hurry(RULES), &stage.targets().await).await;
    let mut wanted = panels();
    wanted.extend(selectors());
    let begun = Instant::now();
    // Those that should fire do, and under all this load no others.
    while !(wanted.is_empty() && fire(&prometheus).await == expected()) {
        let why = format!(
            "{wanted:#?} are not there; {:?} fire",
            fire(&prometheus).await
        );
        assert!(begun.elapsed() < PATIENCE, "{why}");
        // What is counted can only be seen to grow.
        stage.go_on().await;
        tokio::time::sleep(PAUSE).await;
        let mut missing = BTreeMap::new();
        for (place, query) in wanted {
            if !answered(&prometheus, &query).await {
                missing.insert(place, query);
            }
        }
        wanted = missing;
    }
    prometheus.evaluates_every_rule(rules().len()).await;
    for (place, query) in still_nothing() {
        let series = prometheus.query(&query).await;
        assert!(
            series.iter().all(|series| series.value.is_nan()),
            "{place} has data after all: {series:?}"
        );
    }
    stage.rows_are_there(&sql_panels(&stage.event())).await;
    for address in stage.addresses().await {
        let page = http::get(address, "/metrics").await.body;
        promtool(".", &["check", "metrics"], &page).await;
    }
}

/// Whether a query has numbers. If it has, its series have the labels that its text lets expect.
async fn answered(prometheus: &Prometheus, query: &str) -> bool {
    let labels = promql::checked(query).unwrap();
    let series = prometheus.query(query).await;
    for one in &series {
        let own: BTreeSet<String> = one.labels.keys().cloned().collect();
        let own: BTreeSet<_> = own
            .iter()
            .filter(|label| *label != "__name__")
            .cloned()
            .collect();
        // A rule's own labels are on ALERTS, too.
        let fits = own.is_subset(&labels) || query.contains("ALERTS");
        assert!(fits, "{query}: {own:?} instead of {labels:?}");
    }
    series.iter().any(|series| !series.value.is_nan())
}

/// The alerts that fire now.
async fn fire(prometheus: &Prometheus) -> BTreeSet<String> {
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}").await;
    let name = |labels: &BTreeMap<String, String>| {
        let name = labels["alertname"].strip_prefix("Posthaste").unwrap();
        match labels.get("subscription") {
            Some(subscription) => format!("{name} {subscription}"),
            None => name.to_owned(),
        }
    };
    firing.iter().map(|series| name(&series.labels)).collect()
}

fn expected() -> BTreeSet<String> {
    FIRE.iter().map(|&alert| alert.to_owned()).collect()
}

/// The queries of all panels that have something to show.
fn panels() -> BTreeMap<String, String> {
    let mut all = all_panels();
    all.retain(|place, _| !NOTHING.contains(&place.as_str()));
    all
}

fn still_nothing() -> BTreeMap<String, String> {
    let mut all = all_panels();
    all.retain(|place, _| NOTHING.contains(&place.as_str()));
    assert_eq!(
        all.len(),
        NOTHING.len(),
        "the list names panels that there are"
    );
    all
}

fn all_panels() -> BTreeMap<String, String> {
    let values = [VALUES[0], VALUES[1], ("subscription", stage::FAILING)];
    let fill = |query: &str| filled_promql(query, &values, "1m").replace("[1h]", "[1m]");
    queries(Language::PromQl)
        .iter()
        .map(|query| (query.place.clone(), fill(&query.text)))
        .collect()
}

/// What the conditions of all alerts are about. Conditions themselves return nothing where all is well.
fn selectors() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for rule in rules() {
        for selector in promql::selectors(&rule.expr) {
            if !NEVER.contains(&selector.as_str()) {
                let query = format!("max by (job) ({selector})");
                all.insert(format!("{}: {selector}", rule.alert), query);
            }
        }
    }
    all
}

/// The SQL of all panels, as Grafana sends it.
fn sql_panels(event: &str) -> Vec<(String, String)> {
    let range = ["2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"];
    let values = [("subscription", stage::FAILING), ("event", event)];
    let filled = |text: &str| filled_sql(text, &values, range);
    queries(Language::Sql)
        .iter()
        .map(|query| (query.place.clone(), filled(&query.text)))
        .collect()
}

/// The rules with a `for` that outlasts a moment, and with one threshold that no test can wait for.
fn in_a_hurry(rules: &str) -> String {
    let [real, ours] = ["3m])) > 1800", "3m])) > 1"]
        .map(|end| format!("posthaste_vacuum_held_back_seconds[{end}"));
    assert_eq!(rules.matches(&real).count(), 1);
    let hurried = rules.replace(&real, &ours);
    let lines = hurried.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 2s"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What should fire; all others must not.
const FIRE: [&str; 17] = [
    "BreakerOpen it's failing",
    "ConfigDrift",
    "DeadLetters",
    "DeliveriesLate",
    "DeliveriesLate it's failing",
    "FirstAttemptsLate",
    "FourEyesOff",
    "LeasesLost",
    "NoData",
    "Quarantined",
    "RotationOverdue",
    "SecretMissing",
    "SubscriptionFailing gives up",
    "SubscriptionFailing it's failing",
    "SubscriptionPaused",
    "UnknownEventTypes",
    "VacuumHeldBack",
];

/// Panels that have nothing to show where nothing is wrong, or where something is not in use.
const NOTHING: [&str; 3] = [
    // No statement fails.
    "database.json, Failures, A",
    // No attempt is late: a worker would have to be frozen.
    "overview.json, Lost leases, C",
    // Nobody has a client certificate: NaN.
    "overview.json, Client certificates end in, A",
];

/// The same of alerts.
const NEVER: [&str; 2] = [
    r#"posthaste_attempts_total{verdict="late"}"#,
    "posthaste_client_certificate_expiry_timestamp_seconds",
];

const PAUSE: Duration = Duration::from_millis(300);
