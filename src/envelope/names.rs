//! Placeholders in a text, and what their names mean.

use std::collections::{BTreeMap, BTreeSet};

use super::EnvelopeError;
use super::render::Fact;

/// A stretch of a text.
pub(super) enum Segment<'t> {
    Text(&'t str),
    Placeholder {
        /// Where it begins, in bytes of the text.
        at: usize,
        name: &'t str,
        /// Whether `?` stands behind the name.
        optional: bool,
    },
}

/// Cuts a text at its placeholders. No stretch of text is empty.
///
/// # Errors
/// Braces without their counterpart: where, and the rule.
pub(super) fn segments(text: &str) -> Result<Vec<Segment<'_>>, (usize, String)> {
    let mut segments = Vec::new();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let until = rest.find("{{").unwrap_or(rest.len());
        let (before, from) = rest.split_at(until);
        if let Some(stray) = before.find("}}") {
            return Err((at + stray, unbalanced("}}", "{{")));
        }
        if !before.is_empty() {
            segments.push(Segment::Text(before));
        }
        if from.is_empty() {
            return Ok(segments);
        }
        at += until;
        let inside = &from[2..];
        let end = inside
            .find("}}")
            .ok_or_else(|| (at, unbalanced("{{", "}}")))?;
        let (name, optional) = match inside[..end].strip_suffix('?') {
            Some(name) => (name, true),
            None => (&inside[..end], false),
        };
        segments.push(Segment::Placeholder { at, name, optional });
        at += 2 + end + 2;
    }
}

/// What placeholders stand for in one envelope: facts of the event, and the subscription's constants.
pub(super) struct Names<'v> {
    /// `None`: whatever constant is asked for exists.
    given: Option<&'v BTreeMap<String, String>>,
    used: BTreeSet<String>,
    placeholders: usize,
}

/// What one placeholder stands for.
pub(super) enum Meaning<'v> {
    Fact(Fact),
    Constant(&'v str),
}

impl<'v> Names<'v> {
    /// With just these constants.
    pub(super) fn with(values: &'v BTreeMap<String, String>) -> Self {
        Self {
            given: Some(values),
            ..Self::open()
        }
    }

    /// With any constant that a template asks for.
    pub(super) fn open() -> Self {
        Self {
            given: None,
            used: BTreeSet::new(),
            placeholders: 0,
        }
    }

    pub(super) fn meaning(&mut self, name: &str, optional: bool) -> Result<Meaning<'v>, String> {
        self.placeholders += 1;
        if self.placeholders > MAX_PLACEHOLDERS {
            return Err(format!("more than {MAX_PLACEHOLDERS} placeholders"));
        }
        let meaning = match name.strip_prefix("values.") {
            Some(constant) => self.constant(constant)?,
            None => Meaning::Fact(Fact::named(name).ok_or_else(|| unknown(name))?),
        };
        match meaning {
            Meaning::Fact(fact) if optional && !fact.can_be_missing() => Err(never_missing(name)),
            Meaning::Constant(_) if optional => Err(never_missing(name)),
            meaning => Ok(meaning),
        }
    }

    /// The constants that were asked for.
    ///
    /// # Errors
    /// One was given that was not: a name misspelt, most likely.
    pub(super) fn used(self) -> Result<BTreeSet<String>, EnvelopeError> {
        let mut given = self.given.into_iter().flat_map(BTreeMap::keys);
        match given.find(|name| !self.used.contains(*name)) {
            Some(name) => Err(EnvelopeError::at("values", name, "is not in the envelope")),
            None => Ok(self.used),
        }
    }

    fn constant(&mut self, name: &str) -> Result<Meaning<'v>, String> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_name) {
            let name = shown(name);
            return Err(format!(
                "\"values.{name}\": a value's name is 1 to {MAX_NAME} characters of A-Z a-z 0-9 _ -"
            ));
        }
        let text = match self.given {
            None => "",
            Some(given) => {
                let text = given.get(name).ok_or_else(|| {
                    format!("\"{{{{values.{name}}}}}\": the subscription gives no such value")
                })?;
                check_value(name, text)?
            }
        };
        self.used.insert(name.to_owned());
        Ok(Meaning::Constant(text))
    }
}

/// A piece of a template, escaped and cut, so that it cannot forge a log line or fill one.
pub(super) fn shown(piece: &str) -> String {
    let cut: String = piece.chars().take(MAX_SHOWN).collect();
    let dots = if cut.len() < piece.len() { ".." } else { "" };
    format!("{}{dots}", cut.escape_default())
}

fn check_value<'v>(name: &str, text: &'v str) -> Result<&'v str, String> {
    match text.len() {
        1..=MAX_VALUE => Ok(text),
        length => Err(format!(
            "values.{name} has {length} bytes, allowed are 1 to {MAX_VALUE}"
        )),
    }
}

fn unknown(name: &str) -> String {
    let known: Vec<_> = Fact::ALL.iter().map(|(name, _)| *name).collect();
    let (name, known) = (shown(name), known.join(", "));
    format!("\"{{{{{name}}}}}\": no such name (without spaces); there are {known} and values.NAME")
}

fn never_missing(name: &str) -> String {
    format!("\"{{{{{name}?}}}}\" is never missing; `?` is for tenant and metadata")
}

fn unbalanced(braces: &str, others: &str) -> String {
    format!(
        "\"{braces}\" without \"{others}\"; where braces are meant, write one as \\u007b or \\u007d in the body, and let a value hold them in a header"
    )
}

const MAX_PLACEHOLDERS: usize = 64;
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 1024;
const MAX_SHOWN: usize = 40;
