//! How large the tables of what is owed are, what is dead in them, and how often the server tidied them by itself.

use posthaste::Result;
use serde_json::{Value, json};
use tokio_postgres::Client;

/// At one moment, as the server's statistics have it.
#[derive(Clone, Debug, Default)]
pub(super) struct Upkeep(pub(super) Vec<TableUpkeep>);

#[derive(Clone, Debug)]
pub(super) struct TableUpkeep {
    pub(super) name: String,
    pub(super) live: i64,
    pub(super) dead: i64,
    pub(super) vacuums: i64,
    pub(super) analyzes: i64,
    pub(super) table_bytes: i64,
    pub(super) index_bytes: i64,
}

impl Upkeep {
    pub(super) async fn of(client: &Client) -> Result<Self> {
        let rows = client.query(UPKEEP, &[]).await?;
        let tables = rows.iter().map(|row| {
            Ok(TableUpkeep {
                name: row.try_get(0)?,
                live: row.try_get(1)?,
                dead: row.try_get(2)?,
                vacuums: row.try_get(3)?,
                analyzes: row.try_get(4)?,
                table_bytes: row.try_get(5)?,
                index_bytes: row.try_get(6)?,
            })
        });
        tables.collect::<Result<_>>().map(Self)
    }

    pub(super) fn json(&self) -> Value {
        let tables = self.0.iter().map(|table| {
            let figures = json!({
                "live_rows": table.live, "dead_rows": table.dead,
                "autovacuums": table.vacuums, "autoanalyzes": table.analyzes,
                "table_bytes": table.table_bytes, "index_bytes": table.index_bytes,
            });
            (table.name.clone(), figures)
        });
        Value::Object(tables.collect())
    }
}

const UPKEEP: &str = include_str!("../../../sql/bench/upkeep.sql");
