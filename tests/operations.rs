//! What operators should know is in a table, on a channel, in the log, in the metrics, and at the operators' own endpoint if they
//! subscribed to it.

use std::future::poll_fn;

use posthaste::operational::OperationalEvent;
use posthaste::secret::SigningSecret;
use posthaste::trial::partner::{Replies, Reply};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::harness::{PATIENCE, Partner, Wire, World, http, refusal};

/// Lets a 4xx status end a delivery. A 410 does so too, but then the subscription is paused soon after, and that is told as well.
async fn reject_client_errors(world: &World, subscription: &str) {
    world
        .change(subscription, r#"{"client_errors": "reject"}"#)
        .await;
}

#[tokio::test]
async fn what_was_given_up_is_told_with_the_attempt_that_ended_it() {
    let world = World::new().await;
    let partner = Partner::replying(Replies::by(|received| {
        Reply::Status(match received.path.as_str() {
            "/exhausted" => 503,
            "/rejected" => 422,
            _ => 200,
        })
    }))
    .await;
    for (name, retry) in [("exhausted", "1h"), ("rejected", "1h"), ("fine", "1h")] {
        world.subscribe(name, &partner, retry).await;
    }
    reject_client_errors(&world, "rejected").await;
    let _worker = world.worker(&[]).await;
    let event = world.publish("a", "1").await;
    world
        .until("(select count(*) from posthaste.attempt) = 3")
        .await;
    // One is refused for good; the other is to be tried again, and nobody needs to know.
    let told = "select string_agg(concat_ws(' ', event_type, severity, subscription, about, replay, number, worker_id,
            detail ->> 'outcome', detail ->> 'http_status', detail ->> 'error' = (
                select a.error from posthaste.attempt a where (a.event_id, a.subscription_id, a.number) = (o.event_id, o.subscription_id, o.number))), ', ')
        from posthaste.operations o where event_type like '%.delivery.%'";
    let rejected = "posthaste.delivery.rejected warning rejected a 0 1 1 rejected 422 t";
    assert_eq!(world.text(told).await, rejected);
    world.make_due().await;
    world.until_all_is_done().await;
    // Newest first.
    assert_eq!(
        world.text(told).await,
        format!("posthaste.delivery.exhausted error exhausted a 0 2 1 rejected 503 t, {rejected}")
    );
    let about = format!(
        "(select bool_and(event_id = '{event}') from posthaste.operations where event_type like '%.delivery.%')"
    );
    assert!(world.holds(&about).await);
    let together = "(select count(*) = 2 from posthaste.operational_event o join posthaste.attempt a using (event_id, subscription_id, number)
        where a.xmin = o.xmin and a.verdict in ('exhausted', 'rejected'))";
    assert!(world.holds(together).await);
    assert_eq!(
        world.count("select count(*) from posthaste.outbox").await,
        1
    );
}

#[tokio::test]
async fn a_late_finisher_tells_nothing() {
    let world = World::new().await;
    let partner = Partner::replying(Replies::by(|received| {
        Reply::Status(if received.sequence == 1 { 200 } else { 500 })
    }))
    .await;
    let wire = Wire::to(&partner).await;
    world.subscribe_through(&wire, &partner, "").await;
    let _worker = world
        .worker(&[
            ("idle_timeout", "10m"),
            ("request_timeout", "2m"),
            ("lease", "1h"),
        ])
        .await;
    world.publish("warm.up", "1").await;
    world.until_all_is_done().await;
    wire.hold();
    world.publish("a", "1").await;
    partner.wait_for(2).await;
    world.run("update posthaste.lease set holder = 99").await;
    wire.release();
    world
        .until("exists (select from posthaste.attempt where verdict = 'late')")
        .await;
    assert!(
        world
            .holds("not exists (select from posthaste.operational_event)")
            .await
    );
}

