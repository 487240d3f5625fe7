//! What happens meanwhile: bars on a terminal, a line now and then elsewhere.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use posthaste::Result;
use tokio_postgres::{Client, Statement};

use super::partners::Character;
use super::platform::Platform;
use crate::commands::output::say;

/// Shows how things go until all is done: every transaction has ended, and nothing is owed to anybody. Also returns, with
/// `false`, when nothing at all has happened for a good while.
pub(super) async fn watch(client: &Client, platform: &Platform) -> Result<bool> {
    let question = client
        .prepare(include_str!("../../../sql/demo/progress.sql"))
        .await?;
    let mut display = Display::open(platform.transactions());
    let (mut last, mut changed_at) = (Seen::default(), Instant::now());
    loop {
        let asked = Instant::now();
        let seen = Seen::ask(client, &question, platform).await?;
        display.show(&seen, false)?;
        if seen.is_over() || changed_at.elapsed() > PATIENCE {
            display.show(&seen, true)?;
            return Ok(seen.is_over());
        }
        if seen != last {
            (last, changed_at) = (seen, Instant::now());
        }
        // The more there is to count, the less often.
        tokio::time::sleep(LOOK_EVERY.max(asked.elapsed() * 4)).await;
    }
}

/// How far everything was at one moment.
#[derive(Default, PartialEq)]
struct Seen {
    is_done: bool,
    transactions: u32,
    not_fanned_out: u64,
    lanes: HashMap<String, Lane>,
}

/// How far one partner was.
#[derive(Clone, Copy, Default, PartialEq)]
struct Lane {
    owed: u64,
    finished: u64,
    attempts: u64,
}

impl Seen {
    async fn ask(client: &Client, question: &Statement, platform: &Platform) -> Result<Self> {
        // Before the question: what is committed by then, the answer counts.
        let (is_done, transactions) = (platform.is_done(), platform.ended());
        let mut seen = Self {
            is_done,
            transactions,
            ..Self::default()
        };
        for row in client.query(question, &[]).await? {
            let count = |column| row.try_get::<_, i64>(column).map(i64::unsigned_abs);
            seen.not_fanned_out = count("not_fanned_out")?;
            let lane = Lane {
                owed: count("owed")?,
                finished: count("finished")?,
                attempts: count("attempts")?,
            };
            seen.lanes.insert(row.try_get("name")?, lane);
        }
        Ok(seen)
    }

    fn is_over(&self) -> bool {
        self.is_done && self.not_fanned_out == 0 && self.lanes.values().all(|lane| lane.owed == 0)
    }

    fn lane(&self, character: Character) -> Lane {
        self.lanes
            .get(character.name())
            .copied()
            .unwrap_or_default()
    }
}

enum Display {
    Bars {
        transactions: ProgressBar,
        partners: [ProgressBar; 3],
        _together: MultiProgress,
    },
    Lines {
        begun: Instant,
        of: u32,
        due: Duration,
    },
}

impl Display {
    fn open(transactions: u32) -> Self {
        if !is_terminal() {
            return Self::Lines {
                begun: Instant::now(),
                of: transactions,
                due: Duration::ZERO,
            };
        }
        let together = MultiProgress::new();
        let bar = |name: &str| {
            together.add(
                ProgressBar::new(0)
                    .with_style(style())
                    .with_prefix(name.to_owned()),
            )
        };
        let business = bar("transactions");
        business.set_length(transactions.into());
        Self::Bars {
            transactions: business,
            partners: Character::ALL.map(|character| bar(character.name())),
            _together: together,
        }
    }

    fn show(&mut self, seen: &Seen, is_last: bool) -> Result<()> {
        match self {
            Self::Bars {
                transactions,
                partners,
                ..
            } => {
                transactions.set_position(seen.transactions.into());
                for (bar, character) in partners.iter().zip(Character::ALL) {
                    draw(bar, seen.lane(character));
                }
                if is_last {
                    partners
                        .iter()
                        .chain([&*transactions])
                        .for_each(ProgressBar::abandon);
                    // The cursor stands behind the last bar.
                    say("")?;
                }
            }
            Self::Lines { begun, of, due } => {
                let since = begun.elapsed();
                if since >= *due || is_last {
                    *due = since + LINE_EVERY;
                    say(&line(seen, since, *of))?;
                }
            }
        }
        Ok(())
    }
}

fn draw(bar: &ProgressBar, lane: Lane) {
    bar.set_length(lane.owed + lane.finished);
    bar.set_position(lane.finished);
    bar.set_message(format!("{} attempts", lane.attempts));
}

fn line(seen: &Seen, since: Duration, of: u32) -> String {
    let partners = Character::ALL.map(|character| {
        let Lane {
            owed,
            finished,
            attempts,
        } = seen.lane(character);
        format!(
            ", {} {finished}/{} ({attempts} attempts)",
            character.name(),
            owed + finished
        )
    });
    let (seconds, transactions) = (since.as_secs_f64(), seen.transactions);
    format!(
        "{seconds:>5.1} s  transactions {transactions}/{of}{}",
        partners.concat()
    )
}

/// Whether somebody looks at a screen that can draw.
fn is_terminal() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && io::stderr().is_terminal() && !is_dumb
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar())
}

const TEMPLATE: &str = "  {prefix:<12} {bar:40.green} {pos:>6}/{len:<6} {msg}";
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How long nothing may change: many times the longest wait between two attempts.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_only_when_nothing_is_under_way_anywhere() {
        let lane = |owed| {
            HashMap::from([(
                "healthy".to_owned(),
                Lane {
                    owed,
                    ..Lane::default()
                },
            )])
        };
        let over = || Seen {
            is_done: true,
            lanes: lane(0),
            ..Seen::default()
        };
        assert!(over().is_over());
        assert!(
            !Seen {
                is_done: false,
                ..over()
            }
            .is_over()
        );
        assert!(
            !Seen {
                not_fanned_out: 1,
                ..over()
            }
            .is_over()
        );
        assert!(
            !Seen {
                lanes: lane(1),
                ..over()
            }
            .is_over()
        );
    }

    #[test]
    fn a_line_tells_how_far_each_partner_is() {
        let lane = Lane {
            owed: 2,
            finished: 3,
            attempts: 4,
        };
        let seen = Seen {
            transactions: 7,
            lanes: HashMap::from([("flaky".to_owned(), lane)]),
            ..Seen::default()
        };
        let expected = "  1.5 s  transactions 7/9, healthy 0/0 (0 attempts), flaky 3/5 (4 attempts), down 0/0 (0 attempts)";
        assert_eq!(line(&seen, Duration::from_millis(1500), 9), expected);
    }

    #[test]
    fn the_bars_template_can_be_read() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
