//! `posthaste audit`: who did what, and whether the record of it is whole.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use posthaste::Result;
use posthaste::store::Control;
use serde_json::Value;

use super::input::{if_given, text};
use super::output::say;
use super::settings;
use super::table::{self, Column, json, time};

pub(crate) fn command() -> Command {
    super::group("audit")
        .about("Read the audit log, verify it, and seal history")
        .long_about(
            "The audit log says who did what, to what, from what to what, and why. Each entry is \
             chained to the one before it. Whoever owns the tables could write the whole chain anew: \
             keep what `verify` prints in another place, and give it back with --known.",
        )
        .subcommands([show_command(), verify_command(), seal_command(), verify_seals_command()])
        .after_help(EXAMPLES)
}

pub(crate) async fn run(args: &ArgMatches) -> Result<ExitCode> {
    let (name, args) = super::chosen(args)?;
    let control = Control::open(&settings::load(args)?.config).await?;
    match name {
        "show" => show(&control, args).await,
        "verify" => verify(&control, args).await,
        "seal" => seal(&control, args).await,
        "verify-seals" => verify_seals(&control, args).await,
        other => Err(super::unknown(other)),
    }
}

async fn show(control: &Control, args: &ArgMatches) -> Result<ExitCode> {
    let limit = args.get_one::<i64>("limit").copied().unwrap_or_default();
    let rows = control.audit_log(limit, if_given(args, "object")).await?;
    table::print(args, &rows, ENTRIES, "there is no such entry")?;
    Ok(ExitCode::SUCCESS)
}

async fn verify(control: &Control, args: &ArgMatches) -> Result<ExitCode> {
    let known = args.get_one::<(i64, String)>("known");
    let known = known.map(|(entry, digest)| (*entry, digest.as_str()));
    let found = control.verify_audit(known).await?;
    let is_intact = found["intact"] == true;
    if args.get_flag("json") {
        say(&found.to_string())?;
    } else {
        say(&verdict(&found))?;
    }
    Ok(ended(is_intact))
}

fn verdict(found: &Value) -> String {
    let said = |field: &str| table::text(&found[field]);
    if found["intact"] != true {
        let (entry, problem) = (said("first_broken"), said("problem"));
        return format!("BROKEN at entry {entry}: {problem}");
    }
    let entries = said("entries");
    if entries == "0" {
        return "intact: it is empty".to_owned();
    }
    let digest = said("last_digest");
    format!("intact, {entries} entries; keep this in another place:\n{entries}:{digest}")
}

async fn seal(control: &Control, args: &ArgMatches) -> Result<ExitCode> {
    let rows = control.seal_partitions(if_given(args, "partition")).await?;
    table::print(
        args,
        &rows,
        SEALED,
        "every closed partition is sealed already",
    )?;
    Ok(ExitCode::SUCCESS)
}

async fn verify_seals(control: &Control, args: &ArgMatches) -> Result<ExitCode> {
    let partition = if_given(args, "partition");
    let rows = control.verify_seals(partition).await?;
    table::print(args, &rows, SEALS, "nothing is sealed")?;
    // Whoever asks for one that was never sealed must not take silence for an answer.
    let is_answered = partition.is_none() || !rows.is_empty();
    let is_intact = rows.iter().all(|row| row["intact"] == true);
    Ok(ended(is_answered && is_intact))
}

fn ended(is_fine: bool) -> ExitCode {
    if is_fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// An entry and its digest, as `verify` prints them.
fn known(text: &str) -> std::result::Result<(i64, String), &'static str> {
    let parsed = text.split_once(':').and_then(|(entry, digest)| {
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let entry = entry.parse().ok()?;
        is_digest.then(|| (entry, digest.to_ascii_lowercase()))
    });
    parsed.ok_or("must be an entry and its digest, as `audit verify` prints them")
}

