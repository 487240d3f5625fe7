//! `sql/schema.sql` is what the migrations make, migrating is safe to repeat, and a program refuses a schema it does not know.

use std::collections::BTreeSet;

use posthaste::store::{SchemaState, connect_once, migrate, schema_state};
use posthaste::worker::Worker;
use tokio_util::sync::CancellationToken;

use crate::harness::{Database, PATIENCE, World};

#[tokio::test]
async fn the_schema_file_is_the_sum_of_the_migrations() {
    let (migrated, written) = (Database::empty().await, Database::empty().await);
    migrate(&migrated.url).await.unwrap();
    connect_once(&written.url)
        .await
        .unwrap()
        .batch_execute(include_str!("../sql/schema.sql"))
        .await
        .unwrap();
    let (migrated, written) = (catalogue(&migrated).await, catalogue(&written).await);
    assert!(
        migrated.len() > 200,
        "{} lines are too few to be everything",
        migrated.len()
    );
    let only_migrated: Vec<_> = migrated.difference(&written).collect();
    let only_written: Vec<_> = written.difference(&migrated).collect();
    assert!(
        only_migrated.is_empty() && only_written.is_empty(),
        "only in the migrations: {only_migrated:#?}\nonly in schema.sql: {only_written:#?}"
    );
}

#[tokio::test]
async fn everything_in_the_schema_that_people_read_has_a_comment() {
    let database = Database::empty().await;
    migrate(&database.url).await.unwrap();
    let client = connect_once(&database.url).await.unwrap();
    let silent = "select coalesce(string_agg(name, ', '), '') from (
        select c.oid::regclass::text as name from pg_class c
        where c.relnamespace = 'posthaste'::regnamespace and c.relkind in ('r', 'p', 'v') and obj_description(c.oid, 'pg_class') is null
        union all
        select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'posthaste'::regnamespace and obj_description(p.oid, 'pg_proc') is null) s";
    assert_eq!(
        client
            .query_one(silent, &[])
            .await
            .unwrap()
            .get::<_, String>(0),
        ""
    );
}

#[tokio::test]
async fn public_may_do_nothing() {
    let database = Database::empty().await;
    migrate(&database.url).await.unwrap();
    let client = connect_once(&database.url).await.unwrap();
    let open = "select coalesce(string_agg(name, ', '), '') from (
        select p.oid::regprocedure::text as name from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        where p.pronamespace = 'posthaste'::regnamespace and a.grantee = 0
        union all
        select c.oid::regclass::text from pg_class c, aclexplode(c.relacl) a
        where c.relnamespace = 'posthaste'::regnamespace and a.grantee = 0
        union all
        select n.nspname from pg_namespace n, aclexplode(n.nspacl) a where n.nspname = 'posthaste' and a.grantee = 0) s";
    assert_eq!(
        client
            .query_one(open, &[])
            .await
            .unwrap()
            .get::<_, String>(0),
        ""
    );
}

#[tokio::test]
async fn functions_that_run_as_their_owner_pin_their_search_path() {
    let database = Database::empty().await;
    migrate(&database.url).await.unwrap();
    let client = connect_once(&database.url).await.unwrap();
    let loose = "select coalesce(string_agg(p.oid::regprocedure::text, ', '), '') from pg_proc p
        where p.pronamespace = 'posthaste'::regnamespace and p.prosecdef
        and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)";
    assert_eq!(
        client
            .query_one(loose, &[])
            .await
            .unwrap()
            .get::<_, String>(0),
        ""
    );
    let definers = "select count(*) from pg_proc p where p.pronamespace = 'posthaste'::regnamespace and p.prosecdef";
    assert!(
        client
            .query_one(definers, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            > 0
    );
}

#[tokio::test]
async fn migrating_again_or_twice_at_once_does_no_harm() {
    let database = Database::empty().await;
    let (one, other) = tokio::join!(migrate(&database.url), migrate(&database.url));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(
        one.is_empty() != other.is_empty(),
        "one did all of it: {one:?} {other:?}"
    );
    let before = catalogue(&database).await;
    assert!(migrate(&database.url).await.unwrap().is_empty());
    assert!(catalogue(&database).await == before);
    let state = schema_state(&connect_once(&database.url).await.unwrap())
        .await
        .unwrap();
    assert!(matches!(state, SchemaState::Current(_)), "{state:?}");
}

#[tokio::test]
async fn a_migration_that_was_applied_with_another_text_is_refused() {
    let world = World::new().await;
    world
        .run("update posthaste.migration set checksum = 'another' where version = 1")
        .await;
    let refused = migrate(world.url()).await.unwrap_err().to_string();
    assert!(
        refused.contains("migration 1") && refused.contains("another text"),
        "{refused}"
    );
    let refused = begin(&world).await;
    assert!(refused.contains("another text"), "{refused}");
}

#[tokio::test]
async fn a_worker_refuses_a_schema_that_is_newer_older_or_missing() {
    let world = World::new().await;
    world.run("insert into posthaste.migration (version, name, checksum) values (9999, 'future', 'x')").await;
    let refused = begin(&world).await;
    assert!(
        refused.contains("version 9999, made by a newer program"),
        "{refused}"
    );
    world.run("delete from posthaste.migration").await;
    let refused = begin(&world).await;
    assert!(
        refused.contains("missing; run `posthaste migrate`"),
        "{refused}"
    );
    world.run("drop schema posthaste cascade").await;
    let refused = begin(&world).await;
    assert!(
        refused.contains("missing; run `posthaste migrate`"),
        "{refused}"
    );
    assert!(
        !world
            .holds("exists (select from pg_namespace where nspname = 'posthaste')")
            .await
    );
}

/// Why a worker does not begin.
async fn begin(world: &World) -> String {
    let worker = Worker::new(world.config(&[])).unwrap();
    let ended = tokio::time::timeout(PATIENCE, worker.run(CancellationToken::new())).await;
    ended.expect("it began").unwrap_err().to_string()
}

/// All that the catalogues say of a schema, a line each.
async fn catalogue(database: &Database) -> BTreeSet<String> {
    let client = connect_once(&database.url).await.unwrap();
    // Names are then qualified wherever they are not Postgres' own.
    client
        .batch_execute("set search_path = pg_catalog")
        .await
        .unwrap();
    let rows = client
        .query(include_str!("catalogue.sql"), &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
