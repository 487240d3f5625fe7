//! Nothing leaves but to a subscription that one administrator proposed and another approved, exactly as it was proposed.

use futures_util::future::join_all;
use posthaste::endpoint::{EndpointUrl, PlainHttp};
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use crate::harness::{Login, World, agree, refusal, said};

#[tokio::test]
async fn nobody_approves_their_own_change() {
    let world = World::new().await;
    let [ada, bob] = world.two_administrators().await;
    let change = ada.propose("harbour", "").await;
    let approve = format!("select posthaste.approve({change})");
    world
        .run(&format!("grant {} to {}", bob.name, ada.name))
        .await;

    for disguise in [
        String::new(),
        format!("set role {}", bob.name),
        "set role posthaste_admin".into(),
        format!("set posthaste.application_user = '{}'", bob.name),
        "reset role; set application_name = 'somebody else'".into(),
    ] {
        ada.run(&disguise).await;
        own_change(&refusal(&ada.db, &approve).await, &ada);
    }
    own_change(&refusal(&ada.session().await, &approve).await, &ada);
    let become_bob = format!("set session authorization {}", bob.name);
    let refused = ada.refused(&become_bob).await;
    assert_eq!(refused.code(), &SqlState::INSUFFICIENT_PRIVILEGE);

    assert_eq!(state(&world, change).await, "open");
    assert_eq!(
        world
            .count("select count(*) from posthaste.subscription")
            .await,
        0
    );
    bob.run(&approve).await;
    assert_eq!(state(&world, change).await, "approved");
}

#[tokio::test]
async fn whom_an_api_acts_for_does_not_approve_their_own_change_either() {
    let world = World::new().await;
    let [api, other_api] = world.two_administrators().await;
    let set = |who: &str| format!("set posthaste.application_user = '{who}'");
    api.run(&set("eve")).await;
    let change = api.propose("harbour", "").await;
    let approve = format!("select posthaste.approve({change})");

    // Another login, the same person.
    other_api.run(&set("eve")).await;
    let refused = other_api.refused(&approve).await;
    let told = format!("was proposed by eve through {}", api.name);
    assert!(refused.message().contains(&told), "{refused:?}");
    // Another person, the same login: whoever holds it could name anybody.
    api.run(&set("mallory")).await;
    assert_eq!(
        api.refused(&approve).await.code(),
        &SqlState::INSUFFICIENT_PRIVILEGE
    );

    other_api.run(&set("zoe")).await;
    other_api.run(&approve).await;
    let who = "select concat_ws(' ', proposed_for, decided_for) from posthaste.change";
    assert_eq!(world.text(who).await, "eve zoe");
}

#[tokio::test]
async fn somebody_with_a_login_and_an_api_is_one_person() {
    let world = World::new().await;
    let [ada, api] = world.two_administrators().await;
    let for_ada = format!("set posthaste.application_user = '{}'", ada.name);
    api.run(&for_ada).await;
    for (proposes, approves) in [(&ada, &api), (&api, &ada)] {
        let change = proposes.propose("harbour", "").await;
        let approve = format!("select posthaste.approve({change})");
        let refused = approves.refused(&approve).await;
        assert_eq!(refused.code(), &SqlState::INSUFFICIENT_PRIVILEGE);
        assert_eq!(state(&world, change).await, "open");
    }
}

