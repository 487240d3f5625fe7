//! What `/metrics` says: all of the closed list, nothing else, and what Prometheus' own tool has nothing to say against.

use std::net::SocketAddr;
use std::time::SystemTime;

use posthaste::sender::ClientIdentity;
use posthaste::telemetry::{METRICS, Values};
use posthaste::trial::authority::Authority;
use posthaste::trial::partner::Reply;

use crate::harness::{PATIENCE, Partner, World, http};

#[tokio::test]
async fn metrics_are_all_there_described_and_labelled_from_closed_sets() {
    let world = World::new().await;
    let partners = [
        Reply::Status(200),
        Reply::Status(500),
        Reply::Status(422),
        Reply::Reset,
    ];
    for (number, reply) in partners.into_iter().enumerate() {
        let partner = Partner::replying(reply).await;
        world
            .subscribe(&format!("partner-{number}"), &partner, "1h")
            .await;
    }
    // A receiver that is gone would be paused, perhaps before all was sent to it.
    world
        .change("partner-2", r#"{"client_errors": "reject"}"#)
        .await;
    let worker = world.worker_process(&[("listen", "127.0.0.1:0")]).await;
    let address = worker.telemetry_address().await;
    world.publish_many("thing.happened", 20).await;
    world
        .until("(select count(*) from posthaste.attempt) = 80")
        .await;
    let metrics = told_in(address, &["\nposthaste_four_eyes".to_owned()]).await;
    for metric in METRICS {
        let name = metric.name;
        if !metrics.contains(&format!("\n{name}")) {
            continue;
        }
        let kind = metric.kind.word();
        assert!(
            metrics.contains(&format!("# TYPE {name} {kind}\n")),
            "{name} is no {kind}\n{metrics}"
        );
    }
    is_of_the_list(&metrics);
}

#[tokio::test]
async fn what_waits_for_a_person_is_in_the_metrics() {
    let world = World::new().await;
    world
        .subscribe_url("p", "https://127.0.0.1:1/", &["*"], None, "1h")
        .await;
    world
        .change("p", r#"{"headers": {"Authorization": {"secret": true}}}"#)
        .await;
    world
        .run(
            "select posthaste.set_four_eyes(false, 'a trial');
             update posthaste.signing_secret set created_at = now() - interval '91 days'",
        )
        .await;
    let worker = world.worker_process(&[("listen", "127.0.0.1:0")]).await;
    let address = worker.telemetry_address().await;
    let expected = [
        "posthaste_four_eyes 0\n",
        "posthaste_secrets_overdue 1\n",
        "posthaste_secrets_missing 1\n",
    ];
    told_in(address, &expected.map(str::to_owned)).await;
}

#[tokio::test]
async fn the_end_of_the_first_client_certificate_is_in_the_metrics() {
    let world = World::new().await;
    let (certificate, key) = Authority::new().unwrap().client_pem("us").unwrap();
    let id = world
        .subscribe_url("p", "https://127.0.0.1:1/", &["*"], None, "1h")
        .await;
    let terms = serde_json::json!({"tls": {"certificate": certificate}});
    world.change("p", &terms.to_string()).await;
    world.set_credential("p", id, ":client_key", &key).await;
    let worker = world.worker_process(&[("listen", "127.0.0.1:0")]).await;
    let address = worker.telemetry_address().await;
    let told = |number: &str| [format!("\n{CERTIFICATE_EXPIRY} {number}\n")];
    told_in(address, &told("NaN")).await;
    world.publish("thing.happened", "{}").await;
    let end = ClientIdentity::from_pem(certificate.as_bytes(), key.as_bytes())
        .unwrap()
        .not_after();
    let seconds = end
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    told_in(address, &told(&seconds.to_string())).await;
    // Nothing is shown to a partner that is gone.
    world.agree("propose_removal('p', 'a trial')").await;
    told_in(address, &told("NaN")).await;
}

/// `/metrics` once each of `parts` is in it: what a worker reads from the tables is told only when it was read.
async fn told_in(address: SocketAddr, parts: &[String]) -> String {
    let told = async {
        loop {
            let metrics = http::get(address, "/metrics").await.body;
            if parts.iter().all(|part| metrics.contains(part)) {
                return metrics;
            }
        }
    };
    tokio::time::timeout(PATIENCE, told)
        .await
        .expect("each metric is told")
}

/// Fails where a sample of the page is of no metric of the list, or has a label that its metric has not, or says what that cannot.
fn is_of_the_list(page: &str) {
    for sample in page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let name = sample.split(['{', ' ']).next().unwrap();
        let of = |metric: &&posthaste::telemetry::Metric| {
            name.strip_prefix(metric.name)
                .is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
        };
        let metric = METRICS
            .iter()
            .find(of)
            .unwrap_or_else(|| panic!("{sample}"));
        for (label, value) in labels(sample) {
            let known = metric.labels.iter().find(|known| known.name == label);
            match known.map(|known| known.values) {
                Some(Values::Closed(values)) => assert!(values.contains(&value), "{sample}"),
                Some(Values::TopList) => {}
                None => assert_eq!(label, "le", "{sample}"),
            }
        }
    }
}

/// The labels of one line of `/metrics`, whose values have no commas.
fn labels(sample: &str) -> Vec<(&str, &str)> {
    let inside = sample
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    inside.map_or(Vec::new(), |(labels, _)| {
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        labels
            .map(|(name, value)| (name, value.trim_matches('"')))
            .collect()
    })
}

const CERTIFICATE_EXPIRY: &str = "posthaste_client_certificate_expiry_timestamp_seconds";
