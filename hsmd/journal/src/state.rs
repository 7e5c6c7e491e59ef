//! What the owner of a journal supplies.

/// The most bytes an entry may have: the limit of an entry in a C2SP tlog-tiles entry bundle.
pub const MAX_LEAF: usize = 65_535;

/// What replaying the entries yields. The writer thread owns one and applies each entry once it is
/// durable, so that a snapshot always matches the tree.
///
/// The snapshot leaves that the journal itself adds to the tree are not applied.
pub trait State: Send + Sized + 'static {
    /// Rebuilds the state from the bytes that [`State::snapshot`] gave. The error is a sentence for
    /// people, and stops [`crate::open`].
    fn restore(snapshot: &[u8]) -> Result<Self, String>;

    /// Takes in the entry `leaf`, whose place in the tree is `index`. The error is a sentence for
    /// people; it stops [`crate::open`], and at run time it stops the journal, because a state that does not
    /// follow its entries must not be written as a snapshot. So check an entry before appending it.
    fn apply(&mut self, index: u64, leaf: &[u8]) -> Result<(), String>;

    /// The whole state as bytes. Called in the writer thread, at every start and whenever a segment
    /// is full.
    fn snapshot(&self) -> Vec<u8>;
}