#[tokio::test]
async fn a_listener_is_notified_of_each_and_once_where_many_come_together() {
    let world = World::new().await;
    let (client, mut connection) = tokio_postgres::connect(world.url(), NoTls).await.unwrap();
    let (heard, mut notifications) = mpsc::unbounded_channel();
    let listening = tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(told) = message
                && told.channel() == "posthaste_operations"
            {
                let _ = heard.send(serde_json::from_str::<Value>(told.payload()).unwrap());
            }
        }
    });
    client
        .batch_execute("listen posthaste_operations")
        .await
        .unwrap();
    let mut next = async || {
        let told = tokio::time::timeout(PATIENCE, notifications.recv()).await;
        told.expect("nothing is heard").unwrap()
    };
    let partner = Partner::replying(Reply::Status(422)).await;
    world.subscribe("p", &partner, "").await;
    reject_client_errors(&world, "p").await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    world.until_all_is_done().await;
    let newest = "select id::text from posthaste.operations limit 1";
    let expected = json!({ "id": world.text(newest).await, "type": "posthaste.delivery.rejected" });
    assert_eq!(next().await, expected);

    let many = |count: i32| {
        format!(
            "insert into posthaste.operational_event (event_type, severity, subscription_id)
             select 'posthaste.breaker.opened', 'error', 1 from generate_series(1, {count})"
        )
    };
    world.run(&many(10)).await;
    for _ in 0..10 {
        assert_eq!(next().await.get("count"), None);
    }
    world.run(&many(11)).await;
    let told = next().await;
    let from = told["id"].as_str().unwrap();
    assert_eq!(told["count"], 11);
    let since = format!("select count(*) from posthaste.operations where id >= '{from}'");
    assert_eq!(world.count(&since).await, 11);
    // That was all of it: nothing is between it and the next.
    world.run(&many(0)).await;
    world.run(&many(1)).await;
    assert_eq!(next().await.get("count"), None);
    listening.abort();
}

/// Subscribes an operator to these types at `/<name>`, as any other subscription: with a secret of its own.
async fn operator(world: &World, name: &str, partner: &Partner, types: &str, terms: &str) -> i32 {
    let url = partner.url(&format!("/{name}"));
    let id = world
        .agree(&format!(
            "propose_subscription('{name}', '{url}', '{types}', retry_intervals => '{{}}'{terms})"
        ))
        .await;
    let secret = SigningSecret::generate().unwrap();
    partner.learn(secret.clone());
    world.add_secret(id, &secret).await;
    id
}

#[tokio::test]
async fn an_operator_who_subscribed_is_told_in_a_signed_request_and_nobody_else_is() {
    let world = World::new().await;
    let (operators, partner) = (
        world.partner().await,
        Partner::replying(Reply::Status(422)).await,
    );
    // What wants everything, and unknown types too, does not want this.
    let everything = world.partner().await;
    world.subscribe("everything", &everything, "").await;
    operator(&world, "all", &operators, "{posthaste.*}", "").await;
    operator(
        &world,
        "one",
        &operators,
        "{posthaste.delivery.exhausted,posthaste.delivery.rejected}",
        "",
    )
    .await;
    operator(&world, "others", &operators, "{posthaste.breaker.*}", "").await;
    operator(
        &world,
        "north",
        &operators,
        "{posthaste.*}",
        ", tenant => 'north'",
    )
    .await;
    let id = world
        .subscribe_to("p", &partner, &["a"], Some("south"), "")
        .await;
    reject_client_errors(&world, "p").await;
    let _worker = world.worker(&[]).await;
    world
        .run("insert into posthaste.outbox (event_type, payload, tenant) values ('a', '{\"secret\": 1}', 'south')")
        .await;
    let mut told = operators.wait_for(2).await;
    world.until_all_is_done().await;
    told.sort_by(|a, b| a.path.cmp(&b.path));
    let paths: Vec<&str> = told.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(paths, ["/all", "/one"]);
    assert_eq!(operators.counts().verified, 2);
    let about = world
        .text("select event_id::text from posthaste.operations")
        .await;
    let body: Value = serde_json::from_slice(&told[0].body).unwrap();
    assert_eq!(body["type"], "posthaste.delivery.rejected");
    let error = world
        .text("select error from posthaste.attempt where verdict = 'rejected'")
        .await;
    assert_eq!(
        body["data"],
        json!({
            "severity": "warning", "subscription_id": id, "subscription": "p", "event_id": about, "event_type": "a",
            "replay": 0, "number": 1, "outcome": "rejected", "http_status": 422, "error": error
        })
    );
    assert_eq!(
        told[0].id,
        world
            .text("select id::text from posthaste.operations")
            .await
    );
    assert_eq!(everything.received().len(), 1);
    assert_eq!(
        world
            .count("select count(*) from posthaste.quarantine")
            .await,
        0
    );
}

#[tokio::test]
async fn what_fails_in_telling_is_not_told_that_way() {
    let world = World::new().await;
    let broken = Partner::replying(Reply::Status(500)).await;
    let id = operator(&world, "operator", &broken, "{posthaste.*}", "").await;
    let p = world.subscribe_to("p", &broken, &["a"], None, "").await;
    let worker = world.worker(&[]).await;
    world.publish("a", "1").await;
    // Not until all is done: in a loop nothing ever is.
    world
        .until("(select count(*) from posthaste.operational_event) >= 2")
        .await;
    worker.stop().await.unwrap();
    let told = "select string_agg(subscription || ' ' || about, ', ' order by id) from posthaste.operations";
    assert_eq!(
        world.text(told).await,
        "p a, operator posthaste.delivery.exhausted"
    );
    let events = "select string_agg(event_type, ' ' order by event_id) from posthaste.outbox";
    assert_eq!(world.text(events).await, "a posthaste.delivery.exhausted");
    // Nor is what becomes of the endpoint that would be told: each opening would cause the next.
    for (subscription, event_type) in [
        (id, "posthaste.breaker.opened"),
        (p, "posthaste.breaker.closed"),
        (id, "posthaste.subscription.paused"),
    ] {
        world
            .run(&format!("select posthaste.tell('{event_type}', 'error', {subscription}, detail => '{{\"reason\": \"a trial\"}}')"))
            .await;
    }
    assert_eq!(
        world.text(events).await,
        "a posthaste.delivery.exhausted posthaste.breaker.closed posthaste.subscription.paused"
    );
}

