//! Client certificates, and partners whom their own authority vouches for.

use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use super::harness::{Authority, CA, PARTNER, PATIENT, Peer, config, named, post, sender};
use crate::delivery::Outcome::{Accepted, Unreachable};
use crate::delivery::Report;
use crate::sender::{ClientIdentity, EndpointOptions, PartnerAuthority, Sender};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A receiver that lets in whoever `clients` vouches for, and nobody else.
async fn receiver(
    clients: &Authority,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Peer {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(clients.der()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CA.sign(&named(PARTNER), &key);
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key.serialize_der().try_into().unwrap())
        .unwrap();
    Peer::answering(Some(TlsAcceptor::from(Arc::new(server))), OK).await
}

/// A certificate of a client in PEM, and its key.
fn client(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "posthaste");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_after = date_time_ymd(2050, 1, 2);
    (pem(&authority.sign(&params, &key)), key.serialize_pem())
}

fn pem(certificate: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let lines = lines.join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
}

fn identity((chain, key): &(String, String)) -> ClientIdentity {
    ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
}

fn with(identity: Option<ClientIdentity>) -> EndpointOptions {
    EndpointOptions {
        identity,
        ..EndpointOptions::default()
    }
}

async fn post_with(sender: &Sender, peer: &Peer, options: EndpointOptions) -> Report {
    let url = sender.parse(&peer.url()).unwrap();
    post(&sender.endpoint_with(url, options).unwrap(), PATIENT).await
}

#[tokio::test]
async fn a_partner_that_wants_a_client_certificate_gets_ours() {
    let clients = Authority::new("clients");
    let known = identity(&client(&clients));
    let unknown = identity(&client(&Authority::new("others")));
    let sender = sender(config());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let peer = receiver(&clients, &[version]).await;
        // The one that is let in comes first: its TLS session must not let the others in.
        for round in 0..2 {
            let report = post_with(&sender, &peer, with(Some(known.clone()))).await;
            assert_eq!(report.outcome, Accepted, "{round} {report:?}");
            for other in [None, Some(unknown.clone())] {
                let report = post_with(&sender, &peer, with(other)).await;
                assert_eq!(report.outcome, Unreachable, "{round} {report:?}");
                let error = report.error.unwrap();
                assert!(error.starts_with("tls: the peer sent the alert"), "{error}");
            }
        }
        assert_eq!(peer.requests(), 2);
    }
}

#[tokio::test]
async fn a_partners_own_authority_vouches_for_it_and_nobody_else_does() {
    let own = Authority::new("its own");
    let trusting = |authority: &Authority| EndpointOptions {
        authority: Some(PartnerAuthority::from_pem(pem(&authority.der()).as_bytes()).unwrap()),
        ..EndpointOptions::default()
    };
    let sender = sender(config());
    let private = Peer::answering(Some(own.partner(&[])), OK).await;
    let public = Peer::answering(Some(CA.partner(&[])), OK).await;
    let untrusted = Some("tls: certificate not trusted: unknown issuer");
    for round in 0..2 {
        let report = post_with(&sender, &private, trusting(&own)).await;
        assert_eq!(report.outcome, Accepted, "{round} {report:?}");
        let report = post_with(&sender, &private, EndpointOptions::default()).await;
        assert_eq!(report.error.as_deref(), untrusted, "{round}");
        let report = post_with(&sender, &public, EndpointOptions::default()).await;
        assert_eq!(report.outcome, Accepted, "{round} {report:?}");
        let report = post_with(&sender, &public, trusting(&own)).await;
        assert_eq!(
            report.error.as_deref(),
            untrusted,
            "{round}: in place of the worker's"
        );
    }
}

#[test]
fn every_encoding_of_a_key_is_read() {
    // Made with `openssl req -x509` for this test alone: keys of each kind, written as PKCS#8, SEC1 and PKCS#1.
    for (chain, key) in [
        (include_str!("keys/ec.crt"), include_str!("keys/ec.pkcs8")),
        (include_str!("keys/ec.crt"), include_str!("keys/ec.sec1")),
        (include_str!("keys/rsa.crt"), include_str!("keys/rsa.pkcs8")),
        (include_str!("keys/rsa.crt"), include_str!("keys/rsa.pkcs1")),
        (include_str!("keys/ed.crt"), include_str!("keys/ed.pkcs8")),
    ] {
        ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let both = format!("{key}{chain}");
        ClientIdentity::from_pem(both.as_bytes(), both.as_bytes()).unwrap();
    }
}

#[test]
fn the_end_of_a_certificate_is_known() {
    let ends = identity(&client(&CA)).not_after();
    let seconds = ends.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(seconds.as_secs(), 2_524_694_400); // 2050-01-02
}

#[test]
fn a_key_that_belongs_to_another_certificate_is_refused() {
    let [(chain, key), (_, other)] = [client(&CA), client(&CA)];
    let refusal = |chain: &str, key: &str| {
        let refused = ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes());
        refused.unwrap_err().to_string()
    };
    assert_eq!(
        refusal(&chain, &other),
        "tls: client key: it does not belong to the first certificate of the chain"
    );
    let upside_down = pem(&CA.der()) + &chain;
    assert!(refusal(&upside_down, &key).contains("does not belong to the first"));
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for bad in [encrypted.as_str(), "", "CANARY", &chain] {
        assert!(
            refusal(&chain, bad).contains("no private key in the clear"),
            "{bad}"
        );
    }
    let torn = "-----BEGIN PRIVATE KEY-----\nQ0FOQVJZ\n-----END PRIVATE KEY-----\n";
    assert!(refusal(&chain, torn).contains("no valid RSA"));
    assert!(refusal(&key, &key).contains("client certificate: it holds no certificate"));
    let broken = pem(b"CANARY");
    assert!(refusal(&broken, &key).contains("certificate 1 cannot be read"));
    assert!(refusal(&chain.repeat(17), &key).contains("more than 16"));
}

#[test]
fn an_authority_that_is_none_is_refused() {
    let refusal = |text: &str| {
        PartnerAuthority::from_pem(text.as_bytes())
            .unwrap_err()
            .to_string()
    };
    assert!(refusal("").contains("partner's authority: it holds no certificate"));
    assert!(refusal(&pem(b"no certificate")).contains("cannot be used"));
}

#[test]
fn options_are_equal_where_their_certificates_are() {
    let (one, other) = (client(&CA), client(&CA));
    assert_eq!(with(Some(identity(&one))), with(Some(identity(&one))));
    assert_ne!(with(Some(identity(&one))), with(Some(identity(&other))));
    assert_ne!(with(Some(identity(&one))), with(None));
    let shown = format!("{:?}", with(Some(identity(&one))));
    assert!(
        shown.contains("not_after") && !shown.contains("key"),
        "{shown}"
    );
}
