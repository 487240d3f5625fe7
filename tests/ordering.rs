//! Order where it is asked for: one delivery at a time per subscription and key, in the order of the commits, whoever dies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use posthaste::trial::partner::{Received, Replies, Reply};
use serde_json::Value;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::{Partner, World};

/// A partner that takes its time, fails now and then, and watches whether two events of a key are ever under way at once.
struct Watch {
    replies: Replies,
    overlaps: Arc<Mutex<Vec<String>>>,
}

impl Watch {
    /// Of these attempts of an event it refuses the first ones.
    fn failing(refuses: impl Fn(&Received, i64) -> bool + Send + Sync + 'static) -> Self {
        let overlaps: Arc<Mutex<Vec<String>>> = Arc::default();
        let under_way: Mutex<HashMap<String, (i64, Instant)>> = Mutex::default();
        let seen = Arc::clone(&overlaps);
        let replies = Replies::by(move |received| {
            let (key, n) = content(received);
            let now = Instant::now();
            let before = under_way
                .lock()
                .unwrap()
                .insert(format!("{} {key}", received.path), (n, now + TAKES));
            if let Some((other, until)) = before
                && other != n
                && now < until
            {
                seen.lock()
                    .unwrap()
                    .push(format!("{key}: {n} while {other} was under way"));
            }
            let status = if refuses(received, n) { 500 } else { 200 };
            Reply::Delay(TAKES, Box::new(Reply::Status(status)))
        });
        Self { replies, overlaps }
    }

    fn assert_one_at_a_time(&self) {
        assert_eq!(*self.overlaps.lock().unwrap(), Vec::<String>::new());
    }
}

/// How long the partner takes for an answer.
const TAKES: Duration = Duration::from_millis(3);

/// The key and the number that an event was published with.
fn content(received: &Received) -> (String, i64) {
    let body: Value = serde_json::from_slice(&received.body).unwrap();
    let data = &body["data"];
    (
        data["key"].as_str().unwrap_or_default().to_owned(),
        data["n"].as_i64().unwrap(),
    )
}

/// What came of each key on a path, in the order of arrival, repetitions of one event in a row counted once.
fn by_key(partner: &Partner, path: &str) -> HashMap<String, Vec<i64>> {
    let mut keys: HashMap<String, Vec<i64>> = HashMap::new();
    for received in partner.received() {
        if received.path == path {
            let (key, n) = content(&received);
            let numbers = keys.entry(key).or_default();
            if numbers.last() != Some(&n) {
                numbers.push(n);
            }
        }
    }
    keys
}

/// Commits an event of a key.
async fn publish(db: &Client, key: &str, n: i64) -> Uuid {
    let insert = "insert into posthaste.outbox (event_type, ordering_key, payload)
        values ('a', $1::text, json_build_object('key', $1::text, 'n', $2::bigint)) returning event_id";
    db.query_one(insert, &[&key, &n]).await.unwrap().get(0)
}

/// Commits events 1 to `count` of each of these keys, in turn, some several to a transaction.
async fn produce(db: Client, keys: Vec<String>, count: i64) {
    for n in 1..=count {
        let together = n % 4 == 0;
        if together {
            db.batch_execute("begin").await.unwrap();
        }
        for key in &keys {
            publish(&db, key, n).await;
        }
        if together {
            db.batch_execute("commit").await.unwrap();
        }
    }
}

/// Four producers, each with keys of its own.
async fn produce_much(world: &World, count: i64) -> Vec<tokio::task::JoinHandle<()>> {
    let mut producers = Vec::new();
    for producer in 0..4 {
        let keys = (0..8).map(|key| format!("key {producer}.{key}")).collect();
        producers.push(tokio::spawn(produce(world.session().await, keys, count)));
    }
    producers
}

/// All 32 keys came whole and in order.
fn assert_in_order(partner: &Partner, path: &str, count: i64) {
    let keys = by_key(partner, path);
    assert_eq!(keys.len(), 32);
    for (key, numbers) in keys {
        assert_eq!(numbers, (1..=count).collect::<Vec<_>>(), "{key}");
    }
}

