//! What operators look at says what it should: dashboards and alert rules, held against the closed list of metrics, each other, and
//! a real database. What a real Prometheus makes of them is in `monitoring.rs`.

pub(crate) mod dashboards;
pub(crate) mod promql;
pub(crate) mod rules;

use std::collections::BTreeSet;

use posthaste::telemetry::METRICS;
use serde_json::Value;

use self::dashboards::{Language, dashboards, filled_promql, filled_sql, list, queries, text};
use self::rules::{expectations, rules};
use crate::harness::World;

#[test]
fn saving_a_dashboard_again_changes_no_byte() {
    for board in dashboards() {
        let again = serde_json::to_string_pretty(&sorted(&board.json)).unwrap();
        assert!(
            board.text == format!("{again}\n"),
            "{} is not as it is written: two spaces, keys in order",
            board.file
        );
    }
}

#[test]
fn ids_and_titles_are_unique() {
    let boards = dashboards();
    for field in ["uid", "title"] {
        unique(
            field,
            boards
                .iter()
                .map(|board| text(&board.json[field]).to_owned()),
        );
    }
    for board in &boards {
        let panels = board.panels_and_rows();
        unique(
            board.file,
            panels.iter().map(|panel| panel["id"].to_string()),
        );
        unique(
            board.file,
            panels.iter().map(|panel| text(&panel["title"]).to_owned()),
        );
        for panel in board.panels() {
            let targets = list(&panel["targets"]).iter();
            unique(board.file, targets.map(|t| text(&t["refId"]).to_owned()));
        }
        unique(
            board.file,
            board
                .variables()
                .iter()
                .map(|v| text(&v["name"]).to_owned()),
        );
    }
}

#[test]
fn every_dashboard_is_of_the_current_schema_and_refreshes_itself() {
    for board in dashboards() {
        let json = &board.json;
        assert_eq!(json["schemaVersion"], SCHEMA_VERSION, "{}", board.file);
        assert_eq!(json["refresh"], "30s", "{}", board.file);
        assert_eq!(json["id"], Value::Null, "Grafana gives ids to dashboards");
        assert_eq!(json["tags"], serde_json::json!(["posthaste"]));
        let uid = text(&json["uid"]).strip_prefix("posthaste-").unwrap();
        assert_eq!(board.file, format!("{uid}.json"));
    }
}

#[test]
fn every_panel_has_a_unit_says_what_to_do_and_links_to_the_runbook() {
    for board in dashboards() {
        for panel in board.panels() {
            let place = format!("{}, {}", board.file, panel["title"]);
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(UNITS.contains(&text(&defaults["unit"])), "{place}: unit");
            assert!(!text(&defaults["noValue"]).is_empty(), "{place}: no value");
            assert!(
                !list(&defaults["thresholds"]["steps"]).is_empty(),
                "{place}"
            );
            if panel["type"] == "timeseries" {
                // A scrape that is missing is bridged; what is gone for minutes is shown to be.
                assert_eq!(defaults["custom"]["spanNulls"], 120_000, "{place}");
            }
            let description = text(&panel["description"]);
            assert!(
                description.len() > 60 && description.ends_with('.'),
                "{place}: {description}"
            );
            assert!(!list(&panel["targets"]).is_empty(), "{place}: no query");
            let [link] = list(&panel["links"]) else {
                panic!("{place}: one link");
            };
            let code = text(&link["url"])
                .strip_prefix("${runbook}#")
                .expect(&place);
            assert!(ALERTS.contains(&code), "{place}: {code} is no finding");
        }
    }
}

#[test]
fn panels_lie_beside_each_other() {
    for board in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in board.panels_and_rows() {
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(x + w <= 24, "{}: {}", board.file, panel["title"]);
            for cell in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (x, y))) {
                assert!(taken.insert(cell), "{}: {}", board.file, panel["title"]);
            }
        }
    }
}

#[test]
fn data_sources_are_chosen_at_the_top_and_every_variable_is_used() {
    for board in dashboards() {
        let names: Vec<&str> = board.variables().iter().map(|v| text(&v["name"])).collect();
        for name in &names {
            let used = [format!("${name}"), format!("${{{name}")];
            assert!(
                used.iter().any(|used| board.text.contains(used)),
                "{}: {name}",
                board.file
            );
        }
        for panel in board.panels() {
            let sources = list(&panel["targets"]).iter().map(|t| &t["datasource"]);
            for source in sources.chain([&panel["datasource"]]) {
                assert!(is_variable(source), "{}: {}", board.file, panel["title"]);
            }
        }
        for variable in board.variables() {
            if variable["type"] == "query" {
                assert!(is_variable(&variable["datasource"]), "{}", board.file);
            }
        }
        // The one place where a name from the outside meets SQL.
        for query in board
            .queries()
            .iter()
            .filter(|q| q.language == Language::Sql)
        {
            let unquoted =
                query.text.matches("${").count() - query.text.matches(":sqlstring}").count();
            assert_eq!(unquoted, 0, "{}: {}", query.place, query.text);
        }
    }
}

