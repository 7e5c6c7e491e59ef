//! Segment files: their names, how one is prepared and begun, and how frames are added.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::disk::{Disk, Operation};
use crate::error::{Error, Fault};
use crate::frame::{self, Header, Kind};
use crate::head::{End, Head};
use crate::snapshot;
use crate::sync::AtomicBool;
use crate::tree::{Hash, Tree};

/// The name under which the next segment is prepared. A file of this name holds nothing that counts.
const NEXT: &str = "next.tmp";

/// The room of a segment whose file was not prepared beforehand: soon made, so that a start or the
/// recovery from a fault takes a few milliseconds.
const ROOM_AT_ONCE: u64 = 1 << 20;

/// Zeros are written and flushed in steps of this size, so that a flush of the running segment never
/// waits behind a whole segment of them.
static ZEROS: [u8; 1 << 18] = [0; 1 << 18];

/// The file of a segment.
pub(crate) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("segment-{number:010}.log"))
}

/// The numbers of the segments in a directory, rising. A directory that is not there has none.
pub(crate) fn list(directory: &Path) -> Result<Vec<u64>, Error> {
    let mut numbers = Vec::new();
    let files = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
        files => files.map_err(Error::io("list", directory))?,
    };
    for file in files {
        let name = file.map_err(Error::io("list", directory))?.file_name();
        let digits = name
            .to_str()
            .and_then(|name| name.strip_prefix("segment-")?.strip_suffix(".log"));
        if let Some(number) = digits.and_then(|digits| digits.parse().ok())
            && path(directory, number).file_name() == Some(&name)
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// What a new segment opens with.
pub(crate) struct Opening<'a> {
    pub(crate) number: u64,
    /// Digest of the last frame that counts in the segment before.
    pub(crate) previous: Hash,
    pub(crate) tree: &'a Tree,
    /// How long the file is at least, as the snapshot says.
    pub(crate) length: u64,
    /// Payload of the snapshot frame.
    pub(crate) snapshot: &'a [u8],
    /// The leaves of the first entries frame, among them the snapshot's.
    pub(crate) leaves: &'a [Vec<u8>],
}

/// The segment that is being written.
pub(crate) struct Segment {
    file: File,
    path: PathBuf,
    header: Header,
    /// Where the next frame goes.
    offset: u64,
    /// Bytes that are preallocated.
    length: u64,
    /// Digest of the last frame.
    last: Hash,
}

impl Segment {
    /// Begins a segment in `spare`, or in a file made for it. On return the file with its snapshot and
    /// first leaves is durable under its name, and so is [`Head`], which names it. On failure nothing
    /// counts. Returns the hashes of the leaves, too.
    pub(crate) fn begin(
        disk: &Disk,
        directory: &Path,
        spare: Option<File>,
        opening: &Opening<'_>,
    ) -> Result<(Self, Vec<Hash>), Fault> {
        let path = path(directory, opening.number);
        let begun =
            Self::write_and_name(disk, directory, spare, opening, &path).inspect_err(|_| {
                // Gives the space back, which may be what is missing. Should a removal fail or not last,
                // the file holds only entries that are queued anyhow, in their places.
                let _ = disk.remove(&directory.join(NEXT));
                let _ = disk.remove(&path);
            })?;
        // From here on the file stays, since the head may name it whatever the disk said.
        let head = Head {
            segment: opening.number,
            end: None,
        };
        head.write(disk, directory)?;
        Ok(begun)
    }

    fn write_and_name(
        disk: &Disk,
        directory: &Path,
        spare: Option<File>,
        opening: &Opening<'_>,
        path: &Path,
    ) -> Result<(Self, Vec<Hash>), Fault> {
        let next = directory.join(NEXT);
        let mut header = Header {
            kind: Kind::Snapshot,
            segment: opening.number,
            salt: getrandom::u64()
                .map_err(io::Error::other)
                .map_err(Fault::at("salt", path))?,
            sequence: 0,
            first: opening.tree.size(),
            length: opening.snapshot.len() as u64,
            previous: opening.previous,
        };
        let (mut bytes, snapshot_digest) =
            frame::encode(&header, opening.snapshot, opening.snapshot);
        header = following(&header, snapshot_digest, 0);
        let leaves = frame::encode_entries(&header, opening.leaves);
        bytes.extend_from_slice(&leaves.bytes);

        let given_up = AtomicBool::new(false);
        let file = match spare {
            Some(file) => file,
            None => prepare(disk, directory, opening.length, &given_up)?,
        };
        let length = extend(disk, &file, &next, opening.length, &given_up)?;
        disk.write(Operation::Write, &file, &bytes, 0)
            .map_err(Fault::at("write", &next))?;
        disk.flush(Operation::Flush, &file)
            .map_err(Fault::at("flush", &next))?;
        disk.rename(&next, path).map_err(Fault::at("name", path))?;
        disk.flush_directory(directory)
            .map_err(Fault::at("flush", directory))?;
        let segment = Self {
            file,
            path: path.to_owned(),
            header: following(&header, leaves.digest, opening.leaves.len() as u64),
            offset: bytes.len() as u64,
            length,
            last: leaves.digest,
        };
        Ok((segment, leaves.hashes))
    }

