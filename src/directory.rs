//! The terms of the subscriptions that this worker delivers to, as of the revision each lease names.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderName, HeaderValue};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::access::{Access, Authentication, Permission};

use crate::config::Config;
use crate::delivery::Lease;
use crate::egress::Networks;
use crate::envelope::Envelope;
use crate::mask::{Mask, PseudonymKey};
use crate::masks::Masking;
use crate::request::{PlatformNames, Shape};
use crate::retry::RetryPolicy;
use crate::secret::{
    CredentialKind, Keyring, PARTNER, Sealed, SecretKind, SigningSecret, generate_partner_key,
};
use crate::sender::{ClientIdentity, Endpoint, EndpointOptions, PartnerAuthority, Sender};
use crate::signature::{Profile, Signer};
use crate::store::{AskedFor, Store, StoredSecret, StoredShape, StoredTerms, StoredValue};
use crate::{Error, Result, telemetry};

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
    /// What requests look like; or why none can be sent.
    pub shape: Result<Shape, String>,
    /// What must not be seen of events; or why that cannot be said, so that nothing is sent.
    pub masking: Result<Option<Arc<Masking>>, String>,
    /// What it takes to be let in; or why that is not at hand.
    pub access: Result<Arc<Access>, String>,
    /// When our client certificate ends, where we show one.
    pub certificate_ends: Option<SystemTime>,
    /// What [`access`](Self::access) was made of.
    lock: Lock,
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
            shape: Err("nothing".to_owned()),
            masking: Ok(None),
            access: Ok(Arc::default()),
            certificate_ends: None,
            lock: Lock::default(),
            secrets: Ok(Vec::new()),
        }
    }

    /// Whether everything was there that sending takes; what was not, may be by now.
    fn is_usable(&self) -> bool {
        let secrets = self.secrets.as_ref();
        secrets.is_ok_and(|secrets| !secrets.is_empty())
            && self.shape.is_ok()
            && self.masking.is_ok()
            && self.access.is_ok()
            && self.endpoint.is_ok()
    }

    /// The secrets that are live at this moment, oldest first, and the numbers of those that sign; or why nothing can be
    /// signed. Nothing is ever sent unsigned.
    pub fn live_secrets(&self, now: Instant) -> Result<(Vec<i16>, Vec<SigningSecret>), String> {
        let secrets = self.secrets.as_ref().map_err(String::clone)?;
        let live = secrets
            .iter()
            .filter(|secret| secret.ends.is_none_or(|ends| now < ends));
        let secrets: Vec<_> = live.clone().map(|live| live.secret.clone()).collect();
        if secrets.is_empty() {
            return Err("the subscription has no signing secret that is live".to_owned());
        }
        let shape = self.shape.as_ref().map_err(String::clone)?;
        let signing = live.zip(shape.signer.used(&secrets));
        let signing = signing.filter(|(_, is_used)| *is_used);
        let numbers = signing.map(|(live, _)| live.number).collect();
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

    /// When the first of the client certificates ends that are shown to anybody, as far as terms are known.
    pub fn first_certificate_end(&self) -> Option<SystemTime> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let active = known.values().filter(|terms| terms.active);
        active.filter_map(|terms| terms.certificate_ends).min()
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
                for asked_for in &terms.asked_for {
                    self.make_secret(keyring, asked_for).await?;
                    ids.push(terms.subscription_id);
                }
            }
        }
        if !ids.is_empty() {
            stored.retain(|terms| !ids.contains(&terms.subscription_id));
            stored.extend(self.store.terms(&ids).await?);
        }
        self.keep(stored, &keyring);
        telemetry::certificates_end(self.first_certificate_end());
        Ok(())
    }

    fn keep(&self, stored: Vec<StoredTerms>, keyring: &Result<Keyring, String>) {
        let now = Instant::now();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for stored in stored {
            let before = known.get(&stored.subscription_id);
            let terms = self.understand(stored, keyring, before, now);
            known.insert(terms.subscription_id, Arc::new(terms));
        }
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
        for asked_for in self.store.secrets_asked_for(MADE_AT_ONCE).await? {
            // One that somebody's open transaction holds up costs a moment: enough of that for one round.
            if !self.make_secret(&keyring, &asked_for).await? {
                break;
            }
        }
        Ok(())
    }

    /// Makes a signing secret that was asked for; false where somebody's open transaction stands in the way: another time will
    /// do, and nothing else may wait for it.
    async fn make_secret(&self, keyring: &Keyring, asked_for: &AskedFor) -> Result<bool> {
        let (subscription_id, secret_id) = (asked_for.subscription_id, asked_for.secret_id);
        let (sealed, public_key) = if asked_for.kind == PARTNER {
            let key = generate_partner_key()?;
            (keyring.seal_partner_key(secret_id, &key)?, None)
        } else {
            let secret = SigningSecret::generate_as(SecretKind::parse(&asked_for.kind)?)?;
            let public_key = secret.public_key().map(|key| key.bytes().to_vec());
            (
                keyring.seal(subscription_id, secret_id, &secret)?,
                public_key,
            )
        };
        let stored = self
            .store
            .fill_secret(secret_id, &sealed, public_key.as_deref())
            .await;
        if let Err(error) = &stored {
            tracing::warn!(%error, subscription_id, kind = asked_for.kind, "a secret that was asked for cannot be stored yet");
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
        let opener = Opener {
            subscription_id: stored.subscription_id,
            keyring,
        };
        let options = options(&stored, &opener);
        let certificate_ends = options.as_ref().ok().and_then(|options| {
            let identity = options.identity.as_ref()?;
            Some(identity.not_after())
        });
        let endpoint = self.endpoint(&stored, options.clone(), before);
        let lock = Lock::of(&stored, options.as_ref().ok().cloned());
        let access = match before {
            // A token that is good, and what was granted, need not be asked for again.
            Some(before) if before.lock == lock && before.access.is_ok() => before.access.clone(),
            _ => self.access(&stored, options, &opener).map(Arc::new),
        };
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
            shape: headers(stored.headers, &opener).and_then(|extra| shape(&stored.shape, extra)),
            masking: masking(
                stored.mask.as_deref(),
                stored.partner,
                stored.partner_key.as_ref(),
                &opener,
            ),
            access,
            certificate_ends,
            lock,
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
        options: Result<EndpointOptions, String>,
        before: Option<&Arc<Terms>>,
    ) -> Result<Arc<Endpoint>, String> {
        let url = self.sender.parse(&stored.url).map_err(text)?;
        let options = options?;
        let before = before.and_then(|terms| terms.endpoint.as_ref().ok());
        Ok(match before {
            Some(same) if *same.url() == url && *same.options() == options => Arc::clone(same),
            _ => Arc::new(self.sender.endpoint_with(url, options).map_err(text)?),
        })
    }

    fn access(
        &self,
        stored: &StoredTerms,
        options: Result<EndpointOptions, String>,
        opener: &Opener<'_>,
    ) -> Result<Access, String> {
        let authentication = match &stored.authentication {
            None => Authentication::None,
            Some(term) => {
                let credential = stored.credential.as_ref();
                let (secret_id, sealed) = credential
                    .ok_or("the authentication's secret part has not been imported yet")?;
                let secret = opener.open(CredentialKind::Authentication, *secret_id, sealed)?;
                // Under the same rules as the endpoint itself: networks, authority, certificate.
                let endpoint = |url: &str| {
                    let url = self.sender.parse(url).map_err(text)?;
                    let endpoint = self.sender.endpoint_with(url, options?).map_err(text)?;
                    Ok(Arc::new(endpoint))
                };
                Authentication::read(term, &secret, endpoint)?
            }
        };
        let permission = stored.handshake.as_deref();
        let permission = permission
            .map(|term| Permission::read(term, &stored.url, stored.is_granted))
            .transpose()?;
        Ok(Access {
            authentication,
            permission,
        })
    }
}

