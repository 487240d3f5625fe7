//! What happens to the fields of an event before it leaves: a subscription's mask.
//!
//! A mask is a list of what may leave. Whatever it does not name stays here.
//!
//! ```json
//! {"allow":    ["/student/name", "/items/*/sku", "/meta/**"],
//!  "rest":     "drop",
//!  "fields":   {"/student/id":    {"map": "student", "missing": "hold"},
//!               "/student/email": "pseudonym",
//!               "/meta/debug":    "drop",
//!               "/score":         {"replace": null}},
//!  "metadata": ["/request_id"]}
//! ```
//!
//! Every key may be left out: `{}` lets nothing leave. Unknown keys, a key twice and a path twice are errors.
//!
//! # Paths
//!
//! A path is a JSON Pointer (RFC 6901): `""` is the whole payload, `/a/b` the member `b` of the member `a`, `/a/0` the first element
//! of an array (or a member named `0`). `~1` stands for `/` in a name, `~0` for `~`. Names are compared by what they mean: `"\u0061"`
//! is `a`.
//!
//! * A segment `*` is any one member or element, and a last segment `**` is everything below, at any depth. A member whose name is `*`
//!   is written `~2`, one named `**` is `~2~2`; a star beside anything else (`a*`) is a star.
//! * At most 32 segments, 1024 bytes, and 256 paths for the payload, as many for the metadata.
//!
//! # What is done with a value
//!
//! * `allow`: it is shown, byte for byte, and all below it unless `fields` says otherwise. (`/a` means `/a` and `/a/**`.)
//! * `"drop"`: the member or the element is gone. Later elements move up.
//! * `{"replace": x}`: `x` stands in its place, any JSON of at most 256 bytes.
//! * `"pseudonym"`: a string that stands for this value, for this partner alone.
//! * `{"map": kind, "missing": m}`: the external id of this kind for it, always a string. The value must be a string, a number or a
//!   boolean; its text is the internal id, so `7` and `"7"` are the same. `null` stays `null`. An array, an object, a string with a
//!   NUL or half a surrogate pair, or more than 1024 bytes: the delivery is refused. Where there is no external id, `hold` (unless
//!   said otherwise) holds the delivery until there is one, `refuse` refuses it for good, and `pseudonym` makes one up, which is
//!   handed back so that it can be stored as the mapping.
//!
//! `drop`, `replace`, `pseudonym` and `map` *hide*: they take a value whole, an object or an array with all it holds, so that nothing
//! of its content or its shape shows. A mask with a path below one that always hides is an error, since it could never count.
//!
//! # Which path counts
//!
//! 1. An allowed path counts only if it is narrower than each path of `fields` that fits the value: wherever that one is literal,
//!    it is literal, too; it has a `**` no earlier; and the two differ. On a tie, and where two paths cross (`/user/**` and
//!    `/*/email`), `fields` counts. So to hide something is never undone by chance.
//! 2. Otherwise that of `fields` counts which is literal first, reading from the left: a name before `*` before `**`.
//! 3. Where nothing fits, `rest` counts.
//!
//! # What nothing names
//!
//! `rest` is `drop`, `replace` or `pseudonym` (`drop` unless said otherwise).
//!
//! * An object or an array that nothing names stays if it is *on the way*: a path goes on below it to something that may be seen, for
//!   an array by `*`, `**` or an index. It stays even where that turns out to be empty, `{}` or `[]`. The same goes for one that only
//!   a hiding `**` names, if the path counts in spite of it: `"/meta/**": "drop"` leaves the allowed `/meta/a/b` there.
//! * Any other value is treated whole as `rest` says.
//! * **No name is shown that no path allows.** A name may be data itself (an object keyed by mail addresses), so a member is dropped
//!   whatever `rest` says, unless a path leads to its name or past it. A `*` or `**` shows names: where they are data, name the
//!   object instead. `"/student/**": {"replace": "[masked]"}` shows the names of all that the student has, `rest` never does.
//! * Elements of an array have no names, so with `rest` other than `drop` their number shows where the array is on the way.
//! * A payload that is dropped whole becomes `null`.
//!
//! Between the tokens of an object or an array of which parts are hidden no white space is left. Order and doubled names stay:
//! each of two members with one name is treated as that name is.
//!
//! # Metadata
//!
//! `metadata` is a list like `allow`, of an event's metadata; `rest` there is always `drop`.
//!
//! # Pseudonyms
//!
//! `p_` and the base64url of the first 16 bytes of an HMAC-SHA256 under the partner's own key, over a tag and the value: a string by
//! what it means, a number by how it is written (`1` and `1.0` differ), with its type (`1` and `"1"` differ), objects and arrays
//! token by token, members in their order. So one partner can tell that two values are equal, and two partners together cannot
//! tell that they were sent the same value. A pseudonym for a missing id depends on the kind and the id's text alone.
//!
//! How likely two values of one partner share one: with n values, n²/2 pairs and 2^128 pseudonyms, less than n²/2^129. For
//! 4 billion values that is 2^-65.
//!
//! # Bounds
//!
//! A payload that is not JSON, or has more than 128 arrays and objects in each other (in what is hidden, too), is refused: what cannot
//! be masked does not leave. Each value hidden costs at most 26 bytes for a pseudonym, 256 for a replacement, or the external id; with
//! all that, what would be longer than 16 times the payload and 64 KiB is refused. Half a surrogate pair is JSON, and passes.
//!
//! No error, no refusal and no `Debug` holds anything of a payload: refusals name the path as the mask has it.

