//! Posthaste delivers what a platform wrote to its Postgres outbox as signed webhooks: at least once, and on the record.

// Pure: values in, values out.
pub mod delivery;
pub mod egress;
pub mod endpoint;
pub mod envelope;
pub mod retry;
pub mod secret;
pub mod signature;

pub mod config;
mod error;

// Edges.
pub mod sender;

// What only the program needs.
#[cfg(feature = "cli")]
pub mod listener;
#[cfg(feature = "cli")]
pub mod logging;
#[cfg(feature = "cli")]
pub mod trial;

pub use error::{Error, Result};
