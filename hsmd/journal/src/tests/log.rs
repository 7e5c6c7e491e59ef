//! The journal as a public log: verified, exported, proved and pruned. Promise 7.

use std::fs;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer as _, SigningKey};

use super::{create, open, small, write};
use crate::note::{Algorithm, Checkpoint, Note, Verifier};
use crate::{
    Error, Files, Hash, Options, Progress, Reader, export, is_consistent, leaf_hash,
    prove_consistency, prove_inclusion, prune, read, read_proof, verify, verify_export,
    write_proof,
};

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn verifier() -> Verifier {
    let key = signing_key().verifying_key();
    Verifier::new("example.com/log", Algorithm::Ed25519, key.as_bytes()).unwrap()
}

/// A signed checkpoint of a journal as it is.
fn checkpoint(path: &Path) -> Note {
    let verified = verify(&files(path), &[], &Progress::default()).unwrap();
    sign(verified.entries, verified.root)
}

fn sign(size: u64, root: Hash) -> Note {
    let checkpoint = Checkpoint {
        origin: "example.com/log".to_owned(),
        size,
        root,
        extensions: Vec::new(),
    };
    let signature = signing_key().sign(checkpoint.text().as_bytes());
    checkpoint.sign(&verifier(), &signature.to_bytes()).unwrap()
}

fn files(path: &Path) -> Files {
    Files::new(path, None).unwrap()
}

/// A journal that was stopped cleanly, with so many more entries.
fn extend(path: &Path, entries: usize) {
    let opened = open(path);
    for n in 0..entries {
        write(&opened.journal, format!("entry {n}").as_bytes());
    }
    opened.journal.close().unwrap();
}

