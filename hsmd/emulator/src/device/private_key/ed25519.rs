//! Ed25519 keys (RFC 8032), with their seed or without it.

use curve25519_dalek::Scalar;
use curve25519_dalek::scalar::clamp_integer;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

use super::wrapped::Ed25519Form;
use crate::device::error::ErrorCode;

const PART: usize = 32;

/// A private key.
pub(crate) struct Ed25519Key {
    secret: ExpandedSecretKey,
    public: VerifyingKey,
    /// The scalar as it came or was made, big endian; signing takes it modulo the order of the group.
    scalar: Zeroizing<[u8; PART]>,
    /// A key that came under wrap may lack it.
    seed: Option<Zeroizing<[u8; PART]>>,
}

impl Ed25519Key {
    /// Makes a key from its seed; [`ErrorCode::WrongLength`] if that has not 32 bytes.
    pub(crate) fn import(seed: &[u8]) -> Result<Self, ErrorCode> {
        let seed: [u8; PART] = seed.try_into().map_err(|_| ErrorCode::WrongLength)?;
        let seed = Zeroizing::new(seed);
        let digest = Zeroizing::new(<[u8; 2 * PART]>::from(Sha512::digest(*seed)));
        let (scalar, hash_prefix) = halves(&digest);
        let mut scalar = Zeroizing::new(clamp_integer(*scalar));
        scalar.reverse();
        let mut key = Self::expanded(scalar, hash_prefix);
        key.seed = Some(seed);
        Ok(key)
    }

    fn expanded(scalar: Zeroizing<[u8; PART]>, hash_prefix: Zeroizing<[u8; PART]>) -> Self {
        let mut little_endian = scalar.clone();
        little_endian.reverse();
        let secret = ExpandedSecretKey {
            scalar: Scalar::from_bytes_mod_order(*little_endian),
            hash_prefix: *hash_prefix,
        };
        Self {
            public: VerifyingKey::from(&secret),
            secret,
            scalar,
            seed: None,
        }
    }

    /// Length in bytes as the object's information shows it.
    pub(crate) fn length(&self) -> usize {
        if self.seed.is_some() {
            4 * PART
        } else {
            3 * PART
        }
    }

    /// The seed, or the expanded form of a key that lacks it: what [`Ed25519Key::import`] or
    /// [`Ed25519Key::from_wrapped`] makes this key from.
    pub(crate) fn export(&self) -> Zeroizing<Vec<u8>> {
        match &self.seed {
            Some(seed) => Zeroizing::new(seed.to_vec()),
            None => self.to_expanded(),
        }
    }

    pub(crate) fn public_key(&self) -> Vec<u8> {
        self.public.to_bytes().to_vec()
    }

    /// Signs the message itself; 64 bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        raw_sign::<Sha512>(&self.secret, message, &self.public)
            .to_bytes()
            .to_vec()
    }

    /// See [`super::PrivateKey::to_wrapped`].
    pub(crate) fn to_wrapped(&self, form: Ed25519Form) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
        let expanded = self.to_expanded();
        match (form, &self.seed) {
            (Ed25519Form::Expanded, _) => Ok(expanded),
            (Ed25519Form::Seed, Some(seed)) => Ok(Zeroizing::new([&seed[..], &expanded].concat())),
            (Ed25519Form::Seed, None) => Err(ErrorCode::InvalidData),
        }
    }

    /// See [`super::PrivateKey::from_wrapped`]. With a seed, the parts that follow from it are not looked at
    /// but for the public key.
    pub(crate) fn from_wrapped(bytes: &[u8]) -> Result<Self, ErrorCode> {
        let (parts, []) = bytes.as_chunks::<PART>() else {
            return Err(ErrorCode::WrongLength);
        };
        let (key, public) = match parts {
            [scalar, hash_prefix, public] => {
                let [scalar, hash_prefix] = [scalar, hash_prefix].map(|part| Zeroizing::new(*part));
                (Self::expanded(scalar, hash_prefix), public)
            }
            [seed, _, _, public] => (Self::import(seed)?, public),
            _ => return Err(ErrorCode::WrongLength),
        };
        if key.public.as_bytes() == public {
            Ok(key)
        } else {
            Err(ErrorCode::InvalidData)
        }
    }

    fn to_expanded(&self) -> Zeroizing<Vec<u8>> {
        let parts = [
            &self.scalar[..],
            &self.secret.hash_prefix,
            self.public.as_bytes(),
        ];
        Zeroizing::new(parts.concat())
    }
}

fn halves(digest: &[u8; 2 * PART]) -> (Zeroizing<[u8; PART]>, Zeroizing<[u8; PART]>) {
    let mut halves = (Zeroizing::new([0; PART]), Zeroizing::new([0; PART]));
    let (first, second) = digest.split_at(PART);
    halves.0.copy_from_slice(first);
    halves.1.copy_from_slice(second);
    halves
}
