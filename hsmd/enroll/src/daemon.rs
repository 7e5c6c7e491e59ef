//! The server: puts the parts together, serves until told to stop, and stops cleanly.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hsm_device::{Worker, WorkerOptions};
use hsm_journal::Tail;
use hsm_policy::revocation::Scope;
use hsm_proto::v1 as wire;
use hsm_proto::v1::admission_server::AdmissionServer;
use hsm_proto::v1::enrolment_server::EnrolmentServer;
use hsm_proto::v1::register_entry::Event;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Server as GrpcServer;

use crate::Refusal;
use crate::authority::{self, Authority, Key};
use crate::config::Config;
use crate::contents::Contents;
use crate::listener::{self, Tls};
use crate::metrics::{self, Metrics};
use crate::register::{self, Register, seconds};
use crate::service::{self, AdminService, NodeService, Server};

/// The longest request that is read, in bytes: a request for a certificate, and what is around it.
const LONGEST_REQUEST: usize = 16 << 10;
/// Requests at once on one connection.
const MAX_REQUESTS: u32 = 8;
/// How long open requests may take to finish after the server was told to stop.
const GRACE: Duration = Duration::from_secs(5);
/// How long our own certificate is valid, and how often it is made anew.
const OWN_LIFETIME: u64 = 7 * 24 * 60 * 60;
const OWN_RENEWAL: Duration = Duration::from_secs(24 * 60 * 60);
/// After a failure.
const OWN_RETRY: Duration = Duration::from_secs(60);

