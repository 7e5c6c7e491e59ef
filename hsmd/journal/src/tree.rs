//! The RFC 6962 Merkle tree, kept as the roots of its perfect subtrees.

use sha2::{Digest, Sha256};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// Larger trees do not occur; the bound keeps sizes read from a file clear of overflow.
const MAX_SIZE: u64 = 1 << 62;

/// The hash of a leaf: SHA-256 over the byte 0x00 and the entry (RFC 6962, section 2.1).
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(leaf)
        .finalize()
        .into()
}

pub(crate) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// A perfect subtree: the leaves from `number << level` on, `1 << level` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subtree {
    pub(crate) level: u32,
    pub(crate) number: u64,
}

impl Subtree {
    fn parent(self) -> Self {
        Self {
            level: self.level + 1,
            number: self.number >> 1,
        }
    }

    /// The perfect subtrees that make up the leaves from `start` to `end`, leftmost first. `start` must be
    /// a multiple of the largest power of two that is not above `end - start`, as it is wherever RFC 6962
    /// splits a tree.
    pub(crate) fn covering(start: u64, end: u64) -> Vec<Self> {
        let mut places = Vec::new();
        let mut start = start;
        while let Some(level) = end.saturating_sub(start).checked_ilog2() {
            places.push(Self {
                level,
                number: start >> level,
            });
            start += 1 << level;
        }
        places
    }
}

/// The Merkle tree hash of adjacent perfect subtrees, leftmost and largest first; `None` of none.
pub(crate) fn join(subtrees: &[Hash]) -> Option<Hash> {
    let smallest_first = subtrees.iter().rev().copied();
    smallest_first.reduce(|right, left| node_hash(&left, &right))
}

/// A tree of which only the frontier is kept: the root of one perfect subtree for each bit that is
/// set in the size, largest first. That is enough to add leaves and to compute the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    frontier: Vec<Hash>,
}

impl Tree {
    /// The tree of `size` leaves with this frontier; `None` unless there is one hash for each bit set.
    #[must_use]
    pub fn from_parts(size: u64, frontier: Vec<Hash>) -> Option<Self> {
        let fits = size <= MAX_SIZE && frontier.len() == size.count_ones() as usize;
        fits.then_some(Self { size, frontier })
    }

    /// How many leaves it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of its perfect subtrees, largest (leftmost) first.
    #[must_use]
    pub fn frontier(&self) -> &[Hash] {
        &self.frontier
    }

    /// Adds a leaf, given its [`leaf_hash`].
    pub fn push(&mut self, leaf: Hash) {
        self.push_seeing(leaf, |_, _| {});
    }

    /// Adds a leaf, and shows every perfect subtree that it completes, the leaf itself first.
    pub(crate) fn push_seeing(&mut self, leaf: Hash, mut seen: impl FnMut(Subtree, &Hash)) {
        let mut node = leaf;
        let mut place = Subtree {
            level: 0,
            number: self.size,
        };
        seen(place, &node);
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.frontier.pop() {
                node = node_hash(&left, &node);
                place = place.parent();
                seen(place, &node);
            }
        }
        self.frontier.push(node);
        self.size += 1;
    }

    /// The perfect subtrees of the frontier and their places.
    pub(crate) fn subtrees(&self) -> impl Iterator<Item = (Subtree, Hash)> {
        let places = Subtree::covering(0, self.size);
        places.into_iter().zip(self.frontier.iter().copied())
    }

    /// The Merkle tree hash (RFC 6962, section 2.1). Of no leaves it is SHA-256 of nothing.
    #[must_use]
    pub fn root(&self) -> Hash {
        join(&self.frontier).unwrap_or_else(|| Sha256::digest([]).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leaves and roots of the reference tree of certificate-transparency
    /// (`cpp/merkletree/merkle_tree_test.cc`, google/certificate-transparency).
    const LEAVES: [&str; 8] = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_match_the_certificate_transparency_reference_tree() {
        let mut tree = Tree::default();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex::encode(tree.root()), empty);
        for (leaf, root) in LEAVES.iter().zip(ROOTS) {
            tree.push(leaf_hash(&hex::decode(leaf).unwrap()));
            assert_eq!(
                hex::encode(tree.root()),
                root,
                "after {} leaves",
                tree.size()
            );
        }
    }

    /// The definition of RFC 6962, section 2.1, word for word.
    fn root_by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(split);
                node_hash(&root_by_definition(left), &root_by_definition(right))
            }
        }
    }

    #[test]
    fn roots_match_the_definition_at_every_size_and_survive_the_frontier() {
        let leaves: Vec<Hash> = (0..130u8).map(|n| leaf_hash(&[n])).collect();
        let mut tree = Tree::default();
        for (count, leaf) in leaves.iter().enumerate() {
            assert_eq!(
                tree.root(),
                root_by_definition(&leaves[..count]),
                "{count} leaves"
            );
            tree = Tree::from_parts(tree.size(), tree.frontier().to_vec()).unwrap();
            tree.push(*leaf);
        }
    }

    #[test]
    fn a_frontier_that_does_not_fit_the_size_is_refused() {
        assert!(Tree::from_parts(3, vec![[0; 32]]).is_none());
        assert!(Tree::from_parts(u64::MAX, vec![[0; 32]; 64]).is_none());
    }
}
