//! `hsmd freeze` and `hsmd thaw`.

use clap::Args;
use hsm_policy::officers;
use hsm_proto::v1 as wire;

use super::holder::{self, Holder};
use super::state::SignedFiles;
use super::{Configured, Error, admin, block_on, show};
use crate::ledger::Ledger;
use crate::moves::{self, FreezeError};
use crate::service::documents;

#[derive(Args)]
pub(super) struct Freeze {
    /// The key's name; it is frozen under all of its names.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    key: Option<String>,
    /// Every key, those of later included.
    #[arg(long)]
    all: bool,
    /// Why, for the journal.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    configured: Configured,
    /// Run as root, where no daemon runs.
    #[arg(long)]
    allow_root: bool,
}

#[derive(Args)]
pub(super) struct Thaw {
    #[command(flatten)]
    signed: SignedFiles,
    #[command(flatten)]
    configured: Configured,
    /// Run as root, where no daemon runs.
    #[arg(long)]
    allow_root: bool,
}

pub(super) fn freeze(arguments: &Freeze) -> Result<(), Error> {
    let key = arguments.key.clone().unwrap_or_default();
    let what = show::frozen(&key);
    let request = wire::FreezeRequest {
        key,
        all: arguments.all,
        reason: arguments.reason.clone(),
    };
    block_on(async {
        match holder::find(&arguments.configured, arguments.allow_root).await? {
            Holder::Daemon(mut client) => {
                let answer = client.freeze(request).await;
                answer.map_err(|status| admin::sentence(&status))?;
            }
            Holder::Files(guard) => {
                let config = arguments.configured.load_to_look()?;
                let has_key = |name: &str| config.keys.iter().any(|key| key.name == name);
                let ledger = Ledger::new(config.ledger.as_ref(), &guard, config.deadline)?;
                let frozen = moves::freeze(&guard, &ledger, request, own(), has_key).await;
                guard.close()?;
                frozen?;
            }
        }
        Ok(())
    })?;
    say!("frozen: {what}, which signs nothing until officers sign for `hsmd thaw`");
    Ok(())
}

pub(super) fn thaw(arguments: &Thaw) -> Result<(), Error> {
    let signed = arguments.signed.read()?;
    let answer = block_on(async {
        match holder::find(&arguments.configured, arguments.allow_root).await? {
            Holder::Daemon(mut client) => {
                let signed = Some(signed);
                let answer = client.thaw(wire::ThawRequest { signed }).await;
                Ok(answer
                    .map_err(|status| admin::sentence(&status))?
                    .into_inner())
            }
            Holder::Files(guard) => {
                let signed = documents::signed(Some(signed));
                let config = arguments.configured.load_to_look()?;
                let ledger = Ledger::new(config.ledger.as_ref(), &guard, config.deadline)?;
                let thawed = moves::thaw(&guard, &ledger, &signed).await;
                if let Err(FreezeError::Guard(error)) = &thawed {
                    let kind = <officers::Thaw as officers::Statement>::KIND;
                    documents::journal(&guard, kind, &own(), &signed, Some(error)).await;
                }
                guard.close()?;
                Ok(thawed?)
            }
        }
    })?;
    say!(
        "{} signs again, as {} signed",
        show::frozen(&answer.key),
        answer.signers.join(" and ")
    );
    Ok(())
}

/// As the daemon sees it on its socket.
fn own() -> String {
    format!("uid {}", nix::unistd::getuid())
}
