//! Every operation of the journal on the disk fails, in each way: what was reserved stays binding, a new
//! segment heals, and no restart, after a power cut or without, gives a position a second message.
//! Promises 1, 2 and 8.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use hsm_journal::simulation::{INPUT_OUTPUT, Injection, MODES, NO_SPACE, Simulation};

use super::ledger::{LINES, Ledger, Line, create_with_lines};
use super::*;

const HEIGHTS: i64 = 8;
const LINE: Line = LINES[0];

fn open_on(disk: &Simulation, path: &Path) -> Guard {
    loop {
        let failed = disk.failed();
        let options = Options {
            segment_bytes: 2048,
            ..Options::default()
        };
        match disk.open::<State>(path, options) {
            Ok(opened) => return Guard::new(opened.state, opened.journal),
            Err(hsm_journal::Error::Disk(_)) => assert!(disk.failed() > failed),
            Err(other) => panic!("{other}"),
        }
    }
}

fn is_not_durable(outcome: &Result<Reservation, Error>) -> bool {
    matches!(
        outcome,
        Err(Error::Journal(hsm_journal::Error::NotDurable(_)))
    )
}

/// What a power cut leaves holds all that left.
fn check_after_a_cut(disk: &Simulation, ledger: &Ledger) {
    for _ in 0..2 {
        let left = tempfile::tempdir().unwrap();
        disk.cut_power(left.path(), |n| fastrand::usize(..n));
        // A start, and not only a reading.
        open(left.path()).close().unwrap();
        ledger.check(left.path()).unwrap();
    }
}

/// Two callers ask for two blocks at one position; the winner asks until it gets its reservation.
async fn one_height(guard: &Guard, disk: &Simulation, ledger: &Ledger, height: i64) {
    let blocks = [1, 2].map(|block| LINE.precommit(height, block));
    let segment = guard.journal().status().segment;
    let (one, two) = tokio::join!(
        LINE.reserve(guard, &blocks[0]),
        LINE.reserve(guard, &blocks[1])
    );
    assert!(is_double_sign(&two));
    let mut outcome = one;
    let mut attempts = 0;
    while is_not_durable(&outcome) {
        check_after_a_cut(disk, ledger);
        assert!(
            is_double_sign(&LINE.reserve(guard, &blocks[1]).await),
            "what is not durable binds all the same"
        );
        attempts += 1;
        assert!(attempts < 20, "it does not heal: {outcome:?}");
        outcome = LINE.reserve(guard, &blocks[0]).await;
    }
    ledger.take(LINE, &blocks[0], &outcome.unwrap()).unwrap();
    if attempts > 0 {
        let healed = guard.journal().status().segment;
        assert!(healed > segment, "the segment of the fault is given up");
        check_after_a_cut(disk, ledger);
    }
}

/// Returns how many operations there were, and whether any failed.
fn run(injection: Option<Injection>) -> (usize, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        create_with_lines(&path).await;
        let disk = Simulation::over(&path);
        if let Some(injection) = injection {
            disk.inject(injection);
        }
        let ledger = Ledger::default();
        let guard = open_on(&disk, &path);
        for height in 1..=HEIGHTS {
            one_height(&guard, &disk, &ledger, height).await;
        }
        let _ = guard.close();
        drop(guard);
        check_after_a_cut(&disk, &ledger);
        ledger.check(&path).unwrap();
        let guard = open_on(&disk, &path);
        let other = LINE.precommit(HEIGHTS, 2);
        assert!(is_double_sign(&LINE.reserve(&guard, &other).await));
        let earlier = LINE.precommit(HEIGHTS - 1, 1);
        assert!(LINE.reserve(&guard, &earlier).await.is_err());
        one_height(&guard, &disk, &ledger, HEIGHTS + 1).await;
        (disk.done().len(), disk.failed() > 0)
    })
}

#[test]
fn each_operation_on_the_disk_fails_in_each_way_and_nothing_is_signed_twice() {
    let (operations, _) = run(None);
    let mut injections = Vec::new();
    for nth in 0..operations {
        for mode in MODES {
            // One after the other in the long form, in turns in the short one.
            let ways = [(1, INPUT_OUTPUT), (2, NO_SPACE)];
            let skipped = ways[nth % 2];
            for (times, error) in ways {
                if !is_soak() && (times, error) == skipped {
                    continue;
                }
                injections.push(Injection {
                    operation: None,
                    nth,
                    times,
                    mode,
                    error,
                });
            }
        }
    }
    // They wait for pauses after faults more than they work.
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while let Some(injection) = injections.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = std::panic::catch_unwind(|| run(Some(*injection)));
                    let (_, any) = outcome.unwrap_or_else(|_| panic!("with {injection:?}"));
                    failed.fetch_add(usize::from(any), Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!(
        "{operations} operations, {} runs, {failed} with a fault",
        injections.len()
    );
    // The spare's thread makes the number of operations differ a little.
    assert!(
        operations > 40 && failed > injections.len() * 9 / 10,
        "{operations} {failed}"
    );
}
