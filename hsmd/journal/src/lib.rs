//! The durable log of hsmd: segments, frames, group commit, Merkle tree.
//!
//! A journal is a directory of append-only segment files. Its entries are opaque byte strings, the
//! leaves of one RFC 6962 Merkle tree; what they mean is known to the owner, who supplies a
//! [`State`]: what replaying the entries yields. Each segment opens with a snapshot of that state, so
//! that a restart reads one segment, however long the history.
//!
//! ```text
//! append ─► queue ─► writer thread: one frame, one write, one fdatasync ─► State::apply ─► durable
//! ```
//!
//! What [`Journal::durable`] reports as durable has been covered by a successful `fdatasync`, and every
//! later [`open`] replays it. `README.md` beside this crate describes the files byte by byte.

mod disk;
mod error;
mod export;
mod frame;
mod head;
mod journal;
pub mod note;
mod open;
mod proof;
mod prove;
mod prune;
mod queue;
mod reader;
mod scan;
mod segment;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod snapshot;
mod spare;
mod state;
mod sync;
mod tiles;
mod tree;
mod verify;
#[cfg(feature = "witness")]
pub mod witness;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{Error, Fault};
pub use export::{CHECKPOINT, Exported, export, replace_file, verify_export};
pub use journal::{AtWork, Journal, Status, Ticket};
pub use open::{Opened, Options, Tail, create, look, open, open_if};
pub use proof::{is_consistent, root_of_inclusion};
pub use prove::{Proof, prove_consistency, prove_inclusion, read_proof, write_proof};
pub use prune::{Pruned, prune};
pub use reader::{Beginning, Entry, Files, Reader, leaf_at, read, read_from};
pub use snapshot::{Cut, is_snapshot_leaf};
pub use state::{MAX_LEAF, State};
pub use tree::{Hash, Tree, leaf_hash};
pub use verify::{Progress, Verified, verify};
pub use writer::{Flush, Observer};
