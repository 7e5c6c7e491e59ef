//! The 45 published vectors of SLIP-39 (`tests/vectors/slip39`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use hsm_shares::{CombineError, Fault, Passphrase, Secret, Share, combine_with_passphrase};
use serde_json::Value;

const VECTORS: &str = include_str!("../../../tests/vectors/slip39/vectors.json");

struct Vector {
    name: String,
    mnemonics: Vec<String>,
    /// In hexadecimal; empty where the shares must be refused.
    secret: String,
}

fn vectors() -> Vec<Vector> {
    let vectors: Vec<(String, Vec<String>, String, Value)> = serde_json::from_str(VECTORS).unwrap();
    vectors
        .into_iter()
        .map(|(name, mnemonics, secret, _xprv)| Vector {
            name,
            mnemonics,
            secret,
        })
        .collect()
}

enum Refused {
    Alone(Fault),
    Together(CombineError),
}

fn recovered(vector: &Vector) -> Result<Secret, Refused> {
    let shares = vector.mnemonics.iter().map(|words| Share::parse(words));
    let shares: Vec<Share> = shares.collect::<Result<_, _>>().map_err(Refused::Alone)?;
    let passphrase = Passphrase::new("TREZOR").unwrap();
    combine_with_passphrase(&shares, &passphrase).map_err(Refused::Together)
}

#[test]
fn every_published_vector_gives_its_secret_or_is_refused() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 45);
    for vector in vectors {
        let recovered = recovered(&vector).map(|secret| hex::encode(secret.expose()));
        let expected = (!vector.secret.is_empty()).then_some(vector.secret);
        assert_eq!(recovered.ok(), expected, "{}", vector.name);
    }
}

#[test]
fn every_published_vector_is_refused_for_what_is_wrong_with_it() {
    let mut refused = 0;
    for vector in vectors() {
        let name = vector.name.as_str();
        let because = |part: &str| name.contains(part);
        let Err(error) = recovered(&vector) else {
            continue;
        };
        refused += 1;
        let right = match error {
            Refused::Alone(Fault::Checksum(_)) => because("invalid checksum"),
            Refused::Alone(Fault::Padding) => because("invalid padding"),
            Refused::Alone(Fault::GroupThreshold { .. }) => because("greater group threshold"),
            Refused::Alone(Fault::Count { .. }) => {
                because("insufficient length") || because("secret length")
            }
            Refused::Alone(Fault::UnknownWords { .. }) => false,
            Refused::Together(CombineError::OtherSplit { .. }) => {
                because("different") || because("mismatching group")
            }
            Refused::Together(CombineError::MemberThreshold { .. }) => {
                because("mismatching member thresholds")
            }
            Refused::Together(CombineError::SamePlace { .. }) => because("duplicate member"),
            Refused::Together(CombineError::Digest(_)) => because("invalid digest"),
            Refused::Together(CombineError::TooFewGroups { .. }) => {
                because("Insufficient number of groups")
            }
            Refused::Together(CombineError::TooFewMembers { .. }) => {
                because("sharing 2-of-3") || because("insufficient number of members")
            }
            Refused::Together(_) => false,
        };
        assert!(right, "{name}");
    }
    assert_eq!(refused, 30);
}

#[test]
fn words_are_written_as_they_were_read() {
    for vector in vectors() {
        for mnemonic in &vector.mnemonics {
            let Ok(share) = Share::parse(mnemonic) else {
                continue;
            };
            let written: Vec<&str> = share.words().iter().collect();
            assert_eq!(written.join(" "), *mnemonic);
        }
    }
}
