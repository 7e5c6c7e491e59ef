//! What a grant can allow.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Error, quoted};

/// What a grant can allow to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A proposal.
    Proposal,
    /// A prevote, nil or for a block.
    Prevote,
    /// A precommit, nil or for a block.
    Precommit,
    /// The extension of a precommit for a block.
    Extension,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [
        Kind::Proposal,
        Kind::Prevote,
        Kind::Precommit,
        Kind::Extension,
    ];

    /// The name in policy documents, on the wire and in metrics, such as "prevote".
    pub fn name(self) -> &'static str {
        match self {
            Kind::Proposal => "proposal",
            Kind::Prevote => "prevote",
            Kind::Precommit => "precommit",
            Kind::Extension => "extension",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| {
                Error::field(
                    "kind",
                    quoted(name),
                    "one of \"proposal\", \"prevote\", \"precommit\", \"extension\"",
                )
            })
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Kinds(u8);

impl Kinds {
    /// Whether `kind` is one of them.
    pub fn contains(self, kind: Kind) -> bool {
        self.0 & bit(kind) != 0
    }

    /// The kinds, in the order of [`Kind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL
            .into_iter()
            .filter(move |kind| self.contains(*kind))
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        Kinds(kinds.into_iter().fold(0, |set, kind| set | bit(kind)))
    }
}

impl fmt::Debug for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

fn bit(kind: Kind) -> u8 {
    1 << (kind as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_reads_back_from_its_name_and_nothing_else_is_one() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        for name in ["", "Prevote", "vote", "prevote "] {
            assert!(matches!(
                name.parse::<Kind>(),
                Err(Error::Field { field: "kind", .. })
            ));
        }
    }

    #[test]
    fn a_set_holds_exactly_the_kinds_put_in() {
        let set: Kinds = [Kind::Extension, Kind::Prevote, Kind::Prevote]
            .into_iter()
            .collect();
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [Kind::Prevote, Kind::Extension]
        );
        assert_eq!(Kinds::default().iter().count(), 0);
    }
}
