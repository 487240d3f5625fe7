//! Scenario `recovery`: two workers, one is killed with requests in flight. How long until what it held is delivered again?

use std::collections::HashMap;
use std::time::Duration;

use posthaste::store::connect_once;
use posthaste::{Error, Result};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_postgres::Client;

use super::crowd::{self, Wish, first_column};
use super::endpoints::{Endpoints, Manner};
use super::figures::{Figure, float, grouped, mebibytes, percentile, text};
use super::part::micros_now;
use super::payload::EVENT_TYPE;
use super::report::{Report, progress, table};
use super::site::Database;
use super::steady::{Arrivals, Committed, Load, millis};
use super::worker::Worker;
use super::{Bench, Scenario, bulk};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "recovery",
    about: "How soon the deliveries of a killed worker are sent again, and how many twice",
    run: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Report> {
    let mut turns = Vec::new();
    for round in 1..=bench.plan.rounds {
        for work in [Work::Steady, Work::Backlog] {
            let mut turn = work.turn(bench).await?;
            turn.round = round;
            progress(&turn.line());
            turns.push(turn);
        }
    }
    Ok(report(bench, &turns))
}

/// What keeps the two workers busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Steady,
    Backlog,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady events",
            Self::Backlog => "a backlog",
        }
    }

    async fn turn(self, bench: &Bench) -> Result<Turn> {
        let database = bench.site.database().await?;
        let mut stage = Stage::set(bench, &database).await?;
        let turn = match self {
            Self::Steady => steady(bench, &database, &mut stage).await?,
            Self::Backlog => backlog(bench, &database, &mut stage).await?,
        };
        let Stage {
            endpoints,
            survivor,
            ..
        } = stage;
        survivor.player.end().await;
        endpoints.receiver.player.end().await;
        bench.site.remove(database).await?;
        Ok(turn)
    }
}

/// Two workers at work on one slow endpoint.
struct Stage {
    client: Client,
    endpoints: Endpoints,
    /// Until it is killed.
    doomed: Option<(Worker, i32)>,
    survivor: Worker,
    survivor_id: i32,
}

impl Stage {
    async fn set(bench: &Bench, database: &Database) -> Result<Self> {
        // So slow that there are always requests under way.
        let endpoints = Endpoints::start(ANSWER_TIME).await?;
        let client = connect_once(&database.url).await?;
        let config = bench
            .site
            .config(&bench.plan, database, &endpoints.receiver)?;
        let wish = Wish {
            name: "bench".to_owned(),
            url: endpoints.url(Manner::Healthy, 0),
            event_type: EVENT_TYPE.to_owned(),
            tenant: None,
        };
        crowd::subscribe(&client, &config, &[wish], RETRIES).await?;
        let doomed = Worker::start(&config).await?;
        let id = client.query_one(NEWEST_WORKER, &[]).await?.try_get(0)?;
        let survivor = Worker::start(&config).await?;
        let survivor_id = client.query_one(NEWEST_WORKER, &[]).await?.try_get(0)?;
        Ok(Self {
            client,
            endpoints,
            doomed: Some((doomed, id)),
            survivor,
            survivor_id,
        })
    }

