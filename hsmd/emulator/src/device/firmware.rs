//! What came with which version of the firmware.
//!
//! Source: `firmware-notes/yubihsm2.md`, which names where each of these was found.

use super::Device;
use super::algorithm::Algorithm;
use super::commands::Command;
use super::error::ErrorCode;
use super::object::ObjectType;

/// Version of the firmware: major, minor, patch.
pub type Firmware = (u8, u8, u8);

/// The first one; older numbers are treated as this one.
const FIRST: Firmware = (2, 0, 0);
const CHANGED_AUTHENTICATION_KEYS: Firmware = (2, 1, 0);
/// ECDSA over digests that are longer than the curve: the device cuts them itself.
pub(crate) const LONG_DIGESTS: Firmware = (2, 1, 0);
pub(crate) const ALGORITHM_TOGGLE: Firmware = (2, 2, 0);
const SYMMETRIC_KEYS: Firmware = (2, 3, 0);
pub(crate) const ASYMMETRIC_SESSIONS: Firmware = (2, 3, 0);
/// A device as from the factory records no command in its log; before, it records nearly all.
pub(crate) const SILENT_LOG: Firmware = (2, 3, 1);
const RSA_WRAP: Firmware = (2, 4, 0);
/// GET PUBLIC KEY of other objects than asymmetric keys.
pub(crate) const PUBLIC_KEY_TYPE: Firmware = (2, 4, 0);
/// Export of Ed25519 keys with their seed.
pub(crate) const ED25519_SEEDS: Firmware = (2, 4, 0);
/// Frames of 3,136 bytes in place of 2,048.
pub(crate) const LARGE_BUFFER: Firmware = (2, 4, 0);
/// The part number, on a second page of the device information.
pub(crate) const SECOND_PAGE: Firmware = (2, 4, 0);
/// A wrap key that lacks the capability for data is refused like every other key.
pub(crate) const WRAP_DATA_PERMISSION: Firmware = (2, 5, 0);

impl Command {
    /// The first firmware that has the command.
    fn since(self) -> Firmware {
        match self {
            Self::ChangeAuthenticationKey => CHANGED_AUTHENTICATION_KEYS,
            Self::GetDevicePublicKey => ASYMMETRIC_SESSIONS,
            Self::PutSymmetricKey
            | Self::GenerateSymmetricKey
            | Self::DecryptEcb
            | Self::EncryptEcb
            | Self::DecryptCbc
            | Self::EncryptCbc => SYMMETRIC_KEYS,
            Self::PutPublicWrapKey
            | Self::WrapKeyRsa
            | Self::UnwrapKeyRsa
            | Self::ExportWrappedRsa
            | Self::ImportWrappedRsa => RSA_WRAP,
            _ => FIRST,
        }
    }

    /// The command with this code; `None` if this firmware has none.
    pub(crate) fn of(firmware: Firmware, code: u8) -> Option<Self> {
        Self::from_byte(code).filter(|command| command.since() <= firmware.max(FIRST))
    }

    /// Whether `code` is only a command of newer firmware.
    pub(crate) fn is_newer_than(firmware: Firmware, code: u8) -> bool {
        Self::from_byte(code).is_some() && Self::of(firmware, code).is_none()
    }
}

impl Algorithm {
    /// The first firmware that has the algorithm.
    fn since(self) -> Firmware {
        match self {
            // It only names what DECRYPT PKCS1 does, so that it can be switched off.
            Self::RsaPkcs1Decrypt => ALGORITHM_TOGGLE,
            Self::EcP256Authentication => ASYMMETRIC_SESSIONS,
            Self::Aes128 | Self::Aes192 | Self::Aes256 | Self::AesEcb | Self::AesCbc => {
                SYMMETRIC_KEYS
            }
            Self::AesKwp => RSA_WRAP,
            _ => FIRST,
        }
    }

    /// Every algorithm of this firmware, in the order in which the device lists them.
    pub(crate) fn of(firmware: Firmware) -> impl Iterator<Item = Self> {
        let known = move |algorithm: &Self| algorithm.since() <= firmware.max(FIRST);
        Self::LIST.into_iter().filter(known)
    }

    /// Fails with [`ErrorCode::InvalidData`] if the algorithm is newer than the firmware. One that only names
    /// an operation is not looked up: the operation may be older than its name.
    fn is_known_to(self, firmware: Firmware) -> Result<(), ErrorCode> {
        if self == Self::RsaPkcs1Decrypt || Self::of(firmware).any(|known| known == self) {
            Ok(())
        } else {
            Err(ErrorCode::InvalidData)
        }
    }
}

impl ObjectType {
    fn since(self) -> Firmware {
        match self {
            Self::SymmetricKey => SYMMETRIC_KEYS,
            Self::PublicWrapKey => RSA_WRAP,
            _ => FIRST,
        }
    }
}

impl Device {
    /// Fails unless this firmware has the algorithm ([`ErrorCode::InvalidData`]) and it is not switched off
    /// ([`ErrorCode::AlgorithmDisabled`]).
    pub(crate) fn require(&self, algorithm: Algorithm) -> Result<(), ErrorCode> {
        algorithm.is_known_to(self.firmware)?;
        self.algorithms.require(algorithm)
    }

    /// As [`Device::require`], for a key of this type: RSA keys are older than RSA wrap keys.
    pub(crate) fn require_for(
        &self,
        kind: ObjectType,
        algorithm: Algorithm,
    ) -> Result<(), ErrorCode> {
        let is_rsa = matches!(
            algorithm,
            Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096
        );
        if kind == ObjectType::WrapKey && is_rsa && self.firmware < RSA_WRAP {
            return Err(ErrorCode::InvalidData);
        }
        self.require(algorithm)
    }

    /// The type of objects with this number, if this firmware has it.
    pub(crate) fn object_type(&self, byte: u8) -> Result<ObjectType, ErrorCode> {
        ObjectType::from_byte(byte).and_then(|kind| {
            if kind.since() <= self.firmware.max(FIRST) {
                Ok(kind)
            } else {
                Err(ErrorCode::InvalidData)
            }
        })
    }
}
