//! A certificate authority, peers that follow a script, and a sender that trusts and may reach them.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::delivery::Report;
use crate::egress::EgressPolicy;
use crate::endpoint::PlainHttp;
use crate::sender::resolve::Lookup;
use crate::sender::{Endpoint, Sender, SenderConfig};

/// The name that the test authority vouches for. Every name resolves to 127.0.0.1.
pub(super) const PARTNER: &str = "partner.example";
/// Long enough for any answer on loopback.
pub(super) const PATIENT: Duration = Duration::from_mins(1);
/// For peers that do not answer.
pub(super) const BRIEF: Duration = Duration::from_millis(150);

pub(super) static CA: LazyLock<Authority> = LazyLock::new(|| Authority::new("the authority"));

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> CertificateDer<'static> {
        params.signed_by(key, &self.0).unwrap().der().clone()
    }

    pub(super) fn issue(&self, params: &CertificateParams) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        acceptor(vec![self.sign(params, &key)], &key, &[b"http/1.1"])
    }

    pub(super) fn partner(&self, protocols: &[&[u8]]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        acceptor(vec![self.sign(&named(PARTNER), &key)], &key, protocols)
    }
}

pub(super) fn named(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

pub(super) fn acceptor(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    protocols: &[&[u8]],
) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

pub(super) fn config() -> SenderConfig {
    SenderConfig {
        egress: EgressPolicy::allowing(vec!["127.0.0.0/8".parse().unwrap()]).unwrap(),
        plain_http: PlainHttp::LoopbackOnly,
        extra_roots: vec![CA.0.der().clone()],
        ..SenderConfig::default()
    }
}

pub(super) fn sender(config: SenderConfig) -> Sender {
    Sender::with_lookup(
        config,
        answers(|port| vec![SocketAddr::from(([127, 0, 0, 1], port))]),
    )
    .unwrap()
}

/// A name server that gives the same answer for every name.
pub(super) fn answers(answer: impl Fn(u16) -> Vec<SocketAddr> + Send + Sync + 'static) -> Lookup {
    Arc::new(move |_, port| {
        let addresses = answer(port);
        Box::pin(async move { io::Result::Ok(addresses) })
    })
}

/// A listener that runs a script with everybody who connects.
pub(super) struct Peer {
    pub(super) port: u16,
    tls: bool,
    accepts: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    last_from: Arc<Mutex<Option<IpAddr>>>,
}

impl Peer {
    pub(super) async fn plain<F>(script: impl Fn(Talk) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::with(None, script).await
    }

    pub(super) async fn tls<F>(script: impl Fn(Talk) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::with(Some(CA.partner(&[b"http/1.1"])), script).await
    }

    pub(super) async fn with<F>(
        tls: Option<TlsAcceptor>,
        script: impl Fn(Talk) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (accepts, requests) = (Arc::default(), Arc::default());
        let last_from = Arc::new(Mutex::new(None));
        let peer = Self {
            port,
            tls: tls.is_some(),
            accepts: Arc::clone(&accepts),
            requests: Arc::clone(&requests),
            last_from: Arc::clone(&last_from),
        };
        tokio::spawn(async move {
            while let Ok((tcp, from)) = listener.accept().await {
                *last_from.lock().unwrap() = Some(from.ip());
                accepts.fetch_add(1, Ordering::SeqCst);
                let talk = Talk::begin(tcp, tls.clone(), Arc::clone(&requests)).await;
                if let Some(talk) = talk {
                    tokio::spawn(script(talk));
                }
            }
        });
        peer
    }

    /// Answers everything with `response`, on connections that stay open.
    pub(super) async fn answering(tls: Option<TlsAcceptor>, response: &'static str) -> Self {
        Self::with(tls, move |mut talk| async move {
            while talk.request().await.is_some() {
                talk.say(response).await;
            }
        })
        .await
    }

    pub(super) fn url(&self) -> String {
        let (scheme, host) = if self.tls {
            ("https", PARTNER)
        } else {
            ("http", "127.0.0.1")
        };
        format!("{scheme}://{host}:{}/hook?x=1", self.port)
    }

    pub(super) fn endpoint(&self, sender: &Sender) -> Endpoint {
        sender.endpoint(sender.parse(&self.url()).unwrap())
    }

    /// The address that the last connection came from.
    pub(super) fn last_from(&self) -> IpAddr {
        self.last_from.lock().unwrap().unwrap()
    }

    pub(super) fn accepts(&self) -> usize {
        self.accepts.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Bytes both ways.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The peer's end of one connection.
pub(super) struct Talk {
    io: Box<dyn Duplex>,
    requests: Arc<AtomicUsize>,
}

impl Talk {
    async fn begin(
        tcp: TcpStream,
        tls: Option<TlsAcceptor>,
        requests: Arc<AtomicUsize>,
    ) -> Option<Self> {
        let io: Box<dyn Duplex> = match tls {
            None => Box::new(tcp),
            Some(tls) => Box::new(tls.accept(tcp).await.ok()?),
        };
        Some(Self { io, requests })
    }

    /// Reads one whole request; `None` where the connection ends first.
    pub(super) async fn request(&mut self) -> Option<String> {
        let mut text = Vec::new();
        while !is_whole(&text) {
            if self.io.read_buf(&mut text).await.ok()? == 0 {
                return None;
            }
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        Some(String::from_utf8(text).unwrap())
    }

    /// Says it, and does not care whether anybody listens.
    pub(super) async fn say(&mut self, text: impl AsRef<[u8]>) -> bool {
        let said = self.io.write_all(text.as_ref()).await;
        said.is_ok() && self.io.flush().await.is_ok()
    }

    pub(super) async fn say_for_ever(&mut self, text: &str) {
        while self.say(text.repeat(50)).await {}
    }

    /// Keeps the connection open until the other side ends it.
    pub(super) async fn hang(&mut self) {
        let mut bytes = [0; 1024];
        while let Ok(1..) = self.io.read(&mut bytes).await {}
    }

    /// Ends the connection with bytes unread, which makes the kernel reset it.
    pub(super) async fn reset(mut self) {
        let _ = self.io.read(&mut [0]).await;
    }

    pub(super) fn into_io(self) -> impl AsyncRead + AsyncWrite + Send + Unpin {
        self.io
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.unwrap().parse().unwrap()
}

pub(super) async fn post(endpoint: &Endpoint, within: Duration) -> Report {
    endpoint
        .post(HeaderMap::new(), Bytes::from_static(b"{\"n\":1}"), within)
        .await
}

/// One request to a peer that follows `script`, in the clear and under TLS.
pub(super) async fn met<F>(
    within: Duration,
    script: impl Fn(Talk) -> F + Clone + Send + Sync + 'static,
) -> [Report; 2]
where
    F: Future<Output = ()> + Send + 'static,
{
    let sender = sender(config());
    let plain = Peer::plain(script.clone()).await;
    let tls = Peer::tls(script).await;
    let reports = [
        post(&plain.endpoint(&sender), within).await,
        post(&tls.endpoint(&sender), within).await,
    ];
    for report in &reports {
        assert!(
            report.duration < within + Duration::from_secs(10),
            "{report:?}"
        );
    }
    assert_eq!(
        (plain.accepts(), tls.accepts()),
        (1, 1),
        "one connection each"
    );
    reports
}

/// Lets the other tasks work until `done`.
pub(super) async fn until(done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENT, waiting)
        .await
        .expect("it never came to that");
}
