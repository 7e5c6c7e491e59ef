//! The writer thread: what waits becomes one frame, one write and one flush.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::State;
use crate::disk::Disk;
use crate::error::Fault;
use crate::frame;
use crate::open::{Lock, Options};
use crate::queue::Shared;
use crate::segment::{self, Opening, Segment};
use crate::snapshot::{self, Cut, SnapshotLeaf, is_snapshot_leaf};
use crate::spare::Spare;
use crate::tree::{Hash, Tree};

/// How long the first and the later pauses between attempts to begin a segment after a fault are.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One successful write and flush, for the owner's metrics.
#[derive(Clone, Debug)]
pub struct Flush {
    /// Entries that became durable by it, the journal's own included.
    pub entries: u64,
    /// How long writing and `fdatasync` took; with `new_segment` all that beginning the segment took.
    pub duration: Duration,
    /// Whether a new segment was begun.
    pub new_segment: bool,
}

/// Is told of each flush, in the writer thread.
pub type Observer = Arc<dyn Fn(&Flush) + Send + Sync>;

/// Why a flush did not come about.
pub(crate) enum Failure {
    /// The disk's fault; heals.
    Disk(Fault),
    /// The state did not take an entry that is in the journal; does not heal.
    State(String),
}

/// Owns everything that is written.
pub(crate) struct Writer<S> {
    shared: Arc<Shared>,
    disk: Disk,
    directory: PathBuf,
    options: Options,
    /// State and tree of all durable entries.
    state: S,
    tree: Tree,
    /// Digest of the last durable frame.
    last: Hash,
    /// `None` after a fault: the segment was given up.
    segment: Option<Segment>,
    next_number: u64,
    spare: Option<Spare>,
    /// The entries that come next, in their order. All of them go into the next frame.
    pending: Vec<Vec<u8>>,
    /// Which of them is the snapshot leaf of the segment to be begun.
    snapshot_leaf: Option<usize>,
    /// What was cut from the segment before this program's first.
    cut: Option<Cut>,
    _lock: Lock,
}

/// What replay gives the writer to go on from.
pub(crate) struct Replayed<S> {
    pub(crate) state: S,
    pub(crate) tree: Tree,
    pub(crate) last: Hash,
    pub(crate) next_number: u64,
    pub(crate) cut: Option<Cut>,
}

