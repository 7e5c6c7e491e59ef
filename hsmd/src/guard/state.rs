//! Everything that replaying the journal yields: the pinned keys and their high-water marks.
//!
//! The same rules run in three places: at replay, on the guard's own copy at the moment an entry is handed
//! to the journal, and on the journal's copy once that entry is durable.

mod anchor;
mod import;
mod officers;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hsm_device::{Identity, PublicKey};
use hsm_policy::cometbft::{ChainId, Position};
use hsm_policy::conflict::{Last, Mark};
use hsm_policy::officers::{Nonce, Officers};
use hsm_proto::v1 as wire;

use super::entry;
use super::ledger::{Binding, Row, Seen};
use anchor::AnchorChange;
use officers::Authority;
use snapshot::audit_mark;

pub use anchor::{AnchorMark, Bounds, Tail};
pub use officers::{Signed, officers_to_wire};

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

    /// What an event changes. All that can be wrong with an event is found here, so that nothing wrong
    /// is handed to the journal, which could never be replayed then.
    pub(super) fn plan(&self, event: wire::entry::Event) -> Result<Change, String> {
        use wire::entry::Event;
        match event {
            Event::StateCreated(created) => Ok(Change::Created(created)),
            Event::AnchorBound(bound) => self.plan_rebound(bound),
            Event::AnchorAdvanced(advanced) => self.plan_advanced(advanced),
            Event::TailUnproven(unproven) => Self::plan_unproven(&unproven),
            Event::TailAccepted(accepted) => self.plan_accepted(&accepted),
            Event::DeviceAdded(added) => self.plan_device(added),
            Event::DaemonStarted(started) => Ok(Change::Policy(started.policy_digest)),
            Event::DaemonStopped(_) => Ok(Change::Stopped),
            Event::Refused(_) | Event::CheckpointMade(_) | Event::CheckpointCosigned(_) => {
                Ok(Change::None)
            }
            Event::CheckpointBegun(begun) => self.plan_checkpoint(begun),
            Event::DeviceFailed(failed) => Ok(Change::Asked(failed.calls)),
            Event::DeviceAudit(audit) => self.plan_audit(audit),
            Event::AlarmAcknowledged(seen) => self.plan_acknowledgement(seen),
            Event::KeyPinned(pinned) => self.plan_pin(pinned),
            Event::KeyAdvanced(advanced) => self.plan_advance(advanced),
            Event::Reserved(reserved) => self.plan_mark(reserved),
            Event::Signed(signed) => self.plan_signed(signed),
            Event::LedgerBound(seen) => self.plan_ledger(seen, Bound),
            Event::LedgerSeen(seen) => self.plan_ledger(seen, Followed),
            Event::LedgerReconciled(seen) => self.plan_ledger(seen, Reconciled),
            Event::LedgerDistrusted(distrusted) => self.plan_distrust(distrusted),
            Event::OfficersSet(set) => {
                let (officers, used) = self.plan_officers(set)?;
                Ok(Change::Officers(officers, used))
            }
            Event::StateImported(imported) => self.plan_import(&imported),
            Event::KeyRecovered(recovered) => {
                let used = self.plan_authorisation(recovered.authorisation.as_ref())?;
                let pinned = recovered
                    .pinned
                    .ok_or("a recovered key that is not named")?;
                Ok(Change::Authorised(Box::new(self.plan_pin(pinned)?), used))
            }
        }
    }

    /// Makes the change that [`Self::plan`] found for the entry with this index.
    pub(super) fn commit(
        &mut self,
        index: u64,
        time: &prost_types::Timestamp,
        leaf: Option<hsm_journal::Hash>,
        change: Change,
    ) {
        match change {
            Change::None => {}
            Change::Created(created) => {
                self.deployment_id = created.deployment_id;
                if let Some(bound) = created.anchor.map(Self::plan_bound) {
                    self.commit_anchor(bound);
                }
            }
            Change::Anchor(change) => self.commit_anchor(change),
            Change::Device(key, name, identity) => self.commit_device(key, name, identity),
            Change::Policy(digest) => {
                self.policy_digest = digest;
                self.stopped = false;
            }
            Change::Stopped => self.stopped = true,
            Change::Asked(calls) => self.asked = self.asked.saturating_add(calls),
            Change::Checkpoint(public_key) => {
                self.asked = self.asked.saturating_add(1);
                self.checkpoint_keys.insert(public_key);
            }
            Change::Audit(device, mut mark) => {
                mark.asked = self.asked;
                self.audits.insert(device, mark);
            }
            Change::Acknowledged(device, seen) => {
                if let Some(mark) = self.audits.get_mut(&device) {
                    mark.unknown_signatures = mark.unknown_signatures.saturating_sub(seen);
                }
            }
            Change::Pin(place, pinned, row, devices) => {
                let shared = place.clone();
                self.commit_pin(place, *pinned);
                if let (Some(known), Some((mark, binding))) = (self.at(&shared), row) {
                    known.take_in(mark, (index, leaf), time);
                    known.ledger = Some(binding);
                }
                self.devices.extend(devices);
            }
            Change::Officers(officers, used) => {
                self.authority.officers = Some(officers);
                if let Some(used) = used {
                    self.commit_authorisation(time.seconds, used);
                }
            }
            Change::Authorised(change, used) => {
                self.commit_authorisation(time.seconds, used);
                self.commit(index, time, leaf, *change);
            }
            Change::Import(place, import) => self.commit_import(index, time, &place, *import),
            Change::Advance(place, height) => {
                if let Some(known) = self.at(&place) {
                    known.mark.initial_height = height;
                }
            }
            Change::Ledger(place, mark, binding) => {
                if let Some(known) = self.at(&place) {
                    known.take_in(mark, (index, leaf), time);
                    known.ledger = Some(binding);
                }
            }
            Change::Distrust(place, reason) => {
                let binding = self.at(&place).and_then(|known| known.ledger.as_mut());
                if let Some(binding) = binding {
                    binding.distrusted = Some(reason);
                }
            }
            Change::Mark(place, last, signatures, revision) => {
                let asked = 1 + u64::from(last.extension_sign_bytes.is_some());
                self.asked = self.asked.saturating_add(asked);
                if let Some(known) = self.at(&place) {
                    if let Some(binding) = &mut known.ledger {
                        binding.revision = binding.revision.max(revision);
                    }
                    known.mark.last = Some(last);
                    known.made = Some(Box::new(Made {
                        index,
                        time: *time,
                        signatures,
                        leaf,
                        imported: false,
                    }));
                }
            }
            Change::Signed(place, reserved_index, signatures) => {
                let made = self.at(&place).and_then(|known| known.made.as_mut());
                if let Some(made) = made.filter(|made| made.index == reserved_index) {
                    // What was answered first is answered again.
                    let kept = made.signatures.get_or_insert_with(|| signatures.clone());
                    kept.extension = kept.extension.take().or(signatures.extension);
                }
            }
        }
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

    fn plan_pin(&self, pinned: wire::KeyPinned) -> Result<Change, String> {
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

    fn commit_pin(&mut self, (public_key, chain): Place, pinned: wire::KeyPinned) {
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

    fn plan_checkpoint(&self, begun: wire::CheckpointBegun) -> Result<Change, String> {
        let public_key = entry::public_key_from_wire(begun.public_key)?;
        if self.keys.contains_key(&public_key) {
            return Err(format!("consensus key {public_key} asked for a checkpoint"));
        }
        Ok(Change::Checkpoint(public_key))
    }

    fn plan_audit(&self, audit: wire::DeviceAudit) -> Result<Change, String> {
        let unknown = audit.signatures.iter().map(|made| made.unknown);
        let unknown = unknown.fold(0, u64::saturating_add);
        let before = self.audits.get(&audit.device);
        let mark = audit_mark(audit.last_number, &audit.last_digest)?;
        let unknown_signatures = before.map_or(0, |before| before.unknown_signatures);
        let unknown_signatures = unknown_signatures.saturating_add(unknown);
        Ok(Change::Audit(
            audit.device,
            AuditMark {
                unknown_signatures,
                ..mark
            },
        ))
    }

    fn plan_acknowledgement(&self, seen: wire::AlarmAcknowledged) -> Result<Change, String> {
        let mark = self.audits.get(&seen.device);
        let unknown = mark.map_or(0, |mark| mark.unknown_signatures);
        if seen.unknown_signatures > unknown {
            let (device, seen) = (seen.device, seen.unknown_signatures);
            return Err(format!(
                "{seen} unknown signatures of device {device} acknowledged, and there are {unknown}"
            ));
        }
        Ok(Change::Acknowledged(seen.device, seen.unknown_signatures))
    }

    fn plan_advance(&self, advanced: wire::KeyAdvanced) -> Result<Change, String> {
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

    fn plan_mark(&self, reserved: wire::Reserved) -> Result<Change, String> {
        let (place, known) = self.known(reserved.public_key, &reserved.chain_id)?;
        let position = entry::position_from_wire(reserved.position)?;
        let timestamp = entry::timestamp_from_wire(reserved.timestamp)?;
        let mut signatures = None;
        if let Some(last) = &known.mark.last {
            if position < last.position {
                let last = last.position;
                return Err(format!("a reservation at {position} after one at {last}"));
            }
            if position == last.position {
                if reserved.sign_bytes != last.sign_bytes {
                    return Err(format!("two different reservations at {position}"));
                }
                // An extension signed anew repeats the vote, so the vote's signature still holds.
                let earlier = known
                    .made
                    .as_ref()
                    .and_then(|made| made.signatures.as_ref());
                signatures = earlier.map(|earlier| Signatures {
                    message: earlier.message.clone(),
                    extension: None,
                });
            }
        }
        let last = Last {
            position,
            sign_bytes: reserved.sign_bytes,
            timestamp,
            extension_sign_bytes: reserved.extension_sign_bytes,
        };
        let revision = reserved.ledger_revision;
        Ok(Change::Mark(place, last, signatures, revision))
    }

    fn plan_ledger(&self, seen: wire::LedgerMark, how: How) -> Result<Change, String> {
        let (place, seen) = seen_from_wire(seen)?;
        let (key, chain) = &place;
        let known = self
            .mark(key, chain)
            .ok_or_else(|| format!("key {key} was never made known for chain {chain}"))?;
        let row = seen.row.as_ref().ok_or("a ledger without a row")?;
        let fits = match (&known.ledger, how) {
            (None, Bound) => row.mark.covers(&known.mark),
            (Some(binding), Followed) => {
                let judged = binding.judge(&known.mark, 0, &seen);
                judged.map_err(|doubt| doubt.to_string())?;
                binding.distrusted.is_none()
            }
            (Some(binding), Reconciled) => {
                row.ledger_id == binding.ledger_id
                    && row.generation > binding.generation
                    && row.members.is_superset(&binding.members)
                    && row.mark.covers(&known.mark)
            }
            (Some(_), Bound) | (None, Followed | Reconciled) => false,
        };
        if !fits {
            return Err(format!(
                "a row of ledger {} that does not follow from what was seen before",
                row.ledger_id
            ));
        }
        let binding = Binding::of(row, seen.cluster_id, seen.revision);
        let mark = row.mark.clone();
        Ok(Change::Ledger(place, mark, Box::new(binding)))
    }

    fn plan_distrust(&self, distrusted: wire::LedgerDistrusted) -> Result<Change, String> {
        let (place, known) = self.known(distrusted.public_key, &distrusted.chain_id)?;
        if known.ledger.is_none() {
            return Err("a ledger is distrusted that the key is not bound to".to_owned());
        }
        Ok(Change::Distrust(place, distrusted.reason))
    }

    fn plan_signed(&self, signed: wire::Signed) -> Result<Change, String> {
        let (place, _) = self.known(signed.public_key, &signed.chain_id)?;
        for signature in [&signed.signature, &signed.extension_signature] {
            if !(signature.is_empty() || signature.len() == 64) {
                return Err(format!("a signature of {} bytes", signature.len()));
            }
        }
        if signed.signature.is_empty() {
            return Err("an outcome without a signature".to_owned());
        }
        let signatures = Signatures {
            message: signed.signature,
            extension: Some(signed.extension_signature).filter(|bytes| !bytes.is_empty()),
        };
        Ok(Change::Signed(place, signed.reserved_index, signatures))
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

    /// Raises the mark to a ledger's, by the entry with this index and leaf hash. What was signed here for the same
    /// message is kept.
    fn take_in(
        &mut self,
        mark: Mark,
        (index, leaf): (u64, Option<hsm_journal::Hash>),
        time: &prost_types::Timestamp,
    ) {
        let message = |last: &Last| (last.position, last.sign_bytes.clone());
        if mark.last.as_ref().map(message) != self.mark.last.as_ref().map(message) {
            self.made = Some(Box::new(Made {
                index,
                leaf,
                time: *time,
                signatures: None,
                imported: false,
            }));
        } else if mark.last != self.mark.last
            && let Some(signatures) = self.made.as_mut().and_then(|made| made.signatures.as_mut())
        {
            signatures.extension = None;
        }
        self.mark = mark;
    }
}

/// How a row came into the journal.
#[derive(Clone, Copy)]
enum How {
    Bound,
    Followed,
    Reconciled,
}
use How::{Bound, Followed, Reconciled};

fn seen_from_wire(seen: wire::LedgerMark) -> Result<(Place, Seen), String> {
    let public_key = entry::named_public_key(seen.public_key)?;
    let chain = ChainId::new(&seen.chain_id).map_err(|error| error.to_string())?;
    let row = seen.row.map(Row::from_wire).transpose()?;
    let seen = Seen {
        cluster_id: seen.cluster_id,
        revision: seen.revision,
        row,
    };
    Ok(((public_key, chain), seen))
}

/// What a key that is made known gets from its ledger.
fn bind(seen: &Seen, initial_height: i64) -> Result<(Mark, Box<Binding>), String> {
    let row = seen.row.as_ref().ok_or("a ledger without a row")?;
    if row.mark.initial_height < initial_height {
        return Err("a row below the height that a key was made known at".to_owned());
    }
    let binding = Binding::of(row, seen.cluster_id, seen.revision);
    Ok((row.mark.clone(), Box::new(binding)))
}

/// A key on a chain.
pub(super) type Place = (PublicKey, ChainId);

/// What an event changes in the state, checked.
pub(super) enum Change {
    None,
    Created(wire::StateCreated),
    Anchor(AnchorChange),
    Device(PublicKey, String, Identity),
    Policy(Vec<u8>),
    Stopped,
    Asked(u64),
    Checkpoint(PublicKey),
    Audit(String, AuditMark),
    /// Of this device, this many unknown signatures.
    Acknowledged(String, u64),
    Pin(
        Place,
        Box<wire::KeyPinned>,
        Option<(Mark, Box<Binding>)>,
        Vec<(String, Identity)>,
    ),
    Advance(Place, i64),
    Mark(Place, Last, Option<Signatures>, u64),
    Ledger(Place, Mark, Box<Binding>),
    Distrust(Place, String),
    Signed(Place, u64, Signatures),
    Officers(Officers, Option<(Nonce, i64)>),
    Import(Place, Box<import::Import>),
    /// A change that officers allowed, and the nonce that it uses up.
    Authorised(Box<Change>, (Nonce, i64)),
}
