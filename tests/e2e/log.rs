//! The journal as a public log: checkpoints by a device's key, cosigned by a witness that is not ours, exported, and
//! verified by code that is not ours. Promise 7; and of promise 5, that a consensus key makes none.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hsm_device::Algorithm;
use hsm_device::mock::{Mock, Settings};
use hsm_proto::v1::GetCheckpointRequest;
use hsm_proto::v1::journal_reader_client::JournalReaderClient;
use hsm_tests::authority::Contents;
use hsm_tests::binaries::{litewitness, log_checker, needs};
use hsm_tests::client::Client;
use hsm_tests::daemon::Daemon;
use hsm_tests::node::vote;
use hsm_tests::process::{PATIENCE, wait_for};
use hsm_tests::validator::{CHAIN, KEY, Transport, Validator};
use hsm_tests::witness::Witness;
use serde_json::Value;
use tendermint_proto::v0_38::types::SignedMsgType::Prevote;

const ORIGIN: &str = "test.example/hsmd/val0";

/// A validator whose device holds another key, which makes checkpoints, and records every signature.
fn with_checkpoints(more: &str) -> Validator {
    let mut validator = Validator::start(Transport::Unix);
    assert!(validator.daemon.process().terminate().success());
    validator.daemon.kill();
    let mock = Mock::start(Settings {
        state_file: Some(validator.directory().join("mock.state")),
        ..Settings::default()
    });
    let mock = mock.unwrap();
    mock.ensure_key("log", Algorithm::Ed25519).unwrap();
    mock.force_audit().unwrap();
    drop(mock);
    configure(&validator.daemon, "log", more);
    validator.daemon.start();
    validator
}

fn configure(daemon: &Daemon, label: &str, more: &str) {
    let config = std::fs::read_to_string(daemon.config()).unwrap();
    let before = config.split("[checkpoint]").next().unwrap();
    let section = format!(
        "[checkpoint]\norigin = {ORIGIN:?}\ninterval_ms = 200\ndevices = [\"hsm\"]\nlabel = {label:?}\n{more}"
    );
    std::fs::write(daemon.config(), format!("{before}{section}")).unwrap();
}

fn sign(validator: &mut Validator, heights: std::ops::RangeInclusive<i64>) {
    for height in heights {
        let asked = vote(Prevote, height, 0, None);
        let signed = validator.connection.sign_vote(CHAIN, &asked);
        signed.expect("a signature");
    }
}

/// Waits for a checkpoint of more than so many entries.
fn checkpointed(daemon: &Daemon, above: u64) -> u64 {
    wait_for("a checkpoint", PATIENCE, || {
        let size = daemon.metric("hsmd_checkpoint_size")? as u64;
        (size > above).then_some(size)
    })
}

fn state(daemon: &Daemon) -> PathBuf {
    daemon.config().with_file_name("state")
}

fn vkey(daemon: &Daemon) -> String {
    let key = wait_for("the log's key", PATIENCE, || {
        std::fs::read_to_string(state(daemon).join("vkey")).ok()
    });
    key.trim().to_owned()
}

fn run(daemon: &Daemon, arguments: &[&str]) -> Output {
    daemon.command(arguments).output().unwrap()
}

