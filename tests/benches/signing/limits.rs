//! What disk and processor could do at best.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer, SigningKey};

use crate::driver::Times;

/// About the size of one reservation with its frame, in bytes.
const ENTRY: usize = 512;
/// The size of the preallocated file, in bytes.
const FILE: usize = 16 << 20;

/// Writes small records into a preallocated file, each flushed by fdatasync before the next.
pub(crate) fn flush(directory: &Path, time: Duration) -> Times {
    let path = directory.join("flush");
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&path)
        .expect("a file");
    file.write_all_at(&vec![0; FILE], 0)
        .expect("the file preallocated");
    file.sync_all().expect("the file flushed");
    let mut offset = 0;
    let times = repeat(time, || {
        file.write_all_at(&[7; ENTRY], offset % FILE as u64)
            .expect("a record written");
        file.sync_data().expect("a record flushed");
        offset += ENTRY as u64;
    });
    std::fs::remove_file(&path).expect("the file removed");
    times
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
