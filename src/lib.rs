//! Posthaste delivers what a platform wrote to its Postgres outbox as signed webhooks: at least once,
//! and on the record.
//!
//! A service that wants to run the worker inside itself needs three things: a [`config::Config`], a
//! [`worker::Worker`] made from it, and a token to stop it with.
//!
//! ```no_run
//! use posthaste::config::{Config, Hidden};
//! use posthaste::worker::Worker;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn run() -> posthaste::Result<()> {
//! let config = Config {
//!     database_url: Some(Hidden::new("postgres://worker@db/platform")),
//!     key_file: Some("/etc/posthaste.keys".into()),
//!     ..Config::default()
//! };
//! let stop = CancellationToken::new();
//! Worker::new(config)?.run(stop.clone()).await
//! # }
//! ```
//!
//! With `default-features = false` none of the program's own dependencies are built. Metrics go to the
//! recorder of the `metrics` facade that the service installs, log lines to its `tracing` subscriber.
//!
//! The modules below are in the order in which one reads them: the story, the edges, the pure parts.

// The story: what a worker does, and one attempt read aloud.
pub mod access;
pub mod attempt;
pub mod catalogue;
pub mod directory;
pub mod masks;
pub mod worker;

// The edges: the only part that speaks SQL, the only part that opens sockets to partners, and what
// the worker says.
pub mod sender;
pub mod spans;
pub mod store;
pub mod telemetry;
mod tls;

// Pure: values in, values out.
pub mod config;
pub mod delivery;
pub mod egress;
pub mod endpoint;
pub mod envelope;
pub mod jwks;
pub mod mask;
pub mod operational;
pub mod proxy;
pub mod request;
pub mod retry;
pub mod secret;
pub mod signature;

// For those who receive.
pub mod verifier;

mod error;

// What only the program needs.
#[cfg(feature = "cli")]
pub mod listener;
#[cfg(feature = "cli")]
pub mod logging;
#[cfg(feature = "cli")]
pub mod trial;

pub use error::{Error, Result};
