//! Kills, power cuts and failing disks under concurrent callers, at any operation of the journal, over
//! and over on what the last one left. Promises 1, 2 and 8.
//!
//! A kill leaves the page cache; a power cut leaves what was flushed, and any part of the rest. What is
//! killed may be killed again while it starts, and lose power afterwards: then what it read at its start
//! was never on the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use fastrand::Rng;
use hsm_journal::simulation::{INPUT_OUTPUT, Injection, MODES, NO_SPACE, Operation, Simulation};

use super::super::{Error, Guard, State};
use super::ledger::{LINES, Ledger, create_with_lines};
use super::*;

/// What is wrong with the program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// It never flushes files.
    NoFlush,
    /// It never flushes the directory.
    NoDirectoryFlush,
    /// It takes what it read at its start for durable.
    NoFlushAtStart,
    /// It flushes at its start only. Its segments are large, so that it begins no other.
    NoFlushAfterStart,
}

/// What the lives of one journal saw.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    kills: usize,
    at_start: usize,
    cuts: usize,
    failed: usize,
    positions: usize,
}

impl Seen {
    fn and(self, other: Self) -> Self {
        Self {
            kills: self.kills + other.kills,
            at_start: self.at_start + other.at_start,
            cuts: self.cuts + other.cuts,
            failed: self.failed + other.failed,
            positions: self.positions + other.positions,
        }
    }
}

/// A journal that lives many short lives.
struct Lives {
    directory: tempfile::TempDir,
    path: PathBuf,
    disk: Simulation,
    ledger: Arc<Ledger>,
    random: Rng,
    seen: Seen,
}

impl Lives {
    async fn begin(seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0");
        create_with_lines(&path).await;
        Self {
            disk: Simulation::over(&path),
            directory,
            path,
            ledger: Arc::default(),
            random: Rng::with_seed(seed),
            seen: Seen::default(),
        }
    }

    /// From a start to a kill, and sometimes a power cut.
    async fn live(&mut self, flaw: Flaw) -> Result<(), String> {
        let random = &mut self.random;
        if flaw == Flaw::None && random.usize(..3) == 0 {
            self.disk.inject(Injection {
                operation: None,
                nth: self.disk.done().len() + random.usize(..60),
                times: random.usize(1..4),
                mode: MODES[random.usize(..MODES.len())],
                error: [INPUT_OUTPUT, NO_SPACE][random.usize(..2)],
            });
        }
        // Now and then in the middle of the start.
        let most = if random.usize(..4) == 0 { 12 } else { 120 };
        self.disk.kill_after(random.usize(..most));
        match self.start(flaw)? {
            Some(guard) => self.load(guard).await?,
            None => self.seen.at_start += 1,
        }
        self.seen.kills += 1;
        self.disk.revive();
        if self.random.bool() {
            self.cut_power();
        }
        self.ledger.check(&self.path)
    }

    /// `None`: it was killed, or the disk failed.
    fn start(&mut self, flaw: Flaw) -> Result<Option<Guard>, String> {
        let at_start = matches!(flaw, Flaw::NoFlush | Flaw::NoFlushAtStart);
        let afterwards = matches!(flaw, Flaw::NoFlush | Flaw::NoFlushAfterStart);
        let of_names = flaw == Flaw::NoDirectoryFlush;
        self.disk.ignore(Operation::FlushDirectory, of_names);
        self.disk.ignore(Operation::Flush, at_start);
        let segment_bytes = match flaw {
            Flaw::NoFlushAfterStart => 1 << 16,
            _ => 2048,
        };
        let opened = open_on(&self.disk, &self.path, segment_bytes);
        self.disk.ignore(Operation::Flush, afterwards);
        match opened {
            Ok(guard) => Ok(Some(guard)),
            Err(hsm_journal::Error::Disk(_)) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Callers who ask for conflicting messages, until the kill.
    async fn load(&mut self, guard: Guard) -> Result<(), String> {
        let guard = Arc::new(guard);
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let random = self.random.fork();
                tokio::spawn(ask_until_killed(
                    guard.clone(),
                    self.ledger.clone(),
                    self.disk.clone(),
                    random,
                ))
            })
            .collect();
        for caller in callers {
            caller.await.unwrap()?;
        }
        self.seen.positions = self.ledger.positions();
        Ok(())
    }

