//! How the daemon is, for `hsmd status`.

use std::path::Path;

use hsm_proto::v1 as wire;
use tonic::Status;

use super::AdminService;
use super::failure::status_of_guard;
use crate::keyring::Device;

impl AdminService {
    #[allow(clippy::result_large_err, reason = "a status is what tonic wants")]
    pub(super) fn freezes(&self) -> Result<Vec<wire::FreezeStatus>, Status> {
        let freezes = self.line.guard().inspect(|state| {
            let freezes = state.freezes().map(|(frozen, freeze)| wire::FreezeStatus {
                key: frozen.name().to_owned(),
                by: freeze.by.clone(),
                reason: freeze.reason.clone(),
            });
            freezes.collect()
        });
        freezes.map_err(status_of_guard)
    }

    pub(super) fn journal_status(&self) -> wire::JournalStatus {
        let journal = self.line.guard().journal().status();
        wire::JournalStatus {
            directory: self.about.state_dir.display().to_string(),
            durable_entries: journal.entries,
            root: journal.root.to_vec(),
            segment: journal.segment,
            fault: journal
                .stopped
                .or(journal.fault.map(|fault| fault.to_string()))
                .unwrap_or_default(),
        }
    }

    /// Without an anchor there may be a tail in doubt, from the time when there was one.
    pub(super) fn anchor_status(&self) -> Result<Option<wire::AnchorStatus>, Status> {
        let unproven = self.line.guard().inspect(|state| state.unproven().copied());
        let unproven = unproven.map_err(|error| Status::internal(error.to_string()))?;
        let Some(status) = &self.about.anchor_status else {
            return Ok(unproven.map(|tail| wire::AnchorStatus {
                unproven_size: tail.size,
                unproven_root: tail.root.to_vec(),
                ..wire::AnchorStatus::default()
            }));
        };
        let (now, pace) = (status.now(), status.pace);
        Ok(Some(wire::AnchorStatus {
            counter: now.counter,
            advances: now.advances,
            window: pace.window.unsigned_abs(),
            spare: pace.spare.unsigned_abs(),
            interval_seconds: pace.interval.as_secs(),
            fault: now.fault.unwrap_or_default(),
            unproven_size: unproven.map_or(0, |tail| tail.size),
            unproven_root: unproven.map_or_else(Vec::new, |tail| tail.root.to_vec()),
        }))
    }
}

pub(super) fn shown(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

pub(super) fn device_status(device: &Device, unknown_signatures: u64) -> wire::DeviceStatus {
    let status = device.worker.status();
    let info = status.info.as_ref();
    wire::DeviceStatus {
        name: status.name,
        backend: status.backend.name().to_owned(),
        state: status.state.name().to_owned(),
        serial: info.map_or_else(String::new, |info| info.serial.clone()),
        firmware: info.map_or_else(String::new, |info| info.firmware.clone()),
        fault: status
            .last_fault
            .map_or_else(String::new, |fault| fault.to_string()),
        unknown_signatures,
    }
}