impl<S: State> Writer<S> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        disk: Disk,
        directory: PathBuf,
        options: Options,
        replayed: Replayed<S>,
        lock: Lock,
    ) -> Self {
        let Replayed {
            state,
            tree,
            last,
            next_number,
            cut,
        } = replayed;
        Self {
            shared,
            disk,
            directory,
            options,
            state,
            tree,
            last,
            segment: None,
            next_number,
            spare: None,
            pending: Vec::new(),
            snapshot_leaf: None,
            cut,
            _lock: lock,
        }
    }

    /// The thread: writes until the journal is closed.
    pub(crate) fn run(mut self) {
        self.write_until_closed();
        if self.pending.is_empty() && self.shared.outcome().is_ok() {
            self.end();
        }
    }

    fn write_until_closed(&mut self) {
        while self.shared.wait_for_work() {
            let mut pause = FIRST_PAUSE;
            self.shared.gather();
            loop {
                let last_attempt = self.shared.take(&mut self.pending);
                match self.flush() {
                    Ok(()) => break,
                    Err(Failure::State(reason)) => return self.shared.stop(&reason),
                    Err(Failure::Disk(fault)) => {
                        self.segment = None;
                        self.shared
                            .fail(&fault, self.tree.size() + self.pending.len() as u64);
                        if last_attempt {
                            return;
                        }
                        self.shared.pause(pause);
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        }
    }

    /// Makes all pending entries durable, in a new segment where there is none or it is full.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let begin = Instant::now();
        let payload = frame::payload_size(&self.pending);
        // Until the next file is prepared, a full segment goes on behind its preallocated end: such a
        // flush has metadata to write, but nobody waits for the preparation.
        let prepared = self.spare.as_ref().is_none_or(Spare::is_finished);
        let usable = self
            .segment
            .as_mut()
            .filter(|segment| !prepared || segment.fits(payload));
        let new_segment = usable.is_none();
        let written = match usable {
            Some(segment) => segment.append(&self.disk, &self.pending),
            None => self.begin_segment(),
        };
        let hashes = written.map_err(Failure::Disk)?;
        let duration = begin.elapsed();
        let entries = self.pending.len() as u64;
        self.settle(hashes).map_err(Failure::State)?;
        if let Some(observer) = &self.options.observer {
            observer(&Flush {
                entries,
                duration,
                new_segment,
            });
        }
        Ok(())
    }

    /// The owner's state of all durable entries, as it goes into a snapshot.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        self.state.snapshot()
    }

    /// Begins the next segment, with the snapshot of what is durable and all pending entries, whose hashes it returns.
    fn begin_segment(&mut self) -> Result<Vec<Hash>, Fault> {
        let place = *self.snapshot_leaf.get_or_insert_with(|| {
            self.shared.take_and_reserve(&mut self.pending);
            self.pending.push(Vec::new());
            self.pending.len() - 1
        });
        // A number is used for one attempt only: the file of a failed one may turn up after a crash.
        let number = self.next_number;
        self.next_number += 1;
        let owner = self.state.snapshot();
        let mut leaf = SnapshotLeaf {
            segment: number,
            size: self.tree.size(),
            cut: self.cut,
            digest: [0; 32],
        };
        self.put(place, &leaf);
        // Only after a fault may it not be ready.
        let spare = self.spare.take().and_then(Spare::take);
        let room = self.options.segment_bytes;
        let needed = segment::length(
            snapshot::size(&self.tree, &owner),
            frame::payload_size(&self.pending),
            room,
        );
        let prepared = spare.as_ref().and_then(|file| file.metadata().ok());
        let length = prepared.map_or(needed, |file| file.len().max(needed));
        let snapshot;
        (snapshot, leaf.digest) = segment::snapshot_payload(length, &self.tree, &owner);
        self.put(place, &leaf);
        let opening = Opening {
            number,
            previous: self.last,
            tree: &self.tree,
            length,
            snapshot: &snapshot,
            leaves: &self.pending,
        };
        let (segment, hashes) = Segment::begin(&self.disk, &self.directory, spare, &opening)?;
        if let Some(finished) = self.segment.replace(segment) {
            finished.trim(&self.disk);
        }
        self.snapshot_leaf = None;
        self.cut = None;
        let length = segment::spare_length(snapshot.len(), room);
        self.spare = Spare::prepare(&self.disk, &self.directory, length);
        Ok(hashes)
    }

    fn put(&mut self, place: usize, leaf: &SnapshotLeaf) {
        if let Some(place) = self.pending.get_mut(place) {
            *place = leaf.encode();
        }
    }

    /// Nothing will be written any more: the head says where the journal ends, so that every later change
    /// of it can be told from a crash. Without it the end is only not known to be one.
    fn end(&self) {
        let Some(segment) = &self.segment else {
            return;
        };
        if let Err(fault) = segment.head().write(&self.disk, &self.directory) {
            tracing::warn!(%fault, "the end of the journal was not written down");
        }
    }

    /// Pending entries are durable, and these are their hashes: takes them in and tells the waiters.
    fn settle(&mut self, hashes: Vec<Hash>) -> Result<(), String> {
        for (leaf, hash) in self.pending.drain(..).zip(hashes) {
            let index = self.tree.size();
            self.tree.push(hash);
            if !is_snapshot_leaf(&leaf) {
                self.state.apply(index, &leaf).map_err(|reason| {
                    tracing::error!(
                        index,
                        reason,
                        "the state refused an entry of its own journal"
                    );
                    format!("the state does not take entry {index}: {reason}")
                })?;
            }
        }
        if let Some(segment) = &self.segment {
            self.last = segment.last();
            self.shared.publish(&self.tree, segment.number());
        }
        Ok(())
    }
}

impl<S> Drop for Writer<S> {
    /// However the thread ends, nobody waits for ever, and the lock is held until nothing writes.
    fn drop(&mut self) {
        self.shared.stop("it was closed, or its writer failed");
        self.spare = None;
    }
}
