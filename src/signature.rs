//! Standard Webhooks signatures, version 1: who sent this, when, and that nothing was changed on the way.
//!
//! What is signed is `<id>.<timestamp>.<body>`, the body byte for byte as it is sent. During a rotation a request bears one
//! signature for each live secret, so a receiver may hold any of them.

use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::secret::SigningSecret;

/// The header that names the event; the same in every attempt.
pub const WEBHOOK_ID: &str = "webhook-id";
/// The header that tells when this attempt was signed, in Unix seconds.
pub const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
/// The header that holds the signatures, separated by spaces.
pub const WEBHOOK_SIGNATURE: &str = "webhook-signature";

/// The value of `webhook-signature`: `v1,` and base64 for each secret, in their order; empty where there is no secret.
/// `timestamp` is in Unix seconds. Neither it nor `id` may hold a `.`, or two different requests could be signed alike.
pub fn sign(secrets: &[SigningSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut digits = [0; 20];
    let timestamp = decimal(timestamp, &mut digits);
    let mut header = String::with_capacity(secrets.len() * (ENTRY_BYTES + 1));
    for secret in secrets {
        if !header.is_empty() {
            header.push(' ');
        }
        header.push_str(VERSION);
        let tag = authenticate(secret, id, timestamp, body)
            .finalize()
            .into_bytes();
        BASE64.encode_string(tag, &mut header);
    }
    header
}

/// Checks the three headers of a received request. `now` is in Unix seconds; `tolerance` is how far `timestamp` may be from it,
/// either way and inclusive. One good `v1` signature by any of the secrets is enough; other versions are skipped.
pub fn verify(
    secrets: &[SigningSecret],
    id: &str,
    timestamp: &str,
    signature: &str,
    body: &[u8],
    now: i64,
    tolerance: Duration,
) -> Result<(), Invalid> {
    if id.is_empty() {
        return Err(Invalid::MissingId);
    }
    check_age(timestamp, now, tolerance)?;
    let mut offered = signature
        .split(' ')
        .filter_map(|entry| entry.strip_prefix(VERSION))
        .peekable();
    if offered.peek().is_none() {
        return Err(Invalid::NoSignature);
    }
    let tags: Vec<Vec<u8>> = offered
        .filter_map(|entry| BASE64.decode(entry).ok())
        .collect();
    let matches = |secret: &SigningSecret| {
        let expected = authenticate(secret, id, timestamp.as_bytes(), body);
        // `verify_slice` takes the same time wherever the difference lies.
        tags.iter()
            .any(|tag| expected.clone().verify_slice(tag).is_ok())
    };
    if secrets.iter().any(matches) {
        Ok(())
    } else {
        Err(Invalid::NoMatch)
    }
}

/// Why a request is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// `webhook-id` is missing or empty.
    #[error("webhook-id is missing")]
    MissingId,
    /// `webhook-timestamp` is missing or empty.
    #[error("webhook-timestamp is missing")]
    MissingTimestamp,
    /// `webhook-timestamp` is anything but decimal digits.
    #[error("webhook-timestamp is not a whole number of Unix seconds")]
    MalformedTimestamp,
    /// Signed longer ago than the tolerance: a replay, or a clock that is wrong.
    #[error("webhook-timestamp is {seconds} s old, more than is tolerated")]
    TooOld {
        /// By how much it lies in the past.
        seconds: u64,
    },
    /// Signed further in the future than the tolerance: a clock is wrong.
    #[error("webhook-timestamp is {seconds} s in the future, more than is tolerated")]
    TooNew {
        /// By how much it lies in the future.
        seconds: u64,
    },
    /// `webhook-signature` is missing or holds no entry of version 1.
    #[error("webhook-signature holds no v1 signature")]
    NoSignature,
    /// Another secret, another id, another time, or another body.
    #[error("no v1 signature matches the id, the timestamp and the body under a known secret")]
    NoMatch,
}

fn check_age(timestamp: &str, now: i64, tolerance: Duration) -> Result<(), Invalid> {
    if timestamp.is_empty() {
        return Err(Invalid::MissingTimestamp);
    }
    if !timestamp.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Invalid::MalformedTimestamp);
    }
    let signed_at: i64 = timestamp.parse().map_err(|_| Invalid::MalformedTimestamp)?;
    let seconds = now.abs_diff(signed_at);
    match seconds <= tolerance.as_secs() {
        true => Ok(()),
        false if signed_at < now => Err(Invalid::TooOld { seconds }),
        false => Err(Invalid::TooNew { seconds }),
    }
}

fn authenticate(secret: &SigningSecret, id: &str, timestamp: &[u8], body: &[u8]) -> Hmac<Sha256> {
    // HMAC fills up a key with zeros to one block, and no secret is longer than that. Done here, it cannot fail.
    let mut block = Zeroizing::new([0; 64]);
    for (slot, byte) in block.iter_mut().zip(secret.bytes()) {
        *slot = *byte;
    }
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in [id.as_bytes(), b".", timestamp, b".", body] {
        mac.update(part);
    }
    mac
}

/// Writes into the caller's buffer, which holds any `i64`, to spare an allocation.
fn decimal(number: i64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut rest = &mut buffer[..];
    let written = match write!(rest, "{number}") {
        Ok(()) => 20 - rest.len(),
        Err(_) => 0,
    };
    &buffer[..written]
}

const VERSION: &str = "v1,";
const ENTRY_BYTES: usize = VERSION.len() + 44;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

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
        assert_eq!(verdict, Err(Invalid::NoMatch));
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
