//! Signatures: who sent this, and that nothing was changed on the way; of most kinds also when.
//!
//! The house's own are those of Standard Webhooks 1.0: [`sign`] and [`verify`]. A receiver that already checks another sender's
//! signatures can be given those: each [`Profile`] is one such sender's way, and a [`Signer`] makes the headers of several at once.

mod foreign;
mod invalid;
mod mac;
mod profile;
mod signer;
mod standard;

pub use foreign::verify_as;
pub use invalid::Invalid;
pub use profile::{Profile, header_names};
pub(crate) use profile::{SVIX_ID, SVIX_SIGNATURE, SVIX_TIMESTAMP};
pub use signer::{Message, Signer, Unsigned};
pub(crate) use standard::{Key, verify_with};
pub use standard::{sign, verify};

/// The header that names the event; the same in every attempt.
pub const WEBHOOK_ID: &str = "webhook-id";
/// The header that tells when this attempt was signed, in Unix seconds.
pub const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
/// The header that holds the signatures, separated by spaces.
pub const WEBHOOK_SIGNATURE: &str = "webhook-signature";

#[cfg(test)]
mod tests;
