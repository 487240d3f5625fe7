//! The kinds of the settings about traces.

use http::Uri;

use super::kind::{About, Hidden, Kind, shown};

/// Where a collector takes spans over HTTP, without the path of the signal.
pub(super) struct Collector;

impl Kind for Collector {
    type Value = Option<String>;

    fn about(&self) -> About {
        let bounds = "http:// or https://, then host:port, and a path where there is one";
        About {
            unit: "text",
            bounds: bounds.to_owned(),
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?.as_str();
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let is_plain = !authority.contains('@') && uri.query().is_none() && !text.contains('#');
        (is_http && is_plain && !authority.is_empty()).then(|| Some(text.to_owned()))
    }

    fn show(&self, value: &Self::Value) -> String {
        value.clone().unwrap_or_default()
    }

    fn holds(&self, value: &Self::Value) -> bool {
        value.as_ref().is_none_or(|url| self.read(url).is_some())
    }
}

/// `name=value` pairs, separated by commas: what lets us in.
pub(super) struct Headers;

impl Kind for Headers {
    type Value = Option<Hidden>;

    fn about(&self) -> About {
        About {
            unit: "text",
            bounds: "name=value pairs, separated by commas".to_owned(),
            secret: true,
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        let is_pair = |part: &str| {
            part.split_once('=')
                .is_some_and(|(name, _)| !name.is_empty())
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
            .is_none_or(|headers| self.read(headers.reveal()).is_some())
    }
}

/// A part of a whole.
pub(super) struct Share;

impl Kind for Share {
    type Value = f64;

    fn about(&self) -> About {
        About {
            unit: "share",
            noun: "a number from ",
            bounds: "0 to 1".to_owned(),
            ..About::default()
        }
    }

    fn read(&self, text: &str) -> Option<Self::Value> {
        let is_plain = text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
        let share: f64 = text.parse().ok().filter(|_| is_plain)?;
        (0.0..=1.0).contains(&share).then_some(share)
    }

    fn show(&self, value: &Self::Value) -> String {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_a_plain_url_without_a_password() {
        for taken in [
            "http://localhost:4318",
            "https://otel.example",
            "http://[::1]:4318/",
            "https://otel.example/tenant/a",
        ] {
            assert!(Collector.read(taken).is_some(), "{taken}");
        }
        for refused in [
            "",
            "localhost:4318",
            "grpc://localhost:4317",
            "http://user:hidden@localhost",
            "http://localhost/?key=hidden",
            "/v1/traces",
        ] {
            assert!(Collector.read(refused).is_none(), "{refused}");
        }
    }

    #[test]
    fn a_share_lies_between_nothing_and_all() {
        for (text, share) in [("0", 0.0), ("1", 1.0), ("0.01", 0.01)] {
            assert_eq!(Share.read(text), Some(share));
            assert_eq!(Share.show(&share), text);
        }
        for refused in ["", "1.01", "-0.1", "1e-1", "NaN", "50%"] {
            assert_eq!(Share.read(refused), None, "{refused}");
        }
    }
}
