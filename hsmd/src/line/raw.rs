//! The life of a payload that is no consensus message: identity, permit, reserve, device, reply.

use std::time::{Duration, SystemTime};

use hsm_device::{Algorithm, PublicKey};
use hsm_policy::cometbft::resembles_a_message;
use hsm_policy::grants::{Hash, KeyName};
use hsm_policy::identity::{Caller, Role};
use hsm_proto::v1 as wire;
use hsm_proto::v1::Reason;
use hsm_proto::v1::entry::Event;
use sha2::{Digest as _, Sha256, Sha512};
use tokio::time::Instant;

use super::attempt::Attempt;
use super::refusal::Refusal;
use super::{Line, identify, too_late};
use crate::guard::entry::algorithm_to_wire;
use crate::guard::{self, RawAsk};
use crate::keyring::Key;
use crate::transport::Peer;

/// The longest payload, in bytes.
const LONGEST_PAYLOAD: usize = 60 << 10;

/// Proof that the journal holds, durably, that this will be signed.
struct Reserved<'a> {
    index: u64,
    key: &'a Key,
    public_key: PublicKey,
    hash: Hash,
    /// What the device is given.
    message: Vec<u8>,
}

impl Line {
    /// Signs a payload, or says why not, within the line's deadline and the caller's `patience`.
    ///
    /// # Errors
    ///
    /// The refusal, after it was journaled and counted.
    pub async fn sign_raw(
        &self,
        peer: &Peer,
        sent: wire::SignRawRequest,
        patience: Option<Duration>,
    ) -> Result<wire::SignRawResponse, Refusal> {
        let attempt = Attempt::to_sign_raw(peer, &sent.key);
        let allowed = patience.map_or(self.deadline, |patience| patience.min(self.deadline));
        let deadline = Instant::now() + allowed;
        let outcome = tokio::time::timeout_at(deadline, self.walk_raw(peer, &sent, deadline)).await;
        outcome
            .unwrap_or_else(|_| Err(too_late(allowed)))
            .map_err(|refusal| self.refuse(attempt, refusal))
    }

    async fn walk_raw(
        &self,
        peer: &Peer,
        sent: &wire::SignRawRequest,
        deadline: Instant,
    ) -> Result<wire::SignRawResponse, Refusal> {
        self.refuse_when_stopping()?;
        let now = SystemTime::now();
        let caller = identify(peer, &[Role::Operator], now)?;
        let name = KeyName::new(&sent.key)
            .map_err(|error| Refusal::new(Reason::RawNotGranted, error.to_string()))?;
        let reserved = loop {
            match self
                .reserve_raw(&caller, &name, sent, now, deadline)
                .await?
            {
                Some(reserved) => break reserved,
                // A new policy was put in force in between: what counts is what that one says.
                None => tokio::task::yield_now().await,
            }
        };
        let Reserved {
            index: reserved_index,
            key,
            public_key,
            hash,
            message,
        } = reserved;
        let failed = |device: &str, kind| self.metrics.device_error(device, kind);
        let signature = key
            .sign(&public_key, &message, deadline, failed)
            .await?
            .0
            .to_vec();
        let signed = Event::RawSigned(wire::RawSigned {
            reserved_index,
            key: sent.key.clone(),
            signature: signature.clone(),
        });
        if let Err(error) = self.guard.record(signed, SystemTime::now()) {
            tracing::error!(%error, "a signature left whose outcome the journal does not hold");
        }
        Ok(wire::SignRawResponse {
            signature,
            hash: hash.name().to_owned(),
            algorithm: algorithm_to_wire(public_key.algorithm()).into(),
            public_key: public_key.as_bytes().to_vec(),
        })
    }

    /// None where the policy that permitted it is not in force any more.
    async fn reserve_raw(
        &self,
        caller: &Caller,
        name: &KeyName,
        sent: &wire::SignRawRequest,
        now: SystemTime,
        deadline: Instant,
    ) -> Result<Option<Reserved<'_>>, Refusal> {
        let in_force = self.policy();
        let permit = in_force.policy.permit_raw(caller, name, &sent.purpose)?;
        check(&sent.payload)?;
        let key = self.keyring.get(&sent.key).ok_or_else(|| {
            let message = "the configuration has no such key: hsmd's operator must look";
            Refusal::new(Reason::DeviceMisconfigured, message)
        })?;
        let public_key = self.raw_key(key, deadline).await?;
        super::permit::refuse_frozen(&in_force, &self.guard, &public_key)?;
        let hash = permit.hash();
        let message = hashed(hash, public_key.algorithm(), &sent.payload)?;
        if let Some(limit) = key.message_limit() {
            super::permit::fits("what the device is given", message.len(), limit)?;
        }
        let ask = RawAsk {
            caller,
            key: &sent.key,
            public_key: &public_key,
            purpose: &sent.purpose,
            hash: hash.name(),
            payload: &sent.payload,
            version: in_force.version(),
        };
        match self.guard.reserve_raw(ask, now).await {
            Ok(index) => Ok(Some(Reserved {
                index,
                key,
                public_key,
                hash,
                message,
            })),
            Err(guard::Error::PolicyChanged) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// As the journal has it or, before its first payload, as its devices show it.
    async fn raw_key(&self, key: &Key, deadline: Instant) -> Result<PublicKey, Refusal> {
        let known = self.guard.inspect(|state| state.raw_key(key.name()))?;
        let public_key = match known {
            Some(known) => known,
            None => key.read_public_key(deadline).await?,
        };
        let failed = |device: &str, kind| self.metrics.device_error(device, kind);
        key.confirm(&public_key, deadline, failed).await?;
        Ok(public_key)
    }
}

fn check(payload: &[u8]) -> Result<(), Refusal> {
    let length = payload.len();
    if !(1..=LONGEST_PAYLOAD).contains(&length) {
        let message = format!("a payload of {length} bytes: hsmd takes 1 to {LONGEST_PAYLOAD}");
        return Err(Refusal::new(Reason::MessageTooLong, message)
            .with("length", length)
            .with("limit", LONGEST_PAYLOAD));
    }
    if resembles_a_message(payload) {
        return Err(Refusal::new(
            Reason::ConsensusMessage,
            "the payload could be taken for a consensus message, and none is ever signed so",
        ));
    }
    Ok(())
}

/// What the device is given: of an Ed25519 key the hash, which it signs as its message; of an ECDSA key the payload,
/// which the device hashes with SHA-256 itself.
fn hashed(hash: Hash, algorithm: Algorithm, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
    match (algorithm, hash) {
        (Algorithm::Ed25519, Hash::Sha256) => Ok(Sha256::digest(payload).to_vec()),
        (Algorithm::Ed25519, Hash::Sha512) => Ok(Sha512::digest(payload).to_vec()),
        (Algorithm::Secp256k1 | Algorithm::P256, Hash::Sha256) => Ok(payload.to_vec()),
        (Algorithm::Secp256k1 | Algorithm::P256, Hash::Sha512) => Err(Refusal::new(
            Reason::DeviceMisconfigured,
            "the policy wants sha512 of an ECDSA key, which signs sha256 alone: hsmd's operator must look",
        )),
    }
}
