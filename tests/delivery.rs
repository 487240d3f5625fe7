//! A committed event reaches every subscription that matches, signed and byte for byte; one that was rolled back reaches none.

use posthaste::trial::partner::{Received, Replies};

use crate::harness::{Partner, World};

#[tokio::test]
async fn a_committed_event_reaches_its_partner_signed_in_the_standard_envelope() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("harbour", &partner, "5s").await;
    let _worker = world.worker(&[]).await;
    let id = world
        .text(
            r#"insert into posthaste.outbox (event_type, payload, occurred_at)
               values ('certificate.issued', '{"student": 7}', '2026-02-03 04:05:06.789012+00') returning event_id::text"#,
        )
        .await;
    let received = &partner.wait_for(1).await[0];
    assert_eq!((&received.id, received.verified), (&id, Some(Ok(()))));
    assert_eq!(received.headers["content-type"], "application/json");
    assert_eq!(
        text_of(received),
        r#"{"type":"certificate.issued","timestamp":"2026-02-03T04:05:06.789012Z","data":{"student": 7}}"#
    );
    world.until_all_is_done().await;
    assert_eq!(world.story(id.parse().unwrap()).await, "1 accepted done");
}

#[tokio::test]
async fn an_event_goes_to_each_subscription_of_its_type_and_of_all_types_and_to_no_other() {
    let world = World::new().await;
    let partner = world.partner().await;
    world
        .subscribe_to(
            "exact",
            &partner,
            &["course.begun", "course.ended"],
            None,
            "5s",
        )
        .await;
    world
        .subscribe_to("all", &partner, &["*"], None, "5s")
        .await;
    world
        .subscribe_to(
            "other",
            &partner,
            &["course", "COURSE.ENDED", "course.ended.early"],
            None,
            "5s",
        )
        .await;
    let _worker = world.worker(&[]).await;
    world.publish("course.ended", "1").await;
    world.until_all_is_done().await;
    assert_eq!(paths(&partner), ["/all", "/exact"]);
}

#[tokio::test]
async fn a_subscription_of_one_tenant_gets_only_its_events() {
    let world = World::new().await;
    let partner = world.partner().await;
    world
        .subscribe_to("north", &partner, &["*"], Some("north"), "5s")
        .await;
    world
        .subscribe_to("any", &partner, &["*"], None, "5s")
        .await;
    let _worker = world.worker(&[]).await;
    world
        .run(
            "insert into posthaste.outbox (event_type, payload, tenant)
             values ('a', '\"n\"', 'north'), ('a', '\"s\"', 'south'), ('a', '\"-\"', null)",
        )
        .await;
    world.until_all_is_done().await;
    assert_eq!(paths(&partner), ["/any", "/any", "/any", "/north"]);
    let received = partner.received();
    let north = received
        .iter()
        .find(|received| received.path == "/north")
        .unwrap();
    assert!(text_of(north).ends_with(r#""data":"n"}"#));
}

#[tokio::test]
async fn what_was_rolled_back_is_never_seen() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "5s").await;
    let _worker = world.worker(&[]).await;
    world
        .run(
            "begin; select posthaste.publish('a', '\"rolled back\"'); rollback;
             begin; select posthaste.publish('a', '\"before\"');
             savepoint s; select posthaste.publish('a', '\"undone\"'); rollback to s;
             savepoint t; select posthaste.publish('a', '\"released\"'); release t;
             select posthaste.publish('a', '\"after\"'); commit",
        )
        .await;
    world.until_all_is_done().await;
    assert_eq!(data(&partner), ["\"after\"", "\"before\"", "\"released\""]);
    assert_eq!(
        world.count("select count(*) from posthaste.outbox").await,
        3
    );
}

