//! The receiver of `docs/idempotent_receiver.rs` does nothing twice, and nothing that was not signed.

use std::net::SocketAddr;
use std::time::SystemTime;

use posthaste::secret::SigningSecret;
use posthaste::signature;
use posthaste::verifier::Verifier;
use tokio::net::TcpListener;

use crate::harness::World;
use crate::harness::http::{Answer, post};

#[allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program of its own"
)]
#[path = "../docs/idempotent_receiver.rs"]
mod example;

#[tokio::test]
async fn what_comes_twice_is_done_once_also_when_it_comes_at_the_same_time() {
    let desk = Desk::open().await;
    let once = desk.send("msg_1", ADA).await;
    assert_eq!((once.status, &*once.body), (200, "done"));
    let again = desk.send("msg_1", ADA).await;
    assert_eq!((again.status, &*again.body), (200, "done before"));
    let eight = futures_util::future::join_all((0..8).map(|_| desk.send("msg_2", ADA))).await;
    let done = eight.iter().filter(|answer| answer.body == "done");
    assert_eq!(done.count(), 1, "{eight:?}");
    assert!(eight.iter().all(|answer| answer.status == 200), "{eight:?}");
    assert_eq!(desk.counted().await, "ada 2");
}

#[tokio::test]
async fn an_event_whose_work_failed_is_not_remembered_and_can_come_again() {
    let desk = Desk::open().await;
    let unusable = r#"{"type":"certificate.issued","data":{}}"#;
    assert_eq!(desk.send("msg_1", unusable).await.status, 500);
    assert_eq!(desk.send("msg_1", ADA).await.body, "done");
    assert_eq!(desk.counted().await, "ada 1");
}

#[tokio::test]
async fn what_is_not_signed_or_is_a_test_changes_nothing() {
    let desk = Desk::open().await;
    let stranger = SigningSecret::generate().unwrap();
    let forged = desk.send_signed("msg_1", ADA, &stranger).await;
    assert_eq!(forged.status, 401);
    assert_eq!(post(desk.address, "/", "", ADA).await.status, 401);
    let test = ADA.replace("{\"type", "{\"test\":true,\"type");
    assert_eq!(desk.send("msg_2", &test).await.body, "a test");
    assert_eq!(desk.counted().await, "");
}

/// The guide says how large a body may be: little above 1 MiB.
#[tokio::test]
async fn a_body_as_large_as_the_guide_allows_is_taken() {
    let desk = Desk::open().await;
    let more = format!("\"student\":\"ada\",\"more\":\"{}\"", "x".repeat(1 << 20));
    let large = ADA.replace("\"student\":\"ada\"", &more);
    assert_eq!(desk.send("msg_1", &large).await.body, "done");
}

/// The receiver, with a database of its own.
struct Desk {
    world: World,
    address: SocketAddr,
    secret: SigningSecret,
}

impl Desk {
    async fn open() -> Self {
        let world = World::new().await;
        let secret = SigningSecret::generate().unwrap();
        world.run(example::TABLES).await;
        let receiver = example::Receiver {
            verifier: Verifier::new([secret.reveal().as_str()]).unwrap(),
            database: example::database(world.url()).unwrap(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(example::serve(listener, receiver));
        Self {
            world,
            address,
            secret,
        }
    }

    async fn send(&self, id: &str, body: &str) -> Answer {
        self.send_signed(id, body, &self.secret).await
    }

    async fn send_signed(&self, id: &str, body: &str, secret: &SigningSecret) -> Answer {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let secrets = std::slice::from_ref(secret);
        let signature = signature::sign(secrets, id, now.cast_signed(), body.as_bytes());
        let headers = format!(
            "webhook-id: {id}\r\nwebhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n"
        );
        post(self.address, "/", &headers, body).await
    }

    async fn counted(&self) -> String {
        let counted =
            "select coalesce(string_agg(student || ' ' || count, ', '), '') from certificate_count";
        let row = self.world.db.query_one(counted, &[]).await.unwrap();
        row.get(0)
    }
}

const ADA: &str = r#"{"type":"certificate.issued","data":{"student":"ada"}}"#;
