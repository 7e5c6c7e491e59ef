//! Torn ends, damage, and what a start makes of them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Memory, copy, create, entries, open, small, wait, write};
use crate::frame::{self, Header, Kind};
use crate::head::Head;
use crate::simulation::{Operation, Simulation};
use crate::{Cut, Error, Options, Tail, segment};

/// A journal with ten entries in its last segment, and where that segment's frames begin.
struct Sample {
    _directory: tempfile::TempDir,
    path: PathBuf,
    expected: Memory,
    segment: PathBuf,
    frames: Vec<u64>,
}

fn sample() -> Sample {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("journal");
    create(&path);
    let options = Options {
        segment_bytes: 1 << 16,
        ..Options::default()
    };
    let opened = crate::open::<Memory>(&path, options).unwrap();
    let mut expected = opened.state;
    for n in 0..10 {
        let leaf = vec![n; 700];
        expected.0.push((write(&opened.journal, &leaf), leaf));
    }
    // As a process leaves it that does not get to its end.
    let head = fs::read(Head::path(&path)).unwrap();
    opened.journal.close().unwrap();
    fs::write(Head::path(&path), head).unwrap();
    let segment = newest(&path);
    let bytes = fs::read(&segment).unwrap();
    let starts = |offset: &u64| bytes[*offset as usize..].starts_with(&frame::MAGIC);
    let frames = (0..bytes.len() as u64)
        .step_by(512)
        .filter(starts)
        .collect();
    Sample {
        _directory: temporary,
        path,
        expected,
        segment,
        frames,
    }
}

fn newest(directory: &Path) -> PathBuf {
    segment::path(
        directory,
        *segment::list(directory).unwrap().last().unwrap(),
    )
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(bytes, offset)
        .unwrap();
}

fn flip(path: &Path, offset: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset as usize] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn open_error(path: &Path) -> Error {
    crate::open::<Memory>(path, small())
        .err()
        .expect("this must not open")
}

#[test]
fn a_torn_last_frame_is_cut_and_reported_until_an_entry_follows_it() {
    let mut sample = sample();
    let end = fs::metadata(&sample.segment).unwrap().len();
    let last = *sample.frames.last().unwrap();
    let frame = fs::read(&sample.segment).unwrap()[last as usize..].to_vec();
    // Of a frame after the last, the second sector has reached the disk and the first has not.
    let torn = sample.frames.last().unwrap() + frame::size(702);
    overwrite(&sample.segment, torn + 512, &frame[512..600]);
    assert!(
        end > torn + 600,
        "a segment that is still open has zeros at its end"
    );
    let cut = Tail::Cut(Cut {
        segment: 2,
        offset: torn,
        bytes: 600,
    });
    for _ in 0..2 {
        let opened = open(&sample.path);
        assert_eq!(opened.tail, cut);
        assert_eq!(opened.state, sample.expected);
    }
    let opened = open(&sample.path);
    assert_eq!(opened.tail, cut);
    let index = write(&opened.journal, b"after");
    sample.expected.0.push((index, b"after".to_vec()));
    drop(opened);
    let opened = open(&sample.path);
    assert_eq!(opened.tail, Tail::Clean);
    assert_eq!(opened.state, sample.expected);
    assert_eq!(entries(&sample.path), sample.expected.0);
    assert_eq!(
        fs::read(&sample.segment).unwrap()[torn as usize + 512..][..88],
        frame[512..600]
    );
}

