//! Marks that came from a ledger's row.

use hsm_policy::cometbft::ChainId;
use hsm_policy::conflict::{Last, Mark};
use hsm_proto::v1 as wire;

use super::change::Change;
use super::{Binding, ChainMark, Made, Place, State, entry};
use crate::guard::ledger::{Id, Row, Seen};

impl State {
    pub(super) fn plan_ledger(&self, seen: wire::LedgerMark, how: How) -> Result<Change, String> {
        let (place, seen) = seen_from_wire(seen)?;
        let (key, chain) = &place;
        let known = self
            .mark(key, chain)
            .ok_or_else(|| format!("key {key} was never made known for chain {chain}"))?;
        let row = seen.row.as_ref().ok_or("a ledger without a row")?;
        let fits = match (&known.ledger, how) {
            (None, Bound) => row.mark.covers(&known.shared_mark()),
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
            (Some(binding), Replaced(lost)) => {
                row.ledger_id == binding.ledger_id
                    && row.generation == binding.generation
                    && row.members.is_superset(&binding.members)
                    && row.lost.contains(&lost)
                    && row.mark.covers(&known.mark)
                    && binding.distrusted.is_none()
            }
            (Some(_), Bound) | (None, Followed | Reconciled | Replaced(_)) => false,
        };
        if !fits {
            return Err(format!(
                "a row of ledger {} that does not follow from what was seen before",
                row.ledger_id
            ));
        }
        let mut binding = Binding::of(row, seen.cluster_id, seen.revision);
        binding.bound_at = match &known.ledger {
            Some(binding) => binding.bound_at,
            None => self.anchor().map_or(0, |anchor| anchor.counter),
        };
        let mark = row.mark.clone();
        Ok(Change::Ledger(place, mark, Box::new(binding)))
    }

    pub(super) fn plan_replaced(
        &self,
        replaced: wire::LedgerJournalReplaced,
    ) -> Result<Change, String> {
        let used = self.plan_authorisation(replaced.authorisation.as_ref())?;
        let lost = Id::new(&replaced.signer_id)?;
        let seen = replaced.seen.ok_or("a journal replaced in no ledger")?;
        let change = self.plan_ledger(seen, Replaced(lost))?;
        Ok(Change::Authorised(Box::new(change), used))
    }

    pub(super) fn plan_distrust(
        &self,
        distrusted: wire::LedgerDistrusted,
    ) -> Result<Change, String> {
        let (place, known) = self.known(distrusted.public_key, &distrusted.chain_id)?;
        if known.ledger.is_none() {
            return Err("a ledger is distrusted that the key is not bound to".to_owned());
        }
        Ok(Change::Distrust(place, distrusted.reason))
    }
}

impl ChainMark {
    /// What other signers have to know of the mark, whether they share it or take it over: what may have been signed up to the floor,
    /// and stands in no entry, counts as signed for them, too.
    pub(crate) fn shared_mark(&self) -> Mark {
        Mark {
            initial_height: self.mark.initial_height.max(self.bounds.floor),
            last: self.mark.last.clone(),
        }
    }

    /// Raises the mark to a ledger's, by the entry with this index and leaf hash. What was signed here for the same
    /// message is kept.
    pub(super) fn take_in(
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
pub(super) enum How {
    Bound,
    Followed,
    Reconciled,
    /// Officers stated that the journal of this signer is lost.
    Replaced(Id),
}
use How::Replaced;
pub(super) use How::{Bound, Followed, Reconciled};

pub(super) fn seen_from_wire(seen: wire::LedgerMark) -> Result<(Place, Seen), String> {
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
pub(super) fn bind(seen: &Seen, initial_height: i64) -> Result<(Mark, Box<Binding>), String> {
    let row = seen.row.as_ref().ok_or("a ledger without a row")?;
    if row.mark.initial_height < initial_height {
        return Err("a row below the height that a key was made known at".to_owned());
    }
    let binding = Binding::of(row, seen.cluster_id, seen.revision);
    Ok((row.mark.clone(), Box::new(binding)))
}
