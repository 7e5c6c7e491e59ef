//! The daemon: puts the parts together, serves until told to stop, and stops cleanly.

use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hsm_journal::Tail;
use hsm_policy::grants::Policy;
use hsm_proto::v1 as wire;
use hsm_proto::v1::admin_server::AdminServer;
use hsm_proto::v1::entry::Event;
use hsm_proto::v1::signer_server::SignerServer;
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use crate::config::Config;
use crate::devices;
use crate::guard::{self, Guard, State};
use crate::keyring::Device;
use crate::line::Line;
use crate::metrics::{self, Metrics};
use crate::service::{About, AdminService, SignerService};
use crate::transport::{self, Certificates, Listener};

/// The longest request that is read, in bytes. A node takes at most 10 KiB in answer, extension included.
const LONGEST_REQUEST: usize = 32 * 1024;
/// How long open requests may take to finish after the daemon was told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Why the daemon did not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy document cannot be read or is wrong.
    #[error("policy {}: {reason}", path.display())]
    Policy {
        /// The document.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] hsm_journal::Error),
    /// The first or the last entry could not be written.
    #[error(transparent)]
    Guard(#[from] guard::Error),
    /// Certificates or the listener.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// A socket cannot be opened.
    #[error("{what}: {error}")]
    Socket {
        /// Which one.
        what: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The gRPC server ended by itself.
    #[error("the gRPC server ended: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// What a started daemon tells.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Where sentries connect to.
    pub address: SocketAddr,
    /// Where Prometheus scrapes.
    pub metrics: Option<SocketAddr>,
}

/// A daemon that holds its state and its sockets, and serves nobody yet.
pub struct Daemon {
    line: Arc<Line>,
    listener: Listener,
    certificates: Certificates,
    admin: UnixListener,
    admin_socket: PathBuf,
    metrics: Option<TcpListener>,
    about: About,
    reflection: bool,
}

impl Daemon {
    /// Reads policy and certificates, replays the journal, and opens the sockets.
    ///
    /// # Errors
    ///
    /// See [`Error`]: nothing is served then, and the journal holds no new entry.
    pub async fn open(config: &Config, devices: Vec<Device>) -> Result<Self, Error> {
        let (policy, policy_digest) = read_policy(config)?;
        let certificates = Certificates::load(&config.listen)?;
        let keyring = devices::keyring(config, devices);
        let metrics = Metrics::new(config.has_mock(), certificates.expires());
        let (guard, tail) = open_guard(config, Some(&metrics))?;
        if tail != Tail::Clean {
            tracing::warn!(
                "the journal's last frame is torn: hsmd was ended while it wrote it, and no \
                 signature for its entries left; it was cut off"
            );
        }
        let listener =
            Listener::bind(config.listen.address, certificates.clone(), &metrics).await?;
        let admin = bind_admin(&config.admin_socket)?;
        let scrape = match config.metrics {
            Some(address) => Some(TcpListener::bind(address).await.map_err(|error| {
                let what = format!("metrics.listen {address}");
                Error::Socket { what, error }
            })?),
            None => None,
        };
        let about = About {
            started: SystemTime::now(),
            mock: config.has_mock(),
            policy_path: config.policy.display().to_string(),
            policy_digest,
            journal_directory: config.state_dir.display().to_string(),
            anchor: config.state.anchor.name().to_owned(),
            address: listener.address(),
        };
        guard
            .record_durably(
                Event::DaemonStarted(started_entry(config, &about)),
                about.started,
            )
            .await?;
        Ok(Self {
            line: Arc::new(Line::new(policy, keyring, guard, metrics, config.deadline)),
            listener,
            certificates,
            admin,
            admin_socket: config.admin_socket.clone(),
            metrics: scrape,
            about,
            reflection: config.listen.reflection,
        })
    }

    /// The addresses that the kernel gave.
    #[must_use]
    pub fn started(&self) -> Started {
        let metrics = self.metrics.as_ref();
        Started {
            address: self.listener.address(),
            metrics: metrics.and_then(|listener| listener.local_addr().ok()),
        }
    }

    /// Serves until `shutdown` is ready, lets open requests finish, and closes the journal.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] where the server ends by itself, [`Error::Guard`] where the journal's end could
    /// not be made durable.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        if let Some(listener) = self.metrics {
            let served = metrics::serve(listener, self.line.metrics().clone(), done(&stopped));
            tasks.spawn(served);
        }
        tasks.spawn(tick(
            self.line.clone(),
            self.certificates.clone(),
            done(&stopped),
        ));
        tasks.spawn(serve_admin(
            self.admin,
            AdminService::new(self.line.clone(), self.certificates.clone(), self.about),
            done(&stopped),
        ));
        let mut signer = tokio::spawn(serve_signer(
            self.listener,
            self.line.clone(),
            self.reflection,
            done(&stopped),
        ));
        let ended = tokio::select! {
            () = shutdown => None,
            ended = &mut signer => Some(ended),
        };
        let _ = stop.send(true);
        let ended = match ended {
            Some(ended) => ended,
            None => tokio::time::timeout(GRACE, &mut signer)
                .await
                .unwrap_or(Ok(Ok(()))),
        };
        signer.abort();
        while tokio::time::timeout(GRACE, tasks.join_next())
            .await
            .is_ok_and(|task| task.is_some())
        {}
        tasks.shutdown().await;
        let _ = std::fs::remove_file(&self.admin_socket);
        close(self.line).await?;
        match ended {
            Ok(served) => served,
            Err(panic) => Err(Error::Socket {
                what: "the gRPC server".to_owned(),
                error: std::io::Error::other(panic),
            }),
        }
    }
}

