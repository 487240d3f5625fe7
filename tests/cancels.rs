//! Nothing more is delivered of an event that was cancelled; what was under way is let finish.

use posthaste::trial::partner::Reply;

use crate::harness::{Partner, Wire, World, refusal};

#[tokio::test]
async fn what_waits_of_an_event_ends_as_cancelled_and_nothing_else_does() {
    let world = World::new().await;
    let [ada, _] = world.two_administrators().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    for name in ["one", "two"] {
        world.subscribe(name, &partner, "1h").await;
    }
    let _worker = world.worker(&[]).await;
    let [event, other] = [world.publish("a", "1").await, world.publish("a", "2").await];
    world
        .until("(select count(*) from posthaste.queue where attempts = 1) = 4")
        .await;
    let cancel = format!("select posthaste.cancel('{event}', 'sent by mistake', 'one')");
    assert_eq!(ada.one::<i32>(&cancel).await, 1);
    world.until(CLOSED).await;
    let stand = "select string_agg(concat_ws(' ', subscription, status, count), ', ' order by subscription, status) from (
        select subscription, status, count(*) from posthaste.delivery group by 1, 2) d";
    assert_eq!(
        world.text(stand).await,
        "one FAILED 1, one CANCELLED 1, two FAILED 2"
    );
    let cancel = format!("select posthaste.cancel('{event}', 'sent by mistake')");
    assert_eq!(ada.one::<i32>(&cancel).await, 1);
    world.until(CLOSED).await;
    let told = format!(
        "select string_agg(concat_ws(' ', what, subscription), ', ') from posthaste.event_history('{event}') where what ~ 'cancel'"
    );
    assert_eq!(
        world.text(&told).await,
        "cancel asked for one, cancelled one, cancel asked for, cancelled two"
    );
    assert!(
        world
            .holds(&format!(
                "(select count(*) = 2 and bool_and(event_id = '{other}') from posthaste.queue)"
            ))
            .await
    );
    let nothing = ada
        .refused(&format!("select posthaste.cancel('{event}', 'x')"))
        .await;
    assert!(
        nothing.message().contains("none of its deliveries waits"),
        "{nothing:?}"
    );
    let noted = "select count(*) from posthaste.audit where action = 'cancel_asked_for' and reason = 'sent by mistake'";
    assert_eq!(ada.one::<i64>(noted).await, 2);
    // What was cancelled is finished, and may be replayed.
    partner.set_reply(Reply::Status(200));
    let replay = format!("select deliveries from posthaste.replay_event('{event}', 'it was none')");
    assert_eq!(ada.one::<i64>(&replay).await, 2);
    partner.wait_for(6).await;
}

#[tokio::test]
async fn an_attempt_under_way_is_the_last_one() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    let wire = Wire::to(&partner).await;
    world.subscribe_through(&wire, &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    world
        .until("exists (select from posthaste.queue where attempts = 1)")
        .await;
    world.run("delete from posthaste.queue").await;
    wire.hold();
    let event = world.publish("a", "2").await;
    partner.wait_for(2).await;
    let cancel = format!("select posthaste.cancel('{event}', 'sent by mistake')::bigint");
    assert_eq!(world.count(&cancel).await, 1);
    world
        .until("exists (select from posthaste.cancel_request where looked_at > asked_at and closed_at is null)")
        .await;
    wire.release();
    world.until(CLOSED).await;
    assert_eq!(world.story(event).await, "1 rejected retry");
    let status = format!(
        "select concat_ws(' ', status, attempts, note) from posthaste.delivery where event_id = '{event}'"
    );
    assert_eq!(world.text(&status).await, "CANCELLED 1 sent by mistake");
}

#[tokio::test]
async fn an_event_that_is_yet_to_be_fanned_out_is_cancelled_after_that() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world.run("select posthaste.deactivate('p', 'x')").await;
    let event = world.publish("a", "1").await;
    let cancel = format!("select posthaste.cancel('{event}', 'sent by mistake')::bigint");
    assert_eq!(world.count(&cancel).await, 0);
    assert_eq!(world.count(CARRY_OUT).await, 1);
    assert!(!world.holds(CLOSED).await);
    let _worker = world.worker(&[]).await;
    world.until(CLOSED).await;
    let status = "select concat_ws(' ', status, attempts) from posthaste.delivery";
    assert_eq!(world.text(status).await, "CANCELLED 0");
    assert_eq!(partner.count(), 0);
}

#[tokio::test]
async fn what_is_quarantined_or_about_to_be_replayed_is_cancelled_too() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h").await;
    let event = world.publish("a", "1").await;
    world
        .run(&format!(
            "delete from posthaste.intake;
             insert into posthaste.attempt (started_at, event_id, subscription_id, subscription_revision, worker_id, outcome, verdict, rule, replay, number, error)
             values (now(), '{event}', {id}, 1, 1, 'unreachable', 'exhausted', 'no_retries_left', 0, 1, 'no answer');
             select posthaste.replay_event('{event}', 'x')"
        ))
        .await;
    let cancel = format!("select posthaste.cancel('{event}', 'after all not')::bigint");
    assert_eq!(world.count(&cancel).await, 1);
    assert_eq!(world.count(CARRY_OUT).await, 1);
    assert!(world.holds(CLOSED).await);
    assert!(
        world
            .holds("(select is_any from posthaste.queue_replays(500))")
            .await
    );
    assert_eq!(
        world
            .text("select concat_ws(' ', state, queued, skipped) from posthaste.replay_progress")
            .await,
        "finished 0 1"
    );
    world
        .run(&format!(
            "insert into posthaste.quarantine (event_id, subscription_id, replay, attempts, reason) values ('{event}', {id}, 7, 0, 'it breaks its schema')"
        ))
        .await;
    assert_eq!(world.count(&cancel).await, 1);
    assert_eq!(world.count(CARRY_OUT).await, 1);
    assert!(world.holds(CLOSED).await);
    let status = "select concat_ws(' ', status, note) from posthaste.delivery where replay = 7";
    assert_eq!(world.text(status).await, "CANCELLED after all not");
    let unknown = refusal(
        &world.db,
        "select posthaste.cancel('01900000-0000-7000-8000-000000000001', 'x')",
    )
    .await;
    assert!(
        unknown.message().contains("none of its deliveries waits"),
        "{unknown:?}"
    );
}

const CLOSED: &str = "not exists (select from posthaste.cancel_request where closed_at is null)";
const CARRY_OUT: &str = "select requests::bigint from posthaste.carry_out_cancels(100)";
