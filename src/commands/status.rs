//! `posthaste status`: how much is owed, since when, who works on it, and what waits for people.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use comfy_table::{Table, presets};
use posthaste::Result;
use posthaste::config::Config;
use posthaste::logging::escaped;
use posthaste::store::{COUNT_LIMIT, Overview, Store, WorkerAlive};
use serde_json::json;

use super::output::say;
use super::settings;

pub(crate) fn command() -> Command {
    let command = Command::new("status")
        .about("Show the backlog, the workers alive, and what waits for people")
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("One JSON object in place of a table"),
        )
        .after_help(EXAMPLES);
    settings::arguments(command, |_| false)
}

pub(crate) async fn run(config: Config, args: &ArgMatches) -> Result<ExitCode> {
    let store = Store::open(&config)?;
    let (overview, workers) = (
        store.overview(COUNT_LIMIT).await?,
        store.workers_alive().await?,
    );
    let text = if args.get_flag("json") {
        as_json(&overview, &workers)
    } else {
        as_table(&overview, &workers)
    };
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn as_table(overview: &Overview, workers: &[WorkerAlive]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for (what, value) in figures(overview) {
        table.add_row([what, value.as_str()]);
    }
    table.add_row(["workers alive", &workers.len().to_string()]);
    for worker in workers {
        let about = format!(
            "{}, version {}, for {}",
            escaped(&worker.name),
            worker.version,
            age(worker.up_for)
        );
        table.add_row([format!("  worker {}", worker.worker_id), about]);
    }
    let mut text = table.to_string();
    for warning in warnings(overview, workers) {
        text.push_str("\n! ");
        text.push_str(warning);
    }
    text
}

fn figures(overview: &Overview) -> [(&'static str, String); 11] {
    let oldest = overview
        .oldest_owed
        .map_or("nothing is owed".to_owned(), age);
    let lanes = format!(
        "{} with something due, {} asleep until a retry, {} idle, {} paused",
        overview.lanes_awake, overview.lanes_asleep, overview.lanes_idle, overview.lanes_paused
    );
    let secrets = format!(
        "{} overdue for rotation, {} missing",
        overview.secrets_overdue, overview.secrets_missing
    );
    let dead_letters = counted(overview.dead_letters);
    let unknown_types = overview.unknown_types.to_string();
    let four_eyes = if overview.four_eyes { "on" } else { "OFF" };
    [
        ("events not fanned out yet", counted(overview.intake)),
        ("deliveries waiting", counted(overview.waiting)),
        ("deliveries leased to a worker", counted(overview.leased)),
        ("oldest still owed", oldest),
        ("lanes (one per subscription)", lanes),
        ("dead letters in the last 24 h", dead_letters),
        ("deliveries in quarantine", counted(overview.quarantined)),
        ("event types not in the catalogue", unknown_types),
        ("secrets", secrets),
        ("changes to decide", overview.changes_open.to_string()),
        ("four eyes", four_eyes.to_owned()),
    ]
}

fn as_json(overview: &Overview, workers: &[WorkerAlive]) -> String {
    let workers_alive: Vec<_> = workers
        .iter()
        .map(|worker| {
            json!({
                "worker_id": worker.worker_id,
                "name": worker.name,
                "version": worker.version,
                "up_for_seconds": worker.up_for.as_secs_f64(),
            })
        })
        .collect();
    json!({
        "intake": overview.intake,
        "waiting": overview.waiting,
        "leased": overview.leased,
        "counts_stop_at": COUNT_LIMIT,
        "oldest_owed_seconds": overview.oldest_owed.map(|age| age.as_secs_f64()),
        "lanes": {
            "awake": overview.lanes_awake,
            "asleep": overview.lanes_asleep,
            "idle": overview.lanes_idle,
            "paused": overview.lanes_paused,
        },
        "dead_letters_24h": overview.dead_letters,
        "quarantined": overview.quarantined,
        "unknown_event_types": overview.unknown_types,
        "secrets_overdue": overview.secrets_overdue,
        "secrets_missing": overview.secrets_missing,
        "changes_open": overview.changes_open,
        "four_eyes": overview.four_eyes,
        "workers": workers_alive,
        "warnings": warnings(overview, workers),
    })
    .to_string()
}

fn warnings(overview: &Overview, workers: &[WorkerAlive]) -> Vec<&'static str> {
    let is_owed = overview.oldest_owed.is_some();
    let findings = [
        (
            workers.is_empty() && is_owed,
            "deliveries are owed and no worker is alive: start `posthaste run`",
        ),
        (
            overview.in_default_partition,
            "rows lie in a default partition: partitions were not made in time; see posthaste.create_partitions in sql/schema.sql",
        ),
        (
            !overview.four_eyes,
            "four eyes: OFF: one administrator may approve alone",
        ),
        (
            overview.quarantined > 0,
            "deliveries are in quarantine: see posthaste.unrouted, then posthaste.release or posthaste.discard",
        ),
        (
            overview.unknown_types > 0,
            "events came whose type is not in the catalogue: see posthaste.unrouted and `posthaste event-type create`",
        ),
        (
            overview.secrets_missing > 0,
            "nothing is sent to a subscription without its secrets: see `posthaste secret list`",
        ),
        (
            overview.secrets_overdue > 0,
            "secrets are older than agreed: see `posthaste secret list` and `posthaste secret rotate`",
        ),
    ];
    findings
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, warning)| warning)
        .collect()
}

/// A count; counting stops early where there is much.
fn counted(count: u64) -> String {
    if count >= COUNT_LIMIT as u64 {
        format!("{COUNT_LIMIT} or more")
    } else {
        count.to_string()
    }
}

fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds @ 3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        seconds => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

const EXAMPLES: &str = "\
The database is DATABASE_URL, or database_url in the --config file.

Examples:
  DATABASE_URL=postgres://auditor@db/platform posthaste status
  posthaste status --config /etc/posthaste.toml --json";

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn overview(oldest: Option<u64>) -> Overview {
        Overview {
            intake: 0,
            waiting: COUNT_LIMIT as u64,
            leased: 3,
            oldest_owed: oldest.map(Duration::from_secs),
            lanes_awake: 1,
            lanes_asleep: 2,
            lanes_idle: 3,
            lanes_paused: 0,
            dead_letters: 4,
            quarantined: 0,
            unknown_types: 0,
            secrets_overdue: 0,
            secrets_missing: 0,
            changes_open: 0,
            four_eyes: true,
            in_default_partition: false,
            clock: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_backlog_without_a_worker_is_a_warning() {
        assert_eq!(warnings(&overview(Some(5)), &[]).len(), 1);
        assert!(warnings(&overview(None), &[]).is_empty());
    }

    #[test]
    fn what_waits_for_people_is_a_warning_and_so_is_a_pair_of_eyes_too_few() {
        let overview = Overview {
            quarantined: 1,
            unknown_types: 2,
            secrets_overdue: 3,
            secrets_missing: 4,
            four_eyes: false,
            ..overview(None)
        };
        let said = as_table(&overview, &[]);
        assert!(
            said.contains("! four eyes: OFF: one administrator may approve alone"),
            "{said}"
        );
        assert_eq!(said.matches("\n! ").count(), 5, "{said}");
    }

    #[test]
    fn the_table_says_how_old_the_oldest_is_and_that_counting_stopped() {
        let text = as_table(&overview(Some(3700)), &[]);
        assert!(text.contains("1 h 1 min"), "{text}");
        assert!(text.contains("100000 or more"), "{text}");
    }
}
