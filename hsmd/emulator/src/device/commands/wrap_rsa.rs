//! RSA wrap keys: a public one wraps, on any device; the private one unwraps, on its own.
//!
//! An AES key for one use wraps the object, or a key alone, with padding (RFC 5649); RSA-OAEP encrypts that
//! AES key and comes first. PKCS#11 calls this `CKM_RSA_AES_KEY_WRAP`.

use aes_kw::{KeyInit as _, KwpAes128, KwpAes192, KwpAes256};
use zeroize::Zeroizing;

use super::object;
use super::wrap::{insert, permit_export, permit_import, require};
use crate::device::algorithm::Algorithm;
use crate::device::capability::{Authority, Capabilities};
use crate::device::content::{Content, random_bytes};
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::hash::Hash;
use crate::device::object::{Object, ObjectType, Origin};
use crate::device::private_key::PrivateKey;
use crate::device::private_key::rsa::{RsaKey, RsaPublic};
use crate::device::private_key::wrapped::Ed25519Form;
use crate::device::{Device, wrapped_object};

/// Padding and wrapping make what is wrapped longer by at most this many bytes.
const SEMIBLOCK: usize = 8;

/// EXPORT RSA WRAPPED: a whole object.
pub(crate) fn export_object(
    device: &Device,
    authority: &Authority,
    fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let export = Export::read(device, authority, fields)?;
    let algorithm = export.wrap_key.properties.algorithm;
    let plaintext = wrapped_object::encode(export.object, algorithm, Ed25519Form::Expanded)?;
    export.seal(&plaintext)
}

/// EXPORT RSA WRAPPED KEY: an asymmetric key as PKCS#8, or the bytes of a symmetric one.
pub(crate) fn export_key(
    device: &Device,
    authority: &Authority,
    fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let export = Export::read(device, authority, fields)?;
    match &export.object.content {
        Content::Private(key) => {
            let algorithm = export.object.properties.algorithm;
            export.seal(&key.to_pkcs8(algorithm)?)
        }
        Content::Symmetric(key) => export.seal(key),
        _ => Err(ErrorCode::InvalidData),
    }
}

/// IMPORT RSA WRAPPED: answers with the type and the identifier of the object.
pub(crate) fn import_object(
    device: &mut Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let wrap_id = fields.u16()?;
    let (wrap_key, key) = private_wrap_key(device, authority, wrap_id)?;
    let padding = Padding::read(device, &mut fields)?;
    let plaintext = open(key, &padding, fields.rest())?;
    let parts = wrapped_object::decode(&plaintext, wrap_key.properties.algorithm)?;
    permit_import(authority, wrap_key, &parts.0)?;
    insert(device, parts)
}

/// IMPORT RSA WRAPPED KEY: as for [`export_key`], with the properties given by the host.
pub(crate) fn import_key(
    device: &mut Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let wrap_id = fields.u16()?;
    let kind = fields.u8()?;
    let properties = object::properties(&mut fields, false)?;
    let (wrap_key, key) = private_wrap_key(device, authority, wrap_id)?;
    permit_import(authority, wrap_key, &properties)?;
    let padding = Padding::read(device, &mut fields)?;
    let plaintext = open(key, &padding, fields.rest())?;
    let algorithm = properties.algorithm;
    let content = match device.object_type(kind)? {
        ObjectType::AsymmetricKey => {
            PrivateKey::from_pkcs8(algorithm, &plaintext).map(Content::Private)?
        }
        ObjectType::SymmetricKey => {
            Content::import(ObjectType::SymmetricKey, algorithm, &plaintext)?
        }
        _ => return Err(ErrorCode::InvalidData),
    };
    insert(device, (properties, Origin::IMPORTED, content))
}

/// What both exports begin with.
struct Export<'a> {
    wrap_key: &'a Object,
    key: &'a RsaPublic,
    object: &'a Object,
    /// Length of the AES key in bytes.
    length: usize,
    padding: Padding,
    label_digest: &'a [u8],
}

