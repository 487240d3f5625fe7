//! Posthaste delivers what a platform wrote to its Postgres outbox as signed webhooks: at least once, and on the record.

// The story: what a worker does, and one attempt read aloud.
pub mod attempt;
pub mod directory;
pub mod worker;

// The edges: the only part that speaks SQL, the only part that opens sockets to partners, and what
// the worker says.
pub mod sender;
pub mod store;
pub mod telemetry;
mod tls;

// Pure: values in, values out.
pub mod config;
pub mod delivery;
pub mod egress;
pub mod endpoint;
pub mod envelope;
pub mod retry;
pub mod secret;
pub mod signature;

mod error;

// What only the program needs.
#[cfg(feature = "cli")]
pub mod listener;
#[cfg(feature = "cli")]
pub mod logging;
#[cfg(feature = "cli")]
pub mod trial;

pub use error::{Error, Result};
