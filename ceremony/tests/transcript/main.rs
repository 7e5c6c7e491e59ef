//! The transcript: durable line by line, any changed byte is found, the roles' signatures count together, and it knows
//! who could have rebuilt what.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod command;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use hsm_ceremony::Moment;
use hsm_ceremony::commitment::Commitment;
use hsm_ceremony::transcript::lineage::{Standing, lineage};
use hsm_ceremony::transcript::{
    Damage, Digest, Event, FileError, ShareId, SplitGroup, Transcript, read,
};

fn at(seconds: i64) -> Moment {
    Moment::from_unix(1_795_636_800 + seconds).unwrap()
}

fn opened() -> Event {
    Event::Opened {
        title: "Validator".to_owned(),
        plan: Digest::of(b"plan"),
        software: Digest::of(b"software"),
        practice: false,
    }
}

fn done(step: u32) -> Event {
    Event::Done {
        step,
        saw: BTreeMap::from([("serial number".to_owned(), "0012345678".to_owned())]),
        initials: vec!["AL".to_owned(), "GH".to_owned()],
    }
}

fn file(folder: &Path) -> std::path::PathBuf {
    folder.join("transcript.jsonl")
}

/// A closed transcript of five lines.
fn closed(folder: &Path) -> Vec<u8> {
    let mut transcript = Transcript::create(folder, at(0), opened()).unwrap();
    for step in 1..=3 {
        transcript.append(at(step.into()), done(step)).unwrap();
    }
    transcript
        .append(at(4), Event::Closed { steps: 3 })
        .unwrap();
    fs::read(file(folder)).unwrap()
}

#[test]
fn any_changed_byte_of_a_transcript_is_found_but_in_the_last_line_which_the_signatures_hold() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = closed(folder.path());
    let (_, head) = read(&bytes).unwrap();
    for index in 0..bytes.len() {
        for flip in [0x01, 0x20, 0x80] {
            let mut changed = bytes.clone();
            changed[index] ^= flip;
            match read(&changed) {
                Err(_) => {}
                // A change of meaning in the last line reads well, and has another head.
                Ok((_, other)) => assert_ne!(other, head, "byte {index}"),
            }
        }
    }
}

#[test]
fn lines_that_are_left_out_doubled_swapped_or_added_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = closed(folder.path());
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let (first, second) = (lines[0], lines[1]);
    let damage = |lines: &[&[u8]]| read(&lines.concat()).unwrap_err();
    assert_eq!(damage(&[]), Damage::Empty);
    assert_eq!(damage(&lines[1..]), Damage::Chain { line: 1 });
    assert_eq!(damage(&[first, lines[2]]), Damage::Chain { line: 2 });
    assert_eq!(damage(&[first, second, second]), Damage::Chain { line: 3 });
    assert_eq!(damage(&[first, first]), Damage::Chain { line: 2 });
    assert_eq!(
        damage(&[&lines[..], &[b"{}\n"]].concat()),
        Damage::Line {
            line: 6,
            reason: "missing field `number` at line 1 column 2".to_owned(),
        }
    );
    assert_eq!(
        damage(&[first, &second[..second.len() - 1]]),
        Damage::Torn { line: 2 }
    );
}

/// Without our code: the chain is SHA-256 over lines.
#[test]
fn sha256sum_checks_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = closed(folder.path());
    let first = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap();
    fs::write(folder.path().join("first"), first).unwrap();
    let output = Command::new("sha256sum")
        .arg(folder.path().join("first"))
        .output()
        .unwrap();
    let digest = String::from_utf8(output.stdout).unwrap()[..64].to_owned();
    let second = String::from_utf8(bytes)
        .unwrap()
        .lines()
        .nth(1)
        .unwrap()
        .to_owned();
    assert!(
        second.contains(&format!("\"previous\":\"{digest}\"")),
        "{second}"
    );
}

/// The writing of any line is interrupted at any byte: what was written before it stays, and it goes on.
#[test]
fn a_transcript_goes_on_after_its_writing_was_interrupted_at_any_byte() {
    let folder = tempfile::tempdir().unwrap();
    {
        let mut transcript = Transcript::create(folder.path(), at(0), opened()).unwrap();
        transcript.append(at(1), done(1)).unwrap();
    }
    let whole = fs::read(file(folder.path())).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in first..=whole.len() {
        fs::write(file(folder.path()), &whole[..length]).unwrap();
        let mut transcript = Transcript::resume(folder.path(), at(9)).unwrap();
        let (expected, deviation) = match length - first {
            0 => (1, false),
            _ if length == whole.len() => (2, false),
            _ => (2, true),
        };
        assert_eq!(transcript.entries().len(), expected, "{length} bytes");
        let last = &transcript.entries()[expected - 1].event;
        assert_eq!(matches!(last, Event::Deviation { .. }), deviation);
        transcript.append(at(10), done(2)).unwrap();
        let (entries, head) = read(&fs::read(file(folder.path())).unwrap()).unwrap();
        assert_eq!(
            (entries.as_slice(), head),
            (transcript.entries(), transcript.head())
        );
    }
}

