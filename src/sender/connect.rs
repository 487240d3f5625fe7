//! From a URL to a connection: addresses, the egress policy, TCP, TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::SenderConfig;
use super::dial::{Sources, dial};
use super::fault::{Fault, Phase};
use super::identity::{client_config, with_protocols};
use super::options::{EndpointOptions, Via};
use super::progress::{Clock, Progress};
use super::resolve::{Lookup, Resolver, absolute};
use super::stream::Stream;
use super::tunnel::{Carrier, Tunnel};
use crate::Result;
use crate::egress::{EgressPolicy, Networks, Refusal};
use crate::endpoint::{EndpointUrl, Host, Scheme};
use crate::tls::{self, Verifier};

/// Makes connections, to vetted addresses only.
pub(super) struct Connector {
    egress: EgressPolicy,
    resolver: Resolver,
    public: Verifier,
    tls: TlsConnector,
    sources: Sources,
    tunnel: Option<Tunnel>,
    connect_timeout: Duration,
}

/// One endpoint, as far as connections to it go.
pub(super) struct Target {
    pub(super) url: EndpointUrl,
    pub(super) options: EndpointOptions,
    tls: TlsConnector,
    lookups: Arc<Semaphore>,
}

impl Connector {
    /// # Errors
    /// [`Error::Tls`](crate::Error::Tls) names the certificate that cannot be used,
    /// [`Error::Config`](crate::Error::Config) the source address that is not ours.
    pub(super) fn new(config: SenderConfig, lookup: Lookup) -> Result<Self> {
        let public = tls::trusting_public(&config.extra_roots)?;
        let tls = with_protocols(tls::client(Arc::clone(&public), None)?);
        let tunnel = match config.proxy {
            None => None,
            Some(proxy) => {
                let tls = tls::client(Arc::clone(&public), None)?;
                Some(Tunnel::new(proxy, TlsConnector::from(Arc::new(tls))))
            }
        };
        Ok(Self {
            egress: config.egress,
            resolver: Resolver::new(lookup),
            public,
            tls: TlsConnector::from(Arc::new(tls)),
            sources: Sources::new(&config.source_addresses)?,
            tunnel,
            connect_timeout: config.connect_timeout,
        })
    }

    /// TLS as every endpoint speaks it that has no identity and no authority of its own.
    pub(super) fn tls(&self) -> TlsConnector {
        self.tls.clone()
    }

    /// TLS as an endpoint with these options speaks it.
    ///
    /// # Errors
    /// [`Error::Tls`](crate::Error::Tls) where its identity or authority cannot be used.
    pub(super) fn tls_for(&self, options: &EndpointOptions) -> Result<TlsConnector> {
        let (identity, authority) = (options.identity.as_ref(), options.authority.as_ref());
        if identity.is_none() && authority.is_none() {
            return Ok(self.tls());
        }
        let config = client_config(&self.public, identity, authority)?;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// Connects. The name is looked up once, and the connection goes to an address that was vetted, so that a second answer
    /// of its DNS server changes nothing; nor does a proxy, which hears of that address alone.
    pub(super) async fn connect(
        &self,
        target: &Target,
        clock: Clock,
        progress: &mut Progress,
    ) -> std::result::Result<Stream, Fault> {
        let addresses = self.addresses(target, clock, progress).await?;
        self.vet(&target.url, &target.options.networks, &addresses)?;
        let clock = clock.within(self.connect_timeout);
        let Some(tunnel) = self.tunnel_to(target) else {
            let tcp = self.dial(&addresses, clock, progress).await?;
            self.vet_peer(&tcp, progress)?;
            return match target.url.scheme() {
                Scheme::Http => Ok(Stream::plain(tcp)),
                Scheme::Https => Ok(Stream::tls(target.handshake(tcp, clock, progress).await?)),
            };
        };
        let carrier = tunnel
            .open(&addresses, (&self.resolver, self.sources), clock, progress)
            .await?;
        match carrier {
            Carrier::Tcp(tcp) => Ok(Stream::tls(target.handshake(tcp, clock, progress).await?)),
            Carrier::Tls(tls) => {
                let tls = target.handshake(tls, clock, progress).await?;
                Ok(Stream::tls_in_tls(tls))
            }
        }
    }

    /// Plain HTTP goes to our own loopback, which is not the proxy's, so it takes no proxy.
    fn tunnel_to(&self, target: &Target) -> Option<&Tunnel> {
        let is_direct = target.options.via == Via::Direct || target.url.scheme() == Scheme::Http;
        self.tunnel.as_ref().filter(|_| !is_direct)
    }

    async fn dial(
        &self,
        addresses: &[SocketAddr],
        clock: Clock,
        progress: &mut Progress,
    ) -> std::result::Result<TcpStream, Fault> {
        let started = Instant::now();
        let remote = &mut progress.remote;
        let dialled = dial(Phase::Connect, self.sources, addresses, clock, |address| {
            *remote = Some(address);
        })
        .await;
        progress.phases.connect = Some(started.elapsed());
        dialled
    }

    async fn addresses(
        &self,
        Target { url, lookups, .. }: &Target,
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
            .resolve(absolute(name), url.port(), lookups, clock)
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
}

impl Target {
    pub(super) fn new(url: EndpointUrl, options: EndpointOptions, tls: TlsConnector) -> Self {
        Self {
            url,
            options,
            tls,
            lookups: Resolver::own_places(),
        }
    }

    async fn handshake<C: AsyncRead + AsyncWrite + Unpin>(
        &self,
        carrier: C,
        clock: Clock,
        progress: &mut Progress,
    ) -> std::result::Result<TlsStream<C>, Fault> {
        let started = Instant::now();
        let shaking = self.tls.connect(server_name(self.url.host())?, carrier);
        let shaken = timeout_at(clock.deadline, shaking).await;
        progress.phases.tls = Some(started.elapsed());
        match shaken {
            Ok(Ok(tls)) => Ok(tls),
            Ok(Err(error)) => Err(Fault::tls(Phase::Tls, &error)),
            Err(_) => Err(Fault::timed_out(
                Phase::Tls,
                "no finished handshake",
                clock.timeout,
            )),
        }
    }
}

pub(super) fn server_name(host: &Host) -> std::result::Result<ServerName<'static>, Fault> {
    match host {
        Host::Ip(address) => Ok(ServerName::IpAddress((*address).into())),
        Host::Name(name) => ServerName::try_from(name.clone())
            .map_err(|_| Fault::unreachable(Phase::Tls, "the host is no name for a certificate")),
    }
}
