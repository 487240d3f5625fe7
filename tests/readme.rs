//! The README says what is so: its tables are the program's own, and its SQL runs.

use std::path::Path;
use std::time::Duration;

use posthaste::secret::SigningSecret;
use posthaste::trial::partner::Received;
use posthaste::{config, operational, signature, telemetry};
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

/// What an administrator may agree with a partner, and what holds where nothing was said.
#[tokio::test]
async fn its_table_of_terms_has_the_defaults_of_the_schema() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let tables = ["policy", "shape"].map(|name| {
        between(
            &readme,
            &format!("<!-- {name}:start -->"),
            &format!("<!-- {name}:end -->"),
        )
    });
    let told = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(|line| {
            let cells: Vec<&str> = line.split(" | ").collect();
            let term = cells.first()?.strip_prefix("| `")?.strip_suffix('`')?;
            let default = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
            Some(format!(r#""{term}": {default}"#))
        });
    let told: Vec<String> = told.collect();
    assert_eq!(told.len(), 20, "{told:?}");
    let world = World::new().await;
    let wrong = world
        .text(&format!(
            "select coalesce(string_agg(format('%s is %s', key, d -> key), ', '), 'none')
             from (select posthaste.checked_terms('{{\"name\": \"p\", \"url\": \"https://p.example/\", \"event_types\": [\"*\"]}}') as d,
                          '{{{}}}'::jsonb as told) t, jsonb_each(t.told)
             where d -> key is distinct from case when key = 'retry_intervals' then posthaste.checked_schedule(value) else value end",
            told.join(", ")
        ))
        .await;
    assert_eq!(wrong, "none");
}

/// Whoever builds a receiver tries their code with it.
#[test]
fn the_request_that_receivers_are_shown_is_signed_with_the_secret_they_are_shown() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/receiving.md")).unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let request = between(&page, "```http\n", "\n```");
    assert!(readme.contains(request), "README shows another request");
    let (head, body) = request.split_once("\n\n").unwrap();
    let header = |name: &str| between(head, &format!("{name}: "), "\n");
    let secret = between(&page, "signed with\n`", "`");
    let timestamp = header("webhook-timestamp");
    assert_eq!(header("content-length"), body.len().to_string());
    signature::verify(
        &[SigningSecret::parse(secret).unwrap()],
        header("webhook-id"),
        timestamp,
        header("webhook-signature"),
        body.as_bytes(),
        timestamp.parse().unwrap(),
        Duration::ZERO,
    )
    .unwrap();
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
        [
            "owner", "ada", "grace", "ada", "grace", "shop", "audrey", "grace"
        ],
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
            is_as_agreed(&partner.wait_for(1).await[0]);
            world.until_all_is_done().await;
        }
    }
    world
        .until("(select count(*) from posthaste.signing_secret where ciphertext is not null) = 3")
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

/// The tour's event, in the envelope, under the mask and with the signatures that were agreed.
fn is_as_agreed(received: &Received) {
    let body = std::str::from_utf8(&received.body).unwrap();
    let (head, data) = body.split_once(r#","data":"#).unwrap();
    assert!(
        head.starts_with(r#"{"event":"certificate.issued","occurredAt":""#),
        "{body}"
    );
    let pseudonym = between(data, r#""student":"p_"#, "\"");
    assert_eq!(pseudonym.len(), 22, "{body}");
    assert_eq!(
        data.replace(pseudonym, ""),
        r#"{"certificate":42,"grade":2.5,"student":"p_"}}"#
    );
    let signature = received.headers["webhook-signature"].to_str().unwrap();
    assert!(
        signature.starts_with("v1,") && signature.contains(" v1a,"),
        "{signature}"
    );
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

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let (_, rest) = text.split_once(before).unwrap();
    rest.split_once(after).unwrap().0
}
