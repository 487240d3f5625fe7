//! Requests that are no deliveries.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use tokio::io::AsyncWriteExt as _;

use super::harness::{BRIEF, CA, PATIENT, Peer, Talk, config, post, sender};
use crate::delivery::Outcome::{Accepted, Blocked, Rejected, TimedOut};
use crate::delivery::Report;
use crate::sender::{Answer, Endpoint};

const LIMIT: usize = 64 * 1024;

async fn ask(endpoint: &Endpoint, method: Method, body: &'static str) -> (Report, Option<Answer>) {
    let mut headers = HeaderMap::new();
    headers.insert(
        "webhook-request-origin",
        HeaderValue::from_static("posthaste.example"),
    );
    headers.insert(header::HOST, HeaderValue::from_static("elsewhere.example"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("7"));
    endpoint
        .exchange(
            method,
            headers,
            Bytes::from_static(body.as_bytes()),
            PATIENT,
        )
        .await
}

#[tokio::test]
async fn a_handshake_is_answered_with_headers() {
    let peer = Peer::with(Some(CA.partner(&[])), |talk| async move {
        let mut io = talk.into_io();
        let request = head(&mut io).await;
        assert!(
            request.starts_with("OPTIONS /hook?x=1 HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("\r\nwebhook-request-origin: posthaste.example\r\n"));
        assert!(request.contains("\r\nhost: partner.example:"), "{request}");
        assert!(!request.contains("content-length"), "{request}");
        let said = "HTTP/1.1 405 No\r\nwebhook-allowed-origin: *\r\ncontent-length: 3\r\n\r\nabc";
        io.write_all(said.as_bytes()).await.unwrap();
        let _ = io.flush().await;
    })
    .await;
    let (report, answer) = ask(&peer.endpoint(&sender(config())), Method::OPTIONS, "").await;
    assert_eq!((report.outcome, report.http_status), (Rejected, Some(405)));
    let answer = answer.unwrap();
    assert_eq!(answer.headers["webhook-allowed-origin"], "*");
    assert_eq!(answer.body.as_deref(), Some(&b"abc"[..]));
    assert_eq!(answer.snippet(2).as_deref(), Some("ab"));
}

#[tokio::test]
async fn a_token_is_in_the_answer_and_nowhere_else() {
    let said = "HTTP/1.1 200 OK\r\nset-cookie: CANARY\r\ncontent-length: 25\r\n\r\n{\"access_token\":\"CANARY\"}";
    for tls in [None, Some(CA.partner(&[]))] {
        let peer = Peer::answering(tls, said).await;
        let endpoint = peer.endpoint(&sender(config()));
        for _ in 0..2 {
            let (report, answer) = ask(&endpoint, Method::POST, "grant_type=x").await;
            assert_eq!((report.outcome, &report.snippet), (Accepted, &None));
            let body = answer.as_ref().unwrap().body.clone().unwrap();
            assert_eq!(&body[..], b"{\"access_token\":\"CANARY\"}");
            let shown = format!("{report:?} {answer:?} {endpoint:?}");
            assert!(!shown.contains("CANARY"), "{shown}");
        }
        assert_eq!((peer.accepts(), peer.requests()), (1, 2), "one connection");
        let report = post(&endpoint, PATIENT).await;
        assert!(
            report.snippet.is_some(),
            "a delivery has its snippet all the same"
        );
    }
}

#[tokio::test]
async fn half_a_body_is_no_body() {
    async fn said(script: impl Fn() -> String + Send + Sync + Copy + 'static) -> (Report, Answer) {
        let peer = Peer::tls(move |mut talk: Talk| async move {
            talk.request().await;
            talk.say(script()).await;
        })
        .await;
        let endpoint = peer.endpoint(&sender(config()));
        let (report, answer) = ask(&endpoint, Method::POST, "{}").await;
        (report, answer.unwrap())
    }
    let whole = || sized(LIMIT, LIMIT);
    let (_, answer) = said(whole).await;
    assert_eq!(answer.body.unwrap().len(), LIMIT);
    for broken in [|| sized(LIMIT + 1, LIMIT + 1), || sized(100, 50)] {
        let (report, answer) = said(broken).await;
        assert_eq!((report.outcome, report.http_status), (Accepted, Some(200)));
        assert_eq!(answer.body, None);
    }
}

#[tokio::test]
async fn a_body_of_the_greatest_size_fits_http_2() {
    let peer = Peer::with(Some(CA.partner(&[b"h2"])), |talk| async move {
        let mut connection = h2::server::handshake(talk.into_io()).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.method(), Method::GET);
            let mut stream = respond
                .send_response(http::Response::new(()), false)
                .unwrap();
            stream.send_data(vec![b'x'; LIMIT].into(), true).unwrap();
        }
    })
    .await;
    let endpoint = peer.endpoint(&sender(config()));
    for _ in 0..20 {
        let (report, answer) = ask(&endpoint, Method::GET, "").await;
        assert_eq!(report.outcome, Accepted, "{report:?}");
        assert_eq!(answer.unwrap().body.unwrap().len(), LIMIT);
    }
    assert_eq!(peer.accepts(), 1);
}

#[tokio::test]
async fn an_exchange_has_one_deadline_and_no_connect() {
    let peer = Peer::tls(|mut talk| async move { talk.hang().await }).await;
    let endpoint = peer.endpoint(&sender(config()));
    let (report, answer) = endpoint
        .exchange(Method::GET, HeaderMap::new(), Bytes::new(), BRIEF)
        .await;
    assert_eq!((report.outcome, answer.is_none()), (TimedOut, true));
    let (report, answer) = ask(&endpoint, Method::CONNECT, "").await;
    assert_eq!((report.outcome, answer.is_none()), (Blocked, true));
    assert_eq!(peer.accepts(), 1);
}

#[tokio::test]
async fn a_token_endpoint_on_the_inside_is_refused() {
    let strict = crate::sender::SenderConfig {
        egress: crate::egress::EgressPolicy::default(),
        ..config()
    };
    let peer = Peer::answering(Some(CA.partner(&[])), "").await;
    let (report, answer) = ask(&peer.endpoint(&sender(strict)), Method::POST, "{}").await;
    assert_eq!((report.outcome, answer.is_none()), (Blocked, true));
    assert_eq!(peer.accepts(), 0);
}

fn sized(told: usize, sent: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {told}\r\n\r\n{}",
        "x".repeat(sent)
    )
}

async fn head(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
