//! Rollback: the real hsmd on state that was put back, with its anchor in a TPM (swtpm) and in a YubiHSM2 (the
//! emulator). Promises 2 and 3. The same at random, on the guard alone: `hsmd/src/anchor/tests.rs`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::path::{Path, PathBuf};

use hsm_device::mock::{Mock, Settings};
use hsm_proto::v1::{BlockId, Reason, SignCometbftVoteRequest};
use hsm_tests::authority::{Identity, uri};
use hsm_tests::binaries::needs;
use hsm_tests::client::{Client, reason};
use hsm_tests::daemon::{ALL_KINDS, Daemon, allow_root, grant};
use hsm_tests::officers::Officers;
use hsm_tests::process::{PATIENCE, Scratch, wait_for};
use hsm_tests::swtpm::Swtpm;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tonic::Status;

const KEY: &str = "val0";
const CHAIN: &str = "chain-a";
const WINDOW: i64 = 20;
/// As CometBFT's `SignedMsgType`.
const PREVOTE: i32 = 1;

/// Where the anchor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tpm,
    Yubihsm,
}

const KINDS: [Kind; 2] = [Kind::Tpm, Kind::Yubihsm];

/// A computer with hsmd, and the anchor beside it.
struct Computer {
    daemon: Daemon,
    tpm: Option<Swtpm>,
    sentry: Identity,
    officers: Officers,
    scratch: Scratch,
    /// On a tmpfs, as `/run` is.
    run: Scratch,
}

impl Computer {
    /// `None`: the test is skipped.
    fn set_up(kind: Kind) -> Option<Self> {
        let shared_memory = Path::new("/dev/shm");
        needs("a tmpfs in /dev/shm", shared_memory.is_dir().then_some(()))?;
        let (scratch, run) = (Scratch::new(), Scratch::new_in(shared_memory));
        let tpm = match kind {
            Kind::Tpm => Some(needs("swtpm", Swtpm::start(scratch.path(), "tpm"))?),
            Kind::Yubihsm => None,
        };
        let place = match &tpm {
            Some(tpm) => format!("kind = \"tpm\"\ntcti = {:?}\n", tpm.tcti()),
            None => "kind = \"yubihsm\"\ndevice = \"hsm\"\n".to_owned(),
        };
        let last = run.path().join("last-entry");
        let table = format!("{place}window = {WINDOW}\ninterval_s = 0\nlast_entry = {last:?}\n");
        let policy = grant(&uri("sentry", "a"), KEY, CHAIN, &ALL_KINDS);
        let officers = Officers::new(scratch.path(), &["ada", "bob", "cleo"]);
        let officers = needs("ssh-keygen", officers)?;
        let mut daemon = Daemon::prepare_anchored(scratch.path(), &[KEY], &policy, &table);
        let list = officers.list();
        let list = list.to_str().unwrap();
        let init = ["state", "init", "--officers", list, "--threshold", "2"];
        daemon.succeed(&init, allow_root());
        let signed = officers.sign("policy", &daemon.policy_request(), &["ada", "bob"]);
        let signed = signed.iter().map(String::as_str);
        let load: Vec<&str> = ["policy", "load"].into_iter().chain(signed).collect();
        daemon.succeed(&load, allow_root());
        daemon.start();
        daemon.init_key(KEY, CHAIN, 0);
        let sentry = daemon.authority().sentry("a");
        Some(Self {
            daemon,
            tpm,
            sentry,
            officers,
            scratch,
            run,
        })
    }

    /// Has a prevote for the block that `block` stands for signed.
    fn sign(&self, height: i64, block: u8) -> Result<(), Status> {
        let ca = self.daemon.authority().certificate();
        let client = Client::new(self.daemon.port(), &ca, Some(&self.sentry));
        let request = SignCometbftVoteRequest {
            key: KEY.to_owned(),
            chain_id: CHAIN.to_owned(),
            r#type: PREVOTE,
            height,
            round: 0,
            block_id: Some(BlockId {
                hash: vec![block; 32],
                part_set_total: 1,
                part_set_hash: vec![block; 32],
            }),
            timestamp: Some(std::time::SystemTime::now().into()),
            extension: None,
            ledger_id: String::new(),
        };
        let answer =
            client.call(|mut signer| async move { signer.sign_cometbft_vote(request).await })?;
        assert_eq!(answer.signature.len(), 64);
        Ok(())
    }

