//! Our sign bytes against the encoding that prost makes of CometBFT's own .proto files.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use tendermint_proto::{google, v0_34, v0_37, v0_38};

use super::{BlockId, ChainId, Height, Message, Proposal, Round, Timestamp, Vote, VoteType};

fn chain_id() -> impl Strategy<Value = ChainId> {
    "[ -~]{1,50}|[а-я]{1,25}".prop_map(|text| ChainId::new(&text).unwrap())
}

fn height() -> impl Strategy<Value = Height> {
    prop_oneof![Just(1), Just(i64::MAX), 1..=i64::MAX]
        .prop_map(|height| Height::new(height).unwrap())
}

fn round() -> impl Strategy<Value = Round> {
    prop_oneof![Just(0), Just(1), Just(i32::MAX), 0..=i32::MAX]
        .prop_map(|round| Round::new(round).unwrap())
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![
        Just(0),
        Just(-62_135_596_800),
        Just(-1),
        -62_135_596_800..=253_402_300_799_i64
    ];
    let nanos = prop_oneof![Just(0), Just(999_999_999), 0..1_000_000_000];
    (seconds, nanos).prop_map(|(seconds, nanos)| Timestamp::new(seconds, nanos).unwrap())
}

fn block_id() -> impl Strategy<Value = BlockId> {
    let total = prop_oneof![Just(1), Just(u32::MAX), 1..=u32::MAX];
    (any::<[u8; 32]>(), total, any::<[u8; 32]>())
        .prop_map(|(hash, total, parts)| BlockId::new(&hash, total, &parts).unwrap())
}

fn extension() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(vec![]),
        vec(any::<u8>(), 1..300),
        Just(vec![7; 20_000])
    ]
}

fn google_timestamp(timestamp: Timestamp) -> Option<google::protobuf::Timestamp> {
    Some(google::protobuf::Timestamp {
        seconds: timestamp.seconds(),
        nanos: timestamp.nanos(),
    })
}

/// The oracle's CanonicalBlockId in one of its versions.
macro_rules! canonical_block_id {
    ($version:ident, $id:expr) => {
        $version::types::CanonicalBlockId {
            hash: $id.hash().to_vec(),
            part_set_header: Some($version::types::CanonicalPartSetHeader {
                total: $id.part_set_total(),
                hash: $id.part_set_hash().to_vec(),
            }),
        }
    };
}

proptest! {
    #[test]
    fn votes_encode_as_prost_encodes_canonical_votes(
        chain_id in chain_id(),
        precommit: bool,
        height in height(),
        round in round(),
        block_id in option::of(block_id()),
        timestamp in timestamp(),
        other_timestamp in timestamp(),
    ) {
        let vote_type = if precommit { VoteType::Precommit } else { VoteType::Prevote };
        let vote = Vote::new(
            chain_id.clone(), vote_type, height, round, block_id.clone(), timestamp, None,
        );
        let message = Message::from(vote.unwrap());
        macro_rules! expected {
            ($version:ident, $timestamp:expr) => {
                $version::types::CanonicalVote {
                    r#type: vote_type as i32,
                    height: height.get(),
                    round: round.get().into(),
                    block_id: block_id.as_ref().map(|id| canonical_block_id!($version, id)),
                    timestamp: google_timestamp($timestamp),
                    chain_id: chain_id.as_str().to_owned(),
                }
                .encode_length_delimited_to_vec()
            };
        }
        prop_assert_eq!(message.sign_bytes(), expected!(v0_34, timestamp));
        prop_assert_eq!(message.sign_bytes(), expected!(v0_37, timestamp));
        prop_assert_eq!(message.sign_bytes(), expected!(v0_38, timestamp));
        prop_assert_eq!(message.sign_bytes_at(other_timestamp), expected!(v0_38, other_timestamp));
    }

    #[test]
    fn proposals_encode_as_prost_encodes_canonical_proposals(
        chain_id in chain_id(),
        height in height(),
        (round, pol_round) in round().prop_flat_map(|round| (Just(round), -1..round.get().max(0))),
        block_id in block_id(),
        timestamp in timestamp(),
        other_timestamp in timestamp(),
    ) {
        let proposal = Proposal::new(
            chain_id.clone(), height, round, pol_round, block_id.clone(), timestamp,
        );
        let message = Message::from(proposal.unwrap());
        macro_rules! expected {
            ($version:ident, $timestamp:expr) => {
                $version::types::CanonicalProposal {
                    r#type: $version::types::SignedMsgType::Proposal as i32,
                    height: height.get(),
                    round: round.get().into(),
                    pol_round: pol_round.into(),
                    block_id: Some(canonical_block_id!($version, block_id)),
                    timestamp: google_timestamp($timestamp),
                    chain_id: chain_id.as_str().to_owned(),
                }
                .encode_length_delimited_to_vec()
            };
        }
        prop_assert_eq!(message.sign_bytes(), expected!(v0_34, timestamp));
        prop_assert_eq!(message.sign_bytes(), expected!(v0_37, timestamp));
        prop_assert_eq!(message.sign_bytes(), expected!(v0_38, timestamp));
        prop_assert_eq!(message.sign_bytes_at(other_timestamp), expected!(v0_38, other_timestamp));
    }

    #[test]
    fn extensions_encode_as_prost_encodes_canonical_vote_extensions(
        chain_id in chain_id(),
        height in height(),
        round in round(),
        block_id in block_id(),
        timestamp in timestamp(),
        extension in extension(),
    ) {
        let vote = Vote::new(
            chain_id.clone(),
            VoteType::Precommit,
            height,
            round,
            Some(block_id),
            timestamp,
            Some(extension.clone()),
        );
        let expected = v0_38::types::CanonicalVoteExtension {
            extension,
            height: height.get(),
            round: round.get().into(),
            chain_id: chain_id.as_str().to_owned(),
        };
        prop_assert_eq!(
            Message::from(vote.unwrap()).extension_sign_bytes(),
            Some(expected.encode_length_delimited_to_vec())
        );
    }
}
