//! Names, addresses, TCP and TLS.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::harness::{
    Authority, BRIEF, CA, PARTNER, PATIENT, Peer, acceptor, answers, config, named, post, sender,
    until,
};
use crate::delivery::Outcome::{Accepted, Blocked, TimedOut, Unreachable};
use crate::delivery::{Outcome, Report};
use crate::egress::EgressPolicy;
use crate::endpoint::PlainHttp;
use crate::sender::{Sender, SenderConfig};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn check(report: &Report, outcome: Outcome, error: &str) {
    assert_eq!(
        (report.outcome, report.error.as_deref()),
        (outcome, Some(error)),
        "{report:?}"
    );
}

async fn post_to(sender: &Sender, url: &str, within: Duration) -> Report {
    post(&sender.endpoint(sender.parse(url).unwrap()), within).await
}

#[tokio::test]
async fn a_forbidden_address_is_blocked_without_a_connection() {
    let peer = Peer::answering(None, OK).await;
    let strict = SenderConfig {
        egress: EgressPolicy::default(),
        ..config()
    };
    let sender = Sender::new(strict).unwrap();
    let port = peer.port;
    for host in ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"] {
        for scheme in ["http", "https"] {
            let report = post_to(&sender, &format!("{scheme}://{host}:{port}/"), PATIENT).await;
            assert_eq!(report.outcome, Blocked, "{report:?}");
            assert!(
                report
                    .error
                    .is_some_and(|error| error.contains("(loopback)"))
            );
            assert!(report.remote.is_some_and(|address| address.is_loopback()));
        }
    }
    let mapped = post_to(
        &sender,
        &format!("https://[::ffff:127.0.0.1]:{port}/"),
        PATIENT,
    )
    .await;
    check(
        &mapped,
        Blocked,
        "::ffff:127.0.0.1 is in ::ffff:0:0/96 (IPv4-mapped)",
    );
    assert_eq!(peer.accepts(), 0);
}

#[tokio::test]
async fn an_allowed_localhost_is_reached() {
    let peer = Peer::answering(None, OK).await;
    let nets = ["127.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap());
    let egress = EgressPolicy::allowing(nets.to_vec()).unwrap();
    let sender = Sender::new(SenderConfig { egress, ..config() }).unwrap();
    let report = post_to(
        &sender,
        &format!("http://localhost:{}/", peer.port),
        PATIENT,
    )
    .await;
    assert_eq!(report.outcome, Accepted, "{report:?}");
    assert!(report.phases.dns.is_some());
}

#[tokio::test]
async fn one_forbidden_answer_blocks_the_attempt() {
    let peer = Peer::answering(Some(CA.partner(&[])), OK).await;
    let mixed = answers(|port| {
        let hosts = [[127, 0, 0, 1], [10, 0, 0, 5], [127, 0, 0, 1]];
        hosts.map(|host| SocketAddr::from((host, port))).to_vec()
    });
    let sender = Sender::with_lookup(config(), mixed).unwrap();
    let report = post(&peer.endpoint(&sender), PATIENT).await;
    check(&report, Blocked, "10.0.0.5 is in 10.0.0.0/8 (private use)");
    assert_eq!(
        (report.remote, peer.accepts()),
        (Some([10, 0, 0, 5].into()), 0)
    );
}

#[tokio::test]
async fn plain_http_to_a_name_that_left_loopback_is_blocked() {
    let outside = answers(|port| vec![SocketAddr::from(([8, 8, 8, 8], port))]);
    let sender = Sender::with_lookup(config(), outside).unwrap();
    let report = post_to(&sender, "http://localhost:1/", PATIENT).await;
    assert_eq!(report.outcome, Blocked, "{report:?}");
}

#[tokio::test]
async fn a_name_is_looked_up_once_for_each_connection() {
    let peer = Peer::answering(Some(CA.partner(&[])), OK).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    // A name server that turns hostile after its first answer.
    let rebinding = answers(move |port| match counter.fetch_add(1, Ordering::SeqCst) {
        0 => vec![SocketAddr::from(([127, 0, 0, 1], port))],
        _ => vec![SocketAddr::from(([169, 254, 169, 254], port))],
    });
    let sender = Sender::with_lookup(config(), rebinding).unwrap();
    let endpoint = peer.endpoint(&sender);
    for _ in 0..3 {
        assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted);
    }
    assert_eq!((asked.load(Ordering::SeqCst), peer.accepts()), (1, 1));
    assert_eq!(
        post(&peer.endpoint(&sender), PATIENT).await.outcome,
        Blocked
    );
}

