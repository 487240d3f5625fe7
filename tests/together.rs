//! What people ask for, what receivers answer and what the clock says come at once, and each delivery still ends in one way.

use posthaste::trial::partner::{Replies, Reply};
use serde_json::Value;

use crate::harness::{Partner, World};

/// Of each subscription and key one delivery at most is in queue, lease or quarantine, and it is the head that `ordering` names;
/// no key is busy without one; and the view shows each delivery once.
const BROKEN: &str = "
    with head as (
        select event_id, subscription_id, replay from posthaste.queue where ordering_key is not null
        union all
        select event_id, subscription_id, replay from posthaste.lease where ordering_key is not null
        union all
        select q.event_id, q.subscription_id, q.replay from posthaste.quarantine q join posthaste.outbox o using (event_id)
        where o.ordering_key is not null and (q.decision is null or q.decision = 'released' and not q.is_requeued)
    )
    select string_agg(what, E'\n') from (
        select format('in hand, but not the head: %s', h) as what from head h
        where not exists (
            select from posthaste.ordering o
            where (o.event_id, o.subscription_id, o.replay) = (h.event_id, h.subscription_id, h.replay) and o.held_at is null)
        union all
        select format('busy with nothing: %s', o) from posthaste.ordering o
        where o.held_at is null
          and not exists (select from head h where (o.event_id, o.subscription_id, o.replay) = (h.event_id, h.subscription_id, h.replay))
          -- Discarded, and a worker is yet to see to it.
          and not exists (select from posthaste.skip s where (s.event_id, s.subscription_id, s.replay) = (o.event_id, o.subscription_id, o.replay))
        union all
        select format('shown %s times: %s %s %s', count(*), event_id, subscription_id, replay) from posthaste.delivery
        group by event_id, subscription_id, replay having count(*) > 1
    ) x";

#[tokio::test]
async fn whatever_is_asked_for_at_once_each_key_has_one_head_and_each_delivery_one_end() {
    let world = World::new().await;
    let partner = Partner::replying(moody()).await;
    let schema = r#"{"type": "object", "properties": {"n": {"not": {"const": 8}}}}"#;
    let catalogue = "insert into posthaste.event_type (event_type, description, schema, example) values ('a', 'a', $1::text::json, '{\"n\": 1}')";
    world.db.execute(catalogue, &[&schema]).await.unwrap();
    for (name, after) in [("p", "hold"), ("q", "continue")] {
        world.subscribe(name, &partner, "0s,1s").await;
        let terms = format!(
            r#"{{"after_dead_letter": "{after}", "breaker": null, "filter": "$.n.double() != 3", "max_age": "1 hour"}}"#
        );
        world.change(name, &terms).await;
    }
    let mut workers = vec![
        world.worker_process(&[]).await,
        world.worker_process(&[]).await,
    ];
    let seed = fastrand::u64(..);
    let mut chance = fastrand::Rng::with_seed(seed);
    for round in 0..ROUNDS {
        let first = 1 + round * 4;
        world.db.execute(PUBLISH, &[&first]).await.unwrap();
        let name = if chance.bool() { "p" } else { "q" };
        if round % (ROUNDS / 4) == ROUNDS / 8 {
            workers.remove(0).kill().await;
            workers.push(world.worker_process(&[]).await);
        } else if chance.u8(..20) == 0 {
            resume(&world, name).await;
        } else {
            let ask = ASK[chance.usize(..ASK.len())].replace(":name", name);
            // Not everything can be asked for at any time.
            let _ = world.db.batch_execute(&ask).await;
        }
        let broken = world.text(BROKEN).await;
        assert_eq!(broken, "", "round {round} of seed {seed}");
    }
    partner.set_reply(Reply::Status(200));
    for name in ["p", "q"] {
        resume(&world, name).await;
    }
    while !world.holds(DONE).await {
        let _ = world.db.batch_execute(ASK[SKIP]).await;
        let _ = world.db.batch_execute(ASK[DISCARD]).await;
        let stuck = "exists (select from posthaste.ordering where held_at is not null) or exists (select from posthaste.quarantine where decision is null)";
        world.until(&format!("{stuck} or {DONE}")).await;
        assert_eq!(world.text(BROKEN).await, "", "at the end of seed {seed}");
    }
    let missing = "select count(*) from posthaste.outbox o cross join posthaste.subscription s
        where o.metadata is null and o.payload::text <> '{\"n\" : 3}' and not exists (
            select from posthaste.delivery d where (d.event_id, d.subscription_id, d.replay) = (o.event_id, s.subscription_id, 0))";
    assert_eq!(world.count(missing).await, 0);
}

