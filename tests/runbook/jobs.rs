//! The jobs that concern a whole server, its keys and its history.

use posthaste::secret::Keyring;
use posthaste::trial::authority::Authority;
use posthaste::trial::partner::Reply;
use tokio_postgres::Client;

use super::desk::Desk;
use super::page::{entry, statements};
use super::scene::Scene;
use super::servers::{Copied, House, delivering, server, until};
use crate::harness::{Partner, one, refusal};

#[tokio::test]
async fn a_restored_backup_is_whole_and_goes_on_delivering() {
    let partner = Partner::replying(Reply::Status(200)).await;
    let old_bin = server().await;
    let desk = Desk::new(old_bin.bin_dir());
    let (old, house) = delivering(&desk, &partner).await;
    let keys = Keyring::generate_line("k1").unwrap().to_string();
    let db = house.session("platform").await;
    let worker = house.worker(&desk, &keys, "platform");
    publish(&db).await;
    partner.wait_for(1).await;
    until(
        &db,
        "exists (select from posthaste.attempt) and not exists (select from posthaste.lease)",
    )
    .await;
    // One is under way while the backup is taken.
    partner.set_reply(Reply::Hang);
    publish(&db).await;
    partner.wait_for(2).await;
    for block in &entry("Take a backup").blocks {
        house.paste(&desk, block, "platform").await;
    }
    db.batch_execute("select posthaste.set_four_eyes(true, 'after the backup')")
        .await
        .unwrap();
    let auditor = house.environment("audrey", "platform");
    let later = desk.run("posthaste audit verify | tail -1", &auditor).await;
    worker.kill().await;
    partner.set_reply(Reply::Status(200));

    // As a dump, on another server.
    let new = old_bin;
    let restored = House::of(&new);
    for block in &entry("Restore a backup").blocks {
        let database = if block.place == "restored" {
            "restored"
        } else {
            "postgres"
        };
        if block.whose == "owner" {
            let grant = "grant create on database restored to olga";
            let admin = restored.session("restored").await;
            admin.batch_execute(grant).await.unwrap();
        }
        restored.paste(&desk, block, database).await;
    }
    let again = restored.session("restored").await;
    goes_on(&desk, &restored, &again, "restored", &keys, &partner).await;
    let auditor = restored.environment("audrey", "restored");
    let known = "posthaste audit verify --known $(cat audit.known)";
    desk.run(known, &auditor).await;
    let lost = format!("posthaste audit verify --known {}", later.trim());
    assert_eq!(desk.ends(&lost, &auditor).await.code, 1);

    // As files.
    let copied = Copied::start(&desk, "backup", &old).await;
    let house = House::at(&[&copied.socket]);
    let again = house.session("platform").await;
    let pause = "select posthaste.deactivate('harbour', 'restored')";
    again.batch_execute(pause).await.unwrap();
    goes_on(&desk, &house, &again, "platform", &keys, &partner).await;
    copied.stop().await;
}

/// What was under way is repeated, under the same id and on the record, and what is new is delivered.
async fn goes_on(
    desk: &Desk,
    house: &House,
    db: &Client,
    database: &str,
    keys: &str,
    partner: &Partner,
) {
    let before = partner.count();
    let again = partner.ids()[1].clone();
    let sent = |ids: Vec<String>| ids.into_iter().filter(|id| *id == again).count();
    let sent_before = sent(partner.ids());
    let worker = house.worker(desk, keys, database);
    // It is paused: what was under way ends as abandoned, and nothing is sent.
    until(db, "exists (select from posthaste.attempt where outcome = 'abandoned') and not exists (select from posthaste.lease)").await;
    assert_eq!(partner.count(), before);
    db.batch_execute(
        "select posthaste.approve(posthaste.propose_change('harbour', '{\"active\": true}', 'go on'))",
    )
    .await
    .unwrap();
    partner.wait_for(before + 1).await;
    publish(db).await;
    partner.wait_for(before + 2).await;
    assert_eq!(sent(partner.ids()), sent_before + 1);
    until(
        db,
        "not exists (select from posthaste.lease) and not exists (select from posthaste.queue)",
    )
    .await;
    assert!(
        one::<bool>(
            db,
            "select count(distinct worker_id) = 2 from posthaste.attempt"
        )
        .await
    );
    assert!(
        one::<bool>(
            db,
            "select not exists (select from posthaste.access_deviation())"
        )
        .await
    );
    assert!(one::<bool>(db, "select intact from posthaste.verify_audit()").await);
    worker.kill().await;
}

