//! Combining shares to the secret.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::cipher::{self, Passphrase, Setting};
use crate::field::{self, Value};
use crate::secret::{Secret, WrongLength};
use crate::share::{Header, Share};
use crate::split::{DIGEST_AT, DIGEST_BYTES, SECRET_AT};

/// Combines shares, in any order: exactly as many groups as are needed, and of each exactly as many members.
///
/// # Errors
/// [`Error`], with the number of the share that does not fit, counted from 1 in the order given.
pub fn combine(shares: &[Share]) -> Result<Secret, Error> {
    combine_with_passphrase(shares, &Passphrase::empty())
}

/// As [`combine`], for a secret that was split with a passphrase. A wrong one gives another secret, and no error.
///
/// # Errors
/// As [`combine`].
pub fn combine_with_passphrase(shares: &[Share], passphrase: &Passphrase) -> Result<Secret, Error> {
    let groups = sorted(shares)?;
    let Some(header) = shares.first().map(Share::header) else {
        return Err(Error::None);
    };
    let (needed, given) = (header.group_threshold, groups.len());
    if given < usize::from(needed) {
        return Err(Error::TooFewGroups { needed, given });
    }
    if given > usize::from(needed) {
        return Err(Error::TooManyGroups { needed, given });
    }
    let mut values = Vec::with_capacity(given);
    for (group_index, members) in &groups {
        let group = group_index + 1;
        let members: Vec<(u8, &[u8])> = members
            .iter()
            .map(|(place, (_, share))| (*place, share.value()))
            .collect();
        let value = combine_values(&members).ok_or(Error::Digest(Level::Group(group)))?;
        values.push((*group_index, value));
    }
    let values: Vec<(u8, &[u8])> = values
        .iter()
        .map(|(place, value)| (*place, &***value))
        .collect();
    let encrypted = combine_values(&values).ok_or(Error::Digest(Level::Groups))?;
    let secret = cipher::decrypt(&encrypted, passphrase, Setting::from(header));
    Secret::new(secret).map_err(Error::Length)
}

/// A share, and its number in the order given.
type Numbered<'a> = (usize, &'a Share);

/// The shares by group and member, once all of them belong together and no group has too few or too many.
fn sorted(shares: &[Share]) -> Result<BTreeMap<u8, BTreeMap<u8, Numbered<'_>>>, Error> {
    let mut groups: BTreeMap<u8, BTreeMap<u8, Numbered<'_>>> = BTreeMap::new();
    for (number, share) in (1..).zip(shares) {
        if let Some(first) = shares.first() {
            same_split(first, share).map_err(|difference| Error::OtherSplit {
                share: number,
                difference,
            })?;
        }
        let header = share.header();
        let members = groups.entry(header.group_index).or_default();
        let other_threshold = members
            .values()
            .find(|(_, other)| other.header().member_threshold != header.member_threshold);
        if let Some((other, _)) = other_threshold {
            return Err(Error::MemberThreshold {
                shares: (*other, number),
            });
        }
        if let Some((other, same)) = members.insert(header.member_index, (number, share)) {
            let shares = (other, number);
            let same = same.value() == share.value();
            return Err(if same {
                Error::Twice { shares }
            } else {
                Error::SamePlace { shares }
            });
        }
    }
    let needed = |members: &BTreeMap<u8, Numbered<'_>>| {
        members
            .values()
            .next()
            .map_or(0, |(_, share)| share.header().member_threshold)
    };
    for (group_index, members) in &groups {
        let (group, needed, given) = (group_index + 1, needed(members), members.len());
        if given < usize::from(needed) {
            return Err(Error::TooFewMembers {
                group,
                needed,
                given,
            });
        }
        if given > usize::from(needed) {
            return Err(Error::TooManyMembers {
                group,
                needed,
                given,
            });
        }
    }
    Ok(groups)
}

/// Whether two shares are of one split.
fn same_split(one: &Share, other: &Share) -> Result<(), Difference> {
    let (a, b): (&Header, &Header) = (one.header(), other.header());
    let same = [
        (a.identifier == b.identifier, Difference::Identifier),
        (a.extendable == b.extendable, Difference::Extendable),
        (
            a.iteration_exponent == b.iteration_exponent,
            Difference::IterationExponent,
        ),
        (
            a.group_threshold == b.group_threshold,
            Difference::GroupThreshold,
        ),
        (a.group_count == b.group_count, Difference::GroupCount),
        (one.value().len() == other.value().len(), Difference::Length),
    ];
    let difference = same.iter().find(|(same, _)| !same);
    difference.map_or(Ok(()), |(_, difference)| Err(*difference))
}

