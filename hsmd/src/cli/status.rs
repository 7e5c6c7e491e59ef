//! `hsmd status`.

use hsm_proto::v1 as wire;
use serde_json::json;

use super::{Error, Printed, admin, block_on, show};

pub(super) fn run(printed: &Printed) -> Result<(), Error> {
    let config = printed.configured.load_to_look()?;
    let status = block_on(async {
        let mut client = admin::connect(&config.admin_socket).await?;
        let answer = client.get_status(wire::GetStatusRequest {}).await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner())
    })?;
    if printed.json {
        say!("{:#}", as_json(&status));
    } else {
        print_text(&status)?;
    }
    Ok(())
}

fn as_json(status: &wire::GetStatusResponse) -> serde_json::Value {
    let policy = status.policy.unwrap_or_default();
    let journal = status.journal.clone().unwrap_or_default();
    json!({
        "version": status.version,
        "started": show::moment(status.started.as_ref()),
        "address": status.address,
        "mock": status.mock,
        "policy": {
            "path": status.policy_path,
            "sha256": hex::encode(&status.policy_digest),
            "version": policy.version,
            "expires": policy.expires.as_ref().map(|expires| show::moment(Some(expires))),
            "old": policy.old,
            "unsigned": policy.unsigned,
        },
        "freezes": status.freezes.iter().map(|freeze| json!({
            "key": freeze.key,
            "by": freeze.by,
            "reason": freeze.reason,
        })).collect::<Vec<_>>(),
        "journal": {
            "directory": journal.directory,
            "durable_entries": journal.durable_entries,
            "root": hex::encode(&journal.root),
            "segment": journal.segment,
            "fault": journal.fault,
        },
        "devices": status.devices.iter().map(|device| json!({
            "name": device.name,
            "backend": device.backend,
            "state": device.state,
            "serial": device.serial,
            "firmware": device.firmware,
            "fault": device.fault,
            "unknown_signatures": device.unknown_signatures,
        })).collect::<Vec<_>>(),
        "anchor": status.anchor,
        "anchor_status": status.anchor_status.as_ref().map(|anchor| json!({
            "counter": anchor.counter,
            "advances": anchor.advances,
            "window": anchor.window,
            "spare": anchor.spare,
            "interval_s": anchor.interval_seconds,
            "fault": anchor.fault,
            "unproven": (anchor.unproven_size > 0).then(|| json!({
                "size": anchor.unproven_size,
                "root": hex::encode(&anchor.unproven_root),
            })),
        })),
        "certificate_expires": show::moment(status.certificate_expires.as_ref()),
    })
}

fn print_text(status: &wire::GetStatusResponse) -> Result<(), Error> {
    let journal = status.journal.clone().unwrap_or_default();
    if status.mock {
        say!("MOCK HSM: the keys are protected by nothing");
    }
    say!(
        "hsmd         {} since {}",
        status.version,
        show::moment(status.started.as_ref())
    );
    say!("listens      {}", status.address);
    say!(
        "certificate  until {}",
        show::moment(status.certificate_expires.as_ref())
    );
    print_policy(status)?;
    for freeze in &status.freezes {
        let (what, by, reason) = (show::frozen(&freeze.key), &freeze.by, &freeze.reason);
        say!("             FROZEN: {what}, by {by} {reason}");
    }
    say!(
        "journal      {} entries durable, segment {}, in {}",
        journal.durable_entries,
        journal.segment,
        journal.directory
    );
    say!("             root {}", hex::encode(&journal.root));
    if !journal.fault.is_empty() {
        say!("             NOT SIGNING: {}", journal.fault);
    }
    match status.anchor.as_str() {
        "none" => {
            say!(
                "anchor       none: a restored disk image or backup of the journal signs again what was \
                 signed since"
            );
        }
        anchor => print_anchor(anchor, &status.anchor_status.clone().unwrap_or_default())?,
    }
    for device in &status.devices {
        let (name, backend, state) = (&device.name, &device.backend, &device.state);
        say!(
            "device       {name} ({backend}) {state} {} {}",
            device.serial,
            device.firmware
        );
        if !device.fault.is_empty() {
            say!("             last fault: {}", device.fault);
        }
        if device.unknown_signatures > 0 {
            say!(
                "             ALARM: {} signatures that hsmd did not ask for: `hsmd doctor` says what to do",
                device.unknown_signatures
            );
        }
    }
    Ok(())
}

fn print_policy(status: &wire::GetStatusResponse) -> Result<(), Error> {
    let policy = status.policy.unwrap_or_default();
    let (path, sha256) = (&status.policy_path, hex::encode(&status.policy_digest));
    let expires = show::moment(policy.expires.as_ref());
    match policy.version {
        0 if policy.unsigned => say!("policy       UNSIGNED {path} sha256 {sha256}"),
        0 => say!("policy       NONE LOADED: nothing is signed; see `hsmd policy load`"),
        version => say!("policy       version {version}, {path}"),
    }
    if policy.old {
        say!(
            "             OLD: could be loaded until {expires}; it stays in force. Have officers sign a newer one"
        );
    }
    Ok(())
}

fn print_anchor(kind: &str, anchor: &wire::AnchorStatus) -> Result<(), Error> {
    let (window, spare, interval) = (anchor.window, anchor.spare, anchor.interval_seconds);
    say!(
        "anchor       {kind} at {}, advanced {} times since the start",
        anchor.counter,
        anchor.advances
    );
    say!(
        "             opens {window} heights, advances when fewer than {spare} are left, in the long run not more often \
         than every {interval} s"
    );
    if !anchor.fault.is_empty() {
        say!("             NOT ADVANCED: {}", anchor.fault);
    }
    if anchor.unproven_size > 0 {
        say!(
            "             nothing proves that the journal of {} entries with root {}, found after an unclean end, holds \
             all that was signed",
            anchor.unproven_size,
            hex::encode(&anchor.unproven_root)
        );
    }
    Ok(())
}
