//! Every act is on the record, and no record can be changed without its being noticed.

use futures_util::future::join_all;
use tokio_postgres::error::SqlState;

use crate::harness::{Login, World, agree, refusal};

#[tokio::test]
async fn every_act_leaves_its_entry() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let [ada, bob] = &office;
    let acts = acts(&world, &office).await;
    ada.run("set posthaste.application_user = 'eve'").await;
    bob.run("set posthaste.application_user = 'zoe'").await;
    for (who, call, expected) in &acts {
        let (login, person) = if *who == "ada" {
            (ada, "eve")
        } else {
            (bob, "zoe")
        };
        login.run(&format!("select * from posthaste.{call}")).await;
        assert_eq!(last_entry(&world).await, *expected, "{call}");
        let by = "select format('%s for %s', actor, application_user) from posthaste.audit_log where at > now() - interval '1 min' order by entry desc limit 1";
        assert_eq!(
            world.text(by).await,
            format!("{} for {person}", login.name),
            "{call}"
        );
    }
    assert_eq!(verdict(&world, "").await, "t");

    // Whatever administrators may call, and auditors may not, is an act; but for what hands out what an act has asked for.
    let functions =
        "select string_agg(split_part(object, ' ', 2), ' ' order by object) from posthaste.access
        where admin = 'execute' and auditor = '' and object !~ ' (reveal|secrets_to_reencrypt|preview_source)$'";
    let mut called: Vec<&str> = acts
        .iter()
        .map(|(_, call, _)| call.split('(').next().unwrap())
        .collect();
    called.sort_unstable();
    called.dedup();
    assert_eq!(world.text(functions).await, called.join(" "));
}

#[tokio::test]
async fn what_only_the_owner_may_do_leaves_its_entry_too() {
    let world = World::new().await;
    world.two_administrators().await;
    world
        .run("set posthaste.application_user = ''; select posthaste.set_four_eyes(false, 'alone')")
        .await;
    let entry = r#"four_eyes_set|setting||{"four_eyes": true}|{"four_eyes": false}|alone"#;
    assert_eq!(last_entry(&world).await, entry);
    assert!(world.holds("(select actor = session_user and application_user is null from posthaste.audit_log order by entry desc limit 1)").await);
    // By hand, as a replica's session, and right after an act that gave its reason: in vain.
    for (change, entry) in [
        (
            "select posthaste.set_four_eyes(true, 'two'); update posthaste.setting set four_eyes = false",
            r#"four_eyes_set|setting||{"four_eyes": true}|{"four_eyes": false}|"#,
        ),
        (
            "set session_replication_role = replica; update posthaste.setting set four_eyes = true",
            r#"four_eyes_set|setting||{"four_eyes": false}|{"four_eyes": true}|"#,
        ),
        (
            "set role posthaste_owner; update posthaste.setting set secrets_rotate = '1 year'",
            r#"secrets_rotate_set|setting||{"secrets_rotate": "90 days"}|{"secrets_rotate": "1 year"}|"#,
        ),
        (
            "delete from posthaste.setting",
            r#"secrets_rotate_set|setting||{"secrets_rotate": "1 year"}|{"secrets_rotate": null}|"#,
        ),
        (
            "truncate posthaste.setting",
            "setting_truncated|setting||||",
        ),
    ] {
        world.run(change).await;
        assert_eq!(last_entry(&world).await, entry, "{change}");
    }
}

