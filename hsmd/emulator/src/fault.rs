//! Faults on demand: what a device or its connection does when it is not in order.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::device::ErrorCode;

/// A fault. All but [`Fault::LoseSessions`] last until they are cleared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Commands are not run and not answered. When the fault is cleared those whose client is still there
    /// are run after all.
    Hang,
    /// Connections are closed; the command is not run.
    Disconnect,
    /// The command is run, then the connection is closed without an answer.
    LoseAnswers,
    /// Once, before the next command, the device is switched off and on: every session is lost.
    LoseSessions,
    /// Every command within a session gets this error and is not run.
    Refuse(ErrorCode),
    /// One bit of each answer is flipped on its way, so that it does not authenticate.
    CorruptAnswers,
    /// Signatures are wrong, in answers that authenticate.
    SpoilSignatures,
}

/// The faults of a running emulator, set from one thread and read by another.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    lasting: watch::Sender<Option<Fault>>,
    lose_sessions: AtomicBool,
}

impl Faults {
    pub(crate) fn inject(&self, fault: Fault) {
        match fault {
            Fault::LoseSessions => self.lose_sessions.store(true, Ordering::SeqCst),
            lasting => {
                self.lasting.send_replace(Some(lasting));
            }
        }
    }

    pub(crate) fn clear(&self) {
        self.lose_sessions.store(false, Ordering::SeqCst);
        self.lasting.send_replace(None);
    }

    /// The fault for the next command; waits while commands hang.
    pub(crate) async fn next(&self) -> Option<Fault> {
        let mut receiver = self.lasting.subscribe();
        // The sender lives in `self`, so that this cannot fail.
        receiver
            .wait_for(|fault| *fault != Some(Fault::Hang))
            .await
            .ok()
            .and_then(|fault| *fault)
    }

    /// Whether sessions are to be lost; true once for each [`Fault::LoseSessions`].
    pub(crate) fn take_lost_sessions(&self) -> bool {
        self.lose_sessions.swap(false, Ordering::SeqCst)
    }
}
