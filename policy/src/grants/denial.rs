//! Why the policy does not permit a message.

use std::time::Duration;

use super::{KeyName, Rate};
use crate::cometbft::{ChainId, Kind};
use crate::identity::Caller;

/// Why the policy does not permit a message. It tells the caller of nothing that no grant names it for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// No grant names caller and key; whether there is such a key is not said.
    #[error(
        "the policy grants {caller} nothing with a key named {key}. If it should, add a [[grant]] with \
         this caller and key"
    )]
    KeyNotGranted {
        /// Who asked.
        caller: Caller,
        /// The key's name, as asked for.
        key: KeyName,
    },
    /// No grant names caller, key and chain.
    #[error(
        "the policy grants {caller} nothing with the key {key} on the chain {chain_id}. If it should, \
         add a [[grant]] with this chain_id"
    )]
    ChainNotGranted {
        /// Who asked.
        caller: Caller,
        /// The key's name.
        key: KeyName,
        /// The message's chain.
        chain_id: ChainId,
    },
    /// The grant does not name the kind.
    #[error(
        "the policy does not grant {caller} the kind {kind} with the key {key} on the chain {chain_id}. \
         If it should, add it to the grant's kinds"
    )]
    KindNotGranted {
        /// Who asked.
        caller: Caller,
        /// The key's name.
        key: KeyName,
        /// The message's chain.
        chain_id: ChainId,
        /// The first kind that is missing.
        kind: Kind,
    },
    /// The policy freezes the key.
    #[error("the policy freezes the key {key}: while its [[freeze]] stands, the key signs nothing")]
    Frozen {
        /// The key's name.
        key: KeyName,
        /// The line of the document where the freeze begins, from 1.
        line: usize,
    },
    /// The round lies above the grant's limit.
    #[error(
        "round {round} lies above the grant's max_round {max_round}. If the chain really is there, raise \
         the limit"
    )]
    RoundLimit {
        /// Of the message.
        round: u32,
        /// Of the grant.
        max_round: u32,
    },
    /// The height lies above the grant's limit.
    #[error(
        "height {height} lies above the grant's max_height {max_height}: there the chain was to halt. If it goes \
         on, raise the limit"
    )]
    HeightLimit {
        /// Of the message.
        height: u64,
        /// Of the grant.
        max_height: u64,
    },
    /// The message's timestamp lies too far from our clock.
    #[error(
        "the message's timestamp lies {} s from the signer's clock, and the grant's \
         max_clock_skew_seconds is {}. Compare the clocks of node and signer",
        .skew.as_secs_f64(), .max.as_secs()
    )]
    ClockSkew {
        /// How far, either way.
        skew: Duration,
        /// The grant's limit.
        max: Duration,
    },
    /// More requests than the grant allows.
    #[error(
        "the caller sends more than the grant's max_requests_per_second {rate} allow in the long run. Wait, and \
         send the request again"
    )]
    RequestRate {
        /// The grant's limit.
        rate: Rate,
    },
    /// The mark would rise faster than the grant allows.
    #[error(
        "{heights} heights at once are more than the grant's max_heights_per_second {rate} leave at this moment. \
         If the chain really is there, wait: what was used grows back"
    )]
    HeightRate {
        /// How far the message's height lies above the mark.
        heights: u64,
        /// The grant's limit.
        rate: Rate,
    },
}
