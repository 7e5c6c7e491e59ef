//! Repeated refusals become one entry with a count, so that a hostile caller cannot fill the disk.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hsm_proto::v1::Refused;

/// The first refusal of a kind is written at once, further ones of this span as one entry at its end.
const WINDOW: Duration = Duration::from_secs(10);
/// Kinds of one caller remembered at once. Above it, only the reason tells its refusals apart.
const KINDS: usize = 16;

/// The refusals of the current window, by caller and kind: no caller's refusals stand in for another's.
/// Callers are as many as our CA has named.
#[derive(Default)]
pub struct Refusals {
    callers: Mutex<HashMap<String, HashMap<Kind, Repeated>>>,
}

/// Refusals of a caller that agree in these are counted together; the entry shows the last one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    reason: String,
    key: String,
    chain_id: String,
    /// The message itself, where the guard refused it: it is evidence.
    sign_bytes: Vec<u8>,
}

impl Kind {
    fn by_reason(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            key: String::new(),
            chain_id: String::new(),
            sign_bytes: Vec::new(),
        }
    }
}

struct Repeated {
    since: Instant,
    /// The last one seen; its count is the number of refusals that no entry stands for yet.
    last: Refused,
}

impl Refusals {
    /// Takes in one refusal; returns the entry to be written at once, if any. `granted`: the caller has a
    /// grant of this key for this chain. Other names may be made up, and do not tell refusals apart.
    pub fn take(&self, refused: Refused, granted: bool, now: Instant) -> Option<Refused> {
        let Ok(mut callers) = self.callers.lock() else {
            return Some(refused);
        };
        let kinds = callers.entry(refused.caller.clone()).or_default();
        let by_reason = Kind::by_reason(&refused.reason);
        let mut kind = match granted {
            false => by_reason.clone(),
            true => Kind {
                key: refused.key.clone(),
                chain_id: refused.chain_id.clone(),
                sign_bytes: refused.sign_bytes.clone(),
                ..by_reason.clone()
            },
        };
        if kinds.len() >= KINDS && !kinds.contains_key(&kind) {
            kind = by_reason;
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
        let Ok(mut callers) = self.callers.lock() else {
            return Vec::new();
        };
        let mut entries = Vec::new();
        callers.retain(|_, kinds| {
            kinds.retain(|_, repeated| {
                if !all && now.duration_since(repeated.since) < WINDOW {
                    return true;
                }
                if repeated.last.count > 0 {
                    entries.push(std::mem::take(&mut repeated.last));
                }
                false
            });
            !kinds.is_empty()
        });
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(caller: &str, reason: &str, key: &str, sign_bytes: &[u8]) -> Refused {
        Refused {
            caller: caller.to_owned(),
            reason: reason.to_owned(),
            key: key.to_owned(),
            sign_bytes: sign_bytes.to_vec(),
            ..Refused::default()
        }
    }

    type Sent = fn(u32) -> Refused;

    fn double_sign(caller: &str, number: u32) -> Refused {
        refused(caller, "DOUBLE_SIGN", "key", &number.to_be_bytes())
    }

    #[test]
    fn the_first_refusal_is_written_at_once_and_its_repetitions_as_one_count() {
        let refusals = Refusals::default();
        let start = Instant::now();
        assert_eq!(
            refusals
                .take(double_sign("a", 1), true, start)
                .unwrap()
                .count,
            1
        );
        for _ in 0..500 {
            assert!(refusals.take(double_sign("a", 1), true, start).is_none());
        }
        let other = refusals.take(double_sign("a", 2), true, start).unwrap();
        assert_eq!(other.count, 1);
        assert!(refusals.due(start, false).is_empty());
        let due = refusals.due(start + WINDOW, false);
        assert_eq!(
            due,
            [Refused {
                count: 500,
                ..double_sign("a", 1)
            }]
        );
        assert_eq!(
            refusals
                .take(double_sign("a", 1), true, start)
                .unwrap()
                .count,
            1
        );
    }

    #[test]
    fn a_caller_makes_few_entries_whatever_it_sends_and_all_are_counted() {
        // (what is sent, whether the caller has a grant there, entries that are written at once)
        let cases: [(Sent, bool, usize); 2] = [
            (|i| double_sign("a", i), true, KINDS + 1),
            (
                |i| refused("a", "KEY_NOT_GRANTED", &i.to_string(), &[]),
                false,
                1,
            ),
        ];
        for (sent, granted, expected) in cases {
            let refusals = Refusals::default();
            let start = Instant::now();
            let written = (0..5000)
                .filter(|i| refusals.take(sent(*i), granted, start).is_some())
                .count();
            assert_eq!(written, expected);
            let due = refusals.due(start, true);
            let counted: u32 = due.iter().map(|entry| entry.count).sum();
            assert_eq!(counted as usize + written, 5000);
        }
        let first = Refusals::default().take(
            refused("a", "KEY_NOT_GRANTED", "7", &[]),
            false,
            Instant::now(),
        );
        assert_eq!(first.unwrap().key, "7", "the entry keeps what was sent");
    }

    #[test]
    fn no_caller_hides_what_another_did() {
        let refusals = Refusals::default();
        let start = Instant::now();
        for i in 0..5000 {
            let _ = refusals.take(double_sign("a", i), true, start);
        }
        for i in 0..3 {
            let written = refusals.take(double_sign("b", i), true, start);
            assert_eq!(
                written,
                Some(Refused {
                    count: 1,
                    ..double_sign("b", i)
                })
            );
        }
    }
}
