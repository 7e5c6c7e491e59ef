//! The policy that officers sign: two of three, one of them with a security key, sign with the real ssh-keygen; what
//! is wrong is refused with a reason of its own, and journaled. Promises 4 and 7.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod deployment;
mod documents;

use std::path::Path;
use std::time::{Duration, SystemTime};

use deployment::{Deployment, expiring, text};
use hsm_proto::v1::Reason;
use hsm_tests::authority::uri;
use hsm_tests::daemon::{ALL_KINDS, allow_root, grant};
use hsm_tests::process::{PATIENCE, wait_for};
use hsm_tests::security_key::TOUCHED;
use hsm_tests::validator::{CHAIN, KEY, SENTRY};

/// Done-when 2.
#[test]
fn officers_put_a_policy_in_force_that_outlives_restarts_and_takes_effect_at_once() {
    let Some(mut deployment) = Deployment::start() else {
        return;
    };
    deployment.vote(SENTRY, 1).expect("a signature");
    deployment.assert_denied("other", 2, Reason::KeyNotGranted);
    let draft = grant(&uri("sentry", "other"), KEY, CHAIN, &["prevote"]);
    let document = deployment.request(&(draft + "max_height = 100\n"));
    let file = deployment.path("new.toml");
    std::fs::write(&file, &document).unwrap();
    let file = file.to_str().unwrap();
    let differs = text(&deployment.hsmd(&["policy", "diff", file]));
    let more = format!(
        "It allows what the old one did not:\n- {} may have key {KEY} sign prevote on {CHAIN}",
        uri("sentry", "other")
    );
    assert!(differs.contains(&more), "{differs}");
    let less = format!(
        "It no longer allows:\n- no longer: {}",
        uri("sentry", SENTRY)
    );
    assert!(differs.contains(&less), "{differs}");
    let explained = |policy: &[&str], height: &str| {
        let caller = uri("sentry", "other");
        let ask = [
            "policy", "explain", "--caller", &caller, "--key", KEY, "--chain", CHAIN, "--kind",
            "prevote", "--height", height,
        ];
        text(&deployment.hsmd(&[&ask, policy].concat()))
    };
    assert!(
        explained(&["--policy", file], "100")
            .starts_with("permitted, by the grant that begins at line 6")
    );
    assert!(explained(&["--policy", file], "101").contains("line 6: height 101 lies above"));
    assert!(explained(&[], "100").starts_with("denied, since no grant speaks for it"));

    // One signs with ssh-keygen, one with a security key that was touched.
    let ada = deployment.signed(&document, &["ada"]);
    let cleo = deployment
        .cleo
        .sign("policy@hsmd", document.as_bytes(), TOUCHED, 7);
    let told = deployment.load_with(&deployment.with_signature(ada, &cleo));
    assert!(
        told.unwrap()
            .contains("version 2 is in force, as ada and cleo signed")
    );
    deployment.vote("other", 2).expect("a signature");
    deployment.assert_denied("other", 101, Reason::HeightLimit);
    deployment.assert_denied(SENTRY, 3, Reason::KeyNotGranted);
    let journal = deployment.daemon.journal();
    let loaded = journal
        .iter()
        .rfind(|entry| entry["event"] == "policy_loaded");
    let loaded = loaded.unwrap();
    assert_eq!(loaded["version"], 2);
    assert_eq!(loaded["officers"], serde_json::json!(["ada", "cleo"]));
    assert_eq!(loaded["sha256"], deployment.status()["sha256"]);

    deployment.daemon.kill();
    deployment.daemon.start();
    assert_eq!(deployment.status()["version"], 2);
    assert_eq!(deployment.status()["sha256"], loaded["sha256"]);
    deployment.vote("other", 3).expect("a signature");
    deployment.assert_denied(SENTRY, 4, Reason::KeyNotGranted);
}

#[test]
fn a_document_that_is_gone_or_changed_keeps_hsmd_from_starting_until_a_newer_one_is_loaded() {
    let Some(mut deployment) = Deployment::start() else {
        return;
    };
    let path = deployment.status()["path"].as_str().unwrap().to_owned();
    let path = Path::new(&path);
    let newer = deployment.newer();
    deployment.daemon.kill();
    let good = std::fs::read_to_string(path).unwrap();
    let refused = |word: &str| {
        let mut command = deployment.daemon.command(&["run"]);
        let output = command.args(allow_root()).output().unwrap();
        let told = text(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.contains(word) && told.contains("hsmd policy load"),
            "{told}"
        );
    };
    std::fs::write(path, good.replace(SENTRY, "thief")).unwrap();
    refused("it was changed");
    std::fs::remove_file(path).unwrap();
    refused("No such file");
    deployment
        .load(&newer, &["ada", "bob"])
        .expect("a newer one is taken without it");
    deployment.daemon.start();
    deployment.vote(SENTRY, 1).expect("a signature");
}

