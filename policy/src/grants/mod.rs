//! The policy: which callers may have which key sign what on which chain. Denied unless granted.
//!
//! At most one grant speaks for a caller, key and chain, so that no grant takes precedence over another. The
//! document in force is one that enough officers signed ([`authorise`]); a draft is one without a header.

mod denial;
mod diff;
mod document;
mod explain;
mod grantee;
mod header;
mod key_name;
mod limits;
mod signed;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use crate::cometbft::{ChainId, Kinds, Message, Timestamp};
use crate::identity::Caller;

pub use denial::Denial;
pub use diff::{Difference, diff};
pub use document::{Error, MAX_POLICY};
pub use explain::{Explanation, explain};
pub use grantee::Grantee;
pub use header::{Header, KIND, namespace};
pub use key_name::KeyName;
pub use limits::{Allowance, Limits, Meters, Rate, Subject};
pub use signed::{Context, Refused, Signed, authorise};

/// One `[[grant]]` of the document: some callers, one key, one chain, and what they may have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    callers: Vec<Grantee>,
    key: KeyName,
    chain_id: ChainId,
    kinds: Kinds,
    limits: Limits,
    line: usize,
}

impl Grant {
    /// Who may ask; at least one, all of the role sentry.
    pub fn callers(&self) -> &[Grantee] {
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

    /// Within which limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
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
        let limits = &self.limits;
        let position = message.position();
        let (height, round) = (
            position.height.get().unsigned_abs(),
            position.round.get().unsigned_abs(),
        );
        if round > limits.max_round {
            let max_round = limits.max_round;
            return Err(Denial::RoundLimit { round, max_round });
        }
        if let Some(max_height) = limits.max_height.filter(|max| height > *max) {
            return Err(Denial::HeightLimit { height, max_height });
        }
        let skew = message.timestamp().distance(now);
        if let Some(max) = limits.max_clock_skew.filter(|max| skew > *max) {
            return Err(Denial::ClockSkew { skew, max });
        }
        Ok(Permit {
            max_height_jump: limits.max_height_jump,
            requests: limits.requests(),
            heights: limits.heights(),
        })
    }
}

/// One `[[freeze]]` of the document: a key that signs nothing while it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    key: KeyName,
    line: usize,
}

impl Freeze {
    /// Which key.
    pub fn key(&self) -> &KeyName {
        &self.key
    }

    /// The line of the document where it begins, from 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

/// Proof that the policy permits a message. Only [`Policy::permit`] makes one.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    max_height_jump: u64,
    requests: Option<Allowance>,
    heights: Option<Allowance>,
}

impl Permit {
    /// How far the message's height may lie above the last one signed, for [`crate::conflict::judge`].
    pub fn max_height_jump(&self) -> u64 {
        self.max_height_jump
    }

    /// How many requests the caller may send, where that is limited.
    pub fn requests(&self) -> Option<Allowance> {
        self.requests
    }

    /// By how many heights the caller may raise the mark, where that is limited.
    pub fn heights(&self) -> Option<Allowance> {
        self.heights
    }
}

/// A checked policy document.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    header: Option<Header>,
    grants: Vec<Grant>,
    /// In order, each once.
    grantees: Vec<Grantee>,
    /// By grantee, key and chain: each of these at most once.
    index: Vec<Entry>,
    /// By key.
    freezes: Vec<Freeze>,
}

/// That a grant speaks for a grantee, by their places in [`Policy`].
#[derive(Debug, Clone, Copy)]
struct Entry {
    grantee: u32,
    grant: u32,
}

impl Policy {
    /// Reads a TOML document. One without any grant is accepted, and permits nothing.
    ///
    /// # Errors
    ///
    /// [`Error`]: the whole document is refused.
    pub fn parse(text: &str) -> Result<Policy, Error> {
        document::parse(text)
    }

    /// What the document says of itself; None for a draft.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Whether `caller` may have `message` signed with `key`, by our clock's `now`. That it conflicts
    /// with nothing is judged elsewhere, within [`Permit::max_height_jump`], and so are the allowances.
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn permit(
        &self,
        caller: &Caller,
        key: &KeyName,
        message: &Message,
        now: Timestamp,
    ) -> Result<Permit, Denial> {
        let grant = self.find(caller, key, message.chain_id())?;
        if let Some(freeze) = self.freeze(key) {
            return Err(Denial::Frozen {
                key: key.clone(),
                line: freeze.line,
            });
        }
        grant.permit(caller, message, now)
    }

