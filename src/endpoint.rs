//! A partner's URL, read by one strict grammar.
//!
//! Two parsers that disagree on where the host ends are a way in. So this grammar takes only what every parser reads in the
//! same way, and the rest of the program never sees the text again, only the parts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};

/// Where a subscription's requests go.
///
/// `Display` gives the canonical URL: lower-case host, no default port. `Debug` leaves path and query out, where partners
/// like to put tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointUrl {
    scheme: Scheme,
    host: Host,
    port: u16,
    host_header: HeaderValue,
    uri: Uri,
}

impl EndpointUrl {
    /// Reads `text`, at most 2,048 characters.
    ///
    /// Taken: `https` (and `http` to a loopback host where `plain_http` allows it), a host name with a dot or `localhost`,
    /// or a canonical IP address, a port from 1 to 65535, path and query as in RFC 3986. Refused: anything else, above all
    /// user information, fragments, backslashes, and addresses in octal, hexadecimal or short forms.
    ///
    /// # Errors
    /// The [`UrlRefusal`] names the part, the piece of it and the rule.
    pub fn parse(text: &str, plain_http: PlainHttp) -> Result<Self, UrlRefusal> {
        check_characters(text)?;
        let (scheme, rest) = split_scheme(text)?;
        let (authority, target) = split_authority(rest);
        let (host, port) = split_port(authority, scheme)?;
        let host = Host::parse(host)?;
        check_plain_http(scheme, &host, plain_http)?;
        let path_and_query = parse_target(target)?;
        Self::assemble(scheme, host, port, path_and_query)
    }

    fn assemble(
        scheme: Scheme,
        host: Host,
        port: u16,
        path_and_query: PathAndQuery,
    ) -> Result<Self, UrlRefusal> {
        let authority = if port == scheme.default_port() {
            host.to_string()
        } else {
            format!("{host}:{port}")
        };
        let host_header = HeaderValue::try_from(&authority);
        let uri = Uri::builder()
            .scheme(scheme.as_str())
            .authority(authority)
            .path_and_query(path_and_query)
            .build();
        match (host_header, uri) {
            (Ok(host_header), Ok(uri)) => Ok(Self {
                scheme,
                host,
                port,
                host_header,
                uri,
            }),
            _ => Err(UrlRefusal::new("it does not form a URL")),
        }
    }

    /// `https`, or `http` for trials.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The name or address to connect to.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, the scheme's own where the URL named none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value for the `Host` header: the host, and the port unless it is the scheme's own.
    pub fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    /// Path and query as they were given; `/` where there was none.
    pub fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", PathAndQuery::as_str)
    }

    /// The whole URL in the form that HTTP/2 wants.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "EndpointUrl({}://{}:{}/..)",
            self.scheme.as_str(),
            self.host,
            self.port
        )
    }
}

/// Whether `http` URLs are taken at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// Never: `https` alone.
    #[default]
    Never,
    /// To `localhost` and loopback addresses, for development and benchmarks.
    LoopbackOnly,
}

/// How the endpoint is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP over TLS.
    Https,
    /// HTTP in the clear.
    Http,
}

impl Scheme {
    /// `https` or `http`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// A host, as the URL gave it. `Display` puts an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name in lower case, without a trailing dot.
    Name(String),
    /// An address literal.
    Ip(IpAddr),
}

impl Host {
    fn parse(text: &str) -> Result<Self, UrlRefusal> {
        if text.is_empty() {
            return Err(UrlRefusal::new("host: it is missing"));
        }
        let lower = text.to_ascii_lowercase();
        if let Some(bracketed) = lower.strip_prefix('[') {
            return parse_v6(bracketed);
        }
        let last_label = lower.rsplit('.').next().unwrap_or_default();
        if last_label.starts_with(|c: char| c.is_ascii_digit()) {
            return parse_v4(&lower);
        }
        check_name(&lower)?;
        Ok(Self::Name(lower))
    }

    fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name == LOCALHOST,
            Self::Ip(address) => address.is_loopback(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Why a text is no URL that requests may be sent to, in one line that holds no user information, path or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlRefusal(String);

impl UrlRefusal {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// `piece` is shown escaped and cut, so that it cannot forge a log line or fill one.
    fn at(part: &str, piece: &str, rule: &str) -> Self {
        let cut: String = piece.chars().take(MAX_PIECE).collect();
        let dots = if cut.len() < piece.len() { ".." } else { "" };
        Self(format!("{part}: \"{}{dots}\" {rule}", cut.escape_default()))
    }
}

impl fmt::Display for UrlRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "URL refused: {}", self.0)
    }
}

impl std::error::Error for UrlRefusal {}

fn check_characters(text: &str) -> Result<(), UrlRefusal> {
    if text.is_empty() || text.len() > MAX_LENGTH {
        let length = text.len();
        return Err(UrlRefusal::new(format!(
            "length: {length} bytes, allowed are 1 to {MAX_LENGTH}"
        )));
    }
    match text
        .chars()
        .find(|c| !c.is_ascii_graphic() || "\\\"<>^`{|}".contains(*c))
    {
        None if text.contains('#') => Err(UrlRefusal::new(
            "fragment: a request cannot carry one; leave out \"#\" and the rest",
        )),
        None => Ok(()),
        Some(c) => Err(UrlRefusal::at(
            "character",
            c.encode_utf8(&mut [0; 4]),
            "is not allowed in a URL; percent-encode it, or use punycode in a host",
        )),
    }
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), UrlRefusal> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(UrlRefusal::new(
            "scheme: the URL must start with \"https://\"",
        ));
    };
    if scheme.eq_ignore_ascii_case("https") {
        Ok((Scheme::Https, rest))
    } else if scheme.eq_ignore_ascii_case("http") {
        Ok((Scheme::Http, rest))
    } else {
        Err(UrlRefusal::at("scheme", scheme, "is not \"https\""))
    }
}

fn split_authority(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()))
}

fn split_port(authority: &str, scheme: Scheme) -> Result<(&str, u16), UrlRefusal> {
    if authority.contains('@') {
        return Err(UrlRefusal::new(
            "user information: a name or password before \"@\" is not allowed",
        ));
    }
    let after_brackets = match authority.find(']') {
        None if authority.starts_with('[') => return Ok((authority, scheme.default_port())),
        end => end.map_or(0, |end| end + 1),
    };
    match authority[after_brackets..].find(':') {
        None => Ok((authority, scheme.default_port())),
        Some(colon) => {
            let (host, port) = authority.split_at(after_brackets + colon);
            Ok((host, parse_port(&port[1..])?))
        }
    }
}

fn parse_port(text: &str) -> Result<u16, UrlRefusal> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    match text.parse() {
        Ok(port) if digits => Ok(port),
        _ => Err(UrlRefusal::at(
            "port",
            text,
            "is not a number from 1 to 65535 without leading zeros",
        )),
    }
}

fn parse_v4(text: &str) -> Result<Host, UrlRefusal> {
    // std takes four decimal numbers without leading zeros and nothing else.
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Ok(Host::Ip(address.into())),
        Err(_) => Err(UrlRefusal::at(
            "host",
            text,
            "ends in a number but is no IPv4 address of four decimal numbers",
        )),
    }
}

fn parse_v6(bracketed: &str) -> Result<Host, UrlRefusal> {
    let inner = bracketed.strip_suffix(']').unwrap_or_default();
    match inner.parse::<Ipv6Addr>() {
        Ok(address) if address.to_string() == inner => Ok(Host::Ip(address.into())),
        Ok(address) => Err(UrlRefusal::at(
            "host",
            inner,
            &format!("is not in canonical form, which is \"[{address}]\""),
        )),
        Err(_) => Err(UrlRefusal::at(
            "host",
            bracketed,
            "is no IPv6 address in brackets",
        )),
    }
}