#[test]
fn a_policy_that_is_old_stays_in_force_and_raises_an_alarm() {
    let Some(mut deployment) = Deployment::start() else {
        return;
    };
    assert_eq!(deployment.daemon.metric("hsmd_policy_old"), Some(0.0));
    let document = expiring(
        &deployment.newer(),
        SystemTime::now() + Duration::from_secs(3),
    );
    deployment.load(&document, &["ada", "bob"]).unwrap();
    for restarted in [false, true] {
        if restarted {
            deployment.daemon.kill();
            deployment.daemon.start();
        }
        wait_for("the alarm", PATIENCE, || {
            (deployment.daemon.metric("hsmd_policy_old") == Some(1.0)).then_some(())
        });
        assert_eq!(deployment.status()["old"], true);
        assert!(text(&deployment.hsmd(&["status"])).contains("OLD: could be loaded until"));
        let doctor = deployment.hsmd(&["doctor"]);
        assert!(
            text(&doctor).contains("version 2 is old"),
            "{}",
            text(&doctor)
        );
        assert_eq!(doctor.status.code(), Some(1));
        let log = deployment.daemon.process().log();
        assert!(log.contains("the policy in force is old"), "{log}");
        deployment.vote(SENTRY, 1).expect("a signature");
    }
}

#[test]
fn a_grant_to_a_role_is_for_every_sentry_and_its_limits_hold_each_by_itself() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let draft = grant("spiffe://test.example/sentry/*", KEY, CHAIN, &["prevote"])
        + "max_height_jump = 50\nmax_heights_per_second = 0.001\nmax_requests_per_second = 0.001\n";
    let document = deployment.request(&draft);
    deployment.load(&document, &["ada", "bob"]).unwrap();
    deployment
        .vote("any", 50)
        .expect("as many heights as come at once");
    deployment.assert_denied("any", 51, Reason::HeightRate);
    deployment.assert_denied("another", 101, Reason::HeightJump);
    deployment
        .vote("another", 60)
        .expect("it has heights of its own");
    // What was signed is given again, and is no rise.
    deployment.vote("another", 60).expect("the same answer");
    let refused =
        (0..20).filter(|_| deployment.vote("any", 1) == Err(Reason::RequestRate.name().to_owned()));
    assert_eq!(refused.count(), 12, "8 of 10 requests were left");
    deployment.assert_denied("any", 1, Reason::RequestRate);
    deployment
        .vote("another", 60)
        .expect("it has requests of its own");
}

#[test]
fn a_policy_freezes_a_key_and_another_one_ends_that() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let all = grant(&uri("sentry", SENTRY), KEY, CHAIN, &ALL_KINDS);
    let frozen = deployment.request(&format!("{all}[[freeze]]\nkey = \"{KEY}\"\n"));
    deployment.load(&frozen, &["ada", "bob"]).unwrap();
    deployment.assert_denied(SENTRY, 1, Reason::KeyFrozen);
    assert!(text(&deployment.hsmd(&["policy", "show"])).contains(&format!("FROZEN: {KEY}")));
    deployment
        .load(&deployment.newer(), &["ada", "bob"])
        .unwrap();
    deployment.vote(SENTRY, 1).expect("a signature");
}

#[test]
fn hsmd_run_takes_no_policy_that_nobody_signed() {
    let Some(mut deployment) = Deployment::start() else {
        return;
    };
    deployment.daemon.kill();
    let config = std::fs::read_to_string(deployment.daemon.config()).unwrap();
    std::fs::write(
        deployment.daemon.config(),
        format!("policy = \"policy.toml\"\n{config}"),
    )
    .unwrap();
    let mut command = deployment.daemon.command(&["run"]);
    let told = text(&command.args(allow_root()).output().unwrap());
    assert!(
        told.contains("takes no policy from the configuration"),
        "{told}"
    );
}

#[test]
fn a_document_that_was_changed_is_not_shown_as_the_policy_in_force() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    assert!(deployment.hsmd(&["policy", "show"]).status.success());
    let state = deployment.daemon.state_directory();
    let files = std::fs::read_dir(state)
        .unwrap()
        .map(|file| file.unwrap().path());
    let documents = files.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("policy-")
    });
    for path in documents {
        let changed = std::fs::read_to_string(&path).unwrap() + "# one more line\n";
        std::fs::write(&path, changed).unwrap();
    }
    let shown = deployment.hsmd(&["policy", "show"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(
        text(&shown).contains("not the policy in force"),
        "{}",
        text(&shown)
    );
}
