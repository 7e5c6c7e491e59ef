//! The daemon: puts the parts together, serves until told to stop, and stops cleanly.

use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hsm_device::State;
use hsm_journal::Tail;
use hsm_policy::grants::Policy;
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use hsm_proto::v1::signer_server::SignerServer;
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tonic::codegen::http;
use tonic::server::NamedService as _;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use tower::util::MapResponseLayer;

use crate::advisories;
use crate::anchor;
use crate::audit;
use crate::config::{self, Config};
use crate::devices;
use crate::doctor;
use crate::guard::{self, Guard};
use crate::keyring::Device;
use crate::ledger::{self, Ledger};
use crate::line::{Line, Refusal};
use crate::log;
use crate::metrics::{self, Metrics};
use crate::service::{self, About, AdminService, SignerService, admin_socket};
use crate::transport::{self, Certificates, Listener};

/// The longest request that is read, in bytes: twice the longest extension that hsmd takes, so that one
/// that is a little too long is refused by name.
const LONGEST_REQUEST: usize = 64 << 10;
/// Requests at once on one connection; with [`LONGEST_REQUEST`], what it can have held in memory.
const MAX_REQUESTS: u32 = 256;
/// How long a request may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(2);
/// What a health check may ask for: the whole server, and the one service that it is there for.
const HEALTH_NAMES: [&str; 2] = ["", SignerServer::<SignerService>::NAME];
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
    /// The rollback anchor does not let it start.
    #[error(transparent)]
    Anchor(#[from] anchor::Failure),
    /// The first or the last entry could not be written.
    #[error(transparent)]
    Guard(#[from] guard::Error),
    /// The way to the ledgers.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The advisories that were built in.
    #[error(transparent)]
    Advisories(#[from] advisories::Error),
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
    /// Nothing would be signed until hsmd is started again.
    #[error("hsmd ends, so that it is started again: {0}")]
    Broken(String),
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
    audit_interval: Duration,
    keeper: Option<anchor::Keeper>,
    /// How checkpoints are made, and where the journal is.
    log: Option<(config::Checkpoint, PathBuf)>,
    /// Whether the journal ended with a clean stop.
    stopped: bool,
}

impl Daemon {
    /// Reads policy and certificates, replays the journal, and opens the sockets.
    ///
    /// # Errors
    ///
    /// See [`Error`]: nothing is served then.
    pub async fn open(config: &Config, devices: Vec<Device>) -> Result<Self, Error> {
        let (policy, policy_digest) = read_policy(config)?;
        let certificates = Certificates::load(&config.listen)?;
        let keyring = devices::keyring(config, devices)?;
        let metrics = Metrics::new(config.has_mock(), certificates.expires());
        let listener =
            Listener::bind(config.listen.address, certificates.clone(), &metrics).await?;
        let scrape = match config.metrics {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(socket_error("metrics.listen", address))?)
            }
            None => None,
        };
        let socket = &config.admin_socket;
        let admin =
            admin_socket::bind(socket).map_err(socket_error("admin.socket", socket.display()))?;
        // Last of all, since every start begins a segment.
        let opening = anchor::open(config, keyring.devices(), |admit| {
            open_guard_if(config, Some(&metrics), admit)
        });
        let opened = opening.await.inspect_err(|_| {
            let _ = std::fs::remove_file(socket);
        })?;
        let anchor::Opened {
            guard,
            keeper,
            doubted,
        } = opened;
        if doubted {
            tracing::warn!(
                "hsmd did not end cleanly, and nothing proves that the journal holds all that was signed: each key \
                 signs only above its last ceiling; see `hsmd status`"
            );
        }
        let stopped = guard.inspect(guard::State::stopped)?;
        devices::pin(keyring.devices(), &guard)?;
        guard.inspect(|state| expect_signatures(&metrics, &policy, state))?;
        for (key, chain) in guard.inspect(guard::State::contested)? {
            metrics.contested(&key, &chain);
            tracing::error!(
                key,
                chain,
                "two different messages were signed at one position: see `hsmd doctor`"
            );
        }
        let about = About {
            started: SystemTime::now(),
            mock: config.has_mock(),
            policy_path: config.policy.display().to_string(),
            policy_digest,
            journal_directory: config.state_dir.display().to_string(),
            anchor: config.state.anchor.name().to_owned(),
            anchor_status: keeper.as_ref().map(anchor::Keeper::status),
            address: listener.address(),
        };
        guard
            .record_durably(
                Event::DaemonStarted(started_entry(config, &about)),
                about.started,
            )
            .await?;
        let ledger = Ledger::new(config.ledger.as_ref(), &guard, config.deadline)?;
        let line = Line::new(policy, keyring, guard, ledger, metrics, config.deadline);
        Ok(Self {
            line: Arc::new(line),
            listener,
            certificates,
            admin,
            admin_socket: config.admin_socket.clone(),
            metrics: scrape,
            about,
            reflection: config.listen.reflection,
            audit_interval: config.audit_interval,
            keeper,
            log: config
                .checkpoint
                .clone()
                .map(|checkpoint| (checkpoint, config.state_dir.clone())),
            stopped,
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
    /// [`Error::Server`] where the server ends by itself, [`Error::Broken`] where nothing could be signed
    /// any more, [`Error::Guard`] where the journal's end could not be made durable.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        if let Some(listener) = self.metrics {
            let served = metrics::serve(listener, self.line.metrics().clone(), done(&stopped));
            tasks.spawn(served);
        }
        let (health, health_service) = tonic_health::server::health_reporter();
        let (broken, breaks) = oneshot::channel();
        let ticking = tick(
            self.line.clone(),
            self.certificates.clone(),
            health,
            self.about.anchor_status.clone(),
            done(&stopped),
        );
        tasks.spawn(async {
            let _ = broken.send(ticking.await);
        });
        tasks.spawn(admin_socket::serve(
            self.admin,
            AdminService::new(self.line.clone(), self.certificates.clone(), self.about),
            done(&stopped),
        ));
        let (line, stopping) = (self.line.clone(), done(&stopped));
        tasks.spawn(async move { line.ledger().follow(line.guard(), stopping).await });
        let mut signer = tokio::spawn(serve_signer(
            self.listener,
            self.line.clone(),
            health_service,
            self.reflection,
            done(&stopped),
        ));
        let (kept, keeping) = watch::channel(false);
        let keeper = self.keeper.map(|keeper| {
            let line = self.line.clone();
            tokio::spawn(async move { keeper.run(line.guard(), done_waiting(keeping)).await })
        });
        let (audited, auditing) = watch::channel(false);
        let mut audits = tokio::spawn(audit::run_all(
            self.line.clone(),
            self.audit_interval,
            self.stopped,
            auditing,
        ));
        if let Some(config) = self.log {
            tasks.spawn(log::run(self.line.clone(), config, stopped.clone()));
        }
        let grace = GRACE.max(self.line.deadline());
        let ended = tokio::select! {
            () = shutdown => None,
            ended = &mut signer => Some(ended),
            broken = breaks => Some(Ok(broken.unwrap_or_else(|_| {
                Err(Error::Broken("the task that looks after it panicked".to_owned()))
            }))),
        };
        let _ = stop.send(true);
        let ended = match ended {
            Some(ended) => ended,
            None => tokio::time::timeout(grace, &mut signer)
                .await
                .unwrap_or(Ok(Ok(()))),
        };
        signer.abort();
        self.line.stop();
        // When nothing is signed any more, devices' logs are read for the last time.
        let _ = audited.send(true);
        if tokio::time::timeout(GRACE, &mut audits).await.is_err() {
            audits.abort();
        }
        let ending = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, ending).await;
        tasks.shutdown().await;
        let _ = std::fs::remove_file(&self.admin_socket);
        let _ = kept.send(true);
        let closed = close(&self.line, keeper).await;
        match ended {
            Ok(Ok(())) => closed,
            Ok(served) => served,
            Err(panic) => Err(Error::Socket {
                what: "the gRPC server".to_owned(),
                error: std::io::Error::other(panic),
            }),
        }
    }
}

