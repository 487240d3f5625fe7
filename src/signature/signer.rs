//! Signs a request for each of a subscription's profiles.
//!
//! While a secret is being replaced, two of them are live. The profiles whose header holds a list bear a signature by each, and a
//! receiver may hold either. The others have room for one, and it is the **oldest** live secret that makes it, until it ends: a
//! receiver that still holds the old one goes on undisturbed, and changes to the new one when the old one ends, or has it ended
//! early once it is ready. The newest would break it at the moment of the rotation, before it could even be told. A text secret
//! goes before shared ones there, whatever their age: whoever gave one meant it for these profiles, since it serves no others.

use http::{HeaderName, HeaderValue};

use super::WEBHOOK_SIGNATURE;
use super::mac::{decimal, push_base64, push_hex, tag};
use super::profile::{Profile, SVIX_ID, SVIX_TIMESTAMP, X_EVENT_ID, X_EVENT_TYPE, signature_name};
use super::standard::{Content, ROOM};
use crate::secret::{SecretKind, SigningSecret};
use crate::{Error, Result};

/// Makes the signature headers of some profiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Each with the name of the header that its signature goes into.
    ways: Vec<(Profile, HeaderName)>,
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct Message<'m> {
    /// The event's id, with no `.` in it.
    pub id: &'m str,
    /// Unix seconds.
    pub timestamp: i64,
    /// The bytes that are sent.
    pub body: &'m [u8],
    /// The event's type, which Hook0 signs too.
    pub event_type: &'m str,
}

/// Why a request was not signed. Then it is not sent either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// There is no live secret that this profile could be signed with.
    #[error("the signature profile {0} has no live signing secret of a kind that it takes ({kinds})", kinds = kinds(*.0))]
    NoSecret(Profile),
    /// The id or the event type holds a character that no header can.
    #[error("the signature profile {0} cannot put this id or event type into a header")]
    Unfit(Profile),
}

impl Signer {
    /// One for these profiles. There must be at least one, and no two may use the same header but `standard_v1` and
    /// `standard_v1a`, which share a list. `prefix` is that of [`header_names`](super::header_names).
    pub fn new(profiles: impl IntoIterator<Item = Profile>, prefix: Option<&str>) -> Result<Self> {
        let mut ways: Vec<(Profile, HeaderName)> = Vec::new();
        for profile in profiles {
            let name = signature_name(profile, prefix)?;
            if let Some((rival, _)) = ways
                .iter()
                .find(|earlier| are_rivals(earlier, &(profile, name.clone())))
            {
                return Err(Error::Config(format!(
                    "the signature profiles `{rival}` and `{profile}` would use the same header"
                )));
            }
            ways.push((profile, name));
        }
        if ways.is_empty() {
            return Err(Error::Config(
                "there is no signature profile, and nothing is sent unsigned".to_owned(),
            ));
        }
        Ok(Self { ways })
    }

    /// Its profiles.
    pub fn profiles(&self) -> impl Iterator<Item = Profile> {
        self.ways.iter().map(|(profile, _)| *profile)
    }

    /// Which of the live secrets, the oldest first, [`sign`](Self::sign) signs with: true in the place of each that it uses.
    pub fn used(&self, secrets: &[SigningSecret]) -> impl Iterator<Item = bool> {
        let is_used = move |secret: &SigningSecret| {
            self.profiles().any(|profile| {
                let fits = profile.takes(secret.kind());
                // A list has room for all that fit.
                fits && (!profile.has_room_for_one()
                    || only_one(profile, secrets).is_some_and(|one| std::ptr::eq(one, secret)))
            })
        };
        secrets.iter().map(is_used)
    }

    /// The headers to set beside `webhook-id` and `webhook-timestamp`, which the caller sets in any case. Of the live
    /// `secrets`, the oldest comes first. Where one profile finds none, nothing is signed: a signature that was promised is
    /// never missing.
    pub fn sign(
        &self,
        secrets: &[SigningSecret],
        message: &Message<'_>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Unsigned> {
        let mut digits = [0; 20];
        let desk = Desk {
            secrets,
            message,
            timestamp: decimal(message.timestamp, &mut digits),
        };
        let mut headers = Vec::with_capacity(self.ways.len());
        let (mut list, mut list_name) = (String::new(), None);
        for (profile, name) in &self.ways {
            if matches!(profile, Profile::StandardV1 | Profile::StandardV1a) {
                desk.append(*profile, &mut list)?;
                list_name = Some(name);
            } else {
                desk.introduce(*profile, &mut headers)?;
                headers.push((name.clone(), fit(*profile, desk.value(*profile)?)?));
            }
        }
        if let Some(name) = list_name {
            headers.push((name.clone(), fit(Profile::StandardV1, list)?));
        }
        Ok(headers)
    }
}

impl Default for Signer {
    /// Standard Webhooks with shared secrets alone.
    fn default() -> Self {
        let name = HeaderName::from_static(WEBHOOK_SIGNATURE);
        Self {
            ways: vec![(Profile::StandardV1, name)],
        }
    }
}

/// One message and what may sign it.
struct Desk<'d> {
    secrets: &'d [SigningSecret],
    message: &'d Message<'d>,
    /// Decimal.
    timestamp: &'d [u8],
}

