//! A dedup key keeps further events with it out, for as long as was agreed, and holds up no producer.

use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::harness::{PATIENCE, World, one, refusal, said};

/// Inserts one event with this key.
fn insert(key: &str) -> String {
    format!(
        "insert into posthaste.outbox (event_type, payload, dedup_key) values ('a', '1', '{key}')"
    )
}

const EVENTS: &str = "select count(*) from posthaste.outbox";

#[tokio::test]
async fn a_second_event_with_the_same_key_changes_nothing() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "5s").await;
    let producer = world.login("posthaste_producer").await;
    for rows in [1, 0, 0] {
        assert_eq!(producer.db.execute(&insert("k"), &[]).await.unwrap(), rows);
    }
    let publish = "select posthaste.publish('a', '2', dedup_key => 'p')";
    let first: Uuid = producer.one(publish).await;
    assert_eq!(producer.one::<Uuid>(publish).await, first);
    let other: Uuid = producer.one(&publish.replace("'p'", "'q'")).await;
    assert_ne!(other, first);
    // In one transaction too, and after another key's duplicate.
    producer.run("begin").await;
    assert_eq!(producer.one::<Uuid>(publish).await, first);
    assert_eq!(
        producer.one::<Uuid>(&publish.replace("'p'", "'q'")).await,
        other
    );
    assert_ne!(
        producer.one::<Uuid>(&publish.replace("'p'", "null")).await,
        other
    );
    producer.run("rollback").await;

    let _worker = world.worker(&[]).await;
    partner.wait_for(3).await;
    world.until_all_is_done().await;
    assert_eq!(partner.counts().verified, 3);
    assert_eq!(world.count(EVENTS).await, 3);
}

#[tokio::test]
async fn a_key_holds_for_its_event_type_and_tenant() {
    let world = World::new().await;
    let insert = "insert into posthaste.outbox (event_type, payload, tenant, dedup_key) values
        ('a', '1', null, 'k'), ('b', '1', null, 'k'), ('a', '1', 'north', 'k'), ('a', '1', 'south', 'k'),
        ('a', '1', null, 'l'), ('a', '1', null, null), ('a', '1', null, null)";
    assert_eq!(world.db.execute(insert, &[]).await.unwrap(), 7);
    // Those without a key are what they are: two more events.
    assert_eq!(world.db.execute(insert, &[]).await.unwrap(), 2);
    assert_eq!(world.count("select count(*) from posthaste.dedup").await, 5);
}

#[tokio::test]
async fn a_key_may_come_twice_in_one_statement_and_into_a_partition_itself() {
    let world = World::new().await;
    world.run("select posthaste.create_partitions(1)").await;
    let many = "insert into posthaste.outbox (event_type, payload, dedup_key)
        select 'a', to_json(n), 'k' || n % 3 from generate_series(1, 9) n returning payload::text";
    let rows = world.db.query(many, &[]).await.unwrap();
    let kept: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(kept, ["1", "2", "3"]);
    let today = world
        .text("select 'posthaste.outbox' || to_char(now() at time zone 'UTC', '\"_\"YYYYMMDD')")
        .await;
    for (key, rows) in [("k1", 0), ("k9", 1), ("k9", 0)] {
        let insert = insert(key).replace("posthaste.outbox", &today);
        assert_eq!(world.db.execute(&insert, &[]).await.unwrap(), rows, "{key}");
    }
    assert_eq!(world.db.execute(&insert("k9"), &[]).await.unwrap(), 0);
    assert_eq!(
        world.count("select count(*) from posthaste.intake").await,
        4
    );
}

