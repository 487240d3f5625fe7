//! The keys that encrypt signing secrets can be changed while workers run.

use posthaste::secret::{Keyring, SigningSecret};
use posthaste::store::Store;
use uuid::Uuid;

use crate::harness::{World, WorkerThread};

#[tokio::test]
async fn a_key_that_is_added_to_the_file_opens_what_could_not_be_opened_before() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe_url("p", &partner.url("/p"), &["*"], None, "1h,1h").await;
    let [one, two] = ["k1", "k2"].map(|id| Keyring::generate_line(id).unwrap().to_string());
    let (secret, secret_id) = (SigningSecret::generate().unwrap(), Uuid::now_v7());
    partner.learn(secret.clone());
    let sealed = Keyring::parse(&two).unwrap().seal(id, secret_id, &secret).unwrap();
    let store = Store::open(&world.config(&[])).unwrap();
    store.add_secret(id, secret_id, &sealed, false).await.unwrap();

    let file = std::env::temp_dir().join(format!("posthaste-test-{secret_id}.keys"));
    std::fs::write(&file, &one).unwrap();
    let mut config = world.config(&[("key_file", file.to_str().unwrap())]);
    config.keys = None;
    let _worker = WorkerThread::start(config).ready().await;
    let event = world.publish("a", "1").await;
    world.until("exists (select from posthaste.queue where attempts = 1 and lease_holder is null)").await;
    std::fs::write(&file, format!("{one}\n{two}\n")).unwrap();
    world.make_due().await;
    world.until("exists (select from posthaste.attempt where number = 2)").await;
    let story = world.story(event).await;
    let _ = std::fs::remove_file(&file);
    assert_eq!(story, "1 blocked retry, 2 accepted done");
}
