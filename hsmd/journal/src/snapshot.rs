//! Snapshots: what opens a segment, and the leaf that binds it into the tree.

use sha2::{Digest, Sha256};

use crate::frame::number;
use crate::tree::{Hash, Tree};

/// How every snapshot leaf begins. Owners' entries may not begin so.
const LEAF_PREFIX: &[u8; 24] = b"hsm-journal snapshot v1\n";

/// The end of the segment before that did not verify and was left out: a frame torn by a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Number of the segment whose end was torn.
    pub segment: u64,
    /// Where the torn frame begins, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes from there to the last one that is not zero.
    pub bytes: u64,
}

/// Whether a leaf is one that the journal itself made, to bind a segment's snapshot into the tree.
#[must_use]
pub fn is_snapshot_leaf(leaf: &[u8]) -> bool {
    leaf.starts_with(LEAF_PREFIX)
}

/// What a snapshot leaf says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotLeaf {
    /// Number of the segment that the snapshot opens.
    pub(crate) segment: u64,
    /// Size of the tree that the snapshot covers.
    pub(crate) size: u64,
    /// What was cut from the segment before.
    pub(crate) cut: Option<Cut>,
    /// SHA-256 of the snapshot frame's payload.
    pub(crate) digest: Hash,
}

impl SnapshotLeaf {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let cut = self.cut.unwrap_or(Cut {
            segment: 0,
            offset: 0,
            bytes: 0,
        });
        let mut bytes = LEAF_PREFIX.to_vec();
        for number in [self.segment, self.size, cut.segment, cut.offset, cut.bytes] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.digest);
        bytes
    }

    pub(crate) fn decode(leaf: &[u8]) -> Option<Self> {
        let rest = leaf.strip_prefix(LEAF_PREFIX)?;
        let (segment, rest) = number(rest)?;
        let (size, rest) = number(rest)?;
        let (cut_segment, rest) = number(rest)?;
        let (offset, rest) = number(rest)?;
        let (bytes, digest) = number(rest)?;
        let cut = (cut_segment > 0).then_some(Cut {
            segment: cut_segment,
            offset,
            bytes,
        });
        Some(Self {
            segment,
            size,
            cut,
            digest: digest.try_into().ok()?,
        })
    }
}

/// Bytes of a snapshot frame's payload.
pub(crate) fn size(tree: &Tree, owner: &[u8]) -> usize {
    8 + 32 * tree.frontier().len() + owner.len()
}

/// The payload of a snapshot frame: how long the segment's file was made, the tree's frontier, then the
/// owner's bytes.
pub(crate) fn encode(length: u64, tree: &Tree, owner: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(size(tree, owner));
    payload.extend_from_slice(&length.to_be_bytes());
    payload.extend_from_slice(tree.frontier().as_flattened());
    payload.extend_from_slice(owner);
    payload
}

/// The file's length, the tree of `size` leaves and the owner's bytes; `None` if the payload is too short
/// for the tree.
pub(crate) fn decode(size: u64, payload: &[u8]) -> Option<(u64, Tree, &[u8])> {
    let (length, rest) = number(payload)?;
    let (frontier, owner) = rest.split_at_checked(32 * size.count_ones() as usize)?;
    let (hashes, _) = frontier.as_chunks::<32>();
    Some((length, Tree::from_parts(size, hashes.to_vec())?, owner))
}

/// What a snapshot leaf says of a snapshot frame's payload.
pub(crate) fn digest(payload: &[u8]) -> Hash {
    Sha256::digest(payload).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_leaf_has_the_documented_bytes_and_reads_back() {
        let cut = Cut {
            segment: 2,
            offset: 512,
            bytes: 7,
        };
        let leaf = SnapshotLeaf {
            segment: 3,
            size: 9,
            cut: Some(cut),
            digest: [0xcd; 32],
        };
        let numbers = ["03", "09", "02", "0200", "07"].map(|digits| format!("{digits:0>16}"));
        let expected =
            hex::encode("hsm-journal snapshot v1\n") + &numbers.concat() + &"cd".repeat(32);
        assert_eq!(hex::encode(leaf.encode()), expected);
        for cut in [None, Some(cut)] {
            let leaf = SnapshotLeaf {
                cut,
                ..leaf.clone()
            };
            assert!(is_snapshot_leaf(&leaf.encode()));
            assert_eq!(SnapshotLeaf::decode(&leaf.encode()), Some(leaf));
        }
        assert_eq!(
            SnapshotLeaf::decode(b"hsm-journal snapshot v1\nshort"),
            None
        );
    }

    #[test]
    fn a_snapshot_payload_reads_back() {
        let mut tree = Tree::default();
        for n in 0..11u8 {
            let payload = encode(9, &tree, b"owner");
            assert_eq!(
                decode(tree.size(), &payload),
                Some((9, tree.clone(), b"owner".as_slice()))
            );
            tree.push([n; 32]);
        }
        assert_eq!(decode(11, &[0; 95]), None);
    }
}
