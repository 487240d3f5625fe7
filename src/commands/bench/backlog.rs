//! Scenario `backlog`: does finding the next delivery cost more when a million others wait?
//!
//! In each round one database grows from an empty backlog to the largest. At each size everything that can wait has its turn: events that
//! nobody has fanned out, and deliveries in the queue, of which some are due and some are not, some go to an endpoint that
//! works and some to one that does not. A turn delivers the same number of events, whatever waits.

use std::time::Duration;

use comfy_table::Table;
use posthaste::config::Config;
use posthaste::store::connect_once;
use posthaste::{Error, Result};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_postgres::Client;

use super::claims::{Reading, Timing};
use super::crowd::{self, Wish};
use super::endpoints::{Endpoints, Manner};
use super::figures::{Figure, float, grouped, mebibytes, text};
use super::meter::{Meter, Spent, checkpoint_note};
use super::payload::EVENT_TYPE;
use super::report::{Report, progress, table};
use super::site::Database;
use super::upkeep::Upkeep;
use super::worker::Worker;
use super::{Bench, Scenario, bulk};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "backlog",
    about: "Whether finding the next delivery costs more with much waiting, and a million behind one dead endpoint",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let mut turns = Vec::new();
    for round in 1..=bench.plan.rounds {
        let mut stage = Stage::set(bench).await?;
        for rows in bench.plan.backlogs() {
            for waiting in ALL {
                let mut turn = stage.turn(waiting, rows).await?;
                turn.round = round;
                progress(&turn.line());
                turns.push(turn);
            }
        }
        stage.clear(bench).await?;
    }
    Ok(report(bench, &turns))
}

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Committed events. They are what is delivered.
    Events,
    /// Deliveries that came due in the order of their events, none of them tried yet, as after an outage or a pause. They are what
    /// is delivered.
    Due,
    /// Deliveries that came due in no order: what is claimed together lies on pages far apart. They are what is delivered.
    Scattered,
    /// Deliveries of another subscription that are due tomorrow.
    Later,
    /// Deliveries of another subscription that are due, to an endpoint that never answers.
    Hanging,
    /// Deliveries of another subscription that are due, to an endpoint that refuses the connection.
    Refusing,
}

/// In this order, because growing leaves the events waiting.
const ALL: [Waiting; 6] = [
    Waiting::Events,
    Waiting::Due,
    Waiting::Scattered,
    Waiting::Later,
    Waiting::Hanging,
    Waiting::Refusing,
];

impl Waiting {
    fn name(self) -> &'static str {
        match self {
            Self::Events => "events, before fan-out",
            Self::Due => "deliveries, due in the order they came",
            Self::Scattered => "deliveries, due in no order",
            Self::Later => "others' deliveries, due tomorrow",
            Self::Hanging => "others' deliveries, endpoint hangs",
            Self::Refusing => "others' deliveries, endpoint refuses",
        }
    }

    /// Whether what waits is also what is delivered.
    fn is_delivered(self) -> bool {
        matches!(self, Self::Events | Self::Due | Self::Scattered)
    }

    /// The statement that brings what is delivered.
    fn claim(self) -> &'static str {
        match self {
            Self::Due | Self::Scattered => "claim_waiting",
            _ => "take",
        }
    }
}

/// The database of one round, and three subscriptions.
struct Stage {
    database: Database,
    client: Client,
    endpoints: Endpoints,
    config: Config,
    healthy: i32,
    hanging: i32,
    refusing: i32,
    /// Events committed so far.
    events: usize,
    /// Events that each turn delivers: some to warm up, and those that are measured.
    warm_up: usize,
    measured: usize,
}

