//! What a JSON Schema says of each field, for people. What it cannot say in a line of a table is in the schema itself.

use std::cell::Cell;

use serde_json::{Map, Value, json};

/// A field that a schema names.
pub(super) struct Field {
    /// Its JSON Pointer, with `*` for each element or key; empty for the whole.
    pub(super) pointer: String,
    /// Its type and what bounds it.
    pub(super) what: String,
    pub(super) required: Required,
    pub(super) description: String,
    pub(super) deprecated: bool,
}

impl Field {
    pub(super) fn json(&self) -> Value {
        json!({
            "field": self.pointer,
            "type": self.what,
            "required": self.required.word(),
            "description": self.description,
            "deprecated": self.deprecated,
        })
    }
}

/// Whether a field is there, where what holds it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Required {
    No,
    /// In one of several shapes, or under a condition.
    Sometimes,
    Yes,
}

impl Required {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Sometimes => "sometimes",
            Self::Yes => "yes",
        }
    }
}

/// The fields of a schema, each before what it holds, in the order of their names. A schema of something else than an object has one, the
/// whole. Not more than a bounded number: a schema may refer to itself.
pub(super) fn fields(schema: &Value) -> Vec<Field> {
    let mut walk = Walk {
        root: schema,
        found: Vec::new(),
        visits: 0,
        words: Cell::new(MOST_WORDS),
        path: Vec::new(),
    };
    let whole = described(schema, schema, DEEPEST, &Cell::new(MOST_WORDS));
    if whole.starts_with("array") {
        walk.note("", schema, Required::Yes);
    }
    walk.enter("", schema, Required::Yes);
    if walk.found.is_empty() && !schema.is_null() {
        walk.note("", schema, Required::Yes);
    }
    walk.found
}

struct Walk<'s> {
    root: &'s Value,
    found: Vec<Field>,
    visits: usize,
    /// How many more schemas are put into words.
    words: Cell<usize>,
    /// The references that led here: none is followed inside itself.
    path: Vec<&'s str>,
}

impl<'s> Walk<'s> {
    /// What a schema at this pointer holds. `most` is how much its fields can be required.
    fn enter(&mut self, pointer: &str, schema: &'s Value, most: Required) {
        self.visits += 1;
        let Some(rules) = schema.as_object() else {
            return;
        };
        if self.visits > MOST_VISITS || self.path.len() > DEEPEST {
            return;
        }
        if let Some((name, target)) = referred(self.root, rules)
            && !self.path.contains(&name)
        {
            self.path.push(name);
            self.enter(pointer, target, most);
            self.path.pop();
        }
        self.properties(pointer, rules, most);
        for (key, most) in [
            ("allOf", most),
            ("anyOf", Required::Sometimes),
            ("oneOf", Required::Sometimes),
        ] {
            let parts = rules.get(key).and_then(Value::as_array);
            for part in parts.into_iter().flatten() {
                self.enter(pointer, part, most);
            }
        }
        for key in ["then", "else"] {
            if let Some(part) = rules.get(key) {
                self.enter(pointer, part, Required::Sometimes);
            }
        }
        for key in ["items", "additionalProperties"] {
            if let Some(each) = rules.get(key) {
                self.enter(&format!("{pointer}/*"), each, most);
            }
        }
    }

    fn properties(&mut self, pointer: &str, rules: &'s Map<String, Value>, most: Required) {
        let required = rules.get("required").and_then(Value::as_array);
        let is_required =
            |name: &str| required.is_some_and(|names| names.iter().any(|n| n == name));
        let properties = rules.get("properties").and_then(Value::as_object);
        for (name, schema) in properties.into_iter().flatten() {
            let below = below(pointer, name);
            let required = if is_required(name) {
                most
            } else {
                Required::No
            };
            self.note(&below, schema, required);
            self.enter(&below, schema, Required::Yes);
        }
        // What an outer part describes, an inner one may require.
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            let below = below(pointer, name);
            let described = self.found.iter_mut().find(|field| field.pointer == below);
            if let Some(field) = described {
                field.required = field.required.max(most);
            }
        }
    }

    /// Writes a field down, or adds to it what another part of the schema says.
    fn note(&mut self, pointer: &str, schema: &'s Value, required: Required) {
        let what = cut(described(self.root, schema, DEEPEST, &self.words));
        let description = cut(text_of(self.root, schema));
        let deprecated = schema["deprecated"] == true;
        if let Some(field) = self.found.iter_mut().find(|field| field.pointer == pointer) {
            if !field.what.split(" or ").any(|known| known == what) {
                field.what = format!("{} or {what}", field.what);
            }
            if field.description.is_empty() {
                field.description = description;
            }
            field.required = field.required.max(required);
            field.deprecated |= deprecated;
        } else if self.found.len() < MOST_FIELDS {
            self.found.push(Field {
                pointer: pointer.to_owned(),
                what,
                required,
                description,
                deprecated,
            });
        }
    }
}

