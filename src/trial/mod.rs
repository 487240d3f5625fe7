//! Real parts for trials, the demo, the benchmark and the tests: a private Postgres, a certificate authority, a partner's receiver.

pub mod authority;
pub mod partner;
