//! What operators see in a terminal: each finding with what helps, exit codes for scripts, and a live screen that leaves no trace.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::harness::{Database, Login, PATIENCE, Said, World, posthaste, program};

#[tokio::test]
async fn without_a_worker_it_is_critical_and_says_what_to_run() {
    let desk = Desk::open().await;
    let said = desk.status(&[]).await;
    assert_eq!(said.code, 4, "{said:?}");
    let first = said.stdout.lines().next().unwrap();
    assert!(first.starts_with("CRITICAL no_worker"), "{said:?}");
    assert!(
        first.contains("posthaste run") && first.ends_with("docs/runbook.md#no_worker"),
        "{said:?}"
    );
    assert!(
        said.stdout.contains("\nworkers       none alive"),
        "{said:?}"
    );
}

#[tokio::test]
async fn with_a_worker_and_nothing_owed_all_is_well() {
    let desk = Desk::open().await;
    let worker = desk.world.worker(&[]).await;
    let (code, status) = desk.json().await;
    assert_eq!(code, 0, "{status}");
    assert_eq!(
        (&status["worst"], &status["findings"]),
        (&Value::Null, &json!([]))
    );
    assert_eq!(status["figures"]["workers_alive"], json!(1.0));
    let alive = &status["workers"][0];
    assert_eq!(alive["version"], json!(env!("CARGO_PKG_VERSION")));
    let said = desk.status(&[]).await;
    assert!(
        said.stdout.starts_with("well: nothing was found\n"),
        "{said:?}"
    );
    drop(worker);
}

