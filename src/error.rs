//! The one error type: what went wrong, where, and what to do about it.

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done. A delivery that fails is not an error: it is an attempt with an
/// [`Outcome`](crate::delivery::Outcome).
///
/// No text holds a secret or a payload. What Postgres puts into an error's DETAIL can hold a whole
/// row, so it is left out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is missing, malformed or out of bounds. The text names it, its value (never a
    /// secret's) and what is allowed.
    #[error("configuration: {0}")]
    Config(String),
    /// A key or a signing secret is missing, malformed, or does not open what it should.
    #[error("keys: {0}")]
    Keys(String),
    /// Postgres refused a statement or could not be reached.
    #[error("database: {0}")]
    Database(String),
    /// Postgres refused the data of a statement: it would be refused again.
    #[error("database: {0}")]
    Data(String),
    /// The database would not do what a person asked: a rule is broken, or a right is missing.
    #[error("{0}")]
    Refused(String),
    /// The database holds no schema of ours, an older one, or a newer one.
    #[error("schema: {0}")]
    Schema(String),
    /// A certificate or a trust anchor could not be read or used.
    #[error("tls: {0}")]
    Tls(String),
    /// A file, a socket or a child process failed.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
}
