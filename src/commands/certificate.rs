//! Certificates in PEM, as people want to see them.

use jiff::Timestamp;
use posthaste::logging::escaped;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_cert::der::Decode as _;

/// What there is to know of the first certificate of a chain.
pub(crate) struct Certificate {
    /// Whose it is, such as `CN=bank`, with nothing in it that could steer a terminal.
    pub(crate) subject: String,
    /// When it ends.
    pub(crate) ends: Timestamp,
    /// SHA-256 of its bytes, in hexadecimal digits: what another person can compare.
    pub(crate) fingerprint: String,
}

impl Certificate {
    /// Reads PEM; none where its first certificate cannot be read.
    pub(crate) fn read(pem: &str) -> Option<Self> {
        Self::of(&CertificateDer::from_pem_slice(pem.as_bytes()).ok()?)
    }

    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let parsed = x509_cert::Certificate::from_der(der).ok()?;
        let parts = parsed.tbs_certificate;
        let digest = Sha256::digest(der);
        Some(Self {
            subject: escaped(&parts.subject.to_string()),
            ends: Timestamp::try_from(parts.validity.not_after.to_system_time()).ok()?,
            fingerprint: digest
                .iter()
                .fold(String::new(), |text, byte| format!("{text}{byte:02x}")),
        })
    }

    /// Its end, to the second, in UTC.
    pub(crate) fn end(&self) -> String {
        self.ends.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
    }
}

/// One line in the place of a PEM text, with each of its certificates: who approves them must see them all.
pub(crate) fn told(pem: &str) -> String {
    let told = CertificateDer::pem_slice_iter(pem.as_bytes()).map(|certificate| {
        let read = certificate.ok().and_then(|der| Certificate::of(&der));
        read.map_or("one that cannot be read".to_owned(), |read| {
            let (end, subject, fingerprint) = (read.end(), read.subject, read.fingerprint);
            format!("{subject}, ends {end}, SHA-256 {fingerprint}")
        })
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() {
        return "none that can be read".to_owned();
    }
    told.join(" + ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use posthaste::trial::authority::Authority;

    use super::*;

    #[test]
    fn a_certificate_is_told_by_its_subject_its_end_and_its_fingerprint() {
        let authority = Authority::new().unwrap();
        let (pem, key) = authority.client_pem("our side").unwrap();
        let one = told(&pem);
        assert!(
            one.starts_with("CN=our side, ends 4096-01-01 00:00:00Z, SHA-256 "),
            "{one}"
        );
        assert_eq!(one.len() - one.rfind(' ').unwrap(), 65, "{one}");
        let both = told(&format!("{pem}{}", authority.pem()));
        assert!(
            both.starts_with(&one) && both.contains(" + CN=Posthaste trial authority, "),
            "{both}"
        );
        assert_eq!(told(&key), "none that can be read");
        assert!(Certificate::read(&key).is_none() && Certificate::read("").is_none());
    }
}