mod path;
mod pseudonym;
mod scan;
mod term;
mod tree;
mod walk;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use pseudonym::Pseudonyms;
use scan::Unreadable;
use tree::{Mapping, Missing, Treatment, Tree};
use walk::Hand;

pub use pseudonym::PseudonymKey;

/// A subscription's mask, compiled: made once, applied to each event. It allocates nothing for what it looks up.
#[derive(Clone, Debug)]
pub struct Mask {
    payload: Tree,
    metadata: Tree,
}

impl Mask {
    /// Reads the JSON of a mask. The error names the key or the path, and the rule that it breaks.
    pub fn parse(json: &str) -> Result<Self, MaskError> {
        let (payload, metadata) = term::parse(json)?;
        Ok(Self { payload, metadata })
    }

    /// The internal ids of a payload for which [`apply`](Self::apply) will ask, each once, in the order of the payload. Refuses what
    /// `apply` would refuse whatever the answers.
    pub fn wanted(&self, payload: &str) -> Result<Vec<Id>, Refusal> {
        let is_mapping = |rule: &tree::Rule| matches!(rule.treatment, Treatment::Map(_));
        let mut wanted = Wanted::default();
        if self.payload.rules().iter().any(is_mapping) {
            walk::mask(&self.payload, payload, &mut wanted)?;
        }
        Ok(wanted.in_order)
    }

    /// What is left of a payload. `ids` gives external ids for internal ones. The same payload, key and ids give the same bytes.
    pub fn apply(
        &self,
        payload: &str,
        key: &PseudonymKey,
        ids: &dyn Fn(&Id) -> Option<String>,
    ) -> Result<Masked, Refusal> {
        let mut answers = Answers {
            key,
            pseudonyms: None,
            ids,
            asked: HashSet::new(),
            made_up: Vec::new(),
        };
        let left = walk::mask(&self.payload, payload, &mut answers)?;
        Ok(Masked {
            json: left.unwrap_or_else(|| "null".to_owned()),
            newly_pseudonymised: answers.made_up,
        })
    }

    /// What is left of an event's metadata. `None` where nothing of it may leave.
    pub fn apply_to_metadata(&self, metadata: &str) -> Result<Option<String>, Refusal> {
        walk::mask(&self.metadata, metadata, &mut Wanted::default())
    }
}

