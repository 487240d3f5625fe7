//! What `status --watch` shows, as a function of what was read, the time and the size of the terminal (pure).
//!
//! From the top: how things stand, what is owed, how fast it goes; then findings, subscriptions and workers, as far as there is room.
//! Each line is made to fit: parts and columns that find no room are left out, by rank.

use std::time::SystemTime;

use posthaste::logging::escaped;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::columns::{Column, cut, joined, table, width};
use super::reading::{Figures, Finding, Lagging, Reading, Severity, Worker};
use super::report::{LANES, lasted};
use super::units::{clock, count, rate, short_age, short_count};

/// All that is shown.
pub(super) struct Screen<'a> {
    /// The newest that could be read.
    pub(super) reading: &'a Reading,
    /// Why it is not newer.
    pub(super) lost: Option<&'a Lost>,
    pub(super) now: SystemTime,
    pub(super) colour: bool,
}

/// Nothing can be read.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    pub(super) since: SystemTime,
    pub(super) why: String,
}

/// Draws it, and nothing outside of `area`.
pub(super) fn draw(screen: &Screen<'_>, area: Rect, buffer: &mut Buffer) {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    for (y, line) in (area.y..).zip(lines(screen, width, height)) {
        buffer.set_line(area.x, y, &line, area.width);
    }
}

/// As a sentence, such as `cannot read since 02:50:10Z (1m00s): database: connection refused`.
pub(super) fn sentence(lost: &Lost, now: SystemTime) -> String {
    let since = clock(lost.since);
    let ago = now.duration_since(lost.since).unwrap_or_default();
    let ago = short_age(ago.as_secs_f64());
    escaped(&format!("cannot read since {since} ({ago}): {}", lost.why))
}

/// At most `height` lines, none wider than `width`.
fn lines(screen: &Screen<'_>, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = vec![headline(screen, width)];
    if let Some(lost) = screen.lost {
        let line = Line::from(cut(&sentence(lost, screen.now), width));
        lines.push(line.style(screen.style(Severity::Critical)));
    }
    let summary = summary(screen.reading, width);
    let most = if height <= LOW { 2 } else { summary.len() };
    lines.extend(summary.into_iter().take(most).map(Line::from));
    let room = height.saturating_sub(lines.len());
    lines.extend(sections(screen, width, room));
    lines.truncate(height);
    lines
}

