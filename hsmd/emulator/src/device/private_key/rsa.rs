//! RSA keys of 2048, 3072 and 4096 bits with the public exponent 65537.

mod public;

use getrandom::SysRng;
use rsa::pkcs1::EncodeRsaPrivateKey as _;
use rsa::rand_core::UnwrapErr;
use rsa::traits::{PrivateKeyParts as _, PublicKeyParts as _};
use rsa::{BoxedUint, Pkcs1v15Sign, RsaPrivateKey, hazmat};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use super::padding;
use crate::device::algorithm::Algorithm;
use crate::device::error::ErrorCode;
use crate::device::hash::Hash;

pub(crate) use public::RsaPublic;

const PUBLIC_EXPONENT: u32 = 65_537;

/// A private key.
pub(crate) struct RsaKey(RsaPrivateKey);

impl RsaKey {
    /// Makes a key from its two primes, big endian, each half as long as the modulus.
    ///
    /// # Errors
    /// [`ErrorCode::WrongLength`] for another length, [`ErrorCode::InvalidData`] for numbers that are not the
    /// primes of a key of this length with the exponent 65537, or an algorithm that is not RSA.
    pub(crate) fn import(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, ErrorCode> {
        let length = modulus_length(algorithm)?;
        if bytes.len() != length {
            return Err(ErrorCode::WrongLength);
        }
        let (p, q) = bytes.split_at(length / 2);
        // The crate panics on even factors, and the modulus must be of full length.
        let fits = |prime: &[u8]| matches!((prime.first(), prime.last()), (Some(0x80..), Some(last)) if last & 1 == 1);
        if !fits(p) || !fits(q) {
            return Err(ErrorCode::InvalidData);
        }
        let invalid = |_| ErrorCode::InvalidData;
        let key = RsaPrivateKey::from_p_q(
            BoxedUint::from_be_slice_vartime(p),
            BoxedUint::from_be_slice_vartime(q),
            PUBLIC_EXPONENT.into(),
        )
        .map_err(invalid)?;
        if key.n().bits() as usize != 8 * length {
            return Err(ErrorCode::InvalidData);
        }
        let key = Self(key);
        // Fails for factors that are not prime: with them no private operation undoes a public one.
        key.private_operation(&[&vec![0; length / 2][..], &vec![2; length / 2]].concat())?;
        Ok(key)
    }

    /// Makes a new key. [`ErrorCode::InvalidData`] for an algorithm that is not RSA.
    pub(crate) fn generate(algorithm: Algorithm) -> Result<Self, ErrorCode> {
        let bits = 8 * modulus_length(algorithm)?;
        RsaPrivateKey::new(&mut UnwrapErr(SysRng), bits)
            .map(Self)
            .map_err(|_| ErrorCode::CommandUnexecuted)
    }

    /// What [`RsaKey::import`] makes this key from.
    pub(crate) fn export(&self) -> Zeroizing<Vec<u8>> {
        let half = self.modulus_length() / 2;
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * half));
        for prime in self.0.primes() {
            let prime = Zeroizing::new(prime.to_be_bytes());
            bytes.extend_from_slice(prime.get(prime.len() - half..).unwrap_or_default());
        }
        bytes
    }

    /// The primes, the exponents and the coefficient of RFC 8017, 3.2, each half as long as the modulus, and
    /// the modulus: what stands in a wrapped object.
    pub(crate) fn to_wrapped(&self) -> Zeroizing<Vec<u8>> {
        let half = self.modulus_length() / 2;
        let mut bytes = self.export();
        let coefficient = self.0.qinv().map(|form| form.retrieve());
        for number in [self.0.dp(), self.0.dq(), coefficient.as_ref()] {
            let number = number.map(|number| Zeroizing::new(number.to_be_bytes()));
            let number = number.as_deref().map_or(&[][..], |number| number);
            // The crate keeps leading zeros of its own liking.
            let significant = number.iter().skip_while(|byte| **byte == 0).count();
            bytes.extend(std::iter::repeat_n(0, half.saturating_sub(significant)));
            bytes.extend(number.iter().skip_while(|byte| **byte == 0));
        }
        bytes.extend(self.public_key().modulus());
        bytes
    }

    /// Makes a key from what [`RsaKey::to_wrapped`] gives.
    ///
    /// # Errors
    /// As [`RsaKey::import`], and [`ErrorCode::InvalidData`] if the numbers do not belong together.
    pub(crate) fn from_wrapped(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, ErrorCode> {
        let length = modulus_length(algorithm)?;
        if bytes.len() != length / 2 * 7 {
            return Err(ErrorCode::WrongLength);
        }
        let key = Self::import(algorithm, bytes.get(..length).unwrap_or_default())?;
        if key.to_wrapped().as_slice() == bytes {
            Ok(key)
        } else {
            Err(ErrorCode::InvalidData)
        }
    }

    /// The key in PKCS#1, DER (RFC 8017, A.1.2).
    pub(crate) fn to_pkcs1(&self) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
        self.0
            .to_pkcs1_der()
            .map(|document| document.to_bytes())
            .map_err(|_| ErrorCode::CommandUnexecuted)
    }

    /// Makes a key from PKCS#1, DER. Only the primes and the modulus are looked at.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidData`] for anything that is not a key of this length.
    pub(crate) fn from_pkcs1(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, ErrorCode> {
        const INVALID: ErrorCode = ErrorCode::InvalidData;
        let parsed = rsa::pkcs1::RsaPrivateKeyRef::try_from(bytes).map_err(|_| INVALID)?;
        let half = modulus_length(algorithm)? / 2;
        let mut primes = Zeroizing::new(Vec::with_capacity(2 * half));
        for prime in [parsed.prime1.as_bytes(), parsed.prime2.as_bytes()] {
            let zeros = half.checked_sub(prime.len()).ok_or(INVALID)?;
            primes.extend(std::iter::repeat_n(0, zeros));
            primes.extend_from_slice(prime);
        }
        let key = Self::import(algorithm, &primes)?;
        if key.public_key().modulus() == parsed.modulus.as_bytes() {
            Ok(key)
        } else {
            Err(INVALID)
        }
    }

    /// The public half.
    pub(crate) fn public_key(&self) -> RsaPublic {
        RsaPublic(self.0.to_public_key())
    }

    /// Length of the modulus, and with it of signatures and ciphertexts, in bytes.
    pub(crate) fn modulus_length(&self) -> usize {
        self.0.size()
    }

    /// RSASSA-PKCS1-v1_5 over a digest, whose length tells the hash.
    pub(crate) fn sign_pkcs1(&self, digest: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        self.0
            .sign(pkcs1_scheme(Hash::of_length(digest.len())?), digest)
            .map_err(|_| ErrorCode::CommandUnexecuted)
    }

    /// RSASSA-PSS over a digest, whose length tells the hash; that of MGF1 and the length of the salt are
    /// free. [`ErrorCode::InvalidData`] for a salt that does not fit.
    pub(crate) fn sign_pss(
        &self,
        digest: &[u8],
        mgf1: Hash,
        salt_length: usize,
    ) -> Result<Vec<u8>, ErrorCode> {
        let encoded = padding::pss_encode(digest, mgf1, salt_length, self.modulus_length())?;
        self.private_operation(&encoded).map(|bytes| bytes.to_vec())
    }

    /// RSAES-PKCS1-v1_5. [`ErrorCode::InvalidData`] if the padding is wrong.
    pub(crate) fn decrypt_pkcs1(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
        padding::pkcs1_decode(&self.private_operation(ciphertext)?)
    }

    /// RSAES-OAEP. The length of `label_digest` tells the hash of the label; that of MGF1 is free.
    /// [`ErrorCode::InvalidData`] if the padding or the label is wrong.
    pub(crate) fn oaep_decrypt(
        &self,
        mgf1: Hash,
        label_digest: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
        padding::oaep_decode(&self.private_operation(ciphertext)?, label_digest, mgf1)
    }

    /// RSA's bare private operation: as many bytes as the modulus has in and out.
    fn private_operation(&self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
        if bytes.len() != self.modulus_length() {
            return Err(ErrorCode::WrongLength);
        }
        let number = BoxedUint::from_be_slice_vartime(bytes);
        hazmat::rsa_decrypt_and_check(&self.0, None::<&mut SysRng>, &number)
            .map(|number| Zeroizing::new(number.to_be_bytes().to_vec()))
            .map_err(|_| ErrorCode::InvalidData)
    }
}

