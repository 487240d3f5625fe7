//! Where the worker may connect to: public unicast addresses, and what the operator named on top.
//!
//! A partner's URL comes from a person, and its address from a name server that somebody else runs. Either may point at
//! our own network. So the rule is not a list of bad addresses with everything else open: IPv4 is open less every range
//! in IANA's special-purpose registry, IPv6 is closed but for `2000::/3`, less the same registry.
//!
//! The registry's globally reachable entries (AS112, AMT, the anycast relays) are refused too. They are often served from
//! inside a network, and no partner receives webhooks there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{Error, Result};

/// The addresses that requests may go to. The default allows public addresses only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    allowed: Vec<IpNet>,
}

impl EgressPolicy {
    /// Public addresses, and those in `allowed`.
    ///
    /// A cloud's metadata address is opened only by a network that is that single address (`/32` or `/128`). An address
    /// that carries an IPv4 address (NAT64, 6to4 and the like) is opened only if the address it carries is open as well.
    ///
    /// # Errors
    /// [`Error::Config`] for `0.0.0.0/0` and `::/0`: that is no policy.
    pub fn allowing(allowed: Vec<IpNet>) -> Result<Self> {
        let allowed: Vec<IpNet> = allowed.into_iter().map(canonical_net).collect();
        match allowed.iter().find(|net| net.prefix_len() == 0) {
            None => Ok(Self { allowed }),
            Some(net) => Err(Error::Config(format!(
                "the allowed network {net} covers every address; name the networks that partners are in"
            ))),
        }
    }

    /// Whether a connection to `address` may be made.
    ///
    /// # Errors
    /// The [`Refusal`] says which rule forbids it.
    pub fn check(&self, address: IpAddr) -> std::result::Result<(), Refusal> {
        let canonical = address.to_canonical();
        let Some(rule) = refused_by(address) else {
            return Ok(());
        };
        let open = match metadata_rule(canonical) {
            Some(_) => self.names(canonical),
            None => self.covers(canonical) && self.carried_is_open(canonical),
        };
        if open {
            Ok(())
        } else {
            Err(Refusal { address, rule })
        }
    }

    fn covers(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|net| net.contains(&address))
    }

    fn names(&self, address: IpAddr) -> bool {
        self.allowed.contains(&IpNet::from(address))
    }

    fn carried_is_open(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => {
                carried_v4(address).is_none_or(|inner| self.check(inner.into()).is_ok())
            }
        }
    }
}

/// The networks that one subscription's endpoint must lie in, on top of the policy: they only ever narrow it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<(IpNet, Option<u16>)>);

impl Networks {
    /// Reads networks, each perhaps with a port: `203.0.113.0/24`, `203.0.113.0/24:443`, `[2001:db8::/32]:443`. None at all: no
    /// narrowing.
    ///
    /// # Errors
    /// [`Error::Config`] names the text that is none.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self> {
        let networks = texts.into_iter().map(|text| {
            network_and_port(text).ok_or_else(|| {
                Error::Config(format!("{text:?} is no network, with or without a port"))
            })
        });
        networks.collect::<Result<_>>().map(Self)
    }

    /// Whether a connection to this address and port may be made.
    ///
    /// # Errors
    /// The [`Refusal`] where neither network covers it.
    pub fn check(&self, address: SocketAddr) -> std::result::Result<(), Refusal> {
        let ip = address.ip().to_canonical();
        let covers = |(net, port): &(IpNet, Option<u16>)| {
            canonical_net(*net).contains(&ip) && port.is_none_or(|port| port == address.port())
        };
        if self.0.is_empty() || self.0.iter().any(covers) {
            Ok(())
        } else {
            let rule = "none of the networks that its subscription names";
            Err(Refusal {
                address: address.ip(),
                rule,
            })
        }
    }
}

fn network_and_port(text: &str) -> Option<(IpNet, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (network, port) = rest.split_once(']')?;
        let port = match port {
            "" => None,
            port => Some(port.strip_prefix(':')?.parse().ok()?),
        };
        return Some((network.parse().ok()?, port));
    }
    if let Ok(network) = text.parse() {
        return Some((network, None));
    }
    let (network, port) = text.rsplit_once(':')?;
    Some((network.parse().ok()?, Some(port.parse().ok()?)))
}

