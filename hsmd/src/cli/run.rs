//! `hsmd run`.

use std::io::IsTerminal as _;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Configured, Error};
use crate::config::{Config, LogFormat};
use crate::daemon::{Daemon, Started};
use crate::{devices, hardening};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Run as root. hsmd needs no privilege: give it a user of its own.
    #[arg(long)]
    allow_root: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    hardening::refuse_root(arguments.allow_root)?;
    let config = arguments.configured.load()?;
    if let Some(policy) = &config.policy {
        return Err(format!(
            "{}: policy = {:?}: `hsmd run` takes no policy from the configuration, but one that officers signed: remove \
             the line, and see `hsmd policy load`",
            config.file.display(),
            policy.display()
        )
        .into());
    }
    serve(&config, |_| Ok(()))
}

/// Serves until SIGTERM or SIGINT.
pub(super) fn serve(
    config: &Config,
    started: impl FnOnce(Started) -> Result<(), Error>,
) -> Result<(), Error> {
    start_log(config);
    hardening::harden()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let devices = devices::start(config)?;
        let daemon = Daemon::open(config, devices).await?;
        let addresses = daemon.started();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tracing::info!(address = %addresses.address, "hsmd serves");
        notify(&[sd_notify::NotifyState::Ready]);
        let watchdog = tokio::spawn(feed_watchdog());
        started(addresses)?;
        let served = daemon
            .serve(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("stopping: open requests may finish");
                notify(&[sd_notify::NotifyState::Stopping]);
            })
            .await;
        watchdog.abort();
        Ok(served?)
    })
}

fn start_log(config: &Config) {
    // The TPM library tells of every call that it makes.
    let filter = format!("{},tss_esapi=warn", config.log.level);
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        // A line that cannot be written would be reported on stderr too, and that panics.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Tells systemd, where it listens, that the runtime still schedules tasks.
async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut half = tokio::time::interval(limit / 2);
    loop {
        half.tick().await;
        notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told");
    }
}
