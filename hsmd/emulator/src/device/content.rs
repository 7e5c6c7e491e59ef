//! What an object holds. Keys are kept ready for use.

use p256::elliptic_curve::sec1::ToSec1Point as _;
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::error::ErrorCode;
use super::object::ObjectType;
use super::private_key::PrivateKey;
use super::private_key::rsa::{RsaKey, RsaPublic};
use super::scp03::{KEY_LENGTH, StaticKeys};

/// Most bytes in an opaque object or a template.
pub(crate) const OPAQUE_LIMIT: usize = 2028;

/// Length of an OTP AEAD key's nonce identifier in bytes.
const NONCE_ID_LENGTH: usize = 4;

/// What an object holds.
pub(crate) enum Content {
    Opaque(Vec<u8>),
    Template(Vec<u8>),
    /// K-ENC and K-MAC.
    Authentication(StaticKeys),
    /// The host's public key.
    AuthenticationPublic(p256::PublicKey),
    /// An asymmetric key.
    Private(PrivateKey),
    /// An AES-CCM wrap key of 16, 24 or 32 bytes.
    Wrap(Zeroizing<Vec<u8>>),
    /// A wrap key that opens what its public half wrapped.
    RsaWrap(RsaKey),
    /// A wrap key that only wraps.
    PublicWrap(RsaPublic),
    /// An HMAC key, with zeros behind it up to the block length of the hash, which changes no code.
    Hmac(Zeroizing<Vec<u8>>),
    /// An AES key of 16, 24 or 32 bytes and the nonce identifier that its AEADs carry.
    OtpAead {
        nonce_id: [u8; NONCE_ID_LENGTH],
        key: Zeroizing<Vec<u8>>,
    },
    /// An AES key of 16, 24 or 32 bytes.
    Symmetric(Zeroizing<Vec<u8>>),
}

impl Content {
    /// The type of the object that holds this.
    pub(crate) fn kind(&self) -> ObjectType {
        match self {
            Self::Opaque(_) => ObjectType::Opaque,
            Self::Template(_) => ObjectType::Template,
            Self::Authentication(_) | Self::AuthenticationPublic(_) => {
                ObjectType::AuthenticationKey
            }
            Self::Private(_) => ObjectType::AsymmetricKey,
            Self::Wrap(_) | Self::RsaWrap(_) => ObjectType::WrapKey,
            Self::PublicWrap(_) => ObjectType::PublicWrapKey,
            Self::Hmac(_) => ObjectType::HmacKey,
            Self::OtpAead { .. } => ObjectType::OtpAeadKey,
            Self::Symmetric(_) => ObjectType::SymmetricKey,
        }
    }

