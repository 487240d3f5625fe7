//! What a preview prints is byte for byte what a worker then sends, and nothing is sent by it.

use posthaste::trial::partner::{Received, Reply};
use uuid::Uuid;

use crate::harness::{Partner, Said, World, posthaste};

#[tokio::test]
async fn a_preview_is_byte_for_byte_what_a_worker_then_sends() {
    let world = World::new().await;
    let [ada, _] = world.two_administrators().await;
    let partner = Partner::replying_over_http1(Reply::Status(200)).await;
    let id = world.subscribe("p", &partner, "1h,1h").await;
    world.change("p", TERMS).await;
    world.set_credential("p", id, "X-Grant", "CANARY").await;
    world
        .run("select posthaste.map_id('p', 'student', '7', 'ext-7')")
        .await;
    let _worker = world.worker(&[]).await;
    let event = published(&world).await;
    let received = partner.wait_for(1).await;
    world.until_all_is_done().await;
    let desk = Desk {
        url: &ada.url,
        keys: world.keys(),
    };
    let timestamp = received[0].timestamp.clone();
    let event = event.to_string();
    let signed = desk
        .preview(&["p", &event, "--sign", "--timestamp", &timestamp])
        .await;
    assert_eq!(
        signed.done(),
        as_sent(&received[0]).replace("CANARY", "(not shown)")
    );
    // Without secrets, the rest is as exact.
    let unsigned = desk
        .preview(&["p", &event, "--timestamp", &timestamp])
        .await;
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (signed, unsigned) in lines(signed.done()).iter().zip(lines(unsigned.done())) {
        let is_signature = signed.contains("-signature: ");
        assert_eq!(
            is_signature,
            unsigned.ends_with("(not computed; see --sign)"),
            "{unsigned}"
        );
        assert!(is_signature || *signed == unsigned, "{unsigned}");
    }
    assert_eq!(partner.count(), 1);
    let noted = "select string_agg(action, ',' order by entry) from posthaste.audit where action in ('event_previewed', 'secret_revealed')";
    assert_eq!(
        ada.one::<String>(noted).await,
        "event_previewed,secret_revealed,event_previewed"
    );
}

