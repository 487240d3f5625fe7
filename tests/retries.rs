//! A failed attempt is followed by the next at its interval, until the list ends or the partner says never again; and one
//! partner's failures are no other's.

use posthaste::trial::partner::{Partner as Receiver, PartnerConfig, Replies, Reply};

use crate::harness::{Partner, World};

#[tokio::test]
async fn each_failed_attempt_is_followed_at_its_interval_and_the_last_one_ends_the_delivery() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(503)).await;
    world.subscribe("p", &partner, "10m,1h,6h").await;
    let _worker = world.worker(&[]).await;
    let id = world.publish("a", "1").await;
    for (number, seconds) in [(1, 600), (2, 3600), (3, 6 * 3600)] {
        world
            .until(&format!(
                "exists (select from posthaste.queue where attempts = {number})"
            ))
            .await;
        // Counted from the record, which a busy machine makes later than the attempt's end.
        let wait = format!(
            "select extract(epoch from next_attempt_at - started_at - duration_us * interval '1 us')::bigint
             from posthaste.attempt where number = {number}"
        );
        let (wait, jitter) = (world.count(&wait).await, seconds / 10);
        assert!(
            (seconds - jitter..=seconds + jitter + 60).contains(&wait),
            "{number}: {wait} s"
        );
        assert!(world.holds("(select due_at from posthaste.queue) = (select max(next_attempt_at) from posthaste.attempt)").await);
        assert!(
            world
                .holds(
                    "(select wake_at from posthaste.lane) <= (select due_at from posthaste.queue)"
                )
                .await
        );
        world.make_due().await;
    }
    world.until_all_is_done().await;
    assert_eq!(
        world.story(id).await,
        "1 rejected retry, 2 rejected retry, 3 rejected retry, 4 rejected exhausted"
    );
    assert_eq!(status(&world).await, "RETRY_EXHAUSTED after 4");
}

#[tokio::test]
async fn a_delivery_that_may_be_tried_once_is_tried_once() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "").await;
    let _worker = world.worker(&[]).await;
    let id = world.publish("a", "1").await;
    world.until("exists (select from posthaste.attempt)").await;
    world.until_all_is_done().await;
    assert_eq!(world.story(id).await, "1 rejected exhausted");
    assert_eq!(status(&world).await, "RETRY_EXHAUSTED after 1");
}

#[tokio::test]
async fn a_partner_that_says_gone_is_not_asked_again() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(410)).await;
    world.subscribe("p", &partner, "1h,1h").await;
    let _worker = world.worker(&[]).await;
    let id = world.publish("a", "1").await;
    world.until("exists (select from posthaste.attempt)").await;
    world.until_all_is_done().await;
    assert_eq!(world.story(id).await, "1 rejected rejected");
    assert_eq!(status(&world).await, "REJECTED after 1");
}

#[tokio::test]
async fn the_delivery_view_tells_what_waits_and_what_failed_so_far() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1h").await;
    let worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    world
        .until("exists (select from posthaste.queue where attempts = 1)")
        .await;
    assert_eq!(status(&world).await, "FAILED after 1");
    partner.set_reply(Reply::Status(204));
    world.make_due().await;
    world.until_all_is_done().await;
    assert_eq!(status(&world).await, "SUCCESS after 2");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn partners_that_hang_cost_the_others_nothing() {
    let world = World::new().await;
    let hanging = Partner::replying(Reply::Hang).await;
    let healthy = world.partner().await;
    for name in ["hanging-1", "hanging-2", "hanging-3"] {
        world
            .subscribe_to(name, &hanging, &["slow"], None, "1h")
            .await;
    }
    world
        .subscribe_to("healthy", &healthy, &["quick"], None, "1h")
        .await;
    let _worker = world
        .worker(&[("request_timeout", "2m"), ("lease", "1h")])
        .await;
    world.publish_many("slow", 1000).await;
    // All that may hang at once hangs.
    hanging.wait_for(3 * 16).await;
    world.publish_many("quick", 300).await;
    healthy.wait_for(300).await;
    world
        .until("(select count(*) from posthaste.attempt where verdict = 'done') = 300")
        .await;
    assert_eq!(
        world
            .count("select count(*) from posthaste.attempt where verdict <> 'done'")
            .await,
        0
    );
    assert_eq!(hanging.count(), 3 * 16);
}

#[tokio::test]
async fn partners_that_hang_leave_room_though_they_could_fill_all_of_it() {
    let world = World::new().await;
    let hanging = Partner::replying(Reply::Hang).await;
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        world
            .subscribe_to(name, &hanging, &[name], None, "1h")
            .await;
        world.publish_many(name, 40).await;
    }
    let healthy = world.partner().await;
    world
        .subscribe_to("healthy", &healthy, &["well"], None, "1h")
        .await;
    // Eight times sixteen requests would be twice as many.
    let settings = [
        ("max_in_flight", "64"),
        ("request_timeout", "40s"),
        ("lease", "60s"),
    ];
    let _worker = world.worker(&settings).await;
    hanging.wait_for(8).await;
    world.publish("well", "1").await;
    healthy.wait_for(1).await;
    assert!(
        world
            .holds("not exists (select from posthaste.attempt where subscription_id <= 8)")
            .await,
        "it had to wait until a request timed out"
    );
}

