//! Every bad input has its own clear refusal and leaves the state as it was: what a node may send, over UNIX
//! sockets and TCP, and what a client of the gRPC API may send. Promise 4.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use hsm_proto::privval;
use hsm_proto::v1::{Reason, SignCometbftVoteRequest, VoteType};
use hsm_tests::authority::{Authority, Contents, Identity, uri};
use hsm_tests::client::{Client, connect_and_read, reason};
use hsm_tests::daemon::{ALL_KINDS, Daemon, Hsm, grant};
use hsm_tests::node::{block, proposal, vote};
use hsm_tests::process::Scratch;
use hsm_tests::validator::{CHAIN, KEY, SENTRY, Setup, Transport, Validator};
use tendermint_proto::v0_38::types::SignedMsgType::{Precommit, Prevote};
use tendermint_proto::v0_38::types::{BlockId, PartSetHeader, Vote};

fn on_both_transports(change: impl Fn(&mut Setup<'_>), test: impl Fn(&mut Validator)) {
    for transport in [Transport::Unix, Transport::Tcp] {
        let mut setup = Setup::new(transport);
        change(&mut setup);
        test(&mut Validator::start_with(&setup));
    }
}

fn refuses_votes(expected: Reason, votes: &[Vote]) -> impl Fn(&mut Validator) + '_ {
    move |validator| {
        for vote in votes {
            validator.assert_refused(expected, |node| node.sign_vote(CHAIN, vote));
        }
    }
}

