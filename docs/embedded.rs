//! A service that runs the worker inside itself: `cargo run --example embedded --no-default-features`.
//!
//! In its Cargo.toml: `posthaste = { version = "0.1", default-features = false }`.

use std::time::Duration;

use posthaste::config::{Config, Hidden};
use posthaste::worker::Worker;
use posthaste::{Result, store};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<()> {
    let variable = |name: &str| std::env::var(name).ok().map(Hidden::new);
    let config = Config {
        database_url: variable("DATABASE_URL"),
        keys: variable("POSTHASTE_KEYS"),
        endpoint_concurrency: 32,
        drain: Duration::from_secs(10),
        ..Config::default()
    };
    store::migrate(config.required_database_url()?).await?;

    // The worker runs until the token is cancelled; your service cancels it when it stops.
    let stop = CancellationToken::new();
    let worker = Worker::new(config)?;
    let mut ready = worker.ready();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { worker.run(stop).await }
    });
    if ready.wait_for(|ready| *ready).await.is_ok() {
        println!("delivering; stopping after a minute");
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    stop.cancel();
    running.await.unwrap_or(Ok(()))
}