/// Why the server did not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal cannot be opened.
    #[error("{0}")]
    Journal(#[from] hsm_journal::Error),
    /// There is no register. Nothing assumes an empty one.
    #[error(
        "there is no register in {}: create that of a new deployment with `hsm-enroll init`, or restore the directory \
         from where it was moved to; without it spent tokens would be good again",
        .0.display()
    )]
    NoRegister(PathBuf),
    /// The register is another deployment's.
    #[error("the register is of trust domain {found}, and the configuration names {expected}")]
    TrustDomain {
        /// The register's.
        found: String,
        /// The configuration's.
        expected: String,
    },
    /// The CA.
    #[error(transparent)]
    Authority(#[from] authority::Error),
    /// An entry was not made durable.
    #[error("{0}")]
    Register(#[from] Refusal),
    /// A socket or a thread.
    #[error("{what}: {error}")]
    System {
        /// Which one.
        what: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// The gRPC server ended by itself.
    #[error("the gRPC server ended: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// A server that holds its state and its sockets, and serves nobody yet.
pub struct Daemon {
    server: Arc<Server>,
    socket: TcpListener,
    tls: Tls,
    admin: UnixListener,
    admin_socket: PathBuf,
    metrics: Option<TcpListener>,
    names: Vec<String>,
}

/// The CA's key, found in its device.
///
/// # Errors
/// [`Error::System`], [`Error::Authority`].
pub async fn find_key(config: &Config) -> Result<Key, Error> {
    let worker = Worker::start("ca", config.opener(), WorkerOptions::default());
    let worker = worker.map_err(system("the CA's device"))?;
    Ok(Key::find(worker, config.ca.key.clone()).await?)
}

impl Daemon {
    /// Finds the CA's key, replays the register, and opens the sockets.
    ///
    /// # Errors
    /// See [`Error`]: nothing is served then.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let key = find_key(config).await?;
        let authority = Authority::new(key, &config.ca.certificate, config.ca.root.as_deref())?;
        let bound = TcpListener::bind(config.address).await;
        let socket = bound.map_err(system(format!("listen.address {}", config.address)))?;
        let metrics = match config.metrics {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(system(format!("metrics.listen {address}")))?)
            }
            None => None,
        };
        // Last of all, since every start begins a segment.
        let register = open_register(config)?;
        let admin = service::bind(&config.admin_socket);
        let admin = admin.map_err(system(format!(
            "admin.socket {}",
            config.admin_socket.display()
        )))?;
        let server = Server {
            register,
            authority,
            lifetimes: config.lifetimes,
            metrics: Metrics::default(),
            revoking: tokio::sync::Mutex::new(()),
        };
        record_start(&server, config).await?;
        let (chain, key) = own_certificate(&server, &config.names).await?;
        let tls = Tls::new(chain, key, &server.authority.root()).map_err(Error::Tls)?;
        Ok(Self {
            server: Arc::new(server),
            socket,
            tls,
            admin,
            admin_socket: config.admin_socket.clone(),
            metrics,
            names: config.names.clone(),
        })
    }

    /// The address that the kernel gave, and the root's fingerprint.
    #[must_use]
    pub fn started(&self) -> (Option<SocketAddr>, String) {
        let fingerprint = hex::encode(self.server.authority.fingerprint());
        (self.socket.local_addr().ok(), fingerprint)
    }

    /// Serves until `shutdown` is ready, lets open requests finish, and closes the journal.
    ///
    /// # Errors
    /// [`Error::Server`], [`Error::Register`], [`Error::Journal`].
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let server = self.server.clone();
        let admin = AdminService::new(server.clone(), self.names.clone());
        tasks.spawn(service::serve(self.admin, admin, done(&stopped)));
        if let Some(listener) = self.metrics {
            tasks.spawn(metrics::serve(
                listener,
                server.metrics.clone(),
                done(&stopped),
            ));
        }
        tasks.spawn(tick(server.clone(), done(&stopped)));
        let renewing = renew_own(server.clone(), self.names, self.tls.clone());
        let stopping = done(&stopped);
        tasks.spawn(async move {
            tokio::select! { () = renewing => {}, () = stopping => {} }
        });
        let trust_domain = server
            .register
            .inspect(|state| state.trust_domain().clone());
        let incoming = listener::incoming(self.socket, self.tls, trust_domain);
        let service = NodeService::new(server.clone());
        let admission = AdmissionServer::new(service.clone());
        let enrolment = EnrolmentServer::new(service);
        let serving = GrpcServer::builder()
            .concurrency_limit_per_connection(MAX_REQUESTS as usize)
            .max_concurrent_streams(MAX_REQUESTS)
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .http2_keepalive_timeout(Some(Duration::from_secs(5)))
            .add_service(admission.max_decoding_message_size(LONGEST_REQUEST))
            .add_service(enrolment.max_decoding_message_size(LONGEST_REQUEST))
            .serve_with_incoming_shutdown(incoming, done(&stopped));
        let mut serving = tokio::spawn(serving);
        let ended = tokio::select! {
            () = shutdown => None,
            ended = &mut serving => Some(ended),
        };
        let _ = stop.send(true);
        let ended = match ended {
            Some(ended) => ended,
            None => tokio::time::timeout(GRACE, &mut serving)
                .await
                .unwrap_or(Ok(Ok(()))),
        };
        serving.abort();
        let ending = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, ending).await;
        tasks.shutdown().await;
        let _ = std::fs::remove_file(&self.admin_socket);
        server.register.record_counted(true).await;
        let stopped = Event::Stopped(wire::EnrollStopped {});
        server
            .register
            .act(SystemTime::now(), |_| Ok(stopped))
            .await?;
        server.register.close()?;
        match ended {
            Ok(served) => Ok(served?),
            Err(panic) => Err(system("the gRPC server")(std::io::Error::other(panic))),
        }
    }
}

fn open_register(config: &Config) -> Result<Register, Error> {
    let opened = hsm_journal::open::<register::State>(&config.state_dir, Default::default());
    let opened = opened.map_err(|error| match error {
        hsm_journal::Error::Missing(path) => Error::NoRegister(path),
        error => Error::Journal(error),
    })?;
    if opened.tail != Tail::Clean {
        tracing::warn!(
            "the journal's last frame is torn, and was cut off: nothing of it was answered"
        );
    }
    let found = opened.state.trust_domain();
    if *found != config.trust_domain {
        return Err(Error::TrustDomain {
            found: found.to_string(),
            expected: config.trust_domain.to_string(),
        });
    }
    Ok(Register::new(opened))
}

