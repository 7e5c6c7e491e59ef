//! The device's options.

use crate::device::Device;
use crate::device::audit::Switch;
use crate::device::capability::{Authority, Capabilities};
use crate::device::error::ErrorCode;
use crate::device::firmware;
use crate::device::frame::Fields;

const FORCE_AUDIT: u8 = 0x01;
const COMMAND_AUDIT: u8 = 0x03;
/// The option 0x05, FIPS mode, is unknown to a device that is no FIPS model, as this one.
const ALGORITHM_TOGGLE: u8 = 0x04;

/// GET OPTION.
pub(crate) fn get(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let option = fields.u8()?;
    fields.end()?;
    authority.capabilities.require(Capabilities::GET_OPTION)?;
    match option {
        FORCE_AUDIT => Ok(vec![device.audit.force() as u8]),
        COMMAND_AUDIT => Ok(device.audit.command_switches(device.firmware)),
        ALGORITHM_TOGGLE if device.firmware >= firmware::ALGORITHM_TOGGLE => {
            Ok(device.algorithms.pairs(device.firmware))
        }
        _ => Err(ErrorCode::InvalidData),
    }
}

/// SET OPTION: tag, length, value.
pub(crate) fn set(
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
        (FORCE_AUDIT, _) => return Err(ErrorCode::WrongLength),
        (COMMAND_AUDIT, pairs) => device
            .audit
            .set_command_switches(&switches(pairs)?, device.firmware)?,
        (ALGORITHM_TOGGLE, pairs) if device.firmware >= firmware::ALGORITHM_TOGGLE => {
            // Only on a device with nothing but its first authentication key.
            if device.store.iter().count() > 1 {
                return Err(ErrorCode::InvalidData);
            }
            device.algorithms.set(&switches(pairs)?, device.firmware)?;
        }
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
