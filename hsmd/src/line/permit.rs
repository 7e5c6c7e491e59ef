//! The third stage: may this caller have it signed, and can a device sign it at all?

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hsm_device::PublicKey;
use hsm_policy::cometbft::Timestamp;
use hsm_policy::grants::{Denial, KeyName, Meters, Permit, Subject};
use hsm_proto::v1::Reason;

use super::refusal::Refusal;
use super::request::Request;
use crate::guard::{self, Guard, Terms};
use crate::in_force::InForce;
use crate::keyring::{Key, Keyring};

/// What the stage decides by.
pub(super) struct Rules<'k, 'a> {
    pub(super) in_force: &'a InForce,
    pub(super) requests: &'a Mutex<Meters>,
    pub(super) keyring: &'k Keyring,
    pub(super) guard: &'a Guard,
}

/// Proof that the policy grants the request, with the key that it named.
pub struct Permitted<'a> {
    pub(super) request: Request,
    pub(super) key: &'a Key,
    pub(super) public_key: PublicKey,
    pub(super) permit: Permit,
    /// The version of the policy that it rests on.
    version: u64,
    /// Whose use is measured, where the permit limits it.
    subject: Option<Subject>,
    /// The time since a moment that stays the same.
    elapsed: Duration,
}

impl Permitted<'_> {
    /// What the guard holds against it.
    pub(super) fn terms(&self) -> Terms<'_> {
        Terms {
            version: self.version,
            heights: self.subject.as_ref().zip(self.permit.heights()),
            elapsed: self.elapsed,
        }
    }
}

/// Decides by policy; refuses what no device of the key could sign before anything is reserved.
///
/// # Errors
///
/// A refusal by policy, or one that says what keeps the key from signing.
pub(super) fn permit<'k>(
    rules: Rules<'k, '_>,
    request: Request,
    now: SystemTime,
    elapsed: Duration,
) -> Result<Permitted<'k>, Refusal> {
    let name = KeyName::new(&request.key)
        .map_err(|error| Refusal::new(Reason::KeyNotGranted, error.to_string()))?;
    let policy = &rules.in_force.policy;
    let permit = policy.permit(&request.caller, &name, &request.message, moment(now)?)?;
    let subject = subject(&permit, &request, &name);
    measure(&rules, &permit, subject.as_ref(), elapsed)?;
    let not_known = || guard::Error::NotInitialised {
        key: request.key.clone(),
        chain: request.message.chain_id().to_string(),
    };
    let key = rules.keyring.get(&request.key).ok_or_else(not_known)?;
    let public_key = rules.guard.pinned(&request.key)?.ok_or_else(not_known)?;
    refuse_frozen(rules.in_force, rules.guard, &public_key)?;
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
        version: rules.in_force.version(),
        subject,
        elapsed,
    })
}

/// A freeze in the policy, too, is one of the key, whatever names it signs under.
pub(super) fn refuse_frozen(
    in_force: &InForce,
    guard: &Guard,
    public_key: &PublicKey,
) -> Result<(), Refusal> {
    let policy = &in_force.policy;
    if policy.freezes().is_empty() {
        return Ok(());
    }
    let frozen = guard.inspect(|state| {
        let mut names = state.names_of(public_key);
        names.find_map(|name| policy.freeze(&KeyName::new(name).ok()?))
    })?;
    match frozen {
        None => Ok(()),
        Some(freeze) => Err(Refusal::from(Denial::Frozen {
            key: freeze.key().clone(),
            line: freeze.line(),
        })),
    }
}

/// Nothing is kept of callers whose use is not limited.
fn subject(permit: &Permit, request: &Request, key: &KeyName) -> Option<Subject> {
    permit.requests().or(permit.heights()).map(|_| Subject {
        caller: request.caller.clone(),
        key: key.clone(),
        chain_id: request.message.chain_id().clone(),
    })
}

fn measure(
    rules: &Rules<'_, '_>,
    permit: &Permit,
    subject: Option<&Subject>,
    elapsed: Duration,
) -> Result<(), Denial> {
    let Some((subject, allowance)) = subject.zip(permit.requests()) else {
        return Ok(());
    };
    let mut requests = rules
        .requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if !requests.admits(subject, allowance, 1, elapsed) {
        return Err(Denial::RequestRate {
            rate: allowance.rate(),
        });
    }
    requests.count(subject, allowance, 1, elapsed);
    Ok(())
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

pub(super) fn fits(what: &str, length: usize, limit: usize) -> Result<(), Refusal> {
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

#[cfg(test)]
mod tests {
    use hsm_device::Algorithm;
    use hsm_journal::State as _;
    use hsm_policy::cometbft::ChainId;

    use super::*;
    use crate::guard::State;

    #[tokio::test]
    async fn a_freeze_in_the_policy_holds_for_every_name_of_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let state = State::new(vec![1; 16]);
        let created = hsm_proto::v1::StateCreated {
            deployment_id: vec![1; 16],
            anchor: None,
        };
        let event = hsm_proto::v1::entry::Event::StateCreated(created);
        let now = SystemTime::now();
        let first = guard::entry::encode(now, event);
        hsm_journal::create(&path, &state.snapshot(), &first).unwrap();
        let opened = hsm_journal::open::<State>(&path, Default::default()).unwrap();
        let guard = Guard::new(opened.state, opened.journal);
        let keys = [
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        ];
        let keys = keys.map(|key| {
            let key = hex::decode(key).unwrap();
            PublicKey::from_parts(Algorithm::Ed25519, &key).unwrap()
        });
        for (name, key, chain) in [("validator", 0, "a"), ("alias", 0, "b"), ("other", 1, "a")] {
            let chain = ChainId::new(chain).unwrap();
            let pinned = guard.pin(name, &keys[key], &chain, 0, Vec::new(), now);
            pinned.await.unwrap();
        }
        let file = directory.path().join("policy.toml");
        std::fs::write(&file, "[[freeze]]\nkey = \"validator\"\n").unwrap();
        let in_force = InForce::unsigned(&file).unwrap();
        // Whoever asks for `alias` asks for this key.
        let refused = refuse_frozen(&in_force, &guard, &keys[0]).unwrap_err();
        assert_eq!(refused.reason, Reason::KeyFrozen);
        refuse_frozen(&in_force, &guard, &keys[1]).unwrap();
    }
}
