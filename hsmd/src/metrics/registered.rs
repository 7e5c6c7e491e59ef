//! What is registered under which name, help and labels.

use std::fmt;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::{LedgerOperation, Stage};

/// Seconds; from a check in memory to the slowest honest signature.
const BUCKETS: [f64; 15] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15,
    0.25, 0.5, 1.0,
];

pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) mock: Gauge,
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) refusals: Family<ReasonLabel, Counter>,
    pub(super) double_signs: Family<ChainLabel, Counter>,
    pub(super) stages: [Histogram; Stage::ALL.len()],
    pub(super) last_height: Family<KeyLabels, Gauge>,
    pub(super) last_timestamp: Family<KeyLabels, Gauge<f64, AtomicU64>>,
    pub(super) sentry_connections: Gauge,
    pub(super) unreadable_requests: Counter,
    pub(super) handshake_failures: Family<CauseLabel, Counter>,
    pub(super) device_errors: Family<DeviceErrorLabels, Counter>,
    pub(super) device_states: Family<DeviceStateLabels, Gauge>,
    pub(super) unknown_signatures: Family<DeviceLabel, Counter>,
    pub(super) contested: Family<KeyLabels, Gauge>,
    pub(super) journal_flushes: Counter,
    pub(super) journal_flush_duration: Histogram,
    pub(super) journal_entries: Counter,
    pub(super) journal_fault: Gauge,
    pub(super) anchor_counter: Gauge,
    pub(super) anchor_advances: Gauge,
    pub(super) anchor_fault: Gauge,
    pub(super) ledger_duration: [Histogram; LedgerOperation::ALL.len()],
    pub(super) ledger_errors: Family<OperationLabel, Counter>,
    pub(super) ledger_conflicts: Counter,
    pub(super) ledger_revision: Gauge,
    pub(super) ledger_mismatch: Family<KeyLabels, Gauge>,
    pub(super) checkpoint_size: Gauge,
    pub(super) checkpoint_time: Gauge<f64, AtomicU64>,
    pub(super) checkpoint_cosignatures: Gauge,
    pub(super) checkpoint_short_of_quorum: Gauge,
    pub(super) checkpoint_failures: Counter,
    pub(super) policy_version: Gauge,
    pub(super) policy_expiry: Gauge,
    pub(super) policy_old: Gauge,
    pub(super) certificate_expiry: Gauge,
    pub(super) certificate_reload_failures: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) chain: String,
    pub(super) kind: &'static str,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ChainLabel {
    pub(super) chain: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StageLabel {
    pub(super) stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KeyLabels {
    pub(super) chain: String,
    pub(super) key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CauseLabel {
    pub(super) cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DeviceLabel {
    pub(super) device: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DeviceErrorLabels {
    pub(super) device: String,
    pub(super) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OperationLabel {
    pub(super) operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DeviceStateLabels {
    pub(super) device: String,
    pub(super) state: &'static str,
}

impl Shared {
    /// Registers everything; the prefix and a counter's `_total` are added by the library.
    pub(super) fn register() -> Self {
        let mut registry = Registry::with_prefix("hsmd");
        let all = &mut registry;
        all.register(
            "build",
            "What was built",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let stages =
            Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        seconds(
            all,
            "stage_duration",
            "Time that a stage of a request took",
            stages.clone(),
        );
        let asked = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        seconds(
            all,
            "ledger_duration",
            "Time that etcd took to answer",
            asked.clone(),
        );
        let flush = Histogram::new(BUCKETS);
        seconds(
            all,
            "journal_flush_duration",
            "Time that a write and flush took",
            flush.clone(),
        );
        Self {
            mock: one(
                all,
                "mock",
                "1 if any device is the mock, which protects nothing",
            ),
            requests: many(all, "requests", "Requests answered"),
            refusals: many(all, "refusals", "Refusals and failures by reason"),
            double_signs: many(
                all,
                "double_sign_refusals",
                "Refused: another message was signed there",
            ),
            stages: Stage::ALL.map(|stage| {
                stages.get_or_create_owned(&StageLabel {
                    stage: stage.name(),
                })
            }),
            last_height: many(all, "last_signed_height", "Height last signed"),
            last_timestamp: many(
                all,
                "last_signed_timestamp_seconds",
                "When a signature last left",
            ),
            sentry_connections: one(all, "sentry_connections", "Open connections of sentries"),
            unreadable_requests: one(
                all,
                "unreadable_requests",
                "Calls that were no request of this API, or too long",
            ),
            handshake_failures: many(all, "handshake_failures", "Clients turned away"),
            device_errors: many(all, "device_errors", "Requests that a device failed"),
            device_states: many(all, "device_state", "1 for the state the device is in"),
            unknown_signatures: many(
                all,
                "device_unknown_signatures",
                "Signatures in a device's audit log that hsmd did not ask for",
            ),
            contested: many(
                all,
                "contested_marks",
                "Positions at which an imported state knew another message than ours",
            ),
            journal_flushes: one(all, "journal_flushes", "Frames that became durable"),
            journal_flush_duration: flush,
            journal_entries: one(all, "journal_entries", "Entries that became durable"),
            journal_fault: one(
                all,
                "journal_fault",
                "1 while the journal cannot be written",
            ),
            anchor_counter: one(
                all,
                "anchor_counter",
                "Where the rollback anchor's counter stands",
            ),
            anchor_advances: one(
                all,
                "anchor_advances",
                "Advances of the rollback anchor since the start: each wears it",
            ),
            anchor_fault: one(
                all,
                "anchor_fault",
                "1 while the rollback anchor cannot be advanced",
            ),
            ledger_duration: LedgerOperation::ALL
                .map(|operation| asked.get_or_create_owned(&operation.label())),
            ledger_errors: many(
                all,
                "ledger_errors",
                "Calls that etcd did not answer in time",
            ),
            ledger_conflicts: one(
                all,
                "ledger_conflicts",
                "Rows that another signer changed first",
            ),
            ledger_revision: one(all, "ledger_revision", "etcd's revision at its last answer"),
            ledger_mismatch: many(
                all,
                "ledger_mismatch",
                "1 while a key's row is not one to sign by: see hsmd ledger status",
            ),
            checkpoint_size: one(
                all,
                "checkpoint_size",
                "Entries in the last checkpoint of the journal",
            ),
            checkpoint_time: one(
                all,
                "checkpoint_timestamp_seconds",
                "When the last checkpoint was made",
            ),
            checkpoint_cosignatures: one(
                all,
                "checkpoint_cosignatures",
                "Witnesses that cosigned the last checkpoint",
            ),
            checkpoint_short_of_quorum: one(
                all,
                "checkpoint_short_of_quorum",
                "1 if fewer cosigned it than the configuration asks for",
            ),
            checkpoint_failures: one(
                all,
                "checkpoint_failures",
                "Checkpoints that were not made, or not recorded",
            ),
            policy_version: one(
                all,
                "policy_version",
                "Version of the policy in force; 0 where officers signed none",
            ),
            policy_expiry: one(
                all,
                "policy_expiry_timestamp_seconds",
                "The last moment at which the policy in force could be loaded; 0 where officers signed none",
            ),
            policy_old: one(
                all,
                "policy_old",
                "Whether that moment has passed: 1 calls for a newer policy",
            ),
            certificate_expiry: one(
                all,
                "certificate_expiry_timestamp_seconds",
                "When the server's certificate expires",
            ),
            certificate_reload_failures: one(
                all,
                "certificate_reload_failures",
                "Changed certificate files that could not be used",
            ),
            registry,
        }
    }
}

fn one<M: Metric + Default + Clone>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// One metric for each set of labels.
fn many<L, M>(registry: &mut Registry, name: &str, help: &str) -> Family<L, M>
where
    L: Clone + fmt::Debug + Eq + Hash + EncodeLabelSet + Send + Sync + 'static,
    M: Default + fmt::Debug + EncodeMetric + TypedMetric + Send + Sync + 'static,
{
    one(registry, name, help)
}

fn seconds(registry: &mut Registry, name: &str, help: &str, metric: impl Metric) {
    registry.register_with_unit(name, help, Unit::Seconds, metric);
}
