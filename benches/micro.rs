//! What the worker computes for each delivery, piece by piece: `cargo bench`, or `cargo bench -- sign` for a part of it.
//!
//! Times are of this machine alone. They tell where an attempt's time goes, and whether a change made a piece dearer; what the
//! whole costs, database and network with it, `posthaste bench` tells. Which subscriptions an event goes to, their filters among
//! it, is for Postgres to find out, so it is not here: `posthaste bench scale` measures it.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that meets the unexpected has failed"
)]
#![allow(
    elided_lifetimes_in_paths,
    reason = "a `Bencher` borrows nothing that a reader cares about"
)]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use metrics::{counter, histogram};
use posthaste::catalogue;
use posthaste::delivery::{
    Address, Advice, Attempt, DeliveryKey, Outcome, Phases, Report, Ruling, Verdict,
};
use posthaste::egress::EgressPolicy;
use posthaste::endpoint::{EndpointUrl, PlainHttp};
use posthaste::envelope::{self, Envelope, Facts, SHIPPED, Shipped};
use posthaste::mask::{Id, Mask, PseudonymKey};
use posthaste::request::{Event, Occasion, Shape};
use posthaste::retry::{ClientErrors, Jitter, RetryPolicy};
use posthaste::secret::{Keyring, SecretKind, SigningSecret};
use posthaste::signature::{self, Message, Profile, Signer};
use posthaste::telemetry::{self, Ledger};
use uuid::Uuid;

fn main() {
    // As the program does, so that what is counted goes somewhere.
    posthaste::listener::install_recorder(telemetry::BUCKETS).unwrap();
    divan::main();
}

/// Sizes of a payload: of most events, and of a large one.
const SIZES: [usize; 2] = [300, 16 * 1024];

/// Sizes of a payload with many fields.
const ORDERS: [usize; 2] = [1024, 20 * 1024];

const MASK: &str = r#"{
    "allow": ["/order", "/created_at", "/items/*/sku", "/items/*/quantity", "/meta/**"],
    "fields": {
        "/student/id": {"map": "student"},
        "/student/email": "pseudonym",
        "/order/internal": "drop",
        "/items/*/price": {"replace": null},
        "/meta/trace": "drop"
    }
}"#;

/// Of an order, to the kinds of its fields.
const SCHEMA: &str = r#"{
    "type": "object",
    "required": ["order", "created_at", "items"],
    "properties": {
        "order": {
            "type": "object",
            "required": ["number", "state"],
            "properties": {
                "number": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{4}$"},
                "state": {"enum": ["open", "paid", "sent"]}
            }
        },
        "created_at": {"type": "string", "maxLength": 40},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["sku", "quantity"],
                "properties": {
                    "sku": {"type": "string", "maxLength": 40},
                    "quantity": {"type": "integer", "minimum": 1},
                    "price": {"type": "number", "minimum": 0}
                }
            }
        }
    }
}"#;

const ID: &str = "0199e8a4-7c00-7000-8000-0123456789ab";
const TIMESTAMP: i64 = 1_760_000_000;
const EVENT_TYPE: &str = "certificate.issued";

// An attempt, from the lease to the request.

/// All of it, as an attempt composes it: id, envelope, signature, headers.
#[divan::bench(args = SIZES)]
fn request(bencher: Bencher, size: usize) {
    let (secrets, payload) = (secrets(1), payload(size));
    let shape = Shape {
        envelope: Envelope::standard(),
        signer: Signer::default(),
        platform: None,
        tells_delivery: false,
        wants_context: false,
        user_agent: None,
        pass_trace: false,
        extra: Vec::new(),
    };
    let occasion = Occasion {
        timestamp: TIMESTAMP,
        number: 1,
        left: 9,
    };
    bencher.counter(BytesCount::new(size)).bench(|| {
        let event = Event {
            key: DeliveryKey {
                event_id: Uuid::parse_str(ID).unwrap(),
                subscription_id: 1,
                replay: 0,
            },
            subscription: "university",
            event_type: EVENT_TYPE,
            occurred_at: SystemTime::UNIX_EPOCH,
            data: black_box(&payload),
            metadata: None,
            tenant: None,
            traceparent: None,
        };
        shape.compose(&event, &secrets, &occasion).unwrap()
    });
}

