//! `hsmd journal show`: every entry, oldest first, from the files themselves.

use std::io::Write as _;

use hsm_journal::Beginning;
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use serde_json::{Value, json};

use super::super::{Error, Printed, out, show};
use super::moved;
use crate::guard::entry;

pub(super) fn run(printed: &Printed) -> Result<(), Error> {
    let config = printed.configured.load_to_look()?;
    let reader = hsm_journal::read(&config.state_dir)?;
    let Beginning { segment, index } = reader.beginning();
    if index > 0 {
        out::note(&format!(
            "the journal in {} begins with segment {segment}: entries 0 to {} stand in earlier segments, which \
             are not there; put them back to see and verify all of it",
            config.state_dir.display(),
            index - 1
        ));
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for read in reader {
        let hsm_journal::Entry { index, leaf, .. } = read?;
        if hsm_journal::is_snapshot_leaf(&leaf) {
            continue;
        }
        let (time, event) =
            entry::decode(&leaf).map_err(|error| format!("entry {index}: {error}"))?;
        let written = if printed.json {
            writeln!(out, "{}", as_json(index, &time, &event))
        } else {
            writeln!(out, "{index:>8}  {time}  {}", as_text(&event))
        };
        match written {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    match out.flush() {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        flushed => Ok(flushed?),
    }
}

fn as_text(event: &Event) -> String {
    match event {
        Event::StateCreated(created) => {
            format!(
                "state created    deployment {}",
                hex::encode(&created.deployment_id)
            )
        }
        Event::DaemonStarted(started) => {
            let mock = match started.mock_devices.as_slice() {
                [] => String::new(),
                devices => format!(", MOCK devices {}", devices.join(", ")),
            };
            format!("daemon started   hsmd {}{mock}", started.version)
        }
        Event::DaemonStopped(_) => "daemon stopped".to_owned(),
        Event::KeyPinned(pinned) => format!(
            "key pinned       {} on {}, nothing at or below {}",
            pinned.key, pinned.chain_id, pinned.initial_height
        ),
        Event::OfficersSet(_)
        | Event::StateImported(_)
        | Event::KeyRecovered(_)
        | Event::PolicyLoaded(_)
        | Event::DocumentRefused(_)
        | Event::Frozen(_)
        | Event::Thawed(_) => moved::as_text(event),
        Event::KeyAdvanced(advanced) => format!(
            "key advanced     {} on {}, nothing at or below {}",
            advanced.key, advanced.chain_id, advanced.initial_height
        ),
        Event::DeviceAudit(audit) => format!(
            "device audit     {} up to entry {}{}",
            audit.device,
            audit.last_number,
            alarms(audit)
        ),
        Event::AlarmAcknowledged(seen) => format!(
            "alarm acknowledged {} by {}: {} unknown signatures",
            seen.device, seen.by, seen.unknown_signatures
        ),
        Event::DeviceFailed(failed) => format!(
            "device failed    {}: {} calls without an answer",
            failed.device, failed.calls
        ),
        Event::LedgerBound(seen) => format!("ledger bound     {}", ledger_row(seen)),
        Event::LedgerSeen(seen) => format!("ledger seen      {}", ledger_row(seen)),
        Event::LedgerReconciled(seen) => format!("ledger merged    {}", ledger_row(seen)),
        Event::LedgerDistrusted(distrusted) => format!(
            "LEDGER REFUSED   {} on {}: {}",
            key_text(distrusted.public_key.as_ref()),
            distrusted.chain_id,
            distrusted.reason
        ),
        Event::LedgerJournalReplaced(replaced) => format!(
            "journal replaced that of signer {}, by officers, above {} and {}: {}",
            hex::encode(&replaced.signer_id),
            replaced.chain_height,
            replaced.margin,
            ledger_row(&replaced.seen.clone().unwrap_or_default())
        ),
        Event::AnchorBound(bound) => {
            format!("anchor bound     {} at {}", bound.kind, bound.counter)
        }
        Event::AnchorAdvanced(advanced) => match advanced.sealed {
            true => format!("anchor sealed    at {}", advanced.counter),
            false => format!("anchor advanced  to {}", advanced.counter),
        },
        Event::TailUnproven(tail) => {
            format!(
                "TAIL UNPROVEN    of {} entries, after an unclean end",
                tail.size
            )
        }
        Event::TailAccepted(tail) => format!("tail accepted    of {} entries", tail.size),
        Event::DeviceAdded(added) => {
            let device = added.device.clone().unwrap_or_default();
            format!(
                "device added     {} ({} {}) for {}",
                device.device, device.model, device.serial, added.key
            )
        }
        Event::Reserved(reserved) => format!(
            "reserved         {} on {} at {} for {}",
            reserved.key,
            reserved.chain_id,
            position(reserved.position.as_ref()),
            reserved.caller
        ),
        Event::Signed(signed) => format!(
            "signed           {} on {}, as entry {} reserved",
            signed.key, signed.chain_id, signed.reserved_index
        ),
        Event::CheckpointBegun(begun) => format!(
            "checkpoint begun {} by key {}",
            begun.origin,
            public_key(begun.public_key.as_ref())
                .as_str()
                .unwrap_or("-")
        ),
        Event::CheckpointMade(made) => format!(
            "checkpoint made  of the first {} entries",
            made.note.lines().nth(1).unwrap_or("-")
        ),
        Event::CheckpointCosigned(cosigned) => format!(
            "cosigned         by {} witnesses: the checkpoint of the first {} entries",
            cosigned.witnesses,
            cosigned.note.lines().nth(1).unwrap_or("-")
        ),
        Event::Refused(refused) => {
            let times = match refused.count {
                0 | 1 => String::new(),
                count => format!(" ({count} times)"),
            };
            format!(
                "REFUSED          {}{times} {} on {} at {} for {}",
                refused.reason,
                refused.key,
                refused.chain_id,
                position(refused.position.as_ref()),
                refused.caller
            )
        }
    }
}

fn ledger_row(seen: &wire::LedgerMark) -> String {
    let row = seen.row.clone().unwrap_or_default();
    format!(
        "{} on {} at {} in {}, generation {}, revision {}",
        key_text(seen.public_key.as_ref()),
        seen.chain_id,
        position(row.position.as_ref()),
        hex::encode(&row.ledger_id),
        row.generation,
        seen.revision
    )
}

fn key_text(key: Option<&wire::PublicKey>) -> String {
    key.map_or_else(String::new, |key| hex::encode(&key.bytes))
}

fn alarms(audit: &wire::DeviceAudit) -> String {
    let unknown = audit.signatures.iter().map(|made| made.unknown);
    let unknown = unknown.fold(0, u64::saturating_add);
    let alarms = [
        (unknown, "signatures that hsmd DID NOT ASK FOR"),
        (audit.missing_entries, "entries MISSING"),
        (audit.broken_links, "links BROKEN"),
        (audit.unreadable_entries, "entries UNREADABLE"),
        (audit.administrative_commands, "administrative commands"),
    ];
    let alarms = alarms.iter().filter(|(count, _)| *count > 0);
    alarms
        .map(|(count, what)| format!(", {count} {what}"))
        .collect()
}

pub(super) fn position(position: Option<&wire::Position>) -> String {
    position.map_or_else(|| "-".to_owned(), show::position)
}

fn as_json(index: u64, time: &prost_types::Timestamp, event: &Event) -> Value {
    let (name, mut fields) = match event {
        Event::StateCreated(created) => (
            "state_created",
            json!({
                "deployment_id": hex::encode(&created.deployment_id),
                "anchor": created.anchor.as_ref().map(|anchor| &anchor.kind),
            }),
        ),
        Event::DaemonStarted(started) => (
            "daemon_started",
            json!({
                "version": started.version,
                "mock_devices": started.mock_devices,
                "policy_sha256": hex::encode(&started.policy_digest),
                "policy_unsigned": started.policy_unsigned,
            }),
        ),
        Event::DaemonStopped(_) => ("daemon_stopped", json!({})),
        Event::KeyPinned(pinned) => (
            "key_pinned",
            json!({
                "key": pinned.key,
                "public_key": public_key(pinned.public_key.as_ref()),
                "chain_id": pinned.chain_id,
                "initial_height": pinned.initial_height,
                "devices": pinned.devices,
                "device_identities": pinned.device_identities.iter().map(identity_json).collect::<Vec<_>>(),
                "ledger": pinned.ledger.as_ref().map(ledger_json),
            }),
        ),
        Event::KeyAdvanced(advanced) => (
            "key_advanced",
            json!({
                "key": advanced.key,
                "public_key": public_key(advanced.public_key.as_ref()),
                "chain_id": advanced.chain_id,
                "initial_height": advanced.initial_height,
            }),
        ),
        Event::LedgerBound(seen) => ("ledger_bound", ledger_json(seen)),
        Event::LedgerSeen(seen) => ("ledger_seen", ledger_json(seen)),
        Event::LedgerReconciled(seen) => ("ledger_reconciled", ledger_json(seen)),
        Event::LedgerDistrusted(distrusted) => (
            "ledger_distrusted",
            json!({
                "public_key": public_key(distrusted.public_key.as_ref()),
                "chain_id": distrusted.chain_id,
                "reason": distrusted.reason,
            }),
        ),
        Event::LedgerJournalReplaced(replaced) => (
            "ledger_journal_replaced",
            json!({
                "signer_id": hex::encode(&replaced.signer_id),
                "chain_height": replaced.chain_height,
                "margin": replaced.margin,
                "seen": replaced.seen.as_ref().map(ledger_json),
                "authorisation": replaced.authorisation.as_ref().map(moved::authorisation),
            }),
        ),
        Event::AnchorBound(bound) => (
            "anchor_bound",
            json!({
                "kind": bound.kind,
                "counter": bound.counter,
                "authorisation": bound.authorisation.as_ref().map(moved::authorisation),
            }),
        ),
        Event::AnchorAdvanced(advanced) => ("anchor_advanced", advanced_json(advanced)),
        Event::TailUnproven(tail) => (
            "tail_unproven",
            json!({ "size": tail.size, "root": hex::encode(&tail.root) }),
        ),
        Event::TailAccepted(tail) => (
            "tail_accepted",
            json!({
                "size": tail.size,
                "root": hex::encode(&tail.root),
                "authorisation": tail.authorisation.as_ref().map(moved::authorisation),
            }),
        ),
        Event::DeviceAdded(added) => (
            "device_added",
            json!({
                "key": added.key,
                "public_key": public_key(added.public_key.as_ref()),
                "device": added.device.as_ref().map(identity_json),
            }),
        ),
        Event::Reserved(reserved) => ("reserved", reserved_json(reserved)),
        Event::DeviceAudit(audit) => ("device_audit", audit_json(audit)),
        Event::AlarmAcknowledged(seen) => (
            "alarm_acknowledged",
            json!({
                "device": seen.device,
                "by": seen.by,
                "unknown_signatures": seen.unknown_signatures,
                "missing_entries": seen.missing_entries,
                "broken_links": seen.broken_links,
                "unreadable_entries": seen.unreadable_entries,
                "administrative_commands": seen.administrative_commands,
            }),
        ),
        Event::DeviceFailed(failed) => (
            "device_failed",
            json!({ "device": failed.device, "calls": failed.calls }),
        ),
        Event::Signed(signed) => (
            "signed",
            json!({
                "reserved_index": signed.reserved_index,
                "key": signed.key,
                "public_key": public_key(signed.public_key.as_ref()),
                "chain_id": signed.chain_id,
                "signature": hex::encode(&signed.signature),
                "extension_signature": hex::encode(&signed.extension_signature),
            }),
        ),
        Event::CheckpointBegun(begun) => (
            "checkpoint_begun",
            json!({
                "origin": begun.origin,
                "public_key": public_key(begun.public_key.as_ref()),
                "marks_sha256": hex::encode(&begun.marks_sha256),
            }),
        ),
        Event::CheckpointMade(made) => ("checkpoint_made", json!({ "note": made.note })),
        Event::CheckpointCosigned(cosigned) => (
            "checkpoint_cosigned",
            json!({ "note": cosigned.note, "witnesses": cosigned.witnesses }),
        ),
        Event::Refused(refused) => ("refused", refused_json(refused)),
        Event::OfficersSet(_)
        | Event::StateImported(_)
        | Event::KeyRecovered(_)
        | Event::PolicyLoaded(_)
        | Event::DocumentRefused(_)
        | Event::Frozen(_)
        | Event::Thawed(_) => moved::as_json(event),
    };
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("index".to_owned(), index.into());
        fields.insert("time".to_owned(), time.to_string().into());
        fields.insert("event".to_owned(), name.into());
    }
    fields
}

fn advanced_json(advanced: &wire::AnchorAdvanced) -> Value {
    let ceilings = advanced.ceilings.iter().map(|ceiling| {
        json!({
            "public_key": public_key(ceiling.public_key.as_ref()),
            "chain_id": ceiling.chain_id,
            "height": ceiling.height,
        })
    });
    json!({
        "counter": advanced.counter,
        "sealed": advanced.sealed,
        "ceilings": ceilings.collect::<Vec<_>>(),
    })
}

fn identity_json(identity: &wire::DeviceIdentity) -> Value {
    json!({
        "device": identity.device,
        "model": identity.model,
        "serial": identity.serial,
        "certificate_sha256": hex::encode(&identity.certificate_sha256),
    })
}

fn audit_json(audit: &wire::DeviceAudit) -> Value {
    let signatures = audit
        .signatures
        .iter()
        .map(|made| json!({ "object": made.object, "made": made.made, "unknown": made.unknown }));
    json!({
        "device": audit.device,
        "last_number": audit.last_number,
        "last_digest": hex::encode(&audit.last_digest),
        "first": audit.first,
        "entries": audit.entries,
        "signatures": signatures.collect::<Vec<_>>(),
        "missing_entries": audit.missing_entries,
        "broken_links": audit.broken_links,
        "unreadable_entries": audit.unreadable_entries,
        "administrative_commands": audit.administrative_commands,
        "unlogged_boots": audit.unlogged_boots,
        "unlogged_authentications": audit.unlogged_authentications,
    })
}

fn reserved_json(reserved: &wire::Reserved) -> Value {
    let position = reserved.position.unwrap_or_default();
    json!({
        "caller": reserved.caller,
        "key": reserved.key,
        "public_key": public_key(reserved.public_key.as_ref()),
        "chain_id": reserved.chain_id,
        "height": position.height,
        "round": position.round,
        "step": show::step_name(&position),
        "sign_bytes": hex::encode(&reserved.sign_bytes),
        "timestamp": show::moment(reserved.timestamp.as_ref()),
        "extension_sign_bytes": reserved.extension_sign_bytes.as_ref().map(hex::encode),
        "ledger_revision": reserved.ledger_revision,
    })
}

fn ledger_json(seen: &wire::LedgerMark) -> Value {
    let row = seen.row.clone().unwrap_or_default();
    let ids = |ids: &[Vec<u8>]| ids.iter().map(hex::encode).collect::<Vec<_>>();
    json!({
        "public_key": public_key(seen.public_key.as_ref()),
        "chain_id": seen.chain_id,
        "ledger_id": hex::encode(&row.ledger_id),
        "cluster_id": format!("{:016x}", seen.cluster_id),
        "revision": seen.revision,
        "generation": row.generation,
        "members": ids(&row.members),
        "awaited": ids(&row.awaited),
        "initial_height": row.initial_height,
        "height": row.position.map(|position| position.height),
        "round": row.position.map(|position| position.round),
        "step": row.position.as_ref().map(show::step_name),
        "sign_bytes": hex::encode(&row.sign_bytes),
        "extension_sign_bytes": row.extension_sign_bytes.as_ref().map(hex::encode),
    })
}

fn refused_json(refused: &wire::Refused) -> Value {
    json!({
        "caller": refused.caller,
        "reason": refused.reason,
        "message": refused.message,
        "key": refused.key,
        "chain_id": refused.chain_id,
        "height": refused.position.map(|position| position.height),
        "round": refused.position.map(|position| position.round),
        "step": refused.position.as_ref().map(show::step_name),
        "sign_bytes": hex::encode(&refused.sign_bytes),
        "count": refused.count,
    })
}

pub(super) fn public_key(key: Option<&wire::PublicKey>) -> Value {
    key.map_or(Value::Null, |key| hex::encode(&key.bytes).into())
}
