//! Why the guard refuses, or fails.

use hsm_device::PublicKey;
use hsm_policy::conflict::Conflict;

/// Why the guard did not reserve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key was never made known for this chain.
    #[error(
        "key {key} was not made known for chain {chain}, so it does not sign there: an operator \
         makes it known with `hsmd key init {key} --chain {chain} --height H`"
    )]
    NotInitialised {
        /// The key's name.
        key: String,
        /// The chain id.
        chain: String,
    },
    /// The request contradicts what was reserved before.
    #[error("{conflict}")]
    Conflict {
        /// What stands against it.
        conflict: Conflict,
        /// The sign bytes that were asked for.
        sign_bytes: Vec<u8>,
    },
    /// A key is made known that is known already.
    #[error("{0}")]
    AlreadyKnown(String),
    /// A mark can only be raised.
    #[error(
        "height {asked} is not above {mark}, where the mark of key {key} on chain {chain} stands: a \
         mark is only ever raised"
    )]
    NotAbove {
        /// The key's name.
        key: String,
        /// The chain id.
        chain: String,
        /// The height asked for.
        asked: i64,
        /// The greater of the last height signed and the initial one.
        mark: i64,
    },
    /// The mark is shared through a ledger, which has to be asked first.
    #[error(
        "key {key} shares its mark on chain {chain} through a ledger, and was about to be used without it; send \
         the request again"
    )]
    LedgerFirst {
        /// The key's name.
        key: String,
        /// The chain id.
        chain: String,
    },
    /// The key is frozen for all signers that share its mark.
    #[error("key {key} is frozen on chain {chain}, for all signers of its ledger: {reason}")]
    FrozenInLedger {
        /// The key's name.
        key: String,
        /// The chain id.
        chain: String,
        /// Why, as whoever froze it said.
        reason: String,
    },
    /// The height lies above what the last advance of the rollback anchor opened.
    #[error(
        "height {height} lies above {}, which the rollback anchor's last advance opened for key {key} on chain \
         {chain}: send the request again when it was advanced",
        .ceiling.unwrap_or_default()
    )]
    Ceiling {
        /// The key's name.
        key: String,
        /// The chain id.
        chain: String,
        /// The height asked for.
        height: i64,
        /// The ceiling; none before the first advance since the start.
        ceiling: Option<i64>,
    },
    /// After an end that nothing proves to be complete, the height may have been signed before.
    #[error(
        "height {height} is not above {floor}: hsmd did not end cleanly, and up to there key {key} may have signed on \
         chain {chain} what its journal does not show. It goes on when the chain is above; where the chain itself \
         waits, officers sign `hsmd state accept-tail`"
    )]
    Unproven {
        /// The key's name.
        key: String,
        /// The chain id.
        chain: String,
        /// The height asked for.
        height: i64,
        /// At or below it nothing is signed.
        floor: i64,
    },
    /// The rollback anchor has to be advanced first, and was not.
    #[error("the rollback anchor has to be advanced first, and was not: {0}")]
    Anchor(String),
    /// What a reply relies on could not be written down.
    #[error(
        "cannot write down the last entry, which tells a crash from a restored disk: {0}; see state.anchor.last_entry"
    )]
    LastEntry(std::io::Error),
    /// Officers accepted another tail than the one in doubt.
    #[error(
        "the officers accept a journal of {asked} entries, and {}: see `hsmd status`",
        .found.map_or_else(|| "none is in doubt".to_owned(), |found| format!("one of {found} is in doubt"))
    )]
    NotThatTail {
        /// The size of the tree that the officers named.
        asked: u64,
        /// The size of the one in doubt.
        found: Option<u64>,
    },
    /// A consensus key was to make checkpoints.
    #[error(
        "public key {public_key} is consensus key {names}, and a consensus key signs nothing but votes \
         and proposals: name another key in [checkpoint]"
    )]
    CheckpointKey {
        /// The key.
        public_key: PublicKey,
        /// The names it was made known under.
        names: String,
    },
    /// Something that only officers may decide, and there are none.
    #[error(
        "{kind} needs officers, and this deployment has none: they are named while the state is new, with \
         `hsmd state init --officers FILE --threshold M`; to have some, create new state so, make the keys \
         known there, and bring their marks over with `hsmd state export` and `hsmd state import`"
    )]
    NoOfficers {
        /// The kind of document.
        kind: &'static str,
    },
    /// A policy that officers signed is refused.
    #[error(transparent)]
    Policy(#[from] hsm_policy::grants::Refused),
    /// The policy does not permit it at this moment.
    #[error(transparent)]
    Denied(hsm_policy::grants::Denial),
    /// An operator froze the key.
    #[error("{by} froze the key {key}: it signs nothing until officers sign for `hsmd thaw`")]
    Frozen {
        /// The key's name.
        key: String,
        /// Who froze it.
        by: String,
    },
    /// The policy that permits it is not the one in force any more.
    #[error("a new policy was loaded in the meantime: send the request again")]
    PolicyChanged,
    /// What officers signed is refused.
    #[error(transparent)]
    Officers(#[from] hsm_policy::officers::Error),
    /// A statement of the officers that does not fit what it is used for.
    #[error("{0}")]
    Statement(String),
    /// The journal took no entry, or could not make it durable.
    #[error(transparent)]
    Journal(#[from] hsm_journal::Error),
    /// A fault of ours; nothing was reserved.
    #[error("a fault of the guard: {0}; if it lasts, restart hsmd, which replays the journal")]
    Internal(String),
}
