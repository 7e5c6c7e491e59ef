//! Documents that came in the name of officers.

use std::time::SystemTime;

use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use sha2::{Digest as _, Sha256};

use crate::guard::{self, Guard, Signed};

/// A document from the wire; an absent one is empty, and signed by nobody.
pub(crate) fn signed(signed: Option<wire::SignedDocument>) -> Signed {
    let signed = signed.unwrap_or_default();
    Signed {
        document: signed.document,
        signatures: signed.signatures,
    }
}

/// Journals that a document does not count, where that is the document's fault; `by` gave it. Durable on return, save
/// where the disk fails, which the log tells.
pub(crate) async fn journal(
    guard: &Guard,
    kind: &str,
    by: &str,
    signed: &Signed,
    error: Option<&guard::Error>,
) {
    let (reason, message) = match error {
        Some(guard::Error::Policy(refused)) => (refused.reason(), refused.to_string()),
        Some(guard::Error::Officers(refused)) => (refused.reason(), refused.to_string()),
        Some(guard::Error::Statement(reason)) => ("STATEMENT_DOES_NOT_FIT", reason.clone()),
        Some(error @ guard::Error::NotThatTail { .. }) => {
            ("STATEMENT_DOES_NOT_FIT", error.to_string())
        }
        Some(error @ guard::Error::NoOfficers { .. }) => ("NO_OFFICERS", error.to_string()),
        _ => return,
    };
    tracing::warn!(kind, by, reason, "a document does not count: {message}");
    let refused = Event::DocumentRefused(wire::DocumentRefused {
        kind: kind.to_owned(),
        by: by.to_owned(),
        reason: reason.to_owned(),
        message,
        sha256: Sha256::digest(&signed.document).to_vec(),
    });
    if let Err(error) = guard.record_durably(refused, SystemTime::now()).await {
        tracing::error!(%error, "a refusal is missing from the journal");
    }
}