/// Everything that [`Access`] is made of: where it is the same, so is what was obtained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lock {
    url: String,
    options: Option<EndpointOptions>,
    authentication: Option<String>,
    credential: Option<Uuid>,
    handshake: Option<String>,
    is_granted: bool,
}

impl Lock {
    fn of(stored: &StoredTerms, options: Option<EndpointOptions>) -> Self {
        Self {
            url: stored.url.clone(),
            options,
            authentication: stored.authentication.clone(),
            credential: stored.credential.as_ref().map(|(id, _)| *id),
            handshake: stored.handshake.clone(),
            is_granted: stored.is_granted,
        }
    }
}

/// Opens what one subscription keeps secret.
struct Opener<'k> {
    subscription_id: i32,
    keyring: &'k Result<Keyring, String>,
}

impl Opener<'_> {
    fn open(
        &self,
        kind: CredentialKind,
        secret_id: Uuid,
        sealed: &Sealed,
    ) -> Result<Zeroizing<String>, String> {
        self.keyring
            .as_ref()
            .map_err(String::clone)?
            .open_credential(kind, self.subscription_id, secret_id, sealed)
            .map_err(text)
    }
}

fn options(stored: &StoredTerms, opener: &Opener<'_>) -> Result<EndpointOptions, String> {
    let networks = Networks::parse(stored.networks.iter().map(String::as_str)).map_err(text)?;
    let identity = match (&stored.client_certificate, &stored.client_key) {
        (None, _) => None,
        (Some(_), None) => {
            return Err("the key of the client certificate has not been imported yet".to_owned());
        }
        (Some(chain), Some((secret_id, sealed))) => {
            let key = opener.open(CredentialKind::ClientKey, *secret_id, sealed)?;
            Some(ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes()).map_err(text)?)
        }
    };
    let authority = stored.authority.as_ref();
    let authority = authority
        .map(|pem| PartnerAuthority::from_pem(pem.as_bytes()).map_err(text))
        .transpose()?;
    Ok(EndpointOptions {
        networks,
        identity,
        authority,
        ..EndpointOptions::default()
    })
}

