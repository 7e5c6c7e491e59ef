//! A witness of transparency logs that is not ours: torchwood's litewitness, with its key in an ssh-agent.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{PATIENCE, Process, free_port, wait_for};

/// A running litewitness. Dropping it kills it and its agent.
pub struct Witness {
    port: u16,
    key: String,
    database: PathBuf,
    _witness: Process,
    _agent: Process,
}

impl Witness {
    /// Starts one, with a fresh key, which knows no log.
    ///
    /// # Panics
    ///
    /// If it does not get ready.
    #[must_use]
    pub fn start(binary: &Path, directory: &Path) -> Self {
        let socket = directory.join("agent.sock");
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket);
        let agent = Process::start("ssh-agent", &mut command, directory);
        wait_for("the agent's socket", PATIENCE, || {
            socket.exists().then_some(())
        });
        let private = directory.join("witness-key");
        succeed(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&private),
        );
        succeed(
            Command::new("ssh-add")
                .arg("-q")
                .arg(&private)
                .env("SSH_AUTH_SOCK", &socket),
        );
        let shown = succeed(Command::new("ssh-keygen").arg("-lf").arg(&private));
        let fingerprint = shown.split(' ').nth(1).expect("a fingerprint").to_owned();
        let (port, database) = (free_port(), directory.join("witness.db"));
        let mut command = Command::new(binary);
        command.args(["-name", "witness.example/w1", "-key", &fingerprint]);
        command
            .arg("-ssh-agent")
            .arg(&socket)
            .arg("-db")
            .arg(&database);
        command.arg("-listen").arg(format!("127.0.0.1:{port}"));
        let witness = Process::start("litewitness", &mut command, directory);
        let log = directory.join("litewitness.log");
        let key = wait_for("the witness's key", PATIENCE, || {
            let text = std::fs::read_to_string(&log).ok()?;
            let (_, after) = text.split_once("vkey=")?;
            let (key, _) = after.split_once('\n')?;
            Some(key.trim_matches('"').to_owned())
        });
        Self {
            port,
            key,
            database,
            _witness: witness,
            _agent: agent,
        }
    }

    /// Where it takes checkpoints.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its verifier key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Has it know a log, as `witnessctl add-log` and `add-key` do.
    pub fn add_log(&self, origin: &str, key: &str) {
        let script = "import sqlite3, sys, base64, hashlib\n\
                      empty = base64.b64encode(hashlib.sha256(b'').digest()).decode()\n\
                      with sqlite3.connect(sys.argv[1], timeout=20) as db:\n\
                      \x20   db.execute('INSERT INTO log VALUES (?, 0, ?)', (sys.argv[2], empty))\n\
                      \x20   db.execute('INSERT INTO key VALUES (?, ?)', (sys.argv[2], sys.argv[3]))\n";
        succeed(
            Command::new("python3")
                .args(["-c", script])
                .arg(&self.database)
                .args([origin, key]),
        );
    }

    /// How many entries the tree has that it cosigned last.
    #[must_use]
    pub fn size(&self, origin: &str) -> u64 {
        let script = "import sqlite3, sys\n\
                      db = sqlite3.connect(sys.argv[1], timeout=20)\n\
                      print(db.execute('SELECT tree_size FROM log WHERE origin = ?', (sys.argv[2],)).fetchone()[0])";
        let shown = succeed(
            Command::new("python3")
                .args(["-c", script])
                .arg(&self.database)
                .arg(origin),
        );
        shown.trim().parse().expect("a number")
    }
}

fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
