//! Secrets and the keys that seal them can be changed while workers run.

use std::path::{Path, PathBuf};

use posthaste::config::Config;
use posthaste::secret::{Keyring, SigningSecret};
use uuid::Uuid;

use crate::harness::{WorkerThread, World};

#[tokio::test]
async fn two_live_secrets_both_sign() {
    let world = World::new().await;
    let partner = world.partner().await;
    let subscription = world.subscribe("harbour", &partner, "5s").await;
    let _worker = world.worker(&[]).await;
    world.publish("a.b", "1").await;
    partner.wait_for(1).await;
    world
        .add_secret(subscription, &SigningSecret::generate().unwrap())
        .await;
    let id = world.publish("a.b", "2").await;
    let received = partner.wait_for(2).await;
    let last = received
        .iter()
        .find(|received| received.id == id.to_string())
        .unwrap();
    let signatures = last.headers["webhook-signature"].to_str().unwrap();
    // The partner knows the first secret alone, and verifies all the same.
    assert_eq!(
        (signatures.split(' ').count(), last.verified),
        (2, Some(Ok(())))
    );
    world.until_all_is_done().await;
    let signed_with =
        format!("select signed_with::text from posthaste.attempt where event_id = '{id}'");
    assert_eq!(world.text(&signed_with).await, "1,2");
}

#[tokio::test]
async fn a_key_is_added_to_the_file_while_the_worker_runs() {
    let world = World::new().await;
    let partner = world.partner().await;
    let keys = KeyFile::new();
    let old = Keyring::generate_line("old").unwrap();
    keys.write(&old);
    let config = Config {
        keys: None,
        key_file: Some(keys.0.clone()),
        ..world.config(&[])
    };
    let subscription = world
        .subscribe_url("harbour", &partner.url("/"), &["*"], None, "5s")
        .await;
    let _worker = WorkerThread::start(config.clone()).ready().await;
    world.publish("a.b", "1").await;
    partner.wait_for(1).await;

    // A new key seals from now on, the old one still opens; the worker learns of it by itself.
    keys.write(&format!(
        "{}\n{}",
        *Keyring::generate_line("new").unwrap(),
        *old
    ));
    let secret = SigningSecret::generate().unwrap();
    partner.learn(secret.clone());
    world
        .add_secret_under(&config.keyring().unwrap(), subscription, &secret)
        .await;
    let id = world.publish("a.b", "2").await;
    let received = partner.wait_for(2).await;
    let last = received
        .iter()
        .find(|received| received.id == id.to_string())
        .unwrap();
    assert_eq!(last.verified, Some(Ok(())));
    let under = "select string_agg(key_id, ' ' order by number) from posthaste.signing_secret";
    assert_eq!(world.text(under).await, "old new");
}

#[tokio::test]
async fn a_key_that_is_added_to_the_file_opens_what_could_not_be_opened_before() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world
        .subscribe_url("p", &partner.url("/p"), &["*"], None, "1h,1h")
        .await;
    let [one, two] = ["k1", "k2"].map(|id| Keyring::generate_line(id).unwrap().to_string());
    let secret = SigningSecret::generate().unwrap();
    partner.learn(secret.clone());
    world
        .add_secret_under(&Keyring::parse(&two).unwrap(), id, &secret)
        .await;

    let file = std::env::temp_dir().join(format!("posthaste-test-{}.keys", Uuid::now_v7()));
    std::fs::write(&file, &one).unwrap();
    let mut config = world.config(&[("key_file", file.to_str().unwrap())]);
    config.keys = None;
    let _worker = WorkerThread::start(config).ready().await;
    let event = world.publish("a", "1").await;
    world
        .until("exists (select from posthaste.queue where attempts = 1)")
        .await;
    std::fs::write(&file, format!("{one}\n{two}\n")).unwrap();
    world.make_due().await;
    world
        .until("exists (select from posthaste.attempt where number = 2)")
        .await;
    let told = world.story(event).await;
    let _ = std::fs::remove_file(&file);
    assert_eq!(told, "1 blocked retry, 2 accepted done");
}

#[tokio::test]
async fn while_the_keys_cannot_be_read_changes_are_heeded_all_the_same() {
    let world = World::new().await;
    let (old, new) = (world.partner().await, world.partner().await);
    let keys = KeyFile::new();
    keys.write(&Keyring::generate_line("k1").unwrap());
    let config = Config {
        keys: None,
        key_file: Some(keys.0.clone()),
        ..world.config(&[])
    };
    let id = world
        .subscribe_url("p", &old.url("/p"), &["*"], None, "5s")
        .await;
    let secret = SigningSecret::generate().unwrap();
    new.learn(secret.clone());
    world
        .add_secret_under(&config.keyring().unwrap(), id, &secret)
        .await;
    let _worker = WorkerThread::start(config).ready().await;
    world.publish("a", "1").await;
    old.wait_for(1).await;
    keys.write("half of a k");
    world
        .change("p", &format!(r#"{{"url": "{}"}}"#, new.url("/p")))
        .await;
    world.publish("a", "2").await;
    let received = new.wait_for(1).await;
    assert_eq!(received[0].verified, Some(Ok(())));
    world
        .run("select posthaste.deactivate('p', 'no keys')")
        .await;
    world.until("(select not active from posthaste.lane)").await;
    world.publish("a", "3").await;
    world
        .until("(select count(*) from posthaste.queue) = 1")
        .await;
    assert_eq!(new.count(), 1);
}

/// A file of keys, removed at the end.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("posthaste-keys-{}", Uuid::now_v7())))
    }

    fn write(&self, text: &str) {
        std::fs::write(Path::new(&self.0), text).unwrap();
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
