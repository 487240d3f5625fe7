//! The control plane from the command line: each command runs as somebody's own login, and the database decides.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use posthaste::config::Config;
use posthaste::secret::{CredentialKind, Keyring, PublicKey, Sealed, SecretKind, SigningSecret};
use posthaste::trial::authority::Authority;
use serde_json::{Value, json};

use crate::harness::{Login, Said, World, posthaste};

#[tokio::test]
async fn one_administrator_proposes_and_another_approves() {
    let office = Office::open().await;
    let said = office.run(&office.ada, &PROPOSE).await;
    assert_eq!(
        said.done(),
        "change 1 is proposed\nanother administrator: posthaste subscription approve 1\n"
    );
    let approve = ["subscription", "approve", "1"];
    let alone = office.run(&office.ada, &approve).await;
    alone.denied_with(&format!("change 1 was proposed by {}", office.ada.name));
    let changes = office.run(&office.bob, &["subscription", "changes"]).await;
    for what in [
        "change 1, open: create university",
        "https://hooks.university.example/in",
        &office.ada.name,
    ] {
        assert!(changes.done().contains(what), "{changes:?}");
    }
    let approved = office.run(&office.bob, &approve).await;
    assert!(
        approved
            .done()
            .starts_with("change 1 is approved: create university\n"),
        "{approved:?}"
    );
    let again = office.run(&office.bob, &approve).await;
    again.denied_with(&format!("approved by {}", office.bob.name));

    let list = office.json(&["subscription", "list", "--json"]).await;
    assert_eq!(list[0]["subscription"], "university");
    assert_eq!(list[0]["state"], "waits for a signing secret");
    let table = office.run(&office.bob, &["subscription", "list"]).await;
    assert!(
        table.done().contains("https://hooks.university.example/in"),
        "{table:?}"
    );
    let shown = office
        .json(&["subscription", "show", "university", "--json"])
        .await;
    assert_eq!(
        shown["terms"]["terms"]["retry_intervals"],
        json!(["00:00:05", "01:00:00"])
    );
    assert_eq!(shown["secrets"]["asked_for"], 1);
    let shown = office
        .run(&office.bob, &["subscription", "show", "university"])
        .await;
    assert!(shown.done().contains("0 live; 1 asked for"), "{shown:?}");
}

#[tokio::test]
async fn a_pause_takes_one_administrator_and_to_go_on_takes_two() {
    let office = Office::open().await;
    office.subscribe().await;
    let pause = [
        "subscription",
        "pause",
        "university",
        "--reason",
        "their incident",
    ];
    office.run(&office.ada, &pause).await.done();
    let list = office.json(&["subscription", "list", "--json"]).await;
    assert_eq!(list[0]["state"], "paused");
    let resume = ["subscription", "resume", "university"];
    let resumed = office.run(&office.ada, &resume).await;
    assert!(
        resumed.done().contains("subscription approve 2"),
        "{resumed:?}"
    );
    let changes = office.run(&office.ada, &["subscription", "changes"]).await;
    assert!(
        changes.done().contains("active: false -> true"),
        "{changes:?}"
    );
    let approve = ["subscription", "approve", "2"];
    assert_eq!(office.run(&office.ada, &approve).await.code, 1);
    office.run(&office.bob, &approve).await.done();
    let list = office.json(&["subscription", "list", "--json"]).await;
    assert_ne!(list[0]["state"], "paused");
}

#[tokio::test]
async fn a_change_that_is_rejected_changes_nothing_and_a_removal_ends_it() {
    let office = Office::open().await;
    office.subscribe().await;
    let change = [
        "subscription",
        "change",
        "university",
        "--set",
        r#"{"concurrency": 4}"#,
    ];
    office.run(&office.ada, &change).await.done();
    let reject = ["subscription", "reject", "2", "--reason", "too many"];
    office.run(&office.bob, &reject).await.done();
    let all = office
        .json(&["subscription", "changes", "--all", "--json"])
        .await;
    assert_eq!(
        (&all[1]["state"], &all[1]["decision_reason"]),
        (&json!("rejected"), &json!("too many"))
    );
    let remove = [
        "subscription",
        "remove",
        "university",
        "--reason",
        "it has ended",
    ];
    office.run(&office.ada, &remove).await.done();
    office
        .run(&office.bob, &["subscription", "approve", "3"])
        .await
        .done();
    let list = office.run(&office.bob, &["subscription", "list"]).await;
    assert_eq!(list.done(), "there is no subscription\n");
    let removed = office
        .json(&["subscription", "list", "--all", "--json"])
        .await;
    assert_eq!(removed[0]["state"], "removed");
}

#[tokio::test]
async fn terms_that_are_not_given_are_those_that_the_database_fills_in() {
    let office = Office::open().await;
    let propose = [
        "subscription",
        "propose",
        "one",
        "--url",
        "https://a.example/",
        "--event-type",
        "*",
    ];
    office.run(&office.ada, &propose).await.done();
    let door = "select posthaste.propose_subscription('two', 'https://a.example/', '{*}')";
    office.world.run(door).await;
    let terms = "select count(distinct terms - '{name,partner}'::text[]) from posthaste.subscription_change";
    assert_eq!(office.world.count(terms).await, 1);
}

