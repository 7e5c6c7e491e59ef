//! Repeated refusals become one entry with a count, so that a hostile caller cannot fill the disk.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hsm_proto::v1::Refused;

/// The first refusal of a kind is written at once, further ones of this span as one entry at its end.
const WINDOW: Duration = Duration::from_secs(10);
/// Kinds remembered at once. Above it, only caller and reason tell kinds apart.
const KINDS: usize = 1024;

/// The refusals of the current window, by kind.
#[derive(Default)]
pub struct Refusals {
    kinds: Mutex<HashMap<Kind, Repeated>>,
}

/// Refusals that agree in these are counted together; the entry shows the last one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    caller: String,
    reason: String,
    key: String,
    chain_id: String,
    /// The message itself, where the guard refused it: it is evidence.
    sign_bytes: Vec<u8>,
}

struct Repeated {
    since: Instant,
    /// The last one seen; its count is the number of refusals that no entry stands for yet.
    last: Refused,
}

impl Refusals {
    /// Takes in one refusal; returns the entry to be written at once, if any.
    pub fn take(&self, refused: Refused, now: Instant) -> Option<Refused> {
        let Ok(mut kinds) = self.kinds.lock() else {
            return Some(refused);
        };
        let mut kind = Kind {
            caller: refused.caller.clone(),
            reason: refused.reason.clone(),
            key: refused.key.clone(),
            chain_id: refused.chain_id.clone(),
            sign_bytes: refused.sign_bytes.clone(),
        };
        if kinds.len() >= KINDS && !kinds.contains_key(&kind) {
            kind.key.clear();
            kind.chain_id.clear();
            kind.sign_bytes.clear();
        }
        if let Some(repeated) = kinds.get_mut(&kind) {
            let count = repeated.last.count.saturating_add(1);
            repeated.last = Refused { count, ..refused };
            return None;
        }
        let last = Refused {
            count: 0,
            ..refused.clone()
        };
        kinds.insert(kind, Repeated { since: now, last });
        Some(Refused {
            count: 1,
            ..refused
        })
    }

    /// The entries whose window has ended, one a kind that was repeated. With `all`, also the others.
    pub fn due(&self, now: Instant, all: bool) -> Vec<Refused> {
        let Ok(mut kinds) = self.kinds.lock() else {
            return Vec::new();
        };
        let mut entries = Vec::new();
        kinds.retain(|_, repeated| {
            if !all && now.duration_since(repeated.since) < WINDOW {
                return true;
            }
            if repeated.last.count > 0 {
                entries.push(std::mem::take(&mut repeated.last));
            }
            false
        });
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(key: &str) -> Refused {
        Refused {
            caller: "spiffe://t/sentry/a".to_owned(),
            reason: "DOUBLE_SIGN".to_owned(),
            key: key.to_owned(),
            ..Refused::default()
        }
    }

    #[test]
    fn the_first_refusal_is_written_at_once_and_its_repetitions_as_one_count() {
        let refusals = Refusals::default();
        let start = Instant::now();
        assert_eq!(refusals.take(refused("a"), start).unwrap().count, 1);
        for _ in 0..500 {
            assert!(refusals.take(refused("a"), start).is_none());
        }
        assert_eq!(refusals.take(refused("b"), start).unwrap().count, 1);
        assert!(refusals.due(start, false).is_empty());
        let due = refusals.due(start + WINDOW, false);
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].key.as_str(), due[0].count), ("a", 500));
        assert_eq!(refusals.take(refused("a"), start).unwrap().count, 1);
    }

    #[test]
    fn made_up_names_cannot_grow_the_table_without_end() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let written = (0..5000)
            .filter(|i| refusals.take(refused(&i.to_string()), start).is_some())
            .count();
        assert_eq!(written, KINDS + 1);
        let counted: u32 = refusals
            .due(start, true)
            .iter()
            .map(|entry| entry.count)
            .sum();
        assert_eq!(counted as usize + written, 5000);
    }
}