/// The type of a schema and its bounds, in words.
fn described(root: &Value, schema: &Value, depth: usize, words: &Cell<usize>) -> String {
    let Some(rules) = schema.as_object() else {
        let what = if schema == false { "nothing" } else { ANYTHING };
        return what.to_owned();
    };
    let (Some(depth), Some(left)) = (depth.checked_sub(1), words.get().checked_sub(1)) else {
        return ELSEWHERE.to_owned();
    };
    words.set(left);
    if let Some((_, target)) = referred(root, rules) {
        return described(root, target, depth, words);
    }
    if rules.contains_key("$ref") {
        return ELSEWHERE.to_owned();
    }
    if let Some(value) = rules.get("const") {
        return format!("always `{value}`");
    }
    if let Some(values) = rules.get("enum").and_then(Value::as_array) {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        return format!("one of {}", values.join(", "));
    }
    let parts = |key| {
        let parts = rules.get(key).and_then(Value::as_array)?.iter();
        Some(alternatives(
            parts
                .map(|part| described(root, part, depth, words))
                .filter(|part| part != ANYTHING),
        ))
    };
    if !["type", "properties", "items"]
        .iter()
        .any(|key| rules.contains_key(*key))
        && let Some(shapes) = ["oneOf", "anyOf", "allOf"].into_iter().find_map(parts)
        && !shapes.is_empty()
    {
        return shapes;
    }
    let types = match &rules.get("type") {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ if rules.contains_key("properties") => vec!["object"],
        _ if rules.contains_key("items") => vec!["array"],
        _ => vec![ANYTHING],
    };
    let types = types
        .into_iter()
        .map(|name| match (name, rules.get("items")) {
            ("array", Some(each)) if each.is_object() => {
                format!("array of {}", described(root, each, depth, words))
            }
            _ => name.to_owned(),
        });
    let mut what = alternatives(types);
    for bound in bounds(rules) {
        what = format!("{what}, {bound}");
    }
    what
}

