//! What Prometheus sees of the daemon: counters, gauges and histograms whose names begin with `hsmd_`.
//!
//! Labels come from the configuration, the policy and constants, never from what a caller sends, so that
//! no caller can make the number of series grow.

mod ledger;
mod registered;
mod serve;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hsm_proto::v1::Reason;
use prometheus_client::encoding::text;

use crate::guard::PolicyMark;

pub use ledger::LedgerOperation;
use registered::{
    CauseLabel, ChainLabel, DeviceErrorLabels, DeviceLabel, DeviceStateLabels, KeyLabels,
    ReasonLabel, RequestLabels, Shared,
};
pub use serve::serve;

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

impl Metrics {
    /// Metrics that begin at zero. `mock`: whether any device is the mock. `expires`: when the server's
    /// certificate does.
    #[must_use]
    pub fn new(mock: bool, expires: SystemTime) -> Self {
        let shared = Shared::register();
        shared.mock.set(i64::from(mock));
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
        self.last_signed(chain, key, height, SystemTime::now());
    }

    /// The height that a key signed last on a chain, and when.
    pub fn last_signed(&self, chain: &str, key: &str, height: i64, time: SystemTime) {
        let labels = KeyLabels {
            chain: chain.to_owned(),
            key: key.to_owned(),
        };
        // Answers may come out of order.
        let last = self.0.last_height.get_or_create(&labels);
        last.inner().fetch_max(height, Ordering::Relaxed);
        drop(last);
        let timestamp = self.0.last_timestamp.get_or_create(&labels);
        timestamp.set(unix_seconds(time));
        drop(timestamp);
        // Made at zero with the first signature, so that the first double sign shows as an increase.
        let chain = ChainLabel {
            chain: labels.chain,
        };
        let _ = self.0.double_signs.get_or_create_owned(&chain);
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

    /// A device's audit log shows so many signatures that hsmd did not ask for; 0 makes the series.
    pub fn unknown_signatures(&self, device: &str, count: u64) {
        let labels = DeviceLabel {
            device: device.to_owned(),
        };
        let series = self.0.unknown_signatures.get_or_create(&labels);
        series.inc_by(count);
    }

    /// An imported state knew another message at a position than ours.
    pub fn contested(&self, key: &str, chain: &str) {
        let labels = KeyLabels {
            chain: chain.to_owned(),
            key: key.to_owned(),
        };
        self.0.contested.get_or_create(&labels).set(1);
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

    /// How the rollback anchor is at present.
    pub fn anchor(&self, anchor: &crate::anchor::State) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.0.anchor_counter.set(number(anchor.counter));
        self.0.anchor_advances.set(number(anchor.advances));
        self.0.anchor_fault.set(i64::from(anchor.fault.is_some()));
    }

    /// A checkpoint of the journal was made.
    pub fn checkpoint(&self, size: u64, made: SystemTime) {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        self.0.checkpoint_size.set(size);
        self.0.checkpoint_time.set(unix_seconds(made));
    }

    /// So many witnesses cosigned it, and so many should.
    pub fn checkpoint_witnesses(&self, cosigned: usize, quorum: usize) {
        let count = i64::try_from(cosigned).unwrap_or(i64::MAX);
        self.0.checkpoint_cosignatures.set(count);
        let short = i64::from(cosigned < quorum);
        self.0.checkpoint_short_of_quorum.set(short);
    }

    /// One was not made, or not recorded.
    pub fn checkpoint_failure(&self) {
        self.0.checkpoint_failures.inc();
    }

    /// Which policy is in force, and whether it is old.
    pub fn policy(&self, mark: Option<&PolicyMark>, old: bool) {
        let version = mark.map_or(0, |mark| mark.version);
        self.0
            .policy_version
            .set(i64::try_from(version).unwrap_or(i64::MAX));
        self.0
            .policy_expiry
            .set(mark.map_or(0, |mark| mark.expires));
        self.0.policy_old.set(i64::from(old));
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

    /// A call on an authenticated connection was no request of this API, or too long.
    pub fn unreadable_request(&self) {
        self.0.unreadable_requests.inc();
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
        | Reason::AnchorUnavailable
        | Reason::LedgerUnavailable
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