#[tokio::test]
async fn what_is_rolled_back_keeps_no_key() {
    let world = World::new().await;
    let name = world.text("select current_database()::text").await;
    world
        .run(&format!("begin; {}; rollback", insert("k")))
        .await;
    let savepoint = format!(
        "begin; savepoint s; {0}; rollback to s; {0}; savepoint t; {0}; rollback to t; commit",
        insert("k")
    );
    world.run(&savepoint).await;
    assert_eq!(world.count(EVENTS).await, 1);
    // A prepared transaction keeps it until it is rolled back.
    world
        .run(&format!(
            "begin; {}; prepare transaction '{name}'",
            insert("l")
        ))
        .await;
    let waits = format!("set lock_timeout = 1; {}", insert("l"));
    let refused = refusal(&world.session().await, &waits).await;
    assert_eq!(refused.code(), &SqlState::LOCK_NOT_AVAILABLE);
    world.run(&format!("rollback prepared '{name}'")).await;
    assert_eq!(world.db.execute(&insert("l"), &[]).await.unwrap(), 1);
}

#[tokio::test]
async fn three_producers_of_one_key_make_one_event() {
    let world = World::new().await;
    for (end, rows_of_the_others) in [("commit", 0), ("rollback", 1)] {
        let first = world.session().await;
        first
            .batch_execute(&format!("begin; {}", insert(end)))
            .await
            .unwrap();
        let mut others = Vec::new();
        for _ in 0..2 {
            let (session, insert) = (world.session().await, insert(end));
            others.push(tokio::spawn(async move {
                session.execute(&insert, &[]).await.unwrap()
            }));
        }
        // Both wait, as for a unique index of their own.
        world
            .until("(select count(*) from pg_locks where not granted and locktype in ('transactionid', 'spectoken')) = 2")
            .await;
        first.batch_execute(end).await.unwrap();
        let mut rows = 0;
        for other in others {
            let done = tokio::time::timeout(PATIENCE, other).await;
            rows += done.expect("it waits on").unwrap();
        }
        assert_eq!(rows, rows_of_the_others, "after a {end}");
    }
    assert_eq!(world.count(EVENTS).await, 2);
}

#[tokio::test]
async fn a_duplicate_in_a_transaction_that_stays_open_holds_up_nobody() {
    let world = World::new().await;
    world.run(&insert("k")).await;
    let [idler, other] = [world.session().await, world.session().await];
    idler.batch_execute("begin").await.unwrap();
    assert_eq!(idler.execute(&insert("k"), &[]).await.unwrap(), 0);
    other.batch_execute("set lock_timeout = 1").await.unwrap();
    assert_eq!(other.execute(&insert("k"), &[]).await.unwrap(), 0);
    // Nor does it hold up whoever takes the key over once it is free, or the worker that deletes it.
    world
        .run("update posthaste.dedup set expires_at = now() - interval '1 s'")
        .await;
    assert_eq!(other.execute(&insert("k"), &[]).await.unwrap(), 1);
}

#[tokio::test]
async fn a_key_is_free_again_after_its_time_for_one_of_those_who_want_it() {
    let world = World::new().await;
    let administrator = world.login("posthaste_admin").await;
    for (span, allowed) in [
        ("0", false),
        ("1 s", true),
        ("90 days", true),
        ("91 days", false),
        ("1 hour", true),
    ] {
        let set = format!("select posthaste.set_dedup_window('{span}', 'policy')");
        let is_set = administrator.db.batch_execute(&set).await;
        assert_eq!(is_set.is_ok(), allowed, "{span}");
    }
    world.run(&insert("k")).await;
    assert!(
        world
            .holds("(select expires_at between now() + interval '59 min' and now() + interval '1 hour' from posthaste.dedup)")
            .await
    );
    assert_eq!(world.db.execute(&insert("k"), &[]).await.unwrap(), 0);
    let expire = "update posthaste.dedup set expires_at = now() - interval '1 s'";
    world.run(expire).await;
    assert_eq!(world.db.execute(&insert("k"), &[]).await.unwrap(), 1);
    assert_eq!(world.db.execute(&insert("k"), &[]).await.unwrap(), 0);
    // Two at once.
    world.run(expire).await;
    let [first, second] = [world.session().await, world.session().await];
    first
        .batch_execute(&format!("begin; {}", insert("k")))
        .await
        .unwrap();
    let insert = insert("k");
    let waits = tokio::spawn(async move { second.execute(&insert, &[]).await.unwrap() });
    world
        .until("exists (select from pg_locks where not granted)")
        .await;
    first.batch_execute("commit").await.unwrap();
    assert_eq!(waits.await.unwrap(), 0);
    assert_eq!(world.count(EVENTS).await, 3);
}

