//! Why a request was not answered with a signature, and how the node is told.

use hsm_proto::ERROR_DOMAIN;
use hsm_proto::privval::RemoteSignerError;
use hsm_proto::v1::Reason;
use tonic::Status;
use tonic_types::StatusExt;

/// A node reads at most 10 KiB, and a sentence for people is shorter than this.
const LONGEST_MESSAGE: usize = 1024;

/// A typed refusal: hsmd's own, or the sentry's where hsmd was not asked or did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", .reason.name())]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// A sentence for people.
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// hsmd's refusal in a gRPC status; `None` where the status carries no `ErrorInfo` of hsmd, so that it
    /// was made by the transport.
    pub(crate) fn from_status(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info()?;
        if info.domain != ERROR_DOMAIN {
            return None;
        }
        // A reason of a later hsmd is unknown here; its name still tells people more than ours would.
        Some(match Reason::from_name(&info.reason) {
            Some(reason) => Self::new(reason, status.message()),
            None => Self::new(
                Reason::Unspecified,
                format!("{}: {}", info.reason, status.message()),
            ),
        })
    }

    /// As the node reads it: the reason's number as code, its name and the sentence as description.
    pub(crate) fn to_wire(&self) -> RemoteSignerError {
        let mut description = self.to_string();
        if description.len() > LONGEST_MESSAGE {
            description.truncate(description.floor_char_boundary(LONGEST_MESSAGE));
        }
        RemoteSignerError {
            code: self.reason.into(),
            description,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use tonic::Code;
    use tonic_types::ErrorDetails;

    fn status(domain: &str, reason: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, domain, HashMap::new());
        Status::with_error_details(Code::FailedPrecondition, "signed at height 7", details)
    }

    #[test]
    fn a_refusal_keeps_reason_and_sentence_on_its_way_to_the_node() {
        let refusal = Refusal::from_status(&status(ERROR_DOMAIN, "DOUBLE_SIGN")).unwrap();
        let wire = refusal.to_wire();
        assert_eq!(wire.code, Reason::DoubleSign as i32);
        assert_eq!(wire.description, "DOUBLE_SIGN: signed at height 7");
    }

    #[test]
    fn a_reason_of_a_later_hsmd_is_named() {
        let refusal = Refusal::from_status(&status(ERROR_DOMAIN, "TOO_COLD")).unwrap();
        assert!(refusal.to_wire().description.contains("TOO_COLD: signed"));
    }

    #[test]
    fn a_status_of_the_transport_is_no_refusal() {
        assert_eq!(Refusal::from_status(&Status::unavailable("gone")), None);
        assert_eq!(Refusal::from_status(&status("example.org", "NO")), None);
    }

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        let wire = Refusal::new(Reason::Internal, "ä".repeat(20_000)).to_wire();
        assert!(wire.description.len() <= LONGEST_MESSAGE);
        assert!(wire.description.len() > LONGEST_MESSAGE - 4);
    }
}