/// Opens the journal and makes the guard over it, for commands that sign nothing.
///
/// # Errors
///
/// The journal's, with the remedy.
pub fn open_guard(config: &Config) -> Result<Guard, Error> {
    Ok(open_guard_if(config, None, &|_| Ok(()))?)
}

/// The same once `admit` has looked at what the journal says. `metrics` hears of every flush.
fn open_guard_if(
    config: &Config,
    metrics: Option<&Metrics>,
    admit: &dyn Fn(&guard::State) -> Result<(), String>,
) -> Result<Guard, hsm_journal::Error> {
    let mut options = hsm_journal::Options {
        segment_bytes: config.state.segment_bytes,
        ..hsm_journal::Options::default()
    };
    if let Some(metrics) = metrics.cloned() {
        options.observer = Some(Arc::new(move |flush| metrics.journal_flush(flush)));
    }
    let opened = hsm_journal::open_if::<guard::State>(&config.state_dir, options, admit)?;
    if opened.tail != Tail::Clean {
        tracing::warn!(
            "the journal's last frame is torn: hsmd was ended while it wrote it, and no signature for its entries \
             left; it was cut off"
        );
    }
    Ok(Guard::new(opened.state, opened.journal))
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

/// Makes the series that alerts look at before the first signature or double sign comes.
fn expect_signatures(metrics: &Metrics, policy: &Policy, state: &guard::State) {
    for grant in policy.grants() {
        let (key, chain) = (grant.key().as_str(), grant.chain_id());
        metrics.expect_chain(chain.as_str());
        let mark = state
            .pinned(key)
            .and_then(|pinned| state.mark(&pinned, chain));
        if let Some((last, made)) = mark.and_then(|it| it.mark.last.as_ref().zip(it.made.as_ref()))
            && let Ok(time) = SystemTime::try_from(made.time)
        {
            metrics.last_signed(chain.as_str(), key, last.position.height.get(), time);
        }
    }
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
    health: HealthServer<impl Health>,
    reflection: bool,
    done: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (metrics, answered_within) = (line.metrics().clone(), line.deadline());
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
        .max_concurrent_streams(MAX_REQUESTS)
        .timeout(ARRIVAL + answered_within)
        .layer(MapResponseLayer::new(move |answer| {
            explain_unreadable(&metrics, answer)
        }))
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(signer)
        .add_service(InterceptedService::new(health, identified))
        .add_optional_service(reflection.map(|it| InterceptedService::new(it, identified)))
        .serve_with_incoming_shutdown(listener.incoming(), done)
        .await?;
    Ok(())
}

/// Admits callers of any role whose certificate is valid at this moment.
#[allow(clippy::result_large_err, reason = "as tonic's interceptors are")]
fn identified(request: Request<()>) -> Result<Request<()>, Status> {
    let refused = |refusal: Refusal| refusal.status();
    let peer = service::peer(&request)?;
    peer.caller_at(SystemTime::now())
        .map_err(|error| refused(error.into()))?;
    Ok(request)
}

/// Every refusal of ours has details. An error without them was made before a service saw the request: it
/// was no message, or too long, or too slow, or there is no such call. It is counted, and gets a reason.
fn explain_unreadable<B>(metrics: &Metrics, mut answer: http::Response<B>) -> http::Response<B> {
    let unexplained = Status::from_header_map(answer.headers())
        .filter(|status| status.code() != Code::Ok && status.details().is_empty());
    if let Some(status) = unexplained {
        metrics.unreadable_request();
        // It replaces the headers of the same names. Should it fail, the first status stands.
        if let Some(explained) = Refusal::explained(&status) {
            let _ = explained.add_header(answer.headers_mut());
        }
    }
    answer
}

/// What is looked at once a second: counts of repeated refusals, the gauges of devices, journal and
/// certificate, and from these the health that is served. An error: nothing heals it but a new start.
async fn tick(
    line: Arc<Line>,
    certificates: Certificates,
    mut health: HealthReporter,
    anchor: Option<anchor::Status>,
    done: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut done = std::pin::pin!(done);
    let mut judged = HashSet::new();
    loop {
        tokio::select! {
            () = &mut done => break,
            _ = second.tick() => {}
        }
        line.guard()
            .inspect(|_| ())
            .map_err(|error| Error::Broken(error.to_string()))?;
        line.record_repeated_refusals(false);
        let metrics = line.metrics();
        let mut device_ready = false;
        name_advisories(&line, &mut judged);
        for device in line.keyring().devices() {
            let status = device.worker.status();
            device_ready |= status.state == State::Ready;
            metrics.device(&status);
        }
        let journal = line.guard().journal().status();
        metrics.journal(&journal);
        if let Some(reason) = journal.stopped {
            return Err(Error::Broken(format!("the journal ended: {reason}")));
        }
        if let Some(anchor) = anchor.as_ref().map(anchor::Status::now) {
            metrics.anchor(&anchor);
            if let (true, Some(fault)) = (anchor.moved, anchor.fault) {
                return Err(Error::Broken(fault));
            }
        }
        let serves = match device_ready && journal.fault.is_none() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        for name in HEALTH_NAMES {
            health.set_service_status(name, serves).await;
        }
        metrics.certificate_expiry(certificates.expires());
    }
    for name in HEALTH_NAMES {
        let stopping = ServingStatus::NotServing;
        health.set_service_status(name, stopping).await;
        // Ends the streams of those who watch it, which would delay the stop.
        health.clear_service_status(name).await;
    }
    Ok(())
}

/// Logs the advisories that cover a device and its keys, when it is first reached.
fn name_advisories(line: &Line, judged: &mut HashSet<String>) {
    for device in line.keyring().devices() {
        if let Some(info) = device.worker.status().info
            && judged.insert(device.name.to_string())
        {
            for finding in doctor::advisories(line.keyring(), device, &info) {
                if finding.severity() != wire::Severity::Ok {
                    let (subject, name) = (finding.subject, finding.name);
                    tracing::warn!(subject, name, "{}", finding.message);
                }
            }
        }
    }
}

/// The journal's last entries, the last of them the anchor's seal.
async fn close(line: &Line, keeper: Option<JoinHandle<anchor::Keeper>>) -> Result<(), Error> {
    line.record_repeated_refusals(true);
    let stopped = Event::DaemonStopped(wire::DaemonStopped {});
    let recorded = line.guard().record_durably(stopped, SystemTime::now());
    let recorded = tokio::time::timeout(GRACE, recorded).await;
    if let Some(keeper) = keeper {
        seal(line.guard(), keeper).await;
    }
    for device in line.keyring().devices() {
        device.worker.stop();
    }
    match recorded {
        Ok(recorded) => recorded?,
        Err(_) => {
            return Err(Error::Socket {
                what: "the journal's last entry".to_owned(),
                error: std::io::ErrorKind::TimedOut.into(),
            });
        }
    }
    Ok(line.guard().close()?)
}

/// Without a seal the next start has to prove by other means that the journal is whole.
async fn seal(guard: &Guard, keeper: JoinHandle<anchor::Keeper>) {
    let sealing = async {
        let mut keeper = keeper.await.map_err(|error| error.to_string())?;
        keeper.seal(guard).await.map_err(|error| error.to_string())
    };
    let sealed = tokio::time::timeout(GRACE, sealing).await;
    if let Err(error) = sealed.unwrap_or_else(|_| Err("it took too long".to_owned())) {
        tracing::error!(error, "the journal was not sealed");
    }
}

fn socket_error(key: &str, value: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Error {
    let what = format!("{key} {value}");
    move |error| Error::Socket { what, error }
}

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;
