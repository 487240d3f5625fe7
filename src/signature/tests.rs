//! Every profile against what its sender, or somebody else, published.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use proptest::prelude::*;

use super::*;
use crate::secret::{SecretKind, SigningSecret};

const SHARED: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PRIVATE: &str =
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const MESSAGE: Message<'_> = Message {
    id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
    timestamp: 1_614_265_330,
    body: br#"{"test": 2432232314}"#,
    event_type: "service.resource.verb",
};
const V1: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const V1A: &str =
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
const STRIPE_BODY: &[u8] =
    br#"{"id":"evt_123","type":"payment_intent.succeeded","event_id":"slack_evt"}"#;
const CONVOY_BODY: &[u8] = br#"{"event":"charge.success","amount":1000,"currency":"NGN"}"#;
const TOLERANCE: Duration = Duration::from_mins(5);

#[test]
fn every_profile_signs_what_was_published_for_it() {
    let hook0_id = "1a01cb48-5142-4d9b-8f90-d20cca61f0ee";
    let cases = [
        (
            Profile::StandardV1,
            secret(SHARED),
            MESSAGE,
            "webhook-signature",
            V1,
        ),
        (
            Profile::StandardV1a,
            secret(PRIVATE),
            MESSAGE,
            "webhook-signature",
            V1A,
        ),
        (
            Profile::SvixLegacy,
            secret(SHARED),
            MESSAGE,
            "svix-signature",
            V1,
        ),
        (
            Profile::SvixLegacy,
            secret(PRIVATE),
            MESSAGE,
            "svix-signature",
            V1A,
        ),
        (
            Profile::Stripe,
            text("whsec_test"),
            message(1_700_000_000, STRIPE_BODY),
            "stripe-signature",
            "t=1700000000,v1=9aae435784965c3b24b12c58e70ee43ff01381fd450c94f8a32ce6ea17d4fa46",
        ),
        (
            Profile::Github,
            text("It's a Secret to Everybody"),
            message(0, b"Hello, World!"),
            "x-hub-signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        ),
        (
            Profile::Prefixed,
            text("It's a Secret to Everybody"),
            message(0, b"Hello, World!"),
            "x-platform-signature",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        ),
        (
            Profile::Shopify,
            text("whsec_test"),
            message(0, STRIPE_BODY),
            "x-shopify-hmac-sha256",
            "0Dd/e1rt97X51wkA3X0Q5POiX92DNQ/776xB41eEgVM=",
        ),
        (
            Profile::Convoy,
            text("convoy-webhook-secret"),
            message(1_700_000_000, CONVOY_BODY),
            "x-convoy-signature",
            "t=1700000000,v1=77b8b9269f25a199846a55a2bd25b3fba151c70fdae60bb1dcd87fbbc943c55c",
        ),
        (
            Profile::ConvoySimple,
            text("convoy-webhook-secret"),
            message(0, CONVOY_BODY),
            "x-convoy-signature",
            "244449b7f48cbc2709060c9dcdc2b3aa47a78f540430579015c579fb12defbb4",
        ),
        (
            Profile::Hook0,
            text("secret"),
            Message {
                id: hook0_id,
                ..message(1_636_936_200, b"hello !")
            },
            "x-hook0-signature",
            "t=1636936200,v0=1b3d69df55f1e52f05224ba94a5162abeb17ef52cd7f4948c390f810d6a87e98,\
             h=x-event-id x-event-type,v1=bc521546ba5de381b12f135782d2008b028c3065c191760b12b76850a8fc8f51",
        ),
    ];
    for (profile, secret, message, header, expected) in cases {
        let headers = signed(&[profile], std::slice::from_ref(&secret), &message);
        assert_eq!(headers[header], expected, "{profile}");
        let checked = |secret| check(profile, secret, &headers, message.body, message.timestamp);
        assert_eq!(checked(&secret), Ok(()), "{profile}");
    }
    let sealed = signed(&[Profile::SvixLegacy], &[secret(SHARED)], &MESSAGE);
    assert_eq!(sealed["svix-id"], MESSAGE.id);
    assert_eq!(sealed["svix-timestamp"], "1614265330");
}

#[test]
fn a_string_keyed_profile_takes_all_of_a_shared_secrets_text() {
    let as_text = text(SHARED);
    for profile in [Profile::Stripe, Profile::Github, Profile::Hook0] {
        let by = |secret| signed(&[profile], &[secret], &MESSAGE);
        assert_eq!(by(secret(SHARED)), by(as_text.clone()), "{profile}");
    }
}

#[test]
fn several_profiles_sign_at_once_each_with_what_fits_it() {
    let profiles = [
        Profile::StandardV1a,
        Profile::StandardV1,
        Profile::SvixLegacy,
        Profile::Stripe,
        Profile::Github,
        Profile::Shopify,
        Profile::Convoy,
        Profile::Hook0,
        Profile::Prefixed,
    ];
    let secrets = [secret(SHARED), text("partner"), secret(PRIVATE)];
    let headers = signed(&profiles, &secrets, &MESSAGE);
    assert_eq!(headers["webhook-signature"], format!("{V1A} {V1}"));
    assert_eq!(headers["svix-signature"], format!("{V1} {V1A}"));
    let mut names: Vec<_> = profiles
        .iter()
        .flat_map(|profile| header_names(*profile, PREFIX).unwrap())
        .collect();
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    assert_eq!(
        sorted_names(&headers),
        names,
        "what is set is what is announced"
    );
    for profile in profiles {
        let verdict = check_any(profile, &secrets, &headers, MESSAGE.body, MESSAGE.timestamp);
        assert_eq!(verdict, Ok(()), "{profile}");
    }
}

#[test]
fn a_profile_without_a_secret_that_fits_is_named_and_nothing_is_signed() {
    for profile in Profile::ALL {
        let signer = Signer::new([profile], PREFIX).unwrap();
        let unfit = SecretKind::ALL
            .into_iter()
            .filter(|kind| !profile.takes(*kind));
        let secrets: Vec<_> = unfit
            .map(|kind| SigningSecret::generate_as(kind).unwrap())
            .collect();
        for secrets in [&secrets[..], &[]] {
            let unsigned = signer.sign(secrets, &MESSAGE).unwrap_err();
            assert_eq!(unsigned, Unsigned::NoSecret(profile));
            assert!(
                unsigned.to_string().contains(profile.as_str()),
                "{unsigned}"
            );
        }
    }
    let both = Signer::new([Profile::StandardV1, Profile::StandardV1a], None).unwrap();
    let unsigned = both.sign(&[secret(SHARED)], &MESSAGE).unwrap_err();
    assert_eq!(
        unsigned.to_string(),
        "the signature profile standard_v1a has no live signing secret of a kind that it takes (ed25519)"
    );
}

#[test]
fn an_id_or_type_that_no_header_can_hold_is_not_sent() {
    for (profile, secret) in [
        (Profile::SvixLegacy, secret(SHARED)),
        (Profile::Hook0, text("x")),
    ] {
        let signer = Signer::new([profile], None).unwrap();
        let message = Message {
            id: "msg\r\nx: y",
            ..MESSAGE
        };
        assert_eq!(
            signer.sign(&[secret], &message),
            Err(Unsigned::Unfit(profile))
        );
    }
}

#[test]
fn profiles_that_would_use_the_same_header_are_refused_together() {
    let refused = |profiles: &[Profile]| {
        let signer = Signer::new(profiles.iter().copied(), PREFIX);
        signer.unwrap_err().to_string()
    };
    assert!(refused(&[]).contains("unsigned"));
    assert!(refused(&[Profile::Convoy, Profile::ConvoySimple]).contains("same header"));
    for profile in Profile::ALL {
        assert!(
            refused(&[profile, profile]).contains("same header"),
            "{profile}"
        );
    }
    assert!(Signer::new([Profile::Prefixed], None).is_err());
    let plain = Signer::new([Profile::StandardV1], None).unwrap();
    assert_eq!(Signer::default(), plain);
}

#[test]
fn during_a_rotation_a_receiver_with_the_old_secret_verifies_every_profile() {
    for profile in Profile::ALL {
        let kinds = SecretKind::ALL
            .into_iter()
            .filter(|kind| profile.takes(*kind));
        for kind in kinds {
            let [old, new] = [(); 2].map(|()| SigningSecret::generate_as(kind).unwrap());
            let headers = signed(&[profile], &[old.clone(), new.clone()], &MESSAGE);
            let checked =
                |secret| check(profile, secret, &headers, MESSAGE.body, MESSAGE.timestamp);
            assert_eq!(checked(&old), Ok(()), "{profile}");
            let by_the_new = if profile.has_room_for_one() {
                Err(Invalid::NoMatch)
            } else {
                Ok(())
            };
            assert_eq!(checked(&new), by_the_new, "{profile}");
            let headers = signed(&[profile], std::slice::from_ref(&new), &MESSAGE);
            assert_eq!(
                check(profile, &new, &headers, MESSAGE.body, MESSAGE.timestamp),
                Ok(())
            );
        }
    }
}

#[test]
fn a_text_secret_goes_before_a_shared_one_where_there_is_room_for_one() {
    let secrets = [secret(SHARED), text("partner")];
    let headers = signed(&[Profile::Github], &secrets, &MESSAGE);
    assert_eq!(headers, signed(&[Profile::Github], &secrets[1..], &MESSAGE));
}

#[test]
fn the_secrets_that_sign_are_known() {
    let secrets = [
        secret(SHARED),
        secret(SHARED),
        text("old"),
        text("new"),
        secret(PRIVATE),
    ];
    let used = |profiles: &[Profile]| {
        let signer = Signer::new(profiles.iter().copied(), PREFIX).unwrap();
        signer.used(&secrets).map(u8::from).collect::<Vec<_>>()
    };
    assert_eq!(used(&[Profile::StandardV1]), [1, 1, 0, 0, 0]);
    assert_eq!(used(&[Profile::StandardV1a]), [0, 0, 0, 0, 1]);
    assert_eq!(used(&[Profile::SvixLegacy]), [1, 1, 0, 0, 1]);
    assert_eq!(used(&[Profile::Stripe]), [1, 1, 1, 1, 0]);
    assert_eq!(used(&[Profile::Github]), [0, 0, 1, 0, 0]);
    assert_eq!(
        used(&[Profile::StandardV1, Profile::Hook0]),
        [1, 1, 1, 0, 0]
    );
}

#[test]
fn a_timestamp_that_is_bound_is_checked_and_a_missing_one_refused() {
    for profile in Profile::ALL
        .into_iter()
        .filter(|profile| !profile.is_replayable())
    {
        let kind = SecretKind::ALL
            .into_iter()
            .find(|kind| profile.takes(*kind));
        let secret = SigningSecret::generate_as(kind.unwrap()).unwrap();
        let mut headers = signed(&[profile], std::slice::from_ref(&secret), &MESSAGE);
        let at = |headers: &HeaderMap, now| check(profile, &secret, headers, MESSAGE.body, now);
        let signed_at = MESSAGE.timestamp;
        assert_eq!(at(&headers, signed_at + 300), Ok(()), "{profile}");
        let old = Err(Invalid::TooOld { seconds: 301 });
        assert_eq!(at(&headers, signed_at + 301), old, "{profile}");
        let new = Err(Invalid::TooNew { seconds: 301 });
        assert_eq!(at(&headers, signed_at - 301), new, "{profile}");
        for value in headers.values_mut() {
            let other = value.to_str().unwrap().replace("1614265330", "1614265331");
            *value = other.parse().unwrap();
        }
        assert_eq!(at(&headers, signed_at), Err(Invalid::NoMatch), "{profile}");
    }
    let secret = text("x");
    for value in ["v1=00", "t=,v1=00", "v1=00,T=1"] {
        let headers = one("stripe-signature", value);
        let verdict = check(Profile::Stripe, &secret, &headers, b"", 1);
        assert_eq!(verdict, Err(Invalid::MissingTimestamp), "{value}");
    }
    for value in ["t=1.0,v1=00", "t=-1,v1=00", "t= 1,v1=00"] {
        let headers = one("stripe-signature", value);
        let verdict = check(Profile::Stripe, &secret, &headers, b"", 1);
        assert_eq!(verdict, Err(Invalid::MalformedTimestamp), "{value}");
    }
}

#[test]
fn what_is_no_signature_of_the_profile_is_none() {
    let cases = [
        (
            Profile::Stripe,
            "stripe-signature",
            &["", "t=1", "t=1,v0=00", "t=1,v1=0", "t=1,v1=zz"][..],
        ),
        (
            Profile::Github,
            "x-hub-signature-256",
            &["", "sha256=", "sha1=00", "00", "sha256=0"][..],
        ),
        (
            Profile::Shopify,
            "x-shopify-hmac-sha256",
            &["", "!", "sha256=00", "A"][..],
        ),
        (
            Profile::ConvoySimple,
            "x-convoy-signature",
            &["", "t=1,v1=00", "zz"][..],
        ),
        (
            Profile::Hook0,
            "x-hook0-signature",
            &["", "t=1", "t=1,h=a,v2=00"][..],
        ),
    ];
    for (profile, name, values) in cases {
        for value in values {
            let verdict = check(profile, &text("x"), &one(name, value), b"", 1);
            assert_eq!(verdict, Err(Invalid::NoSignature), "{profile} {value}");
        }
        let verdict = check(profile, &text("x"), &HeaderMap::new(), b"", 1);
        assert_eq!(verdict, Err(Invalid::NoSignature), "{profile}");
    }
}

proptest! {
    #[test]
    fn what_any_profile_signs_verifies_and_no_other_body_or_secret_does(
        profile in prop::sample::select(&Profile::ALL[..]),
        body in prop::collection::vec(any::<u8>(), 1..300),
        flip in any::<prop::sample::Index>(),
        timestamp in 0..i64::MAX,
    ) {
        let message = Message { body: &body, timestamp, ..MESSAGE };
        for kind in SecretKind::ALL.into_iter().filter(|kind| profile.takes(*kind)) {
            let [ours, another] = [(); 2].map(|()| SigningSecret::generate_as(kind).unwrap());
            let headers = signed(&[profile], std::slice::from_ref(&ours), &message);
            prop_assert_eq!(check(profile, &ours, &headers, &body, timestamp), Ok(()));
            prop_assert_eq!(check(profile, &another, &headers, &body, timestamp), Err(Invalid::NoMatch));
            let mut changed = body.clone();
            changed[flip.index(body.len())] ^= 1;
            prop_assert_eq!(check(profile, &ours, &headers, &changed, timestamp), Err(Invalid::NoMatch));
        }
    }

    #[test]
    fn no_header_makes_a_profiles_check_panic(
        profile in prop::sample::select(&Profile::ALL[..]), value in "\\PC*|[tv01=,.a-f]*", now in any::<i64>(),
    ) {
        let name = header_names(profile, PREFIX).unwrap().pop().unwrap();
        if let Ok(value) = http::HeaderValue::from_bytes(value.as_bytes()) {
            let headers = HeaderMap::from_iter([(name, value)]);
            prop_assert!(check(profile, &text("x"), &headers, b"", now).is_err());
        }
    }
}

const PREFIX: Option<&str> = Some("X-Platform");

fn secret(text: &str) -> SigningSecret {
    SigningSecret::parse(text).unwrap()
}

fn text(text: &str) -> SigningSecret {
    SigningSecret::parse_as(SecretKind::Text, text).unwrap()
}

fn message(timestamp: i64, body: &'static [u8]) -> Message<'static> {
    Message {
        timestamp,
        body,
        ..MESSAGE
    }
}

/// The signer's headers and the two that a caller always sets.
fn signed(profiles: &[Profile], secrets: &[SigningSecret], message: &Message<'_>) -> HeaderMap {
    let signer = Signer::new(profiles.iter().copied(), PREFIX).unwrap();
    let mut headers = HeaderMap::from_iter(signer.sign(secrets, message).unwrap());
    headers.insert(WEBHOOK_ID, message.id.parse().unwrap());
    headers.insert(WEBHOOK_TIMESTAMP, message.timestamp.into());
    headers
}

fn check(
    profile: Profile,
    secret: &SigningSecret,
    headers: &HeaderMap,
    body: &[u8],
    now: i64,
) -> Result<(), Invalid> {
    check_any(profile, std::slice::from_ref(secret), headers, body, now)
}

fn check_any(
    profile: Profile,
    secrets: &[SigningSecret],
    headers: &HeaderMap,
    body: &[u8],
    now: i64,
) -> Result<(), Invalid> {
    verify_as(profile, PREFIX, secrets, headers, body, now, TOLERANCE).unwrap()
}

fn one(name: &'static str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
}

fn sorted_names(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names: Vec<_> = headers.keys().cloned().collect();
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names
}
