//! Canonical sign bytes by tendermint-proto, and the verification of signatures: an oracle that shares no
//! code with hsmd. Sources: CometBFT `types/canonical.go`, `types/vote.go`, `types/proposal.go`.

use ed25519_dalek::{Signature, VerifyingKey};
use prost::Message;
use tendermint_proto::v0_38::types::{
    BlockId, CanonicalBlockId, CanonicalPartSetHeader, CanonicalProposal, CanonicalVote,
    CanonicalVoteExtension, Proposal, SignedMsgType, Vote,
};

/// What a validator signs for a prevote or precommit, with its length prefix.
#[must_use]
pub fn vote(chain_id: &str, vote: &Vote) -> Vec<u8> {
    CanonicalVote {
        r#type: vote.r#type,
        height: vote.height,
        round: i64::from(vote.round),
        block_id: vote.block_id.as_ref().and_then(canonical_block_id),
        timestamp: vote.timestamp,
        chain_id: chain_id.to_owned(),
    }
    .encode_length_delimited_to_vec()
}

/// What a validator signs for the extension of a precommit, with its length prefix.
#[must_use]
pub fn extension(chain_id: &str, height: i64, round: i32, extension: &[u8]) -> Vec<u8> {
    CanonicalVoteExtension {
        extension: extension.to_vec(),
        height,
        round: i64::from(round),
        chain_id: chain_id.to_owned(),
    }
    .encode_length_delimited_to_vec()
}

/// What a validator signs for a proposal, with its length prefix.
#[must_use]
pub fn proposal(chain_id: &str, proposal: &Proposal) -> Vec<u8> {
    CanonicalProposal {
        r#type: SignedMsgType::Proposal.into(),
        height: proposal.height,
        round: i64::from(proposal.round),
        pol_round: i64::from(proposal.pol_round),
        block_id: proposal.block_id.as_ref().and_then(canonical_block_id),
        timestamp: proposal.timestamp,
        chain_id: chain_id.to_owned(),
    }
    .encode_length_delimited_to_vec()
}

/// Whether an Ed25519 signature is good, judged strictly (RFC 8032, no small-order keys).
#[must_use]
pub fn verifies(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = public_key
        .try_into()
        .ok()
        .and_then(|bytes| VerifyingKey::from_bytes(bytes).ok());
    let signature = Signature::from_slice(signature).ok();
    matches!((key, signature), (Some(key), Some(signature)) if key.verify_strict(message, &signature).is_ok())
}

/// A nil block is left out, as CometBFT's `CanonicalizeBlockID` does.
fn canonical_block_id(id: &BlockId) -> Option<CanonicalBlockId> {
    let header = id.part_set_header.clone().unwrap_or_default();
    if id.hash.is_empty() && header.total == 0 && header.hash.is_empty() {
        return None;
    }
    Some(CanonicalBlockId {
        hash: id.hash.clone(),
        part_set_header: Some(CanonicalPartSetHeader {
            total: header.total,
            hash: header.hash,
        }),
    })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    #[test]
    fn a_signature_verifies_only_over_its_own_bytes_and_key() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let public = key.verifying_key().to_bytes();
        let message = extension("chain", 3, 0, b"extension");
        let signature = key.sign(&message).to_bytes();
        assert!(verifies(&public, &message, &signature));
        assert!(!verifies(
            &public,
            &extension("chain", 3, 1, b"extension"),
            &signature
        ));
        assert!(!verifies(&[0; 32], &message, &signature));
        assert!(!verifies(&public, &message, &signature[..63]));
    }
}
