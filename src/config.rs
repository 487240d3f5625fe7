//! The settings: one table, from which flags, environment variables, file keys, `--help` and the
//! README's table are made.
//!
//! A setting is written as text, whoever writes it: [`Config::set`] reads the text and refuses what
//! is out of bounds. A service that runs the worker inside itself may write the fields instead, and
//! calls [`Config::validate`], which checks both the bounds and the rules between settings.

mod digest;
mod kind;
mod rules;
mod table;
mod traces;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use self::kind::{
    About, Address, Announced, Choice, Count, DatabaseUrl, Field, File, Keys, Name, Networks,
    Proxy, Row, Size, Sources, Subscriptions, Switch, Time,
};
pub use self::kind::{Hidden, LogAttempts, LogFormat, LogLevel, Wake};
pub use self::table::markdown_table;
use self::table::settings;
use self::traces::{Collector, Headers, Share};
use crate::proxy::ProxyUrl;
use crate::secret::Keyring;
use crate::{Error, Result};

settings! {
    "Database"
    /// Where Postgres is, as a URL (`postgres://user@host/name`) or as `key=value` words.
    database_url: Option<Hidden> = None, DatabaseUrl;
    /// Connections that the worker keeps open; one more listens for wake-ups.
    database_connections: usize = 4, Count("connections", 2, 64);
    /// How many days ahead the daily partitions are made.
    partitions_ahead: usize = 7, Count("days", 1, 60);

    "Keys"
    /// The keys that open the stored signing secrets; the first one seals new ones.
    keys: Option<Hidden> = None, Keys;
    /// A file with the keys, one `id:base64` a line, in place of `keys`.
    key_file: Option<PathBuf> = None, File;

    "Work"
    /// The name of this worker in attempt rows; the host's name and the process id where none is given.
    worker_name: Option<String> = None, Name("host:pid");
    /// Deliveries leased to this worker at once.
    max_in_flight: usize = 4096, Count("deliveries", 1, 65_536);
    /// Bodies held in memory by this worker at once, all together.
    max_in_flight_bytes: usize = 64 * MIB, Size("1MiB", "4GiB");
    /// Rows taken by one claim and written by one record.
    batch: usize = 512, Count("rows", 1, 10_000);
    /// Requests to one endpoint at once.
    endpoint_concurrency: usize = 16, Count("requests", 1, 1024);
    /// How the worker learns of new events. With `poll` inserts never notify, so they can be prepared for two-phase commit.
    wake: Wake = Wake::Listen, Choice(Wake::WORDS);
    /// The longest that the worker waits before it looks by itself.
    poll_interval: Duration = Duration::from_millis(500), Time("10ms", "1m");
    /// How long a claimed delivery is this worker's; at least `request_timeout` and 10 s more.
    lease: Duration = Duration::from_mins(1), Time("5s", "1h");
    /// How long a stopping worker waits for requests in flight before it gives the rest back.
    drain: Duration = Duration::from_secs(25), Time("0s", "10m");

    "Requests"
    /// One whole request, from name resolution to the last byte read.
    request_timeout: Duration = Duration::from_secs(20), Time("100ms", "2m");
    /// The TCP and the TLS handshake together.
    connect_timeout: Duration = Duration::from_secs(5), Time("50ms", "1m");
    /// How long an unused connection to an endpoint is kept.
    idle_timeout: Duration = Duration::from_secs(15), Time("1s", "10m");
    /// Networks that deliveries may go to although they are private or reserved.
    allow_networks: Vec<IpNet> = Vec::new(), Networks;
    /// Allow plain http to a loopback address. For development and benchmarks only.
    allow_http_loopback: bool = false, Switch;
    /// A PEM file of certificate authorities to trust besides the machine's own.
    ca_file: Option<PathBuf> = None, File;

    "Way out"
    /// The proxy that requests go through. It is asked for addresses that were vetted, never for names.
    proxy: Option<Hidden> = None, Proxy;
    /// A file with the proxy's URL, in place of `proxy`.
    proxy_file: Option<PathBuf> = None, File;
    /// The addresses of this machine that requests leave from. With one alone, nothing leaves by the other family.
    source_addresses: Vec<IpAddr> = Vec::new(), Sources;
    /// What partners are to allow where that is not `source_addresses`: behind NAT or a proxy. Changes nothing but what `posthaste egress` says.
    announced_addresses: Vec<IpNet> = Vec::new(), Announced;

    "Limits"
    /// The largest payload that is sent, with its metadata where that is sent, before a mask; an event above it is rejected for good.
    max_body: usize = MIB, Size("1KiB", "64MiB");
    /// The largest response head that is read.
    max_response_head: usize = 64 * KIB, Size("8KiB", "1MiB");
    /// How much of a response body is read before the connection is closed.
    max_response_body: usize = 16 * KIB, Size("0", "1MiB");
    /// How much of a response body is kept in the attempt row; at most `max_response_body`.
    max_snippet: usize = KIB, Size("0", "16KiB");

    "Telemetry"
    /// Where `/metrics`, `/healthz`, `/readyz` and public keys (`/jwks.json`) are served. They need no password, so keep the address private.
    listen: Option<SocketAddr> = Some(LISTEN), Address;
    /// How often one worker at a time reads the figures of the database that `/metrics` shows.
    observe_interval: Duration = Duration::from_secs(15), Time("1s", "5m");
    /// How many subscriptions `/metrics` names: those in `metrics_subscriptions`, then those that fail and those with most attempts.
    metrics_top: usize = 20, Count("subscriptions", 0, 200);
    /// Subscriptions that `/metrics` always names.
    metrics_subscriptions: Vec<String> = Vec::new(), Subscriptions;
    /// How log lines are written.
    log_format: LogFormat = LogFormat::Text, Choice(LogFormat::WORDS);
    /// The least important level that is logged.
    log_level: LogLevel = LogLevel::Info, Choice(LogLevel::WORDS);
    /// Which attempts have a log line: those that were not accepted, as far as `log_level` lets them; or all, whatever it is. What was given up is logged in any case.
    log_attempts: LogAttempts = LogAttempts::Failed, Choice(LogAttempts::WORDS);
    /// Lines about attempts in one second; the rest are counted, and one line says how many.
    log_attempts_per_second: usize = 100, Count("lines", 1, 100_000);
    /// An OpenTelemetry collector that takes a span of each attempt, as OTLP over HTTP; `/v1/traces` is added. Needs a build with the feature `otlp`.
    otlp_endpoint: Option<String> = None, Collector;
    /// Headers of requests to the collector, as in `OTEL_EXPORTER_OTLP_HEADERS`.
    otlp_headers: Option<Hidden> = None, Headers;
    /// The name of the service in spans.
    service_name: Option<String> = None, Name("posthaste");
    /// The share of events without a trace context of their producer whose attempts have spans. With one, the producer's flag decides.
    trace_ratio: f64 = 1.0, Share;
}