#[test]
fn damage_before_the_last_frame_is_fatal_and_names_the_place() {
    for (place, shift) in [
        (0, 3),
        (0, 120),
        (1, 0),
        (1, 200),
        (4, 0),
        (4, 30),
        (4, 90),
        (4, 700),
    ] {
        let sample = sample();
        let offset = sample.frames[place];
        flip(&sample.segment, offset + shift);
        for error in [open_error(&sample.path), open_error(&sample.path)] {
            let Error::Damaged {
                path, offset: at, ..
            } = &error
            else {
                panic!("{error}")
            };
            assert_eq!((path, *at), (&sample.segment, offset), "{error}");
        }
        let read =
            crate::read(&sample.path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        assert!(
            matches!(read, Err(Error::Damaged { .. })),
            "frame {place}, byte {shift}"
        );
    }
}

#[test]
fn a_frame_that_was_wiped_is_damage_and_not_an_end() {
    let sample = sample();
    let offset = sample.frames[5];
    overwrite(&sample.segment, offset, &[0; 1024]);
    let error = open_error(&sample.path);
    assert!(
        matches!(error, Error::Damaged { offset: at, .. } if at == offset),
        "{error}"
    );
}

#[test]
fn a_format_of_another_version_is_refused_by_name() {
    let sample = sample();
    overwrite(&sample.segment, 6, &[9]);
    let error = open_error(&sample.path);
    assert!(
        error
            .to_string()
            .contains("version 9, and this program reads version 2"),
        "{error}"
    );
}

#[test]
fn an_entry_that_imitates_a_frame_cannot_make_a_torn_end_look_like_damage() {
    let sample = sample();
    let header = Header {
        kind: Kind::Entries,
        segment: 2,
        salt: 1,
        sequence: 99,
        first: 99,
        length: 0,
        previous: [0; 32],
    };
    let torn = sample.frames.last().unwrap() + frame::size(702);
    overwrite(
        &sample.segment,
        torn + 512,
        &frame::encode_entries(&header, &[]).bytes,
    );
    let opened = open(&sample.path);
    assert!(matches!(opened.tail, Tail::Cut(Cut { offset, .. }) if offset == torn));
    assert_eq!(opened.state, sample.expected);
}

#[test]
fn a_start_rewrites_the_last_frame_and_begins_a_flushed_segment_before_it_returns() {
    use Operation::{Create, Flush, FlushDirectory, FlushZeros, Rename, Write, Zero};
    let sample = sample();
    let before = fs::read(&sample.segment).unwrap();
    let disk = Simulation::default();
    let opened = disk.open::<Memory>(&sample.path, small()).unwrap();
    let mut done = disk.done();
    done.retain(|operation| *operation != Operation::Remove);
    let expected = [
        Write,
        Flush,
        FlushDirectory,
        Create,
        Zero,
        FlushZeros,
        Write,
        Flush,
        Rename,
        FlushDirectory,
    ];
    assert_eq!(done[..expected.len()], expected);
    assert_ne!(newest(&sample.path), sample.segment);
    // Only the zeros at its end are gone.
    let after = fs::read(&sample.segment).unwrap();
    assert!(after.len() < before.len() && before.starts_with(&after));
    assert!(before[after.len()..].iter().all(|byte| *byte == 0));
    drop(opened);
}

#[test]
fn a_half_prepared_file_is_thrown_away() {
    let sample = sample();
    fs::write(sample.path.join("next.tmp"), b"half a segment").unwrap();
    assert_eq!(open(&sample.path).state, sample.expected);
}

#[test]
fn the_reader_finds_segments_that_were_changed_taken_away_or_swapped() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("journal");
    create(&path);
    for round in 0..3 {
        write(&open(&path).journal, &[round; 100]);
    }
    assert_eq!(entries(&path).len(), 4);
    let fails = |change: &dyn Fn(&Path)| {
        let other = temporary.path().join("changed");
        copy(&path, &other);
        change(&other);
        let read = crate::read(&other).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
        fs::remove_dir_all(other).unwrap();
    };
    fails(&|journal| fs::remove_file(segment::path(journal, 2)).unwrap());
    fails(&|journal| fs::write(segment::path(journal, 2), b"").unwrap());
    fails(&|journal| {
        let shorter = fs::metadata(segment::path(journal, 2)).unwrap().len() - 512;
        fs::File::options()
            .write(true)
            .open(segment::path(journal, 2))
            .unwrap()
            .set_len(shorter)
            .unwrap();
    });
    fails(&|journal| fs::rename(segment::path(journal, 2), segment::path(journal, 3)).unwrap());
    // What is left cannot know of what was before it, and says where it begins.
    let rest = temporary.path().join("rest");
    copy(&path, &rest);
    let whole = crate::read(&rest).unwrap().beginning();
    assert_eq!((whole.segment, whole.index), (1, 0));
    fs::remove_file(segment::path(&rest, 1)).unwrap();
    let mut reader = crate::read(&rest).unwrap();
    let beginning = reader.beginning();
    assert_eq!((beginning.segment, beginning.index), (2, 2));
    assert_eq!(reader.next().unwrap().unwrap().index, 2);
    // Another journal's segment of the same number, whole in itself.
    let stranger = temporary.path().join("stranger");
    create(&stranger);
    for round in 0..3 {
        write(&open(&stranger).journal, &[round + 9; 100]);
    }
    fails(&|journal| {
        fs::copy(segment::path(&stranger, 3), segment::path(journal, 3)).unwrap();
    });
}

#[test]
fn entries_are_there_after_a_crash_once_somebody_was_told_so() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("journal");
    create(&path);
    let opened = open(&path);
    for n in 0..60u8 {
        let unawaited = opened.journal.append(vec![n, 1]).unwrap();
        let ticket = opened.journal.append(vec![n, 2]).unwrap();
        wait(&opened.journal, ticket).unwrap();
        // What a crash would leave, were it to come at this moment.
        let crashed = temporary.path().join("crashed");
        copy(&path, &crashed);
        let state = open(&crashed).state;
        assert_eq!(
            state.0[state.0.len() - 2..],
            [
                (unawaited.index(), vec![n, 1]),
                (ticket.index(), vec![n, 2])
            ]
        );
        fs::remove_dir_all(crashed).unwrap();
    }
}
