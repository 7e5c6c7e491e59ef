//! A device's audit log held against what hsmd asked of the device. No input or output.
//!
//! Signatures in the log are compared, object by object, with the calls that were answered since the log was last
//! read, and then with calls that got no answer, each of which accounts for one. What is left was made by somebody
//! else. After hsmd's own end some are tolerated, once: [`Ledger::new`].

use std::collections::{BTreeMap, BTreeSet};

use hsm_device::{AuditEntry, AuditReading};
use hsm_proto::v1 as wire;

use crate::guard::AuditMark;

/// Half of a YubiHSM 2's log: from here on entries are freed, whatever they are.
const MANY_ENTRIES: usize = 31;

/// The account of one device.
pub(super) struct Ledger {
    /// The last entry read: its number, and its digest where it could be read.
    last: Option<(u16, Option<[u8; 16]>)>,
    /// The last entry of the last durable checkpoint.
    saved: Option<u16>,
    /// How many signatures of each object were answered when the log was last read.
    answered: BTreeMap<u16, u64>,
    /// Calls without an answer that an entry was found for.
    found: BTreeSet<u64>,
    tolerance: u64,
    /// Changes of data objects that hsmd may have made and that no entry was found for yet.
    data_changes: u64,
    /// How many it had begun when the log was last read.
    data_begun: u64,
    counts: Counts,
}

/// What was found since the last checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) first: bool,
    pub(super) entries: u64,
    /// Made and unknown, by object.
    pub(super) signatures: BTreeMap<u16, (u64, u64)>,
    pub(super) missing: u64,
    pub(super) broken: u64,
    pub(super) unreadable: u64,
    pub(super) administrative: u64,
    pub(super) unlogged_boots: u64,
    pub(super) unlogged_authentications: u64,
}

impl Counts {
    /// Signatures that hsmd did not ask for.
    pub(super) fn unknown(&self) -> u64 {
        self.signatures.values().map(|(_, unknown)| unknown).sum()
    }

    fn worth_saving(&self) -> bool {
        let housekeeping = Self {
            entries: self.entries,
            ..Self::default()
        };
        *self != housekeeping
    }
}

impl Ledger {
    /// A ledger that goes on from the last checkpoint in the journal. `asked` is how many signatures the journal
    /// says may have been asked for until now; `stopped` whether hsmd was stopped cleanly before this start.
    ///
    /// After a clean stop nothing is tolerated. Else a call may have been made and tried once more for each message
    /// since the checkpoint; and since the log is read after `calls` calls at the latest, no more than those and one
    /// that was under way can have failed without an entry of their own.
    /// `data_changes` is how many changes of data objects hsmd may have made after it last read the log.
    pub(super) fn new(
        mark: Option<&AuditMark>,
        asked: u64,
        stopped: bool,
        calls: u64,
        data_changes: u64,
    ) -> Self {
        let since = mark.map_or(0, |mark| asked.saturating_sub(mark.asked));
        let tolerance = match (stopped, since) {
            (true, 0) => 0,
            (_, since) => since.saturating_mul(2).saturating_add(calls + 1),
        };
        Self {
            last: mark.map(|mark| (mark.number, mark.digest)),
            saved: mark.map(|mark| mark.number),
            answered: BTreeMap::new(),
            found: BTreeSet::new(),
            tolerance,
            data_changes,
            data_begun: 0,
            counts: Counts::default(),
        }
    }

    /// Takes in a reading; returns what is new in it.
    pub(super) fn read(&mut self, reading: &AuditReading) -> Counts {
        let log = &reading.log;
        let first = self.last.is_none();
        let mut new = Counts {
            first,
            unreadable: log.unreadable.into(),
            unlogged_boots: log.unlogged_boots.into(),
            unlogged_authentications: log.unlogged_authentications.into(),
            ..Counts::default()
        };
        let begun = reading.asked.data_changes;
        self.data_changes += begun.saturating_sub(self.data_begun);
        self.data_begun = begun;
        let entries = self.unread(&log.entries);
        new.entries = entries.len() as u64;
        for entry in entries {
            self.link(entry, &mut new);
            // What happened before hsmd first looked is not judged.
            if entry.signed() && !first {
                new.signatures.entry(entry.target()).or_default().0 += 1;
            }
            if entry.administered() && !first {
                let ours = entry.changed_data() && self.data_changes > 0;
                self.data_changes -= u64::from(ours);
                new.administrative += u64::from(!ours);
            }
        }
        if let (Some((number, digest)), 1..) = (self.last.as_mut(), log.unreadable) {
            *number = number.wrapping_add(log.unreadable);
            *digest = None;
        }
        for (object, (made, unknown)) in &mut new.signatures {
            *unknown = self.unknown(*object, *made, reading);
        }
        self.answered.clone_from(&reading.asked.answered);
        let asked = &reading.asked;
        self.found
            .retain(|call| asked.failed.contains_key(call) || asked.in_flight.contains_key(call));
        self.tolerance = 0;
        // The log is whole up to the reading: what hsmd began and is not in it, the device did not do.
        self.data_changes = 0;
        self.add(&new);
        new
    }

