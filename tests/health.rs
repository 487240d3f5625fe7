//! What operators and machines are told of how things stand: since when, for whom, and what helps. Nothing that is owed is left out.

use std::collections::BTreeMap;

use posthaste::store::{Figure, Presence, Store};
use tokio_postgres::error::SqlState;

use crate::harness::{Said, World, posthaste};

/// A world in which all is well: a subscription `harbour`, partitions, and this session for a worker.
async fn quiet() -> World {
    let world = World::new().await;
    let harbour = world
        .subscribe_url("harbour", "https://harbour.example/", &["*"], None, "1h")
        .await;
    let secret = posthaste::secret::SigningSecret::generate().unwrap();
    world.add_secret(harbour, &secret).await;
    world.run(BACKDROP).await;
    assert_eq!(found(&world).await, "");
    world
}

/// The findings, each as its severity, its code and its subscription.
async fn found(world: &World) -> String {
    world
        .text("select string_agg(concat_ws(' ', severity, finding, subscription), ', ') from posthaste.health")
        .await
}

/// The same where these statements were run, which are undone.
async fn found_after(world: &World, statements: &str) -> String {
    world.run(&format!("begin; {statements}")).await;
    let found = found(world).await;
    world.run("rollback").await;
    found
}

#[tokio::test]
async fn nothing_is_found_while_a_worker_delivers_and_that_none_is_alive_once_it_is_gone() {
    let world = World::new().await;
    let partner = world.partner().await;
    world
        .subscribe_to("harbour", &partner, &["thing.happened"], None, "1h")
        .await;
    world.run("select posthaste.create_partitions(7)").await;
    let worker = world.worker(&[]).await;
    world.publish("thing.happened", "{}").await;
    partner.wait_for(1).await;
    world.until_all_is_done().await;
    world
        .until("not exists (select from posthaste.health)")
        .await;
    worker.stop().await.unwrap();
    assert_eq!(found(&world).await, "critical no_worker");
    assert!(
        world
            .holds("(select since > now() - interval '1 minute' from posthaste.health)")
            .await
    );
}

#[tokio::test]
async fn each_finding_is_made_beyond_its_threshold_and_not_before() {
    let world = quiet().await;
    for (less, more, says) in FINDINGS {
        assert_eq!(found_after(&world, less).await, "", "{less}");
        assert_eq!(found_after(&world, more).await, *says, "{more}");
    }
}

#[tokio::test]
async fn each_finding_says_what_helps_and_that_can_be_run() {
    let world = quiet().await;
    let mut heads = BTreeMap::new();
    for (_, more, _) in FINDINGS {
        world.run(&format!("begin; {more}")).await;
        let rows = "select finding, detail, command, runbook from posthaste.health";
        for row in world.db.query(rows, &[]).await.unwrap() {
            let [finding, detail, command, runbook]: [String; 4] =
                [row.get(0), row.get(1), row.get(2), row.get(3)];
            assert_eq!(runbook, format!("docs/runbook.md#{finding}"));
            assert!(!detail.is_empty() && !command.is_empty(), "{finding}");
            if command.starts_with("select ") {
                let plan = format!("savepoint s; explain {command}; rollback to s");
                let plan = world.db.batch_execute(&plan).await;
                assert!(plan.is_ok(), "{command}: {plan:?}");
            } else if let Some(words) = command.strip_prefix("posthaste ") {
                let words: Vec<String> = words
                    .split(' ')
                    .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()))
                    .map(str::to_owned)
                    .collect();
                heads.insert(words, command);
            } else {
                assert!(
                    command.starts_with("vacuum (verbose, analyze) posthaste.")
                        || command.starts_with("rollback prepared "),
                    "{command}"
                );
            }
        }
        world.run("rollback").await;
    }
    assert!(heads.len() > 4, "{heads:?}");
    for (mut words, command) in heads {
        // What follows the command's own words is a name, and --help wins over both.
        let known = loop {
            let arguments: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
            let Said { code, stdout, .. } = posthaste(&arguments, &[], "").await;
            if code == 0 || words.is_empty() {
                break stdout;
            }
            words.pop();
        };
        assert!(!words.is_empty(), "{command}");
        for option in command.split(' ').filter(|word| word.starts_with("--")) {
            assert!(known.contains(option), "{command}: no {option}");
        }
    }
}

