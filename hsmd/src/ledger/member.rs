//! How a key comes to a ledger, and how its mark is moved there.

use std::collections::BTreeSet;
use std::time::SystemTime;

use hsm_policy::conflict::Mark;
use hsm_proto::v1 as wire;
use hsm_proto::v1::LedgerUse;
use hsm_proto::v1::entry::Event;
use tokio::time::Instant;

use super::{
    Error, Ledger, PATIENCE, Place, Seen, Swapped, bound, known, ledger_mark, lock, row_key, seen,
    shared, take,
};
use crate::guard::ledger::{Doubt, Id, Row};
use crate::guard::{self, Guard};

impl Ledger {
    /// Makes the row, or makes this signer a member of the one that is there, at `mark` or above. It binds nothing
    /// here yet. Done again after a crash, with [`LedgerUse::Join`], it comes to the same. A new row waits for the
    /// journals of `awaited`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] where there is one already, or none; [`Error::Doubt`] while it is being reconciled.
    pub(crate) async fn enter(
        &self,
        place: &Place,
        how: LedgerUse,
        mark: &Mark,
        awaited: BTreeSet<Id>,
    ) -> Result<(Mark, wire::LedgerMark), Error> {
        let deadline = Instant::now() + PATIENCE;
        match how {
            LedgerUse::Create => self.create(place, mark, awaited, deadline).await,
            LedgerUse::Join => self.join(place, mark, deadline).await,
            LedgerUse::None => Err(Error::Refused("say create or join".to_owned())),
        }
    }

    async fn create(
        &self,
        place: &Place,
        mark: &Mark,
        awaited: BTreeSet<Id>,
        deadline: Instant,
    ) -> Result<(Mark, wire::LedgerMark), Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| Error::Refused(error.to_string()))?;
        let row = Row {
            ledger_id: Id::new(&id).map_err(Error::Refused)?,
            generation: 1,
            members: [self.signer].into(),
            awaited,
            lost: BTreeSet::new(),
            frozen: None,
            mark: mark.clone(),
        };
        let key = row_key(place);
        let made = self.swap(&key, None, row.encode(), deadline);
        match made.await? {
            Swapped::Done(answer) => {
                let (seen, _) = seen(answer)?;
                Ok((row.mark.clone(), ledger_mark(place, &row, &seen)))
            }
            Swapped::Not(answer) => {
                let there = seen(answer)?.0.row;
                Err(Error::Refused(format!(
                    "etcd has a ledger for public key {} on chain {} already, {}: join it",
                    place.0,
                    place.1,
                    there.map_or_else(String::new, |row| row.ledger_id.to_string())
                )))
            }
        }
    }

    async fn join(
        &self,
        place: &Place,
        mark: &Mark,
        deadline: Instant,
    ) -> Result<(Mark, wire::LedgerMark), Error> {
        let key = row_key(place);
        loop {
            let (Seen { row, .. }, value) = seen(self.read(&key, deadline).await?)?;
            let row = row.ok_or_else(|| {
                Error::Refused(format!(
                    "etcd has no ledger for public key {} on chain {}: create it, on one signer",
                    place.0, place.1
                ))
            })?;
            if row.awaited.iter().any(|id| *id != self.signer) {
                let awaited: Vec<_> = row.awaited.iter().map(ToString::to_string).collect();
                let awaited = awaited.join(", ");
                return Err(Doubt::Awaited { awaited }.into());
            }
            if row.lost.contains(&self.signer) {
                let signer = self.signer;
                return Err(Doubt::Lost { signer }.into());
            }
            let mut next = row.clone();
            next.members.insert(self.signer);
            next.mark = row.mark.merged(mark);
            let swap = self.swap(&key, value.as_deref(), next.encode(), deadline);
            if let Swapped::Done(answer) = swap.await? {
                let (seen, _) = seen(answer)?;
                return Ok((next.mark.clone(), ledger_mark(place, &next, &seen)));
            }
        }
    }

    /// Takes a key that is known into a ledger, at its mark or above. Durable on return.
    ///
    /// Until the journal has it that the key is bound, it may be signed with here without the ledger. A new row
    /// therefore waits for this signer first, so that no other one can join it meanwhile. What may have been signed up
    /// to a floor counts as signed in the row, since others know nothing of the floor.
    ///
    /// # Errors
    ///
    /// As [`Ledger::enter`]; [`guard::Error::AlreadyKnown`] where it is bound to one.
    pub(crate) async fn bind(
        &self,
        guard: &Guard,
        place: &Place,
        mut how: LedgerUse,
    ) -> Result<(), Error> {
        let slot = self.slot(place);
        let mut slot = lock(&slot, Instant::now() + PATIENCE).await?;
        *slot = super::Slot::default();
        loop {
            let (_, binding) = known(guard, place)?.ok_or_else(|| not_known(place))?;
            let mark = shared(guard, place)?.ok_or_else(|| not_known(place))?;
            if let Some(binding) = binding {
                return Err(guard::Error::AlreadyKnown(format!(
                    "public key {} on chain {} is bound to ledger {} already",
                    place.0, place.1, binding.ledger_id
                ))
                .into());
            }
            let awaited = [self.signer].into();
            let (raised, row) = self.enter(place, how, &mark, awaited).await?;
            if guard.bind(place, &raised, row, SystemTime::now()).await? {
                return self.merge(guard, place, &mut slot).await;
            }
            // Something was signed meanwhile; the row is there by now.
            how = LedgerUse::Join;
        }
    }

    /// Raises the height at or below which a bound key signs nothing, for all signers. Durable on return.
    ///
    /// # Errors
    ///
    /// [`guard::Error::NotAbove`]; the ledger's.
    pub(crate) async fn advance(
        &self,
        guard: &Guard,
        name: &str,
        place: &Place,
        height: i64,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let key = row_key(place);
        let slot = self.slot(place);
        let mut slot = lock(&slot, deadline).await?;
        loop {
            take(guard, place, &mut slot, self.read(&key, deadline).await?).await?;
            let value = slot.value.take();
            let (mark, _) = bound(guard, place)?;
            if height <= mark.height() {
                return Err(guard::Error::NotAbove {
                    key: name.to_owned(),
                    chain: place.1.to_string(),
                    asked: height,
                    mark: mark.height(),
                }
                .into());
            }
            let mut row =
                Row::decode(value.as_deref().unwrap_or_default()).map_err(Error::Refused)?;
            row.mark.initial_height = height;
            let swap = self.swap(&key, value.as_deref(), row.encode(), deadline);
            if let Swapped::Done(answer) = swap.await? {
                let (seen, _) = seen(answer)?;
                let event = Event::LedgerSeen(ledger_mark(place, &row, &seen));
                guard.record_durably(event, SystemTime::now()).await?;
                return Ok(());
            }
        }
    }
}

fn not_known((key, chain): &Place) -> guard::Error {
    guard::Error::NotInitialised {
        key: key.to_string(),
        chain: chain.to_string(),
    }
}