#[tokio::test]
async fn each_key_comes_in_order_and_one_at_a_time_from_three_workers() {
    let world = World::new().await;
    let watch = Watch::failing(|received, n| n % 5 == 0 && received.attempt <= 2);
    let partner = Partner::replying(watch.replies.clone()).await;
    world.subscribe("p", &partner, "0s,0s,0s,0s").await;
    let mut workers = Vec::new();
    // None has room for all keys.
    for _ in 0..3 {
        workers.push(world.worker(&[("max_in_flight", "8")]).await);
    }
    for producer in produce_much(&world, 20).await {
        producer.await.unwrap();
    }
    world.until_all_is_done().await;
    watch.assert_one_at_a_time();
    assert_in_order(&partner, "/p", 20);
    world
        .until("not exists (select from posthaste.ordering)")
        .await;
    let used = "select count(distinct worker_id) from posthaste.attempt";
    assert_eq!(world.count(used).await, 3);
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test]
async fn each_key_comes_in_order_and_one_at_a_time_though_workers_are_killed() {
    let world = World::new().await;
    let watch = Watch::failing(|received, n| n % 5 == 0 && received.attempt <= 1);
    let partner = Partner::replying(watch.replies.clone()).await;
    world.subscribe("p", &partner, "0s,0s,0s,0s,0s,0s,0s").await;
    world.subscribe("q", &partner, "0s,0s,0s,0s,0s,0s,0s").await;
    let settings = [("lease", "1h"), ("endpoint_concurrency", "8")];
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(world.worker_process(&settings).await);
    }
    let producers = produce_much(&world, 30).await;
    for killed in [1, 2, 3, 4] {
        partner.wait_for(killed * 300).await;
        workers.remove(0).kill().await;
        workers.push(world.worker_process(&settings).await);
    }
    for producer in producers {
        producer.await.unwrap();
    }
    world.until_all_is_done().await;
    watch.assert_one_at_a_time();
    assert_in_order(&partner, "/p", 30);
    assert_in_order(&partner, "/q", 30);
    world
        .until("not exists (select from posthaste.ordering)")
        .await;
}

#[tokio::test]
async fn what_commits_late_is_waited_for_by_nobody_and_goes_before_what_follows_it() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    let late = world.session().await;
    late.batch_execute("begin").await.unwrap();
    publish(&late, "k", 1).await;
    publish(&world.db, "k", 2).await;
    partner.wait_for(1).await;
    world.until_all_is_done().await;
    // The key is busy with another while the late one commits, and one that follows it.
    partner.set_reply(Reply::Delay(
        Duration::from_millis(50),
        Box::new(Reply::Status(200)),
    ));
    publish(&world.db, "k", 3).await;
    partner.wait_for(2).await;
    late.batch_execute("commit").await.unwrap();
    publish(&world.db, "k", 4).await;
    world.until_all_is_done().await;
    assert_eq!(by_key(&partner, "/p")["k"], [2, 3, 1, 4]);
}

#[tokio::test]
async fn nothing_overtakes_an_event_that_another_worker_has_in_hand() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h").await;
    let first = publish(&world.db, "k", 1).await;
    // As a worker that has taken it and not committed yet.
    let mut session = world.session().await;
    let taking = session.transaction().await.unwrap();
    taking
        .batch_execute("delete from posthaste.intake")
        .await
        .unwrap();
    let _worker = world.worker(&[]).await;
    publish(&world.db, "k", 2).await;
    world.until("exists (select from posthaste.follower)").await;
    for n in 1..=20 {
        publish(&world.db, "other", n).await;
    }
    partner.wait_for(20).await;
    assert_eq!(by_key(&partner, "/p").get("k"), None);

    let follow = "insert into posthaste.follower (event_id, subscription_id, ordering_key, due_at) values ($1, $2, 'k', now())";
    taking.execute(follow, &[&first, &id]).await.unwrap();
    taking.commit().await.unwrap();
    world.until_all_is_done().await;
    assert_eq!(by_key(&partner, "/p")["k"], [1, 2]);
}

#[tokio::test]
async fn nothing_overtakes_an_event_that_a_worker_had_in_hand_and_gave_back() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    publish(&world.db, "k", 1).await;
    let mut session = world.session().await;
    let taking = session.transaction().await.unwrap();
    taking
        .batch_execute("delete from posthaste.intake")
        .await
        .unwrap();
    let _worker = world.worker(&[]).await;
    publish(&world.db, "k", 2).await;
    // Long enough for the worker to look past what is in hand.
    for n in 1..=20 {
        publish(&world.db, "other", n).await;
    }
    partner.wait_for(20).await;
    taking.rollback().await.unwrap();
    world.until_all_is_done().await;
    assert_eq!(by_key(&partner, "/p")["k"], [1, 2]);
}

