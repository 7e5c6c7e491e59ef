//! Reading a journal's entries across all segments, for tools and auditors.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::scan::{Next, Scan, Snapshot};
use crate::segment;
use crate::tree::{Hash, Tree, leaf_hash};

/// Opens the journal in `directory` for reading, from its first segment on. Takes no lock and writes
/// nothing: the journal may be in use, and is then read up to its last whole frame.
///
/// # Errors
/// [`Error::Missing`], [`Error::Damaged`], [`Error::Io`].
pub fn read(directory: &Path) -> Result<Reader, Error> {
    let mut numbers = VecDeque::from(segment::list(directory)?);
    let first = numbers
        .pop_front()
        .ok_or_else(|| Error::Missing(directory.to_owned()))?;
    let (scan, snapshot) = Scan::open(directory, first)?;
    let mut reader = Reader {
        directory: directory.to_owned(),
        numbers,
        scan,
        following: None,
        beginning: Beginning {
            segment: first,
            index: snapshot.tree.size(),
        },
        index: snapshot.tree.size(),
        tree: snapshot.tree,
        last: snapshot.previous,
        leaves: Vec::new().into_iter(),
        ended: false,
    };
    reader.peek()?;
    Ok(reader)
}

/// The leaf with this index, from the newest segment that may hold it; `None` where the journal has none. Takes no lock
/// and writes nothing.
///
/// # Errors
/// As [`read`].
pub fn leaf_at(directory: &Path, index: u64) -> Result<Option<Vec<u8>>, Error> {
    for number in segment::list(directory)?.into_iter().rev() {
        let (mut scan, snapshot) = Scan::open(directory, number)?;
        let mut first = snapshot.tree.size();
        // Entries that a later segment goes on without do not count; so the latest that may hold it does.
        if first > index {
            continue;
        }
        while let Next::Leaves(leaves) = scan.next()? {
            let place = usize::try_from(index - first).unwrap_or(usize::MAX);
            first += leaves.len() as u64;
            if first > index {
                return Ok(leaves.into_iter().nth(place));
            }
        }
        return Ok(None);
    }
    Ok(None)
}

/// An entry, as a [`Reader`] yields it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index in the Merkle tree.
    pub index: u64,
    /// Its bytes. [`crate::is_snapshot_leaf`] tells the journal's own entries.
    pub leaf: Vec<u8>,
    /// Number of the segment that holds it.
    pub segment: u64,
}

/// Where a [`Reader`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Number of the first segment that is there.
    pub segment: u64,
    /// Index of its first entry; not 0 where the segments before it were taken away.
    pub index: u64,
}

/// Yields the entries in order, each verified: the digest and chain of its frame, and that each
/// segment goes on from exactly the tree that the entries before it make up. Ends after an error.
pub struct Reader {
    directory: PathBuf,
    /// Segments after `following`.
    numbers: VecDeque<u64>,
    scan: Scan,
    /// The segment after the one being read: entries from its tree's size on count only there.
    following: Option<(Scan, Snapshot)>,
    beginning: Beginning,
    /// Index of the next entry that is yielded.
    index: u64,
    /// The tree of all entries of the frames read.
    tree: Tree,
    /// Digest of the last frame of entries that counts.
    last: Hash,
    leaves: std::vec::IntoIter<Vec<u8>>,
    ended: bool,
}

impl Reader {
    /// Where the entries begin. What was before the first segment that is there cannot be read.
    #[must_use]
    pub fn beginning(&self) -> Beginning {
        self.beginning
    }

    /// The tree of all entries read, the present frame's included. After the last entry it is the
    /// tree of the whole journal.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    fn advance(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            if let Some(leaf) = self.leaves.next() {
                let entry = Entry {
                    index: self.index,
                    leaf,
                    segment: self.scan.number(),
                };
                self.index += 1;
                return Ok(Some(entry));
            }
            if !self.next_frame()? && !self.next_segment()? {
                return Ok(None);
            }
        }
    }

    /// Reads a frame; false if the segment holds no more that counts.
    fn next_frame(&mut self) -> Result<bool, Error> {
        let bound = self
            .following
            .as_ref()
            .map(|(_, snapshot)| snapshot.tree.size());
        if bound == Some(self.tree.size()) {
            return Ok(false);
        }
        let leaves = match (self.scan.next()?, bound) {
            (Next::Leaves(leaves), _) => leaves,
            (Next::End(_), None) => return Ok(false),
            (Next::End(_), Some(bound)) => {
                let reason = format!("entries {} to {bound} are missing", self.tree.size());
                return Err(self.scan.damaged(reason));
            }
        };
        leaves
            .iter()
            .for_each(|leaf| self.tree.push(leaf_hash(leaf)));
        self.last = self.scan.last();
        self.leaves = leaves.into_iter();
        if bound.is_some_and(|bound| bound < self.tree.size()) {
            return Err(self
                .scan
                .damaged("the next segment begins in the middle of a frame"));
        }
        Ok(true)
    }

    /// Goes on to the next segment; false if there is none.
    fn next_segment(&mut self) -> Result<bool, Error> {
        let Some((scan, snapshot)) = self.following.take() else {
            return Ok(false);
        };
        if snapshot.tree != self.tree || snapshot.previous != self.last {
            let reason = "the segment does not go on from the entries before it";
            return Err(Error::damaged(scan.path(), 0, reason));
        }
        self.scan = scan;
        self.peek()?;
        Ok(true)
    }

    /// Opens the segment after the present one, to know how much of that one counts.
    fn peek(&mut self) -> Result<(), Error> {
        if let Some(number) = self.numbers.pop_front() {
            self.following = Some(Scan::open(&self.directory, number)?);
        }
        Ok(())
    }
}

impl Iterator for Reader {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.advance().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
