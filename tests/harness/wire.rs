//! Wires to a partner, and to Postgres, that can be made to hold back what is answered.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_postgres::config::Host;
use tokio_util::sync::CancellationToken;

use super::backstage::BACKSTAGE;
use super::{PATIENCE, Partner};

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
        BACKSTAGE
            .runtime
            .spawn(ended.clone().run_until_cancelled_owned(async move {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let number = numbers.fetch_add(1, Ordering::SeqCst) + 1;
                    let passing = pass(stream, far, number, follow.clone());
                    tokio::spawn(ended.clone().run_until_cancelled_owned(passing));
                }
            }));
        Self {
            near: told.await.unwrap(),
            opened,
            held,
            cut,
        }
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

async fn pass(
    near: TcpStream,
    far: SocketAddr,
    number: u64,
    held: watch::Receiver<u64>,
) -> io::Result<()> {
    let far = TcpStream::connect(far).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((mut from_worker, to_worker), (from_partner, mut to_partner)) =
        (near.into_split(), far.into_split());
    tokio::try_join!(
        async {
            tokio::io::copy(&mut from_worker, &mut to_partner).await?;
            to_partner.shutdown().await
        },
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

/// Passes bytes between a worker and Postgres. Whoever says certain bytes never hears the answer, though what it asked for is done:
/// its connection is lost at that moment.
pub(crate) struct DatabaseWire {
    url: String,
    fatal: watch::Sender<Vec<u8>>,
    lost: watch::Sender<u32>,
    cut: CancellationToken,
}

impl DatabaseWire {
    /// To the server of this connection string, without TLS.
    pub(crate) async fn to(database_url: &str) -> Self {
        let config: tokio_postgres::Config = database_url.parse().unwrap();
        let far = config.get_hosts()[0].clone();
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let (fatal, follow) = watch::channel(Vec::new());
        let lost = watch::Sender::new(0);
        let cut = CancellationToken::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let near = listener.local_addr().unwrap();
        let (ended, count) = (cut.clone(), lost.clone());
        BACKSTAGE
            .runtime
            .spawn(cut.clone().run_until_cancelled_owned(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (far, follow, count) = (far.clone(), follow.clone(), count.clone());
                    let passing = async move {
                        if reach(stream, far, port, follow).await? == End::Lost {
                            count.send_modify(|count| *count += 1);
                        }
                        io::Result::Ok(())
                    };
                    tokio::spawn(ended.clone().run_until_cancelled_owned(passing));
                }
            }));
        let password = config
            .get_password()
            .map(|password| String::from_utf8(password.to_vec()).unwrap());
        let url = format!(
            "host=127.0.0.1 port={} user={} dbname={} password='{}' sslmode=disable",
            near.port(),
            config.get_user().unwrap(),
            config.get_dbname().unwrap(),
            password.unwrap_or_default(),
        );
        Self {
            url,
            fatal,
            lost,
            cut,
        }
    }

    /// What a worker is to connect to.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// From now on, a connection on which these bytes are said is lost when their answer comes. Postgres sends a short answer when
    /// the transaction has committed.
    pub(crate) fn lose_whoever_says(&self, bytes: &[u8]) {
        self.fatal.send_replace(bytes.to_vec());
    }

    /// Waits until so many connections were lost.
    pub(crate) async fn until_lost(&self, count: u32) {
        let mut lost = self.lost.subscribe();
        let wait = lost.wait_for(|lost| *lost >= count);
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("nothing of the kind was said")
            .unwrap();
    }

    /// Lets everything through.
    pub(crate) fn mend(&self) {
        self.fatal.send_replace(Vec::new());
    }
}

impl Drop for DatabaseWire {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

#[derive(PartialEq, Eq)]
enum End {
    Closed,
    Lost,
}

async fn reach(
    near: TcpStream,
    far: Host,
    port: u16,
    fatal: watch::Receiver<Vec<u8>>,
) -> io::Result<End> {
    near.set_nodelay(true)?;
    let near = near.into_split();
    match far {
        Host::Tcp(name) => {
            let far = TcpStream::connect((name, port)).await?;
            far.set_nodelay(true)?;
            lose(near, far.into_split(), fatal).await
        }
        Host::Unix(folder) => {
            let far = UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?;
            lose(near, far.into_split(), fatal).await
        }
    }
}

/// Passes bytes until either side ends, or an answer comes to what was fatal.
async fn lose(
    (mut from_worker, mut to_worker): (OwnedReadHalf, OwnedWriteHalf),
    (mut from_server, mut to_server): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    fatal: watch::Receiver<Vec<u8>>,
) -> io::Result<End> {
    let (mut said, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut is_lost = false;
    loop {
        tokio::select! {
            length = from_worker.read(&mut said) => match length? {
                0 => return Ok(End::Closed),
                length => {
                    let fatal = fatal.borrow().clone();
                    is_lost |= !fatal.is_empty()
                        && said[..length].windows(fatal.len()).any(|part| part == fatal);
                    to_server.write_all(&said[..length]).await?;
                }
            },
            length = from_server.read(&mut answered) => match length? {
                0 => return Ok(End::Closed),
                _ if is_lost => return Ok(End::Lost),
                length => to_worker.write_all(&answered[..length]).await?,
            },
        }
    }
}
