//! Real parts for trials, the demo, the benchmark and the tests: a private Postgres, a certificate authority, a partner's receiver.
//!
//! Nothing here is a mock, and nothing outlives its owner: servers are stopped and folders removed when the value that stands
//! for them is dropped, and also when the program that holds it is killed.

pub mod authority;
pub mod fetch;
pub mod partner;
pub mod postgres;

mod child;
mod scratch;
