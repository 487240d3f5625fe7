//! Requests through a proxy: what it is asked for, what it never hears of, and proxies that misbehave.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::harness::{
    Authority, BRIEF, CA, Duplex, PARTNER, PATIENT, Peer, Talk, answers, config, named, post,
    sender,
};
use crate::delivery::Outcome::{Accepted, Blocked, Rejected, TimedOut, Unreachable};
use crate::delivery::{Outcome, Report};
use crate::proxy::ProxyUrl;
use crate::sender::{EndpointOptions, Sender, SenderConfig, Via};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";

/// A real proxy that carries bytes to loopback, and remembers what it was asked for.
struct Proxy {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn http() -> Self {
        let peer = Remembering::default();
        let asked = Arc::clone(&peer.0);
        let proxy = Peer::plain(move |talk| peer.clone().carry(talk)).await;
        Self {
            url: format!("http://ada:p%40ss@proxy.example:{}", proxy.port),
            asked,
        }
    }

    async fn https(authority: &Authority) -> Self {
        let peer = Remembering::default();
        let asked = Arc::clone(&peer.0);
        let tls = authority.issue(&named("proxy.example"));
        let proxy = Peer::with(Some(tls), move |talk| peer.clone().carry(talk)).await;
        Self {
            url: format!("https://proxy.example:{}", proxy.port),
            asked,
        }
    }

    async fn socks5(login: bool) -> Self {
        let peer = Remembering::default();
        let asked = Arc::clone(&peer.0);
        let proxy = Peer::plain(move |talk| peer.clone().carry_socks(talk, login)).await;
        let user = if login { "ada:p%40ss@" } else { "" };
        Self {
            url: format!("socks5://{user}127.0.0.1:{}", proxy.port),
            asked,
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[derive(Clone, Default)]
struct Remembering(Arc<Mutex<Vec<String>>>);

impl Remembering {
    async fn carry(self, talk: Talk) {
        let mut io = talk.into_io();
        let head = head_of(&mut io).await;
        let target = head.split(' ').nth(1).unwrap().parse().unwrap();
        self.0.lock().unwrap().push(head);
        let said = "HTTP/1.1 200 Connection established\r\nvia: 1.1 proxy\r\n\r\n";
        io.write_all(said.as_bytes()).await.unwrap();
        join(&mut io, target).await;
    }

    async fn carry_socks(self, talk: Talk, login: bool) {
        let mut io = talk.into_io();
        let [_, count] = [io.read_u8().await.unwrap(), io.read_u8().await.unwrap()];
        let mut methods = vec![0; count.into()];
        io.read_exact(&mut methods).await.unwrap();
        let mut asked = format!("methods {methods:?}");
        if login {
            io.write_all(&[5, 2]).await.unwrap();
            io.read_u8().await.unwrap();
            for _ in 0..2 {
                let mut word = vec![0; io.read_u8().await.unwrap().into()];
                io.read_exact(&mut word).await.unwrap();
                asked.push_str(", ");
                asked.push_str(std::str::from_utf8(&word).unwrap());
            }
            io.write_all(&[1, 0]).await.unwrap();
        } else {
            io.write_all(&[5, 0]).await.unwrap();
        }
        let mut request = [0; 10];
        io.read_exact(&mut request).await.unwrap();
        let [5, 1, 0, 1, a, b, c, d, high, low] = request else {
            panic!("asked for {request:?}");
        };
        let target = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])));
        self.0.lock().unwrap().push(format!("{asked}, {target}"));
        // The address that it connects from, as a name of five letters.
        io.write_all(b"\x05\x00\x00\x03\x05proxy\x00\x50")
            .await
            .unwrap();
        join(&mut io, target).await;
    }
}

async fn head_of(io: &mut impl Duplex) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn join(io: &mut impl Duplex, target: SocketAddr) {
    let mut there = TcpStream::connect(target).await.unwrap();
    let _ = copy_bidirectional(io, &mut there).await;
}

fn through(url: &str) -> SenderConfig {
    SenderConfig {
        proxy: Some(ProxyUrl::parse(url).unwrap()),
        ..config()
    }
}

async fn post_to(sender: &Sender, url: &str) -> Report {
    post(&sender.endpoint(sender.parse(url).unwrap()), PATIENT).await
}

