//! From a failure to the status that is answered, and who is answered.

use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use crate::guard;
use crate::key;
use crate::ledger;
use crate::moves::{self, FreezeError};
use crate::transport::Peer;

/// Who asks: the peer of the administration socket, or the caller whom a certificate names.
#[allow(clippy::result_large_err, reason = "a status is what tonic wants")]
pub(super) fn by<T>(request: &Request<T>) -> Result<String, Status> {
    if let Some(peer) = request.extensions().get::<Peer>() {
        return Ok(peer.caller_name());
    }
    let peer = request.extensions().get::<UdsConnectInfo>();
    let credentials = peer.and_then(|peer| peer.peer_cred);
    let credentials =
        credentials.ok_or_else(|| Status::unauthenticated("a peer without credentials"))?;
    Ok(format!("uid {}", credentials.uid()))
}

pub(super) fn status_of(error: &key::Error) -> Status {
    let message = error.to_string();
    match error {
        key::Error::Ledger(ledger::Error::Unavailable(_)) => Status::unavailable(message),
        key::Error::Ledger(_) => Status::failed_precondition(message),
        key::Error::UnknownKey { .. }
        | key::Error::UnknownDevice { .. }
        | key::Error::InvalidChain(_)
        | key::Error::NegativeHeight(_) => Status::invalid_argument(message),
        key::Error::Guard(guard::Error::AlreadyKnown(_)) => Status::already_exists(message),
        key::Error::Guard(
            guard::Error::NotInitialised { .. }
            | guard::Error::NotAbove { .. }
            | guard::Error::NoOfficers { .. }
            | guard::Error::Officers(_)
            | guard::Error::Policy(_)
            | guard::Error::Statement(_)
            | guard::Error::NotThatTail { .. },
        ) => Status::failed_precondition(message),
        key::Error::OtherSerial { .. } | key::Error::OtherKey { .. } => {
            Status::failed_precondition(message)
        }
        key::Error::Guard(guard::Error::Journal(_)) => Status::unavailable(message),
        key::Error::Device(_) => Status::unavailable(message),
        key::Error::Guard(_) => Status::internal(message),
    }
}

pub(super) fn status_of_guard(error: guard::Error) -> Status {
    status_of(&key::Error::Guard(error))
}

pub(super) fn status_of_move(error: &moves::Error) -> Status {
    match error {
        moves::Error::Key(error) => status_of(error),
        moves::Error::Guard(guard::Error::Journal(_)) | moves::Error::Device(_) => {
            Status::unavailable(error.to_string())
        }
        _ => Status::failed_precondition(error.to_string()),
    }
}

pub(super) fn status_of_freeze(error: FreezeError) -> Status {
    match error {
        FreezeError::Guard(error) => status_of_guard(error),
        error => Status::unavailable(error.to_string()),
    }
}
