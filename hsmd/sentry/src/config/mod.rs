//! The configuration file: TOML, read once at start, every value checked before anything else happens.
//!
//! [`Config::load`] reports all problems at once, each with file, key, value and remedy. No secret stands in
//! the file: it names the file that holds the private key. Relative paths begin at the file's directory.

mod check;
mod error;
mod raw;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::ServerName;

pub use error::{Error, Problem};

/// A checked configuration. All paths are absolute.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// `[tls]`: who we are to hsmd, and who may be hsmd.
    pub tls: Tls,
    /// `metrics.listen`: the loopback address of the Prometheus listener. None: no such listener.
    pub metrics: Option<SocketAddr>,
    /// `log.format`.
    pub log: LogFormat,
    /// `[[chain]]`, in the file's order; at least one.
    pub chains: Vec<Chain>,
}

/// The files of the TLS identity. They are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Our certificate chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its private key, PEM (PKCS#8, SEC1 or PKCS#1), closed to group and others.
    pub private_key: PathBuf,
    /// The certificates of the only authorities that hsmd's certificate may come from, PEM.
    pub ca: PathBuf,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// One node and the key that it signs with.
#[derive(Clone, Debug)]
pub struct Chain {
    /// 1 to 50 bytes; a request for any other chain is refused.
    pub chain_id: String,
    /// `cometbft`: the node's line.
    pub line: Line,
    /// `node`: the node's `priv_validator_laddr`.
    pub node: NodeAddress,
    /// The key's name in hsmd's configuration.
    pub key: String,
    /// `deadline_ms`: time from a request's arrival to its answer, 100 ms to 4.5 s, 3 s if not given.
    pub deadline: Duration,
    /// `ledger_id`: the ledger that every signer must share the key's marks through, 32 lower-case hexadecimal
    /// digits. There where several signers are named, and a signer that reports another or none is not used.
    pub ledger_id: Option<String>,
    /// `[[chain.signer]]`: the hsmd that sign, at least one; the first that can be asked is asked.
    pub signers: Vec<SignerAddress>,
}

/// A line of CometBFT releases whose privval messages are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum Line {
    /// 0.34.
    #[serde(rename = "0.34")]
    V0_34,
    /// 0.37.
    #[serde(rename = "0.37")]
    V0_37,
    /// 0.38, the first with vote extensions.
    #[serde(rename = "0.38")]
    V0_38,
    /// 0.39.
    #[serde(rename = "0.39")]
    V0_39,
    /// 1.0, which gives public keys another form and may ask for no extension signature.
    #[serde(rename = "1.0")]
    V1_0,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_34 => "0.34",
            Self::V0_37 => "0.37",
            Self::V0_38 => "0.38",
            Self::V0_39 => "0.39",
            Self::V1_0 => "1.0",
        })
    }
}

/// Where a node waits for its signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAddress {
    /// `unix://PATH`.
    Unix(PathBuf),
    /// `tcp://HOST:PORT`, with SecretConnection.
    Tcp {
        /// `HOST:PORT`.
        address: String,
        /// `allow_remote_node`: whether the host may be another than this one.
        allow_remote: bool,
    },
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { address, .. } => write!(f, "tcp://{address}"),
        }
    }
}

/// Where an hsmd listens, and the name that its certificate must carry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SignerAddress {
    /// `HOST:PORT`.
    pub address: String,
    /// A DNS name or an IP address in the certificate's subject alternative names.
    pub server_name: ServerName<'static>,
}

impl Config {
    /// Reads and checks `file`. The files that it names are looked at by [`crate::tls::Identity::load`].
    ///
    /// # Errors
    ///
    /// [`Error`] with everything that is wrong with the file.
    pub fn load(file: &Path) -> Result<Self, Error> {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
        let text = std::fs::read_to_string(&file).map_err(|e| Error::unreadable(&file, &e))?;
        Self::parse(&file, &text)
    }

    /// As [`Config::load`], with the file's text given.
    ///
    /// # Errors
    ///
    /// [`Error`] with everything that is wrong with the text.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        let raw: raw::Config =
            toml::from_str(text).map_err(|error| Error::toml(file, text, error))?;
        check::config(file, raw)
    }
}
