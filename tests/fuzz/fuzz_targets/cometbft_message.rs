//! The fields of a vote or a proposal, as a caller can send them: what is accepted encodes exactly as prost
//! encodes CometBFT's own canonical messages.

#![no_main]

use hsm_policy::cometbft::{
    BlockId, ChainId, Error, Height, Message, Proposal, Round, Timestamp, Vote, VoteType,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use tendermint_proto::google::protobuf::Timestamp as GoogleTimestamp;
use tendermint_proto::v0_38::types::{
    CanonicalBlockId, CanonicalPartSetHeader, CanonicalProposal, CanonicalVote,
    CanonicalVoteExtension,
};

#[derive(Arbitrary, Debug)]
struct Sent {
    proposal: bool,
    chain_id: String,
    vote_type: i32,
    height: i64,
    round: i32,
    pol_round: i32,
    block_id: Option<SentBlockId>,
    seconds: i64,
    nanos: i32,
    extension: Option<Vec<u8>>,
}

#[derive(Arbitrary, Debug)]
struct SentBlockId {
    hash: SentHash,
    part_set_total: u32,
    part_set_hash: SentHash,
}

/// Mostly of the right length.
#[derive(Arbitrary, Debug)]
enum SentHash {
    Whole([u8; 32]),
    Any(Vec<u8>),
}

impl SentHash {
    fn bytes(&self) -> &[u8] {
        match self {
            SentHash::Whole(bytes) => bytes,
            SentHash::Any(bytes) => bytes,
        }
    }
}

fn checked(sent: &Sent) -> Result<Message, Error> {
    let chain_id = ChainId::new(&sent.chain_id)?;
    let height = Height::new(sent.height)?;
    let round = Round::new(sent.round)?;
    let timestamp = Timestamp::new(sent.seconds, sent.nanos)?;
    let block_id = match &sent.block_id {
        Some(id) => {
            let (hash, part_set_hash) = (id.hash.bytes(), id.part_set_hash.bytes());
            Some(BlockId::new(hash, id.part_set_total, part_set_hash)?)
        }
        None => None,
    };
    match (sent.proposal, block_id) {
        (true, Some(block_id)) => {
            Proposal::new(chain_id, height, round, sent.pol_round, block_id, timestamp)
                .map(Message::from)
        }
        (_, block_id) => {
            let vote_type = VoteType::try_from(sent.vote_type)?;
            let extension = sent.extension.clone();
            Vote::new(
                chain_id, vote_type, height, round, block_id, timestamp, extension,
            )
            .map(Message::from)
        }
    }
}

fn expected(sent: &Sent, message: &Message) -> Vec<u8> {
    let block_id = sent.block_id.as_ref().map(|id| CanonicalBlockId {
        hash: id.hash.bytes().to_vec(),
        part_set_header: Some(CanonicalPartSetHeader {
            total: id.part_set_total,
            hash: id.part_set_hash.bytes().to_vec(),
        }),
    });
    let timestamp = Some(GoogleTimestamp {
        seconds: sent.seconds,
        nanos: sent.nanos,
    });
    match message {
        Message::Vote(_) => CanonicalVote {
            r#type: sent.vote_type,
            height: sent.height,
            round: sent.round.into(),
            block_id,
            timestamp,
            chain_id: sent.chain_id.clone(),
        }
        .encode_length_delimited_to_vec(),
        Message::Proposal(_) => CanonicalProposal {
            r#type: 32,
            height: sent.height,
            round: sent.round.into(),
            pol_round: sent.pol_round.into(),
            block_id,
            timestamp,
            chain_id: sent.chain_id.clone(),
        }
        .encode_length_delimited_to_vec(),
    }
}

fuzz_target!(|sent: Sent| {
    let message = match checked(&sent) {
        Ok(message) => message,
        Err(error) => {
            // However long the field was, the text about it is not.
            assert!(error.to_string().len() < 1000);
            return;
        }
    };
    assert_eq!(message.sign_bytes(), expected(&sent, &message));
    let extension = match &message {
        Message::Vote(_) => sent.extension.clone(),
        Message::Proposal(_) => None,
    };
    let extension = extension.map(|extension| CanonicalVoteExtension {
        extension,
        height: sent.height,
        round: sent.round.into(),
        chain_id: sent.chain_id.clone(),
    });
    assert_eq!(
        message.extension_sign_bytes(),
        extension.map(|canonical| canonical.encode_length_delimited_to_vec())
    );
});