/// The digest in what RSASSA-PKCS1-v1_5 is to sign: a bare digest, or a DigestInfo (RFC 8017, 9.2). Else
/// [`ErrorCode::WrongLength`].
pub(crate) fn pkcs1_digest(data: &[u8]) -> Result<&[u8], ErrorCode> {
    Hash::LIST
        .into_iter()
        .find_map(|hash| {
            let digest = data
                .strip_prefix(&*pkcs1_scheme(hash).prefix)
                .unwrap_or(data);
            (digest.len() == hash.length()).then_some(digest)
        })
        .ok_or(ErrorCode::WrongLength)
}

fn pkcs1_scheme(hash: Hash) -> Pkcs1v15Sign {
    match hash {
        Hash::Sha1 => Pkcs1v15Sign::new::<Sha1>(),
        Hash::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
        Hash::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
        Hash::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
    }
}

/// Length of the modulus in bytes.
fn modulus_length(algorithm: Algorithm) -> Result<usize, ErrorCode> {
    match algorithm {
        Algorithm::Rsa2048 => Ok(256),
        Algorithm::Rsa3072 => Ok(384),
        Algorithm::Rsa4096 => Ok(512),
        _ => Err(ErrorCode::InvalidData),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use rsa::pkcs1v15::Pkcs1v15Encrypt;
    use rsa::pss::Pss;

    use super::*;

    static KEY: LazyLock<RsaKey> = LazyLock::new(|| RsaKey::generate(Algorithm::Rsa2048).unwrap());

    #[test]
    fn pkcs1_and_pss_signatures_verify_with_the_crate_over_digests_of_every_hash() {
        let public = KEY.0.to_public_key();
        for hash in Hash::LIST {
            let digest = hash.digest(&[b"message"]);
            let pkcs1 = KEY.sign_pkcs1(&digest).unwrap();
            let pss = |salt| KEY.sign_pss(&digest, hash, salt).unwrap();
            let salts = [0, 20, 256 - 2 - hash.length()];
            let verify = |scheme: Pkcs1v15Sign| {
                let information = [&scheme.prefix[..], &digest].concat();
                assert_eq!(pkcs1_digest(&information), Ok(&digest[..]));
                public.verify(scheme, &digest, &pkcs1).unwrap();
            };
            macro_rules! check {
                ($digest:ty) => {{
                    verify(Pkcs1v15Sign::new::<$digest>());
                    for salt in salts {
                        let scheme = Pss::<$digest>::new_with_salt(salt);
                        public.verify(scheme, &digest, &pss(salt)).unwrap();
                    }
                }};
            }
            match hash {
                Hash::Sha1 => check!(Sha1),
                Hash::Sha256 => check!(Sha256),
                Hash::Sha384 => check!(Sha384),
                Hash::Sha512 => check!(Sha512),
            }
            let longest = salts[2];
            let too_long = KEY.sign_pss(&digest, hash, longest + 1);
            assert_eq!(too_long.unwrap_err(), ErrorCode::InvalidData);
        }
        for length in [0, 19, 21, 63, 200, 300] {
            let data = vec![0x30; length];
            assert_eq!(pkcs1_digest(&data), Err(ErrorCode::WrongLength), "{length}");
        }
    }

    #[test]
    fn what_the_public_key_encrypts_is_decrypted_and_a_wrong_label_is_refused() {
        let public = KEY.public_key();
        assert_eq!(
            RsaPublic::import(Algorithm::Rsa2048, &public.modulus())
                .unwrap()
                .modulus(),
            public.modulus()
        );
        for (hash, mgf1) in [
            (Hash::Sha1, Hash::Sha256),
            (Hash::Sha256, Hash::Sha256),
            (Hash::Sha512, Hash::Sha1),
        ] {
            let label = hash.digest(&[b"label"]);
            for length in [0, 1, 256 - 2 - 2 * hash.length()] {
                let message = vec![7; length];
                let ciphertext = public.oaep_encrypt(mgf1, &label, &message).unwrap();
                assert_eq!(
                    *KEY.oaep_decrypt(mgf1, &label, &ciphertext).unwrap(),
                    message
                );
                let other = hash.digest(&[b"another"]);
                let refused = KEY.oaep_decrypt(mgf1, &other, &ciphertext);
                assert_eq!(refused.unwrap_err(), ErrorCode::InvalidData);
            }
        }
        let crates_own = KEY.0.to_public_key();
        let label = Hash::Sha256.digest(&[b"label"]);
        let ciphertext = crates_own
            .encrypt(
                &mut UnwrapErr(SysRng),
                rsa::Oaep::<Sha256>::new_with_label(b"label".to_vec()),
                b"text",
            )
            .unwrap();
        assert_eq!(
            *KEY.oaep_decrypt(Hash::Sha256, &label, &ciphertext).unwrap(),
            b"text"
        );
        let ciphertext = crates_own
            .encrypt(&mut UnwrapErr(SysRng), Pkcs1v15Encrypt, b"text")
            .unwrap();
        assert_eq!(*KEY.decrypt_pkcs1(&ciphertext).unwrap(), b"text");
        let refused = KEY.decrypt_pkcs1(&[1; 256]);
        assert_eq!(refused.unwrap_err(), ErrorCode::InvalidData);
    }

    #[test]
    fn only_two_primes_of_a_key_of_this_length_are_imported() {
        let good = KEY.export();
        let again = RsaKey::import(Algorithm::Rsa2048, &good).unwrap();
        assert_eq!(again.public_key().modulus(), KEY.public_key().modulus());
        let (p, q) = good.split_at(128);
        let mut even = good.to_vec();
        even[127] &= 0xfe;
        let mut composite = good.to_vec();
        composite[127] ^= 2;
        let mut short = good.to_vec();
        short[0] = 0;
        let zeros = vec![0; 256];
        let ones = [&vec![0; 127][..], &[1]].concat().repeat(2);
        for (name, bytes, code) in [
            ("an odd length", &good[1..], ErrorCode::WrongLength),
            ("even", &even, ErrorCode::InvalidData),
            ("composite", &composite, ErrorCode::InvalidData),
            ("too small", &short, ErrorCode::InvalidData),
            ("twice the same", &[p, p].concat(), ErrorCode::InvalidData),
            ("zeros", &zeros, ErrorCode::InvalidData),
            ("ones", &ones, ErrorCode::InvalidData),
            ("the largest", &vec![0xff; 256], ErrorCode::InvalidData),
        ] {
            let refused = RsaKey::import(Algorithm::Rsa2048, bytes).map(drop);
            assert_eq!(refused, Err(code), "{name}");
        }
        RsaKey::import(Algorithm::Rsa2048, &[q, p].concat()).unwrap();
    }
}
