//! Scenario `scale`: what must not matter for the cost of a delivery, because it has no part in it.

use comfy_table::Table;
use posthaste::Result;
use serde_json::{Value, json};

use super::drained::{Backlog, Drained};
use super::figures::{Figure, float, grouped, text};
use super::meter::checkpoint_note;
use super::report::{Report, progress, table};
use super::{Bench, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "scale",
    about: "Whether a delivery costs more beside many subscriptions, event types, partitions, or after many others",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let mut turns = Vec::new();
    for round in 1..=bench.plan.rounds {
        for surroundings in &SURROUNDINGS {
            let drained = surroundings.backlog(bench).drain(bench).await?;
            let turn = Turn {
                round,
                surroundings,
                drained,
            };
            progress(&turn.line(bench));
            turns.push(turn);
        }
    }
    Ok(report(bench, &turns))
}

/// What else there is. The delivery measured is always the same.
struct Surroundings {
    /// What there are so many of.
    what: &'static str,
    count: i32,
    /// So many with `--quick`.
    quick: i32,
    /// Statements that make them.
    made_by: &'static [&'static str],
    /// Whether it is the types of the events themselves that are so many.
    are_types: bool,
}

impl Surroundings {
    fn count(&self, bench: &Bench) -> i32 {
        if bench.plan.quick {
            self.quick
        } else {
            self.count
        }
    }

    fn name(&self, bench: &Bench) -> String {
        match self.count(bench) {
            0 => self.what.to_owned(),
            count => format!("{} {}", grouped(f64::from(count), 0), self.what),
        }
    }

    fn backlog(&self, bench: &Bench) -> Backlog {
        let mut backlog = Backlog::of(bench.plan.events);
        backlog.surroundings = Some((self.made_by, self.count(bench)));
        if self.are_types {
            let types = (0..self.count(bench)).map(|place| format!("bench.type_{place}"));
            backlog.types = types.collect();
        }
        backlog
    }
}

/// The first one is what the others are compared with.
const SURROUNDINGS: [Surroundings; 7] = [
    Surroundings {
        what: "nothing else",
        count: 0,
        quick: 0,
        made_by: &[],
        are_types: false,
    },
    Surroundings {
        what: "subscriptions to other event types",
        count: 2000,
        quick: 200,
        made_by: &[
            include_str!("../../../sql/bench/other_types.sql"),
            include_str!("../../../sql/bench/other_subscriptions.sql"),
        ],
        are_types: false,
    },
    // Work that each event brings with it.
    Surroundings {
        what: "filters that each event is held against, and passes none",
        count: 10,
        quick: 2,
        made_by: &[include_str!("../../../sql/bench/other_filters.sql")],
        are_types: false,
    },
    Surroundings {
        what: "event types among the events",
        count: 1000,
        quick: 100,
        made_by: &[],
        are_types: true,
    },
    Surroundings {
        what: "days of history, each with its partitions",
        count: 60,
        quick: 10,
        made_by: &[
            include_str!("../../../sql/bench/past_partitions.sql"),
            include_str!("../../../sql/bench/past_events.sql"),
            include_str!("../../../sql/bench/past_taken.sql"),
            include_str!("../../../sql/bench/past_attempts.sql"),
        ],
        are_types: false,
    },
    Surroundings {
        what: "attempts recorded earlier today",
        count: 500_000,
        quick: 20_000,
        made_by: &[include_str!("../../../sql/bench/many_attempts.sql")],
        are_types: false,
    },
    Surroundings {
        what: "deliveries done before, their rows vacuumed",
        count: 100_000,
        quick: 20_000,
        made_by: &[
            include_str!("../../../sql/bench/past_queue.sql"),
            include_str!("../../../sql/bench/past_done.sql"),
        ],
        are_types: false,
    },
];

/// One turn in one round.
struct Turn {
    round: usize,
    surroundings: &'static Surroundings,
    drained: Drained,
}

