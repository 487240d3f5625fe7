//! History is append-only for everyone, and nothing malformed enters it: each refusal says what, which value, and which rule.

use tokio_postgres::error::SqlState;

use crate::harness::World;

#[tokio::test]
async fn unknown_types_are_a_thousand_at_most_and_those_go_on_counting() {
    let world = World::new().await;
    let worker = world.worker(&[]).await;
    for (name, count) in [("first.n", 900), ("then.n", 300), ("first.n", 3)] {
        let insert = "insert into posthaste.outbox (event_type, payload)";
        world
            .run(&format!(
                "{insert} select '{name}' || n, '1' from generate_series(1, {count}) n"
            ))
            .await;
        world.until_all_is_done().await;
    }
    let kept = "select format('%s %s %s', count(*), count(*) filter (where event_type like 'first%'), sum(events)) from posthaste.unknown_event_type";
    assert_eq!(world.text(kept).await, "1000 900 1003");
    let figure =
        "select value::text from posthaste.figures(10) where figure = 'unknown_event_types'";
    assert_eq!(world.text(figure).await, "10");
    // Whoever dismisses them may leave the transaction open: no worker waits for it.
    let session = world.session().await;
    session
        .batch_execute("begin; select posthaste.dismiss_unknown('first.*', 'a typo')")
        .await
        .unwrap();
    world.publish("first.n1", "1").await;
    world.until_all_is_done().await;
    session.batch_execute("commit").await.unwrap();
    assert_eq!(
        world
            .text("select value::text from posthaste.figures(1000) where figure = 'unknown_event_types'")
            .await,
        "101"
    );
    world.publish("first.n2", "1").await;
    world.until_all_is_done().await;
    worker.stop().await.unwrap();
    // Whether the second was forgotten before it came again is a matter of when the worker looked.
    let kept = world.text(kept).await;
    assert!(kept == "102 2 104" || kept == "102 2 106", "{kept}");
    assert!(
        world
            .holds("(select count(*) = 102 from posthaste.unrouted)")
            .await
    );
    assert_eq!(
        world.count("select count(*) from posthaste.outbox").await,
        1205
    );
}