#[test]
fn every_query_of_the_dashboards_fits_the_list_of_metrics() {
    for query in queries(Language::PromQl) {
        let filled = filled_promql(&query.text, &VALUES, "5m");
        let labels = promql::checked(&filled);
        let labels = labels.unwrap_or_else(|why| panic!("{}: {why}: {}", query.place, query.text));
        for label in legend_labels(&query.legend) {
            assert!(labels.contains(label), "{}: {}", query.place, query.legend);
        }
        // Other windows than Grafana's own are those of the alert that shows the same figure, and whole spans of time.
        let is_rate = query.text.contains("rate(");
        let fits = ["[$__rate_interval]", "[10m]"]
            .iter()
            .any(|window| query.text.contains(window));
        assert!(!is_rate || fits, "{}: {}", query.place, query.text);
    }
}

#[test]
fn every_variable_of_prometheus_asks_for_a_label_that_there_is() {
    for board in dashboards() {
        for variable in board.variables().iter().filter(|v| v["type"] == "query") {
            let Some(query) = variable["query"]["query"].as_str() else {
                continue; // SQL
            };
            assert_eq!(variable["definition"], query);
            let inside = query.strip_prefix("label_values(").unwrap();
            let (selector, label) = inside.trim_end_matches(')').rsplit_once(", ").unwrap();
            let labels = promql::checked(&filled_promql(selector, &VALUES, "5m")).unwrap();
            assert!(labels.contains(label), "{query}");
        }
    }
}

#[test]
fn every_metric_is_on_a_dashboard() {
    let all: Vec<String> = queries(Language::PromQl)
        .into_iter()
        .map(|query| query.text)
        .collect();
    let shown = promql::metrics(&all.join("\n"));
    let hidden: Vec<_> = METRICS
        .iter()
        .filter(|metric| !shown.contains(metric.name))
        .collect();
    assert!(hidden.is_empty(), "{hidden:#?}");
}

#[test]
fn every_alert_fits_the_list_of_metrics_and_tells_what_to_do() {
    for rule in rules() {
        let labels = promql::checked(&rule.expr);
        let labels = labels.unwrap_or_else(|why| panic!("{}: {why}", rule.alert));
        assert_eq!(rule.runbook_url, format!("docs/runbook.md#{}", rule.code()));
        assert!(
            ["critical", "warning", "info"].contains(&rule.severity.as_str()),
            "{rule:?}"
        );
        assert_eq!(rule.labels, 1, "{rule:?}");
        assert!(rule.lasts.ends_with('m') && rule.lasts != "0m", "{rule:?}");
        let tells = [
            "Run: ",
            "run: ",
            "Run on its machine: ",
            "Search the worker's log for: ",
        ];
        assert!(
            tells.iter().any(|word| rule.summary.contains(word)),
            "{}",
            rule.summary
        );
        assert!(
            rule.description.len() > 60 && rule.description.ends_with('.'),
            "{rule:?}"
        );
        for piece in rule.summary.split("$labels.").skip(1) {
            let label = piece
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .unwrap();
            assert!(labels.contains(label), "{}: {label}", rule.alert);
        }
    }
}

#[test]
fn there_is_an_alert_for_every_finding_that_may_wake_somebody() {
    let rules = rules();
    let codes: BTreeSet<String> = rules.iter().map(rules::Rule::code).collect();
    assert_eq!(codes, ALERTS.iter().map(|&code| code.to_owned()).collect());
    unique(
        "alerts of one severity",
        rules
            .iter()
            .map(|rule| format!("{} {}", rule.alert, rule.severity)),
    );
}

#[test]
fn what_the_database_finds_and_what_alerts_say_bear_the_same_names() {
    let found = findings_of_the_database();
    let mut expected: BTreeSet<&str> = ALERTS.into_iter().collect();
    expected.retain(|code| !OF_PROMETHEUS_ALONE.contains(code));
    expected.extend(OF_THE_DATABASE_ALONE);
    assert_eq!(found, expected);
}

#[test]
fn every_alert_has_a_unit_test_that_fires_and_one_that_does_not() {
    let expectations = expectations();
    for rule in rules() {
        let own: Vec<_> = expectations
            .iter()
            .filter(|e| e.alert == rule.alert)
            .collect();
        assert!(
            own.iter().any(|e| e.fires.contains(&rule.severity)),
            "{rule:?}"
        );
        assert!(own.iter().any(|e| e.fires.is_empty()), "{rule:?}");
    }
}

#[tokio::test]
async fn every_sql_of_the_dashboards_runs_as_an_auditor() {
    let world = World::new().await;
    let auditor = world.login("posthaste_auditor").await;
    let range = ["2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"];
    let mut statements: Vec<(String, String)> = Vec::new();
    for query in queries(Language::Sql) {
        for (subscription, event) in HOSTILE {
            let values = [("subscription", subscription), ("event", event)];
            statements.push((query.place.clone(), filled_sql(&query.text, &values, range)));
        }
    }
    for board in dashboards() {
        let sql = board.variables().iter().filter_map(|v| v["query"].as_str());
        let sql = sql.filter(|query| query.starts_with("select "));
        statements.extend(sql.map(|query| (board.file.to_owned(), query.to_owned())));
    }
    for (place, statement) in statements {
        let prepared = auditor.db.prepare(&statement).await;
        let prepared = prepared.unwrap_or_else(|error| panic!("{place}: {statement}: {error:?}"));
        for column in prepared.columns() {
            // What Grafana shows as it is; all else is cast.
            assert!(
                SHOWN.contains(&column.type_().name()),
                "{place}: {} is {}",
                column.name(),
                column.type_()
            );
        }
        if let Err(error) = auditor.db.query(&prepared, &[]).await {
            panic!("{place}: {statement}: {error:?}");
        }
    }
}

