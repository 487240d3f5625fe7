//! Why a request is not to be believed.

use std::time::Duration;

/// Why a request is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// `webhook-id` is missing or empty.
    #[error("webhook-id is missing")]
    MissingId,
    /// The timestamp is missing or empty.
    #[error("the timestamp is missing")]
    MissingTimestamp,
    /// The timestamp is anything but decimal digits.
    #[error("the timestamp is not a whole number of Unix seconds")]
    MalformedTimestamp,
    /// Signed longer ago than the tolerance: a replay, or a clock that is wrong.
    #[error("the timestamp is {seconds} s old, more than is tolerated")]
    TooOld {
        /// By how much it lies in the past.
        seconds: u64,
    },
    /// Signed further in the future than the tolerance: a clock is wrong.
    #[error("the timestamp is {seconds} s in the future, more than is tolerated")]
    TooNew {
        /// By how much it lies in the future.
        seconds: u64,
    },
    /// The header of the signatures is missing, malformed, or holds none for which there is a secret or a key.
    #[error("there is no signature of a kind that a known secret checks")]
    NoSignature,
    /// Another secret, another id, another time, or another body.
    #[error("no signature matches what came under a known secret")]
    NoMatch,
    /// A header that must come once came more often: whoever reads the other one would read something else.
    #[error("{header} came more than once")]
    Repeated {
        /// Which.
        header: &'static str,
    },
}

/// That `timestamp`, in decimal Unix seconds, is no further from `now` than `tolerance`, either way and inclusive.
pub(super) fn check_age(timestamp: &str, now: i64, tolerance: Duration) -> Result<i64, Invalid> {
    if timestamp.is_empty() {
        return Err(Invalid::MissingTimestamp);
    }
    if !timestamp.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Invalid::MalformedTimestamp);
    }
    let signed_at: i64 = timestamp.parse().map_err(|_| Invalid::MalformedTimestamp)?;
    let seconds = now.abs_diff(signed_at);
    match seconds <= tolerance.as_secs() {
        true => Ok(signed_at),
        false if signed_at < now => Err(Invalid::TooOld { seconds }),
        false => Err(Invalid::TooNew { seconds }),
    }
}
