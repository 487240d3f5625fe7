//! What lets us in: who we are is shown as agreed, tokens and permissions are asked for no more often than needed, and every request
//! that this takes is written down, without a secret.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Method;
use posthaste::secret::CredentialKind::{Authentication, ClientKey};
use posthaste::trial::authority::Authority;
use posthaste::trial::partner::{PartnerConfig, Replies, Reply};
use serde_json::json;

use crate::harness::{Partner, TokenServer, World, answer, authority, http as scrape};

#[tokio::test]
async fn one_token_serves_many_deliveries_and_is_written_down_nowhere() {
    let world = World::new().await;
    let (partner, server) = (world.partner().await, TokenServer::start(3600).await);
    let id = world.subscribe("p", &partner, "1h").await;
    let more = json!({"scope": "read write", "audience": "https://api.example/"});
    world.change("p", &server.change(&more)).await;
    world
        .import("p", id, Authentication, "CANARY secret&")
        .await;
    let worker = world
        .worker_process(&[("listen", "127.0.0.1:0"), ("log_format", "json")])
        .await;
    let address = worker.telemetry_address().await;
    world.publish_many("a", 40).await;
    for received in partner.wait_for(40).await {
        assert_eq!(received.headers["authorization"], "Bearer CANARY-token-1");
        assert_eq!(received.verified, Some(Ok(())));
    }
    world.until_all_is_done().await;
    world
        .until("exists (select from posthaste.preparation)")
        .await;
    let [asked] = server.received().try_into().unwrap();
    assert_eq!(
        (&asked.method, asked.path.as_str()),
        (&Method::POST, "/token")
    );
    let basic = BASE64.encode("us%3Aand%20them:CANARY%20secret%26");
    assert_eq!(asked.headers["authorization"], format!("Basic {basic}"));
    assert_eq!(
        asked.headers["content-type"],
        "application/x-www-form-urlencoded"
    );
    assert_eq!(
        asked.body,
        "grant_type=client_credentials&scope=read%20write&audience=https%3A%2F%2Fapi.example%2F"
    );
    assert_eq!(
        world.text(PREPARATIONS).await,
        format!("p token {} accepted 200", server.url())
    );

    let metrics = scrape::get(address, "/metrics").await.body;
    worker.terminate();
    let (status, log) = worker.ended_saying().await;
    assert!(status.success(), "{log}");
    let dump = world.dump().await;
    let in_hex = "43414e415259"; // as a dump shows bytes
    for (place, text) in [("log", &log), ("rows", &dump), ("metrics", &metrics)] {
        for hidden in ["CANARY", &basic, in_hex] {
            let line = text.lines().find(|line| line.contains(hidden));
            assert!(line.is_none(), "{hidden} is in the {place}: {line:?}");
        }
    }
    assert!(dump.contains(&server.url()) && !log.is_empty());
}

/// The requests that were made to be able to deliver, in order.
const PREPARATIONS: &str = "select string_agg(concat_ws(' ', subscription, kind, url, outcome, http_status, error), ', ' order by at)
    from posthaste.preparation_log";

#[tokio::test]
async fn a_client_that_shows_itself_in_the_body_shows_itself_nowhere_else() {
    let world = World::new().await;
    let (partner, server) = (world.partner().await, TokenServer::start(3600).await);
    let id = world.subscribe("p", &partner, "1h").await;
    world
        .change("p", &server.change(&json!({"client_auth": "body"})))
        .await;
    world.import("p", id, Authentication, "s&cret").await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "{}").await;
    partner.wait_for(1).await;
    let asked = &server.received()[0];
    assert!(!asked.headers.contains_key("authorization"));
    assert_eq!(
        asked.body,
        "grant_type=client_credentials&client_id=us%3Aand%20them&client_secret=s%26cret"
    );
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_while_deliveries_go_on() {
    let world = World::new().await;
    let (partner, server) = (world.partner().await, TokenServer::start(3).await);
    let id = world.subscribe("p", &partner, "1h").await;
    world.change("p", &server.change(&json!({}))).await;
    world.import("p", id, Authentication, "s").await;
    let _worker = world.worker(&[]).await;
    let mut sent = 0;
    while server.asked() < 3 {
        world.publish("a", "{}").await;
        sent += 1;
        partner.wait_for(sent).await;
    }
    world.until_all_is_done().await;
    // As whoever gave them would see it: none was shown after its three seconds.
    for token in 1..=2_usize {
        let given = server.received()[token - 1].at;
        let shown = format!("Bearer CANARY-token-{token}");
        let mut requests = partner.received();
        requests.retain(|received| received.headers["authorization"] == shown);
        assert!(!requests.is_empty());
        for received in requests {
            let age = received.at.duration_since(given).unwrap();
            assert!(age < Duration::from_secs(3), "{age:?}");
        }
    }
    let not_accepted = "select count(*) from posthaste.attempt where outcome <> 'accepted'";
    assert_eq!(world.count(not_accepted).await, 0);
}

