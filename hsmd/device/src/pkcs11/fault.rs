//! What a PKCS#11 module returns, sorted by what helps.

use cryptoki::error::{Error as Cause, RvError};

use crate::Error;

/// The error for `cause`, which a call on `device` returned.
pub(super) fn fault(device: &str, cause: Cause) -> Error {
    let text = describe(&cause);
    let Cause::Pkcs11(code, _) = cause else {
        return Error::Fault(text);
    };
    match code {
        RvError::DeviceError
        | RvError::DeviceRemoved
        | RvError::SlotIdInvalid
        | RvError::TokenNotPresent
        | RvError::TokenNotRecognized => Error::Unreachable {
            device: device.to_owned(),
            cause: text,
        },
        RvError::CryptokiNotInitialized
        | RvError::KeyHandleInvalid
        | RvError::ObjectHandleInvalid
        | RvError::OperationActive
        | RvError::OperationNotInitialized
        | RvError::SessionClosed
        | RvError::SessionHandleInvalid
        | RvError::UserNotLoggedIn => Error::SessionLost(text),
        RvError::CurveNotSupported
        | RvError::DataInvalid
        | RvError::DataLenRange
        | RvError::FunctionNotSupported
        | RvError::FunctionRejected
        | RvError::KeyFunctionNotPermitted
        | RvError::KeyTypeInconsistent
        | RvError::MechanismInvalid
        | RvError::MechanismParamInvalid => Error::Refused {
            operation: "sign",
            cause: format!(
                "{text}; the token lacks the mechanism, or the key may not be used for it"
            ),
        },
        _ => Error::Fault(text),
    }
}

/// The function and the return code: cryptoki's own text is a page of the standard.
pub(super) fn describe(cause: &Cause) -> String {
    match cause {
        Cause::Pkcs11(code, function) => format!("C_{function:?} returned {code:?}"),
        other => other.to_string(),
    }
}
