//! The handle on an open journal.

use std::sync::{Arc, PoisonError};

use crate::MAX_LEAF;
use crate::error::{Error, Fault};
use crate::queue::Shared;
use crate::snapshot::is_snapshot_leaf;
use crate::sync::Mutex;
use crate::sync::thread::JoinHandle;
use crate::tree::Hash;

/// An open journal. Made by [`crate::open`]. All methods may be called from any number of threads.
pub struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The place of an appended entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    index: u64,
}

impl Ticket {
    /// The ticket of the entry with this index.
    #[must_use]
    pub fn of(index: u64) -> Self {
        Self { index }
    }

    /// Index of the entry in the Merkle tree. It never changes.
    #[must_use]
    pub fn index(self) -> u64 {
        self.index
    }
}

/// A caller at work: see [`Journal::at_work`].
pub struct AtWork<'a>(&'a Shared);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work(false);
    }
}

/// How a journal stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Entries that are durable, the journal's own snapshot leaves included: the size of the tree.
    pub entries: u64,
    /// The RFC 6962 root of the tree of these entries.
    pub root: Hash,
    /// Entries that were appended and are not durable.
    pub queued: u64,
    /// Number of the segment that is being written.
    pub segment: u64,
    /// Successful flushes since the journal was opened.
    pub flushes: u64,
    /// Why nothing becomes durable at present. `None` is good.
    pub fault: Option<Fault>,
    /// Why the journal stopped for good. `None` is good.
    pub stopped: Option<String>,
}

impl Journal {
    pub(crate) fn new(shared: Arc<Shared>, thread: JoinHandle<()>) -> Self {
        Self {
            shared,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// Takes an entry of at most [`MAX_LEAF`] bytes, without waiting for anything. The order of the
    /// calls is the order of the entries; between them the journal may put snapshot leaves. The entry
    /// is durable only when [`Journal::durable`] says so, but from now on it holds its place, whatever
    /// the disk does. It is written at once when somebody waits for it or for a later one, save as
    /// [`Journal::at_work`] says, and after 100 ms at the latest.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::Reserved`], [`Error::Full`] and [`Error::Stopped`]: it was not taken.
    pub fn append(&self, leaf: Vec<u8>) -> Result<Ticket, Error> {
        if leaf.len() > MAX_LEAF {
            return Err(Error::TooLong(leaf.len()));
        }
        if is_snapshot_leaf(&leaf) {
            return Err(Error::Reserved);
        }
        self.shared.append(leaf).map(Ticket::of)
    }

    /// Waits until the entry is durable: until an `fdatasync` that covers it has returned. Any number
    /// of callers may wait for one entry, also for one that another caller appended. May be cancelled.
    ///
    /// # Errors
    /// [`Error::NotDurable`] when a write or flush that covered it failed: it stays queued, in its
    /// place, and another call waits for the next attempt. [`Error::NotAppended`], [`Error::Stopped`].
    pub async fn durable(&self, ticket: Ticket) -> Result<(), Error> {
        let Some(reply) = self.shared.wait_for(ticket.index)? else {
            return Ok(());
        };
        match reply.await {
            Ok(written) => written.map_err(Error::NotDurable),
            Err(_) => Err(self.shared.stopped()),
        }
    }

    /// Says that a caller works on something for which an entry became durable, until what is returned is dropped.
    /// While at least 16 do, and no more than they wait for a flush, flushes wait up to 2 ms for company: what those at work use is
    /// then taken to be busy with them. Where it is not, as with a second device that idles, that is a delay.
    #[must_use]
    pub fn at_work(&self) -> AtWork<'_> {
        self.shared.at_work(true);
        AtWork(&self.shared)
    }

    /// How the journal stands. Waits for nothing.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Writes what is queued, and ends the writer thread and the lock on the directory. Blocks until
    /// done; further calls of [`Journal::append`] are refused. A second call only repeats the outcome.
    ///
    /// # Errors
    /// [`Error::NotDurable`] or [`Error::Stopped`] when entries are left that are not durable.
    pub fn close(&self) -> Result<(), Error> {
        self.shared.close();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A panic of the thread has already been reported to every waiter as Stopped.
            let _ = thread.join();
        }
        self.shared.outcome()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the journal was closed with entries that are not durable");
        }
    }
}
