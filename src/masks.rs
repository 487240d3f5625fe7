//! What masks need to know of the database: the ids under which partners know our things.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::Result;
use crate::delivery::{ExternalIds, Lease};
use crate::directory::Terms;
use crate::mask::{Id, Mask, PseudonymKey, Refusal};
use crate::store::Store;

/// Looks external ids up, and keeps pseudonyms that stand in for missing ones.
#[derive(Debug)]
pub struct Masks {
    store: Store,
    /// By partner and internal id. An external id never changes, so what was read once stays true.
    known: Mutex<HashMap<(String, Id), String>>,
}

/// A subscription's mask with what it takes to apply it.
#[derive(Clone, Debug)]
pub struct Masking {
    /// What becomes of fields.
    pub mask: Mask,
    /// Whom pseudonyms and external ids are for.
    pub partner: String,
    /// What its pseudonyms are made under.
    pub key: PseudonymKey,
}

/// Why a payload may not be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmaskable {
    /// A person has to see to it: an id is missing.
    Held(String),
    /// The database could not be asked just now.
    Unknown(String),
    /// It never can: left to the attempt, which says so.
    Never,
}

impl Masking {
    /// What is left of an event's data and metadata. A refusal where it cannot be said, and never what was not masked.
    pub fn apply(
        &self,
        data: &str,
        metadata: Option<&str>,
        ids: &ExternalIds,
    ) -> std::result::Result<(String, Option<String>), Refusal> {
        let masked = self
            .mask
            .apply(data, &self.key, &|id| ids.get(id).cloned())?;
        let metadata = match metadata {
            Some(metadata) => self.mask.apply_to_metadata(metadata)?,
            None => None,
        };
        Ok((masked.json, metadata))
    }
}

impl Masks {
    /// One that knows nothing yet.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            known: Mutex::default(),
        }
    }

    /// Finds the external ids that a lease's payload needs. Where there is none and the mask makes one up, that is stored first, so
    /// that it stays the same on every attempt of every worker.
    pub async fn external_ids(
        &self,
        lease: &Lease,
        terms: &Terms,
    ) -> std::result::Result<Option<Box<ExternalIds>>, Unmaskable> {
        let (Ok(Some(masking)), Some(payload)) = (&terms.masking, lease.payload.as_deref()) else {
            return Ok(None);
        };
        let wanted = masking
            .mask
            .wanted(payload)
            .map_err(|_| Unmaskable::Never)?;
        if wanted.is_empty() {
            return Ok(None);
        }
        let unknown = |error: crate::Error| {
            tracing::warn!(%error, "external ids cannot be read");
            Unmaskable::Unknown("external ids could not be read".to_owned())
        };
        let mut ids = self
            .look_up(&masking.partner, &wanted)
            .await
            .map_err(unknown)?;
        if ids.len() < wanted.len() {
            let made_up = match masking
                .mask
                .apply(payload, &masking.key, &|id| ids.get(id).cloned())
            {
                Ok(masked) => masked.newly_pseudonymised,
                Err(Refusal::Hold(why)) => return Err(Unmaskable::Held(why)),
                Err(Refusal::Refuse(_)) => return Err(Unmaskable::Never),
            };
            let kept = self
                .store
                .keep_pseudonyms(lease.key.subscription_id, &made_up)
                .await;
            let kept = kept.map_err(unknown)?;
            self.remember(&masking.partner, &kept);
            ids.extend(kept);
        }
        Ok(Some(Box::new(ids)))
    }

    async fn look_up(&self, partner: &str, wanted: &[Id]) -> Result<ExternalIds> {
        let mut ids = self.recall(partner, wanted);
        let unknown: Vec<&Id> = wanted.iter().filter(|id| !ids.contains_key(id)).collect();
        if !unknown.is_empty() {
            let found = self.store.external_ids(partner, &unknown).await?;
            self.remember(partner, &found);
            ids.extend(found);
        }
        Ok(ids)
    }

    fn recall(&self, partner: &str, wanted: &[Id]) -> ExternalIds {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let recalled = wanted.iter().filter_map(|id| {
            let external = known.get(&(partner.to_owned(), id.clone()))?;
            Some((id.clone(), external.clone()))
        });
        recalled.collect()
    }

    fn remember(&self, partner: &str, found: &[(Id, String)]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + found.len() > REMEMBERED {
            known.clear();
        }
        for (id, external) in found {
            known.insert((partner.to_owned(), id.clone()), external.clone());
        }
    }
}

/// External ids kept in memory, at most (about 20 MB).
const REMEMBERED: usize = 100_000;
