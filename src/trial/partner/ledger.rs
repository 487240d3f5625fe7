//! What a partner got: counters that cost no lock, and a bounded memory that does.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Received;

/// Numbers since the partner started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted, before any TLS handshake.
    pub connections: u64,
    /// Requests whose body arrived whole.
    pub requests: u64,
    /// Requests with a valid signature.
    pub verified: u64,
    /// Requests that were verified and failed.
    pub invalid: u64,
    /// Requests that were refused for their size; not among `requests`.
    pub oversized: u64,
}

pub(super) struct Ledger {
    keep: usize,
    connections: AtomicU64,
    requests: AtomicU64,
    verified: AtomicU64,
    invalid: AtomicU64,
    oversized: AtomicU64,
    /// The smallest count that somebody waits for.
    awaited: AtomicU64,
    reached: Notify,
    memory: Mutex<Memory>,
}

impl Ledger {
    pub(super) fn new(keep: usize) -> Self {
        Self {
            keep,
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            invalid: AtomicU64::new(0),
            oversized: AtomicU64::new(0),
            awaited: AtomicU64::new(NOBODY),
            reached: Notify::new(),
            memory: Mutex::default(),
        }
    }

    pub(super) fn keeps(&self) -> bool {
        self.keep > 0
    }

    /// The number of a new connection.
    pub(super) fn connect(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn refuse(&self) {
        self.oversized.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request of which nothing is to be remembered.
    pub(super) fn count(&self) -> u64 {
        // Both this and `reach` write one variable and then read the other's: only the total order of `SeqCst` keeps the two
        // from missing each other.
        let requests = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        if requests >= self.awaited.load(Ordering::SeqCst) {
            self.awaited.store(NOBODY, Ordering::SeqCst);
            self.reached.notify_waiters();
        }
        requests
    }

    /// Counts a request, gives it its sequence and attempt numbers and remembers it.
    pub(super) fn enter(&self, mut received: Received) -> Arc<Received> {
        match received.verified {
            Some(Ok(())) => self.verified.fetch_add(1, Ordering::Relaxed),
            Some(Err(_)) => self.invalid.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
        if !self.keeps() {
            received.sequence = self.count();
            return Arc::new(received);
        }
        let mut memory = self.memory();
        let received = memory.remember(received, self.keep);
        self.count();
        received
    }

    pub(super) fn received(&self) -> Vec<Arc<Received>> {
        self.memory().received.iter().cloned().collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connections: read(&self.connections),
            requests: read(&self.requests),
            verified: read(&self.verified),
            invalid: read(&self.invalid),
            oversized: read(&self.oversized),
        }
    }

    /// Returns once so many requests were counted.
    pub(super) async fn reach(&self, requests: u64) {
        loop {
            let mut reached = std::pin::pin!(self.reached.notified());
            reached.as_mut().enable();
            self.awaited.fetch_min(requests, Ordering::SeqCst);
            if self.requests.load(Ordering::SeqCst) >= requests {
                return;
            }
            // Whoever waits for more is woken too, and asks again.
            reached.await;
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Memory {
    sequence: u64,
    received: VecDeque<Arc<Received>>,
    attempts: HashMap<Arc<str>, u32>,
    ids: VecDeque<Arc<str>>,
}

impl Memory {
    fn remember(&mut self, mut received: Received, keep: usize) -> Arc<Received> {
        self.sequence += 1;
        received.sequence = self.sequence;
        received.attempt = self.attempt(&received.id, keep);
        let received = Arc::new(received);
        if self.received.len() == keep {
            self.received.pop_front();
        }
        self.received.push_back(Arc::clone(&received));
        received
    }

    fn attempt(&mut self, id: &str, keep: usize) -> u32 {
        if let Some(attempts) = self.attempts.get_mut(id) {
            *attempts += 1;
            return *attempts;
        }
        if self.ids.len() == keep
            && let Some(oldest) = self.ids.pop_front()
        {
            self.attempts.remove(&oldest);
        }
        let id: Arc<str> = id.into();
        self.ids.push_back(Arc::clone(&id));
        self.attempts.insert(id, 1);
        1
    }
}

const NOBODY: u64 = u64::MAX;
