//! A login that is scoped to partners sees and changes only what is theirs.

use tokio_postgres::error::SqlState;

use crate::harness::{Login, World, agree, tried};

#[tokio::test]
async fn each_view_shows_the_scoped_only_their_partners_rows() {
    let world = World::new().await;
    let office = furnish(&world).await;
    let [scoped, auditor] = scoped(&world, &office).await;
    for view in VIEWS {
        for login in [&scoped, &auditor] {
            let tenants = format!(
                "select coalesce(string_agg(distinct coalesce(tenant, 'nobody'), ' ' order by coalesce(tenant, 'nobody')), '') from posthaste.{view}"
            );
            assert_eq!(login.one::<String>(&tenants).await, "north", "{view}");
            assert_eq!(
                office[0].one::<String>(&tenants).await,
                "nobody north south",
                "{view}"
            );
        }
    }
    let mapped = "select string_agg(partner, ' ' order by partner) from posthaste.id_map";
    assert_eq!(scoped.one::<String>(mapped).await, "north");
    assert_eq!(auditor.one::<String>(mapped).await, "north");
    assert_eq!(office[0].one::<String>(mapped).await, "north open south");
    // Without a column that says whose it is.
    let unrouted = "select coalesce(string_agg(concat_ws(' ', event_type, held_for::text), ', ' order by event_type), '') from posthaste.unrouted";
    assert_eq!(scoped.one::<String>(unrouted).await, "ship.north {north}");
    assert_eq!(
        office[0].one::<String>(unrouted).await,
        "ship.lost, ship.north {north}, ship.south {south}"
    );
}

#[tokio::test]
async fn the_story_of_another_partners_event_is_not_told() {
    let world = World::new().await;
    let office = furnish(&world).await;
    let [scoped, auditor] = scoped(&world, &office).await;
    for (login, north, south) in [(&scoped, 4, 0), (&auditor, 4, 0), (&office[0], 4, 4)] {
        let told = |tenant: &str| {
            format!(
                "select count(*) from posthaste.event_history('{}')",
                event(tenant)
            )
        };
        assert_eq!(
            login.one::<i64>(&told("north")).await,
            north,
            "{}",
            login.name
        );
        assert_eq!(
            login.one::<i64>(&told("south")).await,
            south,
            "{}",
            login.name
        );
    }
}

