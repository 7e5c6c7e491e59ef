//! From the file as written to a checked configuration.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::{Chain, Config, Error, NodeAddress, Problem, SignerAddress, Tls, raw};

/// If not given.
const DEADLINE_MS: u64 = 3_000;

/// A node gives up after 5 s (`defaultTimeoutReadWriteSeconds` in CometBFT's `privval/signer_endpoint.go`, the
/// same in all lines) and drops the connection; the refusal must reach it before.
const LONGEST_DEADLINE_MS: u64 = 4_500;

const SHORTEST_DEADLINE_MS: u64 = 100;

/// `MaxChainIDLen` in CometBFT's `types/genesis.go`.
const LONGEST_CHAIN_ID: usize = 50;

pub(super) fn config(file: &Path, raw: raw::Config) -> Result<Config, Error> {
    let mut problems = Problems(Vec::new());
    let directory = file.parent().unwrap_or(Path::new("/"));
    let tls = Tls {
        certificate: directory.join(raw.tls.certificate),
        private_key: directory.join(raw.tls.private_key),
        ca: directory.join(raw.tls.ca),
    };
    let metrics = raw
        .metrics
        .and_then(|metrics| problems.metrics(&metrics.listen));
    if raw.chain.is_empty() {
        problems.missing(
            "chain",
            "add a [[chain]] with chain_id, cometbft, node, key and signer",
        );
    }
    let mut chains: Vec<Chain> = Vec::new();
    for (index, raw) in raw.chain.into_iter().enumerate() {
        let node = raw.node.clone();
        let Some(chain) = problems.chain(&format!("chain[{index}]"), directory, raw) else {
            continue;
        };
        if chains.iter().any(|earlier| earlier.node == chain.node) {
            problems.value(
                &format!("chain[{index}].node"),
                node,
                "another chain has the same node",
                "a node follows one chain: give each chain its own node's address",
            );
        }
        chains.push(chain);
    }
    if problems.0.is_empty() {
        return Ok(Config {
            file: file.to_path_buf(),
            tls,
            metrics,
            log: raw.log.format,
            chains,
        });
    }
    Err(Error {
        file: file.to_path_buf(),
        problems: problems.0,
    })
}

/// Collects the problems of one file.
struct Problems(Vec<Problem>);

