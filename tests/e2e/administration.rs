//! Administration over mutual TLS and on the socket: who may do what, freezes, and the journal for auditors.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::time::SystemTime;

use hsm_proto::v1 as wire;
use hsm_proto::v1::journal_reader_client::JournalReaderClient;
use hsm_proto::v1::remote_admin_client::RemoteAdminClient;
use hsm_proto::v1::{Reason, SignCometbftVoteRequest, VoteType};
use hsm_tests::authority::{Contents, Identity, uri};
use hsm_tests::client::{Client, reason};
use hsm_tests::daemon::{ALL_KINDS, Daemon, Hsm, allow_root, grant};
use hsm_tests::policy;
use hsm_tests::process::{PATIENCE, Scratch, wait_for};
use hsm_tests::validator::{CHAIN, KEY, SENTRY};
use prost::Message as _;
use serde_json::Value;
use tonic::Status;
use tonic::transport::Channel;

struct Served {
    daemon: Daemon,
    scratch: Scratch,
}

impl Served {
    fn start() -> Self {
        let scratch = Scratch::new();
        let policy = grant(&uri("sentry", SENTRY), KEY, CHAIN, &ALL_KINDS);
        let mut daemon = Daemon::set_up(scratch.path(), Hsm::Mock, &[KEY], &policy);
        daemon.init_key(KEY, CHAIN, 0);
        daemon.start();
        Self { daemon, scratch }
    }

    fn client(&self, role: &str) -> Client {
        let authority = self.daemon.authority();
        let identity: Identity = authority.issue(role, Contents::client(role, SENTRY));
        let ca = authority.certificate();
        Client::new(self.daemon.port(), &ca, Some(&identity))
    }

    fn freeze(&self, role: &str, key: &str) -> Result<wire::FreezeResponse, Status> {
        let request = wire::FreezeRequest {
            key: key.to_owned(),
            all: key.is_empty(),
            reason: "the sentry was stolen".to_owned(),
        };
        let client = self.client(role);
        client.call_over(|channel| async { remote(channel).freeze(request).await })
    }

    /// As the officers sign it: the key's freeze, or that of every key.
    fn thaw_document(&self, what: &str) -> String {
        let request = [
            "state",
            "request",
            "thaw",
            what,
            "--the-cause-is-over",
            "it was a drill",
        ];
        self.daemon.succeed(&request, None)
    }

    fn thaw(&self, role: &str, document: &str) -> Result<wire::ThawResponse, Status> {
        let signed = wire::SignedDocument {
            document: document.as_bytes().to_vec(),
            signatures: vec![policy::sign("thaw@hsmd", document.as_bytes())],
        };
        let request = wire::ThawRequest {
            signed: Some(signed),
        };
        let client = self.client(role);
        client.call_over(|channel| async { remote(channel).thaw(request).await })
    }

    /// Has the sentry ask for a nil prevote; the reason where it is refused.
    fn vote(&self, height: i64) -> Result<(), String> {
        let answer = vote(&self.client("sentry"), height);
        answer.map_err(|status| reason(&status).unwrap_or_else(|| status.to_string()))
    }

    fn last(&self, event: &str) -> Value {
        let journal = self.daemon.journal();
        let last = journal.iter().rfind(|entry| entry["event"] == event);
        last.cloned().unwrap_or_default()
    }
}

fn remote(channel: Channel) -> RemoteAdminClient<Channel> {
    RemoteAdminClient::new(channel)
}

fn vote(client: &Client, height: i64) -> Result<(), Status> {
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
    let answer = client.call(|mut signer| async move { signer.sign_cometbft_vote(request).await });
    answer.map(drop)
}

const FROZEN: &str = "KEY_FROZEN";