#[tokio::test]
async fn names_are_asked_for_with_their_final_dot() {
    let lookup = Arc::new(|name: String, _| {
        let error = io::Error::other(format!("asked for {name}"));
        Box::pin(async move { Err(error) }) as crate::sender::resolve::Looking
    });
    let sender = Sender::with_lookup(config(), lookup).unwrap();
    let report = post_to(&sender, "https://partner.example/", PATIENT).await;
    check(&report, Unreachable, "dns: asked for partner.example.");
    let report = post_to(&sender, "https://localhost/", PATIENT).await;
    check(&report, Unreachable, "dns: asked for localhost");
}

#[tokio::test]
async fn a_name_without_an_address_is_unreachable() {
    let sender = Sender::with_lookup(config(), answers(|_| Vec::new())).unwrap();
    let report = post_to(&sender, "https://partner.example/", PATIENT).await;
    check(&report, Unreachable, "dns: the name has no address");
}

#[tokio::test]
async fn a_look_up_keeps_its_place_until_it_ends() {
    let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counter, waiting) = (Arc::clone(&asked), Arc::clone(&gate));
    let lookup = Arc::new(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        let waiting = Arc::clone(&waiting);
        Box::pin(async move {
            waiting.notified().await;
            Ok(Vec::new())
        }) as crate::sender::resolve::Looking
    });
    let sender = Sender::with_lookup(config(), lookup).unwrap();
    let endpoint = sender.endpoint(sender.parse("https://partner.example/").unwrap());
    for _ in 0..3 {
        for report in join_all((0..4).map(|_| post(&endpoint, BRIEF))).await {
            assert_eq!(report.outcome, TimedOut, "{report:?}");
        }
    }
    assert_eq!(
        asked.load(Ordering::SeqCst),
        4,
        "eight attempts found no place"
    );
    gate.notify_waiters();
    let report = join_all([post(&endpoint, BRIEF)]).await.remove(0);
    check(&report, TimedOut, "dns: no answer within 150ms");
    until(|| asked.load(Ordering::SeqCst) == 5).await;
}

#[tokio::test]
async fn a_refused_connection_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let report = post_to(
        &sender(config()),
        &format!("http://127.0.0.1:{port}/"),
        PATIENT,
    )
    .await;
    check(&report, Unreachable, "connect: connection refused");
    assert_eq!(report.remote, Some(Ipv4Addr::LOCALHOST.into()));
}

#[tokio::test]
async fn the_next_address_is_tried_after_one_that_refuses() {
    let peer = Peer::answering(Some(CA.partner(&[])), OK).await;
    let two = answers(|port| {
        [[127, 0, 0, 9], [127, 0, 0, 1]]
            .map(|host| SocketAddr::from((host, port)))
            .to_vec()
    });
    let sender = Sender::with_lookup(config(), two).unwrap();
    let report = post(&peer.endpoint(&sender), PATIENT).await;
    assert_eq!(
        (report.outcome, report.remote),
        (Accepted, Some([127, 0, 0, 1].into()))
    );
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_is_not_trusted() {
    let key = KeyPair::generate().unwrap();
    let self_signed = named(PARTNER).self_signed(&key).unwrap();
    let self_signed = acceptor(vec![self_signed.der().clone()], &key, &[]);
    let dated = |from, to| {
        let mut params = named(PARTNER);
        (params.not_before, params.not_after) = (from, to);
        CA.issue(&params)
    };
    let mut for_clients = named(PARTNER);
    for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut common_name = CertificateParams::default();
    common_name
        .distinguished_name
        .push(rcgen::DnType::CommonName, PARTNER);
    let cases = [
        (CA.issue(&named("other.example")), "not valid for this host"),
        (CA.issue(&common_name), "not valid for this host"),
        (
            dated(date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1)),
            "expired",
        ),
        (
            dated(date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1)),
            "not valid yet",
        ),
        (CA.issue(&for_clients), "not meant for servers"),
        (Authority::new("another").partner(&[]), "unknown issuer"),
        (self_signed, "unknown issuer"),
    ];
    let sender = sender(config());
    for (tls, why) in cases {
        let peer = Peer::answering(Some(tls), OK).await;
        let report = post(&peer.endpoint(&sender), PATIENT).await;
        check(
            &report,
            Unreachable,
            &format!("tls: certificate not trusted: {why}"),
        );
        assert_eq!(peer.requests(), 0);
        assert!(report.phases.connect.is_some() && report.phases.tls.is_some());
    }
}

