//! Asymmetric keys: making, showing and using them.

use super::object::{permit, properties};
use crate::device::Device;
use crate::device::capability::{Authority, Capabilities};
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::object::{ObjectType, Origin};
use crate::device::private_key::PrivateKey;

/// Longest message of SIGN EDDSA in bytes.
pub const EDDSA_MESSAGE_LIMIT: usize = 2019;

/// Lengths of the digests of SHA-1, SHA-256, SHA-384 and SHA-512 in bytes.
const DIGEST_LENGTHS: [usize; 4] = [20, 32, 48, 64];

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
    let digest = fields.rest();
    if !DIGEST_LENGTHS.contains(&digest.len()) {
        return Err(ErrorCode::WrongLength);
    }
    private_key(device, authority, id, Capabilities::SIGN_ECDSA)?.sign_ecdsa(digest)
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
