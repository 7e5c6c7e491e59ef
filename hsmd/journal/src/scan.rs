//! Reading one segment file, and telling a torn end from damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::frame::{self, FIELDS, Header, Kind, MAGIC, PREFIX, SECTOR, VERSION};
use crate::head::Head;
use crate::segment;
use crate::snapshot::{self, Cut, SnapshotLeaf, is_snapshot_leaf};
use crate::tree::{Hash, Tree, leaf_hash};

/// What a segment opens with.
pub(crate) struct Snapshot {
    /// Digest of the last frame that counts in the segment before.
    pub(crate) previous: Hash,
    /// The tree before the segment's first leaf.
    pub(crate) tree: Tree,
    /// The owner's bytes.
    pub(crate) owner: Vec<u8>,
}

/// What comes next in a segment.
pub(crate) enum Next {
    /// A whole frame of leaves, and their hashes.
    Leaves(Vec<Vec<u8>>, Vec<Hash>),
    /// Nothing: only zeros follow, or a torn frame.
    End(Option<Cut>),
}

/// A walk through a segment, frame by frame, each verified.
pub(crate) struct Scan {
    file: File,
    path: PathBuf,
    number: u64,
    salt: u64,
    /// How long the file was made.
    length: u64,
    /// The leaf that must be among the first, with `cut` not looked at.
    snapshot_leaf: SnapshotLeaf,
    /// Where the next frame begins.
    offset: u64,
    /// What the next frame's fields must be.
    sequence: u64,
    first: u64,
    /// The last frame that was read, and where it is.
    last: (Frame, u64),
}

/// A frame whose digest holds.
struct Frame {
    header: Header,
    digest: Hash,
    payload: Vec<u8>,
    /// Of entries, and their hashes; handed on when the frame is accepted.
    leaves: Vec<Vec<u8>>,
    hashes: Vec<Hash>,
}

impl Frame {
    /// What its digest covers.
    fn covered(&self) -> &[u8] {
        match self.header.kind {
            Kind::Snapshot => &self.payload,
            Kind::Entries => self.hashes.as_flattened(),
        }
    }
}

impl Scan {
    /// Opens a segment and reads its snapshot, which must verify.
    pub(crate) fn open(directory: &Path, number: u64) -> Result<(Self, Snapshot), Error> {
        let path = segment::path(directory, number);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let frame = frame_at(&file, 0).map_err(Error::io("read", &path))?;
        let frame = frame
            .filter(|frame| frame.header.kind == Kind::Snapshot && frame.header.segment == number)
            .ok_or_else(|| Error::damaged(&path, 0, unreadable(&file)))?;
        let size = frame.header.first;
        let (length, tree, owner) = snapshot::decode(size, &frame.payload).ok_or_else(|| {
            Error::damaged(
                &path,
                0,
                "the snapshot does not hold the tree that it names",
            )
        })?;
        let snapshot = Snapshot {
            previous: frame.header.previous,
            tree,
            owner: owner.to_vec(),
        };
        let digest = snapshot::digest(&frame.payload);
        let scan = Self {
            file,
            path,
            number,
            salt: frame.header.salt,
            length,
            snapshot_leaf: SnapshotLeaf {
                segment: number,
                size,
                cut: None,
                digest,
            },
            offset: frame::size(frame.payload.len()),
            sequence: 1,
            first: size,
            last: (frame, 0),
        };
        Ok((scan, snapshot))
    }

    /// The number of entries before a segment, as its first bytes say, unverified.
    pub(crate) fn first_index(directory: &Path, number: u64) -> Result<u64, Error> {
        let path = segment::path(directory, number);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut prefix = [0; PREFIX];
        read_up_to(&file, &mut prefix, 0).map_err(Error::io("read", &path))?;
        let header = Header::decode(&prefix).map(|(header, _)| header.first);
        header.ok_or_else(|| Error::damaged(&path, 0, unreadable(&file)))
    }