#[tokio::test]
async fn what_is_worst_comes_first_with_its_subscription_and_decides_the_exit_code() {
    let desk = Desk::open().await;
    let partner = desk.world.partner().await;
    desk.world.subscribe("bank", &partner, "1h").await;
    desk.world
        .change(
            "bank",
            r#"{"breaker": {"failures": 3, "open_for": "1 hour"}}"#,
        )
        .await;
    let worker = desk.world.worker(&[]).await;
    // Of its breaker, half an hour ago, as nobody wants to wait for.
    desk.world
        .until("exists (select from posthaste.lane)")
        .await;
    desk.world
        .run(
            "update posthaste.lane set breaker = 'open', hold_until = now() + interval '1 hour', failures = 9,
             failing_since = now() - interval '40 min', breaker_since = now() - interval '40 min';
             select posthaste.set_four_eyes(false, 'a holiday')",
        )
        .await;
    let (code, status) = desk.json().await;
    assert_eq!(code, 3, "{status}");
    let breaker = finding(&status, "breaker_open");
    assert_eq!(
        (
            &breaker["severity"],
            &breaker["subscription"],
            &breaker["runbook"]
        ),
        (
            &json!("warning"),
            &json!("bank"),
            &json!("docs/runbook.md#breaker_open")
        )
    );
    let severities: Vec<&str> = status["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(severity)
        .collect();
    assert!(
        severities.is_sorted_by_key(|severity| rank(severity)),
        "{status}"
    );
    assert_eq!(
        (severities.first(), severities.last()),
        (Some(&"warning"), Some(&"info"))
    );
    assert!(
        status["figures"]["subscription_breaker_open_seconds"]["bank"].as_f64() >= Some(2400.0),
        "{status}"
    );
    drop(worker);
    let said = desk.status(&[]).await;
    assert_eq!(said.code, 4, "{said:?}");
    let codes: Vec<&str> = said
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(codes.first(), Some(&"CRITICAL"), "{said:?}");
    assert!(said.stdout.contains("breaker open for 40 min"), "{said:?}");
}

#[tokio::test]
async fn who_waits_in_quarantine_is_told_of_and_counted() {
    let desk = Desk::open().await;
    let partner = desk.world.partner().await;
    desk.world
        .subscribe_to("bank", &partner, &["student.enrolled"], None, "1h")
        .await;
    desk.world
        .run(r#"select posthaste.change_event_type('student.enrolled', '{"schema": {"type": "object"}}')"#)
        .await;
    let worker = desk.world.worker(&[]).await;
    desk.world.publish("student.enrolled", "7").await;
    desk.world
        .until("exists (select from posthaste.quarantine)")
        .await;
    let (code, status) = desk.json().await;
    assert_eq!(code, 3, "{status}");
    assert_eq!(
        status["figures"]["deliveries_owed"]["quarantined"],
        json!(1.0)
    );
    let quarantined = finding(&status, "quarantined");
    let command = quarantined["command"].as_str().unwrap();
    assert!(command.contains("posthaste."), "{status}");
    drop(worker);
}

#[tokio::test]
async fn rates_are_those_of_the_last_seconds_and_tell_failures_apart() {
    let desk = Desk::open().await;
    let partner = desk.world.partner().await;
    desk.world.subscribe("bank", &partner, "1h").await;
    desk.world
        .subscribe_url("nobody", "https://127.0.0.1:1/", &["*"], None, "1h")
        .await;
    let worker = desk.world.worker(&[]).await;
    // Long before the time over which rates are taken.
    desk.world.publish_old("student.enrolled", 50).await;
    desk.world.publish_many("student.enrolled", 20).await;
    desk.world
        .until("(select count(*) from posthaste.attempt) = 140")
        .await;
    drop(worker);
    let within_a_minute = async |which: &str| {
        let sum = "select round(60 * sum(value))::bigint from posthaste.recent_rates(60) where";
        desk.world.count(&format!("{sum} {which}")).await
    };
    let rates = [
        within_a_minute("figure = 'events_per_second'").await,
        within_a_minute("figure = 'attempts_per_second' and label = 'accepted'").await,
        within_a_minute("figure = 'attempts_per_second' and label = 'unreachable'").await,
        within_a_minute("figure = 'attempts_per_second'").await,
    ];
    assert_eq!(rates, [20, 70, 70, 140]);
}

#[tokio::test]
async fn a_database_that_is_not_there_or_not_migrated_is_an_error_that_says_what_to_do() {
    let gone = [("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")];
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--watch"],
    ] {
        let said = posthaste(arguments, &gone, "").await;
        said.denied_with("database: ");
        assert!(said.stderr.contains("hint: is Postgres up"), "{said:?}");
    }
    let empty = Database::empty().await;
    let said = posthaste(&["status"], &[("DATABASE_URL", &empty.url)], "").await;
    said.denied_with("schema: ");
    assert!(said.stderr.contains("posthaste migrate"), "{said:?}");
}

#[tokio::test]
async fn who_may_not_know_of_all_partners_is_refused() {
    let desk = Desk::open().await;
    let admin = desk.world.login("posthaste_admin").await;
    let scope = format!(
        "select posthaste.set_partner_scope('{}', '{{north}}', 'theirs alone')",
        admin.name
    );
    desk.world.run(&scope).await;
    let said = posthaste(&["status"], &[("DATABASE_URL", &admin.url)], "").await;
    assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{said:?}");
}

#[tokio::test]
async fn a_pause_that_is_out_of_bounds_is_bad_usage() {
    for every in ["0s", "999ms", "61m", "soon"] {
        let said = posthaste(&["status", "--watch", "--every", every], &[], "").await;
        said.refused_with(every);
    }
    posthaste(&["status", "--watch", "--json"], &[], "")
        .await
        .refused_with("--json");
}

#[tokio::test]
async fn without_a_terminal_the_watch_is_block_after_block_until_it_is_told_to_stop() {
    let desk = Desk::open().await;
    for signal in ["TERM", "INT", "HUP"] {
        let mut watch = Watch::start(&desk.auditor.url);
        for _ in 0..2 {
            watch.until("CRITICAL no_worker").await;
            watch.until("workers       none alive").await;
        }
        watch.signal(signal).await;
        assert_eq!(watch.ended().await, 0, "{signal}");
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_the_watch_in_peace() {
    let desk = Desk::open().await;
    let mut watch = Watch::start(&desk.auditor.url);
    watch.until("CRITICAL no_worker").await;
    assert_eq!(watch.left().await, 0);
}

#[tokio::test]
async fn a_database_that_is_lost_is_told_of_and_read_again_once_it_is_back() {
    let desk = Desk::open().await;
    let mut watch = Watch::start(&desk.auditor.url);
    watch.until("CRITICAL no_worker").await;
    let auditor = &desk.auditor.name;
    let shut_out = format!(
        "alter role {auditor} nologin;
         select pg_terminate_backend(pid) from pg_stat_activity where usename = '{auditor}'"
    );
    desk.world.run(&shut_out).await;
    watch.until("cannot read since ").await;
    desk.world.run(&format!("alter role {auditor} login")).await;
    watch.until("CRITICAL no_worker").await;
    watch.signal("TERM").await;
    assert_eq!(watch.ended().await, 0);
}

#[tokio::test]
async fn in_a_terminal_it_is_a_screen_and_every_way_out_restores_it() {
    if !has_python().await {
        eprintln!("SKIPPED: there is no python3, whose pty would be the terminal");
        return;
    }
    let desk = Desk::open().await;
    // q, Escape, Ctrl-C, and what others send.
    for ending in ["71", "1b", "03", "SIGTERM", "SIGHUP", "SIGINT"] {
        let ended = desk.in_terminal(12, 40, ending, &[]).await;
        assert_eq!(ended["code"], json!(0), "{ending}: {ended}");
        assert_eq!(
            (&ended["is_raw"], &ended["is_restored"]),
            (&json!(true), &json!(true)),
            "{ending}: {ended}"
        );
        let written = ended["written"].as_str().unwrap();
        let (screen, after) = written
            .rsplit_once(LEAVE)
            .unwrap_or_else(|| panic!("{ending}: {ended}"));
        assert!(
            screen.contains(ENTER) && screen.contains("no_worker"),
            "{ending}: {ended}"
        );
        assert!(!after.contains("no_worker"), "{ending}: {ended}");
        // The cursor was hidden, and is back.
        assert!(
            written.rfind("\u{1b}[?25h") > written.rfind("\u{1b}[?25l"),
            "{ending}: {ended}"
        );
        assert!(screen.contains(RED), "{ending}: {ended}");
    }
}

#[tokio::test]
async fn a_terminal_that_wants_no_colour_gets_none_and_a_dumb_one_blocks() {
    if !has_python().await {
        eprintln!("SKIPPED: there is no python3, whose pty would be the terminal");
        return;
    }
    let desk = Desk::open().await;
    let plain = desk.in_terminal(24, 80, "71", &[("NO_COLOR", "1")]).await;
    let written = plain["written"].as_str().unwrap();
    assert!(written.contains(ENTER) && !written.contains(RED), "{plain}");
    let dumb = desk
        .in_terminal(24, 80, "SIGTERM", &[("TERM", "dumb")])
        .await;
    let written = dumb["written"].as_str().unwrap();
    assert!(!written.contains('\u{1b}'), "{dumb}");
    assert_eq!(dumb["code"], json!(0), "{dumb}");
}

/// An operator's desk: a world, and an auditor's login.
struct Desk {
    world: World,
    auditor: Login,
}

impl Desk {
    async fn open() -> Self {
        let world = World::new().await;
        // A world is made without them.
        world.run("select posthaste.create_partitions(7)").await;
        let auditor = world.login("posthaste_auditor").await;
        Self { world, auditor }
    }

    async fn status(&self, arguments: &[&str]) -> Said {
        let arguments = [&["status"], arguments].concat();
        posthaste(&arguments, &[("DATABASE_URL", &self.auditor.url)], "").await
    }

    async fn json(&self) -> (i32, Value) {
        let said = self.status(&["--json"]).await;
        let status = serde_json::from_str(&said.stdout);
        (
            said.code,
            status.unwrap_or_else(|error| panic!("{error}: {said:?}")),
        )
    }

    /// `--watch` in a terminal of this size that is resized once and then ended; see terminal.py.
    async fn in_terminal(
        &self,
        rows: u16,
        columns: u16,
        ending: &str,
        environment: &[(&str, &str)],
    ) -> Value {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/status/terminal.py");
        let output = Command::new("python3")
            .args([script, &rows, &columns, "no_worker", ending])
            .args([
                env!("CARGO_BIN_EXE_posthaste"),
                "status",
                "--watch",
                "--every",
                "1s",
            ])
            .env_remove("NO_COLOR")
            .env("TERM", "xterm-256color")
            .env("DATABASE_URL", &self.auditor.url)
            .envs(environment.iter().copied())
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

async fn has_python() -> bool {
    let python = Command::new("python3")
        .args(["-c", "import pty"])
        .status()
        .await;
    python.is_ok_and(|status| status.success())
}

/// `posthaste status --watch` whose output is a pipe.
struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(url: &str) -> Self {
        let arguments = ["status", "--watch", "--every", "1s"];
        let mut child = program(&arguments, &[("DATABASE_URL", url)])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads on until a line begins with this.
    async fn until(&mut self, beginning: &str) {
        let mut before = Vec::new();
        let found = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if line.starts_with(beginning) {
                    return true;
                }
                before.push(line);
            }
            false
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        assert!(found == Ok(true), "no {beginning:?} in {before:#?}");
    }

    async fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.child.id().unwrap());
        let sent = Command::new("sh").args(["-c", &script]).status().await;
        assert!(sent.unwrap().success());
    }

    /// Reads to the end, and tells its exit code.
    async fn ended(mut self) -> i32 {
        let all = async { while self.lines.next_line().await.unwrap().is_some() {} };
        let all = tokio::time::timeout(PATIENCE, all).await;
        assert!(all.is_ok(), "it goes on");
        self.left().await
    }

    /// Reads no more, and tells its exit code.
    async fn left(self) -> i32 {
        let Self { mut child, lines } = self;
        drop(lines);
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        let mut said = String::new();
        let mut stderr = child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "");
        ended.unwrap().unwrap().code().unwrap_or(-1)
    }
}

fn finding<'s>(status: &'s Value, code: &str) -> &'s Value {
    let findings = status["findings"].as_array().unwrap();
    let found = findings
        .iter()
        .find(|finding| finding["finding"] == json!(code));
    found.unwrap_or_else(|| panic!("no {code} in {status}"))
}

fn severity(finding: &Value) -> &str {
    finding["severity"].as_str().unwrap()
}

fn rank(severity: &str) -> usize {
    ["critical", "warning", "info"]
        .iter()
        .position(|is| *is == severity)
        .unwrap()
}

/// Into the terminal's other screen, and back.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
const RED: &str = "38;5;1;";
