//! What is common to all objects: properties of a new one, listing, information, deletion.

use crate::device::Device;
use crate::device::algorithm::Algorithm;
use crate::device::capability::{Authority, Capabilities, Domains};
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::object::{LABEL_LENGTH, Object, ObjectType, Properties};
use crate::device::store::FACTORY_ID;

/// Reads what every command that makes an object begins with: identifier, label, domains, capabilities
/// and algorithm. With `delegates` also the capabilities that the new key may give to others.
pub(crate) fn properties(
    fields: &mut Fields<'_>,
    delegates: bool,
) -> Result<Properties, ErrorCode> {
    let id = fields.u16()?;
    let label = fields.array()?;
    let domains = Domains(fields.u16()?);
    let capabilities = Capabilities(fields.u64()?);
    let algorithm = fields.u8()?;
    let delegated = if delegates {
        Capabilities(fields.u64()?)
    } else {
        Capabilities::NONE
    };
    let algorithm = Algorithm::from_byte(algorithm)?;
    Ok(Properties {
        id,
        label,
        domains,
        capabilities,
        algorithm,
        delegated,
    })
}

/// Whether a session may make an object with these properties: it needs `needed` itself, and can give
/// only capabilities that were delegated to it, in domains of its own.
pub(crate) fn permit(
    authority: &Authority,
    needed: Capabilities,
    properties: &Properties,
) -> Result<(), ErrorCode> {
    authority.capabilities.require(needed)?;
    authority.delegated.require(properties.capabilities)?;
    authority.delegated.require(properties.delegated)?;
    if properties.domains == Domains(0) {
        return Err(ErrorCode::InvalidData);
    }
    if !authority.domains.contains(properties.domains) {
        return Err(ErrorCode::InsufficientPermissions);
    }
    Ok(())
}

/// LIST OBJECTS: identifier, type and sequence of all objects in the session's domains that pass every
/// filter.
pub(crate) fn list(
    device: &Device,
    authority: &Authority,
    fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let filters = filters(fields)?;
    let visible = |object: &&Object| object.properties.domains.intersects(authority.domains);
    let entry = |object: &Object| {
        let [high, low] = object.properties.id.to_be_bytes();
        [high, low, object.kind().byte(), object.sequence]
    };
    let passes = |object: &&Object| filters.iter().all(|filter| filter.passes(object));
    Ok(device
        .store
        .iter()
        .filter(visible)
        .filter(passes)
        .flat_map(entry)
        .collect())
}

/// One filter of LIST OBJECTS.
enum Filter {
    Id(u16),
    Type(u8),
    /// At least one of these.
    Domains(Domains),
    /// At least one of these.
    Capabilities(Capabilities),
    Algorithm(u8),
    Label([u8; LABEL_LENGTH]),
}

impl Filter {
    fn passes(&self, object: &Object) -> bool {
        let p = &object.properties;
        match self {
            Self::Id(id) => p.id == *id,
            Self::Type(kind) => object.kind().byte() == *kind,
            Self::Domains(domains) => p.domains.intersects(*domains),
            Self::Capabilities(capabilities) => p.capabilities.intersects(*capabilities),
            Self::Algorithm(algorithm) => p.algorithm.byte() == *algorithm,
            Self::Label(label) => p.label == *label,
        }
    }
}

fn filters(mut fields: Fields<'_>) -> Result<Vec<Filter>, ErrorCode> {
    let mut filters = Vec::new();
    while !fields.is_empty() {
        filters.push(match fields.u8()? {
            0x01 => Filter::Id(fields.u16()?),
            0x02 => Filter::Type(fields.u8()?),
            0x03 => Filter::Domains(Domains(fields.u16()?)),
            0x04 => Filter::Capabilities(Capabilities(fields.u64()?)),
            0x05 => Filter::Algorithm(fields.u8()?),
            0x06 => Filter::Label(fields.array()?),
            _ => return Err(ErrorCode::InvalidData),
        });
    }
    Ok(filters)
}

/// GET OBJECT INFO.
pub(crate) fn information(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let kind = fields.u8()?;
    fields.end()?;
    let kind = device.object_type(kind)?;
    if (kind, id) == (ObjectType::Opaque, FACTORY_ID) {
        return Ok(device.identity.certificate_object().information());
    }
    Ok(device
        .store
        .get((kind, id), authority.domains)?
        .information())
}

/// DELETE OBJECT.
pub(crate) fn delete(
    device: &mut Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let id = fields.u16()?;
    let kind = fields.u8()?;
    fields.end()?;
    let kind = device.object_type(kind)?;
    authority.capabilities.require(kind.delete_capability())?;
    device.store.delete((kind, id), authority.domains)?;
    Ok(Vec::new())
}