#[tokio::test]
async fn a_token_that_the_endpoint_refuses_is_replaced_at_the_next_attempt() {
    let world = World::new().await;
    let (partner, server) = (world.partner().await, TokenServer::start(3600).await);
    let id = world.subscribe("p", &partner, "1s").await;
    world.change("p", &server.change(&json!({}))).await;
    world.import("p", id, Authentication, "s").await;
    let _worker = world.worker(&[]).await;
    let first = world.publish("a", "{}").await;
    partner.wait_for(1).await;
    partner.set_reply(Replies::by(|received| {
        let is_revoked = received.headers["authorization"] == "Bearer CANARY-token-1";
        Reply::Status(if is_revoked { 401 } else { 200 })
    }));
    let second = world.publish("a", "{}").await;
    world.until_all_is_done().await;
    assert_eq!(world.story(first).await, "1 accepted done");
    assert_eq!(
        world.story(second).await,
        "1 rejected retry, 2 accepted done"
    );
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn an_endpoint_that_refuses_every_token_does_not_have_one_fetched_for_each_delivery() {
    let world = World::new().await;
    let server = TokenServer::start(3600).await;
    let partner = Partner::replying(Reply::Status(401)).await;
    let id = world.subscribe("p", &partner, "1h").await;
    world.change("p", &server.change(&json!({}))).await;
    world.import("p", id, Authentication, "s").await;
    let begun = Instant::now();
    let _worker = world.worker(&[("endpoint_concurrency", "4")]).await;
    world.publish_many("a", 60).await;
    partner.wait_for(60).await;
    let most = 3 + begun.elapsed().as_secs() / 5;
    assert!(server.asked() <= most, "{} {most}", server.asked());
}

#[tokio::test]
async fn a_token_server_that_fails_holds_up_its_own_deliveries_is_asked_seldom_and_says_nothing() {
    let world = World::new().await;
    let (other, partner) = (world.partner().await, world.partner().await);
    let hidden = json!({"error": "invalid_client", "error_description": "CANARY"});
    let cases = [
        ("down", Reply::CloseWithoutReply, "no access token: "),
        (
            "slow",
            Reply::Hang,
            "no access token: http: no whole response head within",
        ),
        (
            "garbage",
            Reply::Status(200),
            "no access token: its server's answer holds no access_token",
        ),
        (
            "giant",
            Reply::GiantBody,
            "no access token: its server's answer holds no access_token",
        ),
        (
            "stranger",
            answer(401, &hidden),
            "no access token: its server answered 401 (invalid_client)",
        ),
        (
            "away",
            Reply::Redirect("https://CANARY.example/".into()),
            "no access token: its server answered 307",
        ),
    ];
    let mut servers = Vec::new();
    for (name, reply, _) in &cases {
        let id = world
            .subscribe_to(name, &partner, &[&format!("to.{name}")], None, "1h,1h,1h")
            .await;
        let server = TokenServer::start(3600).await;
        server.reply(reply.clone());
        world.change(name, &server.change(&json!({}))).await;
        world.import(name, id, Authentication, "CANARY").await;
        servers.push(server);
    }
    world
        .subscribe_to("other", &other, &["to.other"], None, "1h")
        .await;
    let begun = Instant::now();
    let worker = world.worker_process(&[("request_timeout", "2s")]).await;
    for (name, ..) in &cases {
        world.publish_many(&format!("to.{name}"), 12).await;
    }
    world.publish_many("to.other", 12).await;
    other.wait_for(12).await;
    world
        .until("(select count(*) from posthaste.attempt where outcome = 'blocked' and verdict = 'retry') = 72")
        .await;
    let most = 2 + begun.elapsed().as_secs() / 4;
    for ((name, _, error), server) in cases.iter().zip(&servers) {
        let said =
            format!("select max(error) from posthaste.attempt_log where subscription = '{name}'");
        let said = world.text(&said).await;
        assert!(said.starts_with(error), "{name}: {said}");
        let asked = server.asked();
        assert!(
            (1..=most).contains(&asked),
            "{name} was asked {asked} times"
        );
        let told = format!(
            "select count(*) from posthaste.preparation_log where kind = 'token' and subscription = '{name}'"
        );
        assert_eq!(
            world.count(&told).await,
            i64::try_from(asked).unwrap(),
            "{name}"
        );
        server.issue(3600);
    }
    assert_eq!(partner.count(), 0);
    let rows = "select string_agg(a::text, '') || (select string_agg(p::text, '') from posthaste.preparation p) from posthaste.attempt a";
    let rows = world.text(rows).await;
    assert!(!rows.contains("CANARY"), "{rows}");

    world.make_due().await;
    partner.wait_for(72).await;
    world.until_all_is_done().await;
    worker.terminate();
    let (_, log) = worker.ended_saying().await;
    assert!(!log.contains("CANARY"), "{log}");
}

#[tokio::test]
async fn a_request_for_a_token_is_on_record_also_where_the_worker_stops_before_its_answer() {
    let world = World::new().await;
    let (partner, server) = (world.partner().await, TokenServer::start(3600).await);
    server.reply(Reply::Hang);
    let id = world.subscribe("p", &partner, "1h").await;
    world.change("p", &server.change(&json!({}))).await;
    world.import("p", id, Authentication, "s").await;
    let worker = world
        .worker(&[("drain", "0s"), ("request_timeout", "30s")])
        .await;
    let event_id = world.publish("a", "{}").await;
    server.wait_for(1).await;
    worker.stop().await.unwrap();
    assert_eq!(world.story(event_id).await, "1 abandoned retry");
    assert_eq!(
        world.text(PREPARATIONS).await,
        format!(
            "p token {} abandoned the worker stopped before the answer came",
            server.url()
        )
    );
}

#[tokio::test]
async fn a_probe_that_is_not_let_in_says_nothing_of_the_endpoint_and_another_follows() {
    let world = World::new().await;
    let server = TokenServer::start(1).await;
    let partner = Partner::replying(Reply::Status(500)).await;
    let id = world.subscribe("p", &partner, "1h,1h,1h").await;
    let breaker = r#"{"breaker": {"failures": 2, "ratio": null, "open_for": "1 hour", "open_for_at_most": "1 hour"}}"#;
    world.change("p", breaker).await;
    world.change("p", &server.change(&json!({}))).await;
    world.import("p", id, Authentication, "s").await;
    let worker = world.worker(&[]).await;
    world.publish_many("a", 2).await;
    world
        .until("(select breaker = 'open' from posthaste.lane) and not exists (select from posthaste.lease)")
        .await;
    drop(worker);
    server.reply(Reply::Status(503));
    partner.set_reply(Reply::Status(200));
    let _worker = world.worker(&[]).await;
    let let_hold_pass = "update posthaste.lane set hold_until = now() - interval '1 ms'";
    world.run(let_hold_pass).await;
    world.make_due().await;
    world
        .until("exists (select from posthaste.attempt where outcome = 'blocked') and not exists (select from posthaste.lease)")
        .await;
    let lane = "select concat_ws(' ', breaker, openings, failures, hold_until > now()) from posthaste.lane";
    assert_eq!(world.text(lane).await, "half_open 1 2 t");
    let blocked = "select count(*) from posthaste.attempt where outcome = 'blocked'";
    assert_eq!(world.count(blocked).await, 1);
    server.issue(3600);
    world.run(let_hold_pass).await;
    world.make_due().await;
    world
        .until("(select breaker = 'closed' from posthaste.lane)")
        .await;
    world.make_due().await;
    world.until_all_is_done().await;
}

#[tokio::test]
async fn a_token_server_inside_is_not_asked() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h").await;
    let change = json!({"authentication": {"kind": "oauth2", "token_url": "https://10.0.0.1/token?key=CANARY", "client_id": "us"}});
    world.change("p", &change.to_string()).await;
    world.import("p", id, Authentication, "s").await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "{}").await;
    world
        .until("exists (select from posthaste.preparation)")
        .await;
    let said = world
        .text("select concat_ws(' ', outcome, verdict, error) from posthaste.attempt_log")
        .await;
    assert!(
        said.starts_with("blocked retry no access token: ") && said.contains("10.0.0.0/8"),
        "{said}"
    );
    let told = world.text(PREPARATIONS).await;
    assert!(
        told.starts_with("p token https://10.0.0.1/token blocked ") && !told.contains("CANARY"),
        "{told}"
    );
    assert_eq!(partner.count(), 0);
}

