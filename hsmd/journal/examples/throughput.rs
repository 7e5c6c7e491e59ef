//! How fast the journal is on a disk, beside the disk's own limit, in turns:
//! `cargo run --release -p hsm-journal --example throughput -- DIRECTORY [ROUNDS]`
//!
//! Prints one `name value unit` a line.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement may stop at the first surprise"
)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hsm_journal::{Journal, Options, State};
use tokio::runtime::Runtime;

/// How long each measurement of a round takes.
const TIME: Duration = Duration::from_secs(2);
/// Size of a reservation: a caller's name, a key, a position and sign bytes.
const LEAF: usize = 300;

/// A state of a fixed size, as that of an owner with 10,000 keys.
struct Keys(Vec<u8>);

impl State for Keys {
    fn restore(snapshot: &[u8]) -> Result<Self, String> {
        Ok(Self(snapshot.to_vec()))
    }
    fn apply(&mut self, _: u64, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn snapshot(&self) -> Vec<u8> {
        self.0.clone()
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| ".".to_owned()));
    let rounds = arguments.next().map_or(2, |rounds| rounds.parse().unwrap());
    let directory = directory.join(format!("journal-throughput-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    for round in 0..rounds {
        raw(&directory.join("raw"));
        for callers in [1, 64, 256] {
            journal(
                &directory.join(format!("{round}-{callers}")),
                callers,
                &[0; 1000],
            );
        }
    }
    start(&directory.join("start"));
    fs::remove_dir_all(&directory).unwrap();
}

/// The limit: overwriting a sector of a preallocated file and flushing it.
fn raw(path: &Path) {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path)
        .unwrap();
    file.write_all_at(&vec![0; 16 << 20], 0).unwrap();
    File::sync_all(&file).unwrap();
    let mut times = Vec::new();
    let begin = Instant::now();
    for offset in (0..16 << 20).step_by(512).cycle() {
        let one = Instant::now();
        file.write_all_at(&[1; 512], offset).unwrap();
        file.sync_data().unwrap();
        times.push(one.elapsed());
        if begin.elapsed() > TIME {
            break;
        }
    }
    report("raw", times, begin.elapsed());
}

fn journal(directory: &Path, callers: usize, snapshot: &[u8]) {
    hsm_journal::create(directory, snapshot, b"first").unwrap();
    let flushes = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let seen = Arc::clone(&flushes);
    let observer = move |flush: &hsm_journal::Flush| {
        let mut seen = seen.lock().unwrap();
        if flush.new_segment {
            seen.1.push(flush.duration)
        } else {
            seen.0.push(flush.duration)
        }
    };
    let options = Options {
        observer: Some(Arc::new(observer)),
        ..Options::default()
    };
    let journal = hsm_journal::open::<Keys>(directory, options)
        .unwrap()
        .journal;
    let runtime = Runtime::new().unwrap();
    let begin = Instant::now();
    let times = runtime.block_on(callers_at_work(Arc::new(journal), callers));
    let time = begin.elapsed();
    report(&format!("journal_{callers}"), times, time);
    let (frames, segments) = std::mem::take(&mut *flushes.lock().unwrap());
    report(&format!("journal_{callers}_flush"), frames, time);
    report(&format!("journal_{callers}_segment"), segments, time);
}

async fn callers_at_work(journal: Arc<Journal>, callers: usize) -> Vec<Duration> {
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move {
                let mut times = Vec::new();
                let begin = Instant::now();
                while begin.elapsed() < TIME {
                    let one = Instant::now();
                    let ticket = journal.append(vec![7; LEAF]).unwrap();
                    journal.durable(ticket).await.unwrap();
                    times.push(one.elapsed());
                    journal.append(vec![8; LEAF / 3]).unwrap();
                }
                times
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all
}

/// Opening with a snapshot of 3 MB, as 10,000 keys make, and a full segment of entries after it.
fn start(directory: &Path) {
    journal(directory, 64, &[5; 3_000_000]);
    let begin = Instant::now();
    let opened = hsm_journal::open::<Keys>(directory, Options::default()).unwrap();
    println!(
        "start_with_3_MB_snapshot {} ms",
        begin.elapsed().as_millis()
    );
    println!(
        "start_with_3_MB_snapshot_entries {} entries",
        opened.journal.status().entries
    );
}

fn report(name: &str, mut times: Vec<Duration>, time: Duration) {
    times.sort_unstable();
    let quantile = |part: f64| {
        let place = (times.len() as f64 * part) as usize;
        times
            .get(place.min(times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    println!("{name} {:.0} 1/s", times.len() as f64 / time.as_secs_f64());
    for (label, part) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        println!("{name}_{label} {} us", quantile(part).as_micros());
    }
}
