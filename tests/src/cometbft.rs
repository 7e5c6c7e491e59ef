//! Networks of real CometBFT validators on loopback, each with a home, ports and a signer of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::node::Address;
use crate::process::{PATIENCE, Process, free_port, wait_for};

/// Number of validators: with one missing, more than two thirds go on.
pub const VALIDATORS: usize = 4;

/// A released line of CometBFT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// 0.38.
    V0_38,
    /// 1.0.
    V1_0,
}

impl Line {
    /// As in hsm-sentry's `cometbft`, and the folder of its binary.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V0_38 => "0.38",
            Self::V1_0 => "1.0",
        }
    }
}

/// What the nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// CometBFT's built-in key-value store.
    KvStore,
    /// The application of `tests/cometbft/app`, with vote extensions from the first height.
    VoteExtensions,
}

/// A network: prepared first, then given its signers, then started.
pub struct Network {
    binary: PathBuf,
    directory: PathBuf,
    chain_id: String,
    application: Application,
    nodes: Vec<NodeHome>,
    processes: Vec<Process>,
}

struct NodeHome {
    home: PathBuf,
    rpc_port: u16,
    p2p_port: u16,
    public_key: Vec<u8>,
}

impl Network {
    /// Makes four homes with `cometbft testnet`. Until they are given others, the validators sign with
    /// CometBFT's own key files.
    ///
    /// # Panics
    ///
    /// If `cometbft` fails.
    #[must_use]
    pub fn prepare(
        binary: &Path,
        directory: &Path,
        chain_id: &str,
        application: Application,
    ) -> Self {
        let homes = directory.join("homes");
        let output = Command::new(binary)
            .args(["testnet", "--v", &VALIDATORS.to_string(), "--o"])
            .arg(&homes)
            .output()
            .expect("cometbft runs");
        assert!(output.status.success(), "cometbft testnet: {output:?}");
        let nodes = (0..VALIDATORS)
            .map(|index| {
                let home = homes.join(format!("node{index}"));
                let key = read_json(&home.join("config/priv_validator_key.json"));
                let public_key = base64(&key["pub_key"]["value"]);
                NodeHome {
                    home,
                    rpc_port: free_port(),
                    p2p_port: free_port(),
                    public_key,
                }
            })
            .collect();
        Self {
            binary: binary.to_owned(),
            directory: directory.to_owned(),
            chain_id: chain_id.to_owned(),
            application,
            nodes,
            processes: Vec::new(),
        }
    }

    /// The validators' public keys, by index.
    #[must_use]
    pub fn public_keys(&self) -> Vec<Vec<u8>> {
        self.nodes
            .iter()
            .map(|node| node.public_key.clone())
            .collect()
    }

    /// The chain's id.
    #[must_use]
    pub fn chain_id(&self) -> &str {
        &self.chain_id
    }

    /// Makes a validator listen for a remote signer that holds this Ed25519 key.
    pub fn set_signer(&mut self, index: usize, address: &Address, public_key: &[u8]) {
        self.nodes[index].public_key = public_key.to_vec();
        let address = address.to_string();
        self.edit_config(index, |config| {
            config["priv_validator_laddr"] = address.into()
        });
    }

    /// Starts all nodes, and waits until each has committed a block and is connected to all others.
    ///
    /// # Panics
    ///
    /// If one does not.
    pub fn start(&mut self) {
        let genesis = self.genesis();
        let peers: Vec<String> = self.nodes.iter().map(|node| self.peer(node)).collect();
        for index in 0..VALIDATORS {
            let home = self.nodes[index].home.clone();
            std::fs::write(home.join("config/genesis.json"), genesis.to_string())
                .expect("the genesis file");
            let app = self.start_application(index);
            self.configure(index, &peers, &app);
        }
        for index in 0..VALIDATORS {
            let mut command = Command::new(&self.binary);
            command
                .arg("start")
                .arg("--home")
                .arg(&self.nodes[index].home);
            self.processes.push(Process::start(
                &format!("node{index}"),
                &mut command,
                &self.directory,
            ));
        }
        for index in 0..VALIDATORS {
            wait_for(
                &format!("node{index} among its peers"),
                PATIENCE * 2,
                || {
                    self.assert_running();
                    let info = self.query(index, "net_info")?;
                    let peers: usize = info["n_peers"].as_str()?.parse().ok()?;
                    (peers == VALIDATORS - 1 && self.height_of(index)? > 0).then_some(())
                },
            );
        }
    }

    /// The latest height that any node has committed.
    #[must_use]
    pub fn height(&self) -> i64 {
        (0..VALIDATORS)
            .filter_map(|index| self.height_of(index))
            .max()
            .unwrap_or(0)
    }

    /// Waits until every node has committed `height`.
    ///
    /// # Panics
    ///
    /// If that takes longer than `patience`, or a node ends.
    pub fn wait_for_height(&mut self, height: i64, patience: Duration) {
        wait_for(
            &format!("height {height} (now {})", self.height()),
            patience,
            || {
                self.assert_running();
                (0..VALIDATORS)
                    .all(|index| self.height_of(index) >= Some(height))
                    .then_some(())
            },
        );
    }

