//! `hsmd ledger replace-journal`: the word of officers in the place of a journal that is lost.

use std::time::SystemTime;

use hsm_policy::cometbft::ChainId;
use hsm_policy::officers::ReplaceJournal;
use hsm_proto::v1 as wire;
use tokio::time::Instant;

use super::{
    Error, Ledger, PATIENCE, Place, Swapped, bound, doubted, ledger_mark, lock, row_key, seen,
};
use crate::guard::ledger::{Doubt, Id, Row, Seen};
use crate::guard::{self, Guard, Signed};

impl Ledger {
    /// Has the row of a ledger that is being reconciled wait no more for a signer whose journal is lost: officers signed
    /// that it is off, and from which height on the others go on. Tells who signed. Durable in etcd and here on return;
    /// cut short, it may be done again.
    ///
    /// # Errors
    ///
    /// [`guard::Error::NoOfficers`], [`guard::Error::Officers`]; [`Error::Refused`] where the ledger does not wait for that
    /// signer, or the statement is about something else; the ledger's.
    pub(crate) async fn replace_journal(
        &self,
        guard: &Guard,
        signed: &Signed,
        now: SystemTime,
    ) -> Result<Vec<String>, Error> {
        let authorised = guard.inspect(|state| state.authorise::<ReplaceJournal>(signed, now))?;
        let (statement, _) = authorised?;
        let lost = Lost::of(&statement, guard, self.signer)?;
        let (key, deadline) = (row_key(&lost.place), Instant::now() + PATIENCE);
        let slot = self.slot(&lost.place);
        let mut slot = lock(&slot, deadline).await?;
        slot.value = None;
        let (row, after) = loop {
            let (mark, binding) = bound(guard, &lost.place)?;
            let (before, value) = seen(self.read(&key, deadline).await?)?;
            let judged = binding.judge(&mark, slot.revision, &before);
            // While it waits for journals, it is in order as far as this one goes.
            let row = match (judged, before.row.clone()) {
                (Err(Doubt::Awaited { .. }), Some(row)) => row,
                (judged, _) => doubted(guard, &lost.place, &mut slot, judged).await?,
            };
            let Some(next) = lost.replaced(&row, self.signer)? else {
                break (row, before);
            };
            let swap = self.swap(&key, value.as_deref(), next.encode(), deadline);
            if let Swapped::Done(answer) = swap.await? {
                break (next, seen(answer)?.0);
            }
        };
        let signers = lost.record(guard, signed, (&row, &after), now).await?;
        slot.revision = after.revision;
        Ok(signers)
    }
}

/// What officers stated, checked.
struct Lost {
    place: Place,
    signer: Id,
    ledger_id: Id,
    chain_height: i64,
    margin: i64,
    /// At or below it nothing is signed.
    height: i64,
}

impl Lost {
    fn of(statement: &ReplaceJournal, guard: &Guard, ours: Id) -> Result<Self, Error> {
        let refused = |reason: String| Error::Refused(reason);
        let id = |hex: &str| {
            let bytes = hex::decode(hex).map_err(|error| error.to_string());
            bytes.and_then(|bytes| Id::new(&bytes)).map_err(refused)
        };
        let (signer, ledger_id) = (id(&statement.signer_id)?, id(&statement.ledger_id)?);
        let (chain_height, margin) = (statement.chain_height, statement.margin);
        let height = chain_height.checked_add(margin);
        let height = height.filter(|_| chain_height >= 0 && margin >= 1);
        let height = height.ok_or_else(|| {
            refused(format!(
                "chain_height {chain_height} and margin {margin}: at least 0, and at least 1"
            ))
        })?;
        if statement.signer_is_off.trim().is_empty() {
            let reason = "signer_is_off is empty: the officers say there what was switched off";
            return Err(refused(reason.to_owned()));
        }
        if signer == ours {
            return Err(refused(format!(
                "{signer} is this signer, whose journal is here"
            )));
        }
        let chain = ChainId::new(&statement.chain_id);
        let chain = chain.map_err(|error| refused(error.to_string()))?;
        let public_key = guard.pinned(&statement.key)?;
        let public_key = public_key.ok_or_else(|| guard::Error::NotInitialised {
            key: statement.key.clone(),
            chain: chain.to_string(),
        })?;
        Ok(Self {
            place: (public_key, chain),
            signer,
            ledger_id,
            chain_height,
            margin,
            height,
        })
    }

