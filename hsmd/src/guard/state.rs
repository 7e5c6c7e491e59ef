//! Everything that replaying the journal yields: the pinned keys and their high-water marks.
//!
//! The same `apply` runs in three places: at replay, on the guard's own copy at the moment an entry is
//! handed to the journal, and on the journal's copy once that entry is durable.

use std::collections::{BTreeMap, HashMap};

use hsm_device::PublicKey;
use hsm_policy::cometbft::ChainId;
use hsm_policy::conflict::{Last, Mark};
use hsm_proto::v1 as wire;
use prost::Message as _;

use super::entry;

/// The pinned keys and their marks.
#[derive(Clone, Debug, Default)]
pub struct State {
    deployment_id: Vec<u8>,
    policy_digest: Vec<u8>,
    keys: HashMap<PublicKey, PinnedKey>,
    names: HashMap<String, PublicKey>,
}

/// A public key that was made known.
#[derive(Clone, Debug, Default)]
pub struct PinnedKey {
    /// The names it was made known under.
    pub names: Vec<String>,
    /// The devices that showed it.
    pub devices: Vec<String>,
    /// One mark a chain.
    pub chains: BTreeMap<ChainId, ChainMark>,
}

/// The mark of a (public key, chain id), and where in the journal it stands.
#[derive(Clone, Debug)]
pub struct ChainMark {
    /// What `hsm_policy::conflict::judge` compares a request with.
    pub mark: Mark,
    /// The entry that made `mark.last`; `None` where nothing was reserved yet.
    pub made: Option<Made>,
}

/// The reservation behind a mark.
#[derive(Clone, Debug)]
pub struct Made {
    /// The entry's index in the journal.
    pub index: u64,
    /// When it was made, by our clock.
    pub time: prost_types::Timestamp,
    /// The signatures that it led to, once known.
    pub signatures: Option<Signatures>,
}

/// What leaves for a vote or a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signatures {
    /// Over the sign bytes; 64 bytes.
    pub message: Vec<u8>,
    /// Over the extension's sign bytes; 64 bytes.
    pub extension: Option<Vec<u8>>,
}

impl State {
    /// The state of a deployment that has signed nothing.
    #[must_use]
    pub fn new(deployment_id: Vec<u8>) -> Self {
        Self {
            deployment_id,
            ..Self::default()
        }
    }

    /// 16 random bytes, made once, that tell this deployment from every other.
    #[must_use]
    pub fn deployment_id(&self) -> &[u8] {
        &self.deployment_id
    }

    /// The public key that a name was pinned to.
    #[must_use]
    pub fn pinned(&self, name: &str) -> Option<PublicKey> {
        self.names.get(name).copied()
    }

    /// What is known of a public key.
    #[must_use]
    pub fn key(&self, key: &PublicKey) -> Option<&PinnedKey> {
        self.keys.get(key)
    }

    /// The mark of a key on a chain.
    #[must_use]
    pub fn mark(&self, key: &PublicKey, chain: &ChainId) -> Option<&ChainMark> {
        self.keys.get(key)?.chains.get(chain)
    }

    /// Takes in one event of the journal.
    ///
    /// # Errors
    ///
    /// A sentence for people, where the event contradicts what came before it.
    pub fn apply_event(
        &mut self,
        index: u64,
        time: &prost_types::Timestamp,
        event: wire::entry::Event,
    ) -> Result<(), String> {
        use wire::entry::Event;
        match event {
            Event::StateCreated(created) => self.deployment_id = created.deployment_id,
            Event::DaemonStarted(started) => self.policy_digest = started.policy_digest,
            Event::DaemonStopped(_) | Event::Refused(_) => {}
            Event::KeyPinned(pinned) => self.apply_pinned(pinned)?,
            Event::KeyAdvanced(advanced) => self.apply_advanced(advanced)?,
            Event::Reserved(reserved) => self.apply_reserved(index, time, reserved)?,
            Event::Signed(signed) => self.apply_signed(signed)?,
        }
        Ok(())
    }

    fn apply_pinned(&mut self, pinned: wire::KeyPinned) -> Result<(), String> {
        let public_key = entry::public_key_from_wire(pinned.public_key)?;
        let chain = ChainId::new(&pinned.chain_id).map_err(|error| error.to_string())?;
        if self
            .names
            .get(&pinned.key)
            .is_some_and(|known| *known != public_key)
        {
            return Err(format!("key {} pinned to a second public key", pinned.key));
        }
        let key = self.keys.entry(public_key).or_default();
        if key.chains.contains_key(&chain) {
            return Err(format!("key {} pinned twice for chain {chain}", pinned.key));
        }
        let mark = Mark {
            initial_height: pinned.initial_height,
            last: None,
        };
        key.chains.insert(chain, ChainMark { mark, made: None });
        for device in pinned.devices {
            if !key.devices.contains(&device) {
                key.devices.push(device);
            }
        }
        if !key.names.contains(&pinned.key) {
            key.names.push(pinned.key.clone());
        }
        self.names.insert(pinned.key, public_key);
        Ok(())
    }

