//! Against real sockets on loopback, real TLS, and peers that misbehave.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod connecting;
mod exchanges;
mod harness;
mod hostile;
mod http2;
mod identities;
mod proxies;
mod reuse;
mod sources;
