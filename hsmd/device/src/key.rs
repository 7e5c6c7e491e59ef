//! Keys as the rest of hsmd sees them: which one is meant, its public half, and a signature.

use std::fmt;

use base64::Engine as _;
use k256::ecdsa::signature::hazmat::PrehashVerifier as _;
use sha2::{Digest as _, Sha256};

use crate::Error;

/// A signature scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// Ed25519, RFC 8032. CometBFT's default.
    Ed25519,
    /// ECDSA on secp256k1 over SHA-256 of the message, with s in the lower half of the order.
    Secp256k1,
    /// ECDSA on P-256 over SHA-256 of the message: a CA's key, never a consensus key.
    P256,
}

impl Algorithm {
    /// The name in configuration, metrics and logs: `ed25519`, `secp256k1` or `p256`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Secp256k1 => "secp256k1",
            Self::P256 => "p256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which private key of a device is meant. At least one of label and id must be given; where both are, both must
/// match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyLocator {
    /// The object's label: `CKA_LABEL`, or a YubiHSM label of up to 40 bytes.
    pub label: Option<String>,
    /// The object's id: `CKA_ID`, or the two bytes of a YubiHSM object id, big endian.
    pub id: Option<Vec<u8>>,
    /// What the key must be able to do. A key of another algorithm under the same label is not taken.
    pub algorithm: Algorithm,
}

impl fmt::Display for KeyLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} key", self.algorithm)?;
        if let Some(label) = &self.label {
            write!(f, " labelled {label:?}")?;
        }
        if let Some(id) = &self.id {
            write!(f, " with id {}", hex::encode(id))?;
        }
        Ok(())
    }
}

/// The public half of a key, in the encoding that CometBFT uses for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PublicKey {
    /// 32 bytes, RFC 8032 section 5.1.5.
    Ed25519([u8; 32]),
    /// 33 bytes, the compressed point of SEC 1 section 2.3.3.
    Secp256k1([u8; 33]),
    /// 33 bytes, the compressed point of SEC 1 section 2.3.3.
    P256([u8; 33]),
}

/// RFC 8410 section 4, up to the key: a SubjectPublicKeyInfo of id-Ed25519.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// RFC 5480 section 2, up to the point: a SubjectPublicKeyInfo of id-ecPublicKey on secp256k1, uncompressed.
const SECP256K1_SPKI: [u8; 23] = [
    0x30, 0x56, 0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x0a,
    3, 0x42, 0,
];

/// The same on secp256r1.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 3, 1, 7, 3, 0x42, 0,
];

