//! Reads the JSON of a mask, strictly.

use super::MaskError;
use super::path::Path;
use super::scan::{Scanner, Unreadable, unescape};
use super::tree::{Mapping, Missing, Treatment, Tree, Written};

/// The tree for the payload and the one for the metadata.
pub(super) fn parse(json: &str) -> Result<(Tree, Tree), MaskError> {
    if json.len() > MOST_BYTES {
        return Err(MaskError::new(format!(
            "it has {} bytes, and {MOST_BYTES} is the most",
            json.len()
        )));
    }
    let members = members(whole(json)?, "the mask")?;
    known(
        &members,
        &["allow", "rest", "fields", "metadata"],
        "the mask",
    )?;
    let list = |key| match find(&members, key) {
        Some(text) => paths(text, key),
        None => Ok(Vec::new()),
    };
    let (allow, metadata) = (list("allow")?, list("metadata")?);
    let fields = match find(&members, "fields") {
        Some(text) => fields(text)?,
        None => Vec::new(),
    };
    let count = allow.len() + fields.len();
    if count.max(metadata.len()) > MOST_PATHS {
        return Err(MaskError::new(format!(
            "it has {count} paths for the payload and {} for the metadata, and {MOST_PATHS} is the most of each",
            metadata.len()
        )));
    }
    let payload = Tree::build(&fields, &allow, rest(find(&members, "rest"))?)?;
    Ok((payload, Tree::build(&[], &metadata, Treatment::Drop)?))
}

fn rest(text: Option<&str>) -> Result<Treatment, MaskError> {
    let Some(text) = text else {
        return Ok(Treatment::Drop);
    };
    match treatment(text, "`rest`")? {
        Treatment::Map(_) => Err(MaskError::new(
            "`rest` is a `map`; only a field can be mapped".to_owned(),
        )),
        other => Ok(other),
    }
}

fn fields(text: &str) -> Result<Vec<Written>, MaskError> {
    let mut fields = Vec::new();
    for (path, text) in members(text, "`fields`")? {
        let treatment = treatment(text, &format!("`fields`, `{path}`"))?;
        push_path(&mut fields, &path, treatment, "fields")?;
    }
    Ok(fields)
}

fn paths(text: &str, key: &str) -> Result<Vec<Written>, MaskError> {
    let mut paths = Vec::new();
    let mut scanner = Scanner::new(text);
    if scanner.peek() != b'[' {
        return Err(MaskError::new(format!("`{key}` is not an array of paths")));
    }
    scanner.enter(0)?;
    while scanner.another(paths.is_empty(), b']')? {
        let path = string(scanner.value(1)?, &format!("a path in `{key}`"))?;
        push_path(&mut paths, &path, Treatment::Show, key)?;
    }
    Ok(paths)
}

fn push_path(
    paths: &mut Vec<Written>,
    text: &str,
    treatment: Treatment,
    key: &str,
) -> Result<(), MaskError> {
    let path = Path::parse(text)
        .map_err(|rule| MaskError::new(format!("`{key}`: the path `{}` {rule}", shown(text))))?;
    if paths.len() >= MOST_PATHS {
        return Err(MaskError::new(format!(
            "`{key}` has more than {MOST_PATHS} paths"
        )));
    }
    if paths.iter().any(|earlier| earlier.path == path) {
        return Err(MaskError::new(format!(
            "`{key}` has the path `{text}` twice"
        )));
    }
    paths.push(Written {
        text: text.into(),
        path,
        treatment,
    });
    Ok(())
}

/// `"drop"`, `"pseudonym"`, `{"replace": ...}` or `{"map": ..., "missing": ...}`.
fn treatment(text: &str, place: &str) -> Result<Treatment, MaskError> {
    if !text.starts_with('{') {
        return match string(text, place)?.as_str() {
            "drop" => Ok(Treatment::Drop),
            "pseudonym" => Ok(Treatment::Pseudonym),
            other => Err(MaskError::new(format!(
                "{place} is `{}`; it can be `drop`, `pseudonym`, {{\"replace\": ...}} or {{\"map\": ...}}",
                shown(other)
            ))),
        };
    }
    let members = members(text, place)?;
    if let Some(value) = find(&members, "replace") {
        known(&members, &["replace"], place)?;
        return replacement(value, place);
    }
    known(&members, &["map", "missing"], place)?;
    let Some(kind) = find(&members, "map") else {
        return Err(MaskError::new(format!(
            "{place} has neither `replace` nor `map`"
        )));
    };
    Ok(Treatment::Map(Mapping {
        kind: kind_of_id(kind, place)?.into(),
        missing: missing(find(&members, "missing"), place)?,
    }))
}

fn replacement(value: &str, place: &str) -> Result<Treatment, MaskError> {
    if value.len() > MOST_REPLACEMENT_BYTES {
        return Err(MaskError::new(format!(
            "{place}: `replace` has {} bytes, and {MOST_REPLACEMENT_BYTES} is the most",
            value.len()
        )));
    }
    Ok(Treatment::Replace(value.into()))
}

