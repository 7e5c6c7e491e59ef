//! Marks that come from other signers and go to them, keys restored from a backup, and the officers who sign
//! for them with the real ssh-keygen. Promises 2, 3 and 7.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use hsm_proto::v1::Reason;
use hsm_tests::authority::uri;
use hsm_tests::binaries::{cometbft, needs, softhsm_module};
use hsm_tests::cometbft::{Line, address_of};
use hsm_tests::daemon::{ALL_KINDS, Daemon, Hsm, allow_root, grant};
use hsm_tests::node::{Address, Connection, Error, Node, block, vote};
use hsm_tests::process::{PATIENCE, Process, Scratch, free_port, wait_for};
use hsm_tests::sentry::{Chain, Sentry};
use hsm_tests::sign_bytes;
use hsm_tests::validator::{CHAIN, KEY, SENTRY, Transport, Validator};
use prost::Message as _;
use serde_json::{Value, json};
use tendermint_proto::v0_38::types::SignedMsgType::{Precommit, Prevote};
use tendermint_proto::v0_38::types::{
    BlockId, CanonicalBlockId, CanonicalVote, PartSetHeader, SignedMsgType, Vote,
};

fn set_up(hsm: Hsm) -> (Scratch, Daemon) {
    let scratch = Scratch::new();
    let policy = grant(&uri("sentry", SENTRY), KEY, CHAIN, &ALL_KINDS);
    let daemon = Daemon::set_up(scratch.path(), hsm, &[KEY], &policy);
    (scratch, daemon)
}