fn check_name(name: &str) -> Result<(), UrlRefusal> {
    if name.len() > MAX_NAME {
        return Err(UrlRefusal::at(
            "host",
            name,
            "is longer than 253 characters",
        ));
    }
    if let Some(label) = name.split('.').find(|label| !is_label(label)) {
        return Err(match label {
            "" => UrlRefusal::at("host", name, "has an empty label: a dot too many"),
            label => UrlRefusal::at(
                "host",
                label,
                "is not a label of 1 to 63 letters, digits and inner hyphens",
            ),
        });
    }
    if !name.contains('.') && name != LOCALHOST {
        return Err(UrlRefusal::at(
            "host",
            name,
            "has no dot: give the full name",
        ));
    }
    Ok(())
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn check_plain_http(scheme: Scheme, host: &Host, plain_http: PlainHttp) -> Result<(), UrlRefusal> {
    match (scheme, plain_http) {
        (Scheme::Https, _) => Ok(()),
        (Scheme::Http, PlainHttp::LoopbackOnly) if host.is_loopback() => Ok(()),
        (Scheme::Http, PlainHttp::LoopbackOnly) => Err(UrlRefusal::at(
            "scheme",
            "http",
            "is allowed to localhost and loopback addresses only; use \"https\"",
        )),
        (Scheme::Http, PlainHttp::Never) => Err(UrlRefusal::at(
            "scheme",
            "http",
            "is not allowed; use \"https\"",
        )),
    }
}

fn parse_target(target: &str) -> Result<PathAndQuery, UrlRefusal> {
    let bad = |piece: &str, rule: &str| Err(UrlRefusal::at("path or query", piece, rule));
    if let Some(c) = target.chars().find(|c| "[]".contains(*c)) {
        return bad(
            c.encode_utf8(&mut [0; 4]),
            "is not allowed there; percent-encode it",
        );
    }
    for (at, _) in target.match_indices('%') {
        let digits = target.get(at + 1..at + 3).unwrap_or_default();
        if digits.len() != 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return bad("%", "must be followed by two hexadecimal digits");
        }
    }
    let rooted = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    PathAndQuery::try_from(rooted).or_else(|_| bad("", "it is malformed"))
}