#[tokio::test]
async fn a_name_is_one_word_of_the_command_line_whatever_it_is() {
    let world = World::new().await;
    for (name, word) in [
        ("harbour-2", "harbour-2"),
        ("--all", "'--all'"),
        ("o'hara; rm", r"'o'\''hara; rm'"),
        ("$HOME", "'$HOME'"),
    ] {
        let said: String = world
            .db
            .query_one("select posthaste.shell_word($1)", &[&name])
            .await
            .unwrap()
            .get(0);
        assert_eq!(said, word);
    }
}

#[tokio::test]
async fn the_worst_comes_first_and_then_what_has_lasted_longest() {
    let world = quiet().await;
    let all = "update posthaste.setting set four_eyes = false;
        update posthaste.worker set clock_difference = 61;
        update posthaste.lane set failing_since = now() - interval '1 hour', failures = 7, breaker = 'open', breaker_since = now() - interval '2 hours'";
    assert_eq!(
        found_after(&world, all).await,
        "critical clock_off, warning breaker_open harbour, warning subscription_failing harbour, info four_eyes_off"
    );
}

#[tokio::test]
async fn whatever_keeps_a_delivery_its_age_is_told() {
    let world = quiet().await;
    for (what, minutes) in AGES {
        world.run(&format!("begin; {what}")).await;
        let [all, of_one]: [i64; 2] = [
            world.count("select round(value / 60)::bigint from posthaste.figures(1000) where figure = 'oldest_owed_seconds'").await,
            world.count("select coalesce((select round(value / 60)::bigint from posthaste.subscription_figures(5, '{harbour}')
                where figure = 'subscription_oldest_owed_seconds' and label = 'harbour'), -1)").await,
        ];
        world.run("rollback").await;
        assert_eq!(all, *minutes, "over all: {what}");
        let is_intake = what.contains("-- intake");
        assert_eq!(
            of_one,
            if is_intake { 0 } else { *minutes },
            "of harbour: {what}"
        );
    }
}

#[tokio::test]
async fn an_age_stands_on_no_more_than_what_is_looked_at_and_on_all_of_it() {
    let world = quiet().await;
    // Behind a thousand that were postponed until ten minutes ago is one that has been owed for an hour.
    world
        .run(
            "select pg_temp.waiting(pg_temp.event(interval '3 hours' - n * interval '1 s', now() - interval '10 minutes')) from generate_series(1, 1000) n;
             select pg_temp.waiting(pg_temp.event('1 hour'))",
        )
        .await;
    let minutes =
        "select round(extract(epoch from now() - posthaste.oldest_owed(10000)) / 60)::bigint";
    assert_eq!(world.count(minutes).await, 60);
    let of_one = "select round(extract(epoch from now() - since) / 60)::bigint from posthaste.owed_by_subscription()";
    assert_eq!(world.count(of_one).await, 60);
    assert_eq!(world.count(&minutes.replace("10000", "100")).await, 10);
}

#[tokio::test]
async fn whoever_reads_figures_gives_up_in_time_and_still_says_what_holds_back_vacuum() {
    let world = quiet().await;
    let store = Store::open(&world.config(&[])).unwrap();
    world
        .run("select pg_temp.waiting(pg_temp.event('1 hour'))")
        .await;
    // As where millions of dead rows have to be passed.
    let slow = "create or replace function posthaste.oldest_owed(looks_at_most integer) returns timestamptz language sql
        return (select now() from pg_catalog.pg_sleep(100));
        create or replace function posthaste.owed_by_subscription() returns table (subscription_id integer, since timestamptz, deliveries bigint)
        language sql begin atomic select null::integer, now(), 1::bigint from pg_catalog.pg_sleep(100); end;";
    world.run(slow).await;
    let figures = store.figures(1000).await.unwrap();
    assert_eq!(figures.len(), FIGURES, "{figures:?}");
    let oldest = value(&figures, "oldest_owed_seconds", None);
    assert!((3600.0..3700.0).contains(&oldest), "{oldest}");
    assert!(store.subscription_figures(5, &[]).await.is_err());
}

