//! `posthaste egress`: what partners are to let in.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use posthaste::Result;
use posthaste::config::Config;
use posthaste::egress::EgressPolicy;
use posthaste::proxy::ProxyUrl;
use posthaste::sender::{ALPN, SenderConfig, TLS_VERSIONS};
use serde_json::json;

use super::output::say;
use super::settings::{self, SOURCES};
use super::table::{self, pairs};

pub(crate) fn command() -> Command {
    let command = Command::new("egress")
        .about("Say which addresses and protocols partners are to let in")
        .long_about(
            "Prints what a partner's firewall is to let in: the addresses that requests come from, and how \
             they speak. The addresses are those of announced_addresses; where none are, the proxy's; \
             without a proxy, those of source_addresses. With none of these they are whatever the machine \
             chooses, and it says how to fix them. Run it with the workers' settings; it connects to nothing.",
        )
        .arg(table::json())
        .after_help(format!("{EXAMPLES}\n\n{SOURCES}"));
    settings::arguments(command, |setting| SETTINGS.contains(&setting.key))
}

pub(crate) fn run(args: &ArgMatches) -> Result<ExitCode> {
    let config = settings::load(args)?.config;
    let egress = Egress::of(&config)?;
    if args.get_flag("json") {
        say(&egress.as_json())?;
    } else {
        say(&egress.as_text())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What partners see of us.
struct Egress {
    /// The addresses; none where we do not know them.
    addresses: Vec<String>,
    origin: Origin,
    sources: Vec<IpAddr>,
    proxy: Option<ProxyUrl>,
}

/// How we know the addresses, or why not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Announced,
    Proxy,
    Source,
    Unknown,
}

impl Egress {
    fn of(config: &Config) -> Result<Self> {
        let listed = |key: &str| {
            let text = config.text(key)?;
            let parts = text.split(',').filter(|part| !part.is_empty());
            Ok::<_, posthaste::Error>(parts.map(str::to_owned).collect::<Vec<_>>())
        };
        let announced = listed("announced_addresses")?;
        let sources = listed("source_addresses")?;
        let proxy = config.proxy_url()?;
        let (origin, addresses) = if !announced.is_empty() {
            (Origin::Announced, announced)
        } else if proxy.is_some() {
            (Origin::Proxy, Vec::new())
        } else if !sources.is_empty() {
            (Origin::Source, sources)
        } else {
            (Origin::Unknown, Vec::new())
        };
        Ok(Self {
            addresses,
            origin,
            sources: config.source_addresses.clone(),
            proxy,
        })
    }

    fn as_text(&self) -> String {
        let addresses = match (self.origin, &self.proxy) {
            (Origin::Proxy, Some(proxy)) => format!("whatever the proxy at {proxy} sends from"),
            (Origin::Unknown, _) => "not fixed".to_owned(),
            _ => self.addresses.join(", "),
        };
        let way = match &self.proxy {
            Some(proxy) => format!("through the proxy at {proxy}"),
            None => "straight to the partner".to_owned(),
        };
        let lines = [
            ("addresses", addresses),
            ("set by", self.origin.word().to_owned()),
            ("way", way),
            (
                "port",
                "443, unless the endpoint's URL names another".to_owned(),
            ),
            ("TLS", TLS_VERSIONS.join(" and ")),
            ("HTTP (ALPN)", ALPN.join(", ")),
            (
                "method",
                "POST, and OPTIONS where a handshake was agreed; redirects are not followed"
                    .to_owned(),
            ),
            (
                "user agent",
                format!(
                    "{}, unless another was agreed",
                    SenderConfig::default().user_agent
                ),
            ),
        ];
        let lines = lines.map(|(title, value)| (title.to_owned(), value));
        let mut text = pairs(&lines);
        for remark in self.remarks() {
            text.push_str("\n! ");
            text.push_str(&remark);
        }
        text
    }

    fn as_json(&self) -> String {
        let sources: Vec<_> = self.sources.iter().map(ToString::to_string).collect();
        json!({
            "addresses": self.addresses,
            "fixed": !self.addresses.is_empty(),
            "set_by": self.origin.word(),
            "source_addresses": sources,
            "proxy": self.proxy.as_ref().map(ToString::to_string),
            "port": 443,
            "tls_versions": TLS_VERSIONS,
            "alpn": ALPN,
            "user_agent": SenderConfig::default().user_agent,
            "remarks": self.remarks(),
        })
        .to_string()
    }

    /// What whoever copies this into a contract should know.
    fn remarks(&self) -> Vec<String> {
        match self.origin {
            Origin::Announced => Vec::new(),
            Origin::Proxy => vec![
                "partners see the proxy's addresses: ask whoever runs it, and set announced_addresses"
                    .to_owned(),
            ],
            Origin::Source => self.sources.iter().filter_map(inside).collect(),
            Origin::Unknown => vec![
                "requests leave from whatever address the machine chooses: set source_addresses to fix it, \
                 or announced_addresses where NAT or a gateway does"
                    .to_owned(),
            ],
        }
    }
}

impl Origin {
    fn word(self) -> &'static str {
        match self {
            Self::Announced => "announced_addresses",
            Self::Proxy => "proxy",
            Self::Source => "source_addresses",
            Self::Unknown => "nothing",
        }
    }
}

/// A partner on the outside never sees an address of the inside.
fn inside(source: &IpAddr) -> Option<String> {
    let refusal = EgressPolicy::default().check(*source).err()?;
    Some(format!(
        "{refusal}, so partners see another address: set announced_addresses to it"
    ))
}

const SETTINGS: [&str; 3] = ["proxy_file", "source_addresses", "announced_addresses"];
const EXAMPLES: &str = "\
Examples:
  posthaste egress --config /etc/posthaste.toml
  posthaste egress --announced-addresses 203.0.113.0/28
  posthaste egress --config /etc/posthaste.toml --json | jq -r '.addresses[]'";
