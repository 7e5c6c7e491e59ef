//! The daemon: puts the parts together, serves until told to stop, and stops cleanly.

mod policy;
mod server;
mod stop;
mod upkeep;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hsm_journal::Tail;
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::advisories;
use crate::anchor;
use crate::audit;
use crate::config::{self, Config};
use crate::devices;
use crate::guard::{self, Guard};
use crate::in_force::{self, InForce, Read};
use crate::keyring::Device;
use crate::ledger::{self, Ledger};
use crate::line::Line;
use crate::log;
use crate::metrics::{self, Metrics};
use crate::revocation;
use crate::service::{About, AdminService, admin_socket};
use crate::transport::{self, Certificates, Listener};
use server::serve_signer;
use stop::close;
use upkeep::tick;

/// How long open requests may take to finish after the daemon was told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Why the daemon did not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No policy can be put in force.
    #[error(transparent)]
    Policy(#[from] in_force::Error),
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
    revocation: Option<config::Revocation>,
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
        let unsigned = config
            .policy
            .as_deref()
            .map(InForce::unsigned)
            .transpose()?;
        let read = match &unsigned {
            Some(_) => None,
            None => Read::newest(&config.state_dir),
        };
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
        let (read, in_force) = (Mutex::new(read), Mutex::new(unsigned));
        let opening = anchor::open(config, keyring.devices(), |admit| {
            let admit = |state: &guard::State| {
                admit(state)?;
                policy::find(config, state, &read, &in_force).map_err(|error| error.to_string())
            };
            open_guard_if(config, Some(&metrics), &admit)
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
        let in_force = in_force
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let in_force = in_force.unwrap_or_else(InForce::nothing);
        policy::tell_of(&in_force, config);
        guard.inspect(|state| expect_signatures(&metrics, &in_force, state))?;
        for (key, chain) in guard.inspect(guard::State::contested)? {
            metrics.contested(&key, &chain);
            tracing::error!(
                key,
                chain,
                "two different messages were signed at one position: see `hsmd doctor`"
            );
        }
        // The last list holds, also where hsm-enroll is out of reach.
        if let Some(list) = guard.inspect(|state| state.revocations().cloned())? {
            let refused = certificates.revoked().put(&list);
            refused.map_err(|error| guard::Error::Internal(error.to_string()))?;
            metrics.revocations(list.sequence(), false);
        }
        let about = About {
            started: SystemTime::now(),
            mock: config.has_mock(),
            state_dir: config.state_dir.clone(),
            anchor: config.state.anchor.name().to_owned(),
            anchor_status: keeper.as_ref().map(anchor::Keeper::status),
            revocation: config.revocation.as_ref().map(|_| Default::default()),
            address: listener.address(),
        };
        guard
            .record_durably(
                Event::DaemonStarted(started_entry(config, &in_force)),
                about.started,
            )
            .await?;
        let ledger =
            Ledger::new(config.ledger.as_ref(), &guard, config.deadline)?.with_metrics(&metrics);
        let line = Line::new(in_force, keyring, guard, ledger, metrics, config.deadline);
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
            revocation: config.revocation.clone(),
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
        if let Some((config, status)) = self.revocation.zip(self.about.revocation.clone()) {
            let (line, stopping) = (self.line.clone(), done(&stopped));
            let certificates = self.certificates.clone();
            tasks.spawn(async move {
                let following = revocation::follow(
                    config,
                    certificates.trust_domain().clone(),
                    line.guard(),
                    line.metrics(),
                    certificates.revoked().clone(),
                    status,
                );
                tokio::select! { () = following => {}, () = stopping => {} }
            });
        }
        let (line, certificates) = (self.line.clone(), self.certificates.clone());
        let admin = Arc::new(AdminService::new(line, certificates, self.about));
        tasks.spawn(admin_socket::serve(
            self.admin,
            admin.clone(),
            done(&stopped),
        ));
        let (line, stopping) = (self.line.clone(), done(&stopped));
        tasks.spawn(async move { line.ledger().follow(line.guard(), stopping).await });
        let mut signer = tokio::spawn(serve_signer(
            self.listener,
            self.line.clone(),
            admin,
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

/// Makes the series of keys that signed before, so that they are there from the start.
fn expect_signatures(metrics: &Metrics, in_force: &InForce, state: &guard::State) {
    for grant in in_force.policy.grants() {
        let (key, chain) = (grant.key().as_str(), grant.chain_id());
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

fn started_entry(config: &Config, in_force: &InForce) -> wire::DaemonStarted {
    let mock = config.devices.iter().filter(|device| device.is_mock());
    wire::DaemonStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mock_devices: mock.map(|device| device.name.clone()).collect(),
        policy_digest: in_force.sha256.clone(),
        policy_unsigned: in_force.is_unsigned(),
    }
}

/// Resolves once the daemon is told to stop.
async fn done_waiting(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn done(stopped: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
    done_waiting(stopped.clone())
}

fn socket_error(key: &str, value: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Error {
    let what = format!("{key} {value}");
    move |error| Error::Socket { what, error }
}

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;
