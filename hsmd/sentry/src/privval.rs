//! From a node's request to hsmd's and from hsmd's answer to the node's: pure conversions.

use hsm_proto::privval::message::Sum;
use hsm_proto::privval::{
    BlockId, Message, PingResponse, Proposal, PubKeyResponse, PublicKey, SignBytesResponse,
    SignedMsgType, SignedProposalResponse, SignedVoteResponse, Vote, public_key,
};
use hsm_proto::v1;
use prost::Message as _;

use crate::config::Line;
use crate::frame::LONGEST_WRITE;
use crate::refusal::Refusal;

/// Of both kinds of key, in bytes.
const SIGNATURE: usize = 64;

/// The longest extension that hsmd takes, in bytes. It would not read a request with a much longer one.
const LONGEST_EXTENSION: usize = 32 << 10;

/// The extension that is to be signed along with a vote; `None` asks for no extension signature. One that is
/// missing where the node expects it, or present where it does not, is fatal for the node
/// (`types.SignAndCheckVote`).
///
/// An extension in a place where there must be none is passed on all the same, so that hsmd refuses it; on a
/// line that knows none it shows that `cometbft` in our configuration is wrong, and is refused here.
pub(crate) fn extension(line: Line, vote: &Vote, skip: bool) -> Result<Option<&[u8]>, Refusal> {
    let asked = match line {
        Line::V0_34 | Line::V0_37 if vote.extension.is_empty() => false,
        Line::V0_34 | Line::V0_37 => {
            return Err(Refusal::new(
                v1::Reason::ExtensionNotAllowed,
                format!(
                    "the node sent a vote extension, which CometBFT {line} does not have: \
                     set the chain's cometbft in hsm-sentry's configuration to the node's line"
                ),
            ));
        }
        Line::V1_0 if skip => false,
        Line::V0_38 | Line::V0_39 | Line::V1_0 => {
            !vote.extension.is_empty()
                || (vote.r#type == SignedMsgType::Precommit as i32
                    && block(vote.block_id.as_ref()).is_some())
        }
    };
    let length = vote.extension.len();
    if asked && length > LONGEST_EXTENSION {
        return Err(Refusal::new(
            v1::Reason::MessageTooLong,
            format!("an extension of {length} bytes: hsmd takes at most {LONGEST_EXTENSION}"),
        ));
    }
    Ok(asked.then_some(vote.extension.as_slice()))
}

/// What hsmd is asked for a vote; an empty `ledger_id` wants no ledger.
pub(crate) fn vote_request(
    key: &str,
    chain_id: &str,
    ledger_id: &str,
    vote: &Vote,
    extension: Option<&[u8]>,
) -> v1::SignCometbftVoteRequest {
    v1::SignCometbftVoteRequest {
        key: key.to_owned(),
        chain_id: chain_id.to_owned(),
        // VoteType has CometBFT's numbers; hsmd refuses any other.
        r#type: vote.r#type,
        height: vote.height,
        round: vote.round,
        block_id: block(vote.block_id.as_ref()),
        timestamp: vote.timestamp,
        extension: extension.map(<[u8]>::to_vec),
        ledger_id: ledger_id.to_owned(),
    }
}

/// What hsmd is asked for a proposal. Its type is not passed on, hsmd knows it: another than a proposal's is
/// refused.
pub(crate) fn proposal_request(
    key: &str,
    chain_id: &str,
    ledger_id: &str,
    proposal: &Proposal,
) -> Result<v1::SignCometbftProposalRequest, Refusal> {
    if proposal.r#type != SignedMsgType::Proposal as i32 {
        return Err(Refusal::new(
            v1::Reason::InvalidField,
            format!("the proposal's type is {}, not 32", proposal.r#type),
        ));
    }
    Ok(v1::SignCometbftProposalRequest {
        key: key.to_owned(),
        chain_id: chain_id.to_owned(),
        height: proposal.height,
        round: proposal.round,
        pol_round: proposal.pol_round,
        block_id: block(proposal.block_id.as_ref()),
        timestamp: proposal.timestamp,
        ledger_id: ledger_id.to_owned(),
    })
}

/// What hsmd answered is what was asked. An extension signature that is missing or too many would end the
/// node, so a faulty answer becomes a refusal.
pub(crate) fn complete(
    signature: &[u8],
    extension_signature: &[u8],
    with_extension: bool,
    timestamp: Option<&prost_types::Timestamp>,
) -> Result<(), Refusal> {
    let extension = if with_extension { SIGNATURE } else { 0 };
    if signature.len() == SIGNATURE && extension_signature.len() == extension && timestamp.is_some()
    {
        return Ok(());
    }
    Err(Refusal::new(
        v1::Reason::Internal,
        format!(
            "hsmd's answer is faulty: a signature of {} bytes, an extension signature of {} where {extension} \
             were asked for, {} timestamp",
            signature.len(),
            extension_signature.len(),
            if timestamp.is_some() { "a" } else { "no" },
        ),
    ))
}

/// The node's vote with what hsmd signed. An extension that would make the answer longer than a node reads
/// is left out: the node takes only signatures and timestamp from the answer (`types.SignAndCheckVote`).
pub(crate) fn signed_vote(mut vote: Vote, signed: v1::SignCometbftVoteResponse) -> Message {
    vote.signature = signed.signature;
    vote.extension_signature = signed.extension_signature;
    vote.timestamp = signed.timestamp;
    let mut message = wrap(Sum::SignedVoteResponse(SignedVoteResponse {
        vote: Some(vote),
        error: None,
    }));
    if message.encoded_len() > LONGEST_WRITE
        && let Some(Sum::SignedVoteResponse(response)) = &mut message.sum
        && let Some(vote) = &mut response.vote
    {
        vote.extension.clear();
    }
    message
}