const LOCALHOST: &str = "localhost";
const MAX_LENGTH: usize = 2048;
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;
const MAX_PIECE: usize = 60;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<EndpointUrl, UrlRefusal> {
        EndpointUrl::parse(text, PlainHttp::Never)
    }

    fn refusal(text: &str) -> String {
        match parse(text) {
            Ok(url) => panic!("{text} was taken as {url}"),
            Err(refusal) => refusal.to_string(),
        }
    }

    fn refused_because(texts: &[&str], reason: &str) {
        for text in texts {
            let refusal = refusal(text);
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_url_comes_apart_into_its_parts() {
        let url = parse("https://Hooks.Example.COM:8443/a/b%2Fc?x=1&y=%20").unwrap();
        assert_eq!(url.scheme(), Scheme::Https);
        assert_eq!(url.host(), &Host::Name("hooks.example.com".into()));
        assert_eq!(url.port(), 8443);
        assert_eq!(url.host_header(), "hooks.example.com:8443");
        assert_eq!(url.path_and_query(), "/a/b%2Fc?x=1&y=%20");
        assert_eq!(
            url.to_string(),
            "https://hooks.example.com:8443/a/b%2Fc?x=1&y=%20"
        );
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        for (text, canonical, target) in [
            ("https://a.example", "https://a.example/", "/"),
            ("HTTPS://a.example:443", "https://a.example/", "/"),
            ("https://a.example?x=1", "https://a.example/?x=1", "/?x=1"),
            ("https://a.example/?", "https://a.example/?", "/?"),
            ("https://a.example?", "https://a.example/?", "/?"),
        ] {
            let url = parse(text).unwrap();
            assert_eq!(
                (url.to_string().as_str(), url.path_and_query()),
                (canonical, target)
            );
            assert_eq!(
                (url.port(), url.host_header().as_bytes()),
                (443, &b"a.example"[..])
            );
        }
    }

    #[test]
    fn canonical_addresses_are_taken() {
        let ip = |text: &str| Host::Ip(text.parse().unwrap());
        assert_eq!(
            parse("https://192.0.2.1/x").unwrap().host(),
            &ip("192.0.2.1")
        );
        assert_eq!(
            parse("https://[2001:DB8::1]/x").unwrap().host(),
            &ip("2001:db8::1")
        );
        assert_eq!(
            parse("https://[::1]:8443").unwrap().to_string(),
            "https://[::1]:8443/"
        );
        assert_eq!(
            parse("https://[::1]:8443").unwrap().host_header(),
            "[::1]:8443"
        );
    }

    #[test]
    fn addresses_in_any_other_form_are_refused() {
        let numbers = [
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7f.1/",
            "https://127.1/",
            "https://0177.0.0.1/",
            "https://127.0.0.01/",
            "https://127.0.0.1.1/",
            "https://256.0.0.1/",
            "https://127.0.0.0x1/",
            "https://1.2.3/",
            "https://a.example.1/",
            "https://a.0x7f/",
            "https://127.0.0.1e/",
            "https://4294967297/",
            "https://00000127.0.0.1/",
        ];
        refused_because(&numbers, "four decimal numbers");
        let v6 = [
            "https://[::1",
            "https://[]/",
            "https://[127.0.0.1]/",
            "https://[fe80::1%25eth0]/",
            "https://[fe80::1%eth0]/",
            "https://[v1.x]/",
            "https://[::1]x/",
            "https://[[::1]]/",
        ];
        refused_because(&v6, "no IPv6 address");
        let long_forms = [
            "https://[0:0:0:0:0:0:0:1]/",
            "https://[2001:0db8::1]/",
            "https://[::7f00:0001]/",
        ];
        refused_because(&long_forms, "canonical");
    }

    #[test]
    fn hosts_that_are_no_full_name_are_refused() {
        refused_because(
            &[
                "https://a.example./",
                "https://a..example/",
                "https://.example/",
            ],
            "empty label",
        );
        refused_because(&["https://intranet/", "https://localhost1/"], "has no dot");
        refused_because(
            &["https:///x", "https://", "https://:443/"],
            "host: it is missing",
        );
        let labels = [
            "https://a_b.example/",
            "https://-a.example/",
            "https://a-.example/",
            "https://a%2eexample.com/",
            "https://a,b.example/",
            "https://a;b.example/",
            "https://*.example/",
            "https://a.example&b/",
        ];
        refused_because(&labels, "is not a label");
        refused_because(
            &[&format!("https://{}.example/", "a".repeat(64))],
            "is not a label",
        );
        refused_because(
            &[&format!("https://{}example/", "a.".repeat(130))],
            "longer than 253",
        );
    }

    #[test]
    fn characters_that_parsers_disagree_on_are_refused() {
        let texts = [
            "https://example.com\\@127.0.0.1/",
            "https://a.example/\\x",
            " https://a.example/",
            "https://a.example/ ",
            "https://a.example/a b",
            "https://a.exa\tmple/",
            "https://a.example/\r\nx: y",
            "https://a.example/\0",
            "https://a.example/\u{7f}",
            "https://\u{ff11}27.0.0.1/",
            "https://a\u{3002}example/",
            "https://\u{2460}.example/",
            "https://b\u{fc}cher.example/",
            "https://a.example/\u{202e}",
            "https://a.example/<x>",
            "https://a.example/{x}",
        ];
        refused_because(&texts, "is not allowed in a URL");
    }

    #[test]
    fn the_other_parts_are_refused_by_name() {
        refused_because(
            &[
                "https://u:pw@a.example/",
                "https://@a.example/",
                "https://a@b@c.example/",
            ],
            "user information",
        );
        refused_because(&["https://a.example/#x", "https://a.example#"], "fragment");
        let ports = [
            "https://a.example:/",
            "https://a.example:0/",
            "https://a.example:65536/",
            "https://a.example:0443/",
            "https://a.example:+443/",
            "https://a.example:443:443/",
            "https://a.example:4 43/",
            "https://[::1]:x/",
        ];
        refused_because(&ports[..6], "port");
        refused_because(&ports[7..], "port");
        refused_because(
            &[
                "ftp://a.example/",
                "file:///etc/passwd",
                "gopher://a.example/",
            ],
            "is not \"https\"",
        );
        refused_because(
            &[
                "a.example",
                "//a.example/",
                "https:a.example",
                "javascript:alert(1)",
            ],
            "must start with",
        );
        refused_because(
            &[
                "https://a.example/%",
                "https://a.example/%4",
                "https://a.example/?%zz",
            ],
            "hexadecimal",
        );
        refused_because(&["https://a.example/?a[]=1"], "percent-encode");
    }

    #[test]
    fn a_url_longer_than_the_bound_is_refused() {
        let base = "https://a.example/";
        let fits = format!("{base}{}", "x".repeat(2048 - base.len()));
        assert!(parse(&fits).is_ok());
        refused_because(&[&format!("{fits}x"), ""], "allowed are 1 to 2048");
    }

    #[test]
    fn plain_http_goes_to_loopback_alone_and_only_where_it_is_allowed() {
        let loopback = [
            "http://localhost:80/",
            "http://127.0.0.1:8080/",
            "http://[::1]/",
            "http://127.9.9.9/",
        ];
        for text in loopback {
            assert!(
                EndpointUrl::parse(text, PlainHttp::LoopbackOnly).is_ok(),
                "{text}"
            );
        }
        refused_because(&loopback, "use \"https\"");
        for text in [
            "http://a.example/",
            "http://10.0.0.1/",
            "http://localhost.example/",
            "http://[::2]/",
        ] {
            let refusal = EndpointUrl::parse(text, PlainHttp::LoopbackOnly).unwrap_err();
            assert!(refusal.to_string().contains("loopback"), "{refusal}");
        }
    }

    #[test]
    fn neither_a_refusal_nor_debug_shows_what_may_be_secret() {
        assert!(!refusal("https://user:hunter2@a.example/").contains("hunter2"));
        assert!(!refusal("https://a.example/t0ken?%zz").contains("t0ken"));
        let url = parse("https://a.example/t0ken?key=t0ken").unwrap();
        assert_eq!(format!("{url:?}"), "EndpointUrl(https://a.example:443/..)");
    }

    #[test]
    fn a_refusal_is_one_short_line() {
        let refusal = refusal(&format!("https://{}/", "a\u{7f}".repeat(900)));
        assert!(
            refusal.len() < 300 && !refusal.contains(char::is_control),
            "{refusal}"
        );
    }

    proptest! {
        #[test]
        fn another_parser_reads_what_is_taken_in_the_same_way(text in "https://[a-zA-Z0-9.:@%/?#\\[\\]\\\\_-]{1,40}") {
            if let Ok(url) = parse(&text) {
                let other: Uri = text.parse().unwrap();
                prop_assert_eq!(other.host().unwrap().to_ascii_lowercase(), url.host().to_string());
                prop_assert_eq!(other.port_u16().unwrap_or(443), url.port());
                // It gives a query without a path its "/", but not an empty one.
                let target = match other.path_and_query().unwrap().as_str() {
                    "?" => "/?",
                    target => target,
                };
                prop_assert_eq!(target, url.path_and_query());
            }
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,80}") {
            let _ = parse(&text);
            let _ = parse(&format!("https://{text}"));
        }

        #[test]
        fn the_canonical_form_stands_for_itself(
            host in "[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z]([a-z0-9-]{0,8}[a-z0-9])?){1,3}",
            port in 1_u16..,
            target in "(/[a-zA-Z0-9._~!$&'()*+,;=:@-]{0,8}){0,3}(\\?[a-zA-Z0-9=&/?]{0,8})?",
        ) {
            let once = parse(&format!("https://{host}:{port}{target}")).unwrap();
            prop_assert_eq!(&parse(&once.to_string()).unwrap(), &once);
        }
    }
}
