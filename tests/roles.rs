//! Each role may do what `posthaste.access` says, and nothing else.

use posthaste::store::{connect_once, migrate};

use crate::harness::{Database, World, one, refusal, tried_as};

#[tokio::test]
async fn every_object_has_its_decision_and_every_decision_its_object() {
    let world = World::new().await;
    assert_eq!(world.text(UNDECIDED).await, "");
    world
        .run(
            "begin; set role posthaste_owner;
             create table posthaste.novelty (id integer generated always as identity);
             create view posthaste.glimpse as select 1 as one;
             create function posthaste.trick() returns void language sql return null;
             create function posthaste.scope(who text) returns text language sql return who;
             create type posthaste.flavour as enum ('sweet');
             create domain posthaste.small as integer;
             delete from posthaste.access where object = 'view delivery';
             insert into posthaste.access values ('table phantom', '', '', '', 'select')",
        )
        .await;
    assert_eq!(
        world.text(UNDECIDED).await,
        "decided, and not there: table phantom
not decided: function trick
not decided: sequence novelty_id_seq
not decided: table novelty
not decided: type flavour
not decided: type small
not decided: view delivery
not decided: view glimpse
overloaded: function scope"
    );
    world.run("rollback").await;
}

#[tokio::test]
async fn a_grant_too_many_or_too_few_is_reported() {
    let world = World::new().await;
    assert_eq!(world.text(DEVIATIONS).await, "");
    let stranger = world.login("").await.name;
    world.run("select posthaste.create_partitions(0)").await;
    let today = "select relname::text from pg_class where relname ~ '^outbox_[0-9]+$'";
    let today = world.text(today).await;
    for (change, reported) in [
        (
            "grant select on posthaste.audit to public",
            "wider: view audit public select",
        ),
        (
            "grant delete on posthaste.attempt to posthaste_worker",
            "wider: table attempt posthaste_worker delete",
        ),
        (
            "grant truncate on posthaste.outbox to posthaste_producer",
            "wider: table outbox posthaste_producer truncate",
        ),
        (
            "grant select (payload) on posthaste.event to posthaste_auditor",
            "wider: view event posthaste_auditor select(payload)",
        ),
        (
            "grant update (url) on posthaste.subscription to posthaste_admin",
            "wider: table subscription posthaste_admin update(url)",
        ),
        (
            "grant select on posthaste.TODAY to STRANGER",
            "wider: table TODAY STRANGER select",
        ),
        (
            "grant select (payload) on posthaste.TODAY to public",
            "wider: table TODAY public select(payload)",
        ),
        (
            "grant insert on posthaste.attempt_default to posthaste_producer",
            "wider: table attempt_default posthaste_producer insert",
        ),
        (
            "grant usage on sequence posthaste.subscription_subscription_id_seq to posthaste_admin",
            "wider: sequence subscription_subscription_id_seq posthaste_admin usage",
        ),
        (
            "grant execute on function posthaste.set_four_eyes to posthaste_admin",
            "wider: function set_four_eyes posthaste_admin execute",
        ),
        (
            "grant execute on function posthaste.note to public",
            "wider: function note public execute",
        ),
        (
            "grant create on schema posthaste to STRANGER",
            "wider: schema posthaste STRANGER create",
        ),
        (
            "grant usage on schema posthaste to public",
            "wider: schema posthaste public usage",
        ),
        (
            "grant usage on type posthaste.outcome to public",
            "wider: type outcome public usage",
        ),
        (
            "grant select on posthaste.setting to posthaste_admin with grant option",
            "wider: table setting posthaste_admin select with grant option",
        ),
        (
            "grant posthaste_admin to posthaste_auditor",
            "wider: role posthaste_admin posthaste_auditor member",
        ),
        (
            "grant posthaste_owner to posthaste_admin",
            "wider: role posthaste_owner posthaste_admin member",
        ),
        (
            "alter default privileges for role posthaste_owner in schema posthaste grant select on tables to STRANGER",
            "wider: future tables STRANGER select",
        ),
        (
            "alter default privileges for role posthaste_owner in schema posthaste grant usage on sequences to STRANGER",
            "wider: future sequences STRANGER usage",
        ),
        (
            "alter default privileges for role posthaste_owner grant select on tables to public",
            "wider: future tables public select",
        ),
        (
            "set local role posthaste_owner; create function posthaste.left_open() returns void language sql return null; reset role",
            "wider: function left_open public execute",
        ),
        (
            "alter table posthaste.TODAY owner to STRANGER",
            "wider: table TODAY STRANGER ownership",
        ),
        (
            "alter table posthaste.setting owner to STRANGER",
            "wider: table setting STRANGER ownership",
        ),
        (
            "alter view posthaste.audit owner to STRANGER",
            "wider: view audit STRANGER ownership",
        ),
        (
            "alter function posthaste.scope owner to STRANGER",
            "wider: function scope STRANGER ownership",
        ),
        (
            "alter type posthaste.outcome owner to STRANGER",
            "wider: type outcome STRANGER ownership",
        ),
        (
            "alter schema posthaste owner to STRANGER",
            "wider: schema posthaste STRANGER ownership",
        ),
        (
            "create sequence posthaste.mine; revoke all on posthaste.mine from public; alter sequence posthaste.mine owner to STRANGER",
            "wider: sequence mine STRANGER ownership",
        ),
        (
            "grant pg_read_all_data to posthaste_worker",
            "wider: role pg_read_all_data posthaste_worker member",
        ),
        (
            "grant STRANGER to posthaste_owner",
            "wider: role STRANGER posthaste_owner member",
        ),
        (
            "alter role posthaste_admin createrole",
            "wider: role posthaste_admin posthaste_admin createrole",
        ),
        (
            "alter role posthaste_auditor bypassrls",
            "wider: role posthaste_auditor posthaste_auditor bypassrls",
        ),
        (
            "alter role posthaste_owner login",
            "wider: role posthaste_owner posthaste_owner login",
        ),
        (
            "alter table posthaste.partner_scope disable row level security",
            "missing: table partner_scope everybody row level security",
        ),
        (
            "create policy all_see_all on posthaste.partner_scope using (true)",
            "wider: table partner_scope everybody policy all_see_all",
        ),
        (
            "alter table posthaste.attempt_default enable trigger no_change",
            "missing: table attempt_default everybody trigger no_change",
        ),
        (
            "drop trigger no_truncate on posthaste.audit_log",
            "missing: table audit_log everybody trigger no_truncate",
        ),
        (
            "create or replace trigger no_delete before delete on posthaste.subscription_change for each row when (false) execute function posthaste.refuse_change(); alter table posthaste.subscription_change enable always trigger no_delete",
            "missing: table subscription_change everybody trigger no_delete",
        ),
        (
            "alter table posthaste.subscription_change disable trigger change_is_decided_once",
            "missing: table subscription_change everybody trigger change_is_decided_once",
        ),
        (
            "alter table posthaste.TODAY disable trigger outbox_takes_in",
            "missing: table TODAY everybody trigger outbox_takes_in",
        ),
        (
            "alter table posthaste.TODAY disable trigger outbox_admits",
            "missing: table TODAY everybody trigger outbox_admits",
        ),
        (
            "alter table posthaste.setting disable trigger setting_is_noted",
            "missing: table setting everybody trigger setting_is_noted",
        ),
        (
            "revoke insert on posthaste.outbox from posthaste_producer",
            "missing: table outbox posthaste_producer insert",
        ),
        (
            "revoke execute on function posthaste.approve from posthaste_admin",
            "missing: function approve posthaste_admin execute",
        ),
        (
            "revoke select (tenant) on posthaste.event from posthaste_auditor",
            "missing: view event posthaste_auditor select(tenant)",
        ),
        (
            "revoke usage on schema posthaste from posthaste_worker",
            "missing: schema posthaste posthaste_worker usage",
        ),
    ] {
        let told = |text: &str| text.replace("STRANGER", &stranger).replace("TODAY", &today);
        world.run(&format!("begin; {}", told(change))).await;
        assert_eq!(world.text(DEVIATIONS).await, told(reported), "{change}");
        world.run("rollback").await;
    }
}

