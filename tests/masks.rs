//! What a mask does not allow never leaves, whatever goes wrong; and what stands for it stays the same.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use fastrand::Rng;
use posthaste::envelope::SHIPPED;
use posthaste::trial::partner::{Received, Replies};
use serde_json::Value;
use uuid::Uuid;

use crate::harness::{Partner, World, http, refusal};

#[tokio::test]
async fn what_is_not_allowed_never_arrives_in_any_envelope() {
    let world = World::new().await;
    let partner = world.partner().await;
    let mut rng = Rng::with_seed(20_261_127);
    let mut masks = Vec::new();
    for (place, shipped) in SHIPPED.iter().enumerate() {
        let event_type = format!("trial.e{place}");
        world
            .subscribe_to(shipped.name, &partner, &[&event_type], None, "1h")
            .await;
        let values = match shipped.name {
            "api_versioned" => r#"{"api_version": "1"}"#,
            name if shipped_wants_source(name) => r#"{"source": "/trial"}"#,
            _ => "{}",
        };
        let mask = Masked::any(&mut rng);
        let changes = format!(
            r#"{{"envelope": "{}", "envelope_values": {values}, "mask": {}, "pass_trace": true, "header_prefix": "X-Trial"}}"#,
            shipped.name,
            mask.term()
        );
        world.change(shipped.name, &changes).await;
        masks.push(mask);
    }
    let _workers = [world.worker(&[]).await, world.worker(&[]).await];
    let mut sent = 0;
    for _ in 0..12 {
        for (place, mask) in masks.iter().enumerate() {
            let payload = mask.payload(&mut rng);
            let insert = "insert into posthaste.outbox (event_type, payload, metadata)
                values ($1, $2::text::json, $3::text::json)";
            let metadata = format!(
                r#"{{"request_id": "shown-request", "{MARK}": 1, "by": {{"user": "{MARK}", "shown": "{MARK}"}}}}"#
            );
            let event_type = format!("trial.e{place}");
            let with: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
                &[&event_type, &payload, &metadata];
            world.db.execute(insert, with).await.unwrap();
            sent += 1;
        }
    }
    let received = partner.wait_for(sent).await;
    world.until_all_is_done().await;
    assert_eq!(partner.count(), sent);
    let mut with_shown = 0;
    for request in received {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        assert!(!body.contains(MARK), "{}: {body}", request.path);
        let headers = format!("{:?}", request.headers);
        assert!(!headers.contains(MARK), "{headers}");
        serde_json::from_str::<Value>(&body).unwrap();
        with_shown += usize::from(body.contains("shown-"));
        if request.path == "/identified" {
            assert!(
                body.contains(r#""metadata":{"request_id":"shown-request"}"#),
                "{body}"
            );
        }
    }
    assert!(with_shown > 40, "only {with_shown} show anything");
}

#[tokio::test]
async fn a_pseudonym_is_the_same_wherever_one_partner_meets_it_and_another_for_any_other() {
    let world = World::new().await;
    let [north, south] = [
        Partner::replying(Replies::fail_first(1, 503)).await,
        world.partner().await,
    ];
    for (name, partner, tenant) in [
        ("n1", &north, Some("north")),
        ("n2", &north, Some("north")),
        ("s", &south, None),
    ] {
        world
            .subscribe_to(name, partner, &["*"], tenant, "1ms,1ms,1ms")
            .await;
        let mask = r#"{"mask": {"allow": ["/n"], "fields": {"/mail": "pseudonym"}}}"#;
        world.change(name, mask).await;
    }
    let publish = |n: i32, mail: &'static str| {
        format!(
            r#"insert into posthaste.outbox (event_type, payload, tenant) values ('a.b', '{{"n": {n}, "mail": "{mail}"}}', 'north')"#
        )
    };
    // Each worker makes some of the attempts.
    let first = world.worker(&[]).await;
    world.run(&publish(1, "ada@example.com")).await;
    world.until_all_is_done().await;
    first.stop().await.unwrap();
    let _second = world.worker(&[]).await;
    world.run(&publish(2, "ada@example.com")).await;
    world.run(&publish(3, "bob@example.com")).await;
    world.until_all_is_done().await;
    let of = |partner: &Partner, mine: bool| -> BTreeSet<String> {
        let received = partner.received();
        let data = received.iter().map(|received| data(received));
        data.filter(|data| (data["n"] != 3) == mine)
            .map(|data| data["mail"].as_str().unwrap().to_owned())
            .collect()
    };
    // Three events to two subscriptions, each twice where the first attempt of an id failed.
    assert!(north.count() > 6, "{}", north.count());
    let [ada, bob, abroad] = [of(&north, true), of(&north, false), of(&south, true)];
    assert_eq!((ada.len(), bob.len(), abroad.len()), (1, 1, 1));
    assert!(ada.is_disjoint(&bob) && ada.is_disjoint(&abroad));
    assert!(ada.first().unwrap().starts_with("p_"), "{ada:?}");
}

