//! Standard Webhooks signatures: version 1 with a shared secret, version 1a with an Ed25519 key.
//!
//! What is signed is `<id>.<timestamp>.<body>`, the body byte for byte as it is sent. During a rotation a request bears one
//! signature for each live secret, so a receiver may hold any of them.

use std::time::Duration;

use super::invalid::{Invalid, check_age};
use super::mac::{any_matches, decimal, from_base64, push_base64, tag};
use crate::secret::{PublicKey, SecretKind, SigningSecret};

/// The value of `webhook-signature`: in the secrets' order `v1,` and base64 for each shared secret, `v1a,` and base64 for each
/// Ed25519 key; empty where there is neither. `timestamp` is in Unix seconds. Neither it nor `id` may hold a `.`, or two
/// different requests could be signed alike.
pub fn sign(secrets: &[SigningSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut digits = [0; 20];
    let content = Content {
        id,
        timestamp: decimal(timestamp, &mut digits),
        body,
    };
    let mut list = String::with_capacity(secrets.len() * ROOM);
    for secret in secrets {
        content.append(secret, &mut list);
    }
    list
}

/// Checks the three headers of a received request. `now` is in Unix seconds; `tolerance` is how far `timestamp` may be from it,
/// either way and inclusive. One good signature by any of the secrets is enough; other versions are skipped.
pub fn verify(
    secrets: &[SigningSecret],
    id: &str,
    timestamp: &str,
    signature: &str,
    body: &[u8],
    now: i64,
    tolerance: Duration,
) -> Result<(), Invalid> {
    let keys = || secrets.iter().filter_map(Key::of);
    verify_with(keys, id, timestamp, signature, body, now, tolerance).map(|_| ())
}

/// What [`verify`] does, with keys of which a receiver may hold the public half alone. Gives the timestamp.
pub(crate) fn verify_with<'k, Keys: Iterator<Item = Key<'k>>>(
    keys: impl Fn() -> Keys,
    id: &str,
    timestamp: &str,
    signature: &str,
    body: &[u8],
    now: i64,
    tolerance: Duration,
) -> Result<i64, Invalid> {
    if id.is_empty() {
        return Err(Invalid::MissingId);
    }
    let signed_at = check_age(timestamp, now, tolerance)?;
    let shared = || keys().filter_map(Key::shared);
    let public = || keys().filter_map(Key::public);
    let v1 = offered(signature, VERSION, shared().next().is_some());
    let v1a = offered(signature, VERSION_A, public().next().is_some());
    if v1.is_none() && v1a.is_none() {
        return Err(Invalid::NoSignature);
    }
    let content = Content {
        id,
        timestamp: timestamp.as_bytes(),
        body,
    };
    if v1.is_some_and(|tags| any_matches(shared(), &content.parts(), &tags))
        || v1a.is_some_and(|tags| any_verifies(public(), &content, &tags))
    {
        Ok(signed_at)
    } else {
        Err(Invalid::NoMatch)
    }
}

/// What a signature is checked with.
#[derive(Clone, Copy)]
pub(crate) enum Key<'k> {
    /// The bytes of a shared secret.
    Shared(&'k [u8]),
    /// The public half of a key.
    Public(PublicKey),
}

impl<'k> Key<'k> {
    fn of(secret: &'k SigningSecret) -> Option<Self> {
        match secret.kind() {
            SecretKind::Shared => Some(Self::Shared(secret.bytes())),
            SecretKind::Ed25519 => secret.public_key().map(Self::Public),
            SecretKind::Text => None,
        }
    }

    fn shared(self) -> Option<&'k [u8]> {
        match self {
            Self::Shared(bytes) => Some(bytes),
            Self::Public(_) => None,
        }
    }

    fn public(self) -> Option<PublicKey> {
        match self {
            Self::Public(key) => Some(key),
            Self::Shared(_) => None,
        }
    }
}

/// What is signed.
#[derive(Clone, Copy)]
pub(super) struct Content<'c> {
    pub(super) id: &'c str,
    /// Decimal.
    pub(super) timestamp: &'c [u8],
    pub(super) body: &'c [u8],
}

impl<'c> Content<'c> {
    /// Appends the signature by this secret to a list; false where a secret of its kind makes none.
    pub(super) fn append(&self, secret: &SigningSecret, list: &mut String) -> bool {
        let separator = if list.is_empty() { "" } else { " " };
        match secret.kind() {
            SecretKind::Shared => {
                list.push_str(separator);
                list.push_str(VERSION);
                push_base64(list, &tag(secret.bytes(), &self.parts()));
                true
            }
            SecretKind::Ed25519 => secret
                .sign_ed25519(&self.parts().concat())
                .map(|signature| {
                    list.push_str(separator);
                    list.push_str(VERSION_A);
                    push_base64(list, &signature);
                })
                .is_some(),
            SecretKind::Text => false,
        }
    }

