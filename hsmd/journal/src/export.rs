//! The log as a directory that any web server can serve, and its verification.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use crate::error::Error;
use crate::frame;
use crate::note::{Checkpoint, Note, Verifier};
use crate::reader::{Files, read_from};
use crate::tiles::{Tile, Tiles, WIDTH, bundle_path, edge_paths, levels};
use crate::verify::Progress;

/// The file of the signed checkpoint, beside the folder `tile`.
pub const CHECKPOINT: &str = "checkpoint";

/// What an export did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// How many entries the directory had before.
    pub before: u64,
    /// How many it has now: those of the checkpoint.
    pub size: u64,
}

/// Brings the directory `to` up to the checkpoint `note`: the tiles and entry bundles of its tree, and last
/// the note itself. What is there of an earlier export of this log stays, and must be of the same tree.
/// Durable on return. `progress` counts entries.
///
/// # Errors
/// [`Error::Checkpoint`] where the note is not signed by the log's key; [`Error::Export`] where the
/// directory or the note is of another tree; [`Error::NoProof`] where entries are needed that were
/// archived elsewhere; those of [`crate::read`].
pub fn export(
    files: &Files,
    to: &Path,
    note: &Note,
    verifier: &Verifier,
    progress: &Progress,
) -> Result<Exported, Error> {
    let checkpoint = Checkpoint::verify(note, verifier)?;
    fs::create_dir_all(to).map_err(Error::io("create", to))?;
    let before = match fs::read_to_string(to.join(CHECKPOINT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => {
            let text = read.map_err(Error::io("read", &to.join(CHECKPOINT)))?;
            Some(Checkpoint::verify(&Note::from_str(&text)?, verifier)?)
        }
    };
    let old = before.as_ref().map_or(0, |before| before.size);
    if old > checkpoint.size {
        return Err(wrong(
            to,
            format!("it has {old} entries, more than the checkpoint"),
        ));
    }
    let mut tiles = edge(to, old)?;
    if before.is_some_and(|before| before.root != tiles.tree().root()) {
        return Err(wrong(
            to,
            "its tiles are not those of its checkpoint".to_owned(),
        ));
    }
    let mut reader = read_from(files, old)?;
    if reader.beginning().index > old {
        return Err(Error::NoProof(format!(
            "entries from {old} on are needed, and those before {} were archived: name that directory",
            reader.beginning().index
        )));
    }
    let mut tree = reader.tree_before().clone();
    let mut folders = BTreeSet::new();
    while tiles.tree().size() < checkpoint.size {
        let Some(entry) = reader.next().transpose()? else {
            return Err(wrong(
                to,
                format!("the journal ends before entry {}", checkpoint.size),
            ));
        };
        if entry.index < old {
            tree.push(crate::tree::leaf_hash(&entry.leaf));
            continue;
        }
        if entry.index == old && tree != *tiles.tree() {
            return Err(wrong(
                to,
                format!("its first {old} entries are not this journal's"),
            ));
        }
        for tile in tiles.push(&entry.leaf) {
            put(to, &tile, &mut folders)?;
        }
        progress.add(1);
    }
    if tiles.tree().root() != checkpoint.root {
        return Err(wrong(
            to,
            "the checkpoint is not of this journal's tree".to_owned(),
        ));
    }
    for tile in tiles.partial() {
        put(to, &tile, &mut folders)?;
    }
    let found = to.canonicalize().map_err(Error::io("find", to))?;
    folders.extend(found.parent().map(Path::to_owned));
    for folder in &folders {
        flush(folder)?;
    }
    replace_file(&to.join(CHECKPOINT), note.to_string().as_bytes())?;
    remove_partial(to, old, checkpoint.size)?;
    let size = checkpoint.size;
    Ok(Exported { before: old, size })
}

/// Checks an exported log without the journal: the checkpoint's signature, that every tile is what the
/// entries make it, and that no other file is there than those and `others`. `progress` counts bytes of
/// entries.
///
/// # Errors
/// [`Error::Checkpoint`], [`Error::Export`] naming the file, [`Error::Io`].
pub fn verify_export(
    directory: &Path,
    verifier: &Verifier,
    others: &[&str],
    progress: &Progress,
) -> Result<Checkpoint, Error> {
    let path = directory.join(CHECKPOINT);
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let checkpoint = Checkpoint::verify(&Note::from_str(&text)?, verifier)?;
    let mut known: BTreeSet<PathBuf> = others.iter().map(|name| directory.join(name)).collect();
    known.insert(path);
    let mut tiles = Tiles::default();
    let size = checkpoint.size;
    let mut check = |tile: &Tile| {
        let path = directory.join(&tile.path);
        let found = fs::read(&path).map_err(Error::io("read", &path))?;
        if found != tile.content {
            return Err(wrong(
                &path,
                "it is not what the entries make it".to_owned(),
            ));
        }
        known.insert(path);
        Ok(())
    };
    for first in (0..size).step_by(WIDTH as usize) {
        let width = (size - first).min(WIDTH);
        let path = directory.join(bundle_path(first, width));
        let bundle = fs::read(&path).map_err(Error::io("read", &path))?;
        progress.add(bundle.len() as u64);
        let entries = frame::decode_leaves(&bundle)
            .filter(|entries| entries.len() as u64 == width)
            .ok_or_else(|| wrong(&path, format!("it does not hold {width} entries")))?;
        for entry in entries {
            tiles.push(&entry).iter().try_for_each(&mut check)?;
        }
    }
    tiles.partial().iter().try_for_each(&mut check)?;
    if tiles.tree().root() != checkpoint.root {
        return Err(wrong(
            directory,
            "its entries do not make the checkpoint's tree".to_owned(),
        ));
    }
    no_other(directory, &known)?;
    Ok(checkpoint)
}

/// Replaces a file: a new one beside it, flushed, renamed, and the folder flushed.
///
/// # Errors
/// [`Error::Io`]; the old one is there then, or the new one, whole.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    write_beside(path, content)?;
    flush(path.parent().unwrap_or(path))
}

