//! What a network committed: who signed each block, whether the signatures hold, and who was missing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tendermint_proto::v0_38::types::{BlockIdFlag, Commit, CommitSig, SignedMsgType, Vote};

use crate::cometbft::{Network, address_of};
use crate::sign_bytes;

/// A stretch of time in which a validator could not sign.
#[derive(Clone, Debug)]
pub struct Outage {
    /// The validators concerned, by index.
    pub validators: Vec<usize>,
    /// The heights at which they may be missing: from the one whose commit was being gathered at the
    /// kill, to the one in progress when all was connected again.
    pub heights: RangeInclusive<i64>,
}

/// The commits of heights `1..=last`, from the first node.
///
/// # Panics
///
/// If the node does not give one.
#[must_use]
pub fn fetch(network: &Network, last: i64) -> Vec<Commit> {
    (1..=last)
        .map(|height| {
            let mut answer = network
                .query(0, &format!("commit?height={height}"))
                .expect("a commit");
            serde_json::from_value(answer["signed_header"]["commit"].take()).expect("a commit")
        })
        .collect()
}

/// What the signatures of some commits say.
pub struct Verified {
    /// For each validator, the heights at which it did not sign the block.
    pub missed: Vec<BTreeSet<i64>>,
    /// Every verified signature: whose, and over which sign bytes.
    pub signed: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Verifies every signature of the commits.
///
/// # Panics
///
/// If a signature does not verify, or is none of a validator's.
#[must_use]
pub fn verify(chain_id: &str, public_keys: &[Vec<u8>], commits: &[Commit]) -> Verified {
    let mut missed = vec![BTreeSet::new(); public_keys.len()];
    let mut signed = Vec::new();
    for commit in commits {
        assert_eq!(
            commit.signatures.len(),
            public_keys.len(),
            "height {}",
            commit.height
        );
        let by_address: BTreeMap<&[u8], &CommitSig> = commit
            .signatures
            .iter()
            .map(|signature| (signature.validator_address.as_slice(), signature))
            .collect();
        for (public_key, missed) in public_keys.iter().zip(&mut missed) {
            let signature = by_address.get(address_of(public_key).as_slice());
            let Some(signature) = signature.filter(|signature| !is_absent(signature)) else {
                missed.insert(commit.height);
                continue;
            };
            let vote = precommit(commit, signature);
            if vote.block_id.is_none() {
                missed.insert(commit.height);
            }
            let bytes = sign_bytes::vote(chain_id, &vote);
            assert!(
                sign_bytes::verifies(public_key, &bytes, &signature.signature),
                "a signature in the commit of height {} does not verify",
                commit.height
            );
            signed.push((public_key.clone(), bytes));
        }
    }
    Verified { missed, signed }
}

/// Checks that no validator was missing outside its outages.
///
/// # Panics
///
/// If one was; the message says which, and where.
pub fn assert_only_missing_in_outages(
    missed: &[BTreeSet<i64>],
    up_to_start: i64,
    outages: &[Outage],
) {
    for (validator, heights) in missed.iter().enumerate() {
        let unexplained: Vec<&i64> = heights
            .iter()
            .filter(|height| **height > up_to_start)
            .filter(|height| {
                !outages.iter().any(|outage| {
                    outage.validators.contains(&validator) && outage.heights.contains(height)
                })
            })
            .collect();
        assert!(
            unexplained.is_empty(),
            "validator {validator} missed heights {unexplained:?} outside its outages {outages:?} (start-up: to height {up_to_start})"
        );
    }
}

/// Verifies every extension signature that the applications were given, and returns how many of each
/// height there were, from the proposer that saw most of them.
///
/// # Panics
///
/// If one does not verify, or an extension is empty, or a vote for the block carries none.
#[must_use]
pub fn verify_extensions(
    chain_id: &str,
    public_keys: &[Vec<u8>],
    records: &[PathBuf],
) -> BTreeMap<i64, usize> {
    let by_address: BTreeMap<Vec<u8>, &Vec<u8>> = public_keys
        .iter()
        .map(|key| (address_of(key), key))
        .collect();
    let mut counts = BTreeMap::new();
    for path in records {
        for line in std::fs::read_to_string(path)
            .expect("the extended votes")
            .lines()
        {
            let record: Value = serde_json::from_str(line).expect("a JSON line");
            let height = record["height"].as_i64().expect("a height");
            let round = i32::try_from(record["round"].as_i64().expect("a round")).expect("a round");
            let votes = record["votes"].as_array().expect("votes");
            let mut count = 0;
            for vote in votes
                .iter()
                .filter(|vote| vote["flag"] == "BLOCK_ID_FLAG_COMMIT")
            {
                let public_key = by_address[&bytes(&vote["address"])];
                let extension = bytes(&vote["extension"]);
                assert!(
                    !extension.is_empty(),
                    "an empty extension at height {height}"
                );
                let message = sign_bytes::extension(chain_id, height, round, &extension);
                assert!(
                    sign_bytes::verifies(
                        public_key,
                        &message,
                        &bytes(&vote["extension_signature"])
                    ),
                    "an extension signature at height {height} does not verify"
                );
                count += 1;
            }
            let most = counts.entry(height).or_insert(0);
            *most = count.max(*most);
        }
    }
    // The first proposer of a chain is shown the commit of height 0, in which nobody voted.
    counts.remove(&0);
    counts
}

fn is_absent(signature: &CommitSig) -> bool {
    signature.block_id_flag == BlockIdFlag::Absent as i32
}

/// The vote that a signature in a commit stands for: for the block, or for nil.
fn precommit(commit: &Commit, signature: &CommitSig) -> Vote {
    let for_block = signature.block_id_flag == BlockIdFlag::Commit as i32;
    Vote {
        r#type: SignedMsgType::Precommit.into(),
        height: commit.height,
        round: commit.round,
        block_id: commit.block_id.clone().filter(|_| for_block),
        timestamp: signature.timestamp,
        ..Vote::default()
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    value
        .as_str()
        .map_or_else(Vec::new, |text| STANDARD.decode(text).expect("base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage() -> Outage {
        Outage {
            validators: vec![1],
            heights: 10..=12,
        }
    }

    #[test]
    fn a_validator_may_be_missing_in_its_own_outage_and_at_the_start() {
        let missed = [BTreeSet::from([1]), BTreeSet::from([2, 10, 12])];
        assert_only_missing_in_outages(&missed, 2, &[outage()]);
    }

    #[test]
    #[should_panic(expected = "validator 1 missed heights [13]")]
    fn a_block_missed_after_the_outage_is_found() {
        assert_only_missing_in_outages(&[BTreeSet::new(), BTreeSet::from([13])], 2, &[outage()]);
    }

    #[test]
    #[should_panic(expected = "validator 0 missed heights [11]")]
    fn a_block_missed_in_another_validators_outage_is_found() {
        assert_only_missing_in_outages(&[BTreeSet::from([11]), BTreeSet::new()], 2, &[outage()]);
    }
}
