//! Several signers for one chain, which share a ledger.

use std::sync::Arc;
use std::time::Duration;

use hsm_proto::v1::Reason;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Code;

use crate::binary::{check, free_port, scrape, text};
use crate::house::{House, Sentry, reached};
use crate::hsmd::{Asked, Hsmd, Instead, State, signature};
use crate::node::*;
use crate::pki::SERVER_NAME;

const LEDGER: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// One of several hsmd.
struct Signer {
    state: Arc<State>,
    hsmd: Option<Hsmd>,
    address: String,
}

/// A house whose chain names three signers. The house's own hsmd is not among them.
struct Several {
    house: House,
    signers: Vec<Signer>,
    /// Of the sentry's metrics.
    port: u16,
}

impl Several {
    /// All run and share [`LEDGER`].
    async fn new() -> Self {
        let house = House::new().await;
        let mut signers = Vec::new();
        for _ in 0..3 {
            let state = State::new();
            *state.ledger.lock().unwrap() = LEDGER.to_owned();
            let hsmd = Hsmd::start(&house.authority, "127.0.0.1:0", Arc::clone(&state)).await;
            signers.push(Signer {
                address: hsmd.address.to_string(),
                state,
                hsmd: Some(hsmd),
            });
        }
        let port = free_port().await;
        Self {
            house,
            signers,
            port,
        }
    }

    fn config(&self, more: &str) -> String {
        let node = format!("unix://{}", self.house.socket().display());
        let more = format!("ledger_id = {LEDGER:?}\n{more}");
        let config = self.house.config_text("0.38", &[node], &more);
        let (head, _) = config.split_once("[[chain.signer]]").unwrap();
        let signers = self.signers.iter().map(|signer| {
            let address = &signer.address;
            format!("[[chain.signer]]\naddress = {address:?}\nserver_name = {SERVER_NAME:?}\n")
        });
        let metrics = format!("[metrics]\nlisten = \"127.0.0.1:{}\"\n", self.port);
        format!("{head}{}{metrics}", signers.collect::<String>())
    }

    /// A sentry, and its node once each signer that runs is connected.
    async fn open(&self, more: &str) -> (Sentry, Listener, Node) {
        let listener = Listener::unix(&self.house.socket());
        let sentry = self.house.sentry(&self.config(more));
        let node = listener.accept().await;
        for signer in self.signers.iter().filter(|it| it.hsmd.is_some()) {
            self.connected(signer, 1).await;
        }
        (sentry, listener, node)
    }

    /// Waits until the sentry has connected to the signer so often.
    async fn connected(&self, signer: &Signer, times: u32) {
        let address = &signer.address;
        let line = format!("hsm_sentry_signer_connections_total{{signer={address:?}}} {times}\n");
        let connected = async {
            while !scrape(self.port).await.contains(&line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, connected)
            .await
            .expect("in time");
    }

    fn state(&self, index: usize) -> &State {
        &self.signers[index].state
    }

    async fn kill(&mut self, index: usize) {
        self.signers[index].hsmd.take().unwrap().kill().await;
    }

    /// Started for the first time since the sentry was, or again: so many times the sentry has then connected.
    async fn restart(&mut self, index: usize, connections: u32) {
        let signer = &mut self.signers[index];
        let state = Arc::clone(&signer.state);
        signer.hsmd = Some(Hsmd::start(&self.house.authority, &signer.address, state).await);
        self.connected(&self.signers[index], connections).await;
    }

    /// How many requests for signatures each was asked.
    fn asked(&self) -> Vec<usize> {
        let signers = self.signers.iter();
        signers.map(|it| it.state.signed().len()).collect()
    }
}

impl Signer {
    /// What it lists now has reached the sentry: a listing was asked for, and then one more.
    async fn is_known(&self) {
        let listed = *self.state.listed.borrow();
        reached(&self.state.listed, |count| *count >= listed + 2).await;
    }
}

impl State {
    fn next(&self, instead: Instead) {
        self.instead.lock().unwrap().push_back(instead);
    }

