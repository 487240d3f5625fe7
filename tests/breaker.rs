//! An endpoint that fails is left alone until a single probe finds it well, by all workers and across restarts; what it is owed
//! waits, and loses no attempt by it.

use std::collections::BTreeMap;

use bytes::Bytes;
use posthaste::trial::partner::Reply;

use crate::harness::{Partner, World};

const BREAKS_AT_3: &str = r#"{"breaker": {"failures": 3, "ratio": null, "open_for": "1 hour", "open_for_at_most": "3 hours"}, "concurrency": 1}"#;

async fn breaking(reply: Reply) -> (World, Partner) {
    let world = World::new().await;
    let partner = Partner::replying(reply).await;
    world.subscribe("p", &partner, "1h,1h,1h,1h,1h").await;
    world.change("p", BREAKS_AT_3).await;
    (world, partner)
}

/// Lets whatever keeps the lane from being claimed be over.
async fn let_hold_pass(world: &World) {
    world
        .run("update posthaste.lane set hold_until = now() - interval '1 ms'")
        .await;
}

async fn lane(world: &World) -> String {
    world
        .text(
            "select format('%s %s %s', breaker, openings, round(extract(epoch from greatest(hold_until, now()) - now()) / 3600))
             from posthaste.lane",
        )
        .await
}

#[tokio::test]
async fn a_run_of_failures_opens_it_one_probe_at_a_time_tries_and_one_success_closes_it() {
    let (world, partner) = breaking(Reply::Status(500)).await;
    let _worker = world.worker(&[]).await;
    world.publish_many("a", 8).await;
    world
        .until("(select breaker = 'open' from posthaste.lane) and not exists (select from posthaste.lease)")
        .await;
    assert_eq!(
        (lane(&world).await.as_str(), partner.count()),
        ("open 1 1", 3)
    );
    // What was not tried waits, and has lost no attempt; nor is anything new sent.
    world.publish_many("a", 2).await;
    world
        .until("(select count(*) from posthaste.queue) = 10")
        .await;
    assert_eq!(
        world
            .count(
                "select count(*) from posthaste.delivery where status = 'PENDING' and attempts = 0"
            )
            .await,
        7
    );
    for (openings, hours) in [(2, 2), (3, 3)] {
        let_hold_pass(&world).await;
        world
            .until(&format!(
                "(select breaker = 'open' and openings = {openings} from posthaste.lane)"
            ))
            .await;
        assert_eq!(lane(&world).await, format!("open {openings} {hours}"));
        assert_eq!(partner.count(), 2 + openings);
    }
    assert_eq!(
        world
            .text("select state from posthaste.subscription_overview")
            .await,
        "breaker open"
    );
    partner.set_reply(Reply::Status(200));
    let_hold_pass(&world).await;
    world
        .until("(select breaker = 'closed' and hold_until = '-infinity' and failures = 0 from posthaste.lane)")
        .await;
    world.make_due().await;
    world.until_all_is_done().await;
    assert_eq!(
        world
            .text("select string_agg(distinct status::text, ' ') from posthaste.delivery")
            .await,
        "SUCCESS"
    );
    assert_eq!(partner.count(), 15);
}

#[tokio::test]
async fn it_stays_open_across_a_restart_and_for_every_worker() {
    let (world, partner) = breaking(Reply::Status(500)).await;
    let first = world.worker(&[]).await;
    world.publish_many("a", 5).await;
    world
        .until("(select breaker = 'open' from posthaste.lane) and not exists (select from posthaste.lease)")
        .await;
    first.stop().await.unwrap();
    let [_second, _third] = [world.worker(&[]).await, world.worker(&[]).await];
    world.publish_many("a", 5).await;
    world
        .until("not exists (select from posthaste.intake)")
        .await;
    world.make_due().await;
    // A probe, and no more, though both have room and all of it is due.
    let_hold_pass(&world).await;
    world
        .until("(select breaker = 'open' and openings = 2 from posthaste.lane)")
        .await;
    assert_eq!(partner.count(), 4);
}

