//! The terms of the subscriptions that this worker delivers to, as of the revision each lease names.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use uuid::Uuid;

use crate::config::Config;
use crate::delivery::Lease;
use crate::egress::Networks;
use crate::retry::RetryPolicy;
use crate::secret::{Keyring, SigningSecret};
use crate::sender::{Endpoint, EndpointOptions, Sender};
use crate::store::{Store, StoredSecret, StoredTerms, StoredValue};
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
    /// After how many failures in a row its circuit breaker opens.
    pub breaker_failures: Option<u32>,
    /// Where to; or why nothing can be sent there.
    pub endpoint: Result<Arc<Endpoint>, String>,
    /// If not, nothing is to be sent.
    pub active: bool,
    /// Everything is recorded, and nothing leaves.
    pub sandbox: bool,
    /// One whole request; the worker's default where there is none.
    pub timeout: Option<Duration>,
    /// Requests at once; the worker's default where there is none.
    pub concurrency: Option<usize>,
    /// Where there are rates: within what time a claimed delivery must be on its way, for them to hold.
    pub send_within: Option<Duration>,
    /// Extra headers; or why they cannot be sent.
    pub headers: Result<Vec<(HeaderName, HeaderValue)>, String>,
    secrets: Result<Vec<LiveSecret>, String>,
}

#[derive(Debug)]
struct LiveSecret {
    id: Uuid,
    number: i16,
    secret: SigningSecret,
    ends: Option<Instant>,
}

impl Terms {
    /// Terms under which nothing can be sent, for tests.
    #[cfg(test)]
    pub(crate) fn nowhere(subscription_id: i32) -> Self {
        use crate::retry::{ClientErrors, Jitter};

        Self {
            subscription_id,
            revision: 1,
            name: String::new(),
            retry: RetryPolicy {
                intervals: Vec::new(),
                jitter: Jitter::None,
                client_errors: ClientErrors::Retry,
            },
            breaker_failures: None,
            endpoint: Err("nowhere".to_owned()),
            active: true,
            sandbox: false,
            timeout: None,
            concurrency: None,
            send_within: None,
            headers: Ok(Vec::new()),
            secrets: Ok(Vec::new()),
        }
    }

    /// Whether everything was there that sending takes; what was not, may be by now.
    fn is_usable(&self) -> bool {
        let secrets = self.secrets.as_ref();
        secrets.is_ok_and(|secrets| !secrets.is_empty()) && self.headers.is_ok()
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

    /// The terms of a subscription as they are known now.
    pub fn terms(&self, subscription_id: i32) -> Option<Arc<Terms>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&subscription_id).cloned()
    }

    /// What a subscription is called, where its terms are known.
    pub fn name(&self, subscription_id: i32) -> Option<String> {
        self.terms(subscription_id).map(|terms| terms.name.clone())
    }

    /// Reads anew those of these subscriptions that are known, at an older revision.
    pub async fn refresh(&self, revisions: &[(i32, i32)]) -> Result<()> {
        let is_known = |id: i32| self.terms(id).is_some();
        self.learn_of(revisions.iter().copied().filter(|(id, _)| is_known(*id)))
            .await
    }

    /// Reads all that is known anew: while nobody listened, it may have changed.
    pub async fn refresh_all(&self) -> Result<()> {
        let ids: Vec<i32> = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known.keys().copied().collect()
        };
        self.learn_of(ids.into_iter().map(|id| (id, i32::MAX)))
            .await
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
        // A key file that cannot be read just now keeps secrets from being opened, and nothing else from being known.
        let keyring = self.config.keyring().map_err(|error| error.to_string());
        let mut stored = self.store.terms(&ids).await?;
        // Whoever holds the keys makes the secrets that were asked for.
        ids.clear();
        if let Ok(keyring) = &keyring {
            for terms in &stored {
                for secret_id in &terms.asked_for {
                    self.make_secret(keyring, terms.subscription_id, *secret_id)
                        .await?;
                    ids.push(terms.subscription_id);
                }
            }
        }
        if !ids.is_empty() {
            stored.retain(|terms| !ids.contains(&terms.subscription_id));
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
                // Where a key was missing, or a secret not made, it may be there by now.
                .is_some_and(|terms| terms.revision >= revision && terms.is_usable())
        };
        let mut ids: Vec<i32> = wanted
            .filter(|(id, revision)| !holds(id, *revision))
            .map(|(id, _)| id)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Makes the signing secrets that were asked for, also of subscriptions that nothing is sent to yet: their partners want to
    /// know them.
    pub async fn make_secrets(&self) -> Result<()> {
        let keyring = self.config.keyring()?;
        for (subscription_id, secret_id) in self.store.secrets_asked_for(MADE_AT_ONCE).await? {
            // One that somebody's open transaction holds up costs a moment: enough of that for one round.
            if !self
                .make_secret(&keyring, subscription_id, secret_id)
                .await?
            {
                break;
            }
        }
        Ok(())
    }

    /// Makes a signing secret that was asked for; false where somebody's open transaction stands in the way: another time will
    /// do, and nothing else may wait for it.
    async fn make_secret(
        &self,
        keyring: &Keyring,
        subscription_id: i32,
        secret_id: Uuid,
    ) -> Result<bool> {
        let sealed = keyring.seal(subscription_id, secret_id, &SigningSecret::generate()?)?;
        let stored = self.store.fill_secret(secret_id, &sealed).await;
        if let Err(error) = &stored {
            tracing::warn!(%error, subscription_id, "a signing secret cannot be stored yet");
        }
        Ok(stored.is_ok())
    }

    fn understand(
        &self,
        stored: StoredTerms,
        keyring: &Result<Keyring, String>,
        before: Option<&Arc<Terms>>,
        now: Instant,
    ) -> Terms {
        let endpoint = self.endpoint(&stored, before);
        Terms {
            subscription_id: stored.subscription_id,
            revision: stored.revision,
            name: stored.name,
            retry: stored.retry,
            breaker_failures: stored.breaker_failures,
            endpoint,
            active: stored.active,
            sandbox: stored.sandbox,
            timeout: stored.timeout,
            concurrency: stored.concurrency,
            send_within: stored.send_within,
            headers: headers(stored.subscription_id, stored.headers, keyring),
            secrets: open_all(
                stored.subscription_id,
                stored.secrets,
                keyring,
                before.and_then(|terms| terms.secrets.as_deref().ok()),
                now,
            ),
        }
    }

    /// Keeps an endpoint and its open connections while URL and options stay the same.
    fn endpoint(
        &self,
        stored: &StoredTerms,
        before: Option<&Arc<Terms>>,
    ) -> Result<Arc<Endpoint>, String> {
        let url = self
            .sender
            .parse(&stored.url)
            .map_err(|error| error.to_string())?;
        let networks = Networks::parse(stored.networks.iter().map(String::as_str))
            .map_err(|error| error.to_string())?;
        let options = EndpointOptions {
            networks,
            ..EndpointOptions::default()
        };
        let before = before.and_then(|terms| terms.endpoint.as_ref().ok());
        Ok(match before {
            Some(same) if *same.url() == url && *same.options() == options => Arc::clone(same),
            _ => {
                let endpoint = self.sender.endpoint_with(url, options);
                Arc::new(endpoint.map_err(|error| error.to_string())?)
            }
        })
    }
}

