//! Which step can follow which: every step needs facts that steps before it established, and establishes one.

use std::collections::BTreeSet;
use std::fmt;

use super::step::{ShareOf, Step};

/// What is so once a step was executed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// Everyone is there.
    Assembled,
    /// The program is the published one.
    SoftwareShown,
    /// A device is in its factory state.
    Empty(String),
    /// A device is the one that the spec names.
    Verified(String),
    /// A device has the spec's authentication keys.
    Authenticated(String),
    /// A device does not have the factory's key any more.
    Locked(String),
    /// A device records everything.
    Audited(String),
    /// The wrap key was made.
    WrapKeyMade,
    /// A device has the wrap key.
    WrapKeyIn(String),
    /// A key exists.
    Generated(String),
    /// A key's origin is certified.
    Attested(String),
    /// A key has a backup.
    Exported(String),
    /// There are shares.
    Split,
    /// A custodian has a share.
    Handed(ShareOf),
    /// A share was read back.
    ReadBack(ShareOf),
    /// Every quorum gives the wrap key.
    Rehearsed,
    /// A device has the keys from their backups.
    Restored(String),
    /// What a device restored is the same.
    Compared(String),
    /// The wrap key is not in memory any more.
    Wiped,
    /// The transcript is closed.
    Closed,
}

/// Checks that each step can follow the ones before it, is executed once, and that the last one closes the transcript.
pub(super) fn check(steps: &[Step]) -> Result<(), Disorder> {
    let mut facts = BTreeSet::new();
    for (number, step) in (1..).zip(steps) {
        let missing = needs(step, steps)
            .into_iter()
            .find(|fact| !facts.contains(fact));
        if let Some(needed) = missing {
            return Err(Disorder::TooEarly {
                number,
                step: step.clone(),
                needed,
            });
        }
        let held = facts.contains(&Fact::WrapKeyMade) && !facts.contains(&Fact::Wiped);
        if holds_secrets(step) && !held {
            return Err(Disorder::AfterTheWipe {
                number,
                step: step.clone(),
            });
        }
        if facts.contains(&Fact::Closed) {
            return Err(Disorder::AfterTheEnd {
                number,
                step: step.clone(),
            });
        }
        if !facts.insert(gives(step)) {
            return Err(Disorder::Twice {
                number,
                step: step.clone(),
            });
        }
    }
    if facts.contains(&Fact::Closed) {
        Ok(())
    } else {
        Err(Disorder::NoEnd)
    }
}

fn gives(step: &Step) -> Fact {
    match step.clone() {
        Step::Assemble => Fact::Assembled,
        Step::ShowSoftware => Fact::SoftwareShown,
        Step::Reset { device } => Fact::Empty(device),
        Step::Verify { device } => Fact::Verified(device),
        Step::AddAuthenticationKeys { device } => Fact::Authenticated(device),
        Step::RemoveDefaultKey { device } => Fact::Locked(device),
        Step::SetAudit { device } => Fact::Audited(device),
        Step::MakeWrapKey => Fact::WrapKeyMade,
        Step::PutWrapKey { device } => Fact::WrapKeyIn(device),
        Step::GenerateKey { key, .. } => Fact::Generated(key),
        Step::Attest { key, .. } => Fact::Attested(key),
        Step::Export { key, .. } => Fact::Exported(key),
        Step::SplitWrapKey => Fact::Split,
        Step::HandOut(share) => Fact::Handed(share),
        Step::ReadBack(share) => Fact::ReadBack(share),
        Step::Rehearse => Fact::Rehearsed,
        Step::Restore { device } => Fact::Restored(device),
        Step::Compare { device } => Fact::Compared(device),
        Step::WipeWrapKey => Fact::Wiped,
        Step::Close => Fact::Closed,
    }
}

