//! Tests of the journal as a whole. Those of one file's code are in that file.

mod basics;
mod crashes;
mod ends;
mod faulty_disk;
mod log;
mod properties;
mod waiting;

use std::fs;
use std::path::Path;

use crate::{Entry, Error, Journal, Opened, Options, State, Ticket};

/// An owner that remembers every entry, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory(pub(crate) Vec<(u64, Vec<u8>)>);

impl State for Memory {
    fn restore(snapshot: &[u8]) -> Result<Self, String> {
        let mut entries = Vec::new();
        let mut rest = snapshot;
        while let Some((index, after)) = rest.split_first_chunk::<8>() {
            let (length, after) = after.split_first_chunk::<8>().ok_or("short")?;
            let (leaf, after) = after
                .split_at_checked(u64::from_be_bytes(*length) as usize)
                .ok_or("short")?;
            entries.push((u64::from_be_bytes(*index), leaf.to_vec()));
            rest = after;
        }
        rest.is_empty()
            .then_some(Self(entries))
            .ok_or_else(|| "left over".to_owned())
    }

    fn apply(&mut self, index: u64, leaf: &[u8]) -> Result<(), String> {
        if leaf == b"poison" {
            return Err("this entry is not for me".to_owned());
        }
        self.0.push((index, leaf.to_vec()));
        Ok(())
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (index, leaf) in &self.0 {
            bytes.extend_from_slice(&index.to_be_bytes());
            bytes.extend_from_slice(&(leaf.len() as u64).to_be_bytes());
            bytes.extend_from_slice(leaf);
        }
        bytes
    }
}

/// Small segments, so that tests cross from one to the next.
pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 1024,
        ..Options::default()
    }
}

/// A new journal with the entry "first", not open.
pub(crate) fn create(directory: &Path) {
    crate::create(directory, &[], b"first").unwrap();
}

pub(crate) fn open(directory: &Path) -> Opened<Memory> {
    crate::open(directory, small()).unwrap()
}

pub(crate) fn wait(journal: &Journal, ticket: Ticket) -> Result<(), Error> {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(journal.durable(ticket))
}

/// Appends and waits.
pub(crate) fn write(journal: &Journal, leaf: &[u8]) -> u64 {
    let ticket = journal.append(leaf.to_vec()).unwrap();
    wait(journal, ticket).unwrap();
    ticket.index()
}

/// All entries in the directory, the journal's own left out.
pub(crate) fn entries(directory: &Path) -> Vec<(u64, Vec<u8>)> {
    let all: Vec<Entry> = crate::read(directory)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for (place, entry) in all.iter().enumerate() {
        assert_eq!(
            entry.index, place as u64,
            "the entries are numbered without a gap"
        );
    }
    let owners = all
        .into_iter()
        .filter(|entry| !crate::is_snapshot_leaf(&entry.leaf));
    owners.map(|entry| (entry.index, entry.leaf)).collect()
}

/// The names of the files in the directory.
pub(crate) fn files(directory: &Path) -> Vec<String> {
    let name =
        |file: std::io::Result<fs::DirEntry>| file.unwrap().file_name().into_string().unwrap();
    fs::read_dir(directory).unwrap().map(name).collect()
}

/// Copies the segments, as a crash of the machine would leave them.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for number in crate::segment::list(from).unwrap() {
        fs::copy(
            crate::segment::path(from, number),
            crate::segment::path(to, number),
        )
        .unwrap();
    }
    let head = crate::head::Head::path;
    fs::copy(head(from), head(to)).unwrap();
}
