//! The promises: one file each, over a real Postgres and real HTTPS. A test's name is the claim that it proves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected has failed"
)]

#[allow(dead_code, reason = "each promise uses its part")]
mod harness;

mod delivery;
mod hostile_receivers;
mod partitions;
mod program;
