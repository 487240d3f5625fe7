//! A worker keeps to what was agreed, and to every change of it within a second, without a restart.

use std::time::Duration;

use posthaste::secret::SigningSecret;
use posthaste::trial::partner::{Replies, Reply};

use crate::harness::{Partner, World};

#[tokio::test]
async fn a_pause_stops_what_is_not_under_way_yet_and_loses_nothing() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Delay(
        Duration::from_millis(800),
        Box::new(Reply::Status(200)),
    ))
    .await;
    world.subscribe("p", &partner, "1h,1h").await;
    let _worker = world.worker(&[("endpoint_concurrency", "4")]).await;
    world.publish_many("a", 20).await;
    partner.wait_for(4).await;
    world
        .run("select posthaste.deactivate('p', 'they asked us to')")
        .await;
    world
        .until("(select count(*) from posthaste.lease) = 0 and (select not active from posthaste.lane)")
        .await;
    // A worker holds 16 of them, and sends four at a time; when it learns of the pause, the third four may be under way.
    let sent = partner.count();
    assert!(sent <= 12, "{sent}");
    partner.set_reply(Reply::Status(200));
    world.publish_many("a", 5).await;
    world
        .until("not exists (select from posthaste.intake)")
        .await;
    assert_eq!(partner.count(), sent);

    world.change("p", r#"{"active": true}"#).await;
    world.make_due().await;
    world.until_all_is_done().await;
    assert_eq!(
        world
            .count("select count(*) from posthaste.delivery where status = 'SUCCESS'")
            .await,
        25
    );
}

