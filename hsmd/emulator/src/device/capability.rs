//! Capabilities and domains: who may do what with which object.
//!
//! Source: the vendor's user guide, "Capability"; bit numbers as in PyPI `yubihsm`, `defs.py`.

use serde::{Deserialize, Serialize};

use super::error::ErrorCode;
use super::object::Object;

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Capabilities(pub(crate) u64);

impl Capabilities {
    pub(crate) const NONE: Self = Self(0);
    /// Every bit, also those without a meaning: what the device's first authentication key shows.
    pub(crate) const ALL: Self = Self(u64::MAX);

    pub(crate) const GET_OPAQUE: Self = Self(1 << 0x00);
    pub(crate) const PUT_OPAQUE: Self = Self(1 << 0x01);
    pub(crate) const PUT_AUTHENTICATION_KEY: Self = Self(1 << 0x02);
    pub(crate) const PUT_ASYMMETRIC_KEY: Self = Self(1 << 0x03);
    pub(crate) const GENERATE_ASYMMETRIC_KEY: Self = Self(1 << 0x04);
    pub(crate) const SIGN_PKCS: Self = Self(1 << 0x05);
    pub(crate) const SIGN_PSS: Self = Self(1 << 0x06);
    pub(crate) const SIGN_ECDSA: Self = Self(1 << 0x07);
    pub(crate) const SIGN_EDDSA: Self = Self(1 << 0x08);
    pub(crate) const DECRYPT_PKCS: Self = Self(1 << 0x09);
    pub(crate) const DECRYPT_OAEP: Self = Self(1 << 0x0a);
    pub(crate) const DERIVE_ECDH: Self = Self(1 << 0x0b);
    pub(crate) const EXPORT_WRAPPED: Self = Self(1 << 0x0c);
    pub(crate) const IMPORT_WRAPPED: Self = Self(1 << 0x0d);
    pub(crate) const PUT_WRAP_KEY: Self = Self(1 << 0x0e);
    pub(crate) const GENERATE_WRAP_KEY: Self = Self(1 << 0x0f);
    pub(crate) const EXPORTABLE_UNDER_WRAP: Self = Self(1 << 0x10);
    pub(crate) const SET_OPTION: Self = Self(1 << 0x11);
    pub(crate) const GET_OPTION: Self = Self(1 << 0x12);
    pub(crate) const GET_PSEUDO_RANDOM: Self = Self(1 << 0x13);
    pub(crate) const PUT_HMAC_KEY: Self = Self(1 << 0x14);
    pub(crate) const GENERATE_HMAC_KEY: Self = Self(1 << 0x15);
    pub(crate) const SIGN_HMAC: Self = Self(1 << 0x16);
    pub(crate) const VERIFY_HMAC: Self = Self(1 << 0x17);
    pub(crate) const GET_LOG_ENTRIES: Self = Self(1 << 0x18);
    pub(crate) const SIGN_SSH_CERTIFICATE: Self = Self(1 << 0x19);
    pub(crate) const GET_TEMPLATE: Self = Self(1 << 0x1a);
    pub(crate) const PUT_TEMPLATE: Self = Self(1 << 0x1b);
    pub(crate) const RESET_DEVICE: Self = Self(1 << 0x1c);
    pub(crate) const DECRYPT_OTP: Self = Self(1 << 0x1d);
    pub(crate) const CREATE_OTP_AEAD: Self = Self(1 << 0x1e);
    pub(crate) const RANDOMIZE_OTP_AEAD: Self = Self(1 << 0x1f);
    pub(crate) const REWRAP_FROM_OTP_AEAD_KEY: Self = Self(1 << 0x20);
    pub(crate) const REWRAP_TO_OTP_AEAD_KEY: Self = Self(1 << 0x21);
    pub(crate) const SIGN_ATTESTATION_CERTIFICATE: Self = Self(1 << 0x22);
    pub(crate) const PUT_OTP_AEAD_KEY: Self = Self(1 << 0x23);
    pub(crate) const GENERATE_OTP_AEAD_KEY: Self = Self(1 << 0x24);
    pub(crate) const WRAP_DATA: Self = Self(1 << 0x25);
    pub(crate) const UNWRAP_DATA: Self = Self(1 << 0x26);
    pub(crate) const DELETE_OPAQUE: Self = Self(1 << 0x27);
    pub(crate) const DELETE_AUTHENTICATION_KEY: Self = Self(1 << 0x28);
    pub(crate) const DELETE_ASYMMETRIC_KEY: Self = Self(1 << 0x29);
    pub(crate) const DELETE_WRAP_KEY: Self = Self(1 << 0x2a);
    pub(crate) const DELETE_HMAC_KEY: Self = Self(1 << 0x2b);
    pub(crate) const DELETE_TEMPLATE: Self = Self(1 << 0x2c);
    pub(crate) const DELETE_OTP_AEAD_KEY: Self = Self(1 << 0x2d);
    pub(crate) const CHANGE_AUTHENTICATION_KEY: Self = Self(1 << 0x2e);
    pub(crate) const PUT_SYMMETRIC_KEY: Self = Self(1 << 0x2f);
    pub(crate) const GENERATE_SYMMETRIC_KEY: Self = Self(1 << 0x30);
    pub(crate) const DELETE_SYMMETRIC_KEY: Self = Self(1 << 0x31);
    pub(crate) const DECRYPT_ECB: Self = Self(1 << 0x32);
    pub(crate) const ENCRYPT_ECB: Self = Self(1 << 0x33);
    pub(crate) const DECRYPT_CBC: Self = Self(1 << 0x34);
    pub(crate) const ENCRYPT_CBC: Self = Self(1 << 0x35);
    pub(crate) const PUT_PUBLIC_WRAP_KEY: Self = Self(1 << 0x36);
    pub(crate) const DELETE_PUBLIC_WRAP_KEY: Self = Self(1 << 0x37);

    /// Whether every capability of `other` is in this set.
    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether at least one capability of `other` is in this set.
    pub(crate) fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Fails with [`ErrorCode::InsufficientPermissions`] unless all of `needed` is in this set.
    pub(crate) fn require(self, needed: Self) -> Result<(), ErrorCode> {
        if self.contains(needed) {
            Ok(())
        } else {
            Err(ErrorCode::InsufficientPermissions)
        }
    }
}

/// A set of the 16 domains, one bit each.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Domains(pub(crate) u16);

impl Domains {
    pub(crate) const ALL: Self = Self(u16::MAX);

    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What a session may do: the properties of the authentication key that opened it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Authority {
    /// Identifier of the authentication key.
    pub(crate) key_id: u16,
    /// Commands that it may run.
    pub(crate) capabilities: Capabilities,
    /// Capabilities that it may give to objects.
    pub(crate) delegated: Capabilities,
    /// Domains in which it sees and makes objects.
    pub(crate) domains: Domains,
}

impl Authority {
    /// What a session may do that was opened with this authentication key.
    pub(crate) fn of(key: &Object) -> Self {
        Self {
            key_id: key.properties.id,
            capabilities: key.properties.capabilities,
            delegated: key.properties.delegated,
            domains: key.properties.domains,
        }
    }
}
