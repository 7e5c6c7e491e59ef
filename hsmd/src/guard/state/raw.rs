//! Keys that sign payloads, as the journal yields them.

use std::collections::BTreeMap;

use hsm_device::PublicKey;
use hsm_proto::v1 as wire;

use super::State;
use super::change::Change;
use crate::guard::{Error, entry};

/// By name.
pub(super) type RawKeys = BTreeMap<String, PublicKey>;

impl State {
    /// The public key of a key that signs payloads.
    #[must_use]
    pub fn raw_key(&self, name: &str) -> Option<PublicKey> {
        self.raw_keys.get(name).copied()
    }

    /// Whether payloads were asked of this key: it never becomes a consensus key.
    #[must_use]
    pub fn signs_payloads(&self, key: &PublicKey) -> bool {
        self.raw_keys.values().any(|known| known == key)
    }

    /// That a key may sign payloads under this name; a sentence for people where it may not.
    pub(in crate::guard) fn may_sign_payloads(
        &self,
        name: &str,
        key: &PublicKey,
    ) -> Result<(), String> {
        if let Some(known) = self.key(key) {
            let names = known.names.join(", ");
            return Err(format!("public key {key} is consensus key {names}"));
        }
        if self.makes_checkpoints(key) {
            return Err(format!("public key {key} makes the journal's checkpoints"));
        }
        if self.pinned(name).is_some() {
            return Err(format!("{name} is the name of a consensus key"));
        }
        match self.raw_key(name) {
            Some(known) if known != *key => Err(format!(
                "key {name} signed payloads as public key {known}, and the device shows {key}"
            )),
            _ => Ok(()),
        }
    }

    /// That a key never signed payloads, under this name or another.
    ///
    /// # Errors
    ///
    /// [`Error::NotForPayloads`].
    pub(in crate::guard) fn may_sign_for_chains(
        &self,
        name: &str,
        key: &PublicKey,
    ) -> Result<(), Error> {
        if self.signs_payloads(key) || self.raw_key(name).is_some() {
            return Err(Error::NotForPayloads(format!(
                "key {name}, public key {key}, signs payloads"
            )));
        }
        Ok(())
    }

    pub(super) fn plan_raw(&self, reserved: wire::RawReserved) -> Result<Change, String> {
        let key = entry::public_key_from_wire(reserved.public_key)?;
        self.may_sign_payloads(&reserved.key, &key)?;
        Ok(Change::Raw(reserved.key, key))
    }
}

pub(super) fn raw_keys_to_wire(keys: &RawKeys) -> Vec<wire::RawKey> {
    let keys = keys.iter().map(|(name, key)| wire::RawKey {
        key: name.clone(),
        public_key: Some(entry::public_key_to_wire(key)),
    });
    keys.collect()
}

pub(super) fn raw_keys_from_wire(keys: Vec<wire::RawKey>) -> Result<RawKeys, String> {
    let keys = keys.into_iter().map(|key| {
        let public_key = entry::public_key_from_wire(key.public_key)?;
        Ok((key.key, public_key))
    });
    keys.collect()
}
