//! Verifying a journal's files, on all cores.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::Error;
use crate::reader::{Files, Reader};
use crate::segment;
use crate::snapshot::Cut;
use crate::tree::{Hash, Tree, leaf_hash};

/// How far something is, for another thread to look at.
#[derive(Debug, Default)]
pub struct Progress(AtomicU64);

impl Progress {
    /// What was done so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, done: u64) {
        self.0.fetch_add(done, Ordering::Relaxed);
    }
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Index of the first entry that is there.
    pub first: u64,
    /// The size of the tree.
    pub entries: u64,
    /// Its RFC 6962 root.
    pub root: Hash,
    /// The roots at the sizes asked for, where those entries are there.
    pub roots: BTreeMap<u64, Hash>,
    /// What stands behind the end of segments and does not count. After a crash, or a fault of the disk,
    /// there may be such; else somebody changed the files.
    pub uncounted: Vec<Cut>,
}

/// Verifies every segment: each frame's digest and chain, and that each segment goes on from exactly the
/// tree that the entries before it make up. Reports the tree's roots at `sizes`, too. `progress` counts
/// bytes of files.
///
/// # Errors
/// The first that [`crate::read`] would report.
pub fn verify(files: &Files, sizes: &[u64], progress: &Progress) -> Result<Verified, Error> {
    let next = AtomicUsize::new(0);
    let parts = Mutex::new(BTreeMap::new());
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let work = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(here) = files.segments.get(place..) else {
                return;
            };
            let Some((number, directory)) = here.first() else {
                return;
            };
            let pair: VecDeque<_> = here.iter().take(2).cloned().collect();
            let part = Reader::over(files, pair).and_then(|reader| check(reader, *number, sizes));
            let path = segment::path(directory, *number);
            progress.add(fs::metadata(path).map_or(0, |file| file.len()));
            let failed = part.is_err();
            let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
            parts.insert(place, part);
            if failed {
                // Those before it are being looked at; later ones need not be.
                next.store(files.segments.len(), Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let parts = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let parts: Vec<Part> = parts.into_values().collect::<Result<_, _>>()?;
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return Err(Error::Missing(files.directory.clone()));
    };
    Ok(Verified {
        first: first.first,
        entries: last.tree.size(),
        root: last.tree.root(),
        roots: parts.iter().flat_map(|part| part.roots.clone()).collect(),
        uncounted: parts
            .iter()
            .flat_map(|part| part.uncounted.clone())
            .collect(),
    })
}

struct Part {
    first: u64,
    /// All that was read: of the last segment, the tree of the journal.
    tree: Tree,
    roots: Vec<(u64, Hash)>,
    uncounted: Vec<Cut>,
}

/// Reads a segment up to the first entry of the next one: that it goes on from here is checked by then.
fn check(mut reader: Reader, number: u64, sizes: &[u64]) -> Result<Part, Error> {
    let first = reader.beginning().index;
    let mut tree = reader.tree_before().clone();
    let last_size = sizes.iter().copied().filter(|size| *size >= first).max();
    let mut roots = Vec::new();
    let note = |tree: &Tree, roots: &mut Vec<(u64, Hash)>| {
        if sizes.contains(&tree.size()) {
            roots.push((tree.size(), tree.root()));
        }
    };
    note(&tree, &mut roots);
    while let Some(leaf) = reader.next_in(number)? {
        if last_size.is_some_and(|size| tree.size() < size) {
            tree.push(leaf_hash(leaf));
            note(&tree, &mut roots);
        }
    }
    Ok(Part {
        first,
        tree: reader.tree().clone(),
        roots,
        uncounted: reader.uncounted().to_vec(),
    })
}
