//! An authenticated connection, as tonic's server takes it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hsm_policy::identity::Role;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::Peer;
use crate::metrics::{Metrics, OpenConnection};

/// What a client sends before anything else (RFC 9113 section 3.4), in bytes.
const PREFACE_BYTES: usize = 24;
/// How long it may take to. From then on, the server's pings show whether the client is there.
pub(super) const PREFACE_TIMEOUT: Duration = Duration::from_secs(3);

/// A TLS stream whose client's certificate chain has been verified. tonic puts its [`Peer`] into the
/// extensions of every request that arrives on it.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    preface: Option<Preface>,
    _counted: Option<OpenConnection>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// `place` is given back when the connection is closed.
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        peer: Peer,
        metrics: &Metrics,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let is_sentry = peer
            .named()
            .is_some_and(|caller| caller.role() == Role::Sentry);
        let counted = is_sentry.then(|| metrics.sentry_connected());
        Self {
            stream,
            peer,
            preface: Some(Preface {
                missing: PREFACE_BYTES,
                until: Box::pin(tokio::time::sleep(PREFACE_TIMEOUT)),
            }),
            _counted: counted,
            _place: place,
        }
    }
}

/// The preface that has not arrived yet.
struct Preface {
    missing: usize,
    until: Pin<Box<Sleep>>,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(preface) = &mut self.preface
            && preface.until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().len().saturating_sub(before);
        if let Some(preface) = &mut self.preface {
            preface.missing = preface.missing.saturating_sub(bytes);
        }
        self.preface.take_if(|preface| preface.missing == 0);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
