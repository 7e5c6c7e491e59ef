//! Creating a journal, and opening one: lock, replay, new segment.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::State;
use crate::disk::{Disk, Operation};
use crate::error::{Error, Fault};
use crate::frame;
use crate::head::Head;
use crate::journal::Journal;
use crate::queue::Shared;
use crate::scan::{Next, Scan};
use crate::segment::{self, Opening, Segment};
use crate::snapshot::{self, Cut, SnapshotLeaf, is_snapshot_leaf};
use crate::sync::thread;
use crate::tree::Tree;
use crate::writer::{Failure, Observer, Replayed, Writer};

/// How a journal is to work.
#[derive(Clone)]
pub struct Options {
    /// Bytes that a segment has for entries, beside its snapshot. 16 MiB.
    pub segment_bytes: u64,
    /// Entries that may be appended and not durable. 16,384.
    pub queue_entries: usize,
    /// Bytes that these entries may have. 16 MiB.
    pub queue_bytes: usize,
    /// Called in the writer thread after each successful flush; must be quick.
    pub observer: Option<Observer>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            queue_entries: 16_384,
            queue_bytes: 16 << 20,
            observer: None,
        }
    }
}

/// What [`open`] gives.
pub struct Opened<S> {
    /// The journal, ready for entries.
    pub journal: Journal,
    /// The state after all entries, for the caller. The writer thread has its own.
    pub state: S,
    /// How the journal ended when it was last in use.
    pub tail: Tail,
}

/// How a journal ended when it was last in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With a whole frame.
    Clean,
    /// With a frame torn by a crash, which was left out. Stays reported, across restarts too, until the
    /// owner has appended an entry after it.
    Cut(Cut),
}

/// Creates a journal in `directory`, which must be empty, or not there while its parent is.
/// `snapshot` is the owner's state before any entry, `first` the entry with index 0. On return all is
/// durable. The journal is not open: see [`open`].
///
/// # Errors
/// [`Error::Exists`], [`Error::Locked`], [`Error::TooLong`], [`Error::Reserved`], [`Error::Disk`],
/// [`Error::Io`]. After an error there is no journal, and it can be tried again.
pub fn create(directory: &Path, snapshot: &[u8], first: &[u8]) -> Result<(), Error> {
    create_on(&Disk::default(), directory, snapshot, first)
}

/// Opens the journal in `directory`: takes the lock, replays the last segment, and begins a new one
/// with a snapshot of what was replayed, flushed before it returns. (Replay reads the page cache, and
/// what was read there need not be on the disk.)
///
/// # Errors
/// [`Error::Missing`], [`Error::Locked`], [`Error::Damaged`], [`Error::State`], [`Error::Disk`],
/// [`Error::Io`]. Nothing that was durable has been changed.
pub fn open<S: State>(directory: &Path, options: Options) -> Result<Opened<S>, Error> {
    open_on(Disk::default(), directory, options, |_| Ok(()))
}

/// As [`open`], once `admit` has looked at what replay yields: where it refuses, nothing is written.
///
/// # Errors
/// As [`open`], and [`Error::NotAdmitted`] with the sentence that `admit` gave.
pub fn open_if<S: State>(
    directory: &Path,
    options: Options,
    admit: impl FnOnce(&S) -> Result<(), String>,
) -> Result<Opened<S>, Error> {
    open_on(Disk::default(), directory, options, admit)
}

/// What replaying the journal in `directory` yields, for whoever only looks. Nothing is written.
///
/// # Errors
/// As [`open`], and [`Error::Locked`] while the journal is in use.
pub fn look<S: State>(directory: &Path) -> Result<S, Error> {
    if segment::list(directory)?.is_empty() {
        return Err(Error::Missing(directory.to_owned()));
    }
    let _lock = Lock::take(directory)?;
    let highest = segment::list(directory)?.pop();
    let number = highest.ok_or_else(|| Error::Missing(directory.to_owned()))?;
    let (replayed, _) = replay::<S>(directory, number, &Head::read(directory)?)?;
    Ok(replayed.state)
}

pub(crate) fn create_on(
    disk: &Disk,
    directory: &Path,
    snapshot: &[u8],
    first: &[u8],
) -> Result<(), Error> {
    if first.len() > crate::MAX_LEAF {
        return Err(Error::TooLong(first.len()));
    }
    if is_snapshot_leaf(first) {
        return Err(Error::Reserved);
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::io("create", directory)(error));
        }
        _ => {}
    }
    let parent = directory
        .canonicalize()
        .map_err(Error::io("find", directory))?;
    let parent = parent.parent().unwrap_or(directory);
    disk.flush_directory(parent)
        .map_err(Fault::at("flush", parent))?;
    let _lock = Lock::take(directory)?;
    segment::remove_leftover(disk, directory)?;
    for file in fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let path = file.map_err(Error::io("list", directory))?.path();
        if path != Lock::path(directory) && !Head::is_of_nothing(&path) {
            return Err(Error::Exists(path));
        }
    }
    Head::default().write(disk, directory)?;
    let tree = Tree::default();
    let leaf = |digest| {
        let (segment, size, cut) = (1, 0, None);
        SnapshotLeaf {
            segment,
            size,
            cut,
            digest,
        }
        .encode()
    };
    let leaves = [first.to_vec(), leaf([0; 32])];
    // No room for more: opening the journal begins another segment.
    let size = snapshot::size(&tree, snapshot);
    let length = segment::length(size, frame::payload_size(&leaves), 0);
    let (snapshot, digest) = segment::snapshot_payload(length, &tree, snapshot);
    let opening = Opening {
        number: 1,
        previous: [0; 32],
        tree: &tree,
        length,
        snapshot: &snapshot,
        leaves: &[first.to_vec(), leaf(digest)],
    };
    Segment::begin(disk, directory, None, &opening)
        .inspect_err(|_| {
            let _ = disk.remove(&segment::path(directory, 1));
            let _ = disk.remove(&Head::path(directory));
        })
        .map(|_| ())
        .map_err(Error::Disk)
}

