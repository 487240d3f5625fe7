//! `posthaste demo`: the whole way of an event, on this machine, in seconds.

mod crew;
mod database;
mod evidence;
mod look;
mod partners;
mod platform;
mod progress;
mod summary;
mod verdict;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use posthaste::store::Store;
use posthaste::trial::authority::Authority;
use posthaste::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::crew::Crew;
use self::database::Database;
use self::evidence::Evidence;
use self::partners::Cast;
use self::platform::Platform;
use self::verdict::Verdict;
use super::output::say;

pub(crate) fn command() -> Command {
    Command::new("demo")
        .about("See it work: a private Postgres, a small platform, three partners, one worker")
        .long_about(
            "See it work, on this machine and without configuration.\n\n\
             Starts a private Postgres (or uses DATABASE_URL), a worker and three HTTPS partners: one \
             healthy, one that fails a few times and recovers, one that is down. A small platform runs \
             business transactions that INSERT their events with plain SQL; some roll back. Then it \
             counts: what was committed, what arrived, what was signed, and that nothing is missing.\n\n\
             With DATABASE_URL it makes a database of its own on that server (its role needs CREATEDB) \
             and drops it at the end; it touches no other. Ctrl-C takes everything away at any time.",
        )
        .arg(
            Arg::new("transactions")
                .long("transactions")
                .value_name("COUNT")
                .value_parser(value_parser!(u32).range(1..=100_000))
                .default_value("300")
                .help("Business transactions to run"),
        )
        .arg(
            Arg::new("keep")
                .long("keep")
                .action(ArgAction::SetTrue)
                .help("Keep everything up afterwards, and print how to look inside; Ctrl-C ends it"),
        )
        .after_help(EXAMPLES)
}

pub(crate) async fn run(args: &ArgMatches) -> Result<ExitCode> {
    let wishes = Wishes::from(args);
    let stop = told_to_stop()?;
    let Some(server) = stop
        .run_until_cancelled(database::server(wishes.keep))
        .await
    else {
        return Ok(interrupted());
    };
    let database = Database::create(server?).await?;
    let played = play(&database, &wishes, &stop).await;
    // Whatever happened.
    let removed = database.remove().await;
    let code = match played? {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => interrupted(),
    };
    removed.map(|()| code)
}

/// What was asked for, and when.
struct Wishes {
    transactions: u32,
    keep: bool,
    at: Instant,
}

impl Wishes {
    fn from(args: &ArgMatches) -> Self {
        let transactions = args.get_one("transactions").copied();
        let keep = args.get_flag("keep");
        Self {
            transactions: transactions.unwrap_or(TRANSACTIONS),
            keep,
            at: Instant::now(),
        }
    }
}

/// Tells the story, lets people look around where they want to, and clears the stage. Says whether all of it held; `None` where
/// it was interrupted.
async fn play(
    database: &Database,
    wishes: &Wishes,
    stop: &CancellationToken,
) -> Result<Option<bool>> {
    let Some(told) = stop.run_until_cancelled(tell(database, wishes)).await else {
        return Ok(None);
    };
    let ending = told?;
    if wishes.keep {
        look::inside(&database.psql())?;
        stop.cancelled().await;
    }
    ending.clear_up().await.map(Some)
}

/// The whole story, from an empty database to the verdict.
async fn tell(database: &Database, wishes: &Wishes) -> Result<Ending> {
    say(&format!(
        "{} business transactions, three partners, one worker",
        wishes.transactions
    ))?;
    say(&format!("  {}", database.place()))?;

    let config = crew::config(database.url())?;
    let store = Store::open(&config)?;
    // As far ahead as the worker wants them: it would make the rest later, under locks that hold up its own looks.
    let (migrations, partitions) = database.prepare(&store, config.partitions_ahead).await?;
    say(&format!(
        "  schema made: {migrations} migration(s), {partitions} partitions, and a platform of three tables"
    ))?;

    let (client, authority) = (database.connect().await?, Authority::new()?);
    let cast = Cast::assemble(&authority).await?;
    cast.subscribe(&client, &store, &config.keyring()?).await?;
    cast.introduction()
        .try_for_each(|partner| say(&format!("  {partner}")))?;

    let crew = Crew::start(&config, &authority).await?;
    say("  worker started, trusting the authority that signed the partners' certificates\n")?;

    let platform = Arc::new(Platform::new(wishes.transactions));
    let work = Arc::clone(&platform).work(database.url());
    let (ledger, is_over) = tokio::try_join!(work, progress::watch(&client, &platform))?;

    let evidence = Evidence::collect(&client, ledger, &cast).await?;
    let holds = conclude(&Verdict::of(&evidence), is_over, wishes.at.elapsed())?;
    Ok(Ending { cast, crew, holds })
}

/// Says what came of it and whether it is as promised.
fn conclude(verdict: &Verdict, is_over: bool, took: Duration) -> Result<bool> {
    say(&format!("\n{}", summary::table(verdict)))?;
    say(&format!("{}\n", summary::latency(&verdict.latencies)))?;
    verdict
        .claims
        .iter()
        .try_for_each(|claim| say(&summary::line(claim)))?;
    if !is_over {
        say("  NO   all is done: nothing has moved for a while, and deliveries are still owed")?;
    }
    let holds = verdict.holds() && is_over;
    let sentence = if holds {
        "All of it holds"
    } else {
        "NOT all of it holds"
    };
    say(&format!("\n{sentence}, after {:.1} s.", took.as_secs_f64()))?;
    Ok(holds)
}

/// The story is told; everybody is still on the stage.
struct Ending {
    cast: Cast,
    crew: Crew,
    holds: bool,
}

impl Ending {
    /// Sends everybody home and says whether all of it held.
    async fn clear_up(self) -> Result<bool> {
        self.crew.end().await?;
        self.cast.leave().await;
        Ok(self.holds)
    }
}

/// Cancelled by the first Ctrl-C, SIGTERM or hang-up, so that we clear up. The second ends the process at once.
fn told_to_stop() -> Result<CancellationToken> {
    let cannot = |error| Error::Io("listening for signals".to_owned(), error);
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let signals = kinds
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()
        .map_err(cannot)?;
    let stop = CancellationToken::new();
    for mut signal in signals {
        let told = stop.clone();
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                if told.is_cancelled() {
                    std::process::exit(1);
                }
                told.cancel();
            }
        });
    }
    Ok(stop)
}

fn interrupted() -> ExitCode {
    // Where the terminal is gone there is nobody to tell.
    let _ = say("\ninterrupted; everything is taken away again");
    ExitCode::FAILURE
}

const TRANSACTIONS: u32 = 300;
const EXAMPLES: &str = "\
Examples:
  posthaste demo
  posthaste demo --keep                  # and then look inside with psql
  DATABASE_URL=postgres://localhost/scratch posthaste demo --transactions 5000

Exits with 0 only if every committed event arrived, verified, and nothing else did.";
