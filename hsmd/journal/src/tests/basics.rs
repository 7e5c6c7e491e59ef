//! Creating, appending, closing, opening, reading.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::faults::{Injection, Mode, Operation};
use super::{Memory, create, entries, files, open, small, wait, write};
use crate::disk::Disk;
use crate::{Error, Flush, Journal, MAX_LEAF, Options, Tail, Ticket, Urgency};

#[test]
fn entries_survive_a_restart_in_order_with_their_indexes() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("journal");
    create(&directory);
    let mut expected = vec![(0, b"first".to_vec())];
    for round in 0..3 {
        let opened = open(&directory);
        assert_eq!(opened.tail, Tail::Clean);
        assert_eq!(opened.state, Memory(expected.clone()));
        for n in 0..60 {
            let leaf = format!("round {round} entry {n}").into_bytes();
            expected.push((write(&opened.journal, &leaf), leaf));
        }
        opened.journal.close().unwrap();
        assert_eq!(entries(&directory), expected);
    }
    assert!(
        files(&directory).len() > 6,
        "the entries went through several segments"
    );
    assert_eq!(open(&directory).state, Memory(expected));
}

#[test]
fn the_status_gives_the_root_of_all_durable_entries() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let journal = open(directory.path()).journal;
    for n in 0..40u8 {
        write(&journal, &[n; 100]);
        let status = journal.status();
        let mut reader = crate::read(directory.path()).unwrap();
        assert_eq!(
            reader.by_ref().map(Result::unwrap).count() as u64,
            status.entries
        );
        assert_eq!(reader.tree().root(), status.root);
        assert_eq!((status.queued, status.fault.is_none()), (0, true));
    }
}

#[test]
fn a_missing_journal_is_refused_with_the_remedy_and_none_is_made() {
    let directory = tempfile::tempdir().unwrap();
    for path in [
        directory.path().to_owned(),
        directory.path().join("nowhere"),
    ] {
        let error = crate::open::<Memory>(&path, small()).err().unwrap();
        assert!(matches!(error, Error::Missing(_)), "{error}");
        assert!(
            error.to_string().contains("create it first, or restore"),
            "{error}"
        );
        assert!(matches!(crate::read(&path), Err(Error::Missing(_))));
    }
    assert_eq!(files(directory.path()), Vec::<String>::new());
}

#[test]
fn creating_over_anything_is_refused_and_leaves_it_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let before = entries(directory.path());
    let error = crate::create(directory.path(), &[], b"other").unwrap_err();
    assert!(matches!(error, Error::Exists(_)), "{error}");
    assert_eq!(entries(directory.path()), before);

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("notes"), "mine").unwrap();
    let error = crate::create(other.path(), &[], b"first").unwrap_err();
    assert!(matches!(error, Error::Exists(_)), "{error}");
}

#[test]
fn a_journal_in_use_is_refused_naming_the_process_that_holds_it() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let opened = open(directory.path());
    let pid = std::process::id();
    for error in [
        crate::open::<Memory>(directory.path(), small())
            .err()
            .unwrap(),
        crate::create(directory.path(), &[], b"first").unwrap_err(),
    ] {
        assert!(
            matches!(error, Error::Locked { holder: Some(holder), .. } if holder == pid),
            "{error}"
        );
        assert!(
            error.to_string().contains(&format!("process {pid}")),
            "{error}"
        );
    }
    drop(opened);
    open(directory.path());
}

