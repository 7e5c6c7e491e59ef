//! One object: its properties and its secret or content.

use ed25519_dalek::Signer as _;
use getrandom::SysRng;
use k256::ecdsa::signature::hazmat::RandomizedPrehashSigner as _;
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::capability::{Capabilities, Domains};
use super::error::ErrorCode;
use super::random;
use super::scp03::{KEY_LENGTH, StaticKeys};

/// Length of a label in bytes; shorter ones are padded with zeros.
pub(crate) const LABEL_LENGTH: usize = 40;

/// Most bytes in an opaque object.
pub(crate) const OPAQUE_LIMIT: usize = 2028;

/// Types of objects, by their numbers on the wire.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum ObjectType {
    Opaque = 0x01,
    AuthenticationKey = 0x02,
    AsymmetricKey = 0x03,
}

impl ObjectType {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Opaque, Self::AuthenticationKey, Self::AsymmetricKey]
            .into_iter()
            .find(|known| known.byte() == byte)
    }

    /// The type in a command that looks for an object: of the device's other types (wrap, HMAC, template,
    /// OTP, symmetric and public wrap keys: 0x04 to 0x09) there is none.
    pub(crate) fn sought(byte: u8) -> Result<Self, ErrorCode> {
        Self::from_byte(byte).ok_or(match byte {
            0x04..=0x09 => ErrorCode::ObjectNotFound,
            _ => ErrorCode::InvalidData,
        })
    }

    pub(crate) fn byte(self) -> u8 {
        self as u8
    }

    /// What a session needs to delete an object of this type.
    pub(crate) fn delete_capability(self) -> Capabilities {
        match self {
            Self::Opaque => Capabilities::DELETE_OPAQUE,
            Self::AuthenticationKey => Capabilities::DELETE_AUTHENTICATION_KEY,
            Self::AsymmetricKey => Capabilities::DELETE_ASYMMETRIC_KEY,
        }
    }
}

/// How the object came to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Origin {
    Generated = 0x01,
    Imported = 0x02,
}

impl Origin {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Generated, Self::Imported]
            .into_iter()
            .find(|known| *known as u8 == byte)
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

/// What an object holds. Keys are kept ready for use.
pub(crate) enum Content {
    Opaque(Vec<u8>),
    Authentication(StaticKeys),
    Ed25519(ed25519_dalek::SigningKey),
    EcK256(k256::ecdsa::SigningKey),
    EcP256(p256::ecdsa::SigningKey),
}

impl Object {
    pub(crate) fn kind(&self) -> ObjectType {
        self.content.kind()
    }

    /// Length in bytes as the object's information shows it and as the store counts it.
    pub(crate) fn length(&self) -> usize {
        match &self.content {
            Content::Opaque(data) => data.len(),
            // Two keys of 16 bytes and 8 bytes of delegated capabilities.
            Content::Authentication(_) => 40,
            Content::Ed25519(_) => 128,
            // The private scalar and both coordinates of the public point.
            Content::EcK256(_) | Content::EcP256(_) => 96,
        }
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
                self.origin as u8,
            ],
            &p.label,
            &p.delegated.0.to_be_bytes(),
        ]
        .concat()
    }
}

impl Content {
    fn kind(&self) -> ObjectType {
        match self {
            Self::Opaque(_) => ObjectType::Opaque,
            Self::Authentication(_) => ObjectType::AuthenticationKey,
            Self::Ed25519(_) | Self::EcK256(_) | Self::EcP256(_) => ObjectType::AsymmetricKey,
        }
    }

    /// Makes the content of an object of `kind` from imported bytes: raw data, K-ENC and K-MAC, an
    /// Ed25519 seed (RFC 8032), or a big-endian scalar.
    pub(crate) fn import(
        kind: ObjectType,
        algorithm: Algorithm,
        bytes: &[u8],
    ) -> Result<Self, ErrorCode> {
        match (kind, algorithm) {
            (ObjectType::Opaque, Algorithm::OpaqueData | Algorithm::OpaqueX509Certificate) => {
                if bytes.is_empty() || bytes.len() > OPAQUE_LIMIT {
                    return Err(ErrorCode::WrongLength);
                }
                Ok(Self::Opaque(bytes.to_vec()))
            }
            (ObjectType::AuthenticationKey, Algorithm::Aes128Authentication) => {
                let (encryption, mac) = bytes
                    .split_first_chunk::<KEY_LENGTH>()
                    .ok_or(ErrorCode::WrongLength)?;
                let mac = mac.try_into().map_err(|_| ErrorCode::WrongLength)?;
                Ok(Self::Authentication(StaticKeys {
                    encryption: *encryption,
                    mac,
                }))
            }
            (ObjectType::AsymmetricKey, _) => Self::private_key(algorithm, bytes),
            _ => Err(ErrorCode::InvalidData),
        }
    }

