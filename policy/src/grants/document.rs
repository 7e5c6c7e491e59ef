//! From the TOML document to a checked [`Policy`].

use std::collections::BTreeSet;
use std::fmt::Display;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::value::Datetime;

use super::{Entry, Freeze, Grant, Grantee, Header, KeyName, Limits, Policy, Rate};
use crate::cometbft::{ChainId, Kind};
use crate::identity::Role;

/// The longest policy that is read, in bytes.
pub const MAX_POLICY: usize = 8 << 20;

/// Why a policy document, or a name in one, is refused. The fault is the author's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No TOML, an unknown or missing field, or a value that its field does not accept. The text shows
    /// line, column, the line itself and what is accepted.
    #[error("the policy document is refused: {0}")]
    Document(#[from] toml::de::Error),
    /// The document is longer than is read.
    #[error("the policy document is {0} bytes long, and at most {MAX_POLICY} are read")]
    TooLong(usize),
    /// Some of the header's fields, and not all; or a value that one does not accept.
    #[error("the policy document's header is refused: {0}")]
    Header(String),
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
        /// Who is in both: a caller by name in one, and by its role in the other, is.
        caller: Grantee,
        /// The key of both.
        key: KeyName,
        /// The chain of both.
        chain_id: ChainId,
    },
    /// Two freezes of one key.
    #[error("policy lines {first_line} and {line}: both freeze the key {key}. Leave one out")]
    FrozenTwice {
        /// Where the first freeze begins, from 1.
        first_line: usize,
        /// Where the second freeze begins, from 1.
        line: usize,
        /// The key of both.
        key: KeyName,
    },
    /// Text that is no key name, quoted.
    #[error("{0} is no key name: it must be 1 to 64 bytes of a-z 0-9 . _ -")]
    KeyName(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    kind: Option<String>,
    deployment: Option<String>,
    version: Option<NonZeroU64>,
    expires: Option<Datetime>,
    #[serde(default)]
    grant: Vec<Spanned<RawGrant>>,
    #[serde(default)]
    freeze: Vec<Spanned<RawFreeze>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    #[serde(deserialize_with = "sentries")]
    callers: Vec<Grantee>,
    key: KeyName,
    chain_id: ChainId,
    #[serde(deserialize_with = "distinct")]
    kinds: Vec<Kind>,
    #[serde(default = "default_max_height_jump")]
    max_height_jump: NonZeroU64,
    #[serde(default = "default_max_round")]
    max_round: u32,
    max_height: Option<NonZeroU64>,
    max_clock_skew_seconds: Option<NonZeroU32>,
    max_heights_per_second: Option<Rate>,
    max_requests_per_second: Option<Rate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFreeze {
    key: KeyName,
}

fn default_max_height_jump() -> NonZeroU64 {
    const { NonZeroU64::new(1000).unwrap() }
}

fn default_max_round() -> u32 {
    1000
}

pub(super) fn parse(text: &str) -> Result<Policy, Error> {
    if text.len() > MAX_POLICY {
        return Err(Error::TooLong(text.len()));
    }
    let raw: RawPolicy = toml::from_str(text)?;
    let header = Header::checked(raw.kind, raw.deployment, raw.version, raw.expires)?;
    let mut names = BTreeSet::new();
    let mut lines = Lines::of(text);
    let grants = raw.grant.into_iter().map(|grant| {
        let line = lines.at(grant.span().start);
        checked(grant.into_inner(), line, &mut names)
    });
    let grants: Vec<Grant> = grants.collect();
    let mut lines = Lines::of(text);
    let freezes = raw.freeze.into_iter().map(|freeze| {
        let line = lines.at(freeze.span().start);
        let RawFreeze { key } = freeze.into_inner();
        Freeze { key, line }
    });
    let mut policy = Policy {
        header,
        freezes: checked_freezes(freezes.collect())?,
        grantees: names.into_iter().collect(),
        ..Policy::default()
    };
    policy.index = index(&policy.grantees, &grants)?;
    policy.grants = grants;
    Ok(policy)
}

/// Tables of one name come in the document's order, so that each line break is counted once.
struct Lines<'a> {
    text: &'a str,
    line: usize,
    counted: usize,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            text,
            line: 1,
            counted: 0,
        }
    }

    fn at(&mut self, start: usize) -> usize {
        let passed = self.text.get(self.counted..start).unwrap_or_default();
        self.line += passed.matches('\n').count();
        self.counted = start;
        self.line
    }
}

