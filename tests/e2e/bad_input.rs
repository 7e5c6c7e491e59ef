//! Every bad input that a node may send has its own clear refusal and leaves the state as it was, over UNIX
//! sockets and TCP. Promise 4.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use hsm_proto::privval;
use hsm_proto::v1::Reason;
use hsm_tests::node::{block, proposal, vote};
use hsm_tests::validator::{CHAIN, Setup, Transport, Validator};
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
    let votes = [2_100, 20_000, 100_000].map(|length| Vote {
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
