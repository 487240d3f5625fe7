//! Signing secrets and the values of secret headers, and the keyring that encrypts them at rest.
//!
//! Postgres holds a secret only as [`Sealed`]: whoever reads the database, its log or a backup learns nothing without the keyring,
//! which comes from the environment or a file. The ciphertext is bound to its row: copied to another, it does not open.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD as BASE64, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{Error, Result};

/// What a signing secret is: this decides which signature profiles it can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretKind {
    /// 24 to 64 random bytes that the partner knows too, written as `whsec_` and base64.
    Shared,
    /// A text that the partner knows from another sender, used letter by letter.
    Text,
    /// A private Ed25519 key, written as `whsk_` and base64. The partner knows its public half, `whpk_`.
    Ed25519,
}

impl SecretKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Shared, Self::Text, Self::Ed25519];

    /// Reads what [`as_str`](Self::as_str) gives.
    pub fn parse(text: &str) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        named.ok_or_else(|| {
            Error::Keys(format!(
                "`{text}` is no kind of signing secret; there are `shared`, `text` and `ed25519`"
            ))
        })
    }

    /// `shared`, `text` or `ed25519`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Text => "text",
            Self::Ed25519 => "ed25519",
        }
    }

    /// The shared kind is sealed as it was when there was no other.
    const fn sealed_as(self) -> Kind {
        match self {
            Self::Shared => SIGNING,
            Self::Text => SIGNING_TEXT,
            Self::Ed25519 => SIGNING_ED25519,
        }
    }
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What else a subscription keeps secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// The value of a header.
    Header,
    /// The secret part of its authentication: a token, a password, a key, a client's secret.
    Authentication,
    /// The private key of its client certificate, as PEM.
    ClientKey,
}

impl CredentialKind {
    /// What the database calls it: `header`, `authentication` or `client_key`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "header" => Some(Self::Header),
            "authentication" => Some(Self::Authentication),
            "client_key" => Some(Self::ClientKey),
            _ => None,
        }
    }

    const fn sealed_as(self) -> Kind {
        match self {
            Self::Header => HEADER,
            Self::Authentication => AUTHENTICATION,
            Self::ClientKey => CLIENT_KEY,
        }
    }

    fn check(self, value: &[u8]) -> Result<()> {
        match self {
            Self::Header if !is_header_value(value) => Err(Error::Keys(HEADER_RULE.into())),
            Self::Authentication if !is_header_value(value) => {
                Err(Error::Keys(AUTHENTICATION_RULE.into()))
            }
            Self::ClientKey if !is_pem(value) => Err(Error::Keys(CLIENT_KEY_RULE.into())),
            _ => Ok(()),
        }
    }
}

/// What the database calls the kind of a partner's key.
pub const PARTNER: &str = "partner";

/// 32 random bytes for a partner's pseudonyms.
pub fn generate_partner_key() -> Result<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    fill_random(key.as_mut())?;
    Ok(key)
}

/// What signs a subscription's requests. A clone shares the bytes; the last one wipes them.
#[derive(Clone)]
pub struct SigningSecret {
    kind: SecretKind,
    bytes: Arc<Zeroizing<Vec<u8>>>,
}

impl SigningSecret {
    /// A new shared secret of 32 random bytes. Fails only where the system has no randomness to give.
    pub fn generate() -> Result<Self> {
        Self::generate_as(SecretKind::Shared)
    }

    /// A new secret of this kind, made of 32 random bytes; a text is their 43 letters and digits, `-` and `_`.
    pub fn generate_as(kind: SecretKind) -> Result<Self> {
        let mut random = Zeroizing::new(vec![0; 32]);
        fill_random(&mut random)?;
        match kind {
            SecretKind::Shared => Self::shared(random),
            SecretKind::Ed25519 => Self::ed25519(&random),
            SecretKind::Text => {
                let mut text = Zeroizing::new(String::with_capacity(43));
                URL_SAFE_NO_PAD.encode_string(&*random, &mut text);
                Self::text(&text)
            }
        }
    }

    /// Reads a shared secret, `whsec_` and base64, or an Ed25519 key, `whsk_` and base64, padded or not. The error names the
    /// rule, never the value.
    pub fn parse(text: &str) -> Result<Self> {
        if text.starts_with(PRIVATE_PREFIX) {
            return Self::parse_as(SecretKind::Ed25519, text);
        }
        Self::parse_as(SecretKind::Shared, text)
    }

