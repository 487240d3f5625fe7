//! For a receiver in Rust: is this request really from the platform, as it was sent, and just now?

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::secret::{PublicKey, SigningSecret};
use crate::signature::{
    Invalid, Key, SVIX_ID, SVIX_SIGNATURE, SVIX_TIMESTAMP, WEBHOOK_ID, WEBHOOK_SIGNATURE,
    WEBHOOK_TIMESTAMP, verify_with,
};
use crate::{Error, Result};

/// Checks requests as Standard Webhooks 1.0 says, under the names `webhook-*` and under Svix's older `svix-*`.
///
/// ```
/// use http::HeaderMap;
/// use posthaste::verifier::Verifier;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let verifier = Verifier::new(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])?;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".parse()?);
/// headers.insert("webhook-timestamp", "1614265330".parse()?);
/// headers.insert("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".parse()?);
/// let body = br#"{"test": 2432232314}"#; // as it came, before any JSON parser
///
/// let event = verifier.verify_at(&headers, body, 1_614_265_330)?; // a receiver calls `verify`, which reads the clock
/// assert_eq!(event.id, "msg_p5jXN8AQM9LWM0D4loKWxJek");
///
/// let replayed = verifier.verify(&headers, body).unwrap_err();
/// assert!(replayed.to_string().starts_with("the timestamp is"));
/// # Ok(())
/// # }
/// ```
///
/// With an Ed25519 key the receiver holds nothing that could sign:
///
/// ```
/// # use posthaste::verifier::Verifier;
/// let verifier = Verifier::new(["whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="])?;
/// # Ok::<(), posthaste::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: Vec<Held>,
    tolerance: Duration,
}

/// What a request that was believed says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The event's id: the same whenever the event is sent again. Whoever remembers it does nothing twice.
    pub id: String,
    /// When this attempt was signed, in Unix seconds.
    pub timestamp: i64,
}

impl Verifier {
    /// One that believes any of these: shared secrets, `whsec_...`, and public keys, `whpk_...`. Give two while one replaces the
    /// other. There must be at least one, and no private key.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Result<Self> {
        let keys = secrets.into_iter().map(Held::parse);
        let keys: Vec<Held> = keys.collect::<Result<_>>()?;
        if keys.is_empty() {
            return Err(Error::Keys(
                "a verifier needs a secret (`whsec_`) or a public key (`whpk_`)".to_owned(),
            ));
        }
        Ok(Self {
            keys,
            tolerance: TOLERANCE,
        })
    }

    /// Believes timestamps so far from now, either way, and inclusive. Five minutes where nothing is said.
    #[must_use]
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Checks a request by the system's clock. `body` is the bytes as they came.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<Verified, Invalid> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = since.unwrap_or_default().as_secs();
        self.verify_at(headers, body, now.cast_signed())
    }

    /// The same as of `now`, in Unix seconds.
    pub fn verify_at(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: i64,
    ) -> Result<Verified, Invalid> {
        match self.verify_family(&STANDARD, headers, body, now) {
            // What is missing under the one names, or there in a version that this receiver has no key for, may be under the others.
            Err(Invalid::MissingId | Invalid::MissingTimestamp | Invalid::NoSignature)
                if headers.contains_key(SVIX.signature) =>
            {
                self.verify_family(&SVIX, headers, body, now)
            }
            verdict => verdict,
        }
    }

    fn verify_family(
        &self,
        family: &Family,
        headers: &HeaderMap,
        body: &[u8],
        now: i64,
    ) -> Result<Verified, Invalid> {
        let id = only(headers, family.id)?;
        let timestamp = verify_with(
            || self.keys.iter().map(Held::key),
            id,
            only(headers, family.timestamp)?,
            only(headers, family.signature)?,
            body,
            now,
            self.tolerance,
        )?;
        Ok(Verified {
            id: id.to_owned(),
            timestamp,
        })
    }
}

#[derive(Clone, Debug)]
enum Held {
    Shared(SigningSecret),
    Public(PublicKey),
}

impl Held {
    fn parse(text: &str) -> Result<Self> {
        if text.starts_with("whpk_") {
            return PublicKey::parse(text).map(Self::Public);
        }
        if text.starts_with("whsk_") {
            return Err(Error::Keys(
                "a verifier needs the public key, `whpk_`: the private one stays with who signs"
                    .to_owned(),
            ));
        }
        SigningSecret::parse(text).map(Self::Shared)
    }

    fn key(&self) -> Key<'_> {
        match self {
            Self::Shared(secret) => Key::Shared(secret.bytes()),
            Self::Public(key) => Key::Public(*key),
        }
    }
}

/// The names of the three headers.
struct Family {
    id: &'static str,
    timestamp: &'static str,
    signature: &'static str,
}

/// The one value of a header; empty where it is missing or no text.
fn only<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, Invalid> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().and_then(|value| value.to_str().ok());
    match values.next() {
        Some(_) => Err(Invalid::Repeated { header: name }),
        None => Ok(first.unwrap_or_default()),
    }
}

