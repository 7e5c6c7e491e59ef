//! The audit log and the device's options.

use crate::device::Device;
use crate::device::audit::Switch;
use crate::device::capability::{Authority, Capabilities};
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;

const FORCE_AUDIT: u8 = 0x01;
const COMMAND_AUDIT: u8 = 0x03;

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

/// GET OPTION.
pub(crate) fn get_option(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let option = fields.u8()?;
    fields.end()?;
    authority.capabilities.require(Capabilities::GET_OPTION)?;
    match option {
        FORCE_AUDIT => Ok(vec![device.audit.force() as u8]),
        COMMAND_AUDIT => Ok(device.audit.command_switches()),
        _ => Err(ErrorCode::InvalidData),
    }
}

/// SET OPTION: tag, length, value.
pub(crate) fn set_option(
    device: &mut Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let option = fields.u8()?;
    let length = fields.u16()?;
    let value = fields.rest();
    if value.len() != usize::from(length) {
        return Err(ErrorCode::WrongLength);
    }
    authority.capabilities.require(Capabilities::SET_OPTION)?;
    match (option, value) {
        (FORCE_AUDIT, [value]) => device.audit.set_force(Switch::from_byte(*value)?)?,
        (COMMAND_AUDIT, pairs) => device.audit.set_command_switches(&switches(pairs)?)?,
        (FORCE_AUDIT, _) => return Err(ErrorCode::WrongLength),
        _ => return Err(ErrorCode::InvalidData),
    }
    Ok(Vec::new())
}

fn switches(pairs: &[u8]) -> Result<Vec<(u8, Switch)>, ErrorCode> {
    let (pairs, []) = pairs.as_chunks::<2>() else {
        return Err(ErrorCode::WrongLength);
    };
    pairs
        .iter()
        .map(|[code, value]| Ok((*code, Switch::from_byte(*value)?)))
        .collect()
}