/// A partner that refuses some for good, and most now and then.
fn moody() -> Replies {
    Replies::by(|received| {
        let body: Value = serde_json::from_slice(&received.body).unwrap();
        let n = body["data"]["n"].as_u64().unwrap_or_default();
        let refuses = n.is_multiple_of(5) || (n + u64::from(received.attempt)).is_multiple_of(3);
        Reply::Status(if refuses { 500 } else { 200 })
    })
}

async fn resume(world: &World, name: &str) {
    let resume = format!(
        "update posthaste.setting set four_eyes = false;
         select posthaste.approve(posthaste.propose_change('{name}', '{{\"active\": true}}'))"
    );
    // It may never have been paused.
    let _ = world.db.batch_execute(&resume).await;
}

const ROUNDS: i64 = 160;

/// Four events: most with a key, some for later, some not for long, some that no filter and some that no schema takes.
const PUBLISH: &str = r#"
    insert into posthaste.outbox (event_type, ordering_key, payload, deliver_after, expires_at)
    select 'a', case when n % 4 > 0 then 'k' || n % 6 end,
           case when n % 13 = 0 then '{"n": "\u0000"}'::json when n % 17 = 0 then '{"n": 8}' else json_build_object('n', n) end,
           case when n % 9 = 0 then now() + interval '200 ms' end, case when n % 11 = 0 then now() + interval '300 ms' end
    from generate_series($1::bigint, $1 + 3) n"#;

const SKIP: usize = 0;
const DISCARD: usize = 1;
const ASK: [&str; 11] = [
    "select posthaste.skip_ordered(subscription, ordering_key, 'x') from posthaste.ordered_key",
    "select posthaste.discard(event_id, 'x') from posthaste.unrouted where held_for is not null",
    "select posthaste.release(event_id, 'x') from posthaste.unrouted where held_for is not null",
    "select posthaste.cancel((select event_id from posthaste.queue order by random() limit 1), 'x')",
    "select posthaste.cancel((select event_id from posthaste.follower order by random() limit 1), 'x', ':name')",
    "select posthaste.cancel((select event_id from posthaste.outbox order by event_id desc limit 1), 'x')",
    "select posthaste.replay_event((select event_id from posthaste.dead_letter order by random() limit 1), 'x')",
    "select posthaste.replay_where('true', 'x', rate => null)",
    "select posthaste.replay_since(':name', '-infinity', 'x', rate => 50)",
    "select posthaste.deactivate(':name', 'x')",
    "select posthaste.send_test(':name', 'a', 'x')",
];

const DONE: &str = "(
    not exists (select from posthaste.intake) and not exists (select from posthaste.queue) and not exists (select from posthaste.lease)
    and not exists (select from posthaste.follower) and not exists (select from posthaste.ordering) and not exists (select from posthaste.skip)
    and not exists (select from posthaste.quarantine where decision is null or decision = 'released' and not is_requeued)
    and not exists (select from posthaste.replay where finished_at is null) and not exists (select from posthaste.cancel_request where closed_at is null))";

#[tokio::test]
async fn a_probe_that_comes_too_late_to_be_sent_is_followed_by_another_at_once() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1s,1s").await;
    world
        .change("p", r#"{"max_age": "1 hour", "breaker": {"failures": 3, "ratio": null, "open_for": "1 hour", "open_for_at_most": "3 hours"}, "concurrency": 1}"#)
        .await;
    let _worker = world.worker(&[("lease", "1h")]).await;
    world.publish_many("a", 6).await;
    world
        .until("(select breaker = 'open' from posthaste.lane) and not exists (select from posthaste.lease) and (select count(*) from posthaste.queue) = 6")
        .await;
    // All but one have become too old meanwhile.
    world
        .run(
            "update posthaste.queue q set event_id = posthaste.first_event_id(now() - n * interval '2 hours'), due_at = now() - n * interval '1 minute'
             from (select event_id, row_number() over (order by attempts desc, event_id) as n from posthaste.queue) o
             where o.event_id = q.event_id and n <= 5",
        )
        .await;
    partner.set_reply(Reply::Status(200));
    world
        .run(
            "update posthaste.lane set wake_at = '-infinity', hold_until = now() - interval '1 ms'",
        )
        .await;
    world
        .until("(select breaker = 'closed' from posthaste.lane)")
        .await;
    assert_eq!(partner.count(), 4);
    world.until_all_is_done().await;
}

