//! The third stage: may this caller have it signed, and can a device sign it at all?

use std::time::SystemTime;

use hsm_device::PublicKey;
use hsm_policy::cometbft::Timestamp;
use hsm_policy::grants::{KeyName, Permit, Policy};
use hsm_proto::v1::Reason;

use super::refusal::Refusal;
use super::request::Request;
use crate::guard::{self, Guard};
use crate::keyring::{Key, Keyring};

/// What the stage decides by.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) policy: &'a Policy,
    pub(super) keyring: &'a Keyring,
    pub(super) guard: &'a Guard,
}

/// Proof that the policy grants the request, with the key that it named.
pub struct Permitted<'a> {
    pub(super) request: Request,
    pub(super) key: &'a Key,
    pub(super) public_key: PublicKey,
    pub(super) permit: Permit,
}

/// Decides by policy; refuses what no device of the key could sign before anything is reserved.
///
/// # Errors
///
/// A refusal by policy, or one that says what keeps the key from signing.
pub(super) fn permit(
    rules: Rules<'_>,
    request: Request,
    now: SystemTime,
) -> Result<Permitted<'_>, Refusal> {
    let name = KeyName::new(&request.key)
        .map_err(|error| Refusal::new(Reason::KeyNotGranted, error.to_string()))?;
    let permit = rules
        .policy
        .permit(&request.caller, &name, &request.message, moment(now)?)?;
    let not_known = || guard::Error::NotInitialised {
        key: request.key.clone(),
        chain: request.message.chain_id().to_string(),
    };
    let key = rules.keyring.get(&request.key).ok_or_else(not_known)?;
    let public_key = rules.guard.pinned(&request.key)?.ok_or_else(not_known)?;
    let ledger = rules
        .guard
        .inspect(|state| state.ledger_id(&public_key, request.message.chain_id()))?;
    if !request.ledger_id.is_empty() && request.ledger_id != ledger {
        return Err(wrong_ledger(ledger));
    }
    if let Some(limit) = key.message_limit() {
        fits("sign bytes", request.message.sign_bytes().len(), limit)?;
        if let Some(extension) = request.message.extension_sign_bytes() {
            fits("the extension's sign bytes", extension.len(), limit)?;
        }
    }
    Ok(Permitted {
        request,
        key,
        public_key,
        permit,
    })
}

fn wrong_ledger(bound: String) -> Refusal {
    let bound_to = if bound.is_empty() { "none" } else { &bound };
    Refusal::new(
        Reason::LedgerMismatch,
        format!(
            "the request wants the key's marks shared through another ledger than this signer's, which is \
             {bound_to}: compare the sentry's ledger_id with `hsmd ledger status`"
        ),
    )
    .with("ledger_id", bound)
}

fn fits(what: &str, length: usize, limit: usize) -> Result<(), Refusal> {
    if length <= limit {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::MessageTooLong,
        format!("{what} of {length} bytes: the key's device signs at most {limit}"),
    )
    .with("length", length)
    .with("limit", limit))
}

/// Our clock as the policy takes it.
fn moment(now: SystemTime) -> Result<Timestamp, hsm_policy::cometbft::Error> {
    let now = guard::entry::wall_clock(now);
    Timestamp::new(now.seconds, now.nanos)
}
