//! `hsmd ledger reconcile` and `hsmd ledger status`.

use std::time::SystemTime;

use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use tokio::time::Instant;

use super::{
    Error, Etcd, Ledger, PATIENCE, Place, Slot, Swapped, known, ledger_mark, lock, places, row_key,
    seen,
};
use crate::guard::Guard;
use crate::guard::ledger::{Binding, Doubt};

impl Ledger {
    /// Merges this journal into every ledger that is not in order, and returns how all of them are afterwards. A
    /// ledger is signed by again when every member has done so.
    pub(crate) async fn reconcile(&self, guard: &Guard) -> Vec<wire::LedgerState> {
        let mut states = Vec::new();
        for place in places(guard) {
            let reconciled = self.reconcile_one(guard, &place).await;
            states.extend(self.state(guard, &place, reconciled).await);
        }
        states
    }

    async fn reconcile_one(&self, guard: &Guard, place: &Place) -> Result<(), Error> {
        let slot = self.slot(place);
        let mut slot = lock(&slot, Instant::now() + PATIENCE).await?;
        self.merge(guard, place, &mut slot).await
    }

    /// Merges this journal into the row, where it is not in order or waits for this signer.
    pub(super) async fn merge(
        &self,
        guard: &Guard,
        place: &Place,
        slot: &mut Slot,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let key = row_key(place);
        slot.value = None;
        loop {
            let Some((mark, Some(binding))) = known(guard, place)? else {
                return Ok(());
            };
            let (before, value) = seen(self.read(&key, deadline).await?)?;
            let judged = binding.judge(&mark, slot.revision, &before);
            if binding.distrusted.is_none() && matches!(judged, Ok(_) | Err(Doubt::Awaited { .. }))
            {
                let Some(mut row) = before.row else {
                    return Ok(());
                };
                if !row.awaited.remove(&self.signer) {
                    return Ok(());
                }
                // It is in this generation, and the row covers it: nothing is new but that it is not waited for.
                let swap = self.swap(&key, value.as_deref(), row.encode(), deadline);
                if let Swapped::Done(_) = swap.await? {
                    return Ok(());
                }
                continue;
            }
            let merged = binding.reconciled(&mark, self.signer, before.row.as_ref());
            let merged = merged.map_err(Error::Refused)?;
            let swap = self.swap(&key, value.as_deref(), merged.encode(), deadline);
            if let Swapped::Done(answer) = swap.await? {
                let (after, _) = seen(answer)?;
                let event = Event::LedgerReconciled(ledger_mark(place, &merged, &after));
                guard.record_durably(event, SystemTime::now()).await?;
                slot.revision = after.revision;
                return Ok(());
            }
        }
    }

    /// How all ledgers are at this moment.
    pub(crate) async fn states(&self, guard: &Guard) -> Vec<wire::LedgerState> {
        let mut states = Vec::new();
        for place in places(guard) {
            states.extend(self.state(guard, &place, Ok(())).await);
        }
        states
    }

    /// This signer's id, and where etcd is.
    pub(crate) fn about(&self) -> (String, Vec<String>) {
        let endpoints = self.etcd.iter().flat_map(Etcd::endpoints);
        let endpoints = endpoints.map(str::to_owned).collect();
        (self.signer.to_string(), endpoints)
    }

    async fn state(
        &self,
        guard: &Guard,
        place: &Place,
        before: Result<(), Error>,
    ) -> Option<wire::LedgerState> {
        let looked = match before {
            Ok(()) => self.look_now(guard, place).await,
            failed => failed,
        };
        let name = guard.inspect(|state| {
            let key = state.key(&place.0)?;
            key.names.first().cloned()
        });
        let (_, binding) = known(guard, place).ok()??;
        let binding: Binding = binding?;
        let awaited = match &looked {
            Err(Error::Doubt(Doubt::Awaited { awaited })) => {
                awaited.split(", ").map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        Some(wire::LedgerState {
            key: name.ok().flatten().unwrap_or_default(),
            chain_id: place.1.to_string(),
            ledger_id: binding.ledger_id.to_string(),
            members: binding.members.iter().map(ToString::to_string).collect(),
            awaited,
            generation: binding.generation,
            cluster_id: format!("{:016x}", binding.cluster_id),
            revision: binding.revision,
            fault: looked
                .err()
                .map_or_else(String::new, |error| error.to_string()),
        })
    }

    async fn look_now(&self, guard: &Guard, place: &Place) -> Result<(), Error> {
        let slot = self.slot(place);
        let mut slot = lock(&slot, Instant::now() + PATIENCE).await?;
        self.refresh(guard, place, &mut slot).await
    }
}
