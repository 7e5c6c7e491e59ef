//! Templates: what SSH certificates may be signed.

use crate::device::Device;
use crate::device::capability::{Authority, Capabilities};
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::object::ObjectType;

/// GET TEMPLATE: answers with the data.
pub(crate) fn get(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    fields.end()?;
    authority.capabilities.require(Capabilities::GET_TEMPLATE)?;
    let object = device
        .store
        .get((ObjectType::Template, id), authority.domains)?;
    Ok(object.content.export().to_vec())
}
