//! Texts that fit: cut to a width in cells, joined while there is room, set in columns of which the least important are dropped (pure).
//!
//! A width is in cells of a terminal: a Chinese character has two, a combining accent none.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// One column of a table.
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) cells: Vec<String>,
    /// The column is dropped where it would get less; less is enough where its cells are shorter.
    pub(super) least: usize,
    /// It gets no more, however much there is.
    pub(super) most: usize,
    /// Columns of a high rank go first.
    pub(super) rank: u8,
    pub(super) is_number: bool,
}

impl Default for Column {
    fn default() -> Self {
        Self {
            title: "",
            cells: Vec::new(),
            least: 0,
            most: usize::MAX,
            rank: 0,
            is_number: false,
        }
    }
}

/// The cells that a text takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// As much of a text as fits, with `…` at the end of one that does not.
pub(super) fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let Some(room) = room.checked_sub(1) else {
        return String::new();
    };
    let (mut kept, mut taken) = (String::new(), 0);
    for letter in Span::raw(text).styled_graphemes(Style::new()) {
        taken += width(letter.symbol);
        if taken > room {
            break;
        }
        kept.push_str(letter.symbol);
    }
    kept.push('…');
    kept
}

/// The parts up to the first that does not fit: most important first, and the very first is cut rather than left out.
pub(super) fn joined<S: AsRef<str>>(parts: impl IntoIterator<Item = S>, room: usize) -> String {
    let mut line = String::new();
    for part in parts {
        let part = part.as_ref();
        if line.is_empty() {
            line = cut(part, room);
        } else if width(&line) + GAP + width(part) <= room {
            line.push_str("  ");
            line.push_str(part);
        } else {
            break;
        }
    }
    line
}

/// A line for the titles, and one for each row; a span for each cell.
pub(super) fn table(columns: Vec<Column>, room: usize) -> Vec<Line<'static>> {
    let wanted: Vec<usize> = columns.iter().map(Column::widest).collect();
    let widths = widths(&columns, &wanted, room);
    let kept: Vec<(Column, usize)> = columns
        .into_iter()
        .zip(widths)
        .filter_map(|(column, width)| Some((column, width?)))
        .collect();
    let rows = kept.first().map_or(0, |(column, _)| column.cells.len());
    let titles = kept
        .iter()
        .map(|(column, room)| column.set(column.title, *room));
    let titles = Line::from(spaced(titles));
    let rows = (0..rows).map(|row| {
        let cells = kept.iter().map(|(column, room)| {
            let cell = column.cells.get(row).map_or("", String::as_str);
            column.set(cell, *room)
        });
        Line::from(spaced(cells))
    });
    std::iter::once(titles).chain(rows).collect()
}

/// How wide each column is; `None` for those that are dropped.
fn widths(columns: &[Column], wanted: &[usize], room: usize) -> Vec<Option<usize>> {
    let mut by_rank: Vec<usize> = (0..columns.len()).collect();
    by_rank.sort_by_key(|at| columns[*at].rank);
    let mut widths = vec![None; columns.len()];
    let mut left = room;
    for (place, at) in by_rank.iter().enumerate() {
        let least = columns[*at].least.min(wanted[*at]);
        // The first one is cut rather than left out.
        let (gap, least) = if place == 0 {
            (0, least.min(room))
        } else {
            (GAP, least)
        };
        if gap + least <= left {
            left -= gap + least;
            widths[*at] = Some(least);
        }
    }
    for at in by_rank {
        if let Some(width) = &mut widths[at] {
            let more = wanted[at].saturating_sub(*width).min(left);
            *width += more;
            left -= more;
        }
    }
    widths
}

impl Column {
    fn widest(&self) -> usize {
        let cells = self.cells.iter().map(|cell| width(cell));
        let widest = cells.chain([width(self.title)]).max();
        widest.unwrap_or(0).min(self.most)
    }

    fn set(&self, text: &str, room: usize) -> String {
        let text = cut(text, room);
        let blank = " ".repeat(room.saturating_sub(width(&text)));
        if self.is_number {
            blank + &text
        } else {
            text + &blank
        }
    }
}

fn spaced(cells: impl Iterator<Item = String>) -> Vec<Span<'static>> {
    let mut spans: Vec<Span<'static>> = Vec::new();
    for cell in cells {
        if !spans.is_empty() {
            spans.push(Span::raw("  "));
        }
        spans.push(Span::raw(cell));
    }
    spans
}

/// Cells between two columns.
const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_by_cells_and_never_within_a_letter() {
        for (text, room, expected) in [
            ("bank", 4, "bank"),
            ("banks", 4, "ban…"),
            ("大学の購読", 10, "大学の購読"),
            ("大学の購読", 9, "大学の購…"),
            ("大学の購読", 8, "大学の…"),
            ("e\u{301}cole", 3, "e\u{301}c…"),
            ("👩‍👩‍👧‍👦 family", 3, "👩‍👩‍👧‍👦…"),
            ("any", 1, "…"),
            ("any", 0, ""),
        ] {
            let cut = cut(text, room);
            assert_eq!(cut, expected);
            assert!(width(&cut) <= room);
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_what_matters_most_is_cut() {
        let parts = ["owed 1", "oldest 1h02m", "due 1"];
        assert_eq!(joined(parts, 40), "owed 1  oldest 1h02m  due 1");
        assert_eq!(joined(parts, 20), "owed 1  oldest 1h02m");
        assert_eq!(joined(parts, 15), "owed 1");
        assert_eq!(joined(parts, 4), "owe…");
    }

    fn three() -> Vec<Column> {
        let column = |title, cells: [&str; 2], least, rank, is_number| Column {
            title,
            cells: cells.map(str::to_owned).to_vec(),
            least,
            most: 30,
            rank,
            is_number,
        };
        vec![
            column("NAME", ["bank", "a-long-one-indeed"], 6, 0, false),
            column("OWED", ["1", "12.3k"], 6, 2, true),
            column("OLDEST", ["1h02m", "5s"], 7, 1, true),
        ]
    }

    fn set(room: usize) -> String {
        let lines: Vec<String> = table(three(), room)
            .iter()
            .map(ToString::to_string)
            .collect();
        lines.join("\n")
    }

    #[test]
    fn columns_are_dropped_by_rank_and_keep_their_order() {
        let all = "NAME                OWED  OLDEST\nbank                   1   1h02m\na-long-one-indeed  12.3k      5s";
        assert_eq!(set(40), all);
        assert_eq!(
            set(17),
            "NAME       OLDEST\nbank        1h02m\na-long-o…      5s"
        );
        assert_eq!(set(5), "NAME \nbank \na-lo…");
    }

    #[test]
    fn no_line_is_wider_than_there_is_room() {
        for room in 0..60 {
            for line in table(three(), room) {
                assert!(line.width() <= room, "{room}: {line}");
            }
        }
    }
}
