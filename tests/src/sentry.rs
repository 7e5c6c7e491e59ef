//! A running hsm-sentry.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::authority::Identity;
use crate::binaries::binary;
use crate::node::Address;
use crate::process::{Process, free_port};

/// One chain that a sentry serves.
pub struct Chain<'a> {
    /// The chain's id.
    pub chain_id: &'a str,
    /// The line of the node: "0.38" or "1.0".
    pub cometbft: &'a str,
    /// Where the node listens.
    pub node: &'a Address,
    /// The key's name at hsmd.
    pub key: &'a str,
    /// The port of hsmd on localhost.
    pub signer: u16,
}

/// An hsm-sentry with its configuration file; dropping it kills the process.
pub struct Sentry {
    name: String,
    directory: PathBuf,
    metrics_port: u16,
    /// The metrics that are 1 while a connection stands.
    connections: Vec<String>,
    process: Option<Process>,
}

impl Sentry {
    /// Writes the configuration `directory/NAME.toml`.
    #[must_use]
    pub fn new(
        directory: &Path,
        name: &str,
        identity: &Identity,
        ca: &Path,
        chains: &[Chain<'_>],
    ) -> Self {
        let metrics_port = free_port();
        let mut config = format!(
            "metrics.listen = \"127.0.0.1:{metrics_port}\"\n[tls]\ncertificate = {:?}\nprivate_key = {:?}\nca = {ca:?}\n",
            identity.certificate, identity.private_key
        );
        let mut connections = Vec::new();
        for chain in chains {
            let Chain {
                chain_id,
                cometbft,
                node,
                key,
                signer,
            } = chain;
            write!(
                config,
                "\n[[chain]]\nchain_id = {chain_id:?}\ncometbft = {cometbft:?}\nnode = \"{node}\"\nkey = {key:?}\n\
                 [[chain.signer]]\naddress = \"127.0.0.1:{signer}\"\nserver_name = \"localhost\"\n"
            )
            .expect("a string grows");
            connections.push(format!(
                "hsm_sentry_node_connected{{chain=\"{chain_id}\",node=\"{node}\"}}"
            ));
            connections.push(format!(
                "hsm_sentry_signer_connected{{signer=\"127.0.0.1:{signer}\"}}"
            ));
        }
        let sentry = Self {
            name: name.to_owned(),
            directory: directory.to_owned(),
            metrics_port,
            connections,
            process: None,
        };
        std::fs::write(sentry.config(), config).expect("the sentry's configuration");
        sentry
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.join(format!("{}.toml", self.name))
    }

    /// Starts it.
    pub fn start(&mut self) {
        let mut command = Command::new(binary("hsm-sentry"));
        command
            .arg("run")
            .arg("--config")
            .arg(self.config())
            .args(crate::daemon::allow_root());
        self.process = Some(Process::start(&self.name, &mut command, &self.directory));
    }

    /// Whether it is connected to hsmd and to its nodes.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let is_one = |series: &String| self.metric(series) == Some(1.0);
        self.connections.iter().all(is_one)
    }

    /// A metric's value, by its name with labels.
    #[must_use]
    pub fn metric(&self, series: &str) -> Option<f64> {
        crate::http::metric(self.metrics_port, series)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Runs `hsm-sentry check` on the configuration.
    #[must_use]
    pub fn check(&self) -> Output {
        Command::new(binary("hsm-sentry"))
            .arg("check")
            .arg("--config")
            .arg(self.config())
            .output()
            .expect("hsm-sentry runs")
    }

    /// The running process.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a running sentry")
    }
}