fn kind_of_id(text: &str, place: &str) -> Result<String, MaskError> {
    let kind = string(text, &format!("{place}: `map`"))?;
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.');
    if !(1..=64).contains(&kind.len()) || !kind.bytes().all(allowed) {
        return Err(MaskError::new(format!(
            "{place}: `map` is `{}`; a kind of id is 1 to 64 of a-z, 0-9, `_`, `-` and `.`",
            shown(&kind)
        )));
    }
    Ok(kind)
}

fn missing(text: Option<&str>, place: &str) -> Result<Missing, MaskError> {
    let Some(text) = text else {
        return Ok(Missing::Hold);
    };
    match string(text, &format!("{place}: `missing`"))?.as_str() {
        "hold" => Ok(Missing::Hold),
        "pseudonym" => Ok(Missing::Pseudonym),
        "refuse" => Ok(Missing::Refuse),
        other => Err(MaskError::new(format!(
            "{place}: `missing` is `{}`; it can be `hold`, `pseudonym` or `refuse`",
            shown(other)
        ))),
    }
}

/// The text of the one value.
fn whole(json: &str) -> Result<&str, MaskError> {
    let mut scanner = Scanner::new(json);
    let value = scanner.value(0)?;
    scanner.end()?;
    Ok(value)
}

fn members<'t>(text: &'t str, place: &str) -> Result<Vec<(String, &'t str)>, MaskError> {
    let mut scanner = Scanner::new(text);
    if scanner.peek() != b'{' {
        return Err(MaskError::new(format!("{place} is not an object")));
    }
    scanner.enter(0)?;
    let mut members: Vec<(String, &str)> = Vec::new();
    while scanner.another(members.is_empty(), b'}')? {
        let key = plain(scanner.name()?, &format!("a key of {place}"))?;
        if find(&members, &key).is_some() {
            return Err(MaskError::new(format!(
                "{place} has the key `{}` twice",
                shown(&key)
            )));
        }
        if members.len() >= MOST_PATHS {
            return Err(MaskError::new(format!(
                "{place} has more than {MOST_PATHS} keys"
            )));
        }
        members.push((key, scanner.value(1)?));
    }
    Ok(members)
}

fn find<'t>(members: &[(String, &'t str)], key: &str) -> Option<&'t str> {
    let found = members.iter().find(|(other, _)| other == key);
    found.map(|(_, value)| *value)
}

fn known(members: &[(String, &str)], keys: &[&str], place: &str) -> Result<(), MaskError> {
    match members
        .iter()
        .find(|(key, _)| !keys.contains(&key.as_str()))
    {
        Some((key, _)) => Err(MaskError::new(format!(
            "{place} has the unknown key `{}`; it can have `{}`",
            shown(key),
            keys.join("`, `")
        ))),
        None => Ok(()),
    }
}

fn string(text: &str, place: &str) -> Result<String, MaskError> {
    if !text.starts_with('"') {
        return Err(MaskError::new(format!("{place} is not a string")));
    }
    plain(Scanner::new(text).string()?, place)
}

fn plain(raw: &str, place: &str) -> Result<String, MaskError> {
    String::from_utf8(unescape(raw).into_owned())
        .map_err(|_| MaskError::new(format!("{place} holds half of a surrogate pair")))
}

/// The beginning of a text, for a message.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(80)]
}

impl From<Unreadable> for MaskError {
    fn from(unreadable: Unreadable) -> Self {
        Self::new(match unreadable {
            Unreadable::Malformed(at) => format!("it is not JSON from byte {at} on"),
            Unreadable::TooDeep => "it is nested too deeply".to_owned(),
        })
    }
}

