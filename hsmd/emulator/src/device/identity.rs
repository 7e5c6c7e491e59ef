//! Who the device says it is: serial number, and a factory certificate that says EMULATOR.

use std::ops::RangeInclusive;

use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SerialNumber};
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::capability::{Capabilities, Domains};
use super::content::Content;
use super::object::{LABEL_LENGTH, Object, Origin, Properties};
use super::store::FACTORY_ID;

/// Serial numbers of emulators. The vendor's are smaller by far; outside of this range the emulator does
/// not start.
pub const EMULATOR_SERIALS: RangeInclusive<u32> = 4_200_000_000..=4_200_999_999;

/// Stands in the common name of the subject and the issuer of every emulator's factory certificate
/// (opaque object 0) and is the part number on the second page of its device information.
pub const EMULATOR_MARK: &str = "EMULATOR";

/// The vendor's object identifiers of attestation extensions: firmware version and serial number.
const FIRMWARE_OID: [u64; 9] = [1, 3, 6, 1, 4, 1, 41482, 4, 1];
const SERIAL_OID: [u64; 9] = [1, 3, 6, 1, 4, 1, 41482, 4, 2];

/// What the factory gives to a device, and no reset takes from it.
pub(crate) struct Identity {
    pub(crate) serial: u32,
    /// PKCS#8 DER of the P-256 attestation key (asymmetric key 0).
    pub(crate) attestation_key: Zeroizing<Vec<u8>>,
    /// X.509 DER, signed by the attestation key itself.
    pub(crate) certificate: Vec<u8>,
}

impl Identity {
    /// Makes an attestation key and its certificate.
    pub(crate) fn manufacture(serial: u32, firmware: (u8, u8, u8)) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let name = format!("YubiHSM {EMULATOR_MARK} ({serial}): protects nothing");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(u64::from(serial)));
        let (major, minor, patch) = firmware;
        params.custom_extensions = vec![
            CustomExtension::from_oid_content(&FIRMWARE_OID, vec![0x04, 3, major, minor, patch]),
            CustomExtension::from_oid_content(&SERIAL_OID, der_integer(serial)),
        ];
        let certificate = params.self_signed(&key)?.der().to_vec();
        Ok(Self {
            serial,
            attestation_key: Zeroizing::new(key.serialize_der()),
            certificate,
        })
    }

    /// The certificate as opaque object 0: readable in every domain, in no list, not deletable.
    pub(crate) fn certificate_object(&self) -> Object {
        Object {
            properties: Properties {
                id: FACTORY_ID,
                label: [0; LABEL_LENGTH],
                domains: Domains::ALL,
                capabilities: Capabilities::NONE,
                algorithm: Algorithm::OpaqueX509Certificate,
                delegated: Capabilities::NONE,
            },
            origin: Origin::IMPORTED,
            sequence: 0,
            content: Content::Opaque(self.certificate.clone()),
        }
    }
}

/// DER INTEGER; a leading zero keeps it positive.
fn der_integer(value: u32) -> Vec<u8> {
    let [a, b, c, d] = value.to_be_bytes();
    vec![0x02, 5, 0, a, b, c, d]
}
