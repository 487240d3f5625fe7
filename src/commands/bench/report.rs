//! What the benchmark says: the settings, a table for each scenario, and everything as JSON.

use std::path::Path;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Row, Table};
use posthaste::{Error, Result};
use serde_json::{Map, Value, json};

use super::figures::grouped;
use crate::commands::output::say;

/// What a scenario found.
pub(super) struct Report {
    pub(super) title: String,
    pub(super) tables: Vec<Table>,
    /// What one must know to read the tables.
    pub(super) notes: Vec<String>,
    pub(super) json: Value,
}

impl Report {
    pub(super) fn print(&self) -> Result<()> {
        say(&format!("\n{}", self.title))?;
        for table in &self.tables {
            say(&table.to_string())?;
        }
        for note in &self.notes {
            say(&format!("  {note}"))?;
        }
        Ok(())
    }

    /// Every single turn, and what was printed: medians, ranges and ratios as text.
    fn json(&self) -> Value {
        let mut json = self.json.clone();
        if let Some(found) = json.as_object_mut() {
            let tables = self.tables.iter().map(table_json).collect();
            found.insert("title".to_owned(), self.title.as_str().into());
            found.insert("tables".to_owned(), tables);
            found.insert("notes".to_owned(), self.notes.as_slice().into());
        }
        json
    }
}

fn table_json(table: &Table) -> Value {
    let words = |row: &Row| {
        let cells = row.cell_iter().map(|cell| cell.content().into());
        cells.collect::<Vec<Value>>()
    };
    json!({
        "header": table.header().map(words),
        "rows": table.row_iter().map(words).collect::<Vec<_>>(),
    })
}

/// An empty table: the first `words` columns hold words, the others numbers.
pub(super) fn table(header: &[&str], words: usize) -> Table {
    let mut table = Table::new();
    table
        .load_preset(UTF8_FULL_CONDENSED)
        .set_header(header.to_vec());
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A number of a table that may not be known.
pub(super) fn known(number: Option<f64>, decimals: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| grouped(number, decimals))
}

/// Where and with what the figures came about.
pub(super) fn print_settings(settings: &[(String, String)]) -> Result<()> {
    for (name, value) in settings {
        say(&format!("{name:24} {value}"))?;
    }
    Ok(())
}

/// Says how far it is, to whoever watches.
pub(super) fn progress(line: &str) {
    eprintln!("  {line}");
}

pub(super) fn write_json(
    path: &Path,
    settings: &[(String, String)],
    reports: &[(&str, Report)],
) -> Result<()> {
    let settings: Map<String, Value> = settings
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    let scenarios: Map<String, Value> = reports
        .iter()
        .map(|(name, report)| ((*name).to_owned(), report.json()))
        .collect();
    let text = format!(
        "{:#}\n",
        json!({ "settings": settings, "scenarios": scenarios })
    );
    if path == Path::new("-") {
        return say(text.trim_end());
    }
    std::fs::write(path, text)
        .map_err(|error| Error::Io(format!("cannot write {}", path.display()), error))
}
