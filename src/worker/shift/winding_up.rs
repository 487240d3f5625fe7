//! How a worker stops: in order, and however the database or the partners are.

use std::time::Duration;

use super::Shift;
use super::errands::give_back;
use crate::worker::lanes::Ready;

impl Shift {
    /// Stops in order: claims nothing more, gives back what was not begun, waits for what was, up to
    /// the drain time, has everything recorded, and says goodbye.
    pub(super) async fn wind_up(mut self) {
        let deadline = tokio::time::Instant::now() + self.config.drain;
        tracing::info!(
            held = self.lanes.deliveries(),
            sending = self.lanes.sending(),
            "stopping"
        );
        self.say_ready(false);
        self.end_rounds();
        if let Some(registering) = self.registering.take() {
            registering.abort();
        }
        // What a look under way brings must be given back, however short the drain.
        let patience = deadline.max(tokio::time::Instant::now() + LAST_GRACE);
        if let Some(taking) = self.taking.take()
            && let Ok(Ok(Ok(taken))) = tokio::time::timeout_at(patience, taking).await
        {
            self.give_back_by(deadline, taken.ready).await;
        }
        if let Some(claiming) = self.claiming.take()
            && let Ok(Ok(Ok(claimed))) = tokio::time::timeout_at(patience, claiming).await
        {
            self.give_back_by(deadline, claimed.ready).await;
        }
        let unbegun = self.lanes.take_unbegun();
        self.give_back_by(deadline, unbegun).await;

        let last_call = deadline + LAST_GRACE;
        while self.lanes.sending() > 0 {
            tokio::select! {
                Some(over) = self.finished.recv() => self.pass_on(&mut vec![over]),
                // Every request now ends at once, as abandoned.
                () = tokio::time::sleep_until(deadline), if !self.shared.cut.is_cancelled() => self.shared.cut.cancel(),
                () = tokio::time::sleep_until(last_call) => break,
            }
        }
        self.finish_errands(last_call).await;
        drop(self.results);
        if tokio::time::timeout_at(last_call, &mut self.recorder)
            .await
            .is_err()
        {
            // A statement that is never answered would hold us for ever.
            self.give_up.cancel();
            if tokio::time::timeout(LAST_GRACE, &mut self.recorder)
                .await
                .is_err()
            {
                self.recorder.abort();
            }
        }
        self.all_noted.cancel();
        if tokio::time::timeout_at(last_call, &mut self.weighing)
            .await
            .is_err()
        {
            self.weighing.abort();
        }
        // Whoever goes on here has no other way to learn of it soon.
        self.keys.end();
        if tokio::time::timeout_at(last_call, &mut self.ordering)
            .await
            .is_err()
        {
            self.ordering.abort();
        }
        if let Some(presence) = &self.presence {
            let ourselves = [presence.worker_id()];
            let goodbye = self
                .store
                .end_workers(&ourselves, Some(presence.worker_id()));
            if !matches!(tokio::time::timeout(LAST_GRACE, goodbye).await, Ok(Ok(()))) {
                tracing::warn!("could not say goodbye; another worker will notice");
            }
        }
        tracing::info!("stopped");
    }

    /// Waits for what is being given back or quarantined, and gives back what came back from quarantine.
    async fn finish_errands(&mut self, deadline: tokio::time::Instant) {
        self.errands.close();
        if tokio::time::timeout_at(deadline, self.errands.wait())
            .await
            .is_err()
        {
            tracing::warn!("leases are still being given back; others will take them over");
        }
        let mut released = Vec::new();
        while let Ok(ready) = self.released.1.try_recv() {
            released.push(ready);
        }
        self.give_back_by(deadline, released).await;
    }

    async fn give_back_by(&mut self, deadline: tokio::time::Instant, unbegun: Vec<Ready>) {
        let deadline = deadline.max(tokio::time::Instant::now() + LAST_GRACE);
        match tokio::time::timeout_at(deadline, give_back(&self.store, &unbegun)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "leases cannot be given back; others will take them over");
            }
            Err(_) => {
                tracing::warn!("leases are not given back in time; others will take them over");
            }
        }
    }
}

/// How long after the drain time results may still be recorded, and goodbye be said.
const LAST_GRACE: Duration = Duration::from_secs(3);
