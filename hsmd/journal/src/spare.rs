//! The file of the next segment, prepared on a thread of its own while the present one fills.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::disk::Disk;
use crate::error::Fault;
use crate::segment;
use crate::sync::AtomicBool;
use crate::sync::thread::{self, JoinHandle};

/// A file in preparation. Nobody waits for one that is not ready: it is given up, within one of the
/// steps in which it is made, and removed. Dropping does so, too.
pub(crate) struct Spare {
    given_up: Arc<AtomicBool>,
    /// `None` once it has been joined.
    thread: Option<JoinHandle<Result<File, Fault>>>,
}

impl Spare {
    /// Starts preparing a file of `length` bytes. `None` where there is no thread to be had: the segment
    /// is then made where it is needed.
    pub(crate) fn prepare(disk: &Disk, directory: &Path, length: u64) -> Option<Self> {
        let given_up = Arc::new(AtomicBool::new(false));
        let (disk, directory) = (disk.clone(), directory.to_owned());
        let seen = Arc::clone(&given_up);
        let work = move || segment::prepare(&disk, &directory, length, &seen);
        let thread = thread::Builder::new()
            .name("journal-spare".to_owned())
            .spawn(work)
            .ok()?;
        Some(Self {
            given_up,
            thread: Some(thread),
        })
    }

    /// Whether it is ready, or failed.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The file, if it is ready.
    pub(crate) fn take(mut self) -> Option<File> {
        let finished = self.is_finished();
        match self.end()? {
            Ok(file) => Some(file),
            Err(fault) => {
                if finished {
                    tracing::warn!(%fault, "no spare segment was prepared");
                }
                None
            }
        }
    }

    fn end(&mut self) -> Option<Result<File, Fault>> {
        self.given_up.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.end();
    }
}