/// A masked payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Masked {
    /// What leaves.
    pub json: String,
    /// Ids that had no external one, each once, with the pseudonym that stands for it in `json`. To be stored as its external id before
    /// `json` leaves, or another mapping might come between two attempts.
    pub newly_pseudonymised: Vec<(Id, String)>,
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.json.len();
        write!(f, "Masked({bytes} bytes, {:?})", self.newly_pseudonymised)
    }
}

/// An internal id and what it is the id of.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// As the mask calls it, such as `student`.
    pub kind: Arc<str>,
    /// Its text.
    pub internal: String,
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({}, hidden)", self.kind)
    }
}

/// Why a mask cannot be used: which key or path breaks which rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mask: {0}")]
pub struct MaskError(String);

impl MaskError {
    fn new(reason: String) -> Self {
        Self(reason)
    }
}

/// Why nothing leaves. No text holds anything of a payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not now: an external id is missing. The text names its kind and the path.
    #[error("{0}")]
    Hold(String),
    /// Never.
    #[error("{0}")]
    Refuse(String),
}

impl From<Unreadable> for Refusal {
    fn from(unreadable: Unreadable) -> Self {
        refuse(match unreadable {
            Unreadable::Malformed(at) => {
                format!("it cannot be masked: it is not JSON from byte {at} on")
            }
            Unreadable::TooDeep => format!(
                "it cannot be masked: more than {} arrays and objects lie in each other",
                scan::MOST_LEVELS
            ),
        })
    }
}

fn refuse(reason: String) -> Refusal {
    Refusal::Refuse(reason)
}

/// Takes down which ids are asked for, each once, and answers nothing.
#[derive(Default)]
struct Wanted {
    asked: HashSet<Id>,
    in_order: Vec<Id>,
}

impl Hand for Wanted {
    fn pseudonym(&mut self, _json: &str) -> Result<String, Unreadable> {
        Ok(String::new())
    }

    fn external(
        &mut self,
        mapping: &Mapping,
        _: &str,
        internal: String,
    ) -> Result<String, Refusal> {
        let kind = mapping.kind.clone();
        let id = Id { kind, internal };
        if self.asked.insert(id.clone()) {
            self.in_order.push(id);
        }
        Ok(String::new())
    }
}

/// Gives the true answers.
struct Answers<'a> {
    key: &'a PseudonymKey,
    /// Made where the first is needed.
    pseudonyms: Option<Pseudonyms>,
    ids: &'a dyn Fn(&Id) -> Option<String>,
    asked: HashSet<Id>,
    made_up: Vec<(Id, String)>,
}

impl Answers<'_> {
    fn pseudonyms(&mut self) -> &Pseudonyms {
        self.pseudonyms
            .get_or_insert_with(|| Pseudonyms::new(self.key))
    }
}

impl Hand for Answers<'_> {
    fn pseudonym(&mut self, json: &str) -> Result<String, Unreadable> {
        self.pseudonyms().of_value(json)
    }

    fn external(
        &mut self,
        mapping: &Mapping,
        path: &str,
        internal: String,
    ) -> Result<String, Refusal> {
        let kind = mapping.kind.clone();
        let id = Id { kind, internal };
        if let Some(external) = (self.ids)(&id) {
            return Ok(external);
        }
        let reason = || {
            let kind = &mapping.kind;
            format!("the id of kind `{kind}` at `{path}` has no external id")
        };
        match mapping.missing {
            Missing::Hold => Err(Refusal::Hold(reason())),
            Missing::Refuse => Err(refuse(reason())),
            Missing::Pseudonym => {
                let pseudonym = self.pseudonyms().of_id(&id.kind, &id.internal);
                if self.asked.insert(id.clone()) {
                    self.made_up.push((id, pseudonym.clone()));
                }
                Ok(pseudonym)
            }
        }
    }
}

#[cfg(test)]
mod tests;
