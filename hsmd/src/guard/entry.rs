//! Between the entries on disk (`hsm/v1/journal.proto`) and the guard's own types.

use std::time::{SystemTime, UNIX_EPOCH};

use hsm_device::{Algorithm, Identity, PublicKey};
use hsm_policy::cometbft::{Height, Position, Round, Step, Timestamp};
use hsm_proto::v1 as wire;
use prost::Message as _;

/// An entry's bytes, as they become a leaf of the journal.
#[must_use]
pub fn encode(time: SystemTime, event: wire::entry::Event) -> Vec<u8> {
    let entry = wire::Entry {
        time: Some(wall_clock(time)),
        event: Some(event),
    };
    entry.encode_to_vec()
}

/// An entry from a leaf of the journal.
///
/// # Errors
///
/// A sentence for people, where the bytes are no entry that this version knows.
pub fn decode(leaf: &[u8]) -> Result<(prost_types::Timestamp, wire::entry::Event), String> {
    let entry = wire::Entry::decode(leaf).map_err(|error| format!("not an entry: {error}"))?;
    let event = entry
        .event
        .ok_or("an entry of a kind that this version does not know")?;
    Ok((entry.time.unwrap_or_default(), event))
}

/// A moment of our own clock as the wire carries it.
#[must_use]
pub fn wall_clock(time: SystemTime) -> prost_types::Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}

/// A message's timestamp to the wire.
#[must_use]
pub fn timestamp_to_wire(timestamp: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: timestamp.seconds(),
        nanos: timestamp.nanos(),
    }
}

pub(super) fn timestamp_from_wire(
    timestamp: Option<prost_types::Timestamp>,
) -> Result<Timestamp, String> {
    let timestamp = timestamp.ok_or("a reservation without a timestamp")?;
    Timestamp::new(timestamp.seconds, timestamp.nanos).map_err(|error| error.to_string())
}

/// A position to the wire.
#[must_use]
pub fn position_to_wire(position: Position) -> wire::Position {
    let step = match position.step {
        Step::Proposal => wire::Step::Proposal,
        Step::Prevote => wire::Step::Prevote,
        Step::Precommit => wire::Step::Precommit,
    };
    wire::Position {
        height: position.height.get(),
        round: position.round.get(),
        step: step.into(),
    }
}

pub(super) fn position_from_wire(position: Option<wire::Position>) -> Result<Position, String> {
    let position = position.ok_or("a reservation without a position")?;
    let step = match position.step() {
        wire::Step::Proposal => Step::Proposal,
        wire::Step::Prevote => Step::Prevote,
        wire::Step::Precommit => Step::Precommit,
        wire::Step::Unspecified => {
            return Err(format!("step {} is none of CometBFT's", position.step));
        }
    };
    Ok(Position {
        height: Height::new(position.height).map_err(|error| error.to_string())?,
        round: Round::new(position.round).map_err(|error| error.to_string())?,
        step,
    })
}

/// A public key to the wire.
#[must_use]
pub fn public_key_to_wire(key: &PublicKey) -> wire::PublicKey {
    wire::PublicKey {
        algorithm: algorithm_to_wire(key.algorithm()).into(),
        bytes: key.as_bytes().to_vec(),
    }
}

pub(super) fn public_key_from_wire(key: Option<wire::PublicKey>) -> Result<PublicKey, String> {
    let named = named_public_key(key)?;
    PublicKey::from_parts(named.algorithm(), named.as_bytes()).map_err(|error| error.to_string())
}

/// For looking up among keys that were checked when they were pinned: whether the bytes are a point of the
/// curve is not asked, since that costs as much as half a signature.
pub(super) fn named_public_key(key: Option<wire::PublicKey>) -> Result<PublicKey, String> {
    let key = key.ok_or("an entry without its public key")?;
    let length = key.bytes.len();
    let wrong = |_| format!("a public key of {length} bytes");
    match key.algorithm() {
        wire::KeyAlgorithm::Ed25519 => key.bytes.try_into().map(PublicKey::Ed25519).map_err(wrong),
        wire::KeyAlgorithm::Secp256k1 => key
            .bytes
            .try_into()
            .map(PublicKey::Secp256k1)
            .map_err(wrong),
        wire::KeyAlgorithm::P256 => key.bytes.try_into().map(PublicKey::P256).map_err(wrong),
        wire::KeyAlgorithm::Unspecified => Err(format!("algorithm {} is unknown", key.algorithm)),
    }
}

/// A device's identity to the wire.
#[must_use]
pub fn identity_to_wire(device: &str, identity: &Identity) -> wire::DeviceIdentity {
    wire::DeviceIdentity {
        device: device.to_owned(),
        model: identity.model.clone(),
        serial: identity.serial.clone(),
        certificate_sha256: identity
            .certificate
            .map_or_else(Vec::new, |digest| digest.to_vec()),
    }
}

pub(super) fn identity_from_wire(identity: &wire::DeviceIdentity) -> Result<Identity, String> {
    let digest = identity.certificate_sha256.as_slice();
    let length = digest.len();
    let certificate = match digest {
        [] => None,
        digest => Some(
            digest
                .try_into()
                .map_err(|_| format!("a certificate's digest of {length} bytes"))?,
        ),
    };
    Ok(Identity {
        model: identity.model.clone(),
        serial: identity.serial.clone(),
        certificate,
    })
}

/// An algorithm to the wire.
#[must_use]
pub fn algorithm_to_wire(algorithm: Algorithm) -> wire::KeyAlgorithm {
    match algorithm {
        Algorithm::Ed25519 => wire::KeyAlgorithm::Ed25519,
        Algorithm::Secp256k1 => wire::KeyAlgorithm::Secp256k1,
        Algorithm::P256 => wire::KeyAlgorithm::P256,
    }
}
