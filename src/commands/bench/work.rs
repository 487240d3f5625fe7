//! What the workers and the server did during a drain: how often which statement ran, and what it did to the tables.

use std::collections::BTreeMap;

use comfy_table::Table;
use posthaste::Result;
use serde_json::{Value, json};

use super::figures::{float, grouped};
use super::report::table;
use super::site::Database;

/// Of one turn.
pub(super) struct Work {
    /// Of each worker.
    metrics: Vec<BTreeMap<String, f64>>,
    tables: Vec<TableWork>,
    statements: Vec<StatementWork>,
}

struct TableWork {
    name: String,
    /// In the order of `table_work.sql`.
    counts: [i64; 9],
}

struct StatementWork {
    text: String,
    calls: i64,
    rows: i64,
    total_ms: f64,
    wal_bytes: i64,
    pages: i64,
}

impl Work {
    /// After the workers have ended.
    pub(super) async fn of(
        metrics: Vec<BTreeMap<String, f64>>,
        database: &Database,
        statements: bool,
    ) -> Result<Self> {
        let rows = database.ask_alone(TABLE_WORK, &[]).await?;
        let tables = rows.iter().map(|row| {
            let mut counts = [0; 9];
            for (place, count) in counts.iter_mut().enumerate() {
                *count = row.try_get(place + 1)?;
            }
            Ok(TableWork {
                name: row.try_get(0)?,
                counts,
            })
        });
        let tables = tables.collect::<Result<_>>()?;
        let rows = if statements {
            database.ask_alone(STATEMENTS, &[&SHOWN]).await?
        } else {
            Vec::new()
        };
        let statements = rows.iter().map(|row| {
            Ok(StatementWork {
                text: row.try_get(0)?,
                calls: row.try_get(1)?,
                rows: row.try_get(2)?,
                total_ms: row.try_get(3)?,
                wal_bytes: row.try_get(4)?,
                pages: row.try_get(5)?,
            })
        });
        Ok(Self {
            metrics,
            tables,
            statements: statements.collect::<Result<_>>()?,
        })
    }

    pub(super) fn json(&self) -> Value {
        let tables = self.tables.iter().map(|table| {
            let counts = TABLE_HEADER.iter().skip(1).zip(table.counts);
            let counts = counts.map(|(name, count)| ((*name).to_owned(), count.into()));
            (table.name.clone(), Value::Object(counts.collect()))
        });
        let statements = self.statements.iter().map(|statement| {
            json!({
                "text": statement.text, "calls": statement.calls, "rows": statement.rows,
                "total_ms": statement.total_ms, "wal_bytes": statement.wal_bytes,
                "shared_pages_hit": statement.pages,
            })
        });
        json!({
            "metrics": self.metrics,
            "tables": Value::Object(tables.collect()),
            "statements": statements.collect::<Vec<_>>(),
        })
    }

    /// Seconds that the workers waited for their statements; for one of these alone where it is named.
    pub(super) fn statement_seconds(&self, query: Option<&str>) -> f64 {
        let ours = self.statements_told();
        ours.filter(|(told, ..)| query.is_none_or(|query| query == told))
            .map(|(.., seconds)| seconds)
            .sum()
    }

    /// Each statement of the workers: its name, how often, and seconds in all.
    fn statements_told(&self) -> impl Iterator<Item = (String, f64, f64)> {
        let mut told: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (name, value) in self.metrics.iter().flatten() {
            let query = |start| name.strip_prefix(start)?.strip_suffix("\"}");
            if let Some(query) = query(STATEMENT_COUNT) {
                told.entry(query).or_default().0 += value;
            } else if let Some(query) = query(STATEMENT_SUM) {
                told.entry(query).or_default().1 += value;
            }
        }
        told.into_iter()
            .map(|(query, (calls, seconds))| (query.to_owned(), calls, seconds))
    }

    /// One about the worker's statements, one about the tables, and one from the server where it was asked.
    pub(super) fn tables(&self, deliveries: u64) -> Vec<Table> {
        let mut tables = vec![self.by_statement(deliveries), self.by_table()];
        if !self.statements.is_empty() {
            tables.push(self.by_server(deliveries));
        }
        tables
    }

    /// Deliveries leased, and those of them that had to wait first, as a row of the queue.
    fn leased_and_waited(&self) -> [f64; 2] {
        ["lease", "queue"].map(|name| {
            let table = self.tables.iter().find(|table| table.name == name);
            table.map_or(0.0, |table| float(table.counts[0].unsigned_abs()))
        })
    }

    /// Which share of the deliveries had to wait, in percent.
    pub(super) fn share_that_waited(&self) -> f64 {
        let [leased, waited] = self.leased_and_waited();
        waited * 100.0 / leased.max(1.0)
    }

    /// How many deliveries could be leased where they were made.
    pub(super) fn note(&self) -> String {
        let [leased, waited] = self.leased_and_waited().map(|count| grouped(count, 0));
        format!(
            "Of {leased} deliveries {waited} ({:.0} %) had to wait before they were leased.",
            self.share_that_waited()
        )
    }

    fn by_statement(&self, deliveries: u64) -> Table {
        let mut page = table(
            &[
                "workers' statement",
                "calls",
                "mean ms",
                "in all s",
                "deliveries a call",
            ],
            1,
        );
        for (query, calls, seconds) in self.statements_told() {
            page.add_row([
                query,
                grouped(calls, 0),
                grouped(seconds * 1e3 / calls.max(1.0), 2),
                grouped(seconds, 2),
                grouped(float(deliveries) / calls.max(1.0), 0),
            ]);
        }
        page
    }

    fn by_table(&self) -> Table {
        let mut page = table(&TABLE_HEADER, 1);
        for TableWork { name, counts } in &self.tables {
            let counts = counts
                .iter()
                .map(|count| grouped(float(count.unsigned_abs()), 0));
            page.add_row(std::iter::once(name.clone()).chain(counts));
        }
        page
    }

    fn by_server(&self, deliveries: u64) -> Table {
        let header = [
            "statement, by the server",
            "calls",
            "rows",
            "total ms",
            "µs a delivery",
            "WAL bytes a delivery",
            "pages a delivery",
        ];
        let mut page = table(&header, 1);
        let each = |total: f64| grouped(total / float(deliveries.max(1)), 1);
        for statement in &self.statements {
            page.add_row([
                first_words(&statement.text),
                grouped(float(statement.calls.unsigned_abs()), 0),
                grouped(float(statement.rows.unsigned_abs()), 0),
                grouped(statement.total_ms, 0),
                each(statement.total_ms * 1e3),
                each(float(statement.wal_bytes.unsigned_abs())),
                each(float(statement.pages.unsigned_abs())),
            ]);
        }
        page
    }
}

/// Enough of a statement to know it by.
fn first_words(text: &str) -> String {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"));
    let words: Vec<&str> = code.flat_map(str::split_whitespace).take(9).collect();
    words.join(" ").chars().take(60).collect()
}

const STATEMENT_COUNT: &str = "posthaste_statement_duration_seconds_count{query=\"";
const STATEMENT_SUM: &str = "posthaste_statement_duration_seconds_sum{query=\"";
const TABLE_HEADER: [&str; 10] = [
    "table",
    "inserted",
    "updated",
    "updated in place",
    "deleted",
    "dead at the end",
    "index scans",
    "seq scans",
    "table bytes",
    "index bytes",
];
/// Statements that the server is asked about.
const SHOWN: i64 = 16;
const TABLE_WORK: &str = include_str!("../../../sql/bench/table_work.sql");
const STATEMENTS: &str = include_str!("../../../sql/bench/statements.sql");