#[tokio::test]
async fn what_deviates_is_put_right_again() {
    let world = World::new().await;
    world
        .run(
            "grant all on all tables in schema posthaste to posthaste_auditor;
             grant execute on all functions in schema posthaste to public;
             revoke select on posthaste.event_type from posthaste_worker",
        )
        .await;
    assert_ne!(world.text(DEVIATIONS).await, "");
    world
        .run("set role posthaste_owner; select posthaste.apply_access(); reset role")
        .await;
    // Partitions have no row of their own.
    world.run("revoke all on posthaste.outbox_default, posthaste.attempt_default from posthaste_auditor").await;
    assert_eq!(world.text(DEVIATIONS).await, "");
}

#[tokio::test]
async fn every_cell_is_refused_or_passes_as_it_was_decided() {
    let world = World::new().await;
    world.run("select posthaste.create_partitions(0)").await;
    let loner = world.login("").await.name;
    let mut cells = 0;
    for role in ["producer", "worker", "admin", "auditor", "loner"] {
        let rows = world
            .db
            .query(include_str!("cells.sql"), &[&role])
            .await
            .unwrap();
        let statements: Vec<String> = rows.iter().map(|row| row.get(2)).collect();
        let grantee = if role == "loner" {
            loner.clone()
        } else {
            format!("posthaste_{role}")
        };
        let met = tried_as(&world.db, &grantee, &statements).await;
        for (row, (code, said)) in rows.iter().zip(met) {
            let (object, right): (String, String) = (row.get(0), row.get(1));
            if object.starts_with("view ") && IMPOSSIBLE.contains(&code.as_str()) {
                // No view can be written through; nobody has the right to, all the same.
                assert!(!row.get::<_, bool>(3), "{role}, {object}, {right}: {said}");
                continue;
            }
            let is_refused = code == "42501" && said.starts_with("permission denied for ");
            assert_eq!(
                !is_refused,
                row.get::<_, bool>(3),
                "{role}, {object}, {right}: {code} {said}"
            );
            cells += 1;
        }
    }
    assert!(cells > 4_000, "{cells} cells are too few to be all");
}

