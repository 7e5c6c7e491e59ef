//! The binary, and its control socket.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use yubihsm::{Client, Connector, Credentials, HttpConfig};

use crate::PATIENCE;

const BINARY: &str = env!("CARGO_BIN_EXE_yubihsm-emulator");

/// A running emulator in a process of its own.
struct Running {
    child: Child,
    port: u16,
    socket: PathBuf,
}

impl Running {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        let socket = directory.join("control.sock");
        let mut child = Command::new(BINARY)
            .args(["--listen", "127.0.0.1:0", "--control"])
            .arg(&socket)
            .args(arguments)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let line = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap)
            .find(|line| line.contains("address="))
            .expect("a line with the address");
        let address = line.split("address=").nth(1).unwrap();
        let port = address.split([':', ' ']).nth(1).unwrap().parse().unwrap();
        Self {
            child,
            port,
            socket,
        }
    }

    fn order(&self, order: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.arg("control").arg(&self.socket).args(order);
        command.output().unwrap()
    }

    /// What a good order is answered with.
    fn obeys(&self, order: &[&str]) -> String {
        let output = self.order(order);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{order:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn echo(&self) -> Result<(), yubihsm::client::Error> {
        let config = HttpConfig {
            port: self.port,
            ..HttpConfig::default()
        };
        let connector = Connector::http(&config);
        let client = Client::open(connector, Credentials::default(), false)?;
        client.echo(&b"hello"[..]).map(drop)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn faults_and_latency_change_while_the_emulator_runs() {
    let directory = tempfile::tempdir().unwrap();
    let emulator = Running::start(directory.path(), &["--fault", "disconnect"]);
    emulator.echo().unwrap_err();
    assert_eq!(
        emulator.obeys(&["status"]),
        "ok fault=disconnect latency=none\n"
    );
    assert_eq!(emulator.obeys(&["clear"]), "ok\n");
    emulator.echo().unwrap();

    emulator.obeys(&["fault", "refuse=0x0a"]);
    emulator.echo().unwrap_err();
    emulator.obeys(&["clear"]);

    emulator.obeys(&["latency", "0x01=150,*=0"]);
    assert_eq!(
        emulator.obeys(&["status"]),
        "ok fault=none latency=0x01=150,*=0\n"
    );
    let begun = Instant::now();
    emulator.echo().unwrap();
    assert!(begun.elapsed().as_millis() >= 150);
}

#[test]
fn an_order_that_is_none_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let emulator = Running::start(directory.path(), &[]);
    for order in [
        &["fault"][..],
        &["fault", "burn"],
        &["latency", "slow"],
        &["clear", "all"],
        &["status", "now"],
        &["reboot"],
    ] {
        let output = emulator.order(order);
        assert!(!output.status.success(), "{order:?}");
        assert!(!output.stderr.is_empty(), "{order:?}");
    }
    assert_eq!(emulator.obeys(&["status"]), "ok fault=none latency=none\n");
}

#[test]
fn the_control_socket_is_its_owners_alone_and_an_abandoned_one_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let emulator = Running::start(directory.path(), &[]);
    let mode = std::fs::metadata(&emulator.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let second = Command::new(BINARY)
        .args(["--listen", "127.0.0.1:0", "--control"])
        .arg(&emulator.socket)
        .output()
        .unwrap();
    assert!(!second.status.success(), "two on one socket");

    drop(emulator);
    let again = Running::start(directory.path(), &[]);
    assert_eq!(again.obeys(&["clear"]), "ok\n");
}

#[test]
fn a_hang_is_ended_from_outside() {
    let directory = tempfile::tempdir().unwrap();
    let emulator = Running::start(directory.path(), &["--fault", "hang"]);
    let (done, answered) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| done.send(emulator.echo()).unwrap());
        let waited = answered.recv_timeout(Duration::from_millis(200));
        assert_eq!(waited.unwrap_err(), mpsc::RecvTimeoutError::Timeout);
        emulator.obeys(&["clear"]);
        answered.recv_timeout(PATIENCE).unwrap().unwrap();
    });
}
