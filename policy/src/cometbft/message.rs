//! A vote or a proposal, in checked types.

use super::sign_bytes::{CanonicalExtension, CanonicalProposal, CanonicalVote};
use super::{
    BlockId, ChainId, Error, Height, Kind, Kinds, Position, Round, Step, Timestamp, VoteType,
};

/// What a validator asks to have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A prevote or a precommit, perhaps with its extension.
    Vote(Vote),
    /// A proposal.
    Proposal(Proposal),
}

impl Message {
    /// The chain it belongs to.
    pub fn chain_id(&self) -> &ChainId {
        match self {
            Message::Vote(vote) => &vote.chain_id,
            Message::Proposal(proposal) => &proposal.chain_id,
        }
    }

    /// Where in the chain it belongs.
    pub fn position(&self) -> Position {
        match self {
            Message::Vote(Vote {
                height,
                round,
                vote_type,
                ..
            }) => Position {
                height: *height,
                round: *round,
                step: Step::from(*vote_type),
            },
            Message::Proposal(Proposal { height, round, .. }) => Position {
                height: *height,
                round: *round,
                step: Step::Proposal,
            },
        }
    }

    /// Its timestamp, as the caller sent it.
    pub fn timestamp(&self) -> Timestamp {
        match self {
            Message::Vote(vote) => vote.timestamp,
            Message::Proposal(proposal) => proposal.timestamp,
        }
    }

    /// The block that it is about; None for a nil vote.
    pub fn block_id(&self) -> Option<&BlockId> {
        match self {
            Message::Vote(vote) => vote.block_id.as_ref(),
            Message::Proposal(proposal) => Some(&proposal.block_id),
        }
    }

    /// What it is, its extension aside.
    pub fn kind(&self) -> Kind {
        match self.position().step {
            Step::Proposal => Kind::Proposal,
            Step::Prevote => Kind::Prevote,
            Step::Precommit => Kind::Precommit,
        }
    }

    /// Everything that a grant must allow for it: its kind, and [`Kind::Extension`] where it carries one.
    pub fn kinds(&self) -> Kinds {
        [Some(self.kind()), self.extension().map(|_| Kind::Extension)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The extension to sign with it, without any framing; may be empty.
    pub fn extension(&self) -> Option<&[u8]> {
        match self {
            Message::Vote(vote) => vote.extension.as_deref(),
            Message::Proposal(_) => None,
        }
    }

    /// The canonical bytes that are signed for it, with their varint length before them: CometBFT's
    /// `VoteSignBytes` and `ProposalSignBytes`.
    pub fn sign_bytes(&self) -> Vec<u8> {
        self.sign_bytes_at(self.timestamp())
    }

    /// The [`sign_bytes`](Self::sign_bytes) of the same message with another timestamp.
    pub fn sign_bytes_at(&self, timestamp: Timestamp) -> Vec<u8> {
        match self {
            Message::Vote(vote) => CanonicalVote {
                vote_type: vote.vote_type as u64,
                height: vote.height.get(),
                round: vote.round.get().into(),
                block_id: vote.block_id.as_ref(),
                timestamp,
                chain_id: vote.chain_id.as_str(),
            }
            .encode(),
            Message::Proposal(proposal) => CanonicalProposal {
                height: proposal.height.get(),
                round: proposal.round.get().into(),
                pol_round: proposal.pol_round.map_or(-1, Round::get).into(),
                block_id: &proposal.block_id,
                timestamp,
                chain_id: proposal.chain_id.as_str(),
            }
            .encode(),
        }
    }

    /// The canonical bytes that are signed for its extension, with their varint length before them:
    /// CometBFT's `VoteExtensionSignBytes`. None where it carries none.
    pub fn extension_sign_bytes(&self) -> Option<Vec<u8>> {
        let Position { height, round, .. } = self.position();
        let extension = self.extension()?;
        let canonical = CanonicalExtension {
            extension,
            height: height.get(),
            round: round.get().into(),
            chain_id: self.chain_id().as_str(),
        };
        Some(canonical.encode())
    }
}

/// A prevote or a precommit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    chain_id: ChainId,
    vote_type: VoteType,
    height: Height,
    round: Round,
    block_id: Option<BlockId>,
    timestamp: Timestamp,
    extension: Option<Vec<u8>>,
}

impl Vote {
    /// A vote for a block, or for nil where `block_id` is None. With an `extension`, also an empty one,
    /// the extension is to be signed too: [`Error::ExtensionNotAllowed`] unless the vote is a precommit
    /// for a block.
    pub fn new(
        chain_id: ChainId,
        vote_type: VoteType,
        height: Height,
        round: Round,
        block_id: Option<BlockId>,
        timestamp: Timestamp,
        extension: Option<Vec<u8>>,
    ) -> Result<Self, Error> {
        if extension.is_some() {
            match (vote_type, &block_id) {
                (VoteType::Prevote, _) => {
                    return Err(Error::ExtensionNotAllowed { vote: "prevote" });
                }
                (VoteType::Precommit, None) => {
                    return Err(Error::ExtensionNotAllowed {
                        vote: "nil precommit",
                    });
                }
                (VoteType::Precommit, Some(_)) => {}
            }
        }
        Ok(Vote {
            chain_id,
            vote_type,
            height,
            round,
            block_id,
            timestamp,
            extension,
        })
    }
}

impl From<Vote> for Message {
    fn from(vote: Vote) -> Self {
        Message::Vote(vote)
    }
}

/// A proposal. It always names a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    chain_id: ChainId,
    height: Height,
    round: Round,
    /// None is -1 on the wire.
    pol_round: Option<Round>,
    block_id: BlockId,
    timestamp: Timestamp,
}

