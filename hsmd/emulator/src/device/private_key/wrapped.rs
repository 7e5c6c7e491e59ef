//! Private keys in the form in which they leave the device under wrap.

use zeroize::Zeroizing;

use super::PrivateKey;
use super::ed25519::Ed25519Key;
use super::rsa::RsaKey;
use crate::device::algorithm::Algorithm;
use crate::device::error::ErrorCode;

/// What of an Ed25519 key goes into a wrapped object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ed25519Form {
    /// Scalar (big endian), hash prefix and public key: the key signs, but its seed is lost.
    Expanded,
    /// The seed, and then the same.
    Seed,
}

impl PrivateKey {
    /// EC keys: the scalar and both coordinates of the public point. RSA keys: see [`RsaKey::to_wrapped`].
    /// Ed25519 keys: as `form` says; [`ErrorCode::InvalidData`] for a seed that was lost.
    pub(crate) fn to_wrapped(&self, form: Ed25519Form) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
        match self {
            Self::Ed25519(key) => key.to_wrapped(form),
            Self::Rsa(key) => Ok(key.to_wrapped()),
            _ => Ok(Zeroizing::new(
                [self.export().as_slice(), &self.public_key()].concat(),
            )),
        }
    }

    /// Makes a key from what [`PrivateKey::to_wrapped`] gives. Both forms of Ed25519 are told apart by their
    /// length.
    ///
    /// # Errors
    /// [`ErrorCode::WrongLength`] for another length, [`ErrorCode::InvalidData`] if the parts are not of one
    /// key.
    pub(crate) fn from_wrapped(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, ErrorCode> {
        match algorithm {
            Algorithm::Ed25519 => Ed25519Key::from_wrapped(bytes).map(Self::Ed25519),
            Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
                RsaKey::from_wrapped(algorithm, bytes).map(Self::Rsa)
            }
            _ => {
                let (scalar, point) = bytes.split_at(bytes.len() / 3);
                let key = Self::import(algorithm, scalar)?;
                if point == key.public_key() {
                    Ok(key)
                } else {
                    Err(ErrorCode::InvalidData)
                }
            }
        }
    }
}
