//! Creating, appending, closing, opening, reading.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Memory, create, entries, open, small, wait, write};
use crate::{Error, Options, Tail, Urgency};

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
    assert_eq!(open(&directory).state, Memory(expected));
}