/// Opens the journal and makes the guard over it. `metrics` hears of every flush.
///
/// # Errors
///
/// The journal's, with the remedy.
pub fn open_guard(config: &Config, metrics: Option<&Metrics>) -> Result<(Guard, Tail), Error> {
    let mut options = hsm_journal::Options {
        segment_bytes: config.state.segment_bytes,
        ..hsm_journal::Options::default()
    };
    if let Some(metrics) = metrics.cloned() {
        options.observer = Some(Arc::new(move |flush| metrics.journal_flush(flush)));
    }
    let opened = hsm_journal::open::<State>(&config.state_dir, options)?;
    Ok((Guard::new(opened.state, opened.journal), opened.tail))
}

/// Reads the policy document, and holds it against the configuration's keys.
///
/// # Errors
///
/// [`Error::Policy`], also where it grants a key that the configuration does not have.
pub fn read_policy(config: &Config) -> Result<(Policy, Vec<u8>), Error> {
    let wrong = |reason: String| Error::Policy {
        path: config.policy.clone(),
        reason,
    };
    let text = std::fs::read_to_string(&config.policy).map_err(|error| wrong(error.to_string()))?;
    let policy = Policy::parse(&text).map_err(|error| wrong(error.to_string()))?;
    let known: HashSet<&str> = config.keys.iter().map(|key| key.name.as_str()).collect();
    for grant in policy.grants() {
        if !known.contains(grant.key().as_str()) {
            return Err(wrong(format!(
                "line {}: it grants key {}, and {} has no [[key]] of that name: correct the name, \
                 or add the key",
                grant.line(),
                grant.key(),
                config.file.display()
            )));
        }
    }
    Ok((policy, Sha256::digest(text.as_bytes()).to_vec()))
}

fn started_entry(config: &Config, about: &About) -> wire::DaemonStarted {
    let mock = config.devices.iter().filter(|device| device.is_mock());
    wire::DaemonStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mock_devices: mock.map(|device| device.name.clone()).collect(),
        policy_digest: about.policy_digest.clone(),
    }
}

/// Resolves once the daemon is told to stop.
async fn done_waiting(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn done(stopped: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
    done_waiting(stopped.clone())
}

async fn serve_signer(
    listener: Listener,
    line: Arc<Line>,
    reflection: bool,
    done: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<SignerServer<SignerService>>().await;
    let signer =
        SignerServer::new(SignerService::new(line)).max_decoding_message_size(LONGEST_REQUEST);
    let reflection = reflection.then(|| {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(hsm_proto::v1::DESCRIPTORS)
            .build_v1()
    });
    let reflection = reflection.transpose().unwrap_or_else(|error| {
        tracing::error!(%error, "the reflection service is off");
        None
    });
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(signer)
        .add_service(health_service)
        .add_optional_service(reflection)
        .serve_with_incoming_shutdown(listener.incoming(), async move {
            done.await;
            health
                .set_not_serving::<SignerServer<SignerService>>()
                .await;
        })
        .await?;
    Ok(())
}

/// Opens the administration socket: for root, the daemon's own user, and the group of the directory.
fn bind_admin(path: &Path) -> Result<UnixListener, Error> {
    let failed = |error| Error::Socket {
        what: format!("admin.socket {}", path.display()),
        error,
    };
    // The journal's lock is held by now, so a socket that is there belongs to no running daemon.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

async fn serve_admin(
    listener: UnixListener,
    service: AdminService,
    done: impl Future<Output = ()>,
) {
    let own = nix::unistd::geteuid().as_raw();
    let group = listener
        .local_addr()
        .ok()
        .and_then(|address| std::fs::metadata(address.as_pathname()?).ok())
        .map(|socket| socket.gid());
    let admit = move |request: Request<()>| {
        let credentials = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|peer| peer.peer_cred)
            .ok_or_else(|| Status::unauthenticated("a peer without credentials"))?;
        let (user, peer_group) = (credentials.uid(), credentials.gid());
        if user == 0 || user == own || Some(peer_group) == group {
            return Ok(request);
        }
        Err(Status::permission_denied(format!(
            "user {user} may not administer hsmd: root, user {own} and group {} may",
            group.map_or_else(|| "(none)".to_owned(), |group| group.to_string())
        )))
    };
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let served = Server::builder()
        .add_service(AdminServer::with_interceptor(service, admit))
        .serve_with_incoming_shutdown(incoming, done)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the administration socket is closed");
    }
}

/// What is looked at once a second: counts of repeated refusals, and the gauges of devices, journal and
/// certificate.
async fn tick(line: Arc<Line>, certificates: Certificates, done: impl Future<Output = ()>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut done = std::pin::pin!(done);
    loop {
        tokio::select! {
            () = &mut done => break,
            _ = second.tick() => {}
        }
        line.record_repeated_refusals(false);
        let metrics = line.metrics();
        for device in line.keyring().devices() {
            metrics.device(&device.worker.status());
        }
        metrics.journal(&line.guard().journal().status());
        metrics.certificate_expiry(certificates.expires());
    }
    line.record_repeated_refusals(true);
}

async fn close(line: Arc<Line>) -> Result<(), Error> {
    let stopped = Event::DaemonStopped(wire::DaemonStopped {});
    let recorded = line
        .guard()
        .record_durably(stopped, SystemTime::now())
        .await;
    for device in line.keyring().devices() {
        device.worker.stop();
    }
    match Arc::try_unwrap(line) {
        Ok(line) => line.into_guard().close()?,
        Err(_) => tracing::warn!("a request is still open; the journal is closed without it"),
    }
    Ok(recorded?)
}
