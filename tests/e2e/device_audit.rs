//! What a device says of itself, held against what hsmd asked of it: its audit log, its identity, its firmware, and
//! what `hsmd doctor` makes of them.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hsm_device::mock::{Mock, Settings};
use hsm_device::{Algorithm, KeyLocator};
use hsm_proto::v1::Reason;
use hsm_tests::authority::uri;
use hsm_tests::binaries::{needs, softhsm_module};
use hsm_tests::daemon::{ALL_KINDS, Daemon, Hsm, grant};
use hsm_tests::node::vote;
use hsm_tests::process::{PATIENCE, Scratch, wait_for};
use hsm_tests::validator::{CHAIN, KEY, SENTRY, Transport, Validator};
use serde_json::Value;
use tendermint_proto::v0_38::types::SignedMsgType::Prevote;

const UNKNOWN: &str = "hsmd_device_unknown_signatures_total{device=\"hsm\"}";

/// `hsmd doctor --json`: its exit code, and the findings that are not ok.
fn doctor(daemon: &Daemon) -> (Option<i32>, Vec<Value>) {
    let output = daemon.command(&["doctor", "--json"]).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = said["findings"].as_array().unwrap().clone();
    let problems = findings.iter().filter(|f| f["severity"] == "problem");
    assert_eq!(said["problems"], problems.count());
    let bad = findings.into_iter().filter(|f| f["severity"] != "ok");
    (output.status.code(), bad.collect())
}

fn has(findings: &[Value], severity: &str, check: &str) -> bool {
    findings
        .iter()
        .any(|finding| finding["severity"] == severity && finding["check"] == check)
}

fn terminate(daemon: &mut Daemon) {
    assert!(daemon.process().terminate().success());
    daemon.kill();
}

/// The emulator of an hsmd that does not run.
fn emulator(directory: &Path) -> Mock {
    let settings = Settings {
        state_file: Some(directory.join("mock.state")),
        ..Settings::default()
    };
    Mock::start(settings).unwrap()
}

/// A validator whose device records every signature, and stops when its log is full.
fn forced() -> Validator {
    let mut validator = Validator::start(Transport::Unix);
    terminate(&mut validator.daemon);
    emulator(validator.directory()).force_audit().unwrap();
    validator.daemon.start();
    validator
}

fn sign(validator: &mut Validator, heights: std::ops::RangeInclusive<i64>) {
    for height in heights {
        let asked = vote(Prevote, height, 0, None);
        validator
            .connection
            .sign_vote(CHAIN, &asked)
            .expect("a signature");
    }
}

/// Waits for the daemon's first reading of the device's log since its start.
fn audited(daemon: &Daemon) {
    wait_for("the audit log to be read", PATIENCE, || {
        let (_, findings) = doctor(daemon);
        (!has(&findings, "warning", "audit_log")).then_some(())
    });
}