    /// Makes the one that holds leases the one to be killed: while one is awake, it may take everything.
    async fn choose(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let Some((doomed, id)) = &mut self.doomed else {
                return Ok(());
            };
            let held = async |id: i32| -> Result<i64> {
                Ok(self.client.query_one(LEASES_OF, &[&id]).await?.try_get(0)?)
            };
            let (of_doomed, of_survivor) = (held(*id).await?, held(self.survivor_id).await?);
            if of_survivor > of_doomed {
                std::mem::swap(doomed, &mut self.survivor);
                std::mem::swap(id, &mut self.survivor_id);
            }
            if of_doomed.max(of_survivor) > 0 {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Kills one, asks at once what it held, and waits until others have taken it over.
    async fn kill(&mut self) -> Result<Kill> {
        self.choose().await?;
        let gone = || Error::Data("the worker to kill is gone already".to_owned());
        let (doomed, id) = self.doomed.take().ok_or_else(gone)?;
        let peak = doomed.player.usage().peak;
        let at = micros_now();
        doomed.player.kill().await?;
        let rows = self.client.query(LEASED_PLACES, &[&id]).await?;
        let held: Vec<i64> = first_column(&rows)?;
        if held.is_empty() {
            return Err(Error::Data(
                "the killed worker held nothing: there was too little to do".to_owned(),
            ));
        }
        let held = held.into_iter().map(i64::unsigned_abs).collect();
        self.taken_over(id).await?;
        Ok(Kill {
            at,
            held,
            taken_over: micros_now(),
            peak,
        })
    }

    async fn taken_over(&self, id: i32) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let left: i64 = self.client.query_one(LEASES_OF, &[&id]).await?.try_get(0)?;
            if left == 0 {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(Error::Data(
            "the leases of the killed worker were not taken over".to_owned(),
        ))
    }

    /// Waits for the end, and compares what came with what is on record.
    async fn account(
        &mut self,
        database: &Database,
        work: Work,
        kill: Kill,
        committed: &[Committed],
        events: u64,
    ) -> Result<Turn> {
        database.nothing_owed(PATIENCE).await?;
        let arrivals = Arrivals::of(&self.endpoints.receiver.stamps().await?);
        let rows = self.client.query(ABANDONED_PLACES, &[]).await?;
        let abandoned: Vec<i64> = first_column(&rows)?;
        let (duplicates, unexplained) = duplicates(&arrivals, &abandoned);
        let missing = events - arrivals.first.len() as u64;
        if missing > 0 || unexplained > 0 {
            let what = format!(
                "{missing} of {events} events never came, {unexplained} duplicates are on no record"
            );
            return Err(Error::Data(what));
        }
        let last = kill
            .held
            .iter()
            .filter_map(|place| arrivals.last.get(place));
        let last = last.max().copied().unwrap_or(kill.at);
        let mut others = committed
            .iter()
            .filter(|event| event.at > kill.at && !kill.held.contains(&event.place))
            .map(|event| arrivals.latency(event))
            .collect::<Result<Vec<f64>>>()?;
        others.sort_by(f64::total_cmp);
        Ok(Turn {
            work,
            round: 0,
            events,
            held: kill.held.len() as u64,
            taken_over: millis(kill.taken_over - kill.at) / 1e3,
            seconds: millis(last - kill.at) / 1e3,
            duplicates,
            abandoned: abandoned.len() as u64,
            others_p99: percentile(&others, 0.99),
            peak: self.survivor.player.usage().peak.max(kill.peak),
        })
    }
}

struct Kill {
    at: i64,
    /// The places of the deliveries that it had leased.
    held: Vec<u64>,
    taken_over: i64,
    peak: Option<u64>,
}

async fn steady(bench: &Bench, database: &Database, stage: &mut Stage) -> Result<Turn> {
    let load = Load {
        rate: bench.plan.steady_rate(RATE),
        duration: 3 * KILL_AFTER,
        event_types: vec![EVENT_TYPE.to_owned()],
        tenants: Vec::new(),
    };
    let killing = async {
        tokio::time::sleep(KILL_AFTER).await;
        stage.kill().await
    };
    let (committed, kill) = tokio::join!(load.produce(&database.url), killing);
    let committed = committed?;
    stage
        .account(database, Work::Steady, kill?, &committed, load.events())
        .await
}

async fn backlog(bench: &Bench, database: &Database, stage: &mut Stage) -> Result<Turn> {
    let events = (bench.plan.events / 5).max(1);
    bulk::commit(&stage.client, EVENT_TYPE, 0, events).await?;
    let events = events as u64;
    stage.endpoints.receiver.wait(events / 4, PATIENCE).await?;
    let kill = stage.kill().await?;
    stage
        .account(database, Work::Backlog, kill, &[], events)
        .await
}

/// Receipts beyond the first of each event, and how many of them no abandoned attempt explains.
fn duplicates(arrivals: &Arrivals, abandoned: &[i64]) -> (u64, u64) {
    let mut explained: HashMap<u64, u64> = HashMap::new();
    for place in abandoned {
        *explained.entry(place.unsigned_abs()).or_insert(0) += 1;
    }
    let again = arrivals.times.iter().map(|(place, times)| {
        let again = times - 1;
        let explained = explained.get(place).copied().unwrap_or_default();
        (again, again.saturating_sub(explained))
    });
    again.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// One kill.
struct Turn {
    work: Work,
    round: usize,
    events: u64,
    /// Deliveries that the killed worker had leased.
    held: u64,
    /// From the kill until none of them was in its name any more.
    taken_over: f64,
    /// From the kill to the last receipt of what it had leased.
    seconds: f64,
    duplicates: u64,
    abandoned: u64,
    /// Commit to receipt of what was committed after the kill, in milliseconds.
    others_p99: Option<f64>,
    peak: Option<u64>,
}

impl Turn {
    fn line(&self) -> String {
        format!(
            "recovery, round {}, {}: {} leases delivered again {} s after the kill, {} duplicates",
            self.round,
            self.work.name(),
            self.held,
            grouped(self.seconds, 2),
            self.duplicates
        )
    }

    fn json(&self) -> Value {
        json!({
            "round": self.round,
            "busy_with": self.work.name(),
            "events": self.events,
            "leases_of_the_killed": self.held,
            "seconds_to_take_over": self.taken_over,
            "seconds_to_the_last_of_them": self.seconds,
            "duplicates": self.duplicates,
            "abandoned_attempts": self.abandoned,
            "duplicates_on_no_record": 0,
            "missing": 0,
            "committed_later_p99_ms": self.others_p99,
            "peak_memory_bytes": self.peak,
        })
    }
}

fn report(bench: &Bench, turns: &[Turn]) -> Report {
    let header = [
        "the workers have",
        "leases of the killed one",
        "taken over after s",
        "received after s, the last",
        "duplicates",
        "abandoned attempts",
        "missing",
        "committed later: p99 ms",
        "peak MiB",
    ];
    let mut page = table(&header, 1);
    for work in [Work::Steady, Work::Backlog] {
        let ours = || turns.iter().filter(move |turn| turn.work == work);
        let count = |of: fn(&Turn) -> u64| text(Figure::of(ours().map(of).map(float)), 0);
        page.add_row([
            work.name().to_owned(),
            count(|turn| turn.held),
            text(Figure::of(ours().map(|turn| turn.taken_over)), 2),
            text(Figure::of(ours().map(|turn| turn.seconds)), 2),
            count(|turn| turn.duplicates),
            count(|turn| turn.abandoned),
            "0".to_owned(),
            text(Figure::of(ours().filter_map(|turn| turn.others_p99)), 1),
            mebibytes(ours().filter_map(|turn| turn.peak).max()),
        ]);
    }
    let rate = grouped(f64::from(bench.plan.steady_rate(RATE)), 0);
    Report {
        title: "Recovery: one of two workers is killed while its requests are under way; median (range) of the rounds".to_owned(),
        tables: vec![page],
        notes: vec![
            format!("Steady: {rate} single-row transactions a second. The endpoint takes {ANSWER_TIME:?} for each answer."),
            NOTE.to_owned(),
        ],
        json: json!({ "turns": turns.iter().map(Turn::json).collect::<Vec<_>>() }),
    }
}

const RATE: u32 = 1000;
const ANSWER_TIME: Duration = Duration::from_millis(50);
const KILL_AFTER: Duration = Duration::from_secs(2);
const RETRIES: &[&str] = &["5 seconds", "5 minutes"];
const PATIENCE: Duration = Duration::from_mins(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const NEWEST_WORKER: &str = include_str!("../../../sql/bench/newest_worker.sql");
const LEASED_PLACES: &str = include_str!("../../../sql/bench/leased_places.sql");
const LEASES_OF: &str = include_str!("../../../sql/bench/leases_of.sql");
const ABANDONED_PLACES: &str = include_str!("../../../sql/bench/abandoned_places.sql");
const NOTE: &str = "The clock runs from SIGKILL to the last receipt of what the killed worker had leased, sent or not. The run fails if an \
    event is missing, or if a duplicate has no attempt row that says `abandoned`.";
