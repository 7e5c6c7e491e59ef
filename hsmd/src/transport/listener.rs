//! The accept loop: bounded, with a time limit on handshakes, and the watch over our certificates.
//!
//! A peer that vanishes later without a word is noticed by the gRPC server's HTTP/2 pings.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use super::certificates::Look;
use super::{Certificates, Connection, Error, Peer};
use crate::metrics::Metrics;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// At once; further clients wait in the kernel's backlog.
const MAX_HANDSHAKES: usize = 128;
/// At once. The journal needs file descriptors too, and must not be left without.
const MAX_CONNECTIONS: usize = 512;
/// How often the certificate files are looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(2);
/// After an accept that failed, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The gRPC listener's socket, before anybody is served.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    certificates: Certificates,
    metrics: Metrics,
}

impl Listener {
    /// Listens on `address`; with port 0, on a port that the kernel chooses.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub async fn bind(
        address: SocketAddr,
        certificates: Certificates,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let failed = |error| Error::Bind { address, error };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self {
            socket,
            address,
            certificates,
            metrics: metrics.clone(),
        })
    }

    /// The address with the port that is really listened on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authenticated connections, for as long as the stream is kept. Certificate files that change
    /// meanwhile are taken into use.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> + Send + Unpin + 'static {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(self.accept(sender));
        ReceiverStream::new(receiver)
    }

    async fn accept(self, connections: mpsc::Sender<io::Result<Connection>>) {
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut look = tokio::time::interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = connections.closed() => return,
                _ = look.tick() => self.look_at_certificates().await,
                accepted = accept_one(&self.socket, &handshakes, &places) => match accepted {
                    Ok(accepted) => self.admit(accepted, &connections),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    fn admit(&self, accepted: Accepted, connections: &mpsc::Sender<io::Result<Connection>>) {
        let server = TlsAcceptor::from(self.certificates.server());
        let trust_domain = self.certificates.trust_domain().clone();
        let revoked = self.certificates.revoked().clone();
        let metrics = self.metrics.clone();
        let connections = connections.clone();
        tokio::spawn(async move {
            let Accepted {
                stream,
                address,
                handshake: _handshake,
                place,
            } = accepted;
            match shake_hands(&server, stream, HANDSHAKE_TIMEOUT).await {
                Ok((stream, leaf)) => {
                    let peer = Peer::under(address, &leaf, &trust_domain, revoked);
                    tracing::debug!(%address, caller = peer.caller_name(), "connected");
                    let connection = Connection::new(stream, peer, &metrics, place);
                    // Nobody takes it any more when the server is stopping.
                    let _ = connections.send(Ok(connection)).await;
                }
                Err((cause, error)) => {
                    metrics.handshake_failed(cause);
                    tracing::info!(%address, cause, %error, "a client was turned away");
                }
            }
        });
    }

    async fn look_at_certificates(&self) {
        let certificates = self.certificates.clone();
        // Reads files, so not on a thread that serves connections.
        let look = tokio::task::spawn_blocking(move || certificates.look()).await;
        match look.unwrap_or(Look::Unchanged) {
            Look::Unchanged => {}
            Look::Reloaded => tracing::info!("changed certificate files are in use"),
            Look::Failed(error) => {
                self.metrics.certificate_reload_failed();
                tracing::error!(%error, "changed certificate files cannot be used; the old stay in use");
            }
        }
    }
}

struct Accepted {
    stream: TcpStream,
    address: SocketAddr,
    handshake: OwnedSemaphorePermit,
    place: OwnedSemaphorePermit,
}

async fn accept_one(
    socket: &TcpListener,
    handshakes: &Arc<Semaphore>,
    places: &Arc<Semaphore>,
) -> io::Result<Accepted> {
    let handshake = handshakes
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let place = places
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, address) = socket.accept().await?;
    Ok(Accepted {
        stream,
        address,
        handshake,
        place,
    })
}

/// The stream and the client's leaf certificate (DER), or the cause for the metric and the error.
pub(super) async fn shake_hands(
    server: &TlsAcceptor,
    stream: TcpStream,
    limit: Duration,
) -> Result<(TlsStream<TcpStream>, Vec<u8>), (&'static str, io::Error)> {
    // Answers are small and awaited: they leave at once.
    stream
        .set_nodelay(true)
        .map_err(|error| ("socket", error))?;
    let shaken = tokio::time::timeout(limit, server.accept(stream)).await;
    let shaken = shaken.map_err(|_| ("timeout", io::ErrorKind::TimedOut.into()))?;
    let stream = shaken.map_err(|error| (cause(&error), error))?;
    // The verifier demands a certificate, so it is there; without one, nobody is admitted.
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    match leaf.map(|leaf| leaf.to_vec()) {
        Some(leaf) => Ok((stream, leaf)),
        None => Err(("no_certificate", io::ErrorKind::PermissionDenied.into())),
    }
}

/// Why a handshake failed, as the label of a metric.
fn cause(error: &io::Error) -> &'static str {
    use rustls::Error as Tls;
    match error
        .get_ref()
        .and_then(|error| error.downcast_ref::<Tls>())
    {
        Some(Tls::NoCertificatesPresented) => "no_certificate",
        Some(Tls::InvalidCertificate(error)) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "not_yet_valid"
            }
            // A bad signature: by another CA that has the name of ours.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "unknown_issuer",
            _ => "invalid_certificate",
        },
        Some(Tls::PeerIncompatible(_)) => "incompatible",
        Some(Tls::AlertReceived(_)) => "refused_by_client",
        Some(_) => "protocol",
        None => "broken_off",
    }
}