    /// The row without the signer; `None` where it was changed to that already.
    fn replaced(&self, row: &Row, ours: Id) -> Result<Option<Row>, Error> {
        let (signer, height) = (self.signer, self.height);
        if row.ledger_id != self.ledger_id {
            return Err(Error::Refused(format!(
                "the officers signed for ledger {}, and the key is bound to {}",
                self.ledger_id, row.ledger_id
            )));
        }
        if row.lost.contains(&signer) && row.mark.initial_height >= height {
            return Ok(None);
        }
        if row.awaited.contains(&ours) {
            return Err(Error::Refused(
                "the ledger waits for this signer, too: run `hsmd ledger reconcile` here first"
                    .to_owned(),
            ));
        }
        if !row.awaited.contains(&signer) {
            return Err(Error::Refused(format!(
                "the ledger does not wait for signer {signer}: see `hsmd ledger status`"
            )));
        }
        // An equal one forbids the whole height, as does what another lost signer was replaced at.
        if height < row.mark.height() {
            return Err(Error::Refused(format!(
                "the officers signed for height {height}, and the row stands at {} already: the chain is further",
                row.mark.height()
            )));
        }
        let mut next = row.clone();
        next.awaited.remove(&signer);
        next.lost.insert(signer);
        next.mark.initial_height = height;
        Ok(Some(next))
    }

    async fn record(
        &self,
        guard: &Guard,
        signed: &Signed,
        (row, seen): (&Row, &Seen),
        now: SystemTime,
    ) -> Result<Vec<String>, guard::Error> {
        let replaced = wire::LedgerJournalReplaced {
            seen: Some(ledger_mark(&self.place, row, seen)),
            signer_id: self.signer.to_vec(),
            chain_height: self.chain_height,
            margin: self.margin,
            authorisation: None,
        };
        guard.replace_journal(signed, replaced, now).await
    }
}

#[cfg(test)]
mod tests {
    use hsm_policy::conflict::Mark;

    use super::*;
    use crate::guard::ledger::Row;

    #[test]
    fn two_lost_journals_are_replaced_at_one_height_that_stays_forbidden() {
        let id = |byte: u8| Id::new(&[byte; 16]).unwrap();
        let bytes = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let key = hsm_device::PublicKey::from_parts(
            hsm_device::Algorithm::Ed25519,
            &hex::decode(bytes).unwrap(),
        );
        let key = key.unwrap();
        let lost = |signer: u8, height: i64| Lost {
            place: (key, ChainId::new("test-1").unwrap()),
            signer: id(signer),
            ledger_id: id(9),
            chain_height: height - 100,
            margin: 100,
            height,
        };
        let row = Row {
            ledger_id: id(9),
            generation: 2,
            members: [id(1), id(2), id(3)].into(),
            awaited: [id(2), id(3)].into(),
            lost: [].into(),
            frozen: None,
            mark: Mark {
                initial_height: 10,
                last: None,
            },
        };
        let one = lost(2, 1100).replaced(&row, id(1)).unwrap().unwrap();
        assert!(lost(3, 1099).replaced(&one, id(1)).is_err());
        let both = lost(3, 1100).replaced(&one, id(1)).unwrap().unwrap();
        assert_eq!(both.mark.initial_height, 1100);
        assert_eq!(
            (both.awaited, both.lost),
            ([].into(), [id(2), id(3)].into())
        );
    }
}
