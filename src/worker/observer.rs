//! Reads what the database says, for `/metrics`: one worker at a time does, beside its own work.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::store::{Figure, Lookout, Store};
use crate::telemetry::{Figures, Part};
use crate::{Result, telemetry};

/// Whoever looks how things stand, as long as its worker's session lasts.
pub(super) struct Observer {
    pub(super) store: Store,
    pub(super) config: Arc<Config>,
    pub(super) lookout: Lookout,
    pub(super) board: Board,
    pub(super) stop: CancellationToken,
}

/// Where the figures are shown. Whoever stops an observer wipes it at once: a reading under way may last, and its worker may be
/// registered anew by then.
#[derive(Clone, Debug)]
pub(super) struct Board(pub(super) watch::Sender<Arc<Figures>>);

impl Board {
    /// Shows nothing any more, of an observer that was told to stop.
    pub(super) fn wipe(&self) {
        self.0.send_modify(|figures| {
            telemetry::observing(false);
            *figures = Arc::default();
        });
    }

    /// Writes, unless the observer was told to stop. One at a time does, or wipes.
    fn write(&self, stop: &CancellationToken, write: impl FnOnce(&mut Arc<Figures>)) {
        self.0.send_if_modified(|figures| {
            let may = !stop.is_cancelled();
            if may {
                write(figures);
            }
            may
        });
    }
}

impl Observer {
    /// Looks now and then until it is stopped, and shows nothing from then on. A reading under way is waited for by nobody.
    pub(super) async fn run(mut self) {
        let often = self.config.observe_interval;
        let mut rounds = time::interval_at(time::Instant::now() + often.min(FIRST), often);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut readings = Readings::new(Instant::now());
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = rounds.tick() => {}
            }
            // Where that cannot be told, others may be asked.
            let is_ours = self.lookout.is_ours().await.unwrap_or(false);
            self.board
                .write(&self.stop, |_| telemetry::observing(is_ours));
            if is_ours {
                self.round(&mut readings).await;
            }
        }
    }

    async fn round(&self, readings: &mut Readings) {
        for part in Part::ALL {
            if Instant::now() < readings.due[part as usize] {
                continue;
            }
            let (at, asked) = (SystemTime::now(), Instant::now());
            let read = self.read(part).await;
            if self.stop.is_cancelled() {
                return;
            }
            let took = asked.elapsed();
            let rest = self.rest(part, took);
            readings.due[part as usize] = asked + rest;
            if let Some(figures) = readings.heed(part, read) {
                let until = asked + took + 3 * rest + GRACE;
                self.show(part, figures, (at, took), until, readings);
            }
        }
    }

    async fn read(&self, part: Part) -> Result<Vec<Figure>> {
        let Config {
            metrics_top,
            metrics_subscriptions,
            ..
        } = &*self.config;
        match part {
            Part::Figures => self.store.figures(COUNTED).await,
            Part::Tables => self.store.table_figures().await,
            Part::Subscriptions if *metrics_top == 0 && metrics_subscriptions.is_empty() => {
                Ok(Vec::new())
            }
            Part::Subscriptions => {
                let store = &self.store;
                store
                    .subscription_figures(*metrics_top, metrics_subscriptions)
                    .await
            }
        }
    }

    /// How long after one reading the next begins.
    fn rest(&self, part: Part, took: Duration) -> Duration {
        let often = self.config.observe_interval;
        match part {
            Part::Figures => often,
            Part::Tables => often.max(TABLES_EVERY),
            // It reads all that waits, so it is rarer the more that is.
            Part::Subscriptions => often.max((took * REST).min(LONGEST_REST)),
        }
    }

    fn show(
        &self,
        part: Part,
        figures: Vec<Figure>,
        read: (SystemTime, Duration),
        until: Instant,
        readings: &mut Readings,
    ) {
        let rows = figures
            .into_iter()
            .map(|row| (row.figure, row.label, row.value));
        let mut strangers = Vec::new();
        self.board.write(&self.stop, |figures| {
            strangers = Arc::make_mut(figures).put(part, rows, read, until);
        });
        for stranger in strangers {
            readings.tell_of(stranger);
        }
    }
}

/// When each part is due, and what was said of them.
struct Readings {
    due: [Instant; Part::ALL.len()],
    failing: [bool; Part::ALL.len()],
    strangers: BTreeSet<String>,
}

impl Readings {
    fn new(now: Instant) -> Self {
        Self {
            due: [now; _],
            failing: [false; _],
            strangers: BTreeSet::new(),
        }
    }

    /// What was read. Where it could not be, that is said once.
    fn heed(&mut self, part: Part, read: Result<Vec<Figure>>) -> Option<Vec<Figure>> {
        let (failing, part) = (&mut self.failing[part as usize], part.as_str());
        match read {
            Ok(figures) => {
                if std::mem::take(failing) {
                    tracing::info!(part, "the database can be observed again");
                }
                Some(figures)
            }
            Err(error) => {
                if !std::mem::replace(failing, true) {
                    tracing::warn!(%error, part, "cannot observe the database; trying again");
                }
                None
            }
        }
    }

    /// The schema is newer than this program, most likely. Said once for each.
    fn tell_of(&mut self, stranger: String) {
        if self.strangers.len() < STRANGERS && !self.strangers.contains(&stranger) {
            tracing::warn!(
                figure = stranger,
                "a figure of the database is not known here, and not shown"
            );
            self.strangers.insert(stranger);
        }
    }
}

/// A worker that just began has more to do than to look: what waited for it goes first.
const FIRST: Duration = Duration::from_secs(1);
/// Where counting stops.
const COUNTED: usize = 100_000;
/// How often sizes are read.
const TABLES_EVERY: Duration = Duration::from_mins(1);
/// How many times as long as it took to read what waits it rests before it reads that again.
const REST: u32 = 100;
const LONGEST_REST: Duration = Duration::from_mins(5);
/// A reading that failed three times is shown no longer; nor one that is late by this much on top.
const GRACE: Duration = Duration::from_secs(30);
/// Figures that are warned of, at most.
const STRANGERS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn a_part_that_fails_keeps_its_place_and_one_that_works_is_passed_on() {
        let mut readings = Readings::new(Instant::now());
        let failed = || Err(Error::Database("away".to_owned()));
        assert_eq!(readings.heed(Part::Tables, failed()), None);
        assert_eq!(readings.failing, [false, true, false]);
        assert_eq!(readings.heed(Part::Tables, failed()), None);
        assert_eq!(
            readings.heed(Part::Tables, Ok(Vec::new())),
            Some(Vec::new())
        );
        assert_eq!(readings.failing, [false; 3]);
    }

    #[test]
    fn strangers_are_remembered_and_no_more_than_a_hundred() {
        let mut readings = Readings::new(Instant::now());
        for number in 0..200 {
            readings.tell_of(format!("figure_{number}"));
            readings.tell_of("figure_0".to_owned());
        }
        assert_eq!(readings.strangers.len(), STRANGERS);
    }
}
