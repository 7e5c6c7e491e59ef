//! What a refusal says of the request, as sent.

use hsm_policy::cometbft::ChainId;
use hsm_policy::grants::KeyName;
use hsm_policy::identity::Caller;
use hsm_proto::v1 as wire;

use super::request::Wire;
use crate::in_force::InForce;
use crate::transport::Peer;

/// Names that a caller sends are kept in refusals up to this many bytes.
const KEPT_NAME_BYTES: usize = 64;

/// What a refusal says of the request, as sent.
pub(super) struct Attempt {
    pub(super) caller: String,
    pub(super) key: String,
    pub(super) chain_id: String,
    pub(super) kind: &'static str,
    pub(super) position: Option<wire::Position>,
}

impl Attempt {
    pub(super) fn of(peer: &Peer, sent: &Wire) -> Self {
        Self {
            caller: peer.caller_name(),
            key: kept(sent.key()),
            chain_id: kept(sent.chain_id()),
            kind: sent.kind(),
            position: Some(sent.position()),
        }
    }

    pub(super) fn to_look(peer: &Peer, key: &str) -> Self {
        Self {
            caller: peer.caller_name(),
            key: kept(key),
            chain_id: String::new(),
            kind: "look",
            position: None,
        }
    }

    pub(super) fn height(&self) -> i64 {
        self.position.map_or(0, |position| position.height)
    }

    /// Whether the caller has any grant of the key for the chain that it named.
    pub(super) fn is_granted(&self, in_force: &InForce) -> bool {
        let names = (
            self.caller.parse::<Caller>(),
            KeyName::new(&self.key),
            ChainId::new(&self.chain_id),
        );
        match names {
            (Ok(caller), Ok(key), Ok(chain)) => in_force.policy.find(&caller, &key, &chain).is_ok(),
            _ => false,
        }
    }
}

fn kept(name: &str) -> String {
    let mut end = name.len().min(KEPT_NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().to_owned()
}