/// An address that may not be connected to, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The address, as it was given.
    pub address: IpAddr,
    /// The rule: a network and what it is, such as `10.0.0.0/8 (private use)`.
    pub rule: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is in {}", self.address, self.rule)
    }
}

impl std::error::Error for Refusal {}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8` in other words.
fn canonical_net(net: IpNet) -> IpNet {
    let net = net.trunc();
    if let (IpAddr::V4(base), IpNet::V6(_), Some(prefix)) = (
        net.network().to_canonical(),
        net,
        net.prefix_len().checked_sub(96),
    ) && let Ok(net) = Ipv4Net::new(base, prefix)
    {
        return net.into();
    }
    net
}

/// The rule that forbids `address` where the operator names nothing. The more telling rule comes first.
fn refused_by(address: IpAddr) -> Option<&'static str> {
    metadata_rule(address.to_canonical()).or_else(|| match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    })
}

fn metadata_rule(address: IpAddr) -> Option<&'static str> {
    let found = METADATA.iter().find(|(metadata, _)| *metadata == address);
    found.map(|(_, rule)| *rule)
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let found = SPECIAL_V4.iter().find(|(net, _)| net.contains(&address));
    found.map(|(_, rule)| *rule)
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let found = SPECIAL_V6.iter().find(|(net, _)| net.contains(&address));
    match found {
        Some((_, rule)) => Some(rule),
        None if !GLOBAL_UNICAST.contains(&address) => Some(NOT_GLOBAL_UNICAST),
        None if is_isatap(address) => Some(ISATAP),
        None => None,
    }
}

/// The interface identifier that ISATAP (RFC 5214) makes of an IPv4 address, below any prefix.
fn is_isatap(address: Ipv6Addr) -> bool {
    matches!(
        address.segments(),
        [_, _, _, _, 0 | 0x0200 | 0x0100 | 0x0300, 0x5efe, _, _]
    )
}

/// The IPv4 address that an IPv6 address of a transition mechanism carries.
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low 32 bits are what is wanted"
    )]
    let low = bits as u32;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bits 16 to 48 of 128, after the shift"
    )]
    let after_2002 = (bits >> 80) as u32;
    let in_low_bits = [COMPATIBLE, MAPPED, SIIT, NAT64, NAT64_LOCAL];
    if address.is_loopback() {
        None // `::1` has the look of a compatible 0.0.0.1
    } else if in_low_bits.iter().any(|net| net.contains(&address)) || is_isatap(address) {
        Some(Ipv4Addr::from_bits(low))
    } else if TEREDO.contains(&address) {
        Some(Ipv4Addr::from_bits(!low)) // Teredo hides it from address-rewriting NATs
    } else if SIX_TO_FOUR.contains(&address) {
        Some(Ipv4Addr::from_bits(after_2002))
    } else {
        None
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(s: [u16; 8], prefix: u8) -> Ipv6Net {
    let base = Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    Ipv6Net::new_assert(base, prefix)
}

const fn ip4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn ip6(a: u16, b: u16, c: u16, h: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, h))
}

/// Addresses at which a cloud answers its own machines, often with credentials.
const METADATA: [(IpAddr, &str); 13] = [
    (
        ip4(169, 254, 169, 254),
        "169.254.169.254/32 (cloud metadata)",
    ),
    (
        ip4(169, 254, 169, 253),
        "169.254.169.253/32 (cloud resolver, AWS)",
    ),
    (
        ip4(169, 254, 169, 123),
        "169.254.169.123/32 (cloud clock, AWS)",
    ),
    (
        ip4(169, 254, 170, 2),
        "169.254.170.2/32 (cloud metadata, AWS containers)",
    ),
    (
        ip4(169, 254, 170, 23),
        "169.254.170.23/32 (cloud metadata, AWS pods)",
    ),
    (
        ip4(169, 254, 42, 42),
        "169.254.42.42/32 (cloud metadata, Scaleway)",
    ),
    (
        ip4(100, 100, 100, 200),
        "100.100.100.200/32 (cloud metadata, Alibaba)",
    ),
    (
        ip4(192, 0, 0, 192),
        "192.0.0.192/32 (cloud metadata, Oracle)",
    ),
    (
        ip4(168, 63, 129, 16),
        "168.63.129.16/32 (cloud metadata, Azure)",
    ),
    (
        ip6(0xfd00, 0xec2, 0, 0x254),
        "fd00:ec2::254/128 (cloud metadata, AWS)",
    ),
    (
        ip6(0xfd00, 0xec2, 0, 0x23),
        "fd00:ec2::23/128 (cloud metadata, AWS pods)",
    ),
    (
        ip6(0xfd20, 0xce, 0, 0x254),
        "fd20:ce::254/128 (cloud metadata, Google)",
    ),
    (
        ip6(0xfd00, 0x42, 0, 0x42),
        "fd00:42::42/128 (cloud metadata, Scaleway)",
    ),
];

/// IANA's IPv4 special-purpose registry, and multicast.
const SPECIAL_V4: [(Ipv4Net, &str); 19] = [
    (v4(0, 0, 0, 0, 8), "0.0.0.0/8 (this network)"),
    (v4(10, 0, 0, 0, 8), "10.0.0.0/8 (private use)"),
    (
        v4(100, 64, 0, 0, 10),
        "100.64.0.0/10 (shared with the carrier)",
    ),
    (v4(127, 0, 0, 0, 8), "127.0.0.0/8 (loopback)"),
    (v4(169, 254, 0, 0, 16), "169.254.0.0/16 (link-local)"),
    (v4(172, 16, 0, 0, 12), "172.16.0.0/12 (private use)"),
    (v4(192, 0, 0, 0, 24), "192.0.0.0/24 (protocol assignments)"),
    (v4(192, 0, 2, 0, 24), "192.0.2.0/24 (documentation)"),
    (v4(192, 31, 196, 0, 24), "192.31.196.0/24 (AS112)"),
    (v4(192, 52, 193, 0, 24), "192.52.193.0/24 (AMT)"),
    (v4(192, 88, 99, 0, 24), "192.88.99.0/24 (6to4 relays)"),
    (v4(192, 168, 0, 0, 16), "192.168.0.0/16 (private use)"),
    (v4(192, 175, 48, 0, 24), "192.175.48.0/24 (AS112)"),
    (v4(198, 18, 0, 0, 15), "198.18.0.0/15 (benchmarking)"),
    (v4(198, 51, 100, 0, 24), "198.51.100.0/24 (documentation)"),
    (v4(203, 0, 113, 0, 24), "203.0.113.0/24 (documentation)"),
    (v4(224, 0, 0, 0, 4), "224.0.0.0/4 (multicast)"),
    (v4(255, 255, 255, 255, 32), "255.255.255.255/32 (broadcast)"),
    (v4(240, 0, 0, 0, 4), "240.0.0.0/4 (reserved)"),
];

const UNSPECIFIED: Ipv6Net = v6([0; 8], 128);
const LOOPBACK: Ipv6Net = v6([0, 0, 0, 0, 0, 0, 0, 1], 128);
const COMPATIBLE: Ipv6Net = v6([0; 8], 96);
const MAPPED: Ipv6Net = v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96);
const SIIT: Ipv6Net = v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96);
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
const NAT64_LOCAL: Ipv6Net = v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

const NOT_GLOBAL_UNICAST: &str = "::/0 outside 2000::/3 (not global unicast)";
const ISATAP: &str = "::5efe:0:0/96 below its prefix (ISATAP)";

/// IANA's IPv6 special-purpose registry, inside `2000::/3` and, for the sake of a telling name, outside it.
const SPECIAL_V6: [(Ipv6Net, &str); 19] = [
    (UNSPECIFIED, "::/128 (unspecified)"),
    (LOOPBACK, "::1/128 (loopback)"),
    (COMPATIBLE, "::/96 (IPv4-compatible)"),
    (MAPPED, "::ffff:0:0/96 (IPv4-mapped)"),
    (SIIT, "::ffff:0:0:0/96 (IPv4-translated)"),
    (NAT64, "64:ff9b::/96 (NAT64)"),
    (NAT64_LOCAL, "64:ff9b:1::/48 (NAT64, local use)"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "100::/64 (discard)"),
    (
        v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64),
        "100:0:0:1::/64 (dummy)",
    ),
    (TEREDO, "2001::/32 (Teredo)"),
    (
        v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
        "2001::/23 (protocol assignments)",
    ),
    (
        v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
        "2001:db8::/32 (documentation)",
    ),
    (SIX_TO_FOUR, "2002::/16 (6to4)"),
    (
        v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48),
        "2620:4f:8000::/48 (AS112)",
    ),
    (
        v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
        "3fff::/20 (documentation)",
    ),
    (
        v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16),
        "5f00::/16 (segment routing)",
    ),
    (
        v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
        "fc00::/7 (unique local)",
    ),
    (
        v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 9),
        "fe80::/9 (link-local and site-local)",
    ),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "ff00::/8 (multicast)"),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn allowing(nets: &[&str]) -> EgressPolicy {
        EgressPolicy::allowing(nets.iter().map(|net| net.parse().unwrap()).collect()).unwrap()
    }

    fn refusal(address: &str) -> String {
        EgressPolicy::default()
            .check(ip(address))
            .unwrap_err()
            .to_string()
    }

    /// The ends and insides of every special range, and inside or public IPv4 in every dress.
    const REFUSED: &str = "
        0.0.0.0 0.0.0.1 0.255.255.255 10.0.0.0 10.0.0.5 10.255.255.255 100.64.0.0 100.100.100.200
        100.127.255.255 127.0.0.0 127.0.0.1 127.255.255.255 168.63.129.16 169.254.0.0
        169.254.42.42 169.254.169.123 169.254.169.253 169.254.169.254 169.254.170.2 169.254.170.23
        169.254.255.255 172.16.0.0 172.31.255.255 192.0.0.0 192.0.0.9 192.0.0.10 192.0.0.170
        192.0.0.192 192.0.0.255 192.0.2.0 192.0.2.255 192.31.196.1 192.52.193.1 192.88.99.0
        192.88.99.1 192.88.99.255 192.168.0.0 192.168.255.255 192.175.48.6 198.18.0.0
        198.19.255.255 198.51.100.0 198.51.100.255 203.0.113.0 203.0.113.255 224.0.0.0 224.0.0.1
        232.1.2.3 239.255.255.255 240.0.0.0 250.1.2.3 255.255.255.254 255.255.255.255 :: ::1 ::2
        100:: 100::1 100::ffff:ffff:ffff:ffff 100:0:0:1:: 100:0:0:1::1 100:0:0:2::1 200::1 400::1
        800::1 1000::1 1fff:ffff::1 4000:: 4000::1 5f00:: 5f00::1 5fff::1 6000::1 8000::1 a000::1
        c000::1 e000::1 f000::1 f800::1 fc00:: fc00::1 fd00::1 fd00:ec2::254 fd00:ec2::23
        fd20:ce::254 fd00:42::42 fdff:ffff::1 fe00::1 fe7f::1 fe80:: fe80::1 febf::1 fec0::
        fec0::1 feff::1 ff00:: ff01::1 ff02::1 ff0e::1 ffff::1
        ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2001:: 2001:0:ffff::1 2001:1::1 2001:1::2
        2001:1::3 2001:2:: 2001:2:0:ffff::1 2001:3::1 2001:4:112::1 2001:10::1 2001:1f:ffff::1
        2001:20::1 2001:2f:ffff::1 2001:30::1 2001:3f::1 2001:1ff:ffff::1 2001:db8:: 2001:db8::1
        2001:db8:ffff:ffff::1 2002:: 2002::1 2002:ffff::1 2620:4f:8000::1 2620:4f:8000:ffff::1
        3fff:: 3fff::1 3fff:fff:ffff::1 ::ffff:127.0.0.1 ::ffff:10.0.0.5 ::ffff:169.254.169.254
        ::ffff:8.8.8.8 ::127.0.0.1 ::10.0.0.5 ::8.8.8.8 ::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8
        64:ff9b::7f00:1 64:ff9b::a00:5 64:ff9b::a9fe:a9fe 64:ff9b::808:808 64:ff9b:1::7f00:1
        64:ff9b:1:ffff::808:808 64:ff9b:2::1 64:ff9b:0:1::1 2002:7f00:1::1 2002:a00:5::1
        2002:808:808::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2600:1f18::5efe:7f00:1
        2600:1f18::200:5efe:a00:5 2600:1f18::5efe:808:808 2600:1f18::100:5efe:a00:5
        2600:1f18::300:5efe:a00:5 fe80::5efe:a00:5
    ";

    /// Public addresses, the neighbours of every special range among them.
    const PUBLIC: &str = "
        1.0.0.0 1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255
        128.0.0.0 168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255
        172.32.0.0 191.255.255.255 192.0.1.0 192.0.1.255 192.0.3.0 192.31.195.255 192.31.197.0
        192.52.192.255 192.52.194.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0
        192.175.47.255 192.175.49.0 198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0
        203.0.112.255 203.0.114.0 223.255.255.255 2000::1 2001:200::1 2001:4860:4860::8888
        2001:db7:ffff::1 2001:db9::1 2003::1 2400:cb00::1 2600:1f18::1 2606:4700:4700::1111
        2620:4f:7fff::1 2620:4f:8001::1 2620:fe::fe 2a00:1450:4001::1 2a01:4f8::1 2c0f:fb50::1
        3ffe:ffff::1 3fff:1000::1 2600:1f18::5efd:a00:5 2600:1f18::400:5efe:a00:5
    ";

    #[test]
    fn every_special_address_is_refused() {
        let policy = EgressPolicy::default();
        let open: Vec<_> = REFUSED
            .split_whitespace()
            .filter(|text| policy.check(ip(text)).is_ok())
            .collect();
        assert!(open.is_empty(), "let through: {open:?}");
    }

    #[test]
    fn every_public_address_is_open() {
        let policy = EgressPolicy::default();
        let refused: Vec<_> = PUBLIC
            .split_whitespace()
            .filter_map(|text| policy.check(ip(text)).err())
            .collect();
        assert!(refused.is_empty(), "refused: {refused:?}");
    }

    #[test]
    fn a_refusal_names_the_address_and_the_rule() {
        assert_eq!(
            refusal("10.0.0.5"),
            "10.0.0.5 is in 10.0.0.0/8 (private use)"
        );
        assert_eq!(
            refusal("255.255.255.255"),
            "255.255.255.255 is in 255.255.255.255/32 (broadcast)"
        );
        assert_eq!(refusal("::1"), "::1 is in ::1/128 (loopback)");
        assert_eq!(
            refusal("::ffff:10.0.0.5"),
            "::ffff:10.0.0.5 is in ::ffff:0:0/96 (IPv4-mapped)"
        );
        assert_eq!(
            refusal("::ffff:169.254.169.254"),
            "::ffff:169.254.169.254 is in 169.254.169.254/32 (cloud metadata)"
        );
        assert_eq!(
            refusal("4000::1"),
            "4000::1 is in ::/0 outside 2000::/3 (not global unicast)"
        );
    }

    #[test]
    fn each_rule_bears_the_network_that_it_tests() {
        let v4 = SPECIAL_V4
            .iter()
            .map(|(net, rule)| (IpNet::from(*net), *rule));
        let v6 = SPECIAL_V6
            .iter()
            .map(|(net, rule)| (IpNet::from(*net), *rule));
        let metadata = METADATA.iter().map(|(ip, rule)| (IpNet::from(*ip), *rule));
        for (net, rule) in v4.chain(v6).chain(metadata) {
            let named: IpNet = rule.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(named, net);
        }
    }

    #[test]
    fn an_allowed_network_opens_what_it_covers_and_no_more() {
        let policy = allowing(&["10.1.0.0/16", "127.0.0.0/8", "::1/128", "fd12::/16"]);
        for open in [
            "10.1.0.1",
            "10.1.255.255",
            "127.0.0.1",
            "::1",
            "fd12::1",
            "8.8.8.8",
        ] {
            assert_eq!(policy.check(ip(open)), Ok(()));
        }
        for closed in ["10.0.255.255", "10.2.0.0", "::2", "fd13::1", "192.168.0.1"] {
            assert!(policy.check(ip(closed)).is_err(), "{closed}");
        }
    }

    #[test]
    fn a_mapped_address_is_judged_as_the_address_it_maps() {
        let written_as_v4 = allowing(&["10.0.0.0/8"]);
        let written_as_v6 = allowing(&["::ffff:10.0.0.0/104"]);
        for policy in [written_as_v4, written_as_v6] {
            assert_eq!(policy.check(ip("::ffff:10.0.0.5")), Ok(()));
            assert_eq!(policy.check(ip("10.0.0.5")), Ok(()));
            assert!(policy.check(ip("::ffff:127.0.0.1")).is_err());
        }
    }

    #[test]
    fn a_metadata_address_is_opened_by_its_own_name_alone() {
        for (address, _) in METADATA {
            let wide = IpNet::new(address, if address.is_ipv4() { 8 } else { 16 }).unwrap();
            let wide = EgressPolicy::allowing(vec![wide]).unwrap();
            assert!(wide.check(address).is_err(), "{address}");
            let named = EgressPolicy::allowing(vec![IpNet::from(address)]).unwrap();
            assert_eq!(named.check(address), Ok(()));
        }
        let mapped = ip("::ffff:169.254.169.254");
        assert!(allowing(&["169.254.0.0/16"]).check(mapped).is_err());
        assert_eq!(allowing(&["169.254.169.254/32"]).check(mapped), Ok(()));
    }

    #[test]
    fn an_allowed_nat64_prefix_does_not_open_the_inside() {
        let policy = allowing(&["64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"]);
        for open in [
            "64:ff9b::808:808",
            "64:ff9b:1::808:808",
            "2002:808:808::1",
            "2001::f7f7:f7f7",
        ] {
            assert_eq!(policy.check(ip(open)), Ok(()), "{open}");
        }
        let closed = [
            "64:ff9b::a00:5",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::7f00:1",
            "2002:a00:5::1",
            "2001::80ff:fffe", // Teredo of 127.0.0.1
        ];
        for closed in closed {
            assert!(policy.check(ip(closed)).is_err(), "{closed}");
        }
    }

    #[test]
    fn an_allowed_network_that_covers_everything_is_refused() {
        for net in ["0.0.0.0/0", "::/0", "10.0.0.0/0", "::ffff:0.0.0.0/96"] {
            let error = EgressPolicy::allowing(vec![net.parse().unwrap()]).unwrap_err();
            assert!(
                error.to_string().contains("covers every address"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_ipv6_address_outside_2000_3_is_open(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            let open = EgressPolicy::default().check(address.into()).is_ok();
            prop_assert!(!open || (0x2000..0x4000).contains(&address.segments()[0]));
        }

        #[test]
        fn an_ipv4_address_in_any_dress_is_refused_where_it_is_inside(low: u32, dress in 0_usize..7) {
            let inside = Ipv4Addr::from_bits(low & 0x00ff_ffff | 0x0a00_0000);
            let low = u128::from(inside.to_bits());
            let bits = match dress {
                0 => low,
                1 => 0xffff_0000_0000 | low,
                2 => 0xffff_0000_0000_0000 | low,
                3 => 0x0064_ff9b << 96 | low,
                4 => 0x0064_ff9b_0001 << 80 | low,
                5 => 0x2002 << 112 | low << 80,
                _ => 0x2001 << 112 | (!low & 0xffff_ffff),
            };
            let policy = allowing(&["::/1", "64:ff9b::/32"]);
            prop_assert!(policy.check(Ipv6Addr::from_bits(bits).into()).is_err());
        }

        #[test]
        fn what_std_calls_not_global_is_refused(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let inside = address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_multicast() || address.is_broadcast() || address.is_documentation()
                || address.is_unspecified();
            prop_assert!(!inside || EgressPolicy::default().check(address.into()).is_err());
        }

        #[test]
        fn a_named_network_opens_exactly_itself(bits: u32, prefix in 8_u8..=32, other: u32) {
            let net = Ipv4Net::new(Ipv4Addr::from_bits(bits), prefix).unwrap().trunc();
            let policy = EgressPolicy::allowing(vec![net.into()]).unwrap();
            let other = Ipv4Addr::from_bits(other);
            let open_anyway = EgressPolicy::default().check(other.into()).is_ok();
            let metadata = metadata_rule(other.into()).is_some();
            let opened = policy.check(other.into()).is_ok();
            prop_assert!(metadata || opened == (open_anyway || net.contains(&other)));
        }
    }
}