#[test]
fn a_transcript_without_its_first_line_is_not_resumed_and_never_begun_anew_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Transcript::resume(folder.path(), at(0)).err().unwrap();
    assert!(matches!(missing, FileError::Io { .. }), "{missing}");
    fs::write(file(folder.path()), b"{\"number\":0").unwrap();
    let torn = Transcript::resume(folder.path(), at(0)).err().unwrap();
    assert!(
        matches!(
            torn,
            FileError::Damaged {
                damage: Damage::Empty,
                ..
            }
        ),
        "{torn}"
    );
    let exists = Transcript::create(folder.path(), at(0), opened())
        .err()
        .unwrap();
    assert!(matches!(exists, FileError::Exists(_)), "{exists}");
    assert_eq!(fs::read(file(folder.path())).unwrap(), b"{\"number\":0");
}

#[test]
fn damage_in_the_middle_is_never_taken_for_an_interruption() {
    let folder = tempfile::tempdir().unwrap();
    drop(closed(folder.path()));
    let mut bytes = fs::read(file(folder.path())).unwrap();
    bytes[10] ^= 1;
    fs::write(file(folder.path()), &bytes).unwrap();
    let damaged = Transcript::resume(folder.path(), at(0)).err().unwrap();
    assert!(matches!(damaged, FileError::Damaged { .. }), "{damaged}");
    assert_eq!(fs::read(file(folder.path())).unwrap(), bytes);
}

#[test]
fn a_closed_transcript_is_not_written_to_and_an_open_one_by_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let held = Transcript::create(folder.path(), at(0), opened()).unwrap();
    let second = Transcript::resume(folder.path(), at(1)).err().unwrap();
    assert!(matches!(second, FileError::Locked(_)), "{second}");
    drop(held);
    let mut transcript = Transcript::resume(folder.path(), at(1)).unwrap();
    transcript
        .append(at(2), Event::Closed { steps: 0 })
        .unwrap();
    drop(transcript);
    let closed = Transcript::resume(folder.path(), at(3)).err().unwrap();
    assert!(matches!(closed, FileError::Closed(_)), "{closed}");
}

#[test]
fn a_read_only_folder_is_named() {
    let missing = Transcript::create(Path::new("/proc/1"), at(0), opened())
        .err()
        .unwrap();
    assert!(missing.to_string().contains("/proc/1"), "{missing}");
}

fn share(group: u8, member: u8) -> ShareId {
    ShareId {
        generation: 1,
        group,
        member,
    }
}

fn handed(group: u8, member: u8, custodian: &str) -> Event {
    Event::Handed {
        share: share(group, member),
        custodian: custodian.to_owned(),
        bag: format!("B{group}{member}"),
        commitment: Commitment {
            salt: Digest::NONE,
            digest: Digest::of(b"share"),
        },
    }
}

/// Generation 1: the officers Ada, Bea and Cleo (any 2), and an escrow, both groups needed.
fn custody(folder: &Path) -> Vec<hsm_ceremony::transcript::Entry> {
    let mut transcript = Transcript::create(folder, at(0), opened()).unwrap();
    let group = |name: &str, threshold, members| SplitGroup {
        name: name.to_owned(),
        threshold,
        members,
    };
    let groups = vec![group("officers", 2, 3), group("third party", 1, 1)];
    let events = [
        (
            10,
            Event::Split {
                generation: 1,
                group_threshold: 2,
                groups,
            },
        ),
        (20, handed(1, 1, "Ada")),
        (21, handed(1, 2, "Bea")),
        (22, handed(2, 1, "Escrow")),
        (23, handed(1, 3, "Cleo")),
        (30, Event::Valid { generation: 1 }),
        (
            40,
            Event::Destroyed {
                share: share(1, 1),
                initials: vec!["GH".to_owned()],
            },
        ),
        (
            50,
            Event::Destroyed {
                share: share(1, 2),
                initials: vec!["GH".to_owned()],
            },
        ),
        (60, Event::Rotated { generation: 1 }),
    ];
    for (seconds, event) in events {
        transcript.append(at(seconds), event).unwrap();
    }
    transcript.entries().to_vec()
}

#[test]
fn lineage_knows_who_could_have_rebuilt_a_generation_at_every_moment() {
    let folder = tempfile::tempdir().unwrap();
    let entries = custody(folder.path());
    let coalition = |seconds| {
        let lineage = lineage(&entries, 1, at(seconds));
        let people = lineage
            .smallest_coalition()
            .map(|people| people.into_iter().collect::<Vec<_>>().join(" "));
        (lineage.standing, people)
    };
    assert_eq!(coalition(9), (Standing::NotSplit, None));
    assert_eq!(coalition(21), (Standing::HandedOut, None));
    assert_eq!(
        coalition(22),
        (Standing::HandedOut, Some("Ada Bea Escrow".to_owned()))
    );
    assert_eq!(
        coalition(30),
        (Standing::Valid, Some("Ada Bea Escrow".to_owned()))
    );
    assert_eq!(
        coalition(40),
        (Standing::Valid, Some("Bea Cleo Escrow".to_owned()))
    );
    assert_eq!(coalition(50), (Standing::Valid, None));
    assert_eq!(coalition(60), (Standing::Rotated, None));
    assert_eq!(lineage(&entries, 2, at(60)).standing, Standing::NotSplit);
}

#[test]
fn a_person_with_two_shares_counts_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut entries = custody(folder.path());
    for entry in &mut entries {
        if let Event::Handed { custodian, .. } = &mut entry.event {
            *custodian = custodian.replace("Bea", "Ada");
        }
    }
    let lineage = lineage(&entries, 1, at(30));
    let people: Vec<&str> = lineage.smallest_coalition().unwrap().into_iter().collect();
    assert_eq!(people, ["Ada", "Escrow"]);
}
