//! A wire to a partner that can be made to hold back what the partner answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Partner;
use super::backstage::BACKSTAGE;

/// Passes bytes between workers and one partner. Holding concerns the connections that are open at that moment, so that one
/// worker can be kept waiting for an answer that another gets.
pub(crate) struct Wire {
    near: SocketAddr,
    opened: Arc<AtomicU64>,
    /// Connections with a number up to this are held.
    held: watch::Sender<u64>,
    cut: CancellationToken,
}

impl Wire {
    pub(crate) async fn to(partner: &Partner) -> Self {
        let far = partner.addr();
        let (held, follow) = watch::channel(0);
        let (opened, cut) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let (numbers, ended) = (Arc::clone(&opened), cut.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        BACKSTAGE.runtime.spawn(ended.clone().run_until_cancelled_owned(async move {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let number = numbers.fetch_add(1, Ordering::SeqCst) + 1;
                let passing = pass(stream, far, number, follow.clone());
                tokio::spawn(ended.clone().run_until_cancelled_owned(passing));
            }
        }));
        Self { near: told.await.unwrap(), opened, held, cut }
    }

    /// The URL of a path, which begins with `/`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.near)
    }

    /// From now on, nothing that the partner says on a connection that is open now gets through.
    pub(crate) fn hold(&self) {
        self.held.send_replace(self.opened.load(Ordering::SeqCst));
    }

    /// Lets everything through, also what was held.
    pub(crate) fn release(&self) {
        self.held.send_replace(0);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

async fn pass(near: TcpStream, far: SocketAddr, number: u64, held: watch::Receiver<u64>) -> io::Result<()> {
    let far = TcpStream::connect(far).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((mut from_worker, to_worker), (from_partner, mut to_partner)) = (near.into_split(), far.into_split());
    tokio::try_join!(
        async { tokio::io::copy(&mut from_worker, &mut to_partner).await?; to_partner.shutdown().await },
        pass_back(from_partner, to_worker, number, held),
    )?;
    Ok(())
}

async fn pass_back(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: u64,
    mut held: watch::Receiver<u64>,
) -> io::Result<()> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let length = from.read(&mut bytes).await?;
        if held.wait_for(|held| *held < number).await.is_err() || length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..length]).await?;
    }
}
