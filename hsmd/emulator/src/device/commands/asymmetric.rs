//! Asymmetric keys: making, showing and using them.

use super::key::usable;
use crate::device::Device;
use crate::device::algorithm::Algorithm;
use crate::device::capability::{Authority, Capabilities};
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::firmware;
use crate::device::frame::Fields;
use crate::device::hash::{self, Hash};
use crate::device::object::ObjectType;
use crate::device::private_key::PrivateKey;
use crate::device::private_key::rsa::{self, RsaKey};

/// Longest message of SIGN EDDSA in bytes.
pub const EDDSA_MESSAGE_LIMIT: usize = 2019;

/// GET PUBLIC KEY: the algorithm, then the key; needs no capability. Newer firmware takes the type of the
/// object too; without it, an asymmetric key is meant.
pub(crate) fn public_key(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let kind = if !fields.is_empty() && device.firmware >= firmware::PUBLIC_KEY_TYPE {
        device.object_type(fields.u8()?)?
    } else {
        ObjectType::AsymmetricKey
    };
    fields.end()?;
    let object = device.store.get((kind, id), authority.domains)?;
    let key = match &object.content {
        Content::Private(key) => key.public_key(),
        Content::RsaWrap(key) => key.public_key().modulus(),
        Content::PublicWrap(key) => key.modulus(),
        _ => return Err(ErrorCode::InvalidData),
    };
    let algorithm = [object.properties.algorithm.byte()];
    Ok([&algorithm[..], &key].concat())
}

/// SIGN EDDSA over a message.
pub(crate) fn sign_eddsa(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let message = fields.rest();
    if message.len() > EDDSA_MESSAGE_LIMIT {
        return Err(ErrorCode::WrongLength);
    }
    private_key(device, authority, id, Capabilities::SIGN_EDDSA)?.sign_eddsa(message)
}

/// SIGN ECDSA over a digest.
pub(crate) fn sign_ecdsa(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let key = private_key(device, authority, id, Capabilities::SIGN_ECDSA)?;
    let digest = fields.rest();
    if let PrivateKey::Ec(key) = key
        && digest.len() > key.coordinate_length()
        && device.firmware < firmware::LONG_DIGESTS
    {
        return Err(ErrorCode::WrongLength);
    }
    // Of a digest that the host fitted to the curve nobody knows the hash.
    if let Ok(hash) = Hash::of_length(digest.len()) {
        device.require(hash.algorithm(hash::ECDSA))?;
    }
    key.sign_ecdsa(digest)
}

/// DERIVE ECDH: the peer's point in, the x coordinate of the shared point out.
pub(crate) fn derive_ecdh(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let key = private_key(device, authority, id, Capabilities::DERIVE_ECDH)?;
    device.require(Algorithm::Ecdh)?;
    match key {
        PrivateKey::Ec(key) => Ok(key.agree(fields.rest())?.to_vec()),
        _ => Err(ErrorCode::InvalidData),
    }
}

/// SIGN PKCS1 over a digest or a DigestInfo.
pub(crate) fn sign_pkcs1(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let key = rsa_key(device, authority, id, Capabilities::SIGN_PKCS)?;
    let digest = rsa::pkcs1_digest(fields.rest())?;
    let hash = Hash::of_length(digest.len())?;
    device.require(hash.algorithm(hash::PKCS1))?;
    key.sign_pkcs1(digest)
}

/// SIGN PSS over a digest: the algorithm of MGF1, the length of the salt, the digest.
pub(crate) fn sign_pss(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let mgf1 = fields.u8()?;
    let salt_length = fields.u16()?.into();
    let key = rsa_key(device, authority, id, Capabilities::SIGN_PSS)?;
    let mgf1 = enabled_mgf1(device, mgf1)?;
    let digest = fields.rest();
    let hash = Hash::of_length(digest.len())?;
    device.require(hash.algorithm(hash::PSS))?;
    key.sign_pss(digest, mgf1, salt_length)
}

/// DECRYPT PKCS1.
pub(crate) fn decrypt_pkcs1(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let key = rsa_key(device, authority, id, Capabilities::DECRYPT_PKCS)?;
    device.require(Algorithm::RsaPkcs1Decrypt)?;
    Ok(key.decrypt_pkcs1(fields.rest())?.to_vec())
}

/// DECRYPT OAEP: the algorithm of MGF1, the ciphertext, the digest of the label, whose length tells the hash.
pub(crate) fn decrypt_oaep(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let mgf1 = fields.u8()?;
    let key = rsa_key(device, authority, id, Capabilities::DECRYPT_OAEP)?;
    let mgf1 = enabled_mgf1(device, mgf1)?;
    let (ciphertext, label_digest) = fields
        .rest()
        .split_at_checked(key.modulus_length())
        .ok_or(ErrorCode::WrongLength)?;
    let hash = Hash::of_length(label_digest.len())?;
    device.require(hash.algorithm(hash::OAEP))?;
    let message = key.oaep_decrypt(mgf1, label_digest, ciphertext)?;
    Ok(message.to_vec())
}

fn enabled_mgf1(device: &Device, algorithm: u8) -> Result<Hash, ErrorCode> {
    let algorithm = Algorithm::from_byte(algorithm)?;
    device.require(algorithm)?;
    Hash::of_mgf1(algorithm)
}

/// The key as in [`private_key`], which must be an RSA key.
pub(crate) fn rsa_key<'a>(
    device: &'a Device,
    authority: &Authority,
    id: u16,
    needed: Capabilities,
) -> Result<&'a RsaKey, ErrorCode> {
    match private_key(device, authority, id, needed)? {
        PrivateKey::Rsa(key) => Ok(key),
        _ => Err(ErrorCode::InvalidData),
    }
}

/// The key of an object that is [`usable`].
pub(crate) fn private_key<'a>(
    device: &'a Device,
    authority: &Authority,
    id: u16,
    needed: Capabilities,
) -> Result<&'a PrivateKey, ErrorCode> {
    match &usable(device, authority, ObjectType::AsymmetricKey, id, needed)?.content {
        Content::Private(key) => Ok(key),
        _ => Err(ErrorCode::InvalidData),
    }
}