    /// Whether a frame with this much payload fits into what is preallocated.
    pub(crate) fn fits(&self, payload: usize) -> bool {
        self.offset + frame::size(payload) <= self.length
    }

    /// Adds the leaves as one frame, durable on return; returns their hashes. After an error the segment must be given up: what is
    /// on the disk cannot be known.
    pub(crate) fn append(&mut self, disk: &Disk, leaves: &[Vec<u8>]) -> Result<Vec<Hash>, Fault> {
        let frame = frame::encode_entries(&self.header, leaves);
        disk.write(Operation::Write, &self.file, &frame.bytes, self.offset)
            .map_err(Fault::at("write", &self.path))?;
        disk.flush(Operation::Flush, &self.file)
            .map_err(Fault::at("flush", &self.path))?;
        self.header = following(&self.header, frame.digest, leaves.len() as u64);
        self.offset += frame.bytes.len() as u64;
        self.last = frame.digest;
        Ok(frame.hashes)
    }

    /// Digest of the last frame.
    pub(crate) fn last(&self) -> Hash {
        self.last
    }

    pub(crate) fn number(&self) -> u64 {
        self.header.segment
    }

    /// What the head says of a segment that ends here.
    pub(crate) fn head(&self) -> Head {
        Head {
            segment: self.number(),
            end: Some(End {
                offset: self.offset,
                last: self.last,
            }),
        }
    }

    /// Gives back the space behind the last frame. The segment is finished.
    pub(crate) fn trim(self, disk: &Disk) {
        trim(disk, &self.file, &self.path, self.offset);
    }
}

/// Cuts a finished file's zeros off. Nothing depends on it but free space.
pub(crate) fn trim(disk: &Disk, file: &File, path: &Path, length: u64) {
    if let Err(error) = disk.trim(file, length) {
        tracing::warn!(path = %path.display(), %error, "cannot trim a finished segment");
    }
}

/// The header of the entries frame that follows one with this header, digest and number of leaves.
fn following(header: &Header, digest: Hash, leaves: u64) -> Header {
    Header {
        kind: Kind::Entries,
        sequence: header.sequence + 1,
        first: header.first + leaves,
        length: 0,
        previous: digest,
        ..*header
    }
}

/// How long a file to prepare for a segment should be: a snapshot like the last one, first leaves of
/// usual size, and `room` for more.
pub(crate) fn spare_length(snapshot: usize, room: u64) -> u64 {
    frame::size(snapshot) + room.min(ROOM_AT_ONCE) + room
}

/// Makes a file of `length` zeros that are really allocated: later writes overwrite, and their flush
/// has no metadata to write. Fails soon after it was given up.
pub(crate) fn prepare(
    disk: &Disk,
    directory: &Path,
    length: u64,
    given_up: &AtomicBool,
) -> Result<File, Fault> {
    let path = directory.join(NEXT);
    remove_leftover(disk, directory)?;
    let file = disk.create(&path).map_err(Fault::at("create", &path))?;
    let extended = extend(disk, &file, &path, length, given_up);
    if extended.is_err() {
        let _ = disk.remove(&path);
    }
    extended.map(|_| file)
}

/// Removes a half-prepared file.
pub(crate) fn remove_leftover(disk: &Disk, directory: &Path) -> Result<(), Fault> {
    let path = directory.join(NEXT);
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Fault::at("remove", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Extends a file with zeros to at least `length` bytes; returns its length.
fn extend(
    disk: &Disk,
    file: &File,
    path: &Path,
    length: u64,
    given_up: &AtomicBool,
) -> Result<u64, Fault> {
    let mut end = file.metadata().map_err(Fault::at("examine", path))?.len();
    for zeros in std::iter::repeat(ZEROS.as_slice()) {
        let Some(missing) = length.checked_sub(end).filter(|missing| *missing > 0) else {
            break;
        };
        if given_up.load(Ordering::Relaxed) {
            let error = io::Error::other("it was given up");
            return Err(Fault::at("prepare", path)(error));
        }
        let zeros = zeros.get(..missing as usize).unwrap_or(zeros);
        disk.write(Operation::Zero, file, zeros, end)
            .map_err(Fault::at("write", path))?;
        disk.flush(Operation::FlushZeros, file)
            .map_err(Fault::at("flush", path))?;
        end += zeros.len() as u64;
    }
    Ok(end)
}

/// How long the file of a segment is made that opens with a snapshot and leaves of these payloads, and
/// has at most `room` bytes for more at once.
pub(crate) fn length(snapshot: usize, leaves: usize, room: u64) -> u64 {
    frame::size(snapshot) + frame::size(leaves) + room.min(ROOM_AT_ONCE)
}

/// Payload of the snapshot frame, and what its leaf says of it.
pub(crate) fn snapshot_payload(length: u64, tree: &Tree, owner: &[u8]) -> (Vec<u8>, Hash) {
    let payload = snapshot::encode(length, tree, owner);
    let digest = snapshot::digest(&payload);
    (payload, digest)
}
