//! Payloads that are no consensus messages: off unless the policy grants it, with keys that are for nothing else.
//! Promise 5.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use ed25519_dalek::{Signature, VerifyingKey};
use hsm_proto::v1 as wire;
use hsm_proto::v1::Reason;
use hsm_proto::v1::raw_signer_client::RawSignerClient;
use hsm_tests::authority::{Contents, uri};
use hsm_tests::client::{Client, reason};
use hsm_tests::daemon::{ALL_KINDS, Daemon, Hsm, allow_root, grant};
use hsm_tests::node::{block, vote};
use hsm_tests::process::{PATIENCE, Scratch, wait_for};
use hsm_tests::sign_bytes;
use hsm_tests::validator::{CHAIN, KEY, SENTRY};
use serde_json::Value;
use sha2::{Digest as _, Sha512};
use tendermint_proto::v0_38::types::SignedMsgType::{Precommit, Prevote};

const RELEASE: &str = "release";
const PURPOSE: &str = "release signing";

struct Served {
    daemon: Daemon,
    scratch: Scratch,
}

impl Served {
    fn start() -> Self {
        let scratch = Scratch::new();
        let (keys, policy) = ([KEY, RELEASE], policy(RELEASE));
        let mut daemon = Daemon::set_up(scratch.path(), Hsm::Mock, &keys, &policy);
        daemon.init_key(KEY, CHAIN, 0);
        daemon.start();
        Self { daemon, scratch }
    }

    fn ask(
        &self,
        role: &str,
        request: wire::SignRawRequest,
    ) -> Result<wire::SignRawResponse, String> {
        let authority = self.daemon.authority();
        let identity = authority.issue(role, Contents::client(role, SENTRY));
        let ca = authority.certificate();
        let client = Client::new(self.daemon.port(), &ca, Some(&identity));
        let answer = client.call_over(|channel| async {
            let mut signer = RawSignerClient::new(channel);
            signer.sign_raw(request).await
        });
        answer.map_err(|status| reason(&status).unwrap_or_else(|| status.to_string()))
    }

    #[track_caller]
    fn assert_refused(&self, role: &str, request: wire::SignRawRequest, expected: Reason) {
        let before = self.events("raw_reserved").len();
        let refused = self.ask(role, request).expect_err("a refusal");
        assert_eq!(refused, expected.name());
        let after = self.events("raw_reserved").len();
        assert_eq!(after, before, "something was reserved");
        wait_for("the refusal in the journal", PATIENCE, || {
            let journal = self.events("refused");
            let caller = uri(role, SENTRY);
            let mut refused = journal.iter().filter(|it| it["caller"] == caller);
            refused
                .any(|it| it["reason"] == expected.name())
                .then_some(())
        });
    }

    fn events(&self, name: &str) -> Vec<Value> {
        let mut journal = self.daemon.journal();
        journal.retain(|entry| entry["event"] == name);
        journal
    }
}

/// Votes with one key, and payloads with the key of this name.
fn policy(raw: &str) -> String {
    let votes = grant(&uri("sentry", SENTRY), KEY, CHAIN, &ALL_KINDS);
    votes + &payloads(raw, "sha512")
}

fn payloads(key: &str, hash: &str) -> String {
    let caller = uri("operator", SENTRY);
    format!(
        "[[raw]]\ncallers = [{caller:?}]\nkey = {key:?}\npurpose = {PURPOSE:?}\nhash = {hash:?}\n"
    )
}

fn request(payload: &[u8]) -> wire::SignRawRequest {
    wire::SignRawRequest {
        key: RELEASE.to_owned(),
        purpose: PURPOSE.to_owned(),
        payload: payload.to_vec(),
    }
}

