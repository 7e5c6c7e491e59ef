//! The second stage: from the wire's fields to a message of the chain.

use hsm_policy::cometbft::{
    BlockId, ChainId, Height, Message, Proposal, Round, Timestamp, Vote, VoteType,
};
use hsm_policy::identity::Caller;
use hsm_proto::v1 as wire;
use hsm_proto::v1::Reason;

use super::refusal::Refusal;

/// The longest vote extension, in bytes: its sign bytes stand in one entry of the journal.
const LONGEST_EXTENSION: usize = 32 * 1024;

/// A well-formed message, who wants it signed, and with which key.
#[derive(Debug)]
pub struct Request {
    pub(super) caller: Caller,
    pub(super) key: String,
    pub(super) message: Message,
    /// The ledger that the caller wants the mark shared through; empty where it does not care.
    pub(super) ledger_id: String,
}

/// What a sentry may send.
#[derive(Clone, Debug)]
pub enum Wire {
    /// A prevote or precommit.
    Vote(wire::SignCometbftVoteRequest),
    /// A proposal.
    Proposal(wire::SignCometbftProposalRequest),
}

impl Wire {
    /// The key's name as sent, unchecked.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Vote(vote) => &vote.key,
            Self::Proposal(proposal) => &proposal.key,
        }
    }

    /// The chain id as sent, unchecked.
    #[must_use]
    pub fn chain_id(&self) -> &str {
        match self {
            Self::Vote(vote) => &vote.chain_id,
            Self::Proposal(proposal) => &proposal.chain_id,
        }
    }

    /// The ledger's id as sent, unchecked.
    #[must_use]
    pub fn ledger_id(&self) -> &str {
        match self {
            Self::Vote(vote) => &vote.ledger_id,
            Self::Proposal(proposal) => &proposal.ledger_id,
        }
    }

    /// The position as sent, unchecked.
    #[must_use]
    pub fn position(&self) -> wire::Position {
        let (height, round, step) = match self {
            Self::Vote(vote) => {
                let step = match vote.r#type() {
                    wire::VoteType::Prevote => wire::Step::Prevote,
                    wire::VoteType::Precommit => wire::Step::Precommit,
                    wire::VoteType::Unspecified => wire::Step::Unspecified,
                };
                (vote.height, vote.round, step)
            }
            Self::Proposal(proposal) => (proposal.height, proposal.round, wire::Step::Proposal),
        };
        wire::Position {
            height,
            round,
            step: step.into(),
        }
    }

    /// "proposal", "prevote", "precommit", or "unknown".
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.position().step() {
            wire::Step::Proposal => "proposal",
            wire::Step::Prevote => "prevote",
            wire::Step::Precommit => "precommit",
            wire::Step::Unspecified => "unknown",
        }
    }
}

impl Request {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// A refusal that names the first field at fault.
    pub fn new(caller: Caller, sent: Wire) -> Result<Self, Refusal> {
        let ledger_id = sent.ledger_id().to_owned();
        let (key, message) = match sent {
            Wire::Vote(vote) => (vote.key.clone(), Message::Vote(checked_vote(vote)?)),
            Wire::Proposal(proposal) => (
                proposal.key.clone(),
                Message::Proposal(checked_proposal(proposal)?),
            ),
        };
        Ok(Self {
            caller,
            key,
            message,
            ledger_id,
        })
    }
}

fn checked_vote(vote: wire::SignCometbftVoteRequest) -> Result<Vote, Refusal> {
    let length = vote.extension.as_ref().map_or(0, Vec::len);
    if length > LONGEST_EXTENSION {
        return Err(Refusal::new(
            Reason::MessageTooLong,
            format!("an extension of {length} bytes: hsmd takes at most {LONGEST_EXTENSION}"),
        )
        .with("length", length)
        .with("limit", LONGEST_EXTENSION));
    }
    let vote_type = match vote.r#type() {
        wire::VoteType::Prevote => VoteType::Prevote,
        wire::VoteType::Precommit => VoteType::Precommit,
        wire::VoteType::Unspecified => {
            return Err(invalid("type", vote.r#type, "1 (prevote) or 2 (precommit)"));
        }
    };
    Ok(Vote::new(
        ChainId::new(&vote.chain_id)?,
        vote_type,
        Height::new(vote.height)?,
        Round::new(vote.round)?,
        vote.block_id.map(checked_block_id).transpose()?,
        checked_timestamp(vote.timestamp)?,
        vote.extension,
    )?)
}

fn checked_proposal(proposal: wire::SignCometbftProposalRequest) -> Result<Proposal, Refusal> {
    let block_id = proposal
        .block_id
        .ok_or_else(|| invalid("block_id", "absent", "a block: a proposal always names one"))?;
    Ok(Proposal::new(
        ChainId::new(&proposal.chain_id)?,
        Height::new(proposal.height)?,
        Round::new(proposal.round)?,
        proposal.pol_round,
        checked_block_id(block_id)?,
        checked_timestamp(proposal.timestamp)?,
    )?)
}

fn checked_block_id(id: wire::BlockId) -> Result<BlockId, Refusal> {
    Ok(BlockId::new(
        &id.hash,
        id.part_set_total,
        &id.part_set_hash,
    )?)
}

fn checked_timestamp(timestamp: Option<prost_types::Timestamp>) -> Result<Timestamp, Refusal> {
    let timestamp =
        timestamp.ok_or_else(|| invalid("timestamp", "absent", "the message's timestamp"))?;
    Ok(Timestamp::new(timestamp.seconds, timestamp.nanos)?)
}

fn invalid(field: &'static str, value: impl ToString, rule: &'static str) -> Refusal {
    let value = value.to_string();
    hsm_policy::cometbft::Error::Field { field, value, rule }.into()
}
