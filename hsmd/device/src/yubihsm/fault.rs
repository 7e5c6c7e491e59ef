//! What the YubiHSM client library returns, sorted by what helps.

use std::error::Error as _;

use ::yubihsm::client::Error as Cause;
use ::yubihsm::connector;
use ::yubihsm::device::ErrorKind as Refusal;

use crate::Error;

/// The error for `cause`, which `device` gave when it was asked to do `operation`.
pub(super) fn fault(device: &str, operation: &'static str, cause: &Cause) -> Error {
    let text = cause.to_string();
    let refused = |remedy: &str| Error::Refused {
        operation,
        cause: format!("{text}; {remedy}"),
    };
    match cause.device_error() {
        Some(Refusal::SessionsFull) => Error::SessionsFull {
            device: device.to_owned(),
        },
        Some(Refusal::InsufficientPermissions) => {
            refused("give the authentication key and the object a common domain and the capability")
        }
        Some(Refusal::LogFull) => Error::AuditLogFull {
            device: device.to_owned(),
        },
        Some(Refusal::InvalidCommand | Refusal::InvalidData | Refusal::WrongLength) => {
            refused("its firmware may not know the algorithm, or limits the length")
        }
        Some(Refusal::ObjectNotFound | Refusal::InvalidId | Refusal::ObjectExists) => {
            refused("list its objects")
        }
        Some(Refusal::InvalidSession | Refusal::SessionFailed | Refusal::AuthenticationFailed) => {
            Error::SessionLost(text)
        }
        Some(_) => Error::Fault(format!("{device} failed to {operation}: {text}")),
        None if connection_failed(cause) => Error::Unreachable {
            device: device.to_owned(),
            cause: text,
        },
        // The library tells nothing more of a session that the device has dropped, or that it has given up itself.
        None => Error::SessionLost(text),
    }
}

/// Whether the connector, or the connection to it, is the cause.
fn connection_failed(cause: &Cause) -> bool {
    let mut source = cause.source();
    while let Some(error) = source {
        if error.is::<connector::Error>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::yubihsm::client::ErrorKind;
    use ::yubihsm::error::Context;

    #[test]
    fn a_lost_connection_is_told_from_a_lost_session() {
        let refused =
            connector::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let session = Cause::from(::yubihsm::session::Error::from(refused));
        assert!(matches!(
            fault("hsm", "sign", &session),
            Error::Unreachable { .. }
        ));
        let dropped = Cause::from(Context::new(ErrorKind::ResponseError, None));
        assert!(matches!(
            fault("hsm", "sign", &dropped),
            Error::SessionLost(_)
        ));
        let full = ::yubihsm::session::Error::from(Refusal::SessionsFull);
        assert_eq!(
            fault("hsm", "open a session", &Cause::from(full)),
            Error::SessionsFull {
                device: "hsm".into()
            }
        );
    }
}
