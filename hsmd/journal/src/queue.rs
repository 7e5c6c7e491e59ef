//! What appenders, waiters and the writer thread share.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::{Error, Fault};
use crate::journal::Status;
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};
use crate::tree::Tree;

/// How long an entry that nobody waits for may stay unwritten.
const AT_THE_LATEST: Duration = Duration::from_millis(100);

/// With so many callers at work on what they reserved, a flush for few would be one too many: see [`Shared::gather`].
const COMPANY: usize = 16;
/// How long a flush waits for company, and how often it is looked whether it came.
const GATHER: Duration = Duration::from_millis(2);
const LOOK: Duration = Duration::from_micros(200);

/// The least time between two attempts to begin a segment after a fault.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

/// The queue between appenders and the writer thread, and what has become durable.
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    /// The writer thread waits here.
    work: Condvar,
    max_entries: u64,
    max_bytes: usize,
}

struct Queue {
    /// Entries that the writer has not taken yet.
    leaves: Vec<Vec<u8>>,
    /// Index of the next entry.
    next: u64,
    /// Entries below this index are with the writer or durable.
    taken: u64,
    /// Bytes of the leaves in `leaves`, and of those that the writer holds.
    bytes: usize,
    bytes_taken: usize,
    /// Somebody waits for an entry that is not with the writer, or wants another attempt.
    wanted: bool,
    /// When the oldest in `leaves` was appended.
    since: Option<Instant>,
    /// No more entries; the writer ends when all are written.
    closing: bool,
    /// Why the writer has ended.
    stopped: Option<String>,
    waiters: Vec<Waiter>,
    /// How many callers work on what is durable, and will come again.
    at_work: usize,
    /// All that is durable.
    tree: Tree,
    segment: u64,
    flushes: u64,
    fault: Option<Fault>,
}

struct Waiter {
    index: u64,
    reply: oneshot::Sender<Result<(), Fault>>,
}

impl Shared {
    pub(crate) fn new(tree: Tree, max_entries: usize, max_bytes: usize) -> Self {
        let queue = Queue {
            leaves: Vec::new(),
            next: tree.size(),
            taken: tree.size(),
            bytes: 0,
            bytes_taken: 0,
            wanted: false,
            since: None,
            closing: false,
            stopped: None,
            waiters: Vec::new(),
            at_work: 0,
            tree,
            segment: 0,
            flushes: 0,
            fault: None,
        };
        let max_entries = max_entries.max(1) as u64;
        Self {
            queue: Mutex::new(queue),
            work: Condvar::new(),
            max_entries,
            max_bytes,
        }
    }

    /// Queues a leaf and gives it its index.
    pub(crate) fn append(&self, leaf: Vec<u8>) -> Result<u64, Error> {
        let mut queue = self.lock();
        if queue.closing || queue.stopped.is_some() {
            return Err(queue.stopped());
        }
        let entries = queue.next - queue.tree.size();
        let bytes = queue.bytes + queue.bytes_taken;
        if entries >= self.max_entries || (bytes > 0 && bytes + leaf.len() > self.max_bytes) {
            return Err(Error::Full { entries });
        }
        let index = queue.next;
        queue.next += 1;
        queue.bytes += leaf.len();
        queue.leaves.push(leaf);
        queue.since.get_or_insert_with(Instant::now);
        Ok(index)
    }

    /// What a caller has to await until the entry is durable; `None` if it is.
    pub(crate) fn wait_for(
        &self,
        index: u64,
    ) -> Result<Option<oneshot::Receiver<Result<(), Fault>>>, Error> {
        let mut queue = self.lock();
        if index < queue.tree.size() {
            return Ok(None);
        }
        if index >= queue.next {
            return Err(Error::NotAppended {
                index,
                entries: queue.next,
            });
        }
        if queue.stopped.is_some() {
            return Err(queue.stopped());
        }
        let wake = !queue.wanted && (queue.fault.is_some() || index >= queue.taken);
        queue.wanted |= wake;
        if queue.waiters.len() == queue.waiters.capacity() {
            queue.waiters.retain(|waiter| !waiter.reply.is_closed());
        }
        let (reply, receiver) = oneshot::channel();
        queue.waiters.push(Waiter { index, reply });
        drop(queue);
        // After the lock is free, or the writer would wake only to wait for it.
        if wake {
            self.work.notify_one();
        }
        Ok(Some(receiver))
    }

