//! A worker that loses Postgres keeps its results in hand, comes back, and records each of them once.

use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::{DatabaseWire, Wire, World, admin};

#[tokio::test]
async fn results_in_hand_are_recorded_once_by_a_worker_that_comes_back_under_its_id() {
    let world = World::new().await;
    let partner = world.partner().await;
    let wire = Wire::to(&partner).await;
    world.subscribe_through(&wire, &partner, "1h").await;
    let mut worker = world.worker(PATIENT).await;
    world.publish("warm.up", "1").await;
    world.until_all_is_done().await;
    wire.hold();
    world.publish_many("a", 10).await;
    partner.wait_for(11).await;

    let admin = admin().await;
    shut_out(&world, &admin, true).await;
    worker.not_ready().await;
    wire.release();
    shut_out(&world, &admin, false).await;
    world.until_all_is_done().await;
    assert_eq!(partner.count(), 11);
    assert_eq!(world.text(STORIES).await, "1 accepted done by 1");
    let mut worker = worker.ready().await;
    assert_eq!(
        world
            .text("select string_agg(worker_id::text, ' ') from posthaste.worker_alive")
            .await,
        "1"
    );

    // And it still works.
    world.publish("b", "1").await;
    partner.wait_for(12).await;
    world.until_all_is_done().await;
    assert!(worker.is_ready());
}

#[tokio::test]
async fn a_worker_that_was_declared_gone_comes_back_under_a_new_id_and_what_it_did_is_late() {
    let world = World::new().await;
    let partner = world.partner().await;
    let wire = Wire::to(&partner).await;
    world.subscribe_through(&wire, &partner, "1h,1h").await;
    // One subscription gets a quarter of the room: with five in flight it cannot take the second attempts too.
    let worker = world
        .worker(&[PATIENT, &[("max_in_flight", "20")]].concat())
        .await;
    world.publish("warm.up", "1").await;
    world.until_all_is_done().await;
    wire.hold();
    let ids = publish_five(&world).await;
    partner.wait_for(6).await;

    let admin = admin().await;
    shut_out(&world, &admin, true).await;
    // While nobody can connect, another declares it gone.
    world
        .run("update posthaste.worker set ended_at = now()")
        .await;
    world.end_leases().await;
    shut_out(&world, &admin, false).await;
    let _other = world.worker(&[]).await;
    world.until_all_is_done().await;
    wire.release();
    world
        .until("(select count(*) from posthaste.attempt where verdict = 'late') = 5")
        .await;
    for id in ids {
        assert_eq!(
            world.story(id).await,
            "1 abandoned retry, 1 accepted late, 2 accepted done"
        );
    }
    assert!(
        world
            .holds("(select count(*) from posthaste.worker where ended_at is null) = 2")
            .await
    );
    drop(worker);
}

#[tokio::test]
async fn a_record_whose_commit_was_never_confirmed_is_not_written_twice() {
    let world = World::new().await;
    if world
        .holds("(select ssl from pg_stat_ssl where pid = pg_backend_pid())")
        .await
    {
        return eprintln!("not shown: what is said to this server over TLS cannot be recognised");
    }
    let partner = world.partner().await;
    let wire = Wire::to(&partner).await;
    world.subscribe_through(&wire, &partner, "1h").await;
    let config = world.config(&[]);
    let database = DatabaseWire::to(config.required_database_url().unwrap()).await;
    let _worker = world
        .worker(&[PATIENT, &[("database_url", database.url())]].concat())
        .await;
    world.publish("warm.up", "1").await;
    world.until_all_is_done().await;
    wire.hold();
    let ids = publish_five(&world).await;
    partner.wait_for(6).await;

    // A worker names an event to Postgres when it records an attempt, and at no other time.
    database.lose_whoever_says(ids[0].as_bytes());
    wire.release();
    // Recorded, and its worker, which asks whether it is, will not hear of that either.
    database.until_lost(2).await;
    assert_eq!(world.story(ids[0]).await, "1 accepted done");
    database.mend();
    world.until_all_is_done().await;
    for id in ids {
        assert_eq!(world.story(id).await, "1 accepted done");
    }
    assert_eq!(partner.count(), 6);
}

async fn publish_five(world: &World) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for number in 1..=5 {
        ids.push(world.publish("a", &number.to_string()).await);
    }
    ids
}

/// Ends all sessions of workers and refuses new ones, or lets them in again.
pub(crate) async fn shut_out(world: &World, admin: &Client, out: bool) {
    let database = world.text("select current_database()::text").await;
    admin
        .batch_execute(&format!(
            "alter database {database} allow_connections {}",
            !out
        ))
        .await
        .unwrap();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name like 'posthaste%'";
    if out {
        world.run(end).await;
        world.until("not exists (select from pg_stat_activity where datname = current_database() and application_name like 'posthaste%')").await;
    }
}

/// Settings of a worker whose requests wait on one connection for as long as a test needs.
const PATIENT: &[(&str, &str)] = &[
    ("idle_timeout", "10m"),
    ("request_timeout", "2m"),
    ("lease", "1h"),
];

const STORIES: &str = "select string_agg(distinct story, '; ') from (
    select string_agg(format('%s %s %s by %s', number, outcome, verdict, worker_id), ', ' order by number) story
    from posthaste.attempt group by event_id) s";
