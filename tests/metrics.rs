//! What `/metrics` says: all of the closed list, nothing else, and nothing that Prometheus' own tool objects to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::SystemTime;

use posthaste::sender::ClientIdentity;
use posthaste::telemetry::{Kind, METRICS, Metric, Values};
use posthaste::trial::authority::Authority;
use posthaste::trial::partner::Reply;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::database_loss::shut_out;
use crate::harness::{PATIENCE, Partner, World, admin, http};

#[tokio::test]
async fn each_metric_of_the_list_is_fed_and_says_what_happened() {
    let world = World::new().await;
    let _partners = subscribe_all_sorts(&world).await;
    // A worker that cannot lock the history for it at once tries again a minute later.
    world.run("select posthaste.create_partitions(7)").await;
    let worker = world.worker_process(OBSERVED).await;
    let address = worker.telemetry_address().await;
    let event = world.publish("thing.happened", r#"{"id": 1}"#).await;
    for _ in 0..2 {
        world
            .run("insert into posthaste.outbox (event_type, ordering_key, payload) values ('thing.ordered', 'k', '1')")
            .await;
    }
    world.publish("thing.strict", "[]").await;
    // No subscription wants it, and nobody has heard of it.
    world.publish("nobody.knows", "1").await;
    world
        .until("(select count(*) from posthaste.attempt where outcome in ('accepted', 'rejected', 'timed_out', 'unreachable')) >= 7 and exists (select from posthaste.quarantine)")
        .await;
    world
        .run(&format!(
            "select posthaste.replay_delivery('{event}', '{}', 'again')",
            AWKWARD.replace('\'', "''")
        ))
        .await;
    world
        .until("exists (select from posthaste.attempt where replay = 1 and outcome = 'accepted')")
        .await;
    // What waits for the one that fails is given up by a person.
    world
        .run(&format!(
            "select posthaste.cancel('{event}', 'a trial', 'failing')"
        ))
        .await;
    world
        .until("exists (select from posthaste.cancellation)")
        .await;
    // A statement that fails, and Postgres that is away for a moment.
    world
        .run("alter table posthaste.worker rename to worker_away")
        .await;
    told_in(
        address,
        &["\nposthaste_statement_failures_total{query=\"gone_workers\"}".to_owned()],
    )
    .await;
    world
        .run("alter table posthaste.worker_away rename to worker")
        .await;
    let admin = admin().await;
    shut_out(&world, &admin, true).await;
    told_in(address, &["\nposthaste_database_up 0\n".to_owned()]).await;
    shut_out(&world, &admin, false).await;
    told_in(
        address,
        &[
            "\nposthaste_database_up 1\n".to_owned(),
            "\nposthaste_observer 1\n".to_owned(),
        ],
    )
    .await;

    let names: Vec<String> = METRICS
        .iter()
        .map(|metric| format!("\n{}", metric.name))
        .collect();
    let page = told_in(address, &names).await;
    are_described(&page);
    let samples = samples_of_the_list(&page);
    let value = |sample: &str| {
        *samples
            .get(sample)
            .unwrap_or_else(|| panic!("{sample}\n{page}"))
    };
    // What was counted before Postgres was away counts still.
    for (sample, least) in [
        ("posthaste_events_taken_total", 5.0),
        ("posthaste_events_unknown_total", 1.0),
        ("posthaste_deliveries_made_total", 8.0),
        ("posthaste_deliveries_quarantined_total", 1.0),
        (
            r#"posthaste_attempts_total{outcome="accepted",verdict="done",status_class="2xx"}"#,
            4.0,
        ),
        (
            r#"posthaste_attempts_total{outcome="rejected",verdict="retry",status_class="5xx"}"#,
            1.0,
        ),
        (
            r#"posthaste_attempts_total{outcome="rejected",verdict="rejected",status_class="4xx"}"#,
            1.0,
        ),
        (
            r#"posthaste_attempts_total{outcome="timed_out",verdict="retry",status_class="none"}"#,
            1.0,
        ),
        (
            r#"posthaste_attempts_total{outcome="unreachable",verdict="exhausted",status_class="none"}"#,
            1.0,
        ),
        (
            r#"posthaste_deliveries_finished_total{status="SUCCESS"}"#,
            4.0,
        ),
        (
            r#"posthaste_deliveries_finished_total{status="REJECTED"}"#,
            1.0,
        ),
        (
            r#"posthaste_deliveries_finished_total{status="RETRY_EXHAUSTED"}"#,
            1.0,
        ),
        (
            r#"posthaste_deliveries_finished_total{status="CANCELLED"}"#,
            1.0,
        ),
        (
            r#"posthaste_attempt_phase_seconds_count{phase="first_byte"}"#,
            5.0,
        ),
        (r#"posthaste_attempt_phase_seconds_count{phase="tls"}"#, 1.0),
        ("posthaste_first_attempt_delay_seconds_count", 6.0),
        ("posthaste_success_delay_seconds_count", 3.0),
        (r#"posthaste_batch_rows_count{query="take"}"#, 1.0),
        (r#"posthaste_batch_rows_count{query="claim_waiting"}"#, 1.0),
        (r#"posthaste_batch_rows_count{query="record"}"#, 1.0),
        (
            r#"posthaste_operational_events_total{type="posthaste.delivery.rejected"}"#,
            1.0,
        ),
        (r#"posthaste_deliveries_owed{state="quarantined"}"#, 1.0),
        (r#"posthaste_deliveries_owed{state="waiting"}"#, 2.0),
        (r#"posthaste_lanes{state="paused"}"#, 1.0),
        ("posthaste_dead_letters_last_day", 2.0),
        ("posthaste_workers_alive", 1.0),
        ("posthaste_worker_settings", 1.0),
        ("posthaste_unknown_event_types", 1.0),
        ("posthaste_delivery_capacity", 4096.0),
        ("posthaste_byte_capacity", 67_108_864.0),
        ("posthaste_start_time_seconds", 1.7e9),
        ("posthaste_oldest_owed_seconds", 0.1),
        (
            r#"posthaste_partitions_ahead_seconds{history="attempt"}"#,
            6.0 * 86_400.0,
        ),
        (
            r#"posthaste_observation_timestamp_seconds{part="tables"}"#,
            1.7e9,
        ),
        (
            r#"posthaste_subscription_attempts_total{subscription="gone",outcome="unreachable"}"#,
            1.0,
        ),
        (
            r#"posthaste_subscription_failing_seconds{subscription="gone"}"#,
            0.1,
        ),
        (
            r#"posthaste_subscription_deliveries_owed{subscription="paused"}"#,
            1.0,
        ),
        (
            r#"posthaste_subscription_oldest_owed_seconds{subscription="paused"}"#,
            0.1,
        ),
        (AWKWARD_ACCEPTED, 4.0),
    ] {
        assert!(value(sample) >= least, "{sample} {}\n{page}", value(sample));
    }
    let waited = value("posthaste_first_attempt_delay_seconds_sum");
    assert!((0.0..PATIENCE.as_secs_f64()).contains(&waited), "{waited}");
    assert!(
        value("posthaste_clock_difference_seconds").abs() < 5.0,
        "{page}"
    );
    is_clean(&page).await;
}

/// A name that is hard to write into a label.
const AWKWARD: &str = r#"O'Brien "the \ Bär", {鸟} = 1"#;
const AWKWARD_ACCEPTED: &str = r#"posthaste_subscription_attempts_total{subscription="O'Brien \"the \\ Bär\", {鸟} = 1",outcome="accepted"}"#;

/// One that accepts, and others that fail, each in its way.
async fn subscribe_all_sorts(world: &World) -> Vec<Partner> {
    let well = Partner::replying(Reply::Status(200)).await;
    world
        .subscribe_url(
            AWKWARD,
            &well.url("/well"),
            &["thing.happened", "thing.ordered"],
            None,
            "1h",
        )
        .await;
    let mut partners = vec![well];
    for (name, reply, retry) in [
        ("failing", Reply::Status(500), "1h"),
        ("refusing", Reply::Status(422), "1h"),
        ("hanging", Reply::Hang, "1h"),
        ("gone", Reply::Reset, ""),
        ("strict", Reply::Status(200), "1h"),
        ("paused", Reply::Status(200), "1h"),
    ] {
        let partner = Partner::replying(reply).await;
        let event_type = if name == "strict" {
            "thing.strict"
        } else {
            "thing.happened"
        };
        world
            .subscribe_to(name, &partner, &[event_type], None, retry)
            .await;
        partners.push(partner);
    }
    world
        .change("refusing", r#"{"client_errors": "reject"}"#)
        .await;
    world
        .run(
            r#"select posthaste.change_event_type('thing.strict', '{"schema": {"type": "object"}}');
               select posthaste.deactivate('paused', 'a trial')"#,
        )
        .await;
    partners
}

#[tokio::test]
async fn one_worker_at_a_time_shows_what_the_database_says_and_another_goes_on() {
    let world = World::new().await;
    let first = world.worker_process(OBSERVED).await;
    let address = first.telemetry_address().await;
    let shows = |count: &str| format!("\nposthaste_workers_alive {count}\n");
    told_in(address, &[shows("1")]).await;
    let second = world.worker_process(OBSERVED).await;
    let other = second.telemetry_address().await;
    told_in(
        address,
        &[shows("2"), "\nposthaste_observer 1\n".to_owned()],
    )
    .await;
    let page = told_in(other, &["\nposthaste_worker_registered 1\n".to_owned()]).await;
    assert!(page.contains("\nposthaste_observer 0\n"), "{page}");
    for metric in METRICS
        .iter()
        .filter(|metric| metric.origin.word() == "database")
    {
        assert!(
            !page.contains(&format!("# TYPE {} ", metric.name)),
            "{page}"
        );
    }
    first.kill().await;
    told_in(other, &[shows("1"), "\nposthaste_observer 1\n".to_owned()]).await;
}

#[tokio::test]
async fn figures_of_a_database_that_is_away_are_gone_at_once_and_come_back() {
    let world = World::new().await;
    let worker = world.worker_process(OBSERVED).await;
    let address = worker.telemetry_address().await;
    told_in(address, &["\nposthaste_oldest_owed_seconds 0\n".to_owned()]).await;
    let admin = admin().await;
    shut_out(&world, &admin, true).await;
    let page = told_in(
        address,
        &[
            "\nposthaste_database_up 0\n".to_owned(),
            "\nposthaste_observer 0\n".to_owned(),
        ],
    )
    .await;
    assert!(page.contains("\nposthaste_worker_registered 0\n"), "{page}");
    assert!(!page.contains("posthaste_oldest_owed_seconds"), "{page}");
    shut_out(&world, &admin, false).await;
    told_in(
        address,
        &[
            "\nposthaste_database_up 1\n".to_owned(),
            "\nposthaste_oldest_owed_seconds 0\n".to_owned(),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_a_worker_without_a_session_reads_to_the_end_is_not_shown_and_what_it_showed_is_gone()
{
    let world = World::new().await;
    let slow = "create or replace function posthaste.owed_by_subscription() returns table (subscription_id integer, since timestamptz, deliveries bigint)
        language sql begin atomic select null::integer, now(), 1::bigint from pg_catalog.pg_sleep(100); end";
    world.run(slow).await;
    world
        .subscribe_url("p", "https://127.0.0.1:1/", &["*"], None, "1h")
        .await;
    let worker = world.worker_process(OBSERVED).await;
    let address = worker.telemetry_address().await;
    let figures = "\nposthaste_table_bytes{".to_owned();
    told_in(address, std::slice::from_ref(&figures)).await;
    world
        .until("exists (select from pg_stat_activity where state = 'active' and query ~ 'from posthaste.subscription_figures' and pid <> pg_backend_pid())")
        .await;
    let admin = admin().await;
    let database = world.text("select current_database()::text").await;
    let let_in = |is: bool| format!("alter database {database} allow_connections {is}");
    admin.batch_execute(&let_in(false)).await.unwrap();
    world
        .run("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'posthaste listener'")
        .await;
    let page = told_in(address, &["\nposthaste_worker_registered 0\n".to_owned()]).await;
    assert!(page.contains("\nposthaste_observer 0\n"), "{page}");
    assert!(!page.contains("posthaste_table_bytes"), "{page}");
    admin.batch_execute(&let_in(true)).await.unwrap();
    told_in(address, &[figures, "\nposthaste_observer 1\n".to_owned()]).await;
}

#[tokio::test]
async fn neither_ten_thousand_event_types_nor_two_thousand_subscriptions_make_a_page_of_a_mebibyte()
{
    let world = World::new().await;
    world
        .run(
            "update posthaste.setting set four_eyes = false;
             insert into posthaste.event_type (event_type, description)
             select 'type.n' || n, 'for a test' from generate_series(1, 10000) n;
             select count(posthaste.approve(posthaste.propose_subscription(
                 n || repeat('鸟', 96), 'https://127.0.0.1:1/' || n, array['type.n' || n], retry_intervals => '{1h}', breaker => null)))
             from generate_series(1, 2000) n",
        )
        .await;
    let worker = world
        .worker_process(&[OBSERVED, &[("metrics_top", "200")]].concat())
        .await;
    let address = worker.telemetry_address().await;
    world
        .run("insert into posthaste.outbox (event_type, payload) select 'type.n' || n, '1' from generate_series(1, 10000) n")
        .await;
    world.until("(select count(*) from posthaste.attempt) = 2000 and not exists (select from posthaste.intake)").await;
    let taken = "\nposthaste_events_taken_total 10000\n".to_owned();
    let owed = "\nposthaste_deliveries_owed{state=\"waiting\"} 2000\n".to_owned();
    let page = told_in(
        address,
        &[
            taken,
            owed,
            "\nposthaste_subscription_oldest_owed_seconds{".to_owned(),
        ],
    )
    .await;
    assert!(page.len() < 1024 * 1024, "{}", page.len());
    assert!(page.len() > 256 * 1024, "{}", page.len());
    assert!(!page.contains("type.n"), "{page}");
    is_clean(&page).await;
}

#[tokio::test]
async fn what_waits_for_a_person_is_in_the_metrics() {
    let world = World::new().await;
    world
        .subscribe_url("p", "https://127.0.0.1:1/", &["*"], None, "1h")
        .await;
    world
        .change("p", r#"{"headers": {"Authorization": {"secret": true}}}"#)
        .await;
    world
        .run(
            "select posthaste.set_four_eyes(false, 'a trial');
             update posthaste.signing_secret set created_at = now() - interval '91 days'",
        )
        .await;
    let worker = world.worker_process(OBSERVED).await;
    let address = worker.telemetry_address().await;
    let expected = [
        "posthaste_four_eyes 0\n",
        "posthaste_secrets_overdue 1\n",
        "posthaste_secrets_missing 1\n",
    ];
    told_in(address, &expected.map(str::to_owned)).await;
}

#[tokio::test]
async fn the_end_of_the_first_client_certificate_is_in_the_metrics() {
    let world = World::new().await;
    let (certificate, key) = Authority::new().unwrap().client_pem("us").unwrap();
    let id = world
        .subscribe_url("p", "https://127.0.0.1:1/", &["*"], None, "1h")
        .await;
    let terms = serde_json::json!({"tls": {"certificate": certificate}});
    world.change("p", &terms.to_string()).await;
    world.set_credential("p", id, ":client_key", &key).await;
    let worker = world.worker_process(&[("listen", "127.0.0.1:0")]).await;
    let address = worker.telemetry_address().await;
    let told = |number: &str| [format!("\n{CERTIFICATE_EXPIRY} {number}\n")];
    told_in(address, &told("NaN")).await;
    world.publish("thing.happened", "{}").await;
    let end = ClientIdentity::from_pem(certificate.as_bytes(), key.as_bytes())
        .unwrap()
        .not_after();
    let seconds = end
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    told_in(address, &told(&seconds.to_string())).await;
    // Nothing is shown to a partner that is gone.
    world.agree("propose_removal('p', 'a trial')").await;
    told_in(address, &told("NaN")).await;
}

/// `/metrics` once each of `parts` is in it: what a worker reads from the tables is told only when it was read.
async fn told_in(address: SocketAddr, parts: &[String]) -> String {
    let mut page = String::new();
    let told = async {
        loop {
            page = http::get(address, "/metrics").await.body;
            if parts.iter().all(|part| page.contains(part)) {
                return;
            }
        }
    };
    if tokio::time::timeout(PATIENCE, told).await.is_err() {
        let missing = parts.iter().filter(|part| !page.contains(*part));
        panic!("never told: {:?}\n{page}", missing.collect::<Vec<_>>());
    }
    page
}

/// Every metric of the list has its meaning and its kind.
fn are_described(page: &str) {
    for Metric {
        name,
        kind,
        meaning,
        ..
    } in METRICS
    {
        let kind = kind.word();
        assert!(
            page.contains(&format!("# HELP {name} {meaning}\n")),
            "{name}\n{page}"
        );
        assert!(
            page.contains(&format!("# TYPE {name} {kind}\n")),
            "{name}\n{page}"
        );
    }
}

/// Each sample of a page with its value. Fails where one is of no metric of the list, has not the labels of its metric, or where a label says what it cannot.
fn samples_of_the_list(page: &str) -> BTreeMap<&str, f64> {
    let lines = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let samples = lines.map(|line| {
        let (sample, value) = line.rsplit_once(' ').unwrap();
        is_of_the_list(sample);
        (sample, value.parse().unwrap())
    });
    samples.collect()
}

fn is_of_the_list(sample: &str) {
    let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
    let is_of = |metric: &&Metric| match name.strip_prefix(metric.name) {
        Some("") => metric.kind != Kind::Histogram,
        Some("_bucket" | "_sum" | "_count") => metric.kind == Kind::Histogram,
        _ => false,
    };
    let metric = METRICS
        .iter()
        .find(is_of)
        .unwrap_or_else(|| panic!("{sample}"));
    let labels: Vec<(String, String)> = labels_in(labels.strip_suffix('}').unwrap());
    let own = labels.iter().filter(|(label, _)| label != "le");
    assert_eq!(own.count(), metric.labels.len(), "{sample}");
    for label in metric.labels {
        let (_, value) = labels.iter().find(|(name, _)| name == label.name).unwrap();
        match label.values {
            Values::Closed(values) => assert!(values.contains(&value.as_str()), "{sample}"),
            Values::TopList => assert!(!value.is_empty(), "{sample}"),
        }
    }
}

/// The labels of a sample, with their values as they were before they were escaped.
fn labels_in(text: &str) -> Vec<(String, String)> {
    let (mut labels, mut rest) = (Vec::new(), text);
    while let Some((name, quoted)) = rest.split_once("=\"") {
        let (mut value, mut letters) = (String::new(), quoted.char_indices());
        let end = loop {
            match letters.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => value.push(letters.next().unwrap().1),
                (_, letter) => value.push(letter),
            }
        };
        labels.push((name.trim_start_matches(',').to_owned(), value));
        rest = &quoted[end + 1..];
    }
    labels
}

/// Prometheus' own tool has nothing to say against a page.
async fn is_clean(page: &str) {
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = match tool {
        Ok(tool) => tool,
        Err(error) => {
            let is_needed =
                std::env::var_os("POSTHASTE_MONITORING").is_some_and(|all| all == "all");
            assert!(
                !is_needed,
                "POSTHASTE_MONITORING=all, and promtool cannot be run: {error}"
            );
            return eprintln!("left out: promtool is not installed, so no page is checked with it");
        }
    };
    let mut input = tool.stdin.take().unwrap();
    input.write_all(page.as_bytes()).await.unwrap();
    drop(input);
    let said = tool.wait_with_output().await.unwrap();
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.trim().is_empty(), "{text}");
}

const CERTIFICATE_EXPIRY: &str = "posthaste_client_certificate_expiry_timestamp_seconds";

/// Settings of a worker that is asked, and that looks often. It waits for no answer for long.
const OBSERVED: &[(&str, &str)] = &[
    ("listen", "127.0.0.1:0"),
    ("observe_interval", "1s"),
    ("request_timeout", "1s"),
];