impl<'a> Export<'a> {
    fn read(
        device: &'a Device,
        authority: &Authority,
        mut fields: Fields<'a>,
    ) -> Result<Self, ErrorCode> {
        let wrap_id = fields.u16()?;
        let kind = fields.u8()?;
        let id = fields.u16()?;
        let algorithm = fields.u8()?;
        authority
            .capabilities
            .require(Capabilities::EXPORT_WRAPPED)?;
        let wrap_key = device
            .store
            .get((ObjectType::PublicWrapKey, wrap_id), authority.domains)?;
        device.require(wrap_key.properties.algorithm)?;
        let Content::PublicWrap(key) = &wrap_key.content else {
            return Err(ErrorCode::InvalidData);
        };
        require(wrap_key, Capabilities::EXPORT_WRAPPED)?;
        let algorithm = Algorithm::from_byte(algorithm)?;
        let length = match algorithm {
            Algorithm::Aes128 => 16,
            Algorithm::Aes192 => 24,
            Algorithm::Aes256 => 32,
            _ => return Err(ErrorCode::InvalidData),
        };
        device.require(algorithm)?;
        let padding = Padding::read(device, &mut fields)?;
        let label_digest = fields.rest();
        if label_digest.len() != padding.hash.length() {
            return Err(ErrorCode::WrongLength);
        }
        let object = device
            .store
            .get((device.object_type(kind)?, id), authority.domains)?;
        permit_export(wrap_key, object)?;
        Ok(Self {
            wrap_key,
            key,
            object,
            length,
            padding,
            label_digest,
        })
    }

    fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let aes_key = random_bytes(self.length)?;
        let encrypted = self
            .key
            .oaep_encrypt(self.padding.mgf1, self.label_digest, &aes_key)?;
        let mut wrapped = vec![0; (plaintext.len().div_ceil(SEMIBLOCK) + 1) * SEMIBLOCK];
        let done = match aes_key.len() {
            16 => KwpAes128::new_from_slice(&aes_key)
                .map(|kwp| kwp.wrap_key(plaintext, &mut wrapped).map(drop)),
            24 => KwpAes192::new_from_slice(&aes_key)
                .map(|kwp| kwp.wrap_key(plaintext, &mut wrapped).map(drop)),
            _ => KwpAes256::new_from_slice(&aes_key)
                .map(|kwp| kwp.wrap_key(plaintext, &mut wrapped).map(drop)),
        };
        match done {
            Ok(Ok(())) => Ok([encrypted, wrapped].concat()),
            _ => Err(ErrorCode::CommandUnexecuted),
        }
    }
}

/// Opens what [`Export::seal`] made; the digest of the label comes last.
fn open(key: &RsaKey, padding: &Padding, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, ErrorCode> {
    let (encrypted, rest) = bytes
        .split_at_checked(key.modulus_length())
        .ok_or(ErrorCode::WrongLength)?;
    let length = rest.len().checked_sub(padding.hash.length());
    let (wrapped, label_digest) = length
        .and_then(|length| rest.split_at_checked(length))
        .ok_or(ErrorCode::WrongLength)?;
    let aes_key = key.oaep_decrypt(padding.mgf1, label_digest, encrypted)?;
    let mut plaintext = Zeroizing::new(vec![0; wrapped.len()]);
    let opened = match aes_key.len() {
        16 => KwpAes128::new_from_slice(&aes_key)
            .map(|kwp| kwp.unwrap_key(wrapped, &mut plaintext).map(<[u8]>::len)),
        24 => KwpAes192::new_from_slice(&aes_key)
            .map(|kwp| kwp.unwrap_key(wrapped, &mut plaintext).map(<[u8]>::len)),
        32 => KwpAes256::new_from_slice(&aes_key)
            .map(|kwp| kwp.unwrap_key(wrapped, &mut plaintext).map(<[u8]>::len)),
        _ => return Err(ErrorCode::InvalidData),
    };
    match opened {
        Ok(Ok(length)) => {
            plaintext.truncate(length);
            Ok(plaintext)
        }
        _ => Err(ErrorCode::InvalidData),
    }
}

/// The hashes of OAEP: that of the label, and that of MGF1.
struct Padding {
    hash: Hash,
    mgf1: Hash,
}

impl Padding {
    fn read(device: &Device, fields: &mut Fields<'_>) -> Result<Self, ErrorCode> {
        let hash = Algorithm::from_byte(fields.u8()?)?;
        let mgf1 = Algorithm::from_byte(fields.u8()?)?;
        let padding = Self {
            hash: Hash::of_oaep(hash)?,
            mgf1: Hash::of_mgf1(mgf1)?,
        };
        for algorithm in [hash, mgf1, Algorithm::AesKwp] {
            device.require(algorithm)?;
        }
        Ok(padding)
    }
}

/// The private wrap key, provided that session and key may import.
fn private_wrap_key<'a>(
    device: &'a Device,
    authority: &Authority,
    id: u16,
) -> Result<(&'a Object, &'a RsaKey), ErrorCode> {
    let needed = Capabilities::IMPORT_WRAPPED;
    authority.capabilities.require(needed)?;
    let object = device
        .store
        .get((ObjectType::WrapKey, id), authority.domains)?;
    device.require(object.properties.algorithm)?;
    let Content::RsaWrap(key) = &object.content else {
        return Err(ErrorCode::InvalidData);
    };
    require(object, needed)?;
    Ok((object, key))
}