#[tokio::test]
async fn a_partner_that_is_down_costs_the_others_nothing() {
    let world = World::new().await;
    let healthy = world.partner().await;
    let gone = Receiver::start(PartnerConfig::default()).await.unwrap();
    gone.stop().await;
    let nobody = gone.url("/").replace("http:", "https:");
    world
        .subscribe_url("down", &nobody, &["*"], None, "1h")
        .await;
    world.subscribe("healthy", &healthy, "1h").await;
    let _worker = world.worker(&[]).await;
    world.publish_many("a", 300).await;
    healthy.wait_for(300).await;
    world
        .until("(select count(*) from posthaste.attempt where verdict = 'done') = 300")
        .await;
    world.until("(select count(*) from posthaste.attempt where outcome = 'unreachable' and verdict = 'retry') = 300").await;
    assert_eq!(healthy.count(), 300);
}

#[tokio::test]
async fn a_lane_sleeps_until_its_earliest_delivery_and_wakes_for_each() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    // Jitter puts them in any order.
    for failed in 1..=10 {
        world.publish("a", "1").await;
        world
            .until(&format!(
                "(select count(*) from posthaste.queue where attempts = 1) = {failed}"
            ))
            .await;
    }
    assert!(
        world
            .holds(
                "(select wake_at from posthaste.lane) = (select min(due_at) from posthaste.queue)"
            )
            .await
    );
    partner.set_reply(Reply::Status(200));
    world.make_due().await;
    world.until_all_is_done().await;
    assert_eq!(
        world
            .count("select count(*) from posthaste.attempt where number = 2 and verdict = 'done'")
            .await,
        10
    );
    world
        .until("(select wake_at from posthaste.lane) = 'infinity'")
        .await;
}

/// Of the only delivery, such as `SUCCESS after 1`.
async fn status(world: &World) -> String {
    world
        .text("select format('%s after %s', status, attempts) from posthaste.delivery")
        .await
}

#[tokio::test]
async fn old_backlogs_do_not_keep_a_younger_retry_from_its_turn() {
    let world = World::new().await;
    let (recovering, other) = (world.partner().await, world.partner().await);
    for name in ["recovering-1", "recovering-2"] {
        world
            .subscribe_to(name, &recovering, &["old"], None, "1h")
            .await;
    }
    world
        .subscribe_to("other", &other, &["young"], None, "1h")
        .await;
    world.publish_many("old", 1000).await;
    world.publish("young", "1").await;
    // As if they had been fanned out before: all of it waits, the young one due last.
    world
        .run(
            "insert into posthaste.queue (event_id, subscription_id, due_at)
             select event_id, subscription_id, now() - case event_type when 'old' then interval '1 hour' else '1 minute' end
             from posthaste.intake join posthaste.outbox using (event_id) join posthaste.subscription_event_type using (event_type);
             delete from posthaste.intake;
             update posthaste.lane l set wake_at = (select min(due_at) from posthaste.queue q where q.subscription_id = l.subscription_id)",
        )
        .await;
    let _worker = world.worker(&[("max_in_flight", "64")]).await;
    other.wait_for(1).await;
    assert!(
        recovering.count() < 1000,
        "{} went first",
        recovering.count()
    );
}

#[tokio::test]
async fn a_delivery_that_a_person_hastens_is_sent_at_once() {
    let world = World::new().await;
    let partner = Partner::replying(Replies::fail_first(1, 503)).await;
    world.subscribe("harbour", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    let id = world.publish("a.b", "1").await;
    world
        .until("exists (select from posthaste.queue where attempts = 1)")
        .await;
    world.run("update posthaste.queue set due_at = now()").await;
    world.until_all_is_done().await;
    assert_eq!(world.story(id).await, "1 rejected retry, 2 accepted done");
}

#[tokio::test]
async fn a_fresh_event_does_not_wait_for_a_claim_under_way() {
    let world = World::new().await;
    let failing = Partner::replying(Replies::fail_first(1, 503)).await;
    let healthy = world.partner().await;
    world
        .subscribe_to("failing", &failing, &["old"], None, "1h")
        .await;
    world
        .subscribe_to("healthy", &healthy, &["fresh"], None, "1h")
        .await;
    let _worker = world.worker(&[]).await;
    world.publish("old", "1").await;
    world
        .until("exists (select from posthaste.queue where attempts = 1)")
        .await;
    // Whoever leases a second attempt waits for the gate.
    world
        .run(
            "create function trial.wait() returns trigger language plpgsql as
                 $$ begin perform pg_advisory_xact_lock(42); return new; end $$;
             create trigger wait before insert on posthaste.lease for each row when (new.number = 2)
             execute function trial.wait()",
        )
        .await;
    let gate = world.session().await;
    gate.batch_execute("select pg_advisory_lock(42)")
        .await
        .unwrap();
    world.make_due().await;
    let waits =
        "exists (select from pg_locks where locktype = 'advisory' and objid = 42 and not granted)";
    world.until(waits).await;

    world.publish("fresh", "1").await;
    healthy.wait_for(1).await;
    assert!(world.holds(waits).await, "the claim was over");
    gate.batch_execute("select pg_advisory_unlock(42)")
        .await
        .unwrap();
    world.until_all_is_done().await;
    assert_eq!(failing.count(), 2);
}

#[tokio::test]
async fn a_lane_put_to_sleep_while_an_event_comes_is_woken_by_it() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    // With a rate, every event of it waits in the lane first.
    world
        .change(
            "p",
            r#"{"rates": [{"requests": 100, "period": "1 second"}]}"#,
        )
        .await;
    world.run("update posthaste.lane set wake_at = now()").await;
    let claimer = world.session().await;
    claimer
        .batch_execute("begin; update posthaste.lane set wake_at = 'infinity'")
        .await
        .unwrap();
    world.publish("a", "1").await;
    let _worker = world.worker(&[]).await;
    world
        .until("exists (select from pg_locks where locktype = 'transactionid' and not granted)")
        .await;
    claimer.batch_execute("commit").await.unwrap();
    partner.wait_for(1).await;
    world.until_all_is_done().await;
}