#[tokio::test]
async fn workers_go_over_to_a_standby_that_is_promoted() {
    let partner = Partner::replying(Reply::Status(200)).await;
    let tools = server().await;
    let desk = Desk::new(tools.bin_dir());
    tools.stop().await;
    let (primary, house) = delivering(&desk, &partner).await;
    let job = entry("Failover to a standby");
    let [make, promote] = ["dba", "superuser"].map(|whose| {
        let found = job.blocks.iter().find(|block| block.whose == whose);
        found.unwrap().clone()
    });
    house.paste(&desk, &make, "platform").await;
    let standby = Copied::start(&desk, "standby", &primary).await;
    let db = house.session("platform").await;
    let data_dir = primary.data_dir().unwrap();
    let both = House::at(&[data_dir.parent().unwrap(), &standby.socket]);
    let keys = Keyring::generate_line("k1").unwrap().to_string();
    let worker = both.worker(&desk, &keys, "platform");
    publish(&db).await;
    partner.wait_for(1).await;
    until(&db, "exists (select from posthaste.attempt) and not exists (select from pg_stat_replication where replay_lsn < pg_current_wal_lsn())").await;
    primary.stop().await;
    let over = House::at(&[&standby.socket]);
    let promoted = reading_session(&standby).await;
    promoted.batch_execute(&promote.text).await.unwrap();
    let db = over.session("platform").await;
    publish(&db).await;
    partner.wait_for(2).await;
    until(
        &db,
        "(select count(*) = 2 from posthaste.attempt where outcome = 'accepted')",
    )
    .await;
    worker.terminate();
    assert!(worker.ended().await.success());
    standby.stop().await;
}

#[tokio::test]
async fn what_is_rotated_goes_on_signing_under_the_new_key_alone() {
    let mut job = entry("Rotate secrets, keys, certificates and passwords");
    let mut scene = Scene::of(&job).await;
    let clients = Authority::new().unwrap();
    let (certificate, key) = clients.client_pem("posthaste").unwrap();
    scene.desk.write("client.pem", &certificate);
    scene.desk.write("client.key", &key);
    let login = |name: &str| format!("{name}_{}", std::process::id());
    let (old, new) = (login("webhooks_old"), login("webhooks_new"));
    scene
        .world
        .run(&format!("create role {old} login in role posthaste_worker"))
        .await;
    for (name, value) in [
        ("key_id", "k2"),
        ("old_login", &old),
        ("new_login", &new),
        ("password", "long and random"),
    ] {
        scene.set(name, value);
    }
    // A worker that knows the first key alone stops first, as the page has it restarted.
    scene.stop_thread();
    job.blocks.retain(|block| block.whose != "machine");
    scene.work_through(&job).await;
    let ring = std::fs::read_to_string(scene.desk.folder.join("posthaste.keys")).unwrap();
    let first = ring.lines().next().unwrap();
    assert!(
        ring.lines().count() == 2 && first.starts_with("k2:"),
        "{ring}"
    );
    scene.partner.set_reply(Reply::Status(200));
    let _worker = scene.world.worker(&[("keys", first)]).await;
    scene.world.make_due().await;
    scene.world.until_all_is_done().await;
    let signed = "(select count(*) = 2 from posthaste.attempt where outcome = 'accepted' and signed_with = '1,2')";
    scene.world.until(signed).await;
    scene.world.run(&format!("drop role {new}")).await;
}

