#![allow(clippy::unwrap_used)]

use std::io;
use std::time::Instant;

use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::signature;
use crate::trial::authority::Authority;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_request_is_remembered_as_it_came() {
    let partner = start(PartnerConfig::default()).await;
    let answer = post(&partner, "msg_1", b"{\"a\": 1}\n").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

    let received = partner.received();
    assert_eq!(received.len(), 1);
    let first = &received[0];
    assert_eq!((first.sequence, first.connection, first.attempt), (1, 1, 1));
    assert_eq!(
        (first.method.as_str(), first.path.as_str()),
        ("POST", "/hook?x=1")
    );
    assert_eq!(
        (first.id.as_str(), first.timestamp.as_str()),
        ("msg_1", "1000")
    );
    assert_eq!(first.headers["x-extra"], "yes");
    assert_eq!(&first.body[..], b"{\"a\": 1}\n");
    assert_eq!(first.verified, None);
    assert_eq!(first.version, Version::HTTP_11);
}

#[tokio::test]
async fn a_good_signature_verifies_and_a_changed_body_does_not() {
    let secret = SigningSecret::generate().unwrap();
    let partner = start(PartnerConfig {
        secrets: vec![secret.clone()],
        ..PartnerConfig::default()
    })
    .await;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let signature = signature::sign(&[secret], "msg_1", now.cast_signed(), b"signed");
    let headers = format!(
        "webhook-id: msg_1\r\nwebhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n"
    );
    for body in [b"signed", b"forged"] {
        let mut stream = plain(&partner).await;
        exchange(&mut stream, &request(&headers, body))
            .await
            .unwrap();
    }
    let verified: Vec<_> = partner.received().iter().map(|one| one.verified).collect();
    assert_eq!(verified, [Some(Ok(())), Some(Err(Invalid::NoMatch))]);
    let counts = partner.counts();
    assert_eq!(
        (counts.requests, counts.verified, counts.invalid),
        (2, 1, 1)
    );
}

#[tokio::test]
async fn new_secrets_and_replies_reach_a_connection_that_is_open() {
    let partner = start(PartnerConfig::default()).await;
    let mut stream = plain(&partner).await;
    let request = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    assert!(ask(&mut stream, request).await.starts_with("HTTP/1.1 200"));
    partner.set_reply(Reply::Status(503));
    partner.set_secrets(vec![SigningSecret::generate().unwrap()]);
    assert!(ask(&mut stream, request).await.starts_with("HTTP/1.1 503"));
    let verified: Vec<_> = partner.received().iter().map(|one| one.verified).collect();
    assert_eq!(verified, [None, Some(Err(Invalid::MissingId))]);
    assert_eq!(partner.counts().connections, 1);
}

#[tokio::test]
async fn the_first_attempts_of_each_id_fail_and_the_next_succeeds() {
    let partner = start(replying(Replies::fail_first(2, 500))).await;
    for (id, expected) in [
        ("a", "500"),
        ("a", "500"),
        ("b", "500"),
        ("a", "200"),
        ("b", "500"),
        ("b", "200"),
    ] {
        let answer = post(&partner, id, b"").await.unwrap();
        assert_eq!(&answer[9..12], expected, "{id}");
    }
    let attempts: Vec<_> = partner.received().iter().map(|one| one.attempt).collect();
    assert_eq!(attempts, [1, 2, 1, 3, 2, 3]);
}

