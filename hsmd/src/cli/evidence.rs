//! A file with another signer's state, on the command line.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hsm_policy::state_files::MAX_FILE;
use hsm_proto::v1 as wire;

use super::Error;
use crate::moves;

/// Who wrote the file. They count steps differently, so nothing is guessed.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// CometBFT's priv_validator_state.json.
    Cometbft,
    /// The state file of tmkms.
    Tmkms,
    /// horcrux's *_priv_validator_state.json or *_share_sign_state.json.
    Horcrux,
    /// What `hsmd state export` wrote.
    Hsmd,
}

impl Format {
    pub(super) fn format(self) -> hsm_policy::state_files::Format {
        use hsm_policy::state_files::Format as Known;
        match self {
            Format::Cometbft => Known::Cometbft,
            Format::Tmkms => Known::Tmkms,
            Format::Horcrux => Known::Horcrux,
            Format::Hsmd => Known::Hsmd,
        }
    }
}

/// What the evidence of a key from a backup may be.
#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// CometBFT's priv_validator_state.json.
    Cometbft,
    /// The state file of tmkms.
    Tmkms,
    /// horcrux's *_priv_validator_state.json or *_share_sign_state.json.
    Horcrux,
    /// What `hsmd state export` wrote.
    Hsmd,
    /// A witnessed checkpoint of the old journal, as `hsmd/journal/README.md` has it.
    Checkpoint,
    /// The value of the key's row in the ledger, as `etcdctl get KEY --print-value-only` prints it.
    LedgerRow,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Cometbft => Format::Cometbft.format().name(),
            Kind::Tmkms => Format::Tmkms.format().name(),
            Kind::Horcrux => Format::Horcrux.format().name(),
            Kind::Hsmd => Format::Hsmd.format().name(),
            Kind::Checkpoint => moves::CHECKPOINT,
            Kind::LedgerRow => moves::LEDGER_ROW,
        }
    }
}

/// What is left of a signer.
#[derive(Args)]
pub(super) struct Evidence {
    /// A file with the old signer's state.
    #[arg(long, value_name = "FILE", requires = "format")]
    evidence: Option<PathBuf>,
    /// What it is, or who wrote it.
    #[arg(long, value_enum, requires = "evidence")]
    format: Option<Kind>,
}

impl Evidence {
    /// Whether a file is named.
    pub(super) fn any(&self) -> bool {
        self.evidence.is_some()
    }

    /// Reads the file, where one is named.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, or is too long.
    pub(super) fn read(&self) -> Result<Option<wire::StateFile>, Error> {
        match (&self.evidence, self.format) {
            (Some(path), Some(format)) => Ok(Some(read_as(path, format.name())?)),
            _ => Ok(None),
        }
    }
}

/// Reads a file with a signer's state.
///
/// # Errors
///
/// Where it cannot be read, or is too long.
pub(super) fn read(path: &Path, format: Format) -> Result<wire::StateFile, Error> {
    read_as(path, format.format().name())
}

fn read_as(path: &Path, format: &str) -> Result<wire::StateFile, Error> {
    let source = path.display().to_string();
    let wrong = |error: &dyn std::fmt::Display| format!("{source}: {error}");
    let length = std::fs::metadata(path)
        .map_err(|error| wrong(&error))?
        .len();
    if length > MAX_FILE as u64 {
        return Err(wrong(&format_args!("{length} bytes: at most {MAX_FILE} are read")).into());
    }
    let content = std::fs::read(path).map_err(|error| wrong(&error))?;
    Ok(wire::StateFile {
        format: format.to_owned(),
        source,
        content,
    })
}
