//! Which keys are frozen, as the journal yields it.

use std::collections::BTreeMap;

use hsm_device::PublicKey;
use hsm_proto::v1 as wire;

use super::change::Change;
use super::{Place, State};

/// What is frozen: a key by its name, or every key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frozen {
    /// Every key, those of later included.
    All,
    /// The public key that this name is pinned to, under all of its names; or this name, while it is pinned to none.
    Key(String),
}

impl Frozen {
    /// As the wire has it: empty for all.
    #[must_use]
    pub fn named(key: &str) -> Self {
        match key {
            "" => Self::All,
            key => Self::Key(key.to_owned()),
        }
    }

    /// As the wire has it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::All => "",
            Self::Key(key) => key,
        }
    }
}

/// Who froze it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// A caller's URI, or "uid N" on the administration socket.
    pub by: String,
    /// As it was given.
    pub reason: String,
}

/// By what is frozen.
pub(super) type Freezes = BTreeMap<Frozen, Freeze>;

impl State {
    /// All freezes.
    pub fn freezes(&self) -> impl Iterator<Item = (&Frozen, &Freeze)> {
        self.freezes.iter()
    }

    /// The freeze that keeps a key from signing, where there is one.
    #[must_use]
    pub fn frozen(&self, name: &str, public_key: &PublicKey) -> Option<&Freeze> {
        if self.freezes.is_empty() {
            return None;
        }
        let mut names = self.names_of(public_key).chain([name]);
        let all = self.freezes.get(&Frozen::All);
        all.or_else(|| names.find_map(|name| self.freezes.get(&Frozen::named(name))))
    }

    /// All names under which a public key signs, for chains or payloads.
    pub fn names_of<'a>(&'a self, public_key: &'a PublicKey) -> impl Iterator<Item = &'a str> {
        let pinned = self.keys.get(public_key);
        let pinned = pinned.into_iter().flat_map(|key| &key.names);
        let raw = self.raw_keys.iter();
        let raw = raw.filter_map(move |(name, key)| (key == public_key).then_some(name));
        pinned.chain(raw).map(String::as_str)
    }

    /// What this covers of the keys on chains that share their mark through a ledger.
    #[must_use]
    pub fn shared_under(&self, frozen: &Frozen) -> Vec<Place> {
        let mut places = self.in_ledgers();
        places.retain(|(key, _)| self.covers(frozen, key));
        places
    }

    /// The same, without what another freeze covers, too; nothing where this one is not in force.
    #[must_use]
    pub fn shared_and_only_under(&self, frozen: &Frozen) -> Vec<Place> {
        if !self.freezes.contains_key(frozen) {
            return Vec::new();
        }
        let others = self.freezes.keys().filter(|other| *other != frozen);
        let mut places = self.shared_under(frozen);
        places.retain(|(key, _)| !others.clone().any(|other| self.covers(other, key)));
        places
    }

    fn covers(&self, frozen: &Frozen, key: &PublicKey) -> bool {
        match frozen {
            Frozen::All => true,
            Frozen::Key(name) => self.pinned(name).as_ref() == Some(key),
        }
    }

    pub(super) fn plan_freeze(frozen: wire::Frozen) -> Change {
        let freeze = Freeze {
            by: frozen.by,
            reason: frozen.reason,
        };
        Change::Frozen(Frozen::named(&frozen.key), freeze)
    }

    pub(super) fn plan_thaw(&self, thawed: &wire::Thawed) -> Result<Change, String> {
        let used = self.plan_authorisation(thawed.authorisation.as_ref())?;
        let frozen = Frozen::named(&thawed.key);
        if !self.freezes.contains_key(&frozen) {
            return Err(format!("a thaw of {:?}, which is not frozen", thawed.key));
        }
        let change = Change::Thawed(frozen);
        Ok(Change::Authorised(Box::new(change), used))
    }
}

pub(super) fn freezes_to_wire(freezes: &Freezes) -> Vec<wire::Frozen> {
    let frozen = freezes.iter().map(|(frozen, freeze)| wire::Frozen {
        key: frozen.name().to_owned(),
        by: freeze.by.clone(),
        reason: freeze.reason.clone(),
    });
    frozen.collect()
}

pub(super) fn freezes_from_wire(freezes: Vec<wire::Frozen>) -> Freezes {
    let frozen = freezes.into_iter().map(|frozen| {
        let freeze = Freeze {
            by: frozen.by,
            reason: frozen.reason,
        };
        (Frozen::named(&frozen.key), freeze)
    });
    frozen.collect()
}