#[test]
fn an_operator_freezes_a_key_at_once_and_only_officers_thaw_it() {
    let mut served = Served::start();
    served.vote(1).expect("a signature");
    served.freeze("operator", KEY).expect("frozen");
    // Not even what was given before is given again.
    assert_eq!(served.vote(1), Err(FROZEN.to_owned()));
    assert_eq!(served.vote(2), Err(FROZEN.to_owned()));
    let frozen = served.last("frozen");
    assert_eq!(frozen["by"], uri("operator", SENTRY));
    assert_eq!(frozen["reason"], "the sentry was stolen");
    served.daemon.kill();
    served.daemon.start();
    assert_eq!(served.vote(2), Err(FROZEN.to_owned()));
    assert_eq!(served.daemon.status()["freezes"][0]["key"], KEY);

    let document = served.thaw_document(KEY);
    let unsigned = wire::ThawRequest {
        signed: Some(wire::SignedDocument {
            document: document.as_bytes().to_vec(),
            signatures: Vec::new(),
        }),
    };
    let client = served.client("operator");
    let alone = client.call_over(|channel| async { remote(channel).thaw(unsigned).await });
    assert!(alone.unwrap_err().message().contains("1 are needed"));
    let refused = served.last("document_refused");
    assert_eq!(refused["reason"], "TOO_FEW_OFFICERS");
    assert_eq!(refused["kind"], "thaw");
    assert_eq!(refused["by"], uri("operator", SENTRY));
    assert_eq!(served.vote(2), Err(FROZEN.to_owned()));

    served.thaw("operator", &document).expect("thawed");
    served.vote(2).expect("a signature");
    assert_eq!(served.last("thawed")["authorisation"]["document"], document);
    // What officers signed counts once: after a further freeze it ends nothing.
    served.freeze("operator", KEY).expect("frozen");
    let again = served.thaw("operator", &document).unwrap_err();
    assert!(again.message().contains("was used before"), "{again:?}");
    assert_eq!(
        served.last("document_refused")["reason"],
        "DOCUMENT_REPLAYED"
    );
    served.daemon.kill();
    served.daemon.start();
    assert_eq!(served.vote(3), Err(FROZEN.to_owned()));
}

#[test]
fn every_key_is_frozen_on_the_signers_own_host_whether_hsmd_runs_or_not() {
    let mut served = Served::start();
    let all = ["freeze", "--all", "--reason", "maintenance"];
    served.daemon.succeed(&all, allow_root());
    assert_eq!(served.vote(1), Err(FROZEN.to_owned()));
    let by = format!("uid {}", nix::unistd::getuid());
    assert_eq!(served.last("frozen")["by"], by);
    served.daemon.kill();
    served.daemon.succeed(&["freeze", KEY], allow_root());
    let file = served.scratch.path().join("thaw.toml");
    let thaw = |document: &str| {
        let signature = policy::sign("thaw@hsmd", document.as_bytes());
        std::fs::write(&file, document).unwrap();
        std::fs::write(file.with_extension("sig"), signature).unwrap();
        let (document, signature) = (file.clone(), file.with_extension("sig"));
        let mut command = served.daemon.command(&["thaw"]);
        command.arg("--document").arg(document);
        command.arg("--signature").arg(signature).args(allow_root());
        command.output().unwrap()
    };
    let output = thaw(&served.thaw_document("--all"));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.contains("every key signs again, as tests signed"),
        "{output:?}"
    );
    let not = thaw(&served.thaw_document("--all"));
    assert!(String::from_utf8_lossy(&not.stderr).contains("not all keys are frozen"));
    served.daemon.start();
    assert_eq!(
        served.vote(1),
        Err(FROZEN.to_owned()),
        "by its name it still is"
    );
    let document = served.thaw_document(KEY);
    served.thaw("operator", &document).expect("thawed");
    served.vote(1).expect("a signature");
}

#[test]
fn a_key_that_nobody_knows_is_not_said_to_be_frozen() {
    let served = Served::start();
    let status = served.freeze("operator", "no-such-key").unwrap_err();
    assert!(status.message().contains("hsmd freeze --all"), "{status:?}");
    served.vote(1).expect("a signature");
}