    /// The entries after the last one read.
    fn unread<'a>(&self, entries: &'a [AuditEntry]) -> &'a [AuditEntry] {
        let at = self.last.and_then(|(number, digest)| {
            entries.iter().position(|entry| {
                entry.number() == number && digest.is_none_or(|digest| digest == entry.digest)
            })
        });
        at.and_then(|at| entries.get(at + 1..)).unwrap_or(entries)
    }

    /// Holds an entry against the one before it.
    fn link(&mut self, entry: &AuditEntry, new: &mut Counts) {
        match self.last {
            Some((number, digest)) if entry.number() == number.wrapping_add(1) => {
                let holds = digest.is_none_or(|digest| entry.follows(number, &digest));
                new.broken += u64::from(!holds);
            }
            // A reset begins anew; then nobody can say how many entries are gone.
            Some(_) if entry.number() == 1 => new.broken += 1,
            Some((number, _)) => {
                new.missing += u64::from(entry.number().wrapping_sub(number).wrapping_sub(1));
            }
            None => {}
        }
        self.last = Some((entry.number(), Some(entry.digest)));
    }

    /// How many signatures of an object no call accounts for.
    fn unknown(&mut self, object: u16, made: u64, reading: &AuditReading) -> u64 {
        let total = |answered: &BTreeMap<u16, u64>| answered.get(&object).copied().unwrap_or(0);
        let answered = total(&reading.asked.answered).saturating_sub(total(&self.answered));
        let mut left = made.saturating_sub(answered);
        for (call, of) in reading.asked.failed.iter().chain(&reading.asked.in_flight) {
            if left > 0 && *of == object && self.found.insert(*call) {
                left -= 1;
            }
        }
        let tolerated = left.min(self.tolerance);
        self.tolerance -= tolerated;
        left - tolerated
    }

    fn add(&mut self, new: &Counts) {
        let all = &mut self.counts;
        all.first |= new.first;
        all.entries += new.entries;
        for (object, (made, unknown)) in &new.signatures {
            let sum = all.signatures.entry(*object).or_default();
            sum.0 += made;
            sum.1 += unknown;
        }
        all.missing += new.missing;
        all.broken += new.broken;
        all.unreadable += new.unreadable;
        all.administrative += new.administrative;
        // The device counts these until entries are freed, not from reading to reading.
        all.unlogged_boots = new.unlogged_boots;
        all.unlogged_authentications = new.unlogged_authentications;
    }

    /// The checkpoint to be made now, with the log holding `held` entries; none where nothing happened that is worth
    /// one.
    pub(super) fn checkpoint(&self, device: &str, held: usize) -> Option<wire::DeviceAudit> {
        let (number, digest) = self.last?;
        let counts = &self.counts;
        let moved = self.saved != Some(number);
        if !(counts.worth_saving() || moved && held >= MANY_ENTRIES) {
            return None;
        }
        let signatures =
            counts
                .signatures
                .iter()
                .map(|(object, (made, unknown))| wire::ObjectSignatures {
                    object: (*object).into(),
                    made: *made,
                    unknown: *unknown,
                });
        Some(wire::DeviceAudit {
            device: device.to_owned(),
            last_number: number.into(),
            last_digest: digest.map_or_else(Vec::new, |digest| digest.to_vec()),
            first: counts.first,
            entries: counts.entries,
            signatures: signatures.collect(),
            missing_entries: counts.missing,
            broken_links: counts.broken,
            unreadable_entries: counts.unreadable,
            administrative_commands: counts.administrative,
            unlogged_boots: counts.unlogged_boots,
            unlogged_authentications: counts.unlogged_authentications,
        })
    }

    /// The last checkpoint is durable.
    pub(super) fn saved(&mut self) {
        self.saved = self.last.map(|last| last.0);
        self.counts = Counts::default();
    }

    /// The number up to which entries may be freed: those of a durable checkpoint.
    pub(super) fn free_up_to(&self, held: &[AuditEntry]) -> Option<u16> {
        let saved = self.saved?;
        let last = self.last.map(|last| last.0);
        (!held.is_empty() && last == Some(saved)).then_some(saved)
    }
}

#[cfg(test)]
mod tests;
