//! An hsmd that signs whatever it is told to, with signatures that name what was signed.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hsm_proto::ERROR_DOMAIN;
use hsm_proto::v1::signer_server::{Signer, SignerServer};
use hsm_proto::v1::*;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower_service::Service;

use crate::node::CHAIN;
use crate::pki::Authority;

/// What happens to one Sign request instead of a signature.
pub(crate) enum Instead {
    Refuse(Code, Reason),
    /// No answer until the notification.
    Wait(Arc<Notify>),
    /// A signature, but no extension signature.
    ForgetExtension,
}

/// What hsmd was asked, and over which certificate.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Vote(SignCometbftVoteRequest),
    Proposal(SignCometbftProposalRequest),
    PublicKey,
}

pub(crate) struct State {
    pub(crate) instead: Mutex<VecDeque<Instead>>,
    pub(crate) asked: Mutex<Vec<(Asked, CertificateDer<'static>)>>,
    pub(crate) key: Mutex<GetPublicKeyResponse>,
    /// The ledger that it reports; empty: none.
    pub(crate) ledger: Mutex<String>,
    /// How often it was asked what it grants.
    pub(crate) listed: watch::Sender<usize>,
    /// Requests that arrived so far.
    pub(crate) arrived: watch::Sender<usize>,
    /// Connections so far, and those of them that are open.
    pub(crate) connections: watch::Sender<(usize, usize)>,
}

impl State {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            instead: Mutex::default(),
            asked: Mutex::default(),
            key: Mutex::new(GetPublicKeyResponse {
                algorithm: KeyAlgorithm::Ed25519.into(),
                public_key: vec![8; 32],
                ..GetPublicKeyResponse::default()
            }),
            ledger: Mutex::default(),
            listed: watch::Sender::new(0),
            arrived: watch::Sender::new(0),
            connections: watch::Sender::new((0, 0)),
        })
    }

    /// The requests for signatures.
    pub(crate) fn signed(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        let asked = asked.iter().map(|(asked, _)| asked.clone());
        asked.filter(|it| !matches!(it, Asked::PublicKey)).collect()
    }
}

/// A listening hsmd.
pub(crate) struct Hsmd {
    pub(crate) address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Hsmd {
    pub(crate) async fn start(authority: &Authority, address: &str, state: Arc<State>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .unwrap();
        let server = authority.server();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.der.clone()], server.private_key())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), state));
        Self { address, tasks }
    }

    /// A crash: the listener and all connections are gone when this returns.
    pub(crate) async fn kill(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, state: Arc<State>) {
    // Dropped with this task, and so are the connections.
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else {
                return;
            };
            let (_, session) = stream.get_ref();
            let certificate = session.peer_certificates().unwrap()[0].clone();
            let _open = Open::new(&state);
            let fake = Fake {
                state: Arc::clone(&state),
                certificate: certificate.into_owned(),
            };
            let server = SignerServer::new(fake);
            let service = service_fn(move |request| server.clone().call(request));
            let _ = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Counts a connection while it lives.
struct Open(Arc<State>);

impl Open {
    fn new(state: &Arc<State>) -> Self {
        state.connections.send_modify(|(all, open)| {
            *all += 1;
            *open += 1;
        });
        Self(Arc::clone(state))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.send_modify(|(_, open)| *open -= 1);
    }
}

struct Fake {
    state: Arc<State>,
    certificate: CertificateDer<'static>,
}

impl Fake {
    async fn note(&self, asked: Asked) -> Result<bool, Status> {
        let next = match asked {
            Asked::PublicKey => None,
            _ => self.state.instead.lock().unwrap().pop_front(),
        };
        let entry = (asked, self.certificate.clone());
        self.state.asked.lock().unwrap().push(entry);
        self.state.arrived.send_modify(|count| *count += 1);
        match next {
            None => Ok(true),
            Some(Instead::ForgetExtension) => Ok(false),
            Some(Instead::Wait(until)) => {
                until.notified().await;
                Ok(true)
            }
            Some(Instead::Refuse(code, reason)) => {
                let details =
                    ErrorDetails::with_error_info(reason.name(), ERROR_DOMAIN, HashMap::new());
                Err(Status::with_error_details(
                    code,
                    "as the test wants",
                    details,
                ))
            }
        }
    }
}

/// As if this had been signed at first, with a timestamp of its own.
pub(crate) fn first_timestamp() -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: 1_700_000_000,
        nanos: 5,
    }
}

/// The signature of whatever has this height.
pub(crate) fn signature(height: i64) -> Vec<u8> {
    height.to_be_bytes().repeat(8)
}

/// The signature of this extension.
pub(crate) fn extension_signature(extension: &[u8]) -> Vec<u8> {
    vec![u8::try_from(extension.len() % 251).unwrap(); 64]
}

#[tonic::async_trait]
impl Signer for Fake {
    async fn list_keys(
        &self,
        _: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let key = self.state.key.lock().unwrap().clone();
        let grant = KeyGrant {
            key: "main".to_owned(),
            chain_id: CHAIN.to_owned(),
            algorithm: key.algorithm,
            public_key: key.public_key,
            kinds: vec!["prevote".to_owned()],
            ledger_id: self.state.ledger.lock().unwrap().clone(),
        };
        self.state.listed.send_modify(|count| *count += 1);
        Ok(Response::new(ListKeysResponse { keys: vec![grant] }))
    }

    async fn get_public_key(
        &self,
        _: Request<GetPublicKeyRequest>,
    ) -> Result<Response<GetPublicKeyResponse>, Status> {
        self.note(Asked::PublicKey).await?;
        Ok(Response::new(self.state.key.lock().unwrap().clone()))
    }

    async fn sign_cometbft_vote(
        &self,
        request: Request<SignCometbftVoteRequest>,
    ) -> Result<Response<SignCometbftVoteResponse>, Status> {
        let request = request.into_inner();
        let whole = self.note(Asked::Vote(request.clone())).await?;
        Ok(Response::new(SignCometbftVoteResponse {
            signature: signature(request.height),
            extension_signature: request
                .extension
                .filter(|_| whole)
                .map_or_else(Vec::new, |it| extension_signature(&it)),
            timestamp: Some(first_timestamp()),
        }))
    }

    async fn sign_cometbft_proposal(
        &self,
        request: Request<SignCometbftProposalRequest>,
    ) -> Result<Response<SignCometbftProposalResponse>, Status> {
        let request = request.into_inner();
        self.note(Asked::Proposal(request.clone())).await?;
        Ok(Response::new(SignCometbftProposalResponse {
            signature: signature(request.height),
            timestamp: Some(first_timestamp()),
        }))
    }
}
