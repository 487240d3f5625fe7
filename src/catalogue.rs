//! The JSON Schemas of event types: what payloads must be like to be sent.

mod effort;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use jsonschema::{PatternOptions, Validator};

use crate::Result;
use crate::delivery::Lease;
use crate::store::{Store, StoredSchema};

/// Looks schemas up, and reads them anew when a lease names a revision it does not hold.
#[derive(Debug)]
pub struct Catalogue {
    store: Store,
    known: RwLock<HashMap<String, Arc<Schema>>>,
}

/// One event type's schema, compiled; or why it cannot be.
#[derive(Debug)]
struct Schema {
    revision: i32,
    validator: Result<Validator, String>,
}

impl Catalogue {
    /// An empty one.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            known: RwLock::default(),
        }
    }

    /// Reads, in one go, the schemas that these leases are held to and that are not known at their revision.
    pub async fn learn(&self, leases: &[Lease]) -> Result<()> {
        let unknown = self.unknown(leases);
        if unknown.is_empty() {
            return Ok(());
        }
        let stored = self.store.schemas(&unknown).await?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for StoredSchema {
            event_type,
            revision,
            schema,
        } in stored
        {
            let validator = compile(&schema);
            let schema = Schema {
                revision,
                validator,
            };
            known.insert(event_type, Arc::new(schema));
        }
        Ok(())
    }

    /// Why the payload of a lease may not be sent: the rule that it breaks, in the schema's words, never in the payload's. `None` where it
    /// may be: it keeps its schema, or there is none any more.
    pub async fn violation(&self, lease: &Lease) -> Option<String> {
        lease.schema_revision?;
        let payload = lease.payload.as_deref()?;
        let schema = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.get(&lease.event_type)?)
        };
        if payload.len() <= AT_ONCE {
            return schema.problem(payload);
        }
        // A long one is looked at apart, so that nothing else waits for it.
        let payload = payload.to_owned();
        let looked_at = tokio::task::spawn_blocking(move || schema.problem(&payload)).await;
        looked_at.unwrap_or_else(|_| Some("the payload could not be looked at".to_owned()))
    }

    fn unknown<'l>(&self, leases: &'l [Lease]) -> Vec<&'l str> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let holds = |event_type: &str, revision: i32| {
            known
                .get(event_type)
                .is_some_and(|schema| schema.revision >= revision)
        };
        let mut unknown: Vec<&str> = leases
            .iter()
            .filter_map(|lease| Some((lease.event_type.as_str(), lease.schema_revision?)))
            .filter(|(event_type, revision)| !holds(event_type, *revision))
            .map(|(event_type, _)| event_type)
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }
}

impl Schema {
    fn problem(&self, payload: &str) -> Option<String> {
        let problem = match &self.validator {
            Ok(validator) => breach(validator, payload)?,
            Err(why) => format!("cannot be held against a schema that does not compile: {why}"),
        };
        Some(format!("the payload {problem}"))
    }
}

/// Compiles a schema; the error says what is wrong with it. References to other documents are not followed, and one that could
/// take without bounds is none.
pub fn compile(schema: &str) -> Result<Validator, String> {
    let schema = serde_json::from_str(schema).map_err(|error| error.to_string())?;
    if let Some(excess) = effort::excess(&schema) {
        return Err(excess);
    }
    // Without look-around and back-references, a pattern takes time in proportion to the text, whatever a payload holds.
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
    options.build(&schema).map_err(|error| {
        bounded(&match error.instance_path().as_str() {
            "" => error.to_string(),
            place => format!("at {place}: {error}"),
        })
    })
}

/// Which rule of a schema a payload breaks; `None` where it keeps it. Not where: on the way there, names of the payload's own may stand.
pub fn breach(validator: &Validator, payload: &str) -> Option<String> {
    let payload = match serde_json::from_str(payload) {
        Ok(payload) => payload,
        Err(error) => return Some(format!("is more than the validator reads: {error}")),
    };
    let error = validator.validate(&payload).err()?;
    let rule = error.schema_path().as_str();
    Some(bounded(&format!("breaks its schema: rule {rule}")))
}

/// Payloads of up to so many bytes are looked at on the spot.
pub(crate) const AT_ONCE: usize = 16 * 1024;

fn bounded(text: &str) -> String {
    text.chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SCHEMA: &str = r#"{"type": "object", "required": ["certificate"],
        "properties": {"certificate": {"type": "integer"}}}"#;

    #[test]
    fn what_breaks_a_schema_is_told_by_its_rule_and_never_by_what_the_payload_holds() {
        let validator = compile(SCHEMA).unwrap();
        assert_eq!(breach(&validator, r#"{"certificate": 42}"#), None);
        let missing = breach(&validator, r#"{"secret": "hidden"}"#).unwrap();
        assert_eq!(missing, "breaks its schema: rule /required");
        let wrong = breach(&validator, r#"{"certificate": "hidden"}"#).unwrap();
        assert_eq!(
            wrong,
            "breaks its schema: rule /properties/certificate/type"
        );
        let by_name = compile(r#"{"additionalProperties": {"type": "integer"}}"#).unwrap();
        assert_eq!(
            breach(&by_name, r#"{"ada@example.com": "x"}"#).unwrap(),
            "breaks its schema: rule /additionalProperties/type"
        );
    }

    #[test]
    fn a_schema_that_is_none_is_refused() {
        for (schema, says) in [
            ("{", "EOF"),
            (r#"{"type": "wrong"}"#, "at /type: "),
            (r#"{"properties": {"a": 1}}"#, "at /properties/a: "),
            (r#"{"pattern": "("}"#, "/pattern"),
            (r#"{"pattern": "(?=a)b"}"#, "/pattern"),
            (r#"{"$ref": "https://schemas.example/a.json"}"#, ""),
            (r#"{"$ref": "file:///etc/passwd"}"#, ""),
        ] {
            let why = compile(schema).err();
            assert!(
                why.as_ref().is_some_and(|why| why.contains(says)),
                "{schema}: {why:?}"
            );
        }
    }
}
