//! What one policy allows that another does not, in words.

use std::fmt::Display;

use super::{Freeze, Grant, Grantee, Policy, Raw};

/// What changes from an old policy to a new one; a sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// What the new one allows that the old one did not.
    pub more: Vec<String>,
    /// What the old one allowed that the new one does not.
    pub less: Vec<String>,
}

impl Difference {
    /// Whether both allow the same.
    pub fn is_empty(&self) -> bool {
        self.more.is_empty() && self.less.is_empty()
    }
}

/// Compares two policies, caller by caller.
pub fn diff(old: &Policy, new: &Policy) -> Difference {
    let mut difference = Difference::default();
    for (grantee, grant) in new.spoken() {
        match old.of(grantee, grant) {
            None => {
                difference
                    .more
                    .push(format!("{} [line {}]", granted(grantee, grant), grant.line))
            }
            Some(before) => compare(grantee, before, grant, &mut difference),
        }
    }
    for (grantee, grant) in old.spoken() {
        let after = new.of(grantee, grant);
        // What was granted to it by name is granted to its role now: what that allows stands above, whole.
        if let Some(after) = after.filter(|after| !after.callers().contains(grantee)) {
            let mut compared = Difference::default();
            compare(grantee, grant, after, &mut compared);
            difference.less.append(&mut compared.less);
        }
        if after.is_none() {
            let but_named = match grantee {
                Grantee::Role(..) => ", save who is named",
                Grantee::Caller(_) => "",
            };
            let text = granted(grantee, grant);
            difference
                .less
                .push(format!("no longer{but_named}: {text}"));
        }
    }
    let says = |policy: &Policy, raw: &Raw| {
        let other = policy.raw(&raw.key);
        other.is_some_and(|other| other.to_string() == raw.to_string())
    };
    for raw in new.raws().iter().filter(|it| !says(old, it)) {
        difference.more.push(format!("{raw} [line {}]", raw.line));
    }
    for raw in old.raws().iter().filter(|it| !says(new, it)) {
        difference.less.push(format!("no longer: {raw}"));
    }
    let is_frozen = |policy: &Policy, freeze: &Freeze| policy.freeze(&freeze.key).is_some();
    for freeze in old.freezes().iter().filter(|it| !is_frozen(new, it)) {
        difference
            .more
            .push(format!("key {} is no longer frozen", freeze.key));
    }
    for freeze in new.freezes().iter().filter(|it| !is_frozen(old, it)) {
        let (key, line) = (&freeze.key, freeze.line);
        difference.less.push(format!(
            "key {key} is frozen, and signs nothing [line {line}]"
        ));
    }
    difference
}

impl Policy {
    /// Every grantee of every grant.
    fn spoken(&self) -> impl Iterator<Item = (&Grantee, &Grant)> {
        let callers = |grant| Grant::callers(grant).iter().map(move |it| (it, grant));
        self.grants().flat_map(callers)
    }

    /// What speaks here for all that the grantee stands for, with the other grant's key on its chain.
    fn of(&self, grantee: &Grantee, other: &Grant) -> Option<&Grant> {
        match grantee {
            Grantee::Caller(caller) => self.find(caller, &other.key, &other.chain_id).ok(),
            Grantee::Role(..) => {
                let place = self.grantees.binary_search(grantee).ok()?;
                let place = u32::try_from(place).ok()?;
                let entries = super::part(&self.index, |entry| entry.grantee.cmp(&place));
                self.at(entries, &other.key, &other.chain_id)
            }
        }
    }
}

fn granted(grantee: &Grantee, grant: &Grant) -> String {
    let kinds: Vec<&str> = grant.kinds.iter().map(|kind| kind.name()).collect();
    format!(
        "{grantee} may have key {} sign {} on {} ({})",
        grant.key,
        kinds.join(", "),
        grant.chain_id,
        grant.limits
    )
}

fn compare(grantee: &Grantee, before: &Grant, after: &Grant, difference: &mut Difference) {
    let about = format!("{grantee} with key {} on {}", after.key, after.chain_id);
    let line = after.line;
    let kinds = |of: &Grant, without: &Grant| {
        let kinds = of
            .kinds
            .iter()
            .filter(|kind| !without.kinds.contains(*kind));
        kinds.map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
    };
    let (added, removed) = (kinds(after, before), kinds(before, after));
    if !added.is_empty() {
        difference
            .more
            .push(format!("{about}: also {added} [line {line}]"));
    }
    if !removed.is_empty() {
        difference
            .less
            .push(format!("{about}: no longer {removed} [line {line}]"));
    }
    let (old, new) = (&before.limits, &after.limits);
    let mut limit = |name: &str, change: Change| match change {
        Change::None => {}
        Change::Looser(what) => difference
            .more
            .push(format!("{about}: {name} {what} [line {line}]")),
        Change::Tighter(what) => difference
            .less
            .push(format!("{about}: {name} {what} [line {line}]")),
    };
    limit(
        "max_height_jump",
        change(Some(old.max_height_jump), Some(new.max_height_jump)),
    );
    limit(
        "max_round",
        change(Some(old.max_round), Some(new.max_round)),
    );
    limit("max_height", change(old.max_height, new.max_height));
    let seconds = |skew: Option<std::time::Duration>| skew.map(|skew| skew.as_secs());
    limit(
        "max_clock_skew_seconds",
        change(seconds(old.max_clock_skew), seconds(new.max_clock_skew)),
    );
    limit(
        "max_heights_per_second",
        change(old.max_heights_per_second, new.max_heights_per_second),
    );
    limit(
        "max_requests_per_second",
        change(old.max_requests_per_second, new.max_requests_per_second),
    );
}

enum Change {
    None,
    Looser(String),
    Tighter(String),
}

/// Of a limit whose absence allows everything.
fn change<T: Ord + Display>(old: Option<T>, new: Option<T>) -> Change {
    match (old, new) {
        (Some(old), Some(new)) if old < new => Change::Looser(format!("rises from {old} to {new}")),
        (Some(old), Some(new)) if old > new => {
            Change::Tighter(format!("falls from {old} to {new}"))
        }
        (Some(old), None) => Change::Looser(format!("{old} is lifted")),
        (None, Some(new)) => Change::Tighter(format!("{new} is new")),
        _ => Change::None,
    }
}
