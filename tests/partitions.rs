//! History is kept by the day, and making a day's partition costs a producer a moment at most.

use crate::harness::World;

#[tokio::test]
async fn an_insert_waits_while_todays_partition_is_made_and_does_not_fail() {
    let world = World::new().await;
    let making = world.session().await;
    let make = "begin; select posthaste.create_partition('posthaste.outbox', (now() at time zone 'UTC')::date)";
    making.batch_execute(make).await.unwrap();
    let commit = async {
        world.until("exists (select from pg_locks where not granted and relation::regclass::text ~ 'outbox')").await;
        making.batch_execute("commit").await.unwrap();
    };
    let (event, ()) = tokio::join!(world.publish("thing.happened", "{}"), commit);
    let place =
        format!("select tableoid::regclass::text from posthaste.outbox where event_id = '{event}'");
    assert!(world.text(&place).await.starts_with("posthaste.outbox_2"));
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_kept_and_holds_nobody_up() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("harbour", &partner, "1h").await;
    world.run("insert into posthaste.intake (event_id) values ('00000000-0000-7000-8000-000000000000')").await;
    let _worker = world.worker(&[]).await;
    world.publish("thing.happened", "{}").await;
    partner.wait_for(1).await;
    assert_eq!(
        world.count("select count(*) from posthaste.intake").await,
        1
    );
}

#[tokio::test]
async fn what_landed_in_the_default_partition_is_moved_into_its_days_and_changed_by_nothing() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("harbour", &partner, "1h").await;
    let (history, from_today) = (
        "('posthaste.outbox'), ('posthaste.attempt')",
        "select format('drop table %s', c.oid::regclass) from pg_class c
         where c.relnamespace = 'posthaste'::regnamespace and c.relname ~ '^(outbox|attempt)_[0-9]{8}$'",
    );
    for row in world.db.query(from_today, &[]).await.unwrap() {
        world.run(&row.get::<_, String>(0)).await;
    }
    world.publish_old("thing.happened", 3).await;
    world.run("insert into posthaste.outbox (event_id, event_type, payload) values (overlay(posthaste.first_event_id(now() - interval '3 days')::text placing '7' from 15 for 1)::uuid, 'thing.happened', '{}')").await;
    let attempts = "insert into posthaste.attempt (event_id, subscription_id, subscription_revision, replay, number, worker_id, started_at, duration_us, outcome, verdict, http_status)
        select event_id, 1, 1, 0, 1, 1, now(), 1, 'accepted', 'done', 200 from posthaste.outbox";
    world.run(attempts).await;
    let digest = "select string_agg(h, ' ' order by h) from (
        select o::text as h from posthaste.outbox o union all select a::text from posthaste.attempt a) x";
    let before = world.text(digest).await;
    let intake = world.count("select count(*) from posthaste.intake").await;
    let days = format!(
        "select sum(posthaste.empty_default(h::regclass, 'no worker ran')) from (values {history}) v (h)"
    );
    let days = world.count(&days).await;
    assert!((3..=4).contains(&days), "{days}");

    assert_eq!(world.text(digest).await, before);
    assert_eq!(
        world.count("select count(*) from posthaste.intake").await,
        intake
    );
    let left = "select (select count(*) from posthaste.outbox_default) + (select count(*) from posthaste.attempt_default)";
    assert_eq!(world.count(left).await, 0);
    assert_eq!(
        world
            .text("select string_agg(d::text, ' ') from posthaste.guard_deviation() d")
            .await,
        ""
    );
    let noted = "select string_agg(concat_ws(' ', object, after ->> 'rows', reason), ', ' order by entry) from posthaste.audit_log where action = 'default_partition_emptied'";
    assert_eq!(
        world.text(noted).await,
        "outbox_default 4 no worker ran, attempt_default 4 no worker ran"
    );
    let _worker = world.worker(&[]).await;
    partner.wait_for(4).await;
}