#[test]
fn only_the_owner_of_the_files_can_read_them() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("journal");
    create(&directory);
    let _opened = open(&directory);
    assert_eq!(
        fs::metadata(&directory).unwrap().permissions().mode() & 0o777,
        0o700
    );
    for file in files(&directory) {
        let mode = fs::metadata(directory.join(&file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn entries_that_are_too_long_or_reserved_are_not_taken() {
    let directory = tempfile::tempdir().unwrap();
    let too_long = vec![1; MAX_LEAF + 1];
    let reserved = b"hsm-journal snapshot v1\nfake".to_vec();
    let error = crate::create(directory.path(), &[], &too_long).unwrap_err();
    assert!(matches!(error, Error::TooLong(65_536)), "{error}");
    let error = crate::create(directory.path(), &[], &reserved).unwrap_err();
    assert!(matches!(error, Error::Reserved), "{error}");

    create(directory.path());
    let journal = open(directory.path()).journal;
    let before = journal.status().entries;
    let error = journal.append(too_long, Urgency::Now).unwrap_err();
    assert!(matches!(error, Error::TooLong(65_536)), "{error}");
    let error = journal.append(reserved, Urgency::Now).unwrap_err();
    assert!(matches!(error, Error::Reserved), "{error}");
    let error = wait(&journal, Ticket::of(before)).unwrap_err();
    assert!(matches!(error, Error::NotAppended { .. }), "{error}");

    let longest = vec![1; MAX_LEAF];
    assert_eq!(write(&journal, &longest), before);
    let empty = write(&journal, b"");
    journal.close().unwrap();
    assert_eq!(
        entries(directory.path())[1..],
        [(before, longest), (empty, Vec::new())]
    );
}

#[test]
fn a_queue_that_is_full_refuses_and_takes_entries_again_when_the_disk_does() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let disk = Disk::default();
    let options = Options {
        queue_entries: 4,
        ..small()
    };
    let journal = crate::open::open_on::<Memory>(disk.clone(), directory.path(), options)
        .unwrap()
        .journal;
    let nth = disk.plan.count(Operation::Rename);
    // The segment is given up, and for a while no new one can be begun.
    disk.plan.inject(Injection {
        operation: Operation::Rename,
        nth,
        times: 4,
        mode: Mode::Lost,
    });
    let nth = disk.plan.count(Operation::Flush);
    disk.plan.inject(Injection {
        operation: Operation::Flush,
        nth,
        times: 1,
        mode: Mode::Lost,
    });
    let tickets: Vec<Ticket> = (0..4)
        .map(|n| journal.append(vec![n], Urgency::WithNext).unwrap())
        .collect();
    let error = wait(&journal, tickets[3]).unwrap_err();
    assert!(matches!(error, Error::NotDurable(_)), "{error}");
    let mut refused = 0;
    while let Err(error) = journal.append(b"more".to_vec(), Urgency::Now) {
        assert!(matches!(error, Error::Full { entries: 4.. }), "{error}");
        refused += 1;
        let _ = wait(&journal, tickets[3]);
    }
    assert!(refused > 0);
    journal.close().unwrap();
    let leaves: Vec<_> = entries(directory.path())
        .into_iter()
        .map(|(_, leaf)| leaf)
        .collect();
    assert_eq!(
        leaves,
        [
            b"first".to_vec(),
            vec![0],
            vec![1],
            vec![2],
            vec![3],
            b"more".to_vec()
        ]
    );
}

fn observed(options: Options) -> (Options, mpsc::Receiver<Flush>) {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let observer = move |flush: &Flush| sender.lock().unwrap().send(flush.clone()).unwrap_or(());
    (
        Options {
            observer: Some(Arc::new(observer)),
            ..options
        },
        receiver,
    )
}

#[test]
fn what_nobody_waits_for_rides_along_and_costs_no_flush_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let (options, flushes) = observed(Options::default());
    let journal = crate::open::<Memory>(directory.path(), options)
        .unwrap()
        .journal;
    for n in 0..50 {
        journal.append(vec![n, 1], Urgency::WithNext).unwrap();
        write(&journal, &[n, 2]);
    }
    journal.close().unwrap();
    let flushes: Vec<Flush> = flushes.try_iter().collect();
    assert_eq!(
        flushes.iter().map(|flush| flush.entries).sum::<u64>(),
        1 + 100
    );
    // On a machine that stalls, some entries may have had to go before their 100 ms were over.
    assert!(flushes.len() < 75, "{} flushes for 50 waits", flushes.len());
}

#[test]
fn what_nobody_waits_for_is_written_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let (options, flushes) = observed(small());
    let journal = crate::open::<Memory>(directory.path(), options)
        .unwrap()
        .journal;
    assert!(flushes.recv().unwrap().new_segment);
    let ticket = journal
        .append(b"outcome".to_vec(), Urgency::WithNext)
        .unwrap();
    let flush = flushes.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((flush.entries, flush.new_segment), (1, false));
    wait(&journal, ticket).unwrap();
    journal
        .append(b"at the end".to_vec(), Urgency::WithNext)
        .unwrap();
    journal.close().unwrap();
    assert_eq!(entries(directory.path()).pop().unwrap().1, b"at the end");
    let error = journal.append(b"late".to_vec(), Urgency::Now).unwrap_err();
    assert!(matches!(error, Error::Stopped(_)), "{error}");
}

