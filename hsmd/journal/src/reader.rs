//! Reading a journal's entries across all segments, for tools and auditors.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::head::Head;
use crate::scan::{Next, Scan, Snapshot};
use crate::segment;
use crate::snapshot::Cut;
use crate::tree::{Hash, Tree};

/// Opens the journal in `directory` for reading, from its first segment on. Takes no lock and writes
/// nothing: the journal may be in use, and is then read up to its last whole frame.
///
/// # Errors
/// [`Error::Missing`], [`Error::Damaged`], [`Error::Io`].
pub fn read(directory: &Path) -> Result<Reader, Error> {
    read_from(&Files::new(directory, None)?, 0)
}

/// As [`read`], from the segment on that holds entry `index`, or from the first where none does.
///
/// # Errors
/// As [`read`].
pub fn read_from(files: &Files, index: u64) -> Result<Reader, Error> {
    let mut segments = VecDeque::from(files.segments.clone());
    // What counts of a segment ends where the next one's snapshot says.
    while let Some((number, directory)) = segments.get(1)
        && Scan::first_index(directory, *number)? <= index
    {
        segments.pop_front();
    }
    Reader::over(files, segments)
}

/// A journal's files: a directory, and another one that segments were archived to.
#[derive(Clone, Debug)]
pub struct Files {
    pub(crate) directory: PathBuf,
    pub(crate) head: Head,
    /// The segments and their directories, in order.
    pub(crate) segments: Vec<(u64, PathBuf)>,
}

impl Files {
    /// The files of the journal in `directory`, and of those that [`crate::prune`] moved to `archive`.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Damaged`] where the newest segment is not there, [`Error::Io`].
    pub fn new(directory: &Path, archive: Option<&Path>) -> Result<Self, Error> {
        let mut segments = BTreeMap::new();
        let mut newest = None;
        // A process that begins a segment meanwhile does so after the head was read.
        let head = Head::read(directory);
        for place in archive.into_iter().chain([directory]) {
            let numbers = segment::list(place)?;
            newest = numbers.last().copied();
            segments.extend(numbers.into_iter().map(|number| (number, place.to_owned())));
        }
        let newest = newest.ok_or_else(|| Error::Missing(directory.to_owned()))?;
        let head = head?;
        head.check_newest(directory, newest)?;
        Ok(Self {
            directory: directory.to_owned(),
            head,
            segments: segments.into_iter().collect(),
        })
    }

    /// How many bytes all segments have.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn bytes(&self) -> Result<u64, Error> {
        let length = |(number, directory): &(u64, PathBuf)| {
            let path = segment::path(directory, *number);
            let metadata = std::fs::metadata(&path).map_err(Error::io("examine", &path))?;
            Ok(metadata.len())
        };
        self.segments.iter().map(length).sum()
    }
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
        while let Next::Leaves(leaves, _) = scan.next()? {
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
    head: Head,
    /// Segments after `following`, and where they are.
    segments: VecDeque<(u64, PathBuf)>,
    scan: Scan,
    /// The segment after the one being read: entries from its tree's size on count only there.
    following: Option<(Scan, Snapshot)>,
    beginning: Beginning,
    /// Index of the next entry that is yielded.
    index: u64,
    /// The tree before the first entry.
    before: Tree,
    /// The tree of all entries of the frames read.
    tree: Tree,
    /// Digest of the last frame of entries that counts.
    last: Hash,
    leaves: std::vec::IntoIter<Vec<u8>>,
    present: Vec<u8>,
    uncounted: Vec<Cut>,
    ended: bool,
}

impl Reader {
    /// Reads these segments of a journal, which follow each other.
    pub(crate) fn over(
        files: &Files,
        mut segments: VecDeque<(u64, PathBuf)>,
    ) -> Result<Self, Error> {
        let missing = || Error::Missing(files.directory.clone());
        let (first, directory) = segments.pop_front().ok_or_else(missing)?;
        let (scan, snapshot) = Scan::open(&directory, first)?;
        let mut reader = Self {
            directory: files.directory.clone(),
            head: files.head.clone(),
            segments,
            scan,
            following: None,
            beginning: Beginning {
                segment: first,
                index: snapshot.tree.size(),
            },
            index: snapshot.tree.size(),
            before: snapshot.tree.clone(),
            tree: snapshot.tree,
            last: snapshot.previous,
            leaves: Vec::new().into_iter(),
            present: Vec::new(),
            uncounted: Vec::new(),
            ended: false,
        };
        reader.peek()?;
        Ok(reader)
    }

    /// The next entry of segment `number`; none when the next segment was begun, or at the end.
    pub(crate) fn next_in(&mut self, number: u64) -> Result<Option<&[u8]>, Error> {
        self.present = match self.advance()? {
            Some(entry) if entry.segment == number => entry.leaf,
            _ => return Ok(None),
        };
        Ok(Some(&self.present))
    }

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

    /// What stands behind the end of the segments read and does not count: frames that a crash tore, or
    /// that a fault of the disk made the journal give up.
    #[must_use]
    pub fn uncounted(&self) -> &[Cut] {
        &self.uncounted
    }

    /// The tree of all entries before [`Reader::beginning`].
    #[must_use]
    pub fn tree_before(&self) -> &Tree {
        &self.before
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
        let (leaves, hashes) = match (self.scan.next()?, bound) {
            (Next::Leaves(leaves, hashes), _) => (leaves, hashes),
            (Next::End(torn), None) => {
                self.check_end(torn)?;
                self.uncounted.extend(torn);
                return Ok(false);
            }
            (Next::End(_), Some(bound)) => {
                let reason = format!("entries {} to {bound} are missing", self.tree.size());
                return Err(self.scan.damaged(reason));
            }
        };
        hashes.into_iter().for_each(|hash| self.tree.push(hash));
        self.last = self.scan.last();
        self.leaves = leaves.into_iter();
        if bound.is_some_and(|bound| bound < self.tree.size()) {
            return Err(self
                .scan
                .damaged("the next segment begins in the middle of a frame"));
        }
        Ok(true)
    }

    /// Whether the journal can end here, or did when its segments were listed: a process may have begun
    /// the next one since, and trimmed this one.
    fn check_end(&self, torn: Option<Cut>) -> Result<(), Error> {
        self.scan.check_end(&self.head, torn).or_else(|error| {
            let now = Head::read(&self.directory)?;
            let went_on = now.segment > self.head.segment && now.segment > self.scan.number();
            went_on.then_some(()).ok_or(error)
        })
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
        self.uncounted.extend(self.scan.left_over()?);
        self.scan = scan;
        self.peek()?;
        Ok(true)
    }

    /// Opens the segment after the present one, to know how much of that one counts.
    fn peek(&mut self) -> Result<(), Error> {
        if let Some((number, directory)) = self.segments.pop_front() {
            self.following = Some(Scan::open(&directory, number)?);
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
