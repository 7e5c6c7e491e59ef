//! `hsm-enroll journal`: every act, from the files, also beside a running server.

use clap::Args;
use hsm_proto::v1 as wire;
use hsm_proto::v1::register_entry::Event;
use serde_json::{Value, json};

use super::{Configured, Error, say};
use crate::register;

#[derive(Args)]
pub(super) struct Journal {
    #[command(flatten)]
    configured: Configured,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Journal) -> Result<(), Error> {
    let config = arguments.configured.load()?;
    for entry in hsm_journal::read(&config.state_dir)? {
        let entry = entry?;
        if hsm_journal::is_snapshot_leaf(&entry.leaf) {
            continue;
        }
        let (time, event) = register::decode(&entry.leaf)?;
        let (name, fields) = described(&event);
        let index = entry.index;
        if arguments.json {
            let line = json!({ "index": index, "time": time.to_string(), "event": name, "fields": fields });
            say(format_args!("{line}"))?;
        } else {
            say(format_args!(
                "{index:5}  {time}  {name}  {}",
                in_words(&fields)
            ))?;
        }
    }
    Ok(())
}

/// An event's name and its fields.
fn described(event: &Event) -> (&'static str, Value) {
    match event {
        Event::Created(created) => ("created", json!({ "trust_domain": created.trust_domain })),
        Event::Started(started) => (
            "started",
            json!({
                "version": started.version, "ca": hex::encode(&started.ca_fingerprint),
                "mock_devices": started.mock_devices,
            }),
        ),
        Event::Stopped(_) => ("stopped", json!({})),
        Event::TokenCreated(made) => (
            "token_created",
            json!({
                "node": made.node, "role": made.role, "address": made.address,
                "expires": made.expires, "names": made.names, "by_user": made.by_user,
                "token_sha256": hex::encode(&made.token_sha256),
            }),
        ),
        Event::NodeJoined(joined) => (
            "node_joined",
            json!({
                "address": joined.address, "token_sha256": hex::encode(&joined.token_sha256),
                "grant": joined.grant.as_ref().map(issued),
            }),
        ),
        Event::CertificateIssued(made) => ("certificate_issued", issued(made)),
        Event::FilesAssigned(assigned) => (
            "files_assigned",
            json!({
                "node": assigned.node, "by_user": assigned.by_user,
                "files": assigned.files.iter().map(|file| &file.name).collect::<Vec<_>>(),
            }),
        ),
        Event::NodesRevoked(revoked) => {
            let list = revoked.revocations.clone().unwrap_or_default();
            let fields = json!({
                "scope": revoked.scope, "by_user": revoked.by_user,
                "document": String::from_utf8_lossy(&list.document),
                "signature": hex::encode(&list.signature),
            });
            ("nodes_revoked", fields)
        }
        Event::Refused(refused) => (
            "refused",
            json!({
                "call": refused.call, "reason": refused.reason, "message": refused.message,
                "address": refused.address, "caller": refused.caller, "more": refused.more,
            }),
        ),
    }
}

fn issued(issued: &wire::CertificateIssued) -> Value {
    json!({
        "node": issued.node, "kind": issued.kind().as_str_name(), "sha256": hex::encode(&issued.sha256),
        "not_before": issued.not_before, "not_after": issued.not_after,
        "address": issued.address, "asked_by": hex::encode(&issued.asked_by),
    })
}

/// The fields on one line, for people.
fn in_words(fields: &Value) -> String {
    let fields = fields.as_object().into_iter().flatten();
    let words = fields.map(|(name, value)| format!("{name}={value}"));
    words.collect::<Vec<_>>().join(" ")
}
