//! HTTP/2, where TLS settles on it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use h2::server::{Builder, Connection, SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::harness::{BRIEF, CA, PARTNER, PATIENT, Peer, Talk, config, post, sender, until};
use crate::delivery::Outcome::{Accepted, Rejected, TimedOut, Unreachable};

type Asked = (Request<h2::RecvStream>, SendResponse<Bytes>);

/// A peer that speaks HTTP/2, at most `streams` requests at a time, and treats each as `script` says.
async fn peer<F>(streams: u32, script: impl Fn(Asked) -> F + Clone + Send + Sync + 'static) -> Peer
where
    F: Future<Output = ()> + Send + 'static,
{
    Peer::with(
        Some(CA.partner(&[b"h2", b"http/1.1"])),
        move |talk: Talk| {
            let script = script.clone();
            async move {
                let mut connection = shake(talk, streams).await;
                while let Some(Ok(asked)) = connection.accept().await {
                    tokio::spawn(script(asked));
                }
            }
        },
    )
    .await
}

async fn shake(
    talk: Talk,
    streams: u32,
) -> Connection<impl AsyncRead + AsyncWrite + Send + Unpin, Bytes> {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(streams);
    builder.handshake(talk.into_io()).await.unwrap()
}

/// Reads the request to its end, then answers `status` with a body.
async fn answer((mut request, mut respond): Asked, status: u16, body: &'static str) {
    while let Some(Ok(data)) = request.body_mut().data().await {
        let _ = request
            .body_mut()
            .flow_control()
            .release_capacity(data.len());
    }
    let head = Response::builder().status(status).body(()).unwrap();
    if let Ok(mut stream) = respond.send_response(head, false) {
        let _ = stream.send_data(Bytes::from_static(body.as_bytes()), true);
    }
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let peer = peer(100, |asked| answer(asked, 200, "ok")).await;
    let endpoint = peer.endpoint(&sender(config()));
    for _ in 0..3 {
        for report in join_all((0..50).map(|_| post(&endpoint, PATIENT))).await {
            assert_eq!(
                (report.outcome, report.snippet.as_deref()),
                (Accepted, Some("ok"))
            );
            assert_eq!(report.remote, Some([127, 0, 0, 1].into()));
        }
    }
    assert_eq!(peer.accepts(), 1);
}

#[tokio::test]
async fn requests_beyond_the_peers_limit_wait_their_turn() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counter, highest) = (Arc::clone(&open), Arc::clone(&most));
    let peer = peer(2, move |asked| {
        let (open, most) = (Arc::clone(&counter), Arc::clone(&highest));
        async move {
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            answer(asked, 200, "ok").await;
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let endpoint = peer.endpoint(&sender(config()));
    assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted); // brings the peer's settings
    for report in join_all((0..20).map(|_| post(&endpoint, PATIENT))).await {
        assert_eq!(report.outcome, Accepted, "{report:?}");
    }
    assert!(most.load(Ordering::SeqCst) <= 2 && peer.accepts() == 1);
}

#[tokio::test]
async fn the_request_names_its_authority_and_no_connection_headers() {
    let (tell, mut told) = watch::channel(None);
    let peer = peer(10, move |asked: Asked| {
        let (uri, headers) = (asked.0.uri().clone(), asked.0.headers().clone());
        tell.send_replace(Some((uri, headers)));
        answer(asked, 204, "")
    })
    .await;
    let mut headers = HeaderMap::new();
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "te",
        "host",
    ] {
        headers.insert(name, HeaderValue::from_static("x"));
    }
    headers.insert("webhook-id", HeaderValue::from_static("msg_1"));
    let endpoint = peer.endpoint(&sender(config()));
    let report = endpoint
        .post(headers, Bytes::from_static(b"body"), PATIENT)
        .await;
    assert_eq!((report.outcome, report.http_status), (Accepted, Some(204)));
    told.wait_for(Option::is_some).await.unwrap();
    let (uri, headers) = told.borrow().clone().unwrap();
    assert_eq!(
        uri,
        format!("https://{PARTNER}:{}/hook?x=1", peer.port).as_str()
    );
    let mut names: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept-encoding",
            "content-length",
            "user-agent",
            "webhook-id"
        ]
    );
    assert_eq!(headers["content-length"], "4");
}

#[tokio::test]
async fn a_redirect_is_a_failure_here_too() {
    let peer = peer(10, |asked| answer(asked, 307, "elsewhere")).await;
    let report = post(&peer.endpoint(&sender(config())), PATIENT).await;
    assert_eq!((report.outcome, report.http_status), (Rejected, Some(307)));
}

#[tokio::test]
async fn a_reset_stream_is_unreachable_and_spares_the_connection() {
    let peer = peer(10, |(_, mut respond): Asked| async move {
        respond.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
    })
    .await;
    let endpoint = peer.endpoint(&sender(config()));
    for _ in 0..3 {
        let report = post(&endpoint, PATIENT).await;
        assert_eq!(report.outcome, Unreachable, "{report:?}");
        assert!(
            report
                .error
                .unwrap()
                .starts_with("http: the peer reset the stream: ")
        );
    }
    assert_eq!(peer.accepts(), 1);
}