#[tokio::test]
async fn a_missing_id_holds_a_delivery_until_it_is_mapped_and_released() {
    let world = World::new().await;
    let partner = world.partner().await;
    masked(
        &world,
        &partner,
        r#"{"fields": {"/student/id": {"map": "student"}}}"#,
    )
    .await;
    let _worker = world.worker(&[]).await;
    let event = world.publish("a.b", PAYLOAD).await;
    world
        .until("exists (select from posthaste.quarantine)")
        .await;
    assert_eq!(
        world
            .text("select concat_ws('|', reason, attempts) from posthaste.quarantine")
            .await,
        "the id of kind `student` at `/student/id` has no external id|0"
    );
    let map = "select posthaste.map_id('p', 'student', 'CANARY-7', 'ext-1')";
    world.run(map).await;
    release(&world, event).await;
    assert_eq!(
        data(&partner.wait_for(1).await[0]),
        serde_json::json!({"student": {"id": "ext-1"}})
    );
    world.until_all_is_done().await;
    assert_eq!(world.story(event).await, "1 accepted done");
    // What is known needs no person.
    world.publish("a.b", PAYLOAD).await;
    partner.wait_for(2).await;
}

#[tokio::test]
async fn what_is_released_without_its_id_is_tried_again_and_never_sent_as_it_is() {
    let world = World::new().await;
    let partner = world.partner().await;
    // The one that is mapped comes first, and would be refused for good if it were not.
    let mask = r#"{"fields": {"/ok": {"map": "ok", "missing": "refuse"}, "/student/id": {"map": "student"}}}"#;
    masked(&world, &partner, mask).await;
    world
        .run("select posthaste.map_id('p', 'ok', '1', 'one')")
        .await;
    let _worker = world.worker(&[]).await;
    let event = world
        .publish("a.b", r#"{"ok": 1, "student": {"id": "CANARY-7"}}"#)
        .await;
    world
        .until("exists (select from posthaste.quarantine)")
        .await;
    release(&world, event).await;
    world.until("exists (select from posthaste.attempt)").await;
    assert_eq!(world.story(event).await, "1 blocked retry");
    assert_eq!(
        world.text("select error from posthaste.attempt").await,
        "the id of kind `student` at `/student/id` has no external id"
    );
    assert!(
        world
            .holds("not exists (select from posthaste.quarantine where decision is null)")
            .await
    );
    assert_eq!(partner.count(), 0);
    world
        .run("select posthaste.map_id('p', 'student', 'CANARY-7', 'ext-1')")
        .await;
    world.make_due().await;
    let received = partner.wait_for(1).await;
    assert_eq!(
        data(&received[0]),
        serde_json::json!({"ok": "one", "student": {"id": "ext-1"}})
    );
    world.until_all_is_done().await;
    assert_eq!(world.story(event).await, "1 blocked retry, 2 accepted done");
}

#[tokio::test]
async fn a_pseudonym_for_a_missing_id_is_kept_once_and_for_good() {
    let world = World::new().await;
    let partner = world.partner().await;
    let mask = r#"{"fields": {"/student/id": {"map": "student", "missing": "pseudonym"}}}"#;
    masked(&world, &partner, mask).await;
    // Before anybody works, so that both meet the id at once.
    for _ in 0..20 {
        world.publish("a.b", PAYLOAD).await;
    }
    let small = [("batch", "1"), ("endpoint_concurrency", "1")];
    let _workers = [world.worker(&small).await, world.worker(&small).await];
    let received = partner.wait_for(20).await;
    let bodies: BTreeSet<String> = received
        .iter()
        .map(|received| data(received).to_string())
        .collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let kept = world
        .text("select string_agg(external || ' ' || is_pseudonym, ',') from posthaste.id_map")
        .await;
    assert!(
        kept.starts_with("p_") && kept.ends_with(" true") && !kept.contains(','),
        "{kept}"
    );
    let said = refusal(
        &world.db,
        "select posthaste.map_id('p', 'student', 'CANARY-7', 'ext-1')",
    )
    .await;
    assert!(
        said.message()
            .contains("has another id with this partner already"),
        "{said:?}"
    );
    assert!(
        bodies
            .first()
            .unwrap()
            .contains(kept.trim_end_matches(" true"))
    );
}

#[tokio::test]
async fn an_id_that_cannot_be_read_just_now_is_never_taken_for_one_that_is_missing() {
    let world = World::new().await;
    let partner = world.partner().await;
    let mask = r#"{"fields": {"/student/id": {"map": "student", "missing": "pseudonym"}}}"#;
    masked(&world, &partner, mask).await;
    world
        .run("select posthaste.map_id('p', 'student', 'CANARY-7', 'ext-1')")
        .await;
    world
        .run("revoke select on posthaste.external_id from posthaste_worker")
        .await;
    let _worker = world.worker(&[]).await;
    let event = world.publish("a.b", PAYLOAD).await;
    world.until("exists (select from posthaste.attempt)").await;
    assert_eq!(world.story(event).await, "1 blocked retry");
    assert_eq!(partner.count(), 0);
    world
        .run("grant select on posthaste.external_id to posthaste_worker")
        .await;
    world.make_due().await;
    let received = partner.wait_for(1).await;
    assert_eq!(
        data(&received[0]),
        serde_json::json!({"student": {"id": "ext-1"}})
    );
}

#[tokio::test]
async fn no_worker_waits_for_somebody_who_maps_an_id_and_does_not_commit() {
    let world = World::new().await;
    let partner = world.partner().await;
    let mask = r#"{"fields": {"/student/id": {"map": "student", "missing": "pseudonym"}}}"#;
    masked(&world, &partner, mask).await;
    let person = world.session().await;
    person
        .batch_execute("begin; select posthaste.map_id('p', 'student', 'CANARY-7', 'ext-1')")
        .await
        .unwrap();
    let _worker = world.worker(&[]).await;
    let event = world.publish("a.b", PAYLOAD).await;
    world.until("exists (select from posthaste.attempt)").await;
    assert_eq!(world.story(event).await, "1 blocked retry");
    person.batch_execute("commit").await.unwrap();
    world.make_due().await;
    let received = partner.wait_for(1).await;
    assert_eq!(
        data(&received[0]),
        serde_json::json!({"student": {"id": "ext-1"}})
    );
}

#[tokio::test]
async fn what_a_mask_refuses_is_rejected_for_good_and_says_nothing_of_the_payload() {
    let world = World::new().await;
    let partner = world.partner().await;
    // One that would only be held comes first.
    let mask = r#"{"fields": {"/a": {"map": "a"}, "/student/id": {"map": "student", "missing": "refuse"}}}"#;
    masked(&world, &partner, mask).await;
    world
        .run("select posthaste.map_id('p', 'a', 'x', 'y')")
        .await;
    let worker = world.worker_process(&[("listen", "127.0.0.1:0")]).await;
    let missing = world
        .publish("a.b", r#"{"a": "x", "student": {"id": "CANARY-7"}}"#)
        .await;
    let shapeless = world
        .publish("a.b", r#"{"student": {"id": ["CANARY-7"]}}"#)
        .await;
    let held = world
        .publish("a.b", r#"{"a": "CANARY-8", "student": {}}"#)
        .await;
    world.until("(select count(*) from posthaste.attempt) = 2 and exists (select from posthaste.quarantine)").await;
    for event in [missing, shapeless] {
        assert_eq!(world.story(event).await, "1 blocked rejected");
    }
    assert_eq!(world.story(held).await, "");
    assert_eq!(partner.count(), 0);
    let told = world
        .text(
            "select concat((select string_agg(a::text, '') from posthaste.attempt a), (select string_agg(q::text, '') from posthaste.quarantine q),
                           (select string_agg(o::text, '') from posthaste.operational_event o), (select string_agg(l::text, '') from posthaste.audit_log l
                            where action <> 'id_mapped'))",
        )
        .await;
    assert!(
        told.contains("`/student/id`") && !told.contains("CANARY"),
        "{told}"
    );
    let metrics = http::get(worker.telemetry_address().await, "/metrics").await;
    let metrics = format!("{metrics:?}");
    assert!(
        metrics.contains("posthaste_") && !metrics.contains("CANARY"),
        "{metrics}"
    );
    worker.terminate();
    let (_, log) = worker.ended_saying().await;
    assert!(log.contains("stopped") && !log.contains("CANARY"), "{log}");
}

#[tokio::test]
async fn without_a_mask_that_compiles_or_a_key_that_opens_nothing_is_sent() {
    let world = World::new().await;
    let partner = world.partner().await;
    masked(&world, &partner, r#"{"fields": {"/student": "pseudonym"}}"#).await;
    // Sealed under keys of a test of its own.
    world
        .run("insert into posthaste.partner_key (partner, key_id, ciphertext) values ('p', 'k9', '\\x00') on conflict (partner) do update set key_id = 'k9', ciphertext = '\\x00'")
        .await;
    let _worker = world.worker(&[]).await;
    let event = world.publish("a.b", PAYLOAD).await;
    world.until("exists (select from posthaste.attempt)").await;
    assert_eq!(world.story(event).await, "1 blocked retry");
    let error = world.text("select error from posthaste.attempt").await;
    assert!(error.contains("k9") && !error.contains("CANARY"), "{error}");
    // Nobody can propose this: it stands for a mask that a later version knows and this one does not.
    world.run(r#"alter table posthaste.subscription disable trigger user; update posthaste.subscription set mask = '{"deny": []}', revision = revision; alter table posthaste.subscription enable trigger user"#).await;
    world.run("delete from posthaste.partner_key").await;
    world
        .run("update posthaste.subscription set description = 'other'")
        .await;
    world.make_due().await;
    world
        .until("(select count(*) from posthaste.attempt) = 2")
        .await;
    assert_eq!(world.story(event).await, "1 blocked retry, 2 blocked retry");
    assert_eq!(partner.count(), 0);
}

#[tokio::test]
async fn a_test_event_is_masked_too() {
    let world = World::new().await;
    let partner = world.partner().await;
    masked(
        &world,
        &partner,
        r#"{"allow": ["/shown"], "fields": {"/id": {"map": "x"}}}"#,
    )
    .await;
    world
        .run(r#"select posthaste.create_event_type('t.a', 'x', example => '{"shown": 1, "hidden": "CANARY"}');
                select posthaste.create_event_type('t.b', 'x', example => '{"id": "CANARY"}')"#)
        .await;
    let _worker = world.worker(&[]).await;
    world
        .run("select posthaste.send_test('p', 't.a', 'x')")
        .await;
    let received = partner.wait_for(1).await;
    let body = String::from_utf8_lossy(&received[0].body).into_owned();
    assert!(
        body.ends_with(r#""test":true,"data":{"shown":1}}"#),
        "{body}"
    );
    world
        .run("select posthaste.send_test('p', 't.b', 'x')")
        .await;
    world
        .until("exists (select from posthaste.attempt where outcome = 'blocked')")
        .await;
    assert!(
        world
            .holds("not exists (select from posthaste.quarantine)")
            .await
    );
    assert_eq!(partner.count(), 1);
}

#[tokio::test]
async fn a_retry_is_the_first_attempt_byte_for_byte_although_ids_were_mapped_meanwhile() {
    let world = World::new().await;
    let partner = Partner::replying(Replies::fail_first(1, 503)).await;
    let mask = r#"{"allow": ["/n"], "fields": {"/student/id": {"map": "student", "missing": "pseudonym"}, "/mail": "pseudonym"}}"#;
    masked(&world, &partner, mask).await;
    let worker = world.worker(&[]).await;
    world
        .publish(
            "a.b",
            r#"{"n": 1.0, "student": {"id": "CANARY-7"}, "mail": [1, 2]}"#,
        )
        .await;
    partner.wait_for(1).await;
    worker.stop().await.unwrap();
    let map = "select posthaste.map_id('p', 'student', 'CANARY-7', 'ext-1')";
    refusal(&world.db, map).await;
    world
        .run("select posthaste.map_id('p', 'student', 'CANARY-8', 'ext-2')")
        .await;
    let _worker = world.worker(&[]).await;
    world.make_due().await;
    let received = partner.wait_for(2).await;
    assert_eq!(received[0].body, received[1].body);
    assert_eq!(received[1].headers["webhook-attempt"], "2");
}

#[tokio::test]
async fn a_long_payload_is_masked_like_a_short_one() {
    let world = World::new().await;
    let partner = world.partner().await;
    let mask =
        r#"{"allow": ["/kept"], "fields": {"/ids/*": {"map": "x", "missing": "pseudonym"}}}"#;
    masked(&world, &partner, mask).await;
    let _worker = world.worker(&[]).await;
    let mut ids = String::new();
    for n in 0..500 {
        let _ = write!(ids, "{}\"CANARY-{n}\"", if n > 0 { "," } else { "" });
    }
    let kept = "k".repeat(40_000);
    world
        .publish(
            "a.b",
            &format!(r#"{{"kept": "{kept}", "ids": [{ids}], "gone": "{MARK}"}}"#),
        )
        .await;
    let received = partner.wait_for(1).await;
    let data = data(&received[0]);
    assert_eq!(data["kept"], kept.as_str());
    assert_eq!(data["ids"].as_array().unwrap().len(), 500);
    let body = String::from_utf8_lossy(&received[0].body).into_owned();
    assert!(!body.contains("CANARY") && !body.contains(MARK));
    assert_eq!(
        world.count("select count(*) from posthaste.id_map").await,
        500
    );
}

/// Subscribes `p` to everything, under a mask.
async fn masked(world: &World, partner: &Partner, mask: &str) {
    world.subscribe("p", partner, "1h,1h,1h").await;
    world.change("p", &format!(r#"{{"mask": {mask}}}"#)).await;
}

async fn release(world: &World, event: Uuid) {
    world
        .run(&format!("select posthaste.release('{event}', 'a trial')"))
        .await;
}

fn data(received: &Received) -> Value {
    let body: Value = serde_json::from_slice(&received.body).unwrap();
    body["data"].clone()
}

fn shipped_wants_source(name: &str) -> bool {
    name == "unix_sourced" || name.starts_with("cloudevents")
}

/// A mask and the paths that it names, for payloads that hold what it allows and much that it does not.
struct Masked {
    allowed: Vec<Vec<String>>,
    hidden: Vec<(Vec<String>, &'static str)>,
}

impl Masked {
    fn any(rng: &mut Rng) -> Self {
        let mut paths: Vec<Vec<String>> = Vec::new();
        // None lies below another, so that each counts.
        while paths.len() < 8 {
            let path: Vec<String> = (0..rng.usize(1..4))
                .map(|_| NAMES[rng.usize(..NAMES.len())].to_owned())
                .collect();
            if !paths
                .iter()
                .any(|known| known.starts_with(&path) || path.starts_with(known))
            {
                paths.push(path);
            }
        }
        let hidden = paths.split_off(5);
        let ways = ["\"drop\"", "\"pseudonym\"", r#"{"replace": "gone"}"#];
        Self {
            allowed: paths,
            hidden: hidden
                .into_iter()
                .map(|path| (path, ways[rng.usize(..ways.len())]))
                .collect(),
        }
    }

    fn term(&self) -> String {
        let pointer = |path: &Vec<String>| {
            let escaped = path
                .iter()
                .map(|name| name.replace('~', "~0").replace('/', "~1"));
            escaped.fold(String::new(), |all, name| all + "/" + &name)
        };
        let allow: Vec<_> = self.allowed.iter().map(pointer).collect();
        let fields: Vec<_> = self
            .hidden
            .iter()
            .map(|(path, way)| format!("{}: {way}", Value::from(pointer(path))))
            .collect();
        let rest = ["\"drop\"", "\"pseudonym\""][self.allowed.len() % 2];
        format!(
            r#"{{"allow": {}, "rest": {rest}, "fields": {{{}}}, "metadata": ["/request_id"]}}"#,
            Value::from(allow),
            fields.join(", ")
        )
    }

    /// What is allowed holds `shown-`; everything else, names among it, holds the mark.
    fn payload(&self, rng: &mut Rng) -> String {
        let mut root = Value::Object(serde_json::Map::new());
        for path in &self.allowed {
            if rng.u8(..4) > 0 {
                put(
                    &mut root,
                    path,
                    Value::from(format!("shown-{}", rng.u32(..))),
                );
            }
        }
        for (path, _) in &self.hidden {
            if rng.bool() {
                put(&mut root, path, secret(rng, 0));
            }
        }
        clutter(&mut root, rng, 0);
        root.to_string()
    }
}

fn put(root: &mut Value, path: &[String], value: Value) {
    let place = path.iter().fold(root, |place, name| {
        if !place.is_object() {
            *place = Value::Object(serde_json::Map::new());
        }
        place
            .as_object_mut()
            .unwrap()
            .entry(name.clone())
            .or_insert(Value::Null)
    });
    *place = value;
}

/// Adds what nobody allowed, at every depth.
fn clutter(place: &mut Value, rng: &mut Rng, depth: usize) {
    if let Some(members) = place.as_object_mut() {
        for member in members.values_mut() {
            clutter(member, rng, depth + 1);
        }
        for n in 0..rng.usize(1..4) {
            members.insert(format!("{MARK}-{n}"), secret(rng, depth));
        }
    }
}

fn secret(rng: &mut Rng, depth: usize) -> Value {
    match rng.u8(..4) {
        0 if depth < 4 => Value::from(vec![secret(rng, depth + 1), Value::from(MARK)]),
        1 if depth < 4 => {
            serde_json::json!({MARK: secret(rng, depth + 1), "a": MARK, "b": {"a": MARK}})
        }
        _ => Value::from(format!("{MARK} {}", rng.u64(..))),
    }
}

const MARK: &str = "SECRET-MARK";
const NAMES: [&str; 6] = ["a", "b", "c/d", "e~f", "", "é"];
const PAYLOAD: &str = r#"{"student": {"id": "CANARY-7"}}"#;
