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

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime};

use hsm_proto::v1::{Reason, SignCometbftVoteRequest, VoteType};
use hsm_tests::authority::uri;
use hsm_tests::binaries::needs;
use hsm_tests::client::{Client, reason};
use hsm_tests::daemon::{ALL_KINDS, Daemon, Hsm, allow_root, grant};
use hsm_tests::officers::Officers;
use hsm_tests::process::{PATIENCE, Scratch, wait_for};
use hsm_tests::security_key::{SecurityKey, TOUCHED};
use hsm_tests::validator::{CHAIN, KEY, SENTRY};
use serde_json::Value;

/// A running hsmd with three officers, of whom two have to sign, and a policy that they signed.
struct Deployment {
    daemon: Daemon,
    officers: Officers,
    cleo: SecurityKey,
    scratch: Scratch,
}

impl Deployment {
    /// None: the test is skipped.
    fn start() -> Option<Self> {
        let scratch = Scratch::new();
        let officers = Officers::new(scratch.path(), &["ada", "bob"]);
        let officers = needs("ssh-keygen", officers)?;
        let cleo = SecurityKey::new(3);
        let policy = grant(&uri("sentry", SENTRY), KEY, CHAIN, &ALL_KINDS);
        let daemon = Daemon::set_up(scratch.path(), Hsm::Mock, &[KEY], &policy);
        // Created anew, with officers of its own.
        std::fs::remove_dir_all(daemon.state_directory()).unwrap();
        let list = std::fs::read_to_string(officers.list()).unwrap() + &cleo.line("cleo");
        let file = scratch.path().join("three");
        std::fs::write(&file, list).unwrap();
        let file = file.to_str().unwrap();
        let init = ["state", "init", "--officers", file, "--threshold", "2"];
        daemon.succeed(&init, allow_root());
        let mut deployment = Self {
            daemon,
            officers,
            cleo,
            scratch,
        };
        let document = deployment.daemon.policy_request();
        deployment.load(&document, &["ada", "bob"]).unwrap();
        deployment.daemon.init_key(KEY, CHAIN, 0);
        deployment.daemon.start();
        Some(deployment)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn hsmd(&self, arguments: &[&str]) -> Output {
        self.daemon.command(arguments).output().expect("hsmd runs")
    }

    /// This draft as officers sign it.
    fn request(&self, draft: &str) -> String {
        let file = self.path("draft.toml");
        std::fs::write(&file, draft).unwrap();
        let request = ["policy", "sign-request", file.to_str().unwrap()];
        self.daemon.succeed(&request, None)
    }

    /// A newer version that allows the same.
    fn newer(&self) -> String {
        self.request(&grant(&uri("sentry", SENTRY), KEY, CHAIN, &ALL_KINDS))
    }

    fn load(&self, document: &str, officers: &[&str]) -> Result<String, String> {
        self.load_with(&self.officers.sign("policy", document, officers))
    }

    /// What is printed, or why not.
    fn load_with(&self, signed: &[String]) -> Result<String, String> {
        let mut command = self.daemon.command(&["policy", "load"]);
        let output = command.args(signed).args(allow_root()).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }

    /// Loads what cannot be loaded: it says so, the journal has this reason, and the policy before goes on.
    #[track_caller]
    fn assert_refused(&self, signed: &[String], reason: &str, word: &str) {
        let version = self.status()["version"].clone();
        let told = self.load_with(signed).expect_err("a refusal");
        assert!(told.contains(word), "{told:?} does not say {word:?}");
        let journal = self.daemon.journal();
        let last = journal.last().unwrap();
        assert_eq!(last["event"], "document_refused", "{last}");
        assert_eq!(last["reason"], reason, "{last}");
        assert_eq!(last["kind"], "policy");
        assert_eq!(last["by"], format!("uid {}", nix::unistd::getuid()));
        assert_eq!(self.status()["version"], version);
        self.vote(SENTRY, 1).expect("the policy before is in force");
    }

    fn signed(&self, document: &str, officers: &[&str]) -> Vec<String> {
        self.officers.sign("policy", document, officers)
    }

    fn with_signature(&self, mut signed: Vec<String>, signature: &str) -> Vec<String> {
        let file = self.path("cleo.sig");
        std::fs::write(&file, signature).unwrap();
        signed.extend(["--signature".to_owned(), file.to_str().unwrap().to_owned()]);
        signed
    }

    fn status(&self) -> Value {
        self.daemon.status()["policy"].clone()
    }

    /// Has this sentry ask for a nil prevote; the reason where it is refused.
    fn vote(&self, sentry: &str, height: i64) -> Result<(), String> {
        let identity = self.daemon.authority().sentry(sentry);
        let ca = self.daemon.authority().certificate();
        let client = Client::new(self.daemon.port(), &ca, Some(&identity));
        let request = SignCometbftVoteRequest {
            key: KEY.to_owned(),
            chain_id: CHAIN.to_owned(),
            r#type: VoteType::Prevote.into(),
            height,
            round: 0,
            block_id: None,
            timestamp: Some(SystemTime::now().into()),
            extension: None,
            ledger_id: String::new(),
        };
        let answer =
            client.call(|mut signer| async move { signer.sign_cometbft_vote(request).await });
        answer
            .map(drop)
            .map_err(|status| reason(&status).unwrap_or_else(|| status.to_string()))
    }

    #[track_caller]
    fn assert_denied(&self, sentry: &str, height: i64, expected: Reason) {
        assert_eq!(self.vote(sentry, height), Err(expected.name().to_owned()));
        // Nobody waits for the entry.
        wait_for("the refusal in the journal", PATIENCE, || {
            let journal = self.daemon.journal();
            let last = journal.iter().rfind(|entry| entry["event"] == "refused")?;
            (last["reason"] == expected.name()).then_some(())
        });
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The same with another moment of expiry.
fn expiring(document: &str, at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let at = prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap(),
        nanos: 0,
    };
    let line = document.lines().find(|line| line.starts_with("expires"));
    document.replace(line.unwrap(), &format!("expires = {at}"))
}

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
fn a_policy_signed_by_nobody_who_is_an_officer_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let elsewhere = deployment.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let strangers = Officers::new(&elsewhere, &["mallory", "ada"]).unwrap();
    let signed = strangers.sign("policy", &deployment.newer(), &["mallory", "ada"]);
    deployment.assert_refused(&signed, "NOT_AN_OFFICER", "no officer's key");
}

#[test]
fn a_policy_signed_by_too_few_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let signed = deployment.signed(&deployment.newer(), &["ada"]);
    deployment.assert_refused(
        &signed,
        "TOO_FEW_OFFICERS",
        "signed by 1 of 3 officers, and 2 are needed",
    );
}