/// Of these numbers, the partner accepts none; of the others, all.
fn refusing(numbers: &'static [i64]) -> Replies {
    Replies::by(move |received| {
        let refused = numbers.contains(&content(received).1);
        Reply::Status(if refused { 500 } else { 200 })
    })
}

#[tokio::test]
async fn behind_a_dead_letter_the_others_go_on_unless_they_are_to_be_held() {
    let world = World::new().await;
    let partner = Partner::replying(refusing(&[2])).await;
    world.subscribe("goes-on", &partner, "").await;
    world.subscribe("holds", &partner, "").await;
    world
        .change("holds", r#"{"after_dead_letter": "hold"}"#)
        .await;
    for n in 1..=4 {
        publish(&world.db, "k", n).await;
        publish(&world.db, "other", n + 10).await;
    }
    let _worker = world.worker(&[]).await;
    world
        .until(
            "(select count(*) from posthaste.attempt) = 14 and (select held_at is not null from posthaste.ordering)",
        )
        .await;
    assert_eq!(by_key(&partner, "/goes-on")["k"], [1, 2, 3, 4]);
    assert_eq!(by_key(&partner, "/holds")["k"], [1, 2]);
    assert_eq!(by_key(&partner, "/holds")["other"], [11, 12, 13, 14]);

    let held = "select string_agg(format('%s %s', status, note), '; ' order by event_id) from posthaste.delivery where finished_at is null";
    let second = world
        .text("select event_id::text from posthaste.outbox where payload ->> 'n' = '2'")
        .await;
    let behind = format!("PENDING waits behind the dead letter {second} of its ordering key");
    assert_eq!(world.text(held).await, format!("{behind}; {behind}"));
    assert!(world.holds(&format!(
        "(select (subscription, ordering_key, event_id, waiting) = ('holds', 'k', '{second}', 2) from posthaste.ordered_key)
         and (select backlog = 2 from posthaste.subscription_overview where subscription = 'holds')
         and (select value = 2 from posthaste.figures(100) where (figure, label) = ('deliveries_owed', 'ordered'))"
    )).await);

    let skipped = "select posthaste.skip_ordered('holds', 'k', 'it is settled by telephone')::text";
    assert_eq!(world.text(skipped).await, second);
    world.until_all_is_done().await;
    assert_eq!(by_key(&partner, "/holds")["k"], [1, 2, 3, 4]);
    // It stays a dead letter.
    let letters = "select count(*) from posthaste.dead_letter where subscription = 'holds'";
    assert_eq!(world.count(letters).await, 1);
    let noted = "select format('%s %s %s', object, reason, after ->> 'ordering_key') from posthaste.audit where action = 'ordering_skipped'";
    assert_eq!(
        world.text(noted).await,
        "holds it is settled by telephone k"
    );
}

#[tokio::test]
async fn a_head_that_waits_for_a_retry_can_be_skipped_and_is_cancelled() {
    let world = World::new().await;
    let partner = Partner::replying(refusing(&[1])).await;
    world.subscribe("p", &partner, "1h,1h").await;
    let _worker = world.worker(&[]).await;
    let first = publish(&world.db, "k", 1).await;
    publish(&world.db, "k", 2).await;
    world
        .until("exists (select from posthaste.queue where attempts = 1)")
        .await;
    assert!(world.holds("exists (select from posthaste.follower)").await);
    world
        .run("select posthaste.skip_ordered('p', 'k', 'they asked for it')")
        .await;
    world.until_all_is_done().await;
    assert_eq!(by_key(&partner, "/p")["k"], [1, 2]);
    let note = format!(
        "select format('%s %s %s', status, attempts, note) from posthaste.delivery where event_id = '{first}'"
    );
    assert_eq!(world.text(&note).await, "CANCELLED 1 they asked for it");
}

#[tokio::test]
async fn a_head_under_way_that_is_skipped_is_not_tried_again() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Hang).await;
    world.subscribe("p", &partner, "1h,1h").await;
    let _worker = world.worker(&[("request_timeout", "1s")]).await;
    publish(&world.db, "k", 1).await;
    publish(&world.db, "k", 2).await;
    partner.wait_for(1).await;
    partner.set_reply(Reply::Status(200));
    world
        .run("select posthaste.skip_ordered('p', 'k', 'x')")
        .await;
    world.until_all_is_done().await;
    let stories = "select string_agg(format('%s %s', status, attempts), ', ' order by event_id) from posthaste.delivery";
    assert_eq!(world.text(stories).await, "CANCELLED 1, SUCCESS 1");
}

