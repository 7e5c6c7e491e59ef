//! Checkpoints of the journal, and of devices' own audit logs.

use hsm_proto::v1 as wire;

use super::change::Change;
use super::snapshot::audit_mark;
use super::{AuditMark, State, entry};

impl State {
    pub(super) fn plan_checkpoint(&self, begun: wire::CheckpointBegun) -> Result<Change, String> {
        let public_key = entry::public_key_from_wire(begun.public_key)?;
        if self.keys.contains_key(&public_key) {
            return Err(format!("consensus key {public_key} asked for a checkpoint"));
        }
        Ok(Change::Checkpoint(public_key))
    }

    pub(super) fn plan_audit(&self, audit: wire::DeviceAudit) -> Result<Change, String> {
        let unknown = audit.signatures.iter().map(|made| made.unknown);
        let unknown = unknown.fold(0, u64::saturating_add);
        let before = self.audits.get(&audit.device);
        let mark = audit_mark(audit.last_number, &audit.last_digest)?;
        let unknown_signatures = before.map_or(0, |before| before.unknown_signatures);
        let unknown_signatures = unknown_signatures.saturating_add(unknown);
        Ok(Change::Audit(
            audit.device,
            AuditMark {
                unknown_signatures,
                ..mark
            },
        ))
    }

    pub(super) fn plan_acknowledgement(
        &self,
        seen: wire::AlarmAcknowledged,
    ) -> Result<Change, String> {
        let mark = self.audits.get(&seen.device);
        let unknown = mark.map_or(0, |mark| mark.unknown_signatures);
        if seen.unknown_signatures > unknown {
            let (device, seen) = (seen.device, seen.unknown_signatures);
            return Err(format!(
                "{seen} unknown signatures of device {device} acknowledged, and there are {unknown}"
            ));
        }
        Ok(Change::Acknowledged(seen.device, seen.unknown_signatures))
    }
}
