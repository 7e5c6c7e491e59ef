//! A running hsmd: its configuration, its commands, its end.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use hsm_device::Algorithm;
use hsm_device::mock::{Mock, Settings};
use serde_json::Value;

use crate::authority::{Authority, Identity, TRUST_DOMAIN, write_private};
use crate::binaries::{binary, softhsm_module};
use crate::policy;
use crate::process::{PATIENCE, Process, free_port, wait_for};
use crate::softhsm;

/// What holds the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hsm {
    /// SoftHSM, through PKCS#11.
    SoftHsm,
    /// The YubiHSM2 emulator inside hsmd.
    Mock,
}

/// An hsmd with everything it needs in one directory. Dropping it kills the process.
pub struct Daemon {
    directory: PathBuf,
    authority: Authority,
    hsm: Hsm,
    algorithm: Algorithm,
    port: u16,
    metrics_port: u16,
    /// The `[state]` section.
    state_section: String,
    /// The policy, as a draft.
    policy: String,
    process: Option<Process>,
}

impl Daemon {
    /// Makes an authority, an HSM with one Ed25519 key for each name, the configuration, this policy, and an
    /// empty journal.
    ///
    /// # Panics
    ///
    /// If a command of hsmd fails.
    #[must_use]
    pub fn set_up(directory: &Path, hsm: Hsm, keys: &[&str], policy: &str) -> Self {
        let device = match hsm {
            Hsm::SoftHsm => softhsm_device(directory, keys),
            Hsm::Mock => mock_device(directory, keys, Algorithm::Ed25519),
        };
        let anchor = "anchor = \"none\"\n";
        Self::set_up_over(
            directory,
            hsm,
            &device,
            keys,
            Algorithm::Ed25519,
            policy,
            anchor,
        )
    }

    /// The same over the mock, with this table `[state.anchor]`; without state, which is to be made.
    #[must_use]
    pub fn prepare_anchored(directory: &Path, keys: &[&str], policy: &str, table: &str) -> Self {
        let device = mock_device(directory, keys, Algorithm::Ed25519);
        let anchor = format!("[state.anchor]\n{table}");
        let algorithm = Algorithm::Ed25519;
        Self::prepare(
            directory,
            Hsm::Mock,
            &device,
            keys,
            algorithm,
            policy,
            &anchor,
        )
    }

    /// The same over the mock, with keys of this algorithm.
    #[must_use]
    pub fn set_up_mock(
        directory: &Path,
        keys: &[&str],
        algorithm: Algorithm,
        policy: &str,
    ) -> Self {
        let device = mock_device(directory, keys, algorithm);
        let anchor = "anchor = \"none\"\n";
        Self::set_up_over(
            directory,
            Hsm::Mock,
            &device,
            keys,
            algorithm,
            policy,
            anchor,
        )
    }

    fn set_up_over(
        directory: &Path,
        hsm: Hsm,
        device: &str,
        keys: &[&str],
        algorithm: Algorithm,
        policy: &str,
        anchor: &str,
    ) -> Self {
        let daemon = Self::prepare(directory, hsm, device, keys, algorithm, policy, anchor);
        daemon.create_state();
        daemon
    }

    fn prepare(
        directory: &Path,
        hsm: Hsm,
        device: &str,
        keys: &[&str],
        algorithm: Algorithm,
        policy: &str,
        anchor: &str,
    ) -> Self {
        let daemon = Self {
            directory: directory.to_owned(),
            authority: Authority::new(directory, "ca"),
            hsm,
            algorithm,
            port: free_port(),
            metrics_port: free_port(),
            state_section: format!("[state]\n{anchor}"),
            policy: policy.to_owned(),
            process: None,
        };
        let server = daemon.authority.signer("hsmd");
        daemon.write("hsmd.toml", &daemon.configuration(&server, device, keys));
        daemon.write("policy.toml", policy);
        daemon
    }

