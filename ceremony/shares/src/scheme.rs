//! Who may combine a secret: groups, and members in each.

/// Most groups, and most members of a group.
const MOST: usize = 16;

/// A group: any `threshold` of its `members` speak for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many members it takes.
    pub threshold: u8,
    /// How many members there are, 16 at most.
    pub members: u8,
}

/// How many groups are needed, and the groups; checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheme {
    group_threshold: u8,
    groups: Vec<Group>,
}

impl Scheme {
    /// A scheme of groups, any `group_threshold` of which recover the secret.
    ///
    /// # Errors
    /// Where the standard does not provide for it.
    pub fn new(group_threshold: u8, groups: &[Group]) -> Result<Self, Error> {
        let count = groups.len();
        if count == 0 || count > MOST {
            return Err(Error::Groups(count));
        }
        if group_threshold == 0 || usize::from(group_threshold) > count {
            return Err(Error::GroupThreshold {
                threshold: group_threshold,
                groups: count,
            });
        }
        for (number, group) in (1..).zip(groups) {
            let Group { threshold, members } = *group;
            if members == 0 || usize::from(members) > MOST {
                return Err(Error::Members { number, members });
            }
            if threshold == 0 || threshold > members {
                return Err(Error::MemberThreshold {
                    number,
                    threshold,
                    members,
                });
            }
            if threshold == 1 && members > 1 {
                return Err(Error::Copies { number, members });
            }
        }
        Ok(Self {
            group_threshold,
            groups: groups.to_vec(),
        })
    }

    /// A scheme of one group: any `threshold` of `members` shares.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn single(threshold: u8, members: u8) -> Result<Self, Error> {
        Self::new(1, &[Group { threshold, members }])
    }

    /// The fewest shares that recover the secret.
    pub fn fewest(&self) -> usize {
        let mut thresholds: Vec<usize> = self
            .groups
            .iter()
            .map(|group| group.threshold.into())
            .collect();
        thresholds.sort_unstable();
        thresholds.iter().take(self.group_threshold.into()).sum()
    }

    /// How many groups are needed.
    pub fn group_threshold(&self) -> u8 {
        self.group_threshold
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
}

/// Why a scheme cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// None, or more than 16.
    #[error("{0} groups: there are 1 to 16")]
    Groups(usize),
    /// Of no group, or of more than there are.
    #[error(
        "{threshold} of {groups} groups cannot be needed: at least 1, and at most as many as there are"
    )]
    GroupThreshold {
        /// Groups needed.
        threshold: u8,
        /// Groups there are.
        groups: usize,
    },
    /// None, or more than 16.
    #[error("group {number} has {members} members: a group has 1 to 16")]
    Members {
        /// The group, from 1 on.
        number: usize,
        /// Its members.
        members: u8,
    },
    /// Of no member, or of more than there are.
    #[error(
        "{threshold} of the {members} members of group {number} cannot be needed: at least 1, and at most as many as \
         there are"
    )]
    MemberThreshold {
        /// The group, from 1 on.
        number: usize,
        /// Members needed.
        threshold: u8,
        /// Members there are.
        members: u8,
    },
    /// The standard does not let several members hold the same share.
    #[error(
        "group {number}: 1 of {members} would be {members} copies of one share. Make it 1 of 1, or a group for each \
         member"
    )]
    Copies {
        /// The group, from 1 on.
        number: usize,
        /// Its members.
        members: u8,
    },
}