/// Equal grantees of all grants share their text, which `names` holds.
fn checked(raw: RawGrant, line: usize, names: &mut BTreeSet<Grantee>) -> Grant {
    let mut shared = |grantee: Grantee| match names.get(&grantee) {
        Some(known) => known.clone(),
        None => {
            names.insert(grantee.clone());
            grantee
        }
    };
    Grant {
        callers: raw.callers.into_iter().map(&mut shared).collect(),
        key: raw.key,
        chain_id: raw.chain_id,
        kinds: raw.kinds.into_iter().collect(),
        limits: Limits {
            max_height_jump: raw.max_height_jump.get(),
            max_round: raw.max_round,
            max_height: raw.max_height.map(NonZeroU64::get),
            max_clock_skew: raw
                .max_clock_skew_seconds
                .map(|seconds| Duration::from_secs(seconds.get().into())),
            max_heights_per_second: raw.max_heights_per_second,
            max_requests_per_second: raw.max_requests_per_second,
        },
        line,
    }
}

fn checked_freezes(mut freezes: Vec<Freeze>) -> Result<Vec<Freeze>, Error> {
    freezes.sort_by(|a, b| (&a.key, a.line).cmp(&(&b.key, b.line)));
    let mut next = freezes.iter().skip(1);
    for freeze in &freezes {
        if let Some(other) = next.next().filter(|other| other.key == freeze.key) {
            return Err(Error::FrozenTwice {
                first_line: freeze.line,
                line: other.line,
                key: freeze.key.clone(),
            });
        }
    }
    Ok(freezes)
}

/// An entry for each caller of each grant, unless two grants speak for one.
fn index(grantees: &[Grantee], grants: &[Grant]) -> Result<Vec<Entry>, Error> {
    type Found<'a> = (usize, &'a KeyName, &'a ChainId, usize, usize);
    let mut found: Vec<Found<'_>> = Vec::new();
    for (number, grant) in grants.iter().enumerate() {
        for caller in &grant.callers {
            let place = grantees.binary_search(caller).unwrap_or_default();
            found.push((place, &grant.key, &grant.chain_id, grant.line, number));
        }
    }
    found.sort_unstable();
    let contradiction = |place: usize, key: &KeyName, chain_id: &ChainId, a: usize, b: usize| {
        let caller = grantees.get(place).cloned();
        caller.map(|caller| Error::Contradiction {
            first_line: a.min(b),
            line: a.max(b),
            caller,
            key: key.clone(),
            chain_id: chain_id.clone(),
        })
    };
    let mut before: Option<Found<'_>> = None;
    for &entry in &found {
        let (place, key, chain, line, _) = entry;
        if let Some((.., first, _)) = before.filter(|it| (it.0, it.1, it.2) == (place, key, chain))
            && let Some(error) = contradiction(place, key, chain, first, line)
        {
            return Err(error);
        }
        before = Some(entry);
        // A grant to the caller's whole role speaks for it, too.
        let Some(Grantee::Caller(caller)) = grantees.get(place) else {
            continue;
        };
        let role = Grantee::Role(caller.trust_domain().clone(), caller.role());
        let Ok(role) = grantees.binary_search(&role) else {
            continue;
        };
        let at = found.partition_point(|it| (it.0, it.1, it.2) < (role, key, chain));
        if let Some((.., other, _)) = found
            .get(at)
            .filter(|it| (it.0, it.1, it.2) == (role, key, chain))
            && let Some(error) = contradiction(place, key, chain, line, *other)
        {
            return Err(error);
        }
    }
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let entries = found.into_iter().map(|(grantee, .., grant)| Entry {
        grantee: number(grantee),
        grant: number(grant),
    });
    Ok(entries.collect())
}

fn sentries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Grantee>, D::Error> {
    let callers: Vec<Grantee> = distinct(deserializer)?;
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
