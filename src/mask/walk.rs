//! Walks a payload beside the tree of a mask and writes down what is left of it.

use super::scan::{Scanner, Unreadable, unescape};
use super::tree::{Mapping, Trail, Treatment, Tree};
use super::{Refusal, refuse};

/// What to write for a value that has to be looked up or made up.
pub(super) trait Hand {
    /// The pseudonym of a value, by its JSON text.
    fn pseudonym(&mut self, json: &str) -> Result<String, Unreadable>;

    /// The external id for an internal one that stands where `path` names it.
    fn external(
        &mut self,
        mapping: &Mapping,
        path: &str,
        internal: String,
    ) -> Result<String, Refusal>;
}

/// What is left of a document. `None` where the whole of it is dropped.
pub(super) fn mask(
    tree: &Tree,
    json: &str,
    hand: &mut dyn Hand,
) -> Result<Option<String>, Refusal> {
    let mut walk = Walk {
        tree,
        trail: Trail::default(),
        scanner: Scanner::new(json),
        out: String::with_capacity(json.len()),
        most: json
            .len()
            .saturating_mul(MOST_GROWTH)
            .saturating_add(FREE_GROWTH),
        hand,
    };
    let level = walk.trail.start();
    let is_left = walk.value(level, 0, false)?;
    walk.scanner.end()?;
    Ok(is_left.then_some(walk.out))
}

struct Walk<'w, 't> {
    tree: &'w Tree,
    trail: Trail,
    scanner: Scanner<'t>,
    out: String,
    /// Bytes that `out` may have.
    most: usize,
    hand: &'w mut dyn Hand,
}

impl Walk<'_, '_> {
    /// The value that is next, whose nodes are those of the trail from `level` on, within `levels` containers. Says whether
    /// anything of it is left.
    fn value(&mut self, level: usize, levels: u32, is_member: bool) -> Result<bool, Refusal> {
        let tree = self.tree;
        let open = self.scanner.peek();
        let is_container = matches!(open, b'{' | b'[');
        let leads = is_container && tree.leads(&self.trail, level, open == b'[');
        match tree.fit(&self.trail, level) {
            Some(rule) if rule.shows() => {
                if is_container && tree.goes_on(&self.trail, level) {
                    return self.container(level, levels);
                }
                let text = self.scanner.value(levels)?;
                self.write(text)
            }
            Some(rule)
                if leads && rule.is_deep() && tree.leads_out(&self.trail, level, open == b'[') =>
            {
                self.container(level, levels)
            }
            Some(rule) => self.treat(&rule.treatment, &rule.path, levels),
            None if leads => self.container(level, levels),
            // Its name is nobody's to see, so nothing can stand beside it.
            None if is_member && !tree.leads(&self.trail, level, false) => {
                self.treat(&Treatment::Drop, "", levels)
            }
            None => self.treat(&tree.rest, "", levels),
        }
    }

    /// An object or an array of which something is to be seen: it stays, and each of its entries is looked at.
    fn container(&mut self, level: usize, levels: u32) -> Result<bool, Refusal> {
        let is_object = self.scanner.peek() == b'{';
        let (open, close) = if is_object { ('{', b'}') } else { ('[', b']') };
        self.scanner.enter(levels)?;
        let below = self.tree.go_below(&mut self.trail, level);
        self.out.push(open);
        let (mut index, mut is_empty) = (0, true);
        while self.scanner.another(index == 0, close)? {
            let before = self.out.len();
            if !is_empty {
                self.out.push(',');
            }
            let next = if is_object {
                self.name(level)?
            } else {
                self.index(level, index)
            };
            let is_left = self.value(next, levels + 1, is_object)?;
            self.trail.back(next);
            if is_left {
                is_empty = false;
            } else {
                self.out.truncate(before);
            }
            index += 1;
        }
        self.trail.leave(below);
        self.out.push(char::from(close));
        Ok(true)
    }

    fn name(&mut self, level: usize) -> Result<usize, Refusal> {
        let raw = self.scanner.name()?;
        self.out.push('"');
        self.out.push_str(raw);
        self.out.push_str("\":");
        let name = unescape(raw);
        Ok(self.tree.step(&mut self.trail, level, Some(&name)))
    }

    fn index(&mut self, level: usize, index: usize) -> usize {
        let mut digits = [0; 20];
        let name = decimal(index, &mut digits);
        self.tree.step(&mut self.trail, level, Some(name))
    }

    /// A value as one, whatever it holds.
    fn treat(&mut self, treatment: &Treatment, path: &str, levels: u32) -> Result<bool, Refusal> {
        let text = self.scanner.value(levels)?;
        match treatment {
            Treatment::Show => self.write(text),
            Treatment::Drop => Ok(false),
            Treatment::Replace(replacement) => self.write(replacement),
            Treatment::Pseudonym => {
                let pseudonym = self.hand.pseudonym(text)?;
                self.write_string(&pseudonym)
            }
            Treatment::Map(_) if text == "null" => self.write(text),
            Treatment::Map(mapping) => {
                let internal = internal_id(mapping, path, text)?;
                let external = self.hand.external(mapping, path, internal)?;
                self.write_string(&external)
            }
        }
    }

    fn write(&mut self, json: &str) -> Result<bool, Refusal> {
        self.out.push_str(json);
        if self.out.len() > self.most {
            return Err(refuse(format!(
                "the masked document would have more than {} bytes, {MOST_GROWTH} times as many as the document and {FREE_GROWTH}",
                self.most
            )));
        }
        Ok(true)
    }

    fn write_string(&mut self, text: &str) -> Result<bool, Refusal> {
        let json = serde_json::Value::from(text).to_string();
        self.write(&json)
    }
}

/// The text of an id: of a string what it means, of a number or a boolean how it is written.
fn internal_id(mapping: &Mapping, path: &str, json: &str) -> Result<String, Refusal> {
    let bad = |what: &str| {
        let kind = &mapping.kind;
        refuse(format!(
            "what stands at `{path}` is {what}, not an id of kind `{kind}`"
        ))
    };
    let internal = match json.as_bytes().first() {
        Some(b'{') => return Err(bad("an object")),
        Some(b'[') => return Err(bad("an array")),
        Some(b'"') => String::from_utf8(unescape(Scanner::new(json).string()?).into_owned())
            .map_err(|_| bad("a string with half of a surrogate pair"))?,
        _ => json.to_owned(),
    };
    if internal.len() > MOST_ID_BYTES {
        return Err(bad(&format!("longer than {MOST_ID_BYTES} bytes")));
    }
    if internal.contains('\0') {
        return Err(bad("a string with a NUL"));
    }
    Ok(internal)
}

/// Into the caller's buffer, which holds any `usize`, to spare an allocation for each element.
fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10).to_le_bytes()[0];
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

/// An array of single digits, each with a pseudonym, grows 13.5 times.
const MOST_GROWTH: usize = 16;
const FREE_GROWTH: usize = 64 * 1024;
/// So that a table with an index can hold every one.
const MOST_ID_BYTES: usize = 1024;