/// By the way that each receiver knows.
#[divan::bench(args = Profile::ALL)]
fn sign_as(bencher: Bencher, profile: Profile) {
    let body = payload(SIZES[0]);
    let secrets = SecretKind::ALL.map(|kind| SigningSecret::generate_as(kind).unwrap());
    let signer = Signer::new([profile], Some("X-Platform")).unwrap();
    bencher.bench(|| {
        let message = Message {
            id: ID,
            timestamp: TIMESTAMP,
            body: black_box(body.as_bytes()),
            event_type: EVENT_TYPE,
        };
        signer.sign(&secrets, &message).unwrap()
    });
}

#[divan::bench(args = SIZES)]
fn render_envelope(bencher: Bencher, size: usize) {
    let (payload, envelope) = (payload(size), Envelope::standard());
    bencher
        .counter(BytesCount::new(size))
        .bench(|| envelope.body(&facts(black_box(&payload))));
}

/// Body and headers of each envelope that comes with the program, around most events' payload.
#[divan::bench(args = SHIPPED.iter().map(|shipped| shipped.name))]
fn render_shipped(bencher: Bencher, name: &str) {
    let (payload, envelope) = (payload(SIZES[0]), compile(name));
    bencher.bench(|| {
        let facts = facts(black_box(&payload));
        let headers: Vec<_> = envelope.headers(&facts).map(Result::unwrap).collect();
        (headers, envelope.body(&facts))
    });
}

/// Once per subscription and change of its terms.
#[divan::bench(args = SHIPPED.iter().map(|shipped| shipped.name))]
fn compile_shipped(bencher: Bencher, name: &str) {
    bencher.bench(|| compile(black_box(name)));
}

/// With one secret, and with the two of a rotation.
#[divan::bench(args = SIZES, consts = [1, 2])]
fn sign<const SECRETS: usize>(bencher: Bencher, size: usize) {
    let (secrets, body) = (secrets(SECRETS), payload(size));
    bencher
        .counter(BytesCount::new(size))
        .bench(|| signature::sign(&secrets, ID, TIMESTAMP, black_box(body.as_bytes())));
}

/// Ten rules of every kind on an order of so many bytes, of which a third leaves.
#[divan::bench(args = ORDERS)]
fn apply_mask(bencher: Bencher, size: usize) {
    let (mask, key, payload) = (mask(), PseudonymKey::new([7; 32]), order(size));
    let ids = |id: &Id| Some(format!("s-{}", id.internal));
    bencher
        .counter(BytesCount::new(payload.len()))
        .bench(|| mask.apply(black_box(&payload), &key, &ids).unwrap());
}

