//! What every test stands on: a [`World`] with a database of its own, partners over HTTPS, and workers.
//!
//! Nothing here waits by sleeping: [`World::until`] wakes with each change in the database, a partner's
//! `wait_for` with each request. Time is moved in SQL.

mod backstage;
mod command;
pub(crate) mod http;
mod login;
mod partner;
mod tokens;
mod wire;
mod worker;
mod world;

pub(crate) use self::backstage::{Database, admin};
pub(crate) use self::command::{Said, posthaste, program};
pub(crate) use self::login::{Login, agree, one, refusal, said, tried, tried_as};
pub(crate) use self::partner::Partner;
pub(crate) use self::tokens::{TokenServer, answer};
pub(crate) use self::wire::{DatabaseWire, Wire};
pub(crate) use self::worker::{WorkerProcess, WorkerThread};
pub(crate) use self::world::World;

use std::time::Duration;

use posthaste::trial::authority::Authority;

/// How long a test waits for what must come, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// The authority that workers trust.
pub(crate) fn authority() -> &'static Authority {
    &self::backstage::BACKSTAGE.authority
}
