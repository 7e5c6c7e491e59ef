//! What a transcript's lines say.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::commitment::Commitment;
use crate::moment::Moment;

/// A SHA-256, written as 64 digits of `0-9 a-f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// What stands before the first line.
    pub const NONE: Self = Self([0; 32]);

    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, hex::FromHexError> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest)?;
        Ok(Self(digest))
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// From 0 on.
    pub number: u64,
    /// The digest of the line before.
    pub previous: Digest,
    /// When it was written, by the laptop's clock.
    pub time: Moment,
    /// What happened.
    pub event: Event,
}

impl Entry {
    /// The line, with its line feed. `None` where it could not be written as JSON, which does not happen to the types
    /// above.
    pub(crate) fn line(&self) -> Option<String> {
        let mut line = serde_json::to_string(self).ok()?;
        line.push('\n');
        Some(line)
    }
}

/// A share's place: all that is known of it without its words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareId {
    /// Counts the wrap keys of one device or family of devices, from 1 on.
    pub generation: u32,
    /// The group, from 1 on.
    pub group: u8,
    /// The member in the group, from 1 on.
    pub member: u8,
}

/// What can happen. Texts are for people, and hold nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// The first line.
    Opened {
        /// Of the ceremony.
        title: String,
        /// Of the plan that is executed.
        plan: Digest,
        /// Of the program that executes it.
        software: Digest,
        /// Whether nothing in it is real.
        practice: bool,
    },
    /// A step is about to be executed. Without its end, nobody knows how far it came.
    Begun {
        /// Its number in the plan.
        step: u32,
    },
    /// A step was executed.
    Done {
        /// Its number in the plan.
        step: u32,
        /// What was seen, by name: serial numbers, public keys, digests.
        saw: BTreeMap<String, String>,
        /// Of those who saw it.
        initials: Vec<String>,
    },
    /// Something else happened than the plan says.
    Deviation {
        /// What.
        text: String,
        /// Of those who saw it.
        initials: Vec<String>,
    },
    /// A wrap key was split into shares.
    Split {
        /// Its generation.
        generation: u32,
        /// How many groups it takes.
        group_threshold: u8,
        /// The groups, in order.
        groups: Vec<SplitGroup>,
    },
    /// A share was handed out. From now on its custodian could use it.
    Handed {
        /// Which.
        share: ShareId,
        /// To whom.
        custodian: String,
        /// The serial number of its tamper-evident bag or bags, or the name of its file.
        bag: String,
        /// The salted commitment to it.
        commitment: Commitment,
    },
    /// A share was read back, and is the one that was split.
    Acknowledged {
        /// Which.
        share: ShareId,
    },
    /// A share was destroyed in front of witnesses.
    Destroyed {
        /// Which.
        share: ShareId,
        /// Of the witnesses.
        initials: Vec<String>,
    },
    /// All of a generation's shares were acknowledged: it protects the keys from now on.
    Valid {
        /// Which.
        generation: u32,
    },
    /// A generation came to nothing: its wrap key was deleted before anything was kept under it.
    Void {
        /// Which.
        generation: u32,
        /// Why.
        reason: String,
    },
    /// A generation's wrap key is in no device any more, and what was exported under it was destroyed or taken anew
    /// under a later one.
    Rotated {
        /// Which.
        generation: u32,
    },
    /// The last line.
    Closed {
        /// The steps of the plan that were executed.
        steps: u32,
    },
}

/// A group of custodians.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitGroup {
    /// What it is called.
    pub name: String,
    /// How many of its members it takes.
    pub threshold: u8,
    /// How many members it has.
    pub members: u8,
}

impl fmt::Display for ShareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "share {}.{}.{}",
            self.generation, self.group, self.member
        )
    }
}

/// For people. Line breaks and what else could mislead a terminal are escaped.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signed = |initials: &[String]| match initials {
            [] => String::new(),
            some => format!(" [{}]", some.join(" ").escape_debug()),
        };
        match self {
            Self::Opened {
                title,
                plan,
                software,
                practice,
            } => {
                let practice = if *practice { ", PRACTICE" } else { "" };
                write!(
                    f,
                    "opened: {}{practice}; plan {plan}, software {software}",
                    title.escape_debug()
                )
            }
            Self::Begun { step } => write!(f, "step {step} begun"),
            Self::Done {
                step,
                saw,
                initials,
            } => {
                write!(f, "step {step} done")?;
                for (name, value) in saw {
                    write!(f, "; {}: {}", name.escape_debug(), value.escape_debug())?;
                }
                f.write_str(&signed(initials))
            }
            Self::Deviation { text, initials } => {
                write!(f, "DEVIATION: {}{}", text.escape_debug(), signed(initials))
            }
            Self::Split {
                generation,
                group_threshold,
                groups,
            } => {
                write!(
                    f,
                    "generation {generation} split: {group_threshold} of {} groups",
                    groups.len()
                )?;
                for SplitGroup {
                    name,
                    threshold,
                    members,
                } in groups
                {
                    write!(f, "; {}: {threshold} of {members}", name.escape_debug())?;
                }
                Ok(())
            }
            Self::Handed {
                share,
                custodian,
                bag,
                commitment,
            } => {
                let (custodian, bag) = (custodian.escape_debug(), bag.escape_debug());
                write!(
                    f,
                    "{share} handed to {custodian} in {bag}, commitment {}, salt {}",
                    commitment.digest, commitment.salt
                )
            }
            Self::Acknowledged { share } => write!(f, "{share} read back"),
            Self::Destroyed { share, initials } => {
                write!(f, "{share} destroyed{}", signed(initials))
            }
            Self::Valid { generation } => write!(f, "generation {generation} valid"),
            Self::Void { generation, reason } => {
                write!(f, "generation {generation} VOID: {}", reason.escape_debug())
            }
            Self::Rotated { generation } => write!(f, "generation {generation} rotated"),
            Self::Closed { steps } => write!(f, "closed after {steps} steps"),
        }
    }
}
