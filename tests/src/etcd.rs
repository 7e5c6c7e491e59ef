//! A real etcd cluster of three members on loopback, with client certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::ExtendedKeyUsagePurpose;
use serde_json::Value;

use crate::authority::{Authority, Contents, Identity};
use crate::process::{PATIENCE, Process, free_port, wait_for};

const MEMBERS: usize = 3;

/// A cluster. Dropping it kills its members.
pub struct Etcd {
    directory: PathBuf,
    authority: Authority,
    server: Identity,
    client: Identity,
    /// Where clients may come to besides loopback.
    host: String,
    ports: [(u16, u16); MEMBERS],
    members: [Option<Process>; MEMBERS],
    /// Names the data directories, which a restored backup leaves behind.
    life: usize,
    token: String,
}

/// The programs that these tests need, where both are installed.
#[must_use]
pub fn installed() -> Option<()> {
    let there = |program: &str| Command::new(program).arg("version").output().is_ok();
    (there("etcd") && there("etcdctl")).then_some(())
}

impl Etcd {
    /// Starts one whose members clients reach at 127.0.0.1.
    #[must_use]
    pub fn start(directory: &Path) -> Self {
        Self::start_at(directory, "127.0.0.1")
    }

    /// Starts one whose members clients reach at this address of ours too, and waits for its quorum.
    #[must_use]
    pub fn start_at(directory: &Path, host: &str) -> Self {
        let authority = Authority::new(directory, "etcd-ca");
        let contents = |hosts: &[&str], usage| Contents {
            uris: Vec::new(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            not_after: None,
            usage,
        };
        let served = ["127.0.0.1", host];
        let server = contents(&served, ExtendedKeyUsagePurpose::ServerAuth);
        let client = contents(&[], ExtendedKeyUsagePurpose::ClientAuth);
        let mut etcd = Self {
            directory: directory.to_owned(),
            server: authority.issue("etcd", server),
            client: authority.issue("etcd-client", client),
            authority,
            host: host.to_owned(),
            ports: [(); MEMBERS].map(|()| (free_port(), free_port())),
            members: [const { None }; MEMBERS],
            life: 0,
            token: "first".to_owned(),
        };
        for member in 0..MEMBERS {
            etcd.start_member(member);
        }
        etcd.wait_for_quorum();
        etcd
    }

    /// hsmd's `[ledger]`.
    #[must_use]
    pub fn configuration(&self) -> String {
        let endpoints: Vec<String> = self
            .ports
            .iter()
            .map(|(client, _)| format!("https://{}:{client}", self.host))
            .collect();
        format!(
            "[ledger]\nendpoints = {endpoints:?}\nca = {:?}\ncertificate = {:?}\nprivate_key = {:?}\n",
            self.authority.certificate(),
            self.client.certificate,
            self.client.private_key
        )
    }

    /// Starts a member, again too.
    pub fn start_member(&mut self, member: usize) {
        let (client, peer) = self.ports[member];
        let mut urls = vec![format!("https://127.0.0.1:{client}")];
        if self.host != "127.0.0.1" {
            urls.push(format!("https://{}:{client}", self.host));
        }
        let urls = urls.join(",");
        let mut command = Command::new("etcd");
        command
            .args(["--name", &name(member), "--data-dir"])
            .arg(self.data(member))
            .args(["--listen-client-urls", &urls])
            .args(["--advertise-client-urls", &urls])
            .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")])
            .args([
                "--initial-advertise-peer-urls",
                &format!("http://127.0.0.1:{peer}"),
            ])
            .args(["--initial-cluster", &self.cluster()])
            .args(["--initial-cluster-token", &self.token])
            .args(["--client-cert-auth", "--trusted-ca-file"])
            .arg(self.authority.certificate())
            .arg("--cert-file")
            .arg(&self.server.certificate)
            .arg("--key-file")
            .arg(&self.server.private_key)
            .args(["--logger", "zap", "--log-outputs", "stderr"]);
        let process = Process::start(&name(member), &mut command, &self.directory);
        self.members[member] = Some(process);
    }

    /// SIGKILL.
    pub fn kill_member(&mut self, member: usize) {
        self.members[member] = None;
    }

    /// Waits until a majority of the members answers.
    pub fn wait_for_quorum(&self) {
        wait_for("a quorum of etcd", PATIENCE, || {
            let mut written = self.ctl(&["put", "tests/alive", "yes", "--command-timeout=2s"]);
            written.output().ok()?.status.success().then_some(())
        });
    }

    /// The member that leads, once there is one.
    #[must_use]
    pub fn leader(&self) -> usize {
        wait_for("a leader", PATIENCE, || {
            let output = self.ctl(&["endpoint", "status", "-w", "json"]).output();
            let status: Value = serde_json::from_slice(&output.ok()?.stdout).ok()?;
            let leads =
                |one: &Value| one["Status"]["leader"] == one["Status"]["header"]["member_id"];
            let found = status.as_array()?.iter().find(|one| leads(one))?;
            let endpoint = found["Endpoint"].as_str()?;
            let port: u16 = endpoint.rsplit(':').next()?.parse().ok()?;
            self.ports.iter().position(|(client, _)| *client == port)
        })
    }

    /// Writes a backup.
    ///
    /// # Panics
    ///
    /// If etcdctl fails.
    #[must_use]
    pub fn back_up(&self, file: &str) -> PathBuf {
        let file = self.directory.join(file);
        let (port, _) = self.ports[0];
        let mut save = self.ctl_at(&format!("https://127.0.0.1:{port}"), &["snapshot", "save"]);
        succeed(save.arg(&file));
        file
    }

    /// Stops all members, and starts them from the backup. With another token it is another cluster.
    ///
    /// # Panics
    ///
    /// If etcdctl fails.
    pub fn restore(&mut self, backup: &Path, token: &str) {
        self.members = [const { None }; MEMBERS];
        self.life += 1;
        token.clone_into(&mut self.token);
        for member in 0..MEMBERS {
            let mut restore = self.ctl_at("", &["snapshot", "restore"]);
            let peer = self.ports[member].1;
            restore
                .arg(backup)
                .args(["--name", &name(member), "--data-dir"])
                .arg(self.data(member))
                .args(["--initial-cluster", &self.cluster()])
                .args(["--initial-cluster-token", token])
                .args([
                    "--initial-advertise-peer-urls",
                    &format!("http://127.0.0.1:{peer}"),
                ]);
            succeed(&mut restore);
        }
        for member in 0..MEMBERS {
            self.start_member(member);
        }
        self.wait_for_quorum();
    }

    /// Raises etcd's revision by at least so many, as `etcdutl snapshot restore --bump-revision` of later versions does.
    ///
    /// # Panics
    ///
    /// If etcdctl fails.
    pub fn bump_revision(&self, by: usize) {
        for _ in 0..by {
            succeed(&mut self.ctl(&["put", "tests/bump", "yes"]));
        }
    }

    /// Deletes every row of hsmd's.
    ///
    /// # Panics
    ///
    /// If etcdctl fails, or there was none.
    pub fn delete_rows(&self) {
        let deleted = succeed(&mut self.ctl(&["del", "--prefix", "hsmd/"]));
        assert_ne!(deleted.trim(), "0", "there was no row");
    }

    fn ctl(&self, arguments: &[&str]) -> Command {
        let alive = self.members.iter().zip(&self.ports);
        let endpoints: Vec<String> = alive
            .filter(|(member, _)| member.is_some())
            .map(|(_, (client, _))| format!("https://127.0.0.1:{client}"))
            .collect();
        self.ctl_at(&endpoints.join(","), arguments)
    }

    fn ctl_at(&self, endpoints: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(arguments);
        if !endpoints.is_empty() {
            command
                .args(["--endpoints", endpoints, "--cacert"])
                .arg(self.authority.certificate())
                .arg("--cert")
                .arg(&self.client.certificate)
                .arg("--key")
                .arg(&self.client.private_key);
        }
        command
    }

    fn cluster(&self) -> String {
        let members = self.ports.iter().enumerate();
        let members: Vec<String> = members
            .map(|(member, (_, peer))| format!("{}=http://127.0.0.1:{peer}", name(member)))
            .collect();
        members.join(",")
    }

    fn data(&self, member: usize) -> PathBuf {
        let life = self.life;
        self.directory.join(format!("{}-{life}", name(member)))
    }
}

fn name(member: usize) -> String {
    format!("etcd{member}")
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("etcdctl runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}