/// Where all is allowed, all that is left to do is to make sure that it is JSON.
#[divan::bench(args = ORDERS)]
fn apply_mask_that_allows_all(bencher: Bencher, size: usize) {
    let (mask, key, payload) = (
        Mask::parse(r#"{"allow": [""]}"#).unwrap(),
        PseudonymKey::new([7; 32]),
        order(size),
    );
    bencher
        .counter(BytesCount::new(payload.len()))
        .bench(|| mask.apply(black_box(&payload), &key, &|_| None).unwrap());
}

/// Which ids have to be looked up first.
#[divan::bench(args = ORDERS)]
fn wanted_ids(bencher: Bencher, size: usize) {
    let (mask, payload) = (mask(), order(size));
    bencher
        .counter(BytesCount::new(payload.len()))
        .bench(|| mask.wanted(black_box(&payload)).unwrap());
}

/// Whether an order of so many bytes keeps its event type's schema: it does, so all of it is looked at.
#[divan::bench(args = ORDERS)]
fn check_schema(bencher: Bencher, size: usize) {
    let (schema, payload) = (catalogue::compile(SCHEMA).unwrap(), order(size));
    assert_eq!(catalogue::breach(&schema, &payload), None);
    bencher
        .counter(BytesCount::new(payload.len()))
        .bench(|| catalogue::breach(&schema, black_box(&payload)));
}

// Its answer.

/// What a receiver does, base64 of the signature read back with it.
#[divan::bench(args = SIZES)]
fn verify(bencher: Bencher, size: usize) {
    let (secrets, body) = (secrets(1), payload(size));
    let header = signature::sign(&secrets, ID, TIMESTAMP, body.as_bytes());
    let (timestamp, tolerance) = (TIMESTAMP.to_string(), Duration::from_mins(5));
    bencher.counter(BytesCount::new(size)).bench(|| {
        let body = black_box(body.as_bytes());
        let checked = signature::verify(
            &secrets, ID, &timestamp, &header, body, TIMESTAMP, tolerance,
        );
        checked.unwrap();
    });
}

#[divan::bench(args = [(Outcome::Accepted, Some(200)), (Outcome::Rejected, Some(503)), (Outcome::TimedOut, None)])]
fn judge(bencher: Bencher, (outcome, http_status): (Outcome, Option<u16>)) {
    let policy = RetryPolicy {
        intervals: vec![Duration::from_secs(5); 9],
        jitter: Jitter::Fraction(0.1),
        client_errors: ClientErrors::Retry,
    };
    let report = Report {
        outcome,
        http_status,
        error: None,
        snippet: None,
        advice: Advice::default(),
        remote: None,
        duration: Duration::ZERO,
        phases: Phases::default(),
    };
    bencher.bench(|| policy.judge(black_box(&report), 3, None, 0.3));
}

// What is counted of it.

/// A batch of 512 attempts to 20 subscriptions, of which one in eight fails: all that there is to count of it.
#[divan::bench]
fn count_batch(bencher: Bencher) {
    let (attempts, ledger) = (attempts(), Ledger::default());
    bencher
        .counter(ItemsCount::new(attempts.len()))
        .bench(|| telemetry::recorded(black_box(&attempts), &[], &ledger, |_| None));
}

/// The yardstick: two metrics of the same batch, counted one by one.
#[divan::bench]
fn count_batch_one_by_one(bencher: Bencher) {
    let attempts = attempts();
    bencher.counter(ItemsCount::new(attempts.len())).bench(|| {
        for attempt in black_box(&attempts) {
            let outcome = attempt.report.outcome.as_str();
            let verdict = attempt.ruling.verdict.as_str();
            counter!("one_by_one_total", "outcome" => outcome, "verdict" => verdict).increment(1);
            let took = attempt.report.duration.as_secs_f64();
            histogram!("one_by_one_seconds", "outcome" => outcome).record(took);
        }
    });
}

// A connection, and a subscription's terms: now and then.

/// Public addresses are checked against every rule; a private one meets its own.
#[divan::bench(args = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "10.1.2.3", "64:ff9b::a01:203"])]
fn check_egress(bencher: Bencher, address: &str) {
    let policy = EgressPolicy::allowing(vec!["10.20.0.0/16".parse().unwrap()]).unwrap();
    let address: IpAddr = address.parse().unwrap();
    bencher.bench(|| policy.check(black_box(address)));
}

#[divan::bench(args = ["https://partner.example/hooks", "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:8443/a/b?token=c"])]
fn parse_url(bencher: Bencher, url: &str) {
    bencher.bench(|| EndpointUrl::parse(black_box(url), PlainHttp::Never).unwrap());
}

/// Base64 both ways: how partners are given a secret, and how it is read back.
#[divan::bench]
fn reveal_and_parse_secret(bencher: Bencher) {
    let secret = SigningSecret::generate().unwrap();
    bencher.bench(|| SigningSecret::parse(&black_box(&secret).reveal()).unwrap());
}

#[divan::bench]
fn parse_mask(bencher: Bencher) {
    bencher.bench(|| Mask::parse(black_box(MASK)).unwrap());
}

#[divan::bench]
fn compile_schema(bencher: Bencher) {
    bencher.bench(|| catalogue::compile(black_box(SCHEMA)).unwrap());
}

#[divan::bench]
fn seal_secret(bencher: Bencher) {
    let (keyring, secret) = (keyring(), SigningSecret::generate().unwrap());
    bencher.bench(|| keyring.seal(1, Uuid::nil(), black_box(&secret)).unwrap());
}

#[divan::bench]
fn open_secret(bencher: Bencher) {
    let (keyring, secret) = (keyring(), SigningSecret::generate().unwrap());
    let sealed = keyring.seal(1, Uuid::nil(), &secret).unwrap();
    bencher.bench(|| {
        let ciphertext = black_box(&sealed.ciphertext);
        keyring
            .open(
                1,
                Uuid::nil(),
                SecretKind::Shared,
                &sealed.key_id,
                ciphertext,
            )
            .unwrap()
    });
}

/// What a busy worker records at once.
fn attempts() -> Vec<Attempt> {
    (0..512).map(attempt).collect()
}

fn attempt(place: i32) -> Attempt {
    let fails = place % 8 == 7;
    Attempt {
        key: DeliveryKey {
            event_id: Uuid::now_v7(),
            subscription_id: place % 20,
            replay: 0,
        },
        number: 1,
        ordering_key: None,
        holder: 1,
        address: Address::default(),
        worker_id: 1,
        revision: 1,
        began: Instant::now(),
        report: Report {
            outcome: if fails {
                Outcome::Rejected
            } else {
                Outcome::Accepted
            },
            http_status: Some(if fails { 503 } else { 200 }),
            error: None,
            snippet: None,
            advice: Advice::default(),
            remote: None,
            duration: Duration::from_millis(12),
            phases: Phases::default(),
        },
        ruling: Ruling {
            verdict: if fails {
                Verdict::Retry(Duration::from_secs(5))
            } else {
                Verdict::Done
            },
            rule: None,
            hold: None,
        },
        owed_from: Some(1.7e9),
        expires: None,
        signed_with: vec![1],
        bytes: 300,
        preparations: Vec::new(),
    }
}

/// An envelope that comes with the program, with something for each value that it asks for.
fn compile(name: &str) -> Envelope {
    let shipped: &Shipped = SHIPPED.iter().find(|shipped| shipped.name == name).unwrap();
    let needed = envelope::values_of(shipped.template, shipped.headers).unwrap();
    let values = needed
        .into_iter()
        .map(|name| (name, "2026-01-01".to_owned()));
    shipped.compile(&values.collect()).unwrap()
}

/// Of an event around this payload.
fn facts(payload: &str) -> Facts<'_> {
    Facts {
        event_id: Uuid::from_u128(0x0199_e8a4_7c00_7000_8000_0123_4567_89ab),
        delivery_id: ID,
        event_type: EVENT_TYPE,
        occurred_at: occurred_at(),
        data: payload,
        metadata: None,
        tenant: Some("university-7"),
        subscription: "partner-12",
        is_test: false,
    }
}

/// JSON of so many bytes.
fn payload(size: usize) -> String {
    format!(r#"{{"text":"{}"}}"#, "x".repeat(size - 11))
}

/// An order of at least so many bytes.
fn order(size: usize) -> String {
    let head = r#"{"order":{"number":"2026-11-0815","state":"paid","internal":{"margin":0.31}},"created_at":"2026-11-26T23:15:00Z","student":{"id":"4711","email":"alice@example.org","name":"Alice Example"},"meta":{"trace":"00-abc","source":"shop","labels":["a","b"]},"items":["#;
    let item = r#"{"sku":"B-1234567","title":"A book about queues and the people in them","quantity":2,"price":19.95,"note":"left at the \"door\""}"#;
    let items = vec![item; (size - head.len()) / item.len()];
    format!("{head}{}]}}", items.join(","))
}

fn mask() -> Mask {
    Mask::parse(MASK).unwrap()
}

fn occurred_at() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(1_760_000_000_123_456)
}

fn secrets(count: usize) -> Vec<SigningSecret> {
    let secrets = (0..count).map(|_| SigningSecret::generate().unwrap());
    secrets.collect()
}

fn keyring() -> Keyring {
    Keyring::parse(&Keyring::generate_line("k1").unwrap()).unwrap()
}
