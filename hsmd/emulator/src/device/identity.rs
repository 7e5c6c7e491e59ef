//! Who the device says it is: serial number, and a factory certificate that says EMULATOR.

use std::ops::RangeInclusive;

use super::Firmware;
use super::algorithm::Algorithm;
use super::capability::{Capabilities, Domains};
use super::certificate::{Issuer, Value};
use super::content::Content;
use super::error::ErrorCode;
use super::object::{LABEL_LENGTH, Object, Origin, Properties};
use super::private_key::PrivateKey;
use super::store::FACTORY_ID;

/// Serial numbers of emulators. The vendor's are smaller by far; outside of this range the emulator does
/// not start.
pub const EMULATOR_SERIALS: RangeInclusive<u32> = 4_200_000_000..=4_200_999_999;

/// Stands in the common name of the subject and the issuer of every emulator's factory certificate
/// (opaque object 0) and is the part number on the second page of its device information.
pub const EMULATOR_MARK: &str = "EMULATOR";

/// Algorithm of the attestation key.
pub(crate) const ATTESTATION_ALGORITHM: Algorithm = Algorithm::EcP256;

/// What the factory gives to a device, and no reset takes from it.
pub(crate) struct Identity {
    pub(crate) serial: u32,
    /// The P-256 attestation key (asymmetric key 0).
    pub(crate) attestation_key: PrivateKey,
    /// X.509 DER, signed by the attestation key itself.
    pub(crate) certificate: Vec<u8>,
}

impl Identity {
    /// Makes an attestation key and its certificate.
    pub(crate) fn manufacture(serial: u32, firmware: Firmware) -> Result<Self, ErrorCode> {
        let key = PrivateKey::generate(ATTESTATION_ALGORITHM)?;
        let name = format!("YubiHSM {EMULATOR_MARK} ({serial}): protects nothing");
        let number = serial.to_be_bytes();
        let (major, minor, patch) = firmware;
        let certificate = Issuer::own(&key, ATTESTATION_ALGORITHM, &name)?.certify_itself(
            &number,
            &[
                (1, Value::Octets(&[major, minor, patch])),
                (2, Value::Integer(&number)),
            ],
        )?;
        Ok(Self {
            serial,
            attestation_key: key,
            certificate,
        })
    }

    /// Who signs attestations where no other key is named.
    pub(crate) fn issuer(&self) -> Result<Issuer<'_>, ErrorCode> {
        Issuer::new(
            &self.attestation_key,
            ATTESTATION_ALGORITHM,
            &self.certificate,
        )
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
