//! Keys that are made known, and heights that are raised.

use hsm_policy::cometbft::ChainId;
use hsm_policy::conflict::Mark;
use hsm_proto::v1 as wire;

use super::change::Change;
use super::ledger::{bind, seen_from_wire};
use super::{ChainMark, Place, State, entry};

impl State {
    pub(super) fn plan_pin(&self, pinned: wire::KeyPinned) -> Result<Change, String> {
        let public_key = entry::public_key_from_wire(pinned.public_key.clone())?;
        let chain = ChainId::new(&pinned.chain_id).map_err(|error| error.to_string())?;
        if self.makes_checkpoints(&public_key) {
            return Err(format!("checkpoint key {public_key} pinned for {chain}"));
        }
        if self
            .pinned(&pinned.key)
            .is_some_and(|known| known != public_key)
        {
            return Err(format!("key {} pinned to a second public key", pinned.key));
        }
        if self.mark(&public_key, &chain).is_some() {
            return Err(format!("key {} pinned twice for chain {chain}", pinned.key));
        }
        let mut devices = Vec::with_capacity(pinned.device_identities.len());
        for shown in &pinned.device_identities {
            let shown_by = entry::identity_from_wire(shown)?;
            let known = self.devices.get(&shown.device);
            if known.is_some_and(|known| !known.admits(&shown_by)) {
                return Err(format!("device {} pinned twice", shown.device));
            }
            devices.push((shown.device.clone(), shown_by));
        }
        let mut row = None;
        if let Some(seen) = pinned.ledger.clone() {
            let (place, seen) = seen_from_wire(seen)?;
            let bound = bind(&seen, pinned.initial_height)?;
            if place != (public_key, chain.clone()) {
                return Err(format!("key {} pinned to another key's row", pinned.key));
            }
            row = Some(bound);
        }
        Ok(Change::Pin(
            (public_key, chain),
            Box::new(pinned),
            row,
            devices,
        ))
    }

    pub(super) fn commit_pin(&mut self, (public_key, chain): Place, pinned: wire::KeyPinned) {
        let key = self.keys.entry(public_key).or_default();
        let mark = Mark {
            initial_height: pinned.initial_height,
            last: None,
        };
        key.chains.insert(chain, Box::new(ChainMark::new(mark)));
        for device in pinned.devices {
            if !key.devices.contains(&device) {
                key.devices.push(device);
            }
        }
        if !key.names.contains(&pinned.key) {
            key.names.push(pinned.key.clone());
        }
        self.names.insert(pinned.key, public_key);
    }

    pub(super) fn plan_advance(&self, advanced: wire::KeyAdvanced) -> Result<Change, String> {
        let (place, known) = self.known(advanced.public_key, &advanced.chain_id)?;
        let (from, to) = (known.mark.height(), advanced.initial_height);
        if to <= from {
            return Err(format!("height {to} of an advance is not above {from}"));
        }
        if known.ledger.is_some() {
            return Err("a mark in a ledger is advanced there".to_owned());
        }
        Ok(Change::Advance(place, to))
    }
}
