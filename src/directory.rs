//! The terms of the subscriptions that this worker delivers to, as of the revision each lease names.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use uuid::Uuid;

use crate::config::Config;
use crate::delivery::Lease;
use crate::endpoint::EndpointUrl;
use crate::retry::RetryPolicy;
use crate::secret::{Keyring, SigningSecret};
use crate::sender::{Endpoint, Sender};
use crate::store::{Store, StoredSecret, StoredTerms};
use crate::{Error, Result};

/// What one subscription is owed, ready to use.
#[derive(Debug)]
pub struct Terms {
    /// Which subscription.
    pub subscription_id: i32,
    /// As of which revision.
    pub revision: i32,
    /// Its name, for logs.
    pub name: String,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Where to; or why nothing can be sent there.
    pub endpoint: Result<Arc<Endpoint>, String>,
    secrets: Result<Vec<LiveSecret>, String>,
}

#[derive(Debug)]
struct LiveSecret {
    number: i16,
    secret: SigningSecret,
    ends: Option<Instant>,
}

impl Terms {
    /// Terms under which nothing can be sent, for tests.
    #[cfg(test)]
    pub(crate) fn nowhere(subscription_id: i32) -> Self {
        Self {
            subscription_id,
            revision: 1,
            name: String::new(),
            retry: RetryPolicy {
                intervals: Vec::new(),
                jitter: 0.0,
            },
            endpoint: Err("nowhere".to_owned()),
            secrets: Ok(Vec::new()),
        }
    }

    /// The secrets that sign at this moment, oldest first, and their numbers; or why nothing can be
    /// signed. Nothing is ever sent unsigned.
    pub fn live_secrets(&self, now: Instant) -> Result<(Vec<i16>, Vec<SigningSecret>), String> {
        let secrets = self.secrets.as_ref().map_err(String::clone)?;
        let live = secrets
            .iter()
            .filter(|secret| secret.ends.is_none_or(|ends| now < ends));
        let (numbers, secrets): (Vec<_>, Vec<_>) =
            live.map(|live| (live.number, live.secret.clone())).unzip();
        if numbers.is_empty() {
            return Err("the subscription has no signing secret that is live".to_owned());
        }
        Ok((numbers, secrets))
    }
}

/// Looks terms up, and reads them anew when a lease names a revision it does not hold.
#[derive(Debug)]
pub struct Directory {
    store: Store,
    sender: Sender,
    config: Arc<Config>,
    known: RwLock<HashMap<i32, Arc<Terms>>>,
}

impl Directory {
    /// An empty one. Keys in a file are read anew whenever terms are, so that keys can be added while
    /// the worker runs.
    pub fn new(store: Store, sender: Sender, config: Arc<Config>) -> Self {
        Self {
            store,
            sender,
            config,
            known: RwLock::default(),
        }
    }

    /// Reads, in one go, the terms of these leases that are not known at their revision.
    pub async fn learn(&self, leases: &[Lease]) -> Result<()> {
        self.learn_of(
            leases
                .iter()
                .map(|lease| (lease.key.subscription_id, lease.revision)),
        )
        .await
    }

    /// Pairs each lease with its terms, which must have been [learned](Self::learn).
    pub fn with_terms(&self, leases: Vec<Lease>) -> Vec<(Lease, Arc<Terms>)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let paired = leases.into_iter().filter_map(|lease| {
            let terms = Arc::clone(known.get(&lease.key.subscription_id)?);
            Some((lease, terms))
        });
        paired.collect()
    }

    /// The retry policy of a subscription, at this revision or a later one.
    pub async fn retry_policy(&self, subscription_id: i32, revision: i32) -> Result<RetryPolicy> {
        self.learn_of(std::iter::once((subscription_id, revision)))
            .await?;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let terms = known.get(&subscription_id);
        let missing = || Error::Database(format!("subscription {subscription_id} is not there"));
        terms.map(|terms| terms.retry.clone()).ok_or_else(missing)
    }

    async fn learn_of(&self, wanted: impl Iterator<Item = (i32, i32)>) -> Result<()> {
        let mut ids = self.unknown(wanted);
        if ids.is_empty() {
            return Ok(());
        }
        let keyring = self.config.keyring()?;
        let mut stored = self.store.terms(&ids).await?;
        // A subscription's first secret is made by whoever needs it first.
        ids = stored
            .iter()
            .filter(|terms| terms.secrets.is_empty())
            .map(|terms| terms.subscription_id)
            .collect();
        if !ids.is_empty() {
            for id in &ids {
                self.mint(&keyring, *id).await?;
            }
            stored.retain(|terms| !terms.secrets.is_empty());
            stored.extend(self.store.terms(&ids).await?);
        }
        let now = Instant::now();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for stored in stored {
            let before = known.get(&stored.subscription_id);
            let terms = self.understand(stored, &keyring, before, now);
            known.insert(terms.subscription_id, Arc::new(terms));
        }
        Ok(())
    }

    fn unknown(&self, wanted: impl Iterator<Item = (i32, i32)>) -> Vec<i32> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let holds = |id: &i32, revision: i32| {
            known
                .get(id)
                // Where a key was missing, it may be there by now.
                .is_some_and(|terms| terms.revision >= revision && terms.secrets.is_ok())
        };
        let mut ids: Vec<i32> = wanted
            .filter(|(id, revision)| !holds(id, *revision))
            .map(|(id, _)| id)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Makes and stores a subscription's first secret.
    async fn mint(&self, keyring: &Keyring, subscription_id: i32) -> Result<()> {
        let secret_id = Uuid::now_v7();
        let sealed = keyring.seal(subscription_id, secret_id, &SigningSecret::generate()?)?;
        self.store
            .add_first_secret(subscription_id, secret_id, &sealed)
            .await
    }

    fn understand(
        &self,
        stored: StoredTerms,
        keyring: &Keyring,
        before: Option<&Arc<Terms>>,
        now: Instant,
    ) -> Terms {
        let endpoint = self
            .sender
            .parse(&stored.url)
            .map(|url| self.same_or_new(url, before))
            .map_err(|error| error.to_string());
        Terms {
            subscription_id: stored.subscription_id,
            revision: stored.revision,
            name: stored.name,
            retry: RetryPolicy {
                intervals: stored.retry_intervals,
                jitter: stored.retry_jitter,
            },
            endpoint,
            secrets: open_all(stored.subscription_id, stored.secrets, keyring, now),
        }
    }

    /// Keeps an endpoint and its open connections while the URL stays the same.
    fn same_or_new(&self, url: EndpointUrl, before: Option<&Arc<Terms>>) -> Arc<Endpoint> {
        let endpoint = before.and_then(|terms| terms.endpoint.as_ref().ok());
        match endpoint {
            Some(endpoint) if *endpoint.url() == url => Arc::clone(endpoint),
            _ => Arc::new(self.sender.endpoint(url)),
        }
    }
}

fn open_all(
    subscription_id: i32,
    stored: Vec<StoredSecret>,
    keyring: &Keyring,
    now: Instant,
) -> Result<Vec<LiveSecret>, String> {
    let open = |stored: StoredSecret| {
        let StoredSecret {
            number,
            secret_id,
            sealed,
            ends_in,
        } = stored;
        let secret = keyring
            .open(
                subscription_id,
                secret_id,
                &sealed.key_id,
                &sealed.ciphertext,
            )
            .map_err(|error| format!("signing secret {number} cannot be used: {error}"))?;
        Ok(LiveSecret {
            number,
            secret,
            ends: ends_in.map(|left| now + left),
        })
    };
    stored.into_iter().map(open).collect()
}
