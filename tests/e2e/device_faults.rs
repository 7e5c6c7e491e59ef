//! Whatever the device does, hsmd heals without a restart, and signs one message a position. Promises 2 and 8.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::time::{Duration, Instant};

use hsm_proto::v1::Reason;
use hsm_tests::audit::Reservations;
use hsm_tests::node::{Error, block, vote};
use hsm_tests::process::{PATIENCE, wait_for};
use hsm_tests::sign_bytes;
use hsm_tests::validator::{CHAIN, Transport, Validator};
use tendermint_proto::v0_38::types::SignedMsgType::{Precommit, Prevote};
use tendermint_proto::v0_38::types::Vote;

/// What a node waits for its signer, after which it drops the connection.
const NODES_PATIENCE: Duration = Duration::from_secs(5);

/// Every fault of the emulator, and whether requests that meet it can still be answered with a signature.
const FAULTS: [(&str, bool); 9] = [
    ("hang", false),
    ("disconnect", false),
    ("lose-answers", false),
    // Met once; the request is then tried again in a new session.
    ("lose-sessions", true),
    ("cut-power", true),
    // SESSION FAILED and LOG FULL.
    ("refuse=0x06", false),
    ("refuse=0x0a", false),
    ("corrupt-answers", false),
    ("spoil-signatures", false),
];

#[test]
fn from_every_fault_of_the_device_hsmd_heals_without_a_restart_and_never_signs_twice() {
    let mut validator = Validator::start(Transport::Unix);
    let public_key = validator.connection.public_key(CHAIN).unwrap();
    let process = validator.daemon.process().id();
    for (height, (fault, survivable)) in (1..).zip(FAULTS) {
        let sign = |validator: &mut Validator, vote: &Vote| {
            let begun = Instant::now();
            let signed = validator.connection.sign_vote(CHAIN, vote);
            assert!(
                begun.elapsed() < NODES_PATIENCE,
                "{fault}: {:?}",
                begun.elapsed()
            );
            signed.inspect(|signed| {
                let bytes = sign_bytes::vote(CHAIN, signed);
                let holds = sign_bytes::verifies(&public_key, &bytes, &signed.signature);
                assert!(holds, "{fault}: a bad signature left");
            })
        };
        sign(&mut validator, &vote(Prevote, height, 0, Some(block(1)))).expect("a signature");

        validator.daemon.order_mock(&format!("fault {fault}"));
        let asked = vote(Precommit, height, 0, Some(block(1)));
        match sign(&mut validator, &asked) {
            Ok(_) => assert!(survivable, "{fault} did not happen"),
            Err(Error::Refused(_)) => {}
            Err(other) => panic!("{fault}: {other:?}"),
        }
        // Whatever became of it, its position is taken.
        let other = vote(Precommit, height, 0, Some(block(2)));
        match sign(&mut validator, &other) {
            Err(Error::Refused(refusal)) => {
                assert_eq!(refusal.code, i32::from(Reason::DoubleSign), "{fault}");
            }
            other => panic!("{fault}: {other:?}"),
        }

        validator.daemon.order_mock("clear");
        wait_for(&format!("hsmd to heal from {fault}"), PATIENCE, || {
            sign(&mut validator, &asked).ok()
        });
        validator.daemon.process().assert_running();
    }
    assert_eq!(
        validator.daemon.process().id(),
        process,
        "hsmd was restarted"
    );
    let reservations = Reservations::of(&validator.daemon.journal());
    reservations.assert_one_message_a_position();
    assert_eq!(reservations.positions(), 2 * FAULTS.len());
}
