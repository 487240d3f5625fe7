//! The connections to one endpoint: idle HTTP/1.1 connections, or one HTTP/2 connection that all requests share.
//!
//! A pooled connection keeps the address that was vetted when it was opened, so its life is bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::link::Link;

pub(super) struct Pool {
    idle_timeout: Duration,
    max_age: Duration,
    state: Mutex<State>,
}

struct State {
    /// The one used last is at the back, and is used next: the others may grow old and go.
    idle: VecDeque<Link>,
    shared: Option<Link>,
    /// Changes hands, and so ends, with the [`Opening`] of the first connection.
    opening: Option<watch::Receiver<()>>,
    /// One connection for each request is right. While that is not known, one is opened and the others wait for it: it may
    /// be HTTP/2, and then it serves them all.
    is_h1: bool,
}

/// How a request gets its connection.
pub(super) enum Turn {
    Use(Link),
    Open(Opening),
    /// Until the channel closes; then [`Pool::take`], and where that gives nothing, open one all the same.
    Wait(watch::Receiver<()>),
}

/// Held while a connection is being opened that others wait for. Dropping it lets them go on, whatever came of it.
pub(super) struct Opening(
    #[expect(dead_code, reason = "its end is the signal")] Option<watch::Sender<()>>,
);

impl Opening {
    /// That nobody waits for.
    pub(super) fn unawaited() -> Self {
        Self(None)
    }
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration, max_age: Duration, is_h1: bool) -> Self {
        let state = State {
            idle: VecDeque::new(),
            shared: None,
            opening: None,
            is_h1,
        };
        Self {
            idle_timeout,
            max_age,
            state: Mutex::new(state),
        }
    }

    pub(super) fn turn(&self, now: Instant) -> Turn {
        let mut state = self.lock();
        if let Some(link) = self.take_from(&mut state, now) {
            return Turn::Use(link);
        }
        if state.is_h1 {
            return Turn::Open(Opening::unawaited());
        }
        match &state.opening {
            Some(opening) if opening.has_changed().is_ok() => Turn::Wait(opening.clone()),
            _ => {
                let (ours, theirs) = watch::channel(());
                state.opening = Some(theirs);
                Turn::Open(Opening(Some(ours)))
            }
        }
    }

    pub(super) fn take(&self, now: Instant) -> Option<Link> {
        self.take_from(&mut self.lock(), now)
    }

    /// A connection was opened: an HTTP/2 one serves everybody from now on.
    pub(super) fn opened(&self, link: &Link) {
        let mut state = self.lock();
        state.is_h1 = link.is_h1();
        if state.shared.is_none() {
            state.shared = link.share();
        }
    }

    /// An HTTP/1.1 connection is free again. (An HTTP/2 connection never left.)
    pub(super) fn give_back(&self, mut link: Link) {
        if !link.is_h1() {
            return;
        }
        link.last_used = Instant::now();
        let mut state = self.lock();
        while let Some(oldest) = state.idle.front()
            && (state.idle.len() >= MAX_IDLE || !self.is_usable(oldest, link.last_used))
        {
            state.idle.pop_front();
        }
        state.idle.push_back(link);
    }

    /// Gives no new request to an HTTP/2 connection that let one down.
    pub(super) fn retire(&self, link: &Link) {
        let mut state = self.lock();
        state.shared.take_if(|shared| shared.is_same(link));
    }

    fn take_from(&self, state: &mut State, now: Instant) -> Option<Link> {
        if let Some(shared) = &mut state.shared {
            if self.is_usable(shared, now) {
                shared.last_used = now;
                return shared.share();
            }
            state.shared = None;
        }
        while let Some(link) = state.idle.pop_back() {
            if self.is_usable(&link, now) {
                return Some(link);
            }
        }
        None
    }

    fn is_usable(&self, link: &Link, now: Instant) -> bool {
        !link.is_closed()
            && now.duration_since(link.opened) < self.max_age
            && now.duration_since(link.last_used) < self.idle_timeout
    }

    /// Nothing that can panic runs under the lock, and if it did, the state would still be sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a subscription may have under way at once, at most: whatever is closed for want of room has to be opened anew a moment later.
/// Few endpoints come near it, since none is opened while another is idle.
const MAX_IDLE: usize = 1024;

#[cfg(test)]
impl Pool {
    pub(super) fn idle_are_closed(&self) -> bool {
        self.lock().idle.iter().all(Link::is_closed)
    }

    pub(super) fn shared_is_closed(&self) -> bool {
        self.lock().shared.as_ref().is_none_or(Link::is_closed)
    }
}