#[test]
fn a_payload_is_hashed_signed_and_journaled() {
    let mut served = Served::start();
    let payload = b"hsmd 1.0.0";
    let signed = served.ask("operator", request(payload));
    let signed = signed.expect("a signature");
    let public_key = signed.public_key.clone().try_into().unwrap();
    let key = VerifyingKey::from_bytes(&public_key).unwrap();
    let signature = Signature::from_slice(&signed.signature).unwrap();
    assert_eq!(signed.hash, "sha512");
    key.verify_strict(&Sha512::digest(payload), &signature)
        .expect("a good signature");
    let reserved = served.events("raw_reserved").remove(0);
    assert_eq!(reserved["caller"], uri("operator", SENTRY));
    assert_eq!(reserved["purpose"], PURPOSE);
    assert_eq!(reserved["payload_length"], payload.len());
    served.daemon.kill();
    served.daemon.start();
    let again = served.ask("operator", request(payload));
    assert_eq!(
        again.expect("a signature").public_key,
        public_key.to_vec(),
        "the same key after a restart"
    );
}

#[test]
fn no_payload_is_signed_that_the_policy_does_not_grant_to_this_caller_key_and_purpose() {
    let served = Served::start();
    let granted = request(b"hsmd 1.0.0");
    for role in ["sentry", "auditor", "signer"] {
        served.assert_refused(role, granted.clone(), Reason::WrongRole);
    }
    for (key, purpose) in [
        (KEY, PURPOSE),
        ("no-key", PURPOSE),
        ("", PURPOSE),
        (RELEASE, "a CA"),
        (RELEASE, ""),
    ] {
        let bad = wire::SignRawRequest {
            key: key.to_owned(),
            purpose: purpose.to_owned(),
            ..granted.clone()
        };
        served.assert_refused("operator", bad, Reason::RawNotGranted);
    }
    served.assert_refused("operator", request(b""), Reason::MessageTooLong);
    served.assert_refused("operator", request(&[7; 61_441]), Reason::MessageTooLong);
    served.daemon.succeed(&["freeze", RELEASE], allow_root());
    served.assert_refused("operator", granted, Reason::KeyFrozen);
}

#[test]
fn a_payload_that_could_be_a_consensus_message_is_refused_with_its_length_and_without() {
    let served = Served::start();
    let far = vote(Precommit, 1 << 40, 0, Some(block(2)));
    for message in [
        sign_bytes::vote(CHAIN, &vote(Prevote, 7, 0, Some(block(1)))),
        sign_bytes::vote(CHAIN, &vote(Precommit, 7, 3, None)),
        sign_bytes::vote("another-chain", &far),
    ] {
        served.assert_refused("operator", request(&message), Reason::ConsensusMessage);
        served.assert_refused("operator", request(&message[1..]), Reason::ConsensusMessage);
    }
}

#[test]
fn a_key_signs_payloads_or_for_chains_and_never_both() {
    let mut served = Served::start();
    // A policy that names a key for both is refused.
    let both = served.scratch.path().join("both.toml");
    std::fs::write(&both, policy(KEY)).unwrap();
    let mut check = served
        .daemon
        .command(&["policy", "check", both.to_str().unwrap()]);
    let told = String::from_utf8(check.output().unwrap().stderr).unwrap();
    assert!(told.contains("A key is for one of them"), "{told}");

    // A consensus key that a later policy names for payloads signs none.
    served.daemon.load_policy(&payloads(KEY, "sha256"));
    let payload = wire::SignRawRequest {
        key: KEY.to_owned(),
        ..request(b"hsmd 1.0.0")
    };
    served.assert_refused("operator", payload, Reason::ConsensusKey);

    // A key that signed a payload becomes no consensus key, after a restart either.
    served.daemon.load_policy(&policy(RELEASE));
    let signed = served.ask("operator", request(b"hsmd 1.0.0"));
    signed.expect("a signature");
    for _ in 0..2 {
        let init = ["key", "init", RELEASE, "--chain", CHAIN, "--height", "0"];
        let mut init = served.daemon.command(&init);
        let refused = init.args(allow_root()).output().unwrap();
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(told.contains("signs payloads"), "{told}");
        assert_eq!(refused.status.code(), Some(1));
        served.daemon.kill();
        served.daemon.start();
    }
}