fn headers(
    subscription_id: i32,
    stored: Vec<(String, StoredValue)>,
    keyring: &Result<Keyring, String>,
) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let header = |(name, value): (String, StoredValue)| {
        let value = match value {
            StoredValue::Plain(text) => HeaderValue::try_from(text),
            StoredValue::Secret(None) => {
                return Err(format!("the secret header {name} has no value yet"));
            }
            StoredValue::Secret(Some((secret_id, sealed))) => {
                let opened = keyring
                    .as_ref()
                    .map_err(String::clone)?
                    .open_header(
                        subscription_id,
                        secret_id,
                        &sealed.key_id,
                        &sealed.ciphertext,
                    )
                    .map_err(|error| format!("the secret header {name} cannot be used: {error}"))?;
                HeaderValue::try_from(opened.as_str()).map(|mut value| {
                    value.set_sensitive(true);
                    value
                })
            }
        };
        let unfit = || format!("the header {name} cannot be sent");
        let value = value.map_err(|_| unfit())?;
        Ok((HeaderName::try_from(&name).map_err(|_| unfit())?, value))
    };
    stored.into_iter().map(header).collect()
}

fn open_all(
    subscription_id: i32,
    stored: Vec<StoredSecret>,
    keyring: &Result<Keyring, String>,
    before: Option<&[LiveSecret]>,
    now: Instant,
) -> Result<Vec<LiveSecret>, String> {
    // What was opened once needs no key again: its bytes stay the same under its id.
    let opened = |id: Uuid| before?.iter().find(|known| known.id == id);
    let open = |stored: StoredSecret| {
        let StoredSecret {
            number,
            secret_id,
            sealed,
            ends_in,
        } = stored;
        let secret = match opened(secret_id) {
            Some(known) => known.secret.clone(),
            None => keyring
                .as_ref()
                .map_err(String::clone)?
                .open(
                    subscription_id,
                    secret_id,
                    &sealed.key_id,
                    &sealed.ciphertext,
                )
                .map_err(|error| format!("signing secret {number} cannot be used: {error}"))?,
        };
        Ok(LiveSecret {
            id: secret_id,
            number,
            secret,
            ends: ends_in.map(|left| now + left),
        })
    };
    stored.into_iter().map(open).collect()
}

/// Signing secrets made in one round.
const MADE_AT_ONCE: usize = 100;