#[tokio::test]
async fn no_text_without_bounds_gets_into_the_log() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let [ada, bob] = &office;
    agree(&office, "harbour", "").await;
    ada.run("select posthaste.create_event_type('ship.arrived', 'A ship')")
        .await;
    let change = ada.propose("bridge", "").await;
    let before = entries(&world).await;
    let (long, large) = (
        "repeat('x', 1001)",
        "json_build_object('x', repeat('x', 65536))",
    );
    for (act, field) in [
        (
            format!("change_event_type('ship.arrived', '{{\"active\": false}}', {long})"),
            "reason",
        ),
        (
            format!("propose_change('harbour', '{{\"concurrency\": 1}}', {long})"),
            "reason",
        ),
        (format!("propose_removal('harbour', {long})"), "reason"),
        (format!("approve({change}, {long})"), "reason"),
        (format!("reject({change}, {long})"), "reason"),
        (format!("deactivate('harbour', {long})"), "reason"),
        (
            format!("rotate_secret('harbour', reason => {long})"),
            "reason",
        ),
        (
            format!("create_event_type('ship.left', {long})"),
            "description",
        ),
        (
            format!("create_event_type('ship.left', 'Gone', schema => {large})"),
            "schema",
        ),
        (
            format!("create_event_type('ship.left', 'Gone', example => {large})"),
            "example",
        ),
        (
            "create_event_type('ship.left', 'Gone', owner => repeat('x', 201))".to_owned(),
            "owner",
        ),
        (
            format!("change_event_type('ship.arrived', jsonb_build_object('schema', {large}))"),
            "schema",
        ),
    ] {
        let refused = bob.refused(&format!("select posthaste.{act}")).await;
        let told = refused.message();
        assert!(
            refused.code() == &SqlState::CHECK_VIOLATION
                && told.starts_with(&format!("{field} "))
                && told.contains(" at most ")
                || told.contains("1 to 1000 characters"),
            "{act}: {refused:?}"
        );
    }
    bob.run("select set_config('posthaste.application_user', repeat('x', 129), false)")
        .await;
    let refused = bob
        .refused("select posthaste.deactivate('harbour', 'flood')")
        .await;
    let rule = "posthaste.application_user 'xxx";
    assert!(refused.message().starts_with(rule), "{refused:?}");
    assert_eq!(entries(&world).await, before);
}

#[tokio::test]
async fn an_act_that_is_rolled_back_leaves_no_entry_and_no_gap() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    agree(&office, "harbour", "").await;
    let before = entries(&world).await;
    office[0]
        .run("begin; select posthaste.deactivate('harbour', 'x'); rollback")
        .await;
    let refused = office[0]
        .refused("select posthaste.deactivate('harbour', 'x'); select 1 / 0")
        .await;
    assert_eq!(refused.code(), &SqlState::DIVISION_BY_ZERO);
    assert_eq!(entries(&world).await, before);
    office[0]
        .run("select posthaste.deactivate('harbour', 'x')")
        .await;
    assert_eq!(entries(&world).await, before + 1);
    assert_eq!(verdict(&world, "").await, "t");
}

#[tokio::test]
async fn acts_at_once_make_one_chain() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    agree(&office, "harbour", "").await;
    let before = entries(&world).await;
    let sessions = join_all((0..10).map(|number| office[number % 2].session())).await;
    let acts = (0..60).map(|number| {
        let act = format!("select posthaste.create_event_type('ship.n{number}', 'x')");
        let session = &sessions[number % 10];
        async move { session.batch_execute(&act).await.unwrap() }
    });
    join_all(acts).await;
    assert_eq!(entries(&world).await, before + 60);
    assert!(
        world
            .holds("(select max(entry) = count(*) and min(entry) = 1 from posthaste.audit_log)")
            .await
    );
    assert_eq!(verdict(&world, "").await, "t");

    // Who looked before another acted is told to try again, and does not fork the chain.
    office[0]
        .run("begin isolation level repeatable read; select 1 from posthaste.setting")
        .await;
    office[1]
        .run("select posthaste.create_event_type('ship.first', 'x')")
        .await;
    let refused = office[0]
        .refused("select posthaste.create_event_type('ship.second', 'x')")
        .await;
    assert_eq!(refused.code(), &SqlState::T_R_SERIALIZATION_FAILURE);
    assert_eq!(entries(&world).await, before + 61);
}

