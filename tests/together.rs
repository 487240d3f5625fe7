//! What people ask for, what receivers answer and what the clock says come at once, and each delivery still ends in one way.

use posthaste::trial::partner::Reply;

use crate::harness::{Partner, World};

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
