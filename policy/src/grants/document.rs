//! From the TOML document to a checked [`Policy`].

use std::collections::BTreeSet;
use std::fmt::Display;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::{Grant, KeyName, Policy};
use crate::cometbft::{ChainId, Kind};
use crate::identity::{Caller, Role};

/// Why a policy document, or a name in one, is refused. The fault is the author's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No TOML, an unknown or missing field, or a value that its field does not accept. The text shows
    /// line, column, the line itself and what is accepted.
    #[error("the policy document is refused: {0}")]
    Document(#[from] toml::de::Error),
    /// Two grants with the same caller, key and chain.
    #[error(
        "policy lines {first_line} and {line}: both grants say what {caller} may have signed with the \
         key {key} on the chain {chain_id}. Make one grant of them"
    )]
    Contradiction {
        /// Where the first grant begins, from 1.
        first_line: usize,
        /// Where the second grant begins, from 1.
        line: usize,
        /// Who is in both.
        caller: Caller,
        /// The key of both.
        key: KeyName,
        /// The chain of both.
        chain_id: ChainId,
    },
    /// Text that is no key name, quoted.
    #[error("{0} is no key name: it must be 1 to 64 bytes of a-z 0-9 . _ -")]
    KeyName(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    #[serde(default)]
    grant: Vec<Spanned<RawGrant>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    #[serde(deserialize_with = "sentries")]
    callers: Vec<Caller>,
    key: KeyName,
    chain_id: ChainId,
    #[serde(deserialize_with = "distinct")]
    kinds: Vec<Kind>,
    #[serde(default = "default_max_height_jump")]
    max_height_jump: NonZeroU64,
    #[serde(default = "default_max_round")]
    max_round: u32,
    max_clock_skew_seconds: Option<NonZeroU64>,
}

fn default_max_height_jump() -> NonZeroU64 {
    const { NonZeroU64::new(1000).unwrap() }
}

fn default_max_round() -> u32 {
    1000
}

pub(super) fn parse(text: &str) -> Result<Policy, Error> {
    let raw: RawPolicy = toml::from_str(text)?;
    let mut policy = Policy::default();
    let mut line = 1;
    let mut counted = 0;
    for grant in raw.grant {
        // Grants come in the document's order, so that each line break is counted once.
        let start = grant.span().start;
        line += text
            .get(counted..start)
            .unwrap_or_default()
            .matches('\n')
            .count();
        counted = start;
        policy.add(checked(grant.into_inner(), line))?;
    }
    Ok(policy)
}

fn checked(raw: RawGrant, line: usize) -> Grant {
    Grant {
        callers: raw.callers,
        key: raw.key,
        chain_id: raw.chain_id,
        kinds: raw.kinds.into_iter().collect(),
        max_height_jump: raw.max_height_jump.get(),
        max_round: raw.max_round,
        max_clock_skew: raw
            .max_clock_skew_seconds
            .map(|seconds| Duration::from_secs(seconds.get())),
        line,
    }
}

fn sentries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Caller>, D::Error> {
    let callers: Vec<Caller> = distinct(deserializer)?;
    match callers.iter().find(|caller| caller.role() != Role::Sentry) {
        Some(caller) => Err(D::Error::custom(format_args!(
            "{caller} has the role {}, and only callers of the role sentry have anything signed",
            caller.role()
        ))),
        None => Ok(callers),
    }
}

/// A list that is not empty and in which nothing occurs twice.
fn distinct<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Ord + Display,
{
    let list = Vec::<T>::deserialize(deserializer)?;
    if list.is_empty() {
        return Err(D::Error::custom(
            "the list is empty: name at least one, or remove the grant",
        ));
    }
    let mut seen = BTreeSet::new();
    match list.iter().find(|item| !seen.insert(*item)) {
        Some(item) => Err(D::Error::custom(format_args!(
            "{item} occurs twice in the list"
        ))),
        None => Ok(list),
    }
}