/// One setting: what it is called, what it means, what is allowed.
pub struct Setting {
    /// Its key in a configuration file, such as `max_in_flight`.
    pub key: &'static str,
    /// The heading that it stands under in `--help` and in the README.
    pub section: &'static str,
    /// What it decides, in a sentence or two.
    pub meaning: &'static str,
    field: &'static dyn Field,
}

impl Setting {
    /// What a number counts (`rows`), or how the value is written (`duration`).
    pub fn unit(&self) -> &'static str {
        self.about().unit
    }

    /// The least and the most, such as `1 to 65536`, or what else the value may be.
    pub fn bounds(&self) -> String {
        self.about().bounds
    }

    /// What is allowed as an error says it, such as `a whole number from 1 to 65536`.
    pub fn allowed(&self) -> String {
        let About { noun, bounds, .. } = self.about();
        format!("{noun}{bounds}")
    }

    /// The value where nobody sets one; empty where there is none.
    pub fn default(&self) -> String {
        match self.field.text(&Config::default()) {
            text if text.is_empty() => self.about().fallback.to_owned(),
            text => text,
        }
    }

    /// Whether its value must never be shown. A secret has no flag, since flags show in the process list.
    pub fn is_secret(&self) -> bool {
        self.about().secret
    }

    /// Whether it is either true or false, so that its flag needs no value.
    pub fn is_switch(&self) -> bool {
        self.about().switch
    }

    /// The flag for it without the dashes, such as `max-in-flight`.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// The environment variables for it, the one that wins first.
    pub fn variables(&self) -> Vec<String> {
        let own = format!("{PREFIX}{}", self.key.to_uppercase());
        let known = match self.key {
            "database_url" => Some("DATABASE_URL"),
            // Others set these for whole machines: a program that has no traces does not read them.
            "otlp_endpoint" if TRACES => Some("OTEL_EXPORTER_OTLP_ENDPOINT"),
            "otlp_headers" if TRACES => Some("OTEL_EXPORTER_OTLP_HEADERS"),
            "service_name" if TRACES => Some("OTEL_SERVICE_NAME"),
            _ => None,
        };
        let known = known.map(str::to_owned);
        std::iter::once(own).chain(known).collect()
    }

    fn about(&self) -> About {
        self.field.about()
    }
}

