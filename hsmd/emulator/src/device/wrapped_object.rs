//! An object as it leaves the device: a header of 59 bytes, then what it holds.
//!
//! Source: the header and the bodies of symmetric, EC, RSA and HMAC keys as the vendor's `yubihsm-wrap`
//! (repository `yubihsm-shell`, folder `yhwrap`) writes them; both forms of Ed25519 keys as `signstar-yubihsm2`
//! reads them from a device.

use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::capability::{Capabilities, Domains};
use super::content::Content;
use super::error::ErrorCode;
use super::frame::Fields;
use super::object::{Object, ObjectType, Origin, Properties};
use super::private_key::PrivateKey;
use super::private_key::rsa::RsaKey;
use super::private_key::wrapped::Ed25519Form;

const INNER_PAD: u8 = 0x36;
const OUTER_PAD: u8 = 0x5c;

/// Writes the object for a wrap key of the given algorithm.
pub(crate) fn encode(
    object: &Object,
    wrap_algorithm: Algorithm,
    form: Ed25519Form,
) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
    let p = &object.properties;
    let body = body(object, form)?;
    let length = u16::try_from(body.len()).map_err(|_| ErrorCode::WrongLength)?;
    let header = [
        &[wrap_algorithm.byte()][..],
        &p.capabilities.0.to_be_bytes(),
        &p.id.to_be_bytes(),
        &length.to_be_bytes(),
        &p.domains.0.to_be_bytes(),
        &[
            object.kind().byte(),
            p.algorithm.byte(),
            object.sequence,
            object.origin.byte(),
        ],
        &p.label,
    ]
    .concat();
    Ok(Zeroizing::new([&header[..], &body].concat()))
}

/// Reads what [`encode`] wrote. The sequence is not taken over: it counts what the receiving device had.
///
/// # Errors
/// [`ErrorCode::InvalidData`] if the header names another wrap algorithm or what there is not,
/// [`ErrorCode::WrongLength`] if its length is not that of the body, or what the body lacks.
pub(crate) fn decode(
    bytes: &[u8],
    wrap_algorithm: Algorithm,
) -> Result<(Properties, Origin, Content), ErrorCode> {
    let mut fields = Fields::new(bytes);
    if fields.u8()? != wrap_algorithm.byte() {
        return Err(ErrorCode::InvalidData);
    }
    let capabilities = Capabilities(fields.u64()?);
    let id = fields.u16()?;
    let length = fields.u16()?;
    let domains = Domains(fields.u16()?);
    let kind = fields.u8()?;
    let algorithm = fields.u8()?;
    let _sequence = fields.u8()?;
    let origin = fields.u8()?;
    let label = fields.array()?;
    if fields.rest().len() != usize::from(length) {
        return Err(ErrorCode::WrongLength);
    }
    let kind = ObjectType::from_byte(kind)?;
    let algorithm = Algorithm::from_byte(algorithm)?;
    let origin = Origin::from_byte(origin).ok_or(ErrorCode::InvalidData)?;
    let delegated = if kind.delegates() {
        Capabilities(fields.u64()?)
    } else {
        Capabilities::NONE
    };
    let content = content(kind, algorithm, fields.rest())?;
    let properties = Properties {
        id,
        label,
        domains,
        capabilities,
        algorithm,
        delegated,
    };
    Ok((properties, origin, content))
}

fn body(object: &Object, form: Ed25519Form) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
    let key = match &object.content {
        Content::Private(key) => key.to_wrapped(form)?,
        Content::RsaWrap(key) => key.to_wrapped(),
        Content::Hmac(key) => {
            let pad = |with: u8| key.iter().map(move |byte| byte ^ with);
            Zeroizing::new(pad(INNER_PAD).chain(pad(OUTER_PAD)).collect())
        }
        content => content.export(),
    };
    if !object.kind().delegates() {
        return Ok(key);
    }
    let delegated = object.properties.delegated.0.to_be_bytes();
    Ok(Zeroizing::new([&delegated, key.as_slice()].concat()))
}

fn content(kind: ObjectType, algorithm: Algorithm, bytes: &[u8]) -> Result<Content, ErrorCode> {
    match (kind, algorithm) {
        (ObjectType::AsymmetricKey, _) => {
            PrivateKey::from_wrapped(algorithm, bytes).map(Content::Private)
        }
        (ObjectType::WrapKey, Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096) => {
            RsaKey::from_wrapped(algorithm, bytes).map(Content::RsaWrap)
        }
        (ObjectType::HmacKey, _) => {
            let (inner, outer) = bytes.split_at(bytes.len() / 2);
            let unpad = |bytes: &[u8], pad| -> Zeroizing<Vec<u8>> {
                Zeroizing::new(bytes.iter().map(|byte| byte ^ pad).collect())
            };
            let key = unpad(inner, INNER_PAD);
            let content = Content::import(kind, algorithm, &key)?;
            if key != unpad(outer, OUTER_PAD) || content.length() != bytes.len() {
                return Err(ErrorCode::InvalidData);
            }
            Ok(content)
        }
        _ => Content::import(kind, algorithm, bytes),
    }
}