#[tokio::test]
async fn a_body_without_end_is_cut_off_and_spares_the_connection() {
    let peer = peer(10, |(_request, mut respond): Asked| async move {
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        let page = Bytes::from_static(&[b'x'; 4096]);
        loop {
            stream.reserve_capacity(page.len());
            let Some(Ok(_)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                return;
            };
            if stream.send_data(page.clone(), false).is_err() {
                return;
            }
        }
    })
    .await;
    let endpoint = peer.endpoint(&sender(config()));
    for _ in 0..20 {
        let report = post(&endpoint, PATIENT).await;
        assert_eq!((report.outcome, report.http_status), (Accepted, Some(200)));
        assert_eq!(report.snippet.map(|snippet| snippet.len()), Some(1024));
    }
    assert_eq!(peer.accepts(), 1);
}

#[tokio::test]
async fn silence_times_out_and_the_next_request_gets_a_new_connection() {
    let peer = peer(10, |asked: Asked| async move {
        std::future::pending::<()>().await;
        drop(asked);
    })
    .await;
    let endpoint = peer.endpoint(&sender(config()));
    for n in 1..=2 {
        let report = post(&endpoint, BRIEF).await;
        assert_eq!(report.outcome, TimedOut);
        assert_eq!(
            report.error.as_deref(),
            Some("http: no whole response head within 150ms")
        );
        assert_eq!(peer.accepts(), n);
    }
}

#[tokio::test]
async fn after_a_goaway_the_next_request_gets_a_new_connection() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ended);
    let served = Arc::new(AtomicUsize::new(0));
    let requests = Arc::clone(&served);
    let peer = Peer::with(Some(CA.partner(&[b"h2"])), move |talk: Talk| {
        let (ended, served) = (Arc::clone(&counter), Arc::clone(&requests));
        async move {
            let mut connection = shake(talk, 10).await;
            while let Some(Ok(asked)) = connection.accept().await {
                served.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(answer(asked, 200, "bye"));
                connection.graceful_shutdown();
            }
            ended.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let endpoint = peer.endpoint(&sender(config()));
    for n in 1..=5 {
        assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted);
        until(|| ended.load(Ordering::SeqCst) == n).await;
        until(|| endpoint.inner.pool.shared_is_closed()).await;
    }
    assert_eq!((peer.accepts(), served.load(Ordering::SeqCst)), (5, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_dies_under_a_request_never_doubles_it() {
    let served = Arc::new(AtomicUsize::new(0));
    let requests = Arc::clone(&served);
    let peer = Peer::with(Some(CA.partner(&[b"h2"])), move |talk: Talk| {
        let served = Arc::clone(&requests);
        async move {
            let mut connection = shake(talk, 10).await;
            for _ in 0..3 {
                let Some(Ok(asked)) = connection.accept().await else {
                    return;
                };
                served.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(answer(asked, 200, "ok"));
            }
            let _ = connection
                .accept()
                .await
                .map(|_| served.fetch_add(1, Ordering::SeqCst));
        }
    })
    .await;
    let endpoint = peer.endpoint(&sender(config()));
    let mut reports = 0;
    for _ in 0..100 {
        let report = post(&endpoint, PATIENT).await;
        assert!(
            [Accepted, Unreachable].contains(&report.outcome),
            "{report:?}"
        );
        reports += 1;
    }
    assert!(served.load(Ordering::SeqCst) <= reports);
}

#[tokio::test]
async fn a_flood_of_interim_heads_is_cut_off() {
    let peer = peer(10, |(_request, mut respond): Asked| async move {
        let hints = || {
            let value = HeaderValue::from_static("</x>; rel=preload");
            Response::builder()
                .status(103)
                .header("link", value)
                .body(())
                .unwrap()
        };
        while respond.send_informational(hints()).is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let report = post(&peer.endpoint(&sender(config())), PATIENT).await;
    assert_eq!(report.outcome, Unreachable, "{report:?}");
    assert!(report.duration < PATIENT / 2);
}

#[tokio::test]
async fn a_giant_head_is_refused() {
    let peer = peer(10, |(_request, mut respond): Asked| async move {
        let giant = HeaderValue::from_bytes(&vec![b'x'; 70_000]).unwrap();
        let head = Response::builder().header("x", giant).body(()).unwrap();
        let _ = respond.send_response(head, true);
    })
    .await;
    let report = post(&peer.endpoint(&sender(config())), PATIENT).await;
    assert_eq!(report.outcome, Unreachable, "{report:?}");
}

#[tokio::test]
async fn the_connection_ends_with_its_endpoint() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ended);
    let peer = Peer::with(Some(CA.partner(&[b"h2"])), move |talk: Talk| {
        let ended = Arc::clone(&counter);
        async move {
            let mut connection = shake(talk, 10).await;
            while let Some(Ok(asked)) = connection.accept().await {
                tokio::spawn(answer(asked, 200, "ok"));
            }
            ended.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let endpoint = peer.endpoint(&sender(config()));
    assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted);
    drop(endpoint);
    until(|| ended.load(Ordering::SeqCst) == 1 && tasks() == before).await;
}

#[tokio::test]
async fn what_is_no_http2_is_unreachable() {
    let peer = Peer::with(Some(CA.partner(&[b"h2"])), |mut talk: Talk| async move {
        talk.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await;
        talk.hang().await;
    })
    .await;
    let report = post(&peer.endpoint(&sender(config())), PATIENT).await;
    assert_eq!(report.outcome, Unreachable, "{report:?}");
}
