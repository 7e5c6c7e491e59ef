//! hsmd in a process of its own: all of it, over a device that signs in software. Such a device exists only
//! here; no configuration of hsmd can ask for one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer as _, SigningKey};
use hsm_device::{
    Backend, Device, Error, Info, KeyLocator, Opener, PublicKey, Signature, WorkerOptions,
};
use hsm_proto::v1::{InitKeyRequest, LedgerUse};
use hsm_tests::authority::{Authority, Identity, TRUST_DOMAIN, uri};
use hsm_tests::daemon::grant;
use hsm_tests::process::{PATIENCE, Process, free_port, wait_for};
use hsm_tests::sentry::{Chain, Sentry};
use hsmd::config::{Config, MockDevices};
use hsmd::daemon::{self, Daemon};
use hsmd::devices;
use hsmd::ledger::Ledger;
use sha2::{Digest, Sha256};

use crate::chain_id;
use crate::driver::Nodes;
use crate::unguarded;

/// The one caller that the policy knows.
pub(crate) const SENTRY: &str = "bench";
const DEVICE: &str = "software";
/// More than callers at once. hsmd itself lets 128 wait for a device, which a YubiHSM2 would need 13 s for.
const QUEUE: usize = 512;

/// What is started.
#[derive(Clone, Copy)]
pub(crate) enum Serve {
    /// hsmd.
    Whole,
    /// Its server with the guard switched off: [`unguarded`].
    Unguarded,
}

impl Serve {
    /// The program's first argument.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "serve",
            Self::Unguarded => "serve-unguarded",
        }
    }
}

/// A running hsmd.
pub(crate) struct Server {
    port: u16,
    metrics_port: u16,
    authority: Authority,
    process: Process,
}

impl Server {
    /// Starts one that signs for `chains` chains, each with a key of its own.
    pub(crate) fn start(sockets: &Path, state: &Path, chains: usize, latency: Duration) -> Self {
        Self::start_as(Serve::Whole, sockets, state, chains, latency, "")
    }

    /// This one, with more tables in its configuration.
    pub(crate) fn start_as(
        serve: Serve,
        sockets: &Path,
        state: &Path,
        chains: usize,
        latency: Duration,
        tables: &str,
    ) -> Self {
        let (port, metrics_port) = (free_port(), free_port());
        let authority = Authority::new(state, "ca");
        let keys: Vec<String> = (0..chains).map(chain_id).collect();
        let config = write_config(sockets, state, &authority, [port, metrics_port], &keys);
        let text = std::fs::read_to_string(&config).expect("the configuration");
        std::fs::write(&config, text + tables).expect("the configuration");
        make_known(&config, &keys);
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .arg(serve.name())
            .arg(&config)
            .arg(latency.as_millis().to_string());
        let mut process = Process::start("hsmd", &mut command, state);
        wait_for("hsmd to serve", PATIENCE, || {
            process.assert_running();
            hsm_tests::http::get(metrics_port, "/metrics").map(drop)
        });
        Self {
            port,
            metrics_port,
            authority,
            process,
        }
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of its authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.authority.certificate()
    }

    /// What the one caller that the policy knows shows.
    pub(crate) fn sentry_identity(&self) -> Identity {
        self.authority.sentry(SENTRY)
    }

    pub(crate) fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// Starts an hsm-sentry between these nodes and hsmd. Its line has no vote extensions: tmkms signs none.
    pub(crate) fn start_sentry(&self, sockets: &Path, nodes: &Nodes) -> Sentry {
        let ids: Vec<String> = nodes
            .addresses()
            .enumerate()
            .map(|(index, _)| chain_id(index))
            .collect();
        let chains: Vec<Chain<'_>> = nodes
            .addresses()
            .zip(&ids)
            .map(|(node, id)| Chain {
                chain_id: id,
                cometbft: "0.37",
                node,
                key: id,
                signer: self.port,
            })
            .collect();
        let identity = self.authority.sentry(SENTRY);
        let mut sentry = Sentry::new(
            sockets,
            SENTRY,
            &identity,
            &self.authority.certificate(),
            &chains,
        );
        sentry.start();
        sentry
    }
}

/// Serves until killed.
pub(crate) fn serve(what: Serve, config: &Path, latency: Duration) {
    let config = Config::load(config, MockDevices::Refused).expect("a good configuration");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let device = start_device(latency);
        if matches!(what, Serve::Unguarded) {
            unguarded::serve(&config, device).await;
            return;
        }
        let daemon = Daemon::open(&config, vec![device])
            .await
            .expect("the daemon opens");
        daemon
            .serve(std::future::pending())
            .await
            .expect("the daemon serves");
    });
}

