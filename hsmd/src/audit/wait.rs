//! Between those who have a device sign and the one who reads its audit log.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// After so many calls for a signature the log is read, whatever the time: a YubiHSM 2's has 62 entries, and where
/// everything is recorded a call makes two.
pub(super) const CALLS: u32 = 15;

/// Has a log read in time, and waits for it.
pub struct Wait {
    calls: AtomicU32,
    /// The device keeps no log.
    none: AtomicBool,
    wanted: Notify,
    /// How many readings have ended, and whether the last one was possible.
    readings: watch::Sender<(u64, bool)>,
}

impl Default for Wait {
    fn default() -> Self {
        Self {
            calls: AtomicU32::new(0),
            none: AtomicBool::new(false),
            wanted: Notify::new(),
            readings: watch::Sender::new((0, false)),
        }
    }
}

impl Wait {
    /// The device was asked for a signature.
    pub fn called(&self) {
        if self.none.load(Ordering::Relaxed) {
            return;
        }
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 >= CALLS {
            self.wanted.notify_one();
        }
    }

    /// Has the log read and freed. Returns false where that is not possible, or not before the deadline.
    pub async fn until_freed(&self, deadline: Instant) -> bool {
        let mut readings = self.readings.subscribe();
        self.wanted.notify_one();
        let ended = tokio::time::timeout_at(deadline, readings.changed()).await;
        matches!(ended, Ok(Ok(()))) && readings.borrow().1
    }

    pub(super) async fn asked(&self) {
        self.wanted.notified().await;
    }

    /// There is no log to be read.
    pub(super) fn none(&self) {
        self.none.store(true, Ordering::Relaxed);
    }

    pub(super) fn begin(&self) {
        self.calls.store(0, Ordering::Relaxed);
    }

    pub(super) fn end(&self, possible: bool) {
        self.readings.send_modify(|(readings, last)| {
            *readings += 1;
            *last = possible;
        });
    }
}
