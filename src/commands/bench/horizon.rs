//! Scenario `horizon`: steady load while another session idles in a transaction, so that vacuum can remove nothing.
//!
//! A queue that walks over its dead rows becomes slower with every event. So the first tenth is compared with the last one, and the
//! whole with the same load without that session. One that only reads holds vacuum back just the same, but has no transaction id, so
//! later snapshots do not count it as running.

use std::time::Duration;

use comfy_table::Table;
use posthaste::store::connect_once;
use posthaste::{Error, Result};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::claims::Reading;
use super::crowd::{self, Wish};
use super::endpoints::{Endpoints, Manner};
use super::figures::{Figure, float, grouped, mebibytes, percentile, text};
use super::meter::{Cost, Meter, Spent, checkpoint_note};
use super::payload::EVENT_TYPE;
use super::report::{Report, progress, table};
use super::site::Database;
use super::steady::{Arrivals, Committed, Load};
use super::upkeep::{TableUpkeep, Upkeep};
use super::worker::Worker;
use super::{Bench, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "horizon",
    about: "Whether it costs more while a transaction that is held open elsewhere keeps vacuum back",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let mut turns = Vec::new();
    for round in 1..=bench.plan.rounds {
        for meanwhile in ALL {
            let mut turn = Turn::run(bench, meanwhile).await?;
            turn.round = round;
            progress(&turn.line());
            turns.push(turn);
        }
    }
    Ok(report(bench, &turns))
}

/// What another session does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// Its transaction has read, and stays open.
    Reads,
    /// Its transaction has an id, and stays open.
    Writes,
}

const ALL: [Meanwhile; 3] = [Meanwhile::Nothing, Meanwhile::Reads, Meanwhile::Writes];

impl Meanwhile {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Reads => "a reader's transaction stays open",
            Self::Writes => "a writer's transaction stays open",
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Reads => include_str!("../../../sql/bench/hold_snapshot.sql"),
            Self::Writes => include_str!("../../../sql/bench/hold_write.sql"),
        }
    }
}

/// One run beside one of them.
struct Turn {
    meanwhile: Meanwhile,
    round: usize,
    first: Tenth,
    last: Tenth,
    upkeep: Upkeep,
    peak: Option<u64>,
}

/// A tenth of the run.
struct Tenth {
    reading: Reading,
    spent: Spent,
    /// Commit to receipt of what was due in it; milliseconds, sorted.
    receipt: Vec<f64>,
}

impl Turn {
    async fn run(bench: &Bench, meanwhile: Meanwhile) -> Result<Self> {
        let mut endpoints = Endpoints::start(Duration::ZERO).await?;
        let database = bench.site.database().await?;
        let client = connect_once(&database.url).await?;
        let config = bench
            .site
            .config(&bench.plan, &database, &endpoints.receiver)?;
        let wish = Wish {
            name: "bench".to_owned(),
            url: endpoints.url(Manner::Healthy, 0),
            event_type: EVENT_TYPE.to_owned(),
            tenant: None,
        };
        crowd::subscribe(&client, &config, &[wish], RETRIES).await?;
        database.checkpoint().await;
        let worker = Worker::start(&config).await?;
        // Open until it is dropped, at the end of this function.
        let holder = connect_once(&database.url).await?;
        holder.batch_execute(meanwhile.sql()).await?;
        let load = Load {
            rate: bench.plan.steady_rate(RATE),
            duration: WARM_UP + bench.plan.horizon(),
            event_types: vec![EVENT_TYPE.to_owned()],
            tenants: Vec::new(),
        };
        let warm_up = u64::from(load.rate) * WARM_UP.as_secs();
        let tenth = (load.events() - warm_up) / 10;
        let (committed, measured) = tokio::join!(
            load.produce(&database.url),
            first_and_last(&worker, &database, bench.plan.horizon(), tenth)
        );
        let (committed, [first, last]) = (committed?, measured?);
        endpoints.receiver.wait(load.events(), PATIENCE).await?;
        database.nothing_owed(PATIENCE).await?;
        let usage = worker.player.usage();
        worker.player.end().await;
        let arrivals = Arrivals::of(&endpoints.receiver.stamps().await?);
        endpoints.receiver.player.end().await;
        let turn = Self {
            meanwhile,
            round: 0,
            first: Tenth::of(first, &committed, &arrivals, warm_up..warm_up + tenth)?,
            last: Tenth::of(
                last,
                &committed,
                &arrivals,
                load.events() - tenth..load.events(),
            )?,
            upkeep: Upkeep::of(&client).await?,
            peak: usage.peak,
        };
        drop(holder);
        bench.site.remove(database).await?;
        Ok(turn)
    }
}

