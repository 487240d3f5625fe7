//! HMAC-SHA256 over parts, and the ways in which its result is written.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// An HMAC that has taken in these parts, one after the other. The key may have any length.
pub(super) fn authenticate(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    // HMAC fills up a key with zeros to one block, and hashes one that is longer. Done here, it cannot fail.
    let mut block = Zeroizing::new([0; 64]);
    if key.len() <= block.len() {
        fill(&mut block, key);
    } else {
        fill(
            &mut block,
            &Zeroizing::new(<[u8; 32]>::from(Sha256::digest(key)))[..],
        );
    }
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac
}

/// The 32 bytes that prove these parts.
pub(super) fn tag(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    authenticate(key, parts).finalize().into_bytes().into()
}

/// Whether any of these tags is the right one under any of these keys. It takes the same time wherever a difference lies.
pub(super) fn any_matches<'k>(
    keys: impl IntoIterator<Item = &'k [u8]>,
    parts: &[&[u8]],
    tags: &[Vec<u8>],
) -> bool {
    keys.into_iter().any(|key| {
        let expected = authenticate(key, parts);
        tags.iter()
            .any(|tag| expected.clone().verify_slice(tag).is_ok())
    })
}

/// Appends padded base64.
pub(super) fn push_base64(text: &mut String, bytes: &[u8]) {
    BASE64.encode_string(bytes, text);
}

/// Appends two lower-case digits a byte.
pub(super) fn push_hex(text: &mut String, bytes: &[u8]) {
    let digit = |value: u8| {
        char::from(if value < 10 {
            b'0' + value
        } else {
            b'a' + value - 10
        })
    };
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
}

/// Reads what [`push_base64`] writes.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// Reads what [`push_hex`] writes; capital letters too.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let value = |digit: &u8| char::from(*digit).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let byte = |[high, low]: &[u8; 2]| u8::try_from(value(high)? << 4 | value(low)?).ok();
    pairs.iter().map(byte).collect()
}

/// Writes into the caller's buffer, which holds any `i64`, to spare an allocation.
pub(super) fn decimal(number: i64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut rest = &mut buffer[..];
    let written = match write!(rest, "{number}") {
        Ok(()) => 20 - rest.len(),
        Err(_) => 0,
    };
    &buffer[..written]
}

fn fill(block: &mut [u8; 64], bytes: &[u8]) {
    for (slot, byte) in block.iter_mut().zip(bytes) {
        *slot = *byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_reads_back_and_nothing_else_is_hex() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut text = String::new();
        push_hex(&mut text, &bytes);
        assert!(text.starts_with("000102") && text.ends_with("fdfeff"));
        assert_eq!(from_hex(&text), Some(bytes.clone()));
        assert_eq!(from_hex(&text.to_uppercase()), Some(bytes));
        for text in ["0", "0g", "g0", " 0", "+1", "é"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }

    // RFC 4231, test case 6.
    #[test]
    fn a_key_longer_than_a_block_is_hashed() {
        let data = b"Test Using Larger Than Block-Size Key - Hash Key First";
        let mut text = String::new();
        push_hex(&mut text, &tag(&[0xaa; 131], &[data]));
        assert_eq!(
            text,
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
