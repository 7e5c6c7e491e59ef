//! Every operation on the disk fails once, in each way: nothing is ever called durable that is not,
//! everything heals, and entries keep their places.

use std::fs;
use std::path::Path;

use super::{Memory, copy, create, entries, open, small, wait};
use crate::disk::Disk;
use crate::simulation::{INPUT_OUTPUT, Injection, Mode, Operation, Simulation};
use crate::{Error, Opened, Options, Tail};

/// Opens a journal on a disk that fails at least `faults` times, writes through it until it has failed so
/// often and several segments are full, and checks every promise on the way.
fn run(disk: &Simulation, faults: usize) {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("journal");
    create(&path);
    let opened = open_at_last(disk, &path);
    assert_eq!(opened.state, Memory(vec![(0, b"first".to_vec())]));
    let journal = opened.journal;
    let mut appended = opened.state.0;
    let mut told = 1;
    let mut rounds = 0..5000u32;
    while disk.failed() < faults || journal.status().segment < 5 {
        let round = rounds
            .next()
            .expect("the fault occurs, and segments get full");
        // Three entries, of which the last is waited for.
        let mut ticket = None;
        for n in 0..3 {
            let leaf = format!("round {round} entry {n}").into_bytes();
            let taken = journal.append(leaf.clone()).unwrap();
            appended.push((taken.index(), leaf));
            ticket = Some(taken);
        }
        let segment = journal.status().segment;
        let mut failures = 0;
        while let Err(error) = wait(&journal, ticket.unwrap()) {
            assert!(matches!(error, Error::NotDurable(_)), "{error}");
            check_crash_now(&path, &appended, told);
            failures += 1;
            assert!(failures < 20, "it does not heal: {error}");
        }
        told = appended.len();
        if failures > 0 {
            assert!(
                journal.status().segment > segment,
                "the segment of the fault is given up"
            );
            check_crash_now(&path, &appended, told);
        }
        assert!(journal.status().fault.is_none());
    }
    journal.close().unwrap();
    assert_eq!(entries(&path), appended);
    assert_eq!(open(&path).state, Memory(appended));
}

/// A start may meet the fault; then it says so, and another start heals.
fn open_at_last(disk: &Simulation, path: &Path) -> Opened<Memory> {
    loop {
        let failed = disk.failed();
        match disk.open(path, small()) {
            Ok(opened) => return opened,
            Err(error) => {
                assert!(matches!(error, Error::Disk(_)), "{error}");
                assert!(
                    disk.failed() > failed,
                    "only an injected fault may stop it: {error}"
                );
            }
        }
    }
}

/// Were there a crash at this moment: all that anybody was told is durable is there, and what more is
/// there is what was appended next.
fn check_crash_now(path: &Path, appended: &[(u64, Vec<u8>)], told: usize) {
    let crashed = path.with_file_name("crashed");
    copy(path, &crashed);
    let Opened {
        state: Memory(found),
        ..
    } = open(&crashed);
    assert!(
        found.len() >= told,
        "{} of {told} entries are there",
        found.len()
    );
    assert_eq!(found, appended[..found.len()]);
    assert_eq!(entries(&crashed), found);
    fs::remove_dir_all(crashed).unwrap();
}

/// Fails the first operations of this kind in turn, from the start on, `times` in succession.
fn fail_each(operation: Operation, count: usize, modes: &[Mode], times: usize) {
    for mode in modes {
        for nth in 0..count {
            let disk = Simulation::default();
            disk.inject(Injection {
                operation: Some(operation),
                nth,
                times,
                mode: *mode,
                error: INPUT_OUTPUT,
            });
            run(&disk, times);
        }
    }
}

#[test]
fn each_wait_ends_only_after_a_write_and_its_flush() {
    let temporary = tempfile::tempdir().unwrap();
    create(temporary.path());
    let disk = Simulation::default();
    // One segment for all of them.
    let opened = disk
        .open::<Memory>(temporary.path(), Options::default())
        .unwrap();
    let count = || (disk.count(Operation::Write), disk.count(Operation::Flush));
    for n in 0..20 {
        let (writes, flushes) = count();
        let ticket = opened.journal.append(vec![n]).unwrap();
        wait(&opened.journal, ticket).unwrap();
        assert_eq!(count(), (writes + 1, flushes + 1));
    }
}

#[test]
fn a_failed_flush_is_never_called_durable_and_heals() {
    fail_each(Operation::Flush, 14, &[Mode::Lost, Mode::Persisted], 1);
}

#[test]
fn flushes_that_fail_several_times_heal() {
    fail_each(Operation::Flush, 14, &[Mode::Lost], 3);
}

#[test]
fn a_failed_or_short_write_is_never_called_durable_and_heals() {
    fail_each(
        Operation::Write,
        14,
        &[Mode::Lost, Mode::Short, Mode::Persisted],
        1,
    );
}

#[test]
fn a_segment_that_cannot_be_prepared_heals() {
    fail_each(Operation::Create, 3, &[Mode::Lost], 2);
    fail_each(Operation::Zero, 3, &[Mode::Lost, Mode::Short], 2);
    fail_each(Operation::FlushZeros, 3, &[Mode::Lost], 2);
}

#[test]
fn a_segment_that_cannot_be_named_heals() {
    fail_each(Operation::Rename, 3, &[Mode::Lost, Mode::Persisted], 1);
    fail_each(
        Operation::FlushDirectory,
        3,
        &[Mode::Lost, Mode::Persisted],
        2,
    );
}