impl PublicKey {
    /// Reads a key from its bytes: 32 for Ed25519; 33 (compressed) or 65 (uncompressed) for secp256k1 and P-256.
    ///
    /// # Errors
    /// [`Error::InvalidPublicKey`] for a wrong length or a point that is not on the curve.
    pub fn from_parts(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, Error> {
        let invalid = || Error::InvalidPublicKey {
            algorithm,
            bytes: hex::encode(bytes),
        };
        match algorithm {
            Algorithm::Ed25519 => {
                let bytes: [u8; 32] = bytes.try_into().map_err(|_| invalid())?;
                let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| invalid())?;
                if key.is_weak() {
                    Err(invalid())
                } else {
                    Ok(Self::Ed25519(bytes))
                }
            }
            Algorithm::Secp256k1 => {
                let key =
                    k256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).map_err(|_| invalid())?;
                let point = key.to_sec1_point(true);
                Ok(Self::Secp256k1(
                    point.as_bytes().try_into().map_err(|_| invalid())?,
                ))
            }
            Algorithm::P256 => {
                let key =
                    p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).map_err(|_| invalid())?;
                let point = key.to_sec1_point(true);
                Ok(Self::P256(
                    point.as_bytes().try_into().map_err(|_| invalid())?,
                ))
            }
        }
    }

    /// The scheme that this key belongs to.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::Ed25519,
            Self::Secp256k1(_) => Algorithm::Secp256k1,
            Self::P256(_) => Algorithm::P256,
        }
    }

    /// The key as CometBFT writes it: 32 bytes for Ed25519, 33 for secp256k1 and P-256.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(bytes) => bytes,
            Self::Secp256k1(bytes) | Self::P256(bytes) => bytes,
        }
    }

    /// The key as it verifies signatures.
    ///
    /// # Errors
    /// [`Error::InvalidPublicKey`] where the bytes are no point of the curve.
    pub fn verifying_key(&self) -> Result<VerifyingKey, Error> {
        let point = match self {
            Self::Ed25519(bytes) => ed25519_dalek::VerifyingKey::from_bytes(bytes)
                .map(Point::Ed25519)
                .map_err(|_| self.invalid())?,
            Self::Secp256k1(_) => Point::Secp256k1(self.secp256k1_point()?),
            Self::P256(_) => Point::P256(self.p256_point()?),
        };
        Ok(VerifyingKey { key: *self, point })
    }

    /// Checks one signature: see [`VerifyingKey::verify`].
    ///
    /// # Errors
    /// As [`Self::verifying_key`] and [`VerifyingKey::verify`].
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), Error> {
        self.verifying_key()?.verify(message, signature)
    }

    /// The key as a DER SubjectPublicKeyInfo: RFC 8410 for Ed25519, RFC 5480 with the uncompressed point for
    /// the others.
    ///
    /// # Errors
    /// [`Error::InvalidPublicKey`] where the bytes are no point of the curve.
    pub fn spki_der(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Ed25519(bytes) => Ok([&ED25519_SPKI[..], bytes].concat()),
            Self::Secp256k1(_) => {
                let point = self.secp256k1_point()?.to_sec1_point(false);
                Ok([&SECP256K1_SPKI[..], point.as_bytes()].concat())
            }
            Self::P256(_) => {
                let point = self.p256_point()?.to_sec1_point(false);
                Ok([&P256_SPKI[..], point.as_bytes()].concat())
            }
        }
    }

    /// [`Self::spki_der`] in PEM (RFC 7468), as OpenSSL reads it.
    ///
    /// # Errors
    /// As [`Self::spki_der`].
    pub fn spki_pem(&self) -> Result<String, Error> {
        const LINE: usize = 64;
        let body = base64::engine::general_purpose::STANDARD.encode(self.spki_der()?);
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        let mut rest = body.as_str();
        while let Some((line, after)) = rest.split_at_checked(LINE) {
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        if !rest.is_empty() {
            pem.push_str(rest);
            pem.push('\n');
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        Ok(pem)
    }

    fn secp256k1_point(&self) -> Result<k256::ecdsa::VerifyingKey, Error> {
        k256::ecdsa::VerifyingKey::from_sec1_bytes(self.as_bytes()).map_err(|_| self.invalid())
    }

    fn p256_point(&self) -> Result<p256::ecdsa::VerifyingKey, Error> {
        p256::ecdsa::VerifyingKey::from_sec1_bytes(self.as_bytes()).map_err(|_| self.invalid())
    }

    fn invalid(&self) -> Error {
        Error::InvalidPublicKey {
            algorithm: self.algorithm(),
            bytes: self.to_string(),
        }
    }
}

/// Lower-case hexadecimal of [`PublicKey::as_bytes`].
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

/// A public key whose point was computed once, to verify many signatures with.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    key: PublicKey,
    point: Point,
}

#[derive(Clone, Debug)]
enum Point {
    Ed25519(ed25519_dalek::VerifyingKey),
    Secp256k1(k256::ecdsa::VerifyingKey),
    P256(p256::ecdsa::VerifyingKey),
}

impl VerifyingKey {
    /// The key that this verifies for.
    pub fn public_key(&self) -> PublicKey {
        self.key
    }

    /// Checks a signature over `message` strictly: no key of small order, and no malleable s, save with P-256, where
    /// X.509 knows no such rule.
    ///
    /// # Errors
    /// [`Error::BadSignature`] where it does not verify.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), Error> {
        let bad = || Error::BadSignature { key: self.key };
        match &self.point {
            Point::Ed25519(key) => {
                let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
                key.verify_strict(message, &signature).map_err(|_| bad())
            }
            Point::Secp256k1(key) => {
                let ecdsa = k256::ecdsa::Signature::from_slice(&signature.0).map_err(|_| bad())?;
                if ecdsa.normalize_s() != ecdsa {
                    return Err(bad());
                }
                key.verify_prehash(&Sha256::digest(message), &ecdsa)
                    .map_err(|_| bad())
            }
            Point::P256(key) => {
                let ecdsa = p256::ecdsa::Signature::from_slice(&signature.0).map_err(|_| bad())?;
                key.verify_prehash(&Sha256::digest(message), &ecdsa)
                    .map_err(|_| bad())
            }
        }
    }
}

