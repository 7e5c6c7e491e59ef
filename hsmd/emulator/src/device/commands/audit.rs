//! The audit log.

use crate::device::Device;
use crate::device::capability::{Authority, Capabilities};
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;

/// GET LOG ENTRIES.
pub(crate) fn get_entries(
    device: &Device,
    authority: &Authority,
    fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    fields.end()?;
    authority
        .capabilities
        .require(Capabilities::GET_LOG_ENTRIES)?;
    Ok(device.audit.read())
}

/// SET LOG INDEX: frees the entries up to and with the one named.
pub(crate) fn set_index(
    device: &mut Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let number = fields.u16()?;
    fields.end()?;
    authority
        .capabilities
        .require(Capabilities::GET_LOG_ENTRIES)?;
    device.audit.forget(number)?;
    Ok(Vec::new())
}
