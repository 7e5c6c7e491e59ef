//! From a journal and an anchor to a guard that may sign: at start, and where either is made.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use super::protocol::{Ending, Mismatch, Standing, compare, ending};
use super::{Anchor, Error, Keeper, of_deployment, tag};
use crate::config;
use crate::guard::{self, Guard, LastEntry, Signed, State, Tail};
use crate::keyring::Device;

/// Where the unit hands in the boot id, since it hides `/proc/sys`.
const BOOT_ID_VARIABLE: &str = "HSMD_BOOT_ID";
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Why hsmd does not start, or is not bound to an anchor.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The anchor cannot be read or moved.
    #[error("{0}; nothing is signed without the anchor that state.anchor names")]
    Anchor(#[from] Error),
    /// Journal and anchor do not fit.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] hsm_journal::Error),
    /// The guard.
    #[error(transparent)]
    Guard(#[from] guard::Error),
    /// The file of the last entry.
    #[error("state.anchor.last_entry {path}: {reason}")]
    LastEntry {
        /// The file.
        path: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

/// A guard that was held against its anchor.
pub struct Opened {
    /// The guard.
    pub guard: Guard,
    /// Advances the anchor; none where the configuration names none.
    pub keeper: Option<Keeper>,
    /// Whether nothing proves that the journal holds all that was signed.
    pub doubted: bool,
}

/// Opens the journal with `open`, which is given the check to be made before anything is written, and makes a start of
/// what it and the anchor say.
///
/// # Errors
///
/// See [`Failure`]: nothing may be signed.
pub async fn open(
    config: &config::Config,
    devices: &[Device],
    open: impl FnOnce(&dyn Fn(&State) -> Result<(), String>) -> Result<Guard, hsm_journal::Error>,
) -> Result<Opened, Failure> {
    let config::Anchor::In(anchored) = &config.state.anchor else {
        let admit = |state: &State| {
            let compared = compare(state.anchor(), "none", None);
            compared.map(drop).map_err(|error| error.to_string())
        };
        let (guard, keeper, doubted) = (open(&admit)?, None, false);
        return Ok(Opened {
            guard,
            keeper,
            doubted,
        });
    };
    let anchor = Anchor::of(anchored, devices)?;
    let last = last_entry(&anchored.last_entry)?;
    resume(anchor, last, anchored.pace, &config.state_dir, open).await
}

/// [`open`] with an anchor.
pub(super) async fn resume(
    anchor: Anchor,
    last: LastEntry,
    pace: config::Pace,
    directory: &Path,
    open: impl FnOnce(&dyn Fn(&State) -> Result<(), String>) -> Result<Guard, hsm_journal::Error>,
) -> Result<Opened, Failure> {
    let found = anchor.read().await?;
    let stands = |state: &State| {
        let found = of_deployment(&found, tag(state.deployment_id()));
        compare(state.anchor(), anchor.kind(), found)
    };
    let admit = |state: &State| stands(state).map(drop).map_err(|error| error.to_string());
    let guard = open(&admit)?;
    let (standing, mark, tag) = guard.inspect(|state| {
        let mark = state.anchor().cloned();
        (stands(state), mark, tag(state.deployment_id()))
    })?;
    let standing = standing?;
    let mark = mark.ok_or_else(|| guard::Error::Internal("no anchor to resume".to_owned()))?;
    if standing == Standing::Interrupted {
        tracing::warn!(
            counter = mark.counter,
            "an advance of the rollback anchor was interrupted: it is completed"
        );
        anchor.advance(tag, mark.counter, false).await?;
    }
    let ended = ending(&mark, contains(directory, &last));
    let doubted = ended == Ending::Unproven && doubt(&guard).await?;
    if ended != Ending::Sealed {
        guard.finish_advance(mark.counter)?;
    }
    let keeper = Keeper::new(anchor, tag, mark.counter, pace);
    Ok(Opened {
        guard: guard.with_last_entry(last),
        keeper: Some(keeper),
        doubted,
    })
}

/// Takes all that the ceilings allowed for signed. What is doubted already needs no new doubt, so that officers'
/// signatures over the tail that was found first stay good. Returns whether anything is in doubt.
async fn doubt(guard: &Guard) -> Result<bool, guard::Error> {
    let raised = guard.inspect(State::has_undoubted_ceilings)?;
    if raised {
        let journal = guard.journal().status();
        let tail = Tail {
            size: journal.entries,
            root: journal.root,
        };
        guard.doubt(&tail, SystemTime::now()).await?;
    }
    guard.inspect(|state| state.unproven().is_some())
}

/// Whether the journal contains the last entry that a reply of this boot relied on.
fn contains(directory: &Path, last: &LastEntry) -> bool {
    let Some((index, hash)) = last.read() else {
        return false;
    };
    match hsm_journal::leaf_at(directory, index) {
        Ok(leaf) => leaf.is_some_and(|leaf| hsm_journal::leaf_hash(&leaf) == hash),
        Err(error) => {
            tracing::warn!(%error, "the last entry cannot be looked up");
            false
        }
    }
}

/// Opens the file of the last entry, which one process may have open at a time.
fn last_entry(path: &Path) -> Result<LastEntry, Failure> {
    let failed = |reason: String| Failure::LastEntry {
        path: path.display().to_string(),
        reason,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(error.to_string()))?;
    file.try_lock()
        .map_err(|error| failed(format!("another hsmd uses it: {error}")))?;
    if !is_on_tmpfs(&file) {
        return Err(failed(
            "is not on a tmpfs, so a disk image would hold it, too: put it below /run".to_owned(),
        ));
    }
    let boot_id = match std::env::var(BOOT_ID_VARIABLE) {
        Ok(id) => Ok(id),
        Err(_) => std::fs::read_to_string(BOOT_ID_FILE),
    };
    let boot_id = boot_id.map_err(|error| {
        let hint = format!("set {BOOT_ID_VARIABLE}, as the unit does");
        failed(format!("cannot read {BOOT_ID_FILE}: {error}; {hint}"))
    })?;
    let boot_id = boot_id.trim();
    if boot_id.is_empty() || boot_id.contains('\n') {
        return Err(failed(format!("{boot_id:?} is no boot id")));
    }
    Ok(LastEntry::new(file, boot_id.to_owned()))
}

fn is_on_tmpfs(file: &File) -> bool {
    fstatfs(file).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

/// Makes the anchor of a new deployment; `None` where the configuration names none.
///
/// # Errors
///
/// [`Failure::Anchor`].
pub async fn make(
    config: &config::Config,
    devices: &[Device],
    deployment_id: &[u8],
) -> Result<Option<(&'static str, u64)>, Failure> {
    let config::Anchor::In(anchored) = &config.state.anchor else {
        return Ok(None);
    };
    let anchor = Anchor::of(anchored, devices)?;
    let counter = anchor.make(tag(deployment_id)).await?;
    Ok(Some((anchor.kind(), counter)))
}

/// Binds the journal to the anchor that the configuration names, which is made where it is not there, or to none,
/// where officers signed for that. What the ceilings allowed counts as signed. Returns kind and counter, and who signed.
///
/// # Errors
///
/// [`Failure::Mismatch`] where the anchor is ahead of the journal: such a journal is never bound anew.
pub async fn rebind(
    config: &config::Config,
    devices: &[Device],
    guard: &Guard,
    signed: &Signed,
) -> Result<(&'static str, u64, Vec<String>), Failure> {
    let now = SystemTime::now();
    let kind = config.state.anchor.name();
    // Before anything is made in a device.
    guard.may_bind_anchor(kind, signed, now)?;
    let counter = match &config.state.anchor {
        config::Anchor::None => 0,
        config::Anchor::In(anchored) => {
            let anchor = Anchor::of(anchored, devices)?;
            let found = anchor.read().await?;
            let (ahead, tag) = guard.inspect(|state| {
                let tag = tag(state.deployment_id());
                (
                    compare(state.anchor(), kind, of_deployment(&found, tag)),
                    tag,
                )
            })?;
            if let Err(ahead @ Mismatch::Ahead { .. }) = ahead {
                return Err(ahead.into());
            }
            anchor.make(tag).await?
        }
    };
    doubt(guard).await?;
    let signers = guard.bind_anchor(kind, counter, signed, now).await?;
    Ok((kind, counter, signers))
}