    /// Reads a secret of this kind: [`reveal`](Self::reveal) gives it back. A text may be whatever another sender made, also
    /// one that starts with `whsec_`: it is 1 to 256 visible ASCII characters, with spaces only between them. The error names
    /// the rule, never the value.
    pub fn parse_as(kind: SecretKind, text: &str) -> Result<Self> {
        match kind {
            SecretKind::Shared => Self::shared(decoded(text, SECRET_PREFIX, SHARED_RULE)?),
            SecretKind::Text => Self::text(text),
            SecretKind::Ed25519 => Self::ed25519(&decoded(text, PRIVATE_PREFIX, ED25519_RULE)?),
        }
    }

    /// Which kind this is.
    pub const fn kind(&self) -> SecretKind {
        self.kind
    }

    /// The secret as text. A shared one, `whsec_` and padded base64, or a text is what the partner is given; an Ed25519 key,
    /// `whsk_` and the padded base64 of its private and public half, is given to nobody.
    pub fn reveal(&self) -> Zeroizing<String> {
        match self.kind {
            SecretKind::Shared => encode_after(SECRET_PREFIX, &self.bytes),
            // Every text was ASCII when it was read.
            SecretKind::Text => Zeroizing::new(String::from_utf8_lossy(&self.bytes).into_owned()),
            SecretKind::Ed25519 => encode_after(PRIVATE_PREFIX, &self.bytes),
        }
    }

    /// What is sealed: the key of a shared secret's HMAC, the letters of a text, the 32 bytes of an Ed25519 key's seed and the 32
    /// of its public half.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The public half of an Ed25519 key; no other kind has one.
    pub fn public_key(&self) -> Option<PublicKey> {
        let (_, public) = self.halves()?;
        Some(PublicKey(*public))
    }

    /// Signs with an Ed25519 key, deterministically; no other kind can.
    pub(crate) fn sign_ed25519(&self, message: &[u8]) -> Option<[u8; 64]> {
        let (seed, public) = self.halves()?;
        // Made anew each time: a pair that was kept could not be wiped.
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).ok()?;
        pair.sign(message).as_ref().try_into().ok()
    }

    fn halves(&self) -> Option<(&[u8; 32], &[u8; 32])> {
        let (seed, rest) = self.bytes.split_first_chunk()?;
        let public = rest.try_into().ok()?;
        (self.kind == SecretKind::Ed25519).then_some((seed, public))
    }

    fn from_sealed(kind: SecretKind, bytes: Zeroizing<Vec<u8>>) -> Result<Self> {
        match kind {
            SecretKind::Shared => Self::shared(bytes),
            SecretKind::Text => Self::text(std::str::from_utf8(&bytes).unwrap_or_default()),
            SecretKind::Ed25519 => Self::ed25519(&bytes),
        }
    }

    fn shared(bytes: Zeroizing<Vec<u8>>) -> Result<Self> {
        if !(24..=64).contains(&bytes.len()) {
            return Err(bad_secret(SHARED_RULE, &holds(&bytes)));
        }
        Ok(Self::new(SecretKind::Shared, bytes))
    }

    fn text(text: &str) -> Result<Self> {
        if !is_printable(text.as_bytes(), TEXT_CHARACTERS) {
            return Err(bad_secret(TEXT_RULE, "this one is not"));
        }
        let bytes = Zeroizing::new(text.as_bytes().to_vec());
        Ok(Self::new(SecretKind::Text, bytes))
    }

    /// From a seed, or from a seed and its public half. A half that belongs to another seed is refused: to sign with the two
    /// would give the private key away.
    fn ed25519(bytes: &[u8]) -> Result<Self> {
        let (seed, public) = bytes
            .split_at_checked(32)
            .filter(|(_, public)| matches!(public.len(), 0 | 32))
            .ok_or_else(|| bad_secret(ED25519_RULE, &holds(bytes)))?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| bad_secret(ED25519_RULE, "this one is no key"))?;
        let own = pair.public_key().as_ref();
        if !public.is_empty() && public != own {
            return Err(bad_secret(
                ED25519_RULE,
                "in this one they do not belong together",
            ));
        }
        let mut both = Zeroizing::new(Vec::with_capacity(64));
        both.extend_from_slice(seed);
        both.extend_from_slice(own);
        Ok(Self::new(SecretKind::Ed25519, both))
    }

    fn new(kind: SecretKind, bytes: Zeroizing<Vec<u8>>) -> Self {
        let bytes = Arc::new(bytes);
        Self { kind, bytes }
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(hidden)")
    }
}

/// The half of an Ed25519 key that may be known to all: it checks signatures and makes none. Shown as `whpk_` and padded base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads `whpk_` and base64, padded or not.
    pub fn parse(text: &str) -> Result<Self> {
        let bytes = decoded(text, PUBLIC_PREFIX, PUBLIC_RULE)?;
        let bytes = bytes.as_slice().try_into();
        bytes
            .map(Self)
            .map_err(|_| bad_secret(PUBLIC_RULE, "this one has another length"))
    }

    /// The key itself.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the private half signed this.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_after(PUBLIC_PREFIX, &self.0))
    }
}

