//! Keys on elliptic curves in Weierstrass form: ECDSA and ECDH, the same for every curve.

mod brainpool512;

use std::ops::Add;

use bp256::BrainpoolP256r1;
use bp384::BrainpoolP384r1;
use ecdsa::elliptic_curve::array::{ArraySize, typenum::Unsigned as _};
use ecdsa::elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use ecdsa::elliptic_curve::{
    AffinePoint, CurveArithmetic, FieldBytesSize, Generate as _, NonZeroScalar, PublicKey,
    SecretKey,
};
use ecdsa::{EcdsaCurve, Signature, der, hazmat};
use getrandom::SysRng;
use k256::Secp256k1;
use p224::NistP224;
use p256::NistP256;
use p384::NistP384;
use p521::NistP521;
use zeroize::Zeroizing;

use crate::device::algorithm::Algorithm;
use crate::device::error::ErrorCode;
use crate::device::hash::Hash;
use crate::device::random;
use brainpool512::BrainpoolP512r1;

/// A private key on some curve.
pub(crate) trait EcKey: Send {
    /// Length of a coordinate, and of the private scalar, in bytes.
    fn coordinate_length(&self) -> usize;

    /// The private scalar, big endian: what [`import`] makes this key from.
    fn export(&self) -> Zeroizing<Vec<u8>>;

    /// The public point in uncompressed form: 0x04, x, y.
    fn public_point(&self) -> Vec<u8>;

    /// ECDSA over a digest of SHA-1, SHA-256, SHA-384 or SHA-512, or over one that the host fitted to the
    /// length of the curve; with a random nonce; DER. [`ErrorCode::WrongLength`] for any other length.
    ///
    /// The larger of the two possible values of `s` is as likely as the smaller, as on the device: callers
    /// that need low-S must normalise it.
    fn sign(&self, digest: &[u8]) -> Result<Vec<u8>, ErrorCode>;

    /// ECDH: the x coordinate of the point shared with `peer`, which is in uncompressed form.
    /// [`ErrorCode::InvalidData`] if that is no point of the curve.
    fn agree(&self, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, ErrorCode>;
}

/// Makes a key from its scalar, big endian and as long as a coordinate.
///
/// # Errors
/// [`ErrorCode::WrongLength`] for another length, [`ErrorCode::InvalidData`] for zero, for a number that is not
/// below the order of the curve, or an algorithm that is not a curve of this kind.
pub(crate) fn import(algorithm: Algorithm, scalar: &[u8]) -> Result<Box<dyn EcKey>, ErrorCode> {
    match algorithm {
        Algorithm::EcP224 => key::<NistP224>(scalar),
        Algorithm::EcP256 => key::<NistP256>(scalar),
        Algorithm::EcP384 => key::<NistP384>(scalar),
        Algorithm::EcP521 => key::<NistP521>(scalar),
        Algorithm::EcK256 => key::<Secp256k1>(scalar),
        Algorithm::EcBp256 => key::<BrainpoolP256r1>(scalar),
        Algorithm::EcBp384 => key::<BrainpoolP384r1>(scalar),
        Algorithm::EcBp512 => key::<BrainpoolP512r1>(scalar),
        _ => Err(ErrorCode::InvalidData),
    }
}

/// Makes a new key. [`ErrorCode::InvalidData`] for an algorithm that is not a curve of this kind.
pub(crate) fn generate(algorithm: Algorithm) -> Result<Box<dyn EcKey>, ErrorCode> {
    match algorithm {
        Algorithm::EcP224 => new_key::<NistP224>(),
        Algorithm::EcP256 => new_key::<NistP256>(),
        Algorithm::EcP384 => new_key::<NistP384>(),
        Algorithm::EcP521 => new_key::<NistP521>(),
        Algorithm::EcK256 => new_key::<Secp256k1>(),
        Algorithm::EcBp256 => new_key::<BrainpoolP256r1>(),
        Algorithm::EcBp384 => new_key::<BrainpoolP384r1>(),
        Algorithm::EcBp512 => new_key::<BrainpoolP512r1>(),
        _ => Err(ErrorCode::InvalidData),
    }
}

fn key<C>(scalar: &[u8]) -> Result<Box<dyn EcKey>, ErrorCode>
where
    C: CurveArithmetic,
    SecretKey<C>: EcKey,
{
    let scalar = scalar.try_into().map_err(|_| ErrorCode::WrongLength)?;
    let key = SecretKey::<C>::from_bytes(scalar).map_err(|_| ErrorCode::InvalidData)?;
    Ok(Box::new(key))
}

fn new_key<C>() -> Result<Box<dyn EcKey>, ErrorCode>
where
    C: CurveArithmetic,
    SecretKey<C>: EcKey,
{
    let key = SecretKey::<C>::try_generate_from_rng(&mut SysRng);
    Ok(Box::new(key.map_err(|_| ErrorCode::CommandUnexecuted)?))
}

impl<C> EcKey for SecretKey<C>
where
    C: EcdsaCurve + CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
    der::MaxSize<C>: ArraySize,
    <FieldBytesSize<C> as Add>::Output: Add<der::MaxOverhead> + ArraySize,
{
    fn coordinate_length(&self) -> usize {
        FieldBytesSize::<C>::USIZE
    }

    fn export(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.to_bytes().to_vec())
    }

