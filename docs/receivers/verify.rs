//! Verifies webhooks signed as Standard Webhooks, version 1. Copy this file; since Rust's own library has no HMAC, it needs
//! `base64 = "0.22"` or later, `hmac = "0.13"` and `sha2 = "0.11"`.
//!
//! ```ignore
//! verify(&secrets, header, &body, now)?; // `header` gives a header's value by its name: |name| headers.get(name)?.to_str().ok()
//! ```
//!
//! `body` is the bytes as they came, before any JSON parser. Answer 401 to what is not genuine.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Seconds between the sender's clock and yours, either way.
const TOLERANCE: u64 = 300;

/// Ok where one signature matches under one secret, else a word that says why not.
///
/// `secrets` are `whsec_...`, two during a rotation; `header` looks a header up, whatever its case; `now` is in Unix seconds.
pub fn verify<'h>(
    secrets: &[String],
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now: i64,
) -> Result<(), &'static str> {
    let keys: Vec<Vec<u8>> = secrets
        .iter()
        .map(|s| key_of(s))
        .collect::<Result<_, _>>()?;
    let found = |name| header(name).unwrap_or_default();
    let (id, timestamp) = (found("webhook-id"), found("webhook-timestamp"));
    let signatures = found("webhook-signature").split(' ');
    let mut offered = signatures.filter_map(|s| s.strip_prefix("v1,")).peekable();

    if id.is_empty() {
        return Err("missing_id");
    }
    if timestamp.is_empty() {
        return Err("missing_timestamp");
    }
    if timestamp.len() > 18 || !timestamp.bytes().all(|b| b.is_ascii_digit()) {
        return Err("malformed_timestamp");
    }
    let signed_at: i64 = timestamp.parse().map_err(|_| "malformed_timestamp")?;
    if now.abs_diff(signed_at) > TOLERANCE {
        return Err(if signed_at < now {
            "too_old"
        } else {
            "too_new"
        });
    }
    if offered.peek().is_none() {
        return Err("no_signature");
    }

    let tags: Vec<Vec<u8>> = offered.filter_map(|s| STANDARD.decode(s).ok()).collect();
    for key in keys {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| BAD_SECRET)?;
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        // `verify_slice` takes the same time wherever the difference lies.
        if tags.iter().any(|tag| mac.clone().verify_slice(tag).is_ok()) {
            return Ok(());
        }
    }
    Err("no_match")
}

/// The key is what the part after `whsec_` is the base64 of, not its letters.
fn key_of(secret: &str) -> Result<Vec<u8>, &'static str> {
    let encoded = secret.strip_prefix("whsec_").ok_or(BAD_SECRET)?;
    let key = STANDARD.decode(encoded).map_err(|_| BAD_SECRET)?;
    if key.len() < 24 {
        Err(BAD_SECRET)
    } else {
        Ok(key)
    }
}

const BAD_SECRET: &str = "a signing secret is whsec_ and the base64 of 24 bytes or more";

/// Verifies a recorded delivery: a folder with the files headers, body, secrets and now.
pub fn check(folder: &Path) -> Result<Result<(), &'static str>, Box<dyn std::error::Error>> {
    let text = |name| fs::read_to_string(folder.join(name));
    let headers = text("headers")?;
    let header = |name: &str| {
        let mut pairs = headers.lines().filter_map(|line| line.split_once(':'));
        let found = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    };
    let secrets: Vec<String> = text("secrets")?.lines().map(str::to_owned).collect();
    let body = fs::read(folder.join("body"))?;
    Ok(verify(
        &secrets,
        header,
        &body,
        text("now")?.trim().parse()?,
    ))
}

/// Prints for each folder `valid`, or why not.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    for folder in std::env::args().skip(1) {
        match check(Path::new(&folder))? {
            Ok(()) => println!("valid"),
            Err(problem) => println!("invalid: {problem}"),
        }
    }
    Ok(())
}
