//! TLS 1.3 with our own certificate, and with the client's where it shows one; bounded, with a time limit on handshakes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hsm_policy::identity::{Caller, TrustDomain};
use hsm_proto::v1::Reason;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use x509_parser::extensions::GeneralName;

use crate::Refusal;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// At once; further clients wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 512;
/// After an accept that failed, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A connection is closed after it: a node asks for what it needs, and a stranger does not stay.
const LONGEST: Duration = Duration::from_secs(60);

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    address: SocketAddr,
    certificate: Option<Arc<Shown>>,
}

#[derive(Debug)]
struct Shown {
    fingerprint: [u8; 32],
    uri: Result<Caller, String>,
    not_before: u64,
    not_after: u64,
}

/// Who a verified certificate names, while it is valid.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The one URI.
    pub caller: Caller,
    /// SHA-256 of the certificate, DER.
    pub fingerprint: [u8; 32],
    /// The first second of its validity, since 1970.
    pub not_before: u64,
}

impl Peer {
    /// Reads a leaf certificate whose chain was verified.
    #[must_use]
    pub fn new(address: SocketAddr, leaf: Option<&[u8]>, trust_domain: &TrustDomain) -> Self {
        let certificate = leaf.map(|leaf| Arc::new(Shown::read(leaf, trust_domain)));
        Self {
            address,
            certificate,
        }
    }

    /// Where the connection came from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who the certificate names, if it is valid at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// [`Reason::CertificateMissing`], [`Reason::CallerUnrecognised`], [`Reason::CertificateExpired`],
    /// [`Reason::CertificateNotYetValid`].
    pub fn identity_at(&self, now: u64) -> Result<Identity, Refusal> {
        let shown = self.certificate.as_ref().ok_or_else(|| {
            let message =
                "this call needs a client certificate; a node gets one by `hsm-enroll join`";
            Refusal::new(Reason::CertificateMissing, message)
        })?;
        let caller = shown.uri.as_ref().map_err(|why| {
            let message = format!("the client certificate names no caller: {why}");
            Refusal::new(Reason::CallerUnrecognised, message)
        })?;
        if now < shown.not_before {
            let message = "the client certificate is not valid yet: compare the clocks";
            return Err(Refusal::new(Reason::CertificateNotYetValid, message));
        }
        if now > shown.not_after {
            let message = "the client certificate has expired";
            return Err(Refusal::new(Reason::CertificateExpired, message));
        }
        Ok(Identity {
            caller: caller.clone(),
            fingerprint: shown.fingerprint,
            not_before: shown.not_before,
        })
    }

    /// For the register: the certificate's URI, or its fingerprint where it has no good one; empty without one.
    #[must_use]
    pub fn caller_name(&self) -> String {
        self.certificate
            .as_ref()
            .map_or_else(String::new, |shown| match &shown.uri {
                Ok(caller) => caller.to_string(),
                Err(_) => format!("certificate sha256:{}", hex::encode(shown.fingerprint)),
            })
    }
}

impl Shown {
    fn read(leaf: &[u8], trust_domain: &TrustDomain) -> Self {
        let fingerprint = Sha256::digest(leaf).into();
        let (uri, not_before, not_after) = match x509_parser::parse_x509_certificate(leaf) {
            Ok((_, certificate)) => {
                let second = |time: x509_parser::time::ASN1Time| {
                    u64::try_from(time.timestamp()).unwrap_or_default()
                };
                let names = certificate.subject_alternative_name().ok().flatten();
                let names = names.map(|names| names.value.general_names.as_slice());
                let uris = names
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|name| match name {
                        GeneralName::URI(uri) => Some(*uri),
                        _ => None,
                    });
                let uri = only_caller(uris.collect(), trust_domain);
                let validity = certificate.validity();
                (uri, second(validity.not_before), second(validity.not_after))
            }
            Err(_) => (Err("it cannot be parsed".to_owned()), 0, 0),
        };
        Self {
            fingerprint,
            uri,
            not_before,
            not_after,
        }
    }
}

fn only_caller(uris: Vec<&str>, trust_domain: &TrustDomain) -> Result<Caller, String> {
    let [uri] = uris.as_slice() else {
        return Err(format!("it has {} URI SANs", uris.len()));
    };
    let caller: Caller = uri.parse().map_err(|error| format!("{error}"))?;
    match caller.trust_domain() == trust_domain {
        true => Ok(caller),
        false => Err(format!("{caller} does not lie in {trust_domain}")),
    }
}

/// What the next handshake uses: our certificate is replaced while we serve.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// For handshakes with this chain and key; clients' certificates have to lead to `root`.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        root: &CertificateDer<'static>,
    ) -> Result<Self, String> {
        let server = server_config(chain, key, root)?;
        Ok(Self(Arc::new(RwLock::new(Arc::new(server)))))
    }

    /// The same with another chain and key.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        root: &CertificateDer<'static>,
    ) -> Result<(), String> {
        let server = Arc::new(server_config(chain, key, root)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = server;
        Ok(())
    }

    fn acceptor(&self) -> TlsAcceptor {
        let server = self.0.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(server.clone())
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    root: &CertificateDer<'static>,
) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).map_err(|error| error.to_string())?;
    // A node that joins has none yet; who needs one is asked for it at each call.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| error.to_string())?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the check of the client's certificate.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}

/// The connections, for as long as the stream is kept.
pub fn incoming(
    socket: TcpListener,
    tls: Tls,
    trust_domain: TrustDomain,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(accept(socket, tls, trust_domain, sender));
    ReceiverStream::new(receiver)
}

async fn accept(
    socket: TcpListener,
    tls: Tls,
    trust_domain: TrustDomain,
    connections: mpsc::Sender<io::Result<Connection>>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = places.clone().acquire_owned().await {
        let accepted = tokio::select! {
            () = connections.closed() => return,
            accepted = socket.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, trust_domain) = (tls.acceptor(), trust_domain.clone());
        let connections = connections.clone();
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
            match shaken {
                Ok(Ok(stream)) => {
                    let shown = stream.get_ref().1.peer_certificates();
                    let leaf = shown.and_then(|chain| chain.first()).map(AsRef::as_ref);
                    let peer = Peer::new(address, leaf, &trust_domain);
                    let connection = Connection::new(stream, peer, place);
                    // Nobody takes it any more when the server is stopping.
                    let _ = connections.send(Ok(connection)).await;
                }
                Ok(Err(error)) => tracing::info!(%address, %error, "a client was turned away"),
                Err(_) => tracing::info!(%address, "a client did not finish its handshake"),
            }
        });
    }
}

/// A TLS stream, with its [`Peer`] in the extensions of every request that arrives on it.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    ends: Pin<Box<tokio::time::Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>, peer: Peer, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            peer,
            ends: Box::pin(tokio::time::sleep(LONGEST)),
            _place: place,
        }
    }
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
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ends.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
