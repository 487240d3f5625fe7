//! The proxy that requests leave by, as an operator names it.
//!
//! It carries bytes and nothing more: which address a request goes to is decided, and vetted, before the proxy hears of
//! it, and TLS is spoken with the partner through it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zeroize::Zeroizing;

use crate::endpoint::Host;
use crate::{Error, Result};

/// A proxy: how it is spoken to, where it is, and who we are to it. `Display` and `Debug` leave name and password out.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    protocol: ProxyProtocol,
    host: Host,
    port: u16,
    login: Option<ProxyLogin>,
}

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// HTTP `CONNECT` in the clear.
    Http,
    /// HTTP `CONNECT` over TLS, with the proxy's own certificate.
    Https,
    /// SOCKS version 5.
    Socks5,
}

/// The name and password that a proxy asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyLogin {
    /// 1 to 255 bytes, never a control character.
    pub user: Zeroizing<String>,
    /// At most 255 bytes, perhaps none, never a control character.
    pub password: Zeroizing<String>,
}

impl ProxyUrl {
    /// Reads `scheme://host:port`, with `user:password@` before the host where the proxy asks for them, each
    /// percent-encoded where it holds one of `:@/%`. Unlike a partner's, its host may be a name without a dot.
    ///
    /// # Errors
    /// [`Error::Config`] names the part and the rule, and never a piece of the text.
    pub fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| refusal("it must begin with http://, https:// or socks5://"))?;
        let protocol = match scheme.to_ascii_lowercase().as_str() {
            "http" => ProxyProtocol::Http,
            "https" => ProxyProtocol::Https,
            "socks5" => ProxyProtocol::Socks5,
            _ => return Err(refusal("it must begin with http://, https:// or socks5://")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(ProxyLogin::parse(login, protocol)?), address),
            None => (None, authority),
        };
        let (host, port) = address
            .rsplit_once(':')
            .ok_or_else(|| refusal("it must end with a port, such as :3128"))?;
        Ok(Self {
            protocol,
            host: parse_host(host)?,
            port: parse_port(port)?,
            login,
        })
    }

    /// How it is spoken to.
    pub fn protocol(&self) -> ProxyProtocol {
        self.protocol
    }

    /// The name or address to connect to.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Who we are to it.
    pub fn login(&self) -> Option<&ProxyLogin> {
        self.login.as_ref()
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            ProxyProtocol::Http => "http",
            ProxyProtocol::Https => "https",
            ProxyProtocol::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

impl ProxyLogin {
    fn parse(text: &str, protocol: ProxyProtocol) -> Result<Self> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let login = Self {
            user: decoded(user)?,
            password: decoded(password)?,
        };
        // Basic authentication ends the name at the first colon.
        if login.user.is_empty() || (protocol != ProxyProtocol::Socks5 && login.user.contains(':'))
        {
            return Err(refusal("the user before the @ must be a name without a :"));
        }
        Ok(login)
    }
}

impl fmt::Debug for ProxyLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyLogin(hidden)")
    }
}

fn refusal(rule: &str) -> Error {
    Error::Config(format!("the proxy's URL: {rule}"))
}

fn parse_host(text: &str) -> Result<Host> {
    let rule = "the host must be a name, an IPv4 address, or an IPv6 address in brackets";
    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        let address: Result<Ipv6Addr, _> = inner.parse();
        return address
            .map(|address| Host::Ip(IpAddr::V6(address)))
            .map_err(|_| refusal(rule));
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(IpAddr::V4(address)));
    }
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_letter);
    if is_name && !text.starts_with(['.', '-']) && !text.contains("..") {
        Ok(Host::Name(text.to_ascii_lowercase()))
    } else {
        Err(refusal(rule))
    }
}

fn parse_port(text: &str) -> Result<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if is_number && port > 0 => Ok(port),
        _ => Err(refusal("the port must be a number from 1 to 65535")),
    }
}

/// Percent-decodes a name or a password.
fn decoded(text: &str) -> Result<Zeroizing<String>> {
    let rule = "user and password must be at most 255 bytes of UTF-8 without control characters, with :@/% percent-encoded";
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = match (first, others) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low].map(|digit| char::from(digit).to_digit(16));
                let [Some(high), Some(low)] = digits else {
                    return Err(refusal(rule));
                };
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                after
            }
            (b'%' | b'@' | b'/', _) => return Err(refusal(rule)),
            (byte, after) => {
                bytes.push(*byte);
                after
            }
        };
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) if text.len() <= MAX_CREDENTIAL && !text.chars().any(char::is_control) => {
            Ok(Zeroizing::new(text.to_owned()))
        }
        _ => Err(refusal(rule)),
    }
}

const MAX_NAME: usize = 253;
/// What SOCKS can carry.
const MAX_CREDENTIAL: usize = 255;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_proxy_is_read_with_its_parts() {
        let proxy = ProxyUrl::parse("http://squid:3128").unwrap();
        assert_eq!(
            (proxy.protocol(), proxy.port(), proxy.login()),
            (ProxyProtocol::Http, 3128, None)
        );
        assert_eq!(proxy.host(), &Host::Name("squid".to_owned()));
        let proxy = ProxyUrl::parse("SOCKS5://ada:p%40s%3as:x@[2001:db8::1]:1080/").unwrap();
        assert_eq!(proxy.to_string(), "socks5://[2001:db8::1]:1080");
        let login = proxy.login().unwrap();
        assert_eq!(
            (login.user.as_str(), login.password.as_str()),
            ("ada", "p@s:s:x")
        );
        let proxy = ProxyUrl::parse("https://ada@192.0.2.1:443").unwrap();
        assert_eq!(proxy.login().unwrap().password.as_str(), "");
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_repeating_it() {
        let long = "C".repeat(256);
        for text in [
            "CANARY",
            "CANARY:3128",
            "ftp://CANARY:1",
            "socks4://CANARY:1",
            "socks5h://CANARY:1",
            "http://CANARY",
            "http://CANARY:0",
            "http://CANARY:65536",
            "http://CANARY:+80",
            "http://CANARY:80/path",
            "http://CANARY:80?query",
            "http://CANARY:80#fragment",
            "http://:CANARY@host:80",
            "http://CANARY:b%4@host:80",
            "http://CANARY:b%zz@host:80",
            "http://CANARY%0d%0a:b@host:80",
            "http://CANARY%ff:b@host:80",
            "http://CANARY%3Ax:b@host:80",
            "http://CANARY:b@c@host:80",
            "http://2001:db8::CANARY:80",
            "http://[CANARY]:80",
            "http://CAN ARY:80",
            "http://CAN..ARY:80",
            "http://.CANARY:80",
            "http://:80",
            &format!("http://CANARY:{long}@host:80"),
        ] {
            let said = ProxyUrl::parse(text).unwrap_err().to_string();
            assert!(
                said.starts_with("configuration: the proxy's URL: "),
                "{said}"
            );
            assert!(!said.contains("CAN"), "{text}: {said}");
        }
    }

    #[test]
    fn nothing_shows_the_login() {
        let proxy = ProxyUrl::parse("http://CANARY:CANARY@proxy.example:3128").unwrap();
        let shown = format!("{proxy} {proxy:?} {:?}", proxy.login());
        assert!(
            shown.contains("proxy.example") && !shown.contains("CANARY"),
            "{shown}"
        );
    }
}
