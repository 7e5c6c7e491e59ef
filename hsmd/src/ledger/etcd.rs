//! The client of etcd: linearizable reads and compare-and-swap over one key, over TLS 1.3 with a client
//! certificate, on whichever endpoint answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hsm_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use hsm_proto::etcd::kv_client::KvClient;
use hsm_proto::etcd::request_op::Request;
use hsm_proto::etcd::response_op::Response;
use hsm_proto::etcd::{
    Compare, KeyValue, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};
use zeroize::Zeroizing;

use crate::config::{self, EtcdEndpoint, LedgerFiles};

/// The least time that one endpoint is given before the next is asked.
const ATTEMPT: Duration = Duration::from_millis(800);
/// An answer has one row, or two of a transaction; a row holds one extension of 32 KiB at most.
const LONGEST_ANSWER: usize = 1 << 20;

/// Nothing was learnt, or the outcome of a transaction is not known: it may be tried again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no etcd endpoint answered in time ({0})")]
pub struct Unavailable(pub(crate) String);

/// One key as etcd holds it, and what the answer said of etcd itself.
#[derive(Clone, Debug)]
pub struct Answer {
    /// etcd's id of its cluster.
    pub cluster_id: u64,
    /// The revision at the answer.
    pub revision: u64,
    /// The key's value; `None` where there is none.
    pub value: Option<Vec<u8>>,
}

/// What became of a compare-and-swap.
#[derive(Clone, Debug)]
pub enum Swapped {
    /// It was done; the answer holds what was written.
    Done(Answer),
    /// The value was another one; the answer holds it.
    Not(Answer),
}

/// A client of one etcd cluster.
pub struct Etcd {
    endpoints: Vec<(String, KvClient<Channel>)>,
    /// The one that answered last.
    preferred: AtomicUsize,
}

impl Etcd {
    /// A client that connects with its first call.
    ///
    /// # Errors
    ///
    /// A sentence for people, where a file cannot be used.
    pub fn new(
        endpoints: &[EtcdEndpoint],
        files: &LedgerFiles,
        patience: Duration,
    ) -> Result<Self, String> {
        client_config(files)?;
        let files = Arc::new(files.clone());
        let connect = |endpoint: &EtcdEndpoint| {
            let (address, files) = (endpoint.clone(), files.clone());
            let connector = tower::service_fn(move |_: Uri| {
                let (address, files) = (address.clone(), files.clone());
                async move { connect(&address, &files).await.map(TokioIo::new) }
            });
            // TLS is the connector's; the scheme only fills a header.
            let uri = format!("http://{}:{}", endpoint.host, endpoint.port);
            let channel = Endpoint::from_shared(uri.clone())
                .map_err(|error| format!("{uri}: {error}"))?
                .connect_timeout(patience.min(ATTEMPT))
                .http2_keep_alive_interval(Duration::from_secs(10))
                .keep_alive_timeout(Duration::from_secs(3))
                .keep_alive_while_idle(true)
                .connect_with_connector_lazy(connector);
            let client = KvClient::new(channel).max_decoding_message_size(LONGEST_ANSWER);
            Ok((endpoint.to_string(), client))
        };
        Ok(Self {
            endpoints: endpoints
                .iter()
                .map(connect)
                .collect::<Result<_, String>>()?,
            preferred: AtomicUsize::new(0),
        })
    }

