//! `hsmd state init|show|export|import|officers|set-officers|request|rebind-anchor|accept-tail`.

mod carry;
mod doubt;
mod officers;

use std::time::SystemTime;

use clap::Subcommand;
use hsm_journal::State as _;
use hsm_policy::officers::Officers;
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use serde_json::json;

use super::{Configured, Error, Printed, admin, block_on, show};
use crate::anchor;
use crate::config::{Anchor, Config};
use crate::devices;
use crate::guard::State;
use crate::guard::entry;
use crate::{daemon, hardening};

pub(in crate::cli) use officers::SignedFiles;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Create the journal of a new deployment. Refused where there is one.
    Init(Init),
    /// Print every key's mark on every chain, as the running daemon holds it.
    Show(Printed),
    /// Print the marks, for another hsmd or another signer.
    Export(carry::Export),
    /// Raise marks to what another signer's state says. Nothing is ever lowered.
    Import(carry::Import),
    /// Who the deployment's officers are.
    Officers(Printed),
    /// Replace the officers, by a document that enough of the old ones signed.
    SetOfficers(officers::SetArguments),
    /// Print a document for officers to sign, with a fresh nonce.
    Request(officers::Request),
    /// Bind the state to the rollback anchor that the configuration names, which is made where it is not there, or to
    /// none, by a document that enough officers signed. hsmd must not run.
    RebindAnchor(doubt::RebindArguments),
    /// Have keys sign below their ceilings again after an unclean end, by a document that enough officers signed.
    AcceptTail(doubt::AcceptArguments),
}

#[derive(clap::Args)]
pub(super) struct Init {
    #[command(flatten)]
    officers: officers::Named,
    #[command(flatten)]
    configured: Configured,
    /// Run as root. The files then belong to root.
    #[arg(long)]
    allow_root: bool,
}

pub(super) fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::Init(init) => {
            hardening::refuse_root(init.allow_root)?;
            let config = match init.configured.load_to_look()? {
                // Only the device's secrets and settings make an anchor.
                config if config.state.anchor != Anchor::None => init.configured.load()?,
                config => config,
            };
            let officers = init.officers.read()?;
            create(&config)?;
            block_on(name_officers(&config, &officers))?;
            say!(
                "created the journal of a new deployment in {}",
                config.state_dir.display()
            );
            say!(
                "next: hsmd policy sign-request FILE, and hsmd key init NAME --chain ID --height H"
            );
            Ok(())
        }
        Command::Show(printed) => show(printed),
        Command::Export(export) => carry::export(export),
        Command::Import(import) => carry::import(import),
        Command::Officers(printed) => officers::show(printed),
        Command::SetOfficers(arguments) => officers::set(arguments),
        Command::Request(request) => officers::request(request),
        Command::RebindAnchor(arguments) => doubt::rebind(arguments),
        Command::AcceptTail(arguments) => doubt::accept(arguments),
    }
}

/// Creates the anchor, if one is configured, and the journal. Its first entry gives the deployment its id, and binds
/// it to the anchor.
pub(super) fn create(config: &Config) -> Result<(), Error> {
    if config.state_dir.join("lock").exists() {
        return Err(hsm_journal::Error::Exists(config.state_dir.clone()).into());
    }
    let mut deployment_id = vec![0; 16];
    getrandom::fill(&mut deployment_id)?;
    let anchor = match config.state.anchor {
        Anchor::None => None,
        Anchor::In(_) => block_on(make_anchor(config, &deployment_id))?,
    };
    let anchor = anchor.map(|(kind, counter)| wire::AnchorBound {
        kind: kind.to_owned(),
        counter,
        authorisation: None,
    });
    let first = entry::encode(
        SystemTime::now(),
        Event::StateCreated(wire::StateCreated {
            deployment_id,
            anchor,
        }),
    );
    hsm_journal::create(&config.state_dir, &State::default().snapshot(), &first)?;
    Ok(())
}

async fn make_anchor(
    config: &Config,
    deployment_id: &[u8],
) -> Result<Option<(&'static str, u64)>, Error> {
    let devices = devices::start(config)?;
    let made = anchor::make(config, &devices, deployment_id).await;
    for device in &devices {
        device.worker.stop();
    }
    Ok(made?)
}

async fn name_officers(config: &Config, officers: &Officers) -> Result<(), Error> {
    let guard = daemon::open_guard(config)?;
    let named = guard.name_officers(officers, SystemTime::now()).await;
    guard.close()?;
    let again = |error| {
        let directory = config.state_dir.display();
        format!(
            "the state was created without officers: remove {directory} and create it again: {error}"
        )
    };
    Ok(named.map_err(again)?)
}

fn show(printed: &Printed) -> Result<(), Error> {
    let config = printed.configured.load_to_look()?;
    let keys = block_on(async {
        let mut client = admin::connect(&config.admin_socket).await?;
        let answer = client.list_key_states(wire::ListKeyStatesRequest {}).await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner()
            .keys)
    })?;
    if printed.json {
        let keys: Vec<_> = keys.iter().map(show::key_json).collect();
        say!("{:#}", json!({ "keys": keys }));
        return Ok(());
    }
    for key in keys {
        say!("{}", key.key);
        if key.chains.is_empty() {
            say!(
                "  not made known: `hsmd key init {} --chain ID --height H`",
                key.key
            );
        }
        for chain in &key.chains {
            say!("  {}", show::chain_line(chain));
        }
    }
    Ok(())
}
