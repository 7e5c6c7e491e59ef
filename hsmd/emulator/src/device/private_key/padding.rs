//! What stands between a message and RSA's bare arithmetic: RFC 8017, with the hash of a label given by
//! the host and the hash of MGF1 chosen apart.
//!
//! The `rsa` crate has these paddings, but hashes the label itself, ties the hash of PSS to that of MGF1 and
//! hides a wrong PKCS#1 padding. Nothing here is of constant time: the emulator protects nothing.

use zeroize::Zeroizing;

use crate::device::content::random_bytes;
use crate::device::error::ErrorCode;
use crate::device::hash::Hash;

/// EMSA-PSS (9.1.1) for a modulus of `length` bytes whose highest bit is set.
pub(crate) fn pss_encode(
    digest: &[u8],
    mgf1: Hash,
    salt_length: usize,
    length: usize,
) -> Result<Vec<u8>, ErrorCode> {
    let hash = Hash::of_length(digest.len())?;
    let zeros = length
        .checked_sub(salt_length + hash.length() + 2)
        .ok_or(ErrorCode::InvalidData)?;
    let salt = random_bytes(salt_length)?;
    let check = hash.digest(&[&[0; 8], digest, &salt]);
    let mut block = [&vec![0; zeros][..], &[1], &salt].concat();
    mask(&mut block, mgf1, &check);
    if let Some(first) = block.first_mut() {
        // The encoded message has one bit less than the modulus.
        *first &= 0x7f;
    }
    Ok([&block[..], &check, &[0xbc]].concat())
}

/// EME-OAEP (7.1.1) for a modulus of `length` bytes.
pub(crate) fn oaep_encode(
    message: &[u8],
    label_digest: &[u8],
    mgf1: Hash,
    length: usize,
) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
    let hash = Hash::of_length(label_digest.len())?;
    let zeros = length
        .checked_sub(message.len() + 2 * hash.length() + 2)
        .ok_or(ErrorCode::WrongLength)?;
    let mut block = Zeroizing::new([label_digest, &vec![0; zeros], &[1], message].concat());
    let mut seed = random_bytes(hash.length())?;
    mask(&mut block, mgf1, &seed);
    mask(&mut seed, mgf1, &block);
    Ok(Zeroizing::new([&[0], &seed[..], &block].concat()))
}

/// EME-OAEP decoding (7.1.2): the message; [`ErrorCode::InvalidData`] if the padding or the label is wrong.
pub(crate) fn oaep_decode(
    encoded: &[u8],
    label_digest: &[u8],
    mgf1: Hash,
) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
    let hash = Hash::of_length(label_digest.len())?;
    let (seed, block) = encoded
        .strip_prefix(&[0])
        .and_then(|masked| masked.split_at_checked(hash.length()))
        .ok_or(ErrorCode::InvalidData)?;
    let mut seed = Zeroizing::new(seed.to_vec());
    let mut block = Zeroizing::new(block.to_vec());
    mask(&mut seed, mgf1, &block);
    mask(&mut block, mgf1, &seed);
    let padded = block
        .strip_prefix(label_digest)
        .ok_or(ErrorCode::InvalidData)?;
    let zeros = padded.iter().take_while(|byte| **byte == 0).count();
    match padded.get(zeros..) {
        Some([1, message @ ..]) => Ok(Zeroizing::new(message.to_vec())),
        _ => Err(ErrorCode::InvalidData),
    }
}

/// EME-PKCS1-v1_5 decoding (7.2.2): the message; [`ErrorCode::InvalidData`] if the padding is wrong.
pub(crate) fn pkcs1_decode(encoded: &[u8]) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
    const SHORTEST_PADDING: usize = 8;
    let padded = encoded
        .strip_prefix(&[0, 2])
        .ok_or(ErrorCode::InvalidData)?;
    let padding = padded.iter().take_while(|byte| **byte != 0).count();
    match padded.get(padding..) {
        Some([0, message @ ..]) if padding >= SHORTEST_PADDING => {
            Ok(Zeroizing::new(message.to_vec()))
        }
        _ => Err(ErrorCode::InvalidData),
    }
}

/// Combines `data` with the mask that MGF1 (B.2.1) makes from `seed`.
fn mask(data: &mut [u8], mgf1: Hash, seed: &[u8]) {
    for (counter, part) in (0_u32..).zip(data.chunks_mut(mgf1.length())) {
        let digest = mgf1.digest(&[seed, &counter.to_be_bytes()]);
        for (byte, bits) in part.iter_mut().zip(digest) {
            *byte ^= bits;
        }
    }
}