/// Writes the configuration of an hsmd with these keys, and returns its path. The device that it names is
/// never opened: it stands for the one that is handed to the daemon.
pub(crate) fn write_config(
    sockets: &Path,
    state: &Path,
    authority: &Authority,
    [port, metrics_port]: [u16; 2],
    keys: &[String],
) -> PathBuf {
    let Identity {
        certificate,
        private_key,
    } = authority.signer("hsmd");
    let mut text = format!(
        "state_dir = {:?}\n\
         [listen]\naddress = \"127.0.0.1:{port}\"\ncertificate = {certificate:?}\n\
         private_key = {private_key:?}\nclient_ca = {:?}\ntrust_domain = {TRUST_DOMAIN:?}\n\
         [admin]\nsocket = {:?}\n[metrics]\nlisten = \"127.0.0.1:{metrics_port}\"\n\
         [state]\nanchor = \"none\"\n\
         [[device]]\nname = {DEVICE:?}\nbackend = \"yubihsm\"\nconnector = \"http://127.0.0.1:9\"\n\
         authentication_key = 1\npassword_file = {private_key:?}\n",
        state.join("state"),
        authority.certificate(),
        sockets.join("admin.sock"),
    );
    let mut policy = String::new();
    for key in keys {
        write!(
            text,
            "[[key]]\nname = {key:?}\ndevices = [{DEVICE:?}]\nalgorithm = \"ed25519\"\nlabel = {key:?}\n"
        )
        .expect("a string grows");
        policy += &grant(
            &uri("sentry", SENTRY),
            key,
            key,
            &["proposal", "prevote", "precommit"],
        );
    }
    let config = state.join("hsmd.toml");
    std::fs::write(&config, text).expect("the configuration");
    let hsmd = |arguments: &[&str]| {
        let mut command = Command::new(hsm_tests::binaries::binary("hsmd"));
        command.args(arguments).arg("--config").arg(&config);
        command
    };
    hsm_tests::policy::create_state(state, &hsmd);
    hsm_tests::policy::load(state, &policy, &hsmd);
    config
}

/// What `hsmd key init` does, for every key, over the software device.
pub(crate) fn make_known(config: &Path, keys: &[String]) {
    let config = Config::load(config, MockDevices::Refused).expect("a good configuration");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let guard = daemon::open_guard(&config).expect("the journal opens");
        let keyring =
            devices::keyring(&config, vec![start_device(Duration::ZERO)]).expect("the advisories");
        let ledger = Ledger::new(config.ledger.as_ref(), &guard, config.deadline)
            .expect("the way to the ledgers");
        let shared = config.ledger.as_ref().map(|_| LedgerUse::Create);
        for key in keys {
            let request = InitKeyRequest {
                key: key.clone(),
                chain_id: key.clone(),
                height: 0,
                ledger: shared.unwrap_or(LedgerUse::None).into(),
            };
            hsmd::key::init(&keyring, &guard, &ledger, &request)
                .await
                .expect("the key is made known");
        }
        guard.close().expect("the journal closes");
    });
}

fn start_device(latency: Duration) -> hsmd::keyring::Device {
    let opener = Opener::new(Backend::Pkcs11, move || {
        Ok(Box::new(Software {
            latency,
            keys: HashMap::new(),
        }) as Box<dyn Device>)
    });
    let options = WorkerOptions {
        queue: QUEUE,
        ..WorkerOptions::default()
    };
    devices::start_one(DEVICE, opener, options).expect("a device")
}

/// Waits to the microsecond, so that what is measured beyond it is not the timer's.
pub(crate) fn pause(time: Duration) {
    let begun = Instant::now();
    std::thread::sleep(time.saturating_sub(Duration::from_millis(2)));
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Signs in software, with keys made from their labels, and takes as long as it is told to.
struct Software {
    latency: Duration,
    keys: HashMap<String, SigningKey>,
}

impl Software {
    fn key(&mut self, locator: &KeyLocator) -> &SigningKey {
        let label = locator.label.clone().unwrap_or_default();
        self.keys
            .entry(label)
            .or_insert_with_key(|label| SigningKey::from_bytes(&Sha256::digest(label).into()))
    }
}

impl Device for Software {
    fn info(&mut self) -> Result<Info, Error> {
        Ok(Info {
            model: "software".to_owned(),
            serial: String::new(),
            firmware: String::new(),
            certificate: None,
        })
    }

    fn public_key(&mut self, locator: &KeyLocator) -> Result<PublicKey, Error> {
        PublicKey::from_parts(
            locator.algorithm,
            &self.key(locator).verifying_key().to_bytes(),
        )
    }

    fn sign(&mut self, locator: &KeyLocator, message: &[u8]) -> Result<Signature, Error> {
        let begun = Instant::now();
        let signature = self.key(locator).sign(message).to_bytes();
        pause(self.latency.saturating_sub(begun.elapsed()));
        Ok(Signature(signature))
    }

    fn keep_alive(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
