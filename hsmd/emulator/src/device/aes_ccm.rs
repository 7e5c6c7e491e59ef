//! AES in counter mode with CBC-MAC (NIST SP 800-38C), as wrap keys use it: 13 bytes of nonce in front of the
//! ciphertext, 16 bytes of tag behind it.

use aes::{Aes128, Aes192, Aes256};
use ccm::Ccm;
use ccm::aead::{Aead as _, KeyInit as _};
use ccm::consts::{U13, U16};
use zeroize::Zeroizing;

use super::error::ErrorCode;
use super::random;

/// Length of a nonce in bytes.
pub(crate) const NONCE_LENGTH: usize = 13;
/// Length of a tag in bytes.
pub(crate) const TAG_LENGTH: usize = 16;

/// Encrypts under a random nonce. The key has 16, 24 or 32 bytes.
pub(crate) fn seal(key: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, ErrorCode> {
    let nonce: [u8; NONCE_LENGTH] = random()?;
    let ciphertext = match key.len() {
        16 => Ccm::<Aes128, U16, U13>::new_from_slice(key)
            .map(|cipher| cipher.encrypt(&nonce.into(), plaintext)),
        24 => Ccm::<Aes192, U16, U13>::new_from_slice(key)
            .map(|cipher| cipher.encrypt(&nonce.into(), plaintext)),
        _ => Ccm::<Aes256, U16, U13>::new_from_slice(key)
            .map(|cipher| cipher.encrypt(&nonce.into(), plaintext)),
    };
    let failed = ErrorCode::CommandUnexecuted;
    let ciphertext = ciphertext.map_err(|_| failed)?.map_err(|_| failed)?;
    Ok([&nonce[..], &ciphertext].concat())
}

/// Decrypts what [`seal`] made.
///
/// # Errors
/// [`ErrorCode::WrongLength`] if nonce and tag do not fit, [`ErrorCode::InvalidData`] if the tag is wrong.
pub(crate) fn open(key: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
    let (nonce, ciphertext) = sealed
        .split_first_chunk::<NONCE_LENGTH>()
        .ok_or(ErrorCode::WrongLength)?;
    if ciphertext.len() < TAG_LENGTH {
        return Err(ErrorCode::WrongLength);
    }
    let nonce = (*nonce).into();
    let plaintext = match key.len() {
        16 => Ccm::<Aes128, U16, U13>::new_from_slice(key)
            .map(|cipher| cipher.decrypt(&nonce, ciphertext)),
        24 => Ccm::<Aes192, U16, U13>::new_from_slice(key)
            .map(|cipher| cipher.decrypt(&nonce, ciphertext)),
        _ => Ccm::<Aes256, U16, U13>::new_from_slice(key)
            .map(|cipher| cipher.decrypt(&nonce, ciphertext)),
    };
    plaintext
        .map_err(|_| ErrorCode::CommandUnexecuted)?
        .map(Zeroizing::new)
        .map_err(|_| ErrorCode::InvalidData)
}
