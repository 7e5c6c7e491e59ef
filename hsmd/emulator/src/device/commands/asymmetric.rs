//! Asymmetric keys: making, showing and using them.

use super::object::{permit, properties};
use crate::device::Device;
use crate::device::algorithm::Algorithm;
use crate::device::capability::{Authority, Capabilities};
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::hash::Hash;
use crate::device::object::{ObjectType, Origin};
use crate::device::private_key::PrivateKey;
use crate::device::private_key::rsa::RsaKey;

/// Longest message of SIGN EDDSA in bytes.
pub const EDDSA_MESSAGE_LIMIT: usize = 2019;

/// PUT ASYMMETRIC KEY: answers with the identifier.
pub(crate) fn put(
    device: &mut Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let properties = properties(&mut fields, false)?;
    permit(authority, Capabilities::PUT_ASYMMETRIC_KEY, &properties)?;
    let content = Content::import(
        ObjectType::AsymmetricKey,
        properties.algorithm,
        fields.rest(),
    )?;
    let id = device.store.insert(properties, Origin::IMPORTED, content)?;
    Ok(id.to_be_bytes().to_vec())
}

/// GENERATE ASYMMETRIC KEY: answers with the identifier.
pub(crate) fn generate(
    device: &mut Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let properties = properties(&mut fields, false)?;
    fields.end()?;
    permit(
        authority,
        Capabilities::GENERATE_ASYMMETRIC_KEY,
        &properties,
    )?;
    let content = Content::generate(ObjectType::AsymmetricKey, properties.algorithm)?;
    let id = device
        .store
        .insert(properties, Origin::GENERATED, content)?;
    Ok(id.to_be_bytes().to_vec())
}

/// GET PUBLIC KEY: the algorithm, then the key; needs no capability.
pub(crate) fn public_key(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    fields.end()?;
    let object = device
        .store
        .get((ObjectType::AsymmetricKey, id), authority.domains)?;
    let Content::Private(key) = &object.content else {
        return Err(ErrorCode::InvalidData);
    };
    let algorithm = [object.properties.algorithm.byte()];
    Ok([&algorithm[..], &key.public_key()].concat())
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
    private_key(device, authority, id, Capabilities::SIGN_ECDSA)?.sign_ecdsa(fields.rest())
}

/// DERIVE ECDH: the peer's point in, the x coordinate of the shared point out.
pub(crate) fn derive_ecdh(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    match private_key(device, authority, id, Capabilities::DERIVE_ECDH)? {
        PrivateKey::Ec(key) => Ok(key.agree(fields.rest())?.to_vec()),
        _ => Err(ErrorCode::InvalidData),
    }
}

/// SIGN PKCS1 over a digest.
pub(crate) fn sign_pkcs1(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    rsa_key(device, authority, id, Capabilities::SIGN_PKCS)?.sign_pkcs1(fields.rest())
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
    let mgf1 = Hash::of_mgf1(Algorithm::from_byte(mgf1)?)?;
    key.sign_pss(fields.rest(), mgf1, salt_length)
}

/// DECRYPT PKCS1.
pub(crate) fn decrypt_pkcs1(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let key = rsa_key(device, authority, id, Capabilities::DECRYPT_PKCS)?;
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
    let mgf1 = Hash::of_mgf1(Algorithm::from_byte(mgf1)?)?;
    let (ciphertext, label_digest) = fields
        .rest()
        .split_at_checked(key.modulus_length())
        .ok_or(ErrorCode::WrongLength)?;
    let message = key.oaep_decrypt(mgf1, label_digest, ciphertext)?;
    Ok(message.to_vec())
}

/// The key as in [`private_key`], which must be an RSA key.
fn rsa_key<'a>(
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

/// The key, provided that both the session and the key have the capability.
pub(crate) fn private_key<'a>(
    device: &'a Device,
    authority: &Authority,
    id: u16,
    needed: Capabilities,
) -> Result<&'a PrivateKey, ErrorCode> {
    authority.capabilities.require(needed)?;
    let object = device
        .store
        .get((ObjectType::AsymmetricKey, id), authority.domains)?;
    object.properties.capabilities.require(needed)?;
    match &object.content {
        Content::Private(key) => Ok(key),
        _ => Err(ErrorCode::InvalidData),
    }
}
