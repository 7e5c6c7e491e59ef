//! Who could have rebuilt a generation's wrap key at a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::entry::{Entry, Event, ShareId, SplitGroup};
use crate::moment::Moment;

/// Of more custodians than this, the smallest coalition is not searched for.
const MOST_CUSTODIANS: usize = 16;

/// A generation at a moment, as transcripts tell it. It knows what was written down: a share that was copied, or lost
/// without anyone's notice, is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// Which generation.
    pub generation: u32,
    /// At which moment.
    pub at: Moment,
    /// What it was then.
    pub standing: Standing,
    /// How many groups it takes.
    pub group_threshold: u8,
    /// The groups, in order, with those who held shares then.
    pub groups: Vec<Group>,
}

/// What a generation was at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It had not been split yet.
    NotSplit,
    /// It was being handed out.
    HandedOut,
    /// It protected the keys.
    Valid,
    /// It came to nothing.
    Void,
    /// A later one had taken its place, and what was exported under it was destroyed or taken anew.
    Rotated,
}

/// A group, and who held its shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What it is called.
    pub name: String,
    /// How many of its members it takes.
    pub threshold: u8,
    /// The custodian of each share that had been handed out and not destroyed, by the member's number.
    pub holders: BTreeMap<u8, String>,
}

/// What these entries, of one transcript or of several in their order, say of a generation at a moment.
pub fn lineage<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    generation: u32,
    at: Moment,
) -> Lineage {
    let mut lineage = Lineage {
        generation,
        at,
        standing: Standing::NotSplit,
        group_threshold: 0,
        groups: Vec::new(),
    };
    for entry in entries.into_iter().filter(|entry| entry.time <= at) {
        lineage.take_in(&entry.event);
    }
    lineage
}

impl Lineage {
    fn take_in(&mut self, event: &Event) {
        let ours = |share: &ShareId| share.generation == self.generation;
        match event {
            Event::Split {
                generation,
                group_threshold,
                groups,
            } if *generation == self.generation => {
                self.standing = Standing::HandedOut;
                self.group_threshold = *group_threshold;
                self.groups = groups.iter().map(Group::new).collect();
            }
            Event::Handed {
                share, custodian, ..
            } if ours(share) => {
                if let Some(holders) = self.holders(share) {
                    holders.insert(share.member, custodian.clone());
                }
            }
            Event::Destroyed { share, .. } if ours(share) => {
                if let Some(holders) = self.holders(share) {
                    holders.remove(&share.member);
                }
            }
            Event::Valid { generation } if *generation == self.generation => {
                self.standing = Standing::Valid
            }
            Event::Void { generation, .. } if *generation == self.generation => {
                self.standing = Standing::Void
            }
            Event::Rotated { generation } if *generation == self.generation => {
                self.standing = Standing::Rotated
            }
            _ => {}
        }
    }

    fn holders(&mut self, share: &ShareId) -> Option<&mut BTreeMap<u8, String>> {
        let index = usize::from(share.group).checked_sub(1)?;
        self.groups.get_mut(index).map(|group| &mut group.holders)
    }

    /// Whether these people together held a quorum.
    pub fn suffices(&self, people: &BTreeSet<&str>) -> bool {
        let speaks = |group: &&Group| {
            let theirs = group
                .holders
                .values()
                .filter(|holder| people.contains(holder.as_str()));
            theirs.count() >= usize::from(group.threshold)
        };
        self.group_threshold > 0
            && self.groups.iter().filter(speaks).count() >= usize::from(self.group_threshold)
    }

    /// All who held a share.
    pub fn custodians(&self) -> BTreeSet<&str> {
        self.groups
            .iter()
            .flat_map(|group| group.holders.values())
            .map(String::as_str)
            .collect()
    }

    /// The fewest people who held a quorum together, or one such set of them; `None` where nobody did, or where there
    /// are more than 16 custodians.
    pub fn smallest_coalition(&self) -> Option<BTreeSet<&str>> {
        let custodians: Vec<&str> = self.custodians().into_iter().collect();
        if custodians.len() > MOST_CUSTODIANS {
            return None;
        }
        let chosen = |bits: u32| -> BTreeSet<&str> {
            let numbered = (0..).zip(&custodians);
            numbered
                .filter(|(place, _)| bits >> place & 1 == 1)
                .map(|(_, name)| *name)
                .collect()
        };
        let sets = (0..1_u32 << custodians.len()).filter(|bits| self.suffices(&chosen(*bits)));
        sets.min_by_key(|bits| bits.count_ones()).map(chosen)
    }
}

impl Group {
    fn new(split: &SplitGroup) -> Self {
        Self {
            name: split.name.clone(),
            threshold: split.threshold,
            holders: BTreeMap::new(),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSplit => "not split yet: no share existed",
            Self::HandedOut => "being handed out: not all of its shares were acknowledged",
            Self::Valid => "valid: it protected the keys",
            Self::Void => "void: its wrap key was deleted before anything was kept under it",
            Self::Rotated => {
                "rotated: another generation had taken its place. A quorum of it still opens every copy of what was \
                 exported under it"
            }
        })
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "generation {} at {}: {}",
            self.generation, self.at, self.standing
        )?;
        if self.groups.is_empty() {
            return Ok(());
        }
        let (needed, count) = (self.group_threshold, self.groups.len());
        writeln!(
            f,
            "it takes {needed} of {count} {}:",
            if count == 1 { "group" } else { "groups" }
        )?;
        for group in &self.groups {
            // A transcript that nobody vouches for may hold anything.
            let holders = group.holders.values().map(|name| name.escape_debug());
            let holders: Vec<String> = holders.map(|name| name.to_string()).collect();
            let holders = if holders.is_empty() {
                "nobody".to_owned()
            } else {
                holders.join(", ")
            };
            writeln!(
                f,
                "  {}, any {}; shares were with: {holders}",
                group.name.escape_debug(),
                group.threshold
            )?;
        }
        match self.smallest_coalition() {
            Some(people) => {
                let names: Vec<&str> = people.iter().copied().collect();
                writeln!(
                    f,
                    "the fewest who could have rebuilt it: {} ({})",
                    names.len(),
                    names.join(", ")
                )
            }
            None if self.suffices(&self.custodians()) => {
                writeln!(
                    f,
                    "all custodians together could have rebuilt it; they are too many to search for the fewest"
                )
            }
            None => writeln!(f, "nobody could have rebuilt it from shares"),
        }
    }
}
