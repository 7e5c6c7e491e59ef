//! What officers are asked to state, one type a kind of document.

use serde::{Deserialize, Serialize};

use super::{Error, Officer, Officers, Statement};

/// From now on these are the officers. Signed by those before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetOfficers {
    /// How many of them a document needs.
    pub threshold: usize,
    /// Lines of OpenSSH's `allowed_signers`.
    pub officers: Vec<String>,
}

impl Statement for SetOfficers {
    const KIND: &'static str = "set-officers";
}

impl SetOfficers {
    /// The officers that it names.
    ///
    /// # Errors
    ///
    /// As [`Officers::new`] and [`Officer::parse`].
    pub fn officers(&self) -> Result<Officers, Error> {
        let members = self.officers.iter().map(|line| Officer::parse(line));
        Officers::new(members.collect::<Result<_, _>>()?, self.threshold)
    }
}

impl From<&Officers> for SetOfficers {
    fn from(officers: &Officers) -> Self {
        let members = officers.members().iter();
        Self {
            threshold: officers.threshold(),
            officers: members.map(Officer::to_string).collect(),
        }
    }
}

/// A key was restored from a backup, and the device or signer that had it before is off and stays off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverKey {
    /// The key's name in the configuration.
    pub key: String,
    /// Its raw public key, in hex.
    pub public_key: String,
    /// The chain that it signs for.
    pub chain_id: String,
    /// The file with the old signer's state that this rests on: its SHA-256 in hex. Empty where none survived:
    /// then it rests on the chain's present height.
    pub evidence_sha256: String,
    /// The greatest height that the evidence shows.
    pub evidence_height: i64,
    /// How far above it the key begins; at least 1. Nothing at or below `evidence_height + margin` is signed.
    pub margin: i64,
    /// What was switched off, where, and how one knows that it stays so. Written by the officers.
    pub old_device_is_off: String,
}

impl Statement for RecoverKey {
    const KIND: &'static str = "recover-key";
}
