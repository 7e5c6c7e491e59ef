//! Entries about officers and about marks that came from elsewhere.

use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use serde_json::{Value, json};

use super::super::show;
use super::show::{position, public_key};

/// For people.
pub(super) fn as_text(event: &Event) -> String {
    match event {
        Event::OfficersSet(set) => {
            let officers = set.officers.clone().unwrap_or_default();
            let names = officers
                .members
                .iter()
                .filter_map(|line| line.split(' ').next());
            let names: Vec<&str> = names.collect();
            format!(
                "officers set     {} of {}{}",
                officers.threshold,
                names.join(", "),
                signed_by(set.authorisation.as_ref())
            )
        }
        Event::StateImported(imported) => format!(
            "state imported   {} on {} at {} from {}",
            imported.key,
            imported.chain_id,
            position(imported.position.as_ref()),
            from(imported.evidence.as_ref())
        ),
        Event::KeyRecovered(recovered) => {
            let pinned = recovered.pinned.clone().unwrap_or_default();
            format!(
                "key recovered    {} on {}, nothing at or below {}, from {}{}",
                pinned.key,
                pinned.chain_id,
                pinned.initial_height,
                from(recovered.evidence.as_ref()),
                signed_by(recovered.authorisation.as_ref())
            )
        }
        Event::PolicyLoaded(loaded) => {
            let policy = loaded.policy.clone().unwrap_or_default();
            format!(
                "policy loaded    version {}, sha256 {}, as {} signed",
                policy.version,
                hex::encode(&policy.sha256),
                loaded.officers.join(" and ")
            )
        }
        Event::Frozen(frozen) => format!(
            "FROZEN           {} by {}{}{}",
            show::frozen(&frozen.key),
            frozen.by,
            if frozen.reason.is_empty() { "" } else { ": " },
            frozen.reason
        ),
        Event::Thawed(thawed) => format!(
            "thawed           {}{}",
            show::frozen(&thawed.key),
            signed_by(thawed.authorisation.as_ref())
        ),
        Event::DocumentRefused(refused) => format!(
            "REFUSED          {} {} of {}: {}",
            refused.reason, refused.kind, refused.by, refused.message
        ),
        _ => String::new(),
    }
}

/// The event's name and its fields.
pub(super) fn as_json(event: &Event) -> (&'static str, Value) {
    match event {
        Event::Frozen(frozen) => (
            "frozen",
            json!({ "key": frozen.key, "by": frozen.by, "reason": frozen.reason }),
        ),
        Event::Thawed(thawed) => (
            "thawed",
            json!({
                "key": thawed.key,
                "authorisation": thawed.authorisation.as_ref().map(authorisation),
            }),
        ),
        Event::PolicyLoaded(loaded) => {
            let policy = loaded.policy.clone().unwrap_or_default();
            let fields = json!({
                "version": policy.version,
                "sha256": hex::encode(&policy.sha256),
                "expires": show::moment(policy.expires.as_ref()),
                "officers": loaded.officers,
                "signatures": loaded.signatures,
            });
            ("policy_loaded", fields)
        }
        Event::DocumentRefused(refused) => {
            let fields = json!({
                "kind": refused.kind,
                "by": refused.by,
                "reason": refused.reason,
                "message": refused.message,
                "sha256": hex::encode(&refused.sha256),
            });
            ("document_refused", fields)
        }
        Event::OfficersSet(set) => {
            let officers = set.officers.clone().unwrap_or_default();
            let fields = json!({
                "threshold": officers.threshold,
                "officers": officers.members,
                "authorisation": set.authorisation.as_ref().map(authorisation),
            });
            ("officers_set", fields)
        }
        Event::StateImported(imported) => {
            let at = imported.position.as_ref();
            let fields = json!({
                "key": imported.key,
                "public_key": public_key(imported.public_key.as_ref()),
                "chain_id": imported.chain_id,
                "evidence": evidence(imported.evidence.as_ref()),
                "initial_height": imported.initial_height,
                "height": at.map(|at| at.height),
                "round": at.map(|at| at.round),
                "step": at.map(show::step_name),
                "sign_bytes": hex::encode(&imported.sign_bytes),
                "signature": hex::encode(&imported.signature),
            });
            ("state_imported", fields)
        }
        Event::KeyRecovered(recovered) => {
            let pinned = recovered.pinned.clone().unwrap_or_default();
            let fields = json!({
                "key": pinned.key,
                "public_key": public_key(pinned.public_key.as_ref()),
                "chain_id": pinned.chain_id,
                "initial_height": pinned.initial_height,
                "devices": pinned.devices,
                "evidence": evidence(recovered.evidence.as_ref()),
                "evidence_height": recovered.evidence_height,
                "margin": recovered.margin,
                "authorisation": recovered.authorisation.as_ref().map(authorisation),
            });
            ("key_recovered", fields)
        }
        _ => ("", Value::Null),
    }
}

/// What officers signed; with the document and the signatures, for `ssh-keygen -Y verify`.
pub(super) fn authorisation(authorisation: &wire::Authorisation) -> Value {
    json!({
        "kind": authorisation.kind,
        "nonce": hex::encode(&authorisation.nonce),
        "expires": show::moment(authorisation.expires.as_ref()),
        "officers": authorisation.officers,
        "document": String::from_utf8_lossy(&authorisation.document),
        "signatures": authorisation.signatures,
    })
}

fn evidence(evidence: Option<&wire::Evidence>) -> Value {
    let evidence = evidence.cloned().unwrap_or_default();
    json!({
        "format": evidence.format,
        "source": evidence.source,
        "sha256": hex::encode(&evidence.sha256),
    })
}

fn from(evidence: Option<&wire::Evidence>) -> String {
    let evidence = evidence.cloned().unwrap_or_default();
    format!("{} {}", evidence.format, evidence.source)
        .trim_end()
        .to_owned()
}

fn signed_by(authorisation: Option<&wire::Authorisation>) -> String {
    authorisation.map_or_else(String::new, |signed| {
        format!(", signed by {}", signed.officers.join(", "))
    })
}
