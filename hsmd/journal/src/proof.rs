//! Inclusion and consistency proofs of the Merkle tree (RFC 6962, section 2.1.1 and 2.1.2).

use std::collections::BTreeMap;

use crate::tree::{Hash, Subtree, Tree, join, node_hash};

/// The leaves from the first number up to, and without, the second: a subtree of which a proof has the root.
type Range = (u64, u64);

/// A proof in the making: which subtrees it wants, and their hashes as far as they were seen.
pub(crate) struct Wanted {
    ranges: Vec<Range>,
    hashes: BTreeMap<Subtree, Option<Hash>>,
}

impl Wanted {
    /// For the proof that the leaf `index` is in the tree of `size` leaves; `None` unless it can be.
    pub(crate) fn inclusion(index: u64, size: u64) -> Option<Self> {
        (index < size).then(|| Self::of(inclusion_ranges(index, size)))
    }

    /// For the proof that the tree of `new` leaves begins with those of the tree of `old`; `None` unless it
    /// can. Nothing has to be proved where `old` is 0 or `new`.
    pub(crate) fn consistency(old: u64, new: u64) -> Option<Self> {
        (old <= new).then(|| Self::of(consistency_ranges(old, new)))
    }

    fn of(ranges: Vec<Range>) -> Self {
        let places = ranges
            .iter()
            .flat_map(|(start, end)| Subtree::covering(*start, *end));
        let hashes = places.map(|place| (place, None)).collect();
        Self { ranges, hashes }
    }

    /// Takes the hash of a subtree, if it is wanted.
    pub(crate) fn see(&mut self, place: Subtree, hash: &Hash) {
        if let Some(wanted) = self.hashes.get_mut(&place) {
            *wanted = Some(*hash);
        }
    }

    /// Takes what is wanted of a tree's frontier.
    pub(crate) fn see_frontier(&mut self, tree: &Tree) {
        tree.subtrees()
            .for_each(|(place, hash)| self.see(place, &hash));
    }

    /// The proof, from the leaf's side to the root's; `None` where a subtree was not seen.
    pub(crate) fn proof(&self) -> Option<Vec<Hash>> {
        let root = |(start, end): &Range| {
            let places = Subtree::covering(*start, *end);
            let hashes = places.iter().map(|place| *self.hashes.get(place)?);
            join(&hashes.collect::<Option<Vec<Hash>>>()?)
        };
        self.ranges.iter().map(root).collect()
    }
}

/// The leaves where RFC 6962 splits those from `start` to `end`.
fn split(start: u64, end: u64) -> u64 {
    let largest = (end - start).next_power_of_two() / 2;
    start + largest
}

/// PATH(m, D[n]) of RFC 6962, section 2.1.1, walked from the root.
fn inclusion_ranges(index: u64, size: u64) -> Vec<Range> {
    let (mut start, mut end) = (0, size);
    let mut ranges = Vec::new();
    while end - start > 1 {
        let middle = split(start, end);
        if index < middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((start, middle));
            start = middle;
        }
    }
    ranges.reverse();
    ranges
}

/// PROOF(m, D[n]) of RFC 6962, section 2.1.2, walked from the root.
fn consistency_ranges(old: u64, new: u64) -> Vec<Range> {
    let mut ranges = Vec::new();
    if old == 0 || old == new {
        return ranges;
    }
    let (mut start, mut end) = (0, new);
    while end != old {
        let middle = split(start, end);
        if old <= middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((start, middle));
            start = middle;
        }
    }
    // The old tree itself need not be proved to one who has its root.
    if start > 0 {
        ranges.push((start, end));
    }
    ranges.reverse();
    ranges
}

/// The root that an inclusion proof leads to; the proof holds if it is that of the tree of `size` leaves.
/// `None` where a proof for this leaf has another length.
#[must_use]
pub fn root_of_inclusion(index: u64, size: u64, leaf: Hash, proof: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let ranges = inclusion_ranges(index, size);
    if ranges.len() != proof.len() {
        return None;
    }
    let from_leaf = ranges.iter().zip(proof);
    Some(from_leaf.fold(leaf, |node, ((start, _), hash)| {
        if *start > index {
            node_hash(&node, hash)
        } else {
            node_hash(hash, &node)
        }
    }))
}

