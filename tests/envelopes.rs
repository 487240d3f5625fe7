//! The envelopes that come with the program arrive as their golden files say, and a platform's own are made by two, and never change.

use std::collections::BTreeMap;

use posthaste::envelope::{Envelope, SHIPPED, values_of};
use posthaste::secret::SigningSecret;
use posthaste::trial::partner::{Received, Replies};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::harness::{Partner, World, posthaste, refusal, tried};

#[tokio::test]
async fn the_envelopes_in_the_database_are_those_that_the_program_knows() {
    let world = World::new().await;
    let rows = world
        .db
        .query("select name, version, template, content_type, headers::text, description from posthaste.envelope order by name", &[])
        .await
        .unwrap();
    let mut shipped: Vec<_> = SHIPPED.iter().collect();
    shipped.sort_by_key(|shipped| shipped.name);
    assert_eq!(rows.len(), shipped.len());
    for (row, shipped) in rows.iter().zip(shipped) {
        let headers: BTreeMap<String, String> = serde_json::from_str(row.get(4)).unwrap();
        let known = shipped
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        assert_eq!(headers, known.collect());
        assert_eq!(row.get::<_, &str>(0), shipped.name);
        assert_eq!(row.get::<_, i32>(1), i32::from(shipped.version));
        let texts = [2, 3, 5].map(|column| row.get::<_, &str>(column));
        assert_eq!(
            texts,
            [shipped.template, shipped.content_type, shipped.description]
        );
    }
}

#[tokio::test]
async fn each_shipped_envelope_arrives_as_its_golden_file_says() {
    let world = World::new().await;
    let partner = world.partner().await;
    for shipped in SHIPPED {
        world.subscribe(shipped.name, &partner, "1h").await;
        // The default needs no change.
        if shipped.name == "standard" {
            continue;
        }
        let wanted = values_of(shipped.template, shipped.headers).unwrap();
        let values: BTreeMap<_, _> = wanted
            .into_iter()
            .map(|name| match name.as_str() {
                "source" => (name, "https://platform.example/events?of=tests"),
                _ => (name, "2026-01-01"),
            })
            .collect();
        let changes = serde_json::json!({"envelope": shipped.name, "envelope_values": values});
        world.change(shipped.name, &changes.to_string()).await;
    }
    let insert = "insert into posthaste.outbox (event_id, event_type, occurred_at, payload, metadata, tenant)
        values ('0199e8a4-7c00-7000-8000-0123456789ab', 'certificate.issued', '2025-10-09T08:53:20.123456Z', $1::text::json, $2::text::json, $3)";
    let metadata = r#"{"request_id" : "r-1","n":1.50}"#;
    let tenant = r#"Universidad "Córdoba" €\100 %"#;
    let with: &[&(dyn ToSql + Sync)] = &[&DATA, &metadata, &tenant];
    world.db.execute(insert, with).await.unwrap();
    let _worker = world.worker(&[]).await;
    for received in partner.wait_for(SHIPPED.len() as u64).await {
        let name = received.path.trim_start_matches('/');
        let golden = format!(
            "{}/tests/golden/envelopes/{name}.v1.full.http",
            env!("CARGO_MANIFEST_DIR")
        );
        let golden = std::fs::read(golden).unwrap();
        let golden = String::from_utf8(golden).unwrap();
        let (head, body) = golden.split_once("\n\n").unwrap();
        assert_eq!(std::str::from_utf8(&received.body).unwrap(), body, "{name}");
        for line in head.lines() {
            let (header, value) = line.split_once(": ").unwrap();
            assert_eq!(received.headers[header], value, "{name}");
        }
        let told = received
            .headers
            .keys()
            .filter(|header| header.as_str().starts_with("ce-"))
            .count();
        assert_eq!(told, head.matches("\nce-").count(), "{name}");
    }
}