#[tokio::test]
async fn keys_go_on_once_their_subscription_does_not_hold_any_more() {
    let world = World::new().await;
    let partner = Partner::replying(refusing(&[1])).await;
    world.subscribe("p", &partner, "").await;
    world.change("p", r#"{"after_dead_letter": "hold"}"#).await;
    let _worker = world.worker(&[]).await;
    for key in ["k", "l"] {
        publish(&world.db, key, 1).await;
        publish(&world.db, key, 2).await;
    }
    world
        .until("(select count(*) from posthaste.ordering where held_at is not null) = 2")
        .await;
    world
        .change("p", r#"{"after_dead_letter": "continue"}"#)
        .await;
    world.until_all_is_done().await;
    assert_eq!(by_key(&partner, "/p")["l"], [1, 2]);
}

#[tokio::test]
async fn a_replay_of_the_dead_letter_that_holds_a_key_lets_it_go_on_if_it_succeeds() {
    let world = World::new().await;
    let partner = Partner::replying(refusing(&[2])).await;
    let id = world.subscribe("p", &partner, "").await;
    world.change("p", r#"{"after_dead_letter": "hold"}"#).await;
    let worker = world.worker(&[]).await;
    let first = publish(&world.db, "k", 1).await;
    let second = publish(&world.db, "k", 2).await;
    publish(&world.db, "k", 3).await;
    world
        .until("exists (select from posthaste.ordering where held_at is not null)")
        .await;
    worker.stop().await.unwrap();
    // As whoever carries out a replay: of what was delivered before, and of the dead letter, which fails once more.
    for (event, replay) in [(first, 1_i16), (second, 1)] {
        let follow = "insert into posthaste.follower (event_id, subscription_id, replay, ordering_key, due_at) values ($1, $2, $3, 'k', now())";
        world
            .db
            .execute(follow, &[&event, &id, &replay])
            .await
            .unwrap();
    }
    let worker = world.worker(&[]).await;
    world
        .until("exists (select from posthaste.ordering where replay = 1 and held_at is not null)")
        .await;
    worker.stop().await.unwrap();
    assert_eq!(by_key(&partner, "/p")["k"], [1, 2]);

    let follow = "insert into posthaste.follower (event_id, subscription_id, replay, ordering_key, due_at) values ($1, $2, 2, 'k', now())";
    world.db.execute(follow, &[&second, &id]).await.unwrap();
    partner.set_reply(Reply::Status(200));
    let _worker = world.worker(&[]).await;
    world.until_all_is_done().await;
    assert_eq!(by_key(&partner, "/p")["k"], [1, 2, 1, 3]);
    assert_eq!(
        world.story(second).await,
        "1 rejected exhausted, 1 rejected exhausted, 1 accepted done"
    );
}

#[tokio::test]
async fn a_delivery_in_quarantine_keeps_its_place_until_somebody_decides() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe_to("p", &partner, &["a"], None, "1h").await;
    world
        .subscribe_to("filtered", &partner, &["a"], None, "1h")
        .await;
    // Neither is kept by number 1 and number 3.
    world
        .run(
            r#"select posthaste.change_event_type('a', '{"schema": {"properties": {"n": {"enum": [2, 4]}}}}')"#,
        )
        .await;
    world
        .change(
            "filtered",
            r#"{"filter": "$.n.abs() == 2 || $.n.abs() == 4"}"#,
        )
        .await;
    let _worker = world.worker(&[]).await;
    let mut events = Vec::new();
    for n in 1..=4 {
        events.push(publish(&world.db, "k", n).await);
    }
    world
        .until("(select count(*) from posthaste.quarantine where decision is null) = 1 and not exists (select from posthaste.intake)")
        .await;
    // Through the filter come 2 and 4 alone, which the schema allows.
    world
        .until("(select count(*) from posthaste.attempt) = 2")
        .await;
    assert_eq!(by_key(&partner, "/filtered")["k"], [2, 4]);
    assert_eq!(by_key(&partner, "/p").get("k"), None);
    let decide = |what: &str, event: Uuid| format!("select posthaste.{what}('{event}', 'x')");
    world.run(&decide("release", events[0])).await;
    world
        .until("(select count(*) from posthaste.quarantine where decision is null) = 1")
        .await;
    assert_eq!(by_key(&partner, "/p")["k"], [1, 2]);
    world.run(&decide("discard", events[2])).await;
    world.until_all_is_done().await;
    assert_eq!(by_key(&partner, "/p")["k"], [1, 2, 4]);
    world
        .until("not exists (select from posthaste.ordering) and not exists (select from posthaste.skip)")
        .await;
}

#[tokio::test]
async fn what_a_filter_cannot_be_evaluated_on_is_quarantined_in_its_turn() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world.change("p", r#"{"filter": "$.n.double() > 0"}"#).await;
    let insert = |n: &str| {
        format!(
            r#"insert into posthaste.outbox (event_type, ordering_key, payload) values ('a', 'k', '{{"key": "k", "n": {n}}}')"#
        )
    };
    // Valid JSON that jsonb does not take.
    for n in ["1", r#""\u0000""#, "3"] {
        world.run(&insert(n)).await;
    }
    let _worker = world.worker(&[]).await;
    world
        .until("exists (select from posthaste.quarantine)")
        .await;
    assert_eq!(by_key(&partner, "/p")["k"], [1]);
    world
        .run("select posthaste.discard(event_id, 'x') from posthaste.quarantine")
        .await;
    world.until_all_is_done().await;
    assert_eq!(by_key(&partner, "/p")["k"], [1, 3]);
}

#[tokio::test]
async fn a_head_that_a_worker_gives_back_keeps_its_place() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Hang).await;
    world.subscribe("p", &partner, "0s,0s").await;
    let settings = [("endpoint_concurrency", "1"), ("drain", "0s")];
    let worker = world.worker(&settings).await;
    for n in 1..=2 {
        for key in ["k", "l", "m"] {
            publish(&world.db, key, n).await;
        }
    }
    partner.wait_for(1).await;
    world
        .until("(select count(*) from posthaste.lease) >= 2")
        .await;
    worker.stop().await.unwrap();
    assert!(
        world
            .holds("not exists (select from posthaste.lease) and exists (select from posthaste.queue where attempts = 0)")
            .await
    );
    partner.set_reply(Reply::Status(200));
    let _worker = world.worker(&[]).await;
    world.until_all_is_done().await;
    for key in ["k", "l", "m"] {
        assert_eq!(by_key(&partner, "/p")[key], [1, 2]);
    }
}

