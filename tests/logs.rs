//! The log says what the closed list says, never a secret or a payload, and neither a storm nor a reader that sleeps can make it a danger.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use posthaste::telemetry::{LOG_EVENTS, LogEvent, log_table};
use posthaste::trial::partner::{Replies, Reply};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde_json::Value;

use crate::harness::{PATIENCE, Partner, World, http};

#[test]
fn the_documented_table_is_the_programs() {
    let page = std::fs::read_to_string(in_repository("docs/observability.md")).unwrap();
    let table = page
        .split_once("<!-- log:start -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- log:end -->"))
        .map(|(table, _)| table.trim());
    assert_eq!(
        table,
        Some(log_table().trim()),
        "docs/observability.md should have this between its marks for the log"
    );
}

#[test]
fn whatever_the_code_logs_is_in_the_closed_list_and_the_other_way_round() {
    let mut said = BTreeSet::new();
    for file in sources(&in_repository("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let tokens: TokenStream = text.parse().unwrap();
        for record in records(tokens) {
            let place = file.display();
            let Record {
                levels,
                fields,
                message,
            } = record.unwrap_or_else(|why| panic!("{place}: {why}"));
            let event = LogEvent::saying(&message)
                .unwrap_or_else(|| panic!("{place}: {message:?} is not in LOG_EVENTS"));
            let listed: Vec<String> = event.levels.iter().map(ToString::to_string).collect();
            for level in levels {
                assert!(listed.contains(&level), "{place}: {message:?} at {level}");
            }
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            assert_eq!(event.misfit(&fields), None, "{place}");
            said.insert(message);
        }
    }
    // Written by the far end of the log itself.
    let by_itself = |event: &&LogEvent| event.message.starts_with("log lines were ");
    for event in LOG_EVENTS.iter().filter(|event| !by_itself(event)) {
        assert!(said.contains(event.message), "nothing says {event:?}");
    }
    assert_eq!(LOG_EVENTS.iter().filter(by_itself).count(), 2);
}

#[test]
fn the_scanner_sees_through_other_macros_and_past_texts_and_comments() {
    let source = r#"
        // tracing::info!("in a comment");
        fn f() {
            let text = "tracing::info!(\"in a text\")";
            tokio::select! { () = a() => { tracing::warn!(%error, many = left.len(), "one") } }
            return tracing::error!(target: T, error.code = x.y(), shown = ?z, "two");
        }"#;
    let found: Vec<_> = records(source.parse().unwrap())
        .map(Result::unwrap)
        .map(|record| (record.message, record.fields.join(" ")))
        .collect();
    let expected = [("one", "error many"), ("two", "error.code shown")];
    assert_eq!(
        found,
        expected.map(|(message, fields)| (message.to_owned(), fields.to_owned()))
    );
    for unclear in [
        r#"tracing::info!("serving {PATHS}")"#,
        r#"f(); info!("bare")"#,
    ] {
        assert!(
            records(unclear.parse().unwrap()).any(|record| record.is_err()),
            "{unclear}"
        );
    }
}

#[tokio::test]
async fn a_worker_says_nothing_that_is_not_in_the_list_and_no_secret_and_no_payload() {
    let world = World::new().await;
    let partner = Partner::replying(Replies::by(|received| {
        Reply::Status(match received.path.split('?').next().unwrap_or_default() {
            "/good" => 200,
            "/strict" => 422,
            "/gone" => 410,
            _ => 500,
        })
    }))
    .await;
    world.subscribe("good", &partner, "1h").await;
    world.subscribe("retried", &partner, "1h").await;
    world.subscribe("exhausted", &partner, "").await;
    world.subscribe("strict", &partner, "1h").await;
    world
        .change("strict", r#"{"client_errors": "reject"}"#)
        .await;
    world.subscribe("gone", &partner, "1h").await;
    let url = partner.url("/query?key=hunter2");
    world.subscribe_url("query", &url, &["*"], None, "1h").await;
    world
        .subscribe_url("nowhere", "https://127.0.0.1:9/hunter2", &["*"], None, "1h")
        .await;
    let broken = world.subscribe("breaks", &partner, "1h").await;
    world
        .change(
            "breaks",
            r#"{"breaker": {"failures": 2, "ratio": null}, "headers": {"X-Team": "hunter2"}}"#,
        )
        .await;
    world
        .run("select posthaste.create_event_type('strict.type', 'with a schema', schema => '{\"type\": \"integer\"}')")
        .await;
    let worker = world
        .worker_process(&[
            ("log_format", "json"),
            ("log_level", "trace"),
            ("listen", "127.0.0.1:0"),
        ])
        .await;
    for event_type in ["a", "b", "strict.type"] {
        world
            .publish(event_type, r#"{"confidential": "hunter2"}"#)
            .await;
    }
    world
        .until(&format!(
            "exists (select from posthaste.quarantine)
             and exists (select from posthaste.lane where subscription_id = {broken} and breaker = 'open')
             and not exists (select from posthaste.intake) and not exists (select from posthaste.lease)"
        ))
        .await;
    world
        .run("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'posthaste%' and datname = current_database()")
        .await;
    worker.saying("registering anew").await;
    worker.terminate();
    let (_, log) = worker.ended_saying().await;
    for never in ["hunter2", "confidential", "whsec_", world.keys()] {
        assert!(!log.contains(never), "{never}\n{log}");
    }
    let mut said = BTreeSet::new();
    for line in log.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let is_ours = record["target"].as_str().unwrap().starts_with("posthaste");
        if is_ours {
            said.insert(fit(&record));
        } else {
            assert!(
                ["WARN", "ERROR"].contains(&record["level"].as_str().unwrap()),
                "{line}"
            );
        }
    }
    for message in [
        "attempt",
        "delivery given up",
        "operational event",
        "delivery quarantined",
        "the worker's session was lost; registering anew",
        "serving",
        "stopped",
    ] {
        assert!(said.contains(message), "{message:?} was never said\n{log}");
    }
}

#[tokio::test]
async fn each_attempt_has_a_line_where_that_is_wanted() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("good", &partner, "1h").await;
    let settings = [
        ("log_format", "json"),
        ("log_level", "error"),
        ("log_attempts", "all"),
    ];
    let worker = world.worker_process(&settings).await;
    let event = world.publish("a", "1").await.to_string();
    world.until_all_is_done().await;
    worker.terminate();
    let (_, log) = worker.ended_saying().await;
    let record: Value = serde_json::from_str(log.trim()).unwrap();
    assert_eq!(fit(&record), "attempt");
    let fields = &record["fields"];
    assert_eq!(
        (&fields["event_id"], &fields["outcome"], &fields["status"]),
        (&event.into(), &"accepted".into(), &200.into())
    );
}

/// Failures that are retried, and dead letters: each kind has a share of its own, and nothing is left out without being counted.
#[tokio::test]
async fn a_storm_writes_so_many_lines_a_second_and_tells_how_many_it_left_out() {
    const STORM: u64 = 400;
    let world = World::new().await;
    for (name, retry) in [("retried", "1h"), ("exhausted", "")] {
        world
            .subscribe_url(name, "https://127.0.0.1:9/", &["*"], None, retry)
            .await;
    }
    let settings = [
        ("log_format", "json"),
        ("log_attempts_per_second", "5"),
        ("listen", "127.0.0.1:0"),
    ];
    let worker = world.worker_process(&settings).await;
    let address = worker.telemetry_address().await;
    let begun = Instant::now();
    world.publish_many("a", 400).await;
    world
        .until("(select count(*) from posthaste.attempt) = 800 and not exists (select from posthaste.lease)")
        .await;
    let seconds = begun.elapsed().as_secs() + 3;
    // Each line was written, or is told of within a second.
    let told = async {
        while account(&worker.log())
            .values()
            .any(|kind| kind.all() < STORM)
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await;
    told.unwrap_or_else(|_| panic!("not all is accounted for\n{}", worker.log()));
    let account = account(&worker.log());
    for (message, a_second) in [("attempt", 5), ("delivery given up", 20)] {
        let Account { written, left_out } = account[message];
        assert_eq!(written + left_out, STORM, "{message}");
        assert!(written <= a_second * seconds, "{written} {message:?}");
        assert!(left_out > 0, "{message}");
    }
    let left_out: u64 = account.values().map(|kind| kind.left_out).sum();
    let line = format!("\nposthaste_log_lines_sampled_total {left_out}\n");
    let page = http::get(address, "/metrics").await.body;
    assert!(page.contains(&line), "no {line} in {page}");
    worker.terminate();
    assert!(worker.ended().await.success());
}

/// What became of the lines of one kind.
#[derive(Clone, Copy, Default)]
struct Account {
    written: u64,
    left_out: u64,
}

impl Account {
    fn all(self) -> u64 {
        self.written + self.left_out
    }
}

fn account(log: &str) -> BTreeMap<&'static str, Account> {
    let kinds = ["attempt", "delivery given up"];
    let mut account = BTreeMap::from(kinds.map(|kind| (kind, Account::default())));
    // The last line may be half written.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let fields = &record["fields"];
        for (kind, of) in &mut account {
            of.written += u64::from(fields["message"] == *kind);
            if fields["of"] == *kind {
                of.left_out += fields["left_out"].as_u64().unwrap();
            }
        }
    }
    account
}