const STANDARD: Family = Family {
    id: WEBHOOK_ID,
    timestamp: WEBHOOK_TIMESTAMP,
    signature: WEBHOOK_SIGNATURE,
};
const SVIX: Family = Family {
    id: SVIX_ID,
    timestamp: SVIX_TIMESTAMP,
    signature: SVIX_SIGNATURE,
};
const TOLERANCE: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::secret::SecretKind;
    use crate::signature::{Message, Profile, Signer};

    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const AT: i64 = 1_614_265_330;

    #[test]
    fn a_request_verifies_by_either_kind_of_key_under_either_names() {
        let (shared, pair) = (secret(SecretKind::Shared), secret(SecretKind::Ed25519));
        let public = pair.public_key().unwrap().to_string();
        let secrets = [shared.clone(), pair.clone()];
        for profiles in [
            &[Profile::StandardV1, Profile::StandardV1a][..],
            &[Profile::SvixLegacy],
            &[Profile::StandardV1, Profile::SvixLegacy],
            &[Profile::StandardV1a, Profile::SvixLegacy],
        ] {
            for always in [true, false] {
                let mut headers = signed(profiles, &secrets);
                if !always && profiles == [Profile::SvixLegacy] {
                    headers.remove(WEBHOOK_ID);
                    headers.remove(WEBHOOK_TIMESTAMP);
                }
                for held in [&*shared.reveal(), &public] {
                    let verifier = Verifier::new([held.as_str()]).unwrap();
                    let passed = verifier.verify_at(&headers, BODY, AT).unwrap();
                    assert_eq!(passed.id, "msg_1");
                    assert_eq!(passed.timestamp, AT);
                    let changed = verifier.verify_at(&headers, b"{}", AT);
                    assert_eq!(changed, Err(Invalid::NoMatch), "{profiles:?}");
                }
            }
        }
    }

    #[test]
    fn a_stranger_to_both_keys_believes_nothing() {
        let secrets = [secret(SecretKind::Shared), secret(SecretKind::Ed25519)];
        let headers = signed(&[Profile::StandardV1, Profile::StandardV1a], &secrets);
        let others = [
            secret(SecretKind::Shared).reveal().to_string(),
            secret(SecretKind::Ed25519)
                .public_key()
                .unwrap()
                .to_string(),
        ];
        let verifier = Verifier::new(others.iter().map(String::as_str)).unwrap();
        assert_eq!(
            verifier.verify_at(&headers, BODY, AT),
            Err(Invalid::NoMatch)
        );
    }

    #[test]
    fn a_public_key_does_not_take_a_shared_signature_for_its_own() {
        let shared = secret(SecretKind::Shared);
        let headers = signed(&[Profile::StandardV1], &[shared]);
        let public = secret(SecretKind::Ed25519)
            .public_key()
            .unwrap()
            .to_string();
        let verifier = Verifier::new([public.as_str()]).unwrap();
        let verdict = verifier.verify_at(&headers, BODY, AT);
        assert_eq!(verdict, Err(Invalid::NoSignature));
    }

    #[test]
    fn the_tolerance_is_five_minutes_or_what_is_said() {
        let shared = secret(SecretKind::Shared);
        let headers = signed(&[Profile::StandardV1], std::slice::from_ref(&shared));
        let verifier = Verifier::new([shared.reveal().as_str()]).unwrap();
        assert!(verifier.verify_at(&headers, BODY, AT + 300).is_ok());
        let old = Err(Invalid::TooOld { seconds: 301 });
        assert_eq!(verifier.verify_at(&headers, BODY, AT + 301), old);
        let strict = verifier.tolerance(Duration::from_secs(1));
        let new = Err(Invalid::TooNew { seconds: 2 });
        assert_eq!(strict.verify_at(&headers, BODY, AT - 2), new);
    }

    #[test]
    fn what_is_missing_or_repeated_is_named() {
        let shared = secret(SecretKind::Shared);
        let headers = signed(&[Profile::StandardV1], std::slice::from_ref(&shared));
        let verifier = Verifier::new([shared.reveal().as_str()]).unwrap();
        let cases = [
            (WEBHOOK_ID, Invalid::MissingId),
            (WEBHOOK_TIMESTAMP, Invalid::MissingTimestamp),
            (WEBHOOK_SIGNATURE, Invalid::NoSignature),
        ];
        for (name, missing) in cases {
            let mut without = headers.clone();
            without.remove(name);
            assert_eq!(verifier.verify_at(&without, BODY, AT), Err(missing));
            let mut twice = headers.clone();
            twice.append(name, headers[name].clone());
            let repeated = Err(Invalid::Repeated { header: name });
            assert_eq!(verifier.verify_at(&twice, BODY, AT), repeated);
        }
    }

    #[test]
    fn a_verifier_takes_one_key_or_more_and_no_private_one() {
        assert!(Verifier::new([]).is_err());
        let pair = secret(SecretKind::Ed25519).reveal();
        let error = Verifier::new([pair.as_str()]).unwrap_err().to_string();
        assert!(
            error.contains("whpk_") && !error.contains(&pair[10..]),
            "{error}"
        );
        for text in ["", "whsec_", "whpk_AAAA", "secret"] {
            assert!(Verifier::new([text]).is_err(), "{text}");
        }
        let shared = secret(SecretKind::Shared).reveal();
        let shown = format!("{:?}", Verifier::new([shared.as_str()]).unwrap());
        assert!(!shown.contains(&shared[6..]), "{shown}");
    }

    fn secret(kind: SecretKind) -> SigningSecret {
        SigningSecret::generate_as(kind).unwrap()
    }

    fn signed(profiles: &[Profile], secrets: &[SigningSecret]) -> HeaderMap {
        let message = Message {
            id: "msg_1",
            timestamp: AT,
            body: BODY,
            event_type: "a.b",
        };
        let signer = Signer::new(profiles.iter().copied(), None).unwrap();
        let mut headers = HeaderMap::from_iter(signer.sign(secrets, &message).unwrap());
        headers.insert(WEBHOOK_ID, message.id.parse().unwrap());
        headers.insert(WEBHOOK_TIMESTAMP, AT.into());
        headers
    }
}