    fn hang(&self) {
        self.next(Instead::Wait(Arc::new(Notify::new())));
    }
}

#[tokio::test]
async fn the_first_signer_is_asked_and_every_request_names_the_ledger() {
    let several = Several::new().await;
    let (_sentry, _listener, mut node) = several.open("").await;
    for height in 1..6 {
        assert_eq!(node.prevote(height).await.signature, signature(height));
    }
    node.ask(proposal_request(proposal(6))).await;
    assert_eq!(several.asked(), [6, 0, 0]);
    for asked in several.state(0).signed() {
        let ledger_id = match asked {
            Asked::Vote(request) => request.ledger_id,
            Asked::Proposal(request) => request.ledger_id,
            Asked::PublicKey => continue,
        };
        assert_eq!(ledger_id, LEDGER);
    }
}

#[tokio::test]
async fn a_killed_signer_is_replaced_by_the_next_and_asked_again_once_it_is_back() {
    let mut several = Several::new().await;
    let (_sentry, _listener, mut node) = several.open("").await;
    assert_eq!(node.prevote(1).await.signature, signature(1));
    several.kill(0).await;
    let begun = Instant::now();
    assert_eq!(node.prevote(2).await.signature, signature(2));
    println!("failover from a killed signer: {:?}", begun.elapsed());
    several.kill(1).await;
    assert_eq!(node.prevote(3).await.signature, signature(3));
    assert_eq!(several.asked(), [1, 1, 1]);
    several.restart(0, 2).await;
    assert_eq!(node.prevote(4).await.signature, signature(4));
    assert_eq!(several.asked(), [2, 1, 1]);
}

#[tokio::test]
async fn a_vote_in_the_hands_of_a_signer_that_is_killed_is_signed_by_the_next() {
    let mut several = Several::new().await;
    let (_sentry, _listener, mut node) = several.open("deadline_ms = 4500").await;
    several.state(0).hang();
    node.send(vote_request(prevote(1))).await;
    reached(&several.state(0).arrived, |count| *count == 1).await;
    let begun = Instant::now();
    several.kill(0).await;
    assert_eq!(signed_vote(node.answer().await).signature, signature(1));
    println!("failover of a request in flight: {:?}", begun.elapsed());
    assert_eq!(several.asked(), [1, 1, 0]);
}

#[tokio::test]
async fn hanging_signers_leave_the_last_one_time_within_the_deadline_and_are_then_asked_last() {
    let several = Several::new().await;
    let (_sentry, _listener, mut node) = several.open("deadline_ms = 3000").await;
    several.state(0).hang();
    several.state(1).hang();
    let begun = Instant::now();
    assert_eq!(node.prevote(1).await.signature, signature(1));
    println!("failover from two hanging signers: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(node.prevote(2).await.signature, signature(2));
    assert_eq!(several.asked(), [1, 1, 2]);
}

/// Its request was left to run, and the others have nothing better.
#[tokio::test]
async fn a_slow_signers_answer_still_counts_after_the_others_were_asked() {
    let several = Several::new().await;
    let (_sentry, _listener, mut node) = several.open("deadline_ms = 4500").await;
    let until = Arc::new(Notify::new());
    several.state(0).next(Instead::Wait(Arc::clone(&until)));
    several.state(1).hang();
    several.state(2).hang();
    node.send(vote_request(prevote(1))).await;
    reached(&several.state(2).arrived, |count| *count == 1).await;
    until.notify_one();
    assert_eq!(signed_vote(node.answer().await).signature, signature(1));
    assert_eq!(several.asked(), [1, 1, 1]);
}

#[tokio::test]
async fn a_signer_that_rests_is_asked_first_again_after_a_reconnection() {
    let mut several = Several::new().await;
    let (_sentry, _listener, mut node) = several.open("deadline_ms = 600").await;
    several.state(0).hang();
    for height in 1..3 {
        assert_eq!(node.prevote(height).await.signature, signature(height));
    }
    assert_eq!(several.asked(), [1, 2, 0]);
    several.kill(0).await;
    several.restart(0, 2).await;
    assert_eq!(node.prevote(3).await.signature, signature(3));
    assert_eq!(several.asked(), [2, 2, 0]);
}

#[tokio::test]
async fn what_passes_and_what_is_the_signers_own_fault_is_asked_of_the_next() {
    let several = Several::new().await;
    let (_sentry, _listener, mut node) = several.open("").await;
    for (height, (code, reason)) in (1..).zip([
        (Code::Unavailable, Reason::LedgerUnavailable),
        (Code::Unavailable, Reason::DeviceUnavailable),
        (Code::ResourceExhausted, Reason::JournalOverloaded),
        (Code::DeadlineExceeded, Reason::DeadlineExceeded),
        (Code::FailedPrecondition, Reason::LedgerMismatch),
        (Code::FailedPrecondition, Reason::DeviceMisconfigured),
        (Code::Internal, Reason::DeviceFault),
    ]) {
        several.state(0).next(Instead::Refuse(code, reason));
        assert_eq!(node.prevote(height).await.signature, signature(height));
        let asked = several.asked()[1];
        assert_eq!(i64::try_from(asked).unwrap(), height, "{reason:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_never_taken_to_another_signer() {
    let several = Several::new().await;
    let (_sentry, _listener, mut node) = several.open("").await;
    for (code, reason) in [
        (Code::FailedPrecondition, Reason::DoubleSign),
        (Code::FailedPrecondition, Reason::Regression),
        (Code::FailedPrecondition, Reason::LedgerBehind),
        (Code::FailedPrecondition, Reason::Ceiling),
        (Code::PermissionDenied, Reason::HeightJump),
        (Code::PermissionDenied, Reason::ChainNotGranted),
        (Code::InvalidArgument, Reason::InvalidField),
        (Code::Unauthenticated, Reason::CertificateExpired),
        (Code::Internal, Reason::Internal),
    ] {
        several.state(0).next(Instead::Refuse(code, reason));
        let error = refusal(node.ask(vote_request(prevote(7))).await);
        assert_eq!(error.code, reason as i32);
    }
    assert_eq!(several.asked(), [9, 0, 0]);
}

/// Also one that the first, silent so far, might yet have answered.
#[tokio::test]
async fn the_refusal_of_the_next_signer_is_final_too() {
    let several = Several::new().await;
    let (_sentry, _listener, mut node) = several.open("deadline_ms = 600").await;
    several.state(0).hang();
    let refuse = Instead::Refuse(Code::FailedPrecondition, Reason::DoubleSign);
    several.state(1).next(refuse);
    let error = refusal(node.ask(vote_request(prevote(7))).await);
    assert_eq!(error.code, Reason::DoubleSign as i32);
    assert_eq!(several.asked(), [1, 1, 0]);
}

#[tokio::test]
async fn with_all_signers_away_the_refusal_comes_at_the_deadline_and_the_first_one_back_signs() {
    let mut several = Several::new().await;
    let (_sentry, _listener, mut node) = several.open("deadline_ms = 400").await;
    for index in 0..3 {
        several.kill(index).await;
    }
    let error = refusal(node.ask(vote_request(prevote(1))).await);
    for signer in &several.signers {
        assert!(error.description.contains(&signer.address), "{error:?}");
    }
    several.restart(2, 2).await;
    assert_eq!(node.prevote(2).await.signature, signature(2));
    assert_eq!(several.asked(), [0, 0, 1]);
}

#[tokio::test]
async fn a_signer_with_another_ledger_or_none_is_never_asked() {
    let mut several = Several::new().await;
    *several.state(0).ledger.lock().unwrap() = OTHER.to_owned();
    *several.state(1).ledger.lock().unwrap() = String::new();
    let (_sentry, _listener, mut node) = several.open("deadline_ms = 400").await;
    assert_eq!(node.prevote(1).await.signature, signature(1));
    several.kill(2).await;
    let error = refusal(node.ask(vote_request(prevote(2))).await);
    assert_eq!(error.code, Reason::DeadlineExceeded as i32);
    assert!(error.description.contains(OTHER), "{error:?}");
    assert!(error.description.contains("no ledger"), "{error:?}");
    assert_eq!(several.asked(), [0, 0, 1]);
}

#[tokio::test]
async fn a_lone_signer_is_held_to_a_pinned_ledger_too() {
    let mut several = Several::new().await;
    several.signers.truncate(1);
    *several.state(0).ledger.lock().unwrap() = String::new();
    let (_sentry, _listener, mut node) = several.open("deadline_ms = 300").await;
    refusal(node.ask(vote_request(prevote(1))).await);
    assert_eq!(several.asked(), [0]);
}

#[tokio::test]
async fn the_ledger_is_looked_at_again_on_a_connection_that_stays_up_and_after_each_reconnection() {
    let mut several = Several::new().await;
    let (_sentry, _listener, mut node) = several.open("").await;
    assert_eq!(node.prevote(1).await.signature, signature(1));
    *several.state(0).ledger.lock().unwrap() = OTHER.to_owned();
    several.signers[0].is_known().await;
    assert_eq!(node.prevote(2).await.signature, signature(2));
    assert_eq!(several.asked(), [1, 1, 0]);

    several.kill(1).await;
    *several.state(1).ledger.lock().unwrap() = String::new();
    several.restart(1, 2).await;
    assert_eq!(node.prevote(3).await.signature, signature(3));
    assert_eq!(several.asked(), [1, 1, 1]);

    *several.state(0).ledger.lock().unwrap() = LEDGER.to_owned();
    several.signers[0].is_known().await;
    assert_eq!(node.prevote(4).await.signature, signature(4));
    assert_eq!(several.asked(), [2, 1, 1]);
}

#[tokio::test]
async fn a_signer_that_shows_another_public_key_is_not_used() {
    let mut several = Several::new().await;
    several.kill(1).await;
    several.kill(2).await;
    let (_sentry, listener, mut node) = several.open("deadline_ms = 400").await;
    let shown = node.ask(public_key_request()).await;
    several.state(1).key.lock().unwrap().public_key = vec![77; 32];
    several.restart(1, 1).await;
    several.kill(0).await;
    let error = refusal(node.ask(vote_request(prevote(1))).await);
    assert!(
        error.description.contains("another public key"),
        "{error:?}"
    );
    several.restart(2, 1).await;
    assert_eq!(node.prevote(2).await.signature, signature(2));
    assert_eq!(several.asked(), [0, 0, 1]);
    // It is shown, also with all signers away, so that a node can start.
    several.kill(2).await;
    drop(node);
    let mut node = listener.accept().await;
    assert_eq!(node.ask(public_key_request()).await, shown);
}

#[tokio::test]
async fn metrics_tell_of_each_signer() {
    let several = Several::new().await;
    *several.state(2).ledger.lock().unwrap() = OTHER.to_owned();
    let (_sentry, _listener, mut node) = several.open("").await;
    let refuse = Instead::Refuse(Code::Unavailable, Reason::LedgerUnavailable);
    several.state(0).next(refuse);
    assert_eq!(node.prevote(1).await.signature, signature(1));
    let scraped = scrape(several.port).await;
    for (name, values) in [
        ("usable", [1, 1, 0]),
        ("requests_total", [1, 1, 0]),
        ("failovers_total", [1, 0, 0]),
    ] {
        for (signer, value) in several.signers.iter().zip(values) {
            let socket = several.house.socket();
            let line = format!(
                "hsm_sentry_signer_{name}{{chain=\"{CHAIN}\",node=\"unix://{}\",signer=\"{}\"}} {value}\n",
                socket.display(),
                signer.address
            );
            assert!(scraped.contains(&line), "{line}\n{scraped}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_prints_every_signer_and_fails_over_one_that_would_not_be_used() {
    let mut several = Several::new().await;
    several.kill(1).await;
    let config = several.config("");
    // One that is away is no error.
    let output = check(&several.house, &config, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = text(&output.stdout);
    for part in [
        LEDGER,
        "usable",
        "not reached: TCP",
        &several.signers[1].address,
    ] {
        assert!(printed.contains(part), "{printed}");
    }

    *several.state(2).ledger.lock().unwrap() = OTHER.to_owned();
    let output = check(&several.house, &config, &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], false);
    let signers = json["chains"][0]["signers"].as_array().unwrap();
    let states: Vec<_> = signers
        .iter()
        .map(|it| it["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["usable", "not reached", "not used"]);
    assert!(signers[2]["why"].as_str().unwrap().contains(OTHER));
}
