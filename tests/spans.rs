//! Each attempt is a span under the producer's trace, told to a collector that may be slow, away or hostile, and never in the way of a delivery.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use posthaste::spans::{ATTRIBUTES, TraceContext, attribute_table};
use posthaste::trial::partner::{Received, Replies, Reply};
use prost::Message as _;
use uuid::Uuid;

use crate::harness::{PATIENCE, Partner, World, http};

#[test]
fn the_documented_attributes_are_the_programs() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/observability.md");
    let page = std::fs::read_to_string(page).unwrap();
    let table = page
        .split_once("<!-- spans:start -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- spans:end -->"))
        .map(|(table, _)| table);
    assert_eq!(table, Some(attribute_table().as_str()));
}

#[tokio::test]
async fn an_attempt_is_a_span_under_the_producers_own_with_what_it_met() {
    let world = World::new().await;
    let (partner, collector) = (world.partner().await, Collector::new().await);
    let url = partner.url("/p?key=hunter2");
    let id = world.subscribe_url("p", &url, &["*"], None, "1h").await;
    let worker = world.worker(&collector.settings()).await;
    let begun = now();
    let event = publish(&world, Some(PRODUCERS)).await;
    world.until_all_is_done().await;
    let spans = collector.spans(1).await;
    let span = &spans[0];
    let parent = TraceContext::parse(PRODUCERS).unwrap();
    assert_eq!(span.trace_id, parent.trace_id.to_be_bytes());
    assert_eq!(span.parent_span_id, parent.span_id.to_be_bytes());
    assert!(span.span_id.len() == 8 && span.span_id != span.parent_span_id);
    // The lowest bit says sampled, the tenth that the parent is another service's.
    assert_eq!(span.flags & 0x301, 0x301);
    assert_eq!(span.kind(), SpanKind::Client);
    assert_eq!(span.name, "send p");
    assert!(begun <= span.start_time_unix_nano && span.end_time_unix_nano <= now());
    assert!(span.start_time_unix_nano < span.end_time_unix_nano);
    assert!(
        span.status
            .as_ref()
            .is_none_or(|status| status.code() == StatusCode::Unset)
    );
    let port = url.split([':', '/']).nth(4).unwrap().to_owned();
    let expected = [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("messaging.destination.name", "p"),
        ("messaging.message.id", &event.to_string()),
        ("messaging.operation.name", "send"),
        ("messaging.operation.type", "send"),
        ("messaging.system", "posthaste"),
        ("network.peer.address", "127.0.0.1"),
        ("posthaste.attempt.number", "1"),
        ("posthaste.attempt.outcome", "accepted"),
        ("posthaste.attempt.replay", "0"),
        ("posthaste.attempt.verdict", "done"),
        ("posthaste.event.type", "a.b"),
        ("posthaste.subscription.id", &id.to_string()),
        ("server.address", url.split([':', '/']).nth(3).unwrap()),
        ("server.port", &port),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(attributes(&span.attributes), BTreeMap::from(expected));
    let resource = attributes(&collector.resource());
    assert_eq!(resource["service.name"], "the-postman");
    assert!(
        resource.contains_key("service.version") && resource.contains_key("service.instance.id")
    );
    let request = &collector.0.received()[0];
    assert_eq!(request.path, "/v1/traces");
    assert_eq!(request.headers["content-type"], "application/x-protobuf");
    assert_eq!(request.headers["api-key"], "a secret");
    let told = format!("{request:?}");
    assert!(
        !told.contains("hunter2") && !told.contains("confidential"),
        "{told}"
    );
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_retry_is_another_span_of_the_trace_and_partners_that_may_know_are_told_of_theirs() {
    let world = World::new().await;
    let partner = Partner::replying(Replies::fail_first(1, 503)).await;
    let stranger = world.partner().await;
    let collector = Collector::new().await;
    world.subscribe("p", &partner, "1h").await;
    world.change("p", r#"{"pass_trace": true}"#).await;
    world.subscribe("stranger", &stranger, "1h").await;
    let _worker = world.worker(&collector.settings()).await;
    publish(&world, Some(PRODUCERS)).await;
    partner.wait_for(1).await;
    world.until("exists (select from posthaste.queue)").await;
    world.make_due().await;
    world.until_all_is_done().await;
    let mut spans = collector.spans(3).await;
    spans.retain(|span| span.name == "send p");
    spans.sort_by_key(|span| span.start_time_unix_nano);
    let received = partner.received();
    assert_eq!((spans.len(), received.len()), (2, 2));
    let parent = TraceContext::parse(PRODUCERS).unwrap();
    for (span, received) in spans.iter().zip(&received) {
        let told = TraceContext::parse(traceparent(received).unwrap()).unwrap();
        assert_eq!(told.trace_id, parent.trace_id);
        assert_eq!(told.span_id.to_be_bytes(), span.span_id[..]);
        assert_eq!(span.parent_span_id, parent.span_id.to_be_bytes());
        assert_eq!(received.verified, Some(Ok(())));
    }
    assert_ne!(spans[0].span_id, spans[1].span_id);
    assert_eq!(received[0].body, received[1].body);
    let [failed, accepted] = [0, 1].map(|at| attributes(&spans[at].attributes));
    for (name, value) in [
        ("http.response.status_code", "503"),
        ("error.type", "503"),
        ("posthaste.attempt.outcome", "rejected"),
        ("posthaste.attempt.verdict", "retry"),
        ("posthaste.attempt.rule", "interval"),
    ] {
        assert_eq!(failed[name], value, "{name}");
    }
    let status = spans[0].status.as_ref().unwrap();
    assert_eq!(status.code(), StatusCode::Error);
    assert_eq!(accepted["posthaste.attempt.number"], "2");
    assert_eq!(accepted["http.request.resend_count"], "1");
    assert!(!accepted.contains_key("error.type"));
    assert_eq!(traceparent(&stranger.received()[0]), None);
}

#[tokio::test]
async fn what_took_too_long_or_met_nobody_is_an_error_of_that_kind() {
    let world = World::new().await;
    let (partner, collector) = (Partner::replying(Reply::Hang).await, Collector::new().await);
    world.subscribe("slow", &partner, "1h").await;
    world.change("slow", r#"{"timeout": "1s"}"#).await;
    world
        .subscribe_url("nobody", "https://127.0.0.1:9/", &["*"], None, "1h")
        .await;
    let _worker = world.worker(&collector.settings()).await;
    publish(&world, Some(PRODUCERS)).await;
    for span in collector.spans(2).await {
        let attributes = attributes(&span.attributes);
        let (outcome, least) = match span.name.as_str() {
            "send slow" => ("timed_out", Duration::from_secs(1)),
            _ => ("unreachable", Duration::ZERO),
        };
        assert_eq!(attributes["error.type"], outcome);
        assert_eq!(attributes["posthaste.attempt.outcome"], outcome);
        assert!(!attributes.contains_key("http.response.status_code"));
        let status = span.status.as_ref().unwrap();
        assert_eq!(status.code(), StatusCode::Error);
        assert!(!status.message.is_empty());
        let took = Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano);
        assert!(took >= least, "{outcome} after {took:?}");
    }
}

#[tokio::test]
async fn what_the_producer_does_not_sample_has_no_span_and_its_context_goes_on_as_it_is() {
    let world = World::new().await;
    let (partner, collector) = (world.partner().await, Collector::new().await);
    world.subscribe("p", &partner, "1h").await;
    world.change("p", r#"{"pass_trace": true}"#).await;
    let unsampled = PRODUCERS.replace("-01", "-00");
    let _worker = world.worker(&collector.settings()).await;
    publish(&world, Some(&unsampled)).await;
    world.until_all_is_done().await;
    publish(&world, Some(PRODUCERS)).await;
    world.until_all_is_done().await;
    // Spans arrive in the order of their ends: the other one would be here by now.
    assert_eq!(collector.spans(1).await.len(), 1);
    let received = partner.received();
    assert_eq!(traceparent(&received[0]), Some(unsampled.as_str()));
    assert_ne!(traceparent(&received[1]), Some(PRODUCERS));
}

#[tokio::test]
async fn an_event_without_a_trace_has_one_of_its_own_for_an_agreed_share() {
    let world = World::new().await;
    let (partner, collector) = (world.partner().await, Collector::new().await);
    world.subscribe("p", &partner, "1h").await;
    world.change("p", r#"{"pass_trace": true}"#).await;
    let worker = world.worker(&collector.settings()).await;
    let event = publish(&world, None).await;
    let span = &collector.spans(1).await[0];
    assert_eq!(span.trace_id, event.as_bytes());
    assert!(span.parent_span_id.is_empty());
    let told = traceparent(&partner.wait_for(1).await[0]).map(str::to_owned);
    let told = TraceContext::parse(&told.unwrap()).unwrap();
    assert_eq!(told.span_id.to_be_bytes(), span.span_id[..]);
    worker.stop().await.unwrap();

    let never = [&collector.settings()[..], &[("trace_ratio", "0")]].concat();
    let worker = world.worker(&never).await;
    publish(&world, None).await;
    publish(&world, Some(PRODUCERS)).await;
    world.until_all_is_done().await;
    worker.stop().await.unwrap();
    let spans = collector.spans(2).await;
    assert_eq!(spans.len(), 2, "the event without a trace has none");
    let received = partner.received();
    let without = received
        .iter()
        .filter(|received| traceparent(received).is_none());
    assert_eq!(without.count(), 1);
}

/// What a collector does not take is dropped and counted, with one line in the log; deliveries go on, and the end comes in time.
async fn is_a_bad_collector(reply: Reply) {
    let world = World::new().await;
    let (partner, collector) = (world.partner().await, Collector::replying(reply).await);
    world.subscribe("p", &partner, "1h").await;
    let settings = [
        &collector.settings()[..],
        &[("listen", "127.0.0.1:0"), ("log_format", "json")],
    ]
    .concat();
    let worker = world.worker_process(&settings).await;
    let address = worker.telemetry_address().await;
    publish(&world, Some(PRODUCERS)).await;
    world.until_all_is_done().await;
    let dropped = async {
        let line = "\nposthaste_spans_dropped_total 1\n";
        while !http::get(address, "/metrics").await.body.contains(line) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped)
        .await
        .expect("never dropped");
    // More than it holds.
    world.publish_many("a.b", 3000).await;
    world.until_all_is_done().await;
    let told = Instant::now();
    worker.terminate();
    let (status, log) = worker.ended_saying().await;
    assert!(
        status.success() && told.elapsed() < Duration::from_secs(8),
        "{:?}",
        told.elapsed()
    );
    let said = log
        .matches("spans cannot be sent; they are dropped")
        .count();
    assert_eq!(said, 1, "{log}");
    assert!(
        !log.contains("a secret") && !log.contains("a%20secret"),
        "{log}"
    );
}

#[tokio::test]
async fn a_collector_that_hangs_holds_up_nothing() {
    is_a_bad_collector(Reply::Hang).await;
}

#[tokio::test]
async fn a_collector_that_refuses_holds_up_nothing() {
    is_a_bad_collector(Reply::Status(503)).await;
}

async fn publish(world: &World, traceparent: Option<&str>) -> Uuid {
    let publish = "insert into posthaste.outbox (event_type, payload, traceparent)
        values ('a.b', '{\"confidential\": true}', $1) returning event_id";
    let row = world.db.query_one(publish, &[&traceparent]).await;
    row.unwrap().get(0)
}

/// Takes spans over HTTPS.
struct Collector(Partner, String);

impl Collector {
    async fn new() -> Self {
        Self::replying(Reply::Status(200)).await
    }

    async fn replying(reply: Reply) -> Self {
        let partner = Partner::replying(reply).await;
        let url = partner.url("/");
        Self(partner, url)
    }

    fn settings(&self) -> [(&str, &str); 3] {
        [
            ("otlp_endpoint", self.1.as_str()),
            ("otlp_headers", "api-key=a%20secret"),
            ("service_name", "the-postman"),
        ]
    }

    /// All spans so far, once there are so many.
    async fn spans(&self, count: usize) -> Vec<Span> {
        for requests in 1.. {
            let requests = self.0.wait_for(requests).await;
            let spans: Vec<Span> = requests
                .iter()
                .flat_map(|request| decoded(request).resource_spans)
                .flat_map(|spans| spans.scope_spans)
                .flat_map(|spans| spans.spans)
                .collect();
            if spans.len() >= count {
                return spans;
            }
        }
        Vec::new()
    }

    fn resource(&self) -> Vec<KeyValue> {
        let mut request = decoded(&self.0.received()[0]);
        let spans = request.resource_spans.remove(0);
        spans.resource.unwrap().attributes
    }
}

fn decoded(request: &Received) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(request.body.clone()).unwrap()
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| {
        let is_listed = |(name, _): &(&str, _)| *name == attribute.key;
        let is_resources =
            attribute.key.starts_with("service.") || attribute.key.starts_with("telemetry.sdk.");
        assert!(
            is_resources || ATTRIBUTES.iter().any(is_listed),
            "{attribute:?}"
        );
        let value = attribute
            .value
            .as_ref()
            .and_then(|value| value.value.as_ref());
        match value {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            other => panic!("{}: {other:?}", attribute.key),
        }
    };
    let attributes = attributes.iter();
    attributes
        .map(|attribute| (attribute.key.clone(), text(attribute)))
        .collect()
}

fn traceparent(received: &Received) -> Option<&str> {
    let header = received.headers.get("traceparent");
    header.map(|value| value.to_str().unwrap())
}

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_nanos()).unwrap()
}

const PRODUCERS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
