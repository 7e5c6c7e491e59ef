//! Faults on demand: what a device or its connection does when it is not in order.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::device::ErrorCode;

/// A fault. [`Fault::LoseSessions`] and [`Fault::CutPower`] happen once, the others last until they are
/// cleared.
///
/// As text, on the command line and the control socket: `hang`, `disconnect`, `lose-answers`,
/// `lose-sessions`, `cut-power`, `refuse=CODE` with the device's error code in decimal or as `0x07`,
/// `corrupt-answers`, `spoil-signatures`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Commands are not run and not answered. When the fault is cleared those whose client is still there
    /// are run after all.
    Hang,
    /// Connections are closed; the command is not run.
    Disconnect,
    /// The command is run, then the connection is closed without an answer.
    LoseAnswers,
    /// Once, before the next command, every session is lost.
    LoseSessions,
    /// Once, in place of the next command: its connection is closed, and the device starts again from what
    /// it has stored. Sessions are lost, and the audit log has a new boot.
    CutPower,
    /// Every command within a session gets this error and is not run.
    Refuse(ErrorCode),
    /// One bit of each answer is flipped on its way, so that it does not authenticate.
    CorruptAnswers,
    /// Signatures are wrong, in answers that authenticate.
    SpoilSignatures,
}

/// The faults whose names have no value behind them.
const NAMES: [(&str, Fault); 7] = [
    ("hang", Fault::Hang),
    ("disconnect", Fault::Disconnect),
    ("lose-answers", Fault::LoseAnswers),
    ("lose-sessions", Fault::LoseSessions),
    ("cut-power", Fault::CutPower),
    ("corrupt-answers", Fault::CorruptAnswers),
    ("spoil-signatures", Fault::SpoilSignatures),
];

/// No fault has this name.
#[derive(Debug, thiserror::Error)]
#[error(
    "no fault {0:?}: hang, disconnect, lose-answers, lose-sessions, cut-power, corrupt-answers, \
     spoil-signatures, or refuse=CODE with an error code of the device such as 0x07"
)]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let unknown = || UnknownFault(text.to_owned());
        if let Some(code) = text.strip_prefix("refuse=") {
            let byte = match code.strip_prefix("0x") {
                Some(digits) => u8::from_str_radix(digits, 16),
                None => code.parse(),
            };
            let code = byte.ok().and_then(ErrorCode::from_byte);
            return code.map(Self::Refuse).ok_or_else(unknown);
        }
        let known = NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, fault)| *fault).ok_or_else(unknown)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Refuse(code) = self {
            return write!(f, "refuse={:#04x}", code.byte());
        }
        let name = NAMES.iter().find(|(_, fault)| fault == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

/// The faults of a running emulator, set from one thread and read by another.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    lasting: watch::Sender<Option<Fault>>,
    lose_sessions: AtomicBool,
    cut_power: AtomicBool,
}

impl Faults {
    pub(crate) fn inject(&self, fault: Fault) {
        match fault {
            Fault::LoseSessions => self.lose_sessions.store(true, Ordering::SeqCst),
            Fault::CutPower => self.cut_power.store(true, Ordering::SeqCst),
            lasting => {
                self.lasting.send_replace(Some(lasting));
            }
        }
    }

    pub(crate) fn clear(&self) {
        self.lose_sessions.store(false, Ordering::SeqCst);
        self.cut_power.store(false, Ordering::SeqCst);
        self.lasting.send_replace(None);
    }

    /// The fault that lasts at present.
    pub(crate) fn lasting(&self) -> Option<Fault> {
        *self.lasting.borrow()
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

    /// Whether power is to be cut; true once for each [`Fault::CutPower`].
    pub(crate) fn take_power_cut(&self) -> bool {
        self.cut_power.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_read_as_it_is_written() {
        let refuse = Fault::Refuse(ErrorCode::LogFull);
        for fault in NAMES.map(|(_, fault)| fault).into_iter().chain([refuse]) {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault);
        }
        assert_eq!("refuse=10".parse::<Fault>().unwrap(), refuse);
        for text in [
            "",
            "hang ",
            "refuse",
            "refuse=",
            "refuse=0x0d",
            "refuse=256",
        ] {
            assert!(text.parse::<Fault>().is_err(), "{text:?}");
        }
    }
}
