//! Signatures as many receivers know them: each verifies by its own arithmetic, which is not ours, whatever else is signed beside it.

use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use posthaste::secret::{PublicKey, SecretKind, SigningSecret};
use posthaste::trial::partner::Received;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::harness::{PATIENCE, World};

#[tokio::test]
async fn every_way_of_signing_verifies_beside_the_others() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world
        .subscribe_url("p", &partner.url("/p"), &["*"], None, "1h")
        .await;
    let secret = SigningSecret::generate().unwrap();
    world.add_secret(id, &secret).await;
    let _worker = world.worker(&[]).await;
    for (profiles, verified) in [
        (
            json!([
                "standard_v1",
                "standard_v1a",
                "svix_legacy",
                "stripe",
                "github",
                "shopify",
                "convoy",
                "hook0",
                "prefixed"
            ]),
            "convoy 0\ngithub 0\nhook0 0\nprefixed 0\nshopify 0\nstandard_v1 0\nstandard_v1a 0\nstripe 0\nsvix_legacy 0\n",
        ),
        (json!(["convoy_simple"]), "convoy 0\n"),
        (json!(["standard_v1a"]), "standard_v1\nstandard_v1a 0\n"),
    ] {
        let before = partner.count();
        let change = json!({"signatures": profiles, "header_prefix": "X-Port"});
        world.change("p", &change.to_string()).await;
        world
            .publish("ship.arrived", r#"{"name": "Gr\u00fcn & Söhne"}"#)
            .await;
        let received = partner.wait_for(before + 1).await;
        let received = received.last().unwrap();
        assert_eq!(
            verdict(&world, received, std::slice::from_ref(&secret)).await,
            verified
        );
        world.until_all_is_done().await;
    }
}

#[tokio::test]
async fn while_two_secrets_are_live_lists_bear_both_and_the_others_the_older_until_it_ends() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world
        .subscribe_url("p", &partner.url("/p"), &["*"], None, "1h")
        .await;
    let secrets = [
        SigningSecret::generate().unwrap(),
        SigningSecret::generate().unwrap(),
    ];
    for secret in &secrets {
        world.add_secret(id, secret).await;
    }
    world
        .change("p", r#"{"signatures": ["standard_v1", "svix_legacy", "stripe", "convoy", "github", "shopify", "hook0", "prefixed"], "header_prefix": "X-Port"}"#)
        .await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "{}").await;
    let received = partner.wait_for(1).await;
    assert_eq!(
        verdict(&world, &received[0], &secrets).await,
        "convoy 0 1\ngithub 0\nhook0 0\nprefixed 0\nshopify 0\nstandard_v1 0 1\nstandard_v1a\nstripe 0 1\nsvix_legacy 0 1\n"
    );
    world.until_all_is_done().await;
    world
        .run("select posthaste.end_secret('p', 1::smallint, 'the partner has changed over')")
        .await;
    world.publish("a", "{}").await;
    let received = partner.wait_for(2).await;
    assert_eq!(
        verdict(&world, &received[1], &secrets).await,
        "convoy 1\ngithub 1\nhook0 1\nprefixed 1\nshopify 1\nstandard_v1 1\nstandard_v1a\nstripe 1\nsvix_legacy 1\n"
    );
    world.until_all_is_done().await;
    let signed_with =
        "select string_agg(signed_with::text, ' ' order by started_at) from posthaste.attempt_log";
    assert_eq!(world.text(signed_with).await, "1,2 2");
}

