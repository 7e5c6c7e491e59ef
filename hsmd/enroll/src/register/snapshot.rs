//! The state as a segment's snapshot, and back.

use hsm_policy::identity::TrustDomain;
use hsm_proto::v1 as wire;
use prost::Message as _;

use super::state::{Node, State, hash, list};
use crate::token::Hash;

impl hsm_journal::State for State {
    fn restore(snapshot: &[u8]) -> Result<Self, String> {
        let snapshot =
            wire::RegisterSnapshot::decode(snapshot).map_err(|error| error.to_string())?;
        let trust_domain: TrustDomain = snapshot
            .trust_domain
            .parse()
            .map_err(|error| format!("{error}"))?;
        let mut state = Self::new(trust_domain);
        for token in snapshot.tokens {
            let created = token.created.as_ref().ok_or("a token without its making")?;
            state.tokens.insert(hash(&created.token_sha256)?, token);
        }
        for node in snapshot.nodes {
            let grants: Result<Vec<Hash>, String> =
                node.grants.iter().map(|grant| hash(grant)).collect();
            let registered = Node {
                role: node.role.parse()?,
                names: node.names,
                files: node.files,
                files_version: node.files_version,
                grants: grants?,
                joined: from_wire(node.joined),
                renewed: from_wire(node.renewed),
                expires: node.expires,
            };
            state.nodes.insert(node.name, registered);
        }
        if let Some(signed) = snapshot.revocations {
            state.revocations = list(Some(&signed))?;
            state.signed = signed;
        }
        state.revocations_entry = snapshot.revocations_entry;
        state.latest_not_before = snapshot.latest_not_before;
        Ok(state)
    }

    fn apply(&mut self, index: u64, leaf: &[u8]) -> Result<(), String> {
        let (time, event) = super::decode(leaf)?;
        self.check(&event)?;
        self.commit(index, from_wire(Some(time)), event);
        Ok(())
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut tokens: Vec<_> = self.tokens.iter().collect();
        tokens.sort_by_key(|(hash, _)| **hash);
        let nodes = self.nodes.iter().map(|(name, node)| wire::RegisteredNode {
            name: name.clone(),
            role: node.role.to_string(),
            names: node.names.clone(),
            files: node.files.clone(),
            files_version: node.files_version,
            grants: node.grants.iter().map(|grant| grant.to_vec()).collect(),
            joined: to_wire(node.joined),
            renewed: to_wire(node.renewed),
            expires: node.expires,
        });
        let is_signed = !self.signed.document.is_empty();
        let snapshot = wire::RegisterSnapshot {
            trust_domain: self.trust_domain.to_string(),
            tokens: tokens.into_iter().map(|(_, token)| token.clone()).collect(),
            nodes: nodes.collect(),
            revocations: is_signed.then(|| self.signed.clone()),
            revocations_entry: self.revocations_entry,
            latest_not_before: self.latest_not_before,
        };
        snapshot.encode_to_vec()
    }
}

/// A second since 1970 to the wire; none where it is 0.
#[must_use]
pub fn to_wire(seconds: u64) -> Option<prost_types::Timestamp> {
    (seconds > 0).then(|| prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: 0,
    })
}

fn from_wire(time: Option<prost_types::Timestamp>) -> u64 {
    u64::try_from(time.unwrap_or_default().seconds).unwrap_or_default()
}