#[tokio::test]
async fn a_worker_whose_output_nobody_reads_goes_on_within_its_memory_and_ends_in_time() {
    let world = World::new().await;
    world
        .subscribe_url("dead", "https://127.0.0.1:9/", &["storm"], None, "1h")
        .await;
    let partner = world.partner().await;
    world
        .subscribe_to("calm", &partner, &["calm"], None, "1h")
        .await;
    let settings = [
        ("log_attempts_per_second", "100000"),
        ("endpoint_concurrency", "256"),
    ];
    let worker = world.unread_worker_process(&settings).await;
    world.publish("calm", "1").await;
    partner.wait_for(1).await;
    let before = worker.peak_memory();
    // More than the pipe and the queue hold together.
    world.publish_many("storm", 8000).await;
    world
        .until("(select count(*) from posthaste.attempt) = 8001 and not exists (select from posthaste.lease)")
        .await;
    world.publish("calm", "2").await;
    partner.wait_for(2).await;
    let grown = worker.peak_memory() - before;
    assert!(grown < 64 * MIB, "it grew by {grown} bytes");
    let told = Instant::now();
    worker.terminate();
    assert!(worker.ended().await.success());
    assert!(told.elapsed() < IN_TIME, "{:?}", told.elapsed());
}

/// What a JSON record says, once it is seen to be as the list has it.
fn fit(record: &Value) -> String {
    let fields = record["fields"].as_object().unwrap();
    let message = fields["message"].as_str().unwrap();
    let event = LogEvent::saying(message).unwrap_or_else(|| panic!("not in the list: {record}"));
    let level = record["level"].as_str().unwrap();
    let levels: Vec<String> = event.levels.iter().map(ToString::to_string).collect();
    assert!(levels.iter().any(|listed| listed == level), "{record}");
    let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.retain(|name| *name != "message");
    if record.get("error").is_some() {
        names.extend(["error.code", "error.message"]);
    }
    assert_eq!(event.misfit(&names), None, "{record}");
    message.to_owned()
}