#[tokio::test]
async fn who_we_are_arrives_exactly_and_what_is_missing_is_waited_for() {
    let world = World::new().await;
    let partner = world.partner().await;
    let _worker = world.worker(&[]).await;
    for (name, term, secret, header, value) in [
        (
            "bearer",
            json!({"kind": "bearer"}),
            "t0k/en+=",
            "authorization",
            "Bearer t0k/en+=".to_owned(),
        ),
        (
            "basic",
            json!({"kind": "basic", "user": "port"}),
            "pass:w?rd",
            "authorization",
            format!("Basic {}", BASE64.encode("port:pass:w?rd")),
        ),
        (
            "key",
            json!({"kind": "header", "header": "X-Api-Key"}),
            "k e y",
            "x-api-key",
            "k e y".to_owned(),
        ),
    ] {
        let id = world
            .subscribe_to(
                name,
                &partner,
                &[&format!("to.{name}")],
                None,
                "1s,1s,1s,1s,1s,1s,1s,1s,1s,1s",
            )
            .await;
        world
            .change(name, &json!({"authentication": term}).to_string())
            .await;
        let event_id = world.publish(&format!("to.{name}"), "{}").await;
        world
            .until(&format!(
                "exists (select from posthaste.attempt where event_id = '{event_id}')"
            ))
            .await;
        let said = format!(
            "select min(concat_ws(' ', outcome, verdict, error)) from posthaste.attempt_log where event_id = '{event_id}'"
        );
        assert_eq!(
            world.text(&said).await,
            "blocked retry the authentication's secret part has not been imported yet"
        );
        let before = partner.count();
        world.import(name, id, Authentication, secret).await;
        partner.wait_for(before + 1).await;
        world.until_all_is_done().await;
        let received = partner.received();
        let received = received.last().unwrap();
        assert_eq!(received.headers[header], value, "{name}");
        assert_eq!(received.headers.get_all(header).iter().count(), 1);
    }
}

