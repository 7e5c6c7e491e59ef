//! How keys, marks and positions are printed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hsm_proto::v1 as wire;
use serde_json::{Value, json};

/// `height/round/step`.
pub(super) fn position(position: &wire::Position) -> String {
    let (height, round, step) = (position.height, position.round, step_name(position));
    format!("{height}/{round}/{step}")
}

/// The step's name in lower case.
pub(super) fn step_name(position: &wire::Position) -> &'static str {
    match position.step() {
        wire::Step::Proposal => "proposal",
        wire::Step::Prevote => "prevote",
        wire::Step::Precommit => "precommit",
        wire::Step::Unspecified => "unknown",
    }
}

/// "ed25519" or "secp256k1".
pub(super) fn algorithm(number: i32) -> &'static str {
    match wire::KeyAlgorithm::try_from(number) {
        Ok(wire::KeyAlgorithm::Ed25519) => "ed25519",
        Ok(wire::KeyAlgorithm::Secp256k1) => "secp256k1",
        _ => "unknown",
    }
}

/// An RFC 3339 moment, or `-`.
pub(super) fn moment(time: Option<&prost_types::Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// A key as JSON.
pub(super) fn key_json(key: &wire::KeyState) -> Value {
    json!({
        "key": key.key,
        "devices": key.devices,
        "algorithm": algorithm(key.algorithm),
        "public_key": hex::encode(&key.public_key),
        "chains": key.chains.iter().map(chain_json).collect::<Vec<_>>(),
    })
}

/// A mark as JSON.
pub(super) fn chain_json(chain: &wire::ChainState) -> Value {
    json!({
        "chain_id": chain.chain_id,
        "initial_height": chain.initial_height,
        "ledger_id": chain.ledger_id,
        "floor": chain.floor,
        "ceiling": chain.ceiling,
        "last": chain.last.as_ref().map(|last| json!({
            "height": last.height,
            "round": last.round,
            "step": step_name(last),
            "sign_bytes": hex::encode(&chain.sign_bytes),
            "reserved": moment(chain.reserved.as_ref()),
        })),
    })
}

/// One line a chain: what was signed last.
pub(super) fn chain_line(chain: &wire::ChainState) -> String {
    let last = match &chain.last {
        Some(last) => format!(
            "last {} reserved {}",
            position(last),
            moment(chain.reserved.as_ref())
        ),
        None => "nothing signed yet".to_owned(),
    };
    let (id, height) = (&chain.chain_id, chain.initial_height.max(chain.floor));
    let ceiling = chain
        .ceiling
        .map(|ceiling| format!(", nor above {ceiling} before the anchor's next advance"))
        .unwrap_or_default();
    let ledger = match chain.ledger_id.as_str() {
        "" => String::new(),
        id => format!("; shared through ledger {id}"),
    };
    format!("{id}: nothing at or below {height}{ceiling}; {last}{ledger}")
}

/// The key as a create-validator transaction of the Cosmos SDK wants it.
pub(super) fn cosmos(key: &wire::KeyState) -> Value {
    let name = algorithm(key.algorithm);
    json!({
        "@type": format!("/cosmos.crypto.{name}.PubKey"),
        "key": BASE64.encode(&key.public_key),
    })
}

/// The key as a validator's entry in CometBFT's genesis file wants it.
pub(super) fn cometbft(key: &wire::KeyState) -> Value {
    let name = match algorithm(key.algorithm) {
        "secp256k1" => "tendermint/PubKeySecp256k1",
        _ => "tendermint/PubKeyEd25519",
    };
    json!({ "pub_key": { "type": name, "value": BASE64.encode(&key.public_key) } })
}

/// What is frozen: empty stands for every key.
pub(super) fn frozen(key: &str) -> String {
    match key {
        "" => "every key".to_owned(),
        key => format!("key {key}"),
    }
}