    /// The answer of a node's RPC to `GET /path`, while it answers.
    #[must_use]
    pub fn query(&self, index: usize, path: &str) -> Option<Value> {
        let answer = crate::http::get(self.nodes[index].rpc_port, &format!("/{path}"))?;
        let mut answer: Value = serde_json::from_str(&answer).ok()?;
        Some(answer["result"].take())
    }

    /// The files in which the applications wrote down the extended votes.
    #[must_use]
    pub fn extended_votes(&self) -> Vec<PathBuf> {
        (0..VALIDATORS).map(|index| self.records(index)).collect()
    }

    fn assert_running(&mut self) {
        self.processes.iter_mut().for_each(Process::assert_running);
    }

    /// The height that a node committed last, while it answers.
    #[must_use]
    pub fn height_of(&self, index: usize) -> Option<i64> {
        self.query(index, "status")?["sync_info"]["latest_block_height"]
            .as_str()?
            .parse()
            .ok()
    }

    fn records(&self, index: usize) -> PathBuf {
        self.directory.join(format!("extended-votes{index}.jsonl"))
    }

    fn start_application(&mut self, index: usize) -> String {
        if self.application == Application::KvStore {
            return "kvstore".to_owned();
        }
        let binary = crate::binaries::abci_app().expect("the ABCI application");
        let address = format!(
            "unix://{}",
            self.directory.join(format!("app{index}.sock")).display()
        );
        let mut command = Command::new(binary);
        command
            .args(["-address", &address, "-records"])
            .arg(self.records(index));
        self.processes.push(Process::start(
            &format!("app{index}"),
            &mut command,
            &self.directory,
        ));
        address
    }

    fn genesis(&self) -> Value {
        let mut genesis = read_json(&self.nodes[0].home.join("config/genesis.json"));
        genesis["chain_id"] = self.chain_id.clone().into();
        if self.application == Application::VoteExtensions {
            let params = &mut genesis["consensus_params"];
            let section = if params["feature"].is_object() {
                "feature"
            } else {
                "abci"
            };
            params[section]["vote_extensions_enable_height"] = "1".into();
        }
        genesis["validators"] = self
            .nodes
            .iter()
            .map(|node| {
                json!({
                    "address": hex::encode_upper(address_of(&node.public_key)),
                    "pub_key": {"type": "tendermint/PubKeyEd25519", "value": STANDARD.encode(&node.public_key)},
                    "power": "1",
                    "name": "",
                })
            })
            .collect();
        genesis
    }

    fn peer(&self, node: &NodeHome) -> String {
        let output = Command::new(&self.binary)
            .arg("show-node-id")
            .arg("--home")
            .arg(&node.home)
            .output()
            .expect("cometbft runs");
        let id = String::from_utf8(output.stdout).expect("a node id");
        format!("{}@127.0.0.1:{}", id.trim(), node.p2p_port)
    }

    fn configure(&self, index: usize, peers: &[String], app: &str) {
        let node = &self.nodes[index];
        self.edit_config(index, |config| {
            config["proxy_app"] = app.into();
            config["rpc"]["laddr"] = format!("tcp://127.0.0.1:{}", node.rpc_port).into();
            config["p2p"]["laddr"] = format!("tcp://127.0.0.1:{}", node.p2p_port).into();
            config["p2p"]["persistent_peers"] = peers.join(",").into();
            config["p2p"]["pex"] = false.into();
            config["p2p"]["addr_book_strict"] = false.into();
            config["p2p"]["allow_duplicate_ip"] = true.into();
            config["p2p"]["flush_throttle_timeout"] = "10ms".into();
            config["tx_index"]["indexer"] = "null".into();
            // Long enough that a commit gathers all four votes on a busy machine: without that, an absent
            // vote would say nothing about the signer.
            config["consensus"]["timeout_commit"] = "400ms".into();
            config["consensus"]["timeout_propose"] = "2s".into();
            config["consensus"]["peer_gossip_sleep_duration"] = "10ms".into();
        });
    }

    fn edit_config(&self, index: usize, edit: impl FnOnce(&mut toml::Table)) {
        let path = self.nodes[index].home.join("config/config.toml");
        let text = std::fs::read_to_string(&path).expect("config.toml");
        let mut config: toml::Table = text.parse().expect("config.toml is TOML");
        edit(&mut config);
        std::fs::write(&path, config.to_string()).expect("config.toml written");
    }
}

/// A validator's address: the first 20 bytes of the SHA-256 of its raw Ed25519 key (CometBFT
/// `crypto/ed25519`).
#[must_use]
pub fn address_of(public_key: &[u8]) -> Vec<u8> {
    Sha256::digest(public_key)[..20].to_vec()
}

fn read_json(path: &Path) -> Value {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

fn base64(value: &Value) -> Vec<u8> {
    STANDARD
        .decode(value.as_str().expect("a string"))
        .expect("base64")
}
