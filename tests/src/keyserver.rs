//! A running hsm-enroll, and what joins it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hsm_device::Algorithm;
use hsm_device::mock::{Mock, Settings};
use serde_json::Value;

use crate::authority::{Identity, TRUST_DOMAIN, write_private};
use crate::binaries::binary;
use crate::daemon::allow_root;
use crate::process::{PATIENCE, Process, free_port, wait_for};

/// What its certificate says.
pub const NAME: &str = "hsm-enroll.test";

/// An hsm-enroll whose CA's key is in the mock, in a directory of its own. Dropping it kills the process.
pub struct Keyserver {
    directory: PathBuf,
    address: Ipv4Addr,
    port: u16,
    fingerprint: String,
    process: Option<Process>,
}

/// A node's folder.
pub struct Joined(pub PathBuf);

impl Joined {
    /// A file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The certificate and key in one of its files: "client", "server" or "grant".
    #[must_use]
    pub fn identity(&self, name: &str) -> Identity {
        let file = self.path(&format!("{name}.pem"));
        Identity {
            certificate: file.clone(),
            private_key: file,
        }
    }
}

impl Keyserver {
    /// Makes the CA and the register, and serves at this address. `lifetimes` is the table `[lifetime]`.
    ///
    /// # Panics
    ///
    /// If `hsm-enroll init` fails.
    #[must_use]
    pub fn start(directory: &Path, address: Ipv4Addr, lifetimes: &str) -> Self {
        let mut server = Self::prepare(directory, address, lifetimes);
        server.succeed(server.command(&["init", "--mock"]));
        server.serve();
        server
    }

    /// The same on loopback, where the CA's certificate is signed by a root that is elsewhere: openssl's.
    ///
    /// # Panics
    ///
    /// If openssl does not do it.
    #[must_use]
    pub fn start_under_root(directory: &Path) -> Self {
        let mut server = Self::prepare(directory, Ipv4Addr::LOCALHOST, "");
        let config = directory.join("hsm-enroll.toml");
        let text = std::fs::read_to_string(&config).expect("the configuration");
        let text = text.replacen("[ca]\n", "[ca]\nroot = \"root.pem\"\n", 1);
        std::fs::write(&config, text).expect("the configuration");
        let mut init = server.command(&["init", "--mock"]);
        init.arg("--request").arg(directory.join("ca.csr"));
        server.succeed(init);
        let extensions = "basicConstraints=critical,CA:TRUE,pathlen:0\n\
                          keyUsage=critical,keyCertSign,digitalSignature\n\
                          subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
        std::fs::write(directory.join("extensions"), extensions).expect("a file");
        for line in [
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -out root.pem -days 10 \
             -subj /CN=root -addext keyUsage=critical,keyCertSign",
            "x509 -req -in ca.csr -CA root.pem -CAkey root.key -CAcreateserial -days 5 -extfile extensions -out ca.pem",
        ] {
            let mut command = Command::new("openssl");
            command.args(line.split_whitespace()).current_dir(directory);
            server.succeed(command);
        }
        server.serve();
        server
    }

    fn prepare(directory: &Path, address: Ipv4Addr, lifetimes: &str) -> Self {
        std::fs::create_dir_all(directory).expect("the keyserver's directory");
        let state = directory.join("mock.state");
        let settings = Settings {
            state_file: Some(state.clone()),
            ..Settings::default()
        };
        let mock = Mock::start(settings).expect("the emulator starts");
        mock.ensure_key("ca", Algorithm::P256)
            .expect("the CA's key");
        drop(mock);
        let port = free_port();
        let config = format!(
            "state_dir = \"register\"\ntrust_domain = {TRUST_DOMAIN:?}\n\
             [listen]\naddress = \"{address}:{port}\"\nnames = [{NAME:?}]\n\
             [admin]\nsocket = \"admin.sock\"\n\
             [ca]\ncertificate = \"ca.pem\"\nlabel = \"ca\"\n\
             [ca.device]\nbackend = \"mock\"\nstate_file = {state:?}\n\
             [lifetime]\n{lifetimes}"
        );
        std::fs::write(directory.join("hsm-enroll.toml"), config).expect("a configuration file");
        Self {
            directory: directory.to_owned(),
            address,
            port,
            fingerprint: String::new(),
            process: None,
        }
    }