/// What the worker's statements took, and what so many deliveries cost, in a tenth of the time.
type Measured = (Reading, Spent);

/// In the first and in the last tenth of a time that begins after the warm-up, each of which brings so many events.
async fn first_and_last(
    worker: &Worker,
    database: &Database,
    horizon: Duration,
    events: u64,
) -> Result<[Measured; 2]> {
    let begin = Instant::now() + WARM_UP;
    let over = async |tenths: [u32; 2]| {
        let [from, to] = tenths.map(|tenth| begin + horizon * tenth / 10);
        tokio::time::sleep_until(from).await;
        let (used, meter) = (worker.player.usage(), Meter::start(database).await?);
        let reading = Reading::of(worker).await?;
        tokio::time::sleep_until(to).await;
        let reading = Reading::of(worker).await?.since(&reading);
        let spent = Spent {
            deliveries: events,
            worker: worker.player.usage().since(used),
            cost: meter.stop().await?,
        };
        Ok::<Measured, Error>((reading, spent))
    };
    Ok([over([0, 1]).await?, over([9, 10]).await?])
}

impl Tenth {
    fn of(
        (reading, spent): Measured,
        committed: &[Committed],
        arrivals: &Arrivals,
        places: std::ops::Range<u64>,
    ) -> Result<Self> {
        let ours = committed
            .iter()
            .filter(|event| places.contains(&event.place));
        let mut receipt = ours
            .map(|event| arrivals.latency(event))
            .collect::<Result<Vec<f64>>>()?;
        receipt.sort_by(f64::total_cmp);
        Ok(Self {
            reading,
            spent,
            receipt,
        })
    }

    /// Mean and p99, or for the receipt p50 and p99, in milliseconds.
    fn times(&self, what: &str) -> [Option<f64>; 2] {
        if what == RECEIPT {
            return [0.5, 0.99].map(|share| percentile(&self.receipt, share));
        }
        let timing = self.reading.timing(what);
        [timing.mean(), timing.p99_millis()]
    }

    fn json(&self) -> Value {
        let [p50, p99] = self.times(RECEIPT);
        json!({
            "take": self.reading.timing("take").json(),
            "record": self.reading.timing("record").json(),
            "to_receipt_ms": { "p50": p50, "p99": p99 },
            "spent": self.spent.json(),
        })
    }
}

impl Turn {
    /// Of the tenth into which a checkpoint fell, if one did.
    fn worse_cost(&self) -> &Cost {
        let [first, last] = [&self.first, &self.last].map(|tenth| &tenth.spent.cost);
        if first.checkpointed { first } else { last }
    }

    fn line(&self) -> String {
        let mean = |tenth: &Tenth| text(Figure::of(tenth.times("take")[0]), 2);
        format!(
            "horizon, round {}, {}: take {} ms at first, {} ms at last",
            self.round,
            self.meanwhile.name(),
            mean(&self.first),
            mean(&self.last)
        )
    }

    fn json(&self) -> Value {
        json!({
            "round": self.round,
            "meanwhile": self.meanwhile.name(),
            "first_tenth": self.first.json(),
            "last_tenth": self.last.json(),
            "tables": self.upkeep.json(),
            "peak_memory_bytes": self.peak,
        })
    }
}

fn report(bench: &Bench, turns: &[Turn]) -> Report {
    let rate = grouped(f64::from(bench.plan.steady_rate(RATE)), 0);
    let horizon = bench.plan.horizon();
    let mut notes = vec![
        format!(
            "A tenth is {:?}; the first {WARM_UP:?} are left out. p99 of a statement is read from the buckets of a histogram. \
             Of commit to receipt, the mean column is the median.",
            horizon / 10
        ),
        COST_NOTE.to_owned(),
    ];
    notes.extend(checkpoint_note(turns.iter().map(Turn::worse_cost)));
    Report {
        title: format!(
            "Horizon: {rate} events/s for {horizon:?} while a transaction stays open elsewhere; median (range) of the rounds"
        ),
        tables: vec![by_time(turns), by_cost(turns), by_table(turns)],
        notes,
        json: json!({ "turns": turns.iter().map(Turn::json).collect::<Vec<_>>() }),
    }
}

