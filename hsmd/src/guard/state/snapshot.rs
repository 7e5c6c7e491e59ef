//! The state as a segment's snapshot, and back.

use std::collections::BTreeMap;

use hsm_policy::cometbft::ChainId;
use hsm_policy::conflict::{Last, Mark};
use hsm_proto::v1 as wire;
use prost::Message as _;
use prost::encoding::{self, DecodeContext, WireType};

use super::anchor::{anchor_from_wire, anchor_to_wire, tail_from_wire, tail_to_wire};
use super::freeze::{freezes_from_wire, freezes_to_wire};
use super::officers::Authority;
use super::policy::{policy_from_wire, policy_to_wire};
use super::{AuditMark, Bounds, ChainMark, Made, PinnedKey, Signatures, State};
use crate::guard::entry;
use crate::guard::ledger::Binding;

impl hsm_journal::State for State {
    fn restore(snapshot: &[u8]) -> Result<Self, String> {
        let mut state = Self::default();
        let snapshot = state.restore_keys(snapshot)?;
        state.authority = Authority::restore(&snapshot)?;
        state.deployment_id = snapshot.deployment_id;
        state.policy_digest = snapshot.policy_digest;
        state.freezes = freezes_from_wire(snapshot.freezes);
        state.policy = snapshot.policy.map(policy_from_wire).transpose()?;
        state.asked = snapshot.asked;
        state.stopped = snapshot.stopped;
        state.anchor = snapshot.anchor.map(anchor_from_wire);
        let unproven = snapshot.unproven;
        let unproven = unproven.map(|tail| tail_from_wire(tail.size, &tail.root));
        state.unproven = unproven.transpose()?;
        for key in snapshot.checkpoint_keys {
            state
                .checkpoint_keys
                .insert(entry::public_key_from_wire(Some(key))?);
        }
        for device in snapshot.device_identities {
            let identity = entry::identity_from_wire(&device)?;
            let twice = format!("device {} stands twice in the snapshot", device.device);
            if state.devices.insert(device.device, identity).is_some() {
                return Err(twice);
            }
        }
        for audit in snapshot.audit_marks {
            let mark = AuditMark {
                asked: audit.asked,
                unknown_signatures: audit.unknown_signatures,
                ..audit_mark(audit.last_number, &audit.last_digest)?
            };
            let twice = format!("device {} was audited twice in the snapshot", audit.device);
            if state.audits.insert(audit.device, mark).is_some() {
                return Err(twice);
            }
        }
        Ok(state)
    }

    fn apply(&mut self, index: u64, leaf: &[u8]) -> Result<(), String> {
        let (time, event) = entry::decode(leaf)?;
        self.apply_event(index, &time, event)
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut keys: Vec<wire::PinnedKey> = self
            .keys
            .iter()
            .map(|(public_key, key)| wire::PinnedKey {
                names: key.names.clone(),
                public_key: Some(entry::public_key_to_wire(public_key)),
                devices: key.devices.clone(),
                marks: key
                    .chains
                    .iter()
                    .map(|(chain, known)| mark_to_wire(chain, known))
                    .collect(),
            })
            .collect();
        keys.sort_by(|a, b| a.names.cmp(&b.names));
        let mut snapshot = wire::Snapshot {
            deployment_id: self.deployment_id.clone(),
            keys,
            policy_digest: self.policy_digest.clone(),
            device_identities: self
                .devices
                .iter()
                .map(|(device, identity)| entry::identity_to_wire(device, identity))
                .collect(),
            audit_marks: self.audits.iter().map(audit_to_wire).collect(),
            freezes: freezes_to_wire(&self.freezes),
            policy: self.policy.as_ref().map(policy_to_wire),
            asked: self.asked,
            stopped: self.stopped,
            anchor: self.anchor.as_ref().map(anchor_to_wire),
            unproven: self.unproven.as_ref().map(tail_to_wire),
            checkpoint_keys: self
                .checkpoint_keys
                .iter()
                .map(entry::public_key_to_wire)
                .collect(),
            ..wire::Snapshot::default()
        };
        self.authority.save(&mut snapshot);
        snapshot.encode_to_vec()
    }
}

/// `Snapshot.keys` in proto/hsm/v1/journal.proto.
const KEYS: u32 = 2;

impl State {
    /// Takes a snapshot's keys in, each before the next is decoded: with thousands of them decoded at once, a start
    /// would take twice the memory. Returns the rest.
    fn restore_keys(&mut self, mut snapshot: &[u8]) -> Result<wire::Snapshot, String> {
        let wrong = |error: prost::DecodeError| error.to_string();
        let mut rest = wire::Snapshot::default();
        while !snapshot.is_empty() {
            let (field, wire_type) = encoding::decode_key(&mut snapshot).map_err(wrong)?;
            if field == KEYS && wire_type == WireType::LengthDelimited {
                let length = prost::decode_length_delimiter(&mut snapshot).map_err(wrong)?;
                let (key, after) = snapshot
                    .split_at_checked(length)
                    .ok_or("a key that ends after the snapshot")?;
                self.restore_key(wire::PinnedKey::decode(key).map_err(wrong)?)?;
                snapshot = after;
            } else {
                let context = DecodeContext::default();
                rest.merge_field(field, wire_type, &mut snapshot, context)
                    .map_err(wrong)?;
            }
        }
        Ok(rest)
    }

