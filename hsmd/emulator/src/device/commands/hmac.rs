//! HMAC keys.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::key::usable;
use crate::device::Device;
use crate::device::capability::{Authority, Capabilities};
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::hash::{self, Hash};
use crate::device::object::ObjectType;

/// SIGN HMAC: the tag of the data.
pub(crate) fn sign(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let (hash, key) = key(device, authority, id, Capabilities::SIGN_HMAC)?;
    tag(hash, key, fields.rest())
}

/// VERIFY HMAC: the tag, then the data; answers with 1 or 0.
pub(crate) fn verify(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let (hash, key) = key(device, authority, id, Capabilities::VERIFY_HMAC)?;
    let (given, data) = fields
        .rest()
        .split_at_checked(hash.length())
        .ok_or(ErrorCode::WrongLength)?;
    Ok(vec![u8::from(tag(hash, key, data)? == given)])
}

fn key<'a>(
    device: &'a Device,
    authority: &Authority,
    id: u16,
    needed: Capabilities,
) -> Result<(Hash, &'a [u8]), ErrorCode> {
    let object = usable(device, authority, ObjectType::HmacKey, id, needed)?;
    let Content::Hmac(key) = &object.content else {
        return Err(ErrorCode::InvalidData);
    };
    Ok((Hash::of(object.properties.algorithm, hash::HMAC)?, key))
}

fn tag(hash: Hash, key: &[u8], data: &[u8]) -> Result<Vec<u8>, ErrorCode> {
    // HMAC takes keys of any length.
    macro_rules! tag {
        ($digest:ty) => {
            Hmac::<$digest>::new_from_slice(key)
                .map(|mac| mac.chain_update(data).finalize().into_bytes().to_vec())
                .map_err(|_| ErrorCode::CommandUnexecuted)
        };
    }
    match hash {
        Hash::Sha1 => tag!(Sha1),
        Hash::Sha256 => tag!(Sha256),
        Hash::Sha384 => tag!(Sha384),
        Hash::Sha512 => tag!(Sha512),
    }
}
