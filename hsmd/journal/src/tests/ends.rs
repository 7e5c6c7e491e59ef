//! What was taken from a journal's end is missed at the next start. Promise 3.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{Memory, create, open, small, write};
use crate::head::Head;
use crate::{Error, Tail, segment};

/// A journal of several segments, of which the last was prepared beside the one before and has some
/// entries; after a clean stop, or as a process leaves it that is killed.
fn journal(stopped: bool) -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("journal");
    create(&path);
    drop(open(&path));
    let opened = open(&path);
    while opened.journal.status().segment < 5 {
        write(&opened.journal, b"one");
        std::thread::yield_now();
    }
    write(&opened.journal, b"two");
    let head = fs::read(Head::path(&path)).unwrap();
    drop(opened);
    if !stopped {
        fs::write(Head::path(&path), head).unwrap();
    }
    (temporary, path)
}

fn newest(path: &Path) -> PathBuf {
    segment::path(path, *segment::list(path).unwrap().last().unwrap())
}

/// Both a start and a reader refuse, and say why.
fn refused(path: &Path) -> String {
    let start = crate::open::<Memory>(path, small()).err().expect("refused");
    let read = crate::read(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.expect_err("refused");
    for error in [&start, &read] {
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
    assert_eq!(start.to_string(), read.to_string());
    start.to_string()
}

#[test]
fn a_newest_segment_that_is_gone_is_missed() {
    for stopped in [true, false] {
        let (_kept, path) = journal(stopped);
        fs::remove_file(newest(&path)).unwrap();
        let message = refused(&path);
        assert!(
            message.contains("it was begun, and no such file is there"),
            "{message}"
        );
        fs::remove_file(newest(&path)).unwrap();
        refused(&path);
    }
}

#[test]
fn a_newest_segment_that_was_cut_anywhere_is_missed() {
    for stopped in [true, false] {
        let (_kept, path) = journal(stopped);
        let bytes = fs::read(newest(&path)).unwrap();
        let frames = (0..bytes.len()).step_by(512);
        let ends: Vec<usize> = frames
            .filter(|at| bytes[*at..].starts_with(b"HSMJNL"))
            .collect();
        assert!(ends.len() >= 2);
        for end in ends.into_iter().chain([bytes.len() - 1]) {
            fs::write(newest(&path), &bytes[..end]).unwrap();
            // After a clean stop nothing needs the zeros behind the end.
            let zeros = bytes[end..].iter().all(|byte| *byte == 0);
            if !(stopped && zeros) {
                refused(&path);
            }
        }
    }
}

#[test]
fn after_a_clean_stop_an_end_that_was_zeroed_changed_or_written_behind_is_missed() {
    let (_kept, path) = journal(true);
    let segment = newest(&path);
    let bytes = fs::read(&segment).unwrap();
    let frame = |bytes: &[u8]| {
        (0..bytes.len())
            .step_by(512)
            .rfind(|at| bytes[*at..].starts_with(b"HSMJNL"))
    };
    let last = frame(&bytes).unwrap();
    let before = frame(&bytes[..last]).unwrap();
    for from in [before, last] {
        let mut zeroed = bytes.clone();
        zeroed[from..].fill(0);
        fs::write(&segment, zeroed).unwrap();
        refused(&path);
    }
    for place in last..bytes.len().min(last + 2048) {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        fs::write(&segment, changed).unwrap();
        refused(&path);
    }
    fs::write(&segment, bytes).unwrap();
    assert_eq!(open(&path).tail, Tail::Clean);
}

#[test]
fn a_head_that_is_gone_or_changed_is_missed() {
    let (_kept, path) = journal(false);
    let head = fs::read(Head::path(&path)).unwrap();
    fs::remove_file(Head::path(&path)).unwrap();
    assert!(refused(&path).contains("it is missing"));
    for place in 0..head.len() {
        let mut changed = head.clone();
        changed[place] ^= 1;
        fs::write(Head::path(&path), changed).unwrap();
        refused(&path);
    }
    fs::write(Head::path(&path), head).unwrap();
    open(&path);
}

#[test]
fn a_head_half_written_by_a_crash_does_not_count() {
    let (_kept, path) = journal(true);
    let half = File::create(path.join("head.tmp")).unwrap();
    half.set_len(7).unwrap();
    open(&path);
}
