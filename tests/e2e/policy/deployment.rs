//! What the tests look at.

use std::path::PathBuf;
use std::process::Output;
use std::time::SystemTime;

use hsm_proto::v1::{Reason, SignCometbftVoteRequest, VoteType};
use hsm_tests::authority::uri;
use hsm_tests::binaries::needs;
use hsm_tests::client::{Client, reason};
use hsm_tests::daemon::{ALL_KINDS, Daemon, Hsm, allow_root, grant};
use hsm_tests::officers::Officers;
use hsm_tests::process::{PATIENCE, Scratch, wait_for};
use hsm_tests::security_key::SecurityKey;
use hsm_tests::validator::{CHAIN, KEY, SENTRY};
use serde_json::Value;

/// A running hsmd with three officers, of whom two have to sign, and a policy that they signed.
pub(crate) struct Deployment {
    pub(crate) daemon: Daemon,
    pub(crate) officers: Officers,
    pub(crate) cleo: SecurityKey,
    scratch: Scratch,
}

impl Deployment {
    /// None: the test is skipped.
    pub(crate) fn start() -> Option<Self> {
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn hsmd(&self, arguments: &[&str]) -> Output {
        self.daemon.command(arguments).output().expect("hsmd runs")
    }

    /// This draft as officers sign it.
    pub(crate) fn request(&self, draft: &str) -> String {
        let file = self.path("draft.toml");
        std::fs::write(&file, draft).unwrap();
        let request = ["policy", "sign-request", file.to_str().unwrap()];
        self.daemon.succeed(&request, None)
    }

    /// A newer version that allows the same.
    pub(crate) fn newer(&self) -> String {
        self.request(&grant(&uri("sentry", SENTRY), KEY, CHAIN, &ALL_KINDS))
    }

    pub(crate) fn load(&self, document: &str, officers: &[&str]) -> Result<String, String> {
        self.load_with(&self.officers.sign("policy", document, officers))
    }

    /// What is printed, or why not.
    pub(crate) fn load_with(&self, signed: &[String]) -> Result<String, String> {
        let mut command = self.daemon.command(&["policy", "load"]);
        let output = command.args(signed).args(allow_root()).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }

    /// Loads what cannot be loaded: it says so, the journal has this reason, and the policy before goes on.
    #[track_caller]
    pub(crate) fn assert_refused(&self, signed: &[String], reason: &str, word: &str) {
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

    pub(crate) fn signed(&self, document: &str, officers: &[&str]) -> Vec<String> {
        self.officers.sign("policy", document, officers)
    }

    pub(crate) fn with_signature(&self, mut signed: Vec<String>, signature: &str) -> Vec<String> {
        let file = self.path("cleo.sig");
        std::fs::write(&file, signature).unwrap();
        signed.extend(["--signature".to_owned(), file.to_str().unwrap().to_owned()]);
        signed
    }

    pub(crate) fn status(&self) -> Value {
        self.daemon.status()["policy"].clone()
    }

    /// Has this sentry ask for a nil prevote; the reason where it is refused.
    pub(crate) fn vote(&self, sentry: &str, height: i64) -> Result<(), String> {
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
    pub(crate) fn assert_denied(&self, sentry: &str, height: i64, expected: Reason) {
        assert_eq!(self.vote(sentry, height), Err(expected.name().to_owned()));
        // Nobody waits for the entry.
        wait_for("the refusal in the journal", PATIENCE, || {
            let journal = self.daemon.journal();
            let last = journal.iter().rfind(|entry| entry["event"] == "refused")?;
            (last["reason"] == expected.name()).then_some(())
        });
    }
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The same with another moment of expiry.
pub(crate) fn expiring(document: &str, at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let at = prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap(),
        nanos: 0,
    };
    let line = document.lines().find(|line| line.starts_with("expires"));
    document.replace(line.unwrap(), &format!("expires = {at}"))
}