#[tokio::test]
async fn every_figure_is_there_whatever_happens() {
    let world = quiet().await;
    let store = Store::open(&world.config(&[])).unwrap();
    let figures = store.figures(1000).await.unwrap();
    assert_eq!(figures.len(), FIGURES);
    for (figure, label, expected) in [
        ("workers_alive", None, 1.0),
        ("worker_settings", None, 1.0),
        ("four_eyes", None, 1.0),
        ("lanes", Some("idle"), 1.0),
        ("oldest_owed_seconds", None, 0.0),
        ("oldest_intake_seconds", None, 0.0),
        ("vacuum_holder_pid", None, 0.0),
    ] {
        assert!(
            (value(&figures, figure, label) - expected).abs() < 1e-9,
            "{figure}"
        );
    }
    let tables = store.table_figures().await.unwrap();
    assert_eq!(tables.len(), 9 * 4 + 2 * 3);
    for history in ["outbox", "attempt"] {
        assert!(
            (value(&tables, "partitions_ahead_seconds", Some(history)) - 7.0 * 86_400.0).abs()
                < 1e-9
        );
        assert!(value(&tables, "history_bytes", Some(history)) > 100_000.0);
    }
    assert_eq!(store.subscription_figures(5, &[]).await.unwrap(), []);
    let named = ["harbour".to_owned(), "nobody".to_owned()];
    assert_eq!(
        store.subscription_figures(0, &named).await.unwrap().len(),
        4
    );
    assert_eq!(store.findings().await.unwrap(), []);
}

#[tokio::test]
async fn each_figure_counts_what_it_says() {
    let world = quiet().await;
    for (what, figures) in COUNTS {
        world.run(&format!("begin; {what}")).await;
        let said = world
            .text(
                "select string_agg(concat_ws(' ', figure, label, value), ', ' order by figure, label)
                 from (select * from posthaste.figures(5) union all select * from posthaste.table_figures()
                       union all select * from posthaste.subscription_figures(5, '{}')) f
                 where value <> 0 and figure !~ '^(table_|history_|workers_alive|worker_settings|four_eyes|oldest_|subscription_oldest|partitions_ahead|vacuum_|notification_queue)'
                   and (figure, label) is distinct from ('lanes', 'idle') ",
            )
            .await;
        world.run("rollback").await;
        assert_eq!(said, *figures, "{what}");
    }
}

