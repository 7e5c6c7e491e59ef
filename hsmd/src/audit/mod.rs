//! The audit logs that devices keep by themselves: read, held against what hsmd asked for, written into the journal
//! as checkpoints, and freed, so that a device that stops when its log is full never does.
//!
//! `firmware-notes/yubihsm2.md` says what must match, and what is tolerated after an unclean end.

mod acknowledge;
mod ledger;
mod wait;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hsm_device::Worker;
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::guard::{self, Guard};
use crate::metrics::Metrics;
use ledger::{Counts, Ledger};

pub use acknowledge::{Error as NotAcknowledged, acknowledge, unknown_signatures};
pub use wait::Wait;

/// How long a device may take to show its log, or to free entries.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon it is tried again where it could not be read.
const AGAIN: Duration = Duration::from_secs(1);

/// Changes of data objects by the rollback anchor that an earlier process may have made after its last reading.
const ANCHOR_CHANGES: u64 = 4;

/// What is known of a device's audit log since the start, save what was acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// When it was last read.
    pub read: Option<SystemTime>,
    /// Whether the device keeps none.
    pub none: bool,
    /// Why it could not be read the last time, or its entries not be freed.
    pub fault: Option<String>,
    /// Signatures that hsmd did not ask for.
    pub unknown_signatures: u64,
    /// Entries that are missing, as their numbers say.
    pub missing: u64,
    /// Entries whose digest does not follow from the one before.
    pub broken: u64,
    /// Entries that this version cannot read.
    pub unreadable: u64,
    /// Commands that changed the device, save those of hsmd's own rollback anchor.
    pub administrative: u64,
}

/// What a device's auditor shares with those who sign, and with those who look.
#[derive(Default)]
pub struct Shared {
    /// To have the log read, and to wait for that.
    pub wait: Wait,
    report: Mutex<Report>,
}

impl Shared {
    /// What is known of the log.
    #[must_use]
    pub fn report(&self) -> Report {
        self.lock().clone()
    }

    /// Takes what was acknowledged out of the report. More may have come since it was read.
    fn forget(&self, seen: &wire::AlarmAcknowledged) {
        let mut report = self.lock();
        let less = |count: &mut u64, seen: u64| *count = count.saturating_sub(seen);
        less(&mut report.unknown_signatures, seen.unknown_signatures);
        less(&mut report.missing, seen.missing_entries);
        less(&mut report.broken, seen.broken_links);
        less(&mut report.unreadable, seen.unreadable_entries);
        less(&mut report.administrative, seen.administrative_commands);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one device's audit log until told to stop.
pub struct Auditor<'a> {
    device: &'a str,
    worker: &'a Worker,
    shared: &'a Shared,
    guard: &'a Guard,
    metrics: &'a Metrics,
    ledger: Ledger,
    /// Calls without an answer that the journal knows of.
    journaled: BTreeSet<u64>,
}

/// Why a log was not read to its end.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Device(#[from] hsm_device::Error),
    #[error(transparent)]
    Guard(#[from] guard::Error),
}

impl<'a> Auditor<'a> {
    /// An auditor that goes on from the last checkpoint in the journal. `stopped`: whether hsmd was stopped cleanly
    /// before this start.
    ///
    /// # Errors
    ///
    /// After a fault of the guard.
    pub fn new(
        device: &'a crate::keyring::Device,
        guard: &'a Guard,
        metrics: &'a Metrics,
        stopped: bool,
    ) -> Result<Self, guard::Error> {
        let ledger = guard.inspect(|state| {
            let mark = state.audit(&device.name);
            // The journal is sealed after the last reading: the next object is put, the last ones are deleted, and
            // each may have been tried twice.
            let in_a_device = state
                .anchor()
                .is_some_and(|anchor| anchor.kind == "yubihsm");
            let data_changes = if in_a_device { ANCHOR_CHANGES } else { 0 };
            let (asked, calls) = (state.asked(), wait::CALLS.into());
            Ledger::new(mark, asked, stopped, calls, data_changes)
        })?;
        metrics.unknown_signatures(&device.name, 0);
        Ok(Self {
            device: &device.name,
            worker: &device.worker,
            shared: &device.audit,
            guard,
            metrics,
            ledger,
            journaled: BTreeSet::new(),
        })
    }

