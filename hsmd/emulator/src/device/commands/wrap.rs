//! Wrap keys of AES-CCM: objects leave the device and come back under them; data is wrapped and unwrapped.

use zeroize::Zeroizing;

use crate::device::capability::{Authority, Capabilities, Domains};
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::object::{Object, ObjectType, Origin, Properties};
use crate::device::private_key::wrapped::Ed25519Form;
use crate::device::{Device, aes_ccm, firmware, wrapped_object};

/// Stands in front of wrapped data and tells it from a wrapped object, which begins with an algorithm.
const DATA_MARK: u8 = 0x00;

/// EXPORT WRAPPED: nonce, wrapped object and tag. A further byte 1 asks for the seed of an Ed25519 key.
pub(crate) fn export(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let wrap_id = fields.u16()?;
    let kind = fields.u8()?;
    let id = fields.u16()?;
    let form = match fields.rest() {
        [] => Ed25519Form::Expanded,
        [form] if device.firmware >= firmware::ED25519_SEEDS => match form {
            0 => Ed25519Form::Expanded,
            1 => Ed25519Form::Seed,
            _ => return Err(ErrorCode::InvalidData),
        },
        _ => return Err(ErrorCode::WrongLength),
    };
    let (wrap_key, key) = aes_key(device, authority, wrap_id, Capabilities::EXPORT_WRAPPED)?;
    require(wrap_key, Capabilities::EXPORT_WRAPPED)?;
    let object = device
        .store
        .get((device.object_type(kind)?, id), authority.domains)?;
    permit_export(wrap_key, object)?;
    let plaintext = wrapped_object::encode(object, wrap_key.properties.algorithm, form)?;
    aes_ccm::seal(key, &plaintext)
}

/// IMPORT WRAPPED: answers with the type and the identifier of the object.
pub(crate) fn import(
    device: &mut Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let wrap_id = fields.u16()?;
    let (wrap_key, key) = aes_key(device, authority, wrap_id, Capabilities::IMPORT_WRAPPED)?;
    require(wrap_key, Capabilities::IMPORT_WRAPPED)?;
    let plaintext = aes_ccm::open(key, fields.rest())?;
    let parts = wrapped_object::decode(&plaintext, wrap_key.properties.algorithm)?;
    permit_import(authority, wrap_key, &parts.0)?;
    insert(device, parts)
}

/// WRAP DATA: nonce, wrapped data and tag.
pub(crate) fn wrap_data(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let key = data_key(device, authority, id, Capabilities::WRAP_DATA)?;
    if fields.is_empty() {
        return Err(ErrorCode::WrongLength);
    }
    aes_ccm::seal(key, &Zeroizing::new([&[DATA_MARK], fields.rest()].concat()))
}

/// UNWRAP DATA: the data.
pub(crate) fn unwrap_data(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let key = data_key(device, authority, id, Capabilities::UNWRAP_DATA)?;
    let plaintext = aes_ccm::open(key, fields.rest())?;
    match plaintext.as_slice() {
        [DATA_MARK, data @ ..] => Ok(data.to_vec()),
        _ => Err(ErrorCode::InvalidData),
    }
}

/// An object leaves under a wrap key if it may at all, and if the wrap key may carry what it can do.
pub(super) fn permit_export(wrap_key: &Object, object: &Object) -> Result<(), ErrorCode> {
    let capabilities = object.properties.capabilities;
    capabilities.require(Capabilities::EXPORTABLE_UNDER_WRAP)?;
    wrap_key.properties.delegated.require(capabilities)
}

/// An object comes in under a wrap key if the wrap key may carry what it can do, in domains of the session.
/// What was delegated to the session does not matter: that is for objects that a session makes.
pub(super) fn permit_import(
    authority: &Authority,
    wrap_key: &Object,
    properties: &Properties,
) -> Result<(), ErrorCode> {
    wrap_key
        .properties
        .delegated
        .require(properties.capabilities)?;
    if properties.domains == Domains(0) {
        return Err(ErrorCode::InvalidData);
    }
    if authority.domains.contains(properties.domains) {
        Ok(())
    } else {
        Err(ErrorCode::InsufficientPermissions)
    }
}

/// Adds an object that came wrapped; the answer names it.
pub(super) fn insert(
    device: &mut Device,
    (properties, origin, content): (Properties, Origin, Content),
) -> Result<Vec<u8>, ErrorCode> {
    let kind = content.kind();
    device.require_for(kind, properties.algorithm)?;
    let id = device
        .store
        .insert(properties, origin.imported_wrapped(), content)?;
    let [high, low] = id.to_be_bytes();
    Ok(vec![kind.byte(), high, low])
}

/// The wrap key, provided that the session has the capability and that it is an AES key.
fn aes_key<'a>(
    device: &'a Device,
    authority: &Authority,
    id: u16,
    needed: Capabilities,
) -> Result<(&'a Object, &'a [u8]), ErrorCode> {
    authority.capabilities.require(needed)?;
    let object = device
        .store
        .get((ObjectType::WrapKey, id), authority.domains)?;
    device.require(object.properties.algorithm)?;
    match &object.content {
        Content::Wrap(key) => Ok((object, key)),
        _ => Err(ErrorCode::InvalidData),
    }
}

pub(super) fn require(wrap_key: &Object, needed: Capabilities) -> Result<(), ErrorCode> {
    wrap_key.properties.capabilities.require(needed)
}

/// The key for data. The vendor's tests have INVALID DATA for a key that lacks the capability, up to firmware 2.4.
fn data_key<'a>(
    device: &'a Device,
    authority: &Authority,
    id: u16,
    needed: Capabilities,
) -> Result<&'a [u8], ErrorCode> {
    let (object, key) = aes_key(device, authority, id, needed)?;
    match require(object, needed) {
        Err(_) if device.firmware < firmware::WRAP_DATA_PERMISSION => Err(ErrorCode::InvalidData),
        required => required.map(|()| key),
    }
}
