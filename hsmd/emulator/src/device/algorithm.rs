//! The device's algorithms, by their numbers on the wire.

use serde::{Deserialize, Serialize};

use super::error::ErrorCode;

/// An algorithm of an object, or of an operation.
///
/// Source: the vendor's user guide, "Algorithms"; PyPI `yubihsm`, `defs.py`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum Algorithm {
    RsaPkcs1Sha1 = 1,
    RsaPkcs1Sha256 = 2,
    RsaPkcs1Sha384 = 3,
    RsaPkcs1Sha512 = 4,
    RsaPssSha1 = 5,
    RsaPssSha256 = 6,
    RsaPssSha384 = 7,
    RsaPssSha512 = 8,
    Rsa2048 = 9,
    Rsa3072 = 10,
    Rsa4096 = 11,
    EcP256 = 12,
    EcP384 = 13,
    EcP521 = 14,
    EcK256 = 15,
    EcBp256 = 16,
    EcBp384 = 17,
    EcBp512 = 18,
    HmacSha1 = 19,
    HmacSha256 = 20,
    HmacSha384 = 21,
    HmacSha512 = 22,
    EcdsaSha1 = 23,
    Ecdh = 24,
    RsaOaepSha1 = 25,
    RsaOaepSha256 = 26,
    RsaOaepSha384 = 27,
    RsaOaepSha512 = 28,
    Aes128CcmWrap = 29,
    OpaqueData = 30,
    OpaqueX509Certificate = 31,
    Mgf1Sha1 = 32,
    Mgf1Sha256 = 33,
    Mgf1Sha384 = 34,
    Mgf1Sha512 = 35,
    TemplateSsh = 36,
    Aes128Otp = 37,
    Aes128Authentication = 38,
    Aes192Otp = 39,
    Aes256Otp = 40,
    Aes192CcmWrap = 41,
    Aes256CcmWrap = 42,
    EcdsaSha256 = 43,
    EcdsaSha384 = 44,
    EcdsaSha512 = 45,
    Ed25519 = 46,
    EcP224 = 47,
    RsaPkcs1Decrypt = 48,
    EcP256Authentication = 49,
    Aes128 = 50,
    Aes192 = 51,
    Aes256 = 52,
    AesEcb = 53,
    AesCbc = 54,
    AesKwp = 55,
}

impl Algorithm {
    /// Every algorithm, in the order in which the device lists them.
    pub(crate) const LIST: [Self; 55] = [
        Self::RsaPkcs1Sha1,
        Self::RsaPkcs1Sha256,
        Self::RsaPkcs1Sha384,
        Self::RsaPkcs1Sha512,
        Self::RsaPssSha1,
        Self::RsaPssSha256,
        Self::RsaPssSha384,
        Self::RsaPssSha512,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::EcP256,
        Self::EcP384,
        Self::EcP521,
        Self::EcK256,
        Self::EcBp256,
        Self::EcBp384,
        Self::EcBp512,
        Self::HmacSha1,
        Self::HmacSha256,
        Self::HmacSha384,
        Self::HmacSha512,
        Self::EcdsaSha1,
        Self::Ecdh,
        Self::RsaOaepSha1,
        Self::RsaOaepSha256,
        Self::RsaOaepSha384,
        Self::RsaOaepSha512,
        Self::Aes128CcmWrap,
        Self::OpaqueData,
        Self::OpaqueX509Certificate,
        Self::Mgf1Sha1,
        Self::Mgf1Sha256,
        Self::Mgf1Sha384,
        Self::Mgf1Sha512,
        Self::TemplateSsh,
        Self::Aes128Otp,
        Self::Aes128Authentication,
        Self::Aes192Otp,
        Self::Aes256Otp,
        Self::Aes192CcmWrap,
        Self::Aes256CcmWrap,
        Self::EcdsaSha256,
        Self::EcdsaSha384,
        Self::EcdsaSha512,
        Self::Ed25519,
        Self::EcP224,
        Self::RsaPkcs1Decrypt,
        Self::EcP256Authentication,
        Self::Aes128,
        Self::Aes192,
        Self::Aes256,
        Self::AesEcb,
        Self::AesCbc,
        Self::AesKwp,
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
