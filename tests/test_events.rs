//! A test shows what an endpoint answers: the catalogue's example, marked as a test, sent once, to one subscription.

use posthaste::trial::partner::Reply;
use uuid::Uuid;

use crate::harness::{Partner, World, refusal};

#[tokio::test]
async fn a_test_goes_to_one_subscription_alone_and_says_that_it_is_one() {
    let world = World::new().await;
    world.run(EXAMPLE).await;
    let [ada, _] = world.two_administrators().await;
    let [partner, other] = [world.partner().await, world.partner().await];
    world
        .subscribe_to("p", &partner, &["ship.arrived"], None, "1h")
        .await;
    world
        .subscribe_to("other", &other, &["ship.arrived"], None, "1h")
        .await;
    let _worker = world.worker(&[]).await;
    let event: Uuid = ada
        .one("select posthaste.send_test('p', 'ship.arrived', 'they set it up')")
        .await;
    let received = partner.wait_for(1).await;
    assert_eq!(received[0].id, event.to_string());
    assert_eq!(received[0].headers["webhook-test"], "true");
    assert_eq!(received[0].verified, Some(Ok(())));
    let body = std::str::from_utf8(&received[0].body).unwrap();
    assert!(
        body.starts_with(r#"{"type":"ship.arrived","timestamp":""#)
            && body.ends_with(r#"Z","test":true,"data":{"ship" : 7.0}}"#),
        "{body}"
    );
    world.until_all_is_done().await;
    let answer = format!(
        "select concat_ws(' ', replay, number, outcome, http_status) from posthaste.attempt_log where event_id = '{event}'"
    );
    assert_eq!(ada.one::<String>(&answer).await, "-1 1 accepted 200");
    let story = format!("select string_agg(what, ', ') from posthaste.event_history('{event}')");
    assert_eq!(
        ada.one::<String>(&story).await,
        "inserted, test queued, attempt 1 of the test accepted"
    );
    let noted = "select concat_ws(' ', after ->> 'subscription', after ->> 'event_type', reason) from posthaste.audit where action = 'test_asked_for'";
    assert_eq!(
        ada.one::<String>(noted).await,
        "p ship.arrived they set it up"
    );
    // A real one goes to both, unmarked.
    world.publish("ship.arrived", "1").await;
    other.wait_for(1).await;
    let received = partner.wait_for(2).await;
    assert!(received[1].headers.get("webhook-test").is_none());
    world.until_all_is_done().await;
    assert_eq!((partner.count(), other.count()), (2, 1));
    let refused = ada
        .refused(&format!("select posthaste.replay_event('{event}', 'x')"))
        .await;
    assert!(
        refused.message().contains("there is no finished delivery"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_test_that_fails_is_not_tried_again_and_is_no_dead_letter() {
    let world = World::new().await;
    world.run(EXAMPLE).await;
    let partner = Partner::replying(Reply::Status(503)).await;
    world
        .subscribe_to("p", &partner, &["ship.arrived"], None, "1s,1s")
        .await;
    let _worker = world.worker(&[]).await;
    let event: Uuid = test_of(&world, "ship.arrived").await;
    partner.wait_for(1).await;
    world.until_all_is_done().await;
    assert_eq!(world.story(event).await, "1 rejected exhausted");
    assert_eq!(
        world
            .count("select count(*) from posthaste.dead_letter")
            .await,
        0
    );
    assert_eq!(
        world
            .count("select value::bigint from posthaste.figures(10) where figure = 'dead_letters_last_day'")
            .await,
        0
    );
}

#[tokio::test]
async fn an_example_that_breaks_its_schema_is_answered_with_that_and_quarantined_nowhere() {
    let world = World::new().await;
    world.run(EXAMPLE).await;
    let partner = world.partner().await;
    world
        .subscribe_to("p", &partner, &["ship.arrived"], None, "1h")
        .await;
    world
        .run(r#"select posthaste.change_event_type('ship.arrived', '{"schema": {"required": ["port"]}}')"#)
        .await;
    let _worker = world.worker(&[]).await;
    let event = test_of(&world, "ship.arrived").await;
    world.until("exists (select from posthaste.attempt)").await;
    world.until_all_is_done().await;
    assert_eq!(world.story(event).await, "1 blocked rejected");
    assert_eq!(
        world.text("select error from posthaste.attempt").await,
        "the payload breaks its schema: rule /required"
    );
    assert_eq!(
        world
            .count("select count(*) from posthaste.quarantine")
            .await,
        0
    );
    assert_eq!(partner.count(), 0);
}

#[tokio::test]
async fn what_cannot_be_tested_is_refused_with_the_reason() {
    let world = World::new().await;
    world.run(EXAMPLE).await;
    let partner = world.partner().await;
    world
        .subscribe_to("p", &partner, &["ship.arrived"], None, "1h")
        .await;
    world
        .run(
            "select posthaste.create_event_type('ship.sunk', 'A ship sank');
             select posthaste.create_event_type('train.late', 'A train', example => '{}')",
        )
        .await;
    for (event_type, says) in [
        ("ship.sunk", "the catalogue has no example of it"),
        ("ship.lost", "it is not in the catalogue"),
        ("train.late", "the subscription does not get such events"),
    ] {
        let test = format!("select posthaste.send_test('p', '{event_type}', 'x')");
        let refused = refusal(&world.db, &test).await;
        assert!(refused.message().contains(says), "{refused:?}");
    }
    world.run("select posthaste.deactivate('p', 'x')").await;
    let refused = refusal(
        &world.db,
        "select posthaste.send_test('p', 'ship.arrived', 'x')",
    )
    .await;
    assert!(refused.message().contains("it is paused"), "{refused:?}");
    assert_eq!(
        world.count("select count(*) from posthaste.outbox").await,
        0
    );
}

async fn test_of(world: &World, event_type: &str) -> Uuid {
    let test = format!("select posthaste.send_test('p', '{event_type}', 'a trial')");
    world.db.query_one(&test, &[]).await.unwrap().get(0)
}

const EXAMPLE: &str =
    "select posthaste.create_event_type('ship.arrived', 'A ship', example => '{\"ship\" : 7.0}')";