fn by_time(turns: &[Turn]) -> Table {
    let header = [
        "meanwhile",
        "time of",
        "mean ms: first tenth",
        "last tenth",
        "x",
        "p99 ms: first tenth",
        "last tenth",
        "x",
        "peak MiB",
    ];
    let mut page = table(&header, 2);
    for meanwhile in ALL {
        let ours = || turns.iter().filter(move |turn| turn.meanwhile == meanwhile);
        let peak = mebibytes(ours().filter_map(|turn| turn.peak).max());
        for what in ["take", "record", RECEIPT] {
            let mut row = vec![meanwhile.name().to_owned(), what.to_owned()];
            for place in [0, 1] {
                let pairs = || {
                    ours().filter_map(|turn| {
                        Some((
                            turn.first.times(what)[place]?,
                            turn.last.times(what)[place]?,
                        ))
                    })
                };
                row.push(text(Figure::of(pairs().map(|(first, _)| first)), 2));
                row.push(text(Figure::of(pairs().map(|(_, last)| last)), 2));
                row.push(text(
                    Figure::of(pairs().map(|(first, last)| last / first)),
                    2,
                ));
            }
            row.push(peak.clone());
            page.add_row(row);
        }
    }
    page
}

/// What was spent on each delivery, by one measure.
type Each = fn(&Spent) -> Option<f64>;

fn by_cost(turns: &[Turn]) -> Table {
    let header = [
        "meanwhile",
        "a delivery's",
        "first tenth",
        "last tenth",
        "x",
    ];
    let costs: [(&str, Each); 3] = [
        ("CPU µs, worker", |spent| spent.cpu_each()[0]),
        ("CPU µs, Postgres", |spent| spent.cpu_each()[1]),
        ("WAL bytes", |spent| Some(spent.wal_each())),
    ];
    let mut page = table(&header, 2);
    for meanwhile in ALL {
        let ours = || turns.iter().filter(move |turn| turn.meanwhile == meanwhile);
        for (what, of) in costs {
            let pairs =
                || ours().filter_map(|turn| of(&turn.first.spent).zip(of(&turn.last.spent)));
            page.add_row([
                meanwhile.name().to_owned(),
                what.to_owned(),
                text(Figure::of(pairs().map(|(first, _)| first)), 0),
                text(Figure::of(pairs().map(|(_, last)| last)), 0),
                text(Figure::of(pairs().map(|(first, last)| last / first)), 2),
            ]);
        }
    }
    page
}

/// At the end of the last round.
fn by_table(turns: &[Turn]) -> Table {
    let header = [
        "meanwhile",
        "table, at the end",
        "dead rows",
        "table KiB",
        "index KiB",
        "autovacuums",
        "autoanalyzes",
    ];
    let mut page = table(&header, 2);
    for meanwhile in ALL {
        let last = turns.iter().rev().find(|turn| turn.meanwhile == meanwhile);
        for upkeep in last.map(|turn| &turn.upkeep.0).into_iter().flatten() {
            let count = |of: fn(&TableUpkeep) -> i64| grouped(float(of(upkeep).unsigned_abs()), 0);
            page.add_row([
                meanwhile.name().to_owned(),
                upkeep.name.clone(),
                count(|table| table.dead),
                count(|table| table.table_bytes / 1024),
                count(|table| table.index_bytes / 1024),
                count(|table| table.vacuums),
                count(|table| table.analyzes),
            ]);
        }
    }
    page
}

const COST_NOTE: &str = "Processor time and WAL are all of the worker's and the server's, so the inserts, and what the server does by itself, are \
    part of them. Processor time is counted in 10 ms. The checkpoint lies before the worker starts.";
const RATE: u32 = 500;
const RECEIPT: &str = "commit to receipt";
const RETRIES: &[&str] = &["5 seconds", "5 minutes"];
const WARM_UP: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_mins(1);
