//! TCP connections: from which address of ours, and to which of the other's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::fault::{Fault, Phase};
use super::progress::Clock;
use crate::{Error, Result};

/// The addresses of ours that connections leave from. With one set, connections of the other family are not made at all:
/// they would leave from an address that nobody was told of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sources {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Sources {
    /// At most one of each family, each an address of this machine.
    ///
    /// # Errors
    /// [`Error::Config`] names the address that is not.
    pub(super) fn new(addresses: &[IpAddr]) -> Result<Self> {
        let mut sources = Self::default();
        for address in addresses {
            let twice = match address {
                IpAddr::V4(address) => sources.v4.replace(*address).is_some(),
                IpAddr::V6(address) => sources.v6.replace(*address).is_some(),
            };
            if twice {
                return Err(Error::Config(format!(
                    "source_addresses: {address} is the second of its family; give at most one IPv4 and one IPv6 address"
                )));
            }
            // Only the machine itself knows which addresses are its own.
            UdpSocket::bind((*address, 0)).map_err(|error| {
                Error::Config(format!(
                    "source_addresses: {address} is no address of this machine that can be used: {error}"
                ))
            })?;
        }
        Ok(sources)
    }

    fn are_free(self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    fn for_family_of(self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    fn reach(self, address: &SocketAddr) -> bool {
        self.are_free() || self.for_family_of(address.ip()).is_some()
    }
}

/// Tries the addresses in turn, each with its share of the time that is left, and tells `trying` of each. What goes wrong
/// is said of the last one.
pub(super) async fn dial(
    phase: Phase,
    sources: Sources,
    addresses: &[SocketAddr],
    clock: Clock,
    mut trying: impl FnMut(IpAddr),
) -> std::result::Result<TcpStream, Fault> {
    let tried = addresses.len().min(MAX_TRIED);
    let mut fault = Fault::unreachable(phase, "no address to connect to");
    if !addresses.is_empty() && !addresses.iter().any(|address| sources.reach(address)) {
        fault = Fault::unreachable(phase, "no source address for this kind of IP address");
    }
    let reachable = addresses.iter().filter(|address| sources.reach(address));
    for (address, left) in reachable.zip((1..=tried).rev()) {
        trying(address.ip());
        match dial_one(sources, *address, clock.share(left)).await {
            Some(Ok(tcp)) => return Ok(tcp),
            Some(Err(error)) => fault = Fault::io(phase, &error),
            None => fault = Fault::timed_out(phase, "no connection", clock.timeout),
        }
    }
    Err(fault)
}

/// `None` where `deadline` came first.
async fn dial_one(
    sources: Sources,
    address: SocketAddr,
    deadline: Instant,
) -> Option<io::Result<TcpStream>> {
    let connected = match sources.for_family_of(address.ip()) {
        None => timeout_at(deadline, TcpStream::connect(address)).await,
        Some(source) => timeout_at(deadline, connect_from(source, address)).await,
    };
    // A small request is not to wait for the answer to an earlier packet.
    let connected = connected.ok()?;
    Some(connected.and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp)))
}

async fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match source {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    leave_the_port_open(&socket);
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}

/// Has the port chosen when it is known where the connection goes. Chosen before, a port serves one connection at a time
/// in all the world, and some 28,000 of them, with those closed in the last minute, would be all that can be made.
#[cfg(target_os = "linux")]
fn leave_the_port_open(socket: &TcpSocket) {
    use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
    let _ = setsockopt(socket, IpBindAddressNoPort, &true); // without it, it works as well, up to that many
}

#[cfg(not(target_os = "linux"))]
fn leave_the_port_open(_: &TcpSocket) {}

/// An honest partner has a few addresses. A hostile one would have us knock at hundreds.
pub(super) const MAX_TRIED: usize = 8;