impl Stage {
    async fn set(bench: &Bench) -> Result<Self> {
        let endpoints = Endpoints::start(Duration::ZERO).await?;
        let database = bench.site.database().await?;
        let client = connect_once(&database.url).await?;
        let config = bench
            .site
            .config(&bench.plan, &database, &endpoints.receiver)?;
        let wish = |name: &str, manner, event_type: &str| Wish {
            name: name.to_owned(),
            url: endpoints.url(manner, 0),
            event_type: event_type.to_owned(),
            tenant: None,
        };
        let wishes = [
            wish("healthy", Manner::Healthy, EVENT_TYPE),
            wish("hanging", Manner::Hangs, OTHER_TYPE),
            wish("refusing", Manner::Refuses, OTHER_TYPE),
        ];
        let ids = crowd::subscribe(&client, &config, &wishes, RETRIES).await?;
        let id = |place: usize| ids.get(place).copied().unwrap_or_default();
        let measured = (bench.plan.events / 5).max(1);
        Ok(Self {
            database,
            client,
            endpoints,
            config,
            healthy: id(0),
            hanging: id(1),
            refusing: id(2),
            events: 0,
            warm_up: measured / 5,
            measured,
        })
    }

    async fn clear(self, bench: &Bench) -> Result<()> {
        self.endpoints.receiver.player.end().await;
        bench.site.remove(self.database).await
    }

    async fn turn(&mut self, waiting: Waiting, rows: usize) -> Result<Turn> {
        self.client.batch_execute(OWE_NOTHING).await?;
        let delivered = self.warm_up + self.measured;
        let owed = rows + delivered;
        match waiting {
            Waiting::Events => self.commit(owed).await?,
            Waiting::Due => self.queue(self.healthy, owed, -AN_HOUR, true).await?,
            Waiting::Scattered => self.queue(self.healthy, owed, -AN_HOUR, false).await?,
            Waiting::Later => self.queue(self.refusing, rows, A_DAY, false).await?,
            Waiting::Hanging => self.queue(self.hanging, rows, -AN_HOUR, false).await?,
            Waiting::Refusing => self.queue(self.refusing, rows, -AN_HOUR, false).await?,
        }
        if !waiting.is_delivered() {
            self.commit(delivered).await?;
        }
        // Not everybody may, on a server that is given.
        let _ = self.client.batch_execute("checkpoint").await;
        let mut turn = self.deliver(waiting).await?;
        turn.rows = rows;
        turn.upkeep = Upkeep::of(&self.client).await?;
        Ok(turn)
    }

    async fn commit(&mut self, count: usize) -> Result<()> {
        bulk::commit(&self.client, EVENT_TYPE, self.events, count).await?;
        self.events += count;
        Ok(())
    }

    /// Makes deliveries that wait, and are due from so many seconds on, in the order of their events or in none.
    async fn queue(
        &self,
        subscription: i32,
        rows: usize,
        due_in: f64,
        in_order: bool,
    ) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        let count = i64::try_from(rows).unwrap_or(i64::MAX);
        self.client
            .execute(FILL_QUEUE, &[&subscription, &count, &due_in, &in_order])
            .await?;
        self.client
            .execute(WAKE_LANE, &[&subscription, &due_in])
            .await?;
        Ok(())
    }

    /// Lets a worker deliver a fixed number of events; the clock runs once it is warm.
    async fn deliver(&mut self, waiting: Waiting) -> Result<Turn> {
        let receiver = &mut self.endpoints.receiver;
        let before = receiver.count().await?;
        let worker = Worker::start(&self.config).await?;
        let warm = before + self.warm_up as u64;
        receiver.wait(warm, PATIENCE).await?;
        let used = worker.player.usage();
        let meter = Meter::start(&self.database).await?;
        let all = warm + self.measured as u64;
        let (begun, counted) = (Instant::now(), receiver.count().await?.min(all - 1));
        let reading = Reading::of(&worker).await?;
        receiver.wait(all, PATIENCE).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let reading = Reading::of(&worker).await?.since(&reading);
        // The worker goes on with what waits, so what this stretch cost is shared by all that came in it.
        let spent = Spent {
            worker: worker.player.usage().since(used),
            cost: meter.stop().await?,
            deliveries: receiver.count().await? - counted,
        };
        worker.player.end().await;
        let came = receiver.count().await?;
        if !waiting.is_delivered() && came != all {
            let what = format!("{} events came instead of {}", came - before, all - before);
            return Err(Error::Data(what));
        }
        Ok(Turn {
            waiting,
            rows: 0,
            round: 0,
            deliveries: all - counted,
            seconds,
            reading,
            upkeep: Upkeep::default(),
            spent,
        })
    }
}

