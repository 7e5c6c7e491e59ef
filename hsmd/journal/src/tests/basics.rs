//! Creating, appending, closing, opening, reading.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Memory, create, entries, files, open, small, wait, write};
use crate::{Error, MAX_LEAF, Tail, Ticket};

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
            error
                .to_string()
                .contains("with `hsmd state init`, or restore"),
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
    let error = journal.append(too_long).unwrap_err();
    assert!(matches!(error, Error::TooLong(65_536)), "{error}");
    let error = journal.append(reserved).unwrap_err();
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
fn a_state_that_refuses_its_own_entry_stops_the_journal_and_says_which() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let journal = open(directory.path()).journal;
    let ticket = journal.append(b"poison".to_vec()).unwrap();
    let error = wait(&journal, ticket).unwrap_err();
    let place = format!("entry {}", ticket.index());
    assert!(
        matches!(error, Error::Stopped(_)) && error.to_string().contains(&place),
        "{error}"
    );
    assert!(journal.status().stopped.is_some());
    assert!(matches!(
        journal.append(b"next".to_vec()),
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
