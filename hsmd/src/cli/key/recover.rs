//! `hsmd key init --recovered`: a key that was restored from a backup.

use clap::Args;
use hsm_proto::v1 as wire;

use super::super::evidence::Evidence;
use super::super::state::SignedFiles;
use super::super::{Configured, Error, admin};
use crate::{daemon, devices, hardening, key, moves};

#[derive(Args)]
pub(super) struct Recovered {
    /// The key was restored from a backup, and its journal is lost. Officers sign that the old device is
    /// off; `hsmd state request recover-key` makes the document, which says the height.
    #[arg(long)]
    pub(super) recovered: bool,
    #[command(flatten)]
    signed: SignedFiles,
    #[command(flatten)]
    evidence: Evidence,
}

impl Recovered {
    /// What officers signed is not passed over in silence.
    ///
    /// # Errors
    ///
    /// Where there are files and no `--recovered`.
    pub(super) fn refuse_files(&self) -> Result<(), Error> {
        match self.signed.any() || self.evidence.any() {
            true => Err("--document, --signature and --evidence go with --recovered".into()),
            false => Ok(()),
        }
    }
}

/// Through the running daemon, or else on the journal itself.
pub(super) async fn run(
    recovered: &Recovered,
    name: &str,
    chain: &str,
    configured: &Configured,
    allow_root: bool,
) -> Result<wire::KeyState, Error> {
    let request = wire::RecoverKeyRequest {
        key: name.to_owned(),
        chain_id: chain.to_owned(),
        signed: Some(recovered.signed.read()?),
        evidence: recovered.evidence.read()?,
    };
    let config = configured.load_to_look()?;
    if let Some(mut client) = admin::find(&config.admin_socket).await? {
        let answer = client.recover_key(request).await;
        let answer = answer.map_err(|status| admin::sentence(&status))?;
        return Ok(answer.into_inner().key.unwrap_or_default());
    }
    hardening::refuse_root(allow_root)?;
    hardening::harden()?;
    let config = configured.load()?;
    let guard = daemon::open_guard(&config)?;
    let keyring = devices::keyring(&config, devices::start(&config)?)?;
    devices::pin(keyring.devices(), &guard)?;
    let made = moves::recover(&keyring, &guard, request).await;
    let key = keyring.get(name);
    let state = key.map(|key| key::key_state(key, &guard)).transpose();
    for device in keyring.devices() {
        device.worker.stop();
    }
    guard.close()?;
    made?;
    Ok(state?.unwrap_or_default())
}