/// Each once.
fn alternatives(all: impl Iterator<Item = String>) -> String {
    let mut once: Vec<String> = Vec::new();
    for one in all {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once.join(" or ")
}

fn bounds(rules: &Map<String, Value>) -> impl Iterator<Item = String> {
    BOUNDS.iter().filter_map(|(rule, before, after)| {
        let value = rules.get(*rule)?;
        Some(match (*rule, value) {
            ("pattern", Value::String(text)) => format!("matches `{text}`"),
            (_, Value::String(text)) => format!("{before}{text}{after}"),
            _ => format!("{before}{value}{after}"),
        })
    })
}

fn text_of(root: &Value, schema: &Value) -> String {
    let own = |schema: &Value| {
        let text = ["description", "title"]
            .iter()
            .find_map(|key| schema.get(*key));
        text.and_then(Value::as_str).map(str::to_owned)
    };
    let referred = || own(referred(root, schema.as_object()?)?.1);
    own(schema).or_else(referred).unwrap_or_default()
}

/// The pointer of a property.
fn below(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What `$ref` leads to inside the document, and how it calls it.
fn referred<'s>(root: &'s Value, rules: &'s Map<String, Value>) -> Option<(&'s str, &'s Value)> {
    let name = rules.get("$ref")?.as_str()?;
    Some((name, root.pointer(name.strip_prefix('#')?)?))
}

const ANYTHING: &str = "anything";
const ELSEWHERE: &str = "as in the schema";
const DEEPEST: usize = 16;
const MOST_FIELDS: usize = 500;
const MOST_VISITS: usize = 5_000;
const MOST_WORDS: usize = 20_000;
/// Characters of a type or a description.
const LONGEST: usize = 1_000;
const BOUNDS: [(&str, &str, &str); 11] = [
    ("format", "", ""),
    ("minimum", "at least ", ""),
    ("exclusiveMinimum", "more than ", ""),
    ("maximum", "at most ", ""),
    ("exclusiveMaximum", "less than ", ""),
    ("multipleOf", "a multiple of ", ""),
    ("minLength", "at least ", " characters"),
    ("maxLength", "at most ", " characters"),
    ("minItems", "at least ", " elements"),
    ("maxItems", "at most ", " elements"),
    ("pattern", "", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn told(schema: &Value) -> Vec<String> {
        let line = |field: &Field| {
            let Field {
                pointer,
                what,
                description,
                ..
            } = field;
            format!(
                "{pointer}: {what}; {}; {description}",
                field.required.word()
            )
        };
        fields(schema).iter().map(line).collect()
    }

    #[test]
    fn a_field_is_told_with_its_type_its_bounds_and_what_it_holds() {
        let schema = json!({"type": "object", "required": ["number", "lines"], "properties": {
            "number": {"type": "integer", "minimum": 1, "description": "Which one"},
            "at": {"type": ["string", "null"], "format": "date-time", "title": "When"},
            "mood": {"enum": ["good", 7]},
            "lines": {"type": "array", "maxItems": 9, "items": {"type": "object", "required": ["price"], "properties": {"price": {"type": "number"}}}},
            "a/b": {"const": null},
            "by_name": {"type": "object", "additionalProperties": {"properties": {"x": true}}}}});
        let expected = [
            "/a~1b: always `null`; no; ",
            "/at: string or null, date-time; no; When",
            "/by_name: object; no; ",
            "/by_name/*/x: anything; no; ",
            "/lines: array of object, at most 9 elements; yes; ",
            "/lines/*/price: number; yes; ",
            "/mood: one of `\"good\"`, `7`; no; ",
            "/number: integer, at least 1; yes; Which one",
        ];
        assert_eq!(told(&schema), expected);
    }

    #[test]
    fn parts_and_references_are_put_together() {
        let schema = json!({
            "$defs": {"money": {"type": "object", "description": "An amount", "properties": {"cents": {"type": "integer"}}}},
            "properties": {"price": {"$ref": "#/$defs/money"}, "far": {"$ref": "https://example/schema"},
                "tip": {"allOf": [{"$ref": "#/$defs/money"}, {"required": ["cents"]}], "title": "A tip"}, "who": {"type": "object", "anyOf": [{"required": ["x"]}]}},
            "allOf": [{"required": ["price"]}],
            "oneOf": [{"properties": {"kind": {"const": "a"}}, "required": ["kind"]}, {"properties": {"kind": {"type": "null"}}}]});
        let expected = [
            "/far: as in the schema; no; ",
            "/price: object; yes; An amount",
            "/price/cents: integer; no; ",
            "/tip: object; no; A tip",
            "/tip/cents: integer; yes; ",
            "/who: object; no; ",
            "/kind: always `\"a\"` or null; sometimes; ",
        ];
        assert_eq!(told(&schema), expected);
    }

    #[test]
    fn what_is_no_object_is_told_as_a_whole_and_no_schema_not_at_all() {
        assert_eq!(told(&json!({"type": "string"})), [": string; yes; "]);
        assert_eq!(told(&json!(true)), [": anything; yes; "]);
        assert!(told(&Value::Null).is_empty());
        let list = json!({"type": "array", "items": {"properties": {"x": {"type": "null"}}}});
        assert_eq!(
            told(&list),
            [": array of object; yes; ", "/*/x: null; no; "]
        );
    }

    #[test]
    fn a_schema_that_refers_to_itself_or_branches_without_end_is_told_in_bounds() {
        let tree = json!({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}});
        assert!((1..=MOST_FIELDS).contains(&fields(&tree).len()));
        let shapes = vec![json!({"$ref": "#/$defs/shape"}); 50];
        let shapes = json!({"$defs": {"shape": {"oneOf": shapes}}, "properties": {"shape": {"oneOf": shapes}}});
        assert!(told(&shapes)[0].contains(ELSEWHERE));
        let names: Map<String, Value> = (0..9)
            .map(|n| (format!("n{n}"), json!({"$ref": format!("#/$defs/d{n}")})))
            .collect();
        let defs: Map<String, Value> = (0..9)
            .map(|n| (format!("d{n}"), json!({"properties": names})))
            .collect();
        assert_eq!(
            fields(&json!({"$defs": defs, "properties": names})).len(),
            MOST_FIELDS
        );
    }
}
