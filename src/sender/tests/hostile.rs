//! Peers that answer wrongly, slowly, too much, or not at all.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tokio::runtime::Handle;

use super::harness::{BRIEF, PATIENT, Peer, Talk, config, met, post, sender, until};
use crate::delivery::Outcome::{Accepted, Rejected, TimedOut, Unreachable};
use crate::delivery::{Outcome, Report};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn all_met(reports: &[Report], outcome: Outcome, error: &str) {
    for report in reports {
        assert_eq!(report.outcome, outcome, "{report:?}");
        assert!(
            report
                .error
                .as_deref()
                .is_some_and(|text| text.contains(error)),
            "{report:?}"
        );
    }
}

/// What is met by one request that is answered with `text`, after which the peer hangs.
async fn answered(
    text: impl AsRef<[u8]> + Clone + Send + Sync + 'static,
    within: Duration,
) -> [Report; 2] {
    met(within, move |mut talk: Talk| {
        let text = text.clone();
        async move {
            talk.request().await;
            talk.say(text.as_ref()).await;
            talk.hang().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_2xx_is_accepted() {
    for report in answered(OK, PATIENT).await {
        assert_eq!((report.outcome, report.http_status), (Accepted, Some(200)));
        assert_eq!(
            (report.error.as_deref(), report.snippet.as_deref()),
            (None, Some("ok"))
        );
        assert_eq!(report.remote, Some([127, 0, 0, 1].into()));
        assert!(report.phases.connect.is_some());
        assert!(report.phases.body.is_some());
        assert_eq!(report.phases.dns.is_some(), report.phases.tls.is_some());
    }
    for report in answered("HTTP/1.1 204 No Content\r\n\r\n", PATIENT).await {
        assert_eq!((report.outcome, report.snippet), (Accepted, None));
    }
}

#[tokio::test]
async fn any_other_status_is_rejected() {
    for status in [400, 404, 410, 429, 500, 503, 600, 999] {
        let text = format!("HTTP/1.1 {status} Hm\r\ncontent-length: 2\r\n\r\nno");
        let reports = answered(text, PATIENT).await;
        all_met(&reports, Rejected, &format!("http: status {status}"));
        assert_eq!(
            (reports[0].http_status, reports[0].snippet.as_deref()),
            (Some(status), Some("no"))
        );
    }
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let sender = sender(config());
    let inside = Peer::answering(None, OK).await;
    for status in [300, 301, 302, 303, 307, 308] {
        let text = format!(
            "HTTP/1.1 {status} Moved\r\nlocation: {0}\r\nrefresh: 0; url={0}\r\ncontent-length: 0\r\n\r\n",
            inside.url()
        );
        let peer = Peer::tls(move |mut talk: Talk| {
            let text = text.clone();
            async move {
                talk.request().await;
                talk.say(text).await;
            }
        })
        .await;
        let report = post(&peer.endpoint(&sender), PATIENT).await;
        all_met(
            std::slice::from_ref(&report),
            Rejected,
            "redirects are never followed",
        );
        assert_eq!(report.http_status, Some(status));
    }
    assert_eq!(inside.accepts(), 0);
}

#[tokio::test]
async fn silence_before_the_head_times_out() {
    let reports = answered("", BRIEF).await;
    all_met(
        &reports,
        TimedOut,
        "http: no whole response head within 150ms",
    );
    assert_eq!(reports[0].http_status, None);
}

#[tokio::test]
async fn silence_within_the_head_times_out() {
    all_met(
        &answered("HTTP/1.1 200 OK\r\ncontent-le", BRIEF).await,
        TimedOut,
        "http: ",
    );
}

#[tokio::test]
async fn an_interim_head_is_no_answer() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </>\r\n\r\n";
    all_met(&answered(interim, BRIEF).await, TimedOut, "http: ");
    let then_ok = answered(format!("{interim}{interim}{OK}"), PATIENT).await;
    assert!(then_ok.iter().all(|report| report.outcome == Accepted));
}

#[tokio::test]
async fn an_endless_head_is_cut_off() {
    let endless = |start: &'static str, more: &'static str| {
        met(PATIENT, move |mut talk: Talk| async move {
            talk.request().await;
            talk.say(start).await;
            talk.say_for_ever(more).await;
        })
    };
    let over = "http: response head over 65536 bytes";
    all_met(
        &endless("HTTP/1.1 200 OK\r\nx: ", "xxxxxxxxxxxxxxxxxxxx").await,
        Unreachable,
        over,
    );
    all_met(&endless("HTTP/1.1 ", "200 ").await, Unreachable, "http: ");
    all_met(
        &endless("", "HTTP/1.1 100 Continue\r\n\r\n").await,
        Unreachable,
        over,
    );
    all_met(
        &endless("", "HTTP/1.1 103 Hints\r\nlink: </>\r\n\r\n").await,
        Unreachable,
        over,
    );
}

#[tokio::test]
async fn a_head_of_more_than_a_hundred_fields_is_refused() {
    let head = |n: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(n));
    assert!(
        answered(head(100), BRIEF)
            .await
            .iter()
            .all(|r| r.outcome == Accepted)
    );
    all_met(&answered(head(101), PATIENT).await, Unreachable, "http: ");
}

#[tokio::test]
async fn a_giant_body_is_cut_off_and_accepted() {
    let reports = met(PATIENT, |mut talk: Talk| async move {
        talk.request().await;
        talk.say("HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n")
            .await;
        talk.say_for_ever("12345678").await;
    })
    .await;
    for report in reports {
        assert_eq!(report.outcome, Accepted);
        assert_eq!(report.snippet.map(|snippet| snippet.len()), Some(1024));
        assert!(report.duration < PATIENT / 2);
    }
}

#[tokio::test]
async fn a_dripping_body_neither_outlasts_the_deadline_nor_changes_the_outcome() {
    let reports = met(BRIEF, |mut talk: Talk| async move {
        talk.request().await;
        talk.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        let mut drip = tokio::time::interval(Duration::from_millis(5));
        while talk.say("1\r\n.\r\n").await {
            drip.tick().await;
        }
    })
    .await;
    for report in reports {
        assert_eq!((report.outcome, report.http_status), (Accepted, Some(200)));
        assert!(report.duration >= BRIEF && report.snippet.is_some_and(|s| s.starts_with("..")));
    }
}

#[tokio::test]
async fn a_broken_body_does_not_change_the_outcome() {
    let head = "HTTP/1.1 201 Created\r\ncontent-length: 10\r\n\r\nhalf";
    let ended = met(PATIENT, move |mut talk: Talk| async move {
        talk.request().await;
        talk.say(head).await;
    });
    let bad_chunk = answered(
        "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        PATIENT,
    );
    for report in [ended.await, bad_chunk.await].concat() {
        assert_eq!((report.outcome, report.http_status), (Accepted, Some(201)));
    }
}

#[tokio::test]
async fn a_connection_that_ends_before_the_head_is_unreachable() {
    let at_once = met(PATIENT, |talk: Talk| async move { drop(talk) }).await;
    all_met(&at_once, Unreachable, "http: ");
    let after_the_request = met(PATIENT, |mut talk: Talk| async move {
        talk.request().await;
    });
    all_met(
        &after_the_request.await,
        Unreachable,
        "http: the peer closed the connection",
    );
    let within_the_head = met(PATIENT, |mut talk: Talk| async move {
        talk.request().await;
        talk.say("HTTP/1.1 200 OK\r\ncont").await;
    });
    all_met(
        &within_the_head.await,
        Unreachable,
        "http: the peer closed the connection",
    );
}

#[tokio::test]
async fn a_reset_before_the_head_is_unreachable() {
    let [plain, tls] = met(PATIENT, Talk::reset).await;
    all_met(&[plain], Unreachable, "http: connection reset");
    assert_eq!(tls.outcome, Unreachable); // under TLS all bytes were read: an end, not a reset
}

#[tokio::test]
async fn what_is_no_http_is_unreachable() {
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 2OO OK\r\n\r\n",
        "HTTP/0.9 200\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
    ] {
        all_met(
            &answered(text, PATIENT).await,
            Unreachable,
            "http: not a valid HTTP response",
        );
    }
    let smuggled = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx";
    all_met(
        &answered(smuggled, PATIENT).await,
        Unreachable,
        "http: not a valid",
    );
}

#[tokio::test]
async fn nul_and_control_bytes_are_escaped() {
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\na\0b\x1b[2Jc";
    for report in answered(text, PATIENT).await {
        assert_eq!(report.snippet.as_deref(), Some("a\\u{0}b\\u{1b}[2Jc"));
    }
    for head in [
        "HTTP/1.1 200 \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: \0\r\n\r\n",
    ] {
        for report in answered(head, BRIEF).await {
            assert!(!format!("{report:?}").contains('\0'), "{report:?}");
        }
    }
}

#[tokio::test]
async fn a_content_encoding_is_not_decoded() {
    let bomb = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nGZIP";
    for report in answered(bomb, PATIENT).await {
        assert_eq!(report.snippet.as_deref(), Some("GZIP"));
    }
}

#[tokio::test]
async fn the_request_is_ours_to_frame_and_its_body_is_exact() {
    let sender = sender(config());
    let peer = Peer::plain(|mut talk: Talk| async move {
        let request = talk.request().await.unwrap();
        let length = request.len();
        talk.say(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{request}"
        ))
        .await;
    })
    .await;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("webhook-id", "msg_1"),
        ("host", "inside"),
        ("transfer-encoding", "chunked"),
        ("connection", "upgrade"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("te", "trailers"),
        ("content-length", "1"),
        ("accept-encoding", "gzip"),
        ("keep-alive", "1"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let body = Bytes::from_static("{\"a\": 1.10,  \"z\":\"\u{fc}\"}".as_bytes());
    let report = peer
        .endpoint(&sender)
        .post(headers, body.clone(), PATIENT)
        .await;
    let request = report.snippet.unwrap();
    let (head, sent) = request.split_once("\\r\\n\\r\\n").unwrap();
    let mut lines: Vec<_> = head.split("\\r\\n").collect();
    lines[1..].sort_unstable();
    let agent = concat!("user-agent: Posthaste/", env!("CARGO_PKG_VERSION"));
    let host = format!("host: 127.0.0.1:{}", peer.port);
    let expected = [
        "POST /hook?x=1 HTTP/1.1",
        "accept-encoding: identity",
        "content-length: 22",
        &host,
        agent,
        "webhook-id: msg_1",
    ];
    assert_eq!(lines, expected);
    assert_eq!(sent.as_bytes(), body);
}

#[tokio::test]
async fn a_peer_that_reads_nothing_holds_nothing_of_ours() {
    let (tell, told) = tokio::sync::watch::channel(());
    let peer = Peer::plain(move |talk: Talk| {
        let mut told = told.clone();
        async move {
            let _ = told.changed().await; // holds the connection, reads nothing
            drop(talk);
        }
    })
    .await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let endpoint = peer.endpoint(&sender(config()));
    let before = tasks();
    let body = Bytes::from(vec![b'x'; 32 << 20]);
    let report = endpoint.post(HeaderMap::new(), body, BRIEF).await;
    assert_eq!(report.outcome, TimedOut);
    until(|| tasks() <= before + 1).await; // the peer's own
    drop(tell);
}

#[tokio::test]
async fn a_deadline_of_any_length_is_taken() {
    let sender = sender(config());
    let peer = Peer::answering(None, OK).await;
    let endpoint = peer.endpoint(&sender);
    assert!([Accepted, TimedOut].contains(&post(&endpoint, Duration::ZERO).await.outcome));
    assert_eq!(post(&endpoint, Duration::MAX).await.outcome, Accepted);
}