/// A signature as CometBFT carries it: R and S for Ed25519 (RFC 8032), r and s, big endian, for the others; with
/// secp256k1 s is in the lower half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl Signature {
    /// Takes what a device returned for an Ed25519 key.
    pub(crate) fn from_ed25519(bytes: &[u8]) -> Result<Self, Error> {
        let length = bytes.len();
        let malformed = || Error::Fault(format!("an Ed25519 signature of {length} bytes, not 64"));
        Ok(Self(bytes.try_into().map_err(|_| malformed())?))
    }

    /// Takes r and s as PKCS#11 returns them and brings s into the lower half, which Cosmos chains demand.
    pub(crate) fn from_secp256k1(bytes: &[u8]) -> Result<Self, Error> {
        k256::ecdsa::Signature::from_slice(bytes)
            .map(Self::low_s)
            .map_err(|_| malformed_ecdsa(bytes))
    }

    /// Takes the DER sequence of r and s that a YubiHSM returns and brings s into the lower half.
    pub(crate) fn from_secp256k1_der(der: &[u8]) -> Result<Self, Error> {
        k256::ecdsa::Signature::from_der(der)
            .map(Self::low_s)
            .map_err(|_| malformed_ecdsa(der))
    }

    /// Takes r and s as PKCS#11 returns them.
    pub(crate) fn from_p256(bytes: &[u8]) -> Result<Self, Error> {
        p256::ecdsa::Signature::from_slice(bytes)
            .map(|signature| Self(signature.to_bytes().into()))
            .map_err(|_| malformed_ecdsa(bytes))
    }

    /// Takes the DER sequence of r and s (RFC 3279 section 2.2.3), which a YubiHSM and X.509 have.
    ///
    /// # Errors
    /// [`Error::Fault`] where it is none.
    pub fn from_p256_der(der: &[u8]) -> Result<Self, Error> {
        p256::ecdsa::Signature::from_der(der)
            .map(|signature| Self(signature.to_bytes().into()))
            .map_err(|_| malformed_ecdsa(der))
    }

    /// The DER sequence of r and s of a P-256 signature.
    ///
    /// # Errors
    /// [`Error::Fault`] where it is no such signature.
    pub fn to_p256_der(&self) -> Result<Vec<u8>, Error> {
        p256::ecdsa::Signature::from_slice(&self.0)
            .map(|signature| signature.to_der().as_bytes().to_vec())
            .map_err(|_| malformed_ecdsa(&self.0))
    }

    fn low_s(signature: k256::ecdsa::Signature) -> Self {
        Self(signature.normalize_s().to_bytes().into())
    }
}

