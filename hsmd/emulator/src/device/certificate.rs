//! X.509 certificates: the factory's, and attestations of keys.
//!
//! Source: the vendor's user guide, "Attestation" (what an attestation takes over, and the types of its
//! extensions).

use pkcs8::ObjectIdentifier;
use pkcs8::der::asn1::{Any, AnyRef, BitString, Uint, Utf8StringRef};
use pkcs8::der::{Decode as _, Encode, Reader as _, SliceReader, Tag, TagNumber, Tagged as _};

use super::algorithm::Algorithm;
use super::error::ErrorCode;
use super::private_key::PrivateKey;

/// `id-at-commonName` (RFC 5280).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// `ecdsa-with-SHA256` (RFC 5758).
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
/// `sha256WithRSAEncryption` (RFC 8017).
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
/// `id-ce-basicConstraints` (RFC 5280).
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");

/// From 2026 on, and without an end (RFC 5280, 4.1.2.5).
const FROM: (Tag, &[u8]) = (Tag::UtcTime, b"260101000000Z");
const WITHOUT_END: (Tag, &[u8]) = (Tag::GeneralizedTime, b"99991231235959Z");

/// What stands in an attestation's own extensions.
pub(crate) enum Value<'a> {
    Octets(&'a [u8]),
    /// Big endian, not negative.
    Integer(&'a [u8]),
    Bits(&'a [u8]),
    Text(&'a [u8]),
}

/// An extension: the vendor's arc 1.3.6.1.4.1.41482.4, this number, and the value.
pub(crate) type Extension<'a> = (u32, Value<'a>);

/// Who signs: a key, and what its certificate says of it. Both in DER.
pub(crate) struct Issuer<'a> {
    pub(crate) key: &'a PrivateKey,
    pub(crate) algorithm: Algorithm,
    name: Vec<u8>,
    validity: Vec<u8>,
}

impl<'a> Issuer<'a> {
    /// The issuer whose certificate this is; [`ErrorCode::InvalidData`] if it is none.
    pub(crate) fn new(
        key: &'a PrivateKey,
        algorithm: Algorithm,
        certificate: &[u8],
    ) -> Result<Self, ErrorCode> {
        let (name, validity) = subject_and_validity(certificate).ok_or(ErrorCode::InvalidData)?;
        Ok(Self {
            key,
            algorithm,
            name,
            validity,
        })
    }

    /// An issuer that makes its own certificate.
    pub(crate) fn own(
        key: &'a PrivateKey,
        algorithm: Algorithm,
        common_name: &str,
    ) -> Result<Self, ErrorCode> {
        let time = |(tag, text): (Tag, &[u8])| value(tag, text);
        Ok(Self {
            key,
            algorithm,
            name: name(common_name)?,
            validity: sequence(&[time(FROM)?, time(WITHOUT_END)?])?,
        })
    }

    /// Its own certificate, which may sign others.
    pub(crate) fn certify_itself(
        &self,
        serial: &[u8],
        extensions: &[Extension<'_>],
    ) -> Result<Vec<u8>, ErrorCode> {
        let is_authority = sequence(&[der(&true)?])?;
        let constraints = sequence(&[
            der(&BASIC_CONSTRAINTS)?,
            der(&true)?,
            value(Tag::OctetString, &is_authority)?,
        ])?;
        let key = self.key.public_key_info(self.algorithm)?;
        let extensions = [vec![constraints], encode_all(extensions)?].concat();
        self.sign(serial, self.name.clone(), der(&key)?, &extensions)
    }

    /// A certificate for another key, valid as long as the issuer's own.
    pub(crate) fn certify(
        &self,
        serial: &[u8],
        common_name: &str,
        key: &PrivateKey,
        algorithm: Algorithm,
        extensions: &[Extension<'_>],
    ) -> Result<Vec<u8>, ErrorCode> {
        let key = der(&key.public_key_info(algorithm)?)?;
        self.sign(serial, name(common_name)?, key, &encode_all(extensions)?)
    }

    fn sign(
        &self,
        serial: &[u8],
        subject: Vec<u8>,
        key: Vec<u8>,
        extensions: &[Vec<u8>],
    ) -> Result<Vec<u8>, ErrorCode> {
        let scheme = match self.key {
            PrivateKey::Rsa(_) => sequence(&[der(&RSA_SHA256)?, der(&AnyRef::NULL)?])?,
            PrivateKey::Ec(_) => sequence(&[der(&ECDSA_SHA256)?])?,
            PrivateKey::Ed25519(_) => return Err(ErrorCode::InvalidData),
        };
        const VERSION_3: u8 = 2;
        let certificate = sequence(&[
            explicit(0, &der(&VERSION_3)?)?,
            integer(serial)?,
            scheme.clone(),
            self.name.clone(),
            self.validity.clone(),
            subject,
            key,
            explicit(3, &sequence(extensions)?)?,
        ])?;
        let signature = self.key.sign_sha256(&certificate)?;
        sequence(&[certificate, scheme, bits(&signature)?])
    }
}

/// Subject and validity of a certificate, in DER.
fn subject_and_validity(certificate: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let outer = elements(AnyRef::from_der(certificate).ok()?)?;
    let to_be_signed = elements(*outer.first()?)?;
    let fields = match to_be_signed.split_first()? {
        (version, rest) if version.tag() != Tag::Integer => rest,
        // Version 1, which is not written.
        _ => &to_be_signed,
    };
    let [_serial, _scheme, _issuer, validity, subject, ..] = fields else {
        return None;
    };
    let is_sequence = |field: &AnyRef<'_>| field.tag() == Tag::Sequence;
    if !is_sequence(validity) || !is_sequence(subject) {
        return None;
    }
    Some((subject.to_der().ok()?, validity.to_der().ok()?))
}

fn elements(sequence: AnyRef<'_>) -> Option<Vec<AnyRef<'_>>> {
    if sequence.tag() != Tag::Sequence {
        return None;
    }
    let mut reader = SliceReader::new(sequence.value()).ok()?;
    let mut elements = Vec::new();
    while !reader.is_finished() {
        elements.push(AnyRef::decode(&mut reader).ok()?);
    }
    Some(elements)
}

/// A name that consists of a common name alone.
fn name(common_name: &str) -> Result<Vec<u8>, ErrorCode> {
    let text = Utf8StringRef::new(common_name).map_err(|_| ErrorCode::CommandUnexecuted)?;
    let attribute = sequence(&[der(&COMMON_NAME)?, der(&text)?])?;
    sequence(&[value(Tag::Set, &attribute)?])
}

fn encode_all(extensions: &[Extension<'_>]) -> Result<Vec<Vec<u8>>, ErrorCode> {
    let encode = |(number, value): &Extension<'_>| {
        let id = ObjectIdentifier::new(&format!("1.3.6.1.4.1.41482.4.{number}"))
            .map_err(|_| ErrorCode::CommandUnexecuted)?;
        let inner = match value {
            Value::Octets(bytes) => self::value(Tag::OctetString, bytes)?,
            Value::Integer(bytes) => integer(bytes)?,
            Value::Bits(bytes) => bits(bytes)?,
            Value::Text(bytes) => self::value(Tag::Utf8String, bytes)?,
        };
        sequence(&[der(&id)?, self::value(Tag::OctetString, &inner)?])
    };
    extensions.iter().map(encode).collect()
}

fn integer(bytes: &[u8]) -> Result<Vec<u8>, ErrorCode> {
    der(&Uint::new(bytes).map_err(|_| ErrorCode::CommandUnexecuted)?)
}

fn bits(bytes: &[u8]) -> Result<Vec<u8>, ErrorCode> {
    der(&BitString::from_bytes(bytes).map_err(|_| ErrorCode::CommandUnexecuted)?)
}

fn sequence(parts: &[Vec<u8>]) -> Result<Vec<u8>, ErrorCode> {
    value(Tag::Sequence, &parts.concat())
}

fn explicit(number: u32, inner: &[u8]) -> Result<Vec<u8>, ErrorCode> {
    let tag = Tag::ContextSpecific {
        constructed: true,
        number: TagNumber(number),
    };
    value(tag, inner)
}

fn value(tag: Tag, bytes: &[u8]) -> Result<Vec<u8>, ErrorCode> {
    der(&Any::new(tag, bytes).map_err(|_| ErrorCode::CommandUnexecuted)?)
}

fn der(value: &impl Encode) -> Result<Vec<u8>, ErrorCode> {
    value.to_der().map_err(|_| ErrorCode::CommandUnexecuted)
}