#[tokio::test]
async fn what_is_approved_is_what_was_proposed() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let [ada, bob] = &office;
    ada.run("select posthaste.create_event_type('ship.arrived', 'A ship'), posthaste.create_event_type('ship.left', 'Gone')")
        .await;
    let change: i64 = ada
        .one(
            r#"select posthaste.propose_subscription('harbour', 'https://harbour.example:8443/in?a=1', '{ship.left,ship.arrived}',
                tenant => 'north', filter => '$.size > 10', retry_intervals => '{1 s,90 min,1 day 2 hours}', retry_jitter => '0.25',
                timeout => '7.5 s', concurrency => 3, headers => '{"X-Berth": "7", "Authorization": {"secret": true}}',
                networks => '{203.0.113.0/24:8443,2001:DB8::/32}', description => 'Where ships are', contact => 'harbour@north.example',
                reason => 'they asked for it')"#,
        )
        .await;
    let id: i32 = bob
        .one(&format!("select posthaste.approve({change})"))
        .await;
    exactly(&world, change, id).await;
    // A change leaves all else as it is; the difference is what an approver reads.
    let changes = r#"{"url": "https://other.example/", "timeout": null, "retry_intervals": []}"#;
    let change: i64 = ada
        .one(&format!(
            "select posthaste.propose_change('harbour', '{changes}')"
        ))
        .await;
    let what = format!("select what::text from posthaste.change where change_id = {change}");
    let what: Value = serde_json::from_str(&bob.one::<String>(&what).await).unwrap();
    assert_eq!(
        what,
        json!({
            "url": {"from": "https://harbour.example:8443/in?a=1", "to": "https://other.example/"},
            "timeout": {"from": "00:00:07.5", "to": null},
            "retry_intervals": {"from": ["00:00:01", "01:30:00", "1 day 02:00:00"], "to": []},
        })
    );
    bob.run(&format!("select posthaste.approve({change})"))
        .await;
    exactly(&world, change, id).await;
}

#[tokio::test]
async fn a_change_is_stale_once_other_terms_stand() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let [ada, bob] = &office;
    agree(&office, "harbour", "").await;
    let [moved, slowed, removed] = [
        r#"change('harbour', '{"url": "https://moved.example/"}')"#,
        r#"change('harbour', '{"concurrency": 1}')"#,
        "removal('harbour', 'over')",
    ]
    .map(|what| format!("select posthaste.propose_{what}"));
    let [moved, slowed, removed]: [i64; 3] = [
        ada.one(&moved).await,
        ada.one(&slowed).await,
        ada.one(&removed).await,
    ];
    bob.run(&format!("select posthaste.approve({moved})")).await;
    for change in [slowed, removed] {
        stale(bob, change).await;
    }

    let paused: i64 = ada
        .one(r#"select posthaste.propose_change('harbour', '{"description": "x"}')"#)
        .await;
    bob.run("select posthaste.deactivate('harbour', 'flooded')")
        .await;
    stale(bob, paused).await;
    // It can be put away, by whoever proposed it too.
    ada.run(&format!("select posthaste.reject({paused}, 'stale')"))
        .await;
    bob.run(&format!("select posthaste.reject({slowed}, 'stale')"))
        .await;
    assert_eq!(state(&world, paused).await, "rejected");
    let terms = "select posthaste.terms(s) ->> 'url' from posthaste.subscription s";
    assert_eq!(world.text(terms).await, "https://moved.example/");
}

#[tokio::test]
async fn an_approval_waits_for_a_pause_under_way_and_is_stale_then() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let [ada, bob] = &office;
    agree(&office, "harbour", "").await;
    let change: i64 = ada
        .one(r#"select posthaste.propose_change('harbour', '{"concurrency": 1}')"#)
        .await;
    ada.run("begin; select posthaste.deactivate('harbour', 'it floods us')")
        .await;
    let approval = async { stale(bob, change).await };
    let pause = async {
        world
            .until("exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')")
            .await;
        ada.run("commit").await;
    };
    tokio::join!(approval, pause);
    assert_eq!(ada.one::<String>(STATE).await, "paused");
}

#[tokio::test]
async fn a_transaction_left_open_holds_up_no_proposal_and_no_act_for_long() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let [ada, bob] = &office;
    agree(&office, "harbour", "").await;
    let propose = r#"select posthaste.propose_change('harbour', '{"concurrency": 1}')"#;
    let [held, waiting]: [i64; 2] = [ada.one(propose).await, ada.one(propose).await];
    world
        .run(&format!(
            "begin; select from posthaste.subscription for no key update;
             select from posthaste.subscription_change where change_id = {held} for update"
        ))
        .await;
    ada.run(propose).await;
    ada.run("select posthaste.propose_removal('harbour', 'over'), posthaste.ask_to_reveal('harbour', 'lost')")
        .await;
    let acts = [
        "deactivate('harbour', 'flood')".to_owned(),
        "rotate_secret('harbour')".to_owned(),
        format!("approve({waiting})"),
        format!("approve({held})"),
        format!("reject({held}, 'no')"),
    ];
    let refused = acts.iter().map(|act| async move {
        let session = bob.session().await;
        let refused = refusal(&session, &format!("select posthaste.{act}")).await;
        let is_told = refused
            .message()
            .contains("a transaction that is still open");
        assert!(
            refused.code() == &SqlState::LOCK_NOT_AVAILABLE && is_told,
            "{act}: {refused:?}"
        );
    });
    join_all(refused).await;
    world.run("rollback").await;
    bob.run("select posthaste.deactivate('harbour', 'flood')")
        .await;
}