    #[track_caller]
    fn assert_refused(&self, height: i64, block: u8, expected: Reason) -> String {
        let status = self.sign(height, block).expect_err("a refusal");
        assert_eq!(
            reason(&status).as_deref(),
            Some(expected.name()),
            "{status}"
        );
        status.message().to_owned()
    }

    fn anchor(&self) -> Value {
        self.daemon.status()["anchor_status"].clone()
    }

    /// A copy of the state directory, taken while it is in use.
    fn image(&self, name: &str) -> PathBuf {
        let to = self.scratch.path().join(name);
        copy(&self.daemon.state_directory(), &to);
        to
    }

    fn put_back(&self, image: &Path) {
        std::fs::remove_dir_all(self.daemon.state_directory()).unwrap();
        copy(image, &self.daemon.state_directory());
    }

    fn stop(&mut self) {
        assert!(self.daemon.process().terminate().success());
    }

    fn reboot(&mut self) {
        self.daemon.kill();
        std::fs::remove_file(self.run.path().join("last-entry")).unwrap();
    }

    /// A document of this kind, with this statement, signed by these officers: the options that name it.
    fn signed(&self, kind: &str, statement: &str, officers: &[&str]) -> Vec<String> {
        let request = ["state", "request", kind, statement, "as they looked"];
        let document = self.daemon.succeed(&request, None);
        self.officers.sign(kind, &document, officers)
    }

