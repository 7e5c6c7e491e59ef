//! A sentry with a node on one side and an hsmd on the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hsm_sentry::{Config, Error};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::hsmd::{Hsmd, State};
use crate::node::{CHAIN, Listener, Node, PATIENCE};
use crate::pki::{Authority, Issued, SERVER_NAME, replace};

/// The caller in the sentry's certificate.
pub(crate) const CALLER: &str = "spiffe://test/sentry/one";

pub(crate) struct House {
    pub(crate) directory: TempDir,
    pub(crate) authority: Authority,
    pub(crate) state: Arc<State>,
    pub(crate) hsmd: Option<Hsmd>,
    pub(crate) address: String,
}

pub(crate) struct Sentry {
    pub(crate) shutdown: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinHandle<Result<(), Error>>,
}

impl House {
    /// With an hsmd that runs, and a certificate for the sentry.
    pub(crate) async fn new() -> Self {
        let authority = Authority::new();
        let state = State::new();
        let hsmd = Hsmd::start(&authority, "127.0.0.1:0", Arc::clone(&state)).await;
        let directory = tempfile::tempdir().unwrap();
        replace(
            &directory.path().join("ca.pem"),
            &authority.certificate.pem(),
        );
        let house = Self {
            directory,
            authority,
            state,
            address: hsmd.address.to_string(),
            hsmd: Some(hsmd),
        };
        house.new_certificate().write(house.directory.path());
        house
    }

    pub(crate) fn new_certificate(&self) -> Issued {
        self.authority.client(&[CALLER], false)
    }

    /// Hsmd is killed.
    pub(crate) async fn kill_hsmd(&mut self) {
        self.hsmd.take().expect("hsmd runs").kill().await;
    }

    /// Hsmd is back, where it was.
    pub(crate) async fn start_hsmd(&mut self) {
        let hsmd = Hsmd::start(&self.authority, &self.address, Arc::clone(&self.state)).await;
        self.hsmd = Some(hsmd);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("privval.sock")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.directory.path().join("hsm-sentry.toml")
    }

    /// The configuration for these nodes, all of the same line; `more` goes into each chain.
    pub(crate) fn config_text(&self, line: &str, nodes: &[String], more: &str) -> String {
        let mut text = "[tls]\ncertificate = \"sentry.pem\"\nprivate_key = \"sentry.key\"\n\
                        ca = \"ca.pem\"\n"
            .to_owned();
        for node in nodes {
            text += &format!(
                "[[chain]]\nchain_id = {CHAIN:?}\ncometbft = {line:?}\nnode = {node:?}\nkey = \"main\"\n\
                 {more}\n[[chain.signer]]\naddress = {:?}\nserver_name = {SERVER_NAME:?}\n",
                self.address
            );
        }
        text
    }

    /// A sentry for one node on this house's UNIX socket, and the node once it is connected.
    pub(crate) async fn open(&self, line: &str, more: &str) -> (Sentry, Listener, Node) {
        let listener = Listener::unix(&self.socket());
        let node = format!("unix://{}", self.socket().display());
        let sentry = self.sentry(&self.config_text(line, &[node], more));
        let node = listener.accept().await;
        (sentry, listener, node)
    }

    pub(crate) fn sentry(&self, config: &str) -> Sentry {
        let config = Config::parse(&self.config_file(), config).unwrap();
        let (shutdown, told) = oneshot::channel();
        let run = hsm_sentry::run(config, async {
            let _ = told.await;
        });
        Sentry {
            shutdown: Some(shutdown),
            task: tokio::spawn(run),
        }
    }

    /// Waits until so many connections were made to hsmd.
    pub(crate) async fn connections(&self, count: usize) {
        reached(&self.state.connections, |(all, _)| *all >= count).await;
    }

    /// Waits until so many requests arrived at hsmd.
    pub(crate) async fn arrived(&self, count: usize) {
        reached(&self.state.arrived, |arrived| *arrived >= count).await;
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Sentry {
    /// As SIGTERM does.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        drop(self.shutdown.take());
        timeout(Duration::from_secs(8), self.task)
            .await
            .unwrap()
            .unwrap()
    }
}

pub(crate) async fn reached<T>(value: &watch::Sender<T>, condition: impl FnMut(&T) -> bool) {
    let mut value = value.subscribe();
    let reached = timeout(PATIENCE, value.wait_for(condition)).await;
    reached.expect("in time").unwrap();
}