#[tokio::test]
async fn a_change_is_decided_once() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let [ada, bob] = &office;
    let approved = ada.propose("harbour", "").await;
    bob.run(&format!("select posthaste.approve({approved})"))
        .await;
    let rejected = ada.propose("bridge", "").await;
    bob.run(&format!("select posthaste.reject({rejected}, 'no')"))
        .await;
    let expired = ada.propose("tower", "").await;
    let expire = "alter table posthaste.subscription_change disable trigger change_is_decided_once;
        update posthaste.subscription_change set expires_at = now() where change_id = CHANGE;
        alter table posthaste.subscription_change enable always trigger change_is_decided_once";
    world
        .run(&expire.replace("CHANGE", &expired.to_string()))
        .await;
    assert_eq!(state(&world, expired).await, "expired");

    let decided = format!("approved by {} at", bob.name);
    let refused = format!("rejected by {} at", bob.name);
    for (change, rule) in [
        (approved, decided.as_str()),
        (rejected, &refused),
        (expired, "it expired at"),
        (4711, "there is no such change"),
    ] {
        let said = bob
            .refused(&format!("select posthaste.approve({change})"))
            .await;
        assert!(said.message().contains(rule), "{said:?}");
    }
    for change in [approved, rejected] {
        let said = bob
            .refused(&format!("select posthaste.reject({change}, 'no')"))
            .await;
        assert!(
            said.message().contains(&format!("by {} at", bob.name)),
            "{said:?}"
        );
    }
    assert_eq!(
        world
            .text("select string_agg(name, ' ') from posthaste.subscription")
            .await,
        "harbour"
    );
}

#[tokio::test]
async fn of_many_who_approve_at_once_one_does() {
    let world = World::new().await;
    let [ada, bob] = world.two_administrators().await;
    let change = ada.propose("harbour", "").await;
    let approve = format!("select posthaste.approve({change})");
    let sessions = join_all((0..10).map(|_| bob.session())).await;
    let race = (0..50).map(|number| sessions[number % 10].batch_execute(&approve));
    let results = join_all(race).await;
    let refusals: Vec<_> = results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .collect();
    assert_eq!(refusals.len(), 49);
    for refusal in refusals {
        assert!(
            said(refusal).message().contains("approved by"),
            "{refusal:?}"
        );
    }
    let made = "select format('%s %s %s', (select count(*) from posthaste.subscription), (select count(*) from posthaste.signing_secret),
        (select count(*) from posthaste.audit_log where action = 'approved_create'))";
    assert_eq!(world.text(made).await, "1 1 1");
}

#[tokio::test]
async fn a_proposal_cannot_be_edited_by_anyone() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let change = office[0].propose("harbour", "").await;
    for role in ["origin", "replica"] {
        // A replica's session fires no ordinary trigger; only a superuser may call itself one.
        world
            .run(&format!(
                "reset role; set session_replication_role = {role}; set role posthaste_owner"
            ))
            .await;
        for edit in [
            "update posthaste.subscription_change set terms = jsonb_set(terms, '{url}', '\"https://evil.example/\"')",
            "update posthaste.subscription_change set proposed_by = 'somebody else'",
            "update posthaste.subscription_change set proposed_for = 'somebody else'",
            "update posthaste.subscription_change set expires_at = 'infinity'",
            "update posthaste.subscription_change set subscription_id = 4711",
            "update posthaste.subscription_change set reason = 'another'",
            "delete from posthaste.subscription_change",
            "truncate posthaste.subscription_change",
        ] {
            let refused = refusal(&world.db, edit).await;
            assert_eq!(
                refused.code(),
                &SqlState::INSUFFICIENT_PRIVILEGE,
                "{edit}: {refused:?}"
            );
            assert!(
                refused.message().contains("is refused: "),
                "{edit}: {refused:?}"
            );
        }
    }
    office[1]
        .run(&format!("select posthaste.reject({change}, 'no')"))
        .await;
    let again = "update posthaste.subscription_change set decision = 'approved'";
    assert!(
        refusal(&world.db, again)
            .await
            .message()
            .contains("decided once")
    );
}

