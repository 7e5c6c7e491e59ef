//! A gRPC client of hsmd that does what a sentry would not: any certificate, any request.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hsm_proto::ERROR_DOMAIN;
use hsm_proto::v1::signer_client::SignerClient;
use hsm_proto::v1::{SignCometbftVoteRequest, SignCometbftVoteResponse};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::StreamExt as _;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use tonic_health::pb::HealthCheckRequest;
pub use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use crate::authority::Identity;

/// A client with a runtime of its own, so that tests need none.
pub struct Client {
    runtime: Runtime,
    channel: Channel,
    signer: SignerClient<Channel>,
}

impl Client {
    /// A client that trusts `ca` and shows this certificate, or none. It connects with its first request.
    #[must_use]
    pub fn new(port: u16, ca: &Path, identity: Option<&Identity>) -> Self {
        Self::new_at((Ipv4Addr::LOCALHOST, port).into(), ca, identity)
    }

    /// The same for an hsmd at another address than localhost.
    #[must_use]
    pub fn new_at(address: SocketAddr, ca: &Path, identity: Option<&Identity>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let channel = runtime.block_on(async { channel(address, ca, identity) });
        Self {
            runtime,
            signer: SignerClient::new(channel.clone()),
            channel,
        }
    }

    /// Makes one call.
    ///
    /// # Errors
    ///
    /// The status that came back, or that stands for a broken connection.
    pub fn call<T, F>(&self, call: impl FnOnce(SignerClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.runtime
            .block_on(call(self.signer.clone()))
            .map(Response::into_inner)
    }

    /// Makes one call of another service, whose client `call` makes over the connection.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn call_over<T, F>(&self, call: impl FnOnce(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.runtime
            .block_on(call(self.channel.clone()))
            .map(Response::into_inner)
    }

    /// Asks the standard health service for a service, or for the whole server where the name is empty.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn health(&self, service: &str) -> Result<ServingStatus, Status> {
        let service = service.to_owned();
        let mut health = HealthClient::new(self.channel.clone());
        let answer = self
            .runtime
            .block_on(health.check(HealthCheckRequest { service }))?;
        Ok(answer.into_inner().status())
    }

    /// Sends this request so many times at once, each as a call that never ends, and returns how the
    /// server ended them.
    ///
    /// # Panics
    ///
    /// If one is answered.
    #[must_use]
    pub fn hold_back(&self, request: &SignCometbftVoteRequest, times: usize) -> Vec<Status> {
        let calls = (0..times).map(|_| {
            let mut grpc = tonic::client::Grpc::new(self.channel.clone());
            let unending = tokio_stream::once(request.clone()).chain(tokio_stream::pending());
            let codec = ProstCodec::<_, SignCometbftVoteResponse>::default();
            let path = PathAndQuery::from_static("/hsm.v1.Signer/SignCometbftVote");
            async move {
                grpc.ready().await.expect("a connection");
                let held = tonic::Request::new(unending);
                grpc.client_streaming(held, path, codec).await
            }
        });
        self.runtime.block_on(async {
            let mut calls: JoinSet<_> = calls.collect();
            let mut ends = Vec::new();
            while let Some(end) = calls.join_next().await {
                ends.push(end.expect("no panic").expect_err("no answer"));
            }
            ends
        })
    }
}

/// A connection that trusts `ca` and shows this certificate, or none; opened by its first request. To be called within a
/// runtime.
#[must_use]
pub fn channel(address: SocketAddr, ca: &Path, identity: Option<&Identity>) -> Channel {
    let connector = Connector {
        address,
        tls: TlsConnector::from(Arc::new(tls(ca, identity))),
    };
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

/// The machine-readable reason in a status of hsmd.
#[must_use]
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == ERROR_DOMAIN).then_some(info.reason)
}

/// Connects with this certificate, or none, and says how the server ends the connection: with TLS 1.3 it
/// judges the certificate after the client has finished its part of the handshake, so its alert comes with
/// the first read.
///
/// # Errors
///
/// The alert, as the error of that read.
pub fn connect_and_read(
    port: u16,
    ca: &Path,
    identity: Option<&Identity>,
) -> std::io::Result<usize> {
    let connector = TlsConnector::from(Arc::new(tls(ca, identity)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        let mut stream = connector.connect(name, stream).await?;
        stream.read(&mut [0; 1]).await
    })
}

fn tls(ca: &Path, identity: Option<&Identity>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).expect("the authority's certificate"))
        .expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let certificate =
                CertificateDer::from_pem_file(&identity.certificate).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(&identity.private_key).expect("a private key");
            config
                .with_client_auth_cert(vec![certificate], key)
                .expect("a key that fits")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Makes the TLS connection that tonic speaks over.
#[derive(Clone)]
struct Connector {
    address: SocketAddr,
    tls: TlsConnector,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, tls } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        })
    }
}
