//! SIGN SSH CERTIFICATE: the device as a certificate authority of OpenSSH, within the limits of a template.
//!
//! Source: the vendor's user guide, "SIGN SSH CERTIFICATE" and "OpenSSH Certificates"; the vendor's
//! `yubihsm-ssh-tool` for the formats; OpenSSH, `PROTOCOL.certkeys`.

use super::asymmetric::rsa_key;
use crate::device::Device;
use crate::device::algorithm::Algorithm;
use crate::device::capability::{Authority, Capabilities};
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::hash::{self, Hash};
use crate::device::object::ObjectType;
use crate::device::private_key::rsa::RsaPublic;

/// Length of the time in bytes: seconds since 1970.
const TIME_LENGTH: usize = 4;

/// SIGN SSH CERTIFICATE: key, template, algorithm, time, the time authority's signature, request. Answers
/// with what is to be appended to the request: the signature in the form that OpenSSH wants.
pub(crate) fn sign(
    device: &Device,
    authority: &Authority,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let (id, template_id) = (fields.u16()?, fields.u16()?);
    let algorithm = fields.u8()?;
    let time: [u8; TIME_LENGTH] = fields.array()?;
    let key = rsa_key(device, authority, id, Capabilities::SIGN_SSH_CERTIFICATE)?;
    let object = device
        .store
        .get((ObjectType::Template, template_id), authority.domains)?;
    let Content::Template(template) = &object.content else {
        return Err(ErrorCode::InvalidData);
    };
    let template = Template::parse(template).ok_or(ErrorCode::InvalidData)?;
    let algorithm = Algorithm::from_byte(algorithm)?;
    device.require(algorithm)?;
    let hash = Hash::of(algorithm, hash::PKCS1)?;
    let name: &[u8] = match hash {
        Hash::Sha1 => b"ssh-rsa",
        Hash::Sha256 => b"rsa-sha2-256",
        Hash::Sha512 => b"rsa-sha2-512",
        // OpenSSH has none.
        Hash::Sha384 => return Err(ErrorCode::InvalidData),
    };
    let (approval, request) = fields
        .rest()
        .split_at_checked(template.time_authority.modulus().len())
        .ok_or(ErrorCode::WrongLength)?;
    let principals = principals(request).ok_or(ErrorCode::InvalidData)?;
    if !template.permits(id, &principals) || !template.is_approved(request, time, approval) {
        return Err(ErrorCode::SshConstraintViolation);
    }
    let signature = key.sign_pkcs1(&hash.digest(&[request]))?;
    Ok(string(&[string(name), string(&signature)].concat()))
}

/// What may be signed. The fields "not before" and "not after" are read, but bind nothing here: no document
/// says what exactly they bound.
struct Template<'a> {
    /// Whose word is taken for the time.
    time_authority: RsaPublic,
    /// Identifiers of the keys that may sign.
    keys: &'a [[u8; 2]],
    /// Names for which no certificate is made, each ended by a zero.
    refused: &'a [u8],
}

impl<'a> Template<'a> {
    /// Tag, length of two bytes and value of six fields, in this order.
    fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let mut field = |wanted: u8| {
            let (&[tag, high, low], rest) = bytes.split_first_chunk::<3>()?;
            let (value, rest) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())?;
            bytes = rest;
            (tag == wanted).then_some(value)
        };
        let &[algorithm] = field(1)? else { return None };
        let algorithm = Algorithm::from_byte(algorithm).ok()?;
        let time_authority = RsaPublic::import(algorithm, field(2)?).ok()?;
        let (keys, []) = field(3)?.as_chunks() else {
            return None;
        };
        let (not_before, not_after, refused) = (field(4)?, field(5)?, field(6)?);
        let times = [not_before, not_after];
        (times.iter().all(|time| time.len() == TIME_LENGTH) && bytes.is_empty()).then_some(Self {
            time_authority,
            keys,
            refused,
        })
    }

    fn permits(&self, key: u16, principals: &[&[u8]]) -> bool {
        let mut refused = self.refused.split(|byte| *byte == 0);
        let is_refused = refused.any(|name| !name.is_empty() && principals.contains(&name));
        self.keys.contains(&key.to_be_bytes()) && !is_refused
    }

    /// Whether the time authority signed the request and the time.
    fn is_approved(&self, request: &[u8], time: [u8; TIME_LENGTH], signature: &[u8]) -> bool {
        let hash = Hash::Sha256;
        let digest = hash.digest(&[&hash.digest(&[request]), &time]);
        self.time_authority.verifies_pkcs1(hash, &digest, signature)
    }
}

/// The names that the certificate shall be for; `None` if the request is not an OpenSSH certificate up to its
/// signature.
fn principals(request: &[u8]) -> Option<Vec<&[u8]>> {
    let mut reader = Reader(request);
    let key_strings = match reader.string()? {
        b"ssh-rsa-cert-v01@openssh.com" => 2,
        b"ssh-ed25519-cert-v01@openssh.com" => 1,
        b"ecdsa-sha2-nistp256-cert-v01@openssh.com"
        | b"ecdsa-sha2-nistp384-cert-v01@openssh.com"
        | b"ecdsa-sha2-nistp521-cert-v01@openssh.com" => 2,
        _ => return None,
    };
    let _nonce = reader.string()?;
    for _ in 0..key_strings {
        reader.string()?;
    }
    let _serial = reader.number()?;
    let _kind: [u8; 4] = reader.array()?;
    let _identity = reader.string()?;
    let mut names = Reader(reader.string()?);
    let (_valid_after, _valid_before) = (reader.number()?, reader.number()?);
    for _critical_options_extensions_reserved_authority in 0..4 {
        reader.string()?;
    }
    let mut principals = Vec::new();
    while !names.0.is_empty() {
        principals.push(names.string()?);
    }
    reader.0.is_empty().then_some(principals)
}

/// Reads SSH's types (RFC 4251, 5) from front to back.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).ok()?;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    // No answer is as long as 4 GiB.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}
