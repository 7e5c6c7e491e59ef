//! The private keys of asymmetric objects, and what they do.

mod padding;
pub(crate) mod rsa;

use ed25519_dalek::Signer as _;
use getrandom::SysRng;
use k256::ecdsa::signature::hazmat::RandomizedPrehashSigner as _;
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::error::ErrorCode;
use super::random;
use rsa::RsaKey;

/// A private key.
pub(crate) enum PrivateKey {
    Ed25519(ed25519_dalek::SigningKey),
    EcK256(k256::ecdsa::SigningKey),
    EcP256(p256::ecdsa::SigningKey),
    Rsa(RsaKey),
}

impl PrivateKey {
    /// Length in bytes as the object's information shows it.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Ed25519(_) => 128,
            // The private scalar and both coordinates of the public point.
            Self::EcK256(_) | Self::EcP256(_) => 96,
            // The modulus and the five numbers of RFC 8017, 3.2, of half its length. With them as many keys
            // fit as the vendor says: 127, 93 and 68 of 2048, 3072 and 4096 bits.
            Self::Rsa(key) => key.modulus_length() / 2 * 7,
        }
    }

    /// Makes a key from an Ed25519 seed (RFC 8032), a big-endian scalar, or the primes of an RSA key
    /// ([`RsaKey::import`]).
    pub(crate) fn import(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, ErrorCode> {
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
            _ => RsaKey::import(algorithm, bytes).map(Self::Rsa),
        }
    }

    /// Makes a new private key.
    pub(crate) fn generate(algorithm: Algorithm) -> Result<Self, ErrorCode> {
        if let Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 = algorithm {
            return RsaKey::generate(algorithm).map(Self::Rsa);
        }
        // Not every string of 32 bytes is a scalar below the order of the curve, but all save one in
        // about 2^32 are.
        loop {
            let bytes = Zeroizing::new(random::<32>()?);
            match Self::import(algorithm, bytes.as_slice()) {
                Err(ErrorCode::InvalidData) if algorithm.is_elliptic_curve() => {}
                result => return result,
            }
        }
    }

    /// What [`PrivateKey::import`] makes this key from.
    pub(crate) fn export(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Self::Rsa(key) => return key.export(),
            Self::Ed25519(key) => key.as_bytes().to_vec(),
            Self::EcK256(key) => key.to_bytes().to_vec(),
            Self::EcP256(key) => key.to_bytes().to_vec(),
        })
    }

    /// The public key: 32 bytes for Ed25519 (RFC 8032), the modulus of an RSA key, else both coordinates.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        let point = match self {
            Self::Rsa(key) => return key.public_key().modulus(),
            Self::Ed25519(key) => return key.verifying_key().to_bytes().to_vec(),
            Self::EcK256(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Self::EcP256(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
        };
        // Without the leading 0x04 of the uncompressed form.
        point.get(1..).unwrap_or_default().to_vec()
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
