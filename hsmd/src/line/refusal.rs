//! A refusal: why a request got no signature, for the caller, the journal and the metrics.

use std::collections::HashMap;

use hsm_policy::conflict::Conflict;
use hsm_policy::grants::Denial;
use hsm_proto::ERROR_DOMAIN;
use hsm_proto::v1::Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::guard;
use crate::ledger;
use crate::transport::IdentityError;

/// Why a request got no signature.
#[derive(Debug)]
pub struct Refusal {
    /// The machine-readable reason.
    pub reason: Reason,
    /// A sentence for the caller.
    pub message: String,
    /// Values at fault, by name.
    pub metadata: Vec<(&'static str, String)>,
    /// The sign bytes asked for, where the request got as far as having some.
    pub sign_bytes: Vec<u8>,
}

impl Refusal {
    /// A refusal with a sentence for the caller.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            metadata: Vec::new(),
            sign_bytes: Vec::new(),
        }
    }

    /// The same with a value at fault.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.metadata.push((name, value.to_string()));
        self
    }

    /// A status that was made before a service saw the request, with a reason; `None` where none fits, as for a
    /// call that does not exist.
    #[must_use]
    pub fn explained(status: &Status) -> Option<Status> {
        let reason = match status.code() {
            Code::OutOfRange | Code::ResourceExhausted => Reason::MessageTooLong,
            Code::Cancelled | Code::DeadlineExceeded => Reason::DeadlineExceeded,
            Code::Internal | Code::InvalidArgument => Reason::InvalidField,
            _ => return None,
        };
        let details = ErrorDetails::with_error_info(reason.name(), ERROR_DOMAIN, HashMap::new());
        let (code, message) = (status.code(), status.message());
        Some(Status::with_error_details(code, message, details))
    }

    /// The gRPC status that the caller gets.
    #[must_use]
    pub fn status(&self) -> Status {
        let metadata = self
            .metadata
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        let details = ErrorDetails::with_error_info(
            self.reason.name(),
            ERROR_DOMAIN,
            metadata.collect::<HashMap<_, _>>(),
        );
        Status::with_error_details(code(self.reason), self.message.clone(), details)
    }
}

