//! The device as a whole: information, storage, random bytes, blinking, reset.

use crate::device::Device;
use crate::device::algorithm::Algorithm;
use crate::device::audit::LOG_LIMIT;
use crate::device::capability::{Authority, Capabilities};
use crate::device::error::ErrorCode;
use crate::device::firmware;
use crate::device::frame::Fields;
use crate::device::identity::EMULATOR_MARK;
use crate::device::store::{OBJECT_LIMIT, PAGE_COUNT, PAGE_LENGTH};

/// GET DEVICE INFO: version, serial number, log, algorithms; on the second page the part number.
pub(crate) fn device_info(device: &Device, mut fields: Fields<'_>) -> Result<Vec<u8>, ErrorCode> {
    let page = if fields.is_empty() { 0 } else { fields.u8()? };
    fields.end()?;
    match page {
        0 => Ok(first_page(device)),
        1 if device.firmware >= firmware::SECOND_PAGE => Ok(EMULATOR_MARK.as_bytes().to_vec()),
        _ => Err(ErrorCode::InvalidData),
    }
}

fn first_page(device: &Device) -> Vec<u8> {
    let (major, minor, patch) = device.firmware;
    let mut page = vec![major, minor, patch];
    page.extend(device.identity.serial.to_be_bytes());
    page.extend([
        u8::try_from(LOG_LIMIT).unwrap_or(u8::MAX),
        device.audit.used(),
    ]);
    page.extend(Algorithm::of(device.firmware).map(Algorithm::byte));
    page
}

/// GET STORAGE INFO: records and pages, in all and free, and the length of a page.
pub(crate) fn storage_info(device: &Device, fields: Fields<'_>) -> Result<Vec<u8>, ErrorCode> {
    fields.end()?;
    let (records, pages) = device.store.free();
    let numbers = [OBJECT_LIMIT, records, PAGE_COUNT, pages, PAGE_LENGTH];
    let bytes = |number| u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes();
    Ok(numbers.into_iter().flat_map(bytes).collect())
}

/// GET PSEUDO RANDOM.
pub(crate) fn pseudo_random(
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let length = fields.u16()?;
    fields.end()?;
    authority
        .capabilities
        .require(Capabilities::GET_PSEUDO_RANDOM)?;
    let mut bytes = vec![0; usize::from(length)];
    getrandom::fill(&mut bytes).map_err(|_| ErrorCode::CommandUnexecuted)?;
    Ok(bytes)
}

/// BLINK DEVICE: there is nothing to blink.
pub(crate) fn blink(mut fields: Fields<'_>) -> Result<Vec<u8>, ErrorCode> {
    fields.u8()?;
    fields.end()?;
    Ok(Vec::new())
}

/// RESET DEVICE: only the permission; the device resets once the answer is sealed.
pub(crate) fn reset(authority: &Authority, fields: Fields<'_>) -> Result<Vec<u8>, ErrorCode> {
    fields.end()?;
    authority.capabilities.require(Capabilities::RESET_DEVICE)?;
    Ok(Vec::new())
}