#[tokio::test]
async fn every_sql_that_an_alert_tells_to_run_runs() {
    let world = World::new().await;
    let auditor = world.login("posthaste_auditor").await;
    for rule in rules() {
        let Some((_, command)) = rule.summary.split_once(" select ") else {
            continue;
        };
        let command = format!(
            "select {}",
            command.replace(QUOTED_SUBSCRIPTION, "it''s north")
        );
        assert!(!command.contains("{{"), "{command}");
        if rule.summary.contains("as the schema's owner, run: ") {
            world.run(&command).await;
        } else {
            auditor.run(&command).await;
        }
    }
}

/// The first word in quotes of each branch of `posthaste.findings`, but for severities.
fn findings_of_the_database() -> BTreeSet<&'static str> {
    let schema = include_str!("../sql/schema.sql");
    let (_, findings) = schema
        .split_once("create function posthaste.findings()")
        .unwrap();
    let (findings, _) = findings.split_once("\n    select f.severity").unwrap();
    let (_, branches) = findings.split_once("found (").unwrap();
    let is_code = |word: &&str| {
        let is_word = word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_word && !["critical", "warning", "info"].contains(word)
    };
    let first = |branch: &'static str| branch.split('\'').skip(1).step_by(2).find(is_code);
    branches.split("union all").filter_map(first).collect()
}

fn unique(what: &str, all: impl IntoIterator<Item = String>) {
    let mut seen = BTreeSet::new();
    for one in all {
        assert!(
            !one.is_empty() && seen.insert(one.clone()),
            "{what}: {one:?} twice, or empty"
        );
    }
}

fn is_variable(source: &Value) -> bool {
    let pair = (text(&source["type"]), text(&source["uid"]));
    pair == ("prometheus", "${datasource}")
        || pair == ("grafana-postgresql-datasource", "${postgres}")
}

fn legend_labels(legend: &str) -> impl Iterator<Item = &str> {
    let pieces = legend.split("{{").skip(1);
    pieces.map(|piece| piece.split_once("}}").unwrap().0)
}

/// With the keys of every object in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(sorted).collect(),
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            fields.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(fields.into_iter().collect())
        }
        other => other.clone(),
    }
}

/// Of Grafana 12 and later.
const SCHEMA_VERSION: u64 = 42;

/// The values that stand for the variables of the dashboards.
pub(crate) const VALUES: [(&str, &str); 3] = [
    ("job", "posthaste"),
    ("instance", ".*"),
    ("subscription", "north"),
];

/// A name that would be SQL, and what a person may write where an event's id is asked for.
const HOSTILE: [(&str, &str); 2] = [
    ("it's', '') or true; drop table posthaste.outbox; --", ""),
    ("north", "018f0000-0000-7000-8000-000000000000"),
];

const UNITS: [&str; 11] = [
    "bool_on_off",
    "bytes",
    "cps",
    "eps",
    "none",
    "percentunit",
    "reqps",
    "s",
    "short",
    "string",
    "µs",
];

const SHOWN: [&str; 8] = [
    "text",
    "timestamptz",
    "bool",
    "int2",
    "int4",
    "int8",
    "float8",
    "numeric",
];

/// How a summary puts a subscription's name into SQL.
const QUOTED_SUBSCRIPTION: &str = r#"{{ reReplaceAll "'" "''" $labels.subscription }}"#;

/// What nobody can say in SQL: it takes time, or the database is not there to be asked.
const OF_PROMETHEUS_ALONE: [&str; 5] = [
    "no_data",
    "database_unreachable",
    "first_attempts_late",
    "attempts_unrecordable",
    "disk_growth",
];

/// What nobody needs to be woken for, or what no figure tells.
pub(crate) const OF_THE_DATABASE_ALONE: [&str; 2] = ["changes_open", "access_deviates"];

/// The findings that have an alert.
pub(crate) const ALERTS: [&str; 25] = [
    "no_data",
    "no_worker",
    "database_unreachable",
    "events_not_fanned_out",
    "first_attempts_late",
    "deliveries_late",
    "dead_letters",
    "subscription_failing",
    "breaker_open",
    "subscription_paused",
    "quarantined",
    "unknown_event_types",
    "leases_lost",
    "attempts_unrecordable",
    "clock_off",
    "partitions_missing",
    "vacuum_held_back",
    "notification_queue",
    "tables_bloated",
    "disk_growth",
    "rotation_overdue",
    "secret_missing",
    "certificate_expiring",
    "config_drift",
    "four_eyes_off",
];
