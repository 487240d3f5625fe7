//! HTTP/1.1 connections that serve more than one request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Barrier, Notify};

use super::harness::{CA, PATIENT, Peer, Talk, config, post, sender, until};
use crate::delivery::Outcome::{Accepted, Unreachable};
use crate::sender::SenderConfig;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn the_second_request_uses_the_first_ones_connection() {
    let sender = sender(config());
    for tls in [None, Some(CA.partner(&[b"http/1.1"]))] {
        let peer = Peer::answering(tls, OK).await;
        let endpoint = peer.endpoint(&sender);
        assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted);
        for _ in 0..20 {
            let report = post(&endpoint, PATIENT).await;
            assert_eq!(
                (report.outcome, report.snippet.as_deref()),
                (Accepted, Some("ok"))
            );
            let phases = report.phases;
            assert_eq!((phases.dns, phases.connect, phases.tls), (None, None, None));
            assert_eq!(report.remote, Some([127, 0, 0, 1].into()));
        }
        assert_eq!((peer.accepts(), peer.requests()), (1, 21));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_serves_one_request_at_a_time() {
    let peer = Peer::answering(Some(CA.partner(&[b"http/1.1"])), OK).await;
    let endpoint = peer.endpoint(&sender(config()));
    for _ in 0..5 {
        let reports = join_all((0..8).map(|_| post(&endpoint, PATIENT))).await;
        assert!(
            reports.iter().all(|report| report.outcome == Accepted),
            "{reports:?}"
        );
    }
    assert!((1..=8).contains(&peer.accepts()), "{}", peer.accepts());
    assert_eq!(peer.requests(), 40);
}

#[tokio::test]
async fn as_many_as_are_in_use_at_once_are_used_again() {
    const AT_ONCE: usize = 100;
    let all_are_here = Arc::new(Barrier::new(AT_ONCE));
    let peer = Peer::plain(move |mut talk: Talk| {
        let all_are_here = Arc::clone(&all_are_here);
        async move {
            while talk.request().await.is_some() {
                all_are_here.wait().await;
                talk.say(OK).await;
            }
        }
    })
    .await;
    let endpoint = peer.endpoint(&sender(config()));
    for _ in 0..2 {
        join_all((0..AT_ONCE).map(|_| post(&endpoint, PATIENT))).await;
    }
    assert_eq!((peer.accepts(), peer.requests()), (AT_ONCE, 2 * AT_ONCE));
}

#[tokio::test]
async fn a_connection_is_not_used_beyond_its_age_or_idle_time() {
    let expired = [
        SenderConfig {
            idle_timeout: Duration::ZERO,
            ..config()
        },
        SenderConfig {
            max_connection_age: Duration::ZERO,
            ..config()
        },
    ];
    for config in expired {
        let peer = Peer::answering(None, OK).await;
        let endpoint = peer.endpoint(&sender(config));
        for n in 1..=3 {
            assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted);
            assert_eq!(peer.accepts(), n);
        }
    }
}

#[tokio::test]
async fn a_connection_with_an_unread_body_is_not_used_again() {
    let sender = sender(config());
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 17000\r\n\r\n";
    let peer = Peer::tls(move |mut talk: Talk| async move {
        while talk.request().await.is_some() {
            talk.say(format!("{long}{}", "x".repeat(17000))).await;
        }
    })
    .await;
    let endpoint = peer.endpoint(&sender);
    for n in 1..=2 {
        assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted);
        assert_eq!(peer.accepts(), n);
    }
}

#[tokio::test]
async fn a_connection_with_an_answer_too_many_is_not_used_again() {
    let peer = Peer::plain(|mut talk: Talk| async move {
        while talk.request().await.is_some() {
            talk.say(format!(
                "{OK}HTTP/1.1 500 Poison\r\ncontent-length: 0\r\n\r\n"
            ))
            .await;
        }
    })
    .await;
    let endpoint = peer.endpoint(&sender(config()));
    for _ in 0..5 {
        assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted);
    }
}

#[tokio::test]
async fn a_connection_that_the_peer_closed_costs_no_attempt() {
    let closed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&closed);
    let peer = Peer::with(Some(CA.partner(&[b"http/1.1"])), move |mut talk: Talk| {
        let closed = Arc::clone(&counter);
        async move {
            talk.request().await;
            talk.say(OK).await;
            drop(talk);
            closed.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let endpoint = peer.endpoint(&sender(config()));
    for n in 1..=10 {
        assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted);
        until(|| closed.load(Ordering::SeqCst) == n).await;
        until(|| endpoint.inner.pool.idle_are_closed()).await;
    }
    assert_eq!((peer.requests(), peer.accepts()), (10, 10));
}

#[test]
fn a_request_that_was_not_written_goes_whole_to_another_connection() {
    let (heard, hang_up) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
    let (told, asked) = (Arc::clone(&heard), Arc::clone(&hang_up));
    let script = move |mut talk: Talk| {
        let (heard, hang_up) = (Arc::clone(&told), Arc::clone(&asked));
        async move {
            let request = talk.request().await;
            heard.lock().unwrap().extend(request);
            talk.say(OK).await;
            hang_up.notified().await;
        }
    };
    // Sockets are looked at after each task: the connection, which has its turn after the peer, learns that nobody is there just as
    // it gets the request.
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().event_interval(1).build().unwrap();
    runtime.block_on(async {
        let peer = Peer::plain(script).await;
        let endpoint = peer.endpoint(&sender(config()));
        assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted);
        // Nothing of the first request may be left to do, or the connection has its turn before.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        hang_up.notify_one();
        assert!(!endpoint.inner.pool.idle_are_closed());
        assert_eq!(post(&endpoint, PATIENT).await.outcome, Accepted);
        assert_eq!(peer.accepts(), 2);
    });
    let heard = heard.lock().unwrap();
    assert!(heard[0].ends_with("\r\n\r\n{\"n\":1}"), "{}", heard[0]);
    assert_eq!(heard[0], heard[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_dies_under_a_request_never_doubles_it() {
    let peer = Peer::plain(|mut talk: Talk| async move {
        talk.request().await;
        talk.say(OK).await; // and closes, while the next request may be on its way
    })
    .await;
    let endpoint = peer.endpoint(&sender(config()));
    let (mut accepted, mut unreachable) = (0, 0);
    for _ in 0..300 {
        match post(&endpoint, PATIENT).await.outcome {
            Accepted => accepted += 1,
            Unreachable => unreachable += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        peer.requests(),
        accepted,
        "each answered request was sent once"
    );
    assert_eq!(accepted + unreachable, 300);
}

#[tokio::test]
async fn connections_end_with_their_endpoint() {
    let open = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&open);
    let peer = Peer::with(Some(CA.partner(&[b"http/1.1"])), move |mut talk: Talk| {
        let open = Arc::clone(&counter);
        async move {
            open.fetch_add(1, Ordering::SeqCst);
            while talk.request().await.is_some() {
                talk.say(OK).await;
            }
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let endpoint = peer.endpoint(&sender(config()));
    join_all((0..5).map(|_| post(&endpoint, PATIENT))).await;
    assert_eq!(open.load(Ordering::SeqCst), peer.accepts());
    drop(endpoint);
    until(|| open.load(Ordering::SeqCst) == 0 && tasks() == before).await;
}
