//! `hsmd state export|import`: marks to and from other signers.

use std::path::PathBuf;

use clap::Args;
use hsm_proto::v1 as wire;
use serde_json::json;

use super::super::evidence::{self, Format};
use super::super::holder::{self, Holder};
use super::super::{Configured, Error, admin, block_on, out, show};
use crate::moves;

#[derive(Args)]
pub(in crate::cli) struct Export {
    /// For whom.
    #[arg(long, value_enum, default_value_t = Format::Hsmd)]
    format: Format,
    /// The key, by its name; for another signer's format.
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// The chain id; for another signer's format.
    #[arg(long, value_name = "ID")]
    chain: Option<String>,
    #[command(flatten)]
    configured: Configured,
    /// Run as root, where no daemon runs.
    #[arg(long)]
    allow_root: bool,
}

#[derive(Args)]
pub(in crate::cli) struct Import {
    /// The file with the other signer's state. Switch that signer off first, for good.
    file: PathBuf,
    /// Who wrote it.
    #[arg(long, value_enum)]
    format: Format,
    /// The key that it is about, by its name; all that it has, of an hsmd's file.
    #[arg(long, value_name = "NAME", required_if_eq_any([("format", "cometbft"), ("format", "tmkms"), ("format", "horcrux")]))]
    key: Option<String>,
    /// The chain id that it is about; all that it has, of an hsmd's file.
    #[arg(long, value_name = "ID", required_if_eq_any([("format", "cometbft"), ("format", "tmkms"), ("format", "horcrux")]))]
    chain: Option<String>,
    #[command(flatten)]
    configured: Configured,
    /// Run as root, where no daemon runs.
    #[arg(long)]
    allow_root: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `hsmd state export`.
pub(super) fn export(export: &Export) -> Result<(), Error> {
    let snapshot = block_on(async {
        match holder::find(&export.configured, export.allow_root).await? {
            Holder::Daemon(mut client) => {
                let answer = client.export_state(wire::ExportStateRequest {}).await;
                out::note(
                    "hsmd runs: what it signs from now on is not in this file. Before another signer uses it, stop \
                     hsmd for good and export again",
                );
                let answer = answer.map_err(|status| admin::sentence(&status))?;
                Ok(answer.into_inner().snapshot)
            }
            Holder::Files(guard) => {
                let snapshot = moves::export(&guard);
                guard.close()?;
                Ok(snapshot?)
            }
        }
    })?;
    let (key, chain) = (export.key.as_deref(), export.chain.as_deref());
    let text = moves::exported(&snapshot, export.format.format(), key, chain)?;
    out::whole(format_args!("{text}"))
}

/// `hsmd state import`.
pub(super) fn import(import: &Import) -> Result<(), Error> {
    let request = wire::ImportStateRequest {
        file: Some(evidence::read(&import.file, import.format)?),
        key: import.key.clone().unwrap_or_default(),
        chain_id: import.chain.clone().unwrap_or_default(),
    };
    let marks = block_on(async {
        match holder::find(&import.configured, import.allow_root).await? {
            Holder::Daemon(mut client) => {
                let answer = client.import_state(request).await;
                let answer = answer.map_err(|status| admin::sentence(&status))?;
                Ok(answer.into_inner().marks)
            }
            Holder::Files(guard) => {
                let imported = moves::import(&guard, request).await;
                let marks = imported.map(|imported| moves::imported_marks(&guard, imported));
                guard.close()?;
                Ok(marks??)
            }
        }
    })?;
    if import.json {
        let marks: Vec<_> = marks.iter().map(mark_json).collect();
        say!("{:#}", json!({ "marks": marks }));
    } else {
        for mark in &marks {
            let state = mark.state.clone().unwrap_or_default();
            say!(
                "{}: {}: {}",
                mark.key,
                mark.outcome,
                show::chain_line(&state)
            );
        }
    }
    match marks.iter().find(|mark| mark.outcome == "contested") {
        None => Ok(()),
        Some(mark) => Err(format!(
            "key {} on {}: two different messages were signed at one position, one here and one by the other \
             signer. The position is kept, and nothing more is signed there. Switch the other signer off",
            mark.key, mark.chain_id
        )
        .into()),
    }
}

fn mark_json(mark: &wire::ImportedMark) -> serde_json::Value {
    json!({
        "key": mark.key,
        "outcome": mark.outcome,
        "chain": show::chain_json(&mark.state.clone().unwrap_or_default()),
    })
}
