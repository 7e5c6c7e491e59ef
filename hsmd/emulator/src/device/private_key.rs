//! The private keys of asymmetric objects, and what they do.

pub(crate) mod ec;
mod ed25519;
mod encoding;
mod padding;
pub(crate) mod rsa;
pub(crate) mod wrapped;

use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::error::ErrorCode;
use super::hash::Hash;
use super::random;
use ec::EcKey;
use ed25519::Ed25519Key;
use rsa::RsaKey;

/// A private key.
pub(crate) enum PrivateKey {
    Ed25519(Ed25519Key),
    Ec(Box<dyn EcKey>),
    Rsa(RsaKey),
}

impl PrivateKey {
    /// Length in bytes as the object's information shows it.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Ed25519(key) => key.length(),
            // The private scalar and both coordinates of the public point.
            Self::Ec(key) => 3 * key.coordinate_length(),
            // The modulus and the five numbers of RFC 8017, 3.2, of half its length. With them as many keys
            // fit as the vendor says: 127, 93 and 68 of 2048, 3072 and 4096 bits.
            Self::Rsa(key) => key.modulus_length() / 2 * 7,
        }
    }

    /// Makes a key from an Ed25519 seed (RFC 8032), the scalar of another curve ([`ec::import`]) or the primes
    /// of an RSA key ([`RsaKey::import`]).
    pub(crate) fn import(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, ErrorCode> {
        match algorithm {
            Algorithm::Ed25519 => Ed25519Key::import(bytes).map(Self::Ed25519),
            Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
                RsaKey::import(algorithm, bytes).map(Self::Rsa)
            }
            _ => ec::import(algorithm, bytes).map(Self::Ec),
        }
    }

    /// Makes a new private key.
    pub(crate) fn generate(algorithm: Algorithm) -> Result<Self, ErrorCode> {
        match algorithm {
            Algorithm::Ed25519 => Self::import(algorithm, &*Zeroizing::new(random::<32>()?)),
            Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
                RsaKey::generate(algorithm).map(Self::Rsa)
            }
            _ => ec::generate(algorithm).map(Self::Ec),
        }
    }

    /// Makes a key from what [`PrivateKey::export`] gives, which is more than a host may bring.
    pub(crate) fn restore(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, ErrorCode> {
        match algorithm {
            Algorithm::Ed25519 => Ed25519Key::import(bytes)
                .or_else(|_| Ed25519Key::from_wrapped(bytes))
                .map(Self::Ed25519),
            _ => Self::import(algorithm, bytes),
        }
    }

    /// What [`PrivateKey::import`] makes this key from; the expanded form of an Ed25519 key that came without
    /// its seed.
    pub(crate) fn export(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Ed25519(key) => key.export(),
            Self::Ec(key) => key.export(),
            Self::Rsa(key) => key.export(),
        }
    }

    /// The public key: 32 bytes for Ed25519 (RFC 8032), the modulus of an RSA key, else both coordinates.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.public_key(),
            // Without the leading 0x04 of the uncompressed form.
            Self::Ec(key) => key.public_point().split_off(1),
            Self::Rsa(key) => key.public_key().modulus(),
        }
    }

    /// Ed25519 over the message itself; 64 bytes.
    pub(crate) fn sign_eddsa(&self, message: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        match self {
            Self::Ed25519(key) => Ok(key.sign(message)),
            _ => Err(ErrorCode::InvalidData),
        }
    }

    /// What an attestation certificate is signed with: SHA-256, and RSASSA-PKCS1-v1_5 or ECDSA.
    /// [`ErrorCode::InvalidData`] for Ed25519.
    pub(crate) fn sign_sha256(&self, message: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let digest = Hash::Sha256.digest(&[message]);
        match self {
            Self::Rsa(key) => key.sign_pkcs1(&digest),
            _ => self.sign_ecdsa(&digest),
        }
    }

    /// ECDSA over a digest; see [`EcKey::sign`].
    pub(crate) fn sign_ecdsa(&self, digest: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        match self {
            Self::Ec(key) => key.sign(digest),
            _ => Err(ErrorCode::InvalidData),
        }
    }
}
