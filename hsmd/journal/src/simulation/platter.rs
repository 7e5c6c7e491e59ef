//! What has reached the disk, and what may have.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::frame::SECTOR;

type Sector = [u8; SECTOR as usize];

/// One directory's names, and the files behind them.
#[derive(Default)]
pub(super) struct Platter {
    files: Vec<Contents>,
    /// The file that has this inode number now.
    inodes: HashMap<u64, usize>,
    /// What each name has meant since the directory was last flushed; the first is durable.
    names: BTreeMap<OsString, Vec<Option<usize>>>,
}

/// A file. What was never written reads as zeros.
#[derive(Default)]
struct Contents {
    durable: BTreeMap<u64, Sector>,
    length: u64,
    /// What was written since and not flushed.
    unflushed: BTreeMap<u64, Vec<Unflushed<Sector>>>,
    lengths: Vec<Unflushed<u64>>,
}

struct Unflushed<T> {
    value: T,
    /// A flush failed that would have covered it: no later one does.
    forgotten: bool,
}

impl Platter {
    pub(super) fn of(directory: &Path) -> Self {
        let mut platter = Self::default();
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let file = File::open(entry.path()).unwrap();
            let id = platter.add(&file);
            platter.wrote(&file, 0, file.metadata().unwrap().len() as usize);
            platter.flushed(&file);
            platter.names.insert(entry.file_name(), vec![Some(id)]);
        }
        platter
    }

    fn add(&mut self, file: &File) -> usize {
        let id = self.files.len();
        self.files.push(Contents::default());
        self.inodes.insert(file.metadata().unwrap().ino(), id);
        id
    }

    /// `None`: a file from before this disk was simulated.
    fn contents(&mut self, file: &File) -> Option<&mut Contents> {
        let id = self.inodes.get(&file.metadata().unwrap().ino())?;
        self.files.get_mut(*id)
    }

    fn name(&mut self, path: &Path, file: Option<usize>) {
        let name = path.file_name().unwrap().to_owned();
        let meanings = self.names.entry(name).or_insert_with(|| vec![None]);
        meanings.push(file);
    }

    fn meaning(&self, path: &Path) -> Option<usize> {
        *self.names.get(path.file_name()?)?.last()?
    }

    pub(super) fn created(&mut self, path: &Path, file: &File) {
        let id = self.add(file);
        self.name(path, Some(id));
    }

    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        let file = self.meaning(from);
        self.name(from, None);
        self.name(to, file);
    }

    pub(super) fn removed(&mut self, path: &Path) {
        self.name(path, None);
    }

    pub(super) fn flushed_names(&mut self) {
        for meanings in self.names.values_mut() {
            meanings.drain(..meanings.len() - 1);
        }
    }

    /// Takes the sectors that a write touched from the file as it is now.
    pub(super) fn wrote(&mut self, file: &File, offset: u64, length: usize) {
        let Some(contents) = self.contents(file).filter(|_| length > 0) else {
            return;
        };
        for number in offset / SECTOR..(offset + length as u64).div_ceil(SECTOR) {
            let mut sector = [0; SECTOR as usize];
            let mut filled = 0;
            while filled < sector.len() {
                let place = number * SECTOR + filled as u64;
                match file.read_at(&mut sector[filled..], place).unwrap() {
                    0 => break,
                    read => filled += read,
                }
            }
            let versions = contents.unflushed.entry(number).or_default();
            versions.push(Unflushed {
                value: sector,
                forgotten: false,
            });
        }
        contents.lengths.push(Unflushed {
            value: file.metadata().unwrap().len(),
            forgotten: false,
        });
    }

    pub(super) fn trimmed(&mut self, file: &File, length: u64) {
        if let Some(contents) = self.contents(file) {
            contents.lengths.push(Unflushed {
                value: length,
                forgotten: false,
            });
        }
    }

    pub(super) fn flushed(&mut self, file: &File) {
        let Some(contents) = self.contents(file) else {
            return;
        };
        for (number, versions) in &mut contents.unflushed {
            if let Some(sector) = flush(versions) {
                contents.durable.insert(*number, sector);
            }
        }
        contents
            .unflushed
            .retain(|_, versions| !versions.is_empty());
        if let Some(length) = flush(&mut contents.lengths) {
            contents.length = length;
        }
    }

    pub(super) fn flush_failed(&mut self, file: &File) {
        let Some(contents) = self.contents(file) else {
            return;
        };
        for version in contents.unflushed.values_mut().flatten() {
            version.forgotten = true;
        }
        for length in &mut contents.lengths {
            length.forgotten = true;
        }
    }

    pub(super) fn survive(&self, to: &Path, mut below: impl FnMut(usize) -> usize) {
        let files: Vec<Vec<u8>> = self
            .files
            .iter()
            .map(|contents| contents.survive(&mut below))
            .collect();
        for (name, meanings) in &self.names {
            if let Some(file) = meanings[below(meanings.len())] {
                fs::write(to.join(name), &files[file]).unwrap();
            }
        }
    }
}

/// Takes what a flush makes durable: the newest version that it covers. No older one is left.
fn flush<T: Copy>(versions: &mut Vec<Unflushed<T>>) -> Option<T> {
    let newest = versions.iter().rposition(|version| !version.forgotten)?;
    let value = versions[newest].value;
    versions.drain(..=newest);
    Some(value)
}

impl Contents {
    fn survive(&self, below: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
        // Chance alone would hardly ever keep all of many sectors, or none.
        let how = below(4);
        let mut choose = |versions: usize| match how {
            0 => 0,
            1 => versions,
            _ => below(versions + 1),
        };
        let length = match choose(self.lengths.len()) {
            0 => self.length,
            nth => self.lengths[nth - 1].value,
        };
        let mut bytes = vec![0; length.next_multiple_of(SECTOR) as usize];
        let mut put = |number: u64, sector: &Sector| {
            let start = (number * SECTOR) as usize;
            if let Some(place) = bytes.get_mut(start..start + sector.len()) {
                place.copy_from_slice(sector);
            }
        };
        for (number, sector) in &self.durable {
            put(*number, sector);
        }
        for (number, versions) in &self.unflushed {
            match choose(versions.len()) {
                0 => {}
                nth => put(*number, &versions[nth - 1].value),
            }
        }
        bytes.truncate(length as usize);
        bytes
    }
}
