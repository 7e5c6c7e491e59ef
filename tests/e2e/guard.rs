//! The guard's table, row by row, through the privval socket, over UNIX sockets and TCP. Promise 2.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use hsm_proto::v1::Reason;
use hsm_tests::audit::Reservations;
use hsm_tests::node::{block, later, proposal, vote};
use hsm_tests::sign_bytes;
use hsm_tests::validator::{CHAIN, KEY, Setup, Transport, Validator};
use tendermint_proto::v0_38::types::SignedMsgType::{Precommit, Prevote};
use tendermint_proto::v0_38::types::{BlockId, SignedMsgType, Vote};

fn on_both_transports(test: impl Fn(&mut Validator)) {
    for transport in [Transport::Unix, Transport::Tcp] {
        let mut validator = Validator::start(transport);
        test(&mut validator);
        Reservations::of(&validator.daemon.journal()).assert_one_message_a_position();
    }
}

/// Signs a vote, and verifies what comes back.
#[track_caller]
fn sign(validator: &mut Validator, vote: &Vote) -> Vote {
    let public_key = validator.public_key().to_bytes();
    let signed = validator
        .connection
        .sign_vote(CHAIN, vote)
        .expect("a signature");
    let bytes = sign_bytes::vote(CHAIN, &signed);
    assert!(
        sign_bytes::verifies(&public_key, &bytes, &signed.signature),
        "the signature does not verify"
    );
    assert_eq!(
        (signed.height, signed.round, &signed.block_id),
        (vote.height, vote.round, &vote.block_id)
    );
    signed
}

fn with_extension(height: i64, extension: &[u8]) -> Vote {
    Vote {
        extension: extension.to_vec(),
        ..vote(Precommit, height, 0, Some(block(1)))
    }
}

#[test]
fn a_later_position_is_signed() {
    on_both_transports(|validator| {
        let public_key = validator.public_key().to_bytes();
        let proposed = proposal(1, 0, block(1));
        let signed = validator
            .connection
            .sign_proposal(CHAIN, &proposed)
            .expect("a signature");
        let bytes = sign_bytes::proposal(CHAIN, &signed);
        assert!(sign_bytes::verifies(&public_key, &bytes, &signed.signature));
        sign(validator, &vote(Prevote, 1, 0, Some(block(1))));
        sign(validator, &vote(Precommit, 1, 0, None));
        sign(validator, &vote(Prevote, 1, 1, Some(block(2))));
        sign(validator, &vote(Precommit, 1, 1, Some(block(2))));
        sign(validator, &vote(Prevote, 2, 0, None));
        let last = &validator.daemon.state()["keys"][0]["chains"][0]["last"];
        assert_eq!(
            (&last["height"], &last["round"], &last["step"]),
            (&2.into(), &0.into(), &"prevote".into())
        );
    });
}

#[test]
fn the_same_request_gets_the_same_answer() {
    on_both_transports(|validator| {
        let asked = vote(Prevote, 5, 0, Some(block(1)));
        let first = sign(validator, &asked);
        assert_eq!(sign(validator, &asked), first);
        let proposed = proposal(6, 0, block(1));
        let first = validator
            .connection
            .sign_proposal(CHAIN, &proposed)
            .unwrap();
        assert_eq!(
            validator
                .connection
                .sign_proposal(CHAIN, &proposed)
                .unwrap(),
            first
        );
    });
}

#[test]
fn the_same_vote_with_another_timestamp_gets_the_answer_given_first() {
    on_both_transports(|validator| {
        let asked = vote(Precommit, 5, 0, Some(block(1)));
        let first = sign(validator, &asked);
        let again = Vote {
            timestamp: later(asked.timestamp, 3),
            ..asked
        };
        assert_eq!(sign(validator, &again), first);
    });
}

#[test]
fn the_same_proposal_with_another_timestamp_gets_the_answer_given_first() {
    on_both_transports(|validator| {
        let mut asked = proposal(5, 0, block(1));
        let first = validator.connection.sign_proposal(CHAIN, &asked).unwrap();
        asked.timestamp = later(asked.timestamp, 3);
        assert_eq!(
            validator.connection.sign_proposal(CHAIN, &asked).unwrap(),
            first
        );
    });
}

#[test]
fn another_block_at_the_same_position_is_a_double_sign() {
    on_both_transports(|validator| {
        let blocks: [Option<BlockId>; 2] = [Some(block(2)), None];
        for kind in [Prevote, Precommit] {
            sign(validator, &vote(kind, 5, 0, Some(block(1))));
            for other in blocks.clone() {
                let conflicting = vote(kind, 5, 0, other);
                validator.assert_refused(Reason::DoubleSign, |node| {
                    node.sign_vote(CHAIN, &conflicting)
                });
            }
        }
        // Refusals that are alike may share an entry, which is written with their count at the latest when hsmd
        // stops.
        assert!(validator.daemon.process().terminate().success());
        let journal = validator.daemon.journal();
        let refused = journal.iter().filter(|entry| entry["event"] == "refused");
        let counts = refused.map(|entry| {
            assert_eq!(
                (&entry["reason"], &entry["height"]),
                (&"DOUBLE_SIGN".into(), &5.into())
            );
            assert_ne!(entry["sign_bytes"], "");
            entry["count"].as_u64().unwrap()
        });
        assert_eq!(counts.sum::<u64>(), 4);
    });
}

