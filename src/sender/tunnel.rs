//! The operator's proxy: a connection through it to one address that was vetted.
//!
//! The proxy is asked for an address and never for a name: one that it looked up would be one that nobody vetted. Its own
//! address is the operator's word, and is not held against the rules for partners.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use super::connect::server_name;
use super::dial::{MAX_TRIED, Sources, dial};
use super::fault::{Fault, Phase};
use super::progress::{Clock, Progress};
use super::resolve::Resolver;
use crate::endpoint::Host;
use crate::proxy::{ProxyLogin, ProxyProtocol, ProxyUrl};

/// Makes connections through one proxy.
pub(super) struct Tunnel {
    proxy: ProxyUrl,
    /// Speaks TLS with the proxy itself.
    tls: TlsConnector,
    lookups: Arc<Semaphore>,
}

/// What carries the bytes to and from a partner behind the proxy.
pub(super) enum Carrier {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why there is no tunnel.
enum Unopened {
    /// Another address may fare better.
    There(Fault),
    /// No other address would, and no other partner's: it is the way out that is closed.
    Everywhere(Fault),
}

impl Tunnel {
    pub(super) fn new(proxy: ProxyUrl, tls: TlsConnector) -> Self {
        Self {
            proxy,
            tls,
            lookups: Resolver::operators_places(),
        }
    }

    /// Asks the proxy for these addresses in turn, each with its share of the time that is left.
    pub(super) async fn open(
        &self,
        addresses: &[SocketAddr],
        (resolver, sources): (&Resolver, Sources),
        clock: Clock,
        progress: &mut Progress,
    ) -> Result<Carrier, Fault> {
        let started = Instant::now();
        let opened = self
            .open_any(addresses, (resolver, sources), clock, progress)
            .await;
        progress.phases.connect = Some(started.elapsed());
        opened
    }

    async fn open_any(
        &self,
        addresses: &[SocketAddr],
        (resolver, sources): (&Resolver, Sources),
        clock: Clock,
        progress: &mut Progress,
    ) -> Result<Carrier, Fault> {
        progress.remote = addresses.first().map(SocketAddr::ip);
        let proxies = self.own_addresses(resolver, clock).await;
        let proxies = proxies.map_err(Fault::of_ours)?;
        let tried = addresses.len().min(MAX_TRIED);
        let mut fault = Fault::unreachable(Phase::Connect, "no address to connect to");
        for (address, left) in addresses.iter().zip((1..=tried).rev()) {
            progress.remote = Some(address.ip());
            let clock = clock.until(clock.share(left));
            match timeout_at(
                clock.deadline,
                self.open_one(*address, &proxies, sources, clock),
            )
            .await
            {
                Ok(Ok(carrier)) => return Ok(carrier),
                Ok(Err(Unopened::Everywhere(fault))) => return Err(fault.of_ours()),
                Ok(Err(Unopened::There(why))) => fault = why,
                Err(_) => fault = Fault::timed_out(Phase::Proxy, "no tunnel", clock.timeout),
            }
        }
        Err(fault)
    }

    async fn own_addresses(
        &self,
        resolver: &Resolver,
        clock: Clock,
    ) -> Result<Vec<SocketAddr>, Fault> {
        let port = self.proxy.port();
        match self.proxy.host() {
            Host::Ip(address) => Ok(vec![SocketAddr::new(*address, port)]),
            Host::Name(name) => {
                let found = resolver.resolve(name.clone(), port, &self.lookups, clock);
                found.await.map_err(|fault| fault.of_proxy("its name: "))
            }
        }
    }

    async fn open_one(
        &self,
        target: SocketAddr,
        proxies: &[SocketAddr],
        sources: Sources,
        clock: Clock,
    ) -> Result<Carrier, Unopened> {
        let mut tcp = dial(Phase::Proxy, sources, proxies, clock, |_| ())
            .await
            .map_err(Unopened::Everywhere)?;
        let login = self.proxy.login();
        match self.proxy.protocol() {
            ProxyProtocol::Http => {
                connect(&mut tcp, target, login).await?;
                Ok(Carrier::Tcp(tcp))
            }
            ProxyProtocol::Socks5 => {
                socks5(&mut tcp, target, login).await?;
                Ok(Carrier::Tcp(tcp))
            }
            ProxyProtocol::Https => {
                let name = server_name(self.proxy.host())
                    .map_err(|fault| Unopened::Everywhere(fault.of_proxy("")))?;
                let shaken = self.tls.connect(name, tcp).await;
                let mut tls = shaken
                    .map_err(|error| Unopened::Everywhere(Fault::tls(Phase::Proxy, &error)))?;
                connect(&mut tls, target, login).await?;
                Ok(Carrier::Tls(Box::new(tls)))
            }
        }
    }
}

impl Unopened {
    fn there(what: &str) -> Self {
        Self::There(Fault::unreachable(Phase::Proxy, what))
    }