const MOST_BYTES: usize = 64 * 1024;
/// In `allow` and `fields` together, and in `metadata`.
const MOST_PATHS: usize = 256;
const MOST_REPLACEMENT_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn refusal(json: &str) -> String {
        parse(json).unwrap_err().to_string()
    }

    #[test]
    fn a_mask_may_say_all_of_this_or_nothing() {
        for json in [
            "{}",
            r#" { "allow" : [ ] , "fields" : { } , "metadata" : [ ] , "rest" : "drop" } "#,
            r#"{"allow": ["/student/name", "/items/*/sku", "/meta/**"], "rest": {"replace": "[masked]"},
                "fields": {"/student/id": {"map": "student", "missing": "hold"}, "/student/email": "pseudonym",
                           "/internal": "drop", "/score": {"replace": null}, "/teacher": {"missing":"refuse","map":"t"}},
                "metadata": ["/request_id"]}"#,
            r#"{"\u0061llow": [""], "rest": "pseudonym"}"#,
            r#"{"fields": {"/x": {"replace": {"any": [1e400, {}]}}}}"#,
            r#"{"allow": ["/a", "/a/**", "/a/b"], "fields": {"/a/**": "drop"}}"#,
            r#"{"allow": ["/a"], "fields": {"/a": "drop"}}"#,
        ] {
            assert!(parse(json).is_ok(), "{json}: {:?}", parse(json).err());
        }
    }

    #[test]
    fn what_a_mask_may_not_say_is_named() {
        for (json, named) in [
            ("", "not JSON from byte 0"),
            ("{} {}", "not JSON from byte 3"),
            ("[]", "the mask is not an object"),
            (r#"{"alow": []}"#, "unknown key `alow`"),
            (r#"{"allow": [], "allow": []}"#, "key `allow` twice"),
            (r#"{"allow": {}}"#, "`allow` is not an array"),
            (r#"{"allow": null}"#, "`allow` is not an array"),
            (r#"{"allow": [1]}"#, "a path in `allow` is not a string"),
            (
                r#"{"allow": ["a/b"]}"#,
                "`allow`: the path `a/b` starts with",
            ),
            (
                r#"{"metadata": ["/**/b"]}"#,
                "`metadata`: the path `/**/b` goes on",
            ),
            (
                r#"{"allow": ["/a", "/\u0061"]}"#,
                "`allow` has the path `/a` twice",
            ),
            (r#"{"allow": ["/\ud800"]}"#, "surrogate"),
            (r#"{"fields": []}"#, "`fields` is not an object"),
            (
                r#"{"fields": {"/a": "allow"}}"#,
                "`fields`, `/a` is `allow`",
            ),
            (
                r#"{"fields": {"/a": true}}"#,
                "`fields`, `/a` is not a string",
            ),
            (r#"{"fields": {"/a": {}}}"#, "`fields`, `/a` has neither"),
            (
                r#"{"fields": {"/a": {"replace": 1, "with": 2}}}"#,
                "unknown key `with`",
            ),
            (
                r#"{"fields": {"/a": {"replace": 1, "map": "x"}}}"#,
                "unknown key `map`",
            ),
            (
                r#"{"fields": {"/a": {"map": "x", "mising": "hold"}}}"#,
                "unknown key `mising`",
            ),
            (
                r#"{"fields": {"/a": {"map": "x", "missing": "drop"}}}"#,
                "`missing` is `drop`",
            ),
            (
                r#"{"fields": {"/a": {"map": "Student"}}}"#,
                "`map` is `Student`",
            ),
            (r#"{"fields": {"/a": {"map": ""}}}"#, "`map` is ``"),
            (r#"{"fields": {"/a": {"map": 7}}}"#, "`map` is not a string"),
            (
                r#"{"fields": {"/a": "drop", "/a": "drop"}}"#,
                "key `/a` twice",
            ),
            (r#"{"fields": {"/~2x": "drop", "/*x": "drop"}}"#, "twice"),
            (r#"{"rest": "keep"}"#, "`rest` is `keep`"),
            (r#"{"rest": {"map": "x"}}"#, "`rest` is a `map`"),
        ] {
            let refusal = refusal(json);
            assert!(refusal.contains(named), "{json}: {refusal}");
        }
    }

    #[test]
    fn a_path_that_could_never_count_is_refused() {
        for (json, hidden, by) in [
            (
                r#"{"allow": ["/user/name"], "fields": {"/user": "drop"}}"#,
                "/user/name",
                "/user",
            ),
            (
                r#"{"allow": ["/items/*/sku"], "fields": {"/items/*": "pseudonym"}}"#,
                "/items/*/sku",
                "/items/*",
            ),
            (
                r#"{"allow": ["/a/b/**"], "fields": {"/*/b": {"replace": 1}}}"#,
                "/a/b/**",
                "/*/b",
            ),
            (r#"{"fields": {"": "pseudonym", "/a": "drop"}}"#, "/a", ""),
            (
                r#"{"fields": {"/a": {"map": "x"}, "/a/**": "drop"}}"#,
                "/a/**",
                "/a",
            ),
        ] {
            let refusal = refusal(json);
            assert!(
                refusal.contains(&format!("`{hidden}` can never count, because `{by}` hides")),
                "{refusal}"
            );
        }
        for json in [
            r#"{"allow": ["/user/name"], "fields": {"/user/**": "drop"}}"#,
            r#"{"allow": ["/a/b", "/a/b/c"], "fields": {"/a/*": "drop"}}"#,
            r#"{"allow": ["/user"], "fields": {"/user/email": "drop"}}"#,
        ] {
            assert!(parse(json).is_ok(), "{json}");
        }
    }

    #[test]
    fn a_mask_has_bounds() {
        let list = |count: usize| {
            let paths: Vec<String> = (0..count).map(|n| format!("\"/{n}\"")).collect();
            format!("{{\"metadata\": [{}]}}", paths.join(","))
        };
        assert!(parse(&list(256)).is_ok());
        assert!(refusal(&list(257)).contains("more than 256 paths"));
        let replace =
            |bytes: usize| format!(r#"{{"rest": {{"replace": "{}"}}}}"#, "x".repeat(bytes - 2));
        assert!(parse(&replace(256)).is_ok());
        assert!(refusal(&replace(257)).contains("257 bytes"));
        assert!(refusal(&" ".repeat(70_000)).contains("70000 bytes"));
        assert!(refusal(&format!("{{\"allow\": {}", "[".repeat(9_999))).contains("deeply"));
    }
}
