//! The rules between settings, the keys that two of them lead to, and the name that a worker has by itself.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use super::Config;
use crate::proxy::ProxyUrl;
use crate::secret::Keyring;
use crate::{Error, Result};

/// Refuses values that are each allowed, and not together.
pub(super) fn check(config: &Config) -> Result<()> {
    // A lease that ends while its request may still be on the wire is a duplicate by design. The
    // margin is for what comes before and after the request: waiting for a slot, and recording.
    if config.lease < config.request_timeout + LEASE_MARGIN {
        return refuse(
            config,
            "lease",
            "request_timeout",
            "must be at least 10s longer than",
        );
    }
    if config.max_snippet > config.max_response_body {
        return refuse(
            config,
            "max_snippet",
            "max_response_body",
            "must not be above",
        );
    }
    if config.max_body > config.max_in_flight_bytes {
        return refuse(
            config,
            "max_body",
            "max_in_flight_bytes",
            "must not be above",
        );
    }
    if config.keys.is_some() && config.key_file.is_some() {
        return Err(Error::Config(
            "keys and key_file are both set: give one of them".to_owned(),
        ));
    }
    if config.proxy.is_some() && config.proxy_file.is_some() {
        return Err(Error::Config(
            "proxy and proxy_file are both set: give one of them".to_owned(),
        ));
    }
    Ok(())
}

fn refuse(config: &Config, one: &str, other: &str, rule: &str) -> Result<()> {
    let (given, against) = (config.text(one)?, config.text(other)?);
    Err(Error::Config(format!(
        "{one} = \"{given}\": {rule} {other} (\"{against}\")"
    )))
}

pub(super) fn keyring(config: &Config) -> Result<Keyring> {
    match (&config.keys, &config.key_file) {
        (Some(keys), _) => Keyring::parse(keys.reveal()),
        (None, Some(path)) => Keyring::parse(&secret_text("key_file", path)?),
        (None, None) => Err(Error::Keys(NO_KEYS.to_owned())),
    }
}

pub(super) fn proxy(config: &Config) -> Result<Option<ProxyUrl>> {
    match (&config.proxy, &config.proxy_file) {
        (Some(url), _) => ProxyUrl::parse(url.reveal()).map(Some),
        (None, Some(path)) => {
            let url = ProxyUrl::parse(secret_text("proxy_file", path)?.trim());
            url.map(Some).map_err(|error| match error {
                Error::Config(text) => {
                    Error::Config(format!("proxy_file {}: {text}", path.display()))
                }
                other => other,
            })
        }
        (None, None) => Ok(None),
    }
}

fn secret_text(setting: &str, path: &Path) -> Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let read = File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_string(&mut text));
    read.map_err(|error| Error::Io(format!("cannot read {setting} {}", path.display()), error))?;
    Ok(text)
}

/// `host:pid`, cut so that it fits a worker's name.
pub(super) fn host_and_process() -> String {
    let host: String = host()
        .chars()
        .filter(char::is_ascii_graphic)
        .take(HOST_LENGTH)
        .collect();
    let host = if host.is_empty() { "worker" } else { &host };
    format!("{host}:{}", std::process::id())
}

/// The standard library does not know the host's name: Linux tells it in a file, shells in a variable.
fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    told.or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default()
}

const NO_KEYS: &str =
    "there are none: set POSTHASTE_KEYS, or key_file to a file of id:base64 lines";
const FILE_LIMIT: u64 = 64 * 1024;
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// Leaves room for the colon and ten digits of a process id in 64 characters.
const HOST_LENGTH: usize = 53;
