//! The fifth stage: the device signs what was reserved, and nothing else.

use std::time::SystemTime;

use hsm_policy::cometbft::Timestamp;
use hsm_proto::v1::Reason;
use tokio::time::Instant;

use super::refusal::Refusal;
use super::reserve::Reserved;
use crate::guard::{self, Guard, Signatures};
use crate::keyring;
use crate::metrics::Metrics;

/// What the caller gets.
#[derive(Debug)]
pub struct Signed {
    /// Over the message's sign bytes; 64 bytes.
    pub signature: Vec<u8>,
    /// Over the extension's sign bytes, where one was asked for; 64 bytes.
    pub extension_signature: Option<Vec<u8>>,
    /// The timestamp in the signed bytes.
    pub timestamp: Timestamp,
}

/// Signatures that were verified against the pinned public key, and the reservation that they are for.
pub(super) struct Fresh<'a> {
    reserved: Reserved<'a>,
    signatures: Signatures,
    /// Whether the journal holds these signatures already.
    recorded: bool,
}

/// Has the device make what is missing. Vote and extension leave together or not at all.
///
/// # Errors
///
/// A refusal that names the state of the device.
pub(super) async fn sign<'a>(
    reserved: Reserved<'a>,
    deadline: Instant,
    metrics: &Metrics,
) -> Result<Fresh<'a>, Refusal> {
    let Reserved {
        permitted,
        reservation,
    } = &reserved;
    let ask = async |bytes: &[u8]| {
        let failed = |device: &str, kind| metrics.device_error(device, kind);
        let signature = permitted
            .key
            .sign(&permitted.public_key, bytes, deadline, failed);
        Ok::<_, Refusal>(signature.await?.0.to_vec())
    };
    let message = match &reservation.signature {
        Some(made) => made.clone(),
        None => ask(&reservation.sign_bytes).await?,
    };
    let extension = match (
        &reservation.extension_sign_bytes,
        &reservation.extension_signature,
    ) {
        (None, _) => None,
        (Some(_), Some(made)) => Some(made.clone()),
        (Some(bytes), None) => Some(ask(bytes).await?),
    };
    let recorded = reservation.signature.is_some()
        && (extension.is_none() || reservation.extension_signature.is_some());
    Ok(Fresh {
        signatures: Signatures { message, extension },
        recorded,
        reserved,
    })
}

impl Fresh<'_> {
    pub(super) fn record(&self, guard: &Guard, now: SystemTime) -> Result<(), guard::Error> {
        if self.recorded {
            return Ok(());
        }
        let Reserved {
            permitted,
            reservation,
        } = &self.reserved;
        guard.record_signed(permitted.ask(), reservation, &self.signatures, now)
    }

    pub(super) fn into_answer(self) -> Signed {
        Signed {
            signature: self.signatures.message,
            extension_signature: self.signatures.extension,
            timestamp: self.reserved.reservation.timestamp,
        }
    }
}

impl From<keyring::Error> for Refusal {
    fn from(error: keyring::Error) -> Self {
        tracing::error!(%error, "no signature from the device");
        match &error {
            keyring::Error::Mismatch { .. } => Self::new(
                Reason::PublicKeyMismatch,
                "the device shows another public key than the pinned one: hsmd's operator must look",
            ),
            keyring::Error::Advisory { advisory, .. } => Self::new(
                Reason::DeviceUnderAdvisory,
                format!(
                    "the key's device is under security advisory {advisory}, which hsmd's configuration \
                     refuses: its operator must look at `hsmd doctor`"
                ),
            )
            .with("advisory", advisory),
            keyring::Error::BadSignature { .. } => Self::new(
                Reason::DeviceFault,
                "the device made a signature that does not verify: hsmd's operator must look",
            ),
            keyring::Error::Device { error, .. } => error.into(),
            keyring::Error::Nowhere { .. } => {
                Self::new(Reason::DeviceUnavailable, error.to_string())
            }
        }
    }
}

impl From<hsm_device::Error> for Refusal {
    fn from(error: hsm_device::Error) -> Self {
        (&error).into()
    }
}

impl From<&hsm_device::Error> for Refusal {
    fn from(error: &hsm_device::Error) -> Self {
        use hsm_device::Error;
        match error {
            Error::Overloaded { .. } => Self::new(
                Reason::DeviceOverloaded,
                "too many requests wait for the device; send the request again",
            ),
            Error::Timeout { .. } => Self::new(
                Reason::DeadlineExceeded,
                "the device gave no answer in time; the same request may be sent again",
            ),
            Error::MessageTooLong { length, limit, .. } => {
                let (length, limit) = (*length, *limit);
                Self::new(Reason::MessageTooLong, error.to_string())
                    .with("length", length)
                    .with("limit", limit)
            }
            error if !error.is_retryable() => Self::new(
                Reason::DeviceMisconfigured,
                "the key's device is not as hsmd's configuration says: its operator must look at \
                 `hsmd status`",
            ),
            _ => Self::new(
                Reason::DeviceUnavailable,
                "no device with this key answers at present; hsmd goes on trying: see `hsmd status`",
            ),
        }
    }
}
