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

/// Nothing was signed that the journal lacks which hsmd found after an unclean end: the heights up to the rollback
/// anchor's ceilings, of which nothing proves that they were not signed, may be signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptTail {
    /// The size of the journal's tree.
    pub size: u64,
    /// Its RFC 6962 root, in hex.
    pub root: String,
    /// How one knows that the journal is whole. Written by the officers.
    pub nothing_is_missing: String,
}

impl Statement for AcceptTail {
    const KIND: &'static str = "accept-tail";
}

/// The state directory is the newest, and from now on another anchor, or none, vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebindAnchor {
    /// The kind that the journal is bound to: "tpm", "yubihsm" or "none".
    pub from: String,
    /// Where the journal expects its counter; 0 without an anchor.
    pub counter: u64,
    /// The kind that it is bound to from now on.
    pub to: String,
    /// How one knows that this state is the newest, and that no copy of it runs. Written by the officers.
    pub this_state_is_the_newest: String,
}

impl Statement for RebindAnchor {
    const KIND: &'static str = "rebind-anchor";
}

/// The journal of one of the signers that share a ledger is lost, and the signer is off and stays off: the others go on
/// without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceJournal {
    /// The key's name in the configuration.
    pub key: String,
    /// The chain that it signs for.
    pub chain_id: String,
    /// The ledger, in hex.
    pub ledger_id: String,
    /// The signer whose journal is lost: its deployment's id, in hex.
    pub signer_id: String,
    /// The chain's present height.
    pub chain_height: i64,
    /// How far above it all signers begin; at least 1. Nothing at or below `chain_height + margin` is signed.
    pub margin: i64,
    /// What was switched off, where, and how one knows that it stays so. Written by the officers.
    pub signer_is_off: String,
}

impl Statement for ReplaceJournal {
    const KIND: &'static str = "replace-journal";
}

/// A key that an operator froze may sign again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thaw {
    /// The name that was frozen; empty for the freeze of every key, which leaves those frozen that are by name.
    pub key: String,
    /// Why it was frozen, and how one knows that this is over. Written by the officers.
    pub the_cause_is_over: String,
}

impl Statement for Thaw {
    const KIND: &'static str = "thaw";
}