impl<'d> Desk<'d> {
    /// The headers that go before the signature.
    fn introduce(
        &self,
        profile: Profile,
        headers: &mut Vec<(HeaderName, HeaderValue)>,
    ) -> Result<(), Unsigned> {
        let mut add = |name, value: &[u8]| {
            let value = HeaderValue::from_bytes(value).map_err(|_| Unsigned::Unfit(profile))?;
            headers.push((HeaderName::from_static(name), value));
            Ok(())
        };
        match profile {
            Profile::SvixLegacy => {
                add(SVIX_ID, self.message.id.as_bytes())?;
                add(SVIX_TIMESTAMP, self.timestamp)
            }
            Profile::Hook0 => {
                add(X_EVENT_ID, self.message.id.as_bytes())?;
                add(X_EVENT_TYPE, self.message.event_type.as_bytes())
            }
            _ => Ok(()),
        }
    }

    /// The signature's header.
    fn value(&self, profile: Profile) -> Result<String, Unsigned> {
        match profile {
            Profile::StandardV1 | Profile::StandardV1a | Profile::SvixLegacy => {
                let mut list = String::new();
                self.append(profile, &mut list)?;
                Ok(list)
            }
            Profile::Stripe => self.timed(profile, b"."),
            Profile::Convoy => self.timed(profile, b","),
            Profile::Hook0 => self.hook0(),
            Profile::Github | Profile::Prefixed => self.plain(profile, "sha256=", push_hex),
            Profile::ConvoySimple => self.plain(profile, "", push_hex),
            Profile::Shopify => self.plain(profile, "", push_base64),
        }
    }

    /// Appends the signature by each secret that fits to a list of Standard Webhooks'.
    fn append(&self, profile: Profile, list: &mut String) -> Result<(), Unsigned> {
        let content = Content {
            id: self.message.id,
            timestamp: self.timestamp,
            body: self.message.body,
        };
        list.reserve(self.secrets.len() * ROOM);
        let bare = list.len();
        let mut all = true;
        for secret in self.fitting(profile) {
            all &= content.append(secret, list);
        }
        if all && list.len() > bare {
            Ok(())
        } else {
            Err(Unsigned::NoSecret(profile))
        }
    }

    /// `t=<timestamp>`, then `v1=` and hex by each secret, over the timestamp, `separator` and the body.
    fn timed(&self, profile: Profile, separator: &[u8]) -> Result<String, Unsigned> {
        let mut value = self.dated();
        let parts = [self.timestamp, separator, self.message.body];
        let bare = value.len();
        for secret in self.fitting(profile) {
            value.push_str(",v1=");
            push_hex(&mut value, &tag(secret.reveal().as_bytes(), &parts));
        }
        if value.len() == bare {
            return Err(Unsigned::NoSecret(profile));
        }
        Ok(value)
    }

    /// The body's signature, by the one secret that there is room for.
    fn plain(
        &self,
        profile: Profile,
        start: &str,
        push: fn(&mut String, &[u8]),
    ) -> Result<String, Unsigned> {
        let secret = self.one(profile)?;
        let mut value = start.to_owned();
        push(
            &mut value,
            &tag(secret.reveal().as_bytes(), &[self.message.body]),
        );
        Ok(value)
    }

    /// Both versions: older receivers check `v0`, over timestamp and body; newer ones `v1`, over two headers as well.
    fn hook0(&self) -> Result<String, Unsigned> {
        let key = self.one(Profile::Hook0)?.reveal();
        let Message {
            id,
            body,
            event_type,
            ..
        } = self.message;
        let mut value = self.dated();
        value.push_str(",v0=");
        push_hex(
            &mut value,
            &tag(key.as_bytes(), &[self.timestamp, b".", body]),
        );
        let names = [X_EVENT_ID, X_EVENT_TYPE].join(" ");
        let head = [names.as_str(), id, event_type].join(".");
        value.push_str(",h=");
        value.push_str(&names);
        value.push_str(",v1=");
        let parts = [self.timestamp, b".", head.as_bytes(), b".", body];
        push_hex(&mut value, &tag(key.as_bytes(), &parts));
        Ok(value)
    }

    fn dated(&self) -> String {
        format!("t={}", self.message.timestamp)
    }

    fn one(&self, profile: Profile) -> Result<&'d SigningSecret, Unsigned> {
        only_one(profile, self.secrets).ok_or(Unsigned::NoSecret(profile))
    }

    fn fitting(&self, profile: Profile) -> impl Iterator<Item = &'d SigningSecret> + use<'d> {
        fitting(profile, self.secrets)
    }
}

fn fitting(profile: Profile, secrets: &[SigningSecret]) -> impl Iterator<Item = &SigningSecret> {
    let secrets = secrets.iter();
    secrets.filter(move |secret| profile.takes(secret.kind()))
}

/// The secret that signs where there is room for one signature.
fn only_one(profile: Profile, secrets: &[SigningSecret]) -> Option<&SigningSecret> {
    let is_text = |secret: &&SigningSecret| secret.kind() == SecretKind::Text;
    let given = fitting(profile, secrets).find(is_text);
    given.or_else(|| fitting(profile, secrets).next())
}

fn fit(profile: Profile, value: String) -> Result<HeaderValue, Unsigned> {
    HeaderValue::try_from(value).map_err(|_| Unsigned::Unfit(profile))
}

fn are_rivals(
    (one, name): &(Profile, HeaderName),
    (other, other_name): &(Profile, HeaderName),
) -> bool {
    let share_a_list = matches!(
        (one, other),
        (Profile::StandardV1, Profile::StandardV1a) | (Profile::StandardV1a, Profile::StandardV1)
    );
    name == other_name && !share_a_list
}

fn kinds(profile: Profile) -> String {
    let taken = SecretKind::ALL
        .into_iter()
        .filter(|kind| profile.takes(*kind));
    taken
        .map(SecretKind::as_str)
        .collect::<Vec<_>>()
        .join(" or ")
}
