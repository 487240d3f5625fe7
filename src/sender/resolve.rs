//! Names to addresses, with a bound on look-ups that nobody can stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::fault::{Fault, Phase};
use super::progress::Clock;

/// Looks a name up: every address that it has.
pub(super) type Lookup = Arc<dyn Fn(String, u16) -> Looking + Send + Sync>;
pub(super) type Looking = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The look-ups of one sender.
///
/// `getaddrinfo` runs on a thread and cannot be cancelled. So a look-up keeps its place until it ends, even where its
/// attempt has long given up: names that never resolve cannot use up all threads, and one endpoint's name cannot use up
/// all places.
pub(super) struct Resolver {
    lookup: Lookup,
    places: Arc<Semaphore>,
}

impl Resolver {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self {
            lookup,
            places: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        }
    }

    /// The places of one endpoint.
    pub(super) fn own_places() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_LOOKUPS_OF_ONE_ENDPOINT))
    }

    /// The places of what an operator named: all there are.
    pub(super) fn operators_places() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_LOOKUPS))
    }

    /// Every address of `name`, which is looked up as it is written.
    pub(super) async fn resolve(
        &self,
        name: String,
        port: u16,
        own_places: &Arc<Semaphore>,
        clock: Clock,
    ) -> Result<Vec<SocketAddr>, Fault> {
        let found = async {
            let own = Arc::clone(own_places).acquire_owned().await;
            let place = Arc::clone(&self.places).acquire_owned().await;
            let looking = (self.lookup)(name, port);
            tokio::spawn(async move {
                let found = looking.await;
                drop((own, place));
                found
            })
            .await
        };
        match timeout_at(clock.deadline, found).await {
            Err(_) => Err(Fault::timed_out(Phase::Dns, "no answer", clock.timeout)),
            Ok(Err(_)) => Err(Fault::unreachable(Phase::Dns, "the look-up was broken off")),
            Ok(Ok(Err(error))) => Err(Fault::io(Phase::Dns, &error)),
            Ok(Ok(Ok(addresses))) if addresses.is_empty() => {
                Err(Fault::unreachable(Phase::Dns, "the name has no address"))
            }
            Ok(Ok(Ok(addresses))) => Ok(addresses),
        }
    }
}

/// Asks the system: hosts file, DNS, whatever it is set to.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|name, port| {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name, port)).await?;
            Ok(addresses.collect())
        })
    })
}

/// With its final dot, a name is not tried below the search domains of `resolv.conf`. (`localhost` is found in the hosts
/// file, which knows no such dot.)
pub(super) fn absolute(name: &str) -> String {
    if name.contains('.') {
        format!("{name}.")
    } else {
        name.to_owned()
    }
}

const MAX_LOOKUPS: usize = 64;
const MAX_LOOKUPS_OF_ONE_ENDPOINT: usize = 4;