#[tokio::test]
async fn a_cell_that_is_granted_and_not_decided_is_noticed() {
    let world = World::new().await;
    for (grant, statement) in [
        (
            "select on posthaste.signing_secret",
            "select ciphertext from posthaste.signing_secret limit 0",
        ),
        (
            "update (url) on posthaste.subscription",
            "update posthaste.subscription set url = default where false",
        ),
        (
            "execute on function posthaste.set_four_eyes",
            "select posthaste.set_four_eyes(null, null)",
        ),
    ] {
        world.run("begin; set local role posthaste_auditor").await;
        assert_eq!(refusal(&world.db, statement).await.code().code(), "42501");
        world.run(&format!("rollback; begin; grant {grant} to posthaste_auditor; set local role posthaste_auditor")).await;
        let met = world.db.batch_execute(statement).await.err();
        assert_ne!(
            met.and_then(|met| met.code().map(|code| code.code().to_owned()))
                .as_deref(),
            Some("42501")
        );
        world.run("rollback").await;
    }
}

#[tokio::test]
async fn what_runs_as_the_owner_cannot_be_led_astray() {
    let world = World::new().await;
    let owner = "select format('%s %s %s %s', rolcanlogin, rolsuper, rolcreaterole, rolbypassrls) from pg_roles where rolname = 'posthaste_owner'";
    assert_eq!(world.text(owner).await, "f f f f");
    let astray = "select string_agg(what, E'\\n' order by what) from (
        select format('%s runs with a search path of its caller''s', p.oid::regprocedure) as what from pg_proc p
        where p.pronamespace = 'posthaste'::regnamespace and p.prosecdef and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)
        union all
        select format('%s may be called by everybody', p.oid::regprocedure) from pg_proc p
        where p.pronamespace = 'posthaste'::regnamespace and has_function_privilege('pg_monitor', p.oid, 'execute')
        union all
        select format('%s is owned by %s', x.name, x.owner::regrole) from (
            select oid::regprocedure::text, proowner from pg_proc where pronamespace = 'posthaste'::regnamespace
            union all select oid::regclass::text, relowner from pg_class where relnamespace = 'posthaste'::regnamespace
            union all select oid::regtype::text, typowner from pg_type where typnamespace = 'posthaste'::regnamespace
            union all select 'the schema', nspowner from pg_namespace where nspname = 'posthaste') x (name, owner)
        where x.owner <> 'posthaste_owner'::regrole
        union all
        select format('%s has no barrier', c.oid::regclass) from pg_class c
        where c.relnamespace = 'posthaste'::regnamespace and c.relkind = 'v' and pg_get_viewdef(c.oid) ~ 'posthaste\\.scope\\('
          and not coalesce('security_barrier=true' = any (c.reloptions), false)
        union all
        select format('%s shows every partner''s', c.oid::regclass) from pg_class c
        where c.relnamespace = 'posthaste'::regnamespace and c.relkind = 'v' and pg_get_viewdef(c.oid) !~ 'posthaste\\.scope\\('
          and c.relname not in ('worker_alive', 'health')) s";
    assert_eq!(world.text(astray).await, "");
    assert!(world.count("select count(*) from pg_proc p where p.pronamespace = 'posthaste'::regnamespace and p.prosecdef").await > 30);
}