/// Whether the proof shows that the tree of `new` leaves with `new_root` begins with all leaves of that of
/// `old` leaves with `old_root`.
#[must_use]
pub fn is_consistent(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == 0 || old == new {
        return proof.is_empty() && (old == 0 || old_root == new_root);
    }
    let ranges = consistency_ranges(old, new);
    if ranges.len() != proof.len() {
        return false;
    }
    let mut steps = ranges.iter().zip(proof);
    // Where the old tree is one perfect subtree of the new one, its root is where the walk begins.
    let first = match ranges.first() {
        Some((_, end)) if *end == old => steps.next().map(|(_, hash)| *hash),
        _ => Some(*old_root),
    };
    let Some(first) = first else {
        return false;
    };
    let (mut in_old, mut in_new) = (first, first);
    for ((start, _), hash) in steps {
        if *start >= old {
            in_new = node_hash(&in_new, hash);
        } else {
            in_old = node_hash(hash, &in_old);
            in_new = node_hash(hash, &in_new);
        }
    }
    in_old == *old_root && in_new == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::leaf_hash;

    fn leaf(index: u64) -> Hash {
        leaf_hash(&index.to_be_bytes())
    }

    fn root(size: u64) -> Hash {
        let mut tree = Tree::default();
        (0..size).for_each(|index| tree.push(leaf(index)));
        tree.root()
    }

    /// As it is made in practice: the frontier before some leaf, and all subtrees completed after it.
    fn collect(mut wanted: Wanted, from: u64, size: u64) -> Vec<Hash> {
        let mut tree = Tree::default();
        (0..from).for_each(|index| tree.push(leaf(index)));
        wanted.see_frontier(&tree);
        for index in from..size {
            tree.push_seeing(leaf(index), |place, hash| wanted.see(place, hash));
        }
        wanted.proof().unwrap()
    }

    #[test]
    fn inclusion_holds_for_each_leaf_of_each_tree_and_for_no_other() {
        for size in 1..=40 {
            for index in 0..size {
                for from in 0..=index {
                    let proof = collect(Wanted::inclusion(index, size).unwrap(), from, size);
                    let reached = root_of_inclusion(index, size, leaf(index), &proof);
                    assert_eq!(reached, Some(root(size)), "{index} of {size} from {from}");
                    let other = root_of_inclusion(index, size, leaf(index + 1), &proof);
                    assert_ne!(other, Some(root(size)));
                    if let Some(longer) = proof.split_last() {
                        assert_eq!(root_of_inclusion(index, size, leaf(index), longer.1), None);
                    }
                }
            }
        }
        assert!(Wanted::inclusion(3, 3).is_none());
        assert_eq!(root_of_inclusion(3, 3, leaf(3), &[]), None);
    }

    #[test]
    fn consistency_holds_between_any_two_sizes_and_shows_every_change() {
        for new in 0..=40 {
            for old in 0..=new {
                for from in 0..=old {
                    let proof = collect(Wanted::consistency(old, new).unwrap(), from, new);
                    let (old_root, new_root) = (root(old), root(new));
                    assert!(
                        is_consistent(old, &old_root, new, &new_root, &proof),
                        "{old} {new} from {from}"
                    );
                    let wrong = [7; 32];
                    if old > 0 {
                        assert!(!is_consistent(old, &wrong, new, &new_root, &proof));
                        assert!(!is_consistent(old, &old_root, new, &wrong, &proof));
                    }
                    for place in 0..proof.len() {
                        let mut changed = proof.clone();
                        changed[place][0] ^= 1;
                        assert!(!is_consistent(old, &old_root, new, &new_root, &changed));
                    }
                }
            }
        }
        assert!(Wanted::consistency(2, 1).is_none());
    }
}