/// As `CRITICAL 1  warning 3  info 1  q quits      02:51:10Z`.
fn headline(screen: &Screen<'_>, room: usize) -> Line<'static> {
    let (state, style, rest) = state(screen);
    let time = clock(screen.now);
    let left_room = match room.checked_sub(width(&time) + 2) {
        Some(left) if left >= width(&state) => left,
        _ => return Line::from(Span::styled(cut(&state, room), style)),
    };
    let parts = [state.clone()].into_iter().chain(rest);
    let left = joined(parts.chain(["q quits".to_owned()]), left_room);
    let rest = left.strip_prefix(&state).unwrap_or_default().to_owned();
    let blank = " ".repeat(room - width(&left) - width(&time));
    Line::from(vec![
        Span::styled(state, style),
        Span::raw(rest),
        Span::raw(blank),
        Span::raw(time),
    ])
}

/// How things stand in a word or two, how it looks, and how many findings there are that it does not tell of.
fn state(screen: &Screen<'_>) -> (String, Style, Vec<String>) {
    let told = |severity: Severity| match screen.reading.count(severity) {
        0 => None,
        many => Some((severity, format!("{} {many}", severity.word()))),
    };
    let mut counts: Vec<_> = Severity::WORST_FIRST.into_iter().filter_map(told).collect();
    let (state, style) = if screen.lost.is_some() {
        ("CANNOT READ".to_owned(), screen.style(Severity::Critical))
    } else if counts.is_empty() {
        ("WELL".to_owned(), screen.coloured(Color::Green))
    } else {
        let (severity, count) = counts.remove(0);
        (count.to_uppercase(), screen.style(severity))
    };
    let counts = counts.into_iter().map(|(_, count)| count).collect();
    (state, style.add_modifier(Modifier::BOLD), counts)
}

/// Most important lines first, and most important parts first in each.
fn summary(reading: &Reading, room: usize) -> Vec<String> {
    let figures = &reading.figures;
    [
        owed(figures),
        rates(figures),
        labelled("lanes", figures, "lanes", &LANES),
        people(reading),
        agreed(figures),
    ]
    .into_iter()
    .filter(|parts| !parts.is_empty())
    .map(|parts| joined(parts, room))
    .collect()
}

fn owed(figures: &Figures) -> Vec<String> {
    let mut parts = labelled("owed", figures, "deliveries_owed", &OWED);
    let oldest = figures.one("oldest_owed_seconds").unwrap_or_default();
    if oldest > 0.0 && !parts.is_empty() {
        parts.insert(1, format!("oldest {}", short_age(oldest)));
    }
    parts
}

/// The sum of a figure, then each label that is not zero; nothing where the figure was not read.
fn labelled(title: &str, figures: &Figures, figure: &str, known: &[&str]) -> Vec<String> {
    let Some(sum) = figures.sum(figure) else {
        return Vec::new();
    };
    let value = |label: &&&str| {
        figures
            .labelled(figure, label)
            .is_some_and(|value| value > 0.0)
    };
    let parts = known.iter().filter(value).map(|label| {
        let value = figures.labelled(figure, label).unwrap_or_default();
        format!("{} {}", label.replace('_', " "), short_count(value))
    });
    let title = format!("{title} {}", short_count(sum));
    [title].into_iter().chain(parts).collect()
}

fn rates(figures: &Figures) -> Vec<String> {
    let Some(events) = figures.one("events_per_second") else {
        return Vec::new();
    };
    let attempts = figures.sum("attempts_per_second").unwrap_or_default();
    let accepted = figures
        .labelled("attempts_per_second", "accepted")
        .unwrap_or_default();
    vec![
        format!("/s events {}", rate(events)),
        format!("ok {}", rate(accepted)),
        format!("failed {}", rate(attempts - accepted)),
        format!("attempts {}", rate(attempts)),
    ]
}

fn people(reading: &Reading) -> Vec<String> {
    let alive = reading.figures.one("workers_alive").unwrap_or_default();
    let mut parts = vec![format!("workers {}", count(alive))];
    if reading.workers_differ() {
        parts.push("which DIFFER".to_owned());
    }
    parts.extend(some(
        &reading.figures,
        "dead_letters_last_day",
        "dead letters 24h",
    ));
    parts
}

fn agreed(figures: &Figures) -> Vec<String> {
    let mut parts: Vec<String> = [
        ("changes_open", "changes to decide"),
        ("unknown_event_types", "unknown types"),
        ("secrets_missing", "secrets missing"),
        ("secrets_overdue", "secrets overdue"),
    ]
    .into_iter()
    .filter_map(|(figure, title)| some(figures, figure, title))
    .collect();
    if figures.one("four_eyes") == Some(0.0) {
        parts.push("four eyes OFF".to_owned());
    }
    parts
}

fn some(figures: &Figures, figure: &str, title: &str) -> Option<String> {
    let value = figures.one(figure).filter(|value| *value > 0.0)?;
    Some(format!("{title} {}", short_count(value)))
}

/// Findings, subscriptions and workers in what room there is.
fn sections(screen: &Screen<'_>, width: usize, room: usize) -> Vec<Line<'static>> {
    let reading = screen.reading;
    let lagging = reading.figures.lagging();
    let titled = |rows: usize| if rows == 0 { 0 } else { rows + 1 };
    let (found, others) = (
        reading.findings.len(),
        [
            titled(lagging.len()) + usize::from(reading.unread.is_some()),
            titled(reading.workers.len()),
        ],
    );
    // As much of each finding as all of them have room for.
    let fits =
        |lines: &usize| shares(room, [lines * found, others[0], others[1]])[0] == lines * found;
    let detail = [3, 2].into_iter().find(fits).unwrap_or(1);
    let shares = shares(room, [(detail * found).max(1), others[0], others[1]]);
    let sections = [
        shortened(findings(screen, width, detail), shares[0], 0, width),
        shortened(subscriptions(reading, &lagging, width), shares[1], 1, width),
        shortened(workers_table(&reading.workers, width), shares[2], 1, width),
    ];
    let blanks = sections
        .iter()
        .filter(|section| !section.is_empty())
        .count();
    let is_loose = sections.iter().map(Vec::len).sum::<usize>() + blanks <= room;
    let blank = is_loose.then(Line::default);
    sections
        .into_iter()
        .filter(|section| !section.is_empty())
        .flat_map(|section| blank.clone().into_iter().chain(section))
        .collect()
}

/// One row at a time to each that still wants one. A title alone is of no use: its row goes to the first.
fn shares(room: usize, wanted: [usize; 3]) -> [usize; 3] {
    let mut given = [0; 3];
    let mut left = room;
    while left > 0 && given != wanted {
        for (given, wanted) in given.iter_mut().zip(wanted) {
            if *given < wanted && left > 0 {
                *given += 1;
                left -= 1;
            }
        }
    }
    for at in [1, 2] {
        if given[at] == 1 {
            given[at] = 0;
            given[0] = (given[0] + 1).min(wanted[0]);
        }
    }
    given
}

/// As many rows as there is room for, the last of which tells how many are missing.
fn shortened(
    mut lines: Vec<Line<'static>>,
    room: usize,
    titles: usize,
    width: usize,
) -> Vec<Line<'static>> {
    if room <= titles {
        return Vec::new();
    }
    if lines.len() > room {
        let more = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(Line::from(cut(&format!("… {more} more"), width)));
    }
    lines
}

/// `lines` of each: what it is; what there is to know of it; what helps.
fn findings(screen: &Screen<'_>, width: usize, lines: usize) -> Vec<Line<'static>> {
    let findings = &screen.reading.findings;
    if findings.is_empty() {
        return vec![Line::from(cut("nothing was found", width))];
    }
    let below = |text: String| Line::from(cut(&format!("          {}", escaped(&text)), width));
    let heads = findings_table(screen, width, lines < 3);
    let each = heads.into_iter().zip(findings).flat_map(|(head, finding)| {
        let detail = (lines > 2).then(|| below(finding.detail.clone()));
        let help =
            (lines > 1).then(|| below(format!("> {}  ({})", finding.command, finding.runbook)));
        [Some(head), detail, help]
    });
    each.flatten().collect()
}

fn findings_table(screen: &Screen<'_>, width: usize, with_detail: bool) -> Vec<Line<'static>> {
    let findings = &screen.reading.findings;
    let cells = |cell: &dyn Fn(&Finding) -> String| findings.iter().map(cell).collect();
    let column = |cells, least, rank| Column {
        cells,
        least,
        rank,
        ..Column::default()
    };
    let lasted = |f: &Finding| lasted(f, screen.now).map_or(String::new(), short_age);
    let mut columns = vec![
        column(cells(&|f| f.severity.word().to_uppercase()), 8, 0),
        column(cells(&|f| escaped(&f.code)), 12, 1),
        Column {
            most: 40.min(width / 3),
            ..column(
                cells(&|f| escaped(f.subscription.as_deref().unwrap_or_default())),
                12,
                3,
            )
        },
        Column {
            is_number: true,
            ..column(cells(&lasted), 7, 2)
        },
    ];
    if with_detail {
        columns.push(column(cells(&|f| escaped(&f.detail)), 20, 4));
    }
    // The titles are plain enough to go without.
    let rows = table(columns, width).into_iter().skip(1);
    rows.zip(findings)
        .map(|(mut line, finding)| {
            if let Some(first) = line.spans.first_mut() {
                first.style = screen.style(finding.severity);
            }
            line
        })
        .collect()
}

/// Those that are late or fail; where they could not be read, why, above those that were read last.
fn subscriptions(reading: &Reading, lagging: &[Lagging], width: usize) -> Vec<Line<'static>> {
    let unread = reading.unread.iter();
    let unread = unread.map(|why| cut(&escaped(&format!("subscriptions not read: {why}")), width));
    let table = subscriptions_table(lagging, width);
    unread.map(Line::from).chain(table).collect()
}

fn subscriptions_table(lagging: &[Lagging], width: usize) -> Vec<Line<'static>> {
    if lagging.is_empty() {
        return Vec::new();
    }
    let cells = |cell: &dyn Fn(&Lagging) -> String| lagging.iter().map(cell).collect();
    let age = |seconds: f64| {
        if seconds > 0.0 {
            short_age(seconds)
        } else {
            "-".to_owned()
        }
    };
    let number = |title, cells, rank| Column {
        title,
        cells,
        least: 7,
        rank,
        is_number: true,
        ..Column::default()
    };
    let columns = vec![
        Column {
            title: "SUBSCRIPTION",
            cells: cells(&|s| escaped(&s.name)),
            least: 12,
            ..Column::default()
        },
        number("OLDEST", cells(&|s| age(s.oldest)), 1),
        number("OWED", cells(&|s| short_count(s.owed)), 3),
        number("FAILING", cells(&|s| age(s.failing)), 2),
        number("BREAKER", cells(&|s| age(s.breaker)), 4),
    ];
    titled(table(columns, width))
}

fn workers_table(workers: &[Worker], width: usize) -> Vec<Line<'static>> {
    if workers.is_empty() {
        return Vec::new();
    }
    let cells = |cell: &dyn Fn(&Worker) -> String| workers.iter().map(cell).collect();
    let column = |title, cells, least, rank| Column {
        title,
        cells,
        least,
        rank,
        ..Column::default()
    };
    let settings = |worker: &Worker| escaped(worker.settings.as_deref().unwrap_or("-"));
    let clock = |worker: &Worker| {
        worker
            .clock
            .map_or("-".to_owned(), |off| format!("{off:+.2}s"))
    };
    let columns = vec![
        column("WORKER", cells(&|w| w.id.to_string()), 6, 0),
        column("NAME", cells(&|w| escaped(&w.name)), 8, 1),
        column("VERSION", cells(&|w| escaped(&w.version)), 7, 2),
        Column {
            is_number: true,
            ..column("UP", cells(&|w| short_age(w.up_for)), 7, 3)
        },
        column("SETTINGS", cells(&settings), 8, 4),
        Column {
            is_number: true,
            ..column("CLOCK", cells(&clock), 7, 5)
        },
    ];
    titled(table(columns, width))
}