impl Problems {
    fn metrics(&mut self, listen: &str) -> Option<SocketAddr> {
        match listen.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => return Some(address),
            Ok(_) => self.value(
                "metrics.listen",
                listen,
                "is not a loopback address, and metrics have no access control",
                "listen on 127.0.0.1 or [::1], and let an exporter or proxy on this host publish them",
            ),
            Err(_) => self.value(
                "metrics.listen",
                listen,
                "is not IP:PORT",
                "such as 127.0.0.1:9470",
            ),
        }
        None
    }

    fn chain(&mut self, at: &str, directory: &Path, raw: raw::Chain) -> Option<Chain> {
        let before = self.0.len();
        if raw.chain_id.is_empty() || raw.chain_id.len() > LONGEST_CHAIN_ID {
            self.value(
                &format!("{at}.chain_id"),
                &raw.chain_id,
                &format!("has {} bytes", raw.chain_id.len()),
                "a chain id has 1 to 50 bytes: copy it from the chain's genesis file",
            );
        }
        if raw.key.is_empty() {
            self.value(
                &format!("{at}.key"),
                &raw.key,
                "is empty",
                "name the key as hsmd's configuration does",
            );
        }
        let deadline_ms = raw.deadline_ms.unwrap_or(DEADLINE_MS);
        if !(SHORTEST_DEADLINE_MS..=LONGEST_DEADLINE_MS).contains(&deadline_ms) {
            self.value(
                &format!("{at}.deadline_ms"),
                deadline_ms,
                "is out of range",
                "choose 100 to 4500: the node itself gives up after 5000 ms",
            );
        }
        let node = self.node(at, directory, &raw.node, raw.allow_remote_node);
        self.ledger_id(at, raw.ledger_id.as_deref(), raw.signer.len());
        let signers = self.signers(at, raw.signer);
        if self.0.len() > before {
            return None;
        }
        Some(Chain {
            chain_id: raw.chain_id,
            line: raw.cometbft,
            node: node?,
            key: raw.key,
            deadline: Duration::from_millis(deadline_ms),
            ledger_id: raw.ledger_id,
            signers,
        })
    }

    fn node(
        &mut self,
        at: &str,
        directory: &Path,
        node: &str,
        allow_remote: bool,
    ) -> Option<NodeAddress> {
        let key = format!("{at}.node");
        if let Some(path) = node.strip_prefix("unix://") {
            if allow_remote {
                self.value(
                    &format!("{at}.allow_remote_node"),
                    true,
                    "contradicts a node on a UNIX socket, which is never remote",
                    "remove it",
                );
            }
            return Some(NodeAddress::Unix(directory.join(PathBuf::from(path))));
        }
        let Some(address) = node.strip_prefix("tcp://").filter(|it| is_host_port(it)) else {
            self.value(
                &key,
                node,
                "is neither unix://PATH nor tcp://HOST:PORT",
                "copy priv_validator_laddr from the node's config.toml",
            );
            return None;
        };
        if !allow_remote && !is_loopback(address) {
            self.value(
                &key,
                node,
                "is not on this host: a node makes a new key for its tcp:// listener at every start, \
                 so that nobody can tell the node from somebody who answers in its place",
                "run hsm-sentry on the node's host; or, on a network where nobody can do that, set \
                 allow_remote_node = true",
            );
            return None;
        }
        Some(NodeAddress::Tcp {
            address: address.to_owned(),
            allow_remote,
        })
    }

    fn signers(&mut self, at: &str, raw: Vec<raw::Signer>) -> Vec<SignerAddress> {
        if raw.is_empty() {
            self.missing(
                &format!("{at}.signer"),
                "add a [[chain.signer]] with hsmd's address and server_name",
            );
        }
        let mut signers: Vec<SignerAddress> = Vec::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let at = format!("{at}.signer[{index}]");
            if signers.iter().any(|it| it.address == raw.address) {
                self.value(
                    &format!("{at}.address"),
                    &raw.address,
                    "is named twice for one chain",
                    "name each hsmd once",
                );
            }
            signers.extend(self.signer(&at, raw));
        }
        signers
    }

    fn signer(&mut self, at: &str, raw: raw::Signer) -> Option<SignerAddress> {
        if !is_host_port(&raw.address) {
            self.value(
                &format!("{at}.address"),
                &raw.address,
                "is not HOST:PORT",
                "write hsmd's listen address, such as 10.0.0.1:26690",
            );
        }
        match ServerName::try_from(raw.server_name.clone()) {
            Ok(server_name) => Some(SignerAddress {
                address: raw.address,
                server_name,
            }),
            Err(_) => {
                self.value(
                    &format!("{at}.server_name"),
                    raw.server_name,
                    "is neither a DNS name nor an IP address",
                    "write the name that stands in hsmd's certificate",
                );
                None
            }
        }
    }

    fn ledger_id(&mut self, at: &str, ledger_id: Option<&str>, signers: usize) {
        let key = format!("{at}.ledger_id");
        match ledger_id {
            None if signers > 1 => self.missing(
                &key,
                "several signers are named, and two that do not share a ledger of what they signed would each \
                 sign, and so sign twice: write the id of the ledger that their key is bound to, or keep one \
                 [[chain.signer]]",
            ),
            Some(id) if !crate::pin::is_ledger_id(id) => self.value(
                &key,
                id,
                "is not 32 lower-case hexadecimal digits",
                "copy the id of the ledger that hsmd bound the key to",
            ),
            _ => {}
        }
    }

    fn missing(&mut self, key: &str, remedy: &str) {
        self.0.push(Problem {
            key: key.to_owned(),
            value: None,
            fault: "missing".to_owned(),
            remedy: remedy.to_owned(),
        });
    }

    /// `value` is shown as it would stand in the file.
    fn value(&mut self, key: &str, value: impl fmt::Debug, fault: &str, remedy: &str) {
        self.0.push(Problem {
            key: key.to_owned(),
            value: Some(format!("{value:?}")),
            fault: fault.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
}

fn is_host_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0))
}

/// By what is written; what `localhost` stands for is looked at again when it is dialled.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || literal.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
