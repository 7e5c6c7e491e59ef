//! What a start makes of the journal and the anchor. Pure.
//!
//! | the anchor's counter, beside the journal's | what happened | what follows |
//! |---|---|---|
//! | the same | nothing | go on |
//! | one less | a crash between journaling an advance and making it | make it, then go on |
//! | more | the journal is older than the anchor: it was rolled back, or another process moved the anchor | refuse |
//! | less by more than one, or none | another anchor, or one that was made anew | refuse until officers bind it |
//!
//! Going on needs more where the journal does not end with a seal: see [`Ending`].

use crate::guard::AnchorMark;

/// How the journal stands to its anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No anchor was configured, and the journal is bound to none.
    Unanchored,
    /// The journal's last advance was made.
    InStep,
    /// It was journaled, and has to be made.
    Interrupted,
}

/// Why hsmd does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The anchor was advanced since this journal was written.
    #[error(
        "the state was rolled back: the journal expects the {kind} anchor at {journaled}, and it stands at {found}. \
         This is an older copy of the state, or another hsmd advances the anchor; signing from it could sign twice. \
         Put the newest state directory back; where that is lost, follow the recovery for lost state in SECURITY.md"
    )]
    Ahead {
        /// The anchor's kind.
        kind: String,
        /// Where the journal says that it stands.
        journaled: u64,
        /// Where it stands.
        found: u64,
    },
    /// The anchor is not the one that the journal was bound to.
    #[error(
        "the {kind} anchor went back: the journal expects it at {journaled}, and it stands at {found}. It was made \
         anew, or it is another machine's. If this state directory is the newest, bind it to this anchor with \
         `hsmd state rebind-anchor`, which wants officers' signatures"
    )]
    Behind {
        /// The anchor's kind.
        kind: String,
        /// Where the journal says that it stands.
        journaled: u64,
        /// Where it stands.
        found: u64,
    },
    /// There is no anchor of this deployment.
    #[error(
        "the {kind} anchor of this deployment is missing: the journal expects it at {journaled}, and found none. It \
         was deleted, its TPM or device was replaced, or this state comes from another machine. If this state \
         directory is the newest, and signs nowhere else, bind it to a new anchor with `hsmd state rebind-anchor`, \
         which wants officers' signatures"
    )]
    Missing {
        /// The anchor's kind.
        kind: String,
        /// Where the journal says that it stands.
        journaled: u64,
    },
    /// The configuration names another anchor than the journal is bound to.
    #[error(
        "state.anchor is {configured}, and the journal is bound to {bound}: correct state.anchor, or bind the journal \
         with `hsmd state rebind-anchor`, which wants officers' signatures"
    )]
    Other {
        /// As the configuration has it.
        configured: String,
        /// As the journal has it.
        bound: String,
    },
}

/// Compares the journal's mark with the anchor that the configuration names, or "none", and where that was found.
///
/// # Errors
///
/// [`Mismatch`]: hsmd must not sign from this journal.
pub(super) fn compare(
    mark: Option<&AnchorMark>,
    configured: &str,
    found: Option<u64>,
) -> Result<Standing, Mismatch> {
    let bound = mark.map_or("none", |mark| mark.kind.as_str());
    if bound != configured {
        return Err(Mismatch::Other {
            configured: configured.to_owned(),
            bound: bound.to_owned(),
        });
    }
    let Some(mark) = mark else {
        return Ok(Standing::Unanchored);
    };
    let (kind, journaled) = (mark.kind.clone(), mark.counter);
    match found {
        None => Err(Mismatch::Missing { kind, journaled }),
        Some(found) if found == journaled => Ok(Standing::InStep),
        Some(found) if found.checked_add(1) == Some(journaled) => Ok(Standing::Interrupted),
        Some(found) if found > journaled => Err(Mismatch::Ahead {
            kind,
            journaled,
            found,
        }),
        Some(found) => Err(Mismatch::Behind {
            kind,
            journaled,
            found,
        }),
    }
}

/// What shows that the journal holds all that was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It ends with a seal, and the anchor stands where that put it: nothing was signed since.
    Sealed,
    /// It contains the last entry that a reply relied on, as written down outside the disk within this boot.
    Proven,
    /// Nothing: it may be an image taken since the last advance. Whatever the ceilings allowed counts as signed.
    Unproven,
}

/// How a journal that stands to its anchor as it should came to its end. `contains_last`: whether it contains the last
/// entry that was written down within this boot.
#[must_use]
pub(super) fn ending(mark: &AnchorMark, contains_last: bool) -> Ending {
    match (mark.sealed, contains_last) {
        (true, _) => Ending::Sealed,
        (false, true) => Ending::Proven,
        (false, false) => Ending::Unproven,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(counter: u64, sealed: bool) -> AnchorMark {
        AnchorMark {
            kind: "tpm".to_owned(),
            counter,
            sealed,
        }
    }

    #[test]
    fn only_an_anchor_in_step_or_one_behind_lets_hsmd_start() {
        let stands = |found| compare(Some(&mark(7, false)), "tpm", found);
        let (kind, journaled) = ("tpm".to_owned(), 7);
        assert_eq!(stands(Some(7)), Ok(Standing::InStep));
        assert_eq!(stands(Some(6)), Ok(Standing::Interrupted));
        for found in [8, 9, u64::MAX] {
            let kind = kind.clone();
            assert_eq!(
                stands(Some(found)),
                Err(Mismatch::Ahead {
                    kind,
                    journaled,
                    found
                })
            );
        }
        for found in [5, 0] {
            let kind = kind.clone();
            assert_eq!(
                stands(Some(found)),
                Err(Mismatch::Behind {
                    kind,
                    journaled,
                    found
                })
            );
        }
        assert_eq!(stands(None), Err(Mismatch::Missing { kind, journaled }));
    }

    #[test]
    fn the_anchor_of_the_configuration_and_of_the_journal_are_the_same() {
        let bound = mark(7, true);
        assert_eq!(compare(None, "none", None), Ok(Standing::Unanchored));
        for (mark, configured) in [
            (Some(&bound), "none"),
            (Some(&bound), "yubihsm"),
            (None, "tpm"),
        ] {
            let compared = compare(mark, configured, Some(7));
            assert!(
                matches!(compared, Err(Mismatch::Other { .. })),
                "{configured}"
            );
        }
    }

    #[test]
    fn an_end_is_complete_if_it_is_sealed_or_the_last_entry_is_there() {
        for (sealed, contains_last, expected) in [
            (true, false, Ending::Sealed),
            (true, true, Ending::Sealed),
            (false, true, Ending::Proven),
            (false, false, Ending::Unproven),
        ] {
            assert_eq!(ending(&mark(7, sealed), contains_last), expected);
        }
    }
}
