//! Scenario `fanout`: what a delivery costs where one event goes to many subscriptions.

use comfy_table::Table;
use posthaste::Result;
use serde_json::{Value, json};

use super::drained::{Backlog, Drained};
use super::figures::{Figure, float, grouped, text};
use super::meter::checkpoint_note;
use super::report::{Report, progress, table};
use super::{Bench, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "fanout",
    about: "What a delivery costs where an event goes to 1, 10 and 100 subscriptions",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let mut turns = Vec::new();
    for round in 1..=bench.plan.rounds {
        for subscriptions in SUBSCRIPTIONS {
            let backlog = Backlog {
                subscriptions,
                // As many deliveries whatever the fan-out.
                ..Backlog::of((bench.plan.events / subscriptions).max(1))
            };
            let turn = Turn {
                round,
                subscriptions,
                drained: backlog.drain(bench).await?,
            };
            progress(&turn.line());
            turns.push(turn);
        }
    }
    Ok(report(bench, &turns))
}

/// One fan-out's turn in one round.
struct Turn {
    round: usize,
    subscriptions: usize,
    drained: Drained,
}

impl Turn {
    fn events_a_second(&self) -> f64 {
        float(self.drained.filled.rows) / self.drained.cost.seconds
    }

    /// Of an event from its insert on, for each of its deliveries.
    fn wal_with_insert(&self) -> f64 {
        let inserted = self.drained.filled.cost.wal_each(self.drained.deliveries);
        inserted + self.drained.wal_each()
    }

    fn line(&self) -> String {
        format!(
            "fanout, round {}, {} subscriptions: {} deliveries, {}/s",
            self.round,
            self.subscriptions,
            self.drained.deliveries,
            grouped(self.drained.rate(), 0)
        )
    }

    fn json(&self) -> Value {
        json!({
            "round": self.round,
            "subscriptions_per_event": self.subscriptions,
            "events_per_second": self.events_a_second(),
            "wal_bytes_per_delivery_with_insert": self.wal_with_insert(),
            "percent_that_waited": self.drained.work.share_that_waited(),
            "drained": self.drained.json(),
        })
    }
}

fn report(bench: &Bench, turns: &[Turn]) -> Report {
    let mut page = table(&HEADER, 1);
    for subscriptions in SUBSCRIPTIONS {
        add_row(&mut page, turns, subscriptions);
    }
    let mut notes = vec![NOTE.to_owned()];
    notes.extend(checkpoint_note(turns.iter().map(|turn| &turn.drained.cost)));
    Report {
        title: format!(
            "Fan-out: {} deliveries each turn, one worker, plain HTTP; median (range) of the rounds",
            grouped(float(bench.plan.events as u64), 0)
        ),
        tables: vec![page],
        notes,
        json: json!({ "turns": turns.iter().map(Turn::json).collect::<Vec<_>>() }),
    }
}

fn add_row(page: &mut Table, turns: &[Turn], subscriptions: usize) {
    let of = |count| turns.iter().filter(move |turn| turn.subscriptions == count);
    let ours = || of(subscriptions);
    let figure = |of: &dyn Fn(&Turn) -> Option<f64>, decimals| {
        text(Figure::of(ours().filter_map(of)), decimals)
    };
    let pairs = ours().zip(of(1));
    let ratio = Figure::of(pairs.map(|(turn, one)| turn.drained.rate() / one.drained.rate()));
    page.add_row([
        subscriptions.to_string(),
        figure(&|turn| Some(turn.events_a_second()), 0),
        figure(&|turn| Some(turn.drained.rate()), 0),
        text(ratio, 2),
        figure(&|turn| turn.drained.cpu_each()[0], 0),
        figure(&|turn| turn.drained.cpu_each()[1], 0),
        figure(&|turn| turn.drained.cpu_each()[2], 0),
        figure(&|turn| Some(turn.drained.wal_each()), 0),
        figure(&|turn| Some(turn.wal_with_insert()), 0),
        figure(&|turn| Some(turn.drained.work.share_that_waited()), 0),
    ]);
}

const HEADER: [&str; 10] = [
    "subscriptions an event",
    "events/s",
    "deliveries/s",
    "x one subscription",
    "CPU µs a delivery: worker",
    "receiver",
    "Postgres",
    "WAL bytes a delivery",
    "with the event's insert",
    "% that waited",
];
const SUBSCRIPTIONS: [usize; 3] = [1, 10, 100];
const NOTE: &str = "Each subscription has a path of its own at one receiver, a secret and a lane of its own, and its own share of the \
    worker's room: more subscriptions may send more at once. `With the event's insert` shares its WAL among its deliveries. A delivery that finds \
    no room when it is made waits in the queue first, and costs more.";
