//! What can go wrong, with the value concerned and the remedy.

use std::io;
use std::path::{Path, PathBuf};

/// Why a journal could not be created, opened, read or appended to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no journal in the directory. Nothing assumes an empty one.
    #[error(
        "there is no journal in {}: create that of a new deployment with `hsmd state init`, or restore the \
         directory from where it was moved to; starting without the old entries would forget what has been \
         signed",
        .0.display()
    )]
    Missing(PathBuf),

    /// A journal was to be created where there is something already.
    #[error("{} exists: a journal is only created in an empty directory; open this one, or name another directory", .0.display())]
    Exists(PathBuf),

    /// Another process has the journal open.
    #[error(
        "{} is locked by {}: only one process may write a journal; stop that one first",
        path.display(),
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Process id of the holder, as it wrote it into the lock file.
        holder: Option<u32>,
    },

    /// Bytes that were durable once do not verify. Never caused by a crash: a torn last frame is cut
    /// and reported as [`crate::Tail::Cut`].
    #[error(
        "{} is damaged at byte {offset}: {reason}; do not go on with an older copy: keep this directory as \
         evidence, check the disk, and follow the recovery for lost state",
        path.display()
    )]
    Damaged {
        /// The segment file.
        path: PathBuf,
        /// Where in it, in bytes from its start.
        offset: u64,
        /// What does not verify.
        reason: String,
    },

    /// A file could not be read, or the journal's directory not be prepared.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },

    /// The owner's state refused a snapshot or an entry of its own journal.
    #[error("the journal in {} cannot be replayed: {reason}", directory.display())]
    State {
        /// The journal's directory.
        directory: PathBuf,
        /// The owner's sentence.
        reason: String,
    },

    /// The owner refused to go on with what replay yields. Nothing was written.
    #[error("{0}")]
    NotAdmitted(String),

    /// The journal could not be created or opened, because a write or flush failed.
    #[error("{0}; check free space and the kernel's log, and try again: nothing durable is lost")]
    Disk(#[from] Fault),

    /// The entry is not durable, because a write or flush failed. It stays queued, in its place, and is
    /// written again into a new segment as soon as the disk allows.
    #[error(
        "not durable: {0}; the entry stays in force and is retried; check free space and the kernel's log"
    )]
    NotDurable(Fault),

    /// Too many entries wait for the disk. The entry was not taken.
    #[error(
        "{entries} entries wait for the disk, which is the limit; try again when it has caught up"
    )]
    Full {
        /// How many entries are accepted and not durable.
        entries: u64,
    },

    /// The entry is longer than [`crate::MAX_LEAF`] and was not taken.
    #[error("an entry of {0} bytes is too long: the limit is 65535")]
    TooLong(usize),

    /// The entry begins like a snapshot leaf of the journal itself, and was not taken.
    #[error("an entry may not begin with the bytes that mark the journal's own snapshot leaves")]
    Reserved,

    /// Asked to wait for an entry that nobody appended.
    #[error("there is no entry {index}: the journal has {entries}")]
    NotAppended {
        /// The index asked for.
        index: u64,
        /// How many entries were appended, durable or not.
        entries: u64,
    },

    /// There is no such proof.
    #[error("no proof: {0}")]
    NoProof(String),

    /// A checkpoint does not verify.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] crate::note::Error),

    /// The exported log is not of this journal, or was changed.
    #[error("{}: {reason}", path.display())]
    Export {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The journal was closed, or its writer stopped for good. Reopening it shows whether it can go on.
    #[error("the journal has stopped: {0}")]
    Stopped(String),
}

impl Error {
    /// For `map_err` on an operation on a file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Damage in a segment file.
    pub(crate) fn damaged(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_path_buf(),
            offset,
            reason: reason.into(),
        }
    }
}

/// A failed or short write, flush or rename: the disk's fault. While there is one, nothing becomes
/// durable; it ends when a new segment has been begun.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {action} {}: {detail}", path.display())]
pub struct Fault {
    action: &'static str,
    path: PathBuf,
    kind: io::ErrorKind,
    detail: String,
}

impl Fault {
    /// What kind of error the system gave; `StorageFull` is the one that an operator can mend alone.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.kind
    }

    /// For `map_err` on an operation on the disk.
    pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| Self {
            action,
            path,
            kind: error.kind(),
            detail: error.to_string(),
        }
    }
}