fn good(_: &mut Setup<'_>) {}

// What a node may send.

#[test]
fn an_unknown_caller_is_refused() {
    let votes = [vote(Prevote, 1, 0, None)];
    on_both_transports(
        |setup| setup.granted_sentry = "another",
        refuses_votes(Reason::KeyNotGranted, &votes),
    );
}

#[test]
fn an_unknown_callers_question_for_the_public_key_is_refused() {
    on_both_transports(
        |setup| setup.granted_sentry = "another",
        |validator| {
            validator.assert_refused(Reason::KeyNotGranted, |node| node.public_key(CHAIN));
        },
    );
}

#[test]
fn an_unknown_key_is_refused() {
    let votes = [vote(Prevote, 1, 0, None)];
    on_both_transports(
        |setup| setup.asked_key = "val9",
        refuses_votes(Reason::KeyNotGranted, &votes),
    );
}

#[test]
fn a_key_that_was_not_made_known_does_not_sign() {
    let votes = [vote(Prevote, 1, 0, None)];
    on_both_transports(
        |setup| setup.initial_height = None,
        refuses_votes(Reason::KeyNotInitialised, &votes),
    );
}

#[test]
fn a_chain_that_is_not_granted_is_refused() {
    let votes = [vote(Prevote, 1, 0, None)];
    on_both_transports(
        |setup| setup.granted_chain = "another-chain",
        refuses_votes(Reason::ChainNotGranted, &votes),
    );
}

#[test]
fn a_chain_that_the_sentry_does_not_serve_is_refused() {
    on_both_transports(good, |validator| {
        let asked = vote(Prevote, 1, 0, None);
        validator.assert_refused(Reason::InvalidField, |node| {
            node.sign_vote("another-chain", &asked)
        });
        validator.assert_refused(Reason::InvalidField, |node| {
            node.public_key("another-chain")
        });
    });
}

#[test]
fn a_kind_that_is_not_granted_is_refused() {
    on_both_transports(
        |setup| setup.kinds = &["prevote", "precommit"],
        |validator| {
            let proposed = proposal(1, 0, block(1));
            validator.assert_refused(Reason::KindNotGranted, |node| {
                node.sign_proposal(CHAIN, &proposed)
            });
            let extended = Vote {
                extension: b"x".to_vec(),
                ..vote(Precommit, 1, 0, Some(block(1)))
            };
            validator.assert_refused(Reason::KindNotGranted, |node| {
                node.sign_vote(CHAIN, &extended)
            });
        },
    );
}

#[test]
fn a_vote_of_an_unknown_type_is_refused() {
    let votes = [0, 3, 32, -1].map(|kind| Vote {
        r#type: kind,
        ..vote(Prevote, 1, 0, None)
    });
    on_both_transports(good, refuses_votes(Reason::InvalidField, &votes));
}

#[test]
fn bytes_of_the_nodes_making_are_never_signed() {
    use privval::message::Sum;
    on_both_transports(good, |validator| {
        let before = validator.daemon.state();
        let request = privval::SignBytesRequest::default();
        let request = privval::Message {
            sum: Some(Sum::SignBytesRequest(request)),
        };
        validator.connection.send(&request).unwrap();
        let answer: privval::Message = validator.connection.receive_as().unwrap();
        let Some(Sum::SignBytesResponse(answer)) = answer.sum else {
            panic!("{answer:?}")
        };
        let error = answer.error.expect("a refusal");
        assert!(
            error.description.starts_with("KIND_NOT_GRANTED"),
            "{error:?}"
        );
        assert_eq!(validator.daemon.state(), before);
    });
}

#[test]
fn a_height_below_one_is_refused() {
    let votes = [-1, 0, i64::MIN].map(|height| vote(Prevote, height, 0, None));
    on_both_transports(good, refuses_votes(Reason::InvalidField, &votes));
}

#[test]
fn a_negative_round_is_refused() {
    let votes = [-1, i32::MIN].map(|round| vote(Prevote, 1, round, None));
    on_both_transports(good, refuses_votes(Reason::InvalidField, &votes));
}

#[test]
fn a_round_over_the_limit_is_refused() {
    let votes = [1001, i32::MAX].map(|round| vote(Prevote, 1, round, None));
    on_both_transports(good, refuses_votes(Reason::RoundLimit, &votes));
}

#[test]
fn a_hash_of_the_wrong_length_is_refused() {
    let header = block(1).part_set_header;
    let blocks = [
        BlockId {
            hash: vec![1; 31],
            part_set_header: header.clone(),
        },
        BlockId {
            hash: vec![1; 33],
            part_set_header: header.clone(),
        },
        BlockId {
            hash: Vec::new(),
            part_set_header: header,
        },
        BlockId {
            hash: vec![1; 32],
            part_set_header: Some(PartSetHeader {
                total: 1,
                hash: vec![1; 20],
            }),
        },
        BlockId {
            hash: vec![1; 32],
            part_set_header: Some(PartSetHeader {
                total: 0,
                hash: vec![1; 32],
            }),
        },
        BlockId {
            hash: vec![1; 32],
            part_set_header: None,
        },
    ];
    let votes = blocks.map(|block_id| vote(Prevote, 1, 0, Some(block_id)));
    on_both_transports(good, refuses_votes(Reason::InvalidField, &votes));
}

#[test]
fn a_proposal_of_no_block_is_refused() {
    on_both_transports(good, |validator| {
        let mut proposed = proposal(1, 0, block(1));
        proposed.block_id = None;
        validator.assert_refused(Reason::InvalidField, |node| {
            node.sign_proposal(CHAIN, &proposed)
        });
    });
}

#[test]
fn a_vote_without_a_timestamp_is_refused() {
    let votes = [Vote {
        timestamp: None,
        ..vote(Prevote, 1, 0, None)
    }];
    on_both_transports(good, refuses_votes(Reason::InvalidField, &votes));
}

#[test]
fn an_extension_on_a_prevote_is_refused() {
    let votes = [Vote {
        extension: b"x".to_vec(),
        ..vote(Prevote, 1, 0, Some(block(1)))
    }];
    on_both_transports(good, refuses_votes(Reason::ExtensionNotAllowed, &votes));
}

#[test]
fn an_extension_on_a_nil_precommit_is_refused() {
    let votes = [Vote {
        extension: b"x".to_vec(),
        ..vote(Precommit, 1, 0, None)
    }];
    on_both_transports(good, refuses_votes(Reason::ExtensionNotAllowed, &votes));
}

#[test]
fn an_extension_too_long_for_the_device_is_refused() {
    let votes = [2_100, 20_000].map(|length| Vote {
        extension: vec![7; length],
        ..vote(Precommit, 1, 0, Some(block(1)))
    });
    on_both_transports(good, refuses_votes(Reason::MessageTooLong, &votes));
}

#[test]
fn an_oversized_message_ends_the_connection_and_the_sentry_returns() {
    on_both_transports(good, |validator| {
        let before = validator.daemon.state();
        // The sentry may close the connection before all of it is sent.
        let _ = validator.connection.send_frame(2 << 20, &[0; 4096]);
        assert!(
            validator.connection.receive().is_err(),
            "an oversized message was answered"
        );
        validator.connection = validator.node.accept().expect("the sentry returns");
        assert_eq!(validator.daemon.state(), before);
        validator
            .connection
            .sign_vote(CHAIN, &vote(Prevote, 1, 0, None))
            .expect("it signs again");
    });
}

#[test]
fn a_truncated_frame_changes_nothing_and_the_sentry_returns() {
    on_both_transports(good, |validator| {
        let before = validator.daemon.state();
        validator.connection.send_frame(500, &[0x1a; 20]).unwrap();
        // Replacing the connection closes it, in the middle of the frame.
        let (unused, _) = std::os::unix::net::UnixStream::pair().unwrap();
        validator.connection = hsm_tests::node::Connection::Unix(std::io::BufReader::new(unused));
        validator.connection = validator.node.accept().expect("the sentry returns");
        assert_eq!(validator.daemon.state(), before);
        validator
            .connection
            .sign_vote(CHAIN, &vote(Prevote, 1, 0, None))
            .expect("it signs again");
    });
}

#[test]
fn a_frame_that_is_no_message_changes_nothing() {
    on_both_transports(good, |validator| {
        let before = validator.daemon.state();
        validator.connection.send_frame(40, &[0xff; 40]).unwrap();
        // An empty message: there is nothing to answer, and the node need not wait.
        let answer: privval::Message = validator.connection.receive_as().unwrap();
        assert_eq!(answer.sum, None);
        assert_eq!(validator.daemon.state(), before);
        validator
            .connection
            .sign_vote(CHAIN, &vote(Prevote, 1, 0, None))
            .expect("the connection stays up");
    });
}

// What a client of the gRPC API may send.

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
        expired: true,
        ..Contents::client("sentry", SENTRY)
    };
    let expired = served.daemon.authority().issue("expired", contents);
    served.assert_turned_away(Some(&expired), "CertificateExpired");
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
fn an_unknown_caller_or_key_or_chain_is_refused_by_hsmd_itself() {
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
fn a_request_with_missing_fields_is_refused_by_hsmd_itself() {
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
fn an_oversized_request_is_refused_by_hsmd_itself() {
    let served = Served::start();
    let oversized = SignCometbftVoteRequest {
        extension: Some(vec![0; 1 << 20]),
        ..request()
    };
    served.assert_refused(&served.sentry(), oversized, Reason::MessageTooLong);
}