#[test]
fn a_role_makes_only_its_own_calls_and_what_it_tries_besides_is_journaled() {
    let served = Served::start();
    let before = served.daemon.state();
    let signed = || Some(wire::SignedDocument::default());
    for role in ["sentry", "operator", "auditor", "signer"] {
        let client = served.client(role);
        let admin = [
            client.call_over(|channel| async {
                let request = wire::GetStatusRequest {};
                let answer = remote(channel).get_status(request).await;
                answer.map(|answer| answer.map(drop))
            }),
            client.call_over(|channel| async {
                let request = wire::ListKeyStatesRequest {};
                let answer = remote(channel).list_key_states(request).await;
                answer.map(|answer| answer.map(drop))
            }),
            client.call_over(|channel| async {
                let answer = remote(channel).diagnose(wire::DiagnoseRequest {}).await;
                answer.map(|answer| answer.map(drop))
            }),
            client.call_over(|channel| async {
                let request = wire::GetOfficersRequest {};
                let answer = remote(channel).get_officers(request).await;
                answer.map(|answer| answer.map(drop))
            }),
            client.call_over(|channel| async {
                let answer = remote(channel).get_policy(wire::GetPolicyRequest {}).await;
                answer.map(|answer| answer.map(drop))
            }),
            client.call_over(|channel| async {
                let request = wire::FreezeRequest::default();
                let answer = remote(channel).freeze(request).await;
                answer.map(|answer| answer.map(drop))
            }),
            client.call_over(|channel| async {
                let request = wire::ThawRequest { signed: signed() };
                let answer = remote(channel).thaw(request).await;
                answer.map(|answer| answer.map(drop))
            }),
            client.call_over(|channel| async {
                let request = wire::RecoverKeyRequest::default();
                let answer = remote(channel).recover_key(request).await;
                answer.map(|answer| answer.map(drop))
            }),
        ];
        let journal = [
            client.call_over(|channel| async {
                let request = wire::ReadJournalRequest { from: 0 };
                let answer = JournalReaderClient::new(channel)
                    .read_journal(request)
                    .await;
                answer.map(|answer| answer.map(drop))
            }),
            client.call_over(|channel| async {
                let request = wire::GetCheckpointRequest {};
                let mut reader = JournalReaderClient::new(channel);
                let answer = reader.get_checkpoint(request).await;
                answer.map(|answer| answer.map(drop))
            }),
        ];
        let refused = |answer: &Result<(), Status>| {
            let found = answer.as_ref().err().and_then(reason);
            found.as_deref() == Some(Reason::WrongRole.name())
        };
        let is = |wanted: &[&str]| wanted.contains(&role);
        for (number, answer) in admin.iter().enumerate() {
            assert_eq!(
                refused(answer),
                !is(&["operator"]),
                "{role} {number} {answer:?}"
            );
        }
        for answer in &journal {
            assert_eq!(
                refused(answer),
                !is(&["operator", "auditor"]),
                "{role} {answer:?}"
            );
        }
        let signing = if role == "sentry" {
            Ok(())
        } else {
            vote(&client, 1)
        };
        assert_eq!(refused(&signing), !is(&["sentry"]), "{role} {signing:?}");
        if role == "operator" {
            continue;
        }
        wait_for("the refusal in the journal", PATIENCE, || {
            let journal = served.daemon.journal();
            let mut refused = journal.iter().filter(|it| it["reason"] == "WRONG_ROLE");
            refused
                .any(|it| it["caller"] == uri(role, SENTRY))
                .then_some(())
        });
    }
    assert_eq!(served.daemon.state(), before);
}

#[test]
fn an_auditor_reads_every_durable_entry_of_the_journal_as_it_stands_on_the_disk() {
    let served = Served::start();
    for height in 1..=50 {
        served.vote(height).expect("a signature");
    }
    let client = served.client("auditor");
    let mut entries = Vec::new();
    loop {
        let from = entries
            .last()
            .map_or(0, |entry: &wire::JournalEntry| entry.index + 1);
        let request = wire::ReadJournalRequest { from };
        let answer = client.call_over(|channel| async {
            let mut reader = JournalReaderClient::new(channel);
            reader.read_journal(request).await
        });
        let more = answer.expect("entries").entries;
        if more.is_empty() {
            break;
        }
        entries.extend(more);
    }
    let indices = entries.iter().map(|entry| entry.index);
    assert!(indices.eq(0..entries.len() as u64));
    let reserved = entries.iter().filter_map(|entry| {
        let entry = wire::Entry::decode(entry.leaf.as_slice()).ok()?;
        match entry.event? {
            wire::entry::Event::Reserved(reserved) => Some(reserved.position?.height),
            _ => None,
        }
    });
    assert!(reserved.eq(1..=50));
    let checkpoint = client.call_over(|channel| async {
        let mut reader = JournalReaderClient::new(channel);
        reader.get_checkpoint(wire::GetCheckpointRequest {}).await
    });
    assert_eq!(
        checkpoint.expect("an answer").note,
        "",
        "none is configured here"
    );
}