#[tokio::test]
async fn a_breaker_that_a_change_of_terms_closes_is_told_of() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h").await;
    world.change("p", r#"{"breaker": {}}"#).await;
    let open = format!(
        "update posthaste.lane set breaker = 'open', hold_until = now() + interval '1 hour' where subscription_id = {id}"
    );
    world.run(&open).await;
    world.run("select posthaste.settle_lanes()").await;
    let told = "select string_agg(event_type, ' ' order by id) from posthaste.operations";
    assert_eq!(world.text(told).await, "");
    world.change("p", r#"{"breaker": null}"#).await;
    world.run("select posthaste.settle_lanes()").await;
    assert_eq!(world.text(told).await, "posthaste.breaker.closed");
    world.run("select posthaste.settle_lanes()").await;
    assert_eq!(world.text(told).await, "posthaste.breaker.closed");
}

#[tokio::test]
async fn names_that_begin_with_posthaste_are_not_for_producers() {
    let world = World::new().await;
    let producer = world.login("posthaste_producer").await;
    let administrator = world.login("posthaste_admin").await;
    let forged = "posthaste.delivery.exhausted";
    for statement in [
        format!("insert into posthaste.outbox (event_type, payload) values ('{forged}', '{{}}')"),
        format!(
            "insert into posthaste.outbox (event_type, payload, dedup_key) values ('{forged}', '{{}}', 'k')"
        ),
        format!("select posthaste.publish('{forged}', '{{}}')"),
        "select posthaste.publish('posthaste.anything', '{}')".to_owned(),
    ] {
        let refused = producer.refused(&statement).await;
        assert_eq!(refused.code(), &SqlState::CHECK_VIOLATION, "{statement}");
        assert!(
            refused.message().starts_with("event_type 'posthaste."),
            "{refused:?}"
        );
    }
    for statement in [
        "select posthaste.create_event_type('posthaste.mine', 'x')",
        "select posthaste.change_event_type('posthaste.delivery.exhausted', '{\"schema\": null}')",
    ] {
        let refused = administrator.refused(statement).await;
        assert_eq!(refused.code(), &SqlState::CHECK_VIOLATION, "{statement}");
    }
    producer.run("select posthaste.publish('posthaste', '{}'); select posthaste.publish('posthastes.own', '{}')").await;
}

#[tokio::test]
async fn the_catalogue_has_each_with_an_example_that_keeps_its_schema() {
    let world = World::new().await;
    let ours = "select string_agg(event_type, ' ' order by event_type) from posthaste.event_type where schema is not null";
    let mut types = OperationalEvent::ALL.map(OperationalEvent::event_type);
    types.sort_unstable();
    assert_eq!(world.text(ours).await, types.join(" "));
    // A worker holds each against its schema before it sends it.
    let partner = world.partner().await;
    operator(&world, "operator", &partner, "{posthaste.*}", "").await;
    world
        .run("set role posthaste_owner;
              insert into posthaste.outbox (event_type, payload) select event_type, example from posthaste.event_type;
              reset role")
        .await;
    let p = world.subscribe_to("p", &partner, &["a"], None, "").await;
    for event in OperationalEvent::ALL {
        let (name, severity) = (event.event_type(), event.severity().as_str());
        let about = if name.starts_with("posthaste.delivery") {
            ", posthaste.new_event_id(), 0::smallint"
        } else {
            ""
        };
        let tell = format!("select posthaste.tell('{name}', '{severity}', {p}{about})");
        // These have a number, too.
        if name.starts_with("posthaste.delivery") || name == "posthaste.rotation.overdue" {
            continue;
        }
        world.run(&tell).await;
    }
    let _worker = world.worker(&[]).await;
    partner.wait_for(9).await;
    world.until_all_is_done().await;
    assert_eq!(
        world
            .text("select string_agg(reason, ', ') from posthaste.quarantine")
            .await,
        ""
    );
    let unknown = "insert into posthaste.operational_event (event_type, severity) values ('posthaste.else', 'error')";
    assert_eq!(
        refusal(&world.db, unknown).await.constraint(),
        Some("event_type_is_one_of_ours")
    );
}

#[tokio::test]
async fn an_overdue_rotation_is_told_once_for_each_secret() {
    let world = World::new().await;
    let partner = world.partner().await;
    for name in ["p", "q"] {
        world.subscribe_to(name, &partner, &["a"], None, "").await;
    }
    let age = "update posthaste.signing_secret set created_at = now() - interval '91 days'
        where subscription_id = (select subscription_id from posthaste.subscription where name = 'p')";
    world.run(age).await;
    let told = "(select string_agg(concat_ws(' ', subscription, severity, number), ', ' order by id) from posthaste.operations)";
    let first = world.worker(&[]).await;
    world.until(&format!("{told} = 'p warning 1'")).await;
    // Others look, too; and they look at the same moment.
    let tell = "select count(*) from posthaste.tell_overdue_rotations(10)";
    let [one, other] = [world.session().await, world.session().await];
    world.run("select posthaste.rotate_secret('p')").await;
    first.stop().await.unwrap();
    assert_eq!(world.count(tell).await, 0);
    world.run(age).await;
    one.batch_execute(&format!("begin; {tell}")).await.unwrap();
    let waits =
        tokio::spawn(async move { other.query_one(tell, &[]).await.unwrap().get::<_, i64>(0) });
    world
        .until("exists (select from pg_locks where not granted)")
        .await;
    one.batch_execute("commit").await.unwrap();
    assert_eq!(waits.await.unwrap(), 0);
    assert_eq!(
        world.text(&format!("select {told}")).await,
        "p warning 1, p warning 2"
    );
}

#[tokio::test]
async fn each_is_in_the_log_with_a_stable_code_and_in_the_metrics() {
    let world = World::new().await;
    let partner = Partner::replying(Replies::by(|received| {
        Reply::Status(if received.path == "/strict" { 422 } else { 500 })
    }))
    .await;
    let p = world.subscribe("p", &partner, "").await;
    let strict = world.subscribe("strict", &partner, "").await;
    reject_client_errors(&world, "strict").await;
    let overdue = world.subscribe("late", &partner, "1h").await;
    world
        .run(&format!("update posthaste.signing_secret set created_at = now() - interval '91 days' where subscription_id = {overdue}"))
        .await;
    let worker = world
        .worker_process(&[("log_format", "json"), ("listen", "127.0.0.1:0")])
        .await;
    let event = world
        .publish("a", "{\"confidential\": true}")
        .await
        .to_string();
    world
        .until("(select count(*) from posthaste.operational_event) = 3")
        .await;
    let address = worker.telemetry_address().await;
    let counted = async |expected: &str| {
        while !http::get(address, "/metrics").await.body.contains(expected) {}
    };
    for (event, count) in [
        ("delivery.exhausted", 1),
        ("delivery.rejected", 1),
        ("rotation.overdue", 1),
        ("breaker.opened", 0),
    ] {
        let line =
            format!("posthaste_operational_events_total{{type=\"posthaste.{event}\"}} {count}\n");
        let told = tokio::time::timeout(PATIENCE, counted(&line)).await;
        told.unwrap_or_else(|_| panic!("never told: {line}"));
    }
    worker.terminate();
    let (_, log) = worker.ended_saying().await;
    assert!(!log.contains("confidential"), "{log}");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let line = |code: &str| {
        let found = lines.iter().filter(|line| line["error"]["code"] == code);
        let found: Vec<&Value> = found.collect();
        assert_eq!(found.len(), 1, "{code}\n{log}");
        found[0].clone()
    };
    let exhausted = line("WEBHOOK_DELIVERY_FAILED");
    assert!(
        log.contains(r#""error":{"code":"WEBHOOK_DELIVERY_FAILED","message":"Webhook delivery failed after retries"}"#),
        "{log}"
    );
    assert_eq!(exhausted["level"], "ERROR");
    let mut fields = exhausted["fields"].clone();
    fields.as_object_mut().unwrap().remove("duration_ms");
    let why = fields.as_object_mut().unwrap().remove("why").unwrap();
    assert!(why.as_str().unwrap().contains("500"), "{why}");
    assert_eq!(
        fields,
        json!({ "message": "delivery given up", "event_id": event, "subscription_id": p, "subscription": "p", "replay": 0,
                "attempts": 1, "outcome": "rejected", "status": 500 })
    );
    let rejected = line("WEBHOOK_DELIVERY_REJECTED");
    assert_eq!(
        (&rejected["level"], &rejected["fields"]["subscription_id"]),
        (&json!("WARN"), &json!(strict))
    );
    let late = line("WEBHOOK_SECRET_ROTATION_OVERDUE");
    assert_eq!(
        (&late["level"], &late["fields"]["subscription"]),
        (&json!("WARN"), &json!("late"))
    );
}
