//! From the one table: the struct, its defaults, the list of settings, and the README's table.

use std::fmt::Write as _;

use super::{SETTINGS, Setting};

/// Writes [`Config`](super::Config), its defaults and [`SETTINGS`] from rows of the form
/// `/// meaning`, `key: type = default, kind;` under the name of a section.
macro_rules! settings {
    ($( $section:literal $( $(#[doc = $meaning:literal])+ $key:ident: $type:ty = $default:expr, $kind:expr; )+ )+) => {
        /// The value of every setting.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($( $(#[doc = $meaning])+ pub $key: $type, )+)+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($( $key: $default, )+)+ }
            }
        }

        /// Every setting, in the order in which the README lists them.
        pub static SETTINGS: &[Setting] = &[
            $($( Setting {
                key: stringify!($key),
                section: $section,
                meaning: concat!($($meaning),+),
                field: &Row { kind: $kind, of: |config| &config.$key, of_mut: |config| &mut config.$key },
            }, )+)+
        ];
    };
}
pub(super) use settings;

/// The table in the README: every setting with its default, its bounds and its meaning.
pub fn markdown_table() -> String {
    let mut table = String::from(
        "| setting | default | allowed | unit | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for setting in SETTINGS {
        let cells = [
            code(setting.key),
            code(&setting.default()),
            setting.bounds(),
            setting.unit().to_owned(),
            meaning(setting),
        ];
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} |",
            cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
        );
    }
    table
}

fn meaning(setting: &Setting) -> String {
    let secret = if setting.is_secret() {
        " Secret: no flag."
    } else {
        ""
    };
    format!("{}{secret}", setting.meaning.trim())
}

fn code(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("`{text}`")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_table_has_a_row_of_five_cells_for_each_setting() {
        let table = markdown_table();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows.len(), SETTINGS.len());
        for (row, setting) in rows.iter().zip(SETTINGS) {
            assert!(row.starts_with(&format!("| `{}` | ", setting.key)), "{row}");
            assert_eq!(row.replace("\\|", "").matches('|').count(), 6, "{row}");
        }
    }

    #[test]
    fn a_row_tells_default_bounds_unit_and_meaning() {
        let row = "| `batch` | `512` | 1 to 10000 | rows | Rows taken by one claim and written by one record. |\n";
        assert!(markdown_table().contains(row), "{}", markdown_table());
    }

    #[test]
    fn a_secret_is_marked_and_has_no_default() {
        let table = markdown_table();
        let row = table
            .lines()
            .find(|row| row.starts_with("| `keys` |"))
            .unwrap();
        assert!(
            row.starts_with("| `keys` |  | ") && row.ends_with("Secret: no flag. |"),
            "{row}"
        );
    }
}
