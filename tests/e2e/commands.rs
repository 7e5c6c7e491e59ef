//! What operators type: what is refused, and that the refusal says file, key, value and remedy. Promises 3
//! and 9.
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

use hsm_tests::authority::uri;
use hsm_tests::daemon::{ALL_KINDS, Daemon, Hsm, allow_root, grant};
use hsm_tests::node::{block, vote};
use hsm_tests::process::{PATIENCE, Process, Scratch, wait_for};
use hsm_tests::validator::{CHAIN, KEY, SENTRY, Transport, Validator};
use tendermint_proto::v0_38::types::SignedMsgType::Prevote;

/// hsmd, set up and not started.
fn set_up() -> (Scratch, Daemon) {
    let scratch = Scratch::new();
    let policy = grant(&uri("sentry", SENTRY), KEY, CHAIN, &ALL_KINDS);
    let daemon = Daemon::set_up(scratch.path(), Hsm::Mock, &[KEY], &policy);
    (scratch, daemon)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[track_caller]
fn assert_refused(mut command: Command, words: &[&str]) {
    let output = command.output().expect("the command runs");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn a_reader_that_has_seen_enough_does_not_make_a_command_fail() {
    let (_scratch, daemon) = set_up();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = daemon.command(&["check"]).stdout(writer).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(text(&output), "");
}

#[test]
fn an_output_that_cannot_be_written_fails_the_command() {
    let (_scratch, daemon) = set_up();
    let full = std::fs::File::create("/dev/full").unwrap();
    let mut command = daemon.command(&["check"]);
    command.stdout(full);
    assert_refused(command, &["No space left on device"]);
}

#[test]
fn check_prints_who_may_have_what_signed() {
    let (_scratch, daemon) = set_up();
    let output = daemon.command(&["check"]).output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for word in [
        &uri("sentry", SENTRY),
        KEY,
        CHAIN,
        "proposal prevote precommit extension",
        "1000",
        "MOCK",
    ] {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[test]
fn an_unknown_field_is_refused_with_its_name_and_line() {
    let (_scratch, daemon) = set_up();
    replace(&daemon.config(), "[state]\n", "[state]\nanker = \"tpm\"\n");
    assert_refused(
        daemon.command(&["check"]),
        &["hsmd.toml", "line ", "unknown field `anker`", "->"],
    );
}

#[test]
fn a_missing_file_is_refused_with_key_and_path() {
    let (_scratch, daemon) = set_up();
    replace(&daemon.config(), "ca/ca.pem", "ca/no-ca.pem");
    assert_refused(
        daemon.command(&["check"]),
        &["listen.client_ca", "no-ca.pem", "No such file"],
    );
}

#[test]
fn a_private_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let (scratch, daemon) = set_up();
    let key: PathBuf = scratch.path().join("ca/hsmd.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_refused(
        daemon.command(&["check"]),
        &["hsmd.toml", "listen.private_key", "hsmd.key", "->"],
    );
}

#[test]
fn a_contradictory_value_is_refused_with_key_value_and_remedy() {
    let (_scratch, daemon) = set_up();
    replace(
        &daemon.config(),
        "devices = [\"hsm\"]",
        "devices = [\"another\"]",
    );
    assert_refused(
        daemon.command(&["check"]),
        &["hsmd.toml", "key[val0].devices", "another", "->"],
    );
}

#[test]
fn a_policy_that_grants_an_unknown_key_is_refused() {
    let (scratch, daemon) = set_up();
    let draft = scratch.path().join("policy.toml");
    replace(&draft, "key = \"val0\"", "key = \"val9\"");
    for command in ["check", "sign-request"] {
        assert_refused(
            daemon.command(&["policy", command, draft.to_str().unwrap()]),
            &["policy.toml", "line 1", "val9"],
        );
    }
}

#[test]
fn a_policy_with_an_unknown_field_is_refused() {
    let (scratch, daemon) = set_up();
    let draft = scratch.path().join("policy.toml");
    replace(&draft, "kinds =", "max_hight_jump = 5\nkinds =");
    for command in ["check", "sign-request"] {
        assert_refused(
            daemon.command(&["policy", command, draft.to_str().unwrap()]),
            &["policy.toml", "max_hight_jump"],
        );
    }
}

#[test]
fn the_mock_is_not_used_without_its_flag() {
    let (_scratch, daemon) = set_up();
    for arguments in [["run"].as_slice(), &["check"]] {
        let mut command = Command::new(hsm_tests::binaries::binary("hsmd"));
        command.args(arguments).arg("--config").arg(daemon.config());
        command.args(allow_root().filter(|_| arguments[0] == "run"));
        assert_refused(command, &["mock", "--mock"]);
    }
}

#[test]
fn missing_state_stops_the_start_and_names_the_remedy() {
    let (scratch, daemon) = set_up();
    std::fs::remove_dir_all(scratch.path().join("state")).unwrap();
    let mut command = daemon.command(&["run"]);
    command.args(allow_root());
    assert_refused(
        command,
        &[
            "there is no journal in",
            "`hsmd state init`",
            "restore the directory",
        ],
    );
}

#[test]
fn a_development_key_whose_state_is_gone_is_not_given_new_state() {
    let scratch = Scratch::new();
    let directory = scratch.path().join("dev");
    let dev = || {
        let mut command = Command::new(hsm_tests::binaries::binary("hsmd"));
        command
            .args(["dev", "--directory"])
            .arg(&directory)
            .args(allow_root());
        command
    };
    let mut process = Process::start("dev", &mut dev(), scratch.path());
    wait_for("hsmd dev to serve", PATIENCE, || {
        process.assert_running();
        process.log().contains("stop with ctrl-c").then_some(())
    });
    drop(process);
    std::fs::remove_dir_all(directory.join("state")).unwrap();
    assert_refused(
        dev(),
        &[
            "dev/state is not there",
            "mock-hsm.json",
            "put the folder back",
        ],
    );
}

#[test]
fn a_journal_without_its_first_segment_is_shown_from_where_it_begins() {
    let (scratch, mut daemon) = set_up();
    daemon.start();
    daemon.kill();
    std::fs::remove_file(scratch.path().join("state/segment-0000000001.log")).unwrap();
    let output = daemon.command(&["journal", "show"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("begins with segment 2: entries 0 to 1 stand in earlier segments"),
        "{said}"
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("daemon started"));
}

#[test]
fn state_is_not_created_over_state() {
    let (scratch, daemon) = set_up();
    let list = scratch.path().join("officer.pub");
    let mut command = daemon.command(&["state", "init", "--threshold", "1"]);
    command.arg("--officers").arg(list).args(allow_root());
    assert_refused(command, &["exists", "only created in an empty directory"]);
}

#[test]
fn damage_in_the_middle_of_the_journal_stops_the_start() {
    let mut validator = Validator::start(Transport::Unix);
    for height in 1..=5 {
        validator
            .connection
            .sign_vote(CHAIN, &vote(Prevote, height, 0, Some(block(1))))
            .unwrap();
    }
    validator.daemon.kill();
    let segment = newest_segment(&validator.directory().join("state"));
    let mut bytes = std::fs::read(&segment).unwrap();
    let id = CHAIN.as_bytes();
    let middle = bytes
        .windows(id.len())
        .position(|window| window == id)
        .expect("an entry in the segment");
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let mut command = validator.daemon.command(&["run"]);
    command.args(allow_root());
    assert_refused(
        command,
        &["is damaged at byte", "keep this directory as evidence"],
    );
}

#[test]
fn a_second_process_on_the_same_state_is_refused() {
    let (scratch, mut daemon) = set_up();
    daemon.start();
    // Everything is its own, save the state.
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    let text = text
        .replace(&format!("127.0.0.1:{}", daemon.port()), "127.0.0.1:0")
        .replace(
            &format!("127.0.0.1:{}", daemon.metrics_port()),
            "127.0.0.1:0",
        )
        .replace("admin.sock", "other-admin.sock")
        .replace("mock.state", "other-mock.state");
    let config = scratch.path().join("second.toml");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(hsm_tests::binaries::binary("hsmd"));
    command
        .args(["run", "--mock", "--config"])
        .arg(&config)
        .args(allow_root());
    assert_refused(command, &["is locked by process", "stop that one first"]);
}

#[test]
fn a_key_is_made_known_once() {
    let (_scratch, mut daemon) = set_up();
    daemon.init_key(KEY, CHAIN, 7);
    let again = ["key", "init", KEY, "--chain", CHAIN, "--height", "3"];
    let mut without_daemon = daemon.command(&again);
    without_daemon.args(allow_root());
    assert_refused(without_daemon, &[KEY, CHAIN]);
    daemon.start();
    let before = daemon.state();
    assert_refused(daemon.command(&again), &[KEY, CHAIN]);
    assert_eq!(daemon.state(), before);
    assert_eq!(before["keys"][0]["chains"][0]["initial_height"], 7);
}

#[test]
fn key_show_prints_what_genesis_and_create_validator_want() {
    let (_scratch, mut daemon) = set_up();
    daemon.init_key(KEY, CHAIN, 0);
    daemon.start();
    let show = |format: &str| -> serde_json::Value {
        let output = daemon
            .command(&["key", "show", KEY, "--format", format])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (cosmos, cometbft) = (show("cosmos"), show("cometbft"));
    assert_eq!(cosmos["@type"], "/cosmos.crypto.ed25519.PubKey");
    assert_eq!(cometbft["pub_key"]["type"], "tendermint/PubKeyEd25519");
    assert_eq!(cosmos["key"], cometbft["pub_key"]["value"]);
}

#[test]
fn a_sentry_with_two_signers_and_no_ledger_is_refused_with_the_reason() {
    let validator = Validator::start(Transport::Unix);
    let config = validator.sentry.config();
    let text = std::fs::read_to_string(&config).unwrap();
    let signer = &text[text.find("[[chain.signer]]").unwrap()..];
    std::fs::write(&config, format!("{text}{signer}")).unwrap();
    let output = validator.sentry.check();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("ledger_id") && said.contains("sign twice") && said.contains("->"),
        "{said}"
    );
}

#[test]
fn the_mock_says_what_it_is_in_status_metrics_and_journal() {
    let (_scratch, mut daemon) = set_up();
    daemon.start();
    let status = text(&daemon.command(&["status"]).output().unwrap());
    assert!(status.contains("MOCK HSM"), "{status}");
    assert_eq!(daemon.metric("hsmd_mock"), Some(1.0));
    let started = daemon
        .journal()
        .into_iter()
        .find(|entry| entry["event"] == "daemon_started")
        .unwrap();
    assert_eq!(started["mock_devices"], serde_json::json!(["hsm"]));
}

fn newest_segment(state: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut folders = vec![state.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                files.push(path)
            }
        }
    }
    files.retain(|path| {
        std::fs::read(path)
            .unwrap()
            .windows(CHAIN.len())
            .any(|window| window == CHAIN.as_bytes())
    });
    files.sort();
    files.pop().expect("a segment")
}

#[test]
fn output_that_nobody_reads_ends_a_command_quietly() {
    let validator = Validator::start(Transport::Unix);
    for arguments in [
        &["check"][..],
        &["status"],
        &["status", "--json"],
        &["doctor"],
        &["state", "show"],
        &["state", "show", "--json"],
        &["state", "officers"],
        &["policy", "show"],
        &["policy", "show", "--json"],
        &["state", "export"],
        &["key", "list"],
        &["key", "show", KEY],
        &["key", "show", KEY, "--format", "pem"],
        &["journal", "show"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = validator.daemon.command(arguments);
        let output = command.stdout(writer).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {err}");
        assert!(!err.contains("panicked"), "{arguments:?}: {err}");
    }
}