/// The setting with this key. The error for an unknown one names the nearest that exists.
pub fn setting(key: &str) -> Result<&'static Setting> {
    SETTINGS
        .iter()
        .find(|setting| setting.key == key)
        .ok_or_else(|| {
            let near =
                nearest(key).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            Error::Config(format!("there is no setting {}{near}", quoted(key)))
        })
}

impl Config {
    /// Reads `value` into the setting `key`. The error names the setting, the value (never a
    /// secret's) and what is allowed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let setting = setting(key)?;
        setting
            .field
            .put(self, value.trim())
            .ok_or_else(|| refusal(setting, value))
    }

    /// The value of the setting `key` as text: `(set)` for a secret, empty where there is none.
    pub fn text(&self, key: &str) -> Result<String> {
        Ok(setting(key)?.field.text(self))
    }

    /// Checks every bound, and the rules between settings.
    pub fn validate(&self) -> Result<()> {
        match SETTINGS.iter().find(|setting| !setting.field.holds(self)) {
            Some(bad) => Err(refusal(bad, &bad.field.text(self))),
            None => rules::check(self),
        }
    }

    /// The database to use, for those commands that cannot do without.
    pub fn required_database_url(&self) -> Result<&str> {
        let missing = || Error::Config("database_url is not set: set DATABASE_URL".to_owned());
        self.database_url
            .as_ref()
            .map(Hidden::reveal)
            .ok_or_else(missing)
    }

    /// The keys that open the stored signing secrets, from `keys` or `key_file`. Reads the file anew
    /// each time: keys can be changed while a worker runs.
    pub fn keyring(&self) -> Result<Keyring> {
        rules::keyring(self)
    }

    /// The proxy that requests go through, from `proxy` or `proxy_file`; none where neither is set.
    pub fn proxy_url(&self) -> Result<Option<ProxyUrl>> {
        rules::proxy(self)
    }

    /// 16 hexadecimal digits that differ where workers run with different settings: of every setting but what may well differ from
    /// one to the next, which are secrets, files, names, addresses, and what concerns the log.
    pub fn digest(&self) -> String {
        digest::of(self)
    }

    /// The worker's name as it appears in rows and logs: as set, else the host's name and the process id.
    pub fn name_of_worker(&self) -> String {
        self.worker_name
            .clone()
            .unwrap_or_else(rules::host_and_process)
    }
}

fn refusal(setting: &Setting, value: &str) -> Error {
    let given = if setting.is_secret() {
        String::new()
    } else {
        format!(" = {}", quoted(value))
    };
    Error::Config(format!(
        "{}{given}: must be {}",
        setting.key,
        setting.allowed()
    ))
}

/// A value as an error shows it: escaped, and short whatever was given.
fn quoted(value: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown: String = value.chars().take(SHOWN).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// The key that takes the fewest changes of one letter, if they are few.
fn nearest(key: &str) -> Option<&'static str> {
    let distances = SETTINGS
        .iter()
        .map(|setting| (distance(key, setting.key), setting.key));
    distances
        .min()
        .filter(|(changes, found)| *changes <= found.len() / 3)
        .map(|(_, found)| found)
}

