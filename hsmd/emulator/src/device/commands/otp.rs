//! OTP AEAD keys: the secrets of YubiKeys, encrypted, and the one-time passwords made with them.
//!
//! Source: the vendor's device tests of PyPI `yubihsm` and its page "Yubico OTP test vectors".

use aes::cipher::consts::{U8, U13, U16};
use aes::cipher::{BlockCipherDecrypt as _, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use ccm::Ccm;
use ccm::aead::Aead as _;
use zeroize::Zeroizing;

use super::key::usable;
use crate::device::capability::{Authority, Capabilities};
use crate::device::content::{Content, random_bytes};
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::object::ObjectType;
use crate::device::{Device, random};

/// Lengths of a YubiKey's AES key and of its private identity in bytes.
const KEY_LENGTH: usize = 16;
const IDENTITY_LENGTH: usize = 6;
/// Both, one behind the other, as an AEAD holds them.
const SECRET_LENGTH: usize = KEY_LENGTH + IDENTITY_LENGTH;
/// Length of the random part of a nonce, which begins the AEAD.
const NONCE_LENGTH: usize = 6;
/// Length of a whole nonce.
const CCM_NONCE_LENGTH: usize = 13;
const TAG_LENGTH: usize = 8;
const AEAD_LENGTH: usize = NONCE_LENGTH + SECRET_LENGTH + TAG_LENGTH;
/// Length of a one-time password in bytes, without modified hexadecimal.
const OTP_LENGTH: usize = 16;

/// What the checksum over a whole one-time password, checksum included, comes to.
const CRC_RESIDUE: u16 = 0xf0b8;

/// CREATE OTP AEAD from a key and a private identity.
pub(crate) fn create(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let secret: Zeroizing<[u8; SECRET_LENGTH]> = Zeroizing::new(fields.array()?);
    fields.end()?;
    AeadKey::usable(device, authority, id, Capabilities::CREATE_OTP_AEAD)?.seal(&*secret)
}

/// RANDOMIZE OTP AEAD: makes key and identity itself.
pub(crate) fn randomize(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    fields.end()?;
    let key = AeadKey::usable(device, authority, id, Capabilities::RANDOMIZE_OTP_AEAD)?;
    key.seal(&random_bytes(SECRET_LENGTH)?)
}

/// REWRAP OTP AEAD from one key to another.
pub(crate) fn rewrap(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let (from, to) = (fields.u16()?, fields.u16()?);
    let aead = fields.array()?;
    fields.end()?;
    let from_needed = Capabilities::REWRAP_FROM_OTP_AEAD_KEY;
    let from = AeadKey::usable(device, authority, from, from_needed)?;
    let to = AeadKey::usable(device, authority, to, Capabilities::REWRAP_TO_OTP_AEAD_KEY)?;
    to.seal(&from.open(&aead)?)
}

/// DECRYPT OTP: an AEAD and a one-time password in; its counters and its timestamp out.
pub(crate) fn decrypt(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let aead = fields.array()?;
    let otp: [u8; OTP_LENGTH] = fields.array()?;
    fields.end()?;
    let key = AeadKey::usable(device, authority, id, Capabilities::DECRYPT_OTP)?;
    let secret = key.open(&aead)?;
    let (key, identity) = secret
        .split_first_chunk::<KEY_LENGTH>()
        .ok_or(ErrorCode::InvalidData)?;
    let mut block = otp.into();
    Aes128::new(key.into()).decrypt_block(&mut block);
    let counters = block.strip_prefix(identity).ok_or(ErrorCode::InvalidOtp)?;
    if crc(&block) != CRC_RESIDUE {
        return Err(ErrorCode::InvalidOtp);
    }
    // The numbers stay little endian.
    match counters {
        &[
            use_low,
            use_high,
            time_low,
            time_middle,
            time_high,
            session,
            ..,
        ] => Ok(vec![
            use_low,
            use_high,
            session,
            time_high,
            time_low,
            time_middle,
        ]),
        _ => Err(ErrorCode::InvalidOtp),
    }
}

/// The key of an OTP AEAD object.
struct AeadKey<'a> {
    nonce_id: &'a [u8],
    key: &'a [u8],
}

impl<'a> AeadKey<'a> {
    fn usable(
        device: &'a Device,
        authority: &Authority,
        id: u16,
        needed: Capabilities,
    ) -> Result<Self, ErrorCode> {
        let object = usable(device, authority, ObjectType::OtpAeadKey, id, needed)?;
        match &object.content {
            Content::OtpAead { nonce_id, key } => Ok(Self { nonce_id, key }),
            _ => Err(ErrorCode::InvalidData),
        }
    }

    fn seal(&self, secret: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let nonce = random()?;
        let sealed = match self.key.len() {
            16 => seal::<Aes128>(self.key, self.nonce(nonce), secret),
            24 => seal::<Aes192>(self.key, self.nonce(nonce), secret),
            _ => seal::<Aes256>(self.key, self.nonce(nonce), secret),
        };
        Ok([&nonce[..], &sealed?].concat())
    }

    /// [`ErrorCode::InvalidData`] if the AEAD is not this key's.
    fn open(&self, aead: &[u8; AEAD_LENGTH]) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
        let (nonce, sealed) = aead
            .split_first_chunk::<NONCE_LENGTH>()
            .ok_or(ErrorCode::WrongLength)?;
        match self.key.len() {
            16 => open::<Aes128>(self.key, self.nonce(*nonce), sealed),
            24 => open::<Aes192>(self.key, self.nonce(*nonce), sealed),
            _ => open::<Aes256>(self.key, self.nonce(*nonce), sealed),
        }
    }

    /// The nonce of AES-CCM: the key's identifier, what the AEAD begins with, and zeros.
    fn nonce(&self, random: [u8; NONCE_LENGTH]) -> [u8; CCM_NONCE_LENGTH] {
        let mut nonce = [0; CCM_NONCE_LENGTH];
        for (to, from) in nonce.iter_mut().zip(self.nonce_id.iter().chain(&random)) {
            *to = *from;
        }
        nonce
    }
}

fn seal<C>(key: &[u8], nonce: [u8; CCM_NONCE_LENGTH], secret: &[u8]) -> Result<Vec<u8>, ErrorCode>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
{
    Ccm::<C, U8, U13>::new_from_slice(key)
        .map_err(|_| ErrorCode::CommandUnexecuted)?
        .encrypt(&nonce.into(), secret)
        .map_err(|_| ErrorCode::CommandUnexecuted)
}

fn open<C>(
    key: &[u8],
    nonce: [u8; CCM_NONCE_LENGTH],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, ErrorCode>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
{
    Ccm::<C, U8, U13>::new_from_slice(key)
        .map_err(|_| ErrorCode::CommandUnexecuted)?
        .decrypt(&nonce.into(), sealed)
        .map(Zeroizing::new)
        .map_err(|_| ErrorCode::InvalidData)
}

/// CRC-16 of ISO 13239.
fn crc(bytes: &[u8]) -> u16 {
    let mut crc = 0xffff;
    for byte in bytes {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x8408
            } else {
                crc >> 1
            };
        }
    }
    crc
}
