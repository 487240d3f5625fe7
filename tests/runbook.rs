//! The runbook says what helps: each block of it runs as written, as whoever it is for, and does what it says.

mod desk;
mod jobs;
mod page;
mod scene;
mod servers;

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use futures_util::stream;
use posthaste::trial::partner::Reply;

use self::page::{anchor, entries, entry, read, root, runbook};
use self::scene::Scene;
use crate::grafana::{ALERTS, OF_THE_DATABASE_ALONE};

const WRONG: &str = "When something is wrong";

#[test]
fn every_finding_has_an_entry_and_nothing_else_has() {
    let titles: Vec<String> = wrong().into_iter().map(|entry| entry.title).collect();
    let findings = ALERTS.into_iter().chain(OF_THE_DATABASE_ALONE);
    assert_eq!(titles, findings.collect::<Vec<_>>());
}

#[test]
fn every_routine_job_is_tried() {
    let all = entries().into_iter();
    let titles: Vec<String> = all
        .filter(|entry| entry.chapter == "Routine jobs")
        .map(|entry| entry.title)
        .collect();
    assert_eq!(titles, JOBS);
}

#[test]
fn every_entry_says_what_it_means_how_to_see_it_what_to_do_and_what_not_to_do() {
    for entry in wrong() {
        let (title, mut at) = (&entry.title, 0);
        for part in ["**Means** ", "**See**", "**Do** ", "**Don't** "] {
            let found = entry.text[at..].find(&format!("\n{part}"));
            at += found.unwrap_or_else(|| panic!("{title}: no {part} there"));
        }
        assert!(entry.blocks.len() >= 2, "{title} has too little to paste");
        assert!(
            entry.text.split_whitespace().count() < 170,
            "{title} is too long for the night"
        );
    }
}

#[test]
fn every_block_says_whose_it_is_and_few_run_nowhere() {
    let mut nowhere = 0;
    for entry in entries() {
        for block in entry.blocks {
            let (language, whose, place) = (
                block.language.as_str(),
                block.whose.as_str(),
                block.place.as_str(),
            );
            let is_known = match language {
                "sql" => ["auditor", "admin", "second", "owner", "superuser"].contains(&whose),
                "sh" => [
                    "auditor", "admin", "second", "owner", "worker", "dba", "machine",
                ]
                .contains(&whose),
                "text" => whose.is_empty(),
                _ => false,
            } && ["", "restored", "standby"].contains(&place);
            assert!(is_known, "{}: {language} {whose} {place}", entry.title);
            nowhere += usize::from(whose == "machine" || language == "text");
        }
    }
    assert!(nowhere <= 7, "{nowhere} blocks are tried by nobody");
}

#[test]
fn what_links_to_an_entry_finds_it() {
    let page = runbook();
    let anchors: BTreeSet<String> = page
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(anchor)
        .collect();
    for link in page.split("](").skip(1) {
        let target = link.split(')').next().unwrap_or_default();
        match target.split_once('#') {
            Some(("", name)) => assert!(anchors.contains(name), "{target}"),
            Some((file, name)) => {
                let other = read(&format!("docs/{file}"));
                let is_there = other
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == name);
                assert!(is_there, "{target}");
            }
            None => assert!(root("docs").join(target).exists(), "{target}"),
        }
    }
    let mut count = 0;
    for file in [
        "grafana/alerts.yaml",
        "sql/schema.sql",
        "README.md",
        "src/commands/status.rs",
    ] {
        // Not every builder's part is there yet.
        let text = std::fs::read_to_string(root(file)).unwrap_or_default();
        for link in text.split("docs/runbook.md#").skip(1) {
            let name: String = link
                .chars()
                .take_while(|c| c.is_alphanumeric() || "-_".contains(*c))
                .collect();
            // SQL puts the code together.
            assert!(name.is_empty() || anchors.contains(&name), "{file}: {name}");
            count += 1;
        }
    }
    assert!(count > 0 || !root("grafana/alerts.yaml").exists());
}

#[tokio::test]
async fn every_entry_can_be_worked_through_and_puts_things_right() {
    stream::iter(wrong())
        .for_each_concurrent(3, |entry| async move {
            let mut scene = Scene::of(&entry).await;
            scene.go_wrong(&entry.title).await;
            scene.work_through(&entry).await;
            scene.is_put_right(&entry.title).await;
        })
        .await;
}

#[tokio::test]
async fn the_first_look_works() {
    let look = entry("");
    Scene::of(&look).await.work_through(&look).await;
}

#[tokio::test]
async fn a_deploy_an_upgrade_and_a_partition_by_hand_work() {
    let scene = Scene::of(&entry("Deploy")).await;
    for title in [
        "Deploy",
        "Upgrade",
        "Add a partition by hand",
        "Move to another cluster",
    ] {
        let mut job = entry(title);
        job.blocks.retain(|block| block.place.is_empty());
        if title.starts_with("Move") {
            job.blocks.truncate(1);
        }
        scene.work_through(&job).await;
    }
    let made = "(select count(*) = 2 from pg_class where relname ~ to_char(current_date + 20, '\"^(outbox|attempt)_\"YYYYMMDD\"$\"'))
        and not exists (select from posthaste.guard_deviation())";
    assert!(scene.world.holds(made).await);
}

#[tokio::test]
async fn a_drained_worker_leaves_no_lease_and_repeats_nothing() {
    let drain = entry("Drain a worker");
    let mut scene = Scene::of(&drain).await;
    scene.partner.set_reply(Reply::Status(200));
    scene.world.publish_many("ship.arrived", 200).await;
    scene.work_through(&drain).await;
    let worker = scene.worker.take().unwrap();
    assert!(worker.ended().await.success());
    assert!(
        scene
            .world
            .holds("not exists (select from posthaste.lease)")
            .await
    );
    let _other = scene.world.worker(&[]).await;
    scene.world.make_due().await;
    scene.world.until_all_is_done().await;
    let again =
        "exists (select from posthaste.attempt where outcome = 'abandoned' or verdict = 'late')";
    assert!(!scene.world.holds(again).await);
    let twice = "exists (select from posthaste.attempt where outcome = 'accepted' group by event_id having count(*) > 1)";
    assert!(!scene.world.holds(twice).await);
}

#[tokio::test]
async fn a_replay_after_an_outage_delivers_what_was_given_up() {
    let replay = entry("Replay after a partner's outage");
    let scene = Scene::of(&replay).await;
    scene.world.make_due().await;
    scene
        .world
        .until("exists (select from posthaste.dead_letter)")
        .await;
    scene.partner.set_reply(Reply::Status(200));
    scene.work_through(&replay).await;
    let delivered = format!(
        "exists (select from posthaste.delivery where event_id = '{}' and replay = 1 and status = 'SUCCESS')",
        scene.event
    );
    scene.world.until(&delivered).await;
}

fn wrong() -> Vec<page::Entry> {
    let all = entries().into_iter();
    all.filter(|entry| entry.chapter == WRONG).collect()
}

/// Each is worked through by a test, here or in `jobs`; the last one has nothing to paste.
const JOBS: [&str; 13] = [
    "Deploy",
    "Upgrade",
    "Drain a worker",
    "Replay after a partner's outage",
    "Rotate secrets, keys, certificates and passwords",
    "Take a backup",
    "Restore a backup",
    "Move to another cluster",
    "Failover to a standby",
    "Add a partition by hand",
    "Drop old partitions",
    "Size the database",
    "PgBouncer",
];