#[tokio::test]
async fn waiting_ends_with_the_request_that_was_waited_for() {
    let partner = start(PartnerConfig::default()).await;
    let far = partner.wait_for(3, SOON);
    let near = partner.wait_for(1, SOON);
    let send = async {
        for _ in 0..3 {
            post(&partner, "a", b"").await.unwrap();
        }
    };
    let (far, near, ()) = tokio::join!(far, near, send);
    far.unwrap();
    near.unwrap();
    partner.wait_for(3, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn waiting_in_vain_tells_how_many_came() {
    let partner = start(PartnerConfig::default()).await;
    post(&partner, "a", b"").await.unwrap();
    let error = partner
        .wait_for(2, Duration::from_millis(1))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("got 1 of 2 requests within 1ms"),
        "{error}"
    );
}

#[tokio::test]
async fn only_the_latest_are_remembered_and_all_are_counted() {
    let partner = start(PartnerConfig {
        keep: 2,
        ..PartnerConfig::default()
    })
    .await;
    for id in ["a", "b", "c", "a"] {
        post(&partner, id, b"").await.unwrap();
    }
    let received = partner.received();
    let kept: Vec<_> = received
        .iter()
        .map(|one| (one.sequence, &*one.id, one.attempt))
        .collect();
    // `a` counts from 1 again: by then, two other ids had been seen.
    assert_eq!(kept, [(3, "c", 1), (4, "a", 1)]);
    assert_eq!(partner.count(), 4);
}

#[tokio::test]
async fn a_partner_that_remembers_nothing_still_counts_and_verifies() {
    let config = PartnerConfig {
        keep: 0,
        ..replying(Reply::Status(204))
    };
    let partner = start(config).await;
    let waited = partner.wait_for(2, SOON);
    let send = async {
        assert!(
            post(&partner, "a", b"body")
                .await
                .unwrap()
                .starts_with("HTTP/1.1 204")
        );
        partner.set_secrets(vec![SigningSecret::generate().unwrap()]);
        post(&partner, "a", b"body").await.unwrap();
    };
    let (waited, ()) = tokio::join!(waited, send);
    waited.unwrap();
    assert!(partner.received().is_empty());
    assert_eq!((partner.count(), partner.counts().invalid), (2, 1));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let partner = start(PartnerConfig {
        body_limit: 10,
        ..PartnerConfig::default()
    })
    .await;
    assert!(
        post(&partner, "a", &[b'x'; 10])
            .await
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        post(&partner, "a", &[b'x'; 11])
            .await
            .unwrap()
            .starts_with("HTTP/1.1 413")
    );
    let counts = partner.counts();
    assert_eq!((counts.requests, counts.oversized), (1, 1));
}

#[tokio::test]
async fn a_reply_bears_its_headers_and_its_body() {
    let partner = start(replying(Reply::StatusWith {
        status: 429,
        headers: vec![("retry-after".into(), "7".into())],
        body: "slow down".into(),
    }))
    .await;
    let answer = post(&partner, "a", b"").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("retry-after: 7\r\n"), "{answer}");
    assert!(answer.contains("content-length: 9\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nslow down"), "{answer}");

    partner.set_reply(Reply::Redirect("https://example.com/".into()));
    let answer = post(&partner, "a", b"").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 307 "), "{answer}");
    assert!(
        answer.contains("location: https://example.com/\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_reply_that_http_cannot_express_says_so() {
    let partner = start(replying(Reply::Status(42))).await;
    let answer = post(&partner, "a", b"").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("told to answer what it cannot"), "{answer}");
}

#[tokio::test]
async fn a_delayed_reply_comes_late() {
    let delay = Duration::from_millis(60);
    let partner = start(replying(Reply::Delay(delay, Box::new(Reply::Status(202))))).await;
    let asked = Instant::now();
    assert!(
        post(&partner, "a", b"")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 202")
    );
    assert!(asked.elapsed() >= delay);
}

#[tokio::test]
async fn a_hanging_partner_has_the_request_and_says_nothing_until_it_stops() {
    let partner = start(replying(Reply::Hang)).await;
    let stop = async {
        partner.wait_for(1, SOON).await.unwrap();
        partner.stop().await;
    };
    let (answer, ()) = tokio::join!(post(&partner, "a", b""), stop);
    assert!(answer.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn a_reset_is_a_reset_with_tls_and_without() {
    let authority = Authority::new().unwrap();
    let partner = start(replying(Reply::Reset)).await;
    let error = post(&partner, "a", b"").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    let partner = start(https(&authority, false, Reply::Reset)).await;
    let mut stream = secure(&partner, &authority).await;
    let error = exchange(&mut stream, &request("", b"")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn closing_without_a_reply_is_no_reset_and_no_byte() {
    let authority = Authority::new().unwrap();
    let partner = start(replying(Reply::CloseWithoutReply)).await;
    assert_eq!(post(&partner, "a", b"").await.unwrap(), "");

    let partner = start(https(&authority, false, Reply::CloseWithoutReply)).await;
    let mut stream = secure(&partner, &authority).await;
    assert_eq!(exchange(&mut stream, &request("", b"")).await.unwrap(), "");
}

#[tokio::test]
async fn raw_bytes_are_sent_as_they_are() {
    let partner = start(replying(Reply::Raw("ICY 200 FINE\n\n".into()))).await;
    assert_eq!(post(&partner, "a", b"").await.unwrap(), "ICY 200 FINE\n\n");
    assert_eq!(partner.count(), 1);
}

#[tokio::test]
async fn an_endless_head_outgrows_any_limit() {
    let partner = start(replying(Reply::EndlessHead)).await;
    let head = first_bytes(&partner, 4 << 20).await;
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\nx-filler: "));
    assert!(!head.windows(4).any(|bytes| bytes == b"\r\n\r\n"));
}

#[tokio::test]
async fn a_giant_body_outgrows_any_limit() {
    let partner = start(replying(Reply::GiantBody)).await;
    let body = first_bytes(&partner, 4 << 20).await;
    assert!(body.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(!body.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn a_drip_comes_byte_by_byte() {
    let partner = start(replying(Reply::DripHead)).await;
    assert_eq!(first_bytes(&partner, 4).await, b"HTTP");

    partner.set_reply(Reply::DripBody);
    let mut stream = plain(&partner).await;
    stream.write_all(&request("", b"")).await.unwrap();
    let head = until(&mut stream, b"\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(until(&mut stream, b"x\r\n").await, "1\r\nx\r\n");
    assert_eq!(until(&mut stream, b"x\r\n").await, "1\r\nx\r\n");
}

#[tokio::test]
async fn a_stopped_partner_is_down_and_can_come_back_at_the_same_address() {
    let partner = start(PartnerConfig::default()).await;
    let mut idle = plain(&partner).await;
    assert!(
        ask(&mut idle, "GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
    partner.stop().await;
    let refused = TcpStream::connect(partner.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    assert_eq!(partner.received().len(), 1);

    let again = start(PartnerConfig {
        addr: partner.addr(),
        ..PartnerConfig::default()
    })
    .await;
    post(&again, "a", b"").await.unwrap();
    assert_eq!(again.count(), 1);
}

#[tokio::test]
async fn https_is_spoken_under_the_authoritys_certificate() {
    let authority = Authority::new().unwrap();
    let partner = start(https(&authority, false, Reply::Status(200))).await;
    assert_eq!(
        partner.url("/hook"),
        format!("https://127.0.0.1:{}/hook", partner.addr().port())
    );
    let mut stream = secure(&partner, &authority).await;
    let answer = exchange(&mut stream, &request("", b"over tls"))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(&partner.received()[0].body[..], b"over tls");
}

#[tokio::test]
async fn http2_carries_many_requests_over_one_connection() {
    let authority = Authority::new().unwrap();
    let partner = start(https(&authority, true, Reply::Status(200))).await;
    let mut sender = http2_client(&partner, &authority).await;
    for _ in 0..3 {
        let response = sender.send_request(http2_request(&partner)).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(partner.received()[2].version, Version::HTTP_2);
    assert_eq!(&partner.received()[2].body[..], b"over http2");
    assert_eq!(partner.counts().connections, 1);
}

#[tokio::test]
async fn over_http2_a_reset_ends_the_stream_and_closing_ends_the_connection() {
    let authority = Authority::new().unwrap();
    let partner = start(https(&authority, true, Reply::Reset)).await;
    let mut sender = http2_client(&partner, &authority).await;
    assert!(sender.send_request(http2_request(&partner)).await.is_err());

    partner.set_reply(Reply::Status(200));
    assert_eq!(
        sender
            .send_request(http2_request(&partner))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(partner.counts().connections, 1);

    partner.set_reply(Reply::CloseWithoutReply);
    assert!(sender.send_request(http2_request(&partner)).await.is_err());
    assert!(sender.ready().await.is_err());
}

#[tokio::test]
async fn over_http2_a_giant_body_keeps_coming() {
    let authority = Authority::new().unwrap();
    let partner = start(https(&authority, true, Reply::GiantBody)).await;
    let mut sender = http2_client(&partner, &authority).await;
    let mut body = sender
        .send_request(http2_request(&partner))
        .await
        .unwrap()
        .into_body();
    let mut read = 0;
    while read < 1 << 20 {
        read += body
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap()
            .len();
    }
}

async fn start(config: PartnerConfig) -> Partner {
    Partner::start(config).await.unwrap()
}

fn replying(replies: impl Into<Replies>) -> PartnerConfig {
    PartnerConfig {
        replies: replies.into(),
        ..PartnerConfig::default()
    }
}

fn https(authority: &Authority, alpn_h2: bool, reply: Reply) -> PartnerConfig {
    let tls = authority
        .server_config(&["localhost", "127.0.0.1"], alpn_h2)
        .unwrap();
    PartnerConfig {
        tls: Some(tls),
        ..replying(reply)
    }
}

async fn plain(partner: &Partner) -> TcpStream {
    TcpStream::connect(partner.addr()).await.unwrap()
}

async fn secure(partner: &Partner, authority: &Authority) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::from(partner.addr().ip());
    TlsConnector::from(Arc::new(config))
        .connect(name, plain(partner).await)
        .await
        .unwrap()
}

async fn http2_client(partner: &Partner, authority: &Authority) -> http2::SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(secure(partner, authority).await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn http2_request(partner: &Partner) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from("over http2"));
    Request::post(partner.url("/hook"))
        .header("webhook-id", "msg_1")
        .body(body)
        .unwrap()
}

async fn post(partner: &Partner, id: &str, body: &[u8]) -> io::Result<String> {
    let headers = format!("webhook-id: {id}\r\nwebhook-timestamp: 1000\r\nx-extra: yes\r\n");
    exchange(&mut plain(partner).await, &request(&headers, body)).await
}

fn request(headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /hook?x=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Sends, and reads until the partner closes.
async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
) -> io::Result<String> {
    stream.write_all(request).await?;
    let mut answer = String::new();
    within_reason(stream.read_to_string(&mut answer)).await?;
    Ok(answer)
}

/// Sends, and reads one response head.
async fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    until(stream, b"\r\n\r\n").await
}

async fn until(stream: &mut TcpStream, end: &[u8]) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end) {
        text.push(within_reason(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

async fn first_bytes(partner: &Partner, count: usize) -> Vec<u8> {
    let mut stream = plain(partner).await;
    stream.write_all(&request("", b"")).await.unwrap();
    let mut bytes = vec![0; count];
    within_reason(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// A partner that wrongly says nothing fails the test instead of hanging it.
async fn within_reason<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.unwrap()
}
