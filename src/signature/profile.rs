//! The ways of signing that receivers know, each by its name.

use std::fmt;

use http::HeaderName;

use super::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP};
use crate::secret::SecretKind;
use crate::{Error, Result};

/// One sender's way of signing, so that a receiver who already checks that sender's signatures can check ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Standard Webhooks, symmetric: `v1` in `webhook-signature`.
    StandardV1,
    /// Standard Webhooks, asymmetric: `v1a` in `webhook-signature`.
    StandardV1a,
    /// The same signatures, of both kinds, under the names that Svix gave them: `svix-id`, `svix-timestamp`, `svix-signature`.
    SvixLegacy,
    /// `Stripe-Signature: t=...,v1=...` over timestamp and body.
    Stripe,
    /// `X-Hub-Signature-256: sha256=...` over the body.
    Github,
    /// `X-Shopify-Hmac-SHA256`, base64, over the body.
    Shopify,
    /// `X-Convoy-Signature: t=...,v1=...` over timestamp and body.
    Convoy,
    /// `X-Convoy-Signature`, hex, over the body.
    ConvoySimple,
    /// `X-Hook0-Signature: t=...,v0=...,h=...,v1=...` over timestamp, event id, event type and body.
    Hook0,
    /// `<prefix>-Signature: sha256=...` over the body; the prefix is the platform's own, such as `X-Platform`.
    Prefixed,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 10] = [
        Self::StandardV1,
        Self::StandardV1a,
        Self::SvixLegacy,
        Self::Stripe,
        Self::Github,
        Self::Shopify,
        Self::Convoy,
        Self::ConvoySimple,
        Self::Hook0,
        Self::Prefixed,
    ];

    /// Reads what [`as_str`](Self::as_str) gives.
    pub fn parse(text: &str) -> Result<Self> {
        let named = Self::ALL
            .into_iter()
            .find(|profile| profile.as_str() == text);
        named.ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Error::Config(format!(
                "`{text}` is no signature profile; there are {known}"
            ))
        })
    }

    /// Its name, such as `standard_v1`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StandardV1 => "standard_v1",
            Self::StandardV1a => "standard_v1a",
            Self::SvixLegacy => "svix_legacy",
            Self::Stripe => "stripe",
            Self::Github => "github",
            Self::Shopify => "shopify",
            Self::Convoy => "convoy",
            Self::ConvoySimple => "convoy_simple",
            Self::Hook0 => "hook0",
            Self::Prefixed => "prefixed",
        }
    }

    /// Whether it binds no timestamp: whoever once saw a request can send it again at any time, and it will verify.
    pub const fn is_replayable(self) -> bool {
        matches!(
            self,
            Self::Github | Self::Shopify | Self::ConvoySimple | Self::Prefixed
        )
    }

    /// Whether its header takes one signature, and not one for each live secret.
    pub(super) const fn has_room_for_one(self) -> bool {
        matches!(
            self,
            Self::Github | Self::Shopify | Self::ConvoySimple | Self::Hook0 | Self::Prefixed
        )
    }

    /// Whether a secret of this kind can sign for it. Each profile needs one of a kind that it takes.
    pub const fn takes(self, kind: SecretKind) -> bool {
        match self {
            Self::StandardV1 => matches!(kind, SecretKind::Shared),
            Self::StandardV1a => matches!(kind, SecretKind::Ed25519),
            Self::SvixLegacy => matches!(kind, SecretKind::Shared | SecretKind::Ed25519),
            // Their key is a string: of a shared secret, all of `whsec_...` as the partner was given it.
            Self::Stripe
            | Self::Github
            | Self::Shopify
            | Self::Convoy
            | Self::ConvoySimple
            | Self::Hook0
            | Self::Prefixed => matches!(kind, SecretKind::Shared | SecretKind::Text),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The headers that a receiver of this profile reads: a subscription's own must not bear their names. The last one holds the
/// signature. `prefix` counts for [`Profile::Prefixed`] alone, which needs one: 1 to 64 letters, digits and `-`, which starts
/// with a letter, ends with no `-` and makes no name that is another profile's.
pub fn header_names(profile: Profile, prefix: Option<&str>) -> Result<Vec<HeaderName>> {
    let others = others(profile).iter();
    let mut names: Vec<_> = others.map(|name| HeaderName::from_static(name)).collect();
    names.push(signature_name(profile, prefix)?);
    Ok(names)
}

/// The name of the header that holds the signature.
pub(super) fn signature_name(profile: Profile, prefix: Option<&str>) -> Result<HeaderName> {
    match fixed(profile) {
        Some(name) => Ok(HeaderName::from_static(name)),
        None => prefixed(prefix),
    }
}

/// `<prefix>-Signature`.
fn prefixed(prefix: Option<&str>) -> Result<HeaderName> {
    let prefix = prefix.ok_or_else(|| {
        Error::Config(format!(
            "the signature profile `prefixed` needs a prefix; {PREFIX_RULE}"
        ))
    })?;
    let malformed = || Error::Config(format!("`{prefix}` is no prefix; {PREFIX_RULE}"));
    if !is_prefix(prefix) {
        return Err(malformed());
    }
    let name = HeaderName::try_from(format!("{prefix}-Signature")).map_err(|_| malformed())?;
    if Profile::ALL
        .into_iter()
        .filter_map(fixed)
        .any(|taken| taken == name.as_str())
    {
        return Err(Error::Config(format!(
            "`{prefix}` is no prefix: `{name}` is another profile's header"
        )));
    }
    Ok(name)
}

/// The signature's header where it is the same for everybody.
const fn fixed(profile: Profile) -> Option<&'static str> {
    Some(match profile {
        Profile::StandardV1 | Profile::StandardV1a => WEBHOOK_SIGNATURE,
        Profile::SvixLegacy => SVIX_SIGNATURE,
        Profile::Stripe => "stripe-signature",
        Profile::Github => "x-hub-signature-256",
        Profile::Shopify => "x-shopify-hmac-sha256",
        Profile::Convoy | Profile::ConvoySimple => "x-convoy-signature",
        Profile::Hook0 => "x-hook0-signature",
        Profile::Prefixed => return None,
    })
}

/// What is read beside the signature.
const fn others(profile: Profile) -> &'static [&'static str] {
    match profile {
        Profile::StandardV1 | Profile::StandardV1a => &[WEBHOOK_ID, WEBHOOK_TIMESTAMP],
        Profile::SvixLegacy => &[SVIX_ID, SVIX_TIMESTAMP],
        Profile::Hook0 => &[X_EVENT_ID, X_EVENT_TYPE],
        _ => &[],
    }
}