#[tokio::test]
async fn a_key_that_no_index_could_hold_is_refused_as_any_other() {
    let world = World::new().await;
    for (column, value, name) in [
        ("dedup_key", "repeat('k', 10000)", "dedup_key"),
        ("dedup_key", "''", "dedup_key"),
        ("dedup_key, tenant", "'k', repeat('t', 10000)", "tenant"),
    ] {
        let insert = format!(
            "insert into posthaste.outbox (event_type, payload, {column}) values ('a', '1', {value})"
        );
        let refused = refusal(&world.db, &insert).await;
        assert_eq!(refused.code(), &SqlState::CHECK_VIOLATION);
        assert!(refused.message().starts_with(name), "{refused:?}");
    }
    // The longest that is allowed, in the longest letters.
    let longest = "insert into posthaste.outbox (event_type, payload, dedup_key, tenant)
        values (repeat('t', 128), '1', repeat('\u{1f511}', 256), repeat('\u{1f511}', 128))";
    assert_eq!(world.db.execute(longest, &[]).await.unwrap(), 1);
    assert_eq!(world.db.execute(longest, &[]).await.unwrap(), 0);
}

#[tokio::test]
async fn whoever_reads_one_snapshot_throughout_is_told_to_try_again() {
    let world = World::new().await;
    let reader = world.session().await;
    reader
        .batch_execute("begin isolation level repeatable read; select 1 from posthaste.outbox")
        .await
        .unwrap();
    world.run(&insert("k")).await;
    let refused = said(&reader.execute(&insert("k"), &[]).await.unwrap_err());
    assert_eq!(refused.code(), &SqlState::T_R_SERIALIZATION_FAILURE);
    reader.batch_execute("rollback").await.unwrap();
    assert_eq!(reader.execute(&insert("k"), &[]).await.unwrap(), 0);
}

#[tokio::test]
async fn workers_delete_keys_that_have_expired_and_no_others() {
    let world = World::new().await;
    let fill = "insert into posthaste.dedup select n::text, 'a', '', posthaste.new_event_id(), now() + interval '1 min' * n
        from generate_series(-2500, 2) n";
    world.run(fill).await;
    // In batches, each from where the last one ended, past those that somebody has locked.
    let [idler, worker] = [
        world.session().await,
        world.login("posthaste_worker").await.db,
    ];
    idler
        .batch_execute("begin; select from posthaste.dedup where dedup_key = '-2500' for update")
        .await
        .unwrap();
    worker.batch_execute("set lock_timeout = 1").await.unwrap();
    let forget = "select forgotten from posthaste.forget_keys(null, 100)";
    assert_eq!(one::<i64>(&worker, forget).await, 100);
    let left = "select string_agg(dedup_key, ' ' order by expires_at) from (select * from posthaste.dedup order by expires_at limit 2) d";
    assert_eq!(world.text(left).await, "-2500 -2399");
    idler.batch_execute("rollback").await.unwrap();
    let _worker = world.worker(&[]).await;
    world
        .until(
            "(select string_agg(dedup_key, ' ' order by expires_at) = '1 2' from posthaste.dedup)",
        )
        .await;
}

#[tokio::test]
async fn a_guard_with_another_condition_is_noticed() {
    let world = World::new().await;
    world.run("select posthaste.create_partitions(0)").await;
    let problems = "select count(*) from posthaste.guard_deviation() where privilege = 'trigger outbox_admits'";
    assert_eq!(world.count(problems).await, 0);
    world
        .run(
            "create or replace trigger outbox_admits before insert on posthaste.outbox
              for each row when (new.dedup_key = 'x') execute function posthaste.admit()",
        )
        .await;
    // On the table and on each of its partitions.
    assert_eq!(world.count(problems).await, 3);
}