#[tokio::test]
async fn the_scoped_act_for_their_partner_and_for_nobody_else() {
    let world = World::new().await;
    let office = furnish(&world).await;
    let [scoped, _] = scoped(&world, &office).await;
    let [ours, theirs, nobodys]: [i64; 3] = [
        office[0].propose("n2", ", tenant => 'north'").await,
        office[0].propose("s2", ", tenant => 'south'").await,
        office[0].propose("o2", "").await,
    ];
    let envelope: i64 = office[0]
        .one(r#"select posthaste.propose_envelope('plain', '"{{data}}"')"#)
        .await;
    let mut refused = vec![
        "posthaste.propose_subscription('x', 'https://x.example/', '{*}')".to_owned(),
        "posthaste.propose_subscription('x', 'https://x.example/', '{*}', tenant => 'south')"
            .to_owned(),
        "posthaste.create_event_type('ship.new', 'x')".to_owned(),
        r#"posthaste.change_event_type('ship.north', '{"active": false}')"#.to_owned(),
        "posthaste.set_secret_rotation('1 day', 'x')".to_owned(),
        "posthaste.set_dedup_window('1 day', 'x')".to_owned(),
        format!(
            "posthaste.set_partner_scope('{}', '{{}}', 'x')",
            scoped.name
        ),
        format!(
            "posthaste.set_partner_scope('{}', '{{south}}', 'x')",
            office[0].name
        ),
        "posthaste.ask_to_reencrypt('x')".to_owned(),
        "posthaste.dismiss_unknown('*', 'x')".to_owned(),
        "posthaste.figures(10)".to_owned(),
        "posthaste.table_figures()".to_owned(),
        "posthaste.subscription_figures(10, '{}')".to_owned(),
        "posthaste.findings()".to_owned(),
        "health from posthaste.health".to_owned(),
        "posthaste.seal_partitions()".to_owned(),
        "posthaste.secrets_to_reencrypt(1, 'k1')".to_owned(),
        "posthaste.reencrypt_secret(gen_random_uuid(), '', 'k1', '')".to_owned(),
        format!("posthaste.release('{}', 'x')", event("south")),
        format!("posthaste.discard('{}', 'x')", event("south")),
        format!("posthaste.replay_event('{}', 'x')", event("south")),
        format!("posthaste.cancel('{}', 'x')", event("south")),
        "posthaste.cancel_replay(2, 'x')".to_owned(),
        r#"posthaste.propose_envelope('ours', '"{{data}}"')"#.to_owned(),
        format!("posthaste.approve({envelope})"),
        format!("posthaste.reject({envelope}, 'x')"),
        "posthaste.map_id('south', 'ship', '2', 'two')".to_owned(),
        "posthaste.map_id('open', 'ship', '2', 'two')".to_owned(),
        format!(
            "posthaste.ask_to_preview('north', '{}', 'x')",
            event("south")
        ),
        format!(
            "posthaste.ask_to_preview('north', '{}', 'x')",
            event("open")
        ),
        format!(
            "posthaste.ask_to_preview('s2', '{}', 'x', {theirs})",
            event("north")
        ),
        format!(
            "posthaste.ask_to_preview('o2', '{}', 'x', {nobodys})",
            event("north")
        ),
    ];
    for name in ["south", "open"] {
        refused.extend([
            format!(r#"posthaste.propose_change('{name}', '{{"active": false}}')"#),
            format!("posthaste.propose_removal('{name}', 'x')"),
            format!("posthaste.deactivate('{name}', 'x')"),
            format!("posthaste.rotate_secret('{name}')"),
            format!("posthaste.add_secret('{name}', gen_random_uuid(), 'k1', '\\x00', 'x')"),
            format!("posthaste.set_credential('{name}', 'Authorization', gen_random_uuid(), 'k1', '\\x00', 'x')"),
            format!("posthaste.end_secret('{name}', 1::smallint, 'x')"),
            format!("posthaste.grant_handshake('{name}', null, 'x')"),
            format!("posthaste.ask_to_preview('{name}', '{}', 'x')", event(name)),
            format!("posthaste.ask_to_reveal('{name}', 'x')"),
            format!("posthaste.replay_delivery('{}', '{name}', 'x')", event(name)),
            format!("posthaste.replay_since('{name}', '-infinity', 'x')"),
            format!("posthaste.send_test('{name}', 'ship.north', 'x')"),
            format!("posthaste.cancel('{}', 'x', '{name}')", event(name)),
        ]);
    }
    for change in [theirs, nobodys] {
        refused.extend([
            format!("posthaste.approve({change})"),
            format!("posthaste.reject({change}, 'x')"),
        ]);
    }
    let refused: Vec<String> = refused
        .into_iter()
        .map(|call| format!("select {call}"))
        .collect();
    for (call, (code, said)) in refused.iter().zip(tried(&scoped.db, &refused, true).await) {
        // What they may not see is not there; what they may see, they may not do for all.
        let is_hidden = code == "23514"
            && (said.contains("there is no") || said.contains("none of its deliveries"));
        assert!(is_hidden || code == "42501", "{call}: {code} {said}");
    }
    let entries = format!(
        "select count(*) from posthaste.audit where actor = '{}'",
        scoped.name
    );
    assert_eq!(office[0].one::<i64>(&entries).await, 0);

    let allowed: Vec<String> = [
        format!("posthaste.approve({ours})"),
        "posthaste.propose_subscription('n3', 'https://n3.example/', '{*}', tenant => 'north')"
            .into(),
        r#"posthaste.propose_change('north', '{"concurrency": 1}')"#.into(),
        "posthaste.rotate_secret('north')".into(),
        "posthaste.ask_to_reveal('north', 'x')".into(),
        format!("posthaste.release('{}', 'x')", event("north")),
        "posthaste.deactivate('north', 'x')".into(),
        "posthaste.map_id('north', 'ship', '2', 'two')".into(),
        format!(
            "posthaste.ask_to_preview('north', '{}', 'x')",
            event("north")
        ),
    ]
    .map(|call| format!("select {call}"))
    .into();
    for (call, met) in allowed.iter().zip(tried(&scoped.db, &allowed, true).await) {
        assert_eq!(met.0, "PH000", "{call}: {}", met.1);
    }
    assert_eq!(office[0].one::<i64>(&entries).await, 9);
    // All of that concerned their partner alone, so they see it on the record.
    assert_eq!(scoped.one::<i64>(&entries).await, 9);
}

#[tokio::test]
async fn a_scope_is_given_and_lifted_on_the_record_and_only_to_a_login() {
    let world = World::new().await;
    let office = furnish(&world).await;
    let [scoped, _] = scoped(&world, &office).await;
    let set = |login: &str, tenants: &str| {
        format!("select posthaste.set_partner_scope({login}, {tenants}, 'by contract')")
    };
    for (login, tenants, rule) in [
        (
            "'posthaste_admin'",
            "'{north}'",
            "no role of that name that logs in",
        ),
        (
            "'nobody there'",
            "'{north}'",
            "no role of that name that logs in",
        ),
        ("null", "'{north}'", "no role of that name that logs in"),
        ("LOGIN", "null", "a list of at most 1000 partners"),
        ("LOGIN", "'{north,NULL}'", "a list of at most 1000 partners"),
        (
            "LOGIN",
            "array_fill('north'::text, '{1001}')",
            "a list of at most 1000 partners",
        ),
        ("LOGIN", "array['']", "1 to 128 characters"),
    ] {
        let login = login.replace("LOGIN", &format!("'{}'", scoped.name));
        let refused = office[0].refused(&set(&login, tenants)).await;
        assert!(
            refused.code() == &SqlState::CHECK_VIOLATION && refused.message().contains(rule),
            "{refused:?}"
        );
    }
    let sees = "select count(*) from posthaste.consumer";
    assert_eq!(scoped.one::<i64>(sees).await, 1);
    office[0]
        .run(&set(&format!("'{}'", scoped.name), "'{north,south,south}'"))
        .await;
    assert_eq!(scoped.one::<i64>(sees).await, 2);
    office[0]
        .run(&set(&format!("'{}'", scoped.name), "'{}'"))
        .await;
    assert_eq!(scoped.one::<i64>(sees).await, 3);
    let entry = format!(
        "select string_agg(format('%s > %s', before, after), ', ' order by entry) from posthaste.audit where action = 'partner_scope_set' and object = '{}'",
        scoped.name
    );
    assert_eq!(
        office[1].one::<String>(&entry).await,
        r#" > ["north"], ["north"] > ["north", "south", "south"], ["north", "south"] > []"#
    );
}

#[tokio::test]
async fn becoming_another_role_lifts_no_scope() {
    let world = World::new().await;
    let office = furnish(&world).await;
    let [scoped, _] = scoped(&world, &office).await;
    world
        .run(&format!("grant {} to {}", office[0].name, scoped.name))
        .await;
    for role in [office[0].name.as_str(), "posthaste_admin"] {
        scoped.run(&format!("set role {role}")).await;
        assert_eq!(
            scoped
                .one::<i64>("select count(*) from posthaste.consumer")
                .await,
            1
        );
        let refused = scoped
            .refused("select posthaste.deactivate('south', 'x')")
            .await;
        assert!(
            refused.message().contains("there is none of that name"),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn the_scoped_do_not_learn_who_else_is() {
    let world = World::new().await;
    let office = furnish(&world).await;
    let [scoped, _] = scoped(&world, &office).await;
    let other = world.login("posthaste_auditor").await;
    let scope = format!(
        "select posthaste.set_partner_scope('{}', '{{south}}', 'of south')",
        other.name
    );
    office[0].run(&scope).await;
    let sees = "select string_agg(tenant, ' ' order by tenant) from posthaste.partner_scope";
    assert_eq!(scoped.one::<String>(sees).await, "north");
    assert_eq!(other.one::<String>(sees).await, "south");
    assert_eq!(office[0].one::<String>(sees).await, "north north south");
}

/// Subscriptions of north, of south and of no partner; an event, an attempt and a quarantined delivery of each.
async fn furnish(world: &World) -> [Login; 2] {
    let office = world.two_administrators().await;
    for name in ["north", "south", "open"] {
        let tenant = if name == "open" {
            String::new()
        } else {
            format!(", tenant => '{name}'")
        };
        let id = agree(&office, name, &tenant).await;
        let waits = format!("r-{name}");
        office[0].propose(&waits, &tenant).await;
        let quoted = if name == "open" {
            "null".into()
        } else {
            format!("'{name}'")
        };
        let (event, held) = (event(name), name != "open");
        world
            .run(&format!(
                "select posthaste.create_event_type('ship.{name}', 'x');
                 insert into posthaste.outbox (event_id, event_type, payload, tenant) values ('{event}', 'ship.{name}', '{{}}', {quoted});
                 insert into posthaste.attempt (started_at, event_id, subscription_id, subscription_revision, worker_id, outcome, verdict, rule, replay, number, error)
                 values (now(), '{event}', {id}, 1, 1, 'unreachable', 'exhausted', 'no_retries_left', 1, 1, 'no answer');
                 select posthaste.tell('posthaste.delivery.exhausted', 'error', {id}, '{event}', 1::smallint);
                 insert into posthaste.quarantine (event_id, subscription_id, replay, attempts, reason)
                 select '{event}', {id}, 0, 0, 'it breaks the schema' where {held};
                 insert into posthaste.preparation (subscription_id, kind, worker_id, url, duration_us, outcome)
                 values ({id}, 'token', 1, 'https://token.example/', 1, 'accepted');
                 insert into posthaste.handshake (subscription_id, url, origin) values ({id}, 'https://{name}.example/', 'us.example');
                 insert into posthaste.signing_secret (secret_id, subscription_id, number, kind, key_id, ciphertext, public_key)
                 values (gen_random_uuid(), {id}, 9, 'ed25519', 'k1', '\\x00', sha256('{name}'));
                 insert into posthaste.external_id (partner, kind, internal, external) values ('{name}', 'ship', '1', 'one');
                 insert into posthaste.replay (kind, asked, reason) values ('replay', '{{}}', 'they asked');
                 insert into posthaste.replay_part (replay_id, subscription_id, total) select max(replay_id), {id}, 1 from posthaste.replay"
            ))
            .await;
    }
    let lost = "insert into posthaste.unknown_event_type (event_type, events, last_event) values ('ship.lost', 1, gen_random_uuid())";
    world.run(lost).await;
    office
}

/// An administrator and an auditor of north.
async fn scoped(world: &World, office: &[Login; 2]) -> [Login; 2] {
    let logins = [
        world.login("posthaste_admin").await,
        world.login("posthaste_auditor").await,
    ];
    for login in &logins {
        let scope = format!(
            "select posthaste.set_partner_scope('{}', '{{north}}', 'of north')",
            login.name
        );
        office[0].run(&scope).await;
    }
    logins
}

fn event(tenant: &str) -> String {
    let place = ["north", "south", "open"]
        .iter()
        .position(|name| *name == tenant)
        .unwrap();
    format!("01900000-0000-7000-8000-00000000000{place}")
}

const VIEWS: [&str; 15] = [
    "event",
    "delivery",
    "attempt_log",
    "dead_letter",
    "operations",
    "replay_progress",
    "subscription_terms",
    "subscription_overview",
    "consumer",
    "secret_overview",
    "change",
    "audit",
    "preparation_log",
    "handshake_log",
    "public_key",
];