/// The entry of the start; and the first list of revocations, of nobody, so that there always is a signed one.
async fn record_start(server: &Server, config: &Config) -> Result<(), Error> {
    let mock = config.ca.device.is_mock().then(|| "ca".to_owned());
    let started = Event::Started(wire::EnrollStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ca_fingerprint: server.authority.fingerprint().to_vec(),
        mock_devices: mock.into_iter().collect(),
    });
    let now = SystemTime::now();
    server.register.act(now, |_| Ok(started)).await?;
    if server
        .register
        .inspect(|state| state.revocations().sequence())
        == 0
    {
        let first = server
            .register
            .inspect(|state| state.revocations().and(&Scope::All, 0));
        let first = first.map_err(Refusal::from)?;
        let signed = server.authority.sign_revocations(&first).await?;
        let revoked = Event::NodesRevoked(wire::NodesRevoked {
            revocations: Some(signed),
            scope: "nobody".to_owned(),
            by_user: nix::unistd::geteuid().as_raw(),
        });
        server.register.act(now, |_| Ok(revoked)).await?;
    }
    let sequence = server
        .register
        .inspect(|state| state.revocations().sequence());
    server.metrics.revocations(sequence);
    Ok(())
}

/// Our own certificate, for a key that is never written down.
async fn own_certificate(
    server: &Server,
    names: &[String],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let failed = |error: String| Error::Authority(authority::Error::Certificate(error));
    let key = KeyPair::generate().map_err(|error| failed(error.to_string()))?;
    let algorithm = hsm_device::Algorithm::P256;
    let public = hsm_device::PublicKey::from_parts(algorithm, key.der_bytes());
    let public = public.map_err(authority::Error::from)?;
    let now = seconds(SystemTime::now());
    let trust_domain = server
        .register
        .inspect(|state| state.trust_domain().clone());
    let contents = Contents {
        // Of no role that a node has.
        uri: format!("spiffe://{trust_domain}/enroll/hsm-enroll"),
        common_name: "hsm-enroll".to_owned(),
        names: names.to_vec(),
        server: true,
        not_before: now.saturating_sub(60),
        not_after: now.saturating_add(OWN_LIFETIME),
    };
    let (_, chain) = server.authority.issue(contents, &public).await?;
    let der =
        PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| failed(error.to_owned()))?;
    Ok((chain, der))
}

async fn renew_own(server: Arc<Server>, names: Vec<String>, tls: Tls) {
    let mut wait = OWN_RENEWAL;
    loop {
        tokio::time::sleep(wait).await;
        let renewed = match own_certificate(&server, &names).await {
            Ok((chain, key)) => tls.replace(chain, key, &server.authority.root()),
            Err(error) => Err(error.to_string()),
        };
        wait = OWN_RENEWAL;
        if let Err(error) = renewed {
            tracing::error!(
                error,
                "our own certificate was not renewed; it is tried again"
            );
            wait = OWN_RETRY;
        }
    }
}

/// Keeps the gauges, and tells of a journal that cannot be written.
async fn tick(server: Arc<Server>, done: impl Future<Output = ()>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut done = std::pin::pin!(done);
    let mut said = false;
    loop {
        tokio::select! { () = &mut done => return, _ = second.tick() => {} }
        server.register.record_counted(false).await;
        let status = server.register.status();
        let fault = status
            .stopped
            .or(status.fault.map(|fault| fault.to_string()));
        server.metrics.journal_fault(fault.is_some());
        match fault {
            Some(fault) if !said => {
                tracing::error!(fault, "the journal cannot be written: every act is refused");
                said = true;
            }
            None => said = false,
            Some(_) => {}
        }
    }
}

/// Ready when the server stops.
fn done(stopped: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut stopped = stopped.clone();
    async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |error| Error::System { what, error }
}