#[tokio::test]
async fn nobody_changes_the_record() {
    let world = World::new().await;
    world.two_administrators().await;
    for role in ["origin", "replica"] {
        world.run(&format!("reset role; set session_replication_role = {role}; select posthaste.note('x', 'x', null, null, null, 'x'); set role posthaste_owner")).await;
        for change in [
            "update posthaste.audit_log set reason = 'another'",
            "delete from posthaste.audit_log",
            "truncate posthaste.audit_log",
        ] {
            let refused = refusal(&world.db, change).await;
            assert_eq!(
                refused.code(),
                &SqlState::INSUFFICIENT_PRIVILEGE,
                "{change}: {refused:?}"
            );
            assert!(
                refused
                    .message()
                    .ends_with("is refused: it is append-only history"),
                "{change}: {refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn every_table_of_history_bears_its_guards_for_replicas_too() {
    let world = World::new().await;
    world.run("select posthaste.create_partitions(1)").await;
    let unguarded = "select string_agg(format('%s %s', t.oid::regclass, guard.what), ', ') from pg_class t
        cross join (values ('delete', 8), ('update', 16), ('truncate', 32)) guard (what, bit)
        where t.relnamespace = 'posthaste'::regnamespace and t.relkind in ('r', 'p')
          and t.relname ~ '^(outbox|attempt)|^(audit_log|subscription_revision|subscription_change|cancellation|replayed|operational_event)$'
          and not exists (
              select from pg_trigger g where g.tgrelid = t.oid and g.tgenabled = 'A' and g.tgtype & guard.bit > 0
              and g.tgfoid in ('posthaste.refuse_change'::regproc, 'posthaste.guard_change'::regproc))";
    assert_eq!(world.text(unguarded).await, "");
    world
        .run("alter table posthaste.attempt_default enable trigger no_change")
        .await;
    assert_eq!(
        world.text(unguarded).await,
        "posthaste.attempt_default delete, posthaste.attempt_default update"
    );
}

#[tokio::test]
async fn whatever_is_tampered_with_is_named() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    agree(&office, "harbour", ", tenant => 'north'").await;
    agree(&office, "bridge", "").await;
    office[0]
        .run("select posthaste.deactivate('harbour', 'x')")
        .await;
    let last = entries(&world).await;
    assert!(last >= 5);
    let content = "its content is not what its digest was made of";
    let gone = format!(
        "the log ends at entry {}, and {last} were written",
        last - 1
    );
    let more = format!(
        "the log ends at entry {}, and {last} were written",
        last + 1
    );
    let next = last + 1;
    for (change, broken, problem) in [
        ("update posthaste.audit_log set at = at + interval '1 us' where entry = 3", 3, content),
        ("update posthaste.audit_log set actor = 'nobody' where entry = 3", 3, content),
        ("update posthaste.audit_log set application_user = 'eve' where entry = 3", 3, content),
        ("update posthaste.audit_log set action = 'approved_change' where entry = 3", 3, content),
        ("update posthaste.audit_log set object = 'another' where entry = 3", 3, content),
        ("update posthaste.audit_log set tenant = 'south' where entry = 3", 3, content),
        ("update posthaste.audit_log set before = '{}' where entry = 3", 3, content),
        ("update posthaste.audit_log set after = after || '{\"x\": 1}' where entry = 3", 3, content),
        ("update posthaste.audit_log set reason = 'another' where entry = 3", 3, content),
        ("update posthaste.audit_log set xid = '7' where entry = 3", 3, content),
        ("update posthaste.audit_log set digest = sha256('x') where entry = 3", 3, content),
        ("update posthaste.audit_log set previous = sha256('x') where entry = 3", 3, "it is not chained to the entry before it"),
        ("update posthaste.audit_log set entry = 99 where entry = 3", 3, "entry 3 is missing"),
        ("update posthaste.audit_log set reason = 'another' where entry = 1", 1, content),
        ("delete from posthaste.audit_log where entry = 3", 3, "entry 3 is missing"),
        ("delete from posthaste.audit_log where entry = 1", 1, "entry 1 is missing"),
        ("delete from posthaste.audit_log where entry = LAST", last, gone.as_str()),
        ("delete from posthaste.audit_log", 1, "the log ends at entry 0, "),
        // An entry and its digest, made by the rules, where the log had ended; and in the middle.
        ("insert into posthaste.audit_log select (pg_temp.forged(a, a.entry + 1, a.digest)).* from posthaste.audit_log a where entry = LAST", next, more.as_str()),
        ("update posthaste.audit_log set entry = entry + 1000 where entry >= 3;
          update posthaste.audit_log set entry = entry - 999 where entry >= 1000;
          insert into posthaste.audit_log select (pg_temp.forged(a, 3, a.digest)).* from posthaste.audit_log a where entry = 2", 4, "it is not chained"),
        ("delete from posthaste.audit_log where entry = 3;
          update posthaste.audit_log set entry = entry - 1 where entry > 3", 3, "it is not chained"),
        ("update posthaste.audit_head set entry = entry + 1", next, "the log ends at entry"),
        ("update posthaste.audit_head set digest = sha256('x')", last, "it is not the one that was written last"),
        ("delete from posthaste.audit_head", next, "the log ends at entry"),
    ] {
        tamper(&world, &change.replace("LAST", &last.to_string())).await;
        let told = verdict(&world, "").await;
        assert!(told.starts_with(&format!("f {broken} {problem}")), "{change}: {told}");
        world.run("rollback").await;
    }
    assert_eq!(verdict(&world, "").await, "t");
}

#[tokio::test]
async fn a_chain_written_anew_does_not_lead_to_a_digest_that_was_kept_elsewhere() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    agree(&office, "harbour", "").await;
    agree(&office, "bridge", "").await;
    let kept = "select format('%s, ''%s''', entry, digest) from posthaste.audit where entry = 4";
    let kept = office[1].one::<String>(kept).await;
    assert_eq!(verdict(&world, &kept).await, "t");
    let rewrite = "update posthaste.audit_log set actor = 'nobody' where entry = 3;
        update posthaste.audit_head set digest = '';
        do $$ declare a posthaste.audit_log; begin
            for a in select * from posthaste.audit_log order by entry loop
                a.previous := (select digest from posthaste.audit_head);
                a.digest := posthaste.audit_digest(a);
                update posthaste.audit_log l set previous = a.previous, digest = a.digest where l.entry = a.entry;
                update posthaste.audit_head set digest = a.digest;
            end loop;
        end $$";
    tamper(&world, rewrite).await;
    // By itself the new chain is a good one: that is why a digest is kept elsewhere.
    assert_eq!(verdict(&world, "").await, "t");
    let told = verdict(&world, &kept).await;
    assert!(
        told.starts_with("f 4 its digest is not the one that was known"),
        "{told}"
    );
    world.run("rollback").await;

    let cut = "delete from posthaste.audit_log where entry > 3;
        update posthaste.audit_head set (entry, digest) = (select entry, digest from posthaste.audit_log where entry = 3)";
    tamper(&world, cut).await;
    assert_eq!(verdict(&world, "").await, "t");
    assert_eq!(
        verdict(&world, &kept).await,
        "f 4 the log ends at entry 3, and entry 4 was known"
    );
    world.run("rollback").await;
}

#[tokio::test]
async fn a_seal_tells_what_was_changed_removed_or_added_later() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let id = agree(&office, "harbour", "").await;
    let [outbox, attempt] = old_partitions(&world, id).await;
    let sealed = "select string_agg(format('%s %s', partition, row_count), ', ') from posthaste.seal_partitions()";
    assert_eq!(
        office[0].one::<String>(sealed).await,
        format!("{attempt} 3, {outbox} 3")
    );
    assert_eq!(
        office[0].one::<Option<String>>(sealed).await,
        None,
        "each is sealed once"
    );
    assert_eq!(seals(&world).await, format!("{attempt} t , {outbox} t "));
    assert_eq!(verdict(&world, "").await, "t");

    let changed = |name: &str, rows: u8| {
        format!("{name} f its rows are not those that were sealed: 3 then, {rows} now")
    };
    let added =
        |name: &str| format!("{name} t every sealed row is as it was, and 1 were added later");
    let gone = |name: &str| format!("{name} f it is gone, and no entry of the audit log says so");
    let detached = |name: &str| {
        format!("{name} f it is no part of its table any more, so that nobody sees its rows there")
    };
    let insert = "insert into posthaste.outbox (event_id, event_type, payload)
        select (left(event_id::text, 35) || '9')::uuid, 'ship.late', '9' from posthaste.OUTBOX limit 1";
    for (change, told_of_attempt, told_of_outbox) in [
        (
            "update posthaste.OUTBOX set payload = '{\"n\": 7}' where event_id = (select min(event_id::text) from posthaste.OUTBOX)::uuid",
            None,
            Some(changed(&outbox, 3)),
        ),
        (
            "update posthaste.OUTBOX set tenant = 'north'",
            None,
            Some(changed(&outbox, 3)),
        ),
        (
            "delete from posthaste.OUTBOX where event_id = (select min(event_id::text) from posthaste.OUTBOX)::uuid",
            None,
            Some(changed(&outbox, 2)),
        ),
        (insert, None, Some(added(&outbox))),
        (
            "update posthaste.OUTBOX set tenant = 'north'; INSERT",
            None,
            Some(changed(&outbox, 4)),
        ),
        (
            "update posthaste.ATTEMPT set started_at = started_at + interval '1 us' where number = 1",
            Some(changed(&attempt, 3)),
            None,
        ),
        (
            "update posthaste.ATTEMPT set error = 'another' where number = 2",
            Some(changed(&attempt, 3)),
            None,
        ),
        (
            "update posthaste.ATTEMPT set worker_id = 2 where number = 2",
            Some(changed(&attempt, 3)),
            None,
        ),
        (
            "delete from posthaste.ATTEMPT where number = 3",
            Some(changed(&attempt, 2)),
            None,
        ),
        ("drop table posthaste.OUTBOX", None, Some(gone(&outbox))),
        (
            "alter table posthaste.attempt detach partition posthaste.ATTEMPT",
            Some(detached(&attempt)),
            None,
        ),
        (
            "alter table posthaste.outbox detach partition posthaste.OUTBOX; alter table posthaste.OUTBOX set schema public",
            None,
            Some(gone(&outbox)),
        ),
        (
            "drop table posthaste.OUTBOX; select posthaste.note('partition_dropped', 'OUTBOX', null, null, null, 'old')",
            None,
            None,
        ),
        // The same rows elsewhere on disk, read under other settings, are the same rows.
        (
            "update posthaste.OUTBOX set tenant = tenant; set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set extra_float_digits = -15",
            None,
            None,
        ),
    ] {
        let change = change
            .replace("INSERT", insert)
            .replace("OUTBOX", &outbox)
            .replace("ATTEMPT", &attempt);
        world
            .run(&format!(
                "begin; alter table posthaste.{outbox} disable trigger user; alter table posthaste.{attempt} disable trigger user; {change}"
            ))
            .await;
        let intact = |name: &str| format!("{name} t ");
        let expected = [
            told_of_attempt.unwrap_or(intact(&attempt)),
            told_of_outbox.unwrap_or(intact(&outbox)),
        ];
        assert_eq!(seals(&world).await, expected.join(", "), "{change}");
        world.run("rollback").await;
    }
}

#[tokio::test]
async fn what_was_added_later_is_sealed_anew_and_what_was_changed_is_not() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let id = agree(&office, "harbour", "").await;
    let [_, attempt] = old_partitions(&world, id).await;
    let ada = &office[0];
    ada.run("select posthaste.seal_partitions()").await;
    let anew = format!("select row_count from posthaste.seal_partitions('{attempt}')");
    let refused = |rule: &'static str| {
        let anew = &anew;
        async move {
            let refused = ada.refused(anew).await;
            assert!(refused.message().contains(rule), "{refused:?}");
        }
    };
    refused("it is sealed, and no row was added since").await;
    one_more(&world, &attempt).await;
    assert_eq!(ada.one::<i64>(&anew).await, 4);
    let whole =
        format!("select format('%s %s', intact, remark) from posthaste.verify_seals('{attempt}')");
    assert_eq!(world.text(&whole).await, "t ");
    world
        .run(&format!(
            "alter table posthaste.{attempt} disable trigger user; update posthaste.{attempt} set error = 'another' where number = 2"
        ))
        .await;
    one_more(&world, &attempt).await;
    refused("its rows are not those that were sealed").await;
    let told = "f its rows are not those that were sealed: 4 then, 5 now";
    assert_eq!(world.text(&whole).await, told);
    let none = "select posthaste.seal_partitions('attempt_19700101')";
    let said = ada.refused(none).await;
    assert!(
        said.message().contains("no partition of that name"),
        "{said:?}"
    );
}