#[tokio::test]
async fn update_delete_and_truncate_are_refused_on_history_and_every_part_of_it() {
    let world = World::new().await;
    fill_every_partition(&world).await;
    let parts = "select string_agg(format('%s %s', inhparent::regclass, inhrelid::regclass), ',')
        from pg_inherits where inhparent in ('posthaste.outbox'::regclass, 'posthaste.attempt'::regclass)
        and inhrelid::regclass::text !~ 'idx|pkey'";
    let parts = world.text(parts).await;
    let mut tables: Vec<&str> = parts.split([',', ' ']).collect();
    tables.sort_unstable();
    tables.dedup();
    assert!(
        tables.contains(&"posthaste.outbox_default") && tables.contains(&"posthaste.attempt"),
        "{tables:?}"
    );
    let column = |table: &str| {
        if table.contains("outbox") {
            "tenant = 'x'"
        } else {
            "error = 'x'"
        }
    };

    // We are the owner; on a private server, a superuser too. A replica's session fires no ordinary trigger.
    for role in ["origin", "replica"] {
        if world
            .db
            .batch_execute(&format!("set session_replication_role = {role}"))
            .await
            .is_err()
        {
            eprintln!("not shown: only a superuser may call itself a replica");
            continue;
        }
        for table in &tables {
            let mut changes = vec![
                format!("truncate {table}"),
                format!("truncate {table} cascade"),
            ];
            // Where there is no row, there is none to refuse.
            if world.holds(&format!("exists (select from {table})")).await {
                changes.push(format!("update {table} set {}", column(table)));
                changes.push(format!("delete from {table}"));
            }
            for change in changes {
                let refused = world.db.batch_execute(&change).await.expect_err(&change);
                let error = refused.as_db_error().unwrap();
                assert_eq!(
                    error.code(),
                    &SqlState::INSUFFICIENT_PRIVILEGE,
                    "{change}: {error:?}"
                );
                assert!(
                    error
                        .message()
                        .ends_with("is refused: it is append-only history"),
                    "{change}: {error:?}"
                );
            }
        }
    }
    world.run("set session_replication_role = origin").await;
    let upsert = "insert into posthaste.outbox (event_id, event_type, payload) select event_id, 'b', '2' from posthaste.outbox limit 1
        on conflict (event_id) do update set payload = '2'";
    let refused = world.db.batch_execute(upsert).await.unwrap_err();
    assert!(
        refused
            .as_db_error()
            .unwrap()
            .message()
            .starts_with("UPDATE on posthaste.outbox"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_event_inserted_into_a_partition_itself_is_delivered() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world.run("select posthaste.create_partitions(1)").await;
    let _worker = world.worker(&[]).await;
    let today = world
        .text("select 'posthaste.outbox' || to_char(now() at time zone 'UTC', '\"_\"YYYYMMDD')")
        .await;
    world
        .run(&format!(
            "insert into {today} (event_type, payload) values ('a', '1')"
        ))
        .await;
    world.run(&format!("insert into posthaste.outbox_default (event_id, event_type, payload) values ('{LONG_AGO}', 'a', '2')")).await;
    partner.wait_for(2).await;
    world.until_all_is_done().await;
    assert_eq!(
        world.story(LONG_AGO.parse().unwrap()).await,
        "1 accepted done"
    );
}

#[tokio::test]
async fn a_bad_event_is_refused_with_its_field_its_value_and_the_rule() {
    let world = World::new().await;
    for (columns, values, said) in [
        (
            "event_type, payload",
            "'certificate issued', '1'",
            "event_type 'certificate issued' is not valid: up to 128 characters, words of",
        ),
        (
            "event_type, payload",
            "'a..b', '1'",
            "event_type 'a..b' is not valid",
        ),
        (
            "event_type, payload",
            "'', '1'",
            "event_type '' is not valid",
        ),
        (
            "event_type, payload",
            "E'a\\n', '1'",
            "is not valid: up to 128 characters",
        ),
        (
            "event_type, payload",
            "repeat('a', 129), '1'",
            "is not valid: up to 128 characters",
        ),
        (
            "event_type, payload",
            "repeat('x', 100000) || '!', '1'",
            "is not valid: up to 128 characters",
        ),
        (
            "event_type, payload, event_id",
            "'a', '1', '00000000-0000-4000-8000-000000000000'",
            "event_id '00000000-0000-4000-8000-000000000000' is not valid: it must be a UUID version 7",
        ),
        (
            "event_type, payload, tenant",
            "'a', '1', ''",
            "tenant '' is not valid: 1 to 128 characters, or null",
        ),
        (
            "event_type, payload, tenant",
            "'a', '1', repeat('t', 129)",
            "tenant 't",
        ),
        (
            "event_type, payload, metadata",
            "'a', '1', '[1]'",
            "metadata '[1]' is not valid: a JSON object, or null",
        ),
        (
            "event_type, payload, traceparent",
            "'a', '1', '00-xyz'",
            "traceparent '00-xyz' is not valid: the W3C form",
        ),
    ] {
        let error = refusal(
            &world,
            &format!("insert into posthaste.outbox ({columns}) values ({values})"),
        )
        .await;
        assert_eq!(error.0, SqlState::CHECK_VIOLATION, "{values}");
        assert!(
            error.1.contains(said) && error.1.len() < 500,
            "{values}: {}",
            error.1
        );
    }
    for (values, code) in [
        ("null, '1'", SqlState::NOT_NULL_VIOLATION),
        ("'a', null", SqlState::NOT_NULL_VIOLATION),
        ("'a', '{'", SqlState::INVALID_TEXT_REPRESENTATION),
    ] {
        let insert =
            format!("insert into posthaste.outbox (event_type, payload) values ({values})");
        assert_eq!(refusal(&world, &insert).await.0, code, "{values}");
        assert_eq!(
            refusal(&world, &format!("select posthaste.publish({values})"))
                .await
                .0,
            code,
            "{values}"
        );
    }
    let both = refusal(&world, "select posthaste.publish('not dotted', '1')").await;
    assert!(
        both.1.contains("event_type 'not dotted' is not valid"),
        "{}",
        both.1
    );
    assert_eq!(
        world.count("select count(*) from posthaste.outbox").await,
        0
    );
}

#[tokio::test]
async fn both_styles_of_event_type_and_the_longest_are_taken() {
    let world = World::new().await;
    for name in [
        "certificate.issued",
        "CERTIFICATE_ISSUED",
        "a",
        "9.B_c",
        &"a".repeat(128),
    ] {
        world.publish(name, "1").await;
    }
    assert_eq!(
        world.count("select count(*) from posthaste.intake").await,
        5
    );
}

#[tokio::test]
async fn an_attempt_that_contradicts_itself_is_refused_by_the_rule_it_breaks() {
    let world = World::new().await;
    for (change, rule) in [
        ("number = 0", "attempts_are_numbered_from_1"),
        ("next_attempt_at = now()", "next_attempt_iff_retry"),
        (
            "verdict = 'retry', outcome = 'timed_out', error = 'x', http_status = null",
            "next_attempt_iff_retry",
        ),
        ("http_status = 500", "accepted_has_a_2xx_status"),
        ("http_status = null", "accepted_has_a_2xx_status"),
        (
            "outcome = 'rejected', verdict = 'exhausted', error = 'x'",
            "rejected_has_another_status",
        ),
        (
            "outcome = 'rejected', verdict = 'exhausted', error = 'x', http_status = null",
            "rejected_has_another_status",
        ),
        (
            "outcome = 'blocked', verdict = 'exhausted', error = 'x'",
            "what_was_not_sent_has_no_status",
        ),
        (
            "outcome = 'abandoned', verdict = 'exhausted', error = 'x'",
            "what_was_not_sent_has_no_status",
        ),
        ("verdict = 'exhausted'", "done_iff_accepted_in_time"),
        (
            "outcome = 'timed_out', http_status = null, error = 'x'",
            "done_iff_accepted_in_time",
        ),
        (
            "outcome = 'timed_out', http_status = null, verdict = 'exhausted'",
            "anything_but_accepted_says_why",
        ),
        (
            "outcome = 'timed_out', http_status = null, verdict = 'exhausted', error = 'x', rule = null",
            "anything_but_accepted_has_a_rule",
        ),
        ("response = repeat('x', 65537)", "response_is_bounded"),
        ("error = repeat('x', 2049)", "error_is_bounded"),
    ] {
        world
            .run("create temp table draft (like posthaste.attempt including defaults)")
            .await;
        world
            .run(&format!(
                "insert into draft {GOOD_ATTEMPT}; update draft set rule = 'interval'; update draft set {change}"
            ))
            .await;
        let (code, message) =
            refusal(&world, "insert into posthaste.attempt select * from draft").await;
        assert_eq!(code, SqlState::CHECK_VIOLATION, "{change}");
        assert!(message.contains(rule), "{change}: {message}");
        world.run("drop table draft").await;
    }
    world
        .run(&format!("insert into posthaste.attempt {GOOD_ATTEMPT}"))
        .await;
}

#[tokio::test]
async fn good_subscriptions_are_taken() {
    let world = World::new().await;
    for (number, url) in [
        "https://partner.example",
        "https://partner.example/",
        "https://partner.example:8443/a/b?c=d&e=%20",
        "https://192.0.2.1/",
        "https://[2001:db8::1]:443/hook",
        "https://a-b.c0/~x",
        "https://partner.example?x",
        "http://localhost:8080/",
        "http://127.0.0.1/",
        "http://[::1]:9/x",
    ]
    .iter()
    .enumerate()
    {
        world
            .subscribe_url(&format!("Partner {number}"), url, &["*"], None, "")
            .await;
    }
    assert_eq!(world.count("select count(*) from posthaste.lane").await, 10);
}

/// Rows in today's partitions and in the default ones.
async fn fill_every_partition(world: &World) {
    world.run("select posthaste.create_partitions(1)").await;
    world.publish("a", "1").await;
    world.run(&format!("insert into posthaste.outbox (event_id, event_type, payload) values ('{LONG_AGO}', 'a', '1')")).await;
    world
        .run(&format!("insert into posthaste.attempt {GOOD_ATTEMPT}"))
        .await;
    world.run(&format!("create temp table draft (like posthaste.attempt); insert into draft {GOOD_ATTEMPT};
        update draft set started_at = '2001-01-01'; insert into posthaste.attempt select * from draft; drop table draft")).await;
    for table in ["outbox", "outbox_default", "attempt", "attempt_default"] {
        assert!(
            world
                .holds(&format!("exists (select from posthaste.{table})"))
                .await
        );
    }
    assert_eq!(
        world
            .count("select count(distinct tableoid) from posthaste.outbox")
            .await,
        2
    );
    assert_eq!(
        world
            .count("select count(distinct tableoid) from posthaste.attempt")
            .await,
        2
    );
}

/// Why a statement was refused.
async fn refusal(world: &World, statement: &str) -> (SqlState, String) {
    let refused = world
        .db
        .batch_execute(statement)
        .await
        .expect_err(statement);
    let error = refused.as_db_error().unwrap();
    (error.code().clone(), error.message().to_owned())
}

/// A version 7 id of the year 2001, which no partition covers.
const LONG_AGO: &str = "00e3c2d5-8400-7000-8000-000000000001";

const GOOD_ATTEMPT: &str = "(started_at, event_id, subscription_id, subscription_revision, worker_id, duration_us, outcome, verdict, replay, number, http_status)
    values (now(), '00e3c2d5-8400-7000-8000-000000000001', 1, 1, 1, 5, 'accepted', 'done', 0, 1, 200)";
