//! No traces: this program was built without them.

use uuid::Uuid;

use super::Told;
use crate::config::Config;
use crate::{Error, Result};

/// Where spans go: nowhere.
#[derive(Clone, Debug, Default)]
pub struct Spans;

/// The span of an attempt under way: there is none.
#[derive(Clone, Copy, Debug)]
pub enum Begun {}

/// Sends no spans.
#[derive(Debug)]
#[must_use = "it ends where it is told to finish"]
pub struct Shipping;

impl Begun {
    /// As the header `traceparent` that a request of the attempt bears.
    pub fn traceparent(&self) -> String {
        match *self {}
    }
}

impl Spans {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`Error::Config`] where an endpoint is set.
    pub fn open(config: &Config) -> Result<Self> {
        match &config.otlp_endpoint {
            None => Ok(Self),
            Some(_) => Err(Error::Config(NO_TRACES.to_owned())),
        }
    }

    /// Nothing to send.
    pub fn ship(&self) -> Shipping {
        Shipping
    }

    /// None.
    pub fn begin(&self, _event_id: Uuid, _traceparent: Option<&str>) -> Option<Begun> {
        None
    }

    #[expect(clippy::unused_self, reason = "as it is with traces")]
    pub(crate) fn end(&self, _begun: Option<Begun>, _told: Told<'_>) {}
}

impl Shipping {
    /// At once.
    #[expect(clippy::unused_async, reason = "as it is with traces")]
    pub async fn finish(self) {}
}

const NO_TRACES: &str = "otlp_endpoint is set, and this program was built without traces: build it with `--features otlp`, or leave it out";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_nothing_would_be_sent_to_is_refused() {
        let config = Config {
            otlp_endpoint: Some("http://localhost:4318".to_owned()),
            ..Config::default()
        };
        let refused = Spans::open(&config).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|text| text.contains("--features otlp")));
        assert!(Spans::open(&Config::default()).is_ok());
    }
}