fn is_prefix(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with('-')
        && text.bytes().all(allowed)
}

pub(crate) const SVIX_ID: &str = "svix-id";
pub(crate) const SVIX_TIMESTAMP: &str = "svix-timestamp";
pub(crate) const SVIX_SIGNATURE: &str = "svix-signature";
pub(super) const X_EVENT_ID: &str = "x-event-id";
pub(super) const X_EVENT_TYPE: &str = "x-event-type";
const PREFIX_RULE: &str = "a prefix is 1 to 64 letters, digits and `-`, such as `X-Platform`; it starts with a letter and ends with no `-`";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_profile_is_read_by_its_name_and_takes_some_kind_of_secret() {
        for profile in Profile::ALL {
            assert_eq!(Profile::parse(profile.as_str()).unwrap(), profile);
            assert!(SecretKind::ALL.iter().any(|kind| profile.takes(*kind)));
        }
        let error = Profile::parse("Stripe").unwrap_err().to_string();
        assert!(
            error.contains("`Stripe` is no signature profile") && error.contains("svix_legacy")
        );
    }

    #[test]
    fn the_profiles_without_a_timestamp_are_known_to_be_replayable() {
        let replayable = Profile::ALL.into_iter().filter(|it| it.is_replayable());
        let names: Vec<_> = replayable.map(Profile::as_str).collect();
        assert_eq!(names, ["github", "shopify", "convoy_simple", "prefixed"]);
    }

    #[test]
    fn a_prefix_makes_a_header_of_the_platforms_own() {
        let names = header_names(Profile::Prefixed, Some("X-Platform")).unwrap();
        assert_eq!(names, ["x-platform-signature"]);
        let longest = format!("X{}", "-y".repeat(31));
        assert!(header_names(Profile::Prefixed, Some(&longest)).is_ok());
    }

    #[test]
    fn a_prefix_that_is_malformed_or_makes_another_profiles_header_is_refused() {
        let too_long = "x".repeat(65);
        for prefix in [
            "",
            "-X",
            "X-",
            "1X",
            "X Platform",
            "X:",
            "X\r\nY",
            "é",
            &too_long,
        ] {
            let error = header_names(Profile::Prefixed, Some(prefix)).unwrap_err();
            assert!(error.to_string().contains("1 to 64"), "{error}");
        }
        for prefix in ["Webhook", "SVIX", "Stripe", "X-Convoy", "X-Hook0"] {
            let error = header_names(Profile::Prefixed, Some(prefix)).unwrap_err();
            assert!(error.to_string().contains("another profile's"), "{error}");
        }
        assert!(header_names(Profile::Prefixed, None).is_err());
    }

    #[test]
    fn every_fixed_name_is_one_that_http_allows() {
        for profile in Profile::ALL {
            let names = header_names(profile, Some("X-Platform")).unwrap();
            assert!(!names.is_empty(), "{profile}");
        }
    }
}
