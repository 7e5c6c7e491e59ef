//! etcd is asked, and the metrics tell how it answered.

use tokio::time::Instant;

use super::{Answer, Error, Ledger, Place, Swapped, Unavailable};
use crate::guard::Guard;
use crate::metrics::LedgerOperation as Operation;

impl Ledger {
    /// As [`Etcd::read`].
    pub(super) async fn read(&self, key: &[u8], deadline: Instant) -> Result<Answer, Error> {
        let begun = Instant::now();
        let answer = self.etcd()?.read(key, deadline).await;
        self.asked(Operation::Read, begun, answer.as_ref());
        Ok(answer?)
    }

    /// As [`Etcd::swap`].
    pub(super) async fn swap(
        &self,
        key: &[u8],
        old: Option<&[u8]>,
        new: Vec<u8>,
        deadline: Instant,
    ) -> Result<Swapped, Error> {
        let begun = Instant::now();
        let swapped = self.etcd()?.swap(key, old, new, deadline).await;
        let answer = swapped.as_ref().map(|swapped| match swapped {
            Swapped::Done(answer) | Swapped::Not(answer) => answer,
        });
        self.asked(Operation::Swap, begun, answer);
        let swapped = swapped?;
        if let (Swapped::Not(_), Some(metrics)) = (&swapped, &self.metrics) {
            metrics.ledger_conflict();
        }
        Ok(swapped)
    }

    fn asked(&self, operation: Operation, begun: Instant, answer: Result<&Answer, &Unavailable>) {
        let Some(metrics) = &self.metrics else {
            return;
        };
        match answer {
            Ok(answer) => metrics.ledger_answer(operation, begun.elapsed(), answer.revision),
            Err(_) => metrics.ledger_error(operation),
        }
    }

    /// What a look at the row came to, for whoever watches; `error` is none where it is in order.
    pub(super) fn looked(&self, guard: &Guard, place: &Place, error: Option<&Error>) {
        let Some(metrics) = &self.metrics else {
            return;
        };
        let name = guard.inspect(|state| state.key(&place.0)?.names.first().cloned());
        let mismatch = match error {
            None => Some(false),
            Some(Error::Doubt(_)) => Some(true),
            // Whether it is in order is not known.
            Some(_) => None,
        };
        if let (Ok(Some(name)), Some(mismatch)) = (name, mismatch) {
            metrics.ledger_mismatch(&name, &place.1.to_string(), mismatch);
        }
    }
}
