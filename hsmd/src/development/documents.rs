//! The texts of a development set-up.

use std::net::SocketAddr;

use super::TRUST_DOMAIN;

pub(super) const MARK_TEXT: &str = "\
DEVELOPMENT ONLY.

`hsmd dev` made this directory. Its HSM is an emulator: the signing key lies in mock-hsm.json in the clear,
and whoever reads that file can sign. Never use it for a validator with anything at stake.

sentry.toml is for hsm-sentry; it takes the place of a CometBFT node's signer at unix://privval.sock here.
";

/// hsmd's own configuration. Paths are relative to it.
pub(super) fn hsmd(listen: SocketAddr, metrics: SocketAddr, key: &str) -> String {
    format!(
        r#"# DEVELOPMENT ONLY: the mock HSM protects nothing. Made by `hsmd dev`.
# In this directory: hsmd status --config hsmd.toml

state_dir = "state"
policy = "policy.toml"

[listen]
address = "{listen}"
certificate = "server.pem"
private_key = "server.key"
client_ca = "ca.pem"
trust_domain = "{TRUST_DOMAIN}"
reflection = true

[admin]
socket = "admin.sock"

[metrics]
listen = "{metrics}"

[state]
anchor = "none" # nothing detects state restored from a disk image

[[device]]
name = "mock"
backend = "mock"
state_file = "mock-hsm.json"

[[key]]
name = "{key}"
devices = ["mock"]
algorithm = "ed25519"
label = "{key}"
"#
    )
}

/// Everything for the one sentry.
pub(super) fn policy(chain_id: &str, key: &str) -> String {
    format!(
        r#"# DEVELOPMENT ONLY. Made by `hsmd dev`.

[[grant]]
callers = ["spiffe://{TRUST_DOMAIN}/sentry/dev"]
key = "{key}"
chain_id = {chain_id}
kinds = ["proposal", "prevote", "precommit", "extension"]
"#,
        chain_id = quoted(chain_id)
    )
}

/// An hsm-sentry beside a node whose configuration says priv_validator_laddr = "unix://.../privval.sock".
pub(super) fn sentry(chain_id: &str, key: &str, hsmd: SocketAddr) -> String {
    format!(
        r#"# DEVELOPMENT ONLY. Made by `hsmd dev`.

[tls]
certificate = "sentry.pem"
private_key = "sentry.key"
ca = "ca.pem"

[[chain]]
chain_id = {chain_id}
cometbft = "0.38"
node = "unix://privval.sock"
key = "{key}"

[[chain.signer]]
address = "{hsmd}"
server_name = "localhost"
"#,
        chain_id = quoted(chain_id)
    )
}

/// A chain id may hold quotation marks.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
