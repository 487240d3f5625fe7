//! What one call cost: its plan as it ran, and what it touched.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::calls::Call;

/// What was touched of one table or index.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Touched {
    /// Buffers, counted each time.
    pub(crate) buffers: f64,
    /// Rows or index entries that scans went over, dead ones too.
    pub(crate) rows: f64,
}

#[derive(Clone)]
pub(crate) struct Cost {
    pub(crate) call: &'static str,
    pub(crate) returned: f64,
    indexes: BTreeSet<String>,
    nodes: Vec<Node>,
    touched: BTreeMap<String, Touched>,
}

/// A node of a plan, as it ran.
#[derive(Clone, Debug)]
struct Node {
    kind: String,
    /// What it stands on: a table, a CTE, or the statement's part that it belongs to.
    place: String,
    /// What its filter let through and what it did not, over all its loops.
    rows: f64,
}

impl Cost {
    /// How many rows or entries of a table or an index its scans went over, dead ones too.
    pub(crate) fn rows_of(&self, relation: &str) -> f64 {
        self.touched
            .get(relation)
            .map_or(0.0, |touched| touched.rows)
    }

    pub(crate) fn new(
        call: &Call,
        plan: &Value,
        before: &BTreeMap<String, Touched>,
        after: &BTreeMap<String, Touched>,
    ) -> Self {
        let mut cost = Self {
            call: call.name,
            returned: plan["Actual Rows"].as_f64().unwrap_or(0.0),
            indexes: BTreeSet::new(),
            nodes: Vec::new(),
            touched: BTreeMap::new(),
        };
        cost.walk(plan, call.name);
        for (relation, after) in after {
            let before = before.get(relation).copied().unwrap_or_default();
            let touched = Touched {
                buffers: after.buffers - before.buffers,
                rows: after.rows - before.rows,
            };
            cost.touched.insert(relation.clone(), touched);
        }
        cost
    }

    fn walk(&mut self, node: &Value, within: &str) {
        let text = |key: &str| node[key].as_str().map(str::to_owned);
        let number = |key: &str| node[key].as_f64().unwrap_or(0.0);
        let within = text("Subplan Name").unwrap_or_else(|| within.to_owned());
        let on = text("Relation Name").or_else(|| text("CTE Name"));
        // The catalogue's own indexes are none of our business.
        let index = text("Index Name").filter(|name| !name.starts_with("pg_"));
        self.indexes.extend(index.map(|name| parent(&name)));
        let removed = number("Rows Removed by Filter")
            + number("Rows Removed by Join Filter")
            + number("Rows Removed by Index Recheck");
        self.nodes.push(Node {
            kind: text("Node Type").unwrap_or_default(),
            place: on.map_or_else(
                || within.clone(),
                |on| format!("{} in {within}", parent(&on)),
            ),
            rows: (number("Actual Rows") + removed) * number("Actual Loops"),
        });
        for child in node["Plans"].as_array().into_iter().flatten() {
            self.walk(child, &within);
        }
    }

    /// Where the plan leaves the indexes it is to go by.
    pub(crate) fn strays(&self, call: &Call) -> Vec<String> {
        let whole =
            |node: &&Node| SCANS.contains(&node.kind.as_str()) && !node.is_on(call.reads_whole);
        let scans = self.nodes.iter().filter(whole);
        let mut strays: Vec<String> = scans
            .map(|node| format!("{} on {}", node.kind, node.place))
            .collect();
        let others = self
            .indexes
            .iter()
            .filter(|name| !call.indexes.contains(&name.as_str()));
        strays.extend(others.map(|name| format!("goes by {name}")));
        let missing = call
            .indexes
            .iter()
            .filter(|name| !self.indexes.contains(**name));
        strays.extend(missing.map(|name| format!("does not go by {name}")));
        strays
    }

    /// The nodes that saw more rows than `limit`.
    pub(crate) fn crowds(&self, limit: f64) -> Vec<String> {
        let crowds = self.nodes.iter().filter(|node| node.rows > limit);
        crowds
            .map(|node| format!("{} on {} saw {} rows", node.kind, node.place, node.rows))
            .collect()
    }

    /// Where this cost more than `less` did: in all buffers together, and in the rows or entries of any one relation.
    pub(crate) fn growth(&self, less: &Self, factor: f64) -> Vec<String> {
        let grew = |before: f64, after: f64| after > before * factor + FEW;
        let mut growth = Vec::new();
        if grew(less.buffers(), self.buffers()) {
            growth.push(format!(
                "{} buffers, then {}",
                less.buffers(),
                self.buffers()
            ));
        }
        for (relation, touched) in &self.touched {
            let before = less
                .touched
                .get(relation)
                .map_or(0.0, |touched| touched.rows);
            if grew(before, touched.rows) {
                growth.push(format!(
                    "{before} rows or entries of {relation}, then {}",
                    touched.rows
                ));
            }
        }
        growth
    }

    fn buffers(&self) -> f64 {
        self.touched.values().map(|touched| touched.buffers).sum()
    }
}

impl Node {
    fn is_on(&self, tables: &[&str]) -> bool {
        tables
            .iter()
            .any(|table| self.place == *table || self.place.starts_with(&format!("{table} in ")))
    }
}

/// `outbox_20300101_pkey` is one of `outbox_pkey`'s; see touched.sql.
fn parent(name: &str) -> String {
    let day = |word: &&str| word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_digit());
    let words: Vec<&str> = name
        .split('_')
        .filter(|word| !day(word) && !["default", "idx"].contains(word))
        .collect();
    words.join("_")
}

/// Scans that read a table from end to end, or gather its rows before they are looked at.
const SCANS: [&str; 4] = [
    "Seq Scan",
    "Bitmap Heap Scan",
    "Bitmap Index Scan",
    "Sample Scan",
];
/// What a cost may vary by for reasons of its own: a page that was full, an index that has a level more.
const FEW: f64 = 64.0;
