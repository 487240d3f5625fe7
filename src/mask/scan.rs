//! Reads JSON text token by token, in place: nothing is built and no number is parsed, so what is shown keeps its bytes.

use std::borrow::Cow;

/// Why a text cannot be read. It never holds any of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Not JSON from this byte on.
    Malformed(usize),
    /// More than [`MOST_LEVELS`] arrays and objects in each other.
    TooDeep,
}

/// A place in a JSON text.
pub(super) struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scanner<'t> {
    /// At the first byte of the text that is not white space.
    pub(super) fn new(text: &'t str) -> Self {
        let mut scanner = Self { text, at: 0 };
        scanner.space();
        scanner
    }

    /// The next byte; 0, which stands nowhere in JSON, at the end.
    pub(super) fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    /// Passes one value whole, which lies within `levels` containers, and gives its text.
    pub(super) fn value(&mut self, levels: u32) -> Result<&'t str, Unreadable> {
        let start = self.at;
        self.pass(levels)?;
        Ok(&self.text[start..self.at])
    }

    /// Passes a string and gives what stands between its quotes, escapes as they are.
    pub(super) fn string(&mut self) -> Result<&'t str, Unreadable> {
        if self.peek() != b'"' {
            return self.malformed();
        }
        let start = self.at + 1;
        self.pass_string()?;
        Ok(&self.text[start..self.at - 1])
    }

    /// Passes the opening bracket of a container that lies within `levels` others.
    pub(super) fn enter(&mut self, levels: u32) -> Result<(), Unreadable> {
        if levels >= MOST_LEVELS {
            return Err(Unreadable::TooDeep);
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// Passes what stands between two entries, or the closing bracket. Says whether another entry follows.
    pub(super) fn another(&mut self, first: bool, close: u8) -> Result<bool, Unreadable> {
        self.space();
        if self.peek() == close {
            self.at += 1;
            return Ok(false);
        }
        if !first {
            self.expect(b',')?;
        }
        Ok(true)
    }

    /// Passes a member's name and the colon, and gives the name as [`string`](Self::string) does.
    pub(super) fn name(&mut self) -> Result<&'t str, Unreadable> {
        let name = self.string()?;
        self.space();
        self.expect(b':')?;
        Ok(name)
    }

    /// Makes sure that nothing but white space is left.
    pub(super) fn end(&mut self) -> Result<(), Unreadable> {
        self.space();
        if self.at == self.text.len() {
            Ok(())
        } else {
            self.malformed()
        }
    }

    /// Without recursion: the kinds of the open containers are bits, a one for each object.
    fn pass(&mut self, levels: u32) -> Result<(), Unreadable> {
        let (mut open, mut kinds) = (0, 0_u128);
        loop {
            let mut first = false;
            match self.peek() {
                bracket @ (b'{' | b'[') => {
                    self.enter(levels + open)?;
                    open += 1;
                    kinds = kinds << 1 | u128::from(bracket == b'{');
                    first = true;
                }
                _ => self.pass_scalar()?,
            }
            loop {
                if open == 0 {
                    return Ok(());
                }
                let in_object = kinds & 1 == 1;
                if self.another(first, if in_object { b'}' } else { b']' })? {
                    if in_object {
                        self.name()?;
                    }
                    break;
                }
                open -= 1;
                kinds >>= 1;
                first = false;
            }
        }
    }

    fn pass_scalar(&mut self) -> Result<(), Unreadable> {
        match self.peek() {
            b'"' => self.pass_string(),
            b't' => self.pass_word("true"),
            b'f' => self.pass_word("false"),
            b'n' => self.pass_word("null"),
            _ => self.pass_number(),
        }
    }

    fn pass_string(&mut self) -> Result<(), Unreadable> {
        self.at += 1;
        loop {
            self.pass_plain();
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.pass_escape()?,
                _ => return self.malformed(),
            }
        }
    }

    /// Up to the next byte that means something in a string: a quote, a backslash, a control character. Eight bytes at a time.
    fn pass_plain(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(eight) = bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<8>())
        {
            let marks = special(u64::from_le_bytes(*eight));
            if marks != 0 {
                // Each byte's mark is its highest bit, and the lowest mark is the first byte's and never false.
                self.at += (marks.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while let Some(byte) = bytes.get(self.at) {
            if *byte < 0x20 || matches!(byte, b'"' | b'\\') {
                return;
            }
            self.at += 1;
        }
    }

    fn pass_escape(&mut self) -> Result<(), Unreadable> {
        self.at += 1;
        match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_ascii_hexdigit() {
                        return self.malformed();
                    }
                    self.at += 1;
                }
            }
            _ => return self.malformed(),
        }
        Ok(())
    }

    fn pass_number(&mut self) -> Result<(), Unreadable> {
        self.pass_if(|byte| byte == b'-');
        if self.peek() == b'0' {
            self.at += 1;
        } else {
            self.pass_digits()?;
        }
        if self.pass_if(|byte| byte == b'.') {
            self.pass_digits()?;
        }
        if self.pass_if(|byte| matches!(byte, b'e' | b'E')) {
            self.pass_if(|byte| matches!(byte, b'+' | b'-'));
            self.pass_digits()?;
        }
        Ok(())
    }

    fn pass_digits(&mut self) -> Result<(), Unreadable> {
        if !self.peek().is_ascii_digit() {
            return self.malformed();
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    fn pass_word(&mut self, word: &str) -> Result<(), Unreadable> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.malformed();
        }
        self.at += word.len();
        Ok(())
    }

    fn pass_if(&mut self, wanted: impl Fn(u8) -> bool) -> bool {
        let found = wanted(self.peek());
        self.at += usize::from(found);
        found
    }

    /// Passes this byte and white space after it.
    fn expect(&mut self, byte: u8) -> Result<(), Unreadable> {
        if self.peek() != byte {
            return self.malformed();
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    fn malformed<T>(&self) -> Result<T, Unreadable> {
        Err(Unreadable::Malformed(self.at))
    }
}

/// What a string means, by what [`Scanner::string`] gave: UTF-8, but for surrogates that have no partner, which are encoded as if
/// they were characters of their own. So two strings give the same bytes if and only if they are equal.
pub(super) fn unescape(raw: &str) -> Cow<'_, [u8]> {
    let bytes = raw.as_bytes();
    if !bytes.contains(&b'\\') {
        return Cow::Borrowed(bytes);
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            plain.push(*byte);
            continue;
        }
        let Some((escape, after)) = rest.split_first() else {
            break;
        };
        rest = after;
        match escape {
            b'b' => plain.push(0x08),
            b'f' => plain.push(0x0c),
            b'n' => plain.push(b'\n'),
            b'r' => plain.push(b'\r'),
            b't' => plain.push(b'\t'),
            b'u' => rest = unescape_unit(rest, &mut plain),
            other => plain.push(*other),
        }
    }
    Cow::Owned(plain)
}