/// A secret as the database holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Which key of the keyring encrypted it.
    pub key_id: String,
    /// A nonce of 24 bytes, then the XChaCha20-Poly1305 ciphertext with its tag of 16.
    pub ciphertext: Vec<u8>,
}

/// The encryption keys for secrets at rest, by id. The first one encrypts, all of them decrypt: put a new key in front, seal what
/// is there again, then take the old one out.
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<EncryptionKey>,
}

impl Keyring {
    /// Reads `<id>:<base64 of 32 bytes>`, one key a line or separated by commas; blank lines are skipped. An id is 1 to 32 of
    /// `a-z`, `0-9`, `_` and `-`, and unique. The error names the key by its place, never by its content.
    pub fn parse(text: &str) -> Result<Self> {
        let mut keys: Vec<EncryptionKey> = Vec::new();
        let entries = text.split([',', '\n']).map(str::trim);
        for (index, entry) in entries.filter(|entry| !entry.is_empty()).enumerate() {
            let key = EncryptionKey::parse(entry).map_err(|reason| bad_key(index + 1, &reason))?;
            if keys.iter().any(|earlier| earlier.id == key.id) {
                return Err(bad_key(
                    index + 1,
                    &format!("the id `{}` is taken by an earlier key", key.id),
                ));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(Error::Keys(format!("the keyring holds no key; {KEY_RULE}")));
        }
        Ok(Self { keys })
    }

    /// A new random key as a line of a keyring, without a line end.
    pub fn generate_line(id: &str) -> Result<Zeroizing<String>> {
        if !is_key_id(id) {
            return Err(Error::Keys(format!(
                "`{id}` cannot be the id of a key; {KEY_RULE}"
            )));
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        fill_random(bytes.as_mut())?;
        Ok(encode_after(&format!("{id}:"), bytes.as_ref()))
    }

    /// The ids, the one that encrypts first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }

    /// Encrypts a signing secret for one row of one subscription. Its kind is bound to it as the row is.
    pub fn seal(
        &self,
        subscription_id: i32,
        secret_id: Uuid,
        secret: &SigningSecret,
    ) -> Result<Sealed> {
        let row = secret.kind.sealed_as().row(subscription_id, secret_id);
        self.encrypt(&row, secret.bytes())
    }

    /// Decrypts what [`seal`](Self::seal) made for this very row. Fails where the key is not in the keyring, or where key, row,
    /// kind and ciphertext do not belong together.
    pub fn open(
        &self,
        subscription_id: i32,
        secret_id: Uuid,
        kind: SecretKind,
        key_id: &str,
        ciphertext: &[u8],
    ) -> Result<SigningSecret> {
        let row = kind.sealed_as().row(subscription_id, secret_id);
        SigningSecret::from_sealed(kind, self.decrypt(&row, key_id, ciphertext)?)
    }

    /// Encrypts what a subscription shows to its endpoint, for one row. The error names the rule, never the value.
    pub fn seal_credential(
        &self,
        kind: CredentialKind,
        subscription_id: i32,
        secret_id: Uuid,
        value: &str,
    ) -> Result<Sealed> {
        kind.check(value.as_bytes())?;
        let row = kind.sealed_as().row(subscription_id, secret_id);
        self.encrypt(&row, value.as_bytes())
    }

    /// Decrypts what [`seal_credential`](Self::seal_credential) made for this very row; fails as [`open`](Self::open) does.
    pub fn open_credential(
        &self,
        kind: CredentialKind,
        subscription_id: i32,
        secret_id: Uuid,
        sealed: &Sealed,
    ) -> Result<Zeroizing<String>> {
        let row = kind.sealed_as().row(subscription_id, secret_id);
        let value = self.decrypt(&row, &sealed.key_id, &sealed.ciphertext)?;
        kind.check(&value)?;
        // ASCII, as was just checked.
        Ok(Zeroizing::new(String::from_utf8_lossy(&value).into_owned()))
    }

    /// Encrypts the key of a partner's pseudonyms, for its row.
    pub fn seal_partner_key(&self, secret_id: Uuid, key: &[u8; 32]) -> Result<Sealed> {
        self.encrypt(&PARTNER_KEY.row(0, secret_id), key)
    }

    /// Decrypts what [`seal_partner_key`](Self::seal_partner_key) made for this very row; fails as [`open`](Self::open) does.
    pub fn open_partner_key(
        &self,
        secret_id: Uuid,
        sealed: &Sealed,
    ) -> Result<Zeroizing<[u8; 32]>> {
        let row = PARTNER_KEY.row(0, secret_id);
        let bytes = self.decrypt(&row, &sealed.key_id, &sealed.ciphertext)?;
        let key = bytes.as_slice().try_into().map(Zeroizing::new);
        key.map_err(|_| row.does_not_open(&sealed.key_id))
    }

    fn encrypt(&self, row: &Row, secret: &[u8]) -> Result<Sealed> {
        let key = self
            .keys
            .first()
            .ok_or_else(|| Error::Keys("the keyring holds no key".into()))?;
        let mut nonce = [0; NONCE_BYTES];
        fill_random(&mut nonce)?;
        let encrypted = key
            .cipher()?
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: secret,
                    aad: &row.binding(),
                },
            )
            .map_err(|_| Error::Keys(format!("a {} could not be encrypted", row.kind.name)))?;
        Ok(Sealed {
            key_id: key.id.clone(),
            ciphertext: [&nonce[..], &encrypted].concat(),
        })
    }

