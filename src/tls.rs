//! Whom we trust, and how we speak TLS: the same for partners, proxies and Postgres. Verification cannot
//! be switched off.

use std::path::Path;
use std::sync::Arc;

use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::{Error, Result};

/// Judges servers' certificates. Many clients can share one.
pub(crate) type Verifier = Arc<WebPkiServerVerifier>;

/// A client that trusts the machine's authorities and `own`, speaks TLS 1.2 and 1.3, and shows no
/// certificate of its own.
pub(crate) fn client_config(own: &[CertificateDer<'static>]) -> Result<ClientConfig> {
    client(trusting_public(own)?, None)
}

/// A client that speaks TLS 1.2 and 1.3, judges servers by `verifier`, and shows `identity` to those that ask.
pub(crate) fn client(
    verifier: Verifier,
    identity: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?
        .with_webpki_verifier(verifier);
    Ok(match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    })
}

/// Trusts the machine's authorities (a company's own among them), Mozilla's where an image carries none, and `own`.
pub(crate) fn trusting_public(own: &[CertificateDer<'static>]) -> Result<Verifier> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    trusting(roots, own)
}

/// Trusts `own` and nobody else.
pub(crate) fn trusting_only(own: &[CertificateDer<'static>]) -> Result<Verifier> {
    trusting(RootCertStore::empty(), own)
}

/// Named, because a process in which two providers are linked has no default one.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates in a PEM file.
pub(crate) fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |error| Error::Tls(format!("{}: {error}", path.display()));
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(Error::Tls(format!(
            "{}: holds no certificate",
            path.display()
        )));
    }
    Ok(certificates)
}

fn trusting(mut roots: RootCertStore, own: &[CertificateDer<'static>]) -> Result<Verifier> {
    for (n, root) in own.iter().enumerate() {
        roots.add(root.clone()).map_err(|error| {
            Error::Tls(format!(
                "extra trusted certificate {} cannot be used: {error}",
                n + 1
            ))
        })?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| Error::Tls(error.to_string()))
}