/// The value that these values were split from, as many as it takes; `None` where its digest says that they do not
/// belong together.
fn combine_values(points: &[(u8, &[u8])]) -> Option<Value> {
    if let [(_, only)] = points {
        return Some(Zeroizing::new((*only).into()));
    }
    let value = field::interpolate(points, SECRET_AT)?;
    let digest = field::interpolate(points, DIGEST_AT)?;
    let (digest, padding) = digest.split_at_checked(DIGEST_BYTES)?;
    let mac = Hmac::<Sha256>::new_from_slice(padding).ok()?;
    // In constant time.
    mac.chain_update(&*value)
        .verify_truncated_left(digest)
        .ok()?;
    Some(value)
}

/// Why shares were not combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// None were given.
    #[error("there are no shares")]
    None,
    /// A share of another split, of another generation for example.
    #[error(
        "share {share} is of another split than share 1: {difference}. Look at both sheets' generation"
    )]
    OtherSplit {
        /// Its number in the order given, from 1 on.
        share: usize,
        /// In what they differ.
        difference: Difference,
    },
    /// Two shares of one group that disagree on how many of it are needed.
    #[error("shares {} and {} are of one group, and disagree on how many of it are needed: one is of another split", shares.0, shares.1)]
    MemberThreshold {
        /// Their numbers in the order given, from 1 on.
        shares: (usize, usize),
    },
    /// The same share, given twice.
    #[error("shares {} and {} are the same: give each once", shares.0, shares.1)]
    Twice {
        /// Their numbers in the order given, from 1 on.
        shares: (usize, usize),
    },
    /// Two shares for one place in a group.
    #[error("shares {} and {} have the same place in their group, and differ: one of them is not of this split", shares.0, shares.1)]
    SamePlace {
        /// Their numbers in the order given, from 1 on.
        shares: (usize, usize),
    },
    /// Too few groups.
    #[error("{needed} groups are needed, and there are shares of {given}")]
    TooFewGroups {
        /// Groups needed.
        needed: u8,
        /// Groups given.
        given: usize,
    },
    /// More groups than needed.
    #[error("{needed} groups are needed, and there are shares of {given}: leave the others out")]
    TooManyGroups {
        /// Groups needed.
        needed: u8,
        /// Groups given.
        given: usize,
    },
    /// Too few members of a group.
    #[error("group {group} needs {needed} shares, and there are {given}")]
    TooFewMembers {
        /// The group, from 1 on.
        group: u8,
        /// Members needed.
        needed: u8,
        /// Members given.
        given: usize,
    },
    /// More members than needed.
    #[error("group {group} needs {needed} shares, and there are {given}: leave the others out")]
    TooManyMembers {
        /// The group, from 1 on.
        group: u8,
        /// Members needed.
        needed: u8,
        /// Members given.
        given: usize,
    },
    /// Every share is well formed, and together they are wrong.
    #[error(
        "every checksum holds, but {0} do not belong together: at least one was never handed out as it is. Compare each \
         with its commitment"
    )]
    Digest(Level),
    /// The value is no secret of a length that this crate splits.
    #[error(transparent)]
    Length(WrongLength),
}

/// In what a share of another split differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The identifier.
    Identifier,
    /// Whether it is extendable.
    Extendable,
    /// The iteration exponent.
    IterationExponent,
    /// How many groups are needed.
    GroupThreshold,
    /// How many groups there are.
    GroupCount,
    /// The length of the secret.
    Length,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identifier => "its identifier (the first words) is another",
            Self::Extendable => "one is extendable, the other not",
            Self::IterationExponent => "its iteration exponent is another",
            Self::GroupThreshold => "it wants another number of groups",
            Self::GroupCount => "it knows another number of groups",
            Self::Length => "its secret has another length",
        })
    }
}

/// Which shares do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Those of this group, counted from 1.
    Group(u8),
    /// Those of one group and those of another.
    Groups,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(group) => write!(f, "the shares of group {group}"),
            Self::Groups => f.write_str("the groups"),
        }
    }
}
