//! What is done about deliveries in hand that are not sent: held, left for a while, given back, ended. The loop waits for none of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shift;
use crate::Result;
use crate::delivery::{Lease, OrderingKey};
use crate::store::Store;
use crate::telemetry;
use crate::worker::lanes::Ready;
use crate::worker::recorder::Left;

impl Shift {
    /// Has deliveries held that cannot be sent as they are; those that were released before come back. If that fails, their
    /// leases end by themselves.
    pub(super) fn quarantine(&self, broken: Vec<(Ready, String)>) {
        if broken.is_empty() {
            return;
        }
        let (store, left) = (self.store.clone(), self.left.0.clone());
        let (come_back, risen) = (self.released.0.clone(), Arc::clone(&self.risen));
        self.errands.spawn(async move {
            let told: Vec<_> = broken
                .iter()
                .map(|((lease, _), why)| (lease, why.as_str()))
                .collect();
            let released = store.hold(&told).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "deliveries cannot be quarantined; their leases will end by themselves");
                Vec::new()
            });
            telemetry::quarantined(&told, &released);
            // Where one of them was to be a breaker's probe, another is due.
            risen.notify_one();
            let bytes = broken.iter().map(|((lease, _), _)| lease.bytes).sum();
            // They are counted anew when they come back.
            let _ = left.send((broken.len(), bytes));
            for (place, ((mut lease, terms), _)) in broken.into_iter().enumerate() {
                if released.contains(&place) {
                    lease.schema_revision = None;
                    lease.is_released = true;
                    let _ = come_back.send((lease, terms));
                }
            }
        });
    }

    /// Leaves an endpoint alone for a while: what is in hand for it goes back; or goes on with it.
    pub(super) fn hold(&mut self, subscription_id: i32, wait: Duration) {
        let now = Instant::now();
        let unbegun = self.lanes.hold(subscription_id, wait, now);
        self.give_back(unbegun);
        if wait.is_zero() {
            self.plan.has_room(now);
        }
        self.send_from(subscription_id);
    }

    /// Claims nothing for a lane for a while, and returns what is in hand for it: no other worker need know.
    pub(super) fn rest(
        &mut self,
        subscription_id: i32,
        wait: Duration,
        now: Instant,
    ) -> Vec<Ready> {
        let wait = wait.min(LONGEST_REST);
        let Some(unbegun) = self.lanes.rest(subscription_id, wait, now) else {
            return Vec::new();
        };
        let risen = Arc::clone(&self.risen);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            risen.notify_one();
        });
        unbegun
    }

    pub(super) fn make_room(&mut self, (deliveries, bytes): Left) {
        self.lanes.release(deliveries, bytes);
        while let Ok((deliveries, bytes)) = self.left.1.try_recv() {
            self.lanes.release(deliveries, bytes);
        }
    }

    /// Gives up leases whose attempts were never begun. If that fails they end by themselves.
    pub(super) fn give_back(&self, unbegun: Vec<Ready>) {
        if unbegun.is_empty() {
            return;
        }
        let (store, left) = (self.store.clone(), self.left.0.clone());
        self.errands.spawn(async move {
            let bytes = unbegun.iter().map(|(lease, _)| lease.bytes).sum();
            if let Err(error) = give_back(&store, &unbegun).await {
                tracing::warn!(%error, "leases cannot be given back; they will end by themselves");
            }
            let _ = left.send((unbegun.len(), bytes));
        });
    }

    /// Ends deliveries that are not to be sent any more. If that fails, their leases end by themselves.
    pub(super) fn expire(&self, late: Vec<Ready>) {
        if late.is_empty() {
            return;
        }
        let (store, left, keys) = (self.store.clone(), self.left.0.clone(), self.keys.clone());
        let (health, risen) = (self.health.clone(), Arc::clone(&self.risen));
        self.errands.spawn(async move {
            let leases: Vec<&Lease> = late.iter().map(|(lease, _)| lease).collect();
            match store.expire(&leases).await {
                Ok(()) => telemetry::finished("EXPIRED", leases.len() as u64),
                Err(error) => {
                    tracing::warn!(%error, "deliveries cannot be ended; their leases will end by themselves");
                }
            }
            let over = late.iter().filter_map(|(lease, _)| {
                Some(OrderingKey {
                    subscription_id: lease.key.subscription_id,
                    ordering_key: lease.ordering_key.clone()?,
                })
            });
            keys.go_on(over.collect());
            // Where one of them was to be a breaker's probe, another is due.
            if let Some((lease, _)) = late.first() {
                health.free(lease.key.subscription_id);
            }
            risen.notify_one();
            let bytes = late.iter().map(|(lease, _)| lease.bytes).sum();
            let _ = left.send((late.len(), bytes));
        });
    }
}

pub(super) async fn give_back(store: &Store, unbegun: &[Ready]) -> Result<()> {
    if unbegun.is_empty() {
        return Ok(());
    }
    let leases: Vec<&Lease> = unbegun.iter().map(|(lease, _)| lease).collect();
    store.give_back(&leases).await
}

/// How long a lane rests at most: what stood in its way may be gone by then.
const LONGEST_REST: Duration = Duration::from_secs(5);