/// With the first line as titles.
fn titled(mut lines: Vec<Line<'static>>) -> Vec<Line<'static>> {
    if let Some(titles) = lines.first_mut() {
        *titles = std::mem::take(titles).style(Modifier::DIM);
    }
    lines
}

impl Screen<'_> {
    fn style(&self, severity: Severity) -> Style {
        match severity {
            Severity::Critical => self.coloured(Color::Red).add_modifier(Modifier::BOLD),
            Severity::Warning => self.coloured(Color::Yellow),
            Severity::Info => self.coloured(Color::Cyan),
        }
    }

    fn coloured(&self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }
}

/// In the order in which they matter.
const OWED: [&str; 6] = [
    "intake",
    "due",
    "waiting",
    "leased",
    "ordered",
    "quarantined",
];
/// Terminals of no more rows show the two most important lines of figures alone.
const LOW: usize = 14;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::reading::examples::{bad, finding, now, quiet};
    use super::super::snapshots::matches;
    use super::*;

    /// As a terminal of this size shows it.
    fn seen(screen: &Screen<'_>, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| draw(screen, frame.area(), frame.buffer_mut()))
            .unwrap();
        let cells = terminal
            .backend()
            .buffer()
            .content()
            .chunks(usize::from(width));
        let lines = cells.map(|row| {
            let (mut line, mut end) = (String::new(), 0);
            for (at, cell) in row.iter().enumerate() {
                // A wide letter hides what is behind it.
                if at >= end {
                    line.push_str(cell.symbol());
                    end = at + super::super::columns::width(cell.symbol());
                }
            }
            line.trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn screen(reading: &Reading) -> Screen<'_> {
        Screen {
            reading,
            lost: None,
            now: now(),
            colour: false,
        }
    }

    fn lost() -> Lost {
        Lost {
            since: now() - Duration::from_secs(75),
            why: "database: cannot connect: \u{1b}[31mrefused".to_owned(),
        }
    }

    #[test]
    fn it_is_as_expected_in_terminals_of_many_sizes() {
        for (width, height) in [(40, 12), (60, 16), (80, 24), (120, 40), (200, 60)] {
            let size = format!("{width}x{height}");
            let (quiet, bad) = (quiet(), bad());
            matches(
                &format!("quiet-{size}"),
                &seen(&screen(&quiet), width, height),
            );
            matches(&format!("bad-{size}"), &seen(&screen(&bad), width, height));
        }
    }

    #[test]
    fn a_lost_database_is_told_above_what_was_read_last() {
        let (bad, lost) = (bad(), lost());
        let screen = Screen {
            lost: Some(&lost),
            ..screen(&bad)
        };
        matches("lost-80x24", &seen(&screen, 80, 24));
        matches("lost-40x12", &seen(&screen, 40, 12));
    }

    #[test]
    fn no_line_is_wider_and_none_lower_than_the_terminal_whatever_its_size() {
        let (bad, lost) = (bad(), lost());
        for lost in [None, Some(&lost)] {
            let screen = Screen {
                lost,
                ..screen(&bad)
            };
            for width in 0..=130 {
                for height in [0, 1, 2, 3, 5, 8, 12, 24, 50] {
                    let lines = lines(&screen, width, height);
                    assert!(lines.len() <= height, "{width} x {height}");
                    for line in lines {
                        let is = line.width();
                        assert!(is <= width, "{width} x {height}: {is} in {line}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let reading = Reading {
            findings: (0..30)
                .map(|n| finding(Severity::Warning, "deliveries_late", None, n))
                .collect(),
            ..quiet()
        };
        let seen = seen(&screen(&reading), 80, 24);
        assert!(seen.contains("… 14 more"), "{seen}");
    }

    #[test]
    fn nothing_from_the_database_steers_the_terminal() {
        let (bad, lost) = (bad(), lost());
        let screen = Screen {
            lost: Some(&lost),
            ..screen(&bad)
        };
        for line in lines(&screen, 200, 60) {
            let text = line.to_string();
            let unsafe_one = text.chars().find(|c| c.is_control() || *c == '\u{202e}');
            assert_eq!(unsafe_one, None, "{text}");
        }
    }

    #[test]
    fn colours_are_left_out_where_they_are_not_wanted() {
        let bad = bad();
        let coloured = |colour| {
            let lines = lines(
                &Screen {
                    colour,
                    ..screen(&bad)
                },
                120,
                40,
            );
            let spans = lines.into_iter().flat_map(|line| {
                [line.style]
                    .into_iter()
                    .chain(line.spans.into_iter().map(|span| span.style))
                    .collect::<Vec<_>>()
            });
            spans
                .filter(|style| style.fg.is_some() || style.bg.is_some())
                .count()
        };
        assert_eq!(coloured(false), 0);
        assert!(coloured(true) > 5);
    }

    #[test]
    fn rows_go_to_each_in_turn_and_a_title_alone_to_nobody() {
        assert_eq!(shares(9, [5, 5, 3]), [3, 3, 3]);
        assert_eq!(shares(20, [5, 5, 3]), [5, 5, 3]);
        assert_eq!(shares(3, [5, 5, 3]), [3, 0, 0]);
        assert_eq!(shares(0, [5, 5, 3]), [0, 0, 0]);
    }
}
