//! The kinds of value that a setting can have: how each is written, read and bounded.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use zeroize::Zeroizing;

use super::Config;
use crate::proxy::ProxyUrl;

/// A text that is never printed: a database URL with its password, a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Zeroizing<String>);

impl Hidden {
    /// Takes a text out of sight.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that uses it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Makes an enum of words, each variant with the word that stands for it in settings.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $word:literal, )+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$variant_doc])* $variant, )+ }

        impl $name {
            pub(super) const WORDS: &[(Self, &str)] = &[$( (Self::$variant, $word), )+];
        }
    };
}

words! {
    /// How a worker learns of new events.
    Wake {
        /// By a notification, and by looking now and then.
        Listen = "listen",
        /// Only by looking now and then.
        Poll = "poll",
    }
}

words! {
    /// How log lines are written.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// Which attempts have a log line.
    LogAttempts {
        /// None. What was given up is logged all the same.
        Off = "off",
        /// Those that were not accepted; with the level `debug`, all.
        Failed = "failed",
        /// Each one, whatever the level.
        All = "all",
    }
}

words! {
    /// The least important level that is logged.
    LogLevel {
        /// Something that a person must look at.
        Error = "error",
        /// Something that a person should look at.
        Warn = "warn",
        /// What an operator wants to know afterwards.
        Info = "info",
        /// Each delivery.
        Debug = "debug",
        /// Each step.
        Trace = "trace",
    }
}

/// What a kind says about itself.
#[derive(Default)]
pub(super) struct About {
    /// What a number counts, or how the value is written.
    pub(super) unit: &'static str,
    /// Goes before `bounds` in an error: `a whole number from `.
    pub(super) noun: &'static str,
    pub(super) bounds: String,
    /// What stands for the default where it is made at start.
    pub(super) fallback: &'static str,
    pub(super) secret: bool,
    pub(super) switch: bool,
}

/// How values of one type are written, read and bounded.
pub(super) trait Kind {
    type Value;

    fn about(&self) -> About;

    /// The value, if the text is well formed and within bounds.
    fn read(&self, text: &str) -> Option<Self::Value>;

    /// A text that reads as this value; empty where there is none.
    fn show(&self, value: &Self::Value) -> String;

    /// Whether the value is within bounds.
    fn holds(&self, value: &Self::Value) -> bool {
        let text = self.show(value);
        text.is_empty() || self.read(&text).is_some()
    }
}

/// A kind bound to one field of [`Config`].
pub(super) struct Row<K: Kind> {
    pub(super) kind: K,
    pub(super) of: fn(&Config) -> &K::Value,
    pub(super) of_mut: fn(&mut Config) -> &mut K::Value,
}

/// A [`Row`] of whatever kind.
pub(super) trait Field: Sync {
    fn about(&self) -> About;
    fn put(&self, config: &mut Config, text: &str) -> Option<()>;
    fn text(&self, config: &Config) -> String;
    fn holds(&self, config: &Config) -> bool;
}

impl<K: Kind + Sync> Field for Row<K> {
    fn about(&self) -> About {
        self.kind.about()
    }

    fn put(&self, config: &mut Config, text: &str) -> Option<()> {
        *(self.of_mut)(config) = self.kind.read(text)?;
        Some(())
    }

    fn text(&self, config: &Config) -> String {
        self.kind.show((self.of)(config))
    }

    fn holds(&self, config: &Config) -> bool {
        self.kind.holds((self.of)(config))
    }
}