    fn decrypt(&self, row: &Row, key_id: &str, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let key = self.key(row.kind, key_id)?;
        let (nonce, encrypted) = ciphertext
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or_else(|| row.does_not_open(key_id))?;
        let opened = key.cipher()?.decrypt(
            &XNonce::from(*nonce),
            Payload {
                msg: encrypted,
                aad: &row.binding(),
            },
        );
        opened
            .map(Zeroizing::new)
            .map_err(|_| row.does_not_open(key_id))
    }

    fn key(&self, kind: Kind, id: &str) -> Result<&EncryptionKey> {
        self.keys.iter().find(|key| key.id == id).ok_or_else(|| {
            let known = self
                .ids()
                .map(|id| format!("`{id}`"))
                .collect::<Vec<_>>()
                .join(", ");
            Error::Keys(format!(
                "a {} needs the key `{id}`; the keyring holds {known}",
                kind.name
            ))
        })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

#[derive(Clone)]
struct EncryptionKey {
    id: String,
    bytes: Zeroizing<Vec<u8>>,
}

impl EncryptionKey {
    fn parse(entry: &str) -> std::result::Result<Self, String> {
        let (id, encoded) = entry.split_once(':').ok_or("it has no `:`")?;
        if !is_key_id(id) {
            // Not quoted: in a muddled line, what stands there may be the key.
            return Err("its id is malformed".into());
        }
        let bytes = decode(encoded).ok_or_else(|| format!("`{id}` is not base64"))?;
        if bytes.len() != KEY_BYTES {
            return Err(format!("`{id}` holds {} bytes", bytes.len()));
        }
        Ok(Self {
            id: id.into(),
            bytes,
        })
    }

    fn cipher(&self) -> Result<XChaCha20Poly1305> {
        XChaCha20Poly1305::new_from_slice(&self.bytes)
            .map_err(|_| Error::Keys(format!("key `{}` has the wrong length", self.id)))
    }
}

fn is_key_id(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    (1..=32).contains(&id.len()) && id.bytes().all(allowed)
}

/// What is sealed. Each kind has a domain of its own, so that neither opens as the other.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    domain: &'static [u8],
}

impl Kind {
    fn row(self, subscription_id: i32, secret_id: Uuid) -> Row {
        Row {
            kind: self,
            subscription_id,
            secret_id,
        }
    }
}

/// The row that a ciphertext is bound to.
struct Row {
    kind: Kind,
    subscription_id: i32,
    secret_id: Uuid,
}

impl Row {
    /// What the ciphertext is authenticated with. Within a kind every part has a fixed length, and the domain ends with the one
    /// NUL in it, so no two rows share it.
    fn binding(&self) -> Vec<u8> {
        [
            self.kind.domain,
            &self.subscription_id.to_be_bytes(),
            self.secret_id.as_bytes(),
        ]
        .concat()
    }