#[tokio::test]
async fn one_may_pause_and_two_must_resume() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let [ada, bob] = &office;
    agree(&office, "harbour", "").await;
    let refused = ada
        .refused("select posthaste.deactivate('harbour', ' ')")
        .await;
    assert!(refused.message().starts_with("reason "), "{refused:?}");
    ada.run("select posthaste.deactivate('harbour', 'it floods us')")
        .await;
    assert_eq!(ada.one::<String>(STATE).await, "paused");
    let refused = ada
        .refused("select posthaste.deactivate('harbour', 'again')")
        .await;
    assert!(
        refused.message().contains("it is not active already"),
        "{refused:?}"
    );

    let resume: i64 = ada
        .one(r#"select posthaste.propose_change('harbour', '{"active": true}')"#)
        .await;
    own_change(
        &ada.refused(&format!("select posthaste.approve({resume})"))
            .await,
        ada,
    );
    assert_eq!(ada.one::<String>(STATE).await, "paused");
    bob.run(&format!("select posthaste.approve({resume})"))
        .await;
    assert_eq!(ada.one::<String>(STATE).await, "waits for a signing secret");
}

#[tokio::test]
async fn a_removed_subscription_frees_its_name_and_keeps_its_history() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let [ada, bob] = &office;
    let id = agree(&office, "harbour", ", description => 'the first'").await;
    let change: i64 = ada
        .one(r#"select posthaste.propose_change('harbour', '{"description": "renovated"}')"#)
        .await;
    bob.run(&format!("select posthaste.approve({change})"))
        .await;
    let removal: i64 = ada
        .one("select posthaste.propose_removal('harbour', 'they left')")
        .await;
    own_change(
        &ada.refused(&format!("select posthaste.approve({removal})"))
            .await,
        ada,
    );
    bob.run(&format!("select posthaste.approve({removal})"))
        .await;

    let again = agree(&office, "harbour", ", description => 'the second'").await;
    assert_ne!(again, id);
    let revisions = "select string_agg(format('%s%s %s %s', r.terms ->> 'description', case when not (r.terms ->> 'active')::boolean then ' (over)' end,
            r.changed_by = LOGIN, r.until is null), ', ' order by r.subscription_id, r.revision)
        from posthaste.subscription_terms r where r.subscription_id in (FIRST, SECOND)";
    let revisions = revisions
        .replace("LOGIN", &format!("'{}'", bob.name))
        .replace("FIRST", &id.to_string())
        .replace("SECOND", &again.to_string());
    // The first of each has its secret asked for, which is a revision too.
    assert_eq!(
        ada.one::<String>(&revisions).await,
        "the first t f, the first t f, renovated t f, renovated (over) t f, renovated (over) t t, the second t f, the second t t"
    );
    let overview = "select string_agg(format('%s %s', subscription_id, state), ', ' order by subscription_id) from posthaste.subscription_overview";
    assert_eq!(
        ada.one::<String>(overview).await,
        format!("{id} removed, {again} waits for a signing secret")
    );
    assert_eq!(
        ada.one::<i64>("select count(*) from posthaste.consumer")
            .await,
        1
    );
    assert!(world.holds(&format!("(select ends_at <= now() from posthaste.signing_secret where subscription_id = {id})")).await);
}

