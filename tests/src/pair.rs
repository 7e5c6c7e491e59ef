//! Several signers that have the same key and share its mark through etcd, and the sentry that asks them.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Output;

use hsm_proto::v1::Reason;
use tonic::{Response, Status};

use crate::audit::{Received, Reservations};
use crate::authority::uri;
use crate::client::{Client, reason};
use crate::daemon::{ALL_KINDS, Daemon, Hsm, allow_root, grant};
use crate::etcd::Etcd;
use crate::fleet::{Ask, Line, Step, ask};
use crate::namespace::Namespace;

/// The key's name on every signer.
pub const KEY: &str = "shared";
/// Its chain.
pub const CHAIN: &str = "chain-s";

/// One of the signers: an hsmd with a copy of the key in a mock of its own.
pub struct Signer {
    /// hsmd.
    pub daemon: Daemon,
    client: Client,
}

/// The signers, and what they gave.
pub struct Pair {
    /// Two of them.
    pub signers: [Signer; 2],
    line: Line,
    received: Received,
}

/// A precommit at this height for the block that `block` stands for.
#[must_use]
pub fn precommit(height: i64, block: u8) -> Ask {
    Ask {
        step: Step::Precommit,
        height,
        round: 0,
        block,
        seconds: 0,
    }
}

impl Pair {
    /// Two running signers, the first of which made the ledger.
    #[must_use]
    pub fn start(directory: &Path, etcd: &Etcd) -> Self {
        let pair = Self::start_unbound(directory, etcd);
        let init = ["key", "init", KEY, "--chain", CHAIN, "--height", "0"];
        for (signer, how) in pair.signers.iter().zip(["create", "join"]) {
            succeed(&signer.daemon, &[&init[..], &["--ledger", how]].concat());
        }
        pair.with_public_key()
    }

    /// The same, once the first signer knows the key.
    #[must_use]
    pub fn with_public_key(mut self) -> Self {
        let public_key = self.signers[0].daemon.public_key(KEY);
        self.line = Line::new(KEY, CHAIN, public_key);
        self
    }

    /// Two running signers to which the key was not made known.
    #[must_use]
    pub fn start_unbound(directory: &Path, etcd: &Etcd) -> Self {
        let mut daemons = ["a", "b"].map(|name| {
            let home = directory.join(name);
            std::fs::create_dir(&home).expect("a directory");
            let policy = grant(&uri("sentry", "s"), KEY, CHAIN, &ALL_KINDS);
            let daemon = Daemon::set_up(&home, Hsm::Mock, &[KEY], &policy);
            let mut config = std::fs::read_to_string(daemon.config()).expect("a configuration");
            config.write_str(&etcd.configuration()).expect("a string");
            std::fs::write(daemon.config(), config).expect("a configuration");
            daemon
        });
        let device = |name: &str| directory.join(name).join("mock.state");
        std::fs::copy(device("a"), device("b")).expect("a copy of the key");
        for daemon in &mut daemons {
            daemon.start();
        }
        Self {
            signers: daemons.map(Signer::new),
            line: Line::new(KEY, CHAIN, Vec::new()),
            received: Received::default(),
        }
    }

    /// Asks one of them. What is signed is held against all that was signed before, by either.
    ///
    /// # Errors
    ///
    /// The reason of its refusal.
    pub fn ask(&self, signer: usize, wanted: Ask) -> Result<(), String> {
        let (line, received) = (&self.line, &self.received);
        let asked = self.signers[signer].client.call(|mut stub| async move {
            let asked = ask(&mut stub, line, wanted, received).await;
            asked.map(Response::new)
        });
        asked.map_err(|status| reason(&status).unwrap_or_else(|| format!("{status:?}")))
    }

    /// Asks one of them for a signature with this ledger id.
    ///
    /// # Errors
    ///
    /// The status.
    pub fn ask_with_ledger(&self, signer: usize, wanted: Ask, id: &str) -> Result<(), Status> {
        let line = self.line.clone().in_ledger(id);
        let received = &self.received;
        self.signers[signer].client.call(|mut stub| async move {
            let asked = ask(&mut stub, &line, wanted, received).await;
            asked.map(Response::new)
        })
    }

    /// How many positions have a signature.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.received.positions()
    }

    /// Over both journals: one message a position, and an entry for every signature.
    ///
    /// # Panics
    ///
    /// If that does not hold.
    pub fn check(&self) {
        let journals = self.signers.iter().map(|signer| signer.daemon.journal());
        let entries: Vec<_> = journals.flatten().collect();
        let reservations = Reservations::of(&entries);
        reservations.assert_one_message_a_position();
        self.received.assert_reserved_in(&reservations);
    }
}

impl Signer {
    fn new(daemon: Daemon) -> Self {
        let address = (Ipv4Addr::LOCALHOST, daemon.port()).into();
        let client = client(&daemon, address);
        Self { daemon, client }
    }

    /// Starts it again after [`Daemon::kill`].
    pub fn start(&mut self) {
        self.daemon.start();
        let address = (Ipv4Addr::LOCALHOST, self.daemon.port()).into();
        self.client = client(&self.daemon, address);
    }

    /// Stops it, and starts it in a network namespace.
    pub fn move_into(&mut self, namespace: &Namespace) {
        self.daemon.kill();
        let address = namespace.inside();
        self.daemon.start_within(namespace.name(), address);
        let address = (address, self.daemon.port()).into();
        self.client = client(&self.daemon, address);
    }

    /// `hsmd ledger status`, as printed.
    #[must_use]
    pub fn ledger_status(&self) -> String {
        text(&run(&self.daemon, &["ledger", "status"]))
    }

    /// `hsmd ledger reconcile`, as printed.
    #[must_use]
    pub fn reconcile(&self) -> String {
        text(&run(&self.daemon, &["ledger", "reconcile"]))
    }

    /// The id of the ledger that the key is bound to; empty where there is none.
    #[must_use]
    pub fn ledger_id(&self) -> String {
        let state = self.daemon.state();
        let id = &state["keys"][0]["chains"][0]["ledger_id"];
        id.as_str().unwrap_or_default().to_owned()
    }
}

/// A connection of its own, since one to a process that is gone is found broken only when it is used.
fn client(daemon: &Daemon, address: SocketAddr) -> Client {
    let sentry = daemon.authority().sentry("s");
    Client::new_at(address, &daemon.authority().certificate(), Some(&sentry))
}

/// Whether the answer is this refusal.
#[must_use]
pub fn refused(answer: &Result<(), String>, expected: Reason) -> bool {
    answer
        .as_ref()
        .is_err_and(|reason| reason == expected.name())
}

/// Runs a command of hsmd as whoever runs the tests.
#[must_use]
pub fn run(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut command = daemon.command(arguments);
    if arguments.starts_with(&["key", "init"]) {
        command.args(allow_root());
    }
    command.output().expect("hsmd runs")
}

/// The same, for one that has to succeed.
///
/// # Panics
///
/// If it does not.
pub fn succeed(daemon: &Daemon, arguments: &[&str]) {
    let output = run(daemon, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
}

/// All that a command printed.
#[must_use]
pub fn text(output: &Output) -> String {
    let printed = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&printed).into_owned()
}
