//! The algorithms that are implemented, by their numbers on the wire.

use serde::{Deserialize, Serialize};

use super::error::ErrorCode;

/// An algorithm of an object, or of a signature.
///
/// Source: the vendor's user guide, "Algorithms". The device has more; what is not here is refused
/// with [`ErrorCode::InvalidData`] and does not appear in the device's own list.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum Algorithm {
    EcP256 = 12,
    EcK256 = 15,
    EcdsaSha1 = 23,
    OpaqueData = 30,
    OpaqueX509Certificate = 31,
    Aes128Authentication = 38,
    EcdsaSha256 = 43,
    EcdsaSha384 = 44,
    EcdsaSha512 = 45,
    Ed25519 = 46,
}

impl Algorithm {
    /// Every algorithm, in the order in which the device lists them.
    pub(crate) const LIST: [Self; 10] = [
        Self::EcP256,
        Self::EcK256,
        Self::EcdsaSha1,
        Self::OpaqueData,
        Self::OpaqueX509Certificate,
        Self::Aes128Authentication,
        Self::EcdsaSha256,
        Self::EcdsaSha384,
        Self::EcdsaSha512,
        Self::Ed25519,
    ];

    pub(crate) fn from_byte(byte: u8) -> Result<Self, ErrorCode> {
        Self::LIST
            .into_iter()
            .find(|known| known.byte() == byte)
            .ok_or(ErrorCode::InvalidData)
    }

    pub(crate) fn byte(self) -> u8 {
        self as u8
    }
}