    fn everywhere(what: &str) -> Self {
        Self::Everywhere(Fault::unreachable(Phase::Proxy, what))
    }
}

impl From<io::Error> for Unopened {
    fn from(error: io::Error) -> Self {
        Self::There(Fault::io(Phase::Proxy, &error))
    }
}

/// HTTP's way. What comes after the head would be taken for the partner's first bytes, and a partner does not speak first.
async fn connect(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: SocketAddr,
    login: Option<&ProxyLogin>,
) -> Result<(), Unopened> {
    let request = connect_request(target, login);
    io.write_all(request.as_bytes()).await?;
    io.flush().await?;
    let (head, is_all) = read_head(io).await?;
    match status_of(&head) {
        Some(200..=299) if is_all => Ok(()),
        Some(200..=299) => Err(Unopened::there("it sent bytes of its own into the tunnel")),
        // 401 is what some say to a login that is wrong, though it is not theirs to say.
        Some(status @ (401 | 407)) => {
            let what = format!("it answered {status}: it wants another login");
            Err(Unopened::everywhere(&what))
        }
        Some(status) => Err(Unopened::there(&format!("it answered {status}"))),
        None => Err(Unopened::there("its answer is no HTTP response")),
    }
}

fn connect_request(target: SocketAddr, login: Option<&ProxyLogin>) -> Zeroizing<String> {
    let login = login.map_or_else(Zeroizing::default, |ProxyLogin { user, password }| {
        let pair = Zeroizing::new(format!("{}:{}", user.as_str(), password.as_str()));
        let pair = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        Zeroizing::new(format!("Proxy-Authorization: Basic {}\r\n", pair.as_str()))
    });
    Zeroizing::new(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n",
        login.as_str()
    ))
}

/// The head of an answer, and whether nothing came after it.
async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> Result<(Vec<u8>, bool), Unopened> {
    let mut head = Vec::new();
    let mut chunk = [0; 512];
    loop {
        let count = io.read(&mut chunk).await?;
        if count == 0 {
            return Err(Unopened::there(
                "it closed the connection before a whole answer",
            ));
        }
        head.extend_from_slice(&chunk[..count]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            let is_all = end + 4 == head.len();
            head.truncate(end);
            return Ok((head, is_all));
        }
        if head.len() > MAX_HEAD {
            let what = format!("its answer has a head over {MAX_HEAD} bytes");
            return Err(Unopened::there(&what));
        }
    }
}

/// The status in a line such as `HTTP/1.1 200 Connection established`.
fn status_of(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"HTTP/1.")?;
    let [b'0' | b'1', b' ', digits @ ..] = line else {
        return None;
    };
    let (digits, after) = digits.split_at_checked(3)?;
    let is_end = matches!(after.first(), None | Some(b' ' | b'\r'));
    let status: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (is_end && (100..600).contains(&status)).then_some(status)
}

/// RFC 1928 and, for the login, RFC 1929. Every answer is read to its last byte and no further.
async fn socks5(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: SocketAddr,
    login: Option<&ProxyLogin>,
) -> Result<(), Unopened> {
    let greeting: &[u8] = if login.is_some() {
        &[5, 2, 0, 2]
    } else {
        &[5, 1, 0]
    };
    io.write_all(greeting).await?;
    match (read_array(io).await?, login) {
        ([5, 0], _) => {}
        ([5, 2], Some(login)) => log_in(io, login).await?,
        ([5, _], _) => return Err(Unopened::everywhere("it wants another login")),
        _ => return Err(Unopened::there(NO_SOCKS)),
    }
    io.write_all(&socks5_request(target)).await?;
    let [version, reply, _, kind] = read_array(io).await?;
    if version != 5 {
        return Err(Unopened::there(NO_SOCKS));
    }
    if reply != 0 {
        let what = format!("it answered {reply} ({})", socks5_reply(reply));
        return Err(Unopened::there(&what));
    }
    // The address that it connects from, which tells us nothing, and a port.
    let length = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(read_array::<1>(io).await?[0]),
        _ => return Err(Unopened::there(NO_SOCKS)),
    };
    let mut rest = [0; 255 + 2];
    io.read_exact(&mut rest[..length + 2]).await?;
    Ok(())
}

async fn log_in(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ProxyLogin { user, password }: &ProxyLogin,
) -> Result<(), Unopened> {
    let mut request = Zeroizing::new(Vec::with_capacity(3 + 255 + 255));
    request.push(1);
    for text in [user, password] {
        // Neither is longer: `ProxyUrl` saw to it.
        request.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        request.extend_from_slice(text.as_bytes());
    }
    io.write_all(&request).await?;
    match read_array(io).await? {
        [_, 0] => Ok(()),
        _ => Err(Unopened::everywhere("it refused the login")),
    }
}

fn socks5_request(target: SocketAddr) -> Vec<u8> {
    let mut request = vec![5, 1, 0];
    match target.ip() {
        IpAddr::V4(address) => {
            request.push(1);
            request.extend(address.octets());
        }
        IpAddr::V6(address) => {
            request.push(4);
            request.extend(address.octets());
        }
    }
    request.extend(target.port().to_be_bytes());
    request
}

fn socks5_reply(reply: u8) -> &'static str {
    match reply {
        1 => "general failure",
        2 => "not allowed",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "took too many hops",
        7 => "unknown command",
        8 => "unknown kind of address",
        _ => "unknown reply",
    }
}

async fn read_array<const N: usize>(io: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    io.read_exact(&mut bytes).await?;
    Ok(bytes)
}

const MAX_HEAD: usize = 8 * 1024;
const NO_SOCKS: &str = "it does not speak SOCKS5";
