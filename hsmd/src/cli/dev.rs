//! `hsmd dev`: a whole development set-up in one directory, and the daemon over it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use hsm_proto::v1 as wire;

use super::{Error, block_on, key, run, state};
use crate::daemon::{self, Started};
use crate::development::{self, Prepared, Wanted};
use crate::hardening;

#[derive(Args)]
pub(super) struct Arguments {
    /// Where everything is put: certificates, configurations, policy, the mock's keys, the journal. Made
    /// where it is not there; a set-up made earlier goes on.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// The chain that the development sentry may sign for [default: dev-1].
    #[arg(long, value_name = "ID")]
    chain_id: Option<String>,
    /// The name of the key [default: dev].
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// Where sentries connect to [default: a free port of 127.0.0.1].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Run as root.
    #[arg(long)]
    allow_root: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    hardening::refuse_root(arguments.allow_root)?;
    let prepared = development::prepare(&Wanted {
        directory: arguments.directory.clone(),
        chain_id: arguments.chain_id.clone(),
        key: arguments.key.clone(),
        listen: arguments.listen,
    })?;
    if let Some(device) = prepared.config.devices.iter().find(|it| !it.is_mock()) {
        let (file, name) = (prepared.config.file.display(), &device.name);
        return Err(format!(
            "{file}: device {name} is no mock: what `hsmd dev` signs by is a policy that nobody signed; use `hsmd run`"
        )
        .into());
    }
    if !prepared.config.state_dir.exists() {
        state::create(&prepared.config)?;
    }
    prepared.put_key()?;
    make_key_known(&prepared)?;
    run::serve(&prepared.config, |started| {
        // Whoever closed the output still has the daemon.
        let _ = print(&prepared, started);
        Ok(())
    })
}

fn print(prepared: &Prepared, started: Started) -> Result<(), Error> {
    say!("hsmd signs with a MOCK HSM, which protects nothing: for development only");
    say!("  sentries connect to  {}", started.address);
    say!("  hsmd's config        {}", prepared.config.file.display());
    say!(
        "  hsm-sentry's config  {}",
        prepared.sentry_config.display()
    );
    say!(
        "  key, chain           {}, {}",
        prepared.key,
        prepared.chain_id
    );
    say!("  node's privval       privval.sock beside it");
    say!("stop with ctrl-c");
    Ok(())
}

/// At height 0, unless an earlier run made it known.
fn make_key_known(prepared: &Prepared) -> Result<(), Error> {
    let guard = daemon::open_guard(&prepared.config)?;
    let known = guard.pinned(&prepared.key)?.is_some();
    guard.close()?;
    if known {
        return Ok(());
    }
    let request = wire::InitKeyRequest {
        key: prepared.key.clone(),
        chain_id: prepared.chain_id.clone(),
        height: 0,
        ledger: wire::LedgerUse::None.into(),
    };
    block_on(key::init_without_daemon(&prepared.config, &request))?;
    Ok(())
}