#[test]
fn a_policy_signed_twice_by_one_officer_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let mut signed = deployment.signed(&deployment.newer(), &["ada"]);
    let again = signed[2..].to_vec();
    signed.extend(again);
    deployment.assert_refused(&signed, "OFFICER_TWICE", "ada signed twice");
}

#[test]
fn a_policy_signed_with_a_security_key_that_nobody_touched_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let document = deployment.newer();
    let ada = deployment.signed(&document, &["ada"]);
    let cleo = deployment
        .cleo
        .sign("policy@hsmd", document.as_bytes(), 0, 7);
    let signed = deployment.with_signature(ada, &cleo);
    deployment.assert_refused(&signed, "SECURITY_KEY_UNTOUCHED", "not touched");
}

#[test]
fn an_older_policy_is_refused_and_so_is_the_one_in_force() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let second = deployment.newer();
    let signed = deployment.signed(&second, &["ada", "bob"]);
    deployment.load_with(&signed).expect("version 2");
    deployment.assert_refused(&signed, "POLICY_NOT_NEWER", "version 2 was loaded already");
    let first = second.replace("version = 2", "version = 1");
    let signed = deployment.signed(&first, &["ada", "bob"]);
    deployment.assert_refused(&signed, "POLICY_NOT_NEWER", "versions only rise");
}

#[test]
fn a_policy_of_which_a_byte_was_changed_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let document = deployment.newer();
    let signed = deployment.signed(&document, &["ada", "bob"]);
    std::fs::write(&signed[1], document.replace("version = 2", "version = 3")).unwrap();
    deployment.assert_refused(&signed, "SIGNATURE_OF_ANOTHER_DOCUMENT", "does not verify");
}

#[test]
fn an_officers_signature_of_another_policy_is_not_taken_again() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let second = deployment.newer();
    let ada_before = deployment.signed(&second, &["ada"])[3].clone();
    let ada_before = std::fs::read_to_string(ada_before).unwrap();
    deployment
        .load(&second, &["ada", "bob"])
        .expect("version 2");
    let third = deployment.newer();
    let bob = deployment.signed(&third, &["bob"]);
    let signed = deployment.with_signature(bob, &ada_before);
    deployment.assert_refused(
        &signed,
        "SIGNATURE_OF_ANOTHER_DOCUMENT",
        "by ada, does not verify",
    );
}

#[test]
fn a_policy_with_an_unknown_field_is_refused_although_officers_signed_it() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let document = deployment
        .newer()
        .replace("[[grant]]", "[[grant]]\nmax_hight = 5");
    let signed = deployment.signed(&document, &["ada", "bob"]);
    deployment.assert_refused(&signed, "DOCUMENT_MALFORMED", "max_hight");
}

#[test]
fn a_draft_is_refused_although_officers_signed_it() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let draft = grant(&uri("sentry", SENTRY), KEY, CHAIN, &ALL_KINDS);
    let signed = deployment.signed(&draft, &["ada", "bob"]);
    deployment.assert_refused(&signed, "POLICY_IS_A_DRAFT", "sign-request");
}

#[test]
fn a_policy_for_another_deployment_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let document = deployment.newer();
    let line = document
        .lines()
        .find(|line| line.starts_with("deployment"))
        .unwrap();
    let other = format!("deployment = \"{}\"", "0f".repeat(16));
    let signed = deployment.signed(&document.replace(line, &other), &["ada", "bob"]);
    deployment.assert_refused(&signed, "OTHER_DEPLOYMENT", "is for deployment");
}

#[test]
fn a_policy_signed_under_another_namespace_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let signed = deployment
        .officers
        .sign("set-officers", &deployment.newer(), &["ada", "bob"]);
    deployment.assert_refused(&signed, "OTHER_NAMESPACE", "is signed with -n policy@hsmd");
}

#[test]
fn a_policy_that_expired_before_it_was_loaded_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let document = expiring(
        &deployment.newer(),
        SystemTime::now() - Duration::from_secs(2),
    );
    let signed = deployment.signed(&document, &["ada", "bob"]);
    deployment.assert_refused(&signed, "DOCUMENT_EXPIRED", "expired at");
}

#[test]
fn a_policy_that_names_a_key_which_is_not_there_is_refused_whole() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let document =
        deployment.newer() + &grant(&uri("sentry", SENTRY), "no-key", CHAIN, &["prevote"]);
    let signed = deployment.signed(&document, &["ada", "bob"]);
    deployment.assert_refused(&signed, "STATEMENT_DOES_NOT_FIT", "names key no-key");
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
