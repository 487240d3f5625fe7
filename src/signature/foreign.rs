//! Checks what another sender's receivers would: for trials, and to say why a request does not verify.

use std::time::Duration;

use http::HeaderMap;
use zeroize::Zeroizing;

use super::invalid::{Invalid, check_age};
use super::mac::{any_matches, from_base64, from_hex};
use super::profile::{Profile, SVIX_ID, SVIX_SIGNATURE, SVIX_TIMESTAMP, signature_name};
use super::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, verify};
use crate::Result;
use crate::secret::SigningSecret;

/// Checks a received request as a receiver of this profile would, with any of the secrets that fit it. `now` is in Unix
/// seconds; `tolerance` counts where the profile binds a timestamp. The outer error is that of a bad `prefix`, which
/// [`header_names`](super::header_names) describes.
pub fn verify_as(
    profile: Profile,
    prefix: Option<&str>,
    secrets: &[SigningSecret],
    headers: &HeaderMap,
    body: &[u8],
    now: i64,
    tolerance: Duration,
) -> Result<Result<(), Invalid>> {
    let fitting = secrets.iter().filter(|secret| profile.takes(secret.kind()));
    let list = |[id, timestamp, signature]: [&str; 3]| {
        let secrets: Vec<_> = fitting.clone().cloned().collect();
        let [id, timestamp, signature] = [id, timestamp, signature].map(|name| text(headers, name));
        verify(&secrets, id, timestamp, signature, body, now, tolerance)
    };
    let name = signature_name(profile, prefix)?;
    let value = text(headers, name.as_str());
    let claim = match profile {
        Profile::StandardV1 | Profile::StandardV1a => {
            return Ok(list([WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE]));
        }
        Profile::SvixLegacy => return Ok(list([SVIX_ID, SVIX_TIMESTAMP, SVIX_SIGNATURE])),
        Profile::Stripe => Claim::timed(value, "."),
        Profile::Convoy => Claim::timed(value, ","),
        Profile::Hook0 => Claim::hook0(value, headers),
        Profile::Github | Profile::Prefixed => {
            Claim::plain(value.strip_prefix("sha256=").and_then(from_hex))
        }
        Profile::ConvoySimple => Claim::plain(from_hex(value)),
        Profile::Shopify => Claim::plain(from_base64(value)),
    };
    let keys: Vec<_> = fitting.map(SigningSecret::reveal).collect();
    Ok(claim.check(&keys, body, now, tolerance))
}

/// What a signature's header says.
struct Claim<'v> {
    timestamp: Option<&'v str>,
    /// What goes before the body in what is signed.
    head: String,
    tags: Vec<Vec<u8>>,
}

impl<'v> Claim<'v> {
    fn plain(tag: Option<Vec<u8>>) -> Self {
        Self {
            timestamp: None,
            head: String::new(),
            tags: tag.into_iter().filter(|tag| !tag.is_empty()).collect(),
        }
    }

    fn timed(value: &'v str, separator: &str) -> Self {
        let timestamp = item(value, "t");
        Self {
            timestamp: Some(timestamp),
            head: format!("{timestamp}{separator}"),
            tags: hex_items(value, "v1"),
        }
    }

    /// The newer version where it is there. Nothing in what is signed tells where one value ends and the next begins, so one
    /// with a `.` in it may only be the last: else whoever saw a request could send it again under another id.
    fn hook0(value: &'v str, headers: &HeaderMap) -> Self {
        let (timestamp, tags) = (item(value, "t"), hex_items(value, "v1"));
        if tags.is_empty() {
            return Self {
                tags: hex_items(value, "v0"),
                ..Self::timed(value, ".")
            };
        }
        let names = item(value, "h");
        let values: Vec<_> = names.split(' ').map(|name| text(headers, name)).collect();
        let before_last = values.iter().rev().skip(1);
        let is_clear =
            !names.contains('.') && before_last.clone().all(|value| !value.contains('.'));
        Self {
            timestamp: Some(timestamp),
            head: format!("{timestamp}.{names}.{}.", values.join(".")),
            // What is not clear is as good as another's signature.
            tags: if is_clear { tags } else { vec![Vec::new()] },
        }
    }

    fn check(
        &self,
        keys: &[Zeroizing<String>],
        body: &[u8],
        now: i64,
        tolerance: Duration,
    ) -> Result<(), Invalid> {
        if self.tags.is_empty() || keys.is_empty() {
            return Err(Invalid::NoSignature);
        }
        if let Some(timestamp) = self.timestamp {
            check_age(timestamp, now, tolerance)?;
        }
        let keys = keys.iter().map(|key| key.as_bytes());
        if any_matches(keys, &[self.head.as_bytes(), body], &self.tags) {
            Ok(())
        } else {
            Err(Invalid::NoMatch)
        }
    }
}

/// The first value of a name in `name=value,name=value`; empty where there is none.
fn item<'v>(list: &'v str, name: &str) -> &'v str {
    items(list, name).next().unwrap_or_default()
}

fn hex_items(list: &str, name: &str) -> Vec<Vec<u8>> {
    let tags = items(list, name).take(MOST_OFFERED).filter_map(from_hex);
    tags.collect()
}

fn items<'v>(list: &'v str, name: &str) -> impl Iterator<Item = &'v str> {
    list.split(',').filter_map(move |item| {
        let (key, value) = item.trim_start().split_once('=')?;
        (key == name).then_some(value)
    })
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

/// Signatures that are looked at: whoever sends a list of thousands is not to be worked for.
const MOST_OFFERED: usize = 32;
