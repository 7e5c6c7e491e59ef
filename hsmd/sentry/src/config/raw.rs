//! The configuration file as it is written, field by field.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Line, LogFormat};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) tls: Tls,
    pub(super) metrics: Option<Metrics>,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) chain: Vec<Chain>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: PathBuf,
    pub(super) private_key: PathBuf,
    pub(super) ca: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    #[serde(default)]
    pub(super) format: LogFormat,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chain {
    pub(super) chain_id: String,
    pub(super) cometbft: Line,
    pub(super) node: String,
    #[serde(default)]
    pub(super) allow_remote_node: bool,
    pub(super) key: String,
    pub(super) deadline_ms: Option<u64>,
    pub(super) ledger_id: Option<String>,
    #[serde(default)]
    pub(super) signer: Vec<Signer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signer {
    pub(super) address: String,
    pub(super) server_name: String,
}
