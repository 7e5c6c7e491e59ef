//! `make demo`: the main job on one machine, in a temporary directory, on the mock HSM. It starts hsmd and
//! hsm-sentry, plays a CometBFT validator against the sentry's privval socket, has votes signed and verifies
//! them, tries to sign twice, and shows what the journal says of it.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hsm_proto::v1::Reason;
use hsm_tests::binaries::binary;
use hsm_tests::daemon::allow_root;
use hsm_tests::node::{Address, Connection, Node, block, proposal, vote};
use hsm_tests::process::{PATIENCE, Process, Scratch, wait_for};
use hsm_tests::sign_bytes;
use tendermint_proto::v0_38::types::SignedMsgType::{Precommit, Prevote};
use tendermint_proto::v0_38::types::Vote;
use tokio::signal::unix::{SignalKind, signal};

type Failure = Box<dyn Error + Send + Sync>;

const CHAIN: &str = "demo-1";
const HEIGHTS: i64 = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let stage = Arc::new(Stage::default());
    let played = tokio::task::spawn_blocking({
        let stage = Arc::clone(&stage);
        move || play(&stage)
    });
    let outcome = tokio::select! {
        outcome = played => outcome.unwrap_or_else(|panic| Err(panic.into())),
        () = interrupted() => Err("interrupted".into()),
    };
    if let Err(failure) = &outcome {
        eprintln!("\ndemo: {failure}");
        stage.scratch.print_logs();
    }
    stage.clear();
    // Not by returning: after an interruption the played part may still wait for something.
    std::process::exit(i32::from(outcome.is_err()));
}

/// SIGINT (Ctrl-C) or SIGTERM.
async fn interrupted() {
    let interrupt = async {
        signal(SignalKind::interrupt())?.recv().await;
        std::io::Result::Ok(())
    };
    let terminate = async {
        signal(SignalKind::terminate())?.recv().await;
        std::io::Result::Ok(())
    };
    tokio::select! {
        Ok(()) = interrupt => {}
        Ok(()) = terminate => {}
        else => std::future::pending().await,
    }
}

/// The directory and the daemons in it.
#[derive(Default)]
struct Stage {
    scratch: Scratch,
    processes: Mutex<Vec<Process>>,
}

impl Stage {
    fn directory(&self) -> PathBuf {
        self.scratch.path().join("dev")
    }

    fn start(&self, name: &str, command: &mut Command) {
        let process = Process::start(name, command, self.scratch.path());
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(process);
    }

    /// Ends the daemons and removes the directory.
    fn clear(&self) {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        // What is left behind of a temporary directory is for the system to remove.
        let _ = std::fs::remove_dir_all(self.scratch.path());
    }

    fn hsmd(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("hsmd"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.directory().join("hsmd.toml"));
        command
    }
}

fn play(stage: &Stage) -> Result<(), Failure> {
    let begun = Instant::now();
    println!(
        "A CometBFT validator signs through hsmd. All of it runs here, on loopback and UNIX sockets;"
    );
    println!(
        "the HSM is the mock, which protects nothing. Files: {}\n",
        stage.directory().display()
    );
    let mut node = set_up(stage)?;
    let public_key = node.public_key(CHAIN)?;
    println!("  public key  {}\n", hex::encode(&public_key));
    sign_some_heights(&mut node, &public_key)?;
    let refusal = sign_twice(&mut node)?;
    show_journal(stage)?;
    println!(
        "\nDone in {:.1} s: {} signatures verified, one double sign refused ({refusal}).",
        begun.elapsed().as_secs_f64(),
        4 * HEIGHTS
    );
    println!("Everything is stopped and removed.");
    Ok(())
}