    /// The endpoints, as configured.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().map(|(name, _)| name.as_str())
    }

    /// Reads one key, linearizably.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    pub async fn read(&self, key: &[u8], deadline: Instant) -> Result<Answer, Unavailable> {
        let request = RangeRequest { key: key.to_vec() };
        let answer = self
            .ask(deadline, request, async |mut client, request| {
                client.range(request).await
            })
            .await?;
        of(answer.header, answer.kvs)
    }

    /// Puts `new` in the place of `old`, where `None` is no value at all. Where it fails, the outcome is open:
    /// whoever tries again finds `new` in place where it was done.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    pub async fn swap(
        &self,
        key: &[u8],
        old: Option<&[u8]>,
        new: Vec<u8>,
        deadline: Instant,
    ) -> Result<Swapped, Unavailable> {
        let (target, union) = match old {
            Some(value) => (CompareTarget::Value, TargetUnion::Value(value.to_vec())),
            None => (CompareTarget::Version, TargetUnion::Version(0)),
        };
        let key = key.to_vec();
        let operation = |request| RequestOp {
            request: Some(request),
        };
        let request = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal.into(),
                target: target.into(),
                key: key.clone(),
                target_union: Some(union),
            }],
            success: vec![operation(Request::RequestPut(PutRequest {
                key: key.clone(),
                value: new.clone(),
            }))],
            failure: vec![operation(Request::RequestRange(RangeRequest { key }))],
        };
        let answer = self
            .ask(deadline, request, async |mut client, request| {
                client.txn(request).await
            })
            .await?;
        if answer.succeeded {
            let mut done = of(answer.header, Vec::new())?;
            done.value = Some(new);
            return Ok(Swapped::Done(done));
        }
        let read = answer.responses.into_iter().find_map(|op| op.response);
        match read {
            Some(Response::ResponseRange(read)) => of(answer.header, read.kvs).map(Swapped::Not),
            _ => Err(Unavailable("etcd answered what was not asked".to_owned())),
        }
    }

    /// Asks one endpoint after the other, beginning with the one that answered last, until one answers or the
    /// deadline is there. What an endpoint that was given up may still do is what was asked of the next.
    async fn ask<Q: Clone, A>(
        &self,
        deadline: Instant,
        request: Q,
        call: impl AsyncFn(KvClient<Channel>, Q) -> Result<tonic::Response<A>, Status>,
    ) -> Result<A, Unavailable> {
        let mut fault = "there was no time left".to_owned();
        let mut at = self.preferred.load(Ordering::Relaxed);
        let mut asked = 0;
        while Instant::now() < deadline {
            let Some((name, client)) = self.endpoints.get(at % self.endpoints.len().max(1)) else {
                break;
            };
            let attempt = deadline.min(Instant::now() + ATTEMPT);
            let called = call(client.clone(), request.clone());
            match tokio::time::timeout_at(attempt, called).await {
                Ok(Ok(answer)) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => fault = format!("{name}: {}", sentence(&status)),
                Err(_) => fault = format!("{name}: no answer"),
            }
            at = at.wrapping_add(1);
            asked += 1;
            if asked % self.endpoints.len().max(1) == 0 {
                // All of them failed at once: an election takes about a second.
                tokio::time::sleep_until(deadline.min(Instant::now() + ATTEMPT / 8)).await;
            }
        }
        Err(Unavailable(fault))
    }
}

/// The deepest cause: what tonic says itself is "transport error".
fn sentence(status: &Status) -> String {
    let mut text = match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    };
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

fn of(header: Option<ResponseHeader>, rows: Vec<KeyValue>) -> Result<Answer, Unavailable> {
    let header = header.ok_or_else(|| Unavailable("an answer without a header".to_owned()))?;
    Ok(Answer {
        cluster_id: header.cluster_id,
        revision: u64::try_from(header.revision).unwrap_or_default(),
        value: rows.into_iter().next().map(|row| row.value),
    })
}

/// The files are read at each connection, so that renewed certificates are taken up.
async fn connect(
    endpoint: &EtcdEndpoint,
    files: &LedgerFiles,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let config = client_config(files).map_err(std::io::Error::other)?;
    let name = ServerName::try_from(endpoint.host.clone()).map_err(std::io::Error::other)?;
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

pub(crate) fn client_config(files: &LedgerFiles) -> Result<ClientConfig, String> {
    let wrong =
        |path: &PathBuf, fault: &dyn std::fmt::Display| format!("{}: {fault}", path.display());
    let certificates = |path: &PathBuf| -> Result<Vec<CertificateDer<'static>>, String> {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(path, &error))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots
            .add(certificate)
            .map_err(|error| wrong(&files.ca, &error))?;
    }
    let key = read_key(&files.private_key).map_err(|fault| wrong(&files.private_key, &fault))?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.certificate)?, key)
        .map_err(|error| wrong(&files.certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    config::private(path)
        .map_err(|config::FileFault { fault, remedy }| format!("{fault}; {remedy}"))?;
    let pem = std::fs::read(path).map(Zeroizing::new);
    let pem = pem.map_err(|error| error.to_string())?;
    // The error's own text may quote the file.
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| "holds no private key; write PEM: PKCS#8, SEC1 or PKCS#1".to_owned())
}
