//! The public half of an RSA key.

use rsa::pkcs1::EncodeRsaPublicKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{BoxedUint, RsaPublicKey, hazmat};

use super::{PUBLIC_EXPONENT, modulus_length, pkcs1_scheme};
use crate::device::algorithm::Algorithm;
use crate::device::error::ErrorCode;
use crate::device::hash::Hash;
use crate::device::private_key::padding;

/// A public key.
pub(crate) struct RsaPublic(pub(super) RsaPublicKey);

impl RsaPublic {
    /// Makes a key from its modulus, big endian.
    ///
    /// # Errors
    /// [`ErrorCode::WrongLength`] for another length, [`ErrorCode::InvalidData`] for a number that is even or
    /// too small, or an algorithm that is not RSA.
    pub(crate) fn import(algorithm: Algorithm, modulus: &[u8]) -> Result<Self, ErrorCode> {
        if modulus.len() != modulus_length(algorithm)? {
            return Err(ErrorCode::WrongLength);
        }
        if !matches!((modulus.first(), modulus.last()), (Some(0x80..), Some(last)) if last & 1 == 1)
        {
            return Err(ErrorCode::InvalidData);
        }
        let modulus = BoxedUint::from_be_slice_vartime(modulus);
        RsaPublicKey::new(modulus, PUBLIC_EXPONENT.into())
            .map(Self)
            .map_err(|_| ErrorCode::InvalidData)
    }

    /// The modulus, big endian: what [`RsaPublic::import`] makes this key from.
    pub(crate) fn modulus(&self) -> Vec<u8> {
        self.0.n_bytes().to_vec()
    }

    /// Whether the signature, RSASSA-PKCS1-v1_5, is this key's over the digest.
    pub(crate) fn verifies_pkcs1(&self, hash: Hash, digest: &[u8], signature: &[u8]) -> bool {
        self.0.verify(pkcs1_scheme(hash), digest, signature).is_ok()
    }

    /// The key in PKCS#1, DER (RFC 8017, A.1.1).
    pub(crate) fn to_pkcs1(&self) -> Result<Vec<u8>, ErrorCode> {
        self.0
            .to_pkcs1_der()
            .map(|document| document.into_vec())
            .map_err(|_| ErrorCode::CommandUnexecuted)
    }

    /// Length of the modulus, and with it of ciphertexts, in bytes.
    pub(crate) fn modulus_length(&self) -> usize {
        self.0.size()
    }

    /// RSAES-OAEP; see [`super::RsaKey::oaep_decrypt`]. [`ErrorCode::WrongLength`] if the message does not fit.
    pub(crate) fn oaep_encrypt(
        &self,
        mgf1: Hash,
        label_digest: &[u8],
        message: &[u8],
    ) -> Result<Vec<u8>, ErrorCode> {
        let encoded = padding::oaep_encode(message, label_digest, mgf1, self.0.size())?;
        let number = BoxedUint::from_be_slice_vartime(&encoded);
        hazmat::rsa_encrypt(&self.0, &number)
            .map(|number| number.to_be_bytes().to_vec())
            .map_err(|_| ErrorCode::CommandUnexecuted)
    }
}
