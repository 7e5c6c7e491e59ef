//! Opaque objects: data that the device keeps and does not understand.

use super::object::{permit, properties};
use crate::device::Device;
use crate::device::capability::{Authority, Capabilities};
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::object::{ObjectType, Origin};
use crate::device::store::FACTORY_ID;

/// PUT OPAQUE: answers with the identifier.
pub(crate) fn put(
    device: &mut Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let properties = properties(&mut fields, false)?;
    permit(authority, Capabilities::PUT_OPAQUE, &properties)?;
    let content = Content::import(ObjectType::Opaque, properties.algorithm, fields.rest())?;
    let id = device.store.insert(properties, Origin::IMPORTED, content)?;
    Ok(id.to_be_bytes().to_vec())
}

/// GET OPAQUE: answers with the data. Object 0 is the factory certificate.
pub(crate) fn get(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    fields.end()?;
    authority.capabilities.require(Capabilities::GET_OPAQUE)?;
    if id == FACTORY_ID {
        return Ok(device.identity.certificate.clone());
    }
    let object = device
        .store
        .get((ObjectType::Opaque, id), authority.domains)?;
    Ok(object.content.export().to_vec())
}