#[tokio::test]
async fn a_changed_authentication_drops_the_old_secret() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h,1h").await;
    world
        .change("p", r#"{"authentication": {"kind": "bearer"}}"#)
        .await;
    world.import("p", id, Authentication, "old").await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "{}").await;
    partner.wait_for(1).await;
    world.until_all_is_done().await;
    world
        .change(
            "p",
            r#"{"authentication": {"kind": "header", "header": "X-Api-Key"}}"#,
        )
        .await;
    assert_eq!(
        world
            .count("select count(*) from posthaste.credential")
            .await,
        0
    );
    let event_id = world.publish("a", "{}").await;
    world
        .until(&format!(
            "exists (select from posthaste.attempt where event_id = '{event_id}')"
        ))
        .await;
    assert_eq!(world.story(event_id).await, "1 blocked retry");
    world.import("p", id, Authentication, "new").await;
    world.make_due().await;
    let received = partner.wait_for(2).await;
    assert_eq!(received[1].headers["x-api-key"], "new");
    assert!(!received[1].headers.contains_key("authorization"));
    world.import("p", id, Authentication, "newer").await;
    world.publish("a", "{}").await;
    let received = partner.wait_for(3).await;
    assert_eq!(received[2].headers["x-api-key"], "newer");
}

#[tokio::test]
async fn a_partner_that_asks_for_a_certificate_sees_ours() {
    let world = World::new().await;
    let clients = Authority::new().unwrap();
    let tls = authority().server_config_for(&NAMES, &clients).unwrap();
    let partner = Partner::start(PartnerConfig {
        tls: Some(tls),
        ..Partner::config()
    })
    .await;
    let id = world.subscribe("p", &partner, "1h,1h,1h,1h").await;
    let (chain, key) = clients.client_pem("posthaste").unwrap();
    let (_, another) = clients.client_pem("posthaste").unwrap();
    let _worker = world.worker(&[]).await;
    let event_id = world.publish("a", "{}").await;
    let attempts = async |count: i32| {
        world
            .until(&format!(
                "(select count(*) from posthaste.attempt) = {count}"
            ))
            .await;
        let last = "select concat_ws(' ', outcome, verdict, error) from posthaste.attempt_log order by number desc limit 1";
        world.text(last).await
    };
    let said = attempts(1).await;
    assert!(said.starts_with("unreachable retry "), "{said}");
    world
        .change("p", &json!({"tls": {"certificate": chain}}).to_string())
        .await;
    world.make_due().await;
    assert_eq!(
        attempts(2).await,
        "blocked retry the key of the client certificate has not been imported yet"
    );
    world.import("p", id, ClientKey, &another).await;
    world.make_due().await;
    let said = attempts(3).await;
    assert_eq!(
        said,
        "blocked retry tls: client key: it does not belong to the first certificate of the chain"
    );
    world.import("p", id, ClientKey, &key).await;
    world.make_due().await;
    partner.wait_for(1).await;
    world.until_all_is_done().await;
    assert!(world.story(event_id).await.ends_with("4 accepted done"));
}

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

