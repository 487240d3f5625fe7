//! The promises: one file each, over a real Postgres and real HTTPS. A test's name is the claim that it proves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test that meets the unexpected has failed"
)]

#[allow(dead_code, reason = "each promise uses its part")]
mod harness;

mod access;
mod approval;
mod at_least_once;
mod attacks;
mod audit;
mod breaker;
mod cancels;
mod commands;
mod database_loss;
mod dedup;
mod delivery;
mod egress;
mod envelopes;
mod event_docs;
mod grafana;
mod guide;
mod health;
mod history;
mod hostile_receivers;
mod intake;
mod keys;
mod leases;
mod logs;
mod masks;
mod metrics;
mod monitoring;
mod operations;
mod ordering;
mod partitions;
mod plans;
mod policy;
mod previews;
mod program;
mod rates;
mod readme;
mod receiver;
mod receiving;
mod replays;
mod retries;
mod roles;
mod runbook;
mod schema;
mod scope;
mod secrets;
mod signatures;
#[cfg(feature = "otlp")]
mod spans;
mod status;
mod terms;
mod test_events;
mod together;
