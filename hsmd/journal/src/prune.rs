//! Moving old segments out of the way. What remains goes on from a snapshot and stays verifiable; with the
//! archive beside it, all of it does.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use crate::error::Error;
use crate::reader::Files;
use crate::segment;
use crate::verify::{Progress, verify};

/// What was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The numbers of the segments that were moved.
    pub moved: Vec<u64>,
    /// Index of the first entry that remains.
    pub first: u64,
}

/// Moves all segments but the newest `keep`, at least 2, from the journal in `directory` to `archive`. First
/// all is verified; each file is removed only when a copy of it is durable and was read back. A process may
/// be writing the journal: it never looks at finished segments.
///
/// # Errors
/// Those of [`crate::verify`]; [`Error::Export`] where the archive holds another segment of that number;
/// [`Error::Io`]. What was not moved is where it was.
pub fn prune(
    directory: &Path,
    archive: &Path,
    keep: usize,
    progress: &Progress,
) -> Result<Pruned, Error> {
    prepare(archive)?;
    if place(directory)? == place(archive)? {
        return Err(Error::Export {
            path: archive.to_owned(),
            reason: "this is the journal itself: name another directory for the archive".to_owned(),
        });
    }
    let files = Files::new(directory, None)?;
    verify(&files, &[], progress)?;
    let keep = keep.max(2);
    let numbers: Vec<u64> = files.segments.iter().map(|(number, _)| *number).collect();
    let moved = numbers
        .get(..numbers.len().saturating_sub(keep))
        .unwrap_or_default()
        .to_vec();
    for number in &moved {
        copy(
            &segment::path(directory, *number),
            &segment::path(archive, *number),
        )?;
    }
    flush(archive)?;
    // Oldest first: what remains has no gap whenever this is cut short.
    for number in &moved {
        let path = segment::path(directory, *number);
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        flush(directory)?;
    }
    let rest = crate::reader::read_from(&Files::new(directory, None)?, 0)?;
    let first = rest.beginning().index;
    Ok(Pruned { moved, first })
}

/// Makes the archive's directory, and its name durable.
fn prepare(archive: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(archive) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::io("create", archive)(error));
        }
        _ => {}
    }
    let found = archive.canonicalize().map_err(Error::io("find", archive))?;
    found.parent().map_or(Ok(()), flush)
}

/// Which directory a path leads to, by whatever name.
fn place(directory: &Path) -> Result<(u64, u64), Error> {
    let found = fs::metadata(directory).map_err(Error::io("examine", directory))?;
    Ok((found.dev(), found.ino()))
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    if fs::exists(to).map_err(Error::io("look for", to))? {
        return match same(from, to)? {
            true => Ok(()),
            false => Err(Error::Export {
                path: to.to_owned(),
                reason: "the archive has another segment of this number: name another directory"
                    .to_owned(),
            }),
        };
    }
    let beside = to.with_extension("tmp");
    fs::copy(from, &beside).map_err(Error::io("write", &beside))?;
    let flushed = File::open(&beside).and_then(|file| file.sync_all());
    flushed.map_err(Error::io("flush", &beside))?;
    if !same(from, &beside)? {
        let error = io::Error::other("what was written reads back otherwise");
        return Err(Error::io("copy", from)(error));
    }
    fs::rename(&beside, to).map_err(Error::io("name", to))
}

fn same(one: &Path, other: &Path) -> Result<bool, Error> {
    let open = |path: &Path| File::open(path).map_err(Error::io("open", path));
    let (mut left, mut right) = (open(one)?, open(other)?);
    let length = |file: &File, path: &Path| {
        let metadata = file.metadata().map_err(Error::io("examine", path))?;
        Ok::<_, Error>(metadata.len())
    };
    if length(&left, one)? != length(&right, other)? {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = left.read(&mut ours).map_err(Error::io("read", one))?;
        let (Some(ours), Some(theirs)) = (ours.get(..read), theirs.get_mut(..read)) else {
            return Ok(false);
        };
        if read == 0 {
            return Ok(true);
        }
        right.read_exact(theirs).map_err(Error::io("read", other))?;
        if *ours != *theirs {
            return Ok(false);
        }
    }
}

fn flush(folder: &Path) -> Result<(), Error> {
    let flushed = File::open(folder).and_then(|folder| folder.sync_all());
    flushed.map_err(Error::io("flush", folder))
}