    pub(crate) fn status(&self) -> Status {
        let queue = self.lock();
        let (tree, segment, flushes) = (queue.tree.clone(), queue.segment, queue.flushes);
        let (queued, fault) = (queue.next - tree.size(), queue.fault.clone());
        let stopped = queue.stopped.clone();
        drop(queue);
        Status {
            entries: tree.size(),
            root: tree.root(),
            queued,
            segment,
            flushes,
            fault,
            stopped,
        }
    }

    /// Takes no more entries, and has the writer end when all are written.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    /// For the writer: waits until there is something that should be written. False: nothing is left
    /// and nothing will come.
    ///
    /// It looks again by itself every [`AT_THE_LATEST`] at least: an entry that nobody waits for costs nobody
    /// a wake-up.
    pub(crate) fn wait_for_work(&self) -> bool {
        let mut queue = self.lock();
        // Somebody may have wanted another attempt after the one that succeeded had begun.
        queue.wanted &= queue.since.is_some();
        loop {
            let waited = queue.since.map(|since| since.elapsed());
            let waiting = waited.is_some();
            let overdue = waited.is_some_and(|waited| waited >= AT_THE_LATEST);
            if queue.closing || overdue || (queue.wanted && waiting) {
                return waiting;
            }
            let left = AT_THE_LATEST.saturating_sub(waited.unwrap_or_default());
            queue = self.wait(queue, left);
        }
    }

    /// One caller more, or less, works on what is durable.
    pub(crate) fn at_work(&self, more: bool) {
        let mut queue = self.lock();
        queue.at_work = match more {
            true => queue.at_work + 1,
            false => queue.at_work.saturating_sub(1),
        };
    }

    /// For the writer, when something should be written: waits, for [`GATHER`] at the most, while no fewer callers are at
    /// work than wait here. What they work on is busy with them and could not take up more, so that nobody loses by
    /// it; and one flush serves those who come meanwhile. With fewer than [`COMPANY`] at work nothing is waited for.
    pub(crate) fn gather(&self) {
        let begin = Instant::now();
        let mut queue = self.lock();
        while queue.at_work >= COMPANY.max(queue.waiters.len())
            && !queue.closing
            && begin.elapsed() < GATHER
        {
            queue = self.wait(queue, LOOK);
        }
    }

    /// For the writer: moves all that waits into `pending`. True: nothing will come after it.
    pub(crate) fn take(&self, pending: &mut Vec<Vec<u8>>) -> bool {
        let mut queue = self.lock();
        queue.take(pending);
        queue.closing
    }

    /// For the writer: like [`Shared::take`], and keeps the next index for the journal's own leaf.
    pub(crate) fn take_and_reserve(&self, pending: &mut Vec<Vec<u8>>) {
        let mut queue = self.lock();
        queue.take(pending);
        queue.next += 1;
        queue.taken = queue.next;
    }

    /// For the writer: all that it had taken is durable and makes up this tree.
    pub(crate) fn publish(&self, tree: &Tree, segment: u64) {
        let mut queue = self.lock();
        queue.tree.clone_from(tree);
        queue.segment = segment;
        queue.flushes += 1;
        queue.bytes_taken = 0;
        let healed = queue.fault.take().is_some();
        let done = queue.waiters_below(tree.size());
        drop(queue);
        for waiter in done {
            // A caller that no longer waits is no concern of the writer.
            let _ = waiter.reply.send(Ok(()));
        }
        // The log is not ours: it may block or fail, so no lock is held and nobody waits.
        if healed {
            tracing::info!(segment, entries = tree.size(), "the journal writes again");
        }
    }

    /// For the writer: an attempt to write the entries below `end` failed.
    pub(crate) fn fail(&self, fault: &Fault, end: u64) {
        let mut queue = self.lock();
        let first = queue.fault.replace(fault.clone()).is_none();
        let failed = queue.waiters_below(end);
        drop(queue);
        for waiter in failed {
            let _ = waiter.reply.send(Err(fault.clone()));
        }
        if first {
            tracing::error!(%fault, "the journal cannot write; nothing becomes durable until it can");
        }
    }

    /// For the writer: waits before another attempt, for less when somebody wants one.
    pub(crate) fn pause(&self, at_most: Duration) {
        let begin = Instant::now();
        let mut queue = self.lock();
        loop {
            let until = if queue.wanted {
                at_most.min(BETWEEN_ATTEMPTS)
            } else {
                at_most
            };
            let left = until.saturating_sub(begin.elapsed());
            if queue.closing || left.is_zero() {
                return;
            }
            queue = self.wait(queue, left);
        }
    }

    /// For the writer: it has ended. The first reason stays.
    pub(crate) fn stop(&self, reason: &str) {
        let mut queue = self.lock();
        queue.stopped.get_or_insert_with(|| reason.to_owned());
        queue.waiters.clear();
    }

