//! The hash functions of RSA, ECDSA and HMAC.

use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::algorithm::Algorithm;
use super::error::ErrorCode;

/// Algorithms that differ in their hash alone, in the order of [`Hash::LIST`].
pub(crate) type Family = [Algorithm; 4];

/// RSASSA-PKCS1-v1_5.
pub(crate) const PKCS1: Family = [
    Algorithm::RsaPkcs1Sha1,
    Algorithm::RsaPkcs1Sha256,
    Algorithm::RsaPkcs1Sha384,
    Algorithm::RsaPkcs1Sha512,
];
/// RSASSA-PSS.
pub(crate) const PSS: Family = [
    Algorithm::RsaPssSha1,
    Algorithm::RsaPssSha256,
    Algorithm::RsaPssSha384,
    Algorithm::RsaPssSha512,
];
/// RSAES-OAEP, by the hash of the label.
pub(crate) const OAEP: Family = [
    Algorithm::RsaOaepSha1,
    Algorithm::RsaOaepSha256,
    Algorithm::RsaOaepSha384,
    Algorithm::RsaOaepSha512,
];
/// The mask generation function of PSS and OAEP.
pub(crate) const MGF1: Family = [
    Algorithm::Mgf1Sha1,
    Algorithm::Mgf1Sha256,
    Algorithm::Mgf1Sha384,
    Algorithm::Mgf1Sha512,
];
pub(crate) const ECDSA: Family = [
    Algorithm::EcdsaSha1,
    Algorithm::EcdsaSha256,
    Algorithm::EcdsaSha384,
    Algorithm::EcdsaSha512,
];
pub(crate) const HMAC: Family = [
    Algorithm::HmacSha1,
    Algorithm::HmacSha256,
    Algorithm::HmacSha384,
    Algorithm::HmacSha512,
];

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
        Self::of(algorithm, MGF1)
    }

    /// The hash of an OAEP label; else [`ErrorCode::InvalidData`].
    pub(crate) fn of_oaep(algorithm: Algorithm) -> Result<Self, ErrorCode> {
        Self::of(algorithm, OAEP)
    }

    /// The hash of an algorithm of this family; else [`ErrorCode::InvalidData`].
    pub(crate) fn of(algorithm: Algorithm, family: Family) -> Result<Self, ErrorCode> {
        Self::LIST
            .into_iter()
            .find(|hash| hash.algorithm(family) == algorithm)
            .ok_or(ErrorCode::InvalidData)
    }

    /// The algorithm of this family that has this hash.
    pub(crate) fn algorithm(self, family: Family) -> Algorithm {
        let [sha1, sha256, sha384, sha512] = family;
        match self {
            Self::Sha1 => sha1,
            Self::Sha256 => sha256,
            Self::Sha384 => sha384,
            Self::Sha512 => sha512,
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