#[tokio::test]
async fn a_partners_own_authority_is_trusted_and_no_other() {
    let world = World::new().await;
    let own = Authority::new().unwrap();
    let config = |tls| PartnerConfig {
        tls: Some(tls),
        ..Partner::config()
    };
    let theirs = Partner::start(config(own.server_config(&NAMES, true).unwrap())).await;
    // Its certificate is by the authority that the worker trusts for everybody else.
    let public = world.partner().await;
    world
        .subscribe_to("theirs", &theirs, &["to.theirs"], None, "1h,1h")
        .await;
    world
        .subscribe_to("public", &public, &["to.public"], None, "1h,1h")
        .await;
    let _worker = world.worker(&[]).await;
    let before = world.publish("to.theirs", "{}").await;
    world.until("exists (select from posthaste.attempt)").await;
    assert_eq!(world.story(before).await, "1 unreachable retry");
    let change = json!({"tls": {"authority": own.pem()}}).to_string();
    for name in ["theirs", "public"] {
        world.change(name, &change).await;
    }
    world.make_due().await;
    theirs.wait_for(1).await;
    let other = world.publish("to.public", "{}").await;
    world
        .until("(select count(*) from posthaste.attempt) = 3")
        .await;
    assert_eq!(world.story(other).await, "1 unreachable retry");
    assert_eq!(public.count(), 0);
    let said = "select error from posthaste.attempt_log where subscription = 'public'";
    let said = world.text(said).await;
    assert!(said.starts_with("tls: "), "{said}");
}

/// Answers to OPTIONS with these headers and 405, and 200 to the rest.
fn asked_first(headers: &[(&str, &str)]) -> Replies {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Replies::by(move |received| match received.method {
        Method::OPTIONS => Reply::StatusWith {
            status: 405,
            headers: headers.clone(),
            body: Bytes::from_static(b"CANARY"),
        },
        _ => Reply::Status(200),
    })
}

fn methods(partner: &Partner) -> Vec<Method> {
    let received = partner.received();
    received.iter().map(|it| it.method.clone()).collect()
}