/// Exit code, standard output and standard error.
fn hsmd(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = daemon.command(arguments).output().expect("hsmd runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[track_caller]
fn done(daemon: &Daemon, arguments: &[&str]) -> String {
    let (code, out, err) = hsmd(daemon, arguments);
    assert_eq!(code, Some(0), "hsmd {arguments:?}: {out}{err}");
    out
}

#[track_caller]
fn refused(daemon: &Daemon, arguments: &[&str], words: &[&str]) {
    let (code, out, err) = hsmd(daemon, arguments);
    assert_eq!(code, Some(1), "hsmd {arguments:?}: {out}{err}");
    for word in words {
        assert!(err.contains(word), "{err:?} does not say {word:?}");
    }
}

/// With `--allow-root` where the tests run as root.
fn as_root<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    arguments.iter().copied().chain(allow_root()).collect()
}

fn write(directory: &Path, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A sentry of this hsmd, and the node that the test plays.
fn connect(directory: &Path, daemon: &Daemon) -> (Sentry, Node, Connection) {
    let node = Node::listen(Address::Unix(directory.join("privval.sock"))).unwrap();
    let chain = Chain {
        chain_id: CHAIN,
        cometbft: "0.38",
        node: node.address(),
        key: KEY,
        signer: daemon.port(),
    };
    let authority = daemon.authority();
    let identity = authority.sentry(SENTRY);
    let mut sentry = Sentry::new(
        directory,
        SENTRY,
        &identity,
        &authority.certificate(),
        &[chain],
    );
    sentry.start();
    let connection = node.accept().expect("the sentry connects");
    (sentry, node, connection)
}

#[track_caller]
fn assert_refused(answer: Result<Vote, Error>, reason: Reason) {
    match answer {
        Err(Error::Refused(refusal)) => {
            assert_eq!(refusal.code, i32::from(reason), "{}", refusal.description);
        }
        other => panic!("expected {}, got {other:?}", reason.name()),
    }
}

/// Runs a real CometBFT with this key as its only validator until it has signed a precommit above height 1, and
/// ends it. Returns the state file that it leaves.
fn state_of_a_real_cometbft(binary: &Path, directory: &Path, key: &SigningKey) -> PathBuf {
    let home = directory.join("cometbft");
    let public = key.verifying_key().to_bytes();
    let key_file = json!({
        "address": hex::encode_upper(address_of(&public)),
        "pub_key": { "type": "tendermint/PubKeyEd25519", "value": STANDARD.encode(public) },
        "priv_key": { "type": "tendermint/PrivKeyEd25519", "value": STANDARD.encode(key.to_keypair_bytes()) },
    });
    for folder in ["config", "data"] {
        std::fs::create_dir_all(home.join(folder)).unwrap();
    }
    let state = home.join("data/priv_validator_state.json");
    std::fs::write(
        home.join("config/priv_validator_key.json"),
        key_file.to_string(),
    )
    .unwrap();
    std::fs::write(&state, r#"{ "height": "0", "round": 0, "step": 0 }"#).unwrap();
    let made = Command::new(binary)
        .arg("init")
        .arg("--home")
        .arg(&home)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let genesis = home.join("config/genesis.json");
    let mut text: Value = serde_json::from_slice(&std::fs::read(&genesis).unwrap()).unwrap();
    text["chain_id"] = CHAIN.into();
    std::fs::write(&genesis, text.to_string()).unwrap();
    let config = home.join("config/config.toml");
    let mut table: toml::Table = std::fs::read_to_string(&config).unwrap().parse().unwrap();
    table["proxy_app"] = "kvstore".into();
    table["rpc"]["laddr"] = format!("tcp://127.0.0.1:{}", free_port()).into();
    table["p2p"]["laddr"] = format!("tcp://127.0.0.1:{}", free_port()).into();
    // After each precommit there is time to see it and to end the node.
    table["consensus"]["timeout_commit"] = "3s".into();
    std::fs::write(&config, table.to_string()).unwrap();
    let mut command = Command::new(binary);
    command.arg("start").arg("--home").arg(&home);
    let mut node = Process::start("cometbft", &mut command, directory);
    wait_for("a precommit above height 1", PATIENCE, || {
        node.assert_running();
        let state: Value = serde_json::from_slice(&std::fs::read(&state).ok()?).ok()?;
        let height: i64 = state["height"].as_str()?.parse().ok()?;
        (height > 1 && state["step"] == 3).then_some(())
    });
    node.kill();
    state
}

/// The vote that was signed, with its signature.
fn vote_of(state: &Value) -> Vote {
    let bytes = hex::decode(state["signbytes"].as_str().unwrap()).unwrap();
    let signed = CanonicalVote::decode_length_delimited(bytes.as_slice()).unwrap();
    let id = |id: CanonicalBlockId| BlockId {
        hash: id.hash,
        part_set_header: id.part_set_header.map(|parts| PartSetHeader {
            total: parts.total,
            hash: parts.hash,
        }),
    };
    Vote {
        timestamp: signed.timestamp,
        signature: STANDARD
            .decode(state["signature"].as_str().unwrap())
            .unwrap(),
        ..vote(
            SignedMsgType::try_from(signed.r#type).unwrap(),
            signed.height,
            i32::try_from(signed.round).unwrap(),
            signed.block_id.map(id),
        )
    }
}

#[test]
fn a_key_goes_on_where_a_real_cometbft_stopped() {
    let (Some(_), Some(binary)) = (
        needs("SoftHSM", softhsm_module()),
        needs("CometBFT 0.38", cometbft(Line::V0_38)),
    ) else {
        return;
    };
    let (scratch, mut daemon) = set_up(Hsm::SoftHsm);
    let directory = scratch.path();
    // The key that the set-up puts into SoftHSM.
    let key = SigningKey::from_bytes(&[1; 32]);
    let file = state_of_a_real_cometbft(&binary, directory, &key);
    let state: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let last = vote_of(&state);
    let height = last.height;
    let file = file.to_str().unwrap();

    daemon.init_key(KEY, CHAIN, height - 1);
    let import = [
        "state", "import", file, "--format", "cometbft", "--key", KEY, "--chain", CHAIN,
    ];
    let told = done(&daemon, &as_root(&import));
    assert!(
        told.contains("raised") && told.contains("precommit"),
        "{told}"
    );
    let entry = daemon.journal().pop().unwrap();
    assert_eq!(entry["event"], "state_imported");
    assert_eq!(
        (&entry["evidence"]["format"], &entry["height"]),
        (&"cometbft".into(), &height.into())
    );
    assert_eq!(entry["evidence"]["sha256"].as_str().unwrap().len(), 64);
    let export = [
        "state", "export", "--format", "cometbft", "--key", KEY, "--chain", CHAIN,
    ];
    let exported: Value = serde_json::from_str(&done(&daemon, &as_root(&export))).unwrap();
    assert_eq!(exported, state, "what went in comes out");

    daemon.start();
    let (_sentry, _node, mut connection) = connect(directory, &daemon);
    let asked = Vote {
        signature: Vec::new(),
        ..last.clone()
    };
    let again = connection
        .sign_vote(CHAIN, &asked)
        .expect("the answer that CometBFT gave");
    assert_eq!(again.signature, last.signature);
    let other = vote(Precommit, height, last.round, Some(block(9)));
    assert_refused(connection.sign_vote(CHAIN, &other), Reason::DoubleSign);
    let below = vote(Prevote, height, last.round, Some(block(9)));
    assert_refused(connection.sign_vote(CHAIN, &below), Reason::Regression);
    let above = vote(Prevote, height + 1, 0, Some(block(9)));
    let signed = connection.sign_vote(CHAIN, &above).expect("a signature");
    let bytes = sign_bytes::vote(CHAIN, &signed);
    assert!(sign_bytes::verifies(
        &key.verifying_key().to_bytes(),
        &bytes,
        &signed.signature
    ));

    // The same file again, now that the mark is higher: nothing is lowered.
    let told = done(&daemon, &import);
    assert!(told.contains("unchanged"), "{told}");
    assert_refused(connection.sign_vote(CHAIN, &other), Reason::Regression);

    let mut elsewhere = state;
    elsewhere["height"] = (height + 5).to_string().into();
    let edited = write(directory, "edited.json", elsewhere.to_string());
    let import = |file, format| {
        [
            "state", "import", file, "--format", format, "--key", KEY, "--chain", CHAIN,
        ]
    };
    refused(
        &daemon,
        &import(&edited, "cometbft"),
        &["sign bytes", "edited"],
    );
    refused(&daemon, &import(file, "tmkms"), &["not as tmkms writes it"]);
}

#[test]
fn two_messages_at_one_position_raise_an_alarm_and_sign_nothing_more_there() {
    let mut validator = Validator::start(Transport::Unix);
    let signed = vote(Prevote, 7, 0, Some(block(1)));
    validator
        .connection
        .sign_vote(CHAIN, &signed)
        .expect("a signature");
    let bytes = sign_bytes::vote(CHAIN, &vote(Prevote, 7, 0, Some(block(2))));
    let other = json!({
        "height": "7", "round": "0", "step": 2, "nonce_public": "",
        "signature": STANDARD.encode([1; 32]), "signbytes": hex::encode_upper(bytes),
    });
    let file = write(
        validator.directory(),
        "share_sign_state.json",
        other.to_string(),
    );
    let daemon = &validator.daemon;
    let import = [
        "state", "import", &file, "--format", "horcrux", "--key", KEY, "--chain", CHAIN,
    ];
    refused(
        daemon,
        &import,
        &["two different messages", "Switch the other signer off"],
    );
    let series = format!("hsmd_contested_marks{{chain=\"{CHAIN}\",key=\"{KEY}\"}}");
    assert_eq!(daemon.metric(&series), Some(1.0));
    let (code, findings, _) = hsmd(daemon, &["doctor"]);
    assert_eq!(code, Some(1));
    assert!(
        findings.contains("two different messages were signed at height 7"),
        "{findings}"
    );
    validator.assert_refused(Reason::DoubleSign, |connection| {
        connection.sign_vote(CHAIN, &signed)
    });
    let above = vote(Precommit, 7, 0, Some(block(1)));
    validator
        .connection
        .sign_vote(CHAIN, &above)
        .expect("the next position is signed");
    validator.daemon.kill();
    validator.daemon.start();
    assert_eq!(
        validator.daemon.metric(&series),
        Some(1.0),
        "the alarm outlives a restart"
    );
}

#[test]
fn tmkms_state_forbids_the_position_in_cometbfts_numbering() {
    let mut validator = Validator::start(Transport::Unix);
    let state = json!({ "height": "9", "round": "1", "step": 1, "block_id": null });
    let file = write(validator.directory(), "tmkms.json", state.to_string());
    let import = [
        "state", "import", &file, "--format", "tmkms", "--key", KEY, "--chain", CHAIN,
    ];
    done(&validator.daemon, &import);
    let prevote = vote(Prevote, 9, 1, None);
    validator.assert_refused(Reason::DoubleSign, |connection| {
        connection.sign_vote(CHAIN, &prevote)
    });
    let precommit = vote(Precommit, 9, 1, None);
    validator
        .connection
        .sign_vote(CHAIN, &precommit)
        .expect("a signature");
    let moved = [
        "state", "export", "--format", "tmkms", "--key", KEY, "--chain", CHAIN,
    ];
    let exported: Value = serde_json::from_str(&done(&validator.daemon, &moved)).unwrap();
    assert_eq!(
        exported,
        json!({ "height": "9", "round": "1", "step": 2, "block_id": null })
    );
}

/// Officers with keys made by ssh-keygen.
struct Board {
    directory: PathBuf,
    list: String,
}

impl Board {
    /// None where there is no ssh-keygen.
    fn new(directory: &Path, names: &[&str]) -> Option<Self> {
        let there = Command::new("ssh-keygen").arg("-?").output().ok();
        needs("ssh-keygen", there)?;
        let folder = directory.join(names.concat());
        std::fs::create_dir_all(&folder).unwrap();
        let mut list = String::new();
        for name in names {
            ssh_keygen(&[
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-f",
                folder.join(name).to_str().unwrap(),
            ]);
            let public = std::fs::read_to_string(folder.join(name).with_extension("pub")).unwrap();
            list += &format!("{name} {public}");
        }
        let list = write(&folder, "officers", list);
        Some(Self {
            directory: folder,
            list,
        })
    }

    /// The options that name the document and the signatures of these officers.
    fn sign(&self, kind: &str, document: &str, names: &[&str]) -> Vec<String> {
        let file = write(&self.directory, "document.toml", document);
        let mut options = vec!["--document".to_owned(), file.clone()];
        for name in names {
            let key = self.directory.join(name);
            ssh_keygen(&[
                "-q",
                "-Y",
                "sign",
                "-f",
                key.to_str().unwrap(),
                "-n",
                kind,
                &file,
            ]);
            let kept = self.directory.join(format!("{name}.sig"));
            std::fs::rename(format!("{file}.sig"), &kept).unwrap();
            options.extend(["--signature".to_owned(), kept.to_str().unwrap().to_owned()]);
        }
        options
    }
}

fn ssh_keygen(arguments: &[&str]) {
    let output = Command::new("ssh-keygen").args(arguments).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ssh-keygen {arguments:?}: {err}");
}

fn with<'a>(arguments: &[&'a str], options: &'a [String]) -> Vec<&'a str> {
    let options = options.iter().map(String::as_str);
    as_root(&arguments.iter().copied().chain(options).collect::<Vec<_>>())
}

/// Creates the state anew, with officers.
fn create_with(directory: &Path, daemon: &Daemon, board: &Board) {
    std::fs::remove_dir_all(directory.join("state")).unwrap();
    let init = [
        "state",
        "init",
        "--officers",
        &board.list,
        "--threshold",
        "2",
    ];
    done(daemon, &as_root(&init));
    let policy = daemon.policy_request();
    let signed = board.sign("policy@hsmd", &policy, &["ada", "bob"]);
    done(daemon, &with(&["policy", "load"], &signed));
}

#[test]
fn officers_are_named_at_the_start_and_replaced_by_enough_of_them_only() {
    let (scratch, mut daemon) = set_up(Hsm::Mock);
    let directory = scratch.path();
    let Some(old) = Board::new(directory, &["ada", "bob", "cleo"]) else {
        return;
    };
    let new = Board::new(directory, &["dora", "emil"]).unwrap();
    let request = [
        "state",
        "request",
        "set-officers",
        "--officers",
        &new.list,
        "--threshold",
        "2",
    ];
    let document = done(&daemon, &request);
    let set = ["state", "set-officers"];
    let one = old.sign("set-officers@hsmd", &document, &["ada"]);
    refused(&daemon, &with(&set, &one), &["no officer's key"]);

    create_with(directory, &daemon, &old);
    let both = old.sign("set-officers@hsmd", &document, &["ada", "cleo"]);
    refused(&daemon, &with(&set, &both), &["deployment"]);
    let document = done(&daemon, &request);
    let one = old.sign("set-officers@hsmd", &document, &["ada"]);
    refused(&daemon, &with(&set, &one), &["1 of 3", "2 are needed"]);
    let strangers = new.sign("set-officers@hsmd", &document, &["dora", "emil"]);
    refused(&daemon, &with(&set, &strangers), &["no officer's key"]);
    daemon.start();
    let both = old.sign("set-officers@hsmd", &document, &["ada", "cleo"]);
    done(&daemon, &with(&set, &both));
    refused(&daemon, &with(&set, &both), &["was used before"]);
    let document = done(&daemon, &request);
    let late = old.sign("set-officers@hsmd", &document, &["ada", "cleo"]);
    refused(&daemon, &with(&set, &late), &["no officer's key"]);
    let shown = done(&daemon, &["state", "officers"]);
    assert!(
        shown.contains("dora") && shown.contains("2 of 2") && !shown.contains("ada"),
        "{shown}"
    );

    // The new ones confirm themselves, once; the same document does not count again, after a restart either.
    let document = done(&daemon, &request);
    let both = new.sign("set-officers@hsmd", &document, &["dora", "emil"]);
    done(&daemon, &with(&set, &both));
    daemon.kill();
    daemon.start();
    refused(&daemon, &with(&set, &both), &["was used before"]);
    let entries = daemon.journal();
    let sets: Vec<&Value> = entries
        .iter()
        .filter(|entry| entry["event"] == "officers_set")
        .collect();
    assert_eq!(sets.len(), 3);
    assert_eq!(sets[1]["authorisation"]["officers"], json!(["ada", "cleo"]));
    assert_eq!(sets[2]["authorisation"]["document"], document);
}

#[test]
fn a_key_from_a_backup_begins_above_its_evidence_when_officers_say_that_the_old_device_is_off() {
    let (scratch, mut daemon) = set_up(Hsm::Mock);
    let directory = scratch.path();
    let Some(board) = Board::new(directory, &["ada", "bob", "cleo"]) else {
        return;
    };
    // The first life of the key, in a journal that is lost; an export of it survives.
    daemon.init_key(KEY, CHAIN, 4000);
    let survived = done(&daemon, &as_root(&["state", "export"]));
    let survived = write(directory, "survived.json", survived);
    daemon.start();
    let public_key = hex::encode(daemon.public_key(KEY));
    daemon.kill();
    create_with(directory, &daemon, &board);

    let recover = ["key", "init", KEY, "--chain", CHAIN, "--recovered"];
    let evidence = ["--evidence", &survived, "--format", "hsmd"];
    let request = [
        &[
            "state",
            "request",
            "recover-key",
            KEY,
            "--chain",
            CHAIN,
            "--public-key",
            &public_key,
        ][..],
        &[
            "--margin",
            "500",
            "--old-device-is-off",
            "destroyed, see the minutes",
        ],
        &evidence,
    ]
    .concat();
    let document = done(&daemon, &request);
    assert!(document.contains("evidence_height = 4000"), "{document}");
    let init = [&recover[..], &evidence].concat();
    refused(&daemon, &as_root(&init), &["hsmd state request"]);
    let one = board.sign("recover-key@hsmd", &document, &["bob"]);
    refused(&daemon, &with(&init, &one), &["2 are needed"]);
    let lower = document.replace("evidence_height = 4000", "evidence_height = 10");
    let signed = board.sign("recover-key@hsmd", &lower, &["ada", "bob"]);
    refused(&daemon, &with(&init, &signed), &["shows height 4000"]);
    let signed = board.sign("recover-key@hsmd", &document, &["ada", "bob"]);
    refused(
        &daemon,
        &with(&recover, &signed),
        &["evidence with SHA-256"],
    );
    done(&daemon, &with(&init, &signed));
    refused(&daemon, &with(&init, &signed), &["was used before"]);

    daemon.start();
    let (_sentry, _node, mut connection) = connect(directory, &daemon);
    let at = vote(Prevote, 4500, 0, None);
    assert_refused(connection.sign_vote(CHAIN, &at), Reason::Regression);
    let above = vote(Prevote, 4501, 0, None);
    connection.sign_vote(CHAIN, &above).expect("a signature");
    let entries = daemon.journal();
    let recovered = entries
        .iter()
        .find(|entry| entry["event"] == "key_recovered")
        .unwrap();
    assert_eq!(recovered["initial_height"], 4500);
    assert_eq!(
        recovered["authorisation"]["officers"],
        json!(["ada", "bob"])
    );
    let statement = recovered["authorisation"]["document"].as_str().unwrap();
    assert!(statement.contains("destroyed, see the minutes"));
}
