//! A certificate authority made on the spot, so that trials use real TLS with real verification.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::{Error, Result};

/// An authority with a key of its own (EC P-256), which lives as long as the value. Two of them do not trust each other.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// Makes a key and signs its own certificate with it.
    pub fn new() -> Result<Self> {
        let mut params = named("Posthaste trial authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, new_key()?).map_err(unusable)?;
        let pem = issuer.pem();
        Ok(Self { issuer, pem })
    }

    /// Its certificate, for whoever is to trust it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate, for whoever is to trust it.
    pub fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// Writes [`pem`](Self::pem) to a file, over what is there.
    pub fn write_pem(&self, path: &Path) -> Result<()> {
        std::fs::write(path, &self.pem)
            .map_err(|error| Error::Io(format!("cannot write {}", path.display()), error))
    }

    /// What a server needs to be known under these names, each a DNS name or an IP address. With `alpn_h2` it offers HTTP/2
    /// before HTTP/1.1, else HTTP/1.1 alone.
    pub fn server_config(&self, names: &[&str], alpn_h2: bool) -> Result<Arc<ServerConfig>> {
        let protocols: &[&[u8]] = if alpn_h2 {
            &[b"h2", b"http/1.1"]
        } else {
            &[b"http/1.1"]
        };
        self.serve_with(&server_params(names)?, protocols, None)
    }

    /// As [`server_config`](Self::server_config) over HTTP/1.1, for those alone who show a certificate that `clients` signed.
    pub fn server_config_for(&self, names: &[&str], clients: &Self) -> Result<Arc<ServerConfig>> {
        self.serve_with(&server_params(names)?, &[b"http/1.1"], Some(clients))
    }

    /// A certificate for a client, and its key, both in PEM.
    pub fn client_pem(&self, name: &str) -> Result<(String, String)> {
        let mut params = named(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(unusable)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// As [`server_config`](Self::server_config) over HTTP/1.1, under a certificate that ended in 2001.
    pub fn expired(&self, names: &[&str]) -> Result<Arc<ServerConfig>> {
        let mut params = server_params(names)?;
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
        self.serve_with(&params, &[b"http/1.1"], None)
    }

    fn serve_with(
        &self,
        params: &CertificateParams,
        protocols: &[&[u8]],
        clients: Option<&Self>,
    ) -> Result<Arc<ServerConfig>> {
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(unusable)?;
        let chain = vec![certificate.der().clone()];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = clients
            .map(|clients| clients.verifier(&provider))
            .transpose()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                match verifier {
                    Some(verifier) => builder.with_client_cert_verifier(verifier),
                    None => builder.with_no_client_auth(),
                }
                .with_single_cert(chain, key.into())
            })
            .map_err(unusable)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl Authority {
    /// Lets in whoever shows a certificate that this authority signed.
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).map_err(unusable)?;
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(unusable)
    }
}

/// Valid from 1975 to 4096: a trial does not fail for a clock that is wrong.
fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn server_params(names: &[&str]) -> Result<CertificateParams> {
    let mut params = named("Posthaste trial partner");
    let names: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
    params.subject_alt_names = CertificateParams::new(names)
        .map_err(unusable)?
        .subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(unusable)
}

fn unusable(error: impl std::fmt::Display) -> Error {
    Error::Tls(format!("trial certificate: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustls::pki_types::ServerName;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::{CertificateError, ClientConfig};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

    #[tokio::test]
    async fn a_server_is_trusted_under_each_of_its_names() {
        let authority = Authority::new().unwrap();
        let config = authority.server_config(&NAMES, false).unwrap();
        for name in NAMES {
            let protocol = connect(&authority, &config, name).await.unwrap();
            assert_eq!(protocol.as_deref(), Some(&b"http/1.1"[..]));
        }
    }

    #[tokio::test]
    async fn http2_is_offered_only_where_it_was_asked_for() {
        let authority = Authority::new().unwrap();
        let config = authority.server_config(&NAMES, true).unwrap();
        let protocol = connect(&authority, &config, "localhost").await.unwrap();
        assert_eq!(protocol.as_deref(), Some(&b"h2"[..]));
    }

    #[tokio::test]
    async fn another_name_is_refused() {
        let authority = Authority::new().unwrap();
        let config = authority.server_config(&NAMES, false).unwrap();
        let error = connect(&authority, &config, "partner.example")
            .await
            .unwrap_err();
        assert!(
            matches!(error, CertificateError::NotValidForNameContext { .. }),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn an_expired_certificate_is_refused() {
        let authority = Authority::new().unwrap();
        let config = authority.expired(&NAMES).unwrap();
        let error = connect(&authority, &config, "localhost").await.unwrap_err();
        assert!(
            matches!(error, CertificateError::ExpiredContext { .. }),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn one_authority_does_not_trust_another() {
        let config = Authority::new()
            .unwrap()
            .server_config(&NAMES, false)
            .unwrap();
        let stranger = Authority::new().unwrap();
        let error = connect(&stranger, &config, "localhost").await.unwrap_err();
        assert!(
            matches!(
                error,
                CertificateError::UnknownIssuer | CertificateError::BadSignature
            ),
            "{error:?}"
        );
    }

    #[test]
    fn the_pem_is_the_certificate() {
        let authority = Authority::new().unwrap();
        let read = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
        assert_eq!(read, authority.der());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert!(
            Authority::new()
                .unwrap()
                .server_config(&["schlo\u{df}"], false)
                .is_err()
        );
    }

    /// The protocol agreed on, or why the client refused the certificate.
    async fn connect(
        trusted: &Authority,
        server: &Arc<ServerConfig>,
        name: &'static str,
    ) -> std::result::Result<Option<Vec<u8>>, CertificateError> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (near, far) = tokio::io::duplex(16 << 10);
        let name = ServerName::try_from(name).unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let acceptor = TlsAcceptor::from(Arc::clone(server));
        let (connected, _) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        match connected {
            Ok(stream) => Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)),
            Err(error) => match error.downcast::<rustls::Error>().unwrap() {
                rustls::Error::InvalidCertificate(reason) => Err(reason),
                other => unreachable!("{other}"),
            },
        }
    }
}
