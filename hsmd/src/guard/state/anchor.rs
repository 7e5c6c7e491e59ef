//! What the state knows of its rollback anchor: the counter, and between which heights it lets keys sign.

use hsm_journal::Hash;
use hsm_policy::cometbft::ChainId;
use hsm_proto::v1 as wire;

use super::change::Change;
use super::{Place, State};
use crate::guard::entry;

/// How the journal stands to its anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorMark {
    /// "tpm" or "yubihsm".
    pub kind: String,
    /// Where the anchor stands, or will once the advance that the journal holds was made.
    pub counter: u64,
    /// Nothing was signed since the anchor got there.
    pub sealed: bool,
}

/// The journal that was found after an end of which nothing proves that it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The size of its tree.
    pub size: u64,
    /// The tree's RFC 6962 root.
    pub root: Hash,
}

/// Between which heights a key may sign on a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Nothing at or below it is signed; 0 where all that was signed is known.
    pub floor: i64,
    /// What the last advance in the journal opened, perhaps before the anchor was moved; 0 where none did.
    pub ceiling: i64,
    /// The ceiling in force: the anchor was moved. `None`: nothing may be signed. Not in the journal, so that
    /// every start has to hold the journal against the anchor first.
    pub(in crate::guard) in_force: Option<i64>,
    /// The highest height that was asked for in vain: the next advance opens it.
    pub(in crate::guard) wanted: i64,
}

impl Bounds {
    /// The ceiling that is in force.
    #[must_use]
    pub fn in_force(&self) -> Option<i64> {
        self.in_force
    }
}

/// What an event changes, checked.
pub(in crate::guard) enum AnchorChange {
    Bound(Option<AnchorMark>),
    Advanced(u64, Vec<(Place, i64)>),
    Sealed(u64),
    Unproven(Tail),
    Accepted,
}

impl State {
    /// The anchor that the journal is bound to.
    #[must_use]
    pub fn anchor(&self) -> Option<&AnchorMark> {
        self.anchor.as_ref()
    }

    /// The tail that officers may accept, where one is not proven.
    #[must_use]
    pub fn unproven(&self) -> Option<&Tail> {
        self.unproven.as_ref()
    }

    /// Whether a ceiling allows something that no floor counts as signed yet.
    #[must_use]
    pub fn has_undoubted_ceilings(&self) -> bool {
        let mut bounds = self.places().map(|(_, known)| known.bounds);
        bounds.any(|bounds| bounds.ceiling > bounds.floor)
    }

    /// The keys, chains and heights up to which nothing is signed because nothing proves that it was not; those that
    /// the chain has passed are left out.
    pub fn doubted(&self) -> impl Iterator<Item = (String, &ChainId, i64)> {
        self.keys.values().flat_map(|key| {
            let chains = key.chains.iter();
            let doubted = chains.filter(|(_, known)| known.bounds.floor > known.mark.height());
            doubted.map(|(chain, known)| (key.names.join(", "), chain, known.bounds.floor))
        })
    }

    /// All marks with the key and chain that they belong to.
    pub(in crate::guard) fn places(&self) -> impl Iterator<Item = (Place, &super::ChainMark)> {
        self.keys.iter().flat_map(|(key, pinned)| {
            let chains = pinned.chains.iter();
            chains.map(|(chain, mark)| ((*key, chain.clone()), mark.as_ref()))
        })
    }

    /// The anchor was advanced to `counter`: ceilings hold, save of keys that were bound to a ledger since that advance
    /// was begun.
    pub(in crate::guard) fn put_in_force(&mut self, counter: u64) {
        let chains = self
            .keys
            .values_mut()
            .flat_map(|key| key.chains.values_mut());
        for known in chains {
            let bound_at = known.ledger.as_ref().map_or(0, |binding| binding.bound_at);
            if known.bounds.ceiling > 0 && counter > bound_at {
                known.bounds.in_force = Some(known.bounds.ceiling);
            }
        }
    }

    pub(in crate::guard) fn bounds_mut(&mut self) -> impl Iterator<Item = &mut Bounds> {
        let chains = self
            .keys
            .values_mut()
            .flat_map(|key| key.chains.values_mut());
        chains.map(|mark| &mut mark.bounds)
    }

