//! Every committed event is found once, wherever the look before it ended: late commits, small batches, other takers, old ids.

use std::time::Duration;

use posthaste::store::{Room, Store, Taken, Watermark};
use uuid::Uuid;

use crate::harness::World;

const ANY_ID: (Uuid, Uuid) = (Uuid::nil(), Uuid::max());

/// Looks for events as a worker does, at most `batch` of them.
async fn look(store: &Store, batch: usize, watermark: &Watermark, ids: (Uuid, Uuid)) -> Taken {
    let room = Room {
        worker_id: 1,
        lease: Duration::from_mins(1),
        deliveries: 1000,
        bytes: 1 << 20,
        max_body: 1 << 20,
        slots: Vec::new(),
        slots_of_others: 1000,
    };
    store.take(&room, batch, watermark, ids).await.unwrap()
}

fn store_of(world: &World) -> Store {
    Store::open(&world.config(&[])).unwrap()
}

#[tokio::test]
async fn the_next_look_starts_past_an_open_transaction_and_still_finds_what_it_commits() {
    let world = World::new().await;
    let store = store_of(&world);
    let late = world.session().await;
    late.batch_execute(
        "begin; insert into posthaste.outbox (event_type, payload) values ('late', '1')",
    )
    .await
    .unwrap();
    let xid: String = late
        .query_one("select pg_current_xact_id()::text", &[])
        .await
        .unwrap()
        .get(0);
    world.publish("early", "1").await;

    let first = look(&store, 10, &Watermark::beginning(), ANY_ID).await;
    assert_eq!(first.events, 1);
    let next: u64 = first.watermark.xid.parse().unwrap();
    assert!(next > xid.parse().unwrap(), "{next} is not past {xid}");
    // Other databases' open transactions count too: ids are the cluster's.
    assert!(first.watermark.open.contains(&xid));

    world.publish("later", "1").await;
    let second = look(&store, 10, &first.watermark, ANY_ID).await;
    assert_eq!(second.events, 1);
    late.batch_execute("commit").await.unwrap();
    let third = look(&store, 10, &second.watermark, ANY_ID).await;
    assert_eq!(third.events, 1);
    assert!(!third.watermark.open.contains(&xid));
    assert_eq!(look(&store, 10, &third.watermark, ANY_ID).await.events, 0);
}

#[tokio::test]
async fn looks_with_little_room_miss_nothing_and_take_nothing_twice() {
    let world = World::new().await;
    let store = store_of(&world);
    let late = world.session().await;
    late.batch_execute(
        "begin; insert into posthaste.outbox (event_type, payload)
         select 'late', '1' from generate_series(1, 3)",
    )
    .await
    .unwrap();
    for _ in 0..5 {
        world.publish_many("a", 2).await;
    }
    let mut watermark = Watermark::beginning();
    let mut found = 0;
    for batch in [1, 3, 2, 1] {
        let taken = look(&store, batch, &watermark, ANY_ID).await;
        (watermark, found) = (taken.watermark, found + taken.events);
    }
    assert_eq!(found, 7);
    late.batch_execute("commit").await.unwrap();
    world.publish_many("b", 2).await;
    for _ in 0..8 {
        let taken = look(&store, 1, &watermark, ANY_ID).await;
        (watermark, found) = (taken.watermark, found + taken.events);
    }
    assert_eq!(found, 15);
    assert!(
        world
            .holds("not exists (select from posthaste.intake)")
            .await
    );
}

/// A dump that is restored on a younger server brings ids of transactions that are far from being given out there.
#[tokio::test]
async fn what_a_restored_dump_left_hides_nothing_that_comes_later() {
    let world = World::new().await;
    let store = store_of(&world);
    world.publish_many("restored", 3).await;
    let far = "update posthaste.intake set xid = '99999999999'";
    world.run(far).await;
    let first = look(&store, 3, &Watermark::beginning(), ANY_ID).await;
    assert_eq!(first.events, 3);
    world.publish("later", "1").await;
    let second = look(&store, 3, &first.watermark, ANY_ID).await;
    assert_eq!(second.events, 1);
}

#[tokio::test]
async fn what_another_taker_gave_back_is_found_by_a_sweep() {
    let world = World::new().await;
    let store = store_of(&world);
    world.publish("a", "1").await;
    let other = world.session().await;
    other
        .batch_execute("begin; select from posthaste.intake for update")
        .await
        .unwrap();
    let first = look(&store, 10, &Watermark::beginning(), ANY_ID).await;
    assert_eq!(first.events, 0, "it does not wait for the other");
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(
        look(&store, 10, &Watermark::beginning(), ANY_ID)
            .await
            .events,
        1
    );
}

#[tokio::test]
async fn an_event_with_an_id_of_long_ago_is_left_by_a_near_look_and_delivered_all_the_same() {
    let world = World::new().await;
    let store = store_of(&world);
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    let old = "insert into posthaste.outbox (event_id, event_type, payload)
        values ('00000000-0001-7000-8000-000000000000', 'old', '1')";
    world.run(old).await;
    let now = Uuid::now_v7();
    let near = look(&store, 10, &Watermark::beginning(), (now, Uuid::max())).await;
    assert_eq!((near.seen, near.events), (1, 0));
    let _worker = world.worker(&[]).await;
    partner.wait_for(1).await;
    world.until_all_is_done().await;
}
