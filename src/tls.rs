//! Whom we trust, and how we speak TLS: the same for partners and for Postgres. Verification cannot
//! be switched off.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::{Error, Result};

/// A client that trusts the machine's authorities and `own`, speaks TLS 1.2 and 1.3, and shows no
/// certificate of its own.
pub(crate) fn client_config(own: &[CertificateDer<'static>]) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?
        .with_root_certificates(trusted(own)?)
        .with_no_client_auth();
    Ok(config)
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

fn trusted(own: &[CertificateDer<'static>]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        // An image without authorities of its own: take the list that browsers agree on.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for certificate in own {
        let unusable = |error| Error::Tls(format!("a trusted certificate cannot be used: {error}"));
        roots.add(certificate.clone()).map_err(unusable)?;
    }
    Ok(roots)
}
