//! What the policy says to one request, and which line says it.

use std::fmt;

use super::{Denial, Grant, KeyName, Policy};
use crate::cometbft::{Message, Timestamp};
use crate::identity::Caller;

/// What would be decided, and by which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Why it would be denied; None where the policy permits it.
    pub denial: Option<Denial>,
    /// The line of the grant or freeze that decides, from 1; None where no line speaks of it.
    pub line: Option<usize>,
    /// What has to hold besides, for people.
    pub conditions: Vec<String>,
}

/// As [`Policy::permit`], with the reasons.
pub fn explain(
    policy: &Policy,
    caller: &Caller,
    key: &KeyName,
    message: &Message,
    now: Timestamp,
) -> Explanation {
    let grant = policy.find(caller, key, message.chain_id()).ok();
    let denial = policy.permit(caller, key, message, now).err();
    let line = match &denial {
        Some(Denial::Frozen { line, .. }) => Some(*line),
        _ => grant.map(Grant::line),
    };
    let conditions = match (&denial, grant) {
        (None, Some(grant)) => conditions(grant, message),
        _ => Vec::new(),
    };
    Explanation {
        denial,
        line,
        conditions,
    }
}

fn conditions(grant: &Grant, message: &Message) -> Vec<String> {
    let (limits, height) = (grant.limits(), message.position().height.get());
    let jump = limits.max_height_jump;
    let lowest = height.saturating_sub_unsigned(jump).max(0);
    let mut conditions = vec![
        format!("the key's mark is at height {lowest} or above (max_height_jump = {jump})"),
        "it conflicts with nothing that was signed, and nobody froze the key".to_owned(),
    ];
    if let Some(rate) = limits.max_heights_per_second {
        conditions.push(format!(
            "the caller raised the mark by no more than max_heights_per_second = {rate} allow"
        ));
    }
    if let Some(rate) = limits.max_requests_per_second {
        conditions.push(format!(
            "the caller sent no more than max_requests_per_second = {rate} allow"
        ));
    }
    conditions
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match (self.line, &self.denial) {
            (Some(line), Some(Denial::Frozen { .. })) => {
                format!("by the freeze that begins at line {line}")
            }
            (Some(line), _) => format!("by the grant that begins at line {line}"),
            (None, _) => "since no grant speaks for it".to_owned(),
        };
        match &self.denial {
            Some(denial) => write!(f, "denied, {by}: {denial}"),
            None => {
                write!(f, "permitted, {by}, where")?;
                self.conditions
                    .iter()
                    .try_for_each(|condition| write!(f, "\n- {condition}"))
            }
        }
    }
}
