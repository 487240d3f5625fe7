//! Paths of a mask: JSON Pointers (RFC 6901) with `*` and `**`, and which of two that fit is the narrower.

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// The member of this name, or the element of this index.
    Literal(Box<str>),
    /// Any member or element.
    Any,
}

/// A path as it is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) segments: Vec<Segment>,
    /// Whether a `**` follows: it names everything below, at any depth, instead of the place itself.
    pub(super) deep: bool,
}

impl Path {
    /// Reads `/a/*/b~1c` and its like. The error says what rule the path breaks, without the path.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut path = Self {
            segments: Vec::new(),
            deep: false,
        };
        if text.is_empty() {
            return Ok(path);
        }
        if text.len() > MOST_BYTES {
            return Err(format!("has more than {MOST_BYTES} bytes"));
        }
        let Some(steps) = text.strip_prefix('/') else {
            return Err("starts with something other than `/`".to_owned());
        };
        for step in steps.split('/') {
            if path.deep {
                return Err("goes on after `**`, which must be the last segment".to_owned());
            }
            match step {
                "*" => path.segments.push(Segment::Any),
                "**" => path.deep = true,
                literal => path.segments.push(Segment::Literal(unescape(literal)?)),
            }
        }
        if path.segments.len() > MOST_SEGMENTS {
            return Err(format!("has more than {MOST_SEGMENTS} segments"));
        }
        Ok(path)
    }

    pub(super) fn shape(&self) -> Shape {
        let (mut any, mut length) = (0, 0);
        for segment in &self.segments {
            any |= u32::from(*segment == Segment::Any) << length;
            length += 1;
        }
        Shape {
            any,
            length,
            deep: self.deep,
        }
    }

    /// Sorts paths that fit one value: the first is literal where the others are not yet.
    pub(super) fn rank(&self) -> Vec<u8> {
        let kinds = self
            .segments
            .iter()
            .map(|segment| u8::from(*segment == Segment::Any));
        kinds.chain(self.deep.then_some(2)).collect()
    }
}

/// Where a path has its wildcards. Of two paths that fit the same value, all else is equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// A bit for each `*`.
    any: u32,
    /// Segments, a `**` not counted.
    length: u32,
    deep: bool,
}

impl Shape {
    pub(super) fn is_deep(self) -> bool {
        self.deep
    }

    /// Whether this one names less than the other: nothing that the other does not name, and not the same. Both fit one value.
    pub(super) fn is_narrower_than(self, other: Self) -> bool {
        if self == other || (self.deep && (!other.deep || self.length < other.length)) {
            return false;
        }
        let first = u32::MAX
            .checked_shl(other.length)
            .map_or(u32::MAX, |after| !after);
        // Where the other has a literal, this one may have no wildcard.
        self.any & first & !other.any == 0
    }
}

/// `~0`, `~1` and `~2` stand for `~`, `/` and `*`.
fn unescape(step: &str) -> Result<Box<str>, String> {
    let mut plain = String::with_capacity(step.len());
    let mut characters = step.chars();
    while let Some(character) = characters.next() {
        if character != '~' {
            plain.push(character);
            continue;
        }
        plain.push(match characters.next() {
            Some('0') => '~',
            Some('1') => '/',
            Some('2') => '*',
            _ => return Err("has a `~` that is not part of `~0`, `~1` or `~2`".to_owned()),
        });
    }
    Ok(plain.into())
}

/// One bit of a [`Shape`] each.
const MOST_SEGMENTS: usize = 32;
const MOST_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn narrower(one: &str, other: &str) -> bool {
        let shape = |text| Path::parse(text).unwrap().shape();
        shape(one).is_narrower_than(shape(other))
    }

    #[test]
    fn a_path_is_a_json_pointer_with_stars() {
        let literal = |text: &str| Segment::Literal(text.into());
        let cases = [
            ("", vec![], false),
            ("/", vec![literal("")], false),
            ("//a", vec![literal(""), literal("a")], false),
            ("/a~1b~0c/~01", vec![literal("a/b~c"), literal("~1")], false),
            ("/*/x", vec![Segment::Any, literal("x")], false),
            (
                "/~2/~2~2/a*/***",
                vec![literal("*"), literal("**"), literal("a*"), literal("***")],
                false,
            ),
            ("/**", vec![], true),
            ("/a/*/**", vec![literal("a"), Segment::Any], true),
        ];
        for (text, segments, deep) in cases {
            assert_eq!(Path::parse(text), Ok(Path { segments, deep }), "{text}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for (text, rule) in [
            ("a", "starts with"),
            ("#/a", "starts with"),
            ("/a~", "`~`"),
            ("/a~3", "`~`"),
            ("/**/a", "after `**`"),
            ("/**/**", "after `**`"),
            (&"/a".repeat(33), "32 segments"),
            (&format!("/{}", "a".repeat(1024)), "1024 bytes"),
        ] {
            assert!(Path::parse(text).unwrap_err().contains(rule), "{text}");
        }
        assert!(Path::parse(&"/*".repeat(32)).is_ok());
    }

    #[test]
    fn a_narrower_path_names_less_of_the_same() {
        for (one, other) in [
            ("/a/b", "/a/*"),
            ("/a/b", "/*/*"),
            ("/a/*", "/*/*"),
            ("/a/b", "/a/**"),
            ("/a/b", "/**"),
            ("/*/*", "/**"),
            ("/a/*/**", "/a/**"),
            ("/a/**", "/**"),
            ("/a/**", "/*/**"),
            ("/a/b/*/c", "/*/b/**"),
        ] {
            assert!(narrower(one, other), "{one} {other}");
            assert!(!narrower(other, one), "{other} {one}");
        }
    }

    #[test]
    fn of_paths_that_cross_neither_is_narrower_nor_of_equal_ones() {
        for (one, other) in [
            ("/a/*", "/*/b"),
            ("/a/**", "/*/b"),
            ("/a/**", "/*/b/**"),
            ("/a/b/**", "/*/*/*"),
            ("/a", "/a"),
            ("/**", "/**"),
            ("/*/*", "/*/*"),
            ("/a/*/c", "/*/b/**"),
        ] {
            assert!(!narrower(one, other), "{one} {other}");
            assert!(!narrower(other, one), "{other} {one}");
        }
        assert!(narrower(&"/a".repeat(32), &"/*".repeat(32)));
    }
}
