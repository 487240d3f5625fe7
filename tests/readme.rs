//! The README says what is so: its tables are the program's own, and its SQL runs.

use std::path::Path;

use posthaste::{config, operational, telemetry};
use uuid::Uuid;

use crate::harness::World;

#[test]
fn its_configuration_table_is_the_programs() {
    says("configuration", &config::markdown_table());
}

#[test]
fn its_table_of_metrics_is_the_programs() {
    says("metrics", &telemetry::markdown_table());
}

#[test]
fn its_table_of_operational_events_is_the_programs() {
    says("operations", &operational::markdown_table());
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

/// Statements of the README's tour, and the login that runs them.
struct Stop {
    login: &'static str,
    sql: String,
}

#[tokio::test]
async fn its_tour_runs_as_written() {
    let world = World::new().await;
    let partner = world.partner().await;
    let trial = Uuid::now_v7().simple().to_string();
    let stops = tour(&trial, &partner.url("/webhooks"));
    let who: Vec<&str> = stops.iter().map(|stop| stop.login).collect();
    assert_eq!(
        who,
        ["owner", "ada", "grace", "shop", "audrey", "grace"],
        "the tour's logins"
    );
    let session = world.session().await;
    let mut worker = None;
    for Stop { login, sql } in stops {
        // As if this person had logged in.
        let authority = match login {
            "owner" => "default".to_owned(),
            login => format!("{login}_{trial}"),
        };
        session
            .batch_execute(&format!("set session authorization {authority}"))
            .await
            .unwrap();
        session
            .batch_execute(&sql)
            .await
            .unwrap_or_else(|error| panic!("{login}: {error:?}\n{sql}"));
        if login == "shop" {
            worker = Some(world.worker(&[]).await);
            partner.wait_for(1).await;
            world.until_all_is_done().await;
        }
    }
    world
        .until("(select count(*) from posthaste.signing_secret where ciphertext is not null) = 2")
        .await;
    drop(worker);
    assert_eq!(
        world
            .text("select string_agg(subscription || ' ' || status, ', ') from posthaste.delivery")
            .await,
        "university SUCCESS"
    );
    assert!(
        world
            .holds("(select intact and entries >= 4 from posthaste.verify_audit())")
            .await
    );
    for login in ["shop", "webhooks", "ada", "grace", "audrey"] {
        world.run(&format!("drop role {login}_{trial}")).await;
    }
}

/// The README's blocks of SQL, with names of its logins that no other test has, and the partner's real address.
fn tour(trial: &str, url: &str) -> Vec<Stop> {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let blocks = readme.split("```sql tour:").skip(1);
    let stops = blocks.map(|rest| {
        let (login, sql) = rest.split_once('\n').unwrap();
        let login = ["owner", "ada", "grace", "shop", "audrey"]
            .into_iter()
            .find(|known| *known == login)
            .unwrap();
        let sql = sql.split("```").next().unwrap_or_default();
        let mut sql = sql.replace("https://university.example/webhooks", url);
        for role in ["shop", "webhooks", "ada", "grace", "audrey"] {
            sql = sql.replace(&format!("role {role} "), &format!("role {role}_{trial} "));
        }
        Stop { login, sql }
    });
    stops.collect()
}
