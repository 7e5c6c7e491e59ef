//! Starts a task for each chain and each hsmd, and ends them in order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cometbft_p2p::IdentitySecret;
use cometbft_p2p::rand_core::OsRng;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::chain::Chain;
use crate::config::{self, Config, SignerAddress};
use crate::failover::Signers;
use crate::link::{self, Link};
use crate::metrics::{ChainMetrics, Metrics};
use crate::pin::{Pin, Pins};
use crate::signer::Signer;
use crate::tls::{self, Identity, Stamp};

/// For requests in flight at the end: the longest deadline, and time to write.
const GRACE: Duration = Duration::from_secs(5);

/// The sentry could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The metrics listener cannot be opened.
    #[error("metrics.listen = \"{address}\": {source}\n    -> free the port, or choose another")]
    Metrics {
        /// As configured.
        address: SocketAddr,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A fault of ours: a chain's task ended by itself.
    #[error(
        "a chain's task ended by itself: {0}\n    -> restart hsm-sentry, and report this as a fault"
    )]
    Ended(String),
}

/// Serves all chains until `shutdown` is done; requests in flight are then answered, for 5 s at most.
///
/// # Errors
///
/// [`Error`] where nothing was started, or where a fault of ours ends the process.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let metrics = Arc::new(Metrics::new());
    let (stop, stopped) = watch::channel(false);
    // Dropped at the end, which aborts what is left of it.
    let mut background = JoinSet::new();

    let stamp = Stamp::of(&config.tls);
    let identity = Identity::load(&config.tls)?;
    tracing::info!(
        uri = identity.uri,
        "hsmd knows this sentry by its certificate"
    );
    if identity.is_expired() {
        tracing::error!(file = %config.tls.certificate.display(), "the certificate is expired: hsmd refuses it");
    }
    metrics.certificate(identity.not_after);
    let (publish, identity) = watch::channel(identity);
    background.spawn(tls::follow(
        config.tls,
        stamp,
        publish,
        Arc::clone(&metrics),
    ));

    if let Some(address) = config.metrics {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| Error::Metrics { address, source })?;
        background.spawn(Arc::clone(&metrics).serve(listener));
    }

    let mut links = HashMap::new();
    let mut chains = JoinSet::new();
    for chain in config.chains {
        let pin = Arc::new(Pin::new(&chain));
        let signers = signers(&chain, &pin, &mut links, &metrics);
        let metrics = ChainMetrics::new(Arc::clone(&metrics), &chain);
        let chain = Chain::new(chain, signers, pin, metrics);
        chains.spawn(chain.run(IdentitySecret::generate(&mut OsRng), stopped.clone()));
    }
    for (address, (up, pins)) in links {
        let (identity, metrics) = (identity.clone(), Arc::clone(&metrics));
        background.spawn(link::keep_up(address, identity, up, pins, metrics));
    }
    background.spawn(watchdog());
    tell_systemd(NotifyState::Ready);

    let ended = tokio::select! {
        () = shutdown => None,
        Some(ended) = chains.join_next() => Some(ended),
    };
    tell_systemd(NotifyState::Stopping);
    stop.send_replace(true);
    let drained = timeout(GRACE, async { while chains.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("requests in flight were not answered in time");
    }
    match ended {
        None => Ok(()),
        Some(Ok(())) => Err(Error::Ended("without an error".to_owned())),
        Some(Err(error)) => Err(Error::Ended(error.to_string())),
    }
}

/// An hsmd's link and the pins that it is held against. Chains that name the same hsmd share it.
type Links = HashMap<SignerAddress, (watch::Sender<Link>, Pins)>;

/// The signers of a chain, in order; links that are new are noted in `links`.
fn signers(chain: &config::Chain, pin: &Arc<Pin>, links: &mut Links, metrics: &Metrics) -> Signers {
    let signers = chain.signers.iter().map(|address| {
        let metrics = metrics.signer(chain, &address.address);
        let (up, pins) = links.entry(address.clone()).or_insert_with(|| {
            let down = Link::Down("not connected yet".into());
            (watch::Sender::new(down), Pins::new(&address.address))
        });
        pins.add(Arc::clone(pin), metrics.clone());
        Signer::new(&address.address, up.subscribe(), Arc::clone(pin), metrics)
    });
    Signers::new(signers.collect())
}

/// Tells systemd that the runtime still runs tasks, twice as often as the unit asks for.
async fn watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut tick = interval(period / 2);
    loop {
        tick.tick().await;
        tell_systemd(NotifyState::Watchdog);
    }
}

/// Does nothing outside systemd.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be notified");
    }
}