#[test]
fn doctor_finds_no_problem_in_a_good_set_up_and_warns_of_what_protects_less() {
    let validator = Validator::start(Transport::Unix);
    audited(&validator.daemon);
    let (code, findings) = doctor(&validator.daemon);
    assert_eq!(code, Some(0), "{findings:#?}");
    for check in ["mock", "audit_options", "anchor"] {
        assert!(has(&findings, "warning", check), "{check}: {findings:#?}");
    }
    let text = validator.daemon.command(&["doctor"]).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for words in [
        "ok       device hsm",
        "is the one that was pinned",
        "nothing at or below 0",
    ] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_device_whose_full_log_stops_it_signs_on_and_hsmd_is_satisfied_with_its_log() {
    let mut validator = forced();
    sign(&mut validator, 1..=150);
    audited(&validator.daemon);
    let (code, findings) = doctor(&validator.daemon);
    assert_eq!(code, Some(0), "{findings:#?}");
    assert!(!has(&findings, "warning", "audit_options"), "{findings:#?}");
    assert_eq!(validator.daemon.metric(UNKNOWN), Some(0.0));
    terminate(&mut validator.daemon);
    let mut made = 0;
    for entry in validator.daemon.journal() {
        if entry["event"] == "device_audit" {
            for object in entry["signatures"].as_array().unwrap() {
                assert_eq!(object["unknown"], 0, "{entry}");
                made += object["made"].as_u64().unwrap();
            }
        }
    }
    assert_eq!(
        made, 150,
        "every signature of the device is in a checkpoint"
    );
}

#[test]
fn a_signature_behind_hsmds_back_is_in_metric_journal_log_and_doctor_and_stays_there() {
    let mut validator = forced();
    sign(&mut validator, 1..=3);
    terminate(&mut validator.daemon);
    let locator = KeyLocator {
        label: Some(KEY.to_owned()),
        id: None,
        algorithm: Algorithm::Ed25519,
    };
    let mock = emulator(validator.directory());
    mock.stranger().unwrap().sign(&locator, b"behind").unwrap();
    drop(mock);
    validator.daemon.start();
    wait_for("the alarm", PATIENCE, || {
        (validator.daemon.metric(UNKNOWN) == Some(1.0)).then_some(())
    });
    let log = validator.daemon.process().log();
    assert!(log.contains("ALARM"), "{log}");
    let (code, findings) = doctor(&validator.daemon);
    assert_eq!(code, Some(1), "{findings:#?}");
    assert!(has(&findings, "problem", "unknown_signatures"));
    sign(&mut validator, 4..=5);
    validator.daemon.kill();
    let entries = validator.daemon.journal();
    let alarm = entries
        .iter()
        .find(|entry| entry["event"] == "device_audit" && entry["signatures"][0]["unknown"] == 1);
    assert!(alarm.is_some(), "{entries:#?}");
    validator.daemon.start();
    let (code, findings) = doctor(&validator.daemon);
    assert_eq!(code, Some(1), "{findings:#?}");
    assert!(has(&findings, "problem", "unknown_signatures"));
}

#[test]
fn an_alarm_ends_when_an_operator_acknowledges_it_and_the_journal_says_who_did() {
    let mut validator = forced();
    terminate(&mut validator.daemon);
    let locator = KeyLocator {
        label: Some(KEY.to_owned()),
        id: None,
        algorithm: Algorithm::Ed25519,
    };
    let behind_its_back = |validator: &Validator| {
        let mock = emulator(validator.directory());
        mock.stranger().unwrap().sign(&locator, b"behind").unwrap();
    };
    let alarmed = |daemon: &Daemon| {
        wait_for("the alarm", PATIENCE, || {
            has(&doctor(daemon).1, "problem", "unknown_signatures").then_some(())
        });
    };
    let acknowledge = |daemon: &Daemon, device| {
        let arguments = ["doctor", "--acknowledge", device];
        let output = daemon.command(&arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    behind_its_back(&validator);
    validator.daemon.start();
    alarmed(&validator.daemon);
    let status = validator.daemon.command(&["status"]).output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("ALARM: 1 signatures"), "{status}");
    let (_, findings) = doctor(&validator.daemon);
    let remedy = "`hsmd doctor --acknowledge hsm`";
    let names_it = |finding: &Value| finding["message"].as_str().unwrap().contains(remedy);
    assert!(findings.iter().any(names_it), "{findings:#?}");

    let (done, said) = acknowledge(&validator.daemon, "other");
    assert!(!done && said.contains("no device \"other\""), "{said}");
    let (done, said) = acknowledge(&validator.daemon, "hsm");
    assert!(done && said.contains("1 unknown signatures"), "{said}");
    let (code, findings) = doctor(&validator.daemon);
    assert_eq!(code, Some(0), "{findings:#?}");
    let (done, said) = acknowledge(&validator.daemon, "hsm");
    assert!(!done && said.contains("nothing to acknowledge"), "{said}");

    terminate(&mut validator.daemon);
    let journal = validator.daemon.journal();
    let entries = journal
        .iter()
        .filter(|e| e["event"] == "alarm_acknowledged");
    let entries: Vec<_> = entries.collect();
    assert_eq!(entries.len(), 1, "{journal:#?}");
    assert_eq!(entries[0]["unknown_signatures"], 1);
    let me = std::fs::metadata("/proc/self").unwrap().uid();
    assert_eq!(entries[0]["by"], format!("uid {me}"));
    behind_its_back(&validator);
    validator.daemon.start();
    alarmed(&validator.daemon);
    let status = validator.daemon.command(&["status", "--json"]).output();
    let status: Value = serde_json::from_slice(&status.unwrap().stdout).unwrap();
    assert_eq!(
        status["devices"][0]["unknown_signatures"], 1,
        "only the new one"
    );
}

#[test]
fn an_hsmd_that_was_killed_while_it_signed_raises_no_false_alarm() {
    let mut validator = forced();
    for round in 0..3 {
        sign(&mut validator, round * 20 + 1..=round * 20 + 20);
        validator.daemon.kill();
        validator.daemon.start();
        audited(&validator.daemon);
        let (code, findings) = doctor(&validator.daemon);
        assert_eq!(code, Some(0), "{findings:#?}");
        assert_eq!(validator.daemon.metric(UNKNOWN), Some(0.0));
    }
}

#[test]
fn another_device_in_the_place_of_the_pinned_one_is_refused_until_that_is_back() {
    let mut validator = Validator::start(Transport::Unix);
    sign(&mut validator, 1..=1);
    terminate(&mut validator.daemon);
    let good = std::fs::read_to_string(validator.daemon.config()).unwrap();
    let other = Settings {
        serial: Settings::default().serial + 7,
        state_file: Some(validator.directory().join("other.state")),
        ..Settings::default()
    };
    let mock = Mock::start(other.clone()).unwrap();
    mock.ensure_key(KEY, Algorithm::Ed25519).unwrap();
    drop(mock);
    let path = validator.directory().join("mock.state");
    let changed = good.replace(
        &format!("state_file = {path:?}"),
        &format!(
            "serial = {}\nstate_file = {:?}",
            other.serial,
            other.state_file.unwrap()
        ),
    );
    assert_ne!(changed, good);
    std::fs::write(validator.daemon.config(), changed).unwrap();
    validator.daemon.start();
    validator.assert_refused(Reason::DeviceMisconfigured, |connection| {
        connection.sign_vote(CHAIN, &vote(Prevote, 2, 0, None))
    });
    let (code, findings) = doctor(&validator.daemon);
    assert_eq!(code, Some(1));
    let reachable = findings.iter().find(|f| f["check"] == "reachable").unwrap();
    let message = reachable["message"].as_str().unwrap();
    for words in ["4200000000", "4200000007", "put the pinned device back"] {
        assert!(message.contains(words), "{message}");
    }
    terminate(&mut validator.daemon);
    std::fs::write(validator.daemon.config(), good).unwrap();
    validator.daemon.start();
    sign(&mut validator, 2..=2);
}

#[test]
fn a_key_under_an_advisory_is_named_and_refused_where_the_configuration_says_so() {
    let scratch = Scratch::new();
    let policy = grant(&uri("sentry", SENTRY), KEY, CHAIN, &ALL_KINDS);
    let mut daemon = Daemon::set_up(scratch.path(), Hsm::Mock, &[KEY], &policy);
    let mock = emulator(scratch.path());
    mock.ensure_key(KEY, Algorithm::Secp256k1).unwrap();
    drop(mock);
    let config = std::fs::read_to_string(daemon.config()).unwrap();
    let old = config
        .replace("algorithm = \"ed25519\"", "algorithm = \"secp256k1\"")
        .replace(
            "backend = \"mock\"",
            "backend = \"mock\"\nfirmware = \"2.3.2\"",
        );
    for (advisories, severity, code, logged) in [
        ("", "warning", 0, Some("WARN under YSA-2024-03")),
        (
            "[advisories]\naction = \"refuse\"\n",
            "problem",
            1,
            Some("WARN refused under YSA-2024-03"),
        ),
        (
            "[advisories]\naction = \"refuse\"\naccept = [\"YSA-2024-03\"]\n",
            "ok",
            0,
            None,
        ),
    ] {
        std::fs::write(daemon.config(), format!("{old}{advisories}")).unwrap();
        if advisories.is_empty() {
            daemon.init_key(KEY, CHAIN, 0);
        }
        daemon.start();
        wait_for("the device", PATIENCE, || {
            let (_, findings) = doctor(&daemon);
            (!has(&findings, "problem", "reachable")).then_some(())
        });
        let (found, findings) = doctor(&daemon);
        assert_eq!(found, Some(code), "{findings:#?}");
        let named = findings.iter().any(|finding| {
            let message = finding["message"].as_str().unwrap();
            let this = finding["subject"] == "key" && finding["check"] == "advisory";
            this && finding["severity"] == severity && message.contains("YSA-2024-03")
        });
        assert_eq!(named, logged.is_some(), "{findings:#?}");
        if let Some(logged) = logged {
            wait_for("the log to name it", PATIENCE, || {
                daemon.process().log().contains(logged).then_some(())
            });
        }
        daemon.kill();
    }
}

#[test]
fn a_token_is_known_again_by_its_serial_number_and_keeps_no_audit_log() {
    if needs("SoftHSM", softhsm_module()).is_none() {
        return;
    }
    let scratch = Scratch::new();
    let policy = grant(&uri("sentry", SENTRY), KEY, CHAIN, &ALL_KINDS);
    let mut daemon = Daemon::set_up(scratch.path(), Hsm::SoftHsm, &[KEY], &policy);
    daemon.init_key(KEY, CHAIN, 0);
    for _ in 0..2 {
        daemon.start();
        audited(&daemon);
        let output = daemon.command(&["doctor"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        for words in ["is the one that was pinned", "keeps no audit log"] {
            assert!(text.contains(words), "{text}");
        }
        terminate(&mut daemon);
    }
}