#[tokio::test]
async fn four_eyes_are_switched_by_the_owner_alone_and_on_the_record() {
    let world = World::new().await;
    let [ada, bob] = world.two_administrators().await;
    let off = "select posthaste.set_four_eyes(false, 'there is only one of us')";
    assert_eq!(
        ada.refused(off).await.message(),
        "permission denied for function set_four_eyes"
    );
    let edit = "update posthaste.setting set four_eyes = false";
    assert_eq!(
        ada.refused(edit).await.message(),
        "permission denied for table setting"
    );
    let change = ada.propose("harbour", "").await;
    let approve = format!("select posthaste.approve({change})");
    own_change(&ada.refused(&approve).await, &ada);

    world.run(&format!("set role posthaste_owner; {off}")).await;
    let entry = "select format('%s %s %s %s', action, before, after, reason) from posthaste.audit order by entry desc limit 1";
    assert_eq!(
        bob.one::<String>(entry).await,
        r#"four_eyes_set {"four_eyes": true} {"four_eyes": false} there is only one of us"#
    );
    ada.run(&approve).await;
    assert_eq!(state(&world, change).await, "approved");
    let who =
        "select format('%s %s', proposed_by = approved_by, approved_by) from posthaste.consumer";
    assert_eq!(bob.one::<String>(who).await, format!("t {}", ada.name));
}

#[tokio::test]
async fn what_was_right_when_it_was_proposed_is_judged_again_when_it_is_approved() {
    let world = World::new().await;
    let [ada, bob] = world.two_administrators().await;
    ada.run("select posthaste.create_event_type('ship.arrived', 'A ship')")
        .await;
    let [first, second] = [
        ada.propose("harbour", "").await,
        ada.propose("harbour", "").await,
    ];
    let propose = "select posthaste.propose_subscription('bridge', 'https://bridge.example/', '{ship.arrived}')";
    let retired: i64 = ada.one(propose).await;
    bob.run(&format!("select posthaste.approve({first})")).await;
    let refused = bob
        .refused(&format!("select posthaste.approve({second})"))
        .await;
    assert!(
        refused.message().contains("it is not free any more"),
        "{refused:?}"
    );
    ada.run(r#"select posthaste.change_event_type('ship.arrived', '{"active": false}')"#)
        .await;
    let refused = bob
        .refused(&format!("select posthaste.approve({retired})"))
        .await;
    assert!(
        refused
            .message()
            .contains("not in the catalogue, or not active"),
        "{refused:?}"
    );
    assert_eq!(
        world
            .count("select count(*) from posthaste.subscription")
            .await,
        1
    );
}

#[tokio::test]
async fn bad_terms_are_refused_with_their_field_and_the_rule_and_leave_nothing() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let ada = &office[0];
    ada.run("select posthaste.create_event_type('ship.arrived', 'A ship'), posthaste.create_event_type('ship.sunk', 'Gone')").await;
    ada.run(r#"select posthaste.change_event_type('ship.sunk', '{"active": false}')"#)
        .await;
    agree(&office, "harbour", "").await;
    agree(&office, "bridge", "").await;
    let before = world.text(ROWS).await;
    let bad = bad_terms();
    assert!(bad.len() >= 200, "{}", bad.len());
    for (changes, field, rule) in bad {
        let change = ada
            .db
            .query(
                "select posthaste.propose_change('harbour', $1::text::jsonb)",
                &[&changes.to_string()],
            )
            .await;
        let refused = said(&change.expect_err(&changes.to_string()));
        assert_eq!(
            refused.code(),
            &SqlState::CHECK_VIOLATION,
            "{changes}: {refused:?}"
        );
        let told = refused.message();
        assert!(
            told.starts_with(&format!("{field} ")) && told.contains(rule) && told.len() < 1_000,
            "{changes}: {told}"
        );
        assert!(!format!("{refused:?}").contains("s3cret"), "{refused:?}");
        if let Some(url) = changes["url"].as_str() {
            // No worker takes for good what nobody can agree to; but for what is only written otherwise, in capitals.
            let taken = EndpointUrl::parse(url, PlainHttp::Never);
            assert!(taken.is_err() || url.to_lowercase() != url, "{url}");
        }
    }
    assert_eq!(world.text(ROWS).await, before);
}

#[tokio::test]
async fn what_is_not_even_a_proposal_leaves_nothing() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let ada = &office[0];
    agree(&office, "harbour", "").await;
    let before = world.text(ROWS).await;
    for (call, field) in [
        (
            "subscription(null, 'https://a.example/', '{*}')",
            "name 'null'",
        ),
        (
            "subscription('harbour', 'https://a.example/', '{*}')",
            "name 'harbour'",
        ),
        ("subscription('a', null, '{*}')", "url 'null'"),
        (
            "subscription('a', 'https://a.example/', null)",
            "event_types 'null'",
        ),
        (
            "subscription('a', 'https://a.example/', '{}')",
            "event_types '[]'",
        ),
        (
            "subscription('a', 'https://a.example/', '{NULL}')",
            "event_types '[null]'",
        ),
        (
            "subscription('a', 'https://a.example/', '{{*},{*}}')",
            "event_types ",
        ),
        (
            "subscription('a', 'https://a.example/', '{*}', unknown_types => null)",
            "unknown_types 'null'",
        ),
        (
            "subscription('a', 'https://a.example/', '{*}', retry_intervals => null)",
            "retry_intervals 'null'",
        ),
        (
            "subscription('a', 'https://a.example/', '{*}', retry_intervals => '{NULL}')",
            "retry_intervals 'null'",
        ),
        (
            "subscription('a', 'https://a.example/', '{*}', retry_intervals => '{-1 s}')",
            "retry_intervals ",
        ),
        (
            "subscription('a', 'https://a.example/', '{*}', retry_jitter => 'NaN')",
            "retry_jitter 'NaN'",
        ),
        (
            "subscription('a', 'https://a.example/', '{*}', retry_jitter => 'Infinity')",
            "retry_jitter 'Infinity'",
        ),
        (
            "subscription('a', 'https://a.example/', '{*}', headers => null)",
            "headers 'null'",
        ),
        (
            "subscription('a', 'https://a.example/', '{*}', networks => null)",
            "networks 'null'",
        ),
        (
            "subscription('a', 'https://a.example/', '{*}', networks => '{NULL}')",
            "network 'null'",
        ),
        (
            "subscription('a', 'https://a.example/', '{*}', reason => repeat('x', 1001))",
            "reason ",
        ),
        ("change('harbour', null)", "changes NULL"),
        ("change('harbour', '{}')", "changes '{}'"),
        ("change('harbour', '[]')", "changes '[]'"),
        (
            "change('harbour', '{\"active\": true}')",
            "changes '{\"active\": true}' is not valid: they change nothing",
        ),
        (
            "change('nobody', '{\"active\": true}')",
            "subscription 'nobody'",
        ),
        ("change(null, '{\"active\": true}')", "subscription 'null'"),
        ("removal('nobody', 'x')", "subscription 'nobody'"),
        ("removal('harbour', null)", "reason 'null'"),
        ("removal('harbour', '')", "reason ''"),
    ] {
        let refused = ada
            .refused(&format!("select posthaste.propose_{call}"))
            .await;
        assert_eq!(
            refused.code(),
            &SqlState::CHECK_VIOLATION,
            "{call}: {refused:?}"
        );
        assert!(refused.message().starts_with(field), "{call}: {refused:?}");
    }
    assert_eq!(world.text(ROWS).await, before);
}

