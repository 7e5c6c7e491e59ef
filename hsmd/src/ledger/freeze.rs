//! Freezing a key for all signers that share its mark.

use std::time::SystemTime;

use hsm_proto::v1::entry::Event;
use tokio::time::Instant;

use super::{
    Error, Ledger, PATIENCE, Place, Swapped, bound, ledger_mark, lock, row_key, seen, take,
};
use crate::guard::Guard;
use crate::guard::ledger::Row;

/// The longest reason, in bytes: it stands in the row, which is written with every signature.
const LONGEST_REASON: usize = 200;

/// What stands in the row of a freeze: who froze it, and as much of the reason as it takes.
#[must_use]
pub fn freeze_reason(by: &str, reason: &str) -> String {
    let mut text = match reason {
        "" => by.to_owned(),
        reason => format!("{by}: {reason}"),
    };
    while text.len() > LONGEST_REASON {
        text.pop();
    }
    text
}

impl Ledger {
    /// Held while rows are frozen, and from the check of a thaw to its last entry: of two uses of one document at a time
    /// the second cannot thaw a row that was frozen here again after the first.
    pub async fn freezing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.freezing.lock().await
    }

    /// Has no signer sign with the key on the chain, from now on: the row says so, and each signer refuses what it has
    /// not yet reserved when it next looks at the row, which it does for each request. Durable in etcd and here on
    /// return. A key that is frozen stays so, for the reason given first.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] where the reason is empty or longer than 200 bytes; the ledger's.
    pub async fn freeze(&self, guard: &Guard, place: &Place, reason: &str) -> Result<(), Error> {
        if reason.is_empty() || reason.len() > LONGEST_REASON {
            return Err(Error::Refused(format!(
                "a reason of {} bytes: say in 1 to {LONGEST_REASON} why the key is frozen",
                reason.len()
            )));
        }
        let freeze = |row: &mut Row| {
            row.frozen.get_or_insert_with(|| reason.to_owned());
        };
        self.set_frozen(guard, place, freeze).await
    }

    /// Takes a freeze back, for all signers. Whoever calls this has made sure that it may be.
    ///
    /// # Errors
    ///
    /// The ledger's.
    pub async fn thaw(&self, guard: &Guard, place: &Place) -> Result<(), Error> {
        self.set_frozen(guard, place, |row| row.frozen = None).await
    }

    async fn set_frozen(
        &self,
        guard: &Guard,
        place: &Place,
        change: impl Fn(&mut Row),
    ) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let key = row_key(place);
        let slot = self.slot(place);
        let mut slot = lock(&slot, deadline).await?;
        loop {
            take(guard, place, &mut slot, self.read(&key, deadline).await?).await?;
            let value = slot.value.take().unwrap_or_default();
            let mut row = Row::decode(&value).map_err(Error::Refused)?;
            let before = row.clone();
            change(&mut row);
            if row == before {
                slot.value = Some(value);
                return Ok(());
            }
            let swap = self.swap(&key, Some(&value), row.encode(), deadline);
            if let Swapped::Done(answer) = swap.await? {
                let (seen, value) = seen(answer)?;
                bound(guard, place)?;
                let event = Event::LedgerSeen(ledger_mark(place, &row, &seen));
                guard.record_durably(event, SystemTime::now()).await?;
                (slot.value, slot.revision) = (value, seen.revision);
                return Ok(());
            }
        }
    }
}
