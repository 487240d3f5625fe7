//! Pseudonyms: names for values, the same for the same partner and meaningless to everyone else.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::scan::{Scanner, Unreadable, unescape};

/// What a partner's pseudonyms are made under: 32 random bytes, one key for each partner, never replaced (another key is another
/// name for everyone). Whoever has it can guess values and see whether their pseudonyms match.
#[derive(Clone)]
pub struct PseudonymKey(Zeroizing<[u8; 32]>);

impl PseudonymKey {
    /// From the bytes, which must be random.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PseudonymKey(hidden)")
    }
}

/// Makes pseudonyms for one partner.
pub(super) struct Pseudonyms(Hmac<Sha256>);

impl Pseudonyms {
    pub(super) fn new(key: &PseudonymKey) -> Self {
        // HMAC fills up a key with zeros to one block. Done here, it cannot fail.
        let mut block = Zeroizing::new([0; 64]);
        for (slot, byte) in block.iter_mut().zip(key.0.iter()) {
            *slot = *byte;
        }
        Self(Hmac::<Sha256>::new((&*block).into()))
    }

    /// Of a value, by its JSON text: of what it means, not of how it is written, except that `1.0` and `1` are two numbers and that
    /// members have an order.
    pub(super) fn of_value(&self, json: &str) -> Result<String, Unreadable> {
        let mut mac = self.tagged(b"value");
        add_value(&mut mac, &mut Scanner::new(json), 0)?;
        Ok(name(mac))
    }

    /// Of an internal id, whether a payload has it as a string, a number or a boolean.
    pub(super) fn of_id(&self, kind: &str, internal: &str) -> String {
        let mut mac = self.tagged(b"id");
        add_text(&mut mac, b's', kind.as_bytes());
        add_text(&mut mac, b's', internal.as_bytes());
        name(mac)
    }

    fn tagged(&self, purpose: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        add_text(&mut mac, b'#', b"posthaste pseudonym 1");
        add_text(&mut mac, b'#', purpose);
        mac
    }
}

/// The canonical form: each scalar with its type and its length in front, containers between brackets. No two values share one, and
/// none is the beginning of another.
fn add_value(
    mac: &mut Hmac<Sha256>,
    scanner: &mut Scanner<'_>,
    levels: u32,
) -> Result<(), Unreadable> {
    let open = scanner.peek();
    let close = match open {
        b'{' => b'}',
        b'[' => b']',
        b'"' => {
            add_text(mac, b's', &unescape(scanner.string()?));
            return Ok(());
        }
        _ => {
            add_text(mac, b'w', scanner.value(levels)?.as_bytes());
            return Ok(());
        }
    };
    mac.update(&[open]);
    scanner.enter(levels)?;
    let mut first = true;
    while scanner.another(first, close)? {
        if open == b'{' {
            add_text(mac, b's', &unescape(scanner.name()?));
        }
        add_value(mac, scanner, levels + 1)?;
        first = false;
    }
    mac.update(&[close]);
    Ok(())
}

fn add_text(mac: &mut Hmac<Sha256>, kind: u8, text: &[u8]) {
    mac.update(&[kind]);
    mac.update(&(text.len() as u64).to_be_bytes());
    mac.update(text);
}

/// `p_` and 22 characters.
fn name(mac: Hmac<Sha256>) -> String {
    let tag = mac.finalize().into_bytes();
    let mut name = String::with_capacity(PSEUDONYM_BYTES);
    name.push_str("p_");
    BASE64.encode_string(&tag[..16], &mut name);
    name
}

/// Of one pseudonym, without quotes.
pub(super) const PSEUDONYM_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use super::*;

    fn of(json: &str) -> String {
        Pseudonyms::new(&PseudonymKey::new([7; 32]))
            .of_value(json)
            .unwrap()
    }

    #[test]
    fn a_pseudonym_is_one_word_of_24_characters_that_never_changes() {
        // Made once by another program from the description of the form.
        assert_eq!(of(r#""alice""#), "p_7jlpaq5lmgiP9oUxm3pCIg");
        assert_eq!(of(r#"{"a":[1,null]}"#), "p_hCJBBlkkqKCLM9qQtVFLtg");
        let pseudonyms = Pseudonyms::new(&PseudonymKey::new([7; 32]));
        assert_eq!(
            pseudonyms.of_id("student", "4711"),
            "p_mwptZSw4RXLZhRx6fg6kOg"
        );
    }

    #[test]
    fn what_means_the_same_has_one_pseudonym() {
        for (one, other) in [
            (r#""aé/""#, r#""\u0061\u00e9\/""#),
            (r#""😀""#, r#""\uD83D\ude00""#),
            (r#"{"a": [1 , true]}"#, r#"{"\u0061":[1,true]}"#),
            ("[ ]", "[]"),
        ] {
            assert_eq!(of(one), of(other), "{one} {other}");
        }
    }

    #[test]
    fn what_means_something_else_has_another() {
        let values = [
            "1",
            "1.0",
            "\"1\"",
            "true",
            "\"true\"",
            "null",
            "\"null\"",
            "\"\"",
            "[]",
            "{}",
            "[[]]",
            "[{}]",
            "[1]",
            "[\"1\"]",
            "[1,2]",
            "[12]",
            "[[1],2]",
            "[[1,2]]",
            r#"["1","2"]"#,
            r#"["asb"]"#,
            r#"["a","b"]"#,
            r#"["12"]"#,
            r#"{"1":"2"}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"b":2,"a":1}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":1}"#,
            r#""\ud800""#,
            r#""\ud801""#,
            r#""\ufffd""#,
            r#""\u0000""#,
        ];
        let pseudonyms: HashSet<String> = values.iter().map(|value| of(value)).collect();
        assert_eq!(pseudonyms.len(), values.len());
    }

    #[test]
    fn neither_partners_nor_kinds_nor_purposes_share_pseudonyms() {
        let (one, other) = (PseudonymKey::new([1; 32]), PseudonymKey::new([2; 32]));
        let (one, other) = (Pseudonyms::new(&one), Pseudonyms::new(&other));
        let all = [
            one.of_value("\"a\"").unwrap(),
            other.of_value("\"a\"").unwrap(),
            one.of_id("student", "a"),
            other.of_id("student", "a"),
            one.of_id("teacher", "a"),
            one.of_id("studenta", ""),
            one.of_id("", "studenta"),
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(
            format!("{:?}", PseudonymKey::new([9; 32])),
            "PseudonymKey(hidden)"
        );
    }
}
