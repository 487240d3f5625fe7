//! Reads the template of a body: JSON, some of whose strings hold placeholders.

use std::mem::take;

use super::EnvelopeError;
use super::names::{Meaning, Names, Segment, segments, shown};
use super::render::{Fact, Piece, escaped};

/// The pieces of a template.
pub(super) fn parse(template: &str, names: &mut Names<'_>) -> Result<Vec<Piece>, EnvelopeError> {
    if template.len() > MAX_LENGTH {
        let length = template.len();
        let rule = format!("it has {length} bytes, allowed are {MAX_LENGTH}");
        return Err(EnvelopeError::new(PLACE, &rule));
    }
    // The walk below relies on it: from here on every quote, comma and bracket is where JSON has them.
    serde_json::from_str::<serde_json::Value>(template)
        .map_err(|error| EnvelopeError::new(PLACE, &error.to_string()))?;
    let mut walk = Walk::new(template);
    walk.run(names).map_err(|(at, rule)| {
        let (line, column) = line_and_column(template, at);
        EnvelopeError::new(PLACE, &format!("{rule} at line {line} column {column}"))
    })?;
    Ok(walk.finish())
}

/// A walk over JSON that is known to be valid.
struct Walk<'t> {
    template: &'t str,
    pieces: Vec<Piece>,
    /// Up to where the template has become pieces.
    done: usize,
    /// The objects and arrays around this place.
    around: Vec<Container>,
    /// Where the mark of a test belongs: in which piece, which is text, and at which of its bytes.
    mark: Option<(usize, usize)>,
    /// The template has a top-level member `test` of its own.
    has_test: bool,
}

struct Container {
    is_object: bool,
    /// Where the comma before the present member is; `None` in the first.
    comma: Option<usize>,
    /// Where the present member's name begins.
    name: usize,
    /// Behind the colon.
    in_value: bool,
}

/// Where in the template, and which rule is broken.
type Refusal = (usize, String);

impl<'t> Walk<'t> {
    fn new(template: &'t str) -> Self {
        Self {
            template,
            pieces: Vec::new(),
            done: 0,
            around: Vec::new(),
            mark: None,
            has_test: false,
        }
    }