#[tokio::test]
async fn permission_is_asked_for_once_and_for_good() {
    let world = World::new().await;
    let partner = Partner::replying(asked_first(&[(
        "WebHook-Allowed-Origin",
        "a.example, port.example",
    )]))
    .await;
    world.subscribe("p", &partner, "1h").await;
    world
        .change("p", r#"{"handshake": {"origin": "port.example"}}"#)
        .await;
    let worker = world.worker(&[]).await;
    world.publish_many("a", 20).await;
    partner.wait_for(21).await;
    world.until_all_is_done().await;
    world
        .until("exists (select from posthaste.handshake)")
        .await;
    drop(worker);
    let [_again, _another] = [world.worker(&[]).await, world.worker(&[]).await];
    for _ in 0..20 {
        world.publish("a", "{}").await;
    }
    partner.wait_for(41).await;
    world.until_all_is_done().await;

    let received = partner.received();
    assert_eq!(received[0].method, Method::OPTIONS);
    assert_eq!(received[0].path, "/p");
    assert_eq!(received[0].body, "");
    for (place, request) in received.iter().enumerate() {
        assert_eq!(request.headers["webhook-request-origin"], "port.example");
        assert!(place == 0 || request.method == Method::POST, "{place}");
    }
    assert_eq!(
        world.text(PREPARATIONS).await,
        format!(
            "p handshake {} rejected 405 http: status 405",
            partner.url("/p")
        )
    );
    let log = "select string_agg(concat_ws(' ', subscription, url, origin, rate, granted_by), ', ') from posthaste.handshake_log";
    assert_eq!(
        world.text(log).await,
        format!(
            "p {} port.example {}",
            partner.url("/p"),
            world.worker_login()
        )
    );
    assert!(!world.dump().await.contains("CANARY"));
}

#[tokio::test]
async fn who_does_not_allow_it_gets_nothing_until_somebody_says_that_it_does() {
    let world = World::new().await;
    let partner = Partner::replying(asked_first(&[])).await;
    world.subscribe("p", &partner, "1h,1h,1h").await;
    world
        .change("p", r#"{"handshake": {"origin": "port.example", "callback": "https://port.example/yes", "rate": 600}}"#)
        .await;
    let worker = world.worker(&[]).await;
    world.publish_many("a", 8).await;
    world
        .until("(select count(*) from posthaste.attempt where outcome = 'blocked' and verdict = 'retry') = 8")
        .await;
    assert_eq!(methods(&partner), [Method::OPTIONS]);
    let asked = &partner.received()[0].headers;
    assert_eq!(
        asked["webhook-request-callback"],
        "https://port.example/yes"
    );
    assert_eq!(asked["webhook-request-rate"], "600");
    assert_eq!(
        world
            .text("select distinct error from posthaste.attempt_log")
            .await,
        "the receiver has not allowed us to send: it answered 405 without webhook-allowed-origin"
    );
    drop(worker);
    let _worker = world.worker(&[]).await;
    world.make_due().await;
    partner.wait_for(2).await;
    world
        .until("(select count(*) from posthaste.attempt) = 16")
        .await;
    assert_eq!(methods(&partner), [Method::OPTIONS, Method::OPTIONS]);

    world
        .run("select posthaste.grant_handshake('p', 6000, 'they called us back')")
        .await;
    world.make_due().await;
    partner.wait_for(10).await;
    world.until_all_is_done().await;
    assert_eq!(methods(&partner)[2..], vec![Method::POST; 8]);
    let lane = "select rate_capacity::text from posthaste.lane";
    assert_ne!(world.text(lane).await, "{}");
    world
        .run("select posthaste.grant_handshake('p', null, 'as much as we like')")
        .await;
    world
        .until("(select rate_capacity = '{}' from posthaste.lane)")
        .await;
}

#[tokio::test]
async fn another_url_or_origin_is_asked_anew() {
    let world = World::new().await;
    let partner = Partner::replying(asked_first(&[("webhook-allowed-origin", "*")])).await;
    world.subscribe("p", &partner, "1h").await;
    world
        .change("p", r#"{"handshake": {"origin": "port.example"}}"#)
        .await;
    let _worker = world.worker(&[]).await;
    let mut came = 0;
    for change in [
        json!({"description": "the same"}),
        json!({"url": partner.url("/elsewhere")}),
        json!({"handshake": {"origin": "quay.example"}}),
        json!({"handshake": {"origin": "quay.example", "callback": "https://quay.example/"}}),
        json!({"url": partner.url("/p"), "handshake": {"origin": "port.example"}}),
    ] {
        world.publish("a", "{}").await;
        came += 1;
        world
            .until(&format!(
                "(select count(*) from posthaste.attempt where outcome = 'accepted') = {came}"
            ))
            .await;
        world.until_all_is_done().await;
        world.change("p", &change.to_string()).await;
    }
    world.publish("a", "{}").await;
    world
        .until("(select count(*) from posthaste.attempt where outcome = 'accepted') = 6")
        .await;
    let told = partner.received();
    let told = told.iter().filter(|it| it.method == Method::OPTIONS);
    let told: Vec<_> = told
        .map(|it| {
            format!(
                "{} {}",
                it.path,
                it.headers["webhook-request-origin"].to_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "/p port.example",
            "/elsewhere port.example",
            "/elsewhere quay.example"
        ]
    );
}

#[tokio::test]
async fn the_rate_that_a_receiver_allows_is_kept_by_all_workers_from_the_first_request_on() {
    let world = World::new().await;
    let granted = [
        ("webhook-allowed-origin", "port.example"),
        ("webhook-allowed-rate", "120"),
    ];
    let partner = Partner::replying(asked_first(&granted)).await;
    // None may be lost to the moment in which the rate becomes known.
    world.subscribe("p", &partner, "").await;
    world
        .change("p", r#"{"handshake": {"origin": "port.example"}}"#)
        .await;
    world.publish_many("a", 40).await;
    let at_once = [("endpoint_concurrency", "64")];
    let [_one, _two, _three] = [
        world.worker(&at_once).await,
        world.worker(&at_once).await,
        world.worker(&at_once).await,
    ];
    world
        .until("(select count(*) from posthaste.attempt) >= 12")
        .await;
    world.publish_many("a", 20).await;
    world
        .until("(select count(*) from posthaste.attempt) >= 16")
        .await;
    let asked = methods(&partner);
    let asked = asked
        .iter()
        .filter(|method| *method == Method::OPTIONS)
        .count();
    assert!((1..=3).contains(&asked), "{asked}");
    // Those who asked send one each; then come two a second.
    let begun = "select extract(epoch from max(started_at) - min(started_at))::float8 from (select started_at from posthaste.attempt order by started_at limit 16) a";
    let took: f64 = world.db.query_one(begun, &[]).await.unwrap().get(0);
    assert!(took > 0.5 * 11.0, "{took}");
    let other = "select count(*) from posthaste.attempt where outcome <> 'accepted'";
    assert_eq!(world.count(other).await, 0);
    let rates: BTreeSet<String> = world
        .db
        .query("select rate::text from posthaste.handshake_log", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(rates, BTreeSet::from(["120".to_owned()]));
}

#[tokio::test]
async fn a_rate_is_in_its_lane_as_soon_as_the_permission_is_kept() {
    let world = World::new().await;
    let id = world
        .subscribe_url("p", "https://127.0.0.1/", &["*"], None, "1h")
        .await;
    world
        .change("p", r#"{"handshake": {"origin": "port.example"}}"#)
        .await;
    let worker = world.login("posthaste_worker").await;
    let lane = "select rate_capacity <> '{}' from posthaste.lane";
    for (origin, rate, kept) in [
        ("quay.example", "120", (false, false)),
        ("port.example", "null", (true, false)),
        ("port.example", "120", (true, true)),
    ] {
        let keep = format!(
            "select posthaste.keep_handshake({id}, 'https://127.0.0.1/', '{origin}', {rate})"
        );
        let is_kept: bool = worker.one(&keep).await;
        assert_eq!((is_kept, world.holds(&format!("({lane})")).await), kept);
    }
}