    fn cut_power(&mut self) {
        self.seen.cuts += 1;
        self.seen.failed += self.disk.failed();
        let left = self.directory.path().join(self.seen.cuts.to_string());
        std::fs::create_dir(&left).unwrap();
        self.disk.cut_power(&left, |n| self.random.usize(..n));
        std::fs::remove_dir_all(&self.path).unwrap();
        self.disk = Simulation::over(&left);
        self.path = left;
    }
}

fn open_on(
    disk: &Simulation,
    path: &Path,
    segment_bytes: u64,
) -> Result<Guard, hsm_journal::Error> {
    let options = Options {
        segment_bytes,
        ..Options::default()
    };
    let opened = disk.open::<State>(path, options)?;
    Ok(Guard::new(opened.state, opened.journal))
}

async fn ask_until_killed(
    guard: Arc<Guard>,
    ledger: Arc<Ledger>,
    disk: Simulation,
    mut random: Rng,
) -> Result<(), String> {
    while !disk.is_killed() {
        let line = LINES[random.usize(..LINES.len())];
        let height = guard.inspect(|state| {
            let known = state.mark(&line.public_key(), &line.chain());
            known.unwrap().mark.height()
        });
        let height = (height.unwrap() + random.i64(0..2)).max(1);
        let step = [VoteType::Prevote, VoteType::Precommit][random.usize(..2)];
        let message = line.vote(step, height, random.u8(0..3), random.i64(100..102));
        match line.reserve(&guard, &message).await {
            Ok(reserved) => {
                ledger.take(line, &message, &reserved)?;
                if random.bool() {
                    line.record_signed(&guard, &message, &reserved);
                }
            }
            Err(Error::Conflict { .. } | Error::Journal(_)) => {}
            Err(other) => return Err(other.to_string()),
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Lives of one journal, until something is found.
fn history(seed: u64, lives: u64, flaw: Flaw) -> (Seen, Result<(), String>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut history = Lives::begin(seed).await;
        for _ in 0..lives {
            let lived = history.live(flaw).await;
            if lived.is_err() {
                return (history.seen, lived);
            }
        }
        (history.seen, Ok(()))
    })
}

#[test]
fn whatever_a_crash_leaves_no_position_gets_two_messages_and_what_left_has_its_entry() {
    let seed = seed();
    let histories = move |thread: u64| {
        let rounds = if is_soak() { 25 } else { 1 };
        (0..rounds).map(move |round| {
            let seed = seed.wrapping_add(1000 * thread + round);
            let (seen, found) = history(seed, 40, Flaw::None);
            assert_eq!(found, Ok(()), "with HSMD_SEED={seed}");
            seen
        })
    };
    // They wait now and then for a failing disk, so more run than there are processors.
    let threads: Vec<_> = (0..16)
        .map(|thread| thread::spawn(move || histories(thread).fold(Seen::default(), Seen::and)))
        .collect();
    let seen = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .fold(Seen::default(), Seen::and);
    println!("{seen:?}");
    assert!(
        seen.at_start > 50 && seen.cuts > 200 && seen.failed > 50 && seen.positions > 1000,
        "{seen:?}"
    );
}

/// The method is worth something: it finds programs that do not flush.
#[test]
fn a_guard_on_a_journal_that_does_not_flush_is_found_out() {
    let seed = seed();
    for (flaw, telling) in [
        (Flaw::NoFlush, "is damaged"),
        (Flaw::NoDirectoryFlush, "is damaged"),
        (Flaw::NoFlushAtStart, "is damaged"),
        (Flaw::NoFlushAfterStart, "has no entry"),
    ] {
        let found = (0..100).find_map(|round| {
            let (seen, found) = history(seed.wrapping_add(round), 30, flaw);
            let what = found.err().filter(|what| what.contains(telling))?;
            Some((round, seen, what))
        });
        let (round, seen, what) = found.unwrap_or_else(|| panic!("{flaw:?} was not found"));
        println!("{flaw:?}: {what}, in round {round} after {seen:?}");
    }
}
