//! Every bad input that a client of the gRPC API may send has its own clear refusal and leaves the state as it
//! was, whatever hsm-sentry would have made of it. Promise 4.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::time::{Duration, SystemTime};

use hsm_proto::v1::{Reason, SignCometbftVoteRequest, VoteType};
use hsm_tests::authority::{Authority, Contents, Identity, uri};
use hsm_tests::client::{Client, connect_and_read, reason};
use hsm_tests::daemon::{ALL_KINDS, Daemon, Hsm, grant};
use hsm_tests::process::{PATIENCE, Scratch, wait_for};
use hsm_tests::validator::{CHAIN, KEY, SENTRY};
use tonic::Code;

/// hsmd alone, with one grant.
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

    fn client(&self, identity: Option<&Identity>) -> Client {
        Client::new(
            self.daemon.port(),
            &self.daemon.authority().certificate(),
            identity,
        )
    }

    fn ask(&self, identity: Option<&Identity>, request: SignCometbftVoteRequest) -> tonic::Status {
        let before = self.daemon.state();
        let answer = self
            .client(identity)
            .call(|mut signer| async move { signer.sign_cometbft_vote(request).await });
        assert_eq!(self.daemon.state(), before, "a refusal changed the state");
        answer.expect_err("a refusal")
    }

    /// The TLS alert says why, and a call gets no answer.
    #[track_caller]
    fn assert_turned_away(&self, identity: Option<&Identity>, alert: &str) {
        let ca = self.daemon.authority().certificate();
        let read = connect_and_read(self.daemon.port(), &ca, identity);
        let text = read.expect_err("an alert").to_string();
        assert!(text.contains(alert), "{text:?} does not say {alert}");
        assert_eq!(reason(&self.ask(identity, request())), None);
    }

    #[track_caller]
    fn assert_refused(
        &self,
        identity: &Identity,
        request: SignCometbftVoteRequest,
        expected: Reason,
    ) {
        let status = self.ask(Some(identity), request);
        assert_eq!(
            reason(&status).as_deref(),
            Some(expected.name()),
            "{status:?}"
        );
    }

    fn sentry(&self) -> Identity {
        self.daemon.authority().sentry(SENTRY)
    }
}

fn request() -> SignCometbftVoteRequest {
    SignCometbftVoteRequest {
        key: KEY.to_owned(),
        chain_id: CHAIN.to_owned(),
        r#type: VoteType::Prevote.into(),
        height: 1,
        timestamp: Some(std::time::SystemTime::now().into()),
        ..SignCometbftVoteRequest::default()
    }
}

#[test]
fn a_client_without_a_certificate_is_turned_away() {
    Served::start().assert_turned_away(None, "CertificateRequired");
}

#[test]
fn a_client_of_another_authority_is_turned_away() {
    let served = Served::start();
    let other = Authority::new(served.scratch.path(), "other").sentry(SENTRY);
    served.assert_turned_away(Some(&other), "UnknownCA");
}

#[test]
fn a_client_whose_certificate_expired_is_turned_away() {
    let served = Served::start();
    let contents = Contents {
        not_after: Some(SystemTime::now() - Duration::from_secs(60)),
        ..Contents::client("sentry", SENTRY)
    };
    let expired = served.daemon.authority().issue("expired", contents);
    served.assert_turned_away(Some(&expired), "CertificateExpired");
}

#[test]
fn a_certificate_that_expires_while_its_connection_stays_open_is_refused_from_then_on() {
    let served = Served::start();
    // Long enough to connect with, also on a machine that stalls.
    let not_after = SystemTime::now() + Duration::from_secs(3);
    let contents = Contents {
        not_after: Some(not_after),
        ..Contents::client("sentry", SENTRY)
    };
    let client = served.client(Some(&served.daemon.authority().issue(SENTRY, contents)));
    let ask = |height| {
        let request = SignCometbftVoteRequest {
            height,
            ..request()
        };
        client.call(|mut signer| async move { signer.sign_cometbft_vote(request).await })
    };
    ask(1).expect("a signature while the certificate is valid");
    // Its last second belongs to it.
    wait_for("the certificate's end", PATIENCE, || {
        (SystemTime::now() > not_after + Duration::from_secs(1)).then_some(())
    });
    let before = served.daemon.state();
    let refused = ask(2).expect_err("a refusal");
    // A new connection would have been turned away without a reason.
    assert_eq!(
        reason(&refused).as_deref(),
        Some(Reason::CertificateExpired.name()),
        "{refused:?}"
    );
    assert!(refused.message().contains("renew it"), "{refused:?}");
    assert_eq!(served.daemon.state(), before, "a refusal changed the state");
}