/// The node's proposal with what hsmd signed.
pub(crate) fn signed_proposal(
    mut proposal: Proposal,
    signed: v1::SignCometbftProposalResponse,
) -> Message {
    proposal.signature = signed.signature;
    proposal.timestamp = signed.timestamp;
    wrap(Sum::SignedProposalResponse(SignedProposalResponse {
        proposal: Some(proposal),
        error: None,
    }))
}

/// A public key as the node's line reads it.
pub(crate) fn public_key(
    line: Line,
    key: &v1::GetPublicKeyResponse,
) -> Result<PubKeyResponse, Refusal> {
    let bytes = key.public_key.clone();
    let (sum, name) = match key.algorithm() {
        v1::KeyAlgorithm::Ed25519 => (public_key::Sum::Ed25519(bytes), "ed25519"),
        v1::KeyAlgorithm::Secp256k1 => (public_key::Sum::Secp256k1(bytes), "secp256k1"),
        v1::KeyAlgorithm::P256 | v1::KeyAlgorithm::Unspecified => {
            return Err(Refusal::new(
                v1::Reason::Internal,
                format!(
                    "hsmd's key has an algorithm ({}) that hsm-sentry does not know: update hsm-sentry",
                    key.algorithm
                ),
            ));
        }
    };
    Ok(match line {
        Line::V1_0 => PubKeyResponse {
            pub_key_bytes: key.public_key.clone(),
            pub_key_type: name.to_owned(),
            ..PubKeyResponse::default()
        },
        Line::V0_34 | Line::V0_37 | Line::V0_38 | Line::V0_39 => PubKeyResponse {
            pub_key: Some(PublicKey { sum: Some(sum) }),
            ..PubKeyResponse::default()
        },
    })
}

/// A request's kind: decides the form of a refusal, and labels metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    PublicKey,
    Prevote,
    Precommit,
    /// A vote that is neither prevote nor precommit, or none at all.
    Vote,
    Proposal,
    Ping,
    /// SignBytes of 1.0 or Celestia's SignRawBytes: never answered with a signature.
    SignBytes,
    /// No request that any line knows.
    Unknown,
}

impl Kind {
    pub(crate) fn of(message: &Message) -> Self {
        match &message.sum {
            Some(Sum::PubKeyRequest(_)) => Self::PublicKey,
            Some(Sum::SignVoteRequest(request)) => match request.vote.as_ref().map(Vote::r#type) {
                Some(SignedMsgType::Prevote) => Self::Prevote,
                Some(SignedMsgType::Precommit) => Self::Precommit,
                _ => Self::Vote,
            },
            Some(Sum::SignProposalRequest(_)) => Self::Proposal,
            Some(Sum::PingRequest(_)) => Self::Ping,
            Some(Sum::SignBytesRequest(_)) => Self::SignBytes,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PublicKey => "public_key",
            Self::Prevote => "prevote",
            Self::Precommit => "precommit",
            Self::Vote => "vote",
            Self::Proposal => "proposal",
            Self::Ping => "ping",
            Self::SignBytes => "sign_bytes",
            Self::Unknown => "unknown",
        }
    }

    /// The answer that the node decodes as a RemoteSignerError. A message of unknown kind has none: an empty
    /// message tells the node at once that there is no answer, where silence would cost it 5 s and the
    /// connection.
    pub(crate) fn refused(self, refusal: &Refusal) -> Message {
        let error = Some(refusal.to_wire());
        match self {
            Self::PublicKey => wrap(Sum::PubKeyResponse(PubKeyResponse {
                error,
                ..PubKeyResponse::default()
            })),
            Self::Prevote | Self::Precommit | Self::Vote => {
                wrap(Sum::SignedVoteResponse(SignedVoteResponse {
                    vote: None,
                    error,
                }))
            }
            Self::Proposal => wrap(Sum::SignedProposalResponse(SignedProposalResponse {
                proposal: None,
                error,
            })),
            Self::SignBytes => wrap(Sum::SignBytesResponse(SignBytesResponse { error })),
            Self::Ping | Self::Unknown => Message::default(),
        }
    }
}

/// The answer to a ping.
pub(crate) fn pong() -> Message {
    wrap(Sum::PingResponse(PingResponse {}))
}

/// Puts an answer into its envelope.
pub(crate) fn wrap(sum: Sum) -> Message {
    Message { sum: Some(sum) }
}

/// The block that a message is about; nil is the one whose fields are all empty. One that is only partly
/// filled is passed on for hsmd to refuse.
fn block(id: Option<&BlockId>) -> Option<v1::BlockId> {
    let id = id?;
    let (total, hash) = match &id.part_set_header {
        Some(header) => (header.total, header.hash.as_slice()),
        None => (0, &[][..]),
    };
    if id.hash.is_empty() && total == 0 && hash.is_empty() {
        return None;
    }
    Some(v1::BlockId {
        hash: id.hash.clone(),
        part_set_total: total,
        part_set_hash: hash.to_vec(),
    })
}

#[cfg(test)]
mod tests;