    fn apply_advanced(&mut self, advanced: wire::KeyAdvanced) -> Result<(), String> {
        let known = self.mark_mut(advanced.public_key, &advanced.chain_id)?;
        if advanced.initial_height <= known.mark.height() {
            return Err(format!(
                "height {} of an advance is not above {}",
                advanced.initial_height,
                known.mark.height()
            ));
        }
        known.mark.initial_height = advanced.initial_height;
        Ok(())
    }

    fn mark_mut(
        &mut self,
        key: Option<wire::PublicKey>,
        chain: &str,
    ) -> Result<&mut ChainMark, String> {
        let key = entry::public_key_from_wire(key)?;
        let chain_id = ChainId::new(chain).map_err(|error| error.to_string())?;
        self.keys
            .get_mut(&key)
            .and_then(|known| known.chains.get_mut(&chain_id))
            .ok_or_else(|| format!("key {key} was never made known for chain {chain}"))
    }

    fn apply_reserved(
        &mut self,
        index: u64,
        time: &prost_types::Timestamp,
        reserved: wire::Reserved,
    ) -> Result<(), String> {
        let position = entry::position_from_wire(reserved.position)?;
        let timestamp = entry::timestamp_from_wire(reserved.timestamp)?;
        let known = self.mark_mut(reserved.public_key, &reserved.chain_id)?;
        if let Some(last) = &known.mark.last {
            if position < last.position {
                return Err(format!(
                    "a reservation at {position} after one at {}",
                    last.position
                ));
            }
            if position == last.position && reserved.sign_bytes != last.sign_bytes {
                return Err(format!("two different reservations at {position}"));
            }
        }
        // An extension signed anew repeats the vote, so the vote's signature still holds.
        let signatures = match (&known.mark.last, &known.made) {
            (Some(last), Some(made)) if last.position == position => {
                made.signatures.as_ref().map(|signatures| Signatures {
                    message: signatures.message.clone(),
                    extension: None,
                })
            }
            _ => None,
        };
        known.mark.last = Some(Last {
            position,
            sign_bytes: reserved.sign_bytes,
            timestamp,
            extension_sign_bytes: reserved.extension_sign_bytes,
        });
        known.made = Some(Made {
            index,
            time: *time,
            signatures,
        });
        Ok(())
    }

    fn apply_signed(&mut self, signed: wire::Signed) -> Result<(), String> {
        let known = self.mark_mut(signed.public_key, &signed.chain_id)?;
        if let Some(made) = &mut known.made
            && made.index == signed.reserved_index
        {
            made.signatures = Some(Signatures {
                message: signed.signature,
                extension: Some(signed.extension_signature).filter(|bytes| !bytes.is_empty()),
            });
        }
        Ok(())
    }
}

impl hsm_journal::State for State {
    fn restore(snapshot: &[u8]) -> Result<Self, String> {
        let snapshot = wire::Snapshot::decode(snapshot).map_err(|error| error.to_string())?;
        let mut state = Self::new(snapshot.deployment_id);
        state.policy_digest = snapshot.policy_digest;
        for key in snapshot.keys {
            let public_key = entry::public_key_from_wire(key.public_key)?;
            for name in &key.names {
                if state.names.insert(name.clone(), public_key).is_some() {
                    return Err(format!("key {name} pinned to two public keys"));
                }
            }
            let mut pinned = PinnedKey {
                names: key.names,
                devices: key.devices,
                chains: BTreeMap::new(),
            };
            for mark in key.marks {
                let chain = ChainId::new(&mark.chain_id).map_err(|error| error.to_string())?;
                pinned.chains.insert(chain, mark_from_wire(mark)?);
            }
            state.keys.insert(public_key, pinned);
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
                marks: key.chains.iter().map(mark_to_wire).collect(),
            })
            .collect();
        keys.sort_by(|a, b| a.names.cmp(&b.names));
        let snapshot = wire::Snapshot {
            deployment_id: self.deployment_id.clone(),
            keys,
            policy_digest: self.policy_digest.clone(),
        };
        snapshot.encode_to_vec()
    }
}

fn mark_to_wire((chain, known): (&ChainId, &ChainMark)) -> wire::Mark {
    let mut mark = wire::Mark {
        chain_id: chain.to_string(),
        initial_height: known.mark.initial_height,
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
        if let Some(signatures) = &made.signatures {
            mark.signature.clone_from(&signatures.message);
            mark.extension_signature = signatures.extension.clone().unwrap_or_default();
        }
    }
    mark
}

fn mark_from_wire(mark: wire::Mark) -> Result<ChainMark, String> {
    let mut known = ChainMark {
        mark: Mark {
            initial_height: mark.initial_height,
            last: None,
        },
        made: None,
    };
    if mark.position.is_some() {
        known.mark.last = Some(Last {
            position: entry::position_from_wire(mark.position)?,
            sign_bytes: mark.sign_bytes,
            timestamp: entry::timestamp_from_wire(mark.timestamp)?,
            extension_sign_bytes: mark.extension_sign_bytes,
        });
        known.made = Some(Made {
            index: mark.reserved_index,
            time: mark.reserved_time.unwrap_or_default(),
            signatures: Some(Signatures {
                message: mark.signature,
                extension: Some(mark.extension_signature).filter(|bytes| !bytes.is_empty()),
            })
            .filter(|signatures| !signatures.message.is_empty()),
        });
    }
    Ok(known)
}
