//! Everything that replaying the journal yields: the pinned keys and their high-water marks.
//!
//! The same rules run in three places: at replay, on the guard's own copy at the moment an entry is handed
//! to the journal, and on the journal's copy once that entry is durable.

mod anchor;
mod audit;
mod change;
mod freeze;
mod import;
mod keys;
mod ledger;
mod officers;
mod policy;
mod signing;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hsm_device::{Identity, PublicKey};
use hsm_policy::cometbft::{ChainId, Position};
use hsm_policy::conflict::Mark;
use hsm_proto::v1 as wire;

use super::entry;
use super::ledger::Binding;
use freeze::Freezes;
use officers::Authority;

pub use anchor::{AnchorMark, Bounds, Tail};
pub use freeze::{Freeze, Frozen};
pub use officers::{Signed, officers_to_wire};
pub use policy::PolicyMark;
pub(super) use policy::policy_to_wire;

/// The pinned keys and their marks.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// 16 random bytes, made once, that tell this deployment from every other.
    deployment_id: Vec<u8>,
    policy_digest: Vec<u8>,
    keys: HashMap<PublicKey, PinnedKey>,
    names: HashMap<String, PublicKey>,
    devices: BTreeMap<String, Identity>,
    audits: BTreeMap<String, AuditMark>,
    asked: u64,
    stopped: bool,
    anchor: Option<AnchorMark>,
    unproven: Option<Tail>,
    checkpoint_keys: BTreeSet<PublicKey>,
    authority: Authority,
    policy: Option<PolicyMark>,
    freezes: Freezes,
}

/// The last checkpoint of a device's own audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditMark {
    /// The number of the last entry that was read.
    pub number: u16,
    /// Its digest; none where it could not be read.
    pub digest: Option<[u8; 16]>,
    /// [`State::asked`] at that moment.
    pub asked: u64,
    /// Signatures in the device's log that hsmd did not ask for, of all checkpoints, and not acknowledged.
    pub unknown_signatures: u64,
}

/// A public key that was made known.
#[derive(Clone, Debug, Default)]
pub struct PinnedKey {
    /// The names it was made known under.
    pub names: Vec<String>,
    /// The devices that showed it.
    pub devices: Vec<String>,
    /// One mark a chain. Boxed, since a tree's node has room for eleven and most keys have one.
    pub chains: BTreeMap<ChainId, Box<ChainMark>>,
}

/// The mark of a (public key, chain id), and where in the journal it stands.
#[derive(Clone, Debug)]
pub struct ChainMark {
    /// What `hsm_policy::conflict::judge` compares a request with.
    pub mark: Mark,
    /// The entry that made `mark.last`; `None` where nothing was reserved yet. Boxed, since most of many keys never sign.
    pub made: Option<Box<Made>>,
    /// The ledger through which other signers share the mark.
    pub ledger: Option<Box<Binding>>,
    /// Between which heights it may sign; all 0 where there never was an anchor.
    pub bounds: Bounds,
    /// The last position at which an imported state knew another message: somebody signed twice.
    pub contested: Option<Position>,
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
    /// The leaf's RFC 6962 hash, where it was made since the start.
    pub(super) leaf: Option<hsm_journal::Hash>,
    /// Whether another signer reserved it, whose state was imported: no caller here asked for it yet.
    pub imported: bool,
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

    /// All public keys that were made known, in no order.
    pub fn keys(&self) -> impl Iterator<Item = (&PublicKey, &PinnedKey)> {
        self.keys.iter()
    }

    /// Whether checkpoints were asked of this key: it never becomes a consensus key.
    #[must_use]
    pub fn makes_checkpoints(&self, key: &PublicKey) -> bool {
        self.checkpoint_keys.contains(key)
    }

    /// The mark of a key on a chain.
    #[must_use]
    pub fn mark(&self, key: &PublicKey, chain: &ChainId) -> Option<&ChainMark> {
        self.keys.get(key)?.chains.get(chain).map(Box::as_ref)
    }

    /// 16 random bytes that tell this deployment from every other.
    #[must_use]
    pub fn deployment_id(&self) -> &[u8] {
        &self.deployment_id
    }

    /// All keys and chains whose marks are shared through a ledger.
    #[must_use]
    pub fn in_ledgers(&self) -> Vec<(PublicKey, ChainId)> {
        let places = self.keys.iter().flat_map(|(key, pinned)| {
            let shared = pinned
                .chains
                .iter()
                .filter(|(_, known)| known.ledger.is_some());
            shared.map(|(chain, _)| (*key, chain.clone()))
        });
        places.collect()
    }

    /// Whether a key's mark on a chain is shared through a ledger.
    #[must_use]
    pub fn is_in_ledger(&self, (key, chain): &(PublicKey, ChainId)) -> bool {
        self.mark(key, chain)
            .is_some_and(|known| known.ledger.is_some())
    }

    /// The ledger that a key is bound to on a chain, 32 lower-case hexadecimal digits; empty where there is none.
    #[must_use]
    pub fn ledger_id(&self, key: &PublicKey, chain: &ChainId) -> String {
        let binding = self
            .mark(key, chain)
            .and_then(|known| known.ledger.as_ref());
        binding.map_or_else(String::new, |binding| binding.ledger_id.to_string())
    }

    /// Who the device of this name has to be, where that was pinned.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&Identity> {
        self.devices.get(name)
    }

    /// The last checkpoint of the device's audit log.
    #[must_use]
    pub fn audit(&self, device: &str) -> Option<&AuditMark> {
        self.audits.get(device)
    }

    /// How many signatures may have been asked of devices since the deployment began: messages and extensions
    /// reserved, and failures of devices.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// Whether hsmd was stopped cleanly, and not started since.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes in one event of the journal.
    ///
    /// # Errors
    ///
    /// A sentence for people, where the event contradicts what came before it. Nothing is changed then.
    pub fn apply_event(
        &mut self,
        index: u64,
        time: &prost_types::Timestamp,
        event: wire::entry::Event,
    ) -> Result<(), String> {
        let change = self.plan(event)?;
        self.commit(index, time, None, change);
        Ok(())
    }

    pub(super) fn at(&mut self, (key, chain): &Place) -> Option<&mut ChainMark> {
        let chains = &mut self.keys.get_mut(key)?.chains;
        chains.get_mut(chain).map(Box::as_mut)
    }

    fn known(
        &self,
        key: Option<wire::PublicKey>,
        chain: &str,
    ) -> Result<(Place, &ChainMark), String> {
        let key = entry::named_public_key(key)?;
        let chain = ChainId::new(chain).map_err(|error| error.to_string())?;
        let known = self.mark(&key, &chain);
        let known =
            known.ok_or_else(|| format!("key {key} was never made known for chain {chain}"))?;
        Ok(((key, chain), known))
    }
}

impl ChainMark {
    pub(super) fn new(mark: Mark) -> Self {
        Self {
            mark,
            made: None,
            ledger: None,
            contested: None,
            bounds: Bounds::default(),
        }
    }
}

/// A key on a chain.
pub(super) type Place = (PublicKey, ChainId);
