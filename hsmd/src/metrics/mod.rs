//! What Prometheus sees of the daemon: counters, gauges and histograms whose names begin with `hsmd_`.
//!
//! Labels come from the configuration, the policy and constants, never from what a caller sends, so that
//! no caller can make the number of series grow.

mod serve;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hsm_proto::v1::Reason;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use serve::serve;

/// Seconds; from a check in memory to the slowest honest signature.
const BUCKETS: [f64; 15] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15,
    0.25, 0.5, 1.0,
];

/// A stage of the line, in the order in which a request passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Who asks.
    Identity,
    /// From the wire to checked types.
    Request,
    /// Whether the policy permits it.
    Permit,
    /// Until the reservation is durable.
    Reserve,
    /// Until the device has signed and the signature was verified.
    Device,
    /// The answer.
    Reply,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Identity,
        Self::Request,
        Self::Permit,
        Self::Reserve,
        Self::Device,
        Self::Reply,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Request => "request",
            Self::Permit => "permit",
            Self::Reserve => "reserve",
            Self::Device => "device",
            Self::Reply => "reply",
        }
    }
}

/// All metrics of one daemon. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

struct Shared {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    refusals: Family<ReasonLabel, Counter>,
    double_signs: Family<ChainLabel, Counter>,
    stages: [Histogram; Stage::ALL.len()],
    last_height: Family<KeyLabels, Gauge>,
    last_timestamp: Family<KeyLabels, Gauge<f64, AtomicU64>>,
    sentry_connections: Gauge,
    handshake_failures: Family<CauseLabel, Counter>,
    device_errors: Family<DeviceErrorLabels, Counter>,
    device_states: Family<DeviceStateLabels, Gauge>,
    journal_flushes: Counter,
    journal_flush_duration: Histogram,
    journal_entries: Counter,
    journal_fault: Gauge,
    certificate_expiry: Gauge,
    certificate_reload_failures: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    chain: String,
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChainLabel {
    chain: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    chain: String,
    key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceErrorLabels {
    device: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceStateLabels {
    device: String,
    state: &'static str,
}

impl Metrics {
    /// Metrics that begin at zero. `mock`: whether any device is the mock. `expires`: when the server's
    /// certificate does.
    #[must_use]
    pub fn new(mock: bool, expires: SystemTime) -> Self {
        let mut registry = Registry::with_prefix("hsmd");
        let stages =
            Family::<StageLabel, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register_with_unit(
            "stage_duration",
            "Time that a stage of a sign request took",
            Unit::Seconds,
            stages.clone(),
        );
        let journal_flush_duration = Histogram::new(BUCKETS);
        registry.register_with_unit(
            "journal_flush_duration",
            "Time that writing and flushing a frame of the journal took",
            Unit::Seconds,
            journal_flush_duration.clone(),
        );
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What was built", version);
        let is_mock = gauge(
            &mut registry,
            "mock",
            "1 if any device is the mock, which protects nothing",
        );
        is_mock.set(i64::from(mock));
        let shared = Shared {
            requests: family(&mut registry, "requests", "Requests answered"),
            refusals: family(&mut registry, "refusals", "Refusals and failures by reason"),
            double_signs: family(
                &mut registry,
                "double_sign_refusals",
                "Requests refused because another message was signed at their position",
            ),
            stages: Stage::ALL.map(|stage| {
                stages.get_or_create_owned(&StageLabel {
                    stage: stage.name(),
                })
            }),
            last_height: family(&mut registry, "last_signed_height", "Height last signed"),
            last_timestamp: family(
                &mut registry,
                "last_signed_timestamp_seconds",
                "When a signature last left, UNIX time",
            ),
            sentry_connections: gauge(
                &mut registry,
                "sentry_connections",
                "Open connections whose certificate is a sentry's",
            ),
            handshake_failures: family(
                &mut registry,
                "handshake_failures",
                "Connections that ended before a client was authenticated",
            ),
            device_errors: family(
                &mut registry,
                "device_errors",
                "Requests that a device failed",
            ),
            device_states: family(
                &mut registry,
                "device_state",
                "1 for the state the device is in",
            ),
            journal_flushes: counter(
                &mut registry,
                "journal_flushes",
                "Frames of the journal that became durable",
            ),
            journal_flush_duration,
            journal_entries: counter(
                &mut registry,
                "journal_entries",
                "Entries of the journal that became durable",
            ),
            journal_fault: gauge(
                &mut registry,
                "journal_fault",
                "1 while the journal cannot be written, and nothing is signed",
            ),
            certificate_expiry: gauge(
                &mut registry,
                "certificate_expiry_timestamp_seconds",
                "When the server's certificate expires, UNIX time",
            ),
            certificate_reload_failures: counter(
                &mut registry,
                "certificate_reload_failures",
                "Changed certificate files that could not be used; the old ones stay in use",
            ),
            registry,
        };
        for reason in (1..=i32::from(u8::MAX)).filter_map(|number| Reason::try_from(number).ok()) {
            let label = ReasonLabel {
                reason: reason.name(),
            };
            // Made at zero, so that the first refusal shows as an increase.
            let _ = shared.refusals.get_or_create_owned(&label);
        }
        let metrics = Self(Arc::new(shared));
        metrics.certificate_expiry(expires);
        metrics
    }

    /// A signature left. `chain` and `key` are names that the policy grants.
    pub fn signed(&self, chain: &str, kind: &'static str, key: &str, height: i64) {
        self.request(chain, kind, "signed");
        let labels = KeyLabels {
            chain: chain.to_owned(),
            key: key.to_owned(),
        };
        self.0.last_height.get_or_create(&labels).set(height);
        self.0
            .last_timestamp
            .get_or_create(&labels)
            .set(unix_seconds(SystemTime::now()));
    }

    /// A request got no answer but `reason`. `chain` is one that the policy names, else empty.
    pub fn refused(&self, chain: &str, kind: &'static str, reason: Reason) {
        self.request(chain, kind, result(reason));
        self.0
            .refusals
            .get_or_create(&ReasonLabel {
                reason: reason.name(),
            })
            .inc();
        if reason == Reason::DoubleSign {
            self.0
                .double_signs
                .get_or_create(&ChainLabel {
                    chain: chain.to_owned(),
                })
                .inc();
        }
    }

    fn request(&self, chain: &str, kind: &'static str, result: &'static str) {
        let labels = RequestLabels {
            chain: chain.to_owned(),
            kind,
            result,
        };
        self.0.requests.get_or_create(&labels).inc();
    }

    /// A sign request has passed `stage`.
    pub fn stage(&self, stage: Stage, took: Duration) {
        if let Some(histogram) = self.0.stages.get(stage as usize) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// A device failed a request. `kind` is the name of its error.
    pub fn device_error(&self, device: &str, kind: &'static str) {
        let labels = DeviceErrorLabels {
            device: device.to_owned(),
            kind,
        };
        self.0.device_errors.get_or_create(&labels).inc();
    }

    /// How a device is at present.
    pub fn device(&self, status: &hsm_device::Status) {
        use hsm_device::State;
        for state in [
            State::Connecting,
            State::Ready,
            State::Failed,
            State::Hung,
            State::Stopped,
        ] {
            let labels = DeviceStateLabels {
                device: status.name.clone(),
                state: state.name(),
            };
            self.0
                .device_states
                .get_or_create(&labels)
                .set(i64::from(state == status.state));
        }
    }

    /// A frame of the journal became durable.
    pub fn journal_flush(&self, flush: &hsm_journal::Flush) {
        self.0.journal_flushes.inc();
        self.0.journal_entries.inc_by(flush.entries);
        self.0
            .journal_flush_duration
            .observe(flush.duration.as_secs_f64());
    }

    /// How the journal is at present.
    pub fn journal(&self, status: &hsm_journal::Status) {
        let fault = status.fault.is_some() || status.stopped.is_some();
        self.0.journal_fault.set(i64::from(fault));
    }

    /// The server's certificate expires then.
    pub fn certificate_expiry(&self, expires: SystemTime) {
        // An i64 holds every second that a certificate can name.
        #[allow(clippy::cast_possible_truncation)]
        self.0.certificate_expiry.set(unix_seconds(expires) as i64);
    }

    /// A changed certificate file could not be used.
    pub fn certificate_reload_failed(&self) {
        self.0.certificate_reload_failures.inc();
    }

    /// A connection ended before its client was authenticated.
    pub fn handshake_failed(&self, cause: &'static str) {
        self.0
            .handshake_failures
            .get_or_create(&CauseLabel { cause })
            .inc();
    }

    /// A sentry's connection is open until what is returned is dropped.
    #[must_use]
    pub fn sentry_connected(&self) -> OpenConnection {
        self.0.sentry_connections.inc();
        OpenConnection(self.clone())
    }

    /// All metrics in the OpenMetrics text format, which Prometheus reads.
    ///
    /// # Errors
    /// None in practice: a `String` takes everything.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

/// A connection that `hsmd_sentry_connections` counts.
pub struct OpenConnection(Metrics);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.0.sentry_connections.dec();
    }
}

/// Refused: by our rules, at the caller's or the operator's door. Failed: the same request might succeed
/// later, so whoever is paged wants to know.
fn result(reason: Reason) -> &'static str {
    match reason {
        Reason::JournalUnavailable
        | Reason::JournalOverloaded
        | Reason::DeviceUnavailable
        | Reason::DeviceOverloaded
        | Reason::DeviceFault
        | Reason::DeadlineExceeded
        | Reason::ShuttingDown
        | Reason::Internal => "failed",
        _ => "refused",
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

fn family<L, M>(registry: &mut Registry, name: &str, help: &str) -> Family<L, M>
where
    L: Clone + fmt::Debug + Eq + std::hash::Hash + EncodeLabelSet + Send + Sync + 'static,
    M: Default
        + fmt::Debug
        + prometheus_client::encoding::EncodeMetric
        + prometheus_client::metrics::TypedMetric
        + Send
        + Sync
        + 'static,
{
    let family = Family::<L, M>::default();
    registry.register(name, help, family.clone());
    family
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}
