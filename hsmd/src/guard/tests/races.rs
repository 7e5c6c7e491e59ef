//! Conflicting requests for one position at the same instant. Promise 2.

use std::path::Path;
use std::sync::Barrier;
use std::thread;

use super::ledger::{LINES, Ledger, create_with_lines};
use super::*;

const ROUNDS: i64 = 100_000;
const RACERS: u8 = 4;

/// Memory where there is a file system of it: rounds count here, and not how fast the disk is.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    tempfile::tempdir_in(parent).unwrap()
}

/// One sentry: at each height, on each line, it asks for a block of its own, and all wait for each other
/// before each height. Returns how many it got.
fn race(guard: &Guard, ledger: &Ledger, together: &Barrier, block: u8) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut won = 0;
    for height in 1..=ROUNDS / LINES.len() as i64 {
        together.wait();
        runtime.block_on(async {
            let [a, b, c, d] = LINES.map(|line| async move {
                let message = line.precommit(height, block);
                let outcome = line.reserve(guard, &message).await;
                assert!(outcome.is_ok() || is_double_sign(&outcome), "{outcome:?}");
                outcome.is_ok_and(|reserved| ledger.take(line, &message, &reserved) == Ok(()))
            });
            // Not always in the same order.
            let outcomes = if block.is_multiple_of(2) {
                tokio::join!(a, b, c, d)
            } else {
                let (d, c, b, a) = tokio::join!(d, c, b, a);
                (a, b, c, d)
            };
            won += <[bool; 4]>::from(outcomes)
                .into_iter()
                .filter(|won| *won)
                .count();
        });
    }
    won
}

#[test]
fn of_conflicting_requests_at_one_instant_one_is_reserved_100_000_times() {
    let directory = scratch();
    let path = directory.path().join("state");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(create_with_lines(&path));
    let (guard, ledger) = (open(&path), Ledger::default());
    let together = Barrier::new(usize::from(RACERS));
    let won: Vec<usize> = thread::scope(|scope| {
        let racers: Vec<_> = (1..=RACERS)
            .map(|block| {
                let (guard, ledger, together) = (&guard, &ledger, &together);
                scope.spawn(move || race(guard, ledger, together, block))
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .collect()
    });
    println!("won: {won:?}");
    assert_eq!(
        won.iter().sum::<usize>(),
        ROUNDS as usize,
        "each position was won once"
    );
    assert_eq!(ledger.positions(), ROUNDS as usize);
    assert!(
        won.iter().filter(|won| **won > 0).count() > 1,
        "nobody raced: {won:?}"
    );
    guard.close().unwrap();
    ledger.check(&path).unwrap();
}
