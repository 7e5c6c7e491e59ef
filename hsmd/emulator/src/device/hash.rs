//! The hash functions of RSA, ECDSA and HMAC.

use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::algorithm::Algorithm;
use super::error::ErrorCode;

/// A hash function.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(crate) const LIST: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The hash whose digests have `length` bytes; else [`ErrorCode::WrongLength`].
    pub(crate) fn of_length(length: usize) -> Result<Self, ErrorCode> {
        Self::LIST
            .into_iter()
            .find(|hash| hash.length() == length)
            .ok_or(ErrorCode::WrongLength)
    }

    /// The hash of a mask generation function MGF1; else [`ErrorCode::InvalidData`].
    pub(crate) fn of_mgf1(algorithm: Algorithm) -> Result<Self, ErrorCode> {
        match algorithm {
            Algorithm::Mgf1Sha1 => Ok(Self::Sha1),
            Algorithm::Mgf1Sha256 => Ok(Self::Sha256),
            Algorithm::Mgf1Sha384 => Ok(Self::Sha384),
            Algorithm::Mgf1Sha512 => Ok(Self::Sha512),
            _ => Err(ErrorCode::InvalidData),
        }
    }

    /// The hash of an OAEP label; else [`ErrorCode::InvalidData`].
    pub(crate) fn of_oaep(algorithm: Algorithm) -> Result<Self, ErrorCode> {
        match algorithm {
            Algorithm::RsaOaepSha1 => Ok(Self::Sha1),
            Algorithm::RsaOaepSha256 => Ok(Self::Sha256),
            Algorithm::RsaOaepSha384 => Ok(Self::Sha384),
            Algorithm::RsaOaepSha512 => Ok(Self::Sha512),
            _ => Err(ErrorCode::InvalidData),
        }
    }

    /// Length of a digest in bytes.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Digest of `parts`, one behind the other.
    pub(crate) fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        let message = parts.concat();
        match self {
            Self::Sha1 => Sha1::digest(message).to_vec(),
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha384 => Sha384::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}