#[tokio::test]
async fn nobody_sees_a_payload_and_takes_back_that_they_did() {
    let world = World::new().await;
    let [ada, bob] = world.two_administrators().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    let event = world.publish("a", r#"{"secret": 1}"#).await;
    let ask = format!("posthaste.ask_to_preview('p', '{event}', 'to look')");
    let refusal = ada
        .refused(&format!("select posthaste.preview_source({ask})"))
        .await;
    assert!(refusal.message().contains("committed"), "{refusal:?}");
    let entry: i64 = ada.one(&format!("select {ask}")).await;
    let look = format!("select payload from posthaste.preview_source({entry})");
    assert_eq!(ada.one::<String>(&look).await, r#"{"secret": 1}"#);
    // Nobody looks with what another asked for.
    bob.refused(&look).await;
}

#[tokio::test]
async fn without_keys_it_shows_all_but_pseudonyms() {
    let world = World::new().await;
    let [ada, _] = world.two_administrators().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world
        .change(
            "p",
            r#"{"mask": {"allow": ["/n"], "fields": {"/mail": "pseudonym"}}}"#,
        )
        .await;
    let plain = world.publish("a.b", r#"{"n": 1}"#).await.to_string();
    let hidden = world.publish("a.b", r#"{"mail": "ada"}"#).await.to_string();
    let desk = Desk {
        url: &ada.url,
        keys: "",
    };
    let shown = desk.preview(&["p", &plain]).await;
    assert!(shown.done().ends_with(r#""data":{"n":1}}"#), "{shown:?}");
    let refused = desk.preview(&["p", &hidden]).await;
    assert!(
        refused.code != 0 && refused.stdout.is_empty(),
        "{refused:?}"
    );
    assert!(
        refused.stderr.contains("takes the keys") && !refused.stderr.contains("ada\""),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_proposal_is_previewed_before_anybody_approves_it() {
    let world = World::new().await;
    let [ada, bea] = world.two_administrators().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    let event = world
        .publish("a.b", r#"{"n": 1, "secret": 2}"#)
        .await
        .to_string();
    let change: i64 = ada
        .one(r#"select posthaste.propose_change('p', '{"mask": {"allow": ["/n"]}}')"#)
        .await;
    let desk = Desk {
        url: &bea.url,
        keys: "",
    };
    let (change, today) = (change.to_string(), desk.preview(&["p", &event]).await);
    assert!(
        today.done().ends_with(r#""data":{"n": 1, "secret": 2}}"#),
        "{today:?}"
    );
    let proposed = desk.preview(&["p", &event, "--change", &change]).await;
    assert!(
        proposed.done().ends_with(r#""data":{"n":1}}"#),
        "{proposed:?}"
    );
    // A subscription that is not there yet.
    let new: i64 = ada
        .one("select posthaste.propose_subscription('new', 'https://new.example/hooks?a=1', '{*}', unknown_types => true, envelope => 'raw')")
        .await;
    let new = desk
        .preview(&["new", &event, "--change", &new.to_string()])
        .await;
    assert!(
        new.done().starts_with("POST /hooks?a=1 HTTP/1.1\n"),
        "{new:?}"
    );
    let other = desk.preview(&["q", &event, "--change", &change]).await;
    other.denied_with("one that proposes terms of q");
}

#[tokio::test]
async fn it_says_where_nothing_would_be_sent() {
    let world = World::new().await;
    let [ada, _] = world.two_administrators().await;
    let partner = world.partner().await;
    world
        .subscribe_to("p", &partner, &["ship.arrived"], None, "1h")
        .await;
    let desk = Desk {
        url: &ada.url,
        keys: "",
    };
    let other = world.publish("train.late", "1").await.to_string();
    let said = desk.preview(&["p", &other]).await;
    assert_eq!(said.code, 1);
    assert!(
        said.stderr.contains("not meant for this subscription")
            && said.stdout.ends_with("\"data\":1}"),
        "{said:?}"
    );
    world
        .run(r#"select posthaste.change_event_type('ship.arrived', '{"schema": {"type": "object"}}')"#)
        .await;
    let broken = world.publish("ship.arrived", "1").await.to_string();
    let said = desk.preview(&["p", &broken]).await;
    assert!(
        said.code == 1 && said.stderr.contains("breaks its schema: rule /type"),
        "{said:?}"
    );
    let unknown = desk.preview(&["p", &Uuid::nil().to_string()]).await;
    unknown.denied_with("there is no such event");
    world
        .change("p", r#"{"mask": {"fields": {"/id": {"map": "ship"}}}}"#)
        .await;
    let missing = world
        .publish("ship.arrived", r#"{"id": "CANARY"}"#)
        .await
        .to_string();
    let said = desk.preview(&["p", &missing]).await;
    said.denied_with("it would be quarantined: the id of kind `ship` at `/id` has no external id");
    assert!(!said.stderr.contains("CANARY"));
}

struct Desk<'d> {
    url: &'d str,
    keys: &'d str,
}

impl Desk<'_> {
    async fn preview(&self, arguments: &[&str]) -> Said {
        let arguments = [&["preview"], arguments, &["--reason", "a trial"]].concat();
        let mut environment = vec![("DATABASE_URL", self.url)];
        if !self.keys.is_empty() {
            environment.push(("POSTHASTE_KEYS", self.keys));
        }
        posthaste(&arguments, &environment, "").await
    }
}

async fn published(world: &World) -> Uuid {
    let insert = r#"insert into posthaste.outbox (event_type, payload, metadata, tenant, traceparent) values ('a.b',
        '{"n" : 1.0, "student": {"id": 7, "mail": "ada"}, "gone": true}', '{"request_id": "r-1", "gone": 1}', 'north',
        '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01') returning event_id"#;
    world.db.query_one(insert, &[]).await.unwrap().get(0)
}

/// A request as a preview prints it.
fn as_sent(received: &Received) -> String {
    let mut lines: Vec<String> = received
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    lines.sort_unstable();
    let body = std::str::from_utf8(&received.body).unwrap();
    format!(
        "POST {} HTTP/1.1\n{}\n{body}",
        received.path,
        lines.concat()
    )
}

const TERMS: &str = r#"{"envelope": "identified", "signatures": ["standard_v1", "prefixed", "stripe"], "header_prefix": "X-Platform", "user_agent": "Platform-Webhooks/1.0",
    "pass_trace": true, "headers": {"X-Environment": "trial", "X-Grant": {"secret": true}},
    "mask": {"allow": ["/n"], "fields": {"/student/id": {"map": "student"}, "/student/mail": "pseudonym"}, "metadata": ["/request_id"]}}"#;