#[tokio::test]
async fn a_probe_that_nobody_ever_tells_of_is_followed_by_another() {
    let (world, partner) = breaking(Reply::Status(500)).await;
    let worker = world.worker_process(&[("lease", "1m")]).await;
    world.publish_many("a", 5).await;
    world
        .until("(select breaker = 'open' from posthaste.lane) and not exists (select from posthaste.lease)")
        .await;
    let sent = partner.count();
    partner.set_reply(Reply::Hang);
    world.make_due().await;
    let_hold_pass(&world).await;
    world
        .until("(select breaker = 'half_open' from posthaste.lane)")
        .await;
    partner.wait_for(sent + 1).await;
    worker.kill().await;
    partner.set_reply(Reply::Status(200));
    let _other = world.worker(&[]).await;
    world
        .until("exists (select from posthaste.attempt where outcome = 'abandoned')")
        .await;
    assert_eq!(partner.count(), sent + 1);
    let_hold_pass(&world).await;
    world
        .until("(select breaker = 'closed' from posthaste.lane)")
        .await;
    world.make_due().await;
    world.until_all_is_done().await;
}

#[tokio::test]
async fn what_is_too_old_to_be_sent_does_not_stand_in_for_the_probe() {
    let (world, partner) = breaking(Reply::Status(500)).await;
    world.change("p", r#"{"max_age": "90 minutes"}"#).await;
    let worker = world.worker(&[]).await;
    world.publish_many("a", 8).await;
    world
        .until("(select breaker = 'open' from posthaste.lane) and not exists (select from posthaste.lease)")
        .await;
    worker.stop().await.unwrap();
    // The first four of those that wait are too old by now.
    world
        .run(
            "update posthaste.queue set event_id = posthaste.first_event_id(now() - interval '2 hours' + n * interval '1 ms'),
                                        due_at = now() - interval '2 hours'
             from (select event_id as old, row_number() over (order by event_id) as n from posthaste.queue where attempts = 0) q
             where event_id = old and n <= 4;
             update posthaste.lane set wake_at = now() - interval '2 hours'",
        )
        .await;
    partner.set_reply(Reply::Status(200));
    let_hold_pass(&world).await;
    let _next = world.worker(&[]).await;
    world
        .until("(select breaker = 'closed' from posthaste.lane)")
        .await;
    assert_eq!(
        world
            .count("select count(*) from posthaste.delivery where status = 'EXPIRED'")
            .await,
        4
    );
}

#[tokio::test]
async fn where_too_large_a_part_fails_it_opens_too() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(200)).await;
    world.subscribe("p", &partner, "1h").await;
    world
        .change("p", r#"{"breaker": {"failures": null, "ratio": 0.5, "requests": 10, "window": "1 hour", "open_for": "1 hour"}, "concurrency": 1}"#)
        .await;
    partner.set_reply(posthaste::trial::partner::Replies::by(|received| {
        Reply::Status(if received.sequence.is_multiple_of(3) {
            200
        } else {
            500
        })
    }));
    let _worker = world.worker(&[]).await;
    world.publish_many("a", 400).await;
    world
        .until("(select breaker = 'open' from posthaste.lane) and not exists (select from posthaste.lease)")
        .await;
    // The last of what was weighed came a moment before.
    assert!((10..=100).contains(&partner.count()), "{}", partner.count());
}

#[tokio::test]
async fn what_is_accepted_now_and_then_keeps_it_closed() {
    let (world, partner) = breaking(Reply::Status(200)).await;
    partner.set_reply(posthaste::trial::partner::Replies::by(|received| {
        Reply::Status(if received.sequence.is_multiple_of(3) {
            200
        } else {
            500
        })
    }));
    let _worker = world.worker(&[("endpoint_concurrency", "1")]).await;
    world.publish_many("a", 30).await;
    world
        .until("(select count(*) from posthaste.attempt) = 30")
        .await;
    assert_eq!(lane(&world).await, "closed 0 0");
}

