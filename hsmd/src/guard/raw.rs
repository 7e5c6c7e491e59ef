//! Payloads that are no consensus messages, signed with keys that are for nothing else.

use std::time::SystemTime;

use hsm_device::PublicKey;
use hsm_policy::identity::Caller;
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use sha2::{Digest as _, Sha256};

use super::{Error, Guard, entry};

/// What a caller wants to have signed.
#[derive(Clone, Copy)]
pub struct RawAsk<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// The key's name.
    pub key: &'a str,
    /// The public key that its device shows.
    pub public_key: &'a PublicKey,
    /// What it is for, as the policy has it.
    pub purpose: &'a str,
    /// How it is hashed.
    pub hash: &'static str,
    /// The payload.
    pub payload: &'a [u8],
    /// The version of the policy that permits it; 0 for one that was not loaded.
    pub version: u64,
}

impl Guard {
    /// Journals that the payload will be signed; tells the entry's index when it is durable. From then on the key
    /// signs for no chain and makes no checkpoints.
    ///
    /// # Errors
    ///
    /// [`Error::NotForPayloads`] where it is a consensus key or makes checkpoints, [`Error::Frozen`],
    /// [`Error::PolicyChanged`], [`Error::Journal`].
    pub(crate) async fn reserve_raw(&self, ask: RawAsk<'_>, now: SystemTime) -> Result<u64, Error> {
        let event = Event::RawReserved(wire::RawReserved {
            caller: ask.caller.to_string(),
            key: ask.key.to_owned(),
            public_key: Some(entry::public_key_to_wire(ask.public_key)),
            purpose: ask.purpose.to_owned(),
            hash: ask.hash.to_owned(),
            payload_sha256: Sha256::digest(ask.payload).to_vec(),
            payload_length: ask.payload.len() as u64,
        });
        let entry = {
            let mut state = self.lock()?;
            if ask.version != state.policy_version() {
                return Err(Error::PolicyChanged);
            }
            if let Some(freeze) = state.frozen(ask.key, ask.public_key) {
                return Err(Error::Frozen {
                    key: ask.key.to_owned(),
                    by: freeze.by.clone(),
                });
            }
            state
                .may_sign_payloads(ask.key, ask.public_key)
                .map_err(Error::NotForPayloads)?;
            self.append(&mut state, now, event)?
        };
        let index = entry.ticket.index();
        self.settle(entry).await?;
        Ok(index)
    }
}