/// What one backlog of one size did to the same deliveries.
struct Turn {
    waiting: Waiting,
    rows: usize,
    round: usize,
    deliveries: u64,
    seconds: f64,
    reading: Reading,
    upkeep: Upkeep,
    spent: Spent,
}

impl Turn {
    fn rate(&self) -> f64 {
        float(self.deliveries) / self.seconds
    }

    /// Microseconds of finding and leasing, for each delivery.
    fn claiming(&self) -> f64 {
        self.reading.claiming() * 1e6 / float(self.deliveries)
    }

    /// The statement that brought what was delivered.
    fn claim(&self) -> Timing {
        self.reading.timing(self.waiting.claim())
    }

    fn record(&self) -> Timing {
        self.reading.timing("record")
    }

    fn line(&self) -> String {
        format!(
            "backlog, round {}, {} {}: {} deliveries/s, {} ms a claim",
            self.round,
            grouped(float(self.rows as u64), 0),
            self.waiting.name(),
            grouped(self.rate(), 0),
            text(Figure::of(self.claim().mean()), 2)
        )
    }

    fn json(&self) -> Value {
        json!({
            "round": self.round,
            "waiting": self.waiting.name(),
            "rows_waiting": self.rows,
            "deliveries": self.deliveries,
            "seconds": self.seconds,
            "deliveries_per_second": self.rate(),
            "claiming_us_per_delivery": self.claiming(),
            "claimed_by": self.waiting.claim(),
            "statements": self.reading.json(),
            "tables": self.upkeep.json(),
            "spent": self.spent.json(),
            "peak_memory_bytes": self.spent.worker.peak,
        })
    }
}

fn report(bench: &Bench, turns: &[Turn]) -> Report {
    let measured = grouped(float((bench.plan.events / 5).max(1) as u64), 0);
    let mut notes: Vec<String> = NOTES.iter().map(|note| (*note).to_owned()).collect();
    notes.extend(checkpoint_note(turns.iter().map(|turn| &turn.spent.cost)));
    Report {
        title: format!(
            "Backlog: {measured} deliveries while others wait; median (range) of the rounds, x: against none waiting in the same round"
        ),
        tables: vec![
            by_rate(bench, turns),
            by_statement(bench, turns),
            by_cost(bench, turns),
        ],
        notes,
        json: json!({ "turns": turns.iter().map(Turn::json).collect::<Vec<_>>() }),
    }
}

/// Turns of one kind and size, each with the one of the same round in which nothing waited.
struct Pairs<'t>(Vec<(&'t Turn, &'t Turn)>);

impl<'t> Pairs<'t> {
    fn of(turns: &'t [Turn], waiting: Waiting, rows: usize) -> Self {
        let pick = |rows| {
            turns
                .iter()
                .filter(move |turn| turn.waiting == waiting && turn.rows == rows)
        };
        Self(pick(rows).zip(pick(0)).collect())
    }

    fn figure(&self, of: impl Fn(&Turn) -> Option<f64>) -> Option<Figure> {
        Figure::of(self.0.iter().filter_map(|(turn, _)| of(turn)))
    }

    fn against_none(&self, of: impl Fn(&Turn) -> Option<f64>) -> Option<Figure> {
        let ratios = self.0.iter();
        let ratios = ratios.filter_map(|(turn, none)| Some(of(turn)? / of(none)?));
        // A smoke run may be over before the system has counted any processor time.
        Figure::of(ratios.filter(|ratio| ratio.is_finite()))
    }

    fn peak(&self) -> Option<u64> {
        self.0
            .iter()
            .filter_map(|(turn, _)| turn.spent.worker.peak)
            .max()
    }
}