    /// Creates the state, with the harness's officer, who signs the policy.
    ///
    /// # Panics
    ///
    /// If a command fails.
    pub fn create_state(&self) {
        policy::create_state(&self.directory, &|arguments| self.command(arguments));
        self.load_policy(&self.policy);
    }

    /// Has the harness's officer sign this draft, and loads it.
    ///
    /// # Panics
    ///
    /// If a command fails.
    pub fn load_policy(&self, draft: &str) {
        policy::load(&self.directory, draft, &|arguments| self.command(arguments));
    }

    /// The policy as officers are to sign it, of the next version.
    #[must_use]
    pub fn policy_request(&self) -> String {
        policy::request(&self.directory, &self.policy, &|arguments| {
            self.command(arguments)
        })
    }

    /// Who issues certificates that this hsmd accepts.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.join("hsmd.toml")
    }

    /// The port for sentries, on localhost.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of the metrics, on localhost.
    #[must_use]
    pub fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// The journal's directory.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// `hsmd status`, from the running daemon.
    #[must_use]
    pub fn status(&self) -> Value {
        self.json(&["status", "--json"])
    }

    /// Starts it, and waits until it serves.
    pub fn start(&mut self) {
        self.start_without_waiting();
        self.wait_until_it_serves();
    }

    /// Starts it.
    pub fn start_without_waiting(&mut self) {
        let mut command = self.command(&["run"]);
        command.args(allow_root());
        self.process = Some(Process::start("hsmd", &mut command, &self.directory));
    }

    /// Starts it in a network namespace, listening for sentries on this address there, and waits until it serves.
    pub fn start_within(&mut self, namespace: &str, address: Ipv4Addr) {
        let text = std::fs::read_to_string(self.config()).expect("the configuration");
        let (port, run) = (self.port, self.command(&["run"]));
        let here = format!("\"127.0.0.1:{port}\"");
        let there = format!("\"{address}:{port}\"");
        self.write("hsmd.toml", &text.replace(&here, &there));
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", namespace])
            .arg(run.get_program())
            .args(run.get_args())
            .args(allow_root());
        self.process = Some(Process::start("hsmd", &mut command, &self.directory));
        self.wait_until_it_serves();
    }

    fn wait_until_it_serves(&mut self) {
        wait_for("hsmd to serve", PATIENCE, || {
            self.process().assert_running();
            self.command(&["status"])
                .output()
                .expect("hsmd runs")
                .status
                .success()
                .then_some(())
        });
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The running process.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a running hsmd")
    }

    /// `hsmd key init`.
    pub fn init_key(&self, key: &str, chain_id: &str, height: i64) {
        let height = height.to_string();
        self.succeed(
            &["key", "init", key, "--chain", chain_id, "--height", &height],
            allow_root(),
        );
    }

    /// A key's raw public key, from the running daemon.
    #[must_use]
    pub fn public_key(&self, key: &str) -> Vec<u8> {
        let shown = self.json(&["key", "show", key, "--format", "cometbft"]);
        STANDARD
            .decode(shown["pub_key"]["value"].as_str().expect("a string"))
            .expect("base64")
    }

    /// All marks, from the running daemon.
    #[must_use]
    pub fn state(&self) -> Value {
        self.json(&["state", "show", "--json"])
    }

    /// All entries of the journal, from its files.
    #[must_use]
    pub fn journal(&self) -> Vec<Value> {
        let text = self.succeed(&["journal", "show", "--json"], None);
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a JSON object a line"))
            .collect()
    }

    /// A metric's value, by its name with labels.
    #[must_use]
    pub fn metric(&self, series: &str) -> Option<f64> {
        crate::http::metric(self.metrics_port, series)
    }

    /// Gives the mock an order over its control socket (`yubihsm-emulator control --help`).
    ///
    /// # Panics
    ///
    /// If it does not obey.
    pub fn order_mock(&self, order: &str) {
        let mut socket = UnixStream::connect(control_socket(&self.directory)).expect("the socket");
        writeln!(socket, "{order}").expect("an order sent");
        let mut answer = String::new();
        let mut reader = BufReader::new(socket);
        reader.read_line(&mut answer).expect("an answer");
        assert!(answer.starts_with("ok"), "{order}: {answer}");
    }

    /// Runs a command of hsmd on this configuration.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("hsmd"));
        command.args(arguments).arg("--config").arg(self.config());
        command.env(
            softhsm::CONFIGURATION_VARIABLE,
            softhsm::configuration(&self.directory),
        );
        if self.hsm == Hsm::Mock {
            command.arg("--mock");
        }
        command
    }

    /// Runs a command, which must succeed; returns what it prints.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn succeed(&self, arguments: &[&str], option: Option<&str>) -> String {
        let output: Output = self
            .command(arguments)
            .args(option)
            .output()
            .expect("hsmd runs");
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "hsmd {arguments:?}: {}\n{out}{err}",
            output.status
        );
        out.into_owned()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(arguments, None)).expect("JSON")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text).expect("a configuration file");
    }

    fn configuration(&self, server: &Identity, device: &str, keys: &[&str]) -> String {
        let Self {
            port,
            metrics_port,
            directory,
            algorithm,
            state_section,
            ..
        } = self;
        let Identity {
            certificate,
            private_key,
        } = server;
        let mut text = format!(
            "state_dir = {:?}\n\
             [listen]\naddress = \"127.0.0.1:{port}\"\ncertificate = {certificate:?}\n\
             private_key = {private_key:?}\nclient_ca = {:?}\ntrust_domain = {TRUST_DOMAIN:?}\n\
             [admin]\nsocket = {:?}\n\
             [metrics]\nlisten = \"127.0.0.1:{metrics_port}\"\n\
             {state_section}\
             [[device]]\nname = \"hsm\"\n{device}",
            directory.join("state"),
            self.authority.certificate(),
            directory.join("admin.sock"),
        );
        for key in keys {
            write!(
                text,
                "[[key]]\nname = {key:?}\ndevices = [\"hsm\"]\nalgorithm = \"{algorithm}\"\nlabel = {key:?}\n"
            )
            .expect("a string grows");
        }
        text
    }
}

