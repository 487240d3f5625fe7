//! Who we are to a partner that asks, and whom a partner's own authority vouches for: what one endpoint's TLS has of its
//! own.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use zeroize::Zeroize as _;

use crate::tls::{self, Verifier};
use crate::{Error, Result};

/// A client certificate and its private key, shown to a server that asks for one. Cloning it is cheap.
///
/// Two are equal where their certificates are: a certificate has one key. `Debug` shows neither.
#[derive(Clone)]
pub struct ClientIdentity {
    chain: Arc<[CertificateDer<'static>]>,
    certified: Arc<SingleCertAndKey>,
    not_after: SystemTime,
}

impl ClientIdentity {
    /// Reads a PEM chain, our own certificate first, and a PEM private key in the clear: PKCS#8, SEC1 or PKCS#1, of a kind
    /// that TLS 1.2 or 1.3 can use (RSA, EC P-256 and P-384, Ed25519). Both may be one text. The decoded key is wiped once
    /// it is read; what the crypto library keeps of it is not, nor is `key`, which is the caller's.
    ///
    /// # Errors
    /// [`Error::Tls`] where either cannot be read, or where they do not belong together. No piece of the key is in it.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self> {
        let chain = certificates("client certificate", chain)?;
        let not_after = end_of(&chain[0])?;
        let mut key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            refusal(
                "client key",
                "it holds no private key in the clear (PEM with PKCS#8, SEC1 or PKCS#1)",
            )
        })?;
        let signing = any_supported_type(&key);
        key.zeroize();
        let signing = signing.map_err(|_| {
            refusal(
                "client key",
                "it is no valid RSA, EC P-256 or P-384, or Ed25519 key",
            )
        })?;
        let certified = CertifiedKey::new(chain.clone(), signing);
        certified.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => refusal(
                "client key",
                "it does not belong to the first certificate of the chain",
            ),
            _ => refusal("client certificate", "certificate 1 cannot be used"),
        })?;
        Ok(Self {
            chain: chain.into(),
            certified: Arc::new(SingleCertAndKey::from(certified)),
            not_after,
        })
    }

    /// When the certificate ends. A partner refuses it from then on.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

impl PartialEq for ClientIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

impl Eq for ClientIdentity {}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity")
            .field("certificates", &self.chain.len())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The authorities that vouch for one partner, in place of the public ones and of the worker's `ca_file`: who names a
/// partner's own authority means that nobody else is to speak for it. Cloning it is cheap.
#[derive(Clone)]
pub struct PartnerAuthority {
    roots: Arc<[CertificateDer<'static>]>,
    verifier: Verifier,
}

impl PartnerAuthority {
    /// Reads one or more PEM certificates of authorities.
    ///
    /// # Errors
    /// [`Error::Tls`] says what cannot be read or used.
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        let roots = certificates("partner's authority", pem)?;
        let verifier = tls::trusting_only(&roots)?;
        Ok(Self {
            roots: roots.into(),
            verifier,
        })
    }
}

impl PartialEq for PartnerAuthority {
    fn eq(&self, other: &Self) -> bool {
        self.roots == other.roots
    }
}

impl Eq for PartnerAuthority {}

impl fmt::Debug for PartnerAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartnerAuthority")
            .field("certificates", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// TLS for an endpoint with an identity or an authority of its own. Its sessions are its own, too: one that was opened as
/// somebody is never resumed as somebody else.
pub(super) fn client_config(
    public: &Verifier,
    identity: Option<&ClientIdentity>,
    authority: Option<&PartnerAuthority>,
) -> Result<ClientConfig> {
    let verifier = authority.map_or(public, |authority| &authority.verifier);
    let identity = identity.map(|own| Arc::clone(&own.certified) as Arc<dyn ResolvesClientCert>);
    let mut config = with_protocols(tls::client(Arc::clone(verifier), identity)?);
    config.resumption = rustls::client::Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

/// HTTP/2 and HTTP/1.1, as everybody gets them.
pub(super) fn with_protocols(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = ALPN.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let number = found.len() + 1;
        if number > MAX_CERTIFICATES {
            let rule = format!("it holds more than {MAX_CERTIFICATES} certificates");
            return Err(refusal(what, &rule));
        }
        found.push(certificate.map_err(|_| {
            refusal(
                what,
                &format!("certificate {number} is not well-formed PEM"),
            )
        })?);
    }
    if found.is_empty() {
        return Err(refusal(what, "it holds no certificate in PEM"));
    }
    Ok(found)
}

fn end_of(certificate: &CertificateDer<'_>) -> Result<SystemTime> {
    let parsed = Certificate::from_der(certificate)
        .map_err(|_| refusal("client certificate", "certificate 1 cannot be read"))?;
    Ok(parsed.tbs_certificate.validity.not_after.to_system_time())
}

fn refusal(what: &str, rule: &str) -> Error {
    Error::Tls(format!("{what}: {rule}"))
}

/// What we offer in the TLS handshake, the preferred one first.
pub const ALPN: [&str; 2] = ["h2", "http/1.1"];
/// What we speak of TLS.
pub const TLS_VERSIONS: [&str; 2] = ["1.2", "1.3"];
const MAX_CERTIFICATES: usize = 16;
/// rustls keeps eight for each name, and an endpoint has one.
const SESSIONS: usize = 8;
