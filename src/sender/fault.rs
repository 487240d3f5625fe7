//! What went wrong with a request, told from typed errors and never from their texts.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::time::Duration;

use rustls::{CertificateError, InvalidMessage};

use super::snippet::snippet;
use crate::delivery::Outcome;
use crate::egress::Refusal;

/// Why there is no response head.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) outcome: Outcome,
    /// One bounded line: the phase, a colon, what happened.
    pub(super) error: String,
    /// The address that was refused.
    pub(super) refused: Option<IpAddr>,
}

impl Fault {
    pub(super) fn blocked(refusal: Refusal) -> Self {
        let refused = Some(refusal.address);
        Self {
            outcome: Outcome::Blocked,
            error: refusal.to_string(),
            refused,
        }
    }

    /// What we do not send.
    pub(super) fn no_request(rule: &str) -> Self {
        Self {
            outcome: Outcome::Blocked,
            error: rule.to_owned(),
            refused: None,
        }
    }

    pub(super) fn timed_out(phase: Phase, what: &str, after: Duration) -> Self {
        let error = format!("{phase}: {what} within {after:?}");
        Self {
            outcome: Outcome::TimedOut,
            error,
            refused: None,
        }
    }

    pub(super) fn unreachable(phase: Phase, what: &str) -> Self {
        let what = snippet(what.as_bytes(), MAX_ERROR).unwrap_or_default();
        Self {
            outcome: Outcome::Unreachable,
            error: format!("{phase}: {what}"),
            refused: None,
        }
    }

    pub(super) fn io(phase: Phase, error: &io::Error) -> Self {
        Self::unreachable(phase, &io_text(error))
    }

    /// A TLS handshake that failed.
    pub(super) fn tls(phase: Phase, error: &io::Error) -> Self {
        match find::<rustls::Error>(error) {
            Some(tls) => Self::unreachable(phase, &tls_text(tls)),
            None => Self::io(phase, error),
        }
    }

    /// The same, met on the way to the proxy.
    pub(super) fn of_proxy(self, what: &str) -> Self {
        Self {
            error: format!("{}: {what}{}", Phase::Proxy, self.error),
            ..self
        }
    }

    /// The same, where nothing left our own network: no partner is to blame, so that no breaker opens and nobody is paused for it.
    pub(super) fn of_ours(self) -> Self {
        Self {
            outcome: Outcome::Blocked,
            ..self
        }
    }

    /// A request that got no response head. `over_limit` is set where the peer had sent more than a head may hold.
    pub(super) fn http(error: &hyper::Error, over_limit: Option<usize>) -> Self {
        if let Some(tls) = find::<rustls::Error>(error) {
            // A server that asks for a client certificate says so only after the handshake.
            return Self::unreachable(Phase::Tls, &tls_text(tls));
        }
        let text = match over_limit {
            Some(limit) => format!("response head over {limit} bytes"),
            None => http_text(error),
        };
        Self::unreachable(Phase::Http, &text)
    }
}

/// The part of an attempt that a fault belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Dns,
    Connect,
    /// The operator's proxy, whatever happened there: no fault of the partner.
    Proxy,
    Tls,
    Http,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Http => "http",
        })
    }
}

fn io_text(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "the peer closed the connection".to_owned(),
        kind @ (ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::BrokenPipe
        | ErrorKind::TimedOut) => kind.to_string(),
        _ => error.to_string(),
    }
}

fn tls_text(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => {
            format!("certificate not trusted: {}", certificate_text(why))
        }
        rustls::Error::NoCertificatesPresented => "the peer presented no certificate".to_owned(),
        rustls::Error::AlertReceived(alert) => format!("the peer sent the alert {alert:?}"),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the peer does not speak TLS".to_owned()
        }
        other => other.to_string(),
    }
}

/// rustls' own texts quote the names in the certificate, which are the peer's to choose.
fn certificate_text(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::UnknownIssuer => "unknown issuer".to_owned(),
        E::Expired | E::ExpiredContext { .. } => "expired".to_owned(),
        E::NotValidYet | E::NotValidYetContext { .. } => "not valid yet".to_owned(),
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "not valid for this host".to_owned()
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => "not meant for servers".to_owned(),
        E::BadEncoding => "malformed".to_owned(),
        E::BadSignature => "bad signature".to_owned(),
        other => format!("{other:?}"),
    }
}

fn http_text(error: &hyper::Error) -> String {
    if error.is_parse() {
        "not a valid HTTP response".to_owned()
    } else if error.is_incomplete_message() {
        "the peer closed the connection before a whole response head".to_owned()
    } else if let Some(h2) = find::<h2::Error>(error) {
        h2_text(h2)
    } else if let Some(io) = find::<io::Error>(error) {
        io_text(io)
    } else {
        "the connection ended before a whole response head".to_owned()
    }
}

fn h2_text(error: &h2::Error) -> String {
    let who = if error.is_remote() {
        "the peer"
    } else {
        "we, for a breach of protocol,"
    };
    let what = if error.is_go_away() {
        "ended the connection"
    } else {
        "reset the stream"
    };
    match (error.get_io(), error.reason()) {
        (Some(io), _) => io_text(io),
        (None, Some(reason)) => format!("{who} {what}: {}", reason.description()),
        (None, None) => "HTTP/2 failed".to_owned(),
    }
}

/// The first error of type `T` in the chain of causes. An `io::Error` hides what it wraps from `source`.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

const MAX_ERROR: usize = 200;
