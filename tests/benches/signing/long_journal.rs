//! A history of 10 million entries, as five million votes leave it: how long the released binary takes to start on it,
//! and how fast `hsmd journal verify` goes beside SHA-256 alone over the same files, on as many threads.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use hsm_proto::v1::entry::Event;
use hsm_proto::v1::{Position, PublicKey, Reserved, Signed, Step};
use hsm_tests::authority::{Authority, uri};
use hsm_tests::binaries::binary;
use hsm_tests::node::{block, vote};
use hsm_tests::process::{Scratch, free_port};
use hsm_tests::sign_bytes;
use hsmd::config::{Config, MockDevices};
use hsmd::daemon;
use hsmd::guard::{Guard, entry};
use sha2::{Digest as _, Sha256};
use tendermint_proto::v0_38::types::SignedMsgType::{Precommit, Prevote};

use crate::capacity::start_released;
use crate::server::{SENTRY, make_known, write_config};

const ENTRIES: u64 = 10_000_000;
const KEYS: usize = 100;
/// After how many entries it is looked whether the disk keeps up.
const CHECK: u64 = 2_000;
/// How often each thing is measured.
const TURNS: usize = 3;

pub(crate) fn measure(disk: &Path) {
    let (sockets, state) = (Scratch::new(), Scratch::new_in(disk));
    let authority = Authority::new(state.path(), "ca");
    let keys: Vec<String> = (0..KEYS).map(|index| format!("key-{index}")).collect();
    let ports = [free_port(), free_port()];
    let config = write_config(sockets.path(), state.path(), &authority, ports, &keys);
    make_known(&config, &keys);
    fill(&config, &keys);
    let slowest = (0..TURNS).map(|_| {
        let (mut process, took) = start_released(&config, ports[1], state.path());
        // The first start follows a clean end, and the next ones a kill of a segment that was just begun.
        process.kill();
        took
    });
    let slowest = slowest.max().unwrap_or_default();
    println!("hsmd_10m_entries_start {:.3} s", slowest.as_secs_f64());

    let files = segments(&state.path().join("state"));
    let bytes: u64 = files.iter().map(|file| length(file)).sum();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let [mut verify, mut alone, mut together] = [Duration::ZERO; 3];
    for _ in 0..TURNS {
        verify += time(|| verify_journal(&config));
        alone += time(|| sha256(&files, 1));
        together += time(|| sha256(&files, threads));
    }
    let rate = |took: Duration| bytes as f64 * TURNS as f64 / took.as_secs_f64() / 1e6;
    println!("hsmd_10m_entries_size {:.0} MB", bytes as f64 / 1e6);
    println!("hsmd_journal_verify_rate {:.0} MB/s", rate(verify));
    println!("limit_sha256_1_thread_rate {:.0} MB/s", rate(alone));
    println!(
        "limit_sha256_{threads}_threads_rate {:.0} MB/s",
        rate(together)
    );
    println!(
        "ratio hsmd_journal_verify_to_sha256_1_thread {:.2}",
        rate(verify) / rate(alone)
    );
    println!(
        "ratio hsmd_journal_verify_to_sha256_{threads}_threads {:.2}",
        rate(verify) / rate(together)
    );
}

/// Appends what votes leave, as fast as the journal takes it.
fn fill(config: &Path, keys: &[String]) {
    let config = Config::load(config, MockDevices::Refused).expect("a good configuration");
    let guard = daemon::open_guard(&config).expect("the journal opens");
    let public_keys: Vec<PublicKey> = keys
        .iter()
        .map(|key| {
            let pinned = guard
                .pinned(key)
                .expect("a sound guard")
                .expect("a known key");
            entry::public_key_to_wire(&pinned)
        })
        .collect();
    let caller = uri("sentry", SENTRY);
    let mut written = 0;
    for height in 1.. {
        for (kind, step) in [(Prevote, Step::Prevote), (Precommit, Step::Precommit)] {
            for (key, public_key) in keys.iter().zip(&public_keys) {
                let vote = vote(kind, height, 0, Some(block(1)));
                let timestamp = vote.timestamp.as_ref().map(|time| prost_types::Timestamp {
                    seconds: time.seconds,
                    nanos: time.nanos,
                });
                record(
                    &guard,
                    Event::Reserved(Reserved {
                        caller: caller.clone(),
                        key: key.clone(),
                        public_key: Some(public_key.clone()),
                        chain_id: key.clone(),
                        position: Some(Position {
                            height,
                            round: 0,
                            step: step.into(),
                        }),
                        sign_bytes: sign_bytes::vote(key, &vote),
                        timestamp,
                        extension_sign_bytes: None,
                        ledger_revision: 0,
                    }),
                    written,
                );
                record(
                    &guard,
                    Event::Signed(Signed {
                        reserved_index: written,
                        key: key.clone(),
                        public_key: Some(public_key.clone()),
                        chain_id: key.clone(),
                        signature: vec![7; 64],
                        extension_signature: Vec::new(),
                    }),
                    written + 1,
                );
                written += 2;
            }
        }
        if written >= ENTRIES {
            break;
        }
    }
    guard.close().expect("the journal closes");
}

/// Appends, and leaves the disk time to catch up before the journal's queue is full.
fn record(guard: &Guard, event: Event, written: u64) {
    while written.is_multiple_of(CHECK) && guard.journal().status().queued > CHECK {
        std::thread::yield_now();
    }
    guard
        .record(event, SystemTime::now())
        .expect("the journal takes an entry");
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).expect("the journal");
    let files = files.map(|file| file.expect("a file").path());
    files
        .filter(|file| file.extension().is_some_and(|end| end == "log"))
        .collect()
}

fn length(file: &Path) -> u64 {
    file.metadata().expect("a file").len()
}

fn verify_journal(config: &Path) {
    let mut command = Command::new(binary("hsmd"));
    command.args(["journal", "verify", "--config"]).arg(config);
    let output = command.output().expect("hsmd runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Hashes every file, each on one of so many threads.
fn sha256(files: &[PathBuf], threads: usize) {
    let left = Mutex::new(files.iter());
    let work = || {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let Some(file) = left.lock().expect("no panic").next() else {
                return;
            };
            let mut file = File::open(file).expect("a file");
            let mut hasher = Sha256::new();
            loop {
                match file.read(&mut buffer).expect("a file's bytes") {
                    0 => break,
                    read => hasher.update(&buffer[..read]),
                }
            }
            std::hint::black_box(hasher.finalize());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}