    /// The error for a caller whose waiter was dropped.
    pub(crate) fn stopped(&self) -> Error {
        self.lock().stopped()
    }

    /// After the writer has ended: whether everything that was appended is durable.
    pub(crate) fn outcome(&self) -> Result<(), Error> {
        let queue = self.lock();
        match &queue.fault {
            _ if queue.tree.size() == queue.next => Ok(()),
            Some(fault) => Err(Error::NotDurable(fault.clone())),
            None => Err(queue.stopped()),
        }
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>, at_most: Duration) -> MutexGuard<'a, Queue> {
        self.work
            .wait_timeout(queue, at_most)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code under the lock can panic half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn take(&mut self, pending: &mut Vec<Vec<u8>>) {
        pending.append(&mut self.leaves);
        self.taken = self.next;
        self.bytes_taken += std::mem::take(&mut self.bytes);
        self.wanted = false;
        self.since = None;
    }

    fn waiters_below(&mut self, end: u64) -> Vec<Waiter> {
        self.waiters
            .extract_if(.., |waiter| waiter.index < end)
            .collect()
    }

    fn stopped(&self) -> Error {
        let reason = self.stopped.as_deref().unwrap_or("it is being closed");
        Error::Stopped(reason.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;
    use std::thread::{self, JoinHandle};

    use super::*;

    fn shared() -> Arc<Shared> {
        Arc::new(Shared::new(Tree::default(), 100, 100))
    }

    /// A writer that waits; it ends with the moment at which it would have written.
    fn writer(shared: &Arc<Shared>) -> JoinHandle<Instant> {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            assert!(shared.wait_for_work());
            Instant::now()
        })
    }

    /// The shortest of a few runs: a machine that stalls makes single ones longer.
    fn shortest(run: impl Fn() -> Duration) -> Duration {
        (0..4).map(|_| run()).min().unwrap()
    }

    #[test]
    fn an_entry_that_nobody_waits_for_is_due_after_100_ms_whenever_it_comes() {
        // Into the writer's wait, near its end, and into the one after it.
        for flushed_before in [0, 40, 90, 140].map(Duration::from_millis) {
            let took = shortest(|| {
                let shared = shared();
                let writer = writer(&shared);
                thread::sleep(flushed_before);
                let appended = Instant::now();
                shared.append(vec![1]).unwrap();
                writer.join().unwrap() - appended
            });
            assert!(
                took > AT_THE_LATEST / 2 && took < AT_THE_LATEST * 3 / 2,
                "{took:?} after an append {flushed_before:?} after a flush"
            );
        }
    }

    #[test]
    fn an_entry_that_is_waited_for_is_due_at_once_after_another_attempt_was_wanted_too_late() {
        let took = shortest(|| {
            let shared = shared();
            let index = shared.append(vec![1]).unwrap();
            assert!(shared.wait_for_work() && !shared.take(&mut Vec::new()));
            let fault = Fault::at("flush", Path::new("segment"))(io::Error::from_raw_os_error(5));
            shared.fail(&fault, 1);
            let _waits = shared.wait_for(index).unwrap();
            let mut tree = Tree::default();
            tree.push([0; 32]);
            shared.publish(&tree, 1);

            let writer = writer(&shared);
            thread::sleep(AT_THE_LATEST / 5);
            shared.append(vec![2]).unwrap();
            let appended = Instant::now();
            let index = shared.append(vec![3]).unwrap();
            let _waits = shared.wait_for(index).unwrap();
            writer.join().unwrap() - appended
        });
        assert!(took < AT_THE_LATEST / 2, "{took:?}");
    }

    #[test]
    fn a_flush_waits_for_company_only_while_many_are_at_work_and_few_wait() {
        let took = |at_work: usize, waiting: u64| {
            shortest(|| {
                let shared = shared();
                (0..at_work).for_each(|_| shared.at_work(true));
                let waits: Vec<_> = (0..waiting)
                    .map(|_| {
                        let index = shared.append(vec![1]).unwrap();
                        shared.wait_for(index).unwrap()
                    })
                    .collect();
                let begin = Instant::now();
                shared.gather();
                drop(waits);
                begin.elapsed()
            })
        };
        for (at_work, waiting) in [(0, 1), (1, 1), (COMPANY - 1, 1), (20, 21)] {
            let took = took(at_work, waiting);
            assert!(took < GATHER / 2, "{took:?} with {at_work} and {waiting}");
        }
        let long = took(COMPANY, 1);
        assert!(long >= GATHER && long < GATHER * 3, "{long:?}");
    }
}