#[tokio::test]
async fn a_change_is_heeded_by_deliveries_that_a_worker_has_in_hand() {
    let world = World::new().await;
    let (old, new) = (Partner::replying(Reply::Hang).await, world.partner().await);
    let id = world.subscribe("p", &old, "1h,1h").await;
    let secret = SigningSecret::generate().unwrap();
    new.learn(secret.clone());
    world.add_secret(id, &secret).await;
    let _worker = world
        .worker(&[("endpoint_concurrency", "1"), ("request_timeout", "1s")])
        .await;
    world.publish_many("a", 10).await;
    old.wait_for(1).await;
    world
        .change("p", &format!(r#"{{"url": "{}"}}"#, new.url("/moved")))
        .await;
    // Four were in hand: one under way, and perhaps the next before the worker knew.
    let received = new.wait_for(8).await;
    assert!(received.iter().all(|r| r.verified == Some(Ok(()))));
    world
        .until("(select count(*) from posthaste.attempt) = 10")
        .await;
    let under = "select count(distinct t.terms ->> 'url') from posthaste.attempt_log a
        join posthaste.subscription_terms t on (t.subscription_id, t.revision) = (a.subscription_id, a.subscription_revision)";
    assert_eq!(world.count(under).await, 2);
}

#[tokio::test]
async fn only_what_matches_is_delivered() {
    let world = World::new().await;
    let partner = world.partner().await;
    world
        .subscribe_to(
            "all",
            &partner,
            &["certificate.issued", "certificate.draft.made", "other"],
            None,
            "1h",
        )
        .await;
    for (name, types, filter) in [
        ("prefix", "{certificate.*}", "null"),
        ("exact", "{certificate.issued}", "null"),
        ("deep", "{certificate.draft.*}", "null"),
        ("star", "{*}", "null"),
        ("filtered", "{*}", "'$.grade >= 2'"),
        ("found", "{*}", "'$.tags ? (@ == \"new\")'"),
    ] {
        world
            .agree(&format!(
                "propose_subscription('{name}', 'https://127.0.0.1:1/', '{types}', filter => {filter})"
            ))
            .await;
    }
    let _worker = world.worker(&[]).await;
    for (event_type, payload) in [
        ("certificate.issued", r#"{"grade": 3}"#),
        (
            "certificate.draft.made",
            r#"{"grade": 1, "tags": ["old", "new"]}"#,
        ),
        ("other", r#"{"grade": "none"}"#),
        ("unheard.of", r#"{"grade": 3}"#),
    ] {
        world.publish(event_type, payload).await;
    }
    world
        .until("(select count(*) from posthaste.intake) = 0")
        .await;
    let who = |event_type: &str| {
        format!(
            "select string_agg(distinct subscription, ' ' order by subscription) from posthaste.delivery where event_type = '{event_type}'"
        )
    };
    assert_eq!(
        world.text(&who("certificate.issued")).await,
        "all exact filtered prefix star"
    );
    assert_eq!(
        world.text(&who("certificate.draft.made")).await,
        "all deep found prefix star"
    );
    assert_eq!(world.text(&who("other")).await, "all star");
    assert_eq!(world.text(&who("unheard.of")).await, "");
    let unrouted = "select string_agg(event_type || ': ' || reason || ' ' || events, ', ') from posthaste.unrouted";
    assert_eq!(
        world.text(unrouted).await,
        "unheard.of: not in the catalogue 1"
    );
}

#[tokio::test]
async fn an_unknown_or_retired_type_reaches_only_those_who_want_that_too() {
    let world = World::new().await;
    let partner = world.partner().await;
    world
        .subscribe_to("named", &partner, &["retired"], None, "1h")
        .await;
    world.subscribe("everything", &partner, "1h").await;
    world
        .run("select posthaste.change_event_type('retired', '{\"active\": false}')")
        .await;
    let _worker = world.worker(&[]).await;
    for event_type in ["retired", "typo", "typo"] {
        world.publish(event_type, "{}").await;
    }
    partner.wait_for(3).await;
    world.until_all_is_done().await;
    assert_eq!(
        world
            .text("select string_agg(distinct subscription, ' ') from posthaste.delivery")
            .await,
        "everything"
    );
    let seen = "select string_agg(event_type || ': ' || reason || ', ' || events, '; ' order by event_type) from posthaste.unrouted";
    assert_eq!(
        world.text(seen).await,
        "retired: not active in the catalogue, 1; typo: not in the catalogue, 2"
    );
    world
        .run("select posthaste.create_event_type('typo', 'It was none')")
        .await;
    assert_eq!(
        world.text(seen).await,
        "retired: not active in the catalogue, 1"
    );
}

#[tokio::test]
async fn a_payload_that_breaks_its_schema_is_held_until_somebody_decides() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe_to("p", &partner, &["a"], None, "1h").await;
    world
        .run(r#"select posthaste.change_event_type('a', '{"schema": {"type": "object", "required": ["id"]}}')"#)
        .await;
    let _worker = world.worker(&[]).await;
    let [good, sent, dropped] = [
        world.publish("a", r#"{"id": 1}"#).await,
        world.publish("a", r#"{"secret": "hidden"}"#).await,
        world.publish("a", "[]").await,
    ];
    world
        .until("(select count(*) from posthaste.unrouted) = 2 and (select count(*) from posthaste.attempt) = 1")
        .await;
    assert_eq!(partner.wait_for(1).await[0].id, good.to_string());
    assert!(world.holds(&format!(
        "(select status = 'PENDING' and note = 'quarantined: the payload breaks its schema: rule /required'
          from posthaste.delivery where event_id = '{sent}')"
    )).await);

    world
        .run(&format!(
            "select posthaste.release('{sent}', 'we said it would be so')"
        ))
        .await;
    let received = partner.wait_for(2).await;
    assert!(received.iter().any(|r| r.id == sent.to_string()));
    world
        .run(&format!(
            "select posthaste.discard('{dropped}', 'a trial run')"
        ))
        .await;
    world.until_all_is_done().await;
    assert_eq!(partner.count(), 2);
    assert_eq!(
        world
            .text(&format!(
                "select status || ', ' || note from posthaste.delivery where event_id = '{dropped}'"
            ))
            .await,
        "CANCELLED, a trial run"
    );
    assert_eq!(world.story(sent).await, "1 accepted done");
    let told = format!("select string_agg(what, ', ') from posthaste.event_history('{sent}')");
    assert_eq!(
        world.text(&told).await,
        "inserted, quarantined, released, attempt 1 accepted"
    );
}

#[tokio::test]
async fn a_schema_takes_effect_on_deliveries_that_wait_too() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world
        .subscribe_to("p", &partner, &["a"], None, "1h,1h")
        .await;
    let _worker = world.worker(&[]).await;
    let id = world.publish("a", "[]").await;
    world
        .until("exists (select from posthaste.queue where attempts = 1)")
        .await;
    world
        .run(r#"select posthaste.change_event_type('a', '{"schema": {"type": "object"}}')"#)
        .await;
    world.make_due().await;
    world
        .until("exists (select from posthaste.quarantine where attempts = 1)")
        .await;
    partner.set_reply(Reply::Status(200));
    world
        .run(&format!(
            "select posthaste.release('{id}', 'the schema is younger')"
        ))
        .await;
    world.until_all_is_done().await;
    assert_eq!(world.story(id).await, "1 rejected retry, 2 accepted done");
    // Whoever comes second finds nothing to put back.
    assert!(world.holds("posthaste.requeue_released(10) = 0").await);
}

#[tokio::test]
async fn a_filter_that_cannot_be_evaluated_holds_the_delivery_of_its_subscription_alone() {
    let world = World::new().await;
    let partner = world.partner().await;
    world
        .subscribe_to("plain", &partner, &["a"], None, "1h")
        .await;
    world
        .agree(
            "propose_subscription('filtered', 'https://127.0.0.1:1/', '{a}', filter => '$.x > 1')",
        )
        .await;
    let _worker = world.worker(&[]).await;
    // Valid JSON that jsonb does not take.
    world.publish("a", r#"{"x": "\u0000"}"#).await;
    partner.wait_for(1).await;
    world.until_all_is_done().await;
    assert_eq!(
        world
            .text("select held_for::text || ' ' || reason from posthaste.unrouted")
            .await,
        "{filtered} the subscription's filter cannot be evaluated on the payload"
    );
}

#[tokio::test]
async fn a_schema_that_could_take_for_ever_holds_its_own_deliveries_and_nothing_else() {
    let world = World::new().await;
    let partner = world.partner().await;
    world
        .subscribe_to("p", &partner, &["a", "b"], None, "1h")
        .await;
    world
        .run(r##"select posthaste.change_event_type('a', '{"schema": {"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}}')"##)
        .await;
    let _worker = world.worker(&[]).await;
    world
        .publish("a", &format!("{}1{}", "[".repeat(60), "]".repeat(60)))
        .await;
    let other = world.publish("b", "{}").await;
    assert_eq!(partner.wait_for(1).await[0].id, other.to_string());
    world.until_all_is_done().await;
    assert!(
        world
            .text("select reason from posthaste.unrouted")
            .await
            .contains("along so many ways"),
    );
}

#[tokio::test]
async fn extra_headers_are_sent_and_a_secret_one_is_sent_once_it_has_its_value() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h,1h,1h").await;
    world
        .change(
            "p",
            r#"{"headers": {"X-Environment": "production", "Authorization": {"secret": true}}}"#,
        )
        .await;
    let _worker = world.worker(&[]).await;
    let event = world.publish("a", "{}").await;
    world
        .until("exists (select from posthaste.attempt where outcome = 'blocked')")
        .await;
    assert_eq!(
        world.text("select error from posthaste.attempt").await,
        "the secret header Authorization has no value yet"
    );
    world
        .set_credential("p", id, "Authorization", "Bearer abc def")
        .await;
    world.make_due().await;
    let received = partner.wait_for(1).await;
    assert_eq!(received[0].headers["x-environment"], "production");
    assert_eq!(received[0].headers["authorization"], "Bearer abc def");
    assert_eq!(received[0].verified, Some(Ok(())));
    world.until_all_is_done().await;
    assert_eq!(world.story(event).await, "1 blocked retry, 2 accepted done");
    let shown = "select (select string_agg(t::text, '') from posthaste.subscription_terms t)
        || (select string_agg(a::text, '') from posthaste.audit a) || (select string_agg(c::text, '') from posthaste.change c)";
    assert!(!world.text(shown).await.contains("abc def"));
}

#[tokio::test]
async fn an_address_outside_the_networks_that_were_agreed_is_not_connected_to() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h,1h,1h,1h").await;
    let _worker = world.worker(&[]).await;
    let port = partner.url("/");
    let port = port.rsplit_once(':').unwrap().1.trim_end_matches('/');
    for (networks, word) in [
        ("203.0.113.0/24".to_owned(), "blocked"),
        ("127.0.0.0/8:1".to_owned(), "blocked"),
        (format!("127.0.0.0/8:{port}"), "accepted"),
        ("[::1/128]:443\", \"127.0.0.0/8".to_owned(), "accepted"),
    ] {
        world
            .change("p", &format!(r#"{{"networks": ["{networks}"]}}"#))
            .await;
        let id = world.publish("a", "{}").await;
        world
            .until(&format!(
                "exists (select from posthaste.attempt where event_id = '{id}')"
            ))
            .await;
        let story = world.story(id).await;
        assert!(story.contains(word), "{networks}: {story}");
    }
    assert_eq!(
        world
            .text("select min(error) from posthaste.attempt where outcome = 'blocked'")
            .await,
        "127.0.0.1 is in none of the networks that its subscription names"
    );
}

#[tokio::test]
async fn a_subscription_has_its_own_timeout_and_its_own_cap_on_requests() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Hang).await;
    world.subscribe("p", &partner, "1h").await;
    world
        .change("p", r#"{"timeout": "300 milliseconds", "concurrency": 2}"#)
        .await;
    let _worker = world.worker(&[]).await;
    world.publish_many("a", 6).await;
    world
        .until("(select count(*) from posthaste.attempt where outcome = 'timed_out') = 6")
        .await;
    assert!(
        world
            .holds("(select min(duration_us) >= 300000 and max(duration_us) < 5000000 from posthaste.attempt)")
            .await
    );
    // Of the requests that overlap with one, at most one more is there at any time.
    let overlapping = "select max(n) from (
        select count(*) n from posthaste.attempt a join posthaste.attempt b
          on b.started_at <= a.started_at and a.started_at < b.started_at + make_interval(secs => b.duration_us / 1e6 - 0.05)
        group by a.event_id) o";
    assert!(world.count(overlapping).await <= 2);
}

#[tokio::test]
async fn what_is_held_for_a_removed_subscription_is_cancelled_bit_by_bit_and_nobody_waits() {
    let world = World::new().await;
    let id = world
        .subscribe_url("harbour", "https://harbour.example/", &["*"], None, "5s")
        .await;
    world
        .run(&format!(
            "insert into posthaste.quarantine (event_id, subscription_id, replay, attempts, reason)
             select gen_random_uuid(), {id}, n, 0, 'too odd' from generate_series(1, 5) n"
        ))
        .await;
    world.agree("propose_removal('harbour', 'over')").await;
    let session = world.session().await;
    let decide = "begin; select from posthaste.quarantine where replay = 1 for update";
    session.batch_execute(decide).await.unwrap();
    for cancelled in [3, 1, 0] {
        let cancel = "select posthaste.cancel_removed(3)::bigint";
        assert_eq!(world.count(cancel).await, cancelled);
    }
}

#[tokio::test]
async fn what_is_owed_to_a_removed_subscription_is_cancelled() {
    let world = World::new().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1h,1h").await;
    let _worker = world.worker(&[]).await;
    world.publish_many("a", 3).await;
    world
        .until("(select count(*) from posthaste.queue where attempts = 1) = 3")
        .await;
    world
        .agree("propose_removal('p', 'the contract ended')")
        .await;
    world.until_all_is_done().await;
    assert_eq!(
        world
            .text("select string_agg(distinct status || ', ' || note, ';') from posthaste.delivery")
            .await,
        "CANCELLED, the subscription was removed"
    );
    world.publish("a", "{}").await;
    world
        .until("not exists (select from posthaste.intake)")
        .await;
    assert_eq!(partner.count(), 3);
}

#[tokio::test]
async fn a_secret_that_was_asked_for_is_made_by_a_worker_and_the_old_one_ends_by_itself() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    partner.wait_for(1).await;
    world
        .run("select posthaste.rotate_secret('p', interval '1 hour', 'yearly')")
        .await;
    world
        .until("(select count(*) from posthaste.signing_secret where ciphertext is not null) = 2")
        .await;
    world.publish("a", "2").await;
    partner.wait_for(2).await;
    world
        .run("select posthaste.end_secret('p', 1::smallint, 'it leaked')")
        .await;
    let last = world.publish("a", "3").await;
    world.until_all_is_done().await;
    let signed = "select string_agg(signed_with, ' ' order by started_at) from posthaste.attempt";
    assert_eq!(world.text(signed).await, "1 1,2 2");
    // The partner knows the first alone, and would have to be told.
    let received = partner.wait_for(3).await;
    let last = received.iter().find(|r| r.id == last.to_string()).unwrap();
    assert!(matches!(last.verified, Some(Err(_))));
}

#[tokio::test]
async fn a_new_subscription_has_its_secret_before_its_first_event() {
    let world = World::new().await;
    world
        .subscribe_url("before", "https://127.0.0.1:1/", &["*"], None, "1h")
        .await;
    let _worker = world.worker(&[]).await;
    world
        .until("(select live = 1 from posthaste.secret_overview)")
        .await;
    world
        .subscribe_url("after", "https://127.0.0.1:1/", &["*"], None, "1h")
        .await;
    world
        .until("(select count(*) from posthaste.secret_overview where live = 1) = 2")
        .await;
}

#[tokio::test]
async fn somebodys_open_transaction_holds_up_nobodys_deliveries() {
    let world = World::new().await;
    let (one, other) = (world.partner().await, world.partner().await);
    world.subscribe_to("one", &one, &["a"], None, "1h").await;
    world
        .subscribe_to("other", &other, &["b"], None, "1h")
        .await;
    let _worker = world.worker(&[]).await;
    let admin = world.session().await;
    admin
        .batch_execute(
            "begin; select posthaste.deactivate('one', 'for now'); select posthaste.rotate_secret('other', reason => 'yearly')",
        )
        .await
        .unwrap();
    world.publish_many("a", 50).await;
    world.publish_many("b", 50).await;
    one.wait_for(50).await;
    other.wait_for(50).await;
    admin.batch_execute("rollback").await.unwrap();
    world.until_all_is_done().await;
}

#[tokio::test]
async fn the_log_of_attempts_tells_how_long_each_phase_took() {
    let world = World::new().await;
    let partner = Partner::replying(Replies::by(|_| Reply::Status(200))).await;
    world.subscribe("p", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    world.until_all_is_done().await;
    assert!(
        world
            .holds(
                "(select subscription = 'p' and first_byte_us > 0
                     and duration_us = first_byte_us + coalesce(dns_us, 0) + connect_us + tls_us + coalesce(body_us, 0)
                  from posthaste.attempt_log)"
            )
            .await
    );
}