/// How many letters must be put in, taken out or changed to turn one word into the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, against) in other.chars().enumerate() {
            let change = diagonal + usize::from(letter != against);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.chars().count()]
}

const PREFIX: &str = "POSTHASTE_";
const TRACES: bool = cfg!(feature = "otlp");
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn refused(key: &str, value: &str) -> String {
        Config::default().set(key, value).unwrap_err().to_string()
    }

    fn accepted(key: &str, value: &str) -> Config {
        let mut config = Config::default();
        config.set(key, value).unwrap();
        config
    }

    #[test]
    fn the_defaults_keep_every_bound_and_rule() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn each_default_reads_as_itself() {
        for setting in SETTINGS
            .iter()
            .filter(|setting| !Config::default().text(setting.key).unwrap().is_empty())
        {
            assert_eq!(
                accepted(setting.key, &setting.default()),
                Config::default(),
                "{}",
                setting.key
            );
        }
    }

    #[test]
    fn a_refusal_names_the_setting_the_value_and_what_is_allowed() {
        let expected =
            r#"configuration: max_in_flight = "0": must be a whole number from 1 to 65536"#;
        assert_eq!(refused("max_in_flight", "0"), expected);
        let expected =
            r#"configuration: lease = "60": must be a duration such as 1m 30s, from 5s to 1h"#;
        assert_eq!(refused("lease", "60"), expected);
        let expected = r#"configuration: wake = "sleep": must be listen or poll"#;
        assert_eq!(refused("wake", "sleep"), expected);
    }

    #[test]
    fn both_ends_of_a_range_are_allowed_and_their_neighbours_are_not() {
        assert_eq!(accepted("max_in_flight", "1").max_in_flight, 1);
        assert_eq!(accepted("max_in_flight", "65536").max_in_flight, 65_536);
        for outside in ["0", "65537", "-1", "1.5", "1e3", "", "99999999999999999999"] {
            refused("max_in_flight", outside);
        }
        assert_eq!(
            accepted("request_timeout", "100ms").request_timeout,
            Duration::from_millis(100)
        );
        assert_eq!(
            accepted("request_timeout", "2m").request_timeout,
            Duration::from_mins(2)
        );
        for outside in ["99ms", "2m 1ms", "-20s", "20", "forever"] {
            refused("request_timeout", outside);
        }
    }

    #[test]
    fn durations_and_sizes_read_as_people_write_them() {
        assert_eq!(
            accepted("lease", " 30m 30s ").lease,
            Duration::from_secs(1830)
        );
        assert_eq!(accepted("max_body", "64KiB").max_body, 65_536);
        assert_eq!(accepted("max_body", "2 MiB").max_body, 2 << 20);
        assert_eq!(accepted("max_body", "70000").max_body, 70_000);
        for outside in ["64KB", "KiB", "99999999999999GiB", "-1KiB", "1.5MiB"] {
            refused("max_body", outside);
        }
    }

    #[test]
    fn the_whole_internet_is_no_allowed_network() {
        let config = accepted("allow_networks", "10.20.0.0/16, fd00:1::/64");
        assert_eq!(
            config.text("allow_networks").unwrap(),
            "10.20.0.0/16,fd00:1::/64"
        );
        for refusable in [
            "0.0.0.0/0",
            "::/0",
            "10.20.0.0/16,::/0",
            "10.0.0.5/8",
            "10.0.0.0",
            "intranet",
        ] {
            refused("allow_networks", refusable);
        }
    }

    #[test]
    fn off_is_an_address_too() {
        assert_eq!(accepted("listen", "off").listen, None);
        assert_eq!(
            accepted("listen", "[::1]:80").listen,
            Some("[::1]:80".parse().unwrap())
        );
        refused("listen", "9464");
    }

    #[test]
    fn a_worker_name_is_short_and_visible() {
        accepted("worker_name", &"w".repeat(64));
        for bad in ["", "two words", "line\nbreak", "né", &"w".repeat(65)] {
            refused("worker_name", bad);
        }
    }

    #[test]
    fn a_worker_without_a_name_has_a_valid_one() {
        let name = Config::default().name_of_worker();
        assert!(
            name.ends_with(&format!(":{}", std::process::id())),
            "{name}"
        );
        accepted("worker_name", &name);
    }

    #[test]
    fn an_unknown_setting_is_told_its_nearest_neighbour() {
        assert!(
            refused("max_inflight", "1")
                .ends_with(r#""max_inflight"; did you mean `max_in_flight`?"#)
        );
        assert!(refused("max_in_flight_byte", "1").contains("`max_in_flight_bytes`"));
        assert!(refused("telepathy", "1").ends_with(r#"no setting "telepathy""#));
    }

    #[test]
    fn the_distance_counts_letters_put_in_taken_out_and_changed() {
        for (one, other, changes) in [
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("lease", "lease", 0),
        ] {
            assert_eq!(distance(one, other), changes, "{one} {other}");
        }
    }

    #[test]
    fn a_lease_outlives_its_request() {
        let mut config = accepted("request_timeout", "50s");
        config.validate().unwrap();
        config.set("request_timeout", "50s 1ms").unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert!(
            error.contains(r#"lease = "1m": must be at least 10s longer than request_timeout"#),
            "{error}"
        );
    }

    #[test]
    fn a_snippet_is_part_of_what_was_read() {
        assert!(accepted("max_response_body", "1023").validate().is_err());
        assert!(accepted("max_response_body", "1024").validate().is_ok());
    }

    #[test]
    fn a_keyring_is_read_from_the_setting_or_from_the_file() {
        let line = Keyring::generate_line("k1").unwrap();
        assert_eq!(
            accepted("keys", &line)
                .keyring()
                .unwrap()
                .ids()
                .collect::<Vec<_>>(),
            ["k1"]
        );
        let path = std::env::temp_dir().join(format!("posthaste-keys-{}.txt", std::process::id()));
        std::fs::write(&path, format!("{}\n", *line)).unwrap();
        let from_file = Config {
            key_file: Some(path.clone()),
            ..Config::default()
        };
        assert_eq!(
            from_file.keyring().unwrap().ids().collect::<Vec<_>>(),
            ["k1"]
        );
        std::fs::remove_file(path).unwrap();
        assert!(from_file.keyring().is_err());
    }

    #[test]
    fn a_worker_without_keys_is_told_how_to_give_them() {
        let error = Config::default().keyring().unwrap_err().to_string();
        assert!(
            error.contains("POSTHASTE_KEYS") && error.contains("key_file"),
            "{error}"
        );
    }

    #[test]
    fn keys_come_from_one_place() {
        let mut config = accepted("keys", "a:AAAA");
        config.set("key_file", "keys.txt").unwrap();
        assert!(
            config
                .validate()
                .unwrap_err()
                .to_string()
                .contains("give one of them")
        );
    }

    #[test]
    fn a_proxy_comes_from_one_place_and_is_never_shown() {
        let url = "http://ada:CANARY@proxy.example:3128";
        let mut config = accepted("proxy", url);
        assert_eq!(config.text("proxy").unwrap(), "(set)");
        assert!(!format!("{config:?}").contains("CANARY"));
        let proxy = config.proxy_url().unwrap().unwrap();
        assert_eq!(proxy.login().unwrap().password.as_str(), "CANARY");
        assert!(Config::default().proxy_url().unwrap().is_none());
        config.set("proxy_file", "proxy.txt").unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("proxy and proxy_file"), "{error}");
        for bad in ["", "CANARY", "http://CANARY", "ftp://a:CANARY@b:1"] {
            let error = refused("proxy", bad);
            assert!(
                error.contains("proxy: must be") && !error.contains("CANARY"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_proxy_is_read_from_its_file() {
        let path = std::env::temp_dir().join(format!("posthaste-proxy-{}.txt", std::process::id()));
        let from_file = Config {
            proxy_file: Some(path.clone()),
            ..Config::default()
        };
        std::fs::write(&path, "socks5://127.0.0.1:1080\n").unwrap();
        let proxy = from_file.proxy_url().unwrap().unwrap();
        assert_eq!(proxy.to_string(), "socks5://127.0.0.1:1080");
        std::fs::write(&path, "CANARY").unwrap();
        let error = from_file.proxy_url().unwrap_err().to_string();
        assert!(
            error.contains("posthaste-proxy-") && !error.contains("CANARY"),
            "{error}"
        );
        std::fs::remove_file(path).unwrap();
        assert!(from_file.proxy_url().is_err());
    }

    #[test]
    fn source_addresses_are_one_of_each_family_and_of_one_host() {
        let config = accepted("source_addresses", "192.0.2.7, 2001:db8::7");
        assert_eq!(
            config.text("source_addresses").unwrap(),
            "192.0.2.7,2001:db8::7"
        );
        for bad in [
            "192.0.2.7,192.0.2.8",
            "2001:db8::7,2001:db8::8",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "::ffff:192.0.2.7",
            "192.0.2.7/32",
            "here",
        ] {
            refused("source_addresses", bad);
        }
    }

    #[test]
    fn announced_addresses_are_addresses_or_networks() {
        let config = accepted(
            "announced_addresses",
            "203.0.113.7, 198.51.100.0/28,2001:db8::/64",
        );
        assert_eq!(
            config.text("announced_addresses").unwrap(),
            "203.0.113.7,198.51.100.0/28,2001:db8::/64"
        );
        for bad in ["203.0.113.7/28", "0.0.0.0/0", "::/0", "example.org"] {
            refused("announced_addresses", bad);
        }
    }

    #[test]
    fn fields_written_by_a_program_are_bounded_too() {
        let error = Config {
            batch: 0,
            ..Config::default()
        }
        .validate()
        .unwrap_err()
        .to_string();
        assert!(
            error.contains(r#"batch = "0": must be a whole number from 1 to 10000"#),
            "{error}"
        );
        let config = Config {
            allow_networks: vec!["::/0".parse().unwrap()],
            ..Config::default()
        };
        assert!(config.validate().is_err());
        assert!(
            Config {
                idle_timeout: Duration::MAX,
                ..Config::default()
            }
            .validate()
            .is_err()
        );
        assert!(
            Config {
                worker_name: Some(String::new()),
                ..Config::default()
            }
            .validate()
            .is_err()
        );
    }

    #[test]
    fn no_secret_is_ever_said() {
        let mut config = accepted("database_url", "postgres://u:CANARY@db/app");
        config.set("keys", "k1:CANARY").unwrap();
        config.validate().unwrap();
        let said = format!(
            "{config:?} {:?} {:?}",
            config.text("database_url"),
            config.text("keys")
        );
        assert!(!said.contains("CANARY"), "{said}");
        assert!(said.contains("(set)"), "{said}");
        for (key, value) in [
            ("database_url", "postgres://u:CANARY@db:port/"),
            ("keys", "CANARY"),
        ] {
            let refusal = refused(key, value);
            assert!(
                !refusal.contains("CANARY") && refusal.contains(key),
                "{refusal}"
            );
        }
        let bad = Config {
            keys: Some(Hidden::new("CANARY")),
            ..Config::default()
        };
        assert!(!bad.validate().unwrap_err().to_string().contains("CANARY"));
    }

    #[test]
    fn a_refused_value_is_shown_escaped_and_short() {
        let refusal = refused("wake", &format!("a\nb{}", "x".repeat(10_000)));
        assert!(
            refusal.contains(r#""a\nb"#) && !refusal.contains('\n') && refusal.len() < 300,
            "{refusal}"
        );
    }

    #[test]
    fn a_database_is_asked_for_by_the_variable_that_everybody_knows() {
        let error = Config::default()
            .required_database_url()
            .unwrap_err()
            .to_string();
        assert!(error.contains("DATABASE_URL"), "{error}");
        let config = accepted("database_url", "postgres://db/app");
        assert_eq!(config.required_database_url().unwrap(), "postgres://db/app");
    }

    #[test]
    fn a_setting_knows_its_flag_and_its_variables() {
        let url = setting("database_url").unwrap();
        assert_eq!(url.variables(), ["POSTHASTE_DATABASE_URL", "DATABASE_URL"]);
        assert_eq!(setting("max_body").unwrap().flag(), "max-body");
        assert_eq!(setting("worker_name").unwrap().default(), "host:pid");
    }
}