#[tokio::test]
async fn waits_that_grow_are_asked_for_in_one_flag() {
    let office = Office::open().await;
    let url = "https://a.example/";
    let propose = [
        "subscription",
        "propose",
        "one",
        "--url",
        url,
        "--event-type",
        "*",
        "--retry-exponential",
        "10s/3/1h/4",
        "--rate",
        "100/minute",
    ];
    office.run(&office.ada, &propose).await.done();
    let asked = "select (terms -> 'retry_intervals')::text || ' ' || (terms #>> '{rates,0,period}') from posthaste.subscription_change";
    let kept = r#"["00:00:10", "00:00:30", "00:01:30", "00:04:30"] 00:01:00"#;
    assert_eq!(office.world.text(asked).await, kept);
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_with_the_field_and_the_rule() {
    let office = Office::open().await;
    let propose = [
        "subscription",
        "propose",
        "one",
        "--url",
        "http://a.example/",
        "--event-type",
        "*",
    ];
    office
        .run(&office.ada, &propose)
        .await
        .denied_with("url 'http://a.example/' is not valid");
    let show = ["subscription", "show", "nobody"];
    office
        .run(&office.ada, &show)
        .await
        .denied_with("there is no subscription \"nobody\"");
    let change = ["subscription", "change", "nobody", "--set", "[1]"];
    office
        .run(&office.ada, &change)
        .await
        .refused_with("must be a JSON object");
}

#[tokio::test]
async fn a_secret_is_rotated_shown_and_ended_and_the_audit_log_says_so() {
    let office = Office::open().await;
    office.subscribe().await;
    let reveal = ["secret", "reveal", "university", "--reason", "set-up"];
    office
        .run(&office.ada, &reveal)
        .await
        .denied_with("no key holder has made it yet");
    let list = office.json(&["secret", "list", "--json"]).await;
    assert_eq!(
        (&list[0]["live"], &list[0]["asked_for"]),
        (&json!(0), &json!(1))
    );

    let rotated = office
        .run(&office.ada, &["secret", "rotate", "university"])
        .await;
    let second = rotated.done().trim_end().to_owned();
    let (number, secret) = second.split_once(' ').unwrap();
    assert!(
        number == "2" && SigningSecret::parse(secret).is_ok(),
        "{rotated:?}"
    );
    let third = SigningSecret::generate().unwrap().reveal();
    let import = ["secret", "import", "university", "--reason", "theirs"];
    let imported = office
        .run_with(&office.ada, &import, ("POSTHASTE_SECRET", &third))
        .await;
    assert_eq!(imported.done(), "secret 3 is stored\n");
    let shown = office.run(&office.bob, &reveal).await;
    assert_eq!(shown.done(), format!("{second}\n3 {}\n", *third));
    assert!(shown.stderr.contains("1 more: asked for"), "{shown:?}");
    let end = ["secret", "end", "university", "2", "--reason", "leaked"];
    office.run(&office.ada, &end).await.done();
    assert_eq!(
        office.run(&office.bob, &reveal).await.done(),
        format!("3 {}\n", *third)
    );

    let audit = office
        .json(&["audit", "show", "--object", "university", "--json"])
        .await;
    let mut told = String::new();
    for entry in audit.as_array().unwrap().iter().skip(2) {
        let who = if entry["actor"] == office.ada.name {
            "ada"
        } else {
            "bob"
        };
        let _ = write!(told, "{who} {}, ", entry["action"].as_str().unwrap());
    }
    let expected = "ada secret_rotated, ada secret_revealed, ada secret_imported, \
                    bob secret_revealed, ada secret_ended, bob secret_revealed, ";
    assert_eq!(told, expected);
}

#[tokio::test]
async fn every_stored_secret_moves_under_the_first_key_but_for_one_that_no_key_opens() {
    let office = Office::open().await;
    office.subscribe().await;
    office
        .run(&office.ada, &["secret", "rotate", "university"])
        .await
        .done();
    let import = [
        "secret",
        "import",
        "university",
        "--header",
        "X-Key",
        "--reason",
        "theirs",
    ];
    let imported = office
        .run_with(&office.ada, &import, ("POSTHASTE_SECRET", "CANARY token\n"))
        .await;
    imported.done();

    let new = Keyring::generate_line("new").unwrap();
    let reencrypt = ["secret", "reencrypt", "--reason", "yearly"];
    let both = format!("{},{}", *new, office.keys);
    let done = office
        .run_with(&office.ada, &reencrypt, ("POSTHASTE_KEYS", &both))
        .await;
    assert_eq!(done.done(), "2 encrypted anew under the key new\n");
    let reveal = ["secret", "reveal", "university", "--reason", "look"];
    let shown = office
        .run_with(&office.ada, &reveal, ("POSTHASTE_KEYS", &new))
        .await;
    assert!(shown.done().starts_with("2 whsec_"), "{shown:?}");
    assert_eq!(office.header_value(&new).await, "CANARY token");

    let lost = Keyring::generate_line("another").unwrap();
    let closed = office
        .run_with(&office.ada, &reencrypt, ("POSTHASTE_KEYS", &lost))
        .await;
    assert_eq!(
        (closed.code, closed.stdout.as_str()),
        (1, "0 encrypted anew under the key another\n")
    );
    assert!(closed.stderr.contains("needs the key `new`"), "{closed:?}");
    assert!(!format!("{imported:?}{done:?}{closed:?}").contains("CANARY"));
}

#[tokio::test]
async fn each_of_the_seven_kinds_is_stored_and_moves_under_a_new_key() {
    let office = Office::open().await;
    let (certificate, client_key) = Authority::new().unwrap().client_pem("us").unwrap();
    office.subscribe().await;
    office
        .change(&json!({
            "signatures": ["standard_v1", "standard_v1a", "stripe"], "mask": {"allow": ["/a"], "rest": "pseudonym"},
            "authentication": {"kind": "bearer"}, "tls": {"certificate": certificate},
        }))
        .await;
    for kind in ["shared", "ed25519"] {
        let rotate = ["secret", "rotate", "university", "--kind", kind];
        office.run(&office.ada, &rotate).await.done();
    }
    let (_, another_key) = Authority::new().unwrap().client_pem("us").unwrap();
    for (flags, value, said) in [
        (&["--text"][..], "it's, a CANARY", "secret "),
        (
            &["--header", "X-Key"],
            "CANARY",
            "the header's value is stored",
        ),
        (
            &["--authentication"],
            "CANARY",
            "the secret part of the authentication is stored",
        ),
        (
            &["--client-key"],
            &client_key,
            "the key of the client certificate is stored",
        ),
    ] {
        let stored = office.import(flags, value).await;
        assert!(stored.done().starts_with(said), "{stored:?}");
        assert_eq!(stored.stderr, "", "{stored:?}");
    }
    let misfit = office.import(&["--client-key"], &another_key).await;
    assert!(
        misfit.code != 0
            && misfit
                .stderr
                .contains("it does not belong to the first certificate"),
        "{misfit:?}"
    );
    office
        .import(&["--text", "--authentication"], "x")
        .await
        .refused_with("cannot be used with");
    // The worker makes the pseudonyms' key, and whatever else was asked for.
    let worker = office.world.worker(&[]).await;
    office
        .world
        .until(
            "not exists (select from posthaste.partner_key where ciphertext is null)
                and not exists (select from posthaste.signing_secret where ciphertext is null)",
        )
        .await;
    worker.stop().await.unwrap();

    let kinds = "select count(*) from (select kind from posthaste.signing_secret union select name from posthaste.credential union select 'partner' from posthaste.partner_key) k";
    assert_eq!(office.world.count(kinds).await, 7);
    let all = "select (select count(*) from posthaste.signing_secret) + (select count(*) from posthaste.credential) + (select count(*) from posthaste.partner_key)";
    let all = office.world.count(all).await;
    let new = Keyring::generate_line("new").unwrap();
    let reencrypt = ["secret", "reencrypt", "--reason", "yearly"];
    let both = format!("{},{}", *new, office.keys);
    let done = office
        .run_with(&office.ada, &reencrypt, ("POSTHASTE_KEYS", &both))
        .await;
    assert_eq!(
        done.done(),
        format!("{all} encrypted anew under the key new\n")
    );
    // With the new key alone everything opens, and with the old one nothing.
    let check = office.check(&new).await;
    assert!(
        check.done().contains("1, with all that their terms need"),
        "{check:?}"
    );
    let check = office.check(&office.keys).await;
    for what in [
        "the secret header X-Key",
        "the secret part of the authentication",
        "the key of the client certificate",
        "the key of the pseudonyms",
    ] {
        let failed = check.stdout.lines().any(|line| {
            line.starts_with("FAILED")
                && line.contains(what)
                && line.contains("needs the key `new`")
        });
        assert!(failed, "{what}: {check:?}");
    }
    assert_eq!(office.header_value(&new).await, "CANARY");
}

#[tokio::test]
async fn of_a_private_key_nobody_sees_more_than_the_public_half() {
    let office = Office::open().await;
    office.subscribe().await;
    let rotate = ["secret", "rotate", "university", "--kind", "ed25519"];
    let rotated = office.run(&office.ada, &rotate).await;
    let (number, public) = rotated.done().trim_end().split_once(' ').unwrap();
    let second = PublicKey::parse(public).unwrap();
    assert_eq!(number, "2");
    assert!(
        rotated.stderr.contains("it signs nothing") && rotated.stderr.contains("shown to nobody"),
        "{rotated:?}"
    );
    let revealed = "select count(*) from posthaste.audit where action = 'secret_revealed'";
    assert_eq!(office.world.count(revealed).await, 0);

    office
        .change(&json!({"signatures": ["standard_v1a", "stripe"]}))
        .await;
    let third = SigningSecret::generate_as(SecretKind::Ed25519).unwrap();
    let imported = office.import(&[], &third.reveal()).await;
    let third = third.public_key().unwrap();
    assert_eq!(
        imported.done(),
        format!("secret 3 is stored; its public key is {third}\n")
    );
    // It takes the place of the shared one that was asked for.
    office.import(&["--text"], "it's, a text").await.done();
    let reveal = ["secret", "reveal", "university", "--reason", "set-up"];
    let shown = office.run(&office.bob, &reveal).await;
    assert_eq!(
        shown.done(),
        format!("1 it's, a text\n2 {second}\n3 {third}\n")
    );
    for said in [&rotated, &imported, &shown] {
        assert!(!format!("{said:?}").contains("whsk_"), "{said:?}");
    }

    // Of a subscription that signs with a private key alone, a new one is such a one.
    office
        .change(&json!({"signatures": ["standard_v1a"]}))
        .await;
    let rotated = office
        .run(&office.ada, &["secret", "rotate", "university"])
        .await;
    assert!(rotated.done().starts_with("4 whpk_"), "{rotated:?}");

    let jwks = office.json(&["secret", "jwks", "university"]).await;
    let keys = jwks["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 3, "{jwks}");
    let ids = "select string_agg(secret_id::text, ',' order by number) from posthaste.signing_secret where kind = 'ed25519'";
    let ids = office.world.text(ids).await;
    let told: Vec<&str> = keys
        .iter()
        .map(|key| key["kid"].as_str().unwrap())
        .collect();
    assert_eq!(told.join(","), ids);
    assert_eq!(office.json(&["secret", "jwks"]).await, jwks);
    office
        .run(&office.ada, &["secret", "jwks", "nobody"])
        .await
        .denied_with("there is no subscription \"nobody\"");
}

#[tokio::test]
async fn check_says_what_each_subscription_lacks_and_what_to_do() {
    let office = Office::open().await;
    let world = &office.world;
    let mut ids = Vec::new();
    for name in [
        "replayable",
        "unsigned",
        "unsealed",
        "ended",
        "soon",
        "misshapen",
    ] {
        let url = format!("https://{name}.example/");
        ids.push(world.subscribe_url(name, &url, &["*"], None, "1h").await);
    }
    world
        .change("replayable", r#"{"signatures": ["github", "shopify"]}"#)
        .await;
    world
        .change(
            "unsealed",
            r#"{"authentication": {"kind": "bearer"}, "headers": {"X-Key": {"secret": true}}}"#,
        )
        .await;
    world
        .set_credential("unsealed", ids[2], "X-Key", "CANARY")
        .await;
    world
        .run("update posthaste.credential set ciphertext = ciphertext || '\\x00'")
        .await;
    for (name, days) in [("ended", -1), ("soon", 29)] {
        let certificate = certificate_for(days);
        let terms = json!({"tls": {"certificate": certificate}});
        world.change(name, &terms.to_string()).await;
    }
    world
        .change("misshapen", r#"{"mask": {"allow": ["/a"]}}"#)
        .await;
    world
        .run("insert into posthaste.envelope (name, version, template, content_type, description) values ('broken', 1, '{\"a\": \"{{nothing}}\"}', 'application/json', 'a trial');
              update posthaste.subscription set envelope = 'broken@1', mask = '{\"allow\": 7}' where name = 'misshapen';
              update posthaste.partner_key set key_id = 'k1', ciphertext = '\\x00';
              update posthaste.signing_secret set ends_at = greatest(created_at, now()) where subscription_id = (select subscription_id from posthaste.subscription where name = 'unsigned')")
        .await;
    let text = SigningSecret::parse_as(SecretKind::Text, "theirs").unwrap();
    world.add_secret(ids[1], &text).await;

    let check = office.check(&office.keys).await;
    assert_eq!(check.code, 1, "{check:?}");
    let expected = [
        (
            "WARNING signatures    replayable: github, shopify binds no time",
            "with standard_v1 besides",
        ),
        (
            "WARNING signatures    unsigned: no live secret can sign for standard_v1",
            "`posthaste secret rotate unsigned --kind shared`",
        ),
        (
            "WARNING credentials   unsealed: the secret part of the authentication has not been imported yet",
            "`posthaste secret import unsealed --authentication ...`",
        ),
        (
            "FAILED  credentials   unsealed: the secret header X-Key: ",
            "`posthaste secret import unsealed --header X-Key ...`",
        ),
        (
            "FAILED  certificates  ended: the client certificate of CN=us ended at ",
            "`posthaste subscription change ended`, term tls",
        ),
        (
            "WARNING certificates  soon: the client certificate of CN=us ends at ",
            "`posthaste subscription change soon`, term tls",
        ),
        (
            "WARNING credentials   soon: the key of the client certificate has not been imported yet",
            "`posthaste secret import soon --client-key ...`",
        ),
        ("FAILED  envelopes     misshapen: ", "term envelope"),
        ("FAILED  masks         misshapen: ", "term mask"),
        (
            "FAILED  masks         misshapen: the key of the pseudonyms of \"misshapen\": ",
            "give the keyring the key",
        ),
    ];
    for (line, todo) in expected {
        let told = check
            .stdout
            .lines()
            .any(|said| said.starts_with(line) && said.contains(todo));
        assert!(told, "{line} ... {todo}: {check:?}");
    }
    let about = [
        "signatures ",
        "credentials ",
        "certificates ",
        "envelopes ",
        "masks ",
    ];
    let lines = check.stdout.lines().filter(|line| {
        line.get(8..)
            .is_some_and(|line| about.iter().any(|about| line.starts_with(about)))
    });
    // The key of the ended certificate is missing, too.
    assert_eq!(lines.count(), expected.len() + 1, "{check:?}");
    assert!(!format!("{check:?}").contains("CANARY"));
}

#[tokio::test]
async fn terms_are_shown_without_pem_and_with_what_waits() {
    let office = Office::open().await;
    office.subscribe().await;
    let certificate = certificate_for(400);
    office
        .change(&json!({
            "signatures": ["standard_v1", "stripe"], "authentication": {"kind": "basic", "user": "us"},
            "tls": {"certificate": certificate}, "mask": {"allow": ["/a"]}, "header_prefix": "X-Platform",
        }))
        .await;
    let show = ["subscription", "show", "university"];
    let shown = office.run(&office.bob, &show).await;
    let words: Vec<&str> = shown.done().split_whitespace().collect();
    let shown = words.join(" ");
    for part in [
        "signatures standard_v1, stripe",
        "authentication kind: basic; user: us",
        "tls certificate: CN=us, ends 20",
        "envelope standard@1",
        "header prefix X-Platform",
        "partner university",
        "credentials without value secret import --authentication, --client-key, --header X-Key",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(
        shown.contains(r#""allow":["/a"]"#) && !shown.contains("BEGIN"),
        "{shown}"
    );
    let changes = office
        .run(&office.bob, &["subscription", "changes", "--all"])
        .await;
    assert!(
        changes.done().contains("SHA-256 ") && !changes.stdout.contains("BEGIN"),
        "{changes:?}"
    );
}

/// A certificate of a client that ends in so many days.
fn certificate_for(days: i64) -> String {
    let mut params = rcgen::CertificateParams::default();
    let name = rcgen::DnType::CommonName;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(name, "us");
    let end = SystemTime::now() + Duration::from_hours(24 * (days + 1000).unsigned_abs());
    params.not_after = (end - Duration::from_hours(24 * 1000)).into();
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

#[tokio::test]
async fn a_header_that_is_not_marked_as_secret_takes_no_value() {
    let office = Office::open().await;
    office.subscribe().await;
    let import = [
        "secret",
        "import",
        "university",
        "--header",
        "X-Other",
        "--reason",
        "theirs",
    ];
    let said = office
        .run_with(&office.ada, &import, ("POSTHASTE_SECRET", "CANARY"))
        .await;
    said.denied_with("credential 'X-Other' is not valid");
    let import = [
        "secret",
        "import",
        "university",
        "--header",
        "X-Key",
        "--reason",
        "theirs",
    ];
    let said = office
        .run_with(&office.ada, &import, ("POSTHASTE_SECRET", "CAN\nARY"))
        .await;
    said.refused_with("1 to 2048 visible ASCII characters");
    assert!(!said.stderr.contains("CAN"), "{said:?}");
    office
        .run(&office.ada, &import)
        .await
        .refused_with("nothing to store");
}

#[tokio::test]
async fn a_schema_that_is_none_and_an_example_that_does_not_fit_are_refused() {
    let office = Office::open().await;
    let create = [
        "event-type",
        "create",
        "order.paid",
        "--description",
        "paid",
        "--schema",
        "-",
    ];
    let said = office.give(&create, r#"{"type": "objekt"}"#).await;
    said.denied_with("that is no JSON Schema: at /type");
    assert_eq!(office.give(&create, "{").await.code, 1);
    let schema = r#"{"type": "object",  "required": ["id"]}"#;
    office.give(&create, schema).await.done();
    office
        .give(&create, schema)
        .await
        .denied_with("it is in the catalogue already");
    // As it was written, spaces included.
    let stored = "select schema::text from posthaste.event_type where event_type = 'order.paid'";
    assert_eq!(office.world.text(stored).await, schema);

    let change = ["event-type", "change", "order.paid", "--set"];
    let example = [&change[..], &[r#"{"example": {"id": 1}}"#]].concat();
    office.run(&office.ada, &example).await.done();
    let stricter = ["event-type", "change", "order.paid", "--schema", "-"];
    let said = office
        .give(&stricter, r#"{"properties": {"id": {"type": "string"}}}"#)
        .await;
    said.denied_with("the example breaks its schema: rule /properties/id");
    let retire = [&change[..], &[r#"{"active": false}"#]].concat();
    office.run(&office.ada, &retire).await.done();
    let list = office.json(&["event-type", "list", "--json"]).await;
    assert_eq!(
        (&list[0]["event_type"], &list[0]["active"]),
        (&json!("order.paid"), &json!(false))
    );
    let shown = office
        .run(&office.ada, &["event-type", "show", "order.paid"])
        .await;
    assert!(shown.done().contains(r#"{"id":1}"#), "{shown:?}");
}

#[tokio::test]
async fn the_audit_log_is_verified_against_itself_and_against_what_was_kept() {
    let office = Office::open().await;
    let empty = office.run(&office.ada, &["audit", "verify"]).await;
    assert_eq!(empty.done(), "intact: it is empty\n");
    office.subscribe().await;
    let verified = office.run(&office.ada, &["audit", "verify"]).await;
    assert!(
        verified.done().starts_with("intact, 2 entries"),
        "{verified:?}"
    );
    let kept = verified.stdout.lines().last().unwrap().to_owned();
    let against = ["audit", "verify", "--known", &kept];
    office.run(&office.ada, &against).await.done();
    let forged = format!("2:{}", "0".repeat(64));
    let broken = office
        .run(&office.ada, &["audit", "verify", "--known", &forged])
        .await;
    assert!(
        broken.code == 1 && broken.stdout.starts_with("BROKEN at entry 2: "),
        "{broken:?}"
    );

    office
        .world
        .run(
            "alter table posthaste.audit_log disable trigger no_change;
             update posthaste.audit_log set reason = 'another' where entry = 1",
        )
        .await;
    let broken = office.run(&office.ada, &["audit", "verify"]).await;
    assert!(
        broken.code == 1 && broken.stdout.starts_with("BROKEN at entry 1: "),
        "{broken:?}"
    );
}

#[tokio::test]
async fn a_partition_that_was_changed_after_it_was_sealed_is_named() {
    let office = Office::open().await;
    let old = "select posthaste.create_partition('posthaste.outbox', current_date - 9)";
    office.world.run(old).await;
    let sealed = office.json(&["audit", "seal", "--json"]).await;
    let partition = sealed[0]["partition"].as_str().unwrap().to_owned();
    let verify = ["audit", "verify-seals"];
    office.run(&office.ada, &verify).await.done();
    let unsealed = [&verify[..], &["outbox_19700101"]].concat();
    assert_eq!(office.run(&office.ada, &unsealed).await.code, 1);
    let insert = format!(
        "insert into posthaste.{partition} (event_id, event_type, payload)
         select overlay(posthaste.first_event_id(current_date - 9 + interval '1 hour')::text placing '7' from 15)::uuid, 'a.b', '1'"
    );
    office.world.run(&insert).await;
    let said = office.run(&office.ada, &verify).await;
    assert!(said.done().contains("1 were added later"), "{said:?}");
    let anew = office
        .run(&office.ada, &["audit", "seal", &partition])
        .await;
    assert!(anew.done().contains(&partition), "{anew:?}");
    let said = office.run(&office.ada, &verify).await;
    assert!(!said.done().contains("added later"), "{said:?}");
    let change = format!(
        "alter table posthaste.{partition} disable trigger no_change; update posthaste.{partition} set payload = '2'"
    );
    office.world.run(&change).await;
    let said = office.run(&office.ada, &verify).await;
    assert!(
        said.code == 1
            && said
                .stdout
                .contains("its rows are not those that were sealed"),
        "{said:?}"
    );
}

#[tokio::test]
async fn an_auditor_reads_everything_and_decides_nothing() {
    let office = Office::open().await;
    office.run(&office.ada, &PROPOSE).await.done();
    let auditor = office.world.login("posthaste_auditor").await;
    for listing in [
        &["subscription", "changes"][..],
        &["subscription", "list"],
        &["secret", "list"],
        &["event-type", "list"],
        &["audit", "show"],
        &["audit", "verify"],
    ] {
        office.run(&auditor, listing).await.done();
    }
    // No worker is alive, which is critical.
    let status = office.run(&auditor, &["status"]).await;
    assert_eq!((status.code, status.stderr.as_str()), (4, ""), "{status:?}");
    let approve = ["subscription", "approve", "1"];
    office
        .run(&auditor, &approve)
        .await
        .denied_with("permission denied for function approve");
}

#[tokio::test]
async fn an_administrator_of_one_partner_neither_sees_nor_changes_anothers() {
    let office = Office::open().await;
    office.subscribe().await;
    let scope = format!(
        "select posthaste.set_partner_scope('{}', '{{north}}', 'theirs alone')",
        office.bob.name
    );
    office.world.run(&scope).await;
    let list = office.run(&office.bob, &["subscription", "list"]).await;
    assert_eq!(list.done(), "there is no subscription\n");
    for command in [
        &["subscription", "show", "university"][..],
        &["secret", "rotate", "university"],
        &["secret", "reveal", "university", "--reason", "mine"],
    ] {
        let said = office.run(&office.bob, command).await;
        said.denied_with("there is no subscription \"university\"");
    }
    let reencrypt = ["secret", "reencrypt", "--reason", "all"];
    let said = office.run(&office.bob, &reencrypt).await;
    said.denied_with("may not do what concerns all");
}

#[tokio::test]
async fn check_names_a_grant_that_is_wider_or_narrower_than_agreed() {
    let office = Office::open().await;
    let owner = [
        ("DATABASE_URL", office.world.url()),
        ("POSTHASTE_KEYS", office.keys.as_str()),
    ];
    let check = posthaste(&["check"], &owner, "").await;
    assert!(
        check
            .done()
            .contains("every grant is as posthaste.access says"),
        "{check:?}"
    );
    assert!(
        check
            .stdout
            .contains("a worker needs posthaste_worker alone"),
        "{check:?}"
    );
    office
        .world
        .run(
            "grant select on posthaste.outbox to posthaste_auditor;
             revoke execute on function posthaste.figures from posthaste_worker",
        )
        .await;
    let check = posthaste(&["check"], &owner, "").await;
    assert_eq!(check.code, 1, "{check:?}");
    for deviation in [
        "FAILED  access        select on table outbox for posthaste_auditor: wider",
        "FAILED  access        execute on function figures for posthaste_worker: missing",
    ] {
        assert!(check.stdout.contains(deviation), "{check:?}");
    }
}

#[tokio::test]
async fn status_tells_what_waits_for_people_and_that_one_may_approve_alone() {
    let office = Office::open().await;
    office.subscribe().await;
    office
        .run(&office.ada, &["subscription", "resume", "university"])
        .await
        .denied_with("they change nothing");
    office
        .world
        .run("select posthaste.set_four_eyes(false, 'a holiday')")
        .await;
    let status = office.run(&office.ada, &["status", "--json"]).await;
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let figures = &status["figures"];
    assert_eq!(
        (&figures["four_eyes"], &figures["secrets_missing"]),
        (&json!(0.0), &json!(1.0))
    );
    let status = office.run(&office.ada, &["status"]).await;
    assert!(
        status.stdout.contains("INFO     four_eyes_off"),
        "{status:?}"
    );
    let change = [
        "subscription",
        "change",
        "university",
        "--set",
        r#"{"contact": "ada"}"#,
    ];
    let said = office.run(&office.ada, &change).await;
    assert!(
        said.done()
            .ends_with("next: posthaste subscription approve 2\n"),
        "{said:?}"
    );
    office
        .run(&office.ada, &["subscription", "approve", "2"])
        .await
        .done();
}

#[tokio::test]
async fn dead_letters_are_counted_replayed_and_watched() {
    let office = Office::open().await;
    office.subscribe().await;
    let insert = "insert into posthaste.outbox (event_type, payload) select 'a', '1' from generate_series(1, 3);
        delete from posthaste.intake;
        insert into posthaste.attempt (started_at, event_id, subscription_id, subscription_revision, worker_id, outcome, verdict, rule, replay, number, error)
        select now(), event_id, 1, 1, 1, 'unreachable', 'exhausted', 'no_retries_left', 0, 1, 'no answer' from posthaste.outbox";
    office.world.run(insert).await;
    let known = "update posthaste.subscription set unknown_types = true";
    office.world.run(known).await;
    let event = office
        .world
        .text("select min(event_id::text) from posthaste.outbox")
        .await;

    let since = ["replay", "since", "university", "yesterday"];
    let dry = office
        .run(&office.ada, &[&since[..], &["--dry-run"]].concat())
        .await;
    assert_eq!(
        dry.done(),
        "3 deliveries would be replayed; nothing has changed\n"
    );
    let without_reason = office.run(&office.ada, &since).await;
    without_reason.refused_with("--reason");
    let because = ["--reason", "they are back", "--rate", "7"];
    let one = ["replay", "delivery", &event, "university"];
    let one = office
        .run(&office.ada, &[&one[..], &because].concat())
        .await;
    assert_eq!(
        one.done(),
        "replay 1 is asked for: 1 delivery\nits progress: posthaste replay list\n"
    );
    let again = ["replay", "event", &event];
    let again = office
        .run(&office.ada, &[&again[..], &because].concat())
        .await;
    again.denied_with("replay 1 is to send it");
    let found = ["replay", "where", "error = 'no answer'"];
    let found = office
        .run(&office.ada, &[&found[..], &because].concat())
        .await;
    assert!(found.done().contains("2 deliveries"), "{found:?}");
    let none = office
        .run(&office.ada, &[&since[..], &because].concat())
        .await;
    assert_eq!(none.done(), "there is nothing to replay\n");
    let wrong = ["replay", "where", "nonsense", "--dry-run"];
    let wrong = office.run(&office.ada, &wrong).await;
    wrong.denied_with("does not exist");

    let list = office.json(&["replay", "list", "--json"]).await;
    assert_eq!(
        (
            &list[0]["remaining"],
            &list[0]["rate"],
            &list[1]["asked"]["event_id"]
        ),
        (&json!(2), &json!(7), &json!(event))
    );
    let cancel = ["replay", "cancel", "2", "--reason", "not yet"];
    let cancelled = office.run(&office.bob, &cancel).await;
    assert_eq!(
        cancelled.done(),
        "replay 2 is cancelled: 2 left as they were\n"
    );
    let cancel = ["cancel", &event, "--reason", "after all not"];
    let cancelled = office.run(&office.bob, &cancel).await;
    assert_eq!(cancelled.done(), "to be cancelled: 1 delivery\n");
    let list = office.run(&office.ada, &["replay", "list", "--all"]).await;
    assert!(list.done().contains("cancelled"), "{list:?}");
}

#[tokio::test]
async fn a_test_prints_the_answer_and_fails_where_it_was_not_accepted() {
    let office = Office::open().await;
    let partner = office.world.partner().await;
    let create = "select posthaste.create_event_type('ship.arrived', 'A ship', example => '{}')";
    office.world.run(create).await;
    office
        .world
        .subscribe_to("port", &partner, &["ship.arrived"], None, "1h")
        .await;
    let test = [
        "subscription",
        "test",
        "port",
        "ship.arrived",
        "--reason",
        "new",
    ];
    let nobody = [&test[..], &["--wait", "1ms"]].concat();
    office
        .run(&office.ada, &nobody)
        .await
        .denied_with("no answer yet");
    let _worker = office.world.worker(&[]).await;
    let said = office.run(&office.ada, &test).await;
    let words: Vec<&str> = said.done().split_whitespace().collect();
    assert!(
        words.windows(2).any(|pair| pair == ["outcome", "accepted"])
            && words.windows(2).any(|pair| pair == ["status", "200"]),
        "{said:?}"
    );
    partner.set_reply(posthaste::trial::partner::Reply::Status(503));
    let said = office.run(&office.ada, &test).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("503"), "{said:?}");
    let nothing = [
        "subscription",
        "test",
        "port",
        "ship.sunk",
        "--reason",
        "new",
    ];
    office
        .run(&office.ada, &nothing)
        .await
        .denied_with("it is not in the catalogue");
}

/// Two administrators, each with a login of their own.
struct Office {
    world: World,
    ada: Login,
    bob: Login,
    keys: String,
}

impl Office {
    async fn open() -> Self {
        let world = World::new().await;
        let [ada, bob] = world.two_administrators().await;
        let Config { keys, .. } = world.config(&[]);
        Self {
            keys: keys.unwrap().reveal().to_owned(),
            ada,
            bob,
            world,
        }
    }

    /// Runs a command as this login.
    async fn run(&self, login: &Login, arguments: &[&str]) -> Said {
        self.run_with(login, arguments, ("LC_ALL", "C")).await
    }

    /// The same, with one more variable.
    async fn run_with(&self, login: &Login, arguments: &[&str], variable: (&str, &str)) -> Said {
        let base = [
            ("DATABASE_URL", login.url.as_str()),
            ("POSTHASTE_KEYS", &self.keys),
        ];
        let environment: Vec<_> = base
            .into_iter()
            .filter(|(name, _)| *name != variable.0)
            .chain([variable])
            .collect();
        posthaste(arguments, &environment, "").await
    }

    /// Runs a command as the first administrator, with a text to read.
    async fn give(&self, arguments: &[&str], stdin: &str) -> Said {
        posthaste(arguments, &[("DATABASE_URL", &self.ada.url)], stdin).await
    }

    /// What a listing prints.
    async fn json(&self, arguments: &[&str]) -> Value {
        let said = self.run(&self.ada, arguments).await;
        serde_json::from_str(said.done()).unwrap()
    }

    /// A subscription to all events with a secret header, proposed by one and approved by the other.
    async fn subscribe(&self) {
        self.run(&self.ada, &PROPOSE).await.done();
        let approve = ["subscription", "approve", "1"];
        self.run(&self.bob, &approve).await.done();
    }

    /// Changes its terms: one proposes, the other approves.
    async fn change(&self, terms: &Value) {
        let propose = [
            "subscription",
            "change",
            "university",
            "--set",
            &terms.to_string(),
        ];
        let said = self.run(&self.ada, &propose).await;
        let id = said.done().split_whitespace().nth(1).unwrap();
        let approve = ["subscription", "approve", id];
        self.run(&self.bob, &approve).await.done();
    }

    async fn import(&self, flags: &[&str], value: &str) -> Said {
        let import = ["secret", "import", "university", "--reason", "theirs"];
        let import = [&import[..], flags].concat();
        self.run_with(&self.ada, &import, ("POSTHASTE_SECRET", value))
            .await
    }

    /// `check` as a worker's login, with these keys.
    async fn check(&self, keys: &str) -> Said {
        let config = self.world.config(&[]);
        let url = config.database_url.unwrap();
        let environment = [("DATABASE_URL", url.reveal()), ("POSTHASTE_KEYS", keys)];
        posthaste(&["check"], &environment, "").await
    }

    async fn header_value(&self, keys: &str) -> String {
        let stored = "select subscription_id, secret_id, key_id, ciphertext from posthaste.credential where name = 'X-Key'";
        let row = self.world.db.query_one(stored, &[]).await.unwrap();
        let keyring = Keyring::parse(keys).unwrap();
        let ciphertext: Vec<u8> = row.get(3);
        let sealed = Sealed {
            key_id: row.get(2),
            ciphertext,
        };
        let value =
            keyring.open_credential(CredentialKind::Header, row.get(0), row.get(1), &sealed);
        value.unwrap().to_string()
    }
}

const PROPOSE: [&str; 13] = [
    "subscription",
    "propose",
    "university",
    "--url",
    "https://hooks.university.example/in",
    "--event-type",
    "*",
    "--retry-interval",
    "5s",
    "--retry-interval",
    "1h",
    "--secret-header",
    "X-Key",
];