    fn parts(&self) -> [&'c [u8]; 5] {
        [self.id.as_bytes(), b".", self.timestamp, b".", self.body]
    }
}

/// The signatures of a version; none where the list has none of it, or where there is nothing to check them with.
fn offered(list: &str, version: &str, wanted: bool) -> Option<Vec<Vec<u8>>> {
    let mut entries = list
        .split(' ')
        .filter_map(|entry| entry.strip_prefix(version))
        .take(MOST_OFFERED)
        .peekable();
    (wanted && entries.peek().is_some()).then(|| entries.filter_map(from_base64).collect())
}

fn any_verifies(
    mut keys: impl Iterator<Item = PublicKey>,
    content: &Content<'_>,
    signatures: &[Vec<u8>],
) -> bool {
    let message = content.parts().concat();
    let verifies = |key: PublicKey| {
        let mut signatures = signatures.iter();
        signatures.any(|signature| key.verifies(&message, signature))
    };
    keys.any(verifies)
}

const VERSION: &str = "v1,";
const VERSION_A: &str = "v1a,";
/// Bytes that the signature of a shared secret takes, with the space before the next.
pub(super) const ROOM: usize = VERSION.len() + 44 + 1;
/// Signatures of a version that are looked at: whoever sends a list of thousands is not to be worked for.
const MOST_OFFERED: usize = 32;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const ENTRY_BYTES: usize = ROOM - 1;

    const TOLERANCE: Duration = Duration::from_mins(5);

    struct Vector {
        secret: &'static str,
        id: &'static str,
        timestamp: i64,
        body: &'static str,
        signature: &'static str,
    }

    // The published vectors of the reference libraries.
    const V1: Vector = Vector {
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp: 1_614_265_330,
        body: r#"{"test": 2432232314}"#,
        signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    };
    const V2: Vector = Vector {
        secret: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        timestamp: 1_649_367_553,
        body: r#"{"email":"test@example.com","username":"test_user"}"#,
        signature: "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    };

    impl Vector {
        fn secrets(&self) -> Vec<SigningSecret> {
            vec![SigningSecret::parse(self.secret).unwrap()]
        }

        fn verify(&self, timestamp: &str, signature: &str, now: i64) -> Result<(), Invalid> {
            let body = self.body.as_bytes();
            verify(
                &self.secrets(),
                self.id,
                timestamp,
                signature,
                body,
                now,
                TOLERANCE,
            )
        }

        fn verify_at(&self, now: i64) -> Result<(), Invalid> {
            self.verify(&self.timestamp.to_string(), self.signature, now)
        }
    }

    #[test]
    fn the_published_vectors_are_what_we_sign_and_accept() {
        for vector in [V1, V2] {
            let body = vector.body.as_bytes();
            let signed = sign(&vector.secrets(), vector.id, vector.timestamp, body);
            assert_eq!(signed, vector.signature);
            assert_eq!(vector.verify_at(vector.timestamp), Ok(()));
        }
    }

    #[test]
    fn a_timestamp_is_plain_digits_or_refused() {
        for text in [
            "161426533.0",
            "invalid",
            "-161426533",
            "+1614265330",
            " 1614265330",
            "٣",
        ] {
            let verdict = V1.verify(text, V1.signature, V1.timestamp);
            assert_eq!(verdict, Err(Invalid::MalformedTimestamp), "{text}");
        }
        let beyond = "9223372036854775808";
        assert_eq!(
            V1.verify(beyond, V1.signature, 0),
            Err(Invalid::MalformedTimestamp)
        );
        assert_eq!(
            V1.verify("", V1.signature, 0),
            Err(Invalid::MissingTimestamp)
        );
    }

    #[test]
    fn five_minutes_either_side_are_tolerated_and_not_a_second_more() {
        let signed_at = V1.timestamp;
        assert_eq!(V1.verify_at(signed_at + 300), Ok(()));
        assert_eq!(V1.verify_at(signed_at - 300), Ok(()));
        assert_eq!(
            V1.verify_at(signed_at + 301),
            Err(Invalid::TooOld { seconds: 301 })
        );
        assert_eq!(
            V1.verify_at(signed_at - 301),
            Err(Invalid::TooNew { seconds: 301 })
        );
    }

    #[test]
    fn the_extremes_of_time_do_not_overflow() {
        assert!(matches!(
            V1.verify_at(i64::MIN),
            Err(Invalid::TooNew { .. })
        ));
        assert!(matches!(
            V1.verify_at(i64::MAX),
            Err(Invalid::TooOld { .. })
        ));
        let secrets = V1.secrets();
        assert_eq!(sign(&secrets, "id", i64::MIN, b"").len(), ENTRY_BYTES);
        assert_ne!(
            sign(&secrets, "id", i64::MIN, b""),
            sign(&secrets, "id", i64::MAX, b"")
        );
    }

    #[test]
    fn a_missing_id_or_signature_is_named() {
        let body = V1.body.as_bytes();
        let (now, timestamp) = (V1.timestamp, V1.timestamp.to_string());
        let verdict = verify(
            &V1.secrets(),
            "",
            &timestamp,
            V1.signature,
            body,
            now,
            TOLERANCE,
        );
        assert_eq!(verdict, Err(Invalid::MissingId));
        for signature in [
            "",
            " ",
            "v1a,AAAA",
            "v2,AAAA",
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ] {
            let verdict = V1.verify(&timestamp, signature, now);
            assert_eq!(verdict, Err(Invalid::NoSignature), "{signature}");
        }
    }

    #[test]
    fn a_signature_that_is_cut_or_garbled_does_not_match() {
        let (now, timestamp) = (V1.timestamp, V1.timestamp.to_string());
        let cut = &V1.signature[..V1.signature.len() - 4];
        for signature in ["v1,", "v1,!", "v1,AAAA", cut, &V1.signature.to_lowercase()] {
            let verdict = V1.verify(&timestamp, signature, now);
            assert_eq!(verdict, Err(Invalid::NoMatch), "{signature}");
        }
    }

    #[test]
    fn unknown_versions_are_skipped() {
        let mixed = format!("v1a,AAAA v9,x nonsense v1,AAAA {}", V1.signature);
        assert_eq!(
            V1.verify(&V1.timestamp.to_string(), &mixed, V1.timestamp),
            Ok(())
        );
    }

    #[test]
    fn during_a_rotation_either_secret_verifies() {
        let [old, new] = [V1.secrets(), V2.secrets()];
        let both = [new.clone(), old.clone()].concat();
        let header = sign(&both, "msg_1", 1000, b"{}");
        assert_eq!(header.split(' ').count(), 2);
        assert_eq!(header.len(), 2 * ENTRY_BYTES + 1);
        for secrets in [&old, &new, &both] {
            assert_eq!(
                verify(secrets, "msg_1", "1000", &header, b"{}", 1000, TOLERANCE),
                Ok(())
            );
        }
    }

    #[test]
    fn without_secrets_nothing_is_signed_and_nothing_verifies() {
        assert_eq!(sign(&[], "msg_1", 1000, b"{}"), "");
        let verdict = verify(
            &[],
            V1.id,
            "1614265330",
            V1.signature,
            b"{}",
            1_614_265_330,
            TOLERANCE,
        );
        assert_eq!(verdict, Err(Invalid::NoSignature));
    }

    proptest! {
        #[test]
        fn what_we_sign_verifies_and_any_change_does_not(
            id in "[A-Za-z0-9_-]{1,40}",
            timestamp in 0..i64::MAX,
            body in prop::collection::vec(any::<u8>(), 0..300),
            flip in any::<prop::sample::Index>(),
        ) {
            let secrets = V1.secrets();
            let header = sign(&secrets, &id, timestamp, &body);
            let check = |id: &str, timestamp: i64, body: &[u8]| {
                verify(&secrets, id, &timestamp.to_string(), &header, body, timestamp, TOLERANCE)
            };
            prop_assert_eq!(check(&id, timestamp, &body), Ok(()));
            prop_assert_eq!(check(&format!("{id}x"), timestamp, &body), Err(Invalid::NoMatch));
            prop_assert_eq!(check(&id, timestamp ^ 1, &body), Err(Invalid::NoMatch));
            prop_assert_eq!(check(&id, timestamp, &[&body[..], b" "].concat()), Err(Invalid::NoMatch));
            if !body.is_empty() {
                let mut changed = body.clone();
                changed[flip.index(body.len())] ^= 1;
                prop_assert_eq!(check(&id, timestamp, &changed), Err(Invalid::NoMatch));
            }
        }

        #[test]
        fn no_headers_make_it_panic(
            id in any::<String>(), timestamp in any::<String>(), signature in any::<String>(), now in any::<i64>(),
        ) {
            prop_assert!(verify(&V1.secrets(), &id, &timestamp, &signature, b"", now, TOLERANCE).is_err());
        }
    }
}
