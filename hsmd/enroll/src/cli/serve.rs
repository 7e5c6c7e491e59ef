//! `hsm-enroll init` and `hsm-enroll serve`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use sha2::{Digest as _, Sha256};

use super::{Configured, Error, block_on, feed_watchdog, harden, notify, say, signals, start_log};
use crate::daemon::{self, Daemon};
use crate::register;

#[derive(Args)]
pub(super) struct Init {
    #[command(flatten)]
    configured: Configured,
    /// Write a certificate request for the CA's key here, for an offline root to sign, in the place of a root of its
    /// own.
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct Serve {
    #[command(flatten)]
    configured: Configured,
    /// Run as root. hsm-enroll needs no privilege: give it a user of its own.
    #[arg(long)]
    allow_root: bool,
}

pub(super) fn init(arguments: &Init) -> Result<(), Error> {
    // It opens the CA's device, with its PIN.
    harden(true)?;
    let config = arguments.configured.load()?;
    block_on(async {
        let key = daemon::find_key(&config).await?;
        match &arguments.request {
            Some(file) => {
                write_new(file, &key.request(&config.trust_domain).await?)?;
                let (file, certificate) = (file.display(), config.ca.certificate.display());
                say(format_args!(
                    "wrote {file}: have the root sign it as a CA, and put the certificate into {certificate}"
                ))?;
            }
            // One that is there is the key's, or `serve` says so.
            None if config.ca.certificate.exists() => {}
            None => {
                let root = key.root(&config.trust_domain).await?;
                write_new(&config.ca.certificate, &root)?;
                say(format_args!("wrote {}", config.ca.certificate.display()))?;
                let fingerprint = Sha256::digest(pem_content(&root));
                say(format_args!("fingerprint {}", hex::encode(fingerprint)))?;
            }
        }
        let (snapshot, first) = register::creation(&config.trust_domain);
        hsm_journal::create(&config.state_dir, &snapshot, &first)?;
        say(format_args!(
            "created the register in {}",
            config.state_dir.display()
        ))
    })
}

pub(super) fn serve(arguments: &Serve) -> Result<(), Error> {
    let config = arguments.configured.load()?;
    start_log(&config.log.level, config.log.json);
    harden(arguments.allow_root)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let daemon = Daemon::open(&config).await?;
        let shutdown = signals()?;
        let (address, fingerprint) = daemon.started();
        let address = address
            .map(|address| address.to_string())
            .unwrap_or_default();
        tracing::info!(address, fingerprint, "hsm-enroll serves");
        notify(&[sd_notify::NotifyState::Ready]);
        let watchdog = tokio::spawn(feed_watchdog());
        let served = daemon.serve(shutdown).await;
        watchdog.abort();
        Ok(served?)
    })
}

fn pem_content(pem: &str) -> Vec<u8> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).map_or_else(|_| Vec::new(), |der| der.to_vec())
}

/// A certificate is not secret, and is never overwritten.
fn write_new(path: &Path, text: &str) -> Result<(), Error> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| format!("{}: {error}", path.display()).into())
}
