//! Marks of one key on one chain that several signers hold: which of two says more, and what both say together.

use super::{Last, Mark};

impl Mark {
    /// Whether everything that `other` forbids is forbidden by this mark too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.initial_height >= other.initial_height
            && match (&self.last, &other.last) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(ours), Some(theirs)) => {
                    ours.position > theirs.position
                        || ours.position == theirs.position
                            // Without bytes, nothing at that position is signed.
                            && (ours.sign_bytes.is_empty() || ours.sign_bytes == theirs.sign_bytes)
                }
            }
    }

    /// The least mark that covers both. Where they name different messages at one position, the position is kept
    /// and the bytes are dropped; where only the extensions differ, this mark's is kept.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let last = match (&self.last, &other.last) {
            (None, theirs) => theirs.clone(),
            (ours, None) => ours.clone(),
            (Some(ours), Some(theirs)) if ours.position > theirs.position => Some(ours.clone()),
            (Some(ours), Some(theirs)) if ours.position < theirs.position => Some(theirs.clone()),
            (Some(ours), Some(theirs)) if ours.sign_bytes == theirs.sign_bytes => {
                let mut kept = ours.clone();
                kept.extension_sign_bytes = kept
                    .extension_sign_bytes
                    .or_else(|| theirs.extension_sign_bytes.clone());
                Some(kept)
            }
            (Some(ours), Some(_)) => Some(Last {
                sign_bytes: Vec::new(),
                extension_sign_bytes: None,
                ..ours.clone()
            }),
        };
        Self {
            initial_height: self.initial_height.max(other.initial_height),
            last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cometbft::{Height, Position, Round, Step, Timestamp};

    fn mark(initial_height: i64, last: Option<(i64, u8)>) -> Mark {
        let last = last.map(|(height, byte)| Last {
            position: Position {
                height: Height::new(height).unwrap(),
                round: Round::new(0).unwrap(),
                step: Step::Precommit,
            },
            sign_bytes: if byte == 0 { Vec::new() } else { vec![byte] },
            timestamp: Timestamp::new(1, 0).unwrap(),
            extension_sign_bytes: None,
        });
        Mark {
            initial_height,
            last,
        }
    }

    fn all() -> Vec<Mark> {
        let lasts = [None, Some((5, 0)), Some((5, 1)), Some((5, 2)), Some((6, 1))];
        let with = |initial| lasts.map(|last| mark(initial, last));
        [with(0), with(3)].concat()
    }

    #[test]
    fn what_two_marks_say_together_covers_both_in_either_order() {
        for one in all() {
            assert!(one.covers(&one));
            for other in all() {
                let merged = one.merged(&other);
                assert!(
                    merged.covers(&one) && merged.covers(&other),
                    "{one:?} {other:?}"
                );
                assert_eq!(merged, other.merged(&one));
                assert_eq!(one.covers(&other), merged == one, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn different_messages_at_one_position_leave_the_position_without_bytes() {
        let merged = mark(0, Some((5, 1))).merged(&mark(2, Some((5, 2))));
        assert_eq!(merged, mark(2, Some((5, 0))));
        assert!(!mark(0, Some((5, 1))).covers(&merged));
    }

    #[test]
    fn an_extension_is_kept_where_only_one_has_it() {
        let bare = mark(0, Some((5, 1)));
        let mut with = bare.clone();
        with.last.as_mut().unwrap().extension_sign_bytes = Some(vec![9]);
        assert_eq!(bare.merged(&with), with);
        assert_eq!(with.merged(&bare), with);
    }
}
