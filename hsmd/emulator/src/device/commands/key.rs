//! Making objects of every type, and finding those that a command uses.

use super::object::{permit, properties};
use crate::device::Device;
use crate::device::capability::{Authority, Capabilities};
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::object::{Object, ObjectType, Origin};

/// PUT of an object: what [`Content::import`] makes its content from; answers with the identifier.
pub(crate) fn put(
    device: &mut Device,
    authority: &Authority,
    kind: ObjectType,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let properties = properties(&mut fields, kind.delegates())?;
    permit(authority, kind.put_capability(), &properties)?;
    device.require_for(kind, properties.algorithm)?;
    let content = Content::import(kind, properties.algorithm, fields.rest())?;
    let id = device.store.insert(properties, Origin::IMPORTED, content)?;
    Ok(id.to_be_bytes().to_vec())
}

/// GENERATE of a key: what [`Content::generate`] wants beside the algorithm; answers with the identifier.
pub(crate) fn generate(
    device: &mut Device,
    authority: &Authority,
    kind: ObjectType,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let needed = kind
        .generate_capability()
        .ok_or(ErrorCode::InvalidCommand)?;
    let properties = properties(&mut fields, kind.delegates())?;
    permit(authority, needed, &properties)?;
    device.require_for(kind, properties.algorithm)?;
    let content = Content::generate(kind, properties.algorithm, fields.rest())?;
    let id = device
        .store
        .insert(properties, Origin::GENERATED, content)?;
    Ok(id.to_be_bytes().to_vec())
}

/// The object, provided that both the session and the object have the capability, and that its algorithm is
/// not switched off.
pub(crate) fn usable<'a>(
    device: &'a Device,
    authority: &Authority,
    kind: ObjectType,
    id: u16,
    needed: Capabilities,
) -> Result<&'a Object, ErrorCode> {
    authority.capabilities.require(needed)?;
    let object = device.store.get((kind, id), authority.domains)?;
    object.properties.capabilities.require(needed)?;
    device.require(object.properties.algorithm)?;
    Ok(object)
}
