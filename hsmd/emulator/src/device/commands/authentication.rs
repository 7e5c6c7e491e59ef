//! Authentication keys: who may open sessions.

use crate::device::Device;
use crate::device::algorithm::Algorithm;
use crate::device::capability::{Authority, Capabilities, Domains};
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::object::ObjectType;

/// CHANGE AUTHENTICATION KEY: new keys for the one that opened this session. Open sessions stay open.
pub(crate) fn change(
    device: &mut Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let algorithm = fields.u8()?;
    authority
        .capabilities
        .require(Capabilities::CHANGE_AUTHENTICATION_KEY)?;
    if id != authority.key_id {
        return Err(ErrorCode::InvalidId);
    }
    let name = (ObjectType::AuthenticationKey, id);
    let algorithm = Algorithm::from_byte(algorithm)?;
    if device.store.get(name, Domains::ALL)?.properties.algorithm != algorithm {
        return Err(ErrorCode::InvalidData);
    }
    device.require(algorithm)?;
    let content = Content::import(name.0, algorithm, fields.rest())?;
    device.store.replace(name, content)?;
    Ok(id.to_be_bytes().to_vec())
}
