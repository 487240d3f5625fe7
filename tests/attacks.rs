//! Whoever may do a little cannot make it more: not by what stands in the way of names, not by what stands in a text, not by asking
//! in another way.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::harness::{Login, World, agree, one, tried};

#[tokio::test]
async fn nothing_that_stands_in_the_way_of_a_name_is_used_for_the_real_thing() {
    let world = World::new().await;
    harbour(&world).await;
    for role in ["producer", "worker", "admin", "auditor"] {
        let login = world.login(&format!("posthaste_{role}")).await;
        let calls = calls(&world, role, None).await;
        assert!(!calls.is_empty());
        let before = outcomes(&login.db, &calls).await;
        world
            .run(&format!("create schema lair authorization {}", login.name))
            .await;
        login.run(include_str!("attacks/lair.sql")).await;
        assert!(
            login
                .one::<i64>("select count(*) from trap where is_set")
                .await
                > 800
        );
        login.run("set search_path = lair, pg_catalog").await;
        assert_eq!(outcomes(&login.db, &calls).await, before);
        assert_eq!(sprung(&world).await, "", "as {role}");

        // The traps are good ones: they catch the unwary, in one's own name and in the owner's.
        login
            .run("select length('x'::text) operator(lair.+) 1")
            .await;
        assert_eq!(sprung(&world).await, "diverted");
        world
            .run(&format!(
                "create function posthaste.unwary() returns bigint language plpgsql security definer as 'begin return length(''x''::text); end';
                 alter function posthaste.unwary owner to posthaste_owner; grant execute on function posthaste.unwary to {}",
                login.name
            ))
            .await;
        login.run("select posthaste.unwary()").await;
        assert_eq!(sprung(&world).await, "diverted stolen");
        login.run("discard all").await;
        world
            .run("drop schema lair cascade; drop function posthaste.unwary")
            .await;
    }
}

#[tokio::test]
async fn a_hostile_text_is_refused_in_few_words_or_kept_as_it_is() {
    let world = World::new().await;
    let [_, bob] = harbour(&world).await;
    // Whoever tries all this had better not scope itself.
    let somebody_else = format!("'{}'", bob.name);
    world
        .run("update posthaste.signing_secret set key_id = 'k1', ciphertext = '\\xfeedc0de'")
        .await;
    world.run("set search_path = pg_catalog").await;
    let catalogue = catalogue(&world.db).await;
    let mut count = 0;
    for role in ["producer", "worker", "admin", "auditor"] {
        let login = world.login(&format!("posthaste_{role}")).await;
        for text in HOSTILE {
            let calls = calls(&world, role, Some(text)).await;
            let statements: Vec<String> = calls
                .iter()
                .map(|call| call.2.replace("session_user", &somebody_else))
                .collect();
            for ((function, parameter, _), (code, said)) in
                calls.iter().zip(tried(&login.db, &statements, true).await)
            {
                // Done; or a value that is refused. Never what would have been read as SQL.
                let is_clean = code == "PH000" || code.starts_with("22") || code.starts_with("23");
                assert!(is_clean, "{function}, {parameter} = {text}: {code} {said}");
                // What a producer has refuse say is the producer's own.
                let is_short = said.len() < 1_500 || function == "refuse";
                assert!(
                    is_short && !said.contains("feedc0de"),
                    "{function}, {parameter} = {text}: {said}"
                );
                count += 1;
            }
        }
    }
    assert!(count > 1_000, "{count}");
    assert_eq!(self::catalogue(&world.db).await, catalogue);
    assert_eq!(
        world
            .text("select problem from posthaste.verify_audit()")
            .await,
        ""
    );
}

#[tokio::test]
async fn what_is_kept_is_kept_literally() {
    let world = World::new().await;
    let [ada, bob] = harbour(&world).await;
    let producer = world.login("posthaste_producer").await;
    for text in [
        "'; drop table posthaste.setting; --",
        "$$ %I %L $1 \\ \" ''",
        "{\"secret\": true}",
        "\u{202e}\u{1f41a}",
    ] {
        let change = ada
            .db
            .query_one("select posthaste.propose_change('harbour', jsonb_build_object('description', $1::text), $1)", &[&text])
            .await
            .unwrap();
        bob.db
            .execute(
                "select posthaste.approve($1, $2)",
                &[&change.get::<_, i64>(0), &text],
            )
            .await
            .unwrap();
        let kept = "select concat_ws('|', description, reason, decision_reason) from posthaste.consumer, posthaste.change order by change_id desc limit 1";
        assert_eq!(ada.one::<String>(kept).await, [text; 3].join("|"));
        let insert = "insert into posthaste.outbox (event_type, tenant, payload) values ('a', $1, to_json($1::text))";
        producer.db.execute(insert, &[&text]).await.unwrap();
        let kept = "select tenant || '|' || (payload #>> '{}') from posthaste.event order by event_id desc limit 1";
        assert_eq!(ada.one::<String>(kept).await, [text; 2].join("|"));
    }
}