fn journal(entries: usize) -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("journal");
    create(&path);
    extend(&path, entries);
    (temporary, path)
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path().is_dir() {
            true => found.extend(all_files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[test]
fn any_flipped_bit_of_any_file_of_a_journal_is_found() {
    let (_kept, path) = journal(12);
    let sound = verify(&files(&path), &[], &Progress::default()).unwrap();
    assert_eq!(sound.uncounted, []);
    let mut flipped = 0;
    for file in all_files(&path) {
        // The lock has a process id, for a message; the next segment in preparation has nothing yet.
        if file.ends_with("lock") || file.ends_with("next.tmp") {
            continue;
        }
        let bytes = fs::read(&file).unwrap();
        let behind = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1024;
        for place in 0..bytes.len().min(behind) {
            let mut changed = bytes.clone();
            changed[place] ^= 1 << (place % 8);
            fs::write(&file, &changed).unwrap();
            let found =
                Files::new(&path, None).and_then(|files| verify(&files, &[], &Progress::default()));
            let found = found.map_or(true, |verified| !verified.uncounted.is_empty());
            assert!(found, "{} byte {place}", file.display());
            flipped += 1;
        }
        fs::write(&file, &bytes).unwrap();
    }
    assert!(flipped > 8000, "{flipped}");
}

#[test]
fn any_flipped_bit_of_any_file_of_an_exported_log_is_found() {
    let (kept, path) = journal(300);
    let to = kept.path().join("exported");
    export(
        &files(&path),
        &to,
        &checkpoint(&path),
        &verifier(),
        &Progress::default(),
    )
    .unwrap();
    let check = || verify_export(&to, &verifier(), &[], &Progress::default());
    let size = check().unwrap().size;
    assert!(size > 300);
    for file in all_files(&to) {
        let bytes = fs::read(&file).unwrap();
        // Every byte of the small ones, and every 37th of the two long ones.
        let step = if bytes.len() > 2000 { 37 } else { 1 };
        for place in (0..bytes.len()).step_by(step) {
            let mut changed = bytes.clone();
            changed[place] ^= 1 << (place % 8);
            fs::write(&file, &changed).unwrap();
            check().expect_err("found");
        }
        fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        check().expect_err("found");
        fs::write(&file, &bytes).unwrap();
    }
    fs::write(to.join("tile/0/stranger"), "").unwrap();
    check().expect_err("found");
}

#[test]
fn an_export_goes_on_where_the_last_one_ended_and_makes_the_same_files_as_one_at_once() {
    let (kept, path) = journal(3);
    let to = kept.path().join("exported");
    let mut size = 0;
    for more in [0, 1, 250, 3, 40, 300] {
        extend(&path, more);
        let note = checkpoint(&path);
        let done = export(&files(&path), &to, &note, &verifier(), &Progress::default()).unwrap();
        assert_eq!(done.before, size);
        size = verify_export(&to, &verifier(), &[], &Progress::default())
            .unwrap()
            .size;
        assert_eq!(done.size, size);
    }
    let at_once = kept.path().join("at once");
    let note = checkpoint(&path);
    export(
        &files(&path),
        &at_once,
        &note,
        &verifier(),
        &Progress::default(),
    )
    .unwrap();
    let contents = |folder: &Path| {
        let mut files = all_files(folder);
        files.sort();
        let relative = |file: PathBuf| {
            let content = fs::read(&file).unwrap();
            (file.strip_prefix(folder).unwrap().to_owned(), content)
        };
        files.into_iter().map(relative).collect::<Vec<_>>()
    };
    assert!(contents(&to) == contents(&at_once));
    assert!(to.join("tile/1/000.p/2").is_file());
}

#[test]
fn what_is_not_this_journals_log_is_not_exported_over() {
    let (kept, path) = journal(20);
    let (_other_kept, other) = journal(0);
    write(&open(&other).journal, b"of another journal");
    extend(&other, 30);
    let to = kept.path().join("exported");
    let export = |path: &Path, note: &Note| {
        export(&files(path), &to, note, &verifier(), &Progress::default())
    };
    let note = checkpoint(&path);
    export(&path, &note).unwrap();
    // Another journal under the same key, a tree that is not there, one that went back, a note of nobody.
    assert!(matches!(
        export(&other, &checkpoint(&other)),
        Err(Error::Export { .. })
    ));
    assert!(matches!(
        export(&path, &sign(24, [1; 32])),
        Err(Error::Export { .. })
    ));
    assert!(matches!(
        export(&path, &sign(5, [1; 32])),
        Err(Error::Export { .. })
    ));
    let size = note.text().lines().nth(1).unwrap();
    let other = note
        .to_string()
        .replacen(&format!("\n{size}\n"), "\n7\n", 1);
    let forged: Note = other.parse().unwrap();
    assert!(matches!(export(&path, &forged), Err(Error::Checkpoint(_))));
    verify_export(&to, &verifier(), &[], &Progress::default()).unwrap();
}

#[test]
fn each_entry_is_proved_and_each_tree_begins_with_each_earlier_one() {
    let (_kept, path) = journal(30);
    let entries: Vec<_> = read(&path).unwrap().map(Result::unwrap).collect();
    let sizes: Vec<u64> = (0..=entries.len() as u64).collect();
    let roots = verify(&files(&path), &sizes, &Progress::default())
        .unwrap()
        .roots;
    let note = checkpoint(&path);
    let new = entries.len() as u64;
    for entry in &entries {
        let (leaf, proof) = prove_inclusion(&files(&path), entry.index, new).unwrap();
        assert_eq!((&leaf, proof.root), (&entry.leaf, roots[&new]));
        let text = write_proof(entry.index, &proof, &note);
        let (index, read) = read_proof(&text, &leaf, &verifier()).unwrap();
        assert_eq!((index, &read), (entry.index, &note));
        read_proof(&text, b"another", &verifier()).unwrap_err();
        if entry.index > 0 {
            let proof = prove_consistency(&files(&path), entry.index, new).unwrap();
            let (old, hashes) = (entry.index, &proof.hashes);
            assert!(
                is_consistent(old, &roots[&old], new, &roots[&new], hashes),
                "{old}"
            );
        }
    }
    assert!(matches!(
        prove_inclusion(&files(&path), new, new),
        Err(Error::NoProof(_))
    ));
    assert!(matches!(
        prove_inclusion(&files(&path), 0, new + 1),
        Err(Error::NoProof(_))
    ));
}

#[test]
fn a_pruned_journal_stays_verifiable_alone_and_with_its_archive() {
    let (kept, path) = journal(40);
    extend(&path, 3);
    let before = verify(&files(&path), &[], &Progress::default()).unwrap();
    let archive = kept.path().join("archive");
    let to = kept.path().join("exported");
    let note = checkpoint(&path);
    export(&files(&path), &to, &note, &verifier(), &Progress::default()).unwrap();
    for keep in [4, 3, 3] {
        prune(&path, &archive, keep, &Progress::default()).unwrap();
        assert_eq!(crate::segment::list(&path).unwrap().len(), keep);
        let rest = verify(&files(&path), &[before.entries], &Progress::default()).unwrap();
        assert_eq!((rest.entries, rest.root), (before.entries, before.root));
        assert!(rest.first > 0);
        let both = Files::new(&path, Some(&archive)).unwrap();
        let whole = verify(&both, &[], &Progress::default()).unwrap();
        assert_eq!(whole, before);
        // What is archived is proved with the archive only.
        prove_inclusion(&both, 0, before.entries).unwrap();
        assert!(matches!(
            prove_inclusion(&files(&path), 0, before.entries),
            Err(Error::NoProof(_))
        ));
    }
    // It goes on, and so does what was exported before.
    extend(&path, 3);
    let note = checkpoint(&path);
    export(&files(&path), &to, &note, &verifier(), &Progress::default()).unwrap();
    verify_export(&to, &verifier(), &[], &Progress::default()).unwrap();
    let elsewhere = kept.path().join("elsewhere");
    let whole = export(
        &files(&path),
        &elsewhere,
        &note,
        &verifier(),
        &Progress::default(),
    );
    assert!(matches!(whole, Err(Error::NoProof(_))));
}

#[test]
fn a_journal_is_not_archived_onto_itself() {
    let (kept, path) = journal(40);
    extend(&path, 3);
    let link = kept.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for archive in [&path, &link] {
        prune(&path, archive, 2, &Progress::default()).unwrap_err();
    }
    let whole = verify(&files(&path), &[], &Progress::default()).unwrap();
    assert_eq!(whole.first, 0);
}

#[test]
fn a_journal_in_use_is_verified_without_a_false_alarm() {
    let (_kept, path) = journal(1);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut before = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let verified = verify(&files(&path), &[], &Progress::default()).unwrap();
                assert!(verified.entries >= before);
                before = verified.entries;
            }
        });
        for round in 0..4u8 {
            let opened = open(&path);
            for _ in 0..60 {
                write(&opened.journal, &[round; 200]);
            }
            opened.journal.close().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn pruning_a_journal_in_use_disturbs_neither() {
    let (kept, path) = journal(10);
    let opened = crate::open::<super::Memory>(&path, Options { ..small() }).unwrap();
    for n in 0..40u8 {
        write(&opened.journal, &[n; 300]);
        prune(&path, &kept.path().join("archive"), 2, &Progress::default()).unwrap();
    }
    opened.journal.close().unwrap();
    let both = Files::new(&path, Some(&kept.path().join("archive"))).unwrap();
    let mut tree = crate::Tree::default();
    let reader: Reader = crate::read_from(&both, 0).unwrap();
    reader.for_each(|entry| tree.push(leaf_hash(&entry.unwrap().leaf)));
    let verified = verify(&both, &[], &Progress::default()).unwrap();
    assert_eq!(
        (verified.entries, verified.root),
        (tree.size(), tree.root())
    );
    assert_eq!(verified.first, 0);
}