#[test]
fn a_block_after_nil_at_the_same_position_is_a_double_sign() {
    on_both_transports(|validator| {
        sign(validator, &vote(Prevote, 5, 0, None));
        let conflicting = vote(Prevote, 5, 0, Some(block(1)));
        validator.assert_refused(Reason::DoubleSign, |node| {
            node.sign_vote(CHAIN, &conflicting)
        });
    });
}

#[test]
fn another_proposal_at_the_same_position_is_a_double_sign() {
    on_both_transports(|validator| {
        validator
            .connection
            .sign_proposal(CHAIN, &proposal(5, 2, block(1)))
            .unwrap();
        let mut conflicting = proposal(5, 2, block(2));
        validator.assert_refused(Reason::DoubleSign, |node| {
            node.sign_proposal(CHAIN, &conflicting)
        });
        conflicting = proposal(5, 2, block(1));
        conflicting.pol_round = 1;
        validator.assert_refused(Reason::DoubleSign, |node| {
            node.sign_proposal(CHAIN, &conflicting)
        });
    });
}

#[test]
fn an_earlier_position_is_a_regression() {
    on_both_transports(|validator| {
        sign(validator, &vote(Precommit, 5, 2, None));
        let earlier: [(SignedMsgType, i64, i32); 4] = [
            (Prevote, 5, 2),
            (Precommit, 5, 1),
            (Precommit, 4, 2),
            (Prevote, 4, 7),
        ];
        for (kind, height, round) in earlier {
            let asked = vote(kind, height, round, Some(block(1)));
            validator.assert_refused(Reason::Regression, |node| node.sign_vote(CHAIN, &asked));
        }
        let proposed = proposal(5, 2, block(1));
        validator.assert_refused(Reason::Regression, |node| {
            node.sign_proposal(CHAIN, &proposed)
        });
    });
}

#[test]
fn nothing_at_or_below_the_initial_height_is_signed() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let setup = Setup {
            initial_height: Some(100),
            ..Setup::new(transport)
        };
        let mut validator = Validator::start_with(&setup);
        for height in [1, 100] {
            let asked = vote(Prevote, height, 0, None);
            validator.assert_refused(Reason::Regression, |node| node.sign_vote(CHAIN, &asked));
        }
        sign(&mut validator, &vote(Prevote, 101, 0, None));
    }
}

#[test]
fn a_precommit_for_another_block_than_the_prevote_is_signed() {
    on_both_transports(|validator| {
        sign(validator, &vote(Prevote, 5, 0, Some(block(1))));
        sign(validator, &vote(Precommit, 5, 0, Some(block(2))));
    });
}

#[test]
fn another_extension_of_the_same_precommit_is_signed_again() {
    on_both_transports(|validator| {
        let public_key = validator.public_key().to_bytes();
        let mut first = None;
        for extension in [b"one".as_slice(), b"two", b""] {
            let signed = sign(validator, &with_extension(5, extension));
            let bytes = sign_bytes::extension(CHAIN, 5, 0, extension);
            assert!(sign_bytes::verifies(
                &public_key,
                &bytes,
                &signed.extension_signature
            ));
            let (signature, timestamp) =
                first.get_or_insert((signed.signature.clone(), signed.timestamp));
            assert_eq!(
                (&*signature, &*timestamp),
                (&signed.signature, &signed.timestamp)
            );
        }
        let other_block = Vote {
            block_id: Some(block(2)),
            ..with_extension(5, b"three")
        };
        validator.assert_refused(Reason::DoubleSign, |node| {
            node.sign_vote(CHAIN, &other_block)
        });
    });
}

#[test]
fn a_height_beyond_the_jump_limit_is_refused_and_the_remedy_is_named() {
    on_both_transports(|validator| {
        sign(validator, &vote(Prevote, 5, 0, None));
        let far = vote(Prevote, 1006, 0, None);
        let text = validator.assert_refused(Reason::HeightJump, |node| node.sign_vote(CHAIN, &far));
        assert!(text.contains("key advance"), "{text}");
        sign(validator, &vote(Prevote, 1005, 0, None));
    });
}

#[test]
fn the_table_holds_across_a_crash() {
    on_both_transports(|validator| {
        let asked = with_extension(5, b"one");
        let first = sign(validator, &asked);
        let before = validator.daemon.state();
        validator.daemon.kill();
        validator.daemon.start();
        assert_eq!(validator.daemon.state(), before);
        let again = Vote {
            timestamp: later(asked.timestamp, 3),
            ..asked
        };
        assert_eq!(sign(validator, &again), first);
        let conflicting = vote(Precommit, 5, 0, Some(block(2)));
        validator.assert_refused(Reason::DoubleSign, |node| {
            node.sign_vote(CHAIN, &conflicting)
        });
        let earlier = vote(Precommit, 4, 0, Some(block(1)));
        validator.assert_refused(Reason::Regression, |node| node.sign_vote(CHAIN, &earlier));
        sign(validator, &vote(Prevote, 6, 0, None));
    });
}

#[test]
fn a_clean_stop_and_start_keeps_every_mark() {
    let mut validator = Validator::start(Transport::Unix);
    sign(&mut validator, &vote(Precommit, 5, 0, None));
    let before = validator.daemon.state();
    assert!(validator.daemon.process().terminate().success());
    validator.daemon.start();
    assert_eq!(validator.daemon.state(), before);
    assert_eq!(before["keys"][0]["key"], KEY);
}