/// A call of one of the macros that log.
struct Record {
    levels: Vec<String>,
    fields: Vec<String>,
    message: String,
}

/// The calls of `tracing`'s macros in a source, wherever they stand, and those of our own macros around them.
fn records(tokens: TokenStream) -> Box<dyn Iterator<Item = Result<Record, String>>> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else {
            continue;
        };
        let before = |back: usize| {
            let token = at.checked_sub(back).and_then(|place| tokens.get(place));
            token.map(ToString::to_string).unwrap_or_default()
        };
        // In the definition of a macro of our own the level or the fields are not known; its calls tell.
        if before(3) == "macro_rules" {
            continue;
        }
        let path = [5, 4, 3, 2, 1].map(before).concat();
        if let Some(level) = path
            .strip_prefix("tracing::")
            .and_then(|p| p.strip_suffix('!'))
        {
            found.push(record(
                vec![level.to_uppercase()],
                &arguments(group.stream()),
            ));
        } else if path.ends_with("log_as!") {
            let all = ["INFO", "WARN", "ERROR"].map(str::to_owned).to_vec();
            let rest = arguments(group.stream()).split_off(1);
            found.push(record(all, &rest).map(|mut record| {
                let codes = ["error.code", "error.message"].map(str::to_owned);
                record.fields.extend(codes);
                record
            }));
        } else if path.ends_with("log_attempt!") {
            let level = arguments(group.stream())[0].to_uppercase();
            found.push(Ok(Record {
                levels: vec![level],
                fields: attempt_fields(),
                message: "attempt".to_owned(),
            }));
        } else if MACROS.contains(&path.rsplit(';').next().unwrap_or_default()) {
            found.push(Err(format!("{path} without `tracing::` before it")));
        } else {
            found.extend(records(group.stream()));
        }
    }
    Box::new(found.into_iter())
}

/// From the definition of the macro that logs attempts.
fn attempt_fields() -> Vec<String> {
    let text = std::fs::read_to_string(in_repository("src/telemetry/log.rs")).unwrap();
    let (_, body) = text.split_once("tracing::$log!(").unwrap();
    let (body, _) = body.split_once("\"attempt\"").unwrap();
    let names = body.lines().filter_map(|line| line.split_once(" = "));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

fn record(levels: Vec<String>, arguments: &[String]) -> Result<Record, String> {
    let (message, fields) = arguments.split_last().ok_or("says nothing")?;
    let literal = message.strip_prefix('"').and_then(|m| m.strip_suffix('"'));
    let message = literal
        .filter(|text| !text.contains(['{', '\\']))
        .ok_or(format!("{message} is no plain text"))?;
    let is_field = |argument: &&String| !argument.starts_with("target:");
    let name = |argument: &String| {
        let name = argument.split('=').next().unwrap_or_default();
        name.trim_start_matches(['%', '?']).to_owned()
    };
    Ok(Record {
        levels,
        fields: fields.iter().filter(is_field).map(name).collect(),
        message: message.to_owned(),
    })
}

/// What stands between the commas of a call, without spaces but in texts.
fn arguments(tokens: TokenStream) -> Vec<String> {
    let mut arguments = vec![String::new()];
    for token in tokens {
        match token {
            TokenTree::Punct(comma) if comma.as_char() == ',' => arguments.push(String::new()),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
                arguments.last_mut().unwrap().push_str("()");
            }
            other => arguments.last_mut().unwrap().push_str(&other.to_string()),
        }
    }
    arguments.retain(|argument| !argument.is_empty());
    arguments
}

/// The files of the worker and the program: all but those of trials and benchmarks.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_stem().unwrap_or_default();
        let is_left_out = name == "trial" || name == "bench" || path.ends_with("src/logging.rs");
        if is_left_out {
            continue;
        }
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

const MACROS: [&str; 5] = ["trace!", "debug!", "info!", "warn!", "error!"];
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const MIB: u64 = 1 << 20;
const IN_TIME: Duration = Duration::from_secs(10);
