//! One object: its type, its properties and where it came from.

use super::algorithm::Algorithm;
use super::capability::{Capabilities, Domains};
use super::content::Content;
use super::error::ErrorCode;

/// Length of a label in bytes; shorter ones are padded with zeros.
pub(crate) const LABEL_LENGTH: usize = 40;

/// Types of objects, by their numbers on the wire.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum ObjectType {
    Opaque = 0x01,
    AuthenticationKey = 0x02,
    AsymmetricKey = 0x03,
    WrapKey = 0x04,
    HmacKey = 0x05,
    Template = 0x06,
    OtpAeadKey = 0x07,
    SymmetricKey = 0x08,
    PublicWrapKey = 0x09,
}

impl ObjectType {
    const LIST: [Self; 9] = [
        Self::Opaque,
        Self::AuthenticationKey,
        Self::AsymmetricKey,
        Self::WrapKey,
        Self::HmacKey,
        Self::Template,
        Self::OtpAeadKey,
        Self::SymmetricKey,
        Self::PublicWrapKey,
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

    /// Whether a key of this type has capabilities that it may give to others.
    pub(crate) fn delegates(self) -> bool {
        matches!(
            self,
            Self::AuthenticationKey | Self::WrapKey | Self::PublicWrapKey
        )
    }

    /// What a session needs to import an object of this type.
    pub(crate) fn put_capability(self) -> Capabilities {
        match self {
            Self::Opaque => Capabilities::PUT_OPAQUE,
            Self::AuthenticationKey => Capabilities::PUT_AUTHENTICATION_KEY,
            Self::AsymmetricKey => Capabilities::PUT_ASYMMETRIC_KEY,
            Self::WrapKey => Capabilities::PUT_WRAP_KEY,
            Self::HmacKey => Capabilities::PUT_HMAC_KEY,
            Self::Template => Capabilities::PUT_TEMPLATE,
            Self::OtpAeadKey => Capabilities::PUT_OTP_AEAD_KEY,
            Self::SymmetricKey => Capabilities::PUT_SYMMETRIC_KEY,
            Self::PublicWrapKey => Capabilities::PUT_PUBLIC_WRAP_KEY,
        }
    }

    /// What a session needs to generate a key of this type; `None` where none can be generated.
    pub(crate) fn generate_capability(self) -> Option<Capabilities> {
        match self {
            Self::AsymmetricKey => Some(Capabilities::GENERATE_ASYMMETRIC_KEY),
            Self::WrapKey => Some(Capabilities::GENERATE_WRAP_KEY),
            Self::HmacKey => Some(Capabilities::GENERATE_HMAC_KEY),
            Self::OtpAeadKey => Some(Capabilities::GENERATE_OTP_AEAD_KEY),
            Self::SymmetricKey => Some(Capabilities::GENERATE_SYMMETRIC_KEY),
            _ => None,
        }
    }

    /// What a session needs to delete an object of this type.
    pub(crate) fn delete_capability(self) -> Capabilities {
        match self {
            Self::Opaque => Capabilities::DELETE_OPAQUE,
            Self::AuthenticationKey => Capabilities::DELETE_AUTHENTICATION_KEY,
            Self::AsymmetricKey => Capabilities::DELETE_ASYMMETRIC_KEY,
            Self::WrapKey => Capabilities::DELETE_WRAP_KEY,
            Self::HmacKey => Capabilities::DELETE_HMAC_KEY,
            Self::Template => Capabilities::DELETE_TEMPLATE,
            Self::OtpAeadKey => Capabilities::DELETE_OTP_AEAD_KEY,
            Self::SymmetricKey => Capabilities::DELETE_SYMMETRIC_KEY,
            Self::PublicWrapKey => Capabilities::DELETE_PUBLIC_WRAP_KEY,
        }
    }
}

/// How the object came to be: generated or imported, and whether it came in wrapped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Origin(u8);

impl Origin {
    pub(crate) const GENERATED: Self = Self(0x01);
    pub(crate) const IMPORTED: Self = Self(0x02);
    const WRAPPED: u8 = 0x10;

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        matches!(byte & !Self::WRAPPED, 0x01 | 0x02).then_some(Self(byte))
    }

    pub(crate) fn byte(self) -> u8 {
        self.0
    }

    /// The origin of the same object once it was imported under wrap.
    pub(crate) fn imported_wrapped(self) -> Self {
        Self(self.0 | Self::WRAPPED)
    }
}

/// The properties that a command gives to a new object.
#[derive(Clone, Copy)]
pub(crate) struct Properties {
    pub(crate) id: u16,
    pub(crate) label: [u8; LABEL_LENGTH],
    pub(crate) domains: Domains,
    pub(crate) capabilities: Capabilities,
    pub(crate) algorithm: Algorithm,
    pub(crate) delegated: Capabilities,
}

/// A stored object.
pub(crate) struct Object {
    pub(crate) properties: Properties,
    pub(crate) origin: Origin,
    /// How many objects of this type and identifier there were before, modulo 256.
    pub(crate) sequence: u8,
    pub(crate) content: Content,
}

impl Object {
    pub(crate) fn kind(&self) -> ObjectType {
        self.content.kind()
    }

    /// Length in bytes as the object's information shows it and as the store counts it.
    pub(crate) fn length(&self) -> usize {
        self.content.length()
    }

    /// The answer to GET OBJECT INFO, 66 bytes.
    pub(crate) fn information(&self) -> Vec<u8> {
        let p = &self.properties;
        // No object is longer than the opaque limit.
        let length = u16::try_from(self.length()).unwrap_or(u16::MAX);
        [
            &p.capabilities.0.to_be_bytes()[..],
            &p.id.to_be_bytes(),
            &length.to_be_bytes(),
            &p.domains.0.to_be_bytes(),
            &[
                self.kind().byte(),
                p.algorithm.byte(),
                self.sequence,
                self.origin.byte(),
            ],
            &p.label,
            &p.delegated.0.to_be_bytes(),
        ]
        .concat()
    }
}
