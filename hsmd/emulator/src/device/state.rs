//! What outlives a power cycle, in the form in which it is written to a file.

use p256::SecretKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::algorithm_toggle::AlgorithmToggle;
use super::audit::Audit;
use super::capability::{Capabilities, Domains};
use super::content::Content;
use super::identity::{ATTESTATION_ALGORITHM, EMULATOR_SERIALS, Identity};
use super::object::{LABEL_LENGTH, Object, ObjectType, Origin, Properties};
use super::private_key::PrivateKey;
use super::store::{Name, Store};

/// All that a device remembers. Private keys stand in it in the clear.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    serial: u32,
    attestation_key: Hex,
    certificate: Hex,
    agreement_key: Hex,
    objects: Vec<Record>,
    /// Type, identifier and last sequence number of objects that were deleted.
    last_sequences: Vec<(u8, u16, u8)>,
    audit: Audit,
    algorithms: AlgorithmToggle,
}

impl State {
    /// Serial number of the device whose state this is.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    pub(crate) fn capture(
        identity: &Identity,
        agreement_key: &SecretKey,
        store: &Store,
        audit: &Audit,
        algorithms: &AlgorithmToggle,
    ) -> Self {
        let sequence = |((kind, id), sequence): (Name, u8)| (kind.byte(), id, sequence);
        Self {
            serial: identity.serial,
            attestation_key: Hex(identity.attestation_key.export()),
            certificate: Hex(Zeroizing::new(identity.certificate.clone())),
            agreement_key: Hex(Zeroizing::new(agreement_key.to_bytes().to_vec())),
            objects: store.iter().map(Record::from).collect(),
            last_sequences: store.last_sequences().map(sequence).collect(),
            audit: audit.clone(),
            algorithms: algorithms.clone(),
        }
    }

    /// `None` if no device could be in this state.
    pub(crate) fn restore(self) -> Option<(Identity, SecretKey, Store, Audit, AlgorithmToggle)> {
        if !EMULATOR_SERIALS.contains(&self.serial) || !self.audit.is_possible() {
            return None;
        }
        let identity = Identity {
            serial: self.serial,
            attestation_key: PrivateKey::import(ATTESTATION_ALGORITHM, &self.attestation_key.0)
                .ok()?,
            certificate: self.certificate.0.to_vec(),
        };
        let agreement_key = SecretKey::from_slice(&self.agreement_key.0).ok()?;
        let objects: Option<Vec<_>> = self.objects.iter().map(Record::object).collect();
        let sequence = |(kind, id, last)| Some(((ObjectType::from_byte(kind).ok()?, id), last));
        let sequences: Option<Vec<_>> = self.last_sequences.into_iter().map(sequence).collect();
        let store = Store::restore(objects?, sequences?)?;
        Some((identity, agreement_key, store, self.audit, self.algorithms))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    id: u16,
    kind: u8,
    algorithm: Algorithm,
    label: Hex,
    domains: Domains,
    capabilities: Capabilities,
    delegated: Capabilities,
    origin: u8,
    sequence: u8,
    content: Hex,
}

impl From<&Object> for Record {
    fn from(object: &Object) -> Self {
        let p = &object.properties;
        Self {
            id: p.id,
            kind: object.kind().byte(),
            algorithm: p.algorithm,
            label: Hex(Zeroizing::new(p.label.to_vec())),
            domains: p.domains,
            capabilities: p.capabilities,
            delegated: p.delegated,
            origin: object.origin.byte(),
            sequence: object.sequence,
            content: Hex(object.content.export()),
        }
    }
}

impl Record {
    fn object(&self) -> Option<Object> {
        let label: &[u8; LABEL_LENGTH] = self.label.0.as_slice().try_into().ok()?;
        let kind = ObjectType::from_byte(self.kind).ok()?;
        Some(Object {
            properties: Properties {
                id: self.id,
                label: *label,
                domains: self.domains,
                capabilities: self.capabilities,
                algorithm: self.algorithm,
                delegated: self.delegated,
            },
            origin: Origin::from_byte(self.origin)?,
            sequence: self.sequence,
            content: Content::restore(kind, self.algorithm, &self.content.0).ok()?,
        })
    }
}

/// Bytes, as a hexadecimal string in the file.
struct Hex(Zeroizing<Vec<u8>>);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(hex::encode(self.0.as_slice())))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = hex::decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}