#[tokio::test]
async fn what_is_too_old_expires_behind_a_breaker_too() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h").await;
    world.change("p", r#"{"max_age": "1 hour"}"#).await;
    let wait = format!(
        "insert into posthaste.queue (event_id, subscription_id, due_at)
         select posthaste.first_event_id(now() - hours * interval '1 hour'), {id}, now() - interval '1 minute' from generate_series(0, 2, 2) hours"
    );
    world.run(&wait).await;
    let expire = "select posthaste.expire_waiting(10)::bigint";
    // Where all is well, whoever claims it finds out.
    assert_eq!(world.count(expire).await, 0);
    world
        .run("update posthaste.lane set breaker = 'open', hold_until = now() + interval '1 hour'")
        .await;
    assert_eq!(world.count(expire).await, 1);
    assert_eq!(world.count("select count(*) from posthaste.queue").await, 1);
}

#[tokio::test]
async fn what_expired_after_an_attempt_is_finished_and_may_be_replayed() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "2h").await;
    world.change("p", r#"{"max_age": "1 hour"}"#).await;
    let _worker = world.worker(&[]).await;
    let event = world.publish("a", "1").await;
    world
        .until("(select status = 'EXPIRED' from posthaste.delivery)")
        .await;
    partner.set_reply(Reply::Status(200));
    let replay =
        format!("select deliveries from posthaste.replay_event('{event}', 'they are back')");
    assert_eq!(world.count(&replay).await, 1);
    partner.wait_for(2).await;
    world.until_all_is_done().await;
    let stand = "select string_agg(concat_ws(' ', replay, status), ', ' order by replay) from posthaste.delivery";
    assert_eq!(world.text(stand).await, "0 EXPIRED, 1 SUCCESS");
}

#[tokio::test]
async fn what_is_released_before_its_time_waits_for_it() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world.change("p", r#"{"filter": "$.n.double() > 0"}"#).await;
    let _worker = world.worker(&[]).await;
    world
        .run("select posthaste.publish('a', '{\"n\": \"\\u0000\"}', deliver_after => now() + interval '1 hour')")
        .await;
    world
        .until("exists (select from posthaste.quarantine)")
        .await;
    world
        .run("select posthaste.release(event_id, 'a trial') from posthaste.quarantine")
        .await;
    world
        .until("(select is_requeued from posthaste.quarantine)")
        .await;
    assert!(
        world
            .holds("(select due_at > now() + interval '59 minutes' from posthaste.queue)")
            .await
    );
    assert_eq!(partner.count(), 0);
}

#[tokio::test]
async fn whoever_carries_out_a_request_is_told_which_keys_may_go_on() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "").await;
    world.change("p", r#"{"after_dead_letter": "hold"}"#).await;
    let worker = world.worker(&[]).await;
    for key in ["'k'", "null"] {
        let insert = format!(
            "insert into posthaste.outbox (event_type, payload, ordering_key) values ('a', '1', {key})"
        );
        world.run(&insert).await;
    }
    world
        .until("(select count(*) from posthaste.dead_letter) = 2")
        .await;
    worker.stop().await.unwrap();
    world
        .run("select posthaste.replay_where('true', 'a trial', rate => null)")
        .await;
    let queue = "select format('%s %s', is_any, ordering_keys) from posthaste.queue_replays(10)";
    assert_eq!(world.text(queue).await, "t {k}");
    // It comes up, and is cancelled as the head.
    world
        .run(
            "delete from posthaste.ordering;
             insert into posthaste.ordering (event_id, subscription_id, replay, ordering_key) select event_id, subscription_id, replay, ordering_key from posthaste.follower;
             insert into posthaste.queue (event_id, due_at, subscription_id, replay, ordering_key) select event_id, due_at, subscription_id, replay, ordering_key from posthaste.follower;
             delete from posthaste.follower;
             select posthaste.cancel(event_id, 'a trial') from posthaste.ordering",
        )
        .await;
    let cancel =
        "select format('%s %s', requests, ordering_keys) from posthaste.carry_out_cancels(10)";
    assert_eq!(world.text(cancel).await, "1 {k}");
}
