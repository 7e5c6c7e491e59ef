//! The durable log of hsmd: segments, frames, group commit, Merkle tree.