impl Proposal {
    /// `pol_round` is the round of the proposal's proof of lock, before `round`, or -1 for none:
    /// [`Error::Field`] else.
    pub fn new(
        chain_id: ChainId,
        height: Height,
        round: Round,
        pol_round: i32,
        block_id: BlockId,
        timestamp: Timestamp,
    ) -> Result<Self, Error> {
        if !(-1..round.get()).contains(&pol_round) {
            return Err(Error::field(
                "pol_round",
                pol_round,
                "-1, or a round before the proposal's",
            ));
        }
        let pol_round = Round::new(pol_round).ok();
        Ok(Proposal {
            chain_id,
            height,
            round,
            pol_round,
            block_id,
            timestamp,
        })
    }
}

impl From<Proposal> for Message {
    fn from(proposal: Proposal) -> Self {
        Message::Proposal(proposal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> BlockId {
        BlockId::new(&[1; 32], 1, &[2; 32]).unwrap()
    }

    fn vote(
        vote_type: VoteType,
        block_id: Option<BlockId>,
        extension: Option<&[u8]>,
    ) -> Result<Message, Error> {
        Vote::new(
            ChainId::new("chain").unwrap(),
            vote_type,
            Height::new(7).unwrap(),
            Round::new(2).unwrap(),
            block_id,
            Timestamp::new(0, 0).unwrap(),
            extension.map(<[u8]>::to_vec),
        )
        .map(Message::from)
    }

    fn proposal(round: i32, pol_round: i32) -> Result<Message, Error> {
        Proposal::new(
            ChainId::new("chain").unwrap(),
            Height::new(7).unwrap(),
            Round::new(round).unwrap(),
            pol_round,
            block(),
            Timestamp::new(0, 0).unwrap(),
        )
        .map(Message::from)
    }

    #[test]
    fn an_extension_is_refused_on_everything_but_a_precommit_for_a_block() {
        let refused = |vote| Err(Error::ExtensionNotAllowed { vote });
        for extension in [&b""[..], b"extension"] {
            let extension = Some(extension);
            assert_eq!(
                vote(VoteType::Prevote, Some(block()), extension),
                refused("prevote")
            );
            assert_eq!(vote(VoteType::Prevote, None, extension), refused("prevote"));
            assert_eq!(
                vote(VoteType::Precommit, None, extension),
                refused("nil precommit")
            );
            assert!(vote(VoteType::Precommit, Some(block()), extension).is_ok());
        }
    }

    #[test]
    fn a_proof_of_lock_round_lies_before_the_round_or_is_minus_one() {
        for (round, pol_round) in [(0, -1), (1, -1), (1, 0), (5, 4), (i32::MAX, i32::MAX - 1)] {
            assert!(proposal(round, pol_round).is_ok(), "{round} {pol_round}");
        }
        for (round, pol_round) in [
            (0, 0),
            (0, -2),
            (5, 5),
            (5, 6),
            (0, i32::MIN),
            (1, i32::MAX),
        ] {
            assert!(
                matches!(
                    proposal(round, pol_round),
                    Err(Error::Field {
                        field: "pol_round",
                        ..
                    })
                ),
                "{round} {pol_round}"
            );
        }
    }

    #[test]
    fn the_kinds_of_a_message_include_its_extension() {
        let kinds = |message: Message| message.kinds().iter().collect::<Vec<_>>();
        let precommit = |extension| vote(VoteType::Precommit, Some(block()), extension).unwrap();
        assert_eq!(kinds(precommit(None)), [Kind::Precommit]);
        assert_eq!(
            kinds(precommit(Some(b""))),
            [Kind::Precommit, Kind::Extension]
        );
        assert_eq!(
            kinds(vote(VoteType::Prevote, None, None).unwrap()),
            [Kind::Prevote]
        );
        assert_eq!(kinds(proposal(0, -1).unwrap()), [Kind::Proposal]);
    }

    #[test]
    fn extension_sign_bytes_exist_exactly_where_an_extension_does() {
        let precommit = |extension| vote(VoteType::Precommit, Some(block()), extension).unwrap();
        assert_eq!(precommit(None).extension_sign_bytes(), None);
        assert!(precommit(Some(b"")).extension_sign_bytes().is_some());
        assert_eq!(proposal(0, -1).unwrap().extension_sign_bytes(), None);
        assert_eq!(
            precommit(None).sign_bytes(),
            precommit(Some(b"x")).sign_bytes()
        );
    }
}
