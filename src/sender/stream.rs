//! The bytes of one connection, in the clear or under TLS, with a count of what the peer may still send.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection to a partner.
pub(super) struct Stream {
    io: Io,
    allowance: Arc<Allowance>,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// With a partner, inside TLS with the proxy.
    TlsInTls(Box<TlsStream<Box<TlsStream<TcpStream>>>>),
}

impl Stream {
    pub(super) fn plain(tcp: TcpStream) -> Self {
        Self {
            io: Io::Plain(tcp),
            allowance: Arc::default(),
        }
    }

    pub(super) fn tls(tls: TlsStream<TcpStream>) -> Self {
        Self {
            io: Io::Tls(Box::new(tls)),
            allowance: Arc::default(),
        }
    }

    pub(super) fn tls_in_tls(tls: TlsStream<Box<TlsStream<TcpStream>>>) -> Self {
        Self {
            io: Io::TlsInTls(Box::new(tls)),
            allowance: Arc::default(),
        }
    }

    pub(super) fn allowance(&self) -> Arc<Allowance> {
        Arc::clone(&self.allowance)
    }

    pub(super) fn speaks_h2(&self) -> bool {
        let protocol = match &self.io {
            Io::Plain(_) => None,
            Io::Tls(tls) => tls.get_ref().1.alpn_protocol(),
            Io::TlsInTls(tls) => tls.get_ref().1.alpn_protocol(),
        };
        protocol == Some(b"h2")
    }
}

/// How many bytes the peer may still send.
///
/// hyper bounds each response head, but not the number of interim (1xx) heads before it, nor the frames that belong to no
/// response. This bounds them all: every byte that a peer sends is paid for by a request of ours.
#[derive(Debug, Default)]
pub(super) struct Allowance(AtomicI64);

impl Allowance {
    /// Sets what is left to `bytes`, whatever it was.
    pub(super) fn set(&self, bytes: usize) {
        self.0.store(to_signed(bytes), Ordering::Relaxed);
    }

    /// No bound: something else bounds what is read now.
    pub(super) fn lift(&self) {
        self.0.store(i64::MAX / 2, Ordering::Relaxed);
    }

    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(to_signed(bytes), Ordering::Relaxed);
    }

    /// Whether fewer than `bytes` are left.
    pub(super) fn is_below(&self, bytes: usize) -> bool {
        self.0.load(Ordering::Relaxed) < to_signed(bytes)
    }

    fn spend(&self, bytes: usize) -> io::Result<()> {
        let bytes = to_signed(bytes);
        if self.0.fetch_sub(bytes, Ordering::Relaxed) < bytes {
            return Err(io::Error::other("the peer sent more than it may"));
        }
        Ok(())
    }
}

fn to_signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX / 2)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = match &mut this.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Io::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Io::TlsInTls(tls) => Pin::new(tls).poll_read(cx, buf),
        };
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(this.allowance.spend(buf.filled().len() - before)),
            other => other,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Io::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Io::TlsInTls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Io::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Io::TlsInTls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(tcp) => tcp.is_write_vectored(),
            Io::Tls(tls) => tls.is_write_vectored(),
            Io::TlsInTls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Io::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Io::TlsInTls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Io::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Io::TlsInTls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