#[test]
fn a_certificate_that_names_no_caller_is_refused() {
    let served = Served::start();
    let uris = [
        Vec::new(),
        vec![uri("sentry", SENTRY), uri("sentry", "s1")],
        vec!["spiffe://another.example/sentry/s0".to_owned()],
        vec!["https://test.example/sentry/s0".to_owned()],
        vec!["spiffe://test.example/somebody/s0".to_owned()],
    ];
    for uris in uris {
        let contents = Contents {
            uris,
            hosts: vec!["s0.example".to_owned()],
            ..Contents::client("sentry", SENTRY)
        };
        let identity = served.daemon.authority().issue("nobody", contents);
        served.assert_refused(&identity, request(), Reason::CallerUnrecognised);
    }
}

#[test]
fn a_caller_of_another_role_is_refused() {
    let served = Served::start();
    let operator = served
        .daemon
        .authority()
        .issue("operator", Contents::client("operator", SENTRY));
    served.assert_refused(&operator, request(), Reason::WrongRole);
}

#[test]
fn an_unknown_caller_or_key_or_chain_is_refused() {
    let served = Served::start();
    let stranger = served.daemon.authority().sentry("stranger");
    served.assert_refused(&stranger, request(), Reason::KeyNotGranted);
    let sentry = served.sentry();
    let other_key = SignCometbftVoteRequest {
        key: "val9".to_owned(),
        ..request()
    };
    served.assert_refused(&sentry, other_key, Reason::KeyNotGranted);
    let other_chain = SignCometbftVoteRequest {
        chain_id: "another".to_owned(),
        ..request()
    };
    served.assert_refused(&sentry, other_chain, Reason::ChainNotGranted);
}

#[test]
fn a_request_with_missing_fields_is_refused() {
    let served = Served::start();
    let sentry = served.sentry();
    let requests = [
        SignCometbftVoteRequest {
            r#type: VoteType::Unspecified.into(),
            ..request()
        },
        SignCometbftVoteRequest {
            height: -1,
            ..request()
        },
        SignCometbftVoteRequest {
            round: -1,
            ..request()
        },
        SignCometbftVoteRequest {
            timestamp: None,
            ..request()
        },
        SignCometbftVoteRequest {
            chain_id: "c".repeat(51),
            ..request()
        },
        SignCometbftVoteRequest {
            chain_id: String::new(),
            ..request()
        },
    ];
    for request in requests {
        served.assert_refused(&sentry, request, Reason::InvalidField);
    }
}

#[test]
fn an_oversized_request_is_refused() {
    let served = Served::start();
    let oversized = SignCometbftVoteRequest {
        extension: Some(vec![0; (32 << 10) + 1]),
        ..request()
    };
    served.assert_refused(&served.sentry(), oversized, Reason::MessageTooLong);
}

#[test]
fn a_request_that_is_too_long_to_read_is_counted() {
    let served = Served::start();
    let unreadable = "hsmd_unreadable_requests_total";
    assert_eq!(served.daemon.metric(unreadable), Some(0.0));
    let oversized = SignCometbftVoteRequest {
        extension: Some(vec![0; 1 << 20]),
        ..request()
    };
    let status = served.ask(Some(&served.sentry()), oversized);
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert_eq!(
        reason(&status),
        Some(Reason::MessageTooLong.name().to_owned())
    );
    assert_eq!(served.daemon.metric(unreadable), Some(1.0));
}

#[test]
fn requests_that_never_arrive_take_little_memory_and_are_cut_off() {
    let mut served = Served::start();
    let sentry = served.sentry();
    let before = served.daemon.process().peak_memory();
    // All of the message, but not the end of the request, after which hsmd would look at it.
    let held = SignCometbftVoteRequest {
        extension: Some(vec![0; 60 << 10]),
        ..request()
    };
    let ends = std::thread::scope(|scope| {
        let holding = scope.spawn(|| served.client(Some(&sentry)).hold_back(&held, 300));
        let other = served.client(Some(&sentry));
        other
            .call(|mut signer| async move { signer.sign_cometbft_vote(request()).await })
            .expect("another connection is served");
        holding.join().unwrap()
    });
    assert_eq!(ends.len(), 300);
    for status in ends {
        assert_eq!(reason(&status), None, "{status:?}");
    }
    let taken = served.daemon.process().peak_memory() - before;
    assert!(taken < 40 << 10, "{taken} KiB");
}