/// Whose fault a reason is, as a gRPC code: `hsm/v1/reason.proto` says which and why.
fn code(reason: Reason) -> Code {
    match reason {
        Reason::CallerUnrecognised
        | Reason::CertificateExpired
        | Reason::CertificateNotYetValid => Code::Unauthenticated,
        Reason::WrongRole
        | Reason::KeyNotGranted
        | Reason::KeyFrozen
        | Reason::ChainNotGranted
        | Reason::KindNotGranted
        | Reason::HeightJump
        | Reason::RoundLimit
        | Reason::ClockSkew
        | Reason::HeightLimit
        | Reason::HeightRate => Code::PermissionDenied,
        Reason::InvalidField | Reason::ExtensionNotAllowed | Reason::MessageTooLong => {
            Code::InvalidArgument
        }
        Reason::DoubleSign
        | Reason::Regression
        | Reason::KeyNotInitialised
        | Reason::Ceiling
        | Reason::LedgerMismatch
        | Reason::LedgerBehind
        | Reason::PublicKeyMismatch
        | Reason::DeviceMisconfigured
        | Reason::DeviceUnderAdvisory => Code::FailedPrecondition,
        Reason::JournalUnavailable
        | Reason::AnchorUnavailable
        | Reason::LedgerUnavailable
        | Reason::DeviceUnavailable
        | Reason::ShuttingDown => Code::Unavailable,
        Reason::JournalOverloaded | Reason::DeviceOverloaded | Reason::RequestRate => {
            Code::ResourceExhausted
        }
        Reason::DeadlineExceeded => Code::DeadlineExceeded,
        Reason::DeviceFault | Reason::Internal | Reason::Unspecified => Code::Internal,
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        let reason = match &error {
            IdentityError::Unrecognised { .. } => Reason::CallerUnrecognised,
            IdentityError::Expired { .. } => Reason::CertificateExpired,
            IdentityError::NotYetValid { .. } => Reason::CertificateNotYetValid,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<hsm_policy::cometbft::Error> for Refusal {
    fn from(error: hsm_policy::cometbft::Error) -> Self {
        use hsm_policy::cometbft::Error;
        match &error {
            Error::Field { field, value, .. } => {
                let (field, value) = (*field, value.clone());
                Self::new(Reason::InvalidField, error.to_string())
                    .with("field", field)
                    .with("value", value)
            }
            Error::ExtensionNotAllowed { .. } => {
                Self::new(Reason::ExtensionNotAllowed, error.to_string())
            }
        }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        let reason = match &denial {
            Denial::KeyNotGranted { .. } => Reason::KeyNotGranted,
            Denial::ChainNotGranted { .. } => Reason::ChainNotGranted,
            Denial::KindNotGranted { .. } => Reason::KindNotGranted,
            Denial::RoundLimit { .. } => Reason::RoundLimit,
            Denial::ClockSkew { .. } => Reason::ClockSkew,
            Denial::HeightLimit { .. } => Reason::HeightLimit,
            Denial::RequestRate { .. } => Reason::RequestRate,
            Denial::HeightRate { .. } => Reason::HeightRate,
            Denial::Frozen { .. } => Reason::KeyFrozen,
        };
        Self::new(reason, denial.to_string())
    }
}

impl From<guard::Error> for Refusal {
    fn from(error: guard::Error) -> Self {
        let message = error.to_string();
        match error {
            guard::Error::NotInitialised { .. } => Self::new(Reason::KeyNotInitialised, message),
            guard::Error::Conflict {
                conflict,
                sign_bytes,
            } => {
                let reason = match conflict {
                    Conflict::DoubleSign { .. } => Reason::DoubleSign,
                    Conflict::Regression { .. } | Conflict::AtOrBelowInitial { .. } => {
                        Reason::Regression
                    }
                    Conflict::HeightJump { .. } => Reason::HeightJump,
                };
                Self {
                    sign_bytes,
                    ..Self::new(reason, message)
                }
            }
            guard::Error::LedgerFirst { .. } => Self::new(Reason::LedgerUnavailable, message),
            guard::Error::FrozenInLedger { .. } => Self::new(Reason::KeyFrozen, message),
            guard::Error::Ceiling { ceiling, .. } => {
                Self::new(Reason::Ceiling, message).with("ceiling", ceiling.unwrap_or_default())
            }
            guard::Error::Unproven { floor, .. } => {
                Self::new(Reason::Ceiling, message).with("ceiling", floor)
            }
            guard::Error::Anchor(_) | guard::Error::LastEntry(_) => {
                tracing::error!(error = message, "nothing is signed above the ceiling");
                Self::new(Reason::AnchorUnavailable, message)
            }
            guard::Error::Denied(denial) => denial.into(),
            guard::Error::Frozen { .. } => Self::new(Reason::KeyFrozen, message),
            guard::Error::Journal(error) => error.into(),
            guard::Error::AlreadyKnown(_)
            | guard::Error::NotAbove { .. }
            | guard::Error::NotThatTail { .. }
            | guard::Error::CheckpointKey { .. }
            | guard::Error::NoOfficers { .. }
            | guard::Error::Officers(_)
            | guard::Error::Policy(_)
            | guard::Error::PolicyChanged
            | guard::Error::Statement(_)
            | guard::Error::Internal(_) => {
                tracing::error!(error = message, "the guard failed");
                Self::new(Reason::Internal, "a fault of hsmd; its log has the details")
            }
        }
    }
}

impl From<ledger::Error> for Refusal {
    fn from(error: ledger::Error) -> Self {
        let error = match error {
            ledger::Error::Guard(error) => return error.into(),
            error => error,
        };
        tracing::error!(%error, "the ledger gave no way");
        match error {
            ledger::Error::Doubt(_) => Self::new(
                Reason::LedgerBehind,
                "the ledger through which the key's marks are shared is not the one that was seen before, or \
                 lacks what was seen in it, so hsmd does not sign: its operator must look at `hsmd ledger \
                 status`",
            ),
            _ => Self::new(
                Reason::LedgerUnavailable,
                "the ledger through which the key's marks are shared does not answer, so hsmd does not sign; \
                 send the request again, also to another signer: see `hsmd ledger status`",
            ),
        }
    }
}

impl From<hsm_journal::Error> for Refusal {
    fn from(error: hsm_journal::Error) -> Self {
        tracing::error!(%error, "the journal took no entry");
        if matches!(error, hsm_journal::Error::Full { .. }) {
            return Self::new(
                Reason::JournalOverloaded,
                "too many entries wait for hsmd's disk; send the request again",
            );
        }
        Self::new(
            Reason::JournalUnavailable,
            "hsmd cannot write its journal, so it does not sign; it goes on by itself when it can: \
             see `hsmd status` and send the request again",
        )
    }
}
