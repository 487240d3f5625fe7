//! Lets ordering keys go on: whenever something of a key was taken, or its head is over, the next one comes up.
//!
//! One task does it for the whole worker, beside the loop, in batches as they gather. A worker that dies before it could is made
//! up for by the others: they sweep all keys that something waits for, when a worker is gone and now and then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::Result;
use crate::delivery::{Attempt, OrderingKey, Verdict};
use crate::store::{Store, Watermark};

/// By which everybody tells the task which keys may go on.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    calls: mpsc::UnboundedSender<Call>,
}

#[derive(Debug)]
enum Call {
    GoOn(Vec<OrderingKey>),
    Sweep,
    End,
}

impl Keys {
    /// The way to a task that is yet to [`run`].
    pub(super) fn new() -> (Self, Calls) {
        let (calls, heard) = mpsc::unbounded_channel();
        (Self { calls }, Calls(heard))
    }

    /// These may go on.
    pub(super) fn go_on(&self, keys: Vec<OrderingKey>) {
        if !keys.is_empty() {
            self.tell(Call::GoOn(keys));
        }
    }

    /// The deliveries of these attempts have left their keys free, but for what is to be tried again.
    pub(super) fn finished(&self, attempts: &[Attempt]) {
        let over = attempts
            .iter()
            .filter(|attempt| !matches!(attempt.ruling.verdict, Verdict::Retry(_)));
        self.go_on(
            over.filter_map(|attempt| {
                Some(OrderingKey {
                    subscription_id: attempt.key.subscription_id,
                    ordering_key: attempt.ordering_key.clone()?,
                })
            })
            .collect(),
        );
    }

    /// All keys are to be looked at, from the beginning.
    pub(super) fn sweep(&self) {
        self.tell(Call::Sweep);
    }

    /// What has been told so far is to be done, and nothing more.
    pub(super) fn end(&self) {
        self.tell(Call::End);
    }

    fn tell(&self, call: Call) {
        // Nobody listens any more only when the worker is past its end.
        let _ = self.calls.send(call);
    }
}

/// What the task is told.
pub(super) struct Calls(mpsc::UnboundedReceiver<Call>);

/// Lets keys go on until it is told to end; rings `risen` whenever deliveries came up.
pub(super) async fn run(store: Store, mut calls: Calls, risen: Arc<Notify>) {
    let mut state = State {
        store,
        risen,
        due: BTreeSet::new(),
        held_up: BTreeSet::new(),
        held_up_until: Instant::now(),
        watermark: Watermark::beginning(),
        page: None,
        sweep_at: Instant::now() + SWEEP_EVERY,
        ends: false,
    };
    loop {
        tokio::select! {
            biased;
            call = calls.0.recv() => state.hear(call),
            () = tokio::time::sleep_until(state.next_at()) => {}
        }
        while let Ok(call) = calls.0.try_recv() {
            state.hear(Some(call));
        }
        if let Err(error) = state.round().await {
            tracing::warn!(%error, "ordered deliveries cannot go on; trying again");
            if state.ends {
                return;
            }
            // Another server may count its transactions anew.
            state.watermark = Watermark::beginning();
            tokio::time::sleep(AFTER_FAILURE).await;
        } else if state.ends {
            return;
        }
    }
}

struct State {
    store: Store,
    risen: Arc<Notify>,
    due: BTreeSet<OrderingKey>,
    /// Those that an event goes before which nobody has taken yet.
    held_up: BTreeSet<OrderingKey>,
    held_up_until: Instant,
    watermark: Watermark,
    /// The key after which a sweep under way goes on.
    page: Option<OrderingKey>,
    sweep_at: Instant,
    ends: bool,
}

impl State {
    fn hear(&mut self, call: Option<Call>) {
        match call {
            Some(Call::GoOn(keys)) => self.due.extend(keys),
            Some(Call::Sweep) => self.sweep_at = Instant::now(),
            Some(Call::End) | None => self.ends = true,
        }
    }

    fn next_at(&self) -> Instant {
        if !self.due.is_empty() || self.page.is_some() {
            Instant::now()
        } else if self.held_up.is_empty() {
            self.sweep_at
        } else {
            self.held_up_until.min(self.sweep_at)
        }
    }

    async fn round(&mut self) -> Result<()> {
        let now = Instant::now();
        if now >= self.held_up_until {
            self.due.append(&mut self.held_up);
        }
        // One that is under way comes to its end first, or the last keys would never have their turn.
        if now >= self.sweep_at && self.page.is_none() {
            self.sweep_at = now + SWEEP_EVERY;
            self.watermark = Watermark::beginning();
            self.page = Some(OrderingKey::before_all());
        }
        self.sweep_a_page().await?;
        self.advance().await
    }

    async fn sweep_a_page(&mut self) -> Result<()> {
        if let Some(after) = &self.page {
            let (idle, next) = self.store.idle_keys(after, A_PAGE).await?;
            self.due.extend(idle);
            self.page = next;
        }
        Ok(())
    }

    async fn advance(&mut self) -> Result<()> {
        while !self.due.is_empty() {
            let keys: Vec<OrderingKey> = self.due.iter().take(AT_ONCE).cloned().collect();
            let advanced = self.store.advance(&keys, &self.watermark).await?;
            for key in &keys {
                self.due.remove(key);
            }
            let Some(advanced) = advanced else {
                continue;
            };
            self.watermark = advanced.watermark;
            if advanced.risen > 0 {
                self.risen.notify_one();
            }
            if !advanced.held_up.is_empty() {
                self.held_up_until = Instant::now() + HELD_UP;
                self.held_up.extend(advanced.held_up);
            }
        }
        Ok(())
    }
}

/// Keys in one statement.
const AT_ONCE: usize = 512;
/// How long to wait for an event to be taken that goes before.
const HELD_UP: Duration = Duration::from_millis(10);
/// How often all keys are looked at though nobody died.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// Keys that a sweep steps on in one statement.
const A_PAGE: usize = 1000;
const AFTER_FAILURE: Duration = Duration::from_millis(200);