#[tokio::test]
async fn retry_after_leaves_the_whole_endpoint_alone() {
    let world = World::new().await;
    let busy = Reply::StatusWith {
        status: 429,
        headers: vec![("retry-after".to_owned(), "7200".to_owned())],
        body: Bytes::new(),
    };
    let partner = Partner::replying(busy).await;
    world.subscribe("p", &partner, "1s").await;
    world.change("p", r#"{"concurrency": 1}"#).await;
    let other = world.partner().await;
    world.subscribe("other", &other, "1s").await;
    let [_one, _two] = [world.worker(&[]).await, world.worker(&[]).await];
    world.publish_many("a", 1).await;
    world
        .until("(select hold_until > now() + interval '1 hour' from posthaste.lane where subscription_id = 1)")
        .await;
    world.publish_many("a", 20).await;
    world
        .until("(select count(*) from posthaste.attempt where subscription_id = 2) = 21 and (select count(*) from posthaste.queue) = 21")
        .await;
    assert_eq!(partner.count(), 1);
    let told = "select format('%s %s %s', verdict, rule, round(extract(epoch from next_attempt_at - started_at) / 3600)) from posthaste.attempt where subscription_id = 1";
    assert_eq!(world.text(told).await, "retry retry_after 2");
    partner.set_reply(Reply::Status(200));
    let_hold_pass(&world).await;
    world.make_due().await;
    world.until_all_is_done().await;
}

#[tokio::test]
async fn a_receiver_that_wants_nothing_more_is_paused_on_the_record() {
    for (answer, rule, reason) in [
        (Reply::Status(410), "gone", "410 Gone"),
        (
            wishing(500, "disable"),
            "disable",
            "webhook-delivery: disable",
        ),
        (
            wishing(200, "disable"),
            "disable",
            "webhook-delivery: disable",
        ),
    ] {
        let is_done = matches!(answer, Reply::StatusWith { status: 200, .. });
        let world = World::new().await;
        let partner = Partner::replying(answer).await;
        world.subscribe("p", &partner, "1s,1s").await;
        let _worker = world.worker(&[("endpoint_concurrency", "1")]).await;
        let id = world.publish("a", "1").await;
        world
            .until("(select not active from posthaste.subscription) and (select not active from posthaste.lane)")
            .await;
        let story = if is_done {
            "1 accepted done"
        } else {
            "1 rejected rejected"
        };
        assert_eq!(world.story(id).await, story);
        assert_eq!(
            world.text("select rule::text from posthaste.attempt").await,
            rule
        );
        let noted = world
            .text("select format('%s %s %s', action, actor, reason) from posthaste.audit where action = 'paused'")
            .await;
        assert!(
            noted.contains(world.worker_login()) && noted.contains(reason),
            "{noted}"
        );
        let told = "select detail ->> 'reason' from posthaste.operational_event where event_type = 'posthaste.subscription.paused'";
        assert!(world.text(told).await.contains(reason));
        world.publish("a", "2").await;
        world
            .until("(select count(*) from posthaste.queue) = 1")
            .await;
        assert_eq!(partner.count(), 1);
        partner.set_reply(Reply::Status(200));
        world.change("p", r#"{"active": true}"#).await;
        partner.wait_for(2).await;
        world.until_all_is_done().await;
    }
}

fn wishing(status: u16, wish: &str) -> Reply {
    Reply::StatusWith {
        status,
        headers: vec![("webhook-delivery".to_owned(), wish.to_owned())],
        body: Bytes::new(),
    }
}

#[tokio::test]
async fn an_abort_ends_one_delivery_and_pauses_nobody() {
    let world = World::new().await;
    let partner = Partner::replying(wishing(503, "abort-message")).await;
    world.subscribe("p", &partner, "1s,1s").await;
    let _worker = world.worker(&[]).await;
    let id = world.publish("a", "1").await;
    world.until("exists (select from posthaste.attempt)").await;
    world.until_all_is_done().await;
    assert_eq!(world.story(id).await, "1 rejected rejected");
    partner.set_reply(Reply::Status(200));
    world.publish("a", "2").await;
    partner.wait_for(2).await;
    world.until_all_is_done().await;
}

#[tokio::test]
async fn after_long_enough_with_nothing_but_failures_it_is_paused_and_what_came_is_kept() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1h,1h").await;
    world.change("p", r#"{"pause_after": "3 days"}"#).await;
    let worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    world
        .until("(select failing_since is not null from posthaste.lane)")
        .await;
    assert!(
        world
            .holds("(select active from posthaste.subscription)")
            .await
    );
    world
        .run("update posthaste.lane set failing_since = now() - interval '73 hours'")
        .await;
    worker.stop().await.unwrap();
    let _next = world.worker(&[]).await;
    world.until("(select not active from posthaste.lane)").await;
    assert!(world.holds("(select reason like 'nothing but failures since %' from posthaste.audit where action = 'paused')").await);
    assert!(
        world
            .holds("(select failing_since is null from posthaste.lane)")
            .await
    );
    world.publish("a", "2").await;
    partner.set_reply(Reply::Status(200));
    world.change("p", r#"{"active": true}"#).await;
    partner.wait_for(2).await;
    world.make_due().await;
    world.until_all_is_done().await;
    assert_eq!(
        world
            .count("select count(*) from posthaste.delivery where status = 'SUCCESS'")
            .await,
        2
    );
}

#[tokio::test]
async fn a_worker_that_starts_knows_what_failed_before_it_came() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1h,1h").await;
    let first = world.worker(&[]).await;
    world.publish("a", "1").await;
    world
        .until("(select failing_since is not null from posthaste.lane)")
        .await;
    first.stop().await.unwrap();
    world
        .run("update posthaste.lane set weighed_at = now() - interval '1 day', failing_since = now() - interval '1 day'")
        .await;
    partner.set_reply(Reply::Status(200));
    world.subscribe("other", &partner, "1h").await;
    let _next = world.worker(&[]).await;
    world
        .run("select posthaste.deactivate('other', 'to see that it has looked')")
        .await;
    world
        .until("(select not active from posthaste.lane where subscription_id = 2)")
        .await;
    world.publish("a", "2").await;
    // Or it would be paused some day, for nothing but failures.
    world
        .until("(select failing_since is null and failures = 0 from posthaste.lane where subscription_id = 1)")
        .await;
}

#[tokio::test]
async fn one_failure_long_ago_pauses_nobody() {
    let world = World::new().await;
    world
        .subscribe_url("p", "https://127.0.0.1:1/", &["*"], None, "1h")
        .await;
    for (weighed, paused) in [("now() - interval '6 days'", 0), ("now()", 1)] {
        world
            .run(&format!(
                "update posthaste.lane set failures = 1, failing_since = now() - interval '6 days', weighed_at = {weighed}"
            ))
            .await;
        assert_eq!(
            world
                .count("select count(*) from posthaste.pause_failing(10)")
                .await,
            paused
        );
    }
}

#[tokio::test]
async fn whoever_takes_it_up_again_need_not_wait_for_what_its_receiver_asked() {
    let world = World::new().await;
    let busy = Reply::StatusWith {
        status: 503,
        headers: vec![("retry-after".to_owned(), "7200".to_owned())],
        body: Bytes::new(),
    };
    let partner = Partner::replying(busy).await;
    world.subscribe("p", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    world
        .until("(select hold_until > now() + interval '1 hour' from posthaste.lane)")
        .await;
    // As if that had been a while ago: no worker reads it any more.
    world
        .run("update posthaste.lane set weighed_at = now() - interval '1 minute'")
        .await;
    world
        .run("select posthaste.deactivate('p', 'they mend it')")
        .await;
    world.until("(select not active from posthaste.lane)").await;
    partner.set_reply(Reply::Status(200));
    world.change("p", r#"{"active": true}"#).await;
    world.publish("a", "2").await;
    partner.wait_for(2).await;
}

#[tokio::test]
async fn no_worker_waits_for_a_person_to_pause_somebody() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(410)).await;
    let healthy = world.partner().await;
    world.subscribe("p", &partner, "1s").await;
    world.subscribe("healthy", &healthy, "1s").await;
    let person = world.session().await;
    person
        .batch_execute("begin; select from posthaste.audit_head for update")
        .await
        .unwrap();
    let _worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    world
        .until("(select to_pause is not null from posthaste.lane where subscription_id = 1)")
        .await;
    world.publish_many("a", 5).await;
    healthy.wait_for(6).await;
    person.batch_execute("rollback").await.unwrap();
    world
        .until("(select not active from posthaste.subscription where name = 'p')")
        .await;
}

#[tokio::test]
async fn what_was_answered_after_a_pause_does_not_pause_it_again() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    world
        .run("select posthaste.deactivate('p', 'a trial')")
        .await;
    world.until("(select not active from posthaste.lane)").await;
    // As requests leave it that were under way when it was paused.
    world
        .run("update posthaste.lane set to_pause = 'its receiver answered 410 Gone', failures = 1, weighed_at = now(), failing_since = now() - interval '9 days'")
        .await;
    world.publish("a", "1").await;
    world.change("p", r#"{"active": true}"#).await;
    partner.wait_for(1).await;
    world.until_all_is_done().await;
    assert_eq!(
        world
            .text("select format('%s %s %s', s.active, l.to_pause, l.failing_since) from posthaste.subscription s join posthaste.lane l using (subscription_id)")
            .await,
        "t  "
    );
}

#[tokio::test]
async fn who_is_taken_up_again_is_sent_to_however_long_its_receiver_asked_to_be_left_alone() {
    let world = World::new().await;
    let busy = Reply::StatusWith {
        status: 429,
        headers: vec![("retry-after".to_owned(), "86400".to_owned())],
        body: Bytes::new(),
    };
    let partner = Partner::replying(busy).await;
    world.subscribe("p", &partner, "1s").await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    world
        .until("(select hold_until > now() + interval '1 hour' from posthaste.lane)")
        .await;
    world
        .run("select posthaste.deactivate('p', 'to try again'); update posthaste.lane set weighed_at = now() - interval '1 hour'")
        .await;
    world.until("(select not active from posthaste.lane)").await;
    partner.set_reply(Reply::Status(200));
    world.change("p", r#"{"active": true}"#).await;
    world.publish("a", "2").await;
    partner.wait_for(2).await;
}

#[tokio::test]
async fn a_failure_that_nothing_followed_pauses_nobody() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1h,1h").await;
    world.subscribe("other", &partner, "1h").await;
    let worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    world
        .until("(select count(failing_since) = 2 from posthaste.lane)")
        .await;
    worker.stop().await.unwrap();
    world
        .run("update posthaste.lane set failing_since = failing_since - interval '6 days', weighed_at = weighed_at - interval '6 days'")
        .await;
    let _next = world.worker(&[]).await;
    world
        .run("select posthaste.deactivate('other', 'to see that it has looked')")
        .await;
    world
        .until("(select not active from posthaste.lane where subscription_id = 2)")
        .await;
    assert!(
        world
            .holds("(select active from posthaste.subscription where subscription_id = 1)")
            .await
    );
    // The next one tells that nothing else has come of it for so long.
    world.make_due().await;
    world
        .until("(select failures = 2 from posthaste.lane where subscription_id = 1)")
        .await;
    world.change("other", r#"{"contact": "x"}"#).await;
    world
        .until("(select not active from posthaste.subscription where subscription_id = 1)")
        .await;
}

#[tokio::test]
async fn a_sandbox_has_no_breaker_and_nobody_is_paused_in_it() {
    let (world, partner) = breaking(Reply::Status(500)).await;
    let _worker = world.worker(&[]).await;
    world.publish_many("a", 8).await;
    world
        .until("(select breaker = 'open' from posthaste.lane) and not exists (select from posthaste.lease)")
        .await;
    world.change("p", r#"{"sandbox": true}"#).await;
    world
        .until("(select breaker = 'closed' and failing_since is null from posthaste.lane)")
        .await;
    world.make_due().await;
    world.until_all_is_done().await;
    assert_eq!(partner.count(), 3);
}

#[tokio::test]
async fn what_has_grown_too_old_is_no_probe() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world
        .change("p", r#"{"max_age": "1 hour", "breaker": {}}"#)
        .await;
    world
        .run("update posthaste.lane set breaker = 'open', openings = 1, failures = 20, hold_until = now(), weighed_at = now()")
        .await;
    world.publish_old("a", 20).await;
    world.publish_many("a", 3).await;
    let _worker = world.worker(&[]).await;
    partner.wait_for(3).await;
    world.until_all_is_done().await;
    assert_eq!(
        world
            .text("select string_agg(format('%s %s', status, n), ', ') from (select status, count(*) as n from posthaste.delivery group by status order by status) c")
            .await,
        "SUCCESS 3, EXPIRED 20"
    );
    assert!(
        world
            .holds("(select breaker = 'closed' from posthaste.lane)")
            .await
    );
}

#[tokio::test]
async fn a_lane_that_somebody_holds_keeps_nothing_from_being_recorded_and_no_failure_is_forgotten()
{
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "").await;
    // As a frozen worker would, in the middle of a claim.
    let frozen = world.session().await;
    let hold = "begin; select from posthaste.lane for update";
    frozen.batch_execute(hold).await.unwrap();
    let _worker = world.worker(&[]).await;
    for recorded in 1..=3 {
        world.publish("a", "1").await;
        world
            .until(&format!(
                "(select count(*) from posthaste.attempt) = {recorded}"
            ))
            .await;
    }
    assert!(
        world
            .holds("(select failures = 0 from posthaste.lane)")
            .await
    );
    frozen.batch_execute("rollback").await.unwrap();
    world
        .until("(select failures = 3 from posthaste.lane)")
        .await;
}

/// The state of a lane, what is told, and what becomes of it, as `breaker, failures, openings, hours held`.
#[tokio::test]
async fn states_and_tallies_lead_to_states() {
    const POLICY: &str = r#"{"failures": 5, "ratio": 0.5, "requests": 20, "window": "1 minute", "open_for": "1 hour", "open_for_at_most": "3 hours"}"#;
    let world = World::new().await;
    let rows: BTreeMap<&str, (&str, &str, &str)> = [
        // What it is, requests with failures and the run at the end, what becomes of it.
        ("one failure", ("breaker = 'closed'", "1, 1, 1", "closed 1 0 0")),
        ("a success between", ("failures = 4", "2, 1, 1", "closed 1 0 0")),
        ("the last of five", ("failures = 4", "1, 1, 1", "open 5 1 1")),
        ("five at once", ("breaker = 'closed'", "5, 5, 5", "open 5 1 1")),
        ("five and then a success", ("breaker = 'closed'", "6, 5, 0", "closed 0 0 0")),
        ("half of twenty", ("window_since = now(), window_requests = 18, window_failures = 9", "2, 1, 1", "open 1 1 1")),
        ("less than half", ("window_since = now(), window_requests = 18, window_failures = 8", "2, 1, 1", "closed 1 0 0")),
        ("half of too few", ("window_since = now(), window_requests = 17, window_failures = 9", "2, 1, 0", "closed 0 0 0")),
        ("half of twenty, long ago", ("window_since = now() - interval '61 s', window_requests = 18, window_failures = 9", "2, 1, 0", "closed 0 0 0")),
        ("a late failure of an open one", ("breaker = 'open', openings = 1, failures = 5, hold_until = now() + interval '1 hour'", "1, 1, 1", "open 6 1 1")),
        ("a late success of an open one", ("breaker = 'open', openings = 1, failures = 5, hold_until = now() + interval '1 hour'", "1, 0, 0", "closed 0 0 0")),
        ("a probe that fails", ("breaker = 'half_open', openings = 1, failures = 5", "1, 1, 1", "open 6 2 2")),
        ("the next that fails", ("breaker = 'half_open', openings = 2, failures = 6", "1, 1, 1", "open 7 3 3")),
        ("and the next", ("breaker = 'half_open', openings = 3, failures = 7", "1, 1, 1", "open 8 4 3")),
        ("long after", ("breaker = 'half_open', openings = 1000, failures = 7", "1, 1, 1", "open 8 1000 3")),
        ("a probe that succeeds", ("breaker = 'half_open', openings = 3, failures = 7", "1, 0, 0", "closed 0 0 0")),
        ("a probe of which nothing is known", ("breaker = 'half_open', openings = 3, failures = 7", "0, 0, 0", "half_open 7 3 0")),
    ]
    .into();
    world
        .subscribe_url("p", "https://127.0.0.1:1/", &["*"], None, "1h")
        .await;
    for (name, (before, told, after)) in rows {
        world
            .run(&format!("update posthaste.lane set breaker = 'closed', failures = 0, openings = 0, window_since = null, window_requests = 0, window_failures = 0, hold_until = '-infinity'; update posthaste.lane set {before}"))
            .await;
        let becomes = world
            .text(&format!(
                "select format('%s %s %s %s', (w).breaker, (w).failures, (w).openings, round(extract(epoch from greatest((w).hold_until, now()) - now()) / 3600))
                 from (select posthaste.weighed(l, '{POLICY}', {told}, null, null, now()) as w from posthaste.lane l) z"
            ))
            .await;
        assert_eq!(becomes, after, "{name}");
    }
}
