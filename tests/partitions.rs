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