fn check(report: &Report, outcome: Outcome, error: &str) {
    assert_eq!(
        (report.outcome, report.error.as_deref()),
        (outcome, Some(error)),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_vetted_address_and_tls_goes_through_it() {
    let proxies = [
        (
            Proxy::http().await,
            "CONNECT {} HTTP/1.1\r\nHost: {}\r\nProxy-Authorization: Basic YWRhOnBAc3M=\r\n\r\n",
        ),
        (
            Proxy::https(&CA).await,
            "CONNECT {} HTTP/1.1\r\nHost: {}\r\n\r\n",
        ),
        (Proxy::socks5(false).await, "methods [0], {}"),
        (Proxy::socks5(true).await, "methods [0, 2], ada, p@ss, {}"),
    ];
    for (proxy, asked) in proxies {
        let peer = Peer::tls(|mut talk| async move {
            while talk.request().await.is_some() {
                talk.say(OK).await;
            }
        })
        .await;
        let sender = sender(through(&proxy.url));
        let endpoint = peer.endpoint(&sender);
        for _ in 0..3 {
            let report = post(&endpoint, PATIENT).await;
            assert_eq!(
                (report.outcome, report.snippet.as_deref(), report.remote),
                (Accepted, Some("ok"), Some([127, 0, 0, 1].into())),
                "{report:?}"
            );
        }
        let target = format!("127.0.0.1:{}", peer.port);
        assert_eq!(proxy.asked(), [asked.replace("{}", &target)]);
        assert_eq!((peer.accepts(), peer.requests()), (1, 3));
    }
}

#[tokio::test]
async fn http_2_is_spoken_through_a_proxy() {
    let proxy = Proxy::https(&CA).await;
    let peer = Peer::with(Some(CA.partner(&[b"h2"])), |talk| async move {
        let mut connection = h2::server::handshake(talk.into_io()).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let head = http::Response::builder().status(204).body(()).unwrap();
            respond.send_response(head, true).unwrap();
        }
    })
    .await;
    let sender = sender(through(&proxy.url));
    let endpoint = peer.endpoint(&sender);
    let first = post(&endpoint, PATIENT).await;
    assert_eq!(first.outcome, Accepted, "{first:?}");
    let (connect, tls) = (first.phases.connect, first.phases.tls);
    assert!(first.phases.dns.is_some() && connect.is_some() && tls.is_some());
    assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted);
    assert_eq!(proxy.asked().len(), 1);
}

#[tokio::test]
async fn an_address_that_is_refused_is_refused_before_the_proxy_hears_of_it() {
    for proxy in [Proxy::http().await, Proxy::socks5(false).await] {
        let asked_names = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked_names);
        let inside = answers(move |port| {
            counter.fetch_add(1, Ordering::SeqCst);
            vec![
                SocketAddr::from(([127, 0, 0, 1], port)),
                SocketAddr::from(([10, 0, 0, 5], port)),
            ]
        });
        let sender = Sender::with_lookup(through(&proxy.url), inside).unwrap();
        let report = post_to(&sender, "https://partner.example/").await;
        check(&report, Blocked, "10.0.0.5 is in 10.0.0.0/8 (private use)");
        let report = post_to(&sender, "https://169.254.169.254/").await;
        assert_eq!(report.outcome, Blocked, "{report:?}");
        assert_eq!(proxy.asked(), [""; 0]);
        assert_eq!(asked_names.load(Ordering::SeqCst), 1, "the partner's alone");
    }
}

#[tokio::test]
async fn the_partners_certificate_is_verified_through_a_proxy() {
    let proxy = Proxy::http().await;
    let other = Authority::new("another");
    let peer = Peer::answering(Some(other.partner(&[])), OK).await;
    let report = post(&peer.endpoint(&sender(through(&proxy.url))), PATIENT).await;
    check(
        &report,
        Unreachable,
        "tls: certificate not trusted: unknown issuer",
    );
    assert_eq!((proxy.asked().len(), peer.requests()), (1, 0));
}

#[tokio::test]
async fn the_proxys_own_certificate_is_verified() {
    let proxy = Proxy::https(&Authority::new("another")).await;
    let peer = Peer::answering(Some(CA.partner(&[])), OK).await;
    let report = post(&peer.endpoint(&sender(through(&proxy.url))), PATIENT).await;
    check(
        &report,
        Blocked,
        "proxy: certificate not trusted: unknown issuer",
    );
    assert_eq!((proxy.asked().len(), peer.accepts()), (0, 0));
}

