//! What partners may see of an event: masks, with what they need to know of the database, the ids under which partners know our things.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalogue::AT_ONCE;
use crate::delivery::{ExternalIds, Lease};
use crate::directory::Terms;
use crate::mask::{Id, Mask, Masked, PseudonymKey, Refusal};
use crate::store::Store;

/// Masks events. Looks external ids up, and keeps pseudonyms that stand in for missing ones.
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

/// What a subscription's partner may see of an event.
#[derive(Clone, PartialEq, Eq)]
pub enum Seen {
    /// All of it: there is no mask.
    Everything,
    /// What the mask left.
    Left {
        /// Of its data, JSON text.
        data: String,
        /// Of its metadata, JSON text.
        metadata: Option<String>,
    },
}

/// Why a partner may see nothing of an event. No text holds anything of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// A person has to see to it: an id is missing.
    Held(String),
    /// What it takes to mask it is not at hand just now.
    NotNow(String),
    /// It never can be masked.
    Never(String),
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("Everything"),
            Self::Left { data, .. } => write!(f, "Left({} bytes)", data.len()),
        }
    }
}

impl From<Refusal> for Unseen {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Hold(why) => Self::Held(why),
            Refusal::Refuse(why) => Self::Never(why),
        }
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

    /// What may be seen of a lease's event. Where an external id is missing and the mask makes one up, that is stored first, so
    /// that it stays the same on every attempt of every worker.
    pub async fn seen(&self, lease: &Lease, terms: &Terms) -> Result<Seen, Unseen> {
        match &terms.masking {
            Ok(None) => Ok(Seen::Everything),
            // Rare and large: on the heap, so that every other attempt's task is small.
            Ok(Some(masking)) => Box::pin(self.masked(lease, Arc::clone(masking))).await,
            Err(why) => Err(Unseen::NotNow(why.clone())),
        }
    }

    async fn masked(&self, lease: &Lease, masking: Arc<Masking>) -> Result<Seen, Unseen> {
        let metadata = lease.context.as_deref();
        let whole = Whole {
            // The attempt says why there is none.
            data: lease.payload.clone().ok_or_else(|| not_now(NO_PAYLOAD))?,
            metadata: metadata.and_then(|context| context.metadata.clone()),
        };
        let apply = |masking: &Masking, whole: &Whole, ids| masking.apply(whole, &ids);
        let work = Arc::new((masking, whole));
        let mut ids = self.ids(&work).await?;
        let masked = apart(&work, ids.clone(), apply).await?;
        if masked.newly_pseudonymised.is_empty() {
            return Ok(masked.seen);
        }
        let made_up = &masked.newly_pseudonymised;
        let kept = self
            .store
            .keep_pseudonyms(lease.key.subscription_id, made_up)
            .await
            .map_err(|error| unknown(&error))?;
        self.remember(&work.0.partner, &kept);
        ids.extend(kept);
        // What stands now may be another's.
        let masked = apart(&work, ids, apply).await?;
        if masked.newly_pseudonymised.is_empty() {
            Ok(masked.seen)
        } else {
            Err(not_now("pseudonyms could not be kept"))
        }
    }

    /// The external ids that there are of those that masking will ask for.
    async fn ids(&self, work: &Arc<(Arc<Masking>, Whole)>) -> Result<ExternalIds, Unseen> {
        let wanted = apart(work, (), |masking, whole, ()| {
            masking.mask.wanted(&whole.data)
        })
        .await?;
        let partner = &work.0.partner;
        let mut ids = self.recall(partner, &wanted);
        let missing: Vec<&Id> = wanted.iter().filter(|id| !ids.contains_key(id)).collect();
        if !missing.is_empty() {
            let found = self.store.external_ids(partner, &missing).await;
            let found = found.map_err(|error| unknown(&error))?;
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

/// An event as the platform wrote it.
pub struct Whole {
    /// Its data, JSON text.
    pub data: String,
    /// Its metadata, JSON text.
    pub metadata: Option<String>,
}

/// What masking came to.
pub struct Applied {
    /// What leaves.
    pub seen: Seen,
    /// Ids that had no external one, with what stands for them: to be stored first.
    pub newly_pseudonymised: Vec<(Id, String)>,
}

impl Masking {
    /// What is left of an event. A refusal where it cannot be said, and never what was not masked.
    pub fn apply(&self, whole: &Whole, ids: &ExternalIds) -> Result<Applied, Refusal> {
        let Masked {
            json,
            newly_pseudonymised,
        } = self
            .mask
            .apply(&whole.data, &self.key, &|id| ids.get(id).cloned())?;
        let metadata = match &whole.metadata {
            Some(metadata) => self.mask.apply_to_metadata(metadata)?,
            None => None,
        };
        Ok(Applied {
            seen: Seen::Left {
                data: json,
                metadata,
            },
            newly_pseudonymised,
        })
    }
}

/// Looks at an event: on the spot, or where it is long, apart, so that nothing else waits for it.
async fn apart<I: Send + 'static, T: Send + 'static>(
    work: &Arc<(Arc<Masking>, Whole)>,
    input: I,
    look: fn(&Masking, &Whole, I) -> Result<T, Refusal>,
) -> Result<T, Unseen> {
    let (masking, whole) = &**work;
    let length = whole.data.len() + whole.metadata.as_ref().map_or(0, String::len);
    if length <= AT_ONCE {
        return Ok(look(masking, whole, input)?);
    }
    let work = Arc::clone(work);
    let looked_at = tokio::task::spawn_blocking(move || look(&work.0, &work.1, input)).await;
    Ok(looked_at.map_err(|_| not_now("the payload could not be looked at"))??)
}

fn unknown(error: &crate::Error) -> Unseen {
    tracing::warn!(%error, "external ids cannot be read or kept");
    not_now("external ids could not be read or kept")
}

fn not_now(why: &str) -> Unseen {
    Unseen::NotNow(why.to_owned())
}

const NO_PAYLOAD: &str = "the payload is not there";
/// External ids kept in memory, at most.
const REMEMBERED: usize = 100_000;
