//! Proofs from a journal's files, for the tree as it was at some size; and as the text of
//! [c2sp.org/tlog-proof](https://c2sp.org/tlog-proof).

use std::str::FromStr as _;

use crate::error::Error;
use crate::note::{self, Checkpoint, Note, Verifier};
use crate::proof::{Wanted, root_of_inclusion};
use crate::reader::{Files, read_from};
use crate::tree::{Hash, Subtree, leaf_hash};

/// A proof, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The hashes, from the leaf's side to the root's.
    pub hashes: Vec<Hash>,
    /// The root of the tree that it leads to.
    pub root: Hash,
}

/// That entry `index` is in the tree of the first `size` entries; with the entry. Reads the segments from
/// that of the entry on.
///
/// # Errors
/// [`Error::NoProof`] where there is no such entry in that tree, or its segment is not there; those of
/// [`crate::read`].
pub fn prove_inclusion(files: &Files, index: u64, size: u64) -> Result<(Vec<u8>, Proof), Error> {
    let wanted = Wanted::inclusion(index, size)
        .ok_or_else(|| Error::NoProof(format!("entry {index} is not among the first {size}")))?;
    let mut found = None;
    let proof = prove(files, index, size, wanted, |place, leaf| {
        if place == index {
            found = Some(leaf.to_vec());
        }
    })?;
    let leaf = found.ok_or_else(|| not_there(index))?;
    Ok((leaf, proof))
}

/// That the tree of the first `new` entries begins with that of the first `old`. Reads the segments from
/// the one in which the old tree ends.
///
/// # Errors
/// As [`prove_inclusion`].
pub fn prove_consistency(files: &Files, old: u64, new: u64) -> Result<Proof, Error> {
    let wanted = Wanted::consistency(old, new).ok_or_else(|| {
        Error::NoProof(format!(
            "a tree of {new} entries cannot begin with one of {old}"
        ))
    })?;
    // One before its end, so that its last subtrees are seen as they are completed.
    prove(
        files,
        old.min(new.saturating_sub(1)),
        new,
        wanted,
        |_, _| {},
    )
}

const TITLE: &str = "c2sp.org/tlog-proof@v1\n";

/// The proof that entry `index` is in the tree of the checkpoint, which it carries: it can be checked by
/// anyone who has the entry and the log's key.
#[must_use]
pub fn write_proof(index: u64, proof: &Proof, checkpoint: &Note) -> String {
    let hashes = proof.hashes.iter().map(|hash| note::to_base64(hash) + "\n");
    let hashes: String = hashes.collect();
    format!("{TITLE}index {index}\n{hashes}\n{checkpoint}")
}

/// Checks such a proof of an entry: its index, and the note of the checkpoint that it is in.
///
/// # Errors
/// Where it does not hold for this entry and this log.
pub fn read_proof(text: &str, leaf: &[u8], verifier: &Verifier) -> Result<(u64, Note), Error> {
    let malformed = || Error::NoProof("this is no c2sp.org/tlog-proof@v1".to_owned());
    let rest = text.strip_prefix(TITLE).ok_or_else(malformed)?;
    let (head, note) = rest.split_once("\n\n").ok_or_else(malformed)?;
    let mut lines = head.lines().peekable();
    lines.next_if(|line| line.starts_with("extra "));
    let index = lines.next().and_then(|line| line.strip_prefix("index "));
    let index = index.and_then(note::number).ok_or_else(malformed)?;
    let hashes: Option<Vec<Hash>> = lines.map(note::hash).collect();
    let hashes = hashes.ok_or_else(malformed)?;
    let note = Note::from_str(note)?;
    let checkpoint = Checkpoint::verify(&note, verifier)?;
    let root = root_of_inclusion(index, checkpoint.size, leaf_hash(leaf), &hashes);
    if root != Some(checkpoint.root) {
        let reason =
            format!("it does not lead from this entry to the checkpoint's root, at {index}");
        return Err(Error::NoProof(reason));
    }
    Ok((index, note))
}

fn prove(
    files: &Files,
    from: u64,
    size: u64,
    mut wanted: Wanted,
    mut seen: impl FnMut(u64, &[u8]),
) -> Result<Proof, Error> {
    let mut reader = read_from(files, from)?;
    let mut tree = reader.tree_before().clone();
    if tree.size() > from {
        return Err(not_there(from));
    }
    wanted.see_frontier(&tree);
    let mut see = |place: Subtree, hash: &Hash| wanted.see(place, hash);
    while tree.size() < size {
        let entry = match reader.next() {
            Some(entry) => entry?,
            None => {
                let reason = format!("the journal has {} entries, not {size}", tree.size());
                return Err(Error::NoProof(reason));
            }
        };
        seen(entry.index, &entry.leaf);
        tree.push_seeing(leaf_hash(&entry.leaf), &mut see);
    }
    let hashes = wanted.proof().ok_or_else(|| not_there(from))?;
    Ok(Proof {
        hashes,
        root: tree.root(),
    })
}

fn not_there(index: u64) -> Error {
    Error::NoProof(format!(
        "entry {index} stands in an earlier segment, which is not there: name the directory that it was \
         archived to"
    ))
}