    /// The next frame's leaves, or the end.
    pub(crate) fn next(&mut self) -> Result<Next, Error> {
        if let Some(frame) = self.expected_frame()? {
            return self.accept(frame);
        }
        let (cut, later) = self.end().map_err(Error::io("read", &self.path))?;
        if later.is_none() && self.sequence > 1 {
            return Ok(Next::End(cut));
        }
        // A writer at work may have completed the frame in the meantime, and begun the one found.
        match (self.expected_frame()?, later) {
            (Some(frame), _) => self.accept(frame),
            (None, Some(later)) => Err(self.damaged(format!(
                "no frame verifies here, but a later one does at byte {later}: this is not a torn end"
            ))),
            (None, None) => Err(self.damaged("the first entries, which are written with the snapshot, do not verify")),
        }
    }

    /// For the newest segment, walked to its end with `torn` behind it: whether it can have ended there.
    /// What a process left behind is as long as it was made, and what one closed is as the head says.
    pub(crate) fn check_end(&self, head: &Head, torn: Option<Cut>) -> Result<(), Error> {
        let end = head.end.as_ref().filter(|_| head.segment == self.number);
        if let Some(end) = end {
            let here = self.offset == end.offset && self.last() == end.last && torn.is_none();
            return here.then_some(()).ok_or_else(|| {
                self.damaged(format!(
                    "the journal was closed with its end at byte {}, and that is not how it ends now",
                    end.offset
                ))
            });
        }
        let metadata = self.file.metadata();
        let length = metadata.map_err(Error::io("examine", &self.path))?.len();
        if length < self.length {
            return Err(self.damaged(format!(
                "the file was made {} bytes long and has {length}: its end was cut off",
                self.length
            )));
        }
        Ok(())
    }

    /// Where in the file something that does not count follows the entries read: not zeros only.
    pub(crate) fn left_over(&self) -> Result<Option<Cut>, Error> {
        let (cut, _) = self.end().map_err(Error::io("read", &self.path))?;
        Ok(cut)
    }

    /// What the segment's snapshot leaf says was cut from the segment before.
    pub(crate) fn cut(&self) -> Option<Cut> {
        self.snapshot_leaf.cut
    }

    /// Digest of the last frame that was read.
    pub(crate) fn last(&self) -> Hash {
        self.last.0.digest
    }

    /// The last frame that was read, byte for byte, and where it is.
    pub(crate) fn last_frame(&self) -> (Vec<u8>, u64) {
        let (frame, offset) = &self.last;
        let bytes = frame::encode(&frame.header, &frame.payload, frame.covered()).0;
        (bytes, *offset)
    }