/// `--allow-root` where the tests run as root, as they do in containers.
#[must_use]
pub fn allow_root() -> Option<&'static str> {
    nix::unistd::geteuid().is_root().then_some("--allow-root")
}

/// A `[[grant]]` of the policy.
#[must_use]
pub fn grant(caller: &str, key: &str, chain_id: &str, kinds: &[&str]) -> String {
    format!(
        "[[grant]]\ncallers = [{caller:?}]\nkey = {key:?}\nchain_id = {chain_id:?}\nkinds = {kinds:?}\n"
    )
}

/// All kinds that a validator needs.
pub const ALL_KINDS: [&str; 4] = ["proposal", "prevote", "precommit", "extension"];

fn softhsm_device(directory: &Path, keys: &[&str]) -> String {
    let module = softhsm_module().expect("SoftHSM's module");
    softhsm::create_token(directory);
    for (number, key) in (1..).zip(keys) {
        softhsm::import_ed25519(
            directory,
            key,
            number,
            &SigningKey::from_bytes(&[number; 32]),
        );
    }
    let pin = directory.join("pin");
    write_private(&pin, softhsm::PIN);
    format!(
        "backend = \"pkcs11\"\nmodule = {module:?}\ntoken = {:?}\npin_file = {pin:?}\n",
        softhsm::TOKEN
    )
}

fn mock_device(directory: &Path, keys: &[&str], algorithm: Algorithm) -> String {
    let state = directory.join("mock.state");
    let settings = Settings {
        state_file: Some(state.clone()),
        ..Settings::default()
    };
    let mock = Mock::start(settings).expect("the emulator starts");
    for key in keys {
        mock.ensure_key(key, algorithm)
            .expect("a key in the emulator");
    }
    let control = control_socket(directory);
    format!("backend = \"mock\"\nstate_file = {state:?}\ncontrol = {control:?}\n")
}

fn control_socket(directory: &Path) -> PathBuf {
    directory.join("mock.sock")
}