#[tokio::test]
async fn good_terms_are_kept_in_one_form() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let [ada, bob] = &office;
    ada.run("select posthaste.create_event_type('ship.arrived', 'A ship'), posthaste.create_event_type('ship.left', 'Gone')").await;
    agree(&office, "harbour", "").await;
    let good = good_terms();
    assert!(good.len() >= 40, "{}", good.len());
    for (field, given, kept) in good {
        let changes = json!({field: given, "description": format!("{field} {given}").chars().take(1000).collect::<String>()}).to_string();
        let change = ada
            .db
            .query_one("select posthaste.propose_change(subscription, $1::text::jsonb) from posthaste.consumer", &[&changes])
            .await;
        let change: i64 = change.expect(&changes).get(0);
        let id: i32 = bob
            .one(&format!("select posthaste.approve({change})"))
            .await;
        exactly(&world, change, id).await;
        let terms: Value = serde_json::from_str(
            &world
                .text("select posthaste.terms(s)::text from posthaste.subscription s")
                .await,
        )
        .unwrap();
        assert_eq!(terms[field], kept, "{changes}");
        EndpointUrl::parse(terms["url"].as_str().unwrap(), PlainHttp::LoopbackOnly).unwrap();
    }
}

/// What the approved change, the subscription and its newest revision say is one and the same.
async fn exactly(world: &World, change: i64, id: i32) {
    let same = "select format('%s %s', c.terms = posthaste.terms(s), c.terms = r.terms)
        from posthaste.subscription_change c, posthaste.subscription s, posthaste.subscription_revision r
        where c.change_id = CHANGE and s.subscription_id = ID and r.subscription_id = ID and r.revision = s.revision";
    let same = same
        .replace("CHANGE", &change.to_string())
        .replace("ID", &id.to_string());
    assert_eq!(world.text(&same).await, "t t", "change {change}");
}

