//! Which signatures a device was asked for, to be held against its own audit log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::Error;

/// How long after a call that got no answer the device may still sign for it: longer than any connector or client
/// library waits.
const LATE: Duration = Duration::from_secs(60);

/// The signatures that a device was asked for since its worker began, by object number. It can be read as often as
/// one likes: nothing in it is lost by reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// How many the device gave.
    pub answered: BTreeMap<u16, u64>,
    /// Calls of the last minute that ended without an answer: the device may have signed, or may still do so. Each has
    /// a number of its own.
    pub failed: BTreeMap<u64, u16>,
    /// Calls that have not returned, numbered likewise.
    pub in_flight: BTreeMap<u64, u16>,
    /// How many commands that put or delete a data object were begun.
    pub data_changes: u64,
}

/// Calls that ask the device for a signature, from before each is made.
#[derive(Default)]
pub(super) struct Attempts {
    last: u64,
    answered: BTreeMap<u16, u64>,
    in_flight: BTreeMap<u64, u16>,
    failed: BTreeMap<u64, (u16, Instant)>,
    data_changes: u64,
}

/// A call that was begun.
pub(super) struct Attempt(u64);

impl Attempts {
    pub(super) fn begin(&mut self, object: u16) -> Attempt {
        self.last += 1;
        self.in_flight.insert(self.last, object);
        Attempt(self.last)
    }

    pub(super) fn change_data(&mut self) {
        self.data_changes += 1;
    }

    /// `error` is none where the device gave a signature.
    pub(super) fn end(&mut self, attempt: &Attempt, error: Option<&Error>, now: Instant) {
        let Some(object) = self.in_flight.remove(&attempt.0) else {
            return;
        };
        match error {
            None => *self.answered.entry(object).or_default() += 1,
            Some(error) if error.ends_session() => {
                self.failed.insert(attempt.0, (object, now));
            }
            // The device declined.
            Some(_) => {}
        }
    }

    pub(super) fn asked(&mut self, now: Instant) -> Asked {
        self.failed
            .retain(|_, (_, ended)| now.saturating_duration_since(*ended) < LATE);
        let failed = self.failed.iter();
        Asked {
            answered: self.answered.clone(),
            failed: failed.map(|(call, (object, _))| (*call, *object)).collect(),
            in_flight: self.in_flight.clone(),
            data_changes: self.data_changes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_accounted_for_by_how_it_ended() {
        let mut attempts = Attempts::default();
        let refused = Error::Refused {
            operation: "sign",
            cause: "no".into(),
        };
        let lost = Error::SessionLost("gone".into());
        let now = Instant::now();
        let [one, two, three, four] = [1, 1, 2, 3].map(|object| attempts.begin(object));
        attempts.end(&one, None, now);
        attempts.end(&two, Some(&refused), now);
        attempts.end(&three, Some(&lost), now);
        let asked = attempts.asked(now);
        assert_eq!(asked.answered, BTreeMap::from([(1, 1)]));
        assert_eq!(asked.failed, BTreeMap::from([(3, 2)]));
        assert_eq!(asked.in_flight, BTreeMap::from([(4, 3)]));
        assert_eq!(attempts.asked(now), asked, "reading loses nothing");

        attempts.end(&four, None, now);
        let asked = attempts.asked(now + LATE);
        assert_eq!(asked.answered, BTreeMap::from([(1, 1), (3, 1)]));
        assert!(asked.failed.is_empty() && asked.in_flight.is_empty());
    }
}
