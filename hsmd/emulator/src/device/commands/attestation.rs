//! Attestation: a certificate that says of a key where it came from and what it may do.

use super::key::usable;
use crate::device::capability::{Authority, Capabilities};
use crate::device::certificate::{Issuer, Value};
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::object::{Object, ObjectType};
use crate::device::private_key::PrivateKey;
use crate::device::store::FACTORY_ID;
use crate::device::{Device, random};

/// SIGN ATTESTATION CERTIFICATE: X.509, DER. Signed by the factory's key (0), or by an asymmetric key whose
/// certificate is the opaque object with the same identifier.
pub(crate) fn sign(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let attesting_id = fields.u16()?;
    fields.end()?;
    let needed = Capabilities::SIGN_ATTESTATION_CERTIFICATE;
    authority.capabilities.require(needed)?;
    let attested = device
        .store
        .get((ObjectType::AsymmetricKey, id), authority.domains)?;
    if attesting_id == FACTORY_ID {
        return certify(device, attested, &device.identity.issuer()?);
    }
    let signer = usable(
        device,
        authority,
        ObjectType::AsymmetricKey,
        attesting_id,
        needed,
    )?;
    let certificate = device
        .store
        .get((ObjectType::Opaque, attesting_id), authority.domains)?;
    let Content::Opaque(certificate) = &certificate.content else {
        return Err(ErrorCode::InvalidData);
    };
    let issuer = Issuer::new(
        private_key(signer)?,
        signer.properties.algorithm,
        certificate,
    )?;
    certify(device, attested, &issuer)
}

fn certify(device: &Device, attested: &Object, issuer: &Issuer<'_>) -> Result<Vec<u8>, ErrorCode> {
    let key = private_key(attested)?;
    let p = &attested.properties;
    let label = p.label.split(|byte| *byte == 0).next().unwrap_or_default();
    let (major, minor, patch) = device.firmware;
    let extensions = [
        (1, Value::Octets(&[major, minor, patch])),
        (2, Value::Integer(&device.identity.serial.to_be_bytes())),
        (3, Value::Bits(&[attested.origin.byte()])),
        (4, Value::Bits(&p.domains.0.to_be_bytes())),
        (5, Value::Bits(&p.capabilities.0.to_be_bytes())),
        (6, Value::Integer(&p.id.to_be_bytes())),
        (9, Value::Text(label)),
    ];
    let name = format!("YubiHSM Attestation id 0x{:04x}", p.id);
    issuer.certify(&random::<16>()?, &name, key, p.algorithm, &extensions)
}

fn private_key(object: &Object) -> Result<&PrivateKey, ErrorCode> {
    match &object.content {
        Content::Private(key) => Ok(key),
        _ => Err(ErrorCode::InvalidData),
    }
}