    /// Reads the log every `interval`, or sooner where that is asked for, until `done`; then once more.
    pub async fn run(mut self, interval: Duration, done: impl Future<Output = ()>) {
        let mut done = std::pin::pin!(done);
        loop {
            let again = match self.pass().await {
                true => interval,
                false => interval.min(AGAIN),
            };
            tokio::select! {
                () = &mut done => break,
                () = self.shared.wait.asked() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
        self.pass().await;
    }

    /// Reads the log once; returns whether that was possible.
    async fn pass(&mut self) -> bool {
        self.shared.wait.begin();
        let read = self.read().await;
        {
            let mut report = self.shared.lock();
            match &read {
                Ok(()) => report.fault = None,
                Err(error) => {
                    let error = error.to_string();
                    if report.fault.as_ref() != Some(&error) {
                        tracing::warn!(device = self.device, error, "its audit log was not read");
                    }
                    report.fault = Some(error);
                }
            }
        }
        self.shared.wait.end(read.is_ok());
        read.is_ok()
    }

    async fn read(&mut self) -> Result<(), Error> {
        let now = SystemTime::now();
        self.record_failures(now)?;
        let reading = self.worker.audit_log(Instant::now() + PATIENCE).await?;
        let Some(reading) = reading else {
            self.shared.lock().none = true;
            self.shared.wait.none();
            return Ok(());
        };
        let found = self.ledger.read(&reading);
        self.alarm(&found);
        self.report(&found, now);
        let held = &reading.log.entries;
        if let Some(checkpoint) = self.ledger.checkpoint(self.device, held.len()) {
            let event = Event::DeviceAudit(checkpoint);
            self.guard.record_durably(event, now).await?;
            self.ledger.saved();
        }
        if let Some(number) = self.ledger.free_up_to(held) {
            let deadline = Instant::now() + PATIENCE;
            self.worker.free_audit_log(number, deadline).await?;
        }
        Ok(())
    }

    /// Calls without an answer get an entry: after an unclean end they say what the device may have signed.
    fn record_failures(&mut self, now: SystemTime) -> Result<(), Error> {
        let failed = self.worker.asked().failed;
        self.journaled.retain(|call| failed.contains_key(call));
        let new = failed.keys().filter(|call| self.journaled.insert(**call));
        let calls = new.count() as u64;
        if calls > 0 {
            let device = self.device.to_owned();
            let event = Event::DeviceFailed(wire::DeviceFailed { device, calls });
            self.guard.record(event, now)?;
        }
        Ok(())
    }

    fn alarm(&self, found: &Counts) {
        let device = self.device;
        self.metrics.unknown_signatures(device, found.unknown());
        for (object, (made, unknown)) in &found.signatures {
            if *unknown > 0 {
                let object = format!("{object:#06x}");
                tracing::error!(
                    device,
                    object,
                    made,
                    unknown,
                    "ALARM: the device made signatures that hsmd did not ask for: somebody else uses the key"
                );
            }
        }
        let (missing, broken, unreadable) = (found.missing, found.broken, found.unreadable);
        if missing + broken + unreadable > 0 {
            tracing::error!(
                device,
                missing,
                broken,
                unreadable,
                "ALARM: the device's audit log is not whole: somebody else freed entries, it ran over, or the \
                 device was reset"
            );
        }
        if found.administrative > 0 {
            let commands = found.administrative;
            tracing::warn!(device, commands, "somebody administered the device");
        }
    }

    fn report(&self, found: &Counts, now: SystemTime) {
        let mut report = self.shared.lock();
        report.read = Some(now);
        report.unknown_signatures += found.unknown();
        report.missing += found.missing;
        report.broken += found.broken;
        report.unreadable += found.unreadable;
        report.administrative += found.administrative;
    }
}

/// Audits every device until `done`, and then once more.
pub async fn run_all(
    line: Arc<crate::line::Line>,
    interval: Duration,
    stopped: bool,
    done: watch::Receiver<bool>,
) {
    let mut tasks = tokio::task::JoinSet::new();
    for device in line.keyring().devices().to_vec() {
        let (line, mut done) = (line.clone(), done.clone());
        let done = async move {
            let _ = done.wait_for(|done| *done).await;
        };
        tasks.spawn(async move {
            match Auditor::new(&device, line.guard(), line.metrics(), stopped) {
                Ok(auditor) => auditor.run(interval, done).await,
                Err(error) => tracing::error!(%error, "a device's audit log is not read"),
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;
