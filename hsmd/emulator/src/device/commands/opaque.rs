//! Opaque objects: data that the device keeps and does not understand.

use crate::device::Device;
use crate::device::capability::{Authority, Capabilities};
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::object::ObjectType;
use crate::device::store::FACTORY_ID;

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