    fn does_not_open(&self, key_id: &str) -> Error {
        let Self {
            kind,
            subscription_id,
            secret_id,
        } = self;
        Error::Keys(format!(
            "{} {secret_id} of subscription {subscription_id} does not open with key `{key_id}`: \
             the key has other bytes, or the ciphertext was damaged or moved from another row",
            kind.name
        ))
    }
}

fn is_pem(value: &[u8]) -> bool {
    let is_line = |byte: &u8| matches!(byte, b' '..=b'~' | b'\r' | b'\n');
    value.len() <= PEM_CHARACTERS && value.starts_with(b"-----BEGIN ") && value.iter().all(is_line)
}

/// Visible ASCII, with spaces only inside: what `posthaste.checked_headers` allows for a header that is no secret.
fn is_header_value(value: &[u8]) -> bool {
    is_printable(value, HEADER_CHARACTERS)
}

fn is_printable(value: &[u8], limit: usize) -> bool {
    let is_visible = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_graphic);
    value.len() <= limit
        && is_visible(value.first())
        && is_visible(value.last())
        && value.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The buffer is as large as it gets from the start: growing would leave an unwiped copy behind.
fn decode(encoded: &str) -> Option<Zeroizing<Vec<u8>>> {
    let room = base64::decoded_len_estimate(encoded.len());
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    EITHER_PADDING.decode_vec(encoded, &mut bytes).ok()?;
    Some(bytes)
}

fn encode_after(prefix: &str, bytes: &[u8]) -> Zeroizing<String> {
    let room = prefix.len() + bytes.len().div_ceil(3) * 4;
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str(prefix);
    BASE64.encode_string(bytes, &mut text);
    text
}

fn fill_random(bytes: &mut [u8]) -> Result<()> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| Error::Keys("the system gave no random bytes".into()))
}

/// What follows the prefix.
fn decoded(text: &str, prefix: &str, rule: &str) -> Result<Zeroizing<Vec<u8>>> {
    let encoded = text
        .strip_prefix(prefix)
        .ok_or_else(|| bad_secret(rule, &format!("this one does not start with `{prefix}`")))?;
    decode(encoded).ok_or_else(|| bad_secret(rule, "this one is not base64"))
}

fn holds(bytes: &[u8]) -> String {
    format!("this one holds {} bytes", bytes.len())
}

fn bad_secret(rule: &str, reason: &str) -> Error {
    Error::Keys(format!("{rule}; {reason}"))
}

fn bad_key(place: usize, reason: &str) -> Error {
    Error::Keys(format!("key {place} of the keyring: {reason}; {KEY_RULE}"))
}

const SECRET_PREFIX: &str = "whsec_";
const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";
const SHARED_RULE: &str = "a signing secret is `whsec_` and the base64 of 24 to 64 bytes";
const TEXT_RULE: &str = "a signing secret that is a text is 1 to 256 visible ASCII characters, with spaces only between them";
const ED25519_RULE: &str = "a private Ed25519 key is `whsk_` and the base64 of its seed of 32 bytes and its public half of 32, or of the seed alone";
const PUBLIC_RULE: &str = "a public Ed25519 key is `whpk_` and the base64 of 32 bytes";
const TEXT_CHARACTERS: usize = 256;
const HEADER_CHARACTERS: usize = 2048;
const KEY_RULE: &str = "a key is `<id>:<base64 of 32 bytes>`, its id 1 to 32 of a-z, 0-9, _ and -";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const SIGNING: Kind = Kind {
    name: "signing secret",
    domain: b"posthaste signing secret 1\0",
};
const SIGNING_TEXT: Kind = Kind {
    name: "signing secret",
    domain: b"posthaste signing secret, text 1\0",
};
const SIGNING_ED25519: Kind = Kind {
    name: "signing secret",
    domain: b"posthaste signing secret, ed25519 1\0",
};
const HEADER: Kind = Kind {
    name: "header secret",
    domain: b"posthaste header secret 1\0",
};
const AUTHENTICATION: Kind = Kind {
    name: "authentication's secret",
    domain: b"posthaste authentication 1\0",
};
const CLIENT_KEY: Kind = Kind {
    name: "client key",
    domain: b"posthaste client key 1\0",
};
const PARTNER_KEY: Kind = Kind {
    name: "partner's key",
    domain: b"posthaste partner key 1\0",
};
const AUTHENTICATION_RULE: &str = "the secret part of an authentication is 1 to 2048 visible ASCII characters, with spaces only between them";
const CLIENT_KEY_RULE: &str =
    "a client key is PEM text of at most 16384 characters, beginning with -----BEGIN";