    fn restore_key(&mut self, mut key: wire::PinnedKey) -> Result<(), String> {
        let public_key = entry::public_key_from_wire(key.public_key)?;
        for name in &key.names {
            if self.names.insert(name.clone(), public_key).is_some() {
                return Err(format!("key {name} pinned to two public keys"));
            }
        }
        key.names.shrink_to_fit();
        key.devices.shrink_to_fit();
        let mut pinned = PinnedKey {
            names: key.names,
            devices: key.devices,
            chains: BTreeMap::new(),
        };
        for mark in key.marks {
            let chain = ChainId::new(&mark.chain_id).map_err(|error| error.to_string())?;
            let twice = format!("key {public_key} has two marks for chain {chain}");
            let mark = Box::new(mark_from_wire(mark)?);
            if pinned.chains.insert(chain, mark).is_some() {
                return Err(twice);
            }
        }
        if self.keys.insert(public_key, pinned).is_some() {
            return Err(format!("key {public_key} stands twice in the snapshot"));
        }
        Ok(())
    }
}

pub(super) fn audit_mark(number: u32, digest: &[u8]) -> Result<AuditMark, String> {
    let length = digest.len();
    Ok(AuditMark {
        number: u16::try_from(number).map_err(|_| format!("an audit entry numbered {number}"))?,
        digest: match digest {
            [] => None,
            digest => Some(
                digest
                    .try_into()
                    .map_err(|_| format!("an audit entry's digest of {length} bytes"))?,
            ),
        },
        asked: 0,
        unknown_signatures: 0,
    })
}

fn audit_to_wire((device, mark): (&String, &AuditMark)) -> wire::AuditMark {
    wire::AuditMark {
        device: device.clone(),
        last_number: mark.number.into(),
        last_digest: mark.digest.map_or_else(Vec::new, |digest| digest.to_vec()),
        asked: mark.asked,
        unknown_signatures: mark.unknown_signatures,
    }
}

fn mark_to_wire(chain: &ChainId, known: &ChainMark) -> wire::Mark {
    let mut mark = wire::Mark {
        chain_id: chain.to_string(),
        initial_height: known.mark.initial_height,
        ledger: known.ledger.as_ref().map(|binding| binding.to_wire()),
        ceiling: known.bounds.ceiling,
        floor: known.bounds.floor,
        contested: known.contested.map(entry::position_to_wire),
        ..wire::Mark::default()
    };
    if let (Some(last), Some(made)) = (&known.mark.last, &known.made) {
        mark.position = Some(entry::position_to_wire(last.position));
        mark.sign_bytes.clone_from(&last.sign_bytes);
        mark.timestamp = Some(entry::timestamp_to_wire(last.timestamp));
        mark.extension_sign_bytes
            .clone_from(&last.extension_sign_bytes);
        mark.reserved_index = made.index;
        mark.reserved_time = Some(made.time);
        mark.imported = made.imported;
        if let Some(signatures) = &made.signatures {
            mark.signature.clone_from(&signatures.message);
            mark.extension_signature = signatures.extension.clone().unwrap_or_default();
        }
    }
    mark
}

fn mark_from_wire(mark: wire::Mark) -> Result<ChainMark, String> {
    let mut known = ChainMark::new(Mark {
        initial_height: mark.initial_height,
        last: None,
    });
    if let Some(binding) = mark.ledger {
        known.ledger = Some(Box::new(Binding::from_wire(binding)?));
    }
    known.bounds = Bounds {
        floor: mark.floor,
        ceiling: mark.ceiling,
        ..Bounds::default()
    };
    known.contested = match mark.contested {
        Some(contested) => Some(entry::position_from_wire(Some(contested))?),
        None => None,
    };
    if mark.position.is_some() {
        known.mark.last = Some(Last {
            position: entry::position_from_wire(mark.position)?,
            sign_bytes: mark.sign_bytes,
            timestamp: entry::timestamp_from_wire(mark.timestamp)?,
            extension_sign_bytes: mark.extension_sign_bytes,
        });
        known.made = Some(Box::new(Made {
            index: mark.reserved_index,
            time: mark.reserved_time.unwrap_or_default(),
            imported: mark.imported,
            signatures: Some(Signatures {
                message: mark.signature,
                extension: Some(mark.extension_signature).filter(|bytes| !bytes.is_empty()),
            })
            .filter(|signatures| !signatures.message.is_empty()),
            leaf: None,
        }));
    }
    Ok(known)
}