    /// The one grant that speaks for this caller, key and chain.
    ///
    /// # Errors
    ///
    /// [`Denial::KeyNotGranted`], [`Denial::ChainNotGranted`].
    pub fn find(
        &self,
        caller: &Caller,
        key: &KeyName,
        chain_id: &ChainId,
    ) -> Result<&Grant, Denial> {
        let entries = self.entries(caller);
        let mut found = entries
            .iter()
            .filter_map(|entries| self.at(entries, key, chain_id));
        match found.next() {
            Some(grant) => Ok(grant),
            None => self.grants_with(caller, key).and_then(|_| {
                Err(Denial::ChainNotGranted {
                    caller: caller.clone(),
                    key: key.clone(),
                    chain_id: chain_id.clone(),
                })
            }),
        }
    }

    /// The caller's grants with one key; at least one.
    ///
    /// # Errors
    ///
    /// [`Denial::KeyNotGranted`] where there is none.
    pub fn grants_with(
        &self,
        caller: &Caller,
        key: &KeyName,
    ) -> Result<impl Iterator<Item = &Grant>, Denial> {
        let [named, role] = self
            .entries(caller)
            .map(|entries| self.with_key(entries, key));
        if named.is_empty() && role.is_empty() {
            return Err(key_not_granted(caller, key));
        }
        Ok(named
            .iter()
            .chain(role)
            .filter_map(|entry| self.grant(*entry)))
    }

    /// All grants of a caller: those that name it, then those of its role, each in the order of keys and chain ids.
    pub fn grants_of(&self, caller: &Caller) -> impl Iterator<Item = &Grant> {
        let [named, role] = self.entries(caller);
        named
            .iter()
            .chain(role)
            .filter_map(|entry| self.grant(*entry))
    }

    /// All grants, in the order of the document.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter()
    }

    /// All freezes, in the order of their keys.
    pub fn freezes(&self) -> &[Freeze] {
        &self.freezes
    }

    /// The freeze of a key, where there is one.
    pub fn freeze(&self, key: &KeyName) -> Option<&Freeze> {
        let place = self.freezes.binary_search_by(|freeze| freeze.key.cmp(key));
        self.freezes.get(place.ok()?)
    }

    /// What speaks for the caller by its name, and what by its role.
    fn entries(&self, caller: &Caller) -> [&[Entry]; 2] {
        let named = self.grantees.binary_search_by(|grantee| match grantee {
            Grantee::Caller(named) => named.cmp(caller),
            Grantee::Role(..) => Ordering::Greater,
        });
        let role = self.grantees.binary_search_by(|grantee| match grantee {
            Grantee::Caller(_) => Ordering::Less,
            Grantee::Role(domain, role) => {
                (domain, role).cmp(&(caller.trust_domain(), &caller.role()))
            }
        });
        [named, role].map(|place| {
            let grantee = place.ok().and_then(|place| u32::try_from(place).ok());
            grantee.map_or(&[][..], |grantee| {
                part(&self.index, |entry| entry.grantee.cmp(&grantee))
            })
        })
    }

    fn with_key<'a>(&'a self, entries: &'a [Entry], key: &KeyName) -> &'a [Entry] {
        part(entries, |entry| {
            self.grant(*entry)
                .map_or(Ordering::Less, |grant| grant.key.cmp(key))
        })
    }

    fn at(&self, entries: &[Entry], key: &KeyName, chain_id: &ChainId) -> Option<&Grant> {
        let found = part(entries, |entry| {
            self.grant(*entry).map_or(Ordering::Less, |grant| {
                (&grant.key, &grant.chain_id).cmp(&(key, chain_id))
            })
        });
        found.first().and_then(|entry| self.grant(*entry))
    }

    fn grant(&self, entry: Entry) -> Option<&Grant> {
        self.grants.get(usize::try_from(entry.grant).ok()?)
    }
}

/// The part of a sorted list that `order` finds equal.
fn part<T>(sorted: &[T], order: impl Fn(&T) -> Ordering) -> &[T] {
    let start = sorted.partition_point(|item| order(item) == Ordering::Less);
    let rest = sorted.get(start..).unwrap_or_default();
    let end = rest.partition_point(|item| order(item) == Ordering::Equal);
    rest.get(..end).unwrap_or_default()
}

fn key_not_granted(caller: &Caller, key: &KeyName) -> Denial {
    Denial::KeyNotGranted {
        caller: caller.clone(),
        key: key.clone(),
    }
}