    fn public_point(&self) -> Vec<u8> {
        self.public_key().to_sec1_point(false).as_bytes().to_vec()
    }

    fn sign(&self, digest: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let failed = |_| ErrorCode::CommandUnexecuted;
        if digest.len() != FieldBytesSize::<C>::USIZE {
            Hash::of_length(digest.len())?;
        }
        // P-521 has 7 bits less than its 66 bytes, which would be cut off at the end of a digest that was
        // padded to 66 bytes.
        let digest = if digest.len() > 64 {
            digest.strip_prefix(&[0, 0]).unwrap_or(digest)
        } else {
            digest
        };
        let nonce = NonZeroScalar::<C>::try_generate_from_rng(&mut SysRng)
            .map_err(|_| ErrorCode::CommandUnexecuted)?;
        let (signature, _) = hazmat::sign_prehashed::<C>(&self.to_nonzero_scalar(), &nonce, digest)
            .map_err(failed)?;
        let [coin] = random::<1>()?;
        let signature = if C::NORMALIZE_S && coin & 1 == 1 {
            let (r, s) = signature.split_scalars();
            Signature::<C>::from_scalars(*r, -*s).map_err(failed)?
        } else {
            signature
        };
        Ok(signature.to_der().as_bytes().to_vec())
    }

    fn agree(&self, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
        if peer.len() != 1 + 2 * FieldBytesSize::<C>::USIZE {
            return Err(ErrorCode::WrongLength);
        }
        let peer = PublicKey::<C>::from_sec1_bytes(peer).map_err(|_| ErrorCode::InvalidData)?;
        let shared = self.diffie_hellman(&peer);
        Ok(Zeroizing::new(shared.raw_secret_bytes().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURVES: [(Algorithm, usize); 8] = [
        (Algorithm::EcP224, 28),
        (Algorithm::EcP256, 32),
        (Algorithm::EcP384, 48),
        (Algorithm::EcP521, 66),
        (Algorithm::EcK256, 32),
        (Algorithm::EcBp256, 32),
        (Algorithm::EcBp384, 48),
        (Algorithm::EcBp512, 64),
    ];

    #[test]
    fn a_key_comes_back_as_it_was_exported() {
        for (algorithm, length) in CURVES {
            let key = generate(algorithm).unwrap();
            assert_eq!(key.coordinate_length(), length, "{algorithm:?}");
            assert_eq!(key.public_point().len(), 1 + 2 * length);
            let again = import(algorithm, &key.export()).unwrap();
            assert_eq!(again.public_point(), key.public_point(), "{algorithm:?}");
            for (scalar, code) in [
                (vec![0; length], ErrorCode::InvalidData),
                (vec![0xff; length], ErrorCode::InvalidData),
                (vec![1; length - 1], ErrorCode::WrongLength),
                (vec![1; length + 1], ErrorCode::WrongLength),
                (vec![], ErrorCode::WrongLength),
            ] {
                assert_eq!(
                    import(algorithm, &scalar).err(),
                    Some(code),
                    "{algorithm:?}"
                );
            }
        }
    }

    #[test]
    fn two_keys_agree_and_a_point_beside_the_curve_is_refused() {
        for (algorithm, length) in CURVES {
            let (ours, theirs) = (generate(algorithm).unwrap(), generate(algorithm).unwrap());
            let shared = ours.agree(&theirs.public_point()).unwrap();
            assert_eq!(shared.len(), length);
            assert_eq!(shared, theirs.agree(&ours.public_point()).unwrap());
            let beside = [vec![4], vec![0; 2 * length]].concat();
            let outside = [vec![4], vec![0xff; 2 * length]].concat();
            let mut other_form = theirs.public_point();
            other_form[0] = 6;
            for (peer, code) in [
                (beside, ErrorCode::InvalidData),
                (outside, ErrorCode::InvalidData),
                (other_form, ErrorCode::InvalidData),
                (
                    theirs.public_point()[..=length].to_vec(),
                    ErrorCode::WrongLength,
                ),
                (vec![0], ErrorCode::WrongLength),
            ] {
                assert_eq!(ours.agree(&peer).err(), Some(code), "{algorithm:?}");
            }
        }
    }

    /// ECDSA as SEC 1, 4.1.4 has it, for whichever curve.
    fn verify<C>(point: &[u8], digest: &[u8], signature: &[u8])
    where
        C: EcdsaCurve + CurveArithmetic,
        AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
        FieldBytesSize<C>: ModulusSize,
        der::MaxSize<C>: ArraySize,
        <FieldBytesSize<C> as Add>::Output: Add<der::MaxOverhead> + ArraySize,
    {
        let public = PublicKey::<C>::from_sec1_bytes(point).unwrap();
        // Leaves the form with low s, which the crate insists on for secp256k1.
        let signature = Signature::<C>::from_der(signature).unwrap().normalize_s();
        hazmat::verify_prehashed::<C>(&public.to_projective(), digest, &signature).unwrap();
    }

    #[test]
    fn signatures_over_digests_of_every_hash_verify() {
        for (algorithm, length) in CURVES {
            let key = generate(algorithm).unwrap();
            let check = match algorithm {
                Algorithm::EcP224 => verify::<NistP224>,
                Algorithm::EcP256 => verify::<NistP256>,
                Algorithm::EcP384 => verify::<NistP384>,
                Algorithm::EcP521 => verify::<NistP521>,
                Algorithm::EcK256 => verify::<Secp256k1>,
                Algorithm::EcBp256 => verify::<BrainpoolP256r1>,
                Algorithm::EcBp384 => verify::<BrainpoolP384r1>,
                _ => verify::<BrainpoolP512r1>,
            };
            for hash in Hash::LIST {
                let digest = hash.digest(&[b"message"]);
                check(&key.public_point(), &digest, &key.sign(&digest).unwrap());
                let mut fitted = digest.clone();
                fitted.truncate(length);
                fitted.splice(0..0, vec![0; length - fitted.len()]);
                check(&key.public_point(), &digest, &key.sign(&fitted).unwrap());
            }
            for wrong in [0, 1, 19, 33, 65, 67, 1000] {
                let refused = key.sign(&vec![1; wrong]);
                assert_eq!(
                    refused,
                    Err(ErrorCode::WrongLength),
                    "{algorithm:?}, {wrong}"
                );
            }
        }
    }

    #[test]
    fn high_and_low_s_are_equally_likely() {
        let key = generate(Algorithm::EcK256).unwrap();
        let is_high = |der: Vec<u8>| {
            let signature = Signature::<Secp256k1>::from_der(&der).unwrap();
            signature.normalize_s() != signature
        };
        let high = (0..40)
            .filter(|_| is_high(key.sign(&[3; 32]).unwrap()))
            .count();
        // 40 throws of a coin that all fall on one side: once in 2^39 runs.
        assert!((1..40).contains(&high), "{high} of 40 are high");
    }

    /// Point 7 of brainpoolP512r1, from OpenSSL.
    #[test]
    fn brainpool_512_is_the_curve_that_openssl_has() {
        let mut scalar = [0; 64];
        scalar[63] = 7;
        let key = import(Algorithm::EcBp512, &scalar).unwrap();
        let x = "74a4bbc7d1a22ea7783b62c3ef7f473c3bcb810dfd2826b540ce49b6a78fc1958ee59581616f83f9c1df5ccd7685cf85b55b556c926f2a3dbecedb316e1d30fa";
        assert_eq!(hex::encode(&key.public_point()[1..65]), x);
    }
}
