//! What hsmd's journal says, held against the promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// Chain and position, as the guard orders them: public key, chain id, height, round, step.
pub type Place = (String, String, i64, i64, String);

/// Everything that a journal reserved.
pub struct Reservations(BTreeMap<Place, BTreeSet<String>>);

impl Reservations {
    /// Reads the entries that `hsmd journal show --json` prints.
    ///
    /// # Panics
    ///
    /// If an entry lacks a field.
    #[must_use]
    pub fn of(journal: &[Value]) -> Self {
        let mut places: BTreeMap<Place, BTreeSet<String>> = BTreeMap::new();
        for entry in journal.iter().filter(|entry| entry["event"] == "reserved") {
            let text = |name: &str| entry[name].as_str().expect("a string").to_owned();
            let number = |name: &str| entry[name].as_i64().expect("a number");
            let place = (
                text("public_key"),
                text("chain_id"),
                number("height"),
                number("round"),
                text("step"),
            );
            places.entry(place).or_default().insert(text("sign_bytes"));
        }
        Self(places)
    }

    /// How many positions there are.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.0.len()
    }

    /// Whether these sign bytes were reserved for this key.
    #[must_use]
    pub fn contain(&self, public_key: &[u8], sign_bytes: &[u8]) -> bool {
        let (key, bytes) = (hex::encode(public_key), hex::encode(sign_bytes));
        self.0
            .iter()
            .any(|(place, messages)| place.0 == key && messages.contains(&bytes))
    }

    /// Promise 2: at most one message a key and position.
    ///
    /// # Panics
    ///
    /// If there is a position with two.
    pub fn assert_one_message_a_position(&self) {
        assert!(!self.0.is_empty(), "the journal reserved nothing");
        for (place, messages) in &self.0 {
            assert_eq!(messages.len(), 1, "{place:?} was reserved for {messages:?}");
        }
    }
}

/// What callers got, over all restarts of hsmd.
#[derive(Default)]
pub struct Received(Mutex<BTreeMap<Place, String>>);

impl Received {
    /// Takes in a signature that verified over these sign bytes.
    ///
    /// # Panics
    ///
    /// If another message was signed at this position.
    pub fn take(&self, place: Place, sign_bytes: &[u8]) {
        let bytes = hex::encode(sign_bytes);
        let mut received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = received.entry(place.clone()).or_insert(bytes.clone());
        assert_eq!(*first, bytes, "two messages were signed at {place:?}");
    }

    /// How many positions have a signature.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Promise 1: every signature that left has its entry.
    ///
    /// # Panics
    ///
    /// If one has not.
    pub fn assert_reserved_in(&self, reservations: &Reservations) {
        for (place, bytes) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let reserved = reservations.0.get(place);
            assert!(
                reserved.is_some_and(|messages| messages.contains(bytes)),
                "what was signed at {place:?} has no entry"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reserved(step: &str, sign_bytes: &str) -> Value {
        json!({"event": "reserved", "public_key": "0a", "chain_id": "chain", "height": 7, "round": 0,
            "step": step, "sign_bytes": sign_bytes})
    }

    #[test]
    fn repeated_entries_and_other_steps_are_no_conflict() {
        let journal = [
            reserved("prevote", "01"),
            reserved("prevote", "01"),
            reserved("precommit", "02"),
        ];
        let reservations = Reservations::of(&journal);
        reservations.assert_one_message_a_position();
        assert_eq!(reservations.positions(), 2);
        assert!(reservations.contain(&[0x0a], &[0x02]));
        assert!(!reservations.contain(&[0x0a], &[0x03]));
    }

    #[test]
    #[should_panic(expected = "has no entry")]
    fn a_signature_without_its_entry_is_found() {
        let received = Received::default();
        let place = |step: &str| ("0a".to_owned(), "chain".to_owned(), 7, 0, step.to_owned());
        received.take(place("prevote"), &[1]);
        let reservations = Reservations::of(&[reserved("prevote", "01")]);
        received.assert_reserved_in(&reservations);
        received.take(place("precommit"), &[1]);
        received.assert_reserved_in(&reservations);
    }

    #[test]
    #[should_panic(expected = "two messages were signed")]
    fn two_signatures_at_one_position_are_found() {
        let received = Received::default();
        let place = || {
            (
                "0a".to_owned(),
                "chain".to_owned(),
                7,
                0,
                "prevote".to_owned(),
            )
        };
        received.take(place(), &[1]);
        received.take(place(), &[2]);
    }

    #[test]
    #[should_panic(expected = "was reserved for")]
    fn two_messages_at_one_position_are_found() {
        Reservations::of(&[reserved("prevote", "01"), reserved("prevote", "02")])
            .assert_one_message_a_position();
    }
}