#[test]
fn concurrent_callers_share_flushes_and_each_may_wait_for_the_entry_of_another() {
    const CALLERS: u64 = 64;
    const EACH: u64 = 30;
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let (options, flushes) = observed(Options {
        segment_bytes: 1 << 16,
        ..Options::default()
    });
    let journal: Arc<Journal> = Arc::new(
        crate::open::<Memory>(directory.path(), options)
            .unwrap()
            .journal,
    );
    let order = Arc::new(Mutex::new(Vec::new()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .unwrap();
    runtime.block_on(async {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (journal, order) = (Arc::clone(&journal), Arc::clone(&order));
                tokio::spawn(async move {
                    for n in 0..EACH {
                        let leaf = format!("caller {caller} entry {n}").into_bytes();
                        let (ticket, newest) = {
                            let mut order = order.lock().unwrap();
                            let ticket = journal.append(leaf.clone(), Urgency::Now).unwrap();
                            let newest =
                                order.last().map_or(ticket, |(index, _)| Ticket::of(*index));
                            order.push((ticket.index(), leaf));
                            (ticket, newest)
                        };
                        journal.durable(newest).await.unwrap();
                        journal.durable(ticket).await.unwrap();
                        assert!(journal.status().entries > ticket.index());
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
    });
    journal.close().unwrap();
    let flushes = flushes.try_iter().count() as u64;
    assert!(
        flushes < CALLERS * EACH / 2,
        "{flushes} flushes for {} entries",
        CALLERS * EACH
    );
    assert_eq!(entries(directory.path())[1..], order.lock().unwrap()[..]);
}

#[test]
fn a_caller_that_stops_waiting_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let journal = open(directory.path()).journal;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for n in 0..20 {
        let ticket = journal.append(vec![n], Urgency::Now).unwrap();
        runtime.block_on(async {
            tokio::select! { biased; _ = journal.durable(ticket) => {}, () = async {} => {} }
        });
    }
    write(&journal, b"last");
    journal.close().unwrap();
    assert_eq!(entries(directory.path()).len(), 1 + 20 + 1);
}

#[test]
fn a_state_that_refuses_its_own_entry_stops_the_journal_and_says_which() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let journal = open(directory.path()).journal;
    let ticket = journal.append(b"poison".to_vec(), Urgency::Now).unwrap();
    let error = wait(&journal, ticket).unwrap_err();
    let place = format!("entry {}", ticket.index());
    assert!(
        matches!(error, Error::Stopped(_)) && error.to_string().contains(&place),
        "{error}"
    );
    assert!(journal.status().stopped.is_some());
    assert!(matches!(
        journal.append(b"next".to_vec(), Urgency::Now),
        Err(Error::Stopped(_))
    ));
    assert!(matches!(journal.close(), Err(Error::Stopped(_))));
    drop(journal);
    let error = crate::open::<Memory>(directory.path(), small())
        .err()
        .unwrap();
    assert!(
        matches!(error, Error::State { .. }) && error.to_string().contains(&place),
        "{error}"
    );
}

#[test]
fn a_reader_beside_a_running_journal_sees_its_entries_in_order_without_disturbing_it() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let journal = open(directory.path()).journal;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (0..400u64).for_each(|n| {
                write(&journal, &n.to_be_bytes());
            })
        });
        let mut before = 0;
        while !writer.is_finished() {
            let durable = journal.status().entries;
            let seen = entries(directory.path());
            let numbers = seen[1..]
                .iter()
                .map(|(_, leaf)| u64::from_be_bytes(leaf[..].try_into().unwrap()));
            assert!(
                numbers.eq(0..seen.len() as u64 - 1),
                "in order, nothing missing"
            );
            let all = crate::read(directory.path())
                .unwrap()
                .map(Result::unwrap)
                .count();
            assert!(seen.len() >= before && all as u64 >= durable);
            before = seen.len();
        }
        writer.join().unwrap();
    });
    assert_eq!(entries(directory.path()).len(), 1 + 400);
}