#[test]
fn a_segment_of_a_failed_attempt_that_cannot_be_removed_does_not_count() {
    let disk = Simulation::default();
    disk.inject(Injection {
        operation: Some(Operation::FlushDirectory),
        nth: 1,
        times: 2,
        mode: Mode::Persisted,
        error: INPUT_OUTPUT,
    });
    let removals = 3..40;
    disk.inject(Injection {
        operation: Some(Operation::Remove),
        nth: removals.start,
        times: removals.len(),
        mode: Mode::Lost,
        error: INPUT_OUTPUT,
    });
    run(&disk, 3);
}

#[test]
fn creating_that_fails_leaves_no_journal_and_can_be_repeated() {
    let operations = [
        (Operation::Create, 1),
        (Operation::Zero, 1),
        (Operation::FlushZeros, 1),
        (Operation::Write, 1),
        (Operation::Flush, 1),
        (Operation::Rename, 1),
        (Operation::FlushDirectory, 2),
    ];
    for (operation, count) in operations {
        for nth in 0..count {
            for mode in [Mode::Lost, Mode::Persisted] {
                let temporary = tempfile::tempdir().unwrap();
                let path = temporary.path().join("journal");
                let disk = Simulation::default();
                disk.inject(Injection {
                    operation: Some(operation),
                    nth,
                    times: 1,
                    mode,
                    error: INPUT_OUTPUT,
                });
                let error =
                    crate::open::create_on(&Disk::from(&disk), &path, &[], b"first").unwrap_err();
                assert!(matches!(error, Error::Disk(_)), "{error}");
                assert!(matches!(
                    crate::open::<Memory>(&path, small()),
                    Err(Error::Missing(_))
                ));
                crate::open::create_on(&Disk::from(&disk), &path, &[], b"first").unwrap();
                assert_eq!(open(&path).tail, Tail::Clean);
            }
        }
    }
}

#[test]
fn a_journal_closed_during_a_fault_says_that_entries_are_missing() {
    let temporary = tempfile::tempdir().unwrap();
    create(temporary.path());
    let disk = Simulation::default();
    let opened = disk.open::<Memory>(temporary.path(), small()).unwrap();
    for operation in [Operation::Flush, Operation::Create] {
        let nth = disk.count(operation);
        disk.inject(Injection {
            operation: Some(operation),
            nth,
            times: 1000,
            mode: Mode::Lost,
            error: INPUT_OUTPUT,
        });
    }
    let ticket = opened.journal.append(b"lost".to_vec()).unwrap();
    assert!(matches!(
        wait(&opened.journal, ticket),
        Err(Error::NotDurable(_))
    ));
    let status = opened.journal.status();
    assert!(status.fault.is_some() && status.queued > 0 && status.entries <= ticket.index());
    assert!(matches!(opened.journal.close(), Err(Error::NotDurable(_))));
    drop(opened);
    assert_eq!(
        open(temporary.path()).state,
        Memory(vec![(0, b"first".to_vec())])
    );
}

#[test]
fn a_spare_that_is_not_ready_holds_nobody_up() {
    let temporary = tempfile::tempdir().unwrap();
    create(temporary.path());
    let disk = Simulation::default();
    let opened = disk
        .open::<Memory>(temporary.path(), Options::default())
        .unwrap();
    // The first segment has 1 MiB at once; these go beyond, most likely before the spare of 16 MiB is
    // prepared. Either way each is durable.
    let leaf = vec![9; 60_000];
    for _ in 0..40 {
        let ticket = opened.journal.append(leaf.clone()).unwrap();
        wait(&opened.journal, ticket).unwrap();
    }
    opened.journal.close().unwrap();
    assert_eq!(entries(temporary.path()).len(), 41);
    assert_eq!(open(temporary.path()).state.0.len(), 41);
}

/// A spare that takes many steps to prepare, and how many.
const LARGE: u64 = 1 << 30;
const STEPS: usize = 4096;

#[test]
fn a_recovery_does_not_wait_for_a_spare_that_is_not_ready() {
    let temporary = tempfile::tempdir().unwrap();
    create(temporary.path());
    let disk = Simulation::default();
    let options = Options {
        segment_bytes: LARGE,
        ..small()
    };
    let opened = disk.open::<Memory>(temporary.path(), options).unwrap();
    let journal = opened.journal;
    for n in 0..3 {
        disk.inject(Injection {
            operation: Some(Operation::Flush),
            nth: disk.count(Operation::Flush),
            times: 1,
            mode: Mode::Lost,
            error: INPUT_OUTPUT,
        });
        let segment = journal.status().segment;
        let ticket = journal.append(vec![n]).unwrap();
        assert!(matches!(wait(&journal, ticket), Err(Error::NotDurable(_))));
        wait(&journal, ticket).unwrap();
        assert!(journal.status().segment > segment);
    }
    assert!(disk.count(Operation::Zero) < STEPS);
    journal.close().unwrap();
    assert_eq!(entries(temporary.path()).len(), 4);
}

#[test]
fn a_stop_does_not_wait_for_a_spare_that_is_not_ready_and_leaves_nothing_of_it() {
    let temporary = tempfile::tempdir().unwrap();
    create(temporary.path());
    let disk = Simulation::default();
    let options = Options {
        segment_bytes: LARGE,
        ..small()
    };
    let opened = disk.open::<Memory>(temporary.path(), options).unwrap();
    opened.journal.close().unwrap();
    assert!(disk.count(Operation::Zero) < STEPS);
    let left = super::files(temporary.path());
    assert!(!left.contains(&"next.tmp".to_owned()), "{left:?}");
}
