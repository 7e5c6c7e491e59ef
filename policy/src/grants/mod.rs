//! The policy: which callers may have which key sign what on which chain. Denied unless granted.

mod document;
mod key_name;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cometbft::{ChainId, Kind, Kinds, Message, Timestamp};
use crate::identity::Caller;

pub use document::Error;
pub use key_name::KeyName;

/// One `[[grant]]` of the document: some callers, one key, one chain, and what they may have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    callers: Vec<Caller>,
    key: KeyName,
    chain_id: ChainId,
    kinds: Kinds,
    max_height_jump: u64,
    max_round: u32,
    max_clock_skew: Option<Duration>,
    line: usize,
}

impl Grant {
    /// Who may ask; at least one, all of the role sentry.
    pub fn callers(&self) -> &[Caller] {
        &self.callers
    }

    /// The key they may use.
    pub fn key(&self) -> &KeyName {
        &self.key
    }

    /// The chain they may use it on.
    pub fn chain_id(&self) -> &ChainId {
        &self.chain_id
    }

    /// What they may have signed; at least one kind.
    pub fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// How far a height may lie above the last one signed; at least 1.
    pub fn max_height_jump(&self) -> u64 {
        self.max_height_jump
    }

    /// The highest round.
    pub fn max_round(&self) -> u32 {
        self.max_round
    }

    /// How far a message's timestamp may lie from our clock, either way; None for any distance.
    pub fn max_clock_skew(&self) -> Option<Duration> {
        self.max_clock_skew
    }

    /// The line of the document where it begins, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    fn permit(&self, caller: &Caller, message: &Message, now: Timestamp) -> Result<Permit, Denial> {
        if let Some(kind) = message
            .kinds()
            .iter()
            .find(|kind| !self.kinds.contains(*kind))
        {
            return Err(Denial::KindNotGranted {
                caller: caller.clone(),
                key: self.key.clone(),
                chain_id: self.chain_id.clone(),
                kind,
            });
        }
        let round = message.position().round.get().unsigned_abs();
        if round > self.max_round {
            return Err(Denial::RoundLimit {
                round,
                max_round: self.max_round,
            });
        }
        let skew = message.timestamp().distance(now);
        if let Some(max) = self.max_clock_skew.filter(|max| skew > *max) {
            return Err(Denial::ClockSkew { skew, max });
        }
        Ok(Permit {
            max_height_jump: self.max_height_jump,
        })
    }
}

/// Proof that the policy permits a message. Only [`Policy::permit`] makes one.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    max_height_jump: u64,
}

impl Permit {
    /// How far the message's height may lie above the last one signed, for [`crate::conflict::judge`].
    pub fn max_height_jump(&self) -> u64 {
        self.max_height_jump
    }
}

/// Why the policy does not permit a message. It tells the caller of nothing that no grant names it for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// No grant names caller and key; whether there is such a key is not said.
    #[error(
        "the policy grants {caller} nothing with a key named {key}. If it should, add a [[grant]] with \
         this caller and key"
    )]
    KeyNotGranted {
        /// Who asked.
        caller: Caller,
        /// The key's name, as asked for.
        key: KeyName,
    },
    /// No grant names caller, key and chain.
    #[error(
        "the policy grants {caller} nothing with the key {key} on the chain {chain_id}. If it should, \
         add a [[grant]] with this chain_id"
    )]
    ChainNotGranted {
        /// Who asked.
        caller: Caller,
        /// The key's name.
        key: KeyName,
        /// The message's chain.
        chain_id: ChainId,
    },
    /// The grant does not name the kind.
    #[error(
        "the policy does not grant {caller} the kind {kind} with the key {key} on the chain {chain_id}. \
         If it should, add it to the grant's kinds"
    )]
    KindNotGranted {
        /// Who asked.
        caller: Caller,
        /// The key's name.
        key: KeyName,
        /// The message's chain.
        chain_id: ChainId,
        /// The first kind that is missing.
        kind: Kind,
    },
    /// The round lies above the grant's limit.
    #[error(
        "round {round} lies above the grant's max_round {max_round}. If the chain really is there, raise \
         the limit"
    )]
    RoundLimit {
        /// Of the message.
        round: u32,
        /// Of the grant.
        max_round: u32,
    },
    /// The message's timestamp lies too far from our clock.
    #[error(
        "the message's timestamp lies {} s from the signer's clock, and the grant's \
         max_clock_skew_seconds is {}. Compare the clocks of node and signer",
        .skew.as_secs_f64(), .max.as_secs()
    )]
    ClockSkew {
        /// How far, either way.
        skew: Duration,
        /// The grant's limit.
        max: Duration,
    },
}

/// A checked policy document.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    grants: Vec<Arc<Grant>>,
    by_caller: BTreeMap<Caller, BTreeMap<KeyName, BTreeMap<ChainId, Arc<Grant>>>>,
}

impl Policy {
    /// Reads a TOML document. One without any grant is accepted, and permits nothing.
    pub fn parse(text: &str) -> Result<Policy, Error> {
        document::parse(text)
    }

    /// Whether `caller` may have `message` signed with `key`, by our clock's `now`. That it conflicts
    /// with nothing is judged elsewhere, within [`Permit::max_height_jump`].
    pub fn permit(
        &self,
        caller: &Caller,
        key: &KeyName,
        message: &Message,
        now: Timestamp,
    ) -> Result<Permit, Denial> {
        let chain_id = message.chain_id();
        match self.chains(caller, key)?.get(chain_id) {
            Some(grant) => grant.permit(caller, message, now),
            None => Err(Denial::ChainNotGranted {
                caller: caller.clone(),
                key: key.clone(),
                chain_id: chain_id.clone(),
            }),
        }
    }

    /// The caller's grants with one key, in the order of their chain ids; at least one.
    /// [`Denial::KeyNotGranted`] where there is none.
    pub fn grants_with(
        &self,
        caller: &Caller,
        key: &KeyName,
    ) -> Result<impl Iterator<Item = &Grant>, Denial> {
        Ok(self.chains(caller, key)?.values().map(Arc::as_ref))
    }

    /// All grants of a caller, in the order of their keys and chain ids.
    pub fn grants_of(&self, caller: &Caller) -> impl Iterator<Item = &Grant> {
        let keys = self
            .by_caller
            .get(caller)
            .into_iter()
            .flat_map(BTreeMap::values);
        keys.flat_map(BTreeMap::values).map(Arc::as_ref)
    }

    /// All grants, in the order of the document.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter().map(Arc::as_ref)
    }

    fn chains(
        &self,
        caller: &Caller,
        key: &KeyName,
    ) -> Result<&BTreeMap<ChainId, Arc<Grant>>, Denial> {
        self.by_caller
            .get(caller)
            .and_then(|keys| keys.get(key))
            .ok_or_else(|| Denial::KeyNotGranted {
                caller: caller.clone(),
                key: key.clone(),
            })
    }

    /// Adds a grant, unless another one says what a caller of it may have signed with its key on its
    /// chain.
    fn add(&mut self, grant: Grant) -> Result<(), Error> {
        let grant = Arc::new(grant);
        for caller in &grant.callers {
            let keys = self.by_caller.entry(caller.clone()).or_default();
            let chains = keys.entry(grant.key.clone()).or_default();
            if let Some(first) = chains.insert(grant.chain_id.clone(), Arc::clone(&grant)) {
                return Err(Error::Contradiction {
                    first_line: first.line,
                    line: grant.line,
                    caller: caller.clone(),
                    key: grant.key.clone(),
                    chain_id: grant.chain_id.clone(),
                });
            }
        }
        self.grants.push(grant);
        Ok(())
    }
}