impl Turn {
    /// Microseconds that the worker waited for its statements, for each delivery.
    fn statements_each(&self, query: Option<&str>) -> f64 {
        let seconds = self.drained.work.statement_seconds(query);
        seconds * 1e6 / float(self.drained.deliveries.max(1))
    }

    fn line(&self, bench: &Bench) -> String {
        format!(
            "scale, round {}, {}: {} deliveries, {}/s",
            self.round,
            self.surroundings.name(bench),
            self.drained.deliveries,
            grouped(self.drained.rate(), 0)
        )
    }

    fn json(&self, bench: &Bench) -> Value {
        json!({
            "round": self.round,
            "beside": self.surroundings.name(bench),
            "statement_microseconds_per_delivery": {
                "take": self.statements_each(Some("take")),
                "record": self.statements_each(Some("record")),
                "all": self.statements_each(None),
            },
            "drained": self.drained.json(),
        })
    }
}

fn report(bench: &Bench, turns: &[Turn]) -> Report {
    let mut page = table(&HEADER, 1);
    for surroundings in &SURROUNDINGS {
        add_row(&mut page, bench, turns, surroundings);
    }
    let mut notes = vec![NOTE.to_owned()];
    notes.extend(checkpoint_note(turns.iter().map(|turn| &turn.drained.cost)));
    Report {
        title: format!(
            "Scale: {} events to one subscription, one worker, plain HTTP; median (range) of the rounds",
            grouped(float(bench.plan.events as u64), 0)
        ),
        tables: vec![page],
        notes,
        json: json!({ "turns": turns.iter().map(|turn| turn.json(bench)).collect::<Vec<_>>() }),
    }
}

fn add_row(page: &mut Table, bench: &Bench, turns: &[Turn], surroundings: &Surroundings) {
    let of = |what: &'static str| {
        turns
            .iter()
            .filter(move |turn| turn.surroundings.what == what)
    };
    let ours = || of(surroundings.what);
    let figure = |of: &dyn Fn(&Turn) -> Option<f64>| text(Figure::of(ours().filter_map(of)), 0);
    let ratio = |of: &dyn Fn(&Turn) -> Option<f64>| {
        let pairs = ours().zip(alone(turns));
        let ratios = pairs.filter_map(|(turn, alone)| Some(of(turn)? / of(alone)?));
        text(Figure::of(ratios), 2)
    };
    let cpu = |turn: &Turn| turn.drained.own_cpu_each();
    let take = |turn: &Turn| Some(turn.statements_each(Some("take")));
    let record = |turn: &Turn| Some(turn.statements_each(Some("record")));
    let wal = |turn: &Turn| Some(turn.drained.wal_each());
    page.add_row([
        surroundings.name(bench),
        figure(&|turn| Some(turn.drained.rate())),
        ratio(&|turn| Some(turn.drained.rate())),
        figure(&cpu),
        ratio(&cpu),
        figure(&take),
        ratio(&take),
        figure(&record),
        ratio(&record),
        figure(&wal),
        ratio(&wal),
    ]);
}

/// The turns with nothing else in the database, in the order of the rounds.
fn alone(turns: &[Turn]) -> impl Iterator<Item = &Turn> {
    turns
        .iter()
        .filter(|turn| turn.surroundings.what == SURROUNDINGS[0].what)
}

const HEADER: [&str; 11] = [
    "beside",
    "deliveries/s",
    "x nothing else",
    "CPU µs a delivery, worker and Postgres",
    "x nothing else",
    "µs a delivery in take",
    "x nothing else",
    "in record",
    "x nothing else",
    "WAL bytes a delivery",
    "x nothing else",
];
const NOTE: &str = "Beside each figure is its ratio to the turn with nothing else in the same round; 1.00 is the promise, but for filters, \
    which each event is held against, and types, each of which a look asks for once. Each database is vacuumed and analysed before its events are inserted, so that no vacuum of what was made \
    falls into the time of the clock.";