#[tokio::test]
async fn nobody_waits_while_partitions_are_read_to_be_sealed() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let id = agree(&office, "harbour", "").await;
    let [outbox, _] = old_partitions(&world, id).await;
    // The second one cannot be read yet.
    world
        .run(&format!("begin; lock table posthaste.{outbox}"))
        .await;
    let seal = async {
        let sealed = "select count(*) from posthaste.seal_partitions()";
        assert_eq!(office[0].one::<i64>(sealed).await, 2);
    };
    let pause = async {
        world
            .until("exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')")
            .await;
        office[1]
            .run("select posthaste.deactivate('harbour', 'flood')")
            .await;
        world.run("commit").await;
    };
    tokio::join!(seal, pause);
}

#[tokio::test]
async fn what_is_still_being_written_is_not_sealed() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    world
        .run("select posthaste.create_partition(t, (now() at time zone 'UTC')::date - days) from unnest('{posthaste.outbox,posthaste.attempt}'::regclass[]) t, generate_series(0, 3) days")
        .await;
    let sealed = "select string_agg(distinct ((now() at time zone 'UTC')::date - to_date(right(partition, 8), 'YYYYMMDD'))::text, ' ') from posthaste.seal_partitions()";
    assert_eq!(office[0].one::<String>(sealed).await, "3");
}