fn by_rate(bench: &Bench, turns: &[Turn]) -> Table {
    let header = [
        "waiting",
        "rows",
        "deliveries/s",
        "x",
        "claiming, µs a delivery",
        "x",
        "peak MiB",
    ];
    let mut page = table(&header, 1);
    for waiting in ALL {
        for rows in bench.plan.backlogs() {
            let pairs = Pairs::of(turns, waiting, rows);
            let rate = |turn: &Turn| Some(turn.rate());
            let claiming = |turn: &Turn| Some(turn.claiming());
            page.add_row([
                waiting.name().to_owned(),
                grouped(float(rows as u64), 0),
                text(pairs.figure(rate), 0),
                text(pairs.against_none(rate), 2),
                text(pairs.figure(claiming), 1),
                text(pairs.against_none(claiming), 2),
                mebibytes(pairs.peak()),
            ]);
        }
    }
    page
}

fn by_statement(bench: &Bench, turns: &[Turn]) -> Table {
    let header = [
        "waiting",
        "rows",
        "claimed by",
        "mean ms",
        "x",
        "p99 ms",
        "record: mean ms",
        "x",
        "p99 ms",
    ];
    let mut page = table(&header, 1);
    for waiting in ALL {
        for rows in bench.plan.backlogs() {
            let pairs = Pairs::of(turns, waiting, rows);
            let claim = |turn: &Turn| turn.claim().mean();
            let record = |turn: &Turn| turn.record().mean();
            page.add_row([
                waiting.name().to_owned(),
                grouped(float(rows as u64), 0),
                waiting.claim().to_owned(),
                text(pairs.figure(claim), 2),
                text(pairs.against_none(claim), 2),
                text(pairs.figure(|turn| turn.claim().p99_millis()), 1),
                text(pairs.figure(record), 2),
                text(pairs.against_none(record), 2),
                text(pairs.figure(|turn| turn.record().p99_millis()), 1),
            ]);
        }
    }
    page
}

fn by_cost(bench: &Bench, turns: &[Turn]) -> Table {
    let header = [
        "waiting",
        "rows",
        "CPU µs a delivery: worker",
        "x",
        "Postgres",
        "x",
        "WAL bytes a delivery",
        "x",
    ];
    let mut page = table(&header, 1);
    for waiting in ALL {
        for rows in bench.plan.backlogs() {
            let pairs = Pairs::of(turns, waiting, rows);
            let worker = |turn: &Turn| turn.spent.cpu_each()[0];
            let server = |turn: &Turn| turn.spent.cpu_each()[1];
            let wal = |turn: &Turn| Some(turn.spent.wal_each());
            page.add_row([
                waiting.name().to_owned(),
                grouped(float(rows as u64), 0),
                text(pairs.figure(worker), 0),
                text(pairs.against_none(worker), 2),
                text(pairs.figure(server), 0),
                text(pairs.against_none(server), 2),
                text(pairs.figure(wal), 0),
                text(pairs.against_none(wal), 2),
            ]);
        }
    }
    page
}

const OTHER_TYPE: &str = "bench.other";
const RETRIES: &[&str] = &["5 seconds", "5 minutes", "30 minutes"];
const AN_HOUR: f64 = 3600.0;
const A_DAY: f64 = 86_400.0;
const PATIENCE: Duration = Duration::from_mins(2);
const FILL_QUEUE: &str = include_str!("../../../sql/bench/fill_queue.sql");
const WAKE_LANE: &str = include_str!("../../../sql/bench/wake_lane.sql");
const OWE_NOTHING: &str = include_str!("../../../sql/bench/owe_nothing.sql");
const NOTES: [&str; 4] = [
    "The rows are inserted in bulk, then a checkpoint. Vacuum and analyze are left to the server as it is set; the JSON tells \
     how often they came by themselves.",
    "claiming: take, lock_lanes and claim_waiting together, from sending to answer as the worker sees it. p99 is read from the \
     buckets of a histogram.",
    "others': of another subscription, while the events that are measured go to an endpoint that works. 5 s, 5 min and 30 min \
     lie between attempts.",
    "The checkpoint lies after the inserts, so the WAL holds each page that was there before whole, once it is changed: the      more pages the deliveries lie on, the more. Processor time and WAL are all of the worker's and the server's, retries to      the others' endpoints with them, shared by the deliveries that came to the endpoint that works. Processor time is      counted in 10 ms.",
];
