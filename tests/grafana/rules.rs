//! The alert rules and their unit tests, as promtool reads them.

use yaml_rust2::{Yaml, YamlLoader};

pub(crate) const RULES: &str = include_str!("../../grafana/alerts.yaml");
const TESTS: &str = include_str!("../../grafana/alerts_test.yaml");

/// One alert rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) alert: String,
    pub(crate) expr: String,
    /// For how long, such as `5m`; empty where it says nothing.
    pub(crate) lasts: String,
    pub(crate) severity: String,
    pub(crate) labels: usize,
    pub(crate) summary: String,
    pub(crate) description: String,
    pub(crate) runbook_url: String,
}

impl Rule {
    /// `deliveries_late` for `PosthasteDeliveriesLate`.
    pub(crate) fn code(&self) -> String {
        let mut code = String::new();
        for letter in self.alert.strip_prefix("Posthaste").unwrap().chars() {
            if letter.is_ascii_uppercase() && !code.is_empty() {
                code.push('_');
            }
            code.push(letter.to_ascii_lowercase());
        }
        code
    }
}

/// What a unit test expects of one alert at one time.
#[derive(Debug)]
pub(crate) struct Expectation {
    pub(crate) alert: String,
    /// The severities of those that fire.
    pub(crate) fires: Vec<String>,
}

pub(crate) fn rules() -> Vec<Rule> {
    let groups = document(RULES);
    let groups = groups["groups"].as_vec().unwrap();
    let names: std::collections::BTreeSet<&str> = groups.iter().map(|g| text(&g["name"])).collect();
    assert_eq!(names.len(), groups.len(), "groups have names of their own");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_vec().unwrap());
    rules.map(rule).collect()
}

pub(crate) fn expectations() -> Vec<Expectation> {
    let tests = document(TESTS);
    let tests = tests["tests"].as_vec().unwrap();
    let cases = tests.iter().flat_map(|test| {
        let cases = test["alert_rule_test"].as_vec();
        cases.map_or(&[][..], Vec::as_slice)
    });
    cases.map(expectation).collect()
}

fn rule(rule: &Yaml) -> Rule {
    let annotations = &rule["annotations"];
    Rule {
        alert: text(&rule["alert"]).to_owned(),
        expr: text(&rule["expr"]).to_owned(),
        lasts: text(&rule["for"]).to_owned(),
        severity: text(&rule["labels"]["severity"]).to_owned(),
        labels: rule["labels"].as_hash().unwrap().len(),
        summary: text(&annotations["summary"]).to_owned(),
        description: text(&annotations["description"]).to_owned(),
        runbook_url: text(&annotations["runbook_url"]).to_owned(),
    }
}

fn expectation(case: &Yaml) -> Expectation {
    let fires = case["exp_alerts"].as_vec().unwrap().iter();
    Expectation {
        alert: text(&case["alertname"]).to_owned(),
        fires: fires
            .map(|alert| text(&alert["exp_labels"]["severity"]).to_owned())
            .collect(),
    }
}

fn document(yaml: &str) -> Yaml {
    YamlLoader::load_from_str(yaml).unwrap().remove(0)
}

fn text(value: &Yaml) -> &str {
    value.as_str().unwrap_or_default()
}