/// Who does what, and what the log says of it.
async fn acts(world: &World, office: &[Login; 2]) -> Vec<(&'static str, String, String)> {
    let bridge = agree(office, "bridge", "").await;
    let [outbox, _] = old_partitions(world, bridge).await;
    let [released, discarded, secret] =
        [1, 2, 3].map(|n| format!("01900000-0000-7000-8000-00000000000{n}"));
    world
        .run(&format!(
            "insert into posthaste.quarantine (event_id, subscription_id, replay, attempts, reason)
             values ('{released}', {bridge}, 0, 0, 'too odd'), ('{discarded}', {bridge}, 0, 0, 'too odd');
             insert into posthaste.ordering (event_id, subscription_id, replay, ordering_key) values ('{released}', {bridge}, 0, 'ship-1');
             insert into posthaste.unknown_event_type (event_type, events, last_event)
             values ('noise.a', 4, '{released}'), ('noise.b.c', 5, '{released}'), ('noises', 1, '{released}')"
        ))
        .await;
    let [lost, missed, third, fourth, fifth] =
        [4, 5, 6, 7, 8].map(|n| format!("01900000-0000-7000-8000-00000000000{n}"));
    world
        .run(&format!(
            "insert into posthaste.event_type (event_type, description, example) values ('ship.lost', 'A ship', '{{}}');
             insert into posthaste.outbox (event_id, event_type, payload)
             select e, 'ship.lost', '1' from unnest('{{{lost},{missed},{third},{fourth},{fifth}}}'::uuid[]) e;
             insert into posthaste.attempt (started_at, event_id, subscription_id, subscription_revision, worker_id, outcome, verdict, rule, replay, number, error)
             select now(), event_id, {bridge}, 1, 1, 'unreachable', 'exhausted', 'no_retries_left', 0, 1, 'no answer' from posthaste.outbox where event_type = 'ship.lost'"
        ))
        .await;
    let name = &office[0].name;
    let newest = "(select max(change_id) from posthaste.change)";
    let terms = r#"tenant => 'north', headers => '{"Authorization": {"secret": true}}'"#;
    [
        ("ada", "create_event_type('ship.arrived', 'A ship')".into(), "event_type_created|ship.arrived|||9 fields|".into()),
        ("bob", r#"change_event_type('ship.arrived', '{"active": false}', 'old')"#.into(), "event_type_changed|ship.arrived||9 fields|9 fields|old".into()),
        ("ada", format!("propose_subscription('harbour', 'https://harbour.example/', '{{*}}', {terms}, reason => 'asked')"),
         "proposed_create|harbour|north||34 fields|asked".into()),
        ("bob", format!("approve({newest}, 'agreed')"), "approved_create|harbour|north||34 fields|agreed".into()),
        ("ada", r#"propose_change('harbour', '{"concurrency": 1}', 'gently')"#.into(), "proposed_change|harbour|north|33 fields|34 fields|gently".into()),
        ("bob", format!("approve({newest})"), "approved_change|harbour|north|33 fields|34 fields|".into()),
        ("ada", r#"propose_change('harbour', '{"concurrency": 2}')"#.into(), "proposed_change|harbour|north|33 fields|34 fields|".into()),
        ("bob", format!("reject({newest}, 'no')"), r#"rejected_change|harbour|north||{"change_id": 4}|no"#.into()),
        ("ada", "deactivate('harbour', 'flood')".into(), "deactivated|harbour|north|33 fields|33 fields|flood".into()),
        ("bob", "set_secret_rotation('30 days', 'policy')".into(),
         r#"secrets_rotate_set|setting||{"secrets_rotate": "90 days"}|{"secrets_rotate": "30 days"}|policy"#.into()),
        ("bob", "set_dedup_window('1 hour', 'policy')".into(),
         r#"dedup_window_set|setting||{"dedup_window": "1 day"}|{"dedup_window": "01:00:00"}|policy"#.into()),
        ("bob", format!("set_partner_scope('{name}', '{{north}}', 'theirs')"), format!(r#"partner_scope_set|{name}|||["north"]|theirs"#)),
        ("bob", format!("set_partner_scope('{name}', '{{}}', 'all again')"), format!(r#"partner_scope_set|{name}||["north"]|[]|all again"#)),
        ("ada", "rotate_secret('harbour', '1 hour', 'yearly')".into(),
         r#"secret_rotated|harbour|north|{"ending": [1]}|3 fields|yearly"#.into()),
        ("ada", format!("add_secret('harbour', '{secret}', 'k1', '\\x00', 'theirs')"), r#"secret_imported|harbour|north||{"kind": "shared", "number": 3}|theirs"#.into()),
        ("ada", format!("set_credential('harbour', 'Authorization', '{secret}', 'k1', '\\x00', 'theirs')"),
         r#"credential_set|harbour|north||{"name": "Authorization"}|theirs"#.into()),
        ("ada", r#"propose_envelope('plain', '{"it":"{{data}}"}', reason => 'short')"#.into(), "proposed_envelope|plain|||7 fields|short".into()),
        ("bob", format!("approve({newest}, 'short indeed')"), "approved_envelope|plain|||7 fields|short indeed".into()),
        ("ada", "map_id('north', 'ship', '7', 'N-7')".into(), r#"id_mapped|ship|north||{"external": "N-7", "internal": "7"}|"#.into()),
        ("ada", format!("ask_to_preview('bridge', '{lost}', 'what would they see')"), format!(r#"event_previewed|bridge|||{{"event_id": "{lost}", "subscription": "bridge"}}|what would they see"#)),
        ("ada", r#"propose_change('bridge', '{"handshake": {"origin": "port.example"}}')"#.into(), "proposed_change|bridge||33 fields|34 fields|".into()),
        ("bob", format!("approve({newest})"), "approved_change|bridge||33 fields|34 fields|".into()),
        ("ada", "grant_handshake('bridge', 60, 'they called')".into(), r#"handshake_granted|bridge|||{"rate": 60, "origin": "port.example"}|they called"#.into()),
        ("bob", "end_secret('harbour', 2::smallint, 'leaked')".into(), r#"secret_ended|harbour|north||{"number": 2}|leaked"#.into()),
        ("bob", "ask_to_reveal('harbour', 'lost')".into(), r#"secret_revealed|harbour|north||{"numbers": [1, 3], "subscription_id": 2}|lost"#.into()),
        ("bob", "ask_to_reencrypt('new key')".into(), "secrets_taken_to_reencrypt|signing_secret||||new key".into()),
        ("bob", format!("reencrypt_secret('{secret}', '\\x00', 'k2', '\\x01')"), format!(r#"secret_reencrypted|{secret}|||{{"key_id": "k2"}}|"#)),
        ("ada", format!("release('{released}', 'fine')"),
         format!(r#"quarantine_released|{released}|||{{"because": ["too odd"], "deliveries": 1}}|fine"#)),
        ("bob", format!("discard('{discarded}', 'odd indeed')"),
         format!(r#"quarantine_discarded|{discarded}|||{{"because": ["too odd"], "deliveries": 1}}|odd indeed"#)),
        ("bob", "dismiss_unknown('noise.*', 'a typo')".into(),
         r#"unknown_type_dismissed|noise.*||{"types": 2, "events": 9}||a typo"#.into()),
        ("ada", format!("replay_delivery('{lost}', 'bridge', 'they lost it')"), "replay_asked_for|replay 1|||5 fields|they lost it".into()),
        ("ada", format!("replay_event('{missed}', 'all lost it')"), "replay_asked_for|replay 2|||4 fields|all lost it".into()),
        ("bob", format!("replay_dead_letters('{{{third}}}', '{{{bridge}}}', array(select last_attempt_at from posthaste.dead_letter where event_id = '{third}'), 'this one')"),
         "replay_asked_for|replay 3|||4 fields|this one".into()),
        ("bob", format!("replay_where('event_id = ''{fourth}''', 'that one')"), "replay_asked_for|replay 4|||4 fields|that one".into()),
        ("bob", "replay_since('bridge', '-infinity', 'the rest')".into(), "replay_asked_for|replay 5|||5 fields|the rest".into()),
        ("ada", "cancel_replay(5, 'enough')".into(), r#"replay_cancelled|replay 5|||{"left_out": 1, "replay_id": 5}|enough"#.into()),
        ("ada", format!("cancel('{missed}', 'a mistake')"), format!(r#"cancel_asked_for|{missed}|||{{"waiting": 1}}|a mistake"#)),
        ("bob", "send_test('bridge', 'ship.lost', 'a trial')".into(), "test_asked_for|replay 6|||6 fields|a trial".into()),
        ("bob", "skip_ordered('bridge', 'ship-1', 'settled')".into(), "ordering_skipped|bridge|||4 fields|settled".into()),
        ("ada", "seal_partitions()".into(), format!("partition_sealed|{outbox}|||3 fields|")),
        ("ada", "propose_removal('harbour', 'left')".into(), r#"proposed_remove|harbour|north|33 fields|{"change_id": 7}|left"#.into()),
        ("bob", format!("approve({newest}, 'bye')"), r#"approved_remove|harbour|north|33 fields|{"change_id": 7}|bye"#.into()),
    ]
    .into()
}

/// Partitions of a day long over, with three events and three attempts: their names.
async fn old_partitions(world: &World, subscription: i32) -> [String; 2] {
    world
        .run(&format!(
            "do $$ declare day date := (now() at time zone 'UTC')::date - 10; begin
                 perform posthaste.create_partition('posthaste.outbox', day), posthaste.create_partition('posthaste.attempt', day);
                 insert into posthaste.outbox (event_id, event_type, payload)
                 select (left(posthaste.first_event_id(day + interval '12 hours')::text, 14) || '7000-8000-00000000000' || n)::uuid, 'ship.old', '1'
                 from generate_series(1, 3) n;
                 insert into posthaste.attempt (started_at, event_id, subscription_id, subscription_revision, worker_id, outcome, verdict, rule, replay, number, error)
                 select day + interval '12 hours', gen_random_uuid(), {subscription}, 1, 1, 'unreachable', 'late', 'interval', 0, n, 'no answer'
                 from generate_series(1, 3) n;
             end $$"
        ))
        .await;
    let name = |parent: &str| {
        format!("select '{parent}' || to_char((now() at time zone 'UTC')::date - 10, '_YYYYMMDD')")
    };
    [
        world.text(&name("outbox")).await,
        world.text(&name("attempt")).await,
    ]
}

/// One more attempt like those that are there.
async fn one_more(world: &World, attempt: &str) {
    world
        .run(&format!(
            "insert into posthaste.attempt (started_at, event_id, subscription_id, subscription_revision, worker_id, outcome, verdict, rule, replay, number, error)
             select started_at, gen_random_uuid(), subscription_id, 1, 1, outcome, verdict, rule, replay, (select max(number) + 1 from posthaste.{attempt}), error
             from posthaste.{attempt} limit 1"
        ))
        .await;
}

/// Begins a transaction in which the owner, whose own the triggers are, has made this change.
async fn tamper(world: &World, change: &str) {
    world
        .run(&format!(
            "begin;
             set local role posthaste_owner;
             alter table posthaste.audit_log disable trigger user;
             create function pg_temp.forged(a posthaste.audit_log, entry bigint, previous bytea) returns posthaste.audit_log language plpgsql as $$
             begin
                 a.entry := forged.entry;
                 a.reason := 'slipped in';
                 a.previous := forged.previous;
                 a.digest := posthaste.audit_digest(a);
                 return a;
             end $$;
             {change}"
        ))
        .await;
}

/// `t`, or `f`, the first broken entry and what is wrong with it.
async fn verdict(world: &World, known: &str) -> String {
    let verdict = "select concat_ws(' ', case when intact then 't' else 'f' end, first_broken, problem) from posthaste.verify_audit";
    world.text(&format!("{verdict}({known})")).await
}

async fn seals(world: &World) -> String {
    world
        .text("select string_agg(format('%s %s %s', partition, intact, remark), ', ' order by partition) from posthaste.verify_seals()")
        .await
}

async fn entries(world: &World) -> i64 {
    world
        .count("select count(*) from posthaste.audit_log")
        .await
}

async fn last_entry(world: &World) -> String {
    let short = |column: &str| {
        let fields = format!("(select count(*) from jsonb_object_keys({column}))");
        format!(
            "case when jsonb_typeof({column}) = 'object' and {fields} > 2 then {fields} || ' fields' else {column}::text end"
        )
    };
    let entry = format!(
        "select format('%s|%s|%s|%s|%s|%s', action, object, tenant, {}, {}, reason) from posthaste.audit_log order by entry desc limit 1",
        short("before"),
        short("after")
    );
    world.text(&entry).await
}