fn show_command() -> Command {
    let limit = text("limit", "How many entries, the last ones")
        .value_name("ENTRIES")
        .value_parser(value_parser!(i64).range(1..))
        .default_value("50");
    let command = Command::new("show")
        .about("Show the last entries of the audit log")
        .arg(limit)
        .arg(text(
            "object",
            "Only what was done to this subscription, event type or partition",
        ))
        .arg(json())
        .after_help(SHOW_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn verify_command() -> Command {
    let known = text("known", "What an earlier `verify` printed")
        .value_name("ENTRY:DIGEST")
        .value_parser(known);
    let command = Command::new("verify")
        .about("Verify the audit log: exit code 1 and the first broken entry, if it is not whole")
        .arg(known)
        .arg(json())
        .after_help(VERIFY_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn seal_command() -> Command {
    let partition = Arg::new("partition")
        .value_name("PARTITION")
        .help("This one, which was sealed before rows were added to it; all that have no seal where none is named");
    let command = Command::new("seal")
        .about("Write the digests of closed partitions of history into the audit log")
        .long_about(
            "Writes the digest of each partition of outbox and attempt that is closed, two days after \
             its day, into the audit log. Reads them whole: a job for the night.",
        )
        .arg(partition)
        .arg(json())
        .after_help(SEAL_EXAMPLES);
    settings::arguments(command, |_| false)
}

fn verify_seals_command() -> Command {
    let partition = Arg::new("partition")
        .value_name("PARTITION")
        .help("One partition, such as attempt_20270131; all where none is named");
    let command = Command::new("verify-seals")
        .about("Compare sealed partitions with their seals: exit code 1 if one differs")
        .arg(partition)
        .arg(json())
        .after_help(VERIFY_SEALS_EXAMPLES);
    settings::arguments(command, |_| false)
}

const ENTRIES: &[Column] = &[
    ("entry", "entry", table::text),
    ("at", "at", time),
    ("actor", "actor", table::text),
    ("for", "application_user", table::text),
    ("action", "action", table::text),
    ("object", "object", table::text),
    ("reason", "reason", table::text),
];
const SEALED: &[Column] = &[
    ("partition", "partition", table::text),
    ("rows", "row_count", table::text),
    ("digest", "digest", table::text),
];
const SEALS: &[Column] = &[
    ("partition", "partition", table::text),
    ("sealed at", "sealed_at", time),
    ("intact", "intact", table::text),
    ("remark", "remark", table::text),
];

const EXAMPLES: &str = "\
The database is DATABASE_URL, or database_url in the --config file. An auditor may show and verify, an administrator also seal.

Examples:
  posthaste audit show --object university
  posthaste audit verify
  posthaste audit seal";
const SHOW_EXAMPLES: &str = "\
What an entry changed, from what to what, is in --json.

Examples:
  posthaste audit show
  posthaste audit show --limit 500 --object university --json";
const VERIFY_EXAMPLES: &str = "\
Examples:
  posthaste audit verify
  posthaste audit verify --known 34:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SEAL_EXAMPLES: &str = "\
Examples:
  posthaste audit seal
  posthaste audit seal attempt_20270131";
const VERIFY_SEALS_EXAMPLES: &str = "\
Examples:
  posthaste audit verify-seals
  posthaste audit verify-seals attempt_20270131";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_verify_prints_is_what_known_takes() {
        let digest = "ab".repeat(32);
        let said = verdict(&json!({"intact": true, "entries": 34, "last_digest": digest}));
        let kept = said.lines().last().unwrap_or_default();
        assert_eq!(known(kept), Ok((34, digest)));
        assert!(known("34").is_err() && known("34:abc").is_err() && known("x:y").is_err());
    }

    #[test]
    fn a_broken_log_names_its_first_broken_entry() {
        let found = json!({"intact": false, "first_broken": 5, "problem": "entry 5 is missing"});
        assert_eq!(verdict(&found), "BROKEN at entry 5: entry 5 is missing");
    }
}