#[tokio::test]
async fn a_retry_repeats_the_first_attempt_byte_for_byte() {
    // Each of these is changed, or refused, by whatever parses and prints it again.
    let odd = r#"{ "a" : 1.10, "a":1e400,  "n":123456789012345678901234567890, "z":"\u0000\ud800\/é",
	"e":[ ],"nul":null , "b": -0.0 } "#;
    let world = World::new().await;
    let partner = Partner::replying(Replies::fail_first(2, 500)).await;
    world.subscribe("p", &partner, "1h,1h").await;
    let _worker = world.worker(&[]).await;
    let id = world.publish("a", odd).await;
    for attempts in 1..=2 {
        world
            .until(&format!(
                "exists (select from posthaste.queue where attempts = {attempts})"
            ))
            .await;
        world.make_due().await;
    }
    let received = partner.wait_for(3).await;
    for one in &received {
        assert_eq!((&one.id, one.verified), (&id.to_string(), Some(Ok(()))));
        assert_eq!(one.body, received[0].body);
    }
    assert!(
        text_of(&received[0]).ends_with(&format!(r#","data":{odd}}}"#)),
        "{}",
        text_of(&received[0])
    );
    world.until_all_is_done().await;
    assert_eq!(
        world.story(id).await,
        "1 rejected retry, 2 rejected retry, 3 accepted done"
    );
}

#[tokio::test]
async fn an_event_that_nobody_subscribes_to_is_kept_and_owed_to_nobody() {
    let world = World::new().await;
    let partner = world.partner().await;
    world
        .subscribe_to("p", &partner, &["wanted"], None, "5s")
        .await;
    let _worker = world.worker(&[]).await;
    world.publish("unwanted", "1").await;
    world.until_all_is_done().await;
    assert_eq!(
        world.count("select count(*) from posthaste.outbox").await,
        1
    );
    assert_eq!(
        world.count("select count(*) from posthaste.attempt").await,
        0
    );
    assert_eq!(partner.count(), 0);
}

#[tokio::test]
async fn publish_and_insert_do_the_same() {
    let world = World::new().await;
    let partner = world.partner().await;
    world
        .subscribe_to("p", &partner, &["*"], Some("t"), "5s")
        .await;
    world
        .run(
            r#"create table columns (event_type text, payload json, occurred_at timestamptz, tenant text, metadata json, traceparent text);
               insert into columns values ('a.b', '{"x" : 1.0}', '2026-01-02T03:04:05Z', 't', '{"by": "me"}',
                   '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
               insert into posthaste.outbox (event_type, payload, occurred_at, tenant, metadata, traceparent) select * from columns;
               select posthaste.publish(event_type, payload, occurred_at, tenant, metadata, traceparent) from columns"#,
        )
        .await;
    let _worker = world.worker(&[]).await;
    let received = partner.wait_for(2).await;
    assert_eq!(received[0].body, received[1].body);
    let different = "select count(distinct (event_type, payload::text, occurred_at, tenant, metadata::text, traceparent)) from posthaste.outbox";
    assert_eq!(world.count(different).await, 1);
}

#[tokio::test]
async fn a_prepared_transaction_is_delivered_once_it_commits() {
    let world = World::new().await;
    if world.text("show max_prepared_transactions").await == "0" {
        return eprintln!("not shown: this server allows no prepared transactions");
    }
    let partner = world.partner().await;
    world.subscribe("p", &partner, "5s").await;
    // A worker that sleeps by listening would make the insert notify, which a prepared transaction may not.
    let _worker = world
        .worker(&[("wake", "poll"), ("poll_interval", "20ms")])
        .await;
    // Let it run dry first, and look in vain for a while.
    let later = world
        .text("select (clock_timestamp() + interval '200 ms')::text")
        .await;
    world
        .until(&format!(
            "exists (select from pg_stat_activity where datname = current_database()
             and application_name = 'posthaste' and query_start > timestamptz '{later}')"
        ))
        .await;
    let name = world.text("select current_database()::text").await;
    world
        .run(&format!(
            "begin; select posthaste.publish('a', '\"late\"'); prepare transaction '{name}'"
        ))
        .await;
    world.publish("a", "\"early\"").await;
    world.until_all_is_done().await;
    assert_eq!(data(&partner), ["\"early\""]);
    world.run(&format!("commit prepared '{name}'")).await;
    partner.wait_for(2).await;
    assert_eq!(data(&partner), ["\"early\"", "\"late\""]);
}

#[tokio::test]
async fn a_thousand_events_of_one_statement_arrive_once_each() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "5s").await;
    let _worker = world.worker(&[]).await;
    world.publish_many("a", 1000).await;
    world.until_all_is_done().await;
    let mut ids = partner.ids();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), partner.counts().verified), (1000, 1000));
}

#[tokio::test]
async fn an_event_committed_long_after_later_ones_is_delivered() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "5s").await;
    let _worker = world.worker(&[]).await;
    let slow = world.session().await;
    slow.batch_execute("begin; select posthaste.publish('a', '\"slow\"')")
        .await
        .unwrap();
    for _ in 0..20 {
        world.publish("a", "\"quick\"").await;
    }
    partner.wait_for(20).await;
    world.until_all_is_done().await;
    slow.batch_execute("commit").await.unwrap();
    partner.wait_for(21).await;
    assert_eq!(data(&partner).last().unwrap(), "\"slow\"");
}

#[tokio::test]
async fn a_worker_that_sleeps_is_woken_by_a_commit() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "5s").await;
    let _worker = world.worker(&[("poll_interval", "1m")]).await;
    // The doze lock says that it sleeps.
    world.until("exists (select from pg_locks where locktype = 'advisory' and classid = 1347375956 and database = (select oid from pg_database where datname = current_database()))").await;
    world.publish("a", "1").await;
    partner.wait_for(1).await;
    let waited = "select extract(epoch from started_at - posthaste.event_time(event_id))::bigint from posthaste.attempt";
    world.until_all_is_done().await;
    assert!(world.count(waited).await < 30);
}

fn text_of(received: &Received) -> &str {
    std::str::from_utf8(&received.body).unwrap()
}

fn paths(partner: &Partner) -> Vec<String> {
    let mut paths: Vec<String> = partner
        .received()
        .iter()
        .map(|received| received.path.clone())
        .collect();
    paths.sort_unstable();
    paths
}

/// What came after `"data":`, sorted.
fn data(partner: &Partner) -> Vec<String> {
    let of = |received: &Received| {
        let (_, data) = text_of(received).split_once(r#""data":"#).unwrap();
        data.strip_suffix('}').unwrap().to_owned()
    };
    let mut data: Vec<String> = partner
        .received()
        .iter()
        .map(|received| of(received))
        .collect();
    data.sort_unstable();
    data
}