#[tokio::test]
async fn a_producer_reads_nothing_at_all() {
    let world = World::new().await;
    harbour(&world).await;
    let known = world
        .publish("ship.arrived", r#"{"passenger": "ada"}"#)
        .await;
    let producer = world.login("posthaste_producer").await;
    let insert = "insert into posthaste.outbox (event_type, payload) values ('a', '{}')";
    let mut refused = vec![
        format!("{insert} returning event_id"),
        format!("{insert} returning *"),
        format!("{insert} returning xmin"),
        format!("{insert} on conflict (event_id) do update set payload = excluded.payload"),
        format!("{insert} on conflict (event_id) do update set payload = '{{}}' returning payload"),
        format!("insert into posthaste.outbox (event_id, event_type, payload) values ('{known}', 'a', '{{}}') on conflict (event_id) do nothing returning payload"),
        "insert into posthaste.outbox (event_type, payload) select 'a', payload from posthaste.outbox".to_owned(),
        "with o as (select * from posthaste.outbox) select count(*) from o".to_owned(),
        "update posthaste.outbox set payload = '{}'".to_owned(),
        "delete from posthaste.outbox".to_owned(),
        "truncate posthaste.outbox".to_owned(),
        "copy posthaste.outbox to stdout".to_owned(),
        "begin; lock table posthaste.outbox in access exclusive mode".to_owned(),
        "begin; lock table posthaste.outbox in share mode".to_owned(),
        "create table pg_temp.copy (like posthaste.outbox)".to_owned(),
        "create trigger mine after insert on posthaste.outbox for each row execute function posthaste.take_in()".to_owned(),
        "create rule mine as on insert to posthaste.outbox do also select 1".to_owned(),
        "alter table posthaste.outbox add column mine text".to_owned(),
        "alter table posthaste.outbox disable trigger all".to_owned(),
        "create index on posthaste.outbox (event_id)".to_owned(),
        "create policy mine on posthaste.outbox".to_owned(),
        "comment on table posthaste.outbox is 'mine'".to_owned(),
        "create table posthaste.mine ()".to_owned(),
        "create function posthaste.mine() returns void language sql return null".to_owned(),
        "insert into posthaste.outbox_default (event_type, payload) values ('a', '{}')".to_owned(),
        "insert into posthaste.intake (event_id) values (gen_random_uuid())".to_owned(),
        "set role posthaste_owner".to_owned(),
        "set role posthaste_admin".to_owned(),
        "set session_replication_role = replica".to_owned(),
    ];
    for sequence in [
        "worker_worker_id_seq",
        "subscription_subscription_id_seq",
        "subscription_change_change_id_seq",
    ] {
        for read in ["currval", "nextval"] {
            refused.push(format!("select {read}('posthaste.{sequence}')"));
        }
        refused.push(format!("select setval('posthaste.{sequence}', 1)"));
        refused.push(format!("select * from posthaste.{sequence}"));
    }
    all_refused(&producer, &refused).await;

    // To give what one has not is no error in SQL, and gives nothing.
    producer
        .run("grant select, insert on posthaste.outbox to current_user")
        .await;
    assert_eq!(
        world
            .count("select count(*) from posthaste.access_deviation()")
            .await,
        0
    );
    // What is its own it learns from publish, and of what is there it learns no more than that an id is taken.
    assert_eq!(
        producer
            .one::<String>("select posthaste.publish('a', '{}')::text")
            .await
            .len(),
        36
    );
    let again = format!(
        "insert into posthaste.outbox (event_id, event_type, payload) values ('{known}', 'a', '{{}}')"
    );
    let taken = producer.refused(&again).await;
    assert!(!format!("{taken:?}").contains("passenger"), "{taken:?}");
    // Statistics hold values: nobody sees those of what they may not read.
    world.run("analyze posthaste.outbox").await;
    assert_eq!(
        producer
            .one::<i64>("select count(*) from pg_stats where schemaname = 'posthaste'")
            .await,
        0
    );
}

#[tokio::test]
async fn an_auditor_does_nothing_and_reads_no_payload() {
    let world = World::new().await;
    harbour(&world).await;
    world
        .publish("ship.arrived", r#"{"passenger": "ada"}"#)
        .await;
    let auditor = world.login("posthaste_auditor").await;
    let mut refused: Vec<String> = [
        "select payload from posthaste.event",
        "select * from posthaste.event",
        "select e from posthaste.event e",
        "select to_jsonb(e) from posthaste.event e",
        "select 1 from posthaste.event where payload::text like '%ada%'",
        "select 1 from posthaste.event order by payload::text",
        "select event_id from posthaste.event e where e::text like '%ada%'",
        "copy posthaste.event to stdout",
        "select * from posthaste.outbox",
        "select * from posthaste.attempt",
        "select * from posthaste.audit_log",
        "select * from posthaste.subscription",
        "select * from posthaste.signing_secret",
        "select * from posthaste.credential",
        "update posthaste.queue set due_at = now()",
        "insert into posthaste.queue select event_id, now(), 1, 1, 0 from posthaste.event",
        "delete from posthaste.partner_scope",
        "update posthaste.setting set four_eyes = false",
        "insert into posthaste.outbox (event_type, payload) values ('a', '{}')",
        "select posthaste.publish('a', '{}')",
        "insert into posthaste.audit (entry) values (7)",
        "update posthaste.audit set reason = 'x'",
        "delete from posthaste.audit",
        "set role posthaste_admin",
    ]
    .map(str::to_owned)
    .into();
    refused.extend(acts(&world).await);
    all_refused(&auditor, &refused).await;
}

#[tokio::test]
async fn a_worker_changes_no_terms_and_no_secret() {
    let world = World::new().await;
    harbour(&world).await;
    world
        .run("update posthaste.signing_secret set key_id = 'k1', ciphertext = 'x'")
        .await;
    let worker = world.login("posthaste_worker").await;
    let mut refused: Vec<String> = [
        "update posthaste.subscription set url = 'https://evil.example/'",
        "update posthaste.subscription set active = true",
        "insert into posthaste.subscription (name, url, event_types, retry_intervals, retry_jitter) values ('x', 'https://x.example/', '{*}', '{}', 0)",
        "delete from posthaste.subscription",
        "insert into posthaste.subscription_event_type values ('*', '', 1)",
        "insert into posthaste.subscription_revision (subscription_id, revision, terms, signing_secrets) values (1, 9, '{}', '{}')",
        "select terms from posthaste.subscription_revision",
        "update posthaste.subscription_change set decision = 'approved'",
        "select * from posthaste.subscription_change",
        "update posthaste.signing_secret set ciphertext = 'y'",
        "delete from posthaste.signing_secret",
        "insert into posthaste.event_type (event_type, description) values ('a', 'a')",
        "update posthaste.event_type set active = false",
        "update posthaste.quarantine set decision = 'released'",
        "insert into posthaste.quarantine (decision, decided_by) values ('released', 'ada')",
        "delete from posthaste.quarantine",
        "update posthaste.cancellation set reason = 'x'",
        "delete from posthaste.cancellation",
        "update posthaste.attempt set error = 'x'",
        "delete from posthaste.attempt",
        "insert into posthaste.outbox (event_type, payload) values ('a', '{}')",
        "update posthaste.outbox set payload = '{}'",
        "update posthaste.queue set due_at = now()",
        "update posthaste.lane set active = true",
        "update posthaste.worker set name = 'x'",
        "delete from posthaste.worker",
        "select * from posthaste.audit_log",
        "select * from posthaste.audit",
        "update posthaste.audit_head set entry = 0",
        "update posthaste.setting set four_eyes = false",
        "insert into posthaste.access values ('x', '', '', '', '')",
        "update posthaste.migration set checksum = 'x'",
    ]
    .map(str::to_owned)
    .into();
    refused.extend(acts(&world).await);
    all_refused(&worker, &refused).await;
    let secret: uuid::Uuid = worker
        .one("select secret_id from posthaste.signing_secret")
        .await;
    assert!(
        !worker
            .one::<bool>(&format!(
                "select posthaste.fill_secret('{secret}', 'k2', 'y')"
            ))
            .await
    );
}

#[tokio::test]
async fn an_administrator_reaches_nothing_but_by_the_doors() {
    let world = World::new().await;
    let [ada, _] = harbour(&world).await;
    let mut refused: Vec<String> = [
        "select ciphertext from posthaste.signing_secret",
        "select count(*) from posthaste.signing_secret",
        "select ciphertext from posthaste.credential",
        "select posthaste.fill_secret(gen_random_uuid(), 'k1', 'x')",
        "select * from posthaste.outbox",
        "select * from posthaste.outbox_default",
        "insert into posthaste.outbox (event_type, payload) values ('a', '{}')",
        "select posthaste.publish('a', '{}')",
        "select * from posthaste.attempt",
        "insert into posthaste.attempt (number) values (1)",
        "update posthaste.queue set due_at = now()",
        "delete from posthaste.queue",
        "select * from posthaste.subscription_change",
        "insert into posthaste.subscription_change (subscription_id, kind, terms, proposed_by, expires_at) values (1, 'create', '{}', 'somebody', 'infinity')",
        "update posthaste.subscription_change set proposed_by = 'somebody'",
        "select * from posthaste.subscription",
        "update posthaste.subscription set url = 'https://evil.example/'",
        "update posthaste.consumer set active = true",
        "delete from posthaste.change",
        "update posthaste.audit set actor = 'somebody'",
        "select * from posthaste.audit_log",
        "update posthaste.setting set four_eyes = false",
        "select posthaste.set_four_eyes(false, 'x')",
        "insert into posthaste.partner_scope values ('x', 'y')",
        "delete from posthaste.partner_scope",
        "update posthaste.event_type set active = false",
        "insert into posthaste.migration (version, name, checksum) values (9, 'x', 'x')",
        "select posthaste.note('approved_create', 'x', null, null, null, null)",
        "select posthaste.propose('create', 1, null, '{}', null)",
        "select posthaste.decide(1, 'approved', 'x')",
        "select posthaste.decide_quarantine(gen_random_uuid(), 'released', 'x')",
        "select posthaste.create_partition('posthaste.outbox', current_date)",
        "select posthaste.apply_access()",
        "drop table posthaste.audit_log",
        "drop schema posthaste cascade",
        "alter function posthaste.approve(bigint, text) security invoker",
        "set role posthaste_owner",
        "set session_replication_role = replica",
    ]
    .map(str::to_owned)
    .into();
    refused.push("alter role posthaste_owner login".into());
    all_refused(&ada, &refused).await;
}

#[tokio::test]
async fn a_function_that_tells_what_it_is_given_is_not_given_another_partners_rows() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    for tenant in ["north", "south"] {
        agree(
            &office,
            tenant,
            &format!(", tenant => '{tenant}', description => 'the secret of {tenant}'"),
        )
        .await;
        let event = "insert into posthaste.outbox (event_type, payload, tenant) values ('a', '\"the secret of TENANT\"', 'TENANT')";
        world.run(&event.replace("TENANT", tenant)).await;
    }
    let auditor = world.login("posthaste_auditor").await;
    office[0]
        .run(&format!(
            "select posthaste.set_partner_scope('{}', '{{north}}', 'of north')",
            auditor.name
        ))
        .await;
    // Cheap, so that the planner would rather ask it first.
    auditor
        .run(
            "create temporary table heard (what text);
             create function pg_temp.tells(what text) returns boolean language plpgsql cost 0.0000001 as $$
             begin insert into pg_temp.heard values (what); return true; end $$",
        )
        .await;
    let columns = "select table_name::text, column_name::text from information_schema.columns
        where table_schema = 'posthaste' and table_name in (select table_name from information_schema.views where table_schema = 'posthaste')
          and has_column_privilege('posthaste.' || table_name, column_name, 'select')
          -- Refused to whoever is scoped.
          and table_name <> 'health'";
    let columns = auditor.db.query(columns, &[]).await.unwrap();
    assert!(columns.len() > 100);
    for row in &columns {
        let (view, column): (String, String) = (row.get(0), row.get(1));
        auditor
            .run(&format!(
                "select count(*) from posthaste.{view} where pg_temp.tells({column}::text)"
            ))
            .await;
        auditor.run(&format!("select count(*) from posthaste.{view} where pg_temp.tells({column}::text) or {column} is null")).await;
    }
    let heard = |what: &str| format!("select count(*) from pg_temp.heard where what ~ '{what}'");
    assert!(auditor.one::<i64>(&heard("north")).await > 10);
    assert_eq!(auditor.one::<i64>(&heard("south")).await, 0);
}

/// A subscription `harbour` to all, agreed by two administrators, an event type, and a second change that waits.
async fn harbour(world: &World) -> [Login; 2] {
    let office = world.two_administrators().await;
    office[0]
        .run("select posthaste.create_event_type('ship.arrived', 'A ship')")
        .await;
    agree(&office, "harbour", "").await;
    office[0].propose("bridge", "").await;
    office
}

/// The functions that a role may execute, the parameter that is hostile, and the call.
async fn calls(world: &World, role: &str, hostile: Option<&str>) -> Vec<(String, String, String)> {
    let literal = hostile.map(|text| match text {
        // Longer than anything that anybody means.
        "LONG" => "pg_catalog.repeat('x', 300000)".to_owned(),
        _ => format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
    });
    let rows = world
        .db
        .query(include_str!("attacks/calls.sql"), &[&role, &literal])
        .await
        .unwrap();
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

/// A call of each function that is an administrator's alone.
async fn acts(world: &World) -> Vec<String> {
    let owned = "select object from posthaste.access where admin = 'execute' and auditor = '' and worker = ''";
    let functions: BTreeSet<String> = world
        .db
        .query(owned, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let calls = calls(world, "admin", None).await.into_iter();
    calls
        .filter(|(function, ..)| functions.contains(&format!("function {function}")))
        .map(|(_, _, call)| call)
        .collect()
}

/// What each call, each view and an event come to; none of it stays.
async fn outcomes(db: &Client, calls: &[(String, String, String)]) -> Vec<String> {
    let views = VIEWS.map(|view| format!("select * from posthaste.{view}"));
    let inserts = ["insert into posthaste.outbox (event_type, payload, tenant, metadata) values ('a.b', '{}', 'north', '{}')".to_owned()];
    let mut outcomes = Vec::new();
    for statement in calls
        .iter()
        .map(|call| &call.2)
        .chain(&views)
        .chain(&inserts)
    {
        db.batch_execute("begin").await.unwrap();
        let met = db.batch_execute(statement).await;
        db.batch_execute("rollback").await.unwrap();
        let said = met
            .err()
            .map_or("done".into(), |error| format!("{:?}", error.code()));
        outcomes.push(format!("{statement}: {said}"));
    }
    outcomes
}

/// Which traps were sprung.
async fn sprung(world: &World) -> String {
    let sprung = "select concat_ws(' ', (select 'diverted' from lair.diverted where is_called), (select 'stolen' from lair.stolen where is_called))";
    one(&world.db, sprung).await
}

async fn all_refused(login: &Login, statements: &[String]) {
    for statement in statements {
        let refused = login.refused(statement).await;
        login.run("rollback").await;
        let said = refused.message();
        let is_refused = said.starts_with("permission denied") || said.starts_with("must be ");
        // No view can be written through, whoever asks.
        let is_impossible = refused.code().code() == "55000" && said.starts_with("cannot ");
        assert!(
            (refused.code().code() == "42501" && is_refused) || is_impossible,
            "{statement}: {refused:?}"
        );
    }
}

async fn catalogue(db: &Client) -> BTreeSet<String> {
    let rows = db.query(include_str!("catalogue.sql"), &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

const VIEWS: [&str; 14] = [
    "attempt_log",
    "audit",
    "change",
    "consumer",
    "dead_letter",
    "delivery",
    "event",
    "replay_progress",
    "secret_overview",
    "setting",
    "subscription_overview",
    "subscription_terms",
    "unrouted",
    "worker_alive",
];

const HOSTILE: [&str; 30] = [
    "'; drop table posthaste.setting; --",
    "'); drop schema posthaste cascade; --",
    "' or '1' = '1",
    "$$; drop schema posthaste cascade; $$",
    "$1",
    "%I",
    "%s%L%1$s%%",
    "\\",
    "\\'; select 1/0; --",
    "\"; drop table posthaste.setting; --",
    "\"",
    "''",
    "{}",
    "{\"a\": 1}",
    "}{",
    "{NULL}",
    "\\u0000",
    "\\x00",
    "/*",
    "--",
    ";",
    "a\r\nb",
    "\u{1b}[31m",
    "\u{202e}\u{1f41a}\u{fffd}",
    "../../../etc/passwd",
    "posthaste.signing_secret",
    "(select string_agg(ciphertext::text, '') from posthaste.signing_secret)",
    "' || (select string_agg(ciphertext::text, '') from posthaste.signing_secret) || '",
    "",
    "LONG",
];