#[tokio::test]
async fn a_breaker_says_since_when_it_is_not_closed() {
    let world = quiet().await;
    let weigh = |requests: i32, failures: i32, run: i32| {
        format!(
            "select posthaste.weigh('{{1}}', '{{{requests}}}', '{{{failures}}}', '{{{run}}}', '{{0}}', '{{null}}')"
        )
    };
    world.change("harbour", r#"{"breaker": {"failures": 3, "ratio": null, "open_for": "1 minute", "open_for_at_most": "1 hour"}}"#).await;
    let since = "select concat_ws(' ', breaker, round(extract(epoch from now() - breaker_since) / 60)) from posthaste.lane";
    let later = "update posthaste.lane set breaker_since = breaker_since - interval '10 minutes'";
    for (what, says) in [
        (weigh(2, 2, 2), "closed"),
        (weigh(2, 2, 2), "open 0"),
        (later.to_owned(), "open 10"),
        // A probe goes out, and fails.
        (
            "update posthaste.lane set breaker = 'half_open'".to_owned(),
            "half_open 10",
        ),
        (weigh(1, 1, 1), "open 10"),
        (weigh(1, 0, 0), "closed"),
        (weigh(4, 4, 4), "open 0"),
        // Whoever takes it up again has seen to it.
        (
            "update posthaste.subscription set active = false; select posthaste.settle_lanes()"
                .to_owned(),
            "closed",
        ),
    ] {
        world.run(&what).await;
        assert_eq!(world.text(since).await, says, "{what}");
    }
}

#[tokio::test]
async fn who_holds_back_vacuum_is_named_with_its_application_and_since_when() {
    let world = quiet().await;
    let holders = "select string_agg(format('%s %s %s %s', holder, name ~ '^nightly of .*, idle in transaction$', pid is not null, since between now() - interval '1 minute' and clock_timestamp()), ', ' order by holder)
        from posthaste.vacuum_holders() where name !~ '^trial'";
    assert_eq!(world.text(holders).await, "");
    let reader = world.session().await;
    let read = "set application_name = 'nightly'; begin isolation level repeatable read; select from posthaste.setting";
    reader.batch_execute(read).await.unwrap();
    assert_eq!(world.text(holders).await, "session t t t");
    assert!(
        world
            .count(
                "select value::bigint from posthaste.figures(10) where figure = 'vacuum_holder_pid'"
            )
            .await
            > 0
    );
    reader.batch_execute("rollback").await.unwrap();
    let writer = world.session().await;
    writer.batch_execute("begin; insert into posthaste.external_id (partner, kind, internal, external) values ('a', 'b', 'c', 'd'); prepare transaction 'held'").await.unwrap();
    let found = world
        .text(&holders.replace("name ~ '^nightly of .*, idle in transaction$'", "name"))
        .await;
    writer
        .batch_execute("rollback prepared 'held'")
        .await
        .unwrap();
    assert_eq!(found, "prepared_transaction held f t");
}

#[tokio::test]
async fn without_the_right_to_see_others_transactions_their_age_is_estimated_from_events() {
    let world = quiet().await;
    let reader = world.session().await;
    let read = "set application_name = 'nightly'; begin isolation level repeatable read; select from posthaste.setting";
    reader.batch_execute(read).await.unwrap();
    // Events of the last hours, of which the first was inserted after the reader began: so it began three hours ago at most.
    world
        .run("select pg_temp.event('4 hours') from pg_current_xact_id()")
        .await;
    world
        .run("select pg_temp.event('3 hours') from pg_current_xact_id()")
        .await;
    world
        .run("begin; revoke pg_read_all_stats from posthaste_owner")
        .await;
    let said = world
        .text("select detail from posthaste.findings() where finding = 'vacuum_held_back'")
        .await;
    let seconds = world
        .text("select round(value / 3600)::text from posthaste.figures(10) where figure = 'vacuum_held_back_seconds' and label = 'session'")
        .await;
    world.run("rollback").await;
    assert!(
        said.contains("nightly") && said.contains("pg_read_all_stats"),
        "{said}"
    );
    assert_eq!(seconds, "4");
}

#[tokio::test]
async fn one_worker_at_a_time_observes_and_another_does_once_its_session_is_gone() {
    let world = World::new().await;
    let config = world.config(&[]);
    let join = async |name: &str| {
        Presence::register(&config, name, Some("d1"), None)
            .await
            .unwrap()
    };
    let (one, other) = (join("one").await, join("other").await);
    let (mut first, mut second) = (one.lookout(), other.lookout());
    assert!(first.is_ours().await.unwrap());
    assert!(first.is_ours().await.unwrap());
    assert!(!second.is_ours().await.unwrap());
    let store = Store::open(&config).unwrap();
    let soon = std::time::SystemTime::now() + std::time::Duration::from_hours(1);
    store
        .note_worker(one.worker_id(), -0.25, Some(soon))
        .await
        .unwrap();
    let noted = "select string_agg(concat_ws(' ', name, settings_digest, clock_difference, certificate_ends between now() + interval '59 minutes' and now() + interval '61 minutes', noted_at <= now()), ', ' order by name)
        from posthaste.worker_alive";
    assert_eq!(world.text(noted).await, "one d1 -0.25 t t, other d1");
    drop(one);
    world
        .until("(select count(*) = 1 from posthaste.worker_alive)")
        .await;
    assert!(second.is_ours().await.unwrap());
}

#[tokio::test]
async fn nobody_who_asks_waits_for_queries_to_be_compiled() {
    let world = World::new().await;
    // To compile them would take ten times as long as to read a million deliveries; workers' sessions never do, but others'.
    let compiled = "select string_agg(proname, ', ') from pg_proc where pronamespace = 'posthaste'::regnamespace
        and proname in ('figures', 'table_figures', 'subscription_figures', 'recent_rates', 'findings') and not 'jit=off' = any (proconfig)";
    assert_eq!(world.text(compiled).await, "");
}

#[tokio::test]
async fn auditors_administrators_and_workers_read_it_and_producers_do_not() {
    let world = quiet().await;
    for role in ["auditor", "admin", "worker"] {
        let login = world.login(&format!("posthaste_{role}")).await;
        login.run("select * from posthaste.health; select * from posthaste.figures(10); select * from posthaste.table_figures(); select * from posthaste.subscription_figures(1, '{}')").await;
    }
    let producer = world.login("posthaste_producer").await;
    for ask in [
        "posthaste.health",
        "posthaste.figures(10)",
        "posthaste.findings()",
    ] {
        let refused = producer.refused(&format!("select * from {ask}")).await;
        assert_eq!(*refused.code(), SqlState::INSUFFICIENT_PRIVILEGE);
    }
}

fn value(figures: &[Figure], figure: &str, label: Option<&str>) -> f64 {
    let is_it = |f: &&Figure| f.figure == figure && f.label.as_deref() == label;
    figures.iter().find(is_it).unwrap().value
}

/// How many rows posthaste.figures has.
const FIGURES: usize = 31;

/// A worker that is alive, partitions, and what the cases below are made of.
const BACKDROP: &str = "
    select posthaste.create_partitions(7);
    insert into posthaste.worker (name, version, lease, settings_digest, started_at) values ('this', '1', '1 minute', 'd1', now() - interval '1 hour');
    select pg_advisory_lock(1347375957, worker_id) from posthaste.worker;
    -- An event that was inserted so long ago and is fanned out.
    create function pg_temp.event(age interval, deliver_after timestamptz default null) returns uuid language sql as $$
        with event as (
            insert into posthaste.outbox (event_id, event_type, payload, deliver_after)
            values (overlay(overlay(posthaste.first_event_id(now() - age)::text placing '7' from 15 for 1)
                    placing lpad((random() * 1e9)::bigint::text, 12, '0') from 25 for 12)::uuid, 'thing.happened', '1', deliver_after)
            returning event_id
        ) select event_id from event $$;
    -- What comes of it, in each place where a delivery can be.
    create function pg_temp.waiting(event_id uuid, due_at timestamptz default now(), attempts integer default 0, replay integer default 0) returns void language sql as $$
        delete from posthaste.intake i where i.event_id = $1;
        insert into posthaste.queue (event_id, subscription_id, due_at, attempts, replay) values ($1, 1, $2, $3, $4);
        update posthaste.lane set wake_at = least(wake_at, $2) $$;
    create function pg_temp.follows(event_id uuid, due_at timestamptz default now()) returns void language sql as $$
        delete from posthaste.intake i where i.event_id = $1;
        insert into posthaste.follower (event_id, subscription_id, due_at, ordering_key) values ($1, 1, $2, 'k') $$;
    create function pg_temp.leased(event_id uuid) returns void language sql as $$
        delete from posthaste.intake i where i.event_id = $1;
        insert into posthaste.lease (event_id, subscription_id, ends_at, holder) values ($1, 1, now() + interval '1 minute', 1) $$;
    create function pg_temp.quarantined(event_id uuid, age interval default '0') returns void language sql as $$
        delete from posthaste.intake i where i.event_id = $1;
        insert into posthaste.quarantine (event_id, subscription_id, replay, attempts, reason, held_at) values ($1, 1, 0, 0, 'odd', now() - age) $$;
    -- An attempt that ended in some way.
    create function pg_temp.attempted(age interval, outcome text, verdict text) returns void language sql as $$
        insert into posthaste.attempt (started_at, event_id, subscription_id, subscription_revision, worker_id, outcome, verdict, rule, replay, number, error, next_attempt_at)
        values (now() - $1, gen_random_uuid(), 1, 1, 1, $2::posthaste.outcome, $3::posthaste.verdict, 'worker_lost', 0, 1, 'x', case $3 when 'retry' then now() end) $$;
    create function pg_temp.told(age interval, event_type text) returns void language sql as $$
        insert into posthaste.operational_event (id, at, event_type, severity, subscription_id, detail)
        values (overlay(posthaste.first_event_id(now() - $1)::text placing '7' from 15 for 1)::uuid, now() - $1, $2, 'error', 1, '{\"reason\": \"it said 410\"}') $$;
    create function pg_temp.replayed(event_id uuid, age interval, kind text default 'replay') returns uuid language sql as $$
        delete from posthaste.intake i where i.event_id = $1;
        insert into posthaste.replay (kind, asked, reason, asked_at, finished_at) values ($3, '{}', 'x', now() - $2, now());
        insert into posthaste.replayed (event_id, subscription_id, replay, follows, replay_id)
        select $1, 1, case $3 when 'test' then -1 else 1 end, case $3 when 'test' then null else 0 end, max(replay_id) from posthaste.replay;
        select $1 $$;
";

/// What is no finding yet, what is one, and which.
const FINDINGS: &[(&str, &str, &str)] = &[
    ("", "update posthaste.worker set ended_at = now()", "critical no_worker"),
    (
        "select pg_temp.event('59 seconds')",
        "select pg_temp.event('61 seconds')",
        "critical events_not_fanned_out",
    ),
    (
        "select pg_temp.waiting(pg_temp.event('59 minutes'))",
        "select pg_temp.waiting(pg_temp.event('61 minutes'))",
        "warning deliveries_late harbour",
    ),
    (
        "select pg_temp.told('61 minutes', 'posthaste.delivery.exhausted'); select pg_temp.told('1 minute', 'posthaste.breaker.opened')",
        "select pg_temp.told('59 minutes', 'posthaste.delivery.rejected')",
        "warning dead_letters harbour",
    ),
    (
        "update posthaste.lane set failures = 9, failing_since = now() - interval '14 minutes'",
        "update posthaste.lane set failures = 9, failing_since = now() - interval '16 minutes'",
        "warning subscription_failing harbour",
    ),
    (
        "update posthaste.lane set breaker = 'open', breaker_since = now() - interval '29 minutes'",
        "update posthaste.lane set breaker = 'half_open', breaker_since = now() - interval '31 minutes'",
        "warning breaker_open harbour",
    ),
    // A person paused it.
    (
        "select posthaste.deactivate('harbour', 'why')",
        "update posthaste.lane set to_pause = 'it said 410'; select posthaste.pause_failing(10)",
        "info subscription_paused harbour",
    ),
    // It was taken up again, and a person paused it then.
    (
        "select pg_temp.told('1 hour', 'posthaste.subscription.paused'); update posthaste.subscription set active = false;
         update posthaste.subscription set active = true; update posthaste.subscription set active = false",
        "select pg_temp.told('-1 hour', 'posthaste.subscription.paused'); update posthaste.subscription set active = false",
        "info subscription_paused harbour",
    ),
    (
        "select pg_temp.quarantined(pg_temp.event('1 minute'));
         update posthaste.quarantine set decision = 'discarded', decided_at = now()",
        "select pg_temp.quarantined(pg_temp.event('1 minute'))",
        "warning quarantined harbour",
    ),
    (
        "insert into posthaste.event_type (event_type, description) values ('novel.one', 'x');
         insert into posthaste.unknown_event_type (event_type, events, last_event) values ('novel.one', 3, gen_random_uuid())",
        "insert into posthaste.unknown_event_type (event_type, events, last_event) values ('novel.one', 3, gen_random_uuid())",
        "warning unknown_event_types",
    ),
    (
        "select pg_temp.attempted('16 minutes', 'abandoned', 'retry'); select pg_temp.attempted('1 minute', 'unreachable', 'exhausted')",
        "select pg_temp.attempted('14 minutes', 'abandoned', 'retry')",
        "warning leases_lost",
    ),
    (
        "select pg_temp.attempted('16 minutes', 'unreachable', 'late')",
        "select pg_temp.attempted('14 minutes', 'unreachable', 'late')",
        "warning leases_lost",
    ),
    (
        "update posthaste.worker set clock_difference = 4.9",
        "update posthaste.worker set clock_difference = -5.1",
        "warning clock_off",
    ),
    (
        "update posthaste.worker set clock_difference = null",
        "update posthaste.worker set clock_difference = -61",
        "critical clock_off",
    ),
    (
        "do $$ begin execute format('alter table posthaste.outbox detach partition posthaste.outbox_%s', to_char(now() at time zone 'UTC' + interval '3 days', 'YYYYMMDD')); end $$",
        "do $$ begin execute format('alter table posthaste.outbox detach partition posthaste.outbox_%s', to_char(now() at time zone 'UTC' + interval '2 days', 'YYYYMMDD')); end $$",
        "critical partitions_missing",
    ),
    (
        "",
        "select pg_temp.attempted('-400 days', 'unreachable', 'exhausted')",
        "critical partitions_missing",
    ),
    (
        "create or replace function posthaste.vacuum_holders() returns table (holder text, pid integer, name text, since timestamptz, is_estimated boolean)
         language sql return ('session'::text, 7, 'nightly'::text, now() - interval '29 minutes', false)",
        "create or replace function posthaste.vacuum_holders() returns table (holder text, pid integer, name text, since timestamptz, is_estimated boolean)
         language sql begin atomic
             select 'session'::text, 7, 'nightly'::text, now() - interval '31 minutes', false union all select 'prepared_transaction', null, 'p', now() - interval '34 minutes', false
             union all select 'replication_slot', null, 's', now() - interval '33 minutes', true union all select 'standby', 8, 'b', now() - interval '32 minutes', true;
         end",
        "warning vacuum_held_back, warning vacuum_held_back, warning vacuum_held_back, warning vacuum_held_back",
    ),
    (
        "create or replace function posthaste.small_tables() returns table (name text, live bigint, dead bigint, bytes bigint, vacuum_due_since timestamptz)
         language sql return ('queue'::text, 0::bigint, 500000::bigint, (1024 * 1024 * 1024)::bigint, null::timestamptz)",
        "create or replace function posthaste.small_tables() returns table (name text, live bigint, dead bigint, bytes bigint, vacuum_due_since timestamptz)
         language sql begin atomic
             select 'queue'::text, 0::bigint, 500001::bigint, 1::bigint, null::timestamptz union all select 'lease', 0, 0, 1024 * 1024 * 1024 + 1, null;
         end",
        "warning tables_bloated, warning tables_bloated",
    ),
    (
        "update posthaste.signing_secret set created_at = now() - interval '89 days'",
        "update posthaste.signing_secret set created_at = now() - interval '91 days'",
        "warning rotation_overdue harbour",
    ),
    (
        "update posthaste.signing_secret set ends_at = now() + interval '1 minute'",
        "update posthaste.signing_secret set created_at = now() - interval '1 day', ends_at = now()",
        "critical secret_missing harbour",
    ),
    (
        "update posthaste.subscription set headers = '{\"X-Berth\": \"7\"}'",
        "update posthaste.subscription set headers = '{\"X-Berth\": {\"secret\": true}}'",
        "critical secret_missing harbour",
    ),
    (
        "update posthaste.worker set certificate_ends = now() + interval '15 days'",
        "update posthaste.worker set certificate_ends = now() + interval '13 days'",
        "warning certificate_expiring",
    ),
    (
        "",
        "update posthaste.worker set certificate_ends = now() + interval '47 hours'",
        "critical certificate_expiring",
    ),
    (
        "with other as (insert into posthaste.worker (name, version, lease, settings_digest, started_at) values ('other', '1', '1 minute', 'd2', now() - interval '14 minutes') returning worker_id)
         select pg_advisory_lock(1347375957, worker_id) from other",
        "with other as (insert into posthaste.worker (name, version, lease, settings_digest, started_at) values ('other', '1', '1 minute', 'd2', now() - interval '16 minutes') returning worker_id)
         select pg_advisory_lock(1347375957, worker_id) from other",
        "warning config_drift",
    ),
    ("", "update posthaste.setting set four_eyes = false", "info four_eyes_off"),
    (
        "select posthaste.propose_removal('harbour', 'x'); select posthaste.reject(max(change_id), 'x') from posthaste.subscription_change",
        "select posthaste.propose_removal('harbour', 'x')",
        "info changes_open",
    ),
    (
        "",
        "grant select on posthaste.signing_secret to posthaste_auditor",
        "critical access_deviates",
    ),
];

/// What is owed, and for how many minutes.
const AGES: &[(&str, i64)] = &[
    ("", 0),
    ("select pg_temp.waiting(pg_temp.event('2 hours'))", 120),
    ("select pg_temp.waiting(pg_temp.event('2 hours'), now() + interval '1 hour', 3)", 120),
    ("select pg_temp.waiting(pg_temp.event('2 hours')); update posthaste.subscription set active = false; update posthaste.lane set active = false", 120),
    ("select pg_temp.waiting(pg_temp.event('2 hours')); update posthaste.lane set rest_until = now() + interval '1 hour'", 120),
    ("select pg_temp.waiting(pg_temp.event('2 hours')); update posthaste.lane set breaker = 'open', breaker_since = now(), hold_until = now() + interval '1 hour'", 120),
    ("select pg_temp.waiting(pg_temp.event('1 hour')); select pg_temp.follows(pg_temp.event('2 hours'))", 120),
    ("select pg_temp.follows(pg_temp.event('2 hours', now() + interval '1 hour'), now() + interval '1 hour')", 0),
    ("select pg_temp.leased(pg_temp.event('2 hours'))", 120),
    ("select pg_temp.quarantined(pg_temp.event('2 hours'))", 120),
    ("select pg_temp.quarantined(pg_temp.event('2 hours')); update posthaste.quarantine set decision = 'released', decided_at = now()", 120),
    ("select pg_temp.quarantined(pg_temp.event('2 hours')); update posthaste.quarantine set decision = 'discarded', decided_at = now()", 0),
    // Not to be sent before: not owed before.
    ("select pg_temp.waiting(pg_temp.event('2 hours', now() + interval '1 hour'), now() + interval '1 hour')", 0),
    ("select pg_temp.waiting(pg_temp.event('2 hours', now() - interval '10 minutes'))", 10),
    ("select pg_temp.waiting(pg_temp.event('2 hours', now() - interval '10 minutes')); select pg_temp.waiting(pg_temp.event('1 hour'))", 60),
    // A replay is owed since it was asked for, and so is a test.
    ("select pg_temp.waiting(pg_temp.replayed(pg_temp.event('5 days'), '20 minutes'), replay => 1)", 20),
    ("select pg_temp.waiting(pg_temp.replayed(pg_temp.event('5 days'), '20 minutes', 'test'), replay => -1)", 20),
    ("select pg_temp.waiting(pg_temp.replayed(pg_temp.event('5 days'), '20 minutes'), replay => 1); select pg_temp.waiting(pg_temp.event('1 hour'))", 60),
    (
        "insert into posthaste.replay (kind, asked, reason, asked_at) values ('replay', '{}', 'x', now() - interval '30 minutes');
         insert into posthaste.replay_part (replay_id, subscription_id, total, queued) select replay_id, 1, 10, 9 from posthaste.replay",
        30,
    ),
    (
        "insert into posthaste.replay (kind, asked, reason, asked_at, finished_at) values ('replay', '{}', 'x', now() - interval '30 minutes', now());
         insert into posthaste.replay_part (replay_id, subscription_id, total, queued) select replay_id, 1, 10, 10 from posthaste.replay",
        0,
    ),
    ("select pg_temp.event('3 hours') -- intake", 180),
];

/// What is there, and the figures that are not nought.
const COUNTS: &[(&str, &str)] = &[
    ("", ""),
    (
        "select pg_temp.event('0')  from generate_series(1, 3)",
        "deliveries_owed intake 3",
    ),
    (
        "select pg_temp.waiting(pg_temp.event('0')) from generate_series(1, 2); select pg_temp.waiting(pg_temp.event('0'), now() + interval '1 hour', 1);
         select pg_temp.leased(pg_temp.event('0')); select pg_temp.follows(pg_temp.event('0')); select pg_temp.quarantined(pg_temp.event('0'))",
        "deliveries_owed due 2, deliveries_owed leased 1, deliveries_owed ordered 1, deliveries_owed quarantined 1, deliveries_owed waiting 1, \
         lanes due 1, subscription_deliveries_owed harbour 6",
    ),
    (
        "select pg_temp.waiting(pg_temp.event('0')) from generate_series(1, 9)",
        "deliveries_owed due 5, lanes due 1, subscription_deliveries_owed harbour 9",
    ),
    (
        "select pg_temp.waiting(pg_temp.event('0')); update posthaste.lane set hold_until = now() + interval '1 hour'",
        "deliveries_owed waiting 1, lanes held 1, subscription_deliveries_owed harbour 1",
    ),
    (
        "select pg_temp.waiting(pg_temp.event('0')); update posthaste.lane set rest_until = now() + interval '1 hour'",
        "deliveries_owed waiting 1, lanes rate_limited 1, subscription_deliveries_owed harbour 1",
    ),
    ("update posthaste.lane set active = false", "lanes paused 1"),
    ("update posthaste.lane set wake_at = now() + interval '1 hour'", "lanes asleep 1"),
    ("update posthaste.lane set breaker = 'half_open'", "lanes breaker_half_open 1"),
    ("update posthaste.lane set breaker = 'open'", "lanes breaker_open 1"),
    (
        "update posthaste.lane set failing_since = now() - interval '90 s', breaker = 'open', breaker_since = now() - interval '60 s'",
        "lanes breaker_open 1, subscription_breaker_open_seconds harbour 60, subscription_failing_seconds harbour 90",
    ),
    (
        "select pg_temp.told('1 minute', 'posthaste.delivery.exhausted'), pg_temp.told('23 hours', 'posthaste.delivery.rejected'), pg_temp.told('25 hours', 'posthaste.delivery.rejected')",
        "dead_letters_last_day 2",
    ),
    (
        "update posthaste.signing_secret set created_at = now() - interval '91 days'",
        "secrets_overdue 1",
    ),
    ("update posthaste.signing_secret set created_at = now() - interval '1 day', ends_at = now()", "secrets_missing 1"),
    ("update posthaste.subscription set authentication = '{\"kind\": \"bearer\"}'", "secrets_missing 1"),
    ("select posthaste.propose_removal('harbour', 'x')", "changes_open 1"),
    (
        "insert into posthaste.unknown_event_type (event_type, events, last_event) values ('novel.one', 3, gen_random_uuid())",
        "unknown_event_types 1",
    ),
    ("select pg_temp.attempted('-400 days', 'unreachable', 'exhausted')", "default_partition_used attempt 1"),
];