    /// What officers signed for; what `hsmd state init` made stands in the journal's first entry.
    pub(super) fn plan_rebound(&self, bound: wire::AnchorBound) -> Result<Change, String> {
        let used = self.plan_authorisation(bound.authorisation.as_ref())?;
        let change = Change::Anchor(Self::plan_bound(bound));
        Ok(Change::Authorised(Box::new(change), used))
    }

    pub(super) fn plan_bound(bound: wire::AnchorBound) -> AnchorChange {
        let mark = (bound.kind != "none").then_some(AnchorMark {
            kind: bound.kind,
            counter: bound.counter,
            sealed: true,
        });
        AnchorChange::Bound(mark)
    }

    pub(super) fn plan_advanced(&self, advanced: wire::AnchorAdvanced) -> Result<Change, String> {
        let anchor = self.anchor.as_ref();
        let anchor = anchor.ok_or("an advance of an anchor that the journal is not bound to")?;
        let counter = advanced.counter;
        if anchor.counter.checked_add(1) != Some(counter) {
            let before = anchor.counter;
            return Err(format!(
                "an advance of the anchor from {before} to {counter}"
            ));
        }
        if advanced.sealed {
            return Ok(Change::Anchor(AnchorChange::Sealed(counter)));
        }
        let mut ceilings = Vec::with_capacity(advanced.ceilings.len());
        for ceiling in advanced.ceilings {
            let (place, known) = self.known(ceiling.public_key, &ceiling.chain_id)?;
            let (from, to) = (known.bounds.ceiling, ceiling.height);
            if to < from {
                return Err(format!("a ceiling lowered from {from} to {to}"));
            }
            ceilings.push((place, to));
        }
        Ok(Change::Anchor(AnchorChange::Advanced(counter, ceilings)))
    }

    pub(super) fn plan_unproven(unproven: &wire::TailUnproven) -> Result<Change, String> {
        let tail = tail_from_wire(unproven.size, &unproven.root)?;
        Ok(Change::Anchor(AnchorChange::Unproven(tail)))
    }

    pub(super) fn plan_accepted(&self, accepted: &wire::TailAccepted) -> Result<Change, String> {
        let tail = tail_from_wire(accepted.size, &accepted.root)?;
        if self.unproven != Some(tail) {
            return Err(format!(
                "a tail of {} entries accepted that was not found unproven",
                tail.size
            ));
        }
        let used = self.plan_authorisation(accepted.authorisation.as_ref())?;
        let change = Change::Anchor(AnchorChange::Accepted);
        Ok(Change::Authorised(Box::new(change), used))
    }

    pub(super) fn commit_anchor(&mut self, change: AnchorChange) {
        match change {
            AnchorChange::Bound(mark) => {
                self.anchor = mark;
                self.raise_floors();
                self.bounds_mut().for_each(|bounds| bounds.in_force = None);
                // Counted on the anchor before, which is not this one.
                let bound_at = self.anchor.as_ref().map_or(0, |anchor| anchor.counter);
                let chains = self.keys.values_mut();
                let chains = chains.flat_map(|key| key.chains.values_mut());
                for binding in chains.filter_map(|known| known.ledger.as_mut()) {
                    binding.bound_at = bound_at;
                }
            }
            AnchorChange::Advanced(counter, ceilings) => {
                if let Some(anchor) = &mut self.anchor {
                    (anchor.counter, anchor.sealed) = (counter, false);
                }
                for (place, height) in ceilings {
                    if let Some(known) = self.at(&place) {
                        known.bounds.ceiling = height;
                        known.bounds.wanted = 0;
                    }
                }
            }
            AnchorChange::Sealed(counter) => {
                if let Some(anchor) = &mut self.anchor {
                    (anchor.counter, anchor.sealed) = (counter, true);
                }
                self.bounds_mut().for_each(|bounds| bounds.in_force = None);
            }
            AnchorChange::Unproven(tail) => {
                self.unproven = Some(tail);
                self.raise_floors();
            }
            AnchorChange::Accepted => {
                self.unproven = None;
                self.bounds_mut().for_each(|bounds| bounds.floor = 0);
            }
        }
    }