#[tokio::test]
async fn plain_http_and_whoever_is_to_be_reached_directly_take_no_proxy() {
    let proxy = Proxy::http().await;
    let sender = sender(through(&proxy.url));
    let plain = Peer::answering(None, OK).await;
    assert_eq!(
        post(&plain.endpoint(&sender), PATIENT).await.outcome,
        Accepted
    );
    let peer = Peer::answering(Some(CA.partner(&[])), OK).await;
    let direct = EndpointOptions {
        via: Via::Direct,
        ..EndpointOptions::default()
    };
    let url = sender.parse(&peer.url()).unwrap();
    let endpoint = sender.endpoint_with(url, direct).unwrap();
    assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted);
    assert_eq!(proxy.asked(), [""; 0]);
}

#[tokio::test]
async fn what_a_partner_answers_through_a_proxy_is_the_partners() {
    let proxy = Proxy::http().await;
    let peer = Peer::answering(Some(CA.partner(&[])), REFUSED).await;
    let report = post(&peer.endpoint(&sender(through(&proxy.url))), PATIENT).await;
    assert_eq!((report.outcome, report.http_status), (Rejected, Some(403)));
}

/// One request through a proxy that follows `script`.
async fn met<F>(
    scheme: &str,
    within: std::time::Duration,
    script: impl Fn(Talk) -> F + Send + Sync + 'static,
) -> (Report, Peer)
where
    F: Future<Output = ()> + Send + 'static,
{
    let proxy = Peer::plain(script).await;
    let url = format!("{scheme}://CANARY:CANARY@127.0.0.1:{}", proxy.port);
    let sender = sender(through(&url));
    let url = sender.parse(&format!("https://{PARTNER}/")).unwrap();
    let report = post(&sender.endpoint(url), within).await;
    assert!(!format!("{report:?}").contains("CANARY"), "{report:?}");
    assert_eq!(report.remote, Some([127, 0, 0, 1].into()), "the partner's");
    assert!(report.phases.connect.is_some());
    (report, proxy)
}

/// Where our own login is wrong, no partner is to blame.
fn whose(error: &str) -> Outcome {
    if error.contains("login") {
        Blocked
    } else {
        Unreachable
    }
}

#[tokio::test]
async fn what_an_http_proxy_answers_is_told() {
    let answers = [
        (
            "HTTP/1.1 407 Who?\r\n\r\nCANARY",
            "it answered 407: it wants another login",
        ),
        (
            "HTTP/1.0 401 You?\r\n\r\n",
            "it answered 401: it wants another login",
        ),
        ("HTTP/1.0 502 Bad\r\n\r\n", "it answered 502"),
        (
            "HTTP/1.1 302 Go\r\nlocation: https://CANARY/\r\n\r\n",
            "it answered 302",
        ),
        (
            "HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "it answered 100",
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\n\x16\x03",
            "it sent bytes of its own into the tunnel",
        ),
        (
            "HTTP/1.1 200\r\n\r\nCANARY",
            "it sent bytes of its own into the tunnel",
        ),
        ("HTTP/1.1 2000 OK\r\n\r\n", "its answer is no HTTP response"),
        ("HTTP/1.1 20x OK\r\n\r\n", "its answer is no HTTP response"),
        ("HTTP/2 200 OK\r\n\r\n", "its answer is no HTTP response"),
        ("CANARY\r\n\r\n", "its answer is no HTTP response"),
        (
            "HTTP/1.1 200 OK\r\n",
            "it closed the connection before a whole answer",
        ),
    ];
    for (answer, error) in answers {
        let (report, _) = met("http", PATIENT, move |talk| async move {
            let mut io = talk.into_io();
            head_of(&mut io).await;
            io.write_all(answer.as_bytes()).await.unwrap();
            io.shutdown().await.unwrap();
        })
        .await;
        check(&report, whose(error), &format!("proxy: {error}"));
    }
}