/// The shape of requests, with these further headers, ready to use; or which part of what is stored cannot be used, and why.
pub fn shape(stored: &StoredShape, extra: Vec<(HeaderName, HeaderValue)>) -> Result<Shape, String> {
    let templates: Vec<(&str, &str)> = stored
        .headers
        .iter()
        .map(|(name, template)| (name.as_str(), template.as_str()))
        .collect();
    let envelope = Envelope::parse(
        &stored.template,
        &stored.content_type,
        &templates,
        &stored.values,
    );
    let profiles = stored.signatures.iter().map(|name| Profile::parse(name));
    let profiles = profiles.collect::<crate::Result<Vec<_>>>().map_err(text)?;
    let prefix = stored.header_prefix.as_deref();
    let platform = prefix.map(|prefix| {
        PlatformNames::new(prefix).ok_or("header_prefix makes no header's name".to_owned())
    });
    let user_agent = stored.user_agent.as_deref().map(|text| {
        HeaderValue::try_from(text).map_err(|_| "user_agent cannot stand in a header".to_owned())
    });
    let all = || std::iter::once(stored.template.as_str()).chain(templates.iter().map(|(_, t)| *t));
    let tells = |what: &str| all().any(|template| template.contains(what));
    Ok(Shape {
        envelope: envelope.map_err(text)?,
        signer: Signer::new(profiles, prefix).map_err(text)?,
        platform: platform.transpose()?,
        tells_delivery: tells("delivery_id"),
        wants_context: tells("metadata") || tells("tenant"),
        user_agent: user_agent.transpose()?,
        pass_trace: stored.pass_trace,
        extra,
    })
}

fn masking(
    mask: Option<&str>,
    partner: String,
    key: Option<&(Uuid, Sealed)>,
    opener: &Opener<'_>,
) -> Result<Option<Arc<Masking>>, String> {
    let Some(mask) = mask else {
        return Ok(None);
    };
    let (secret_id, sealed) =
        key.ok_or("the key of the partner's pseudonyms has not been made yet")?;
    let keyring = opener.keyring.as_ref().map_err(String::clone)?;
    let key = keyring.open_partner_key(*secret_id, sealed).map_err(text)?;
    Ok(Some(Arc::new(Masking {
        mask: Mask::parse(mask).map_err(text)?,
        partner,
        key: PseudonymKey::new(*key),
    })))
}

fn headers(
    stored: Vec<(String, StoredValue)>,
    opener: &Opener<'_>,
) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let header = |(name, value): (String, StoredValue)| {
        let value = match value {
            StoredValue::Plain(text) => HeaderValue::try_from(text),
            StoredValue::Secret(None) => {
                return Err(format!("the secret header {name} has no value yet"));
            }
            StoredValue::Secret(Some((secret_id, sealed))) => {
                let plain = opener
                    .open(CredentialKind::Header, secret_id, &sealed)
                    .map_err(|error| format!("the secret header {name} cannot be used: {error}"))?;
                HeaderValue::try_from(plain.as_str()).map(|mut value| {
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

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
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
            kind,
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
                    kind,
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
