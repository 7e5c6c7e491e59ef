//! What another signer's state does to a mark: the greater of the two counts, and nothing is ever lowered.

use super::{Last, Mark};
use crate::cometbft::Position;

/// What another signer knew of a key on a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Nothing at or below this height is signed. 0 where that signer has no such thing.
    pub initial_height: i64,
    /// What it signed last; its bytes are empty where they are not known.
    pub last: Option<Last>,
}

/// What became of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The other signer knew nothing that was not known here.
    Unchanged,
    /// The mark is higher than before.
    Raised,
    /// The other signer signed at the same position, and does not say what: nothing more is signed there.
    Dropped(Position),
    /// Both signed at this position, and not the same: somebody signed twice. Nothing more is signed there.
    Contested(Position),
}

/// The mark that forbids whatever either of the two forbids.
#[must_use]
pub fn merge(mark: &Mark, imported: Imported) -> (Mark, Outcome) {
    let mut merged = mark.clone();
    let mut outcome = Outcome::Unchanged;
    if imported.initial_height > mark.initial_height {
        merged.initial_height = imported.initial_height;
        outcome = Outcome::Raised;
    }
    let Some(theirs) = imported.last else {
        return (merged, outcome);
    };
    let position = theirs.position;
    match merged.last.as_mut() {
        Some(ours) if position == ours.position => {
            if theirs.sign_bytes == ours.sign_bytes || ours.sign_bytes.is_empty() {
                return (merged, outcome);
            }
            ours.sign_bytes.clear();
            ours.extension_sign_bytes = None;
            match theirs.sign_bytes.is_empty() {
                true => (merged, Outcome::Dropped(position)),
                false => (merged, Outcome::Contested(position)),
            }
        }
        Some(ours) if position < ours.position => (merged, outcome),
        _ if position.height.get() <= merged.initial_height => (merged, outcome),
        _ => {
            merged.last = Some(theirs);
            (merged, Outcome::Raised)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cometbft::{Height, Round, Step, Timestamp};
    use crate::conflict::judge;
    use crate::conflict::tests::message_at;

    /// Height, round and step, and what was signed there.
    type Named = ((i64, i32, i32), &'static [u8]);

    fn last((height, round, step): (i64, i32, i32), bytes: &[u8]) -> Last {
        Last {
            position: Position {
                height: Height::new(height).unwrap(),
                round: Round::new(round).unwrap(),
                step: Step::try_from(step).unwrap(),
            },
            sign_bytes: bytes.to_vec(),
            timestamp: Timestamp::new(0, 0).unwrap(),
            extension_sign_bytes: None,
        }
    }

    fn merged(ours: Option<Named>, theirs: Option<Named>) -> (Option<Last>, Outcome) {
        let mark = Mark {
            initial_height: 5,
            last: ours.map(|(position, bytes)| last(position, bytes)),
        };
        let imported = Imported {
            initial_height: 0,
            last: theirs.map(|(position, bytes)| last(position, bytes)),
        };
        let (mark, outcome) = merge(&mark, imported);
        assert_eq!(mark.initial_height, 5);
        (mark.last, outcome)
    }

    #[test]
    fn the_lexicographic_maximum_of_height_round_and_step_counts() {
        for (ours, theirs, greater) in [
            ((9, 0, 1), (10, 0, 1), true),
            ((9, 3, 3), (10, 0, 1), true),
            ((9, 1, 3), (9, 2, 1), true),
            ((9, 1, 1), (9, 1, 2), true),
            ((10, 0, 1), (9, 9, 3), false),
            ((9, 2, 1), (9, 1, 3), false),
            ((9, 1, 3), (9, 1, 2), false),
        ] {
            let (kept, outcome) = merged(Some((ours, b"a")), Some((theirs, b"b")));
            let (expected, said) = match greater {
                true => (last(theirs, b"b"), Outcome::Raised),
                false => (last(ours, b"a"), Outcome::Unchanged),
            };
            assert_eq!(
                (kept, outcome),
                (Some(expected), said),
                "{ours:?} {theirs:?}"
            );
        }
    }

    #[test]
    fn at_one_position_other_bytes_are_dropped_and_the_position_is_kept() {
        let at = (9, 1, 2);
        let place = last(at, b"").position;
        let both = |ours, theirs| merged(Some((at, ours)), Some((at, theirs)));
        assert_eq!(both(b"a", b"a"), (Some(last(at, b"a")), Outcome::Unchanged));
        assert_eq!(
            both(b"a", b"b"),
            (Some(last(at, b"")), Outcome::Contested(place))
        );
        assert_eq!(
            both(b"a", b""),
            (Some(last(at, b"")), Outcome::Dropped(place))
        );
        assert_eq!(both(b"", b"b"), (Some(last(at, b"")), Outcome::Unchanged));
    }

    #[test]
    fn what_lies_at_or_below_the_initial_height_changes_nothing() {
        assert_eq!(merged(None, None), (None, Outcome::Unchanged));
        assert_eq!(
            merged(None, Some(((5, 0, 1), b"a"))),
            (None, Outcome::Unchanged)
        );
        let above = merged(None, Some(((6, 0, 1), b"a")));
        assert_eq!(above, (Some(last((6, 0, 1), b"a")), Outcome::Raised));
    }

    fn any_last() -> impl Strategy<Value = Option<Last>> {
        proptest::option::of(
            (1..4i64, 0..3i32, 1..4i32, 0..3u8).prop_map(|(h, r, s, byte)| {
                let mut last = last((h, r, s), b"");
                let message = message_at(last.position, byte);
                last.timestamp = message.timestamp();
                last.sign_bytes = if byte == 0 {
                    Vec::new()
                } else {
                    message.sign_bytes()
                };
                last
            }),
        )
    }

    proptest! {
        #[test]
        fn what_either_forbids_the_merged_mark_forbids(
            ours in any_last(), theirs in any_last(), a in 0..4i64, b in 0..4i64, asked in any_last(), block in 1..3u8,
        ) {
            let mark = Mark { initial_height: a, last: ours };
            let other = Mark { initial_height: b, last: theirs.clone() };
            let (both, _) = merge(&mark, Imported { initial_height: b, last: theirs });
            prop_assert!(both.initial_height >= a && both.height() >= mark.height());
            if let Some(asked) = asked {
                let message = message_at(asked.position, block);
                let permitted = judge(&both, &message, u64::MAX).is_ok();
                let by_each = judge(&mark, &message, u64::MAX).is_ok() && judge(&other, &message, u64::MAX).is_ok();
                prop_assert!(!permitted || by_each);
            }
        }
    }
}