    /// Starts it again, and waits until it serves.
    pub fn serve(&mut self) {
        let mut command = self.command(&["serve", "--mock"]);
        command.args(allow_root());
        self.process = Some(Process::start("hsm-enroll", &mut command, &self.directory));
        wait_for("hsm-enroll to serve", PATIENCE, || {
            self.process.as_mut().expect("started").assert_running();
            let output = self.command(&["nodes"]).output().expect("hsm-enroll runs");
            output.status.success().then_some(())
        });
        let nodes = self.json(&["nodes"]);
        let fingerprint = nodes["ca_fingerprint"].as_str().expect("a fingerprint");
        fingerprint.clone_into(&mut self.fingerprint);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM; it must end cleanly.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("a running hsm-enroll");
        assert!(process.terminate().success(), "{}", process.log());
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A token for a node, in a file.
    #[must_use]
    pub fn token(&self, node: &str, role: &str, more: &[&str]) -> PathBuf {
        let arguments = [&["token", "--node", node, "--role", role], more].concat();
        let made = self.json(&arguments);
        let token = made["token"].as_str().expect("a token");
        let number = std::fs::read_dir(&self.directory)
            .expect("a directory")
            .count();
        let file = self.directory.join(format!("token-{node}-{number}"));
        write_private(&file, token);
        file
    }

    /// `hsm-enroll join`, to be run.
    #[must_use]
    pub fn join(&self, node: &str, token: &Path, directory: &Path) -> Command {
        let mut command = Command::new(binary("hsm-enroll"));
        command
            .args(["join", "--server", &self.address()])
            .args(["--server-name", NAME])
            .args(["--ca-fingerprint", &self.fingerprint, "--node", node])
            .arg("--token-file")
            .arg(token)
            .arg("--directory")
            .arg(directory);
        command
    }

    /// Has a node join with a new token. Its folder is beside the server's.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[must_use]
    pub fn admit(&self, node: &str, role: &str, more: &[&str]) -> Joined {
        let token = self.token(node, role, more);
        let folder = self.directory.with_file_name(format!("node-{node}"));
        self.succeed(self.join(node, &token, &folder));
        Joined(folder)
    }

    /// A command on its configuration.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("hsm-enroll"));
        let config = self.directory.join("hsm-enroll.toml");
        command.args(arguments).arg("--config").arg(config);
        command
    }

    /// What a command prints with `--json`.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.succeed(self.command(&[arguments, &["--json"]].concat()));
        serde_json::from_str(&printed).expect("JSON")
    }

    /// All entries of the register's journal, from its files.
    #[must_use]
    pub fn journal(&self) -> Vec<Value> {
        let text = self.succeed(self.command(&["journal", "--mock", "--json"]));
        let entry = |line| serde_json::from_str(line).expect("a JSON object a line");
        text.lines().map(entry).collect()
    }

    /// The reasons of the refusals in the journal, in order.
    #[must_use]
    pub fn refusals(&self) -> Vec<String> {
        let journal = self.journal();
        let refused = journal.iter().filter(|entry| entry["event"] == "refused");
        let reason = |entry: &Value| entry["fields"]["reason"].as_str().map(str::to_owned);
        refused.filter_map(reason).collect()
    }

    /// Runs a command, which must succeed; returns what it prints.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn succeed(&self, mut command: Command) -> String {
        let output: Output = command.output().expect("hsm-enroll runs");
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "{command:?}: {}\n{out}{err}",
            output.status
        );
        out.into_owned()
    }

    /// Runs a command, which must fail with exit code 1; returns what it says.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn fail(&self, mut command: Command) -> String {
        let output = command.output().expect("hsm-enroll runs");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {err}");
        err
    }
}