async fn stale(who: &Login, change: i64) {
    let refused = who
        .refused(&format!("select posthaste.approve({change})"))
        .await;
    assert_eq!(refused.code(), &SqlState::T_R_SERIALIZATION_FAILURE);
    assert!(refused.message().contains("is stale: "), "{refused:?}");
}

async fn state(world: &World, change: i64) -> String {
    world
        .text(&format!(
            "select state from posthaste.change where change_id = {change}"
        ))
        .await
}

#[track_caller]
fn own_change(refused: &tokio_postgres::error::DbError, login: &Login) {
    assert_eq!(refused.code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    let told = format!(
        "was proposed by {}: another administrator must approve it",
        login.name
    );
    assert!(refused.message().ends_with(&told), "{refused:?}");
}

/// Changes that are refused, the field that is named, and a piece of the rule.
fn bad_terms() -> Vec<(Value, &'static str, &'static str)> {
    let (mut bad, mut named) = (too_much(), ("", ""));
    for line in lines(include_str!("approval/bad_terms.txt")) {
        match line.strip_prefix("-- ") {
            Some(title) => named = title.split_once(": ").unwrap(),
            None => bad.push((serde_json::from_str(line).expect(line), named.0, named.1)),
        }
    }
    bad
}

/// One more than there may be of each.
fn too_much() -> Vec<(Value, &'static str, &'static str)> {
    let text = |length| "x".repeat(length);
    let host = "abcdefgh.".repeat(30);
    let headers: serde_json::Map<_, _> = (0..21).map(|n| (format!("X-{n}"), json!("x"))).collect();
    vec![
        (
            json!({"url": format!("https://a.example/{}", text(2031))}),
            "url",
            "at most 2048 characters",
        ),
        (
            json!({"url": format!("https://{host}example/")}),
            "url",
            "at most 253 characters",
        ),
        (
            json!({"headers": {"X-Berth": text(2049)}}),
            "header X-Berth",
            "1 to 2048 visible ASCII",
        ),
        (json!({"headers": headers}), "headers", "at most 20"),
        (
            json!({"retry_intervals": vec!["1s"; 51]}),
            "retry_intervals",
            "a list of at most 50",
        ),
        (
            json!({"networks": vec!["10.0.0.0/8"; 51]}),
            "networks",
            "a list of at most 50",
        ),
        (
            json!({"event_types": vec!["ship.arrived"; 1001]}),
            "event_types",
            "a list of 1 to 1000",
        ),
        (
            json!({"filter": text(1001)}),
            "filter",
            "a text of 1 to 1000",
        ),
        (
            json!({"description": text(1001)}),
            "description",
            "a text of 1 to 1000",
        ),
        (
            json!({"contact": text(201)}),
            "contact",
            "a text of 1 to 200",
        ),
    ]
}

/// Fields, values that are taken, and how they are kept.
fn good_terms() -> Vec<(&'static str, Value, Value)> {
    let (mut good, mut field) = (Vec::new(), "");
    let value = |text: &str| -> Value { serde_json::from_str(text).expect(text) };
    for line in lines(include_str!("approval/good_terms.txt")) {
        if let Some(title) = line.strip_prefix("-- ") {
            field = title;
            continue;
        }
        let (given, kept) = line.split_once(" -> ").unwrap_or((line, line));
        good.push((field, value(given), value(kept)));
    }
    good
}

/// Those after the first paragraph, which says what they are.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let (_, cases) = text.split_once("\n\n").unwrap();
    cases.lines().filter(|line| !line.is_empty())
}

const STATE: &str =
    "select state from posthaste.subscription_overview where subscription = 'harbour'";

/// How many rows there are of all that a proposal could leave.
const ROWS: &str = "select format('%s %s %s %s', (select count(*) from posthaste.subscription_change), (select count(*) from posthaste.audit_log),
    (select count(*) from posthaste.subscription), (select count(*) from posthaste.subscription_revision))";
