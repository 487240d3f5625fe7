//! A fingerprint of the settings, by which workers that run with different ones are told apart.

use sha2::{Digest as _, Sha256};

use super::{Config, SETTINGS};

pub(super) fn of(config: &Config) -> String {
    let mut hash = Sha256::new();
    for setting in SETTINGS.iter().filter(|setting| counts(setting.key)) {
        hash.update(setting.key);
        hash.update("=");
        hash.update(setting.field.text(config));
        hash.update("\n");
    }
    // Where it is written is the machine's matter; whether there is one is not.
    let has_proxy = config.proxy.is_some() || config.proxy_file.is_some();
    hash.update([u8::from(has_proxy)]);
    let digits = hash.finalize();
    let first = digits
        .first_chunk()
        .map_or(0, |first| u64::from_be_bytes(*first));
    format!("{first:016x}")
}

fn counts(key: &str) -> bool {
    !OF_THE_MACHINE.contains(&key) && !key.starts_with("log_") && !key.starts_with("otlp_")
}

/// Secrets, files, names and addresses.
const OF_THE_MACHINE: &[&str] = &[
    "database_url",
    "keys",
    "key_file",
    "worker_name",
    "ca_file",
    "proxy",
    "proxy_file",
    "source_addresses",
    "announced_addresses",
    "listen",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::{Hidden, setting};

    fn with(key: &str, value: &str) -> String {
        let mut config = Config::default();
        config.set(key, value).unwrap();
        of(&config)
    }

    #[test]
    fn a_setting_that_deliveries_feel_changes_it_and_the_same_settings_do_not() {
        let usual = of(&Config::default());
        assert_eq!(usual.len(), 16);
        assert_eq!(usual, with("batch", "512"));
        for (key, value) in [
            ("batch", "511"),
            ("lease", "61s"),
            ("wake", "poll"),
            ("allow_networks", "10.0.0.0/8"),
            ("proxy", "http://proxy:3128"),
        ] {
            assert_ne!(usual, with(key, value), "{key}");
        }
    }

    #[test]
    fn what_may_differ_from_one_machine_to_the_next_does_not_change_it() {
        let usual = of(&Config::default());
        for (key, value) in [
            ("worker_name", "one"),
            ("listen", "off"),
            ("log_level", "debug"),
            ("log_format", "json"),
            ("key_file", "/etc/keys"),
            ("source_addresses", "10.0.0.7"),
        ] {
            assert_eq!(usual, with(key, value), "{key}");
        }
        let config = Config {
            database_url: Some(Hidden::new("postgres://a:secret@b/c")),
            ..Config::default()
        };
        assert_eq!(usual, of(&config));
        assert_eq!(
            with("proxy", "http://a:3128"),
            with("proxy", "http://u:s@b:3128")
        );
    }

    #[test]
    fn each_setting_that_is_left_out_is_there() {
        for key in OF_THE_MACHINE {
            assert!(setting(key).is_ok(), "{key}");
        }
    }
}
