//! What a subscription asked for, and what a receiver answers, decide whether and when something is sent again; what is too late,
//! or stays in the sandbox, is not sent at all.

use posthaste::trial::partner::Reply;

use crate::harness::{Partner, World};

#[tokio::test]
async fn a_client_error_is_final_where_the_terms_say_so() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(422)).await;
    world.subscribe("strict", &partner, "1h").await;
    world
        .change("strict", r#"{"client_errors": "reject"}"#)
        .await;
    world.subscribe("patient", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    world
        .until("(select count(*) from posthaste.attempt) = 2 and not exists (select from posthaste.lease)")
        .await;
    assert_eq!(
        world
            .text("select string_agg(format('%s %s %s %s', subscription, outcome, verdict, rule), ', ' order by subscription_id) from posthaste.attempt_log")
            .await,
        "strict rejected rejected client_error, patient rejected retry interval"
    );
}

#[tokio::test]
async fn a_receiver_is_told_which_attempt_it_sees_and_how_many_may_follow() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1h,1h").await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    for number in 1..=3_u64 {
        let received = partner.wait_for(number).await;
        let headers = &received.last().unwrap().headers;
        let told = |name: &str| headers[name].to_str().unwrap().parse::<u64>().unwrap();
        assert_eq!(
            (told("webhook-attempt"), told("webhook-attempts-left")),
            (number, 3 - number)
        );
        world
            .until(&format!(
                "exists (select from posthaste.attempt where number = {number})"
            ))
            .await;
        world.make_due().await;
    }
    world.until_all_is_done().await;
}

#[tokio::test]
async fn nothing_leaves_the_sandbox_and_all_of_it_is_recorded() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world.change("p", r#"{"sandbox": true}"#).await;
    let _worker = world.worker(&[]).await;
    let id = world.publish("a", "1").await;
    world.until("exists (select from posthaste.attempt)").await;
    world.until_all_is_done().await;
    assert_eq!(world.story(id).await, "1 sandboxed done");
    assert_eq!(
        world
            .text("select format('%s %s %s', rule, signed_with is not null, remote_address) from posthaste.attempt")
            .await,
        "sandbox t "
    );
    assert_eq!(
        world
            .text("select status::text from posthaste.delivery")
            .await,
        "SUCCESS"
    );
    assert_eq!(partner.count(), 0);
    world.change("p", r#"{"sandbox": false}"#).await;
    world.publish("a", "2").await;
    partner.wait_for(1).await;
    world.until_all_is_done().await;
}

#[tokio::test]
async fn an_event_is_not_sent_before_its_time() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    world
        .run("select posthaste.publish('a', '1', deliver_after => now() + interval '1 hour')")
        .await;
    world
        .until("exists (select from posthaste.queue where due_at > now() + interval '59 minutes')")
        .await;
    world.publish("a", "2").await;
    partner.wait_for(1).await;
    assert!(
        world
            .holds("(select wake_at > now() + interval '59 minutes' from posthaste.lane)")
            .await
    );
    world.make_due().await;
    partner.wait_for(2).await;
    world.until_all_is_done().await;
}

#[tokio::test]
async fn an_event_that_comes_too_late_is_not_sent() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    world
        .run("select posthaste.publish('a', '1', expires_at => now())")
        .await;
    world
        .until("(select status = 'EXPIRED' from posthaste.delivery)")
        .await;
    assert!(
        world
            .holds("not exists (select from posthaste.attempt)")
            .await
    );
    assert_eq!(partner.count(), 0);
}

#[tokio::test]
async fn an_end_at_infinity_is_none_and_one_before_all_time_has_passed() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1s,1s").await;
    let _worker = world.worker(&[]).await;
    world
        .run("insert into posthaste.outbox (event_type, payload, expires_at) values ('a', '1', 'infinity'), ('a', '2', '-infinity')")
        .await;
    partner.wait_for(1).await;
    partner.set_reply(Reply::Status(200));
    world.make_due().await;
    partner.wait_for(2).await;
    world.until_all_is_done().await;
    assert_eq!(
        world
            .text("select string_agg(status::text, ' ' order by status) from posthaste.delivery")
            .await,
        "SUCCESS EXPIRED"
    );
}