    /// Runs a command with such options; what it says where it fails.
    fn with(&self, command: &str, signed: &[String], root: bool) -> Result<(), String> {
        let mut command = self.daemon.command(&["state", command]);
        command.args(signed).args(allow_root().filter(|_| root));
        let output = command.output().expect("hsmd runs");
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Another TPM, or another YubiHSM with the same keys, in the place of the one that holds the anchor.
    fn lose_the_anchor(&mut self) {
        match &mut self.tpm {
            Some(tpm) => {
                tpm.switch_off();
                std::fs::remove_dir_all(self.scratch.path().join("tpm")).unwrap();
                std::fs::create_dir(self.scratch.path().join("tpm")).unwrap();
                tpm.switch_on();
            }
            None => edit_mock(&self.scratch.path().join("mock.state"), |state| {
                let objects = state["objects"].as_array_mut().unwrap();
                // Type 1: opaque.
                objects.retain(|object| object["kind"] != 1);
            }),
        }
    }

    /// Starts hsmd, which must refuse; returns what it says.
    fn refused_start(&self) -> String {
        let mut command = self.daemon.command(&["run"]);
        let output = command.args(allow_root()).output().expect("hsmd runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        text
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_owned();
        // Others come and go while hsmd prepares its next segment.
        let is_policy = name.to_str().unwrap().starts_with("policy-");
        if is_segment(&path) || is_policy || name == "head" {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

fn segments(directory: &Path) -> usize {
    let files = std::fs::read_dir(directory).unwrap();
    files
        .filter(|file| is_segment(&file.as_ref().unwrap().path()))
        .count()
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.starts_with("segment-")
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{} lacks {from}", file.display());
    std::fs::write(file, text.replace(from, to)).unwrap();
}

/// Another emulator with this serial number and the keys of the one whose state file this is, in its place.
fn replace_device(file: &Path, serial: u32) {
    let other = file.with_extension("other");
    let settings = Settings {
        state_file: Some(other.clone()),
        serial,
        ..Settings::default()
    };
    drop(Mock::start(settings).expect("the emulator starts"));
    let mut state = Value::Null;
    edit_mock(&other, |other| state = other.clone());
    edit_mock(file, |old| {
        state["objects"] = old["objects"].clone();
        *old = state;
    });
}

/// Edits an emulator's state file: a warning, the digest of the rest, and the rest.
fn edit_mock(file: &Path, edit: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines = text.splitn(3, '\n');
    let (warning, _, state) = (lines.next().unwrap(), lines.next(), lines.next().unwrap());
    let mut state = serde_json::from_str(state).unwrap();
    edit(&mut state);
    let state = state.to_string();
    let digest = hex::encode(Sha256::digest(state.as_bytes()));
    std::fs::write(file, format!("{warning}\n{digest}\n{state}")).unwrap();
}

fn on_each_kind(test: impl Fn(&mut Computer)) {
    for kind in KINDS {
        let Some(mut computer) = Computer::set_up(kind) else {
            continue;
        };
        println!("{kind:?}");
        test(&mut computer);
    }
}

#[test]
fn state_of_an_hour_ago_is_refused_with_what_was_seen_and_expected_and_how_to_go_on() {
    on_each_kind(|computer| {
        computer.sign(1, 1).unwrap();
        let running = computer.image("an-hour-ago");
        computer.stop();
        let stopped = computer.image("before-a-restart");
        computer.daemon.start();
        let expected = computer.anchor()["counter"].as_u64().unwrap();
        // Beyond the ceiling, so that the anchor has to be advanced.
        computer.sign(WINDOW * 3, 1).unwrap();
        let found = computer.anchor()["counter"].as_u64().unwrap();
        assert!(found > expected, "{found}, {expected}");
        computer.stop();
        let newest = computer.image("newest");
        for image in [running, stopped] {
            let before = segments(&image);
            computer.put_back(&image);
            let text = computer.refused_start();
            for word in [
                "rolled back",
                "stands at",
                "expects",
                "newest state directory",
            ] {
                assert!(text.contains(word), "{text:?} does not say {word:?}");
            }
            let after = segments(&computer.daemon.state_directory());
            assert_eq!(after, before, "a refused start writes nothing");
        }
        computer.put_back(&newest);
        computer.daemon.start();
        computer.sign(WINDOW * 3 + 1, 1).unwrap();
    });
}

#[test]
fn an_image_put_back_between_two_advances_signs_above_the_ceiling_only() {
    on_each_kind(|computer| {
        computer.sign(1, 1).unwrap();
        let image = computer.image("image");
        for height in 2..5 {
            computer.sign(height, 1).unwrap();
        }
        let counter = computer.anchor()["counter"].clone();
        computer.daemon.kill();
        computer.put_back(&image);
        computer.daemon.start();
        assert_eq!(
            computer.anchor()["counter"],
            counter,
            "no advance lay between"
        );
        let chain = computer.daemon.state()["keys"][0]["chains"][0].clone();
        let floor = chain["floor"].as_i64().unwrap();
        assert!(floor >= 5, "{chain}");
        for height in [2, 4, floor] {
            let text = computer.assert_refused(height, 2, Reason::Ceiling);
            assert!(text.contains("accept-tail"), "{text}");
        }
        computer.sign(floor + 1, 2).unwrap();
    });
}

#[test]
fn an_hsmd_that_was_killed_goes_on_at_once_and_after_a_power_cut_above_the_ceiling() {
    on_each_kind(|computer| {
        computer.sign(1, 1).unwrap();
        for height in 2..5 {
            computer.daemon.kill();
            computer.daemon.start();
            computer.sign(height, 1).unwrap();
        }
        computer.reboot();
        computer.daemon.start();
        let status = computer.anchor();
        assert!(status["unproven"]["size"].as_u64().unwrap() > 0, "{status}");
        computer.assert_refused(5, 1, Reason::Ceiling);
        computer.sign(WINDOW + 10, 1).unwrap();
    });
}

#[test]
fn a_clean_stop_is_whole_also_after_a_boot() {
    on_each_kind(|computer| {
        computer.sign(1, 1).unwrap();
        computer.stop();
        computer.reboot();
        computer.daemon.start();
        computer.sign(2, 1).unwrap();
    });
}

#[test]
fn a_copy_on_another_computer_is_refused() {
    on_each_kind(|computer| {
        computer.sign(1, 1).unwrap();
        computer.stop();
        computer.lose_the_anchor();
        let text = computer.refused_start();
        for word in ["missing", "another machine", "rebind-anchor"] {
            assert!(text.contains(word), "{text:?} does not say {word:?}");
        }
    });
}

#[test]
fn a_lost_anchor_is_replaced_by_officers_and_signing_goes_on_above_the_ceiling() {
    on_each_kind(|computer| {
        computer.sign(1, 1).unwrap();
        let chain = computer.daemon.state()["keys"][0]["chains"][0].clone();
        let ceiling = chain["ceiling"].as_i64().unwrap();
        computer.stop();
        computer.lose_the_anchor();
        let (kind, statement) = ("rebind-anchor", "--this-state-is-the-newest");
        let one = computer.signed(kind, statement, &["ada"]);
        let refused = computer.with(kind, &one, true).unwrap_err();
        assert!(refused.contains("2 are needed"), "{refused}");
        computer.refused_start();
        let two = computer.signed(kind, statement, &["ada", "cleo"]);
        computer.with(kind, &two, true).unwrap();
        let again = computer.with(kind, &two, true).unwrap_err();
        assert!(again.contains("used before"), "{again}");
        computer.daemon.start();
        computer.assert_refused(ceiling, 2, Reason::Ceiling);
        computer.sign(ceiling + 1, 1).unwrap();
    });
}

#[test]
fn officers_cannot_bind_a_state_that_was_rolled_back() {
    on_each_kind(|computer| {
        computer.sign(1, 1).unwrap();
        let image = computer.image("image");
        computer.sign(WINDOW * 3, 1).unwrap();
        computer.stop();
        computer.put_back(&image);
        let (kind, statement) = ("rebind-anchor", "--this-state-is-the-newest");
        let signed = computer.signed(kind, statement, &["ada", "bob"]);
        let refused = computer.with(kind, &signed, true).unwrap_err();
        assert!(refused.contains("rolled back"), "{refused}");
    });
}

#[test]
fn a_chain_that_waits_below_the_ceiling_goes_on_when_officers_accept_the_tail() {
    on_each_kind(|computer| {
        computer.sign(1, 1).unwrap();
        computer.reboot();
        computer.daemon.start();
        computer.assert_refused(2, 1, Reason::Ceiling);
        let (kind, statement) = ("accept-tail", "--nothing-is-missing");
        let one = computer.signed(kind, statement, &["bob"]);
        computer.with(kind, &one, false).unwrap_err();
        computer.assert_refused(2, 1, Reason::Ceiling);
        let two = computer.signed(kind, statement, &["ada", "bob"]);
        computer.with(kind, &two, false).unwrap();
        computer.sign(2, 1).unwrap();
        computer.assert_refused(1, 2, Reason::Regression);
        assert_eq!(computer.anchor()["unproven"], Value::Null);
    });
}

#[test]
fn a_configuration_without_the_anchor_that_the_journal_is_bound_to_is_refused() {
    on_each_kind(|computer| {
        computer.stop();
        let file = computer.daemon.config();
        let text = std::fs::read_to_string(&file).unwrap();
        let (before, after) = text.split_once("[state.anchor]").unwrap();
        let (_, after) = after.split_once("[[device]]").unwrap();
        let without = format!("{before}anchor = \"none\"\n[[device]]{after}");
        std::fs::write(&file, without).unwrap();
        let refused = computer.refused_start();
        assert!(refused.contains("rebind-anchor"), "{refused}");
    });
}

#[test]
fn a_dead_tpm_stops_signing_at_the_ceiling_and_heals_without_a_restart() {
    let Some(mut computer) = Computer::set_up(Kind::Tpm) else {
        return;
    };
    computer.sign(1, 1).unwrap();
    computer.tpm.as_mut().unwrap().switch_off();
    computer.sign(2, 1).unwrap();
    let text = computer.assert_refused(WINDOW * 3, 1, Reason::AnchorUnavailable);
    assert!(text.contains("TPM"), "{text}");
    assert_ne!(computer.anchor()["fault"], "");
    wait_for("the metric", PATIENCE, || {
        (computer.daemon.metric("hsmd_anchor_fault") == Some(1.0)).then_some(())
    });
    computer.tpm.as_mut().unwrap().switch_on();
    wait_for("a signature", PATIENCE, || {
        computer.sign(WINDOW * 3, 1).ok()
    });
    assert_eq!(computer.anchor()["fault"], "");
}

#[test]
fn an_advance_that_a_crash_interrupted_is_completed() {
    let Some(mut computer) = Computer::set_up(Kind::Tpm) else {
        return;
    };
    computer.sign(1, 1).unwrap();
    let before = computer.anchor()["counter"].as_u64().unwrap();
    computer.tpm.as_mut().unwrap().switch_off();
    // The advance is journaled, and not made.
    computer.assert_refused(WINDOW * 3, 1, Reason::AnchorUnavailable);
    computer.daemon.kill();
    computer.tpm.as_mut().unwrap().switch_on();
    computer.daemon.start();
    assert_eq!(computer.anchor()["counter"], before + 1);
    computer.sign(WINDOW * 3, 1).unwrap();
}

#[test]
fn an_advance_that_a_crash_left_with_two_objects_in_the_yubihsm_counts_and_is_tidied_up() {
    let Some(mut computer) = Computer::set_up(Kind::Yubihsm) else {
        return;
    };
    let file = computer.scratch.path().join("mock.state");
    let anchors = || {
        let mut found = Vec::new();
        edit_mock(&file, |state| {
            let objects = state["objects"].as_array().unwrap().iter();
            // Type 1: opaque.
            found = objects
                .filter(|object| object["kind"] == 1)
                .cloned()
                .collect();
        });
        found
    };
    computer.sign(1, 1).unwrap();
    computer.daemon.kill();
    let mut old = anchors();
    assert_eq!(old.len(), 1);
    computer.daemon.start();
    computer.sign(WINDOW * 3, 1).unwrap();
    let counter = computer.anchor()["counter"].clone();
    computer.daemon.kill();
    assert_ne!(anchors(), old);
    // The new object was put, and the old one not deleted.
    let spare = 4711;
    old[0]["id"] = spare.into();
    edit_mock(&file, |state| {
        state["objects"].as_array_mut().unwrap().append(&mut old);
    });
    computer.daemon.start();
    assert_eq!(
        computer.anchor()["counter"],
        counter,
        "the higher one counts"
    );
    computer.assert_refused(WINDOW * 3, 2, Reason::DoubleSign);
    computer.sign(WINDOW * 6, 1).unwrap();
    computer.daemon.kill();
    let left = anchors();
    assert!(left.len() == 1 && left[0]["id"] != spare, "{left:?}");
    computer.daemon.start();
    computer.sign(WINDOW * 6 + 1, 1).unwrap();
}

#[test]
fn a_replaced_device_with_the_same_key_is_added_by_its_serial_number() {
    let Some(mut computer) = Computer::set_up(Kind::Tpm) else {
        return;
    };
    computer.sign(1, 1).unwrap();
    let shown = computer.daemon.status()["devices"][0]["serial"].clone();
    let old: u32 = shown.as_str().unwrap().parse().unwrap();
    let new = (old + 1).to_string();
    computer.stop();
    edit(
        &computer.daemon.config(),
        "backend = \"mock\"\n",
        &format!("backend = \"mock\"\nserial = {new}\n"),
    );
    replace_device(&computer.scratch.path().join("mock.state"), old + 1);
    computer.daemon.start();
    computer.assert_refused(2, 1, Reason::DeviceMisconfigured);
    let fault = computer.daemon.status()["devices"][0]["fault"].clone();
    let fault = fault.as_str().unwrap();
    assert!(fault.contains("another one than was pinned"), "{fault}");
    let add = |serial: &str| {
        let arguments = [
            "key", "device", "add", KEY, "--device", "hsm", "--serial", serial,
        ];
        let output = computer.daemon.command(&arguments).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (added, text) = add("1234567");
    assert!(!added && text.contains(&new), "{text}");
    let (added, text) = add(&new);
    assert!(added, "{text}");
    computer.sign(2, 1).unwrap();
    computer.assert_refused(1, 2, Reason::Regression);
    computer.daemon.kill();
    computer.daemon.start();
    computer.sign(3, 1).unwrap();
}

#[test]
fn advances_are_few_and_shown() {
    on_each_kind(|computer| {
        let begin = computer.anchor()["advances"].as_u64().unwrap();
        let heights = WINDOW * 5;
        for height in 1..=heights {
            computer.sign(height, 1).unwrap();
        }
        let advances = computer.anchor()["advances"].as_u64().unwrap() - begin;
        // One opens 20 heights, and begins when 4 are left.
        assert!((4..=9).contains(&advances), "{advances}");
        let output = computer.daemon.command(&["status"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("opens 20 heights"), "{text}");
        let metric = computer.daemon.metric("hsmd_anchor_counter");
        assert!(metric.is_some_and(|counter| counter > 0.0), "{metric:?}");
    });
}
