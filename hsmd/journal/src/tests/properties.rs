//! Random histories, crashes and files.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::{Memory, copy, create, entries, open, small, wait, write};
use crate::{Opened, Ticket, segment};

#[derive(Clone, Debug)]
enum Step {
    /// Appends entries of these lengths in one go and waits for the last.
    Append(Vec<usize>),
    Restart,
    /// The machine crashes while the next frame is being written: of its sectors, those chosen by
    /// these bits reach the disk.
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(prop_oneof![0..200usize, 0..3000usize], 1..6).prop_map(Step::Append),
        1 => Just(Step::Restart),
        2 => any::<u64>().prop_map(Step::Crash),
    ]
}

/// What is left of `after` when of what changed since `before` only some sectors reached the disk.
fn tear(before: &Path, after: &Path, to: &Path, bits: u64) {
    copy(before, to);
    for number in segment::list(after).unwrap() {
        let new = fs::read(segment::path(after, number)).unwrap();
        let Ok(mut old) = fs::read(segment::path(before, number)) else {
            continue;
        };
        let length = old.len().max(new.len());
        old.resize(length, 0);
        let changed = old
            .chunks_mut(512)
            .zip(new.chunks(512))
            .filter(|(old, new)| old != new);
        for (place, (old, new)) in changed.enumerate() {
            if bits >> (place % 64) & 1 == 1 {
                old.copy_from_slice(new);
            }
        }
        fs::write(segment::path(to, number), old).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_called_durable_is_there_after_any_history(
        steps in prop::collection::vec(step(), 1..20),
    ) {
        let temporary = tempfile::tempdir().unwrap();
        let place = |name: String| temporary.path().join(name);
        let mut path = place("journal".to_owned());
        create(&path);
        let mut expected = vec![(0, b"first".to_vec())];
        let mut opened: Opened<Memory> = open(&path);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append(lengths) => {
                    let mut last: Option<Ticket> = None;
                    for (n, length) in lengths.into_iter().enumerate() {
                        let leaf = vec![(number + n) as u8; length];
                        let ticket = opened.journal.append(leaf.clone()).unwrap();
                        expected.push((ticket.index(), leaf));
                        last = Some(ticket);
                    }
                    wait(&opened.journal, last.unwrap()).unwrap();
                }
                Step::Restart => {
                    drop(opened);
                    opened = open(&path);
                }
                Step::Crash(bits) => {
                    let before = place(format!("{number}-before"));
                    copy(&path, &before);
                    let in_flight = vec![number as u8; 1200];
                    let index = write(&opened.journal, &in_flight);
                    let torn = place(format!("{number}-torn"));
                    tear(&before, &path, &torn, bits);
                    path = torn;
                    opened = open(&path);
                    if opened.state.0.last() == Some(&(index, in_flight.clone())) {
                        expected.push((index, in_flight));
                    }
                }
            }
        }
        prop_assert_eq!(entries(&path), expected.clone());
        drop(opened);
        prop_assert_eq!(open(&path).state, Memory(expected));
    }

    #[test]
    fn arbitrary_bytes_as_a_segment_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let temporary = tempfile::tempdir().unwrap();
        fs::write(segment::path(temporary.path(), 1), bytes).unwrap();
        prop_assert!(crate::open::<Memory>(temporary.path(), small()).is_err());
        prop_assert!(crate::read(temporary.path()).is_err());
    }

    #[test]
    fn a_segment_changed_anywhere_yields_no_entry_that_was_not_written(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut_off in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let temporary = tempfile::tempdir().unwrap();
        create(temporary.path());
        let journal = open(temporary.path()).journal;
        let written: Vec<u64> = (0..5).map(|n| write(&journal, &[n; 300])).collect();
        journal.close().unwrap();
        let expected = entries(temporary.path());
        prop_assert_eq!(written.len() + 1, expected.len());
        let newest = segment::path(temporary.path(), 2);
        let mut bytes = fs::read(&newest).unwrap();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(length) = cut_off {
            bytes.truncate(length.index(bytes.len()));
        }
        fs::write(&newest, bytes).unwrap();
        if let Ok(opened) = crate::open::<Memory>(temporary.path(), small()) {
            prop_assert!(expected.starts_with(&opened.state.0));
        }
    }
}
