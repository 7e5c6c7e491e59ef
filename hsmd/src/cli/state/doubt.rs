//! `hsmd state rebind-anchor|accept-tail`: what goes on by the word of officers alone.

use clap::Args;
use hsm_journal::State as _;
use hsm_policy::officers::{AcceptTail, RebindAnchor};
use hsm_proto::v1 as wire;

use super::super::{Configured, Error, admin, block_on};
use super::SignedFiles;
use crate::guard::{Signed, State};
use crate::{anchor, daemon, devices, hardening};

#[derive(Args)]
pub(in crate::cli) struct RebindArguments {
    #[command(flatten)]
    signed: SignedFiles,
    #[command(flatten)]
    configured: Configured,
    /// Run as root.
    #[arg(long)]
    allow_root: bool,
}

#[derive(Args)]
pub(in crate::cli) struct AcceptArguments {
    #[command(flatten)]
    signed: SignedFiles,
    #[command(flatten)]
    configured: Configured,
}

#[derive(Args)]
pub(in crate::cli) struct RequestRebind {
    /// How one knows that this state directory is the newest, and that no copy of it runs: the officers sign for this.
    #[arg(long, value_name = "TEXT")]
    this_state_is_the_newest: String,
}

#[derive(Args)]
pub(in crate::cli) struct RequestAccept {
    /// How one knows that the journal holds all that was signed: the officers sign for this.
    #[arg(long, value_name = "TEXT")]
    nothing_is_missing: String,
}

/// `hsmd state rebind-anchor`.
pub(super) fn rebind(arguments: &RebindArguments) -> Result<(), Error> {
    hardening::refuse_root(arguments.allow_root)?;
    hardening::harden()?;
    let signed = arguments.signed.read()?;
    let signed = Signed {
        document: signed.document,
        signatures: signed.signatures,
    };
    let config = arguments.configured.load()?;
    let (kind, counter, signers) = block_on(async {
        let guard = daemon::open_guard(&config)?;
        let devices = devices::start(&config)?;
        let bound = anchor::rebind(&config, &devices, &guard, &signed).await;
        for device in &devices {
            device.worker.stop();
        }
        guard.close()?;
        Ok(bound?)
    })?;
    let signers = signers.join(" and ");
    match kind {
        "none" => say!("the state is bound to no anchor, as {signers} signed"),
        kind => say!("the state is bound to the {kind} anchor at {counter}, as {signers} signed"),
    }
    say!("each key signs only above its last ceiling: see `hsmd state show` when hsmd runs");
    Ok(())
}

/// `hsmd state accept-tail`.
pub(super) fn accept(arguments: &AcceptArguments) -> Result<(), Error> {
    let signed = Some(arguments.signed.read()?);
    let answer = block_on(async {
        let config = arguments.configured.load_to_look()?;
        let mut client = admin::connect(&config.admin_socket).await?;
        let answer = client.accept_tail(wire::AcceptTailRequest { signed }).await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner())
    })?;
    say!(
        "keys sign below their ceilings again, as {} signed",
        answer.signers.join(" and ")
    );
    Ok(())
}

/// From the journal's files, which must not be in use.
pub(super) fn rebind_statement(
    request: &RequestRebind,
    configured: &Configured,
) -> Result<RebindAnchor, Error> {
    let config = configured.load_to_look()?;
    let snapshot = block_on(async {
        let guard = daemon::open_guard(&config)?;
        let snapshot = guard.inspect(State::snapshot)?;
        guard.close()?;
        Ok(snapshot)
    })?;
    let state = State::restore(&snapshot)?;
    let (from, counter) = state
        .anchor()
        .map_or(("none", 0), |anchor| (anchor.kind.as_str(), anchor.counter));
    Ok(RebindAnchor {
        from: from.to_owned(),
        counter,
        to: config.state.anchor.name().to_owned(),
        this_state_is_the_newest: request.this_state_is_the_newest.clone(),
    })
}

/// From the running daemon.
pub(super) fn accept_statement(
    request: &RequestAccept,
    configured: &Configured,
) -> Result<AcceptTail, Error> {
    let status = block_on(async {
        let config = configured.load_to_look()?;
        let mut client = admin::connect(&config.admin_socket).await?;
        let answer = client.get_status(wire::GetStatusRequest {}).await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner())
    })?;
    let anchor = status.anchor_status.unwrap_or_default();
    if anchor.unproven_size == 0 {
        return Err("nothing is in doubt: see `hsmd status`".into());
    }
    Ok(AcceptTail {
        size: anchor.unproven_size,
        root: hex::encode(&anchor.unproven_root),
        nothing_is_missing: request.nothing_is_missing.clone(),
    })
}