const PEM_CHARACTERS: usize = 16_384;
const HEADER_RULE: &str = "the value of a secret header is 1 to 2048 visible ASCII characters, with spaces only between them";
const EITHER_PADDING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const V1: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ROW: Uuid = Uuid::from_u128(7);

    fn open_header(
        keys: &Keyring,
        id: i32,
        row: Uuid,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<String>> {
        let sealed = Sealed {
            key_id: "k1".to_owned(),
            ciphertext: ciphertext.to_vec(),
        };
        keys.open_credential(CredentialKind::Header, id, row, &sealed)
    }

    #[test]
    fn a_revealed_secret_reads_back() {
        let secret = SigningSecret::generate().unwrap();
        assert_eq!(secret.bytes().len(), 32);
        assert_eq!(
            SigningSecret::parse(&secret.reveal()).unwrap().bytes(),
            secret.bytes()
        );
        assert_eq!(*SigningSecret::parse(V1).unwrap().reveal(), V1);
    }

    #[test]
    fn two_generated_secrets_differ() {
        let [one, other] = [(); 2].map(|()| SigningSecret::generate().unwrap());
        assert_ne!(one.bytes(), other.bytes());
    }

    #[test]
    fn padding_may_be_missing_but_is_always_written() {
        let padded = text_of(32);
        assert!(padded.ends_with('='));
        let bare = SigningSecret::parse(padded.trim_end_matches('=')).unwrap();
        assert_eq!(*bare.reveal(), padded);
    }

    #[test]
    fn a_secret_holds_24_to_64_bytes() {
        for (length, fits) in [(0, false), (23, false), (24, true), (64, true), (65, false)] {
            assert_eq!(
                SigningSecret::parse(&text_of(length)).is_ok(),
                fits,
                "{length} bytes"
            );
        }
    }

    #[test]
    fn a_refused_secret_is_never_repeated() {
        let canary = "CANARYcanaryCANARYcanaryCANARYca";
        let malformed = [
            canary.to_string(),
            format!("whsec_{canary}!"),
            format!("whsec_ {canary}"),
            format!("whsec_{canary}\n"),
            format!("WHSEC_{canary}"),
            "whsec_CANARY==".to_string(),
            format!("whpk_{canary}"),
        ];
        for text in malformed {
            let error = SigningSecret::parse(&text).unwrap_err().to_string();
            assert!(error.contains("24 to 64 bytes"), "{error}");
            assert!(!error.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn debug_shows_neither_secret_nor_key() {
        let secret = SigningSecret::parse(V1).unwrap();
        assert_eq!(format!("{secret:?}"), "SigningSecret(hidden)");
        assert_eq!(format!("{:?}", keyring(&["b", "a"])), r#"["b", "a"]"#);
    }

    #[test]
    fn a_sealed_secret_opens_in_its_own_row() {
        let keys = keyring(&["k1"]);
        let secret = SigningSecret::generate().unwrap();
        let sealed = keys.seal(3, ROW, &secret).unwrap();
        assert_eq!(sealed.key_id, "k1");
        assert_eq!(sealed.ciphertext.len(), 24 + 32 + 16);
        let opened = keys
            .open(
                3,
                ROW,
                SecretKind::Shared,
                &sealed.key_id,
                &sealed.ciphertext,
            )
            .unwrap();
        assert_eq!(opened.bytes(), secret.bytes());
    }

    #[test]
    fn a_ciphertext_that_was_moved_or_changed_does_not_open() {
        let keys = keyring(&["k1", "k2"]);
        let sealed = keys
            .seal(3, ROW, &SigningSecret::generate().unwrap())
            .unwrap();
        let other_row = Uuid::from_u128(8);
        assert!(
            keys.open(4, ROW, SecretKind::Shared, "k1", &sealed.ciphertext)
                .is_err()
        );
        assert!(
            keys.open(3, other_row, SecretKind::Shared, "k1", &sealed.ciphertext)
                .is_err()
        );
        assert!(
            keys.open(3, ROW, SecretKind::Shared, "k2", &sealed.ciphertext)
                .is_err()
        );
        for index in 0..sealed.ciphertext.len() {
            let mut changed = sealed.ciphertext.clone();
            changed[index] ^= 1;
            assert!(
                keys.open(3, ROW, SecretKind::Shared, "k1", &changed)
                    .is_err(),
                "byte {index}"
            );
            assert!(
                keys.open(
                    3,
                    ROW,
                    SecretKind::Shared,
                    "k1",
                    &sealed.ciphertext[..index]
                )
                .is_err(),
                "cut at {index}"
            );
        }
    }

    #[test]
    fn a_header_value_opens_in_its_own_row_and_as_nothing_else() {
        let keys = keyring(&["k1"]);
        let sealed = keys
            .seal_credential(CredentialKind::Header, 3, ROW, "Bearer CANARY")
            .unwrap();
        let ciphertext = &sealed.ciphertext;
        let opened = open_header(&keys, 3, ROW, ciphertext).unwrap();
        assert_eq!(*opened, "Bearer CANARY");
        assert!(open_header(&keys, 4, ROW, ciphertext).is_err());
        let other_row = Uuid::from_u128(8);
        assert!(open_header(&keys, 3, other_row, ciphertext).is_err());
        assert!(open_header(&keys, 3, ROW, &ciphertext[1..]).is_err());
        // 24 bytes would do as a signing secret.
        let long = keys
            .seal_credential(CredentialKind::Header, 3, ROW, &"x".repeat(24))
            .unwrap();
        assert!(
            keys.open(3, ROW, SecretKind::Shared, "k1", &long.ciphertext)
                .is_err()
        );
    }

    #[test]
    fn a_signing_secret_does_not_open_as_a_header_value() {
        let keys = keyring(&["k1"]);
        let secret = SigningSecret::shared(Zeroizing::new(vec![b'x'; 24])).unwrap();
        let sealed = keys.seal(3, ROW, &secret).unwrap();
        assert!(open_header(&keys, 3, ROW, &sealed.ciphertext).is_err());
    }

    #[test]
    fn a_header_value_is_visible_ascii_with_inner_spaces() {
        let keys = keyring(&["k1"]);
        for value in ["x", "a b", "!~", &"x".repeat(2048)] {
            assert!(
                keys.seal_credential(CredentialKind::Header, 3, ROW, value)
                    .is_ok(),
                "{value}"
            );
        }
        let too_long = "x".repeat(2049);
        for value in [
            "",
            " CANARY",
            "CANARY ",
            "CANARY\r\nx: y",
            "CANARY\u{e9}",
            &too_long,
        ] {
            let error = keys
                .seal_credential(CredentialKind::Header, 3, ROW, value)
                .unwrap_err()
                .to_string();
            assert!(error.contains("1 to 2048"), "{error}");
            assert!(!error.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn the_same_secret_never_seals_to_the_same_bytes() {
        let keys = keyring(&["k1"]);
        let secret = SigningSecret::generate().unwrap();
        assert_ne!(
            keys.seal(3, ROW, &secret).unwrap(),
            keys.seal(3, ROW, &secret).unwrap()
        );
    }

    #[test]
    fn a_new_key_in_front_encrypts_while_the_old_one_still_opens() {
        let old_line = Keyring::generate_line("old").unwrap();
        let new_line = Keyring::generate_line("new").unwrap();
        let secret = SigningSecret::generate().unwrap();
        let before = Keyring::parse(&old_line)
            .unwrap()
            .seal(3, ROW, &secret)
            .unwrap();

        let both = Keyring::parse(&format!("{}\n{}\n", *new_line, *old_line)).unwrap();
        assert_eq!(both.seal(3, ROW, &secret).unwrap().key_id, "new");
        let opened = both
            .open(
                3,
                ROW,
                SecretKind::Shared,
                &before.key_id,
                &before.ciphertext,
            )
            .unwrap();
        assert_eq!(opened.bytes(), secret.bytes());
    }

    #[test]
    fn an_unknown_key_is_named_beside_the_known_ones() {
        let error = keyring(&["k2", "k3"])
            .open(3, ROW, SecretKind::Shared, "k1", &[0; 99])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "keys: a signing secret needs the key `k1`; the keyring holds `k2`, `k3`"
        );
    }

    // The published pair of the reference libraries.
    const PRIVATE: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

    #[test]
    fn a_generated_secret_of_each_kind_reads_back_and_opens_as_that_kind_alone() {
        let keys = keyring(&["k1"]);
        for kind in SecretKind::ALL {
            assert_eq!(SecretKind::parse(kind.as_str()).unwrap(), kind);
            let secret = SigningSecret::generate_as(kind).unwrap();
            assert_eq!(secret.kind(), kind);
            let read = SigningSecret::parse_as(kind, &secret.reveal()).unwrap();
            assert_eq!(read.bytes(), secret.bytes());
            let sealed = keys.seal(3, ROW, &secret).unwrap().ciphertext;
            for asked in SecretKind::ALL {
                let opened = keys.open(3, ROW, asked, "k1", &sealed);
                let bytes = opened.ok().map(|opened| opened.bytes().to_vec());
                assert_eq!(bytes, (asked == kind).then(|| secret.bytes().to_vec()));
            }
        }
        assert!(SecretKind::parse("Shared").is_err());
    }

    #[test]
    fn a_shared_secret_is_bound_to_its_row_as_it_always_was() {
        let row = SecretKind::Shared.sealed_as().row(0x0102_0304, ROW);
        let expected = [
            &b"posthaste signing secret 1\0\x01\x02\x03\x04"[..],
            ROW.as_bytes(),
        ];
        assert_eq!(row.binding(), expected.concat());
    }

    #[test]
    fn an_ed25519_key_is_read_from_seed_and_public_half_or_from_the_seed_alone() {
        let key = SigningSecret::parse(PRIVATE).unwrap();
        assert_eq!(key.kind(), SecretKind::Ed25519);
        assert_eq!(key.public_key().unwrap().to_string(), PUBLIC);
        let seed = encode_after("whsk_", &key.bytes()[..32]);
        let from_seed = SigningSecret::parse(&seed).unwrap();
        assert_eq!(*from_seed.reveal(), PRIVATE);
        let generated = SigningSecret::generate_as(SecretKind::Ed25519).unwrap();
        let public = generated.public_key().unwrap();
        assert_eq!(PublicKey::parse(&public.to_string()).unwrap(), public);
        assert!(SigningSecret::generate().unwrap().public_key().is_none());
    }

    #[test]
    fn a_seed_with_the_public_half_of_another_is_refused() {
        let [one, other] =
            [(); 2].map(|()| SigningSecret::generate_as(SecretKind::Ed25519).unwrap());
        let mixed = [&one.bytes()[..32], &other.bytes()[32..]].concat();
        let error = SigningSecret::parse(&encode_after("whsk_", &mixed)).unwrap_err();
        assert!(
            error.to_string().contains("do not belong together"),
            "{error}"
        );
    }

    #[test]
    fn a_refused_key_is_never_repeated() {
        let canary = "CANARYcanaryCANARYcanaryCANARYca";
        for text in ["", "!", "x", canary, &canary[..28]] {
            let error = SigningSecret::parse(&format!("whsk_{text}"))
                .unwrap_err()
                .to_string();
            assert!(error.contains("seed of 32 bytes"), "{error}");
            assert!(!error.contains("CANARY"), "{error}");
            assert!(PublicKey::parse(&format!("whpk_{text}")).is_err());
        }
        assert!(PublicKey::parse(PRIVATE).is_err() && SigningSecret::parse(PUBLIC).is_err());
        let secret = SigningSecret::parse(PRIVATE).unwrap();
        assert_eq!(format!("{secret:?}"), "SigningSecret(hidden)");
    }

    #[test]
    fn a_text_is_taken_letter_by_letter_whatever_it_looks_like() {
        let longest = "x".repeat(256);
        for text in ["x", "It's a Secret to Everybody", "whsec_test", &longest] {
            let secret = SigningSecret::parse_as(SecretKind::Text, text).unwrap();
            assert_eq!(*secret.reveal(), text);
            assert_eq!(secret.bytes(), text.as_bytes());
        }
        let too_long = "CANARY".repeat(43);
        for text in ["", " CANARY", "CANARY\n", "CANARY\u{e9}", &too_long] {
            let error = SigningSecret::parse_as(SecretKind::Text, text)
                .unwrap_err()
                .to_string();
            assert!(error.contains("1 to 256"), "{error}");
            assert!(!error.contains("CANARY"), "{error}");
        }
        assert!(SigningSecret::parse("It's a Secret to Everybody").is_err());
    }

    #[test]
    fn a_keyring_reads_lines_commas_and_blanks() {
        let [a, b, c] = ["a", "b-1", "c_2"].map(|id| Keyring::generate_line(id).unwrap());
        let text = format!("\n {},{}\r\n\n{} \n", *a, *b, *c);
        assert_eq!(
            Keyring::parse(&text).unwrap().ids().collect::<Vec<_>>(),
            ["a", "b-1", "c_2"]
        );
    }

    #[test]
    fn a_malformed_keyring_names_the_place_and_never_the_key() {
        let good = Keyring::generate_line("k1").unwrap();
        let key = good.strip_prefix("k1:").unwrap();
        let cases = [
            (String::new(), "holds no key"),
            (key.to_string(), "key 1 of the keyring: it has no `:`"),
            (format!("{key}:k1"), "its id is malformed"),
            (format!(":{key}"), "its id is malformed"),
            (format!("K1:{key}"), "its id is malformed"),
            (format!("{}:{key}", "k".repeat(33)), "its id is malformed"),
            (format!("k1:{key}!"), "`k1` is not base64"),
            (format!("k1:{}", &key[..40]), "`k1` holds 30 bytes"),
            (
                format!("{}\nk1:{key}", *good),
                "key 2 of the keyring: the id `k1` is taken",
            ),
        ];
        for (text, expected) in cases {
            let error = Keyring::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains(&key[..8]), "{error}");
        }
        assert!(Keyring::generate_line("Not an id").is_err());
    }

    fn text_of(length: usize) -> String {
        format!("whsec_{}", BASE64.encode(vec![0xA5; length]))
    }

    fn keyring(ids: &[&str]) -> Keyring {
        let lines: Vec<_> = ids
            .iter()
            .map(|id| Keyring::generate_line(id).unwrap())
            .collect();
        Keyring::parse(
            &lines
                .iter()
                .map(|line| line.as_str())
                .collect::<Vec<_>>()
                .join("\n"),
        )
        .unwrap()
    }
}