#[tokio::test]
async fn an_address_needs_a_certificate_of_its_own() {
    let sender = sender(config());
    let peer = Peer::answering(Some(CA.issue(&named("127.0.0.1"))), OK).await;
    let url = format!("https://127.0.0.1:{}/", peer.port);
    assert_eq!(post_to(&sender, &url, PATIENT).await.outcome, Accepted);
    let peer = Peer::answering(Some(CA.partner(&[])), OK).await;
    let report = post_to(
        &sender,
        &format!("https://127.0.0.1:{}/", peer.port),
        PATIENT,
    )
    .await;
    check(
        &report,
        Unreachable,
        "tls: certificate not trusted: not valid for this host",
    );
}

#[tokio::test]
async fn tls_1_2_is_spoken() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = KeyPair::generate().unwrap();
    let certificate = CA.sign(&named(PARTNER), &key);
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.serialize_der().try_into().unwrap())
        .unwrap();
    let peer = Peer::answering(Some(TlsAcceptor::from(Arc::new(server))), OK).await;
    assert_eq!(
        post(&peer.endpoint(&sender(config())), PATIENT)
            .await
            .outcome,
        Accepted
    );
}

#[tokio::test]
async fn a_stalled_handshake_times_out() {
    let peer = Peer::plain(|mut talk| async move { talk.hang().await }).await;
    let quick = SenderConfig {
        connect_timeout: BRIEF,
        ..config()
    };
    let url = format!("https://{PARTNER}:{}/", peer.port);
    let report = post_to(&sender(quick), &url, PATIENT).await;
    check(&report, TimedOut, "tls: no finished handshake within 150ms");
    let report = post_to(&sender(config()), &url, BRIEF).await;
    check(&report, TimedOut, "tls: no finished handshake within 150ms");
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_is_unreachable() {
    let peer = Peer::plain(|mut talk| async move {
        talk.say("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        talk.hang().await;
    })
    .await;
    let url = format!("https://{PARTNER}:{}/", peer.port);
    let report = post_to(&sender(config()), &url, PATIENT).await;
    check(&report, Unreachable, "tls: the peer does not speak TLS");
    let silent = Peer::plain(|talk| async move { drop(talk) }).await;
    let url = format!("https://{PARTNER}:{}/", silent.port);
    let report = post_to(&sender(config()), &url, PATIENT).await;
    assert!(report.error.is_some_and(|error| error.starts_with("tls: ")));
}

#[test]
fn nothing_reads_the_environment() {
    let sources = [
        include_str!("../../sender.rs"),
        include_str!("../connect.rs"),
        include_str!("../dial.rs"),
        include_str!("../exchange.rs"),
        include_str!("../link.rs"),
        include_str!("../pool.rs"),
        include_str!("../resolve.rs"),
        include_str!("../tunnel.rs"),
    ];
    for source in sources {
        assert!(!source.contains("env::") && !source.contains("_proxy\""));
    }
}

#[test]
fn a_bad_configuration_is_refused_with_its_bounds() {
    let refusal = |config| Sender::new(config).unwrap_err().to_string();
    let small = SenderConfig {
        max_response_head: 100,
        ..SenderConfig::default()
    };
    assert_eq!(
        refusal(small),
        "configuration: max_response_head is 100 bytes; allowed are 8192 to 1048576"
    );
    let agent = SenderConfig {
        user_agent: "a\r\nb".into(),
        ..SenderConfig::default()
    };
    assert!(refusal(agent).contains("user_agent"));
    let root = SenderConfig {
        extra_roots: vec![vec![1, 2, 3].into()],
        ..SenderConfig::default()
    };
    assert!(refusal(root).contains("extra trusted certificate 1"));
    assert_eq!(SenderConfig::default().plain_http, PlainHttp::Never);
}