#[tokio::test]
async fn a_producer_and_a_worker_need_no_more_than_their_roles() {
    let world = World::new().await;
    let partner = world.partner().await;
    world
        .subscribe_to("harbour", &partner, &["ship.arrived"], None, "5s")
        .await;
    let (producer, login) = (
        world.login("posthaste_producer").await,
        world.login("posthaste_worker").await,
    );
    let worker = world.worker(&[("database_url", login.url.as_str())]).await;
    producer.run("insert into posthaste.outbox (event_type, payload) values ('ship.arrived', '{\"n\": 1}')").await;
    producer.run("select posthaste.publish('ship.arrived', '{\"n\": 2}'); select posthaste.publish('ship.sunk', '{}')").await;
    partner.wait_for(2).await;
    world.until_all_is_done().await;
    assert_eq!(
        world
            .count("select count(*) from posthaste.attempt where verdict = 'done'")
            .await,
        2
    );
    // It makes today's partitions, and leaves in order.
    world
        .until("exists (select from pg_class where relname ~ '^attempt_[0-9]+$')")
        .await;
    worker.stop().await.unwrap();
    assert!(
        world
            .holds("not exists (select from posthaste.worker where ended_at is null)")
            .await
    );
}

#[tokio::test]
async fn whoever_may_only_make_others_members_can_migrate_and_is_no_administrator() {
    let (world, database) = (World::new().await, Database::empty().await);
    let login = world.login("").await;
    let name = &login.name;
    // As Postgres 16 and later have it of whoever made the roles.
    let version = "select current_setting('server_version_num')::bigint";
    if world.count(version).await >= 160_000 {
        let roles = "posthaste_owner, posthaste_producer, posthaste_worker, posthaste_admin, posthaste_auditor";
        let made = format!("grant {roles} to {name} with admin true, inherit false, set false");
        world.run(&made).await;
    }
    let member_of = format!(
        "select array_to_string(l.member_of, ' ') from ({}) l",
        include_str!("../sql/queries/login.sql")
    );
    assert_eq!(login.one::<String>(&member_of).await, "");
    world.run(&format!("alter role {name} createrole")).await;
    let db = connect_once(&database.url).await.unwrap();
    let create = format!(
        "do $$ begin execute format('grant create on database %I to {name}', current_database()); end $$"
    );
    db.batch_execute(&create).await.unwrap();
    migrate(&login.url_of(&database)).await.unwrap();
    assert_eq!(login.one::<String>(&member_of).await, "posthaste_owner");
    drop(database);
}

#[tokio::test]
async fn the_servers_roles_are_left_as_they_were() {
    let world = World::new().await;
    let name = world.login("posthaste_admin").await.name;
    drop(world);
    let database = Database::empty().await;
    let db = connect_once(&database.url).await.unwrap();
    let left = format!("select count(*) from pg_roles where rolname = '{name}'");
    assert_eq!(one::<i64>(&db, &left).await, 0);
}

/// What Postgres says of a write through a view before it looks at anybody's rights.
const IMPOSSIBLE: [&str; 4] = ["0A000", "42809", "428C9", "55000"];

const DEVIATIONS: &str = "select string_agg(format('%s: %s %s %s', split_part(problem, ' ', 1), object, grantee, privilege), E'\\n')
    from posthaste.access_deviation()";

const UNDECIDED: &str = "
    with present as (
        select 'schema posthaste' as object
        union all
        select case relkind when 'S' then 'sequence ' when 'v' then 'view ' else 'table ' end || relname from pg_class
        where relnamespace = 'posthaste'::regnamespace and relkind not in ('i', 'I', 't') and not relispartition
        union all
        select 'function ' || proname from pg_proc where pronamespace = 'posthaste'::regnamespace
        union all
        select 'type ' || t.typname from pg_type t left join pg_class c on c.oid = t.typrelid
        where t.typnamespace = 'posthaste'::regnamespace and t.typelem = 0 and t.typtype <> 'm' and (c.oid is null or c.relkind = 'c')
    )
    select string_agg(what, E'\\n' order by what) from (
        select 'not decided: ' || object as what from present where object not in (select object from posthaste.access)
        union all
        select 'decided, and not there: ' || object from posthaste.access where object not in (select object from present)
        union all
        select 'overloaded: ' || object from present group by object having count(*) > 1) s";
