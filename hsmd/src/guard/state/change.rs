//! What each event changes: found out first, whole, and only then made.

use hsm_device::{Identity, PublicKey};
use hsm_policy::conflict::{Last, Mark};
use hsm_policy::officers::{Nonce, Officers};
use hsm_proto::v1 as wire;

use super::anchor::AnchorChange;
use super::import;
use super::ledger::{Bound, Followed, Reconciled};
use super::{AuditMark, Binding, Freeze, Frozen, Made, Place, PolicyMark, Signatures, State};

/// What an event changes in the state, checked.
pub(in crate::guard) enum Change {
    None,
    Created(wire::StateCreated),
    Anchor(AnchorChange),
    Device(PublicKey, String, Identity),
    Started(Vec<u8>),
    Policy(PolicyMark),
    Frozen(Frozen, Freeze),
    Thawed(Frozen),
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

impl State {
    /// What an event changes. All that can be wrong with an event is found here, so that nothing wrong
    /// is handed to the journal, which could never be replayed then.
    pub(in crate::guard) fn plan(&self, event: wire::entry::Event) -> Result<Change, String> {
        use wire::entry::Event;
        match event {
            Event::StateCreated(created) => Ok(Change::Created(created)),
            Event::AnchorBound(bound) => self.plan_rebound(bound),
            Event::AnchorAdvanced(advanced) => self.plan_advanced(advanced),
            Event::TailUnproven(unproven) => Self::plan_unproven(&unproven),
            Event::TailAccepted(accepted) => self.plan_accepted(&accepted),
            Event::DeviceAdded(added) => self.plan_device(added),
            Event::DaemonStarted(started) => Ok(Change::Started(started.policy_digest)),
            Event::DaemonStopped(_) => Ok(Change::Stopped),
            Event::Refused(_)
            | Event::DocumentRefused(_)
            | Event::CheckpointMade(_)
            | Event::CheckpointCosigned(_) => Ok(Change::None),
            Event::Frozen(frozen) => Ok(Self::plan_freeze(frozen)),
            Event::Thawed(thawed) => self.plan_thaw(&thawed),
            Event::PolicyLoaded(loaded) => Ok(Change::Policy(self.plan_policy(loaded)?)),
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
            Event::LedgerJournalReplaced(replaced) => self.plan_replaced(replaced),
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
    pub(in crate::guard) fn commit(
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
            Change::Policy(policy) => self.policy = Some(policy),
            Change::Frozen(frozen, freeze) => {
                self.freezes.insert(frozen, freeze);
            }
            Change::Thawed(frozen) => {
                self.freezes.remove(&frozen);
            }
            Change::Started(digest) => {
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
                    if known.ledger.is_none() {
                        // See `Binding::bound_at`.
                        known.bounds.in_force = None;
                    }
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
}