    /// Length in bytes as the object's information shows it and as the store counts it.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Opaque(data) | Self::Template(data) => data.len(),
            // Two keys of 16 bytes and 8 bytes of delegated capabilities.
            Self::Authentication(_) => 40,
            // Both coordinates, and the same 8 bytes.
            Self::AuthenticationPublic(_) => 72,
            Self::Private(key) => key.length(),
            // The key and 8 bytes of delegated capabilities.
            Self::Wrap(key) => key.len() + 8,
            Self::RsaWrap(key) => key.modulus_length() / 2 * 7 + 8,
            Self::PublicWrap(key) => key.modulus_length() + 8,
            // The device keeps it twice, for the inner and the outer hash.
            Self::Hmac(key) => 2 * key.len(),
            Self::Symmetric(key) => key.len(),
            Self::OtpAead { key, .. } => key.len() + NONCE_ID_LENGTH,
        }
    }

    /// Makes the content of an object of `kind` from imported bytes: raw data; K-ENC and K-MAC, or both
    /// coordinates of a public point; a private key ([`PrivateKey::import`]); the bytes of an AES or HMAC
    /// key, for OTP AEAD keys behind the nonce identifier.
    pub(crate) fn import(
        kind: ObjectType,
        algorithm: Algorithm,
        bytes: &[u8],
    ) -> Result<Self, ErrorCode> {
        let secret = || Zeroizing::new(bytes.to_vec());
        match (kind, algorithm) {
            (ObjectType::Opaque, Algorithm::OpaqueData | Algorithm::OpaqueX509Certificate) => {
                data(bytes).map(Self::Opaque)
            }
            (ObjectType::Template, Algorithm::TemplateSsh) => data(bytes).map(Self::Template),
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
            (ObjectType::AuthenticationKey, Algorithm::EcP256Authentication) => {
                exactly(bytes, 64)?;
                let point = [&[0x04], bytes].concat();
                p256::PublicKey::from_sec1_bytes(&point)
                    .map(Self::AuthenticationPublic)
                    .map_err(|_| ErrorCode::InvalidData)
            }
            (ObjectType::AsymmetricKey, _) => {
                PrivateKey::import(algorithm, bytes).map(Self::Private)
            }
            (ObjectType::WrapKey, Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096) => {
                RsaKey::import(algorithm, bytes).map(Self::RsaWrap)
            }
            (ObjectType::PublicWrapKey, _) => {
                RsaPublic::import(algorithm, bytes).map(Self::PublicWrap)
            }
            (ObjectType::WrapKey, _) => {
                exactly(bytes, wrap_key_length(algorithm)?)?;
                Ok(Self::Wrap(secret()))
            }
            (ObjectType::HmacKey, _) => {
                let limit = hmac_key_limit(algorithm)?;
                if bytes.is_empty() || bytes.len() > limit {
                    return Err(ErrorCode::WrongLength);
                }
                let mut key = Zeroizing::new(vec![0; limit]);
                key.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                Ok(Self::Hmac(key))
            }
            (ObjectType::OtpAeadKey, _) => {
                let (nonce_id, key) = bytes
                    .split_first_chunk::<NONCE_ID_LENGTH>()
                    .ok_or(ErrorCode::WrongLength)?;
                exactly(key, otp_key_length(algorithm)?)?;
                Ok(Self::OtpAead {
                    nonce_id: *nonce_id,
                    key: Zeroizing::new(key.to_vec()),
                })
            }
            (ObjectType::SymmetricKey, _) => {
                exactly(bytes, symmetric_key_length(algorithm)?)?;
                Ok(Self::Symmetric(secret()))
            }
            _ => Err(ErrorCode::InvalidData),
        }
    }

    /// Makes a new key of `kind`. `given` comes from the host: the nonce identifier of an OTP AEAD key, nothing
    /// for others.
    pub(crate) fn generate(
        kind: ObjectType,
        algorithm: Algorithm,
        given: &[u8],
    ) -> Result<Self, ErrorCode> {
        let given_length = match kind {
            ObjectType::OtpAeadKey => NONCE_ID_LENGTH,
            _ => 0,
        };
        exactly(given, given_length)?;
        let length = match kind {
            ObjectType::AsymmetricKey => {
                return PrivateKey::generate(algorithm).map(Self::Private);
            }
            ObjectType::OtpAeadKey => otp_key_length(algorithm)?,
            ObjectType::WrapKey => match algorithm {
                Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
                    return RsaKey::generate(algorithm).map(Self::RsaWrap);
                }
                _ => wrap_key_length(algorithm)?,
            },
            ObjectType::HmacKey => hmac_key_limit(algorithm)?,
            ObjectType::SymmetricKey => symmetric_key_length(algorithm)?,
            _ => return Err(ErrorCode::InvalidData),
        };
        let bytes = Zeroizing::new([given, &random_bytes(length)?].concat());
        Self::import(kind, algorithm, &bytes)
    }

    /// Makes the content from what [`Content::export`] gives, which is more than a host may bring.
    pub(crate) fn restore(
        kind: ObjectType,
        algorithm: Algorithm,
        bytes: &[u8],
    ) -> Result<Self, ErrorCode> {
        match kind {
            ObjectType::AsymmetricKey => PrivateKey::restore(algorithm, bytes).map(Self::Private),
            _ => Self::import(kind, algorithm, bytes),
        }
    }

    /// What [`Content::import`], or for Ed25519 keys without their seed [`Content::restore`], makes this
    /// content from.
    pub(crate) fn export(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Opaque(data) | Self::Template(data) => Zeroizing::new(data.clone()),
            Self::Authentication(keys) => Zeroizing::new([keys.encryption, keys.mac].concat()),
            Self::AuthenticationPublic(key) => {
                let point = key.to_sec1_point(false);
                // Without the leading 0x04 of the uncompressed form.
                Zeroizing::new(point.as_bytes().get(1..).unwrap_or_default().to_vec())
            }
            Self::Private(key) => key.export(),
            Self::RsaWrap(key) => key.export(),
            Self::PublicWrap(key) => Zeroizing::new(key.modulus()),
            Self::Wrap(key) | Self::Hmac(key) | Self::Symmetric(key) => key.clone(),
            Self::OtpAead { nonce_id, key } => Zeroizing::new([nonce_id, key.as_slice()].concat()),
        }
    }
}

/// Random bytes from the operating system, as a secret.
pub(crate) fn random_bytes(length: usize) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
    let mut bytes = Zeroizing::new(vec![0; length]);
    getrandom::fill(&mut bytes).map_err(|_| ErrorCode::CommandUnexecuted)?;
    Ok(bytes)
}

fn data(bytes: &[u8]) -> Result<Vec<u8>, ErrorCode> {
    if bytes.is_empty() || bytes.len() > OPAQUE_LIMIT {
        return Err(ErrorCode::WrongLength);
    }
    Ok(bytes.to_vec())
}

fn exactly(bytes: &[u8], length: usize) -> Result<(), ErrorCode> {
    if bytes.len() == length {
        Ok(())
    } else {
        Err(ErrorCode::WrongLength)
    }
}

fn wrap_key_length(algorithm: Algorithm) -> Result<usize, ErrorCode> {
    match algorithm {
        Algorithm::Aes128CcmWrap => Ok(16),
        Algorithm::Aes192CcmWrap => Ok(24),
        Algorithm::Aes256CcmWrap => Ok(32),
        _ => Err(ErrorCode::InvalidData),
    }
}

/// The block length of the hash: longer keys are hashed by the host.
fn hmac_key_limit(algorithm: Algorithm) -> Result<usize, ErrorCode> {
    match algorithm {
        Algorithm::HmacSha1 | Algorithm::HmacSha256 => Ok(64),
        Algorithm::HmacSha384 | Algorithm::HmacSha512 => Ok(128),
        _ => Err(ErrorCode::InvalidData),
    }
}

fn otp_key_length(algorithm: Algorithm) -> Result<usize, ErrorCode> {
    match algorithm {
        Algorithm::Aes128Otp => Ok(16),
        Algorithm::Aes192Otp => Ok(24),
        Algorithm::Aes256Otp => Ok(32),
        _ => Err(ErrorCode::InvalidData),
    }
}

fn symmetric_key_length(algorithm: Algorithm) -> Result<usize, ErrorCode> {
    match algorithm {
        Algorithm::Aes128 => Ok(16),
        Algorithm::Aes192 => Ok(24),
        Algorithm::Aes256 => Ok(32),
        _ => Err(ErrorCode::InvalidData),
    }
}