    /// Where the next frame begins or would begin.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Damage at the place that was reached.
    pub(crate) fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::damaged(&self.path, self.offset, reason)
    }

    /// The frame at the place that was reached, if it is whole and in its place.
    fn expected_frame(&self) -> Result<Option<Frame>, Error> {
        let frame = frame_at(&self.file, self.offset).map_err(Error::io("read", &self.path))?;
        Ok(frame.filter(|Frame { header, .. }| {
            let expected = Header {
                kind: Kind::Entries,
                segment: self.number,
                salt: self.salt,
                sequence: self.sequence,
                first: self.first,
                length: header.length,
                previous: self.last(),
            };
            *header == expected
        }))
    }

    fn accept(&mut self, mut frame: Frame) -> Result<Next, Error> {
        let leaves = std::mem::take(&mut frame.leaves);
        let hashes = frame.hashes.clone();
        let mut own = leaves.iter().filter(|leaf| is_snapshot_leaf(leaf));
        if self.sequence == 1 {
            let leaf = own.next().and_then(|leaf| SnapshotLeaf::decode(leaf));
            self.snapshot_leaf = leaf
                .filter(|leaf| {
                    *leaf
                        == SnapshotLeaf {
                            cut: leaf.cut,
                            ..self.snapshot_leaf.clone()
                        }
                })
                .ok_or_else(|| {
                    self.damaged("the snapshot's digest is not among the first entries")
                })?;
        }
        if own.next().is_some() {
            return Err(self.damaged("a snapshot's digest is where no segment begins"));
        }
        self.sequence += 1;
        self.first += leaves.len() as u64;
        let offset = self.offset;
        self.offset += frame::size(frame.payload.len());
        self.last = (frame, offset);
        Ok(Next::Leaves(leaves, hashes))
    }

    /// Looks through what follows the last good frame: what is not zero there, and the place of a
    /// frame of this segment, if there is one.
    fn end(&self) -> io::Result<(Option<Cut>, Option<u64>)> {
        let mut cut = None;
        let mut chunk = vec![0; 128 * SECTOR as usize];
        let mut position = self.offset;
        loop {
            let read = read_up_to(&self.file, &mut chunk, position)?;
            let whole = chunk.get(..read).unwrap_or_default();
            for (sector, start) in whole
                .chunks(SECTOR as usize)
                .zip((position..).step_by(SECTOR as usize))
            {
                let Some(end) = sector.iter().rposition(|byte| *byte != 0) else {
                    continue;
                };
                let bytes = start + end as u64 + 1 - self.offset;
                cut = Some(Cut {
                    segment: self.number,
                    offset: self.offset,
                    bytes,
                });
                if sector.starts_with(&MAGIC)
                    && frame_at(&self.file, start)?.is_some_and(|frame| self.is_ours(&frame))
                {
                    return Ok((cut, Some(start)));
                }
            }
            if read < chunk.len() {
                return Ok((cut, None));
            }
            position += read as u64;
        }
    }

    fn is_ours(&self, frame: &Frame) -> bool {
        frame.header.segment == self.number && frame.header.salt == self.salt
    }
}

/// Why a segment's snapshot cannot be read.
fn unreadable(file: &File) -> String {
    let mut start = [0; MAGIC.len() + 1];
    match (file.read_exact_at(&mut start, 0), start.split_last()) {
        (Ok(()), Some((version, magic))) if *magic == MAGIC && *version != VERSION => {
            format!("its format is version {version}, and this program reads version {VERSION}")
        }
        _ => "the snapshot that opens the segment does not verify".to_owned(),
    }
}

/// The frame that begins at `offset`, if its digest holds.
fn frame_at(file: &File, offset: u64) -> io::Result<Option<Frame>> {
    let mut prefix = [0; PREFIX];
    if read_up_to(file, &mut prefix, offset)? < PREFIX {
        return Ok(None);
    }
    let Some((header, digest)) = Header::decode(&prefix) else {
        return Ok(None);
    };
    let start = offset + PREFIX as u64;
    let available = file.metadata()?.len().saturating_sub(start);
    let length = usize::try_from(header.length)
        .ok()
        .filter(|_| header.length <= available);
    let Some(length) = length else {
        return Ok(None);
    };
    let padded = (frame::size(length) - PREFIX as u64) as usize;
    let mut payload = vec![0; padded];
    let read = read_up_to(file, &mut payload, start)?;
    let padding = payload.drain(length..).any(|byte| byte != 0);
    if read < padded || padding {
        return Ok(None);
    }
    let fields = prefix
        .first_chunk::<FIELDS>()
        .map_or(prefix.as_slice(), |fields| fields);
    let leaves = match header.kind {
        Kind::Snapshot => Some(Vec::new()),
        Kind::Entries => frame::decode_leaves(&payload),
    };
    let Some(leaves) = leaves else {
        return Ok(None);
    };
    let hashes = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    let frame = Frame {
        header,
        digest,
        payload,
        leaves,
        hashes,
    };
    let whole = frame::digest(fields, frame.covered()) == digest;
    Ok(whole.then_some(frame))
}

/// Fills the buffer from `offset` on, as far as the file goes; returns how far that was.
fn read_up_to(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<usize> {
    let mut total = 0;
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => break,
            Ok(read) => {
                total += read;
                offset += read as u64;
                buffer = buffer
                    .split_at_mut_checked(read)
                    .map_or(&mut [], |(_, rest)| rest);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}