/// Starts hsmd, then listens as a node does, then starts the sentry that connects the two.
fn set_up(stage: &Stage) -> Result<Connection, Failure> {
    let directory = stage.directory();
    let mut hsmd = Command::new(binary("hsmd"));
    hsmd.args(["dev", "--chain-id", CHAIN, "--directory"])
        .arg(&directory)
        .args(allow_root());
    stage.start("hsmd", &mut hsmd);
    wait_for("hsmd to serve", PATIENCE, || {
        stage
            .hsmd(&["status"])
            .output()
            .is_ok_and(|output| output.status.success())
            .then_some(())
    });
    println!(
        "  hsmd        serves; the key is in its HSM, the journal in {}",
        directory.join("state").display()
    );
    let node = Node::listen(Address::Unix(directory.join("privval.sock")))?;
    let mut sentry = Command::new(binary("hsm-sentry"));
    sentry
        .args(["run", "--config"])
        .arg(directory.join("sentry.toml"))
        .args(allow_root())
        .current_dir(&directory);
    stage.start("hsm-sentry", &mut sentry);
    let connection = node.accept()?;
    println!(
        "  hsm-sentry  connected to hsmd over mutual TLS 1.3, and to the node's privval socket"
    );
    Ok(connection)
}

/// One proposal, one prevote and one precommit with a vote extension a height, as CometBFT asks for them.
fn sign_some_heights(node: &mut Connection, public_key: &[u8]) -> Result<(), Failure> {
    println!("The node asks for signatures, and verifies each over its own sign bytes:\n");
    for height in 1..=HEIGHTS {
        let begun = Instant::now();
        let signed = node.sign_proposal(CHAIN, &proposal(height, 0, block(1)))?;
        verify(
            "proposal",
            public_key,
            &sign_bytes::proposal(CHAIN, &signed),
            &signed.signature,
        )?;
        let signed = node.sign_vote(CHAIN, &vote(Prevote, height, 0, Some(block(1))))?;
        verify(
            "prevote",
            public_key,
            &sign_bytes::vote(CHAIN, &signed),
            &signed.signature,
        )?;
        let extension = format!("price feed of height {height}").into_bytes();
        let asked = Vote {
            extension: extension.clone(),
            ..vote(Precommit, height, 0, Some(block(1)))
        };
        let signed = node.sign_vote(CHAIN, &asked)?;
        verify(
            "precommit",
            public_key,
            &sign_bytes::vote(CHAIN, &signed),
            &signed.signature,
        )?;
        let bytes = sign_bytes::extension(CHAIN, height, 0, &extension);
        verify("extension", public_key, &bytes, &signed.extension_signature)?;
        println!(
            "  height {height}  proposal ok  prevote ok  precommit ok  extension ok  {:6.1} ms",
            milliseconds(begun.elapsed())
        );
    }
    Ok(())
}

fn verify(what: &str, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), Failure> {
    if sign_bytes::verifies(public_key, message, signature) {
        return Ok(());
    }
    Err(format!("the signature of the {what} does not verify").into())
}

/// Asks for a precommit for another block than the one signed at the last height.
fn sign_twice(node: &mut Connection) -> Result<String, Failure> {
    println!(
        "\nA faulty or stolen node asks for a second precommit at height {HEIGHTS}, for another block:\n"
    );
    match node.sign_vote(CHAIN, &vote(Precommit, HEIGHTS, 0, Some(block(2)))) {
        Err(hsm_tests::node::Error::Refused(refusal))
            if refusal.code == i32::from(Reason::DoubleSign) =>
        {
            println!("  refused: {}\n", refusal.description);
            let reason = refusal.description.split(':').next().unwrap_or_default();
            Ok(reason.to_owned())
        }
        Err(broken) => Err(broken.into()),
        Ok(_) => Err("hsmd signed twice at one position".into()),
    }
}

/// Prints the journal's last entries. A refusal is written without delaying its answer.
fn show_journal(stage: &Stage) -> Result<(), Failure> {
    let entries = wait_for("the refusal in the journal", PATIENCE, || {
        let output = stage.hsmd(&["journal", "show"]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.contains("REFUSED").then_some(text)
    });
    println!(
        "What the journal holds of height {HEIGHTS}, and of the attempt (`hsmd journal show`):\n"
    );
    let lines: Vec<&str> = entries.lines().collect();
    // Three reservations and three outcomes of the last height, and the refusal.
    for line in lines
        .get(lines.len().saturating_sub(7)..)
        .unwrap_or_default()
    {
        println!("  {line}");
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
