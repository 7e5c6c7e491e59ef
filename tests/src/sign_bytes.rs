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

/// Whether an ECDSA signature on secp256k1 is good as CometBFT judges it (`crypto/secp256k1`): 64 bytes, over
/// SHA-256 of the message, and s not above half the order.
#[must_use]
pub fn verifies_secp256k1(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    use k256::ecdsa::signature::Verifier as _;
    let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(public_key).ok();
    let parsed = k256::ecdsa::Signature::from_slice(signature).ok();
    let is_low = signature.get(32..).is_some_and(|s| *s <= HALF_ORDER[..]);
    matches!((key, parsed), (Some(key), Some(parsed)) if is_low && key.verify(message, &parsed).is_ok())
}

/// Half the order of secp256k1, big endian (SEC 2 section 2.4.1).
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

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
