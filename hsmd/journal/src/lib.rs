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
mod frame;
mod journal;
mod open;
mod queue;
mod reader;
mod scan;
mod segment;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod snapshot;
mod spare;
mod tree;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{Error, Fault};
pub use journal::{Journal, Status, Ticket, Urgency};
pub use open::{Opened, Options, Tail, create, open};
pub use reader::{Beginning, Entry, Reader, read};
pub use snapshot::{Cut, is_snapshot_leaf};
pub use tree::{Hash, Tree, leaf_hash};
pub use writer::{Flush, Observer};

/// The most bytes an entry may have: the limit of an entry in a C2SP tlog-tiles entry bundle.
pub const MAX_LEAF: usize = 65_535;

/// What replaying the entries yields. The writer thread owns one and applies each entry once it is
/// durable, so that a snapshot always matches the tree.
///
/// The snapshot leaves that the journal itself adds to the tree are not applied.
pub trait State: Send + Sized + 'static {
    /// Rebuilds the state from the bytes that [`State::snapshot`] gave. The error is a sentence for
    /// people, and stops [`open`].
    fn restore(snapshot: &[u8]) -> Result<Self, String>;

    /// Takes in the entry `leaf`, whose place in the tree is `index`. The error is a sentence for
    /// people; it stops [`open`], and at run time it stops the journal, because a state that does not
    /// follow its entries must not be written as a snapshot. So check an entry before appending it.
    fn apply(&mut self, index: u64, leaf: &[u8]) -> Result<(), String>;

    /// The whole state as bytes. Called in the writer thread, at every start and whenever a segment
    /// is full.
    fn snapshot(&self) -> Vec<u8>;
}