/// After a `\u`. Takes the second half of a pair with it.
fn unescape_unit<'r>(rest: &'r [u8], plain: &mut Vec<u8>) -> &'r [u8] {
    let Some((mut unit, mut rest)) = hex_unit(rest) else {
        return rest;
    };
    if (0xd800..0xdc00).contains(&unit)
        && let Some((low, after)) = rest.strip_prefix(b"\\u").and_then(hex_unit)
        && (0xdc00..0xe000).contains(&low)
    {
        unit = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        rest = after;
    }
    push_code_point(unit, plain);
    rest
}

fn hex_unit(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = rest.split_first_chunk::<4>()?;
    let unit = digits.iter().try_fold(0, |unit, digit| {
        Some(unit << 4 | char::from(*digit).to_digit(16)?)
    })?;
    Some((unit, rest))
}

fn push_code_point(unit: u32, plain: &mut Vec<u8>) {
    if let Some(character) = char::from_u32(unit) {
        plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        let tail = |shift: u32| 0x80 | (unit >> shift & 0x3f).to_le_bytes()[0];
        plain.extend_from_slice(&[0xe0 | (unit >> 12).to_le_bytes()[0], tail(6), tail(0)]);
    }
}

/// The highest bit of each byte that means something in a string. Only bytes above the first that does may be marked wrongly.
fn special(eight: u64) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = LOW << 7;
    let zeros = |word: u64| word.wrapping_sub(LOW) & !word & HIGH;
    let controls = eight.wrapping_sub(LOW * 0x20) & !eight & HIGH;
    zeros(eight ^ (LOW * 0x22)) | zeros(eight ^ (LOW * 0x5c)) | controls
}

