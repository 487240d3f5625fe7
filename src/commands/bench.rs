//! `posthaste bench`: how fast it is on this machine, beside the loop that one would write by hand.
//!
//! Every competitor is a process of its own, and so is the receiver: what each costs is read from the system. This process starts
//! them, fills the tables, and reads clocks. The processes are this program again, told by a hidden flag to play a [`part`].

mod backlog;
mod bulk;
mod claims;
mod crowd;
mod drain;
mod endpoints;
mod figures;
mod hand_loop;
mod horizon;
mod idle;
mod latency;
mod neighbours;
mod part;
mod payload;
mod player;
mod poster;
mod receiver;
mod recovery;
mod report;
mod site;
mod steady;
mod upkeep;
mod usage;
mod worker;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use posthaste::config::Config;
use posthaste::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

use self::report::Report;
use self::site::Site;
use super::input::{path, span};
use super::settings::{self, Loaded, Source};

pub(crate) fn command() -> Command {
    let names = SCENARIOS.iter().map(|scenario| scenario.name);
    let command = Command::new("bench")
        .about("Measure drain rate and latency on this machine, beside a hand-written loop")
        .long_about(
            "Measures, with a durable private Postgres (or a database of its own at DATABASE_URL) and one \
             local endpoint: how fast a backlog is drained, and how long an event takes from its commit to \
             its receipt at a steady rate. In the same run, in turns: a hand-written loop (one row a \
             transaction, the request inside it), and the same HTTP client without a database.",
        )
        .arg(
            Arg::new("scenario")
                .value_name("SCENARIO")
                .num_args(0..)
                .value_parser(PossibleValuesParser::new(names))
                .help("What to measure; everything where none is named"),
        )
        .arg(number("events", "50000", 1..=10_000_000, "Committed events to drain"))
        .arg(number("rounds", "3", 1..=99, "How often each competitor has its turn"))
        .arg(number("rate", "200", 1..=10_000, "Events a second while latency is measured"))
        .arg(waiting())
        .arg(span("horizon", "How long a transaction is held open elsewhere").default_value("20s"))
        .arg(switch("full", "The large sizes too: ten million rows waiting, ten minutes with a transaction open"))
        .arg(span("duration", "How long latency is measured, each turn").default_value("10s"))
        .arg(path("json", "Where every figure goes as JSON; - is standard output"))
        .arg(switch("statements", "Tell which statements cost the private server most"))
        .arg(switch(PART, "Play a part that standard input tells").hide(true))
        .after_help(EXAMPLES);
    settings::arguments(command, |setting| OF_THE_WORKER.contains(&setting.key))
}

fn number(
    name: &'static str,
    default: &'static str,
    bounds: std::ops::RangeInclusive<i64>,
    help: &'static str,
) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("COUNT")
        .value_parser(value_parser!(u32).range(bounds))
        .default_value(default)
        .help(help)
}

fn waiting() -> Arg {
    Arg::new("waiting")
        .long("waiting")
        .value_name("ROWS")
        .value_delimiter(',')
        .value_parser(value_parser!(u32).range(1..=50_000_000))
        .default_value("100000,1000000")
        .help("Sizes of the backlog, besides an empty one")
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

pub(crate) async fn run(args: &ArgMatches) -> Result<ExitCode> {
    if args.get_flag(PART) {
        return part::play().await;
    }
    let plan = Plan::from(args)?;
    let interrupted = interrupted()?;
    let scenarios = scenarios(args);
    let bench = Bench {
        site: Site::open(&plan).await?,
        plan,
    };
    let result = tokio::select! {
        biased;
        () = interrupted => None,
        result = bench.measure(&scenarios) => Some(result),
    };
    // Whatever came of it, nothing of ours stays behind.
    bench.site.close().await?;
    result.map_or(Ok(ExitCode::from(INTERRUPTED)), |result| {
        result.map(|()| ExitCode::SUCCESS)
    })
}

type Measuring<'b> = Pin<Box<dyn Future<Output = Result<Report>> + 'b>>;

/// One way to measure. Each is a file, and stands in [`SCENARIOS`].
struct Scenario {
    name: &'static str,
    run: for<'b> fn(&'b Bench) -> Measuring<'b>,
}

const SCENARIOS: &[Scenario] = &[
    drain::SCENARIO,
    latency::SCENARIO,
    backlog::SCENARIO,
    horizon::SCENARIO,
    neighbours::SCENARIO,
    recovery::SCENARIO,
    idle::SCENARIO,
];

fn scenarios(args: &ArgMatches) -> Vec<&'static Scenario> {
    let named: Vec<&String> = args.get_many("scenario").unwrap_or_default().collect();
    let wanted =
        |scenario: &&Scenario| named.is_empty() || named.iter().any(|name| *name == scenario.name);
    SCENARIOS.iter().filter(wanted).collect()
}