pub(crate) fn open_on<S: State>(
    disk: Disk,
    directory: &Path,
    options: Options,
    admit: impl FnOnce(&S) -> Result<(), String>,
) -> Result<Opened<S>, Error> {
    if segment::list(directory)?.is_empty() {
        return Err(Error::Missing(directory.to_owned()));
    }
    let lock = Lock::take(directory)?;
    segment::remove_leftover(&disk, directory)?;
    let head = Head::read(directory)?;
    let highest = segment::list(directory)?.pop();
    let number = highest.ok_or_else(|| Error::Missing(directory.to_owned()))?;
    let (replayed, scan) = replay::<S>(directory, number, &head)?;
    admit(&replayed.state).map_err(Error::NotAdmitted)?;
    let tail = replayed.cut.map_or(Tail::Clean, Tail::Cut);
    let finished = rewrite_last_frame(&disk, &scan)?;
    // The segment's name may be in the cache only, too, and the next one goes on from its entries.
    disk.flush_directory(directory)
        .map_err(Fault::at("flush", directory))?;
    let shared = Shared::new(
        replayed.tree.clone(),
        options.queue_entries,
        options.queue_bytes,
    );
    let shared = Arc::new(shared);
    let torn = replayed.cut.is_some_and(|cut| cut.segment == number);
    let mut writer = Writer::new(
        Arc::clone(&shared),
        disk.clone(),
        directory.to_owned(),
        options,
        replayed,
        lock,
    );
    writer.flush().map_err(|failure| match failure {
        Failure::Disk(fault) => Error::Disk(fault),
        Failure::State(reason) => Error::State {
            directory: directory.to_owned(),
            reason,
        },
    })?;
    if torn {
        tracing::warn!(
            ?tail,
            "the journal's last frame was torn by a crash and is left out"
        );
    } else {
        segment::trim(&disk, &finished, scan.path(), scan.offset());
    }
    let state = restore(directory, &writer.snapshot())?;
    let thread = thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || writer.run())
        .map_err(Error::io("start a thread for", directory))?;
    Ok(Opened {
        journal: Journal::new(shared, thread),
        state,
        tail,
    })
}

/// No journal gets here by itself; a file with such a name was put there.
const LAST_SEGMENT: u64 = 1 << 62;

/// Replays the newest segment: its snapshot and all entries that verify.
fn replay<S: State>(
    directory: &Path,
    number: u64,
    head: &Head,
) -> Result<(Replayed<S>, Scan), Error> {
    head.check_newest(directory, number)?;
    let (mut scan, snapshot) = Scan::open(directory, number)?;
    let mut state: S = restore(directory, &snapshot.owner)?;
    let mut tree = snapshot.tree;
    let mut used = false;
    let torn = loop {
        let (leaves, hashes) = match scan.next()? {
            Next::Leaves(leaves, hashes) => (leaves, hashes),
            Next::End(cut) => break cut,
        };
        for (leaf, hash) in leaves.into_iter().zip(hashes) {
            let index = tree.size();
            tree.push(hash);
            if !is_snapshot_leaf(&leaf) {
                used = true;
                state.apply(index, &leaf).map_err(|reason| Error::State {
                    directory: directory.to_owned(),
                    reason: format!("entry {index}: {reason}"),
                })?;
            }
        }
    };
    scan.check_end(head, torn)?;
    let cut = torn.or_else(|| scan.cut().filter(|_| !used));
    let next_number = number
        .checked_add(1)
        .filter(|next| *next < LAST_SEGMENT)
        .ok_or_else(|| scan.damaged("no number is left"))?;
    Ok((
        Replayed {
            state,
            tree,
            last: scan.last(),
            next_number,
            cut,
        },
        scan,
    ))
}

fn restore<S: State>(directory: &Path, snapshot: &[u8]) -> Result<S, Error> {
    S::restore(snapshot).map_err(|reason| Error::State {
        directory: directory.to_owned(),
        reason,
    })
}

/// The last frame was read from the page cache. After a failed flush the kernel may hold it there as
/// clean, and never write it: so it is written again, the same bytes, and flushed.
fn rewrite_last_frame(disk: &Disk, scan: &Scan) -> Result<File, Error> {
    let path = scan.path();
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::io("open", path))?;
    let (bytes, offset) = scan.last_frame();
    disk.write(Operation::Write, &file, &bytes, offset)
        .map_err(Fault::at("write", path))?;
    disk.flush(Operation::Flush, &file)
        .map_err(Fault::at("flush", path))?;
    Ok(file)
}

/// The exclusive lock on a journal's directory, held as long as this lives.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    fn path(directory: &Path) -> PathBuf {
        directory.join("lock")
    }

    fn take(directory: &Path) -> Result<Self, Error> {
        let path = Self::path(directory);
        let mut options = OpenOptions::new();
        let options = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(&path).map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked {
                    holder: holder(&file),
                    path,
                });
            }
        }
        // Only for the message above in another process; the lock holds without it.
        let _ = file
            .set_len(0)
            .and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// The process id in a lock file.
fn holder(file: &File) -> Option<u32> {
    let mut digits = [0; 16];
    let length = file.read_at(&mut digits, 0).ok()?;
    std::str::from_utf8(digits.get(..length)?)
        .ok()?
        .parse()
        .ok()
}