    fn run(&mut self, names: &mut Names<'_>) -> Result<(), Refusal> {
        let bytes = self.template.as_bytes();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'{' | b'[' => self.enter(*byte == b'{', at)?,
                b'}' | b']' => {
                    self.around.pop();
                }
                b',' => self.next_member(at),
                b':' => self.begin_value(),
                b'"' => {
                    let end = end_of_string(bytes, at);
                    self.string(at, end, names)?;
                    at = end;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        self.copy_until(bytes.len());
        Ok(())
    }

    fn finish(mut self) -> Vec<Piece> {
        if let (Some((place, at)), false) = (self.mark, self.has_test)
            && let Some(piece) = self.pieces.get_mut(place)
            && let Piece::Text(text) = piece
        {
            *piece = Piece::Markable(take(text), at);
        }
        self.pieces
    }

    fn enter(&mut self, is_object: bool, at: usize) -> Result<(), Refusal> {
        if self.around.len() == MAX_DEPTH {
            return Err((at, format!("nested deeper than {MAX_DEPTH}")));
        }
        self.around.push(Container {
            is_object,
            comma: None,
            name: at,
            in_value: false,
        });
        Ok(())
    }

    fn next_member(&mut self, comma: usize) {
        if let Some(container) = self.around.last_mut() {
            container.comma = Some(comma);
            container.in_value = false;
        }
    }

    fn begin_value(&mut self) {
        if let Some(container) = self.around.last_mut() {
            container.in_value = true;
        }
    }

    /// `start` is at the opening quote, `end` behind the closing one.
    fn string(&mut self, start: usize, end: usize, names: &mut Names<'_>) -> Result<(), Refusal> {
        let is_top = self.around.len() == 1;
        match self.around.last_mut() {
            Some(container) if container.is_object && !container.in_value => {
                container.name = start;
                let name = &self.template[start..end];
                self.has_test |= is_top && reads(name, "test");
                check_name(name).map_err(|rule| (start, rule))
            }
            _ => self.value(start, end, names),
        }
    }

    fn value(&mut self, start: usize, end: usize, names: &mut Names<'_>) -> Result<(), Refusal> {
        let inside = start + 1;
        let text = &self.template[inside..end - 1];
        let segments = segments(text).map_err(|(at, rule)| (inside + at, rule))?;
        if let [Segment::Placeholder { name, optional, .. }] = segments.as_slice() {
            let meaning = names.meaning(name, *optional);
            return match meaning.map_err(|rule| (start, rule))? {
                Meaning::Fact(fact) if *optional => self.member(fact, start, end),
                Meaning::Fact(fact) if fact.is_always_text() => {
                    self.copy_until(inside);
                    self.pieces.push(Piece::Inside(fact));
                    self.done = end - 1;
                    Ok(())
                }
                Meaning::Fact(fact) => {
                    self.whole(fact, start, end);
                    Ok(())
                }
                Meaning::Constant(text) => {
                    self.copy_until(inside);
                    self.push(&escaped(text));
                    self.done = end - 1;
                    Ok(())
                }
            };
        }
        for segment in segments {
            if let Segment::Placeholder { at, name, optional } = segment {
                let at = inside + at;
                self.inside(name, optional, at, names)
                    .map_err(|rule| (at, rule))?;
            }
        }
        Ok(())
    }

    fn whole(&mut self, fact: Fact, start: usize, end: usize) {
        if let (Fact::Data, None, [object]) = (fact, self.mark, self.around.as_slice())
            && object.is_object
        {
            self.copy_until(object.name);
            // At the least the object's brace or a comma has just been copied.
            if let Some(Piece::Text(text)) = self.pieces.last() {
                self.mark = Some((self.pieces.len() - 1, text.len()));
            }
        }
        self.copy_until(start);
        self.pieces.push(Piece::Whole(fact));
        self.done = end;
    }

    fn member(&mut self, fact: Fact, start: usize, end: usize) -> Result<(), Refusal> {
        let comma = match self.around.last() {
            Some(container) if container.is_object => container.comma.ok_or(FIRST),
            _ => Err(NO_MEMBER),
        };
        let comma = comma.map_err(|rule| (start, rule.to_owned()))?;
        self.copy_until(comma);
        let before = self.template.as_bytes()[comma..start].to_vec();
        self.pieces.push(Piece::Member(before, fact));
        self.done = end;
        Ok(())
    }

    /// A placeholder within a longer string.
    fn inside(
        &mut self,
        name: &str,
        optional: bool,
        at: usize,
        names: &mut Names<'_>,
    ) -> Result<(), String> {
        let meaning = names.meaning(name, optional)?;
        self.copy_until(at);
        match meaning {
            _ if optional => return Err(format!("\"{{{{{name}?}}}}\" {NOT_WHOLE}")),
            Meaning::Fact(fact) if fact.is_json() => {
                return Err(format!("\"{{{{{name}}}}}\" {NOT_WHOLE}"));
            }
            Meaning::Fact(fact) => self.pieces.push(Piece::Inside(fact)),
            Meaning::Constant(text) => self.push(&escaped(text)),
        }
        self.done = at + "{{}}".len() + name.len();
        Ok(())
    }

    fn copy_until(&mut self, at: usize) {
        let text = &self.template[self.done..at];
        self.push(text.as_bytes());
        self.done = at;
    }

    /// Adds to the text that the pieces end with.
    fn push(&mut self, bytes: &[u8]) {
        match self.pieces.last_mut() {
            _ if bytes.is_empty() => {}
            Some(Piece::Text(text)) => text.to_mut().extend_from_slice(bytes),
            _ => self.pieces.push(Piece::Text(bytes.to_vec().into())),
        }
    }
}

/// Behind the closing quote of the string that begins at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn check_name(name: &str) -> Result<(), String> {
    if name.contains("{{") || name.contains("}}") {
        let name = shown(name.trim_matches('"'));
        return Err(format!(
            "the member's name \"{name}\" has braces, placeholders are for values"
        ));
    }
    Ok(())
}

/// Whether a JSON string, quotes and all, reads as this text.
fn reads(string: &str, text: &str) -> bool {
    serde_json::from_str::<String>(string).is_ok_and(|read| read == text)
}

/// Counted from 1, columns in characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let last = before.rsplit('\n').next().unwrap_or_default();
    (line, last.chars().count() + 1)
}

const PLACE: &str = "template";
const FIRST: &str = "a member that may be left out cannot be the first of its object";
const NO_MEMBER: &str = "only a member of an object can be left out";
const NOT_WHOLE: &str = "must be the whole of its string";
const MAX_LENGTH: usize = 16 * 1024;
const MAX_DEPTH: usize = 32;