#[tokio::test]
async fn what_a_socks_proxy_answers_is_told() {
    let answers: [(&[u8], &str); 9] = [
        (b"\x05\xff", "it wants another login"),
        (b"\x05\x01", "it wants another login"),
        (b"\x04\x00", "it does not speak SOCKS5"),
        (b"HT", "it does not speak SOCKS5"),
        (b"\x05\x02\x01\x01", "it refused the login"),
        (
            b"\x05\x00\x05\x05\x00\x01",
            "it answered 5 (connection refused)",
        ),
        (
            b"\x05\x00\x05\x63\x00\x01",
            "it answered 99 (unknown reply)",
        ),
        (b"\x05\x00\x05\x00\x00\x09", "it does not speak SOCKS5"),
        (
            b"\x05\x00\x05\x00\x00\x03\xffabc",
            "the peer closed the connection",
        ),
    ];
    for (answer, error) in answers {
        let (report, _) = met("socks5", PATIENT, move |talk| async move {
            let mut io = talk.into_io();
            io.write_all(answer).await.unwrap();
            io.shutdown().await.unwrap();
            while let Ok(1..) = io.read(&mut [0; 64]).await {}
        })
        .await;
        check(&report, whose(error), &format!("proxy: {error}"));
    }
}

#[tokio::test]
async fn an_endless_head_is_read_to_its_bound() {
    let (report, _) = met("http", PATIENT, |mut talk| async move {
        talk.say("HTTP/1.1 200 OK\r\n").await;
        talk.say_for_ever("x-more: and more\r\n").await;
    })
    .await;
    check(
        &report,
        Unreachable,
        "proxy: its answer has a head over 8192 bytes",
    );
}

#[tokio::test]
async fn a_proxy_that_hangs_or_drips_costs_the_deadline_and_no_more() {
    for scheme in ["http", "socks5", "https"] {
        let (report, _) = met(scheme, BRIEF, |mut talk| async move { talk.hang().await }).await;
        check(&report, TimedOut, "proxy: no tunnel within 150ms");
    }
    let (report, _) = met("http", BRIEF, |mut talk| async move {
        talk.say("HTTP/1.1 200 OK\r\nx: ").await;
        while talk.say("x").await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(
        matches!(report.outcome, TimedOut | Unreachable),
        "{report:?}"
    );
    assert!(report.error.unwrap().starts_with("proxy: "));
}

#[tokio::test]
async fn a_proxy_that_is_not_there_or_has_no_address_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for scheme in ["http", "https", "socks5"] {
        let sender = sender(through(&format!("{scheme}://proxy.example:{port}")));
        let report = post_to(&sender, "https://partner.example/").await;
        check(&report, Blocked, "proxy: connection refused");
    }
    let lookup = Arc::new(|name: String, port| {
        let found = match name.as_str() {
            "partner.example." => vec![SocketAddr::from(([127, 0, 0, 1], port))],
            "squid.inside" => Vec::new(), // as it was written: search domains hold for it
            _ => panic!("{name}"),
        };
        Box::pin(async move { Ok(found) }) as crate::sender::resolve::Looking
    });
    let sender = Sender::with_lookup(through("http://squid.inside:1"), lookup).unwrap();
    let report = post_to(&sender, "https://partner.example/").await;
    check(
        &report,
        Blocked,
        "proxy: its name: dns: the name has no address",
    );
}

#[tokio::test]
async fn the_next_address_is_asked_for_after_one_that_the_proxy_cannot_reach() {
    let two = || {
        answers(|port| {
            [[127, 0, 0, 9], [127, 0, 0, 1]]
                .map(|host| SocketAddr::from((host, port)))
                .to_vec()
        })
    };
    let tried = |answer: &'static str| async move {
        let proxy = Peer::plain(move |talk| async move {
            let mut io = talk.into_io();
            head_of(&mut io).await;
            io.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let url = format!("http://127.0.0.1:{}", proxy.port);
        let sender = Sender::with_lookup(through(&url), two()).unwrap();
        let report = post_to(&sender, "https://partner.example/").await;
        (report.outcome, report.remote, proxy.accepts())
    };
    let last = Some([127, 0, 0, 1].into());
    assert_eq!(
        tried("HTTP/1.1 502 Bad\r\n\r\n").await,
        (Unreachable, last, 2)
    );
    let first = Some([127, 0, 0, 9].into());
    assert_eq!(
        tried("HTTP/1.1 407 Who\r\n\r\n").await,
        (Blocked, first, 1),
        "a wrong login is not tried eight times"
    );
}
