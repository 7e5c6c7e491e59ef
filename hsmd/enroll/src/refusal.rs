//! A refusal: why a call was not answered, for the caller, the register and the metrics.

use std::collections::HashMap;

use hsm_proto::ERROR_DOMAIN;
use hsm_proto::v1::Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Why a call was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The machine-readable reason.
    pub reason: Reason,
    /// A sentence for the caller.
    pub message: String,
}

impl Refusal {
    /// A refusal with a sentence for the caller.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// The gRPC status that the caller gets.
    #[must_use]
    pub fn status(&self) -> Status {
        let details =
            ErrorDetails::with_error_info(self.reason.name(), ERROR_DOMAIN, HashMap::new());
        Status::with_error_details(code(self.reason), self.message.clone(), details)
    }
}

/// Whose fault a reason is, as a gRPC code: `hsm/v1/reason.proto` says which.
fn code(reason: Reason) -> Code {
    match reason {
        Reason::CallerUnrecognised
        | Reason::CertificateExpired
        | Reason::CertificateNotYetValid
        | Reason::CertificateRevoked
        | Reason::CertificateMissing => Code::Unauthenticated,
        Reason::WrongRole
        | Reason::TokenUnknown
        | Reason::TokenSpent
        | Reason::TokenExpired
        | Reason::TokenAddress
        | Reason::TokenNode
        | Reason::TokenRevoked
        | Reason::GrantSuperseded
        | Reason::KindNotOfRole => Code::PermissionDenied,
        Reason::InvalidField | Reason::RequestMalformed => Code::InvalidArgument,
        Reason::JournalUnavailable | Reason::DeviceUnavailable => Code::Unavailable,
        Reason::JournalOverloaded => Code::ResourceExhausted,
        _ => Code::Internal,
    }
}

impl From<hsm_journal::Error> for Refusal {
    fn from(error: hsm_journal::Error) -> Self {
        tracing::error!(%error, "the journal took no entry");
        let reason = match error {
            hsm_journal::Error::Full { .. } => Reason::JournalOverloaded,
            _ => Reason::JournalUnavailable,
        };
        let message = match error {
            // The entry stays queued, and counts.
            hsm_journal::Error::NotDurable(_) => {
                "hsm-enroll cannot make its journal durable: what was asked for may have been done; look with \
                 `hsm-enroll nodes` when it can"
            }
            _ => "hsm-enroll cannot write its journal, so that nothing was done; try again later",
        };
        Self::new(reason, message)
    }
}

impl From<hsm_policy::revocation::Error> for Refusal {
    fn from(error: hsm_policy::revocation::Error) -> Self {
        Self::new(Reason::InvalidField, error.to_string())
    }
}
