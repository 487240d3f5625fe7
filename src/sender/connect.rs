//! From a URL to a connection: addresses, the egress policy, TCP, TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::fault::{Fault, Phase};
use super::progress::{Clock, Progress};
use super::resolve::{Lookup, Resolver};
use super::stream::Stream;
use crate::egress::{EgressPolicy, Networks, Refusal};
use crate::endpoint::{EndpointUrl, Host, Scheme};
use crate::{Result, tls};

/// Makes connections, to vetted addresses only.
pub(super) struct Connector {
    egress: EgressPolicy,
    resolver: Resolver,
    tls: TlsConnector,
    connect_timeout: Duration,
}

impl Connector {
    pub(super) fn new(
        egress: EgressPolicy,
        lookup: Lookup,
        extra_roots: Vec<CertificateDer<'static>>,
        connect_timeout: Duration,
    ) -> Result<Self> {
        let tls = TlsConnector::from(Arc::new(client_config(&extra_roots)?));
        Ok(Self {
            egress,
            resolver: Resolver::new(lookup),
            tls,
            connect_timeout,
        })
    }

    /// Connects. The name is looked up once, and the connection goes to an address that was vetted, so that a second answer
    /// of its DNS server changes nothing.
    pub(super) async fn connect(
        &self,
        (url, networks): (&EndpointUrl, &Networks),
        own_lookups: &Arc<Semaphore>,
        clock: Clock,
        progress: &mut Progress,
    ) -> std::result::Result<Stream, Fault> {
        let addresses = self.addresses(url, own_lookups, clock, progress).await?;
        self.vet(url, networks, &addresses)?;
        let clock = clock.within(self.connect_timeout);
        let tcp = dial(&addresses, clock, progress).await?;
        self.vet_peer(&tcp, progress)?;
        match url.scheme() {
            Scheme::Http => Ok(Stream::plain(tcp)),
            Scheme::Https => self.handshake(url.host(), tcp, clock, progress).await,
        }
    }

    async fn addresses(
        &self,
        url: &EndpointUrl,
        own_lookups: &Arc<Semaphore>,
        clock: Clock,
        progress: &mut Progress,
    ) -> std::result::Result<Vec<SocketAddr>, Fault> {
        let name = match url.host() {
            Host::Ip(address) => return Ok(vec![SocketAddr::new(*address, url.port())]),
            Host::Name(name) => name,
        };
        let started = Instant::now();
        let resolved = self
            .resolver
            .resolve(name, url.port(), own_lookups, clock)
            .await;
        progress.phases.dns = Some(started.elapsed());
        resolved
    }

    /// One bad answer spoils them all: a name that points inside as well as outside is not an honest partner's.
    fn vet(
        &self,
        url: &EndpointUrl,
        networks: &Networks,
        addresses: &[SocketAddr],
    ) -> std::result::Result<(), Fault> {
        for address in addresses {
            self.egress.check(address.ip()).map_err(Fault::blocked)?;
            networks.check(*address).map_err(Fault::blocked)?;
            if url.scheme() == Scheme::Http && !address.ip().to_canonical().is_loopback() {
                let rule = "no loopback network, and plain HTTP goes nowhere else";
                return Err(Fault::blocked(Refusal {
                    address: address.ip(),
                    rule,
                }));
            }
        }
        Ok(())
    }

    /// What the kernel says we are connected to must be what was vetted.
    fn vet_peer(&self, tcp: &TcpStream, progress: &Progress) -> std::result::Result<(), Fault> {
        let peer = tcp
            .peer_addr()
            .map_err(|error| Fault::io(Phase::Connect, &error))?
            .ip();
        if progress.remote != Some(peer) {
            return Err(Fault::unreachable(
                Phase::Connect,
                "connected to another address",
            ));
        }
        self.egress.check(peer).map_err(Fault::blocked)
    }

    async fn handshake(
        &self,
        host: &Host,
        tcp: TcpStream,
        clock: Clock,
        progress: &mut Progress,
    ) -> std::result::Result<Stream, Fault> {
        let started = Instant::now();
        let shaken = timeout_at(clock.deadline, self.tls.connect(server_name(host)?, tcp)).await;
        progress.phases.tls = Some(started.elapsed());
        match shaken {
            Ok(Ok(tls)) => Ok(Stream::tls(tls)),
            Ok(Err(error)) => Err(Fault::tls(&error)),
            Err(_) => Err(Fault::timed_out(
                Phase::Tls,
                "no finished handshake",
                clock.timeout,
            )),
        }
    }
}

/// Tries the addresses in turn, each with its share of the time that is left.
async fn dial(
    addresses: &[SocketAddr],
    clock: Clock,
    progress: &mut Progress,
) -> std::result::Result<TcpStream, Fault> {
    let started = Instant::now();
    let tried = addresses.len().min(MAX_TRIED);
    let mut fault = Fault::unreachable(Phase::Connect, "no address to connect to");
    for (address, left) in addresses.iter().zip((1..=tried).rev()) {
        progress.remote = Some(address.ip());
        let connected = dial_one(*address, clock.share(left)).await;
        progress.phases.connect = Some(started.elapsed());
        match connected {
            Some(Ok(tcp)) => return Ok(tcp),
            Some(Err(error)) => fault = Fault::io(Phase::Connect, &error),
            None => fault = Fault::timed_out(Phase::Connect, "no connection", clock.timeout),
        }
    }
    Err(fault)
}

/// `None` where `deadline` came first.
async fn dial_one(address: SocketAddr, deadline: Instant) -> Option<io::Result<TcpStream>> {
    let connected = timeout_at(deadline, TcpStream::connect(address))
        .await
        .ok()?;
    // A small request is not to wait for the answer to an earlier packet.
    Some(connected.and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp)))
}

fn server_name(host: &Host) -> std::result::Result<ServerName<'static>, Fault> {
    match host {
        Host::Ip(address) => Ok(ServerName::IpAddress((*address).into())),
        Host::Name(name) => ServerName::try_from(name.clone())
            .map_err(|_| Fault::unreachable(Phase::Tls, "the host is no name for a certificate")),
    }
}

/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, certificates verified. There is no other way to make one.
fn client_config(extra_roots: &[CertificateDer<'static>]) -> Result<ClientConfig> {
    let mut config = tls::client_config(&extra_roots)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// An honest partner has a few addresses. A hostile one would have us knock at hundreds.
const MAX_TRIED: usize = 8;
