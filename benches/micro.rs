//! What the worker computes for each delivery, piece by piece: `cargo bench`, or `cargo bench -- sign` for a part of it.
//!
//! Times are of this machine alone. They tell where an attempt's time goes, and whether a change made a piece dearer; what the
//! whole costs, database and network with it, `posthaste bench` tells.
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
use std::time::{Duration, SystemTime};

use divan::Bencher;
use divan::counter::BytesCount;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use posthaste::delivery::{Advice, Outcome, Phases, Report};
use posthaste::egress::EgressPolicy;
use posthaste::endpoint::{EndpointUrl, PlainHttp};
use posthaste::envelope;
use posthaste::retry::{ClientErrors, Jitter, RetryPolicy};
use posthaste::secret::{Keyring, SecretKind, SigningSecret};
use posthaste::signature::{self, Message, Profile, Signer};
use uuid::Uuid;

fn main() {
    divan::main();
}

/// Sizes of a payload: of most events, and of a large one.
const SIZES: [usize; 2] = [300, 16 * 1024];

const ID: &str = "0199e8a4-7c00-7000-8000-0123456789ab";
const TIMESTAMP: i64 = 1_760_000_000;
const EVENT_TYPE: &str = "certificate.issued";

// An attempt, from the lease to the request.

/// All of it: id, envelope, signature, headers.
#[divan::bench(args = SIZES)]
fn request(bencher: Bencher, size: usize) {
    let (secrets, payload, event_id) = (secrets(1), payload(size), Uuid::parse_str(ID).unwrap());
    let signer = Signer::default();
    bencher.counter(BytesCount::new(size)).bench(|| {
        let id = black_box(event_id).to_string();
        let body = envelope::standard(EVENT_TYPE, occurred_at(), black_box(&payload));
        let message = message(&id, &body);
        let signatures = signer.sign(&secrets, &message).unwrap();
        (headers(&id, signatures), body)
    });
}

#[divan::bench(args = SIZES)]
fn render_envelope(bencher: Bencher, size: usize) {
    let payload = payload(size);
    bencher
        .counter(BytesCount::new(size))
        .bench(|| envelope::standard(black_box(EVENT_TYPE), occurred_at(), black_box(&payload)));
}

/// With one secret, and with the two of a rotation.
#[divan::bench(args = SIZES, consts = [1, 2])]
fn sign<const SECRETS: usize>(bencher: Bencher, size: usize) {
    let (secrets, body) = (secrets(SECRETS), payload(size));
    bencher
        .counter(BytesCount::new(size))
        .bench(|| signature::sign(&secrets, ID, TIMESTAMP, black_box(body.as_bytes())));
}

/// By the way that each receiver knows.
#[divan::bench(args = Profile::ALL)]
fn sign_as(bencher: Bencher, profile: Profile) {
    let body = payload(SIZES[0]);
    let secrets = SecretKind::ALL.map(|kind| SigningSecret::generate_as(kind).unwrap());
    let signer = Signer::new([profile], Some("X-Platform")).unwrap();
    bencher.bench(|| {
        let message = message(ID, black_box(body.as_bytes()));
        signer.sign(&secrets, &message).unwrap()
    });
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

/// As an attempt names them.
fn headers(id: &str, signatures: Vec<(HeaderName, HeaderValue)>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(signature::WEBHOOK_ID, HeaderValue::from_str(id).unwrap());
    headers.insert(signature::WEBHOOK_TIMESTAMP, HeaderValue::from(TIMESTAMP));
    for (name, value) in signatures {
        headers.insert(name, value);
    }
    headers
}

fn message<'m>(id: &'m str, body: &'m [u8]) -> Message<'m> {
    Message {
        id,
        timestamp: TIMESTAMP,
        body,
        event_type: EVENT_TYPE,
    }
}

/// JSON of so many bytes.
fn payload(size: usize) -> String {
    format!(r#"{{"text":"{}"}}"#, "x".repeat(size - 11))
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