/// A whole number: what it counts, the least and the most.
pub(super) struct Count(pub(super) &'static str, pub(super) usize, pub(super) usize);

impl Kind for Count {
    type Value = usize;

    fn about(&self) -> About {
        let bounds = format!("{} to {}", self.1, self.2);
        About {
            unit: self.0,
            noun: "a whole number from ",
            bounds,
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<usize> {
        text.parse()
            .ok()
            .filter(|count| (self.1..=self.2).contains(count))
    }

    fn show(&self, value: &usize) -> String {
        value.to_string()
    }
}

/// A number of bytes: the least and the most, written as people write them.
pub(super) struct Size(pub(super) &'static str, pub(super) &'static str);

impl Kind for Size {
    type Value = usize;

    fn about(&self) -> About {
        let bounds = format!("{} to {}", self.0, self.1);
        About {
            unit: "bytes",
            noun: "a size such as 64KiB, from ",
            bounds,
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<usize> {
        let size = bytes(text)?;
        let within = (bytes(self.0)?..=bytes(self.1)?).contains(&size);
        usize::try_from(size).ok().filter(|_| within)
    }

    fn show(&self, value: &usize) -> String {
        let size = *value as u64;
        let whole = UNITS
            .iter()
            .find(|(_, unit)| size > 0 && size.is_multiple_of(*unit));
        whole.map_or(size.to_string(), |(name, unit)| {
            format!("{}{name}", size / unit)
        })
    }
}

/// A time span: the least and the most, written as people write them.
pub(super) struct Time(pub(super) &'static str, pub(super) &'static str);

impl Kind for Time {
    type Value = Duration;

    fn about(&self) -> About {
        let bounds = format!("{} to {}", self.0, self.1);
        About {
            unit: "duration",
            noun: "a duration such as 1m 30s, from ",
            bounds,
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Duration> {
        let bounds = span(self.0)?..=span(self.1)?;
        span(text).filter(|time| bounds.contains(time))
    }

    fn show(&self, value: &Duration) -> String {
        match SignedDuration::try_from(*value) {
            Ok(time) => format!("{time:#}"),
            Err(_) => format!("{value:?}"),
        }
    }
}

/// Either true or false.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn about(&self) -> About {
        About {
            unit: "switch",
            bounds: "true or false".to_owned(),
            switch: true,
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<bool> {
        text.parse().ok()
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// One of a few words.
pub(super) struct Choice<W: 'static>(pub(super) &'static [(W, &'static str)]);

impl<W: Copy + PartialEq> Kind for Choice<W> {
    type Value = W;

    fn about(&self) -> About {
        let words: Vec<&str> = self.0.iter().map(|(_, word)| *word).collect();
        let bounds = match words.split_last() {
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        };
        About {
            unit: "word",
            bounds,
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<W> {
        self.0
            .iter()
            .find(|(_, word)| *word == text)
            .map(|(value, _)| *value)
    }

    fn show(&self, value: &W) -> String {
        let word = self.0.iter().find(|(other, _)| other == value);
        word.map_or(String::new(), |(_, word)| (*word).to_owned())
    }
}

/// A path. Whether the file is there is seen when it is opened.
pub(super) struct File;

impl Kind for File {
    type Value = Option<PathBuf>;

    fn about(&self) -> About {
        About {
            unit: "file",
            noun: "a path",
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        (!text.is_empty()).then(|| Some(PathBuf::from(text)))
    }

    fn show(&self, value: &Self::Value) -> String {
        value
            .as_ref()
            .map_or(String::new(), |path| path.display().to_string())
    }
}

/// Networks in CIDR form, separated by commas.
pub(super) struct Networks;

impl Kind for Networks {
    type Value = Vec<IpNet>;

    fn about(&self) -> About {
        let bounds = "networks such as 10.20.0.0/16, separated by commas, never 0.0.0.0/0 or ::/0";
        About {
            unit: "networks",
            bounds: bounds.to_owned(),
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        parts(text)
            .map(|part| part.parse().ok().filter(is_allowable))
            .collect()
    }

    fn show(&self, value: &Self::Value) -> String {
        value
            .iter()
            .map(IpNet::to_string)
            .collect::<Vec<_>>()
            .join(",")
    }
}

/// Everything at once would be no filter, and `10.0.0.5/8` may mean one host or a whole network.
fn is_allowable(network: &IpNet) -> bool {
    network.prefix_len() > 0 && network.trunc() == *network
}

/// Addresses of this machine, separated by commas. Whether they are its own is seen when a worker starts.
pub(super) struct Sources;

impl Kind for Sources {
    type Value = Vec<IpAddr>;

    fn about(&self) -> About {
        let bounds = "one IPv4 address, one IPv6 address, or both separated by a comma";
        About {
            unit: "addresses",
            bounds: bounds.to_owned(),
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        let addresses: Vec<IpAddr> = parts(text)
            .map(|part| part.parse().ok().filter(is_of_one_host))
            .collect::<Option<_>>()?;
        let of_v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
        (of_v4 <= 1 && addresses.len() - of_v4 <= 1).then_some(addresses)
    }

    fn show(&self, value: &Self::Value) -> String {
        let texts: Vec<String> = value.iter().map(ToString::to_string).collect();
        texts.join(",")
    }
}

fn is_of_one_host(address: &IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    let is_mapped = address.to_canonical() != *address;
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast && !is_mapped
}

/// Addresses and networks, separated by commas, for people to read.
pub(super) struct Announced;

impl Kind for Announced {
    type Value = Vec<IpNet>;

    fn about(&self) -> About {
        let bounds =
            "addresses or networks such as 203.0.113.7 or 203.0.113.0/28, separated by commas";
        About {
            unit: "networks",
            bounds: bounds.to_owned(),
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        let network = |part: &str| match part.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address)),
            Err(_) => part.parse().ok().filter(is_allowable),
        };
        parts(text).map(network).collect()
    }

    fn show(&self, value: &Self::Value) -> String {
        let texts: Vec<String> = value.iter().map(network_text).collect();
        texts.join(",")
    }
}

/// A network of one address is written as that address.
fn network_text(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// Names of subscriptions, separated by commas; one that has a comma cannot be among them.
pub(super) struct Subscriptions;

impl Kind for Subscriptions {
    type Value = Vec<String>;

    fn about(&self) -> About {
        About {
            unit: "names",
            bounds: "at most 200 names of subscriptions, separated by commas".to_owned(),
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        let names: Vec<String> = parts(text).map(str::to_owned).collect();
        let are_names = names.iter().all(|name| is_subscription_name(name));
        (are_names && names.len() <= NAMES).then_some(names)
    }

    fn show(&self, value: &Self::Value) -> String {
        value.join(",")
    }
}

/// As the schema has it, but for spaces at its ends, which nobody can write here.
fn is_subscription_name(name: &str) -> bool {
    name.chars().count() <= 100 && !name.contains(char::is_control)
}

/// As many as there can be on the page.
const NAMES: usize = 200;

/// A socket address, or `off`.
pub(super) struct Address;

impl Kind for Address {
    type Value = Option<SocketAddr>;

    fn about(&self) -> About {
        let bounds = "an address with a port such as 127.0.0.1:9464, or off";
        About {
            unit: "address",
            bounds: bounds.to_owned(),
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        if text == OFF {
            Some(None)
        } else {
            text.parse().ok().map(Some)
        }
    }

    fn show(&self, value: &Self::Value) -> String {
        value.map_or(OFF.to_owned(), |address| address.to_string())
    }
}

/// A short name in visible ASCII; the word that stands for the name given where there is none.
pub(super) struct Name(pub(super) &'static str);

impl Kind for Name {
    type Value = Option<String>;

    fn about(&self) -> About {
        let bounds = format!("1 to {NAME_LENGTH} visible ASCII characters");
        About {
            unit: "text",
            bounds,
            fallback: self.0,
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        let fits = (1..=NAME_LENGTH).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Some(text.to_owned()))
    }

    fn show(&self, value: &Self::Value) -> String {
        value.clone().unwrap_or_default()
    }

    fn holds(&self, value: &Self::Value) -> bool {
        value.as_ref().is_none_or(|name| self.read(name).is_some())
    }
}

/// Where Postgres is; secret, since it holds a password more often than not.
pub(super) struct DatabaseUrl;

impl Kind for DatabaseUrl {
    type Value = Option<Hidden>;

    fn about(&self) -> About {
        let bounds = "a Postgres URL, or key=value words".to_owned();
        About {
            unit: "text",
            bounds,
            secret: true,
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        let parsed = text.parse::<tokio_postgres::Config>();
        (!text.is_empty() && parsed.is_ok()).then(|| Some(Hidden::new(text)))
    }

    fn show(&self, value: &Self::Value) -> String {
        shown(value.as_ref())
    }

    fn holds(&self, value: &Self::Value) -> bool {
        value
            .as_ref()
            .is_none_or(|url| self.read(url.reveal()).is_some())
    }
}

/// Where the proxy is; secret, since it may hold a password.
pub(super) struct Proxy;

impl Kind for Proxy {
    type Value = Option<Hidden>;

    fn about(&self) -> About {
        let bounds = "http://, https:// or socks5://, then host:port, or user:password@host:port";
        About {
            unit: "text",
            bounds: bounds.to_owned(),
            secret: true,
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        ProxyUrl::parse(text).ok().map(|_| Some(Hidden::new(text)))
    }

    fn show(&self, value: &Self::Value) -> String {
        shown(value.as_ref())
    }

    fn holds(&self, value: &Self::Value) -> bool {
        value
            .as_ref()
            .is_none_or(|url| self.read(url.reveal()).is_some())
    }
}

/// `id:base64` pairs, separated by commas. What they decode to is judged where they are used.
pub(super) struct Keys;

impl Kind for Keys {
    type Value = Option<Hidden>;

    fn about(&self) -> About {
        let bounds = "id:base64 pairs, separated by commas".to_owned();
        About {
            unit: "text",
            bounds,
            secret: true,
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        let is_pair = |part: &str| {
            part.trim()
                .split_once(':')
                .is_some_and(|(id, key)| !id.is_empty() && !key.is_empty())
        };
        text.split(',')
            .all(is_pair)
            .then(|| Some(Hidden::new(text)))
    }

    fn show(&self, value: &Self::Value) -> String {
        shown(value.as_ref())
    }

    fn holds(&self, value: &Self::Value) -> bool {
        value
            .as_ref()
            .is_none_or(|keys| self.read(keys.reveal()).is_some())
    }
}

/// All that is ever said of a secret.
pub(super) fn shown(secret: Option<&Hidden>) -> String {
    secret.map_or(String::new(), |_| "(set)".to_owned())
}

/// `64KiB`, `1 MiB`, or a bare number of bytes.
fn bytes(text: &str) -> Option<u64> {
    for (name, unit) in UNITS {
        if let Some(number) = text.strip_suffix(name) {
            return number.trim_end().parse::<u64>().ok()?.checked_mul(*unit);
        }
    }
    text.parse().ok()
}

/// `500ms`, `1h 30m`: a number always comes with its unit.
fn span(text: &str) -> Option<Duration> {
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

const UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const NAME_LENGTH: usize = 64;
const OFF: &str = "off";
