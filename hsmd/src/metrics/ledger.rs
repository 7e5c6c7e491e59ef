//! How the ledger's etcd answers, and whether its rows are in order.

use std::time::Duration;

use super::Metrics;
use super::registered::{KeyLabels, OperationLabel};

/// What etcd is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerOperation {
    /// A linearizable read.
    Read,
    /// A compare-and-swap.
    Swap,
}

impl LedgerOperation {
    pub(super) const ALL: [Self; 2] = [Self::Read, Self::Swap];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Swap => "swap",
        }
    }

    pub(super) fn label(self) -> OperationLabel {
        OperationLabel {
            operation: self.name(),
        }
    }
}

impl Metrics {
    /// etcd answered.
    pub fn ledger_answer(&self, operation: LedgerOperation, took: Duration, revision: u64) {
        let durations = &self.0.ledger_duration;
        if let Some(histogram) = durations.get(operation as usize) {
            histogram.observe(took.as_secs_f64());
        }
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        self.0.ledger_revision.set(revision);
    }

    /// etcd did not answer in time.
    pub fn ledger_error(&self, operation: LedgerOperation) {
        self.0.ledger_errors.get_or_create(&operation.label()).inc();
    }

    /// Another signer changed the row first.
    pub fn ledger_conflict(&self) {
        self.0.ledger_conflicts.inc();
    }

    /// Whether the row of a key on a chain is one that nothing is signed by.
    pub fn ledger_mismatch(&self, key: &str, chain: &str, mismatch: bool) {
        let labels = KeyLabels {
            chain: chain.to_owned(),
            key: key.to_owned(),
        };
        let series = self.0.ledger_mismatch.get_or_create(&labels);
        series.set(i64::from(mismatch));
    }
}
