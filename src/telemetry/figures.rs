//! What the database says, as the worker that observes it read it last: a snapshot, of which nothing stays behind when it is gone.

use std::time::{Duration, Instant, SystemTime};

use super::list::{METRICS, Metric, OBSERVATION_DURATION, OBSERVATION_TIME, Origin, Values};

/// The last reading of each part.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    parts: [Option<Reading>; Part::ALL.len()],
}

/// What is read at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What costs little.
    Figures,
    /// Sizes of tables, partitions.
    Tables,
    /// The subscriptions of the top list.
    Subscriptions,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Figures, Self::Tables, Self::Subscriptions];

    /// The word for it in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Figures => "figures",
            Self::Tables => "tables",
            Self::Subscriptions => "subscriptions",
        }
    }
}

/// One reading.
#[derive(Clone, Debug)]
struct Reading {
    samples: Vec<Sample>,
    until: Instant,
}

/// One number, with the value of its metric's one label where that has one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) metric: &'static str,
    pub(super) label: Option<String>,
    pub(super) value: f64,
}

impl Figures {
    /// Puts a reading in place of the last one: figures by name, each with the value of its label. It was read at that time, which
    /// took so long, and is shown `until` then. Returns the names of figures that are not of the closed list, or whose label says
    /// what it cannot: those are left out.
    pub fn put(
        &mut self,
        part: Part,
        figures: impl IntoIterator<Item = (String, Option<String>, f64)>,
        (at, took): (SystemTime, Duration),
        until: Instant,
    ) -> Vec<String> {
        let (mut samples, mut strangers) = (Vec::new(), Vec::new());
        for (figure, label, value) in figures {
            match sample(&figure, label, value) {
                Some(sample) => samples.push(sample),
                None => strangers.push(figure),
            }
        }
        let at = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        for (metric, value) in [(OBSERVATION_TIME, at), (OBSERVATION_DURATION, took)] {
            samples.push(Sample {
                metric,
                label: Some(part.as_str().to_owned()),
                value: value.as_secs_f64(),
            });
        }
        self.parts[part as usize] = Some(Reading { samples, until });
        strangers
    }

    /// What is to be shown at this time of a metric, in the order in which it was read.
    pub(super) fn of(&self, metric: &'static str, now: Instant) -> impl Iterator<Item = &Sample> {
        let readings = self.parts.iter().flatten();
        let fresh = readings.filter(move |reading| now < reading.until);
        let samples = fresh.flat_map(|reading| &reading.samples);
        samples.filter(move |sample| sample.metric == metric)
    }
}

fn sample(figure: &str, label: Option<String>, value: f64) -> Option<Sample> {
    let metric = METRICS.iter().find(|metric| is_called(metric, figure))?;
    let fits = match (metric.labels, &label) {
        ([], None) => true,
        ([known], Some(value)) => match known.values {
            Values::Closed(values) => values.contains(&value.as_str()),
            Values::TopList => true,
        },
        _ => false,
    };
    (fits && !value.is_nan()).then_some(Sample {
        metric: metric.name,
        label,
        value,
    })
}

fn is_called(metric: &Metric, figure: &str) -> bool {
    metric.origin == Origin::Database && metric.name.strip_prefix("posthaste_") == Some(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(
        figures: &mut Figures,
        rows: &[(&str, Option<&str>, f64)],
        until: Instant,
    ) -> Vec<String> {
        let rows = rows
            .iter()
            .map(|(figure, label, value)| ((*figure).to_owned(), label.map(str::to_owned), *value));
        let read = (
            SystemTime::UNIX_EPOCH + Duration::from_secs(7),
            Duration::from_millis(3),
        );
        figures.put(Part::Figures, rows, read, until)
    }

    #[test]
    fn what_is_not_of_the_list_is_left_out_and_named() {
        let (mut figures, now) = (Figures::default(), Instant::now());
        let until = now + Duration::from_secs(1);
        let strangers = put(
            &mut figures,
            &[
                ("workers_alive", None, 2.0),
                ("lanes", Some("due"), 1.0),
                ("lanes", Some("flying"), 1.0),
                ("lanes", None, 1.0),
                ("workers_alive", Some("due"), 1.0),
                ("phase_of_the_moon", None, 1.0),
                // Of the process, not of the database.
                ("observer", None, 1.0),
            ],
            until,
        );
        let expected = [
            "lanes",
            "lanes",
            "workers_alive",
            "phase_of_the_moon",
            "observer",
        ];
        assert_eq!(strangers, expected);
        let shown: Vec<f64> = figures
            .of("posthaste_workers_alive", now)
            .map(|s| s.value)
            .collect();
        assert_eq!(shown, [2.0]);
        assert_eq!(figures.of("posthaste_lanes", now).count(), 1);
    }

    #[test]
    fn a_reading_is_gone_when_its_time_is_over_or_another_took_its_place() {
        let (mut figures, now) = (Figures::default(), Instant::now());
        let until = now + Duration::from_mins(1);
        put(&mut figures, &[("lanes", Some("due"), 1.0)], until);
        assert_eq!(figures.of("posthaste_lanes", now).count(), 1);
        assert_eq!(figures.of("posthaste_lanes", until).count(), 0);
        put(&mut figures, &[("lanes", Some("idle"), 1.0)], until);
        let shown: Vec<_> = figures
            .of("posthaste_lanes", now)
            .map(|s| s.label.as_deref())
            .collect();
        assert_eq!(shown, [Some("idle")]);
        assert_eq!(
            figures.of(OBSERVATION_TIME, now).next().map(|s| s.value),
            Some(7.0)
        );
    }
}