#[tokio::test]
async fn a_key_that_is_asked_for_later_is_made_by_a_worker_and_its_public_half_is_known() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "{}").await;
    let received = partner.wait_for(1).await;
    assert_eq!(received[0].verified, Some(Ok(())));
    world.until_all_is_done().await;
    let keys = "select count(*) from posthaste.public_key";
    assert_eq!(world.count(keys).await, 0);
    world
        .change("p", r#"{"signatures": ["standard_v1", "standard_v1a"]}"#)
        .await;
    // Nothing need be sent for it: the partner wants to know it first.
    world
        .until("(select count(*) from posthaste.public_key) = 1")
        .await;
    let key: Vec<u8> = world
        .db
        .query_one("select public_key from posthaste.public_key", &[])
        .await
        .unwrap()
        .get(0);
    world.publish("a", "{}").await;
    let received = partner.wait_for(2).await;
    assert_eq!(received[1].verified, Some(Ok(())));
    assert_eq!(
        verdict(&world, &received[1], &[]).await,
        "standard_v1\nstandard_v1a 0\n"
    );
    let shown = PublicKey::parse(&format!("whpk_{}", BASE64.encode(&key))).unwrap();
    assert_eq!(shown.bytes().as_slice(), key);
    world.until_all_is_done().await;
    // A second one signs beside it.
    world
        .run("select posthaste.rotate_secret('p', kind => 'ed25519')")
        .await;
    world
        .until("(select count(*) from posthaste.public_key) = 2")
        .await;
    world.publish("a", "{}").await;
    let received = partner.wait_for(3).await;
    assert_eq!(
        verdict(&world, &received[2], &[]).await,
        "standard_v1\nstandard_v1a 0 1\n"
    );
}

#[tokio::test]
async fn a_text_that_a_partner_brought_along_signs_where_texts_do() {
    let world = World::new().await;
    let partner = world.partner().await;
    let propose = format!(
        "propose_subscription('p', '{}', '{{*}}', unknown_types => true, signatures => '{{github,stripe}}')",
        partner.url("/p")
    );
    let id = world.agree(&propose).await;
    let text = SigningSecret::parse_as(SecretKind::Text, "whsec_not base64!").unwrap();
    world.add_secret(id, &text).await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "{}").await;
    let received = partner.wait_for(1).await;
    let secrets = std::slice::from_ref(&text);
    assert_eq!(
        verdict(&world, &received[0], secrets).await,
        "github 0\nstripe 0\n"
    );
}

#[tokio::test]
async fn where_a_promised_signature_has_no_secret_nothing_is_sent() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h,1h").await;
    world
        .change("p", r#"{"signatures": ["standard_v1", "standard_v1a"]}"#)
        .await;
    let key = SigningSecret::generate_as(SecretKind::Ed25519).unwrap();
    world.add_secret(id, &key).await;
    let number = "select number from posthaste.public_key";
    let number: i16 = world.db.query_one(number, &[]).await.unwrap().get(0);
    world
        .run(&format!(
            "select posthaste.end_secret('p', {number}::smallint, 'lost')"
        ))
        .await;
    let _worker = world.worker(&[]).await;
    world.publish("a", "{}").await;
    world.until("exists (select from posthaste.attempt)").await;
    let said =
        "select concat_ws(' ', outcome, verdict, error, signed_with) from posthaste.attempt_log";
    assert_eq!(
        world.text(said).await,
        "blocked retry the signature profile standard_v1a has no live signing secret of a kind that it takes (ed25519)"
    );
    assert_eq!(partner.count(), 0);
    world
        .add_secret(
            id,
            &SigningSecret::generate_as(SecretKind::Ed25519).unwrap(),
        )
        .await;
    world.make_due().await;
    let received = partner.wait_for(1).await;
    assert_eq!(
        verdict(&world, &received[0], &[]).await,
        "standard_v1\nstandard_v1a 0\n"
    );
}

/// What a program that shares nothing with ours makes of a request: each profile, and the places of the keys that verify it.
async fn verdict(world: &World, received: &Received, secrets: &[SigningSecret]) -> String {
    let keys = "select public_key from posthaste.public_key order by number";
    let keys = world.db.query(keys, &[]).await.unwrap();
    let keys: Vec<String> = keys
        .iter()
        .map(|row| BASE64.encode(row.get::<_, Vec<u8>>(0)))
        .collect();
    let text = |value: &http::HeaderValue| Value::from(value.to_str().unwrap());
    let headers: Map<String, Value> = received
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    let secrets: Vec<String> = secrets
        .iter()
        .map(|secret| secret.reveal().to_string())
        .collect();
    let request = json!({
        "headers": headers, "body": BASE64.encode(&received.body), "secrets": secrets, "public_keys": keys, "prefix": "x-port",
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/receiving/profiles.py");
    let mut python = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    input
        .write_all(request.to_string().as_bytes())
        .await
        .unwrap();
    drop(input);
    let output = tokio::time::timeout(PATIENCE, python.wait_with_output()).await;
    let output = output.expect("it does not end").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}