#[tokio::test]
async fn a_day_of_history_is_dropped_on_the_record_and_never_while_it_is_owed() {
    let job = entry("Drop old partitions");
    let mut scene = Scene::of(&job).await;
    scene
        .world
        .run("select posthaste.create_partition('posthaste.outbox', current_date - 10)")
        .await;
    let insert = "insert into posthaste.outbox (event_id, event_type, payload)
        values (overlay(posthaste.first_event_id(now() - interval '10 days')::text placing '7' from 15 for 1)::uuid, 'ship.arrived', '1')";
    scene.world.run(insert).await;
    let name = "select to_char(current_date - 10, '\"outbox_\"YYYYMMDD')";
    let name = scene.world.text(name).await;
    scene.set("partition", &name);
    let owed = "(select count(*) = 3 from posthaste.queue where attempts = 1)";
    scene.world.until(owed).await;
    let drop = &job.blocks.last().unwrap().text;
    let drop = scene.filled_in(drop).await;
    let refused = refusal(&scene.world.db, &statements(&drop)[0]).await;
    assert!(
        refused.message().contains("is not to be dropped"),
        "{refused:?}"
    );
    scene.partner.set_reply(Reply::Status(200));
    scene.world.make_due().await;
    scene.world.until_all_is_done().await;
    scene.work_through(&job).await;
    let gone = format!(
        "to_regclass('posthaste.{name}') is null and (select intact from posthaste.verify_seals('{name}')) and (select intact from posthaste.verify_audit())"
    );
    assert!(scene.world.holds(&gone).await);
}

#[tokio::test]
async fn the_sizes_are_what_was_measured() {
    let job = entry("Size the database");
    let scene = Scene::of(&job).await;
    scene.work_through(&job).await;
    let world = &scene.world;
    world
        .run(
            "alter table posthaste.outbox disable trigger outbox_takes_in;
             insert into posthaste.outbox (event_id, event_type, payload)
             select overlay(posthaste.first_event_id(now() + interval '2 days' + n * interval '1 ms')::text placing '7' from 15 for 1)::uuid, 'certificate.issued', json_build_object('n', n, 'text', repeat('x', 300)) from generate_series(1, 20000) n;
             insert into posthaste.attempt (event_id, subscription_id, subscription_revision, replay, number, worker_id, started_at, duration_us, body_us, outcome, verdict, http_status, remote_address, signed_with)
             select event_id, 1, 1, 0, 1, 1, now() + interval '2 days', 1200, 10, 'accepted', 'done', 200, '203.0.113.7', '1' from posthaste.outbox where event_type = 'certificate.issued';
             insert into posthaste.attempt (event_id, subscription_id, subscription_revision, replay, number, worker_id, started_at, duration_us, dns_us, connect_us, tls_us, body_us, outcome, verdict, rule, http_status, remote_address, signed_with, error, response, next_attempt_at)
             select event_id, 1, 1, 0, 1, 1, now() + interval '3 days', 1200, 10, 10, 10, 10, 'rejected', 'retry', 'interval', 503, '203.0.113.7', '1', 'http: status 503', repeat('Service unavailable. ', 15), now() from posthaste.outbox where event_type = 'certificate.issued';
             insert into posthaste.queue (event_id, subscription_id, due_at) select event_id, 1, now() + interval '1 day' from posthaste.outbox where event_type = 'certificate.issued'",
        )
        .await;
    let day = |history: &str, days: i32| {
        format!(
            "pg_total_relation_size('posthaste.{history}_' || to_char((now() + interval '{days} days') at time zone 'UTC', 'YYYYMMDD')) / 20000.0"
        )
    };
    let payload = "(select avg(octet_length(payload::text)) from posthaste.outbox where event_type = 'certificate.issued')";
    let figures = [
        ("an event", format!("{} - {payload}", day("outbox", 2))),
        ("an attempt that was accepted", day("attempt", 2)),
        (
            "an attempt that failed",
            format!("{} - 315", day("attempt", 3)),
        ),
        (
            "a delivery that waits",
            "pg_total_relation_size('posthaste.queue') / 20000.0".to_owned(),
        ),
    ];
    for (what, measured) in figures {
        let row = job
            .text
            .lines()
            .find(|line| line.starts_with(&format!("| {what}")))
            .unwrap();
        let told: f64 = row
            .split(" | ")
            .last()
            .unwrap()
            .trim_end_matches(" |")
            .parse()
            .unwrap();
        let measured: f64 = one(&world.db, &format!("select ({measured})::float8")).await;
        let share = measured / told;
        assert!(
            (0.8..1.2).contains(&share),
            "{what}: {measured}, not {told}"
        );
    }
}

async fn publish(db: &Client) {
    let insert = "insert into posthaste.outbox (event_type, payload) values ('ship.arrived', '1')";
    db.batch_execute(insert).await.unwrap();
}

/// A session with a server that may not take writes yet.
async fn reading_session(standby: &Copied) -> Client {
    let (client, connection) = tokio_postgres::connect(&standby.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}