/// What a step needs; where it needs something of all, of all that the plan has.
fn needs(step: &Step, all: &[Step]) -> Vec<Fact> {
    let of_all =
        |fact: fn(&Step) -> Option<Fact>| all.iter().filter_map(fact).collect::<Vec<Fact>>();
    match step.clone() {
        Step::Assemble => vec![],
        Step::ShowSoftware => vec![Fact::Assembled],
        Step::Reset { .. } => vec![Fact::SoftwareShown],
        Step::Verify { device } => vec![Fact::Empty(device)],
        Step::AddAuthenticationKeys { device } => vec![Fact::Verified(device)],
        Step::RemoveDefaultKey { device } => vec![Fact::Authenticated(device)],
        Step::SetAudit { device } => vec![Fact::Locked(device)],
        // Before there is a secret, every device that will get it is in order.
        Step::MakeWrapKey => {
            let mut needed = of_all(|step| match step.clone() {
                Step::PutWrapKey { device } => Some(Fact::Audited(device)),
                _ => None,
            });
            needed.push(Fact::SoftwareShown);
            needed
        }
        Step::PutWrapKey { device } => vec![Fact::WrapKeyMade, Fact::Audited(device)],
        Step::GenerateKey { device, .. } => vec![Fact::WrapKeyIn(device)],
        Step::Attest { key, .. } => vec![Fact::Generated(key)],
        Step::Export { device, key } => vec![Fact::Generated(key), Fact::WrapKeyIn(device)],
        Step::SplitWrapKey => {
            let mut needed = of_all(|step| match step.clone() {
                Step::GenerateKey { key, .. } => Some(Fact::Exported(key)),
                _ => None,
            });
            needed.push(Fact::WrapKeyMade);
            needed
        }
        Step::HandOut(_) => vec![Fact::Split],
        Step::ReadBack(share) => vec![Fact::Handed(share)],
        Step::Rehearse => {
            let mut needed = of_all(|step| match step.clone() {
                Step::HandOut(share) => Some(Fact::ReadBack(share)),
                _ => None,
            });
            needed.push(Fact::Split);
            needed
        }
        Step::Restore { device } => vec![Fact::Rehearsed, Fact::WrapKeyIn(device)],
        Step::Compare { device } => vec![Fact::Restored(device)],
        Step::WipeWrapKey => {
            let mut needed = of_all(|step| match step.clone() {
                Step::Restore { device } => Some(Fact::Compared(device)),
                _ => None,
            });
            needed.push(Fact::Rehearsed);
            needed
        }
        Step::Close => vec![Fact::Wiped],
    }
}

/// Whether a step works with the wrap key or shares in memory.
fn holds_secrets(step: &Step) -> bool {
    matches!(
        step,
        Step::PutWrapKey { .. }
            | Step::SplitWrapKey
            | Step::HandOut(_)
            | Step::ReadBack(_)
            | Step::Rehearse
            | Step::WipeWrapKey
    )
}

/// Why steps are no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disorder {
    /// A step before what it needs.
    #[error("step {number} ({step}) cannot be executed there: before it, {needed}")]
    TooEarly {
        /// Its number.
        number: u32,
        /// The step.
        step: Step,
        /// What it needs.
        needed: Fact,
    },
    /// A step that works with a secret which is not there any more.
    #[error(
        "step {number} ({step}) works with the wrap key, which was wiped from memory before it"
    )]
    AfterTheWipe {
        /// Its number.
        number: u32,
        /// The step.
        step: Step,
    },
    /// A step after the transcript was closed.
    #[error("step {number} ({step}) stands behind the step that closes the transcript")]
    AfterTheEnd {
        /// Its number.
        number: u32,
        /// The step.
        step: Step,
    },
    /// A step that was there already.
    #[error("step {number} ({step}) is there twice")]
    Twice {
        /// Its number.
        number: u32,
        /// The step.
        step: Step,
    },
    /// The transcript is never closed.
    #[error("the last step does not close the transcript")]
    NoEnd,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assembled => f.write_str("everyone has to be there"),
            Self::SoftwareShown => f.write_str("the software has to be shown"),
            Self::Empty(device) => write!(f, "device {device} has to be reset"),
            Self::Verified(device) => write!(f, "device {device} has to be verified"),
            Self::Authenticated(device) => {
                write!(f, "device {device} has to have its authentication keys")
            }
            Self::Locked(device) => write!(
                f,
                "the factory's key has to be removed from device {device}"
            ),
            Self::Audited(device) => write!(f, "the audit log of device {device} has to be set"),
            Self::WrapKeyMade => f.write_str("the wrap key has to be made"),
            Self::WrapKeyIn(device) => write!(f, "the wrap key has to be put into device {device}"),
            Self::Generated(key) => write!(f, "key {key} has to be generated"),
            Self::Attested(key) => write!(f, "key {key} has to be attested"),
            Self::Exported(key) => write!(f, "key {key} has to be exported"),
            Self::Split => f.write_str("the wrap key has to be split"),
            Self::Handed(share) => write!(f, "{share} has to be handed out"),
            Self::ReadBack(share) => write!(f, "{share} has to be read back"),
            Self::Rehearsed => f.write_str("the recovery has to be rehearsed"),
            Self::Restored(device) => {
                write!(f, "the keys have to be restored into device {device}")
            }
            Self::Compared(device) => write!(f, "device {device} has to be compared"),
            Self::Wiped => f.write_str("the wrap key has to be wiped from memory"),
            Self::Closed => f.write_str("the transcript has to be closed"),
        }
    }
}
