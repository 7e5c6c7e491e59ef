//! What disk and processor could do at best.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer, SigningKey};

use crate::driver::Times;

/// About the size of one reservation with its frame, in bytes.
const ENTRY: usize = 512;
/// The size of the preallocated file, in bytes.
const FILE: usize = 16 << 20;

/// A preallocated file to which small records are written, each flushed by fdatasync.
pub(crate) struct Flusher {
    file: File,
    path: PathBuf,
    offset: u64,
}

impl Flusher {
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&path)
            .expect("a file");
        file.write_all_at(&vec![0; FILE], 0)
            .expect("the file preallocated");
        file.sync_all().expect("the file flushed");
        Self {
            file,
            path,
            offset: 0,
        }
    }

    /// One record, written and flushed.
    pub(crate) fn flush(&mut self) {
        let place = self.offset % FILE as u64;
        self.file
            .write_all_at(&[7; ENTRY], place)
            .expect("a record written");
        self.file.sync_data().expect("a record flushed");
        self.offset += ENTRY as u64;
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Flushes one record after the other.
pub(crate) fn flush(directory: &Path, time: Duration) -> Times {
    let mut flusher = Flusher::new(directory, "flush");
    repeat(time, || flusher.flush())
}

/// One Ed25519 signature and its verification, on one core: what each vote costs hsmd at the least.
pub(crate) fn sign_and_verify(time: Duration) -> Times {
    let key = SigningKey::from_bytes(&[5; 32]);
    let message = [9; 120];
    repeat(time, || {
        let signature = key.sign(&message);
        key.verifying_key()
            .verify_strict(&message, &signature)
            .expect("a good signature");
    })
}

/// The processor time that a process has used so far, in seconds.
pub(crate) fn processor_time(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("the process's figures");
    // After the name, which may hold spaces: the 12th and 13th field, in ticks of 10 ms (proc(5)).
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// How long one operation takes.
pub(crate) fn time(operation: impl FnOnce()) -> Times {
    let started = Instant::now();
    operation();
    let elapsed = started.elapsed();
    Times::new(vec![elapsed.as_secs_f64()], elapsed)
}

fn repeat(time: Duration, mut operation: impl FnMut()) -> Times {
    let begun = Instant::now();
    let mut seconds = Vec::new();
    while begun.elapsed() < time {
        let started = Instant::now();
        operation();
        seconds.push(started.elapsed().as_secs_f64());
    }
    Times::new(seconds, begun.elapsed())
}