#[tokio::test]
async fn a_head_that_waits_while_its_subscription_is_paused_keeps_its_place() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1h,1h").await;
    let worker = world.worker(&[]).await;
    publish(&world.db, "k", 1).await;
    publish(&world.db, "k", 2).await;
    world
        .until("exists (select from posthaste.queue where attempts = 1)")
        .await;
    world.run("select posthaste.deactivate('p', 'x')").await;
    world.until("not (select active from posthaste.lane)").await;
    worker.stop().await.unwrap();
    world.make_due().await;
    partner.set_reply(Reply::Status(200));
    world.change("p", r#"{"active": true}"#).await;
    let _worker = world.worker(&[]).await;
    world.until_all_is_done().await;
    assert_eq!(by_key(&partner, "/p")["k"], [1, 2]);
}

#[tokio::test]
async fn what_waits_behind_a_head_is_cancelled_with_its_subscription() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1h,1h").await;
    let _worker = world.worker(&[]).await;
    for n in 1..=3 {
        publish(&world.db, "k", n).await;
    }
    world
        .until("exists (select from posthaste.queue where attempts = 1)")
        .await;
    world.agree("propose_removal('p', 'they left')").await;
    world.until_all_is_done().await;
    let all = "select string_agg(status::text, ', ') from posthaste.delivery";
    assert_eq!(world.text(all).await, "CANCELLED, CANCELLED, CANCELLED");
    world
        .until("not exists (select from posthaste.ordering)")
        .await;
}

#[tokio::test]
async fn what_a_worker_left_that_died_after_taking_it_is_found_by_the_others() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h").await;
    world
        .run("alter table posthaste.outbox disable trigger outbox_takes_in")
        .await;
    let mut events = Vec::new();
    for n in 1..=3 {
        events.push(publish(&world.db, "k", n).await);
    }
    for event in events {
        let follow = "insert into posthaste.follower (event_id, subscription_id, ordering_key, due_at) values ($1, $2, 'k', now())";
        world.db.execute(follow, &[&event, &id]).await.unwrap();
    }
    let _worker = world.worker(&[]).await;
    world.until_all_is_done().await;
    assert_eq!(by_key(&partner, "/p")["k"], [1, 2, 3]);
}
