//! How long a start takes after a long history, and how fast verifying goes beside plain SHA-256 over the same files.
//!
//! `cargo run --release -p hsm-journal --example history -- DIRECTORY [ENTRIES]`; 10 million entries of 200 bytes
//! without a number. The directory is made, and not removed.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement fails by panicking"
)]

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

use hsm_journal::{Error, Files, Journal, Options, Progress, State, Urgency, verify};
use sha2::{Digest as _, Sha256};

/// A state as large as that of a thousand keys.
struct Marks(u64);

impl State for Marks {
    fn restore(snapshot: &[u8]) -> Result<Self, String> {
        let count = snapshot.first_chunk().ok_or("short")?;
        Ok(Self(u64::from_be_bytes(*count)))
    }

    fn apply(&mut self, _: u64, _: &[u8]) -> Result<(), String> {
        self.0 += 1;
        Ok(())
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = self.0.to_be_bytes().to_vec();
        bytes.resize(300_000, 7);
        bytes
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = Path::new(arguments.first().expect("a directory"));
    let entries = arguments.get(1).map_or(10_000_000, |n| n.parse().unwrap());
    if !directory.exists() {
        hsm_journal::create(directory, &Marks(0).snapshot(), b"first").unwrap();
        fill(directory, entries);
    }
    for _ in 0..3 {
        let begin = Instant::now();
        let opened = hsm_journal::open::<Marks>(directory, Options::default()).unwrap();
        let took = begin.elapsed();
        println!(
            "start after {} entries: {took:.2?}",
            opened.journal.status().entries
        );
    }
    let files = Files::new(directory, None).unwrap();
    let bytes = files.bytes().unwrap() as f64 / 1e6;
    for _ in 0..3 {
        let plain = rate(bytes, || sha256(directory));
        let ours = rate(bytes, || {
            verify(&files, &[], &Progress::default()).unwrap();
        });
        println!(
            "{bytes:.0} MB: sha256 {plain:.0} MB/s, verify {ours:.0} MB/s, ratio {:.2}",
            ours / plain
        );
    }
}

fn fill(directory: &Path, entries: u64) {
    let opened = hsm_journal::open::<Marks>(directory, Options::default()).unwrap();
    for n in 0..entries {
        let mut leaf = n.to_be_bytes().to_vec();
        leaf.resize(200, 5);
        append(&opened.journal, leaf);
    }
    opened.journal.close().unwrap();
}

fn append(journal: &Journal, leaf: Vec<u8>) {
    // The queue is full until the disk has caught up.
    while let Err(error) = journal.append(leaf.clone(), Urgency::WithNext) {
        assert!(matches!(error, Error::Full { .. }), "{error}");
        std::thread::yield_now();
    }
}

fn sha256(directory: &Path) {
    for file in fs::read_dir(directory).unwrap() {
        let mut file = File::open(file.unwrap().path()).unwrap();
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).unwrap() {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        std::hint::black_box(hasher.finalize());
    }
}

fn rate(megabytes: f64, work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    megabytes / begin.elapsed().as_secs_f64()
}
