//! A partner that is told the secrets of its subscriptions as they are made.

use std::ops::Deref;
use std::sync::{Arc, Mutex};

use posthaste::secret::SigningSecret;
use posthaste::trial::partner::{Partner as Receiver, PartnerConfig, Received, Replies};

use super::PATIENCE;
use super::backstage::BACKSTAGE;

/// A receiver over HTTPS at `https://127.0.0.1:<port>`, known under `localhost` too. It runs backstage.
pub(crate) struct Partner {
    receiver: Receiver,
    secrets: Mutex<Vec<SigningSecret>>,
}

impl Partner {
    /// Answers as told, over HTTP/2 where the worker wants it.
    pub(crate) async fn replying(replies: impl Into<Replies>) -> Self {
        Self::start(PartnerConfig {
            replies: replies.into(),
            ..Self::config()
        })
        .await
    }

    /// Answers as told, over HTTP/1.1 alone.
    pub(crate) async fn replying_over_http1(replies: impl Into<Replies>) -> Self {
        let tls = BACKSTAGE.authority.server_config(&NAMES, false).unwrap();
        Self::start(PartnerConfig {
            tls: Some(tls),
            replies: replies.into(),
            ..Self::config()
        })
        .await
    }

    /// What [`replying`](Self::replying) starts from.
    pub(crate) fn config() -> PartnerConfig {
        let tls = BACKSTAGE.authority.server_config(&NAMES, true).unwrap();
        PartnerConfig {
            tls: Some(tls),
            keep: 100_000,
            ..PartnerConfig::default()
        }
    }

    pub(crate) async fn start(config: PartnerConfig) -> Self {
        let receiver = BACKSTAGE
            .runtime
            .spawn(Receiver::start(config))
            .await
            .unwrap()
            .unwrap();
        Self {
            receiver,
            secrets: Mutex::default(),
        }
    }

    /// Makes it verify with this secret too.
    pub(crate) fn learn(&self, secret: SigningSecret) {
        let mut secrets = self.secrets.lock().unwrap();
        secrets.push(secret);
        self.receiver.set_secrets(secrets.clone());
    }

    /// The first `count` requests, once they have come.
    pub(crate) async fn wait_for(&self, count: u64) -> Vec<Arc<Received>> {
        self.receiver.wait_for(count, PATIENCE).await.unwrap();
        self.received()
    }

    /// The ids of all requests so far, in the order of their arrival.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.received()
            .iter()
            .map(|received| received.id.clone())
            .collect()
    }
}

impl Deref for Partner {
    type Target = Receiver;

    fn deref(&self) -> &Receiver {
        &self.receiver
    }
}

pub(crate) const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
