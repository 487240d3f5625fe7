//! `posthaste bench`: how fast it is on this machine, beside the loop that one would write by hand.
//!
//! Every competitor is a process of its own, and so is the receiver: what each costs is read from the system. This process starts
//! them, fills the tables, and reads clocks. The processes are this program again, told by a hidden flag to play a [`part`].

mod backlog;
mod bulk;
mod claims;
mod crowd;
mod drain;
mod drained;
mod endpoints;
mod fanout;
mod figures;
mod fill;
mod hand_loop;
mod horizon;
mod idle;
mod isolation;
mod latency;
mod meter;
mod neighbours;
mod part;
mod payload;
mod player;
mod poster;
mod producer;
mod producers;
mod receiver;
mod recovery;
mod report;
mod scale;
mod site;
mod steady;
mod upkeep;
mod usage;
mod work;
mod worker;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser};
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
    let names = SCENARIOS
        .iter()
        .map(|scenario| PossibleValue::new(scenario.name).help(scenario.about));
    let command = Command::new("bench")
        .about("Measure on this machine, beside a hand-written loop and the physical limits")
        .long_about(
            "Measures with a durable private Postgres (or databases of its own at DATABASE_URL) and \
             receivers of its own. The competitors of a scenario take turns in the same run: a \
             hand-written loop (one row a transaction, the request inside it), the same HTTP client \
             without a database, and Postgres alone.",
        )
        .arg(
            Arg::new("scenario")
                .value_name("SCENARIO")
                .num_args(0..)
                .value_parser(PossibleValuesParser::new(names))
                .help("What to measure; everything where none is named"),
        )
        .arg(number("events", "50000", 1..=10_000_000, "Events to drain, each turn"))
        .arg(number("rounds", "3", 1..=99, "How often each competitor has its turn"))
        .arg(rates())
        .arg(span("duration", "How long a turn by the clock lasts").default_value("5s"))
        .arg(waiting())
        .arg(number("backlog", "1000000", 0..=50_000_000, "Deliveries that one subscription is behind with in the scenario isolation"))
        .arg(span("horizon", "How long a transaction is held open elsewhere").default_value("20s"))
        .arg(switch("quick", "A smoke run: one round, and little of everything where its amount is not given"))
        .arg(switch("full", "The large sizes too: ten million rows waiting, ten minutes with a transaction open"))
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

fn rates() -> Arg {
    Arg::new("rate")
        .long("rate")
        .value_name("EVENTS")
        .value_delimiter(',')
        .action(ArgAction::Append)
        .value_parser(value_parser!(u32).range(1..=10_000))
        .help("Events a second where the rate is steady; a list, or given again, for several [default: the scenario's]")
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
    /// In one line, for the help.
    about: &'static str,
    run: for<'b> fn(&'b Bench) -> Measuring<'b>,
}

const SCENARIOS: &[Scenario] = &[
    drain::SCENARIO,
    latency::SCENARIO,
    producers::SCENARIO,
    fanout::SCENARIO,
    scale::SCENARIO,
    backlog::SCENARIO,
    horizon::SCENARIO,
    neighbours::SCENARIO,
    isolation::SCENARIO,
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
    /// Events a second, where they are given; else each scenario knows what suits it.
    rates: Vec<u32>,
    duration: Duration,
    quick: bool,
    /// Sizes of a backlog.
    waiting: Vec<u32>,
    /// Deliveries that one subscription is behind with.
    backlog: usize,
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
        let quick = args.get_flag("quick");
        // What was said outright stands, quick or not.
        let is_open =
            |name: &str| quick && args.value_source(name) == Some(ValueSource::DefaultValue);
        let size = |name: &str, when_quick: usize| {
            let given = args.get_one::<u32>(name).copied().unwrap_or(1);
            if is_open(name) {
                when_quick
            } else {
                usize::try_from(given).unwrap_or(usize::MAX)
            }
        };
        let time = |name: &str, when_quick: Duration| {
            let given = args.get_one::<Duration>(name).copied().unwrap_or_default();
            let span = if is_open(name) { when_quick } else { given };
            if (MIN_DURATION..=MAX_DURATION).contains(&span) {
                Ok(span)
            } else {
                Err(Error::Config(format!("--{name}: must be from 1s to 1h")))
            }
        };
        let waiting = if is_open("waiting") {
            vec![QUICK_WAITING]
        } else {
            args.get_many("waiting")
                .unwrap_or_default()
                .copied()
                .collect()
        };
        Ok(Self {
            events: size("events", QUICK_EVENTS),
            rounds: size("rounds", 1),
            rates: args.get_many("rate").unwrap_or_default().copied().collect(),
            waiting,
            backlog: size("backlog", QUICK_BACKLOG),
            horizon: time("horizon", QUICK_HORIZON)?,
            full: args.get_flag("full"),
            duration: time("duration", MIN_DURATION)?,
            quick,
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
        self.rates.first().copied().unwrap_or(default)
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
const QUICK_EVENTS: usize = 2000;
const QUICK_WAITING: u32 = 10_000;
const QUICK_BACKLOG: usize = 10_000;
const QUICK_HORIZON: Duration = Duration::from_secs(5);
const MIN_DURATION: Duration = Duration::from_secs(1);
const MAX_DURATION: Duration = Duration::from_hours(1);
const EXAMPLES: &str = "\
Build with --release first: a debug build measures the compiler.

Examples:
  posthaste bench
  posthaste bench --quick
  posthaste bench drain --events 5000 --rounds 1 --statements
  posthaste bench latency --rate 500,2000 --duration 30s --json figures.json
  posthaste bench drain --batch 256 --endpoint-concurrency 32
  DATABASE_URL=postgres://localhost/scratch posthaste bench";