fn json(daemon: &Daemon, arguments: &[&str]) -> Value {
    let output = run(daemon, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(checker: &Path, arguments: &[&str]) -> String {
    let output = Command::new(checker).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn an_exported_log_and_a_proof_are_verified_by_gos_sumdb_packages() {
    let Some(checker) = needs("tests/log", log_checker()) else {
        return;
    };
    let mut validator = with_checkpoints("");
    sign(&mut validator, 1..=140);
    let vkey = vkey(&validator.daemon);
    let to = validator.directory().join("exported");
    let to = to.to_str().unwrap();
    let mut size = checkpointed(&validator.daemon, 280);
    for height in [141, 160] {
        let exported = json(
            &validator.daemon,
            &["journal", "export", "--to", to, "--json"],
        );
        assert!(exported["size"].as_u64().unwrap() >= size);
        assert_eq!(
            check(&checker, &["export", to, &vkey]),
            exported["size"].to_string()
        );
        let verify = [
            "journal",
            "verify",
            "--exported",
            to,
            "--key",
            &vkey,
            "--json",
        ];
        assert_eq!(
            json(&validator.daemon, &verify)["checkpoint"]["size"],
            exported["size"]
        );
        sign(&mut validator, height..=height + 10);
        size = checkpointed(&validator.daemon, size);
    }
    for index in [0, 7, 255, 256] {
        let proved = json(
            &validator.daemon,
            &["journal", "prove", &index.to_string(), "--json"],
        );
        let file = validator.directory().join("entry.tlog-proof");
        std::fs::write(&file, proved["proof"].as_str().unwrap()).unwrap();
        let (file, entry) = (file.to_str().unwrap(), proved["entry"].as_str().unwrap());
        assert_eq!(
            check(&checker, &["proof", file, entry, &vkey]),
            index.to_string()
        );
    }
    // What was changed is found by both, and what is asked wrongly is a usage error.
    let tile = Path::new(to).join("tile/0/000");
    let mut bytes = std::fs::read(&tile).unwrap();
    bytes[77] ^= 4;
    std::fs::write(&tile, bytes).unwrap();
    assert!(
        !Command::new(&checker)
            .args(["export", to, &vkey])
            .output()
            .unwrap()
            .status
            .success()
    );
    let found = run(&validator.daemon, &["journal", "verify", "--exported", to]);
    assert_eq!(found.status.code(), Some(1));
    let message = String::from_utf8_lossy(&found.stderr).into_owned();
    assert!(message.contains("tile/0/000"), "{message}");
    assert_eq!(
        run(&validator.daemon, &["journal", "prove"]).status.code(),
        Some(2)
    );
}

#[test]
fn a_witness_that_is_not_ours_cosigns_checkpoint_after_checkpoint() {
    let Some(binary) = needs("litewitness", litewitness()) else {
        return;
    };
    let directory = hsm_tests::process::Scratch::new();
    let witness = Witness::start(&binary, directory.path());
    let section = format!(
        "[[checkpoint.witness]]\nurl = {:?}\nkey = {:?}\n",
        witness.url(),
        witness.key()
    );
    let mut validator = with_checkpoints(&section);
    // It does not know the log yet: hsmd says so, and signs all the same.
    sign(&mut validator, 1..=3);
    wait_for("a checkpoint without its quorum", PATIENCE, || {
        let short = validator.daemon.metric("hsmd_checkpoint_short_of_quorum");
        (short == Some(1.0)).then_some(())
    });
    witness.add_log(ORIGIN, &vkey(&validator.daemon));
    let mut size = 0;
    for height in [4, 10, 20] {
        sign(&mut validator, height..=height + 4);
        size = wait_for("a cosigned checkpoint", PATIENCE, || {
            let cosigned = witness.size(ORIGIN);
            (cosigned > size).then_some(cosigned)
        });
    }
    // A start knows nothing of what the witness cosigned, and asks it.
    assert!(validator.daemon.process().terminate().success());
    validator.daemon.start();
    wait_for("a cosigned checkpoint after a start", PATIENCE, || {
        (witness.size(ORIGIN) > size).then_some(())
    });
    let note = wait_for("the cosignature in the stored checkpoint", PATIENCE, || {
        let note = std::fs::read_to_string(state(&validator.daemon).join("checkpoint")).ok()?;
        note.contains("\u{2014} witness.example/w1 ")
            .then_some(note)
    });
    assert!(note.starts_with(ORIGIN), "{note}");
    let journal = validator.daemon.journal();
    let cosigned = journal
        .iter()
        .filter(|entry| entry["event"] == "checkpoint_cosigned");
    assert!(cosigned.count() >= 4);
}

/// The checkpoint and the log's key, over mutual TLS.
fn shown_to_an_auditor(daemon: &Daemon) -> (String, String) {
    let authority = daemon.authority();
    let auditor = authority.issue("auditor", Contents::client("auditor", "a"));
    let ca = authority.certificate();
    let client = Client::new(daemon.port(), &ca, Some(&auditor));
    let answer = client.call_over(|channel| async {
        let mut reader = JournalReaderClient::new(channel);
        reader.get_checkpoint(GetCheckpointRequest {}).await
    });
    let answer = answer.expect("a checkpoint");
    (answer.note, answer.verifier)
}

#[test]
fn checkpoints_are_accounted_for_in_the_devices_audit_log_across_stops_and_kills() {
    let mut validator = with_checkpoints("");
    let mut size = 0;
    for round in 0..3 {
        sign(&mut validator, round * 40 + 1..=round * 40 + 30);
        size = checkpointed(&validator.daemon, size);
        let (note, verifier) = shown_to_an_auditor(&validator.daemon);
        assert!(note.starts_with(&format!("{ORIGIN}\n")), "{note}");
        assert!(verifier.starts_with(&format!("{ORIGIN}+")), "{verifier}");
        if round == 1 {
            validator.daemon.kill();
        } else {
            assert!(validator.daemon.process().terminate().success());
        }
        validator.daemon.start();
    }
    sign(&mut validator, 130..=131);
    checkpointed(&validator.daemon, size);
    assert!(validator.daemon.process().terminate().success());
    validator.daemon.kill();
    let journal = validator.daemon.journal();
    let of = |event: &str| {
        journal
            .iter()
            .filter(|entry| entry["event"] == event)
            .count()
    };
    assert!(of("checkpoint_begun") >= of("checkpoint_made") && of("checkpoint_made") >= 4);
    for entry in journal
        .iter()
        .filter(|entry| entry["event"] == "device_audit")
    {
        for object in entry["signatures"].as_array().into_iter().flatten() {
            assert_eq!(object["unknown"], 0, "{entry}");
        }
    }
    let verified = json(&validator.daemon, &["journal", "verify", "--json"]);
    assert_eq!(verified["checkpoint"]["origin"], ORIGIN);
    // Pruned, it still verifies, and so it does with what was pruned.
    let archive = validator.directory().join("archive");
    let archive = archive.to_str().unwrap();
    json(
        &validator.daemon,
        &["journal", "prune", "--to", archive, "--keep", "2", "--json"],
    );
    let rest = json(&validator.daemon, &["journal", "verify", "--json"]);
    assert!(rest["first"].as_u64() > Some(0) && rest["root"] == verified["root"]);
    let whole = json(
        &validator.daemon,
        &["journal", "verify", "--archive", archive, "--json"],
    );
    assert_eq!(whole, verified);
}

#[test]
fn a_consensus_key_makes_no_checkpoint_and_a_checkpoint_key_never_becomes_one() {
    let mut validator = with_checkpoints("");
    let size = checkpointed(&validator.daemon, 0);
    assert!(size > 0);
    assert!(validator.daemon.process().terminate().success());
    validator.daemon.kill();
    configure(&validator.daemon, KEY, "");
    let refused = run(&validator.daemon, &["check"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        message.contains("a consensus key signs nothing else"),
        "{message}"
    );
    // The key that made checkpoints, under [[key]]: it is not made known.
    let config = std::fs::read_to_string(validator.daemon.config()).unwrap();
    let without = config.split("[checkpoint]").next().unwrap();
    let key = "[[key]]\nname = \"other\"\ndevices = [\"hsm\"]\nalgorithm = \"ed25519\"\nlabel = \"log\"\n";
    std::fs::write(validator.daemon.config(), format!("{without}{key}")).unwrap();
    validator.daemon.start();
    let init = ["key", "init", "other", "--chain", CHAIN, "--height", "0"];
    let mut command = validator.daemon.command(&init);
    let output = command
        .args(hsm_tests::daemon::allow_root())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        message.contains("makes the journal's checkpoints"),
        "{message}"
    );
}
