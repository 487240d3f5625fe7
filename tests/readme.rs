//! The README says what is so: its tables are the program's own, and its SQL runs.

use std::path::Path;

use posthaste::{config, telemetry};

use crate::harness::World;

#[test]
fn its_configuration_table_is_the_programs() {
    says("configuration", &config::markdown_table());
}

#[test]
fn its_table_of_metrics_is_the_programs() {
    says("metrics", &telemetry::markdown_table());
}

/// Compares the text between two markers; rewrites it instead where `POSTHASTE_UPDATE_README` is set.
fn says(section: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (start, end) = (
        format!("<!-- {section}:start -->\n"),
        format!("<!-- {section}:end -->"),
    );
    let (before, rest) = readme.split_once(&start).unwrap();
    let (said, after) = rest.split_once(&end).unwrap();
    if said == expected {
        return;
    }
    assert!(
        std::env::var_os("POSTHASTE_UPDATE_README").is_some(),
        "the README's {section} differ; POSTHASTE_UPDATE_README=1 cargo test readme rewrites them"
    );
    std::fs::write(&path, format!("{before}{start}{expected}{end}{after}")).unwrap();
}

#[tokio::test]
async fn its_sql_runs_as_written() {
    let world = World::new().await;
    world
        .run("create table certificate (id integer, issued_at timestamptz); insert into certificate values (42)")
        .await;
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let blocks: Vec<&str> = readme
        .split("```sql\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect();
    assert!(blocks.len() >= 3, "{} blocks of SQL", blocks.len());
    for block in blocks {
        world.run(block).await;
    }
    assert_eq!(
        world.count("select count(*) from posthaste.outbox").await,
        1
    );
    assert_eq!(
        world
            .count("select count(*) from posthaste.subscription")
            .await,
        1
    );
}