/// Arrays and objects in each other, of a payload. The bits of a `u128` hold their kinds.
pub(super) const MOST_LEVELS: u32 = 128;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<&str, Unreadable> {
        let mut scanner = Scanner::new(text);
        let value = scanner.value(0)?;
        scanner.end()?;
        Ok(value)
    }

    #[test]
    fn a_value_is_given_as_it_stands() {
        for text in [
            "0",
            "-0",
            "1.50",
            "1e400",
            "-12.0E+07",
            "true",
            "false",
            "null",
            r#""""#,
            r#""\ud800""#,
            "[]",
            "[ ]",
            "{}",
            "{ }",
            "[1 , 2]",
            r#"{"a" : [ {"b":{}} , "x" ]}"#,
            "\"\u{7f}é\u{2028}\"",
        ] {
            assert_eq!(read(&format!("\n\t {text} \r")), Ok(text));
        }
    }

    #[test]
    fn anything_else_is_malformed_where_it_goes_wrong() {
        for (text, at) in [
            ("", 0),
            (" ", 1),
            ("01", 1),
            ("-", 1),
            ("1.", 2),
            ("1e", 2),
            ("1e+", 3),
            (".5", 0),
            ("+1", 0),
            ("tru", 0),
            ("nulll", 4),
            ("\"", 1),
            ("\"\\x\"", 2),
            ("\"\\u12g4\"", 5),
            ("\"a\nb\"", 2),
            ("[", 1),
            ("[1", 2),
            ("[1,]", 3),
            ("[,1]", 1),
            ("[1 2]", 3),
            ("[1}", 2),
            ("{\"a\":1]", 6),
            ("{", 1),
            ("{a:1}", 1),
            ("{\"a\"}", 4),
            ("{\"a\":}", 5),
            ("{\"a\":1,}", 7),
            ("1 1", 2),
            ("\u{feff}1", 0),
            ("'a'", 0),
            ("NaN", 0),
            ("[1]]", 3),
            ("\"0123456\u{1f}\"", 8),
            ("\0", 0),
            ("[1\0]", 2),
        ] {
            assert_eq!(read(text), Err(Unreadable::Malformed(at)), "{text:?}");
        }
    }

    #[test]
    fn what_lies_deeper_than_the_bound_is_not_read() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(read(&nested(128)).is_ok());
        assert_eq!(read(&nested(129)), Err(Unreadable::TooDeep));
        assert_eq!(read(&"[".repeat(1_000_000)), Err(Unreadable::TooDeep));
        assert_eq!(
            read(&r#"{"a":"#.repeat(1_000_000)),
            Err(Unreadable::TooDeep)
        );
        let beside = format!("[{}]", vec![nested(127); 9].join(","));
        assert!(read(&beside).is_ok());
    }

    #[test]
    fn escapes_mean_what_they_stand_for() {
        let cases: [(&str, &[u8]); 8] = [
            ("plain", b"plain"),
            (r"\u0061\u00e9", "aé".as_bytes()),
            (r#"\"\\\/\b\f\n\r\t"#, b"\"\\/\x08\x0c\n\r\t"),
            (r"\ud83d\ude00", "😀".as_bytes()),
            (r"\uD800x", b"\xed\xa0\x80x"),
            (r"\ud800\ud83d\ude00", b"\xed\xa0\x80\xf0\x9f\x98\x80"),
            (r"\ud800\u0061", b"\xed\xa0\x80a"),
            (r"\u0000", b"\0"),
        ];
        for (raw, plain) in cases {
            assert_eq!(unescape(raw).as_ref(), plain, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_serde_reads(text in r#"[\[\]{}":,0-9a-etrufnls\\. -]{0,24}"#) {
            let (ours, theirs) = (read(&text), serde_json::from_str::<serde_json::Value>(&text));
            // Serde refuses half of a surrogate pair and numbers that a float cannot hold.
            let may_differ = text.contains("\\u") || text.contains('e');
            prop_assert_eq!(ours.is_ok(), theirs.is_ok() || (may_differ && ours.is_ok()));
        }

        #[test]
        fn a_string_means_what_serde_says(text in any::<String>(), escaped in "[a-c\"\\\\/bfnrtu0-9]{0,16}") {
            let written = serde_json::to_string(&text).unwrap();
            let raw = Scanner::new(&written).string().unwrap();
            prop_assert_eq!(unescape(raw).into_owned(), text.as_bytes().to_vec());
            let escaped = format!("\"{escaped}\"");
            if let Ok(theirs) = serde_json::from_str::<String>(&escaped) {
                let raw = Scanner::new(&escaped).string().unwrap();
                prop_assert_eq!(unescape(raw).into_owned(), theirs.as_bytes().to_vec());
            }
        }

        #[test]
        fn a_byte_that_means_something_is_found_wherever_it_stands(before in "[ -!#-\\[\\]-~é]{0,20}", special in 0_u8..0x22) {
            let special = match special { 0x20 => b'"', 0x21 => b'\\', control => control };
            let text = format!("\"{before}{}zzzzzzzzz", char::from(special));
            let mut scanner = Scanner { text: &text, at: 1 };
            scanner.pass_plain();
            prop_assert_eq!(scanner.at, 1 + before.len());
        }
    }
}