fn malformed_ecdsa(bytes: &[u8]) -> Error {
    Error::Fault(format!(
        "no ECDSA signature: {} bytes that are not r and s",
        bytes.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::Signer as _;

    // RFC 8032 section 7.1, test 2.
    const ED25519_SECRET: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const ED25519_PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    // SEC 2: the generator of secp256k1, which is the public key of the secret 1.
    const SECP256K1_G: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    fn ed25519() -> (ed25519_dalek::SigningKey, PublicKey) {
        let secret: [u8; 32] = hex::decode(ED25519_SECRET).unwrap().try_into().unwrap();
        let public = hex::decode(ED25519_PUBLIC).unwrap();
        let key = PublicKey::from_parts(Algorithm::Ed25519, &public).unwrap();
        (ed25519_dalek::SigningKey::from_bytes(&secret), key)
    }

    #[test]
    fn an_ed25519_signature_verifies_over_its_message_only() {
        let (secret, public) = ed25519();
        let signature = Signature(secret.sign(b"r").to_bytes());
        public.verify(b"r", &signature).unwrap();
        assert!(matches!(
            public.verify(b"s", &signature),
            Err(Error::BadSignature { .. })
        ));
        let mut broken = signature;
        broken.0[0] ^= 1;
        assert!(matches!(
            public.verify(b"r", &broken),
            Err(Error::BadSignature { .. })
        ));
    }

    #[test]
    fn a_p256_signature_verifies_and_survives_its_der_form() {
        use p256::ecdsa::signature::Signer as _;
        let secret = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let point = secret.verifying_key().to_sec1_point(false);
        let public = PublicKey::from_parts(Algorithm::P256, point.as_bytes()).unwrap();
        let made: p256::ecdsa::Signature = secret.sign(b"message");
        let signature = Signature::from_p256(&made.to_bytes()).unwrap();
        let der = signature.to_p256_der().unwrap();
        assert_eq!(Signature::from_p256_der(&der).unwrap(), signature);
        public.verify(b"message", &signature).unwrap();
        assert!(public.verify(b"another", &signature).is_err());
        let spki = public.spki_der().unwrap();
        assert_eq!(&spki[P256_SPKI.len()..], point.as_bytes());
        assert!(Signature::from_p256(&[0; 64]).is_err());
        assert!(Signature::from_p256_der(&der[1..]).is_err());
    }

    #[test]
    fn a_high_s_is_refused_and_normalised_to_the_low_one() {
        use k256::ecdsa::signature::Signer as _;
        let secret = k256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let point = secret.verifying_key().to_sec1_point(true);
        let public = PublicKey::from_parts(Algorithm::Secp256k1, point.as_bytes()).unwrap();
        let low: k256::ecdsa::Signature = secret.sign(b"message");
        let high = k256::ecdsa::Signature::from_scalars(low.r(), -low.s()).unwrap();
        assert_ne!(low, high);

        let high_bytes: [u8; 64] = high.to_bytes().into();
        assert!(public.verify(b"message", &Signature(high_bytes)).is_err());
        let normalised = Signature::from_secp256k1(&high_bytes).unwrap();
        public.verify(b"message", &normalised).unwrap();
        assert_eq!(
            Signature::from_secp256k1_der(high.to_der().as_bytes()).unwrap(),
            normalised
        );
    }

    #[test]
    fn what_is_no_point_of_the_curve_is_no_public_key() {
        let g = hex::decode(SECP256K1_G).unwrap();
        let cases: &[(Algorithm, Vec<u8>)] = &[
            (Algorithm::Ed25519, vec![]),
            (Algorithm::Ed25519, vec![0; 31]),
            // The neutral element: every message would have a valid signature.
            (Algorithm::Ed25519, [vec![1], vec![0; 31]].concat()),
            (Algorithm::Ed25519, [vec![2], vec![0; 31]].concat()),
            (Algorithm::Secp256k1, vec![0]),
            (Algorithm::Secp256k1, vec![2; 32]),
            (Algorithm::Secp256k1, vec![0xff; 33]),
            (Algorithm::Secp256k1, [g.clone(), vec![0]].concat()),
        ];
        for (algorithm, bytes) in cases {
            let refused = PublicKey::from_parts(*algorithm, bytes);
            assert!(
                matches!(refused, Err(Error::InvalidPublicKey { .. })),
                "{algorithm} {bytes:?}"
            );
        }
        let compressed = PublicKey::from_parts(Algorithm::Secp256k1, &g).unwrap();
        let spki = compressed.spki_der().unwrap();
        let uncompressed = &spki[SECP256K1_SPKI.len()..];
        assert_eq!(
            PublicKey::from_parts(Algorithm::Secp256k1, uncompressed).unwrap(),
            compressed
        );
        assert_eq!(compressed.to_string(), SECP256K1_G);
    }

    #[test]
    fn a_public_key_that_was_not_checked_may_be_no_point_and_then_verifies_nothing() {
        for key in [
            PublicKey::Ed25519([vec![2], vec![0; 31]].concat().try_into().unwrap()),
            PublicKey::Secp256k1([0xff; 33]),
        ] {
            assert!(matches!(
                key.verifying_key(),
                Err(Error::InvalidPublicKey { .. })
            ));
        }
        // The neutral element is a point, under which anything would verify.
        let neutral = PublicKey::Ed25519([vec![1], vec![0; 31]].concat().try_into().unwrap());
        let neutral = neutral.verifying_key().unwrap();
        let signature = Signature([vec![1], vec![0; 63]].concat().try_into().unwrap());
        assert!(neutral.verify(b"anything", &signature).is_err());
    }

    #[test]
    fn spki_is_what_openssl_writes() {
        // openssl pkey -pubin -inform DER -text accepts both; the Ed25519 form is RFC 8410's with this key.
        let (_, public) = ed25519();
        let der = hex::encode(public.spki_der().unwrap());
        assert_eq!(der, format!("302a300506032b6570032100{ED25519_PUBLIC}"));
        let g = PublicKey::from_parts(Algorithm::Secp256k1, &hex::decode(SECP256K1_G).unwrap());
        let pem = g.unwrap().spki_pem().unwrap();
        assert_eq!(
            pem,
            "-----BEGIN PUBLIC KEY-----\n\
             MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEeb5mfvncu6xVoGKVzocLBwKb/NstzijZ\n\
             WfKBWxb4F5hIOtp3JqPEZV2k+/wOEQio/Re0SKaFVBmcR9CP+xDUuA==\n\
             -----END PUBLIC KEY-----\n"
        );
    }
}
