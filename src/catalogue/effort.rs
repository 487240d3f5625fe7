//! How much work a JSON Schema can make, told from its text alone.
//!
//! A schema that refers to itself along two ways at once takes twice the time with every level of a payload: thirty brackets, and a
//! worker would be busy for years. So such a schema is refused before it is ever used.

use std::collections::HashMap;

use serde_json::Value;

/// Says why a schema may take too long, if it may.
pub(super) fn excess(schema: &Value) -> Option<String> {
    let mut survey = Survey {
        root: schema,
        known: HashMap::new(),
        entered: Vec::new(),
    };
    let visits = survey.visits(schema, LEVELS).total();
    (visits > MOST_VISITS).then(|| {
        "it refers to parts of itself along so many ways that a payload could take for ever"
            .to_owned()
    })
}

/// How often parts of a schema look at one value, and at what lies below it. A value is an array or an object, never both.
#[derive(Clone, Copy, Default)]
struct Visits {
    here: u64,
    in_array: u64,
    in_object: u64,
}

impl Visits {
    fn total(self) -> u64 {
        self.here.saturating_add(self.in_array.max(self.in_object))
    }

    fn and(self, other: Self) -> Self {
        Self {
            here: self.here.saturating_add(other.here),
            in_array: self.in_array.saturating_add(other.in_array),
            in_object: self.in_object.saturating_add(other.in_object),
        }
    }
}

struct Survey<'s> {
    root: &'s Value,
    /// By a subschema's address and the levels below it.
    known: HashMap<(*const Value, u32), Visits>,
    /// Subschemas that are being looked at for the same value.
    entered: Vec<(*const Value, u32)>,
}

impl<'s> Survey<'s> {
    fn visits(&mut self, schema: &'s Value, levels: u32) -> Visits {
        let Value::Object(keywords) = schema else {
            return Visits {
                here: 1,
                ..Visits::default()
            };
        };
        let key = (std::ptr::from_ref(schema), levels);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        if self.entered.contains(&key) {
            // It would look at the same value for ever.
            return Visits {
                here: u64::MAX,
                ..Visits::default()
            };
        }
        self.entered.push(key);
        let mut visits = Visits {
            here: 1,
            ..Visits::default()
        };
        for (keyword, value) in keywords {
            visits = visits.and(self.of_keyword(keyword, value, levels));
        }
        self.entered.pop();
        self.known.insert(key, visits);
        visits
    }

    fn of_keyword(&mut self, keyword: &str, value: &'s Value, levels: u32) -> Visits {
        match keyword {
            "$ref" | "$dynamicRef" | "$recursiveRef" => match self.resolve(value) {
                Some(target) => self.visits(target, levels),
                None => Visits::default(),
            },
            "not" | "if" | "then" | "else" => self.visits(value, levels),
            "allOf" | "anyOf" | "oneOf" | "dependentSchemas" | "dependencies" => parts(value)
                .into_iter()
                .fold(Visits::default(), |sum, part| {
                    sum.and(self.visits(part, levels))
                }),
            "items" | "prefixItems" | "additionalItems" | "unevaluatedItems" | "contains" => {
                Visits {
                    in_array: self.below(value, levels),
                    ..Visits::default()
                }
            }
            "properties"
            | "patternProperties"
            | "additionalProperties"
            | "unevaluatedProperties"
            | "propertyNames" => Visits {
                in_object: self.below(value, levels),
                ..Visits::default()
            },
            _ => Visits::default(),
        }
    }

    /// The most that a value one level below gets. Items and properties by name are one schema each to one value.
    fn below(&mut self, value: &'s Value, levels: u32) -> u64 {
        let Some(levels) = levels.checked_sub(1) else {
            return 0;
        };
        // A list, a map of names, or the one schema itself: the names of a map are no keywords, so looking at both does no harm.
        let parts = parts(value).into_iter().chain([value]);
        parts
            .map(|part| self.visits(part, levels).total())
            .max()
            .unwrap_or(0)
    }

    fn resolve(&self, reference: &Value) -> Option<&'s Value> {
        let reference = reference.as_str()?;
        let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let document = match document {
            "" => self.root,
            id => find(self.root, &["$id"], id)?,
        };
        match fragment {
            "" => Some(document),
            pointer if pointer.starts_with('/') => document.pointer(pointer),
            anchor => find(document, &["$anchor", "$dynamicAnchor"], anchor)
                .or_else(|| find(document, &["$id"], &format!("#{anchor}"))),
        }
    }
}

fn parts(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(parts) => parts.iter().collect(),
        Value::Object(parts) => parts.values().collect(),
        _ => Vec::new(),
    }
}

/// The subschema that one of these keywords gives this name.
fn find<'s>(schema: &'s Value, keywords: &[&str], name: &str) -> Option<&'s Value> {
    let is_it = keywords
        .iter()
        .any(|keyword| schema.get(keyword).and_then(Value::as_str) == Some(name));
    if is_it {
        return Some(schema);
    }
    parts(schema)
        .into_iter()
        .find_map(|part| find(part, keywords, name))
}

/// Levels of a payload that are reckoned with.
const LEVELS: u32 = 32;
/// How often the parts of a schema may look at a value and at what lies below it on one way down.
const MOST_VISITS: u64 = 20_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_schema_that_doubles_with_every_level_is_refused() {
        let chain = (1..24).fold(r##"{"$ref": "#/$defs/d23", "$defs": {"d0": true"##.to_owned(), |text, n| {
            format!(r##"{text}, "d{n}": {{"allOf": [{{"$ref": "#/$defs/d{0}"}}, {{"$ref": "#/$defs/d{0}"}}]}}"##, n - 1)
        }) + "}}";
        for schema in [
            r##"{"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}"##,
            r##"{"anyOf": [{"properties": {"a": {"$ref": "#"}}}, {"additionalProperties": {"$ref": "#"}}]}"##,
            r##"{"$anchor": "a", "allOf": [{"items": {"$ref": "#a"}}, {"contains": {"$ref": "#a"}}]}"##,
            r##"{"$id": "https://x.example/s", "oneOf": [{"items": {"$ref": "https://x.example/s"}}, {"items": {"$dynamicRef": "#"}}]}"##,
            r##"{"allOf": [{"$ref": "#"}]}"##,
            &chain,
        ] {
            let parsed = serde_json::from_str(schema).unwrap();
            assert!(excess(&parsed).is_some(), "{schema}");
        }
    }

    #[test]
    fn ordinary_recursion_is_allowed() {
        for schema in [
            r#"{"type": "object", "properties": {"a": {"type": "string"}, "b": {"items": {"type": "number"}}}}"#,
            r##"{"properties": {"next": {"$ref": "#"}}}"##,
            r##"{"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}"##,
            r##"{"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#"}},
                {"type": "object", "additionalProperties": {"$ref": "#"}}]}"##,
            r##"{"$defs": {"money": {"type": "object", "required": ["amount"]}},
                "properties": {"net": {"$ref": "#/$defs/money"}, "gross": {"$ref": "#/$defs/money"}}}"##,
        ] {
            let parsed = serde_json::from_str(schema).unwrap();
            assert_eq!(excess(&parsed), None, "{schema}");
        }
    }
}
