//! What one endpoint has of its own, apart from its URL.

use super::identity::{ClientIdentity, PartnerAuthority};
use crate::egress::Networks;

/// How one endpoint is reached. Where two are equal, and their URLs too, one endpoint serves for both, with its open
/// connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointOptions {
    /// Where its address must lie, on top of the sender's policy.
    pub networks: Networks,
    /// Who we are, where it asks for a client certificate.
    pub identity: Option<ClientIdentity>,
    /// Who vouches for it, in place of the public authorities.
    pub authority: Option<PartnerAuthority>,
    /// The way that its requests take.
    pub via: Via,
}

/// The way that an endpoint's requests take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// Through the sender's proxy, where it has one.
    #[default]
    Configured,
    /// Without a proxy: for a partner on the inside, whom the proxy cannot reach.
    Direct,
}