/// The database knows less of the language than the program: what it refuses is refused by both, and what is sound is sound for both.
/// What it lets pass and the program does not, `posthaste envelope propose` and `subscription approve` catch.
#[tokio::test]
async fn what_the_program_takes_the_database_takes() {
    let world = World::new().await;
    let no_values = BTreeMap::new();
    for (template, is_good) in [
        (r#"{"a":"{{data}}"}"#, true),
        (
            r#"["{{event_id}}","{{delivery_id}}","{{occurred_at_unix_ms}}","{{subscription}}"]"#,
            true,
        ),
        (r#"{"a":"/t/{{tenant}}","b":"{{metadata?}}"}"#, true),
        (" \"{{data}}\"\n", true),
        ("", false),
        (r#"{"a":}"#, false),
        (r#"{"a":"{{unknown}}"}"#, false),
        (r#"{"a":"{{ type }}"}"#, false),
        (r#"{"a":"{{type"}"#, false),
        (r#"{"a":"{{values.no-such name}}"}"#, false),
    ] {
        let statement = format!(
            "select posthaste.propose_envelope('t', '{}')",
            template.replace('\'', "''")
        );
        let met = &tried(&world.db, &[statement], false).await[0];
        let parsed = Envelope::parse(template, "application/json", &[], &no_values);
        assert_eq!(parsed.is_ok(), is_good, "{template}: {parsed:?}");
        assert_eq!(met.0 == "PH000", is_good, "{template}: {met:?}");
    }
}

#[tokio::test]
async fn a_platforms_own_envelope_is_proposed_approved_used_and_never_changed() {
    let world = World::new().await;
    let [ada, bea] = world.two_administrators().await;
    let partner = world.partner().await;
    let environments = [&ada.url, &bea.url].map(|url| [("DATABASE_URL", url.as_str())]);
    let arguments = [
        "envelope",
        "propose",
        "platform",
        "--template",
        "-",
        "--header",
        "X-Kind={{type}}",
        "--reason",
        "ours",
    ];
    let said = posthaste(
        &arguments,
        &environments[0],
        "{\"v\":1,\"d\":\"{{data}}\"}\n",
    )
    .await;
    assert!(
        said.done().contains("x-kind: certificate.issued\n\n{\"v\":1,\"d\":{\"certificate\": 42}}\n\nchange 1 is proposed\nanother administrator: "),
        "{said:?}"
    );
    let bad = posthaste(&arguments, &environments[0], r#"{"{{type}}":1}"#).await;
    bad.denied_with("placeholders are for values");
    let changes = posthaste(&["subscription", "changes"], &environments[1], "").await;
    assert!(
        changes
            .done()
            .contains(r#"template: "{\"v\":1,\"d\":\"{{data}}\"}""#),
        "{changes:?}"
    );
    let approved = posthaste(&["subscription", "approve", "1"], &environments[1], "").await;
    assert_eq!(
        approved.done(),
        "change 1 is approved: envelope platform\nto use it: posthaste subscription change NAME --set '{\"envelope\": \"platform@1\"}'\n"
    );
    world.subscribe("p", &partner, "1h").await;
    world.change("p", r#"{"envelope": "platform"}"#).await;
    let _worker = world.worker(&[]).await;
    world.publish("a.b", "1").await;
    let received = partner.wait_for(1).await;
    assert_eq!(
        (&*received[0].body, &received[0].headers["x-kind"]),
        (&b"{\"v\":1,\"d\":1}"[..], &"a.b".parse().unwrap())
    );
    // A new version, and whoever has the old one keeps it.
    world
        .agree(r#"propose_envelope('platform', '{"v":2,"d":"{{data}}"}')"#)
        .await;
    world.publish("a.b", "2").await;
    assert_eq!(&*partner.wait_for(2).await[1].body, b"{\"v\":1,\"d\":2}");
    world.change("p", r#"{"envelope": "platform"}"#).await;
    world
        .until("not exists (select from posthaste.lease)")
        .await;
    world.publish("a.b", "3").await;
    assert_eq!(&*partner.wait_for(3).await[2].body, b"{\"v\":2,\"d\":3}");
    let list = posthaste(&["envelope", "list"], &environments[0], "").await;
    assert!(
        list.done().contains("platform@2") && list.done().contains("standard@1"),
        "{list:?}"
    );
    let show = posthaste(&["envelope", "show", "platform@1"], &environments[0], "").await;
    assert!(
        show.done()
            .ends_with("{\"v\":1,\"d\":{\"certificate\": 42}}\n"),
        "{show:?}"
    );
    for change in [
        "update posthaste.envelope set template = '1'",
        "delete from posthaste.envelope",
        "truncate posthaste.envelope",
    ] {
        refusal(
            &world.db,
            &format!("set local role posthaste_owner; {change}"),
        )
        .await;
        refusal(&world.db, change).await;
    }
}

#[tokio::test]
async fn what_the_database_let_pass_and_does_not_compile_is_not_approved_by_the_command() {
    let world = World::new().await;
    let [ada, bea] = world.two_administrators().await;
    let change: i64 = ada
        .one(r#"select posthaste.propose_envelope('odd', '{"a":"x{{data}}"}')"#)
        .await;
    let said = posthaste(
        &["subscription", "approve", &change.to_string()],
        &[("DATABASE_URL", &bea.url)],
        "",
    )
    .await;
    said.denied_with("must be the whole of its string");
}

#[tokio::test]
async fn a_platforms_own_headers_are_as_agreed() {
    let world = World::new().await;
    let partner = Partner::replying(Replies::fail_first(1, 503)).await;
    let id = world
        .subscribe_url("p", &partner.url("/p"), &["*"], None, "1h,1h")
        .await;
    world
        .add_secret(id, &SigningSecret::parse(SECRET).unwrap())
        .await;
    world.change("p", PROFILE).await;
    let insert = r#"insert into posthaste.outbox (event_type, payload, traceparent) values ('a.b', '{"n" : 1}', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01') returning event_id"#;
    let event: Uuid = world.db.query_one(insert, &[]).await.unwrap().get(0);
    let _worker = world.worker(&[]).await;
    partner.wait_for(1).await;
    world.until("exists (select from posthaste.queue)").await;
    world.make_due().await;
    partner.wait_for(2).await;
    world.until_all_is_done().await;
    world.change("p", r#"{"pass_trace": true}"#).await;
    world
        .run(&format!(
            "select posthaste.replay_delivery('{event}', 'p', 'x')"
        ))
        .await;
    let received = partner.wait_for(3).await;
    let header = |received: &Received, name: &str| {
        received
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    for (received, replay) in received.iter().zip([0, 0, 1]) {
        assert_eq!(header(received, "x-platform-event").as_deref(), Some("a.b"));
        assert_eq!(
            header(received, "user-agent").as_deref(),
            Some("Platform-Webhooks/1.0")
        );
        assert_eq!(header(received, "x-environment").as_deref(), Some("trial"));
        assert_eq!(
            header(received, "x-platform-timestamp").as_deref(),
            Some(received.timestamp.as_str())
        );
        let delivery = world
            .text(&format!(
                "select posthaste.delivery_id('{event}', {id}, {replay}::smallint)::text"
            ))
            .await;
        assert_eq!(header(received, "x-platform-delivery"), Some(delivery));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
        let tag = ring::hmac::sign(&key, &received.body);
        let hex = tag
            .as_ref()
            .iter()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(
            header(received, "x-platform-signature"),
            Some(format!("sha256={hex}"))
        );
        assert_eq!(header(received, "traceparent").is_some(), replay == 1);
        assert!(
            header(received, "webhook-signature")
                .unwrap()
                .starts_with("v1,")
        );
    }
}

#[tokio::test]
async fn metadata_that_no_request_has_a_place_for_counts_against_nothing() {
    let world = World::new().await;
    let [plain, told] = [world.partner().await, world.partner().await];
    world.subscribe("p", &plain, "1h").await;
    world.subscribe("t", &told, "1h").await;
    world.change("t", r#"{"envelope": "identified"}"#).await;
    let _worker = world.worker(&[("max_body", "2KiB")]).await;
    let insert = "insert into posthaste.outbox (event_type, payload, metadata)
        values ('a.b', '1', json_build_object('long', repeat('x', $1))) returning event_id";
    for (length, told_after) in [(1000, 1), (3000, 1)] {
        world.db.execute(insert, &[&length]).await.unwrap();
        world.until_all_is_done().await;
        assert_eq!(told.count(), told_after);
    }
    assert_eq!(plain.count(), 2);
    let errors = "select string_agg(error, ';') from posthaste.attempt where error is not null";
    assert!(world.text(errors).await.ends_with("is over max_body"));
    // The same of what waited.
    world.change("p", r#"{"active": false}"#).await;
    world.db.execute(insert, &[&3000]).await.unwrap();
    world.until("exists (select from posthaste.queue)").await;
    world.change("p", r#"{"active": true}"#).await;
    plain.wait_for(3).await;
}

/// The SQL of the pages about envelopes and masks runs as written, one piece after the other.
#[tokio::test]
async fn the_sql_of_the_pages_for_administrators_runs_as_written() {
    let world = World::new().await;
    let [ada, bea] = world.two_administrators().await;
    let partner = world.partner().await;
    let page = |name: &str| {
        std::fs::read_to_string(format!("{}/docs/{name}.md", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let (masks, envelopes) = (page("masks"), page("envelopes"));
    let piece = |page: &str, name: &str| {
        let (_, rest) = page.split_once(&format!("```sql {name}\n")).unwrap();
        rest.split("```")
            .next()
            .unwrap()
            .trim()
            .trim_end_matches(';')
            .to_owned()
    };
    world.subscribe("university", &partner, "1h").await;
    for (page, name) in [
        (&envelopes, "envelopes:use"),
        (&envelopes, "envelopes:propose"),
        (&masks, "masks:propose"),
    ] {
        let change: i64 = ada.one(&piece(page, name)).await;
        bea.run(&format!("select posthaste.approve({change})"))
            .await;
    }
    let _worker = world.worker(&[]).await;
    let event = world
        .publish("a.b", r#"{"certificate": 1, "student": {"id": 4711, "name": "Ada", "email": "a@b.example", "age": 30}}"#)
        .await;
    world
        .until("exists (select from posthaste.quarantine)")
        .await;
    let held = ada
        .db
        .query_one(&piece(&masks, "masks:held"), &[])
        .await
        .unwrap();
    assert_eq!(held.get::<_, Uuid>(0), event);
    assert_eq!(
        held.get::<_, &str>(1),
        "the id of kind `student` at `/student/id` has no external id"
    );
    ada.run(&piece(&masks, "masks:map")).await;
    ada.run(&piece(&masks, "masks:release").replace(":event_id", &format!("'{event}'")))
        .await;
    let received = partner.wait_for(1).await;
    let body: serde_json::Value = serde_json::from_slice(&received[0].body).unwrap();
    assert_eq!(
        (&body["source"], &body["data"]["student"]["id"]),
        (&"registry".into(), &"S-2027-0815".into())
    );
    assert!(
        body["data"]["student"]["email"]
            .as_str()
            .unwrap()
            .starts_with("p_"),
        "{body}"
    );
    assert!(body["data"]["student"]["age"].is_null(), "{body}");
    // The example of a mask is one.
    let (_, example) = masks.split_once("```json\n").unwrap();
    posthaste::mask::Mask::parse(example.split("```").next().unwrap()).unwrap();
    // Every envelope that comes with the program is named.
    for shipped in SHIPPED {
        assert!(
            envelopes.contains(&format!("`{}`", shipped.name)),
            "{}",
            shipped.name
        );
    }
}

const PROFILE: &str = r#"{"header_prefix": "X-Platform", "user_agent": "Platform-Webhooks/1.0", "signatures": ["prefixed", "standard_v1"], "headers": {"X-Environment": "trial"}}"#;
const SECRET: &str = "whsec_cG9zdGhhc3RlIGZpeHR1cmVzOiBmaXJzdCBzZWNyZXQ=";
const DATA: &str = "{\"b\" : 1.0, \"a\":\t[1e400, 12345678901234567890, -0.0, \"\\u0000\\/\\\"é\u{2028}😀\"],\n \"b\":2, \"\": {} }";
