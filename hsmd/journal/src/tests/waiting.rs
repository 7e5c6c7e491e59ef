//! Queueing, waiting, and what shares a flush.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Memory, create, entries, open, small, wait, write};
use crate::simulation::{INPUT_OUTPUT, Injection, Mode, Operation, Simulation};

use crate::{Error, Flush, Journal, Options, Ticket};

#[test]
fn a_queue_that_is_full_refuses_and_takes_entries_again_when_the_disk_does() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let disk = Simulation::default();
    let options = Options {
        queue_entries: 4,
        ..small()
    };
    let journal = disk
        .open::<Memory>(directory.path(), options)
        .unwrap()
        .journal;
    let nth = disk.count(Operation::Rename);
    // The segment is given up, and for a while no new one can be begun.
    disk.inject(Injection {
        operation: Some(Operation::Rename),
        nth,
        times: 4,
        mode: Mode::Lost,
        error: INPUT_OUTPUT,
    });
    let nth = disk.count(Operation::Flush);
    disk.inject(Injection {
        operation: Some(Operation::Flush),
        nth,
        times: 1,
        mode: Mode::Lost,
        error: INPUT_OUTPUT,
    });
    let tickets: Vec<Ticket> = (0..4).map(|n| journal.append(vec![n]).unwrap()).collect();
    let error = wait(&journal, tickets[3]).unwrap_err();
    assert!(matches!(error, Error::NotDurable(_)), "{error}");
    let mut refused = 0;
    while let Err(error) = journal.append(b"more".to_vec()) {
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
        journal.append(vec![n, 1]).unwrap();
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
    let ticket = journal.append(b"outcome".to_vec()).unwrap();
    let flush = flushes.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((flush.entries, flush.new_segment), (1, false));
    wait(&journal, ticket).unwrap();
    journal.append(b"at the end".to_vec()).unwrap();
    journal.close().unwrap();
    assert_eq!(entries(directory.path()).pop().unwrap().1, b"at the end");
    let error = journal.append(b"late".to_vec()).unwrap_err();
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
                            let ticket = journal.append(leaf.clone()).unwrap();
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
        let ticket = journal.append(vec![n]).unwrap();
        runtime.block_on(async {
            tokio::select! { biased; _ = journal.durable(ticket) => {}, () = async {} => {} }
        });
    }
    write(&journal, b"last");
    journal.close().unwrap();
    assert_eq!(entries(directory.path()).len(), 1 + 20 + 1);
}