    fn private_key(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, ErrorCode> {
        let invalid = |_| ErrorCode::InvalidData;
        match algorithm {
            Algorithm::Ed25519 | Algorithm::EcK256 | Algorithm::EcP256 if bytes.len() != 32 => {
                Err(ErrorCode::WrongLength)
            }
            Algorithm::Ed25519 => bytes
                .try_into()
                .map(Self::Ed25519)
                .map_err(|_| ErrorCode::InvalidData),
            Algorithm::EcK256 => k256::ecdsa::SigningKey::from_slice(bytes)
                .map(Self::EcK256)
                .map_err(invalid),
            Algorithm::EcP256 => p256::ecdsa::SigningKey::from_slice(bytes)
                .map(Self::EcP256)
                .map_err(invalid),
            _ => Err(ErrorCode::InvalidData),
        }
    }

    /// Makes a new private key.
    pub(crate) fn generate(algorithm: Algorithm) -> Result<Self, ErrorCode> {
        // Not every string of 32 bytes is a scalar below the order of the curve, but all save one in
        // about 2^32 are.
        loop {
            let bytes = Zeroizing::new(random::<32>()?);
            match Self::private_key(algorithm, bytes.as_slice()) {
                Err(ErrorCode::InvalidData) if algorithm.is_elliptic_curve() => {}
                result => return result,
            }
        }
    }

    /// What [`Content::import`] makes this content from.
    pub(crate) fn export(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Self::Opaque(data) => data.clone(),
            Self::Authentication(keys) => [keys.encryption, keys.mac].concat(),
            Self::Ed25519(key) => key.as_bytes().to_vec(),
            Self::EcK256(key) => key.to_bytes().to_vec(),
            Self::EcP256(key) => key.to_bytes().to_vec(),
        })
    }

    /// The public key: 32 bytes for Ed25519 (RFC 8032), else both coordinates, 64 bytes.
    pub(crate) fn public_key(&self) -> Result<Vec<u8>, ErrorCode> {
        let point = match self {
            Self::Ed25519(key) => return Ok(key.verifying_key().to_bytes().to_vec()),
            Self::EcK256(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Self::EcP256(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Self::Opaque(_) | Self::Authentication(_) => return Err(ErrorCode::InvalidData),
        };
        // Without the leading 0x04 of the uncompressed form.
        Ok(point.get(1..).unwrap_or_default().to_vec())
    }

    /// Ed25519 over the message itself; 64 bytes.
    pub(crate) fn sign_eddsa(&self, message: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        match self {
            Self::Ed25519(key) => Ok(key.sign(message).to_bytes().to_vec()),
            _ => Err(ErrorCode::InvalidData),
        }
    }

    /// ECDSA over a digest, with a random nonce; DER. The larger of the two possible values of `s` is as
    /// likely as the smaller, as on the device: callers that need low-S must normalise it.
    pub(crate) fn sign_ecdsa(&self, digest: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let digest = fit_digest(digest);
        let failed = |_| ErrorCode::CommandUnexecuted;
        match self {
            Self::EcK256(key) => {
                let low: k256::ecdsa::Signature = key
                    .sign_prehash_with_rng(&mut SysRng, &digest)
                    .map_err(failed)?;
                let [coin] = random::<1>()?;
                let (r, s) = low.split_scalars();
                let s = if coin & 1 == 0 { *s } else { -*s };
                let signature = k256::ecdsa::Signature::from_scalars(*r, s).map_err(failed)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            Self::EcP256(key) => {
                let signature: p256::ecdsa::Signature = key
                    .sign_prehash_with_rng(&mut SysRng, &digest)
                    .map_err(failed)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            _ => Err(ErrorCode::InvalidData),
        }
    }
}

impl Algorithm {
    /// Whether private keys are scalars below the order of a curve.
    fn is_elliptic_curve(self) -> bool {
        matches!(self, Self::EcK256 | Self::EcP256)
    }
}

/// Fits a digest to a 256-bit curve: the leftmost 32 bytes, or zeros in front (FIPS 186-5, 6.4.1).
fn fit_digest(digest: &[u8]) -> [u8; 32] {
    let mut fitted = [0; 32];
    let start = fitted.len().saturating_sub(digest.len());
    for (to, from) in fitted.iter_mut().skip(start).zip(digest) {
        *to = *from;
    }
    fitted
}