/// What to measure, and how much of it.
struct Plan {
    events: usize,
    rounds: usize,
    rate: u32,
    duration: Duration,
    /// The rate, if it was given: the scenarios' defaults differ.
    given_rate: Option<u32>,
    /// Sizes of a backlog.
    waiting: Vec<u32>,
    /// How long vacuum is held back.
    horizon: Duration,
    /// Whether the large sizes are wanted.
    full: bool,
    json: Option<PathBuf>,
    statements: bool,
    /// Of the worker, before a run adds its database, its keys and its trust.
    config: Config,
}

impl Plan {
    fn from(args: &ArgMatches) -> Result<Self> {
        let count = |name: &str| args.get_one::<u32>(name).copied().unwrap_or(1);
        let size = |name: &str| usize::try_from(count(name)).unwrap_or(usize::MAX);
        let duration = args
            .get_one::<Duration>("duration")
            .copied()
            .unwrap_or_default();
        let horizon = args
            .get_one::<Duration>("horizon")
            .copied()
            .unwrap_or_default();
        for (name, span) in [("duration", duration), ("horizon", horizon)] {
            if !(MIN_DURATION..=MAX_DURATION).contains(&span) {
                return Err(Error::Config(format!("--{name}: must be from 1s to 1h")));
            }
        }
        Ok(Self {
            events: size("events"),
            rounds: size("rounds"),
            rate: count("rate"),
            given_rate: (args.value_source("rate") == Some(ValueSource::CommandLine))
                .then(|| count("rate")),
            waiting: args
                .get_many("waiting")
                .unwrap_or_default()
                .copied()
                .collect(),
            horizon,
            full: args.get_flag("full"),
            duration,
            json: args.get_one::<PathBuf>("json").cloned(),
            statements: args.get_flag("statements"),
            config: config(settings::load(args)?)?,
        })
    }

    /// Rows that wait, from none to the most.
    fn backlogs(&self) -> Vec<usize> {
        let large = self.full.then_some(TEN_MILLION);
        let sizes = self.waiting.iter().copied().chain(large);
        let mut sizes: Vec<usize> = sizes
            .map(|rows| usize::try_from(rows).unwrap_or(usize::MAX))
            .collect();
        sizes.push(0);
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// How long vacuum is held back.
    fn horizon(&self) -> Duration {
        if self.full {
            LONG_HORIZON
        } else {
            self.horizon
        }
    }

    /// Events a second, for a scenario with a default of its own.
    fn steady_rate(&self, default: u32) -> u32 {
        self.given_rate.unwrap_or(default)
    }
}

/// A production default of 16 requests to one endpoint is kind to that endpoint; here it would measure kindness.
fn config(loaded: Loaded) -> Result<Config> {
    let Loaded {
        mut config,
        sources,
    } = loaded;
    let place = posthaste::config::SETTINGS
        .iter()
        .position(|s| s.key == "endpoint_concurrency");
    if place.and_then(|place| sources.get(place)) == Some(&Source::Default) {
        config.set("endpoint_concurrency", CONCURRENCY)?;
    }
    Ok(config)
}

/// Everything that a scenario needs.
struct Bench {
    plan: Plan,
    site: Site,
}

impl Bench {
    async fn measure(&self, scenarios: &[&Scenario]) -> Result<()> {
        let settings = self.site.settings(&self.plan).await?;
        report::print_settings(&settings)?;
        let mut reports = Vec::new();
        for scenario in scenarios {
            let report = (scenario.run)(self).await?;
            report.print()?;
            reports.push((scenario.name, report));
        }
        match &self.plan.json {
            Some(path) => report::write_json(path, &settings, &reports),
            None => Ok(()),
        }
    }
}

/// Ends with the first Ctrl-C or SIGTERM.
fn interrupted() -> Result<impl Future<Output = ()>> {
    let cannot = |error| Error::Io("listening for signals".to_owned(), error);
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The worker's settings that can be tried here; the others come from the environment and the file.
const OF_THE_WORKER: &[&str] = &[
    "database_connections",
    "max_in_flight",
    "batch",
    "endpoint_concurrency",
    "wake",
    "poll_interval",
];
const CONCURRENCY: &str = "64";
const LONG_HORIZON: Duration = Duration::from_mins(10);
const TEN_MILLION: u32 = 10_000_000;
const PART: &str = "part";
const INTERRUPTED: u8 = 130;
const MIN_DURATION: Duration = Duration::from_secs(1);
const MAX_DURATION: Duration = Duration::from_hours(1);
const EXAMPLES: &str = "\
Build with --release first: a debug build measures the compiler.

Examples:
  posthaste bench
  posthaste bench drain --events 5000 --rounds 1 --statements
  posthaste bench latency --rate 500 --duration 30s --json figures.json
  posthaste bench drain --batch 256 --endpoint-concurrency 32
  DATABASE_URL=postgres://localhost/scratch posthaste bench";