fn write_beside(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(content)?;
        file.sync_data()?;
        fs::rename(&beside, path)
    };
    write().map_err(Error::io("write", path))
}

fn flush(folder: &Path) -> Result<(), Error> {
    let flushed = File::open(folder).and_then(|folder| folder.sync_all());
    flushed.map_err(Error::io("flush", folder))
}

fn wrong(path: &Path, reason: String) -> Error {
    let path = path.to_owned();
    Error::Export { path, reason }
}

/// The tiles as they were at `size`, to go on from.
fn edge(directory: &Path, size: u64) -> Result<Tiles, Error> {
    let mut edge = vec![Vec::new(); levels(size)];
    for (path, level) in edge_paths(size) {
        let path = directory.join(path);
        let content = fs::read(&path).map_err(Error::io("read", &path))?;
        let (hashes, rest) = content.as_chunks::<32>();
        if let (Some(tile), []) = (edge.get_mut(level), rest) {
            *tile = hashes.to_vec();
        }
    }
    let mut bundle = Vec::new();
    if !size.is_multiple_of(WIDTH) {
        let path = directory.join(bundle_path(size - size % WIDTH, size % WIDTH));
        bundle = fs::read(&path).map_err(Error::io("read", &path))?;
        let hashes = frame::decode_leaves(&bundle).unwrap_or_default();
        let hashes: Vec<_> = hashes.iter().map(|leaf| crate::leaf_hash(leaf)).collect();
        if edge.first() != Some(&hashes) {
            return Err(wrong(
                &path,
                "it does not hold the entries of its tile".to_owned(),
            ));
        }
    }
    Tiles::resume(size, edge, bundle).ok_or_else(|| {
        wrong(
            directory,
            format!("its tiles are not those of {size} entries"),
        )
    })
}

/// Writes a tile, or finds it there as it should be: it never changes.
fn put(directory: &Path, tile: &Tile, folders: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
    let path = directory.join(&tile.path);
    match fs::read(&path) {
        Ok(found) if found == tile.content => return Ok(()),
        Ok(_) => return Err(wrong(&path, "another tile is there".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("read", &path)(error)),
    }
    let folder = path.parent().unwrap_or(directory);
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    // Each folder down to this one may be new.
    let above = folder
        .ancestors()
        .take_while(|above| above.starts_with(directory));
    folders.extend(above.map(Path::to_owned));
    write_beside(&path, &tile.content)
}

/// Removes the tiles that were not full at size `old` and are replaced by fuller ones.
fn remove_partial(directory: &Path, old: u64, new: u64) -> Result<(), Error> {
    let partial = |size: u64| {
        let tiles = edge_paths(size).into_iter().map(|(path, _)| path);
        let bundle =
            (!size.is_multiple_of(WIDTH)).then(|| bundle_path(size - size % WIDTH, size % WIDTH));
        tiles.chain(bundle).collect::<BTreeSet<String>>()
    };
    for path in partial(old).difference(&partial(new)) {
        let path = directory.join(path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
        // The folder `NNN.p` goes when nothing is left in it.
        let _ = path.parent().map(fs::remove_dir);
    }
    Ok(())
}

fn no_other(folder: &Path, known: &BTreeSet<PathBuf>) -> Result<(), Error> {
    for file in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = file.map_err(Error::io("list", folder))?.path();
        if path.is_dir() {
            no_other(&path, known)?;
        } else if !known.contains(&path) {
            return Err(wrong(
                &path,
                "it is no part of the log of this checkpoint".to_owned(),
            ));
        }
    }
    Ok(())
}
