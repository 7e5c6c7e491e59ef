//! Keys as others write them: PKCS#8 (RFC 5958) and SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).

use pkcs8::der::asn1::{AnyRef, BitString, OctetStringRef};
use pkcs8::der::{Any, Decode as _};
use pkcs8::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoOwned};
use pkcs8::{ObjectIdentifier, PrivateKeyInfoRef};
use sec1::EcPrivateKey;
use zeroize::Zeroizing;

use super::PrivateKey;
use super::rsa::RsaKey;
use crate::device::algorithm::Algorithm;
use crate::device::error::ErrorCode;

/// `id-ecPublicKey` (RFC 5480).
const ELLIPTIC_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// `rsaEncryption` (RFC 8017).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// `id-Ed25519` (RFC 8410).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// What stands before an Ed25519 seed in PKCS#8: it is an OCTET STRING of its own.
const SEED_HEADER: [u8; 2] = [0x04, 32];

impl PrivateKey {
    /// The key in PKCS#8, DER. `algorithm` is the object's. [`ErrorCode::InvalidData`] for an Ed25519 key that
    /// came without its seed.
    pub(crate) fn to_pkcs8(&self, algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
        let secret = self.export();
        let (id, inner) = match self {
            Self::Rsa(key) => (RSA, key.to_pkcs1()?),
            Self::Ed25519(_) if secret.len() == 32 => (
                ED25519,
                Zeroizing::new([&SEED_HEADER, secret.as_slice()].concat()),
            ),
            Self::Ed25519(_) => return Err(ErrorCode::InvalidData),
            Self::Ec(key) => {
                let point = key.public_point();
                let inner = EcPrivateKey {
                    private_key: &secret,
                    parameters: None,
                    public_key: Some(&point),
                };
                (ELLIPTIC_CURVE, Zeroizing::new(der(&inner)?))
            }
        };
        let curve = curve(algorithm);
        let info = PrivateKeyInfoRef::new(
            AlgorithmIdentifierRef {
                oid: id,
                parameters: parameters(id, curve.as_ref()),
            },
            OctetStringRef::new(&inner).map_err(|_| ErrorCode::CommandUnexecuted)?,
        );
        der(&info).map(Zeroizing::new)
    }

    /// Makes a key of this algorithm from PKCS#8, DER. [`ErrorCode::InvalidData`] for anything else.
    pub(crate) fn from_pkcs8(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, ErrorCode> {
        const INVALID: ErrorCode = ErrorCode::InvalidData;
        let info = PrivateKeyInfoRef::from_der(bytes).map_err(|_| INVALID)?;
        let inner = info.private_key.as_bytes();
        let key = match algorithm {
            Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096
                if info.algorithm.oid == RSA =>
            {
                RsaKey::from_pkcs1(algorithm, inner).map(Self::Rsa)
            }
            Algorithm::Ed25519 if info.algorithm.oid == ED25519 => {
                let seed = inner.strip_prefix(&SEED_HEADER).ok_or(INVALID)?;
                Self::import(algorithm, seed)
            }
            _ => {
                let named = info.algorithm.parameters_oid().ok();
                if info.algorithm.oid != ELLIPTIC_CURVE
                    || named.is_none()
                    || named != curve(algorithm)
                {
                    return Err(INVALID);
                }
                let key = EcPrivateKey::from_der(inner).map_err(|_| INVALID)?;
                Self::import(algorithm, key.private_key)
            }
        };
        key.map_err(|_| INVALID)
    }

    /// The public key of an RSA or EC key. [`ErrorCode::InvalidData`] for Ed25519.
    pub(crate) fn public_key_info(
        &self,
        algorithm: Algorithm,
    ) -> Result<SubjectPublicKeyInfoOwned, ErrorCode> {
        let (id, key) = match self {
            Self::Rsa(key) => (RSA, key.public_key().to_pkcs1()?),
            Self::Ec(key) => (ELLIPTIC_CURVE, key.public_point()),
            Self::Ed25519(_) => return Err(ErrorCode::InvalidData),
        };
        let failed = |_| ErrorCode::CommandUnexecuted;
        let curve = curve(algorithm);
        let parameters = parameters(id, curve.as_ref());
        Ok(SubjectPublicKeyInfoOwned {
            algorithm: pkcs8::spki::AlgorithmIdentifier {
                oid: id,
                parameters: parameters.map(Any::from),
            },
            subject_public_key: BitString::from_bytes(&key).map_err(failed)?,
        })
    }
}

fn parameters(id: ObjectIdentifier, curve: Option<&ObjectIdentifier>) -> Option<AnyRef<'_>> {
    if id == RSA {
        Some(AnyRef::NULL)
    } else {
        curve.map(AnyRef::from)
    }
}

/// The name of a curve (RFC 5480, SEC 2, RFC 5639).
fn curve(algorithm: Algorithm) -> Option<ObjectIdentifier> {
    let name = match algorithm {
        Algorithm::EcP224 => "1.3.132.0.33",
        Algorithm::EcP256 => "1.2.840.10045.3.1.7",
        Algorithm::EcP384 => "1.3.132.0.34",
        Algorithm::EcP521 => "1.3.132.0.35",
        Algorithm::EcK256 => "1.3.132.0.10",
        Algorithm::EcBp256 => "1.3.36.3.3.2.8.1.1.7",
        Algorithm::EcBp384 => "1.3.36.3.3.2.8.1.1.11",
        Algorithm::EcBp512 => "1.3.36.3.3.2.8.1.1.13",
        _ => return None,
    };
    ObjectIdentifier::new(name).ok()
}

fn der(value: &impl pkcs8::der::Encode) -> Result<Vec<u8>, ErrorCode> {
    value.to_der().map_err(|_| ErrorCode::CommandUnexecuted)
}