#[tokio::test]
async fn times_beyond_all_measure_keep_nobody_from_being_sent() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world
        .change("p", r#"{"max_age": "1 year", "pause_after": "1 second"}"#)
        .await;
    let _worker = world.worker(&[]).await;
    for (column, time) in [
        ("occurred_at", "infinity"),
        ("occurred_at", "-infinity"),
        ("occurred_at", "4713-01-01 BC"),
        ("occurred_at", "294276-12-31"),
        ("deliver_after", "-infinity"),
        ("deliver_after", "4713-01-01 BC"),
        ("deliver_after", "infinity"),
        ("deliver_after", "294276-12-31"),
        ("expires_at", "294276-12-31"),
        ("expires_at", "4713-01-01 BC"),
    ] {
        world
            .run(&format!("insert into posthaste.outbox (event_type, payload, {column}) values ('a', '1', '{time}')"))
            .await;
    }
    world.publish_many("a", 5).await;
    partner.wait_for(12).await;
    world
        .until("(select count(*) from posthaste.queue) = 2 and not exists (select from posthaste.lease)")
        .await;
    world.make_due().await;
    partner.wait_for(14).await;
    world.until_all_is_done().await;
}

#[tokio::test]
async fn no_attempt_is_owed_after_the_end() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1s,1h").await;
    world.change("p", r#"{"max_age": "30 minutes"}"#).await;
    let _worker = world.worker(&[]).await;
    let id = world.publish("a", "1").await;
    world
        .until("(select count(*) from posthaste.attempt) = 2")
        .await;
    world.until_all_is_done().await;
    assert_eq!(
        world.story(id).await,
        "1 rejected retry, 2 rejected expired"
    );
    assert_eq!(
        world
            .text("select format('%s %s', d.status, a.rule) from posthaste.delivery d, posthaste.attempt a where a.number = 2")
            .await,
        "EXPIRED expires_before"
    );
}

#[tokio::test]
async fn what_waits_behind_a_pause_expires_there() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world
        .run("select posthaste.deactivate('p', 'a trial')")
        .await;
    let worker = world.worker(&[]).await;
    // Before that, what waits may be claimed, and is given back.
    world.until("(select not active from posthaste.lane)").await;
    world.publish("a", "1").await;
    world
        .run("select posthaste.publish('a', '2', expires_at => now() + interval '1 hour')")
        .await;
    world.publish("a", "3").await;
    world
        .until("(select count(*) from posthaste.queue) = 3")
        .await;
    // One by the event's own end, one by the subscription's terms; the third has come too lately.
    world
        .run(
            "update posthaste.queue set expires_at = now() where expires_at is not null;
             update posthaste.queue set event_id = posthaste.first_event_id(now() - interval '2 hours'), due_at = now() - interval '2 hours'
             where event_id = (select min(event_id::text)::uuid from posthaste.queue)",
        )
        .await;
    world.change("p", r#"{"max_age": "1 hour"}"#).await;
    worker.stop().await.unwrap();
    let _next = world.worker(&[]).await;
    world
        .until("(select count(*) from posthaste.cancellation where is_expired) = 2")
        .await;
    assert_eq!(
        world
            .text("select string_agg(status::text, ' ' order by status) from posthaste.delivery")
            .await,
        "PENDING EXPIRED EXPIRED"
    );
    assert_eq!(partner.count(), 0);
}

#[tokio::test]
async fn a_limit_with_a_block_keeps_all_away_for_that_long() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world
        .change(
            "p",
            r#"{"rates": [{"requests": 3, "period": "1 second", "burst": 3, "block": "1 hour"}]}"#,
        )
        .await;
    let _worker = world.worker(&[]).await;
    world.publish_many("a", 10).await;
    partner.wait_for(3).await;
    world
        .until("(select rest_until > now() + interval '50 minutes' from posthaste.lane) and not exists (select from posthaste.lease)")
        .await;
    assert_eq!(partner.count(), 3);
    world
        .run("update posthaste.lane set rest_until = '-infinity', rate_used_until = '{-infinity}'")
        .await;
    partner.wait_for(6).await;
}