    /// Whatever an anchor may have let be signed is taken for signed.
    fn raise_floors(&mut self) {
        for bounds in self.bounds_mut() {
            bounds.floor = bounds.floor.max(bounds.ceiling);
        }
    }
}

pub(super) fn anchor_to_wire(mark: &AnchorMark) -> wire::AnchorMark {
    wire::AnchorMark {
        kind: mark.kind.clone(),
        counter: mark.counter,
        sealed: mark.sealed,
    }
}

pub(super) fn anchor_from_wire(mark: wire::AnchorMark) -> AnchorMark {
    AnchorMark {
        kind: mark.kind,
        counter: mark.counter,
        sealed: mark.sealed,
    }
}

pub(super) fn tail_to_wire(tail: &Tail) -> wire::TailUnproven {
    wire::TailUnproven {
        size: tail.size,
        root: tail.root.to_vec(),
    }
}

pub(super) fn tail_from_wire(size: u64, root: &[u8]) -> Result<Tail, String> {
    let length = root.len();
    let root = root
        .try_into()
        .map_err(|_| format!("a root of {length} bytes"))?;
    Ok(Tail { size, root })
}

impl State {
    pub(super) fn plan_device(&self, added: wire::DeviceAdded) -> Result<Change, String> {
        let key = entry::named_public_key(added.public_key)?;
        if self
            .keys
            .get(&key)
            .is_none_or(|known| !known.names.contains(&added.key))
        {
            return Err(format!(
                "a device added to key {}, which is not known",
                added.key
            ));
        }
        let device = added.device.ok_or("a device added without its identity")?;
        let identity = entry::identity_from_wire(&device)?;
        Ok(Change::Device(key, device.device, identity))
    }

    /// Another device under the same name has an audit log of its own.
    pub(super) fn commit_device(
        &mut self,
        key: hsm_device::PublicKey,
        name: String,
        identity: hsm_device::Identity,
    ) {
        let before = self.devices.insert(name.clone(), identity.clone());
        if before.is_some_and(|before| !before.admits(&identity)) {
            self.audits.remove(&name);
        }
        if let Some(known) = self.keys.get_mut(&key)
            && !known.devices.contains(&name)
        {
            known.devices.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use hsm_policy::conflict::Mark;

    use super::*;
    use crate::guard::ledger::{Binding, Id, Row};
    use crate::guard::state::{ChainMark, PinnedKey};

    #[test]
    fn a_key_that_was_bound_to_a_ledger_signs_after_the_first_advance_of_a_new_anchor() {
        let mark = |counter| AnchorMark {
            kind: "tpm".to_owned(),
            counter,
            sealed: false,
        };
        let row = Row {
            ledger_id: Id::new(&[1; 16]).unwrap(),
            generation: 1,
            members: [].into(),
            awaited: [].into(),
            lost: [].into(),
            frozen: None,
            mark: Mark {
                initial_height: 0,
                last: None,
            },
        };
        let mut known = ChainMark::new(row.mark.clone());
        let binding = Binding {
            bound_at: 5000,
            ..Binding::of(&row, 1, 1)
        };
        known.ledger = Some(Box::new(binding));
        known.bounds.ceiling = 100;
        let bytes = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let key = hex::decode(bytes).unwrap();
        let algorithm = hsm_device::Algorithm::Ed25519;
        let key = hsm_device::PublicKey::from_parts(algorithm, &key).unwrap();
        let chain = ChainId::new("test-1").unwrap();
        let mut pinned = PinnedKey::default();
        pinned.chains.insert(chain.clone(), Box::new(known));
        let mut state = State::default();
        state.keys.insert(key, pinned);
        let in_force = |state: &State| state.mark(&key, &chain).unwrap().bounds.in_force;

        state.commit_anchor(AnchorChange::Bound(Some(mark(5000))));
        state.put_in_force(5000);
        assert_eq!(in_force(&state), None, "not before an advance");
        state.commit_anchor(AnchorChange::Bound(Some(mark(7))));
        state.put_in_force(7);
        assert_eq!(in_force(&state), None, "not before an advance");
        state.put_in_force(8);
        assert_eq!(in_force(&state), Some(100));
    }
}
